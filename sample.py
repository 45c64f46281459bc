"""Continue a prompt, with a run of ours or with Qwen2.5 weights, and watch it come token by token.

    python sample.py --prompt "def "
    python sample.py --run ~/models/Qwen2.5-0.5B-Instruct --chat --prompt "What is a landmark?"
    python sample.py --show-gate --prompt "..."        the split embedding's gate, as colours
"""

import codecs
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in train.py

import torch

import checkpoint
import config as settings
import runtime
import tokenizer as tokenizers
from config import Sample, UserError
from generate import compiled_step, generate, step
from model import SAGE
from tokenizer import Tokenizer

PROSE_COLOUR, CODE_COLOUR = (88, 140, 222), (240, 150, 60)  # blue and orange: told apart by every kind of eye


def load(sample: Sample) -> tuple[SAGE, Tokenizer]:
    """The model and tokenizer of a run's folder, or of a folder of Qwen2.5 weights."""
    device = runtime.pick_device(sample.device)
    dtype = getattr(torch, sample.dtype)
    if (Path(sample.run) / "config.json").exists():
        return checkpoint.load_qwen(sample.run, dtype, device), tokenizers.qwen(sample.run)
    model, config, _ = checkpoint.load_run(sample.run, dtype, device)
    return model, tokenizers.load(config.data.tokenizer)


def shade(gate: float) -> tuple[int, int, int]:
    """The colour of a gate value: orange for code (0), white for undecided, blue for prose (1)."""
    target, strength = (PROSE_COLOUR, 2 * gate - 1) if gate > 0.5 else (CODE_COLOUR, 1 - 2 * gate)
    return tuple(round(255 + (channel - 255) * strength) for channel in target)


def show_gate(model: SAGE, tokenizer: Tokenizer, text: str, picture: str) -> None:
    """Print a text with each token on the colour of its gate; with `picture`, also draw it to that PNG."""
    if model.config.embedding != "split":
        raise UserError("this model has one plain embedding and no gate; --show-gate needs model.embedding split")
    tokens = tokenizer.encode(text)
    with torch.no_grad():
        gates = torch.sigmoid(model.embedding.gate_logits(torch.tensor([tokens], device=next(model.parameters()).device)))[0].tolist()
    characters = codecs.getincrementaldecoder("utf-8")(errors="replace")  # a character of several tokens is shown with its last
    pieces = [characters.decode(tokenizer.decode_bytes([token])) for token in tokens]
    print("\x1b[0m" + "".join(f"\x1b[48;2;{r};{g};{b}m\x1b[38;2;0;0;0m{piece}".replace("\n", "\x1b[0m\n") for piece, (r, g, b) in zip(pieces, map(shade, gates))) + "\x1b[0m")
    print("gate: " + "".join(f"\x1b[48;2;{r};{g};{b}m\x1b[38;2;0;0;0m{f' {value:.1f} '}" for value in (0, 0.25, 0.5, 0.75, 1) for r, g, b in [shade(value)]) + "\x1b[0m  0 code … 1 prose")
    if picture:
        draw_gate(pieces, gates, Path(picture))
        print(f"picture: {picture}")


def draw_gate(pieces: list[str], gates: list[float], path: Path) -> None:
    """The same as a picture, with the scale beside it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    lines = "".join(pieces).split("\n")
    columns, rows = max(map(len, lines)), len(lines)
    figure, axis = plt.subplots(figsize=(columns * 0.093 + 0.3, rows * 0.2 + 0.55), layout="constrained")
    row = column = 0
    for piece, gate in zip(pieces, gates):
        colour = tuple(channel / 255 for channel in shade(gate))
        for character in piece:
            if character == "\n":
                row, column = row + 1, 0
                continue
            axis.add_patch(Rectangle((column, row), 1, 1, color=colour, linewidth=0))
            axis.text(column + 0.5, row + 0.55, character, family="monospace", fontsize=9.5, ha="center", va="center")
            column += 1
    for number in range(11):
        axis.add_patch(Rectangle((number * 2, rows + 0.6), 2, 0.7, color=tuple(channel / 255 for channel in shade(number / 10)), linewidth=0))
    axis.text(23, rows + 0.95, "gate, from 0 (code) to 1 (prose)", fontsize=8.5, va="center")
    axis.set(xlim=(0, columns), ylim=(rows + 1.4, 0))
    axis.axis("off")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    sample = settings.sample_from_command_line()
    model, tokenizer = load(sample)
    if sample.show_gate:
        return show_gate(model, tokenizer, sample.prompt, sample.picture)

    if sample.chat:
        prompt, _ = tokenizer.encode_chat([dict(role="system", content=tokenizers.STANDARD), dict(role="user", content=sample.prompt)], generation_prompt=True)
        stop = tokenizer.stop
    else:
        prompt, stop = [tokenizer.end_of_text, *tokenizer.encode(sample.prompt)], [tokenizer.end_of_text]
        print(sample.prompt, end="", flush=True)

    # tokens are bytes: a character may end in a later one, so the terminal gets what an incremental decoder has complete
    characters = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def stream(row: int, token: int) -> None:
        if row == 0:
            print(characters.decode(tokenizer.decode_bytes([token])), end="", flush=True)

    on_cpu = next(model.parameters()).device.type == "cpu"
    compiled = sample.compile == "on" or sample.compile == "auto" and sample.tokens >= 1000 and runtime.can_compile("cpu" if on_cpu else "cuda")
    began = time.perf_counter()
    texts = generate(model, [prompt] * sample.samples, sample.tokens, sample.temperature, sample.top_p, stop, sample.seed,
                     compiled_step(model) if compiled else step, stream)
    seconds = time.perf_counter() - began
    print(characters.decode(b"", final=True))
    for tokens in texts[1:]:
        print(f"{'-' * 20}\n{'' if sample.chat else sample.prompt}{tokenizer.decode(tokens)}")
    drawn = sum(map(len, texts))
    print(f"[{drawn} tokens in {seconds:.1f} s, {drawn / max(seconds, 1e-9):.0f} tokens/s]", file=sys.stderr)


if __name__ == "__main__":
    settings.run(main)
