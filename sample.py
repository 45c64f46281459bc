"""Continue a prompt, or let an agent act, with a run of ours or with Qwen2.5 weights, and watch.

    python sample.py --prompt "def "                                       token by token
    python sample.py --run ~/models/Qwen2.5-0.5B-Instruct --chat --prompt "What is a landmark?"
    python sample.py --show-gate --prompt "..."                            the split embedding's gate, as colours

    python sample.py --think --world api --task 3                          an agent's decisions, step by step (think.py)
    python sample.py --think --world api --task 3 --html trace.html        the same as a page; --json trace.json as data
    python sample.py --think --tools tools.json --prompt "..."             tools of your own: you type what they say

--chat uses a folder's own chat template. Of its generation_config.json the stop tokens are read;
temperature and top-p are this program's own settings.
"""

import codecs
import json
import os
import sys
import time
from pathlib import Path

import support.openmp  # before torch

import torch

from support import chat_template
from support import checkpoint
from support.qwen import is_qwen, load_qwen
from support import settings
from support import machine
from support import tokenizer as tokenizers
from config import Eval, Sample, UserError
from fast.decoding import compiled_step
from generate import generate, next_logits
from mch import ThinkingHeads
from model import SAGE
from fast.thinking import think
from think import Thinking
from support.tokenizer import Tokenizer
from worlds.tools import check_tools, openai_tools
from support.traces import (
    closing_text,
    opening_text,
    page,
    record,
    observation_text,
    save,
    shade,
    step_text,
)
from worlds.base import Difficulty, Task, Tasks
from worlds.terminal import task_of


def load(sample: Sample) -> tuple[SAGE, Tokenizer]:
    """The model and tokenizer of a run's folder or of Qwen2.5's, with the window asked for."""
    device = machine.pick_device(sample.device)
    dtype = getattr(torch, sample.dtype)
    if is_qwen(sample.run):
        model, name = load_qwen(sample.run, dtype, device), sample.run
    else:
        model, config, _ = checkpoint.load_run(sample.run, dtype, device)
        name = config.data.tokenizer
    model.config.window = sample.window or model.config.window
    model.config.landmark_stride = sample.landmark_stride or model.config.landmark_stride
    return model, checkpoint.tokenizer_of(sample.run, name)


def show_gate(model: SAGE, tokenizer: Tokenizer, text: str, picture: str) -> None:
    """Print a text with each token on the colour of its gate; with `picture`, also draw it to that
    PNG.
    """
    if model.config.embedding != "split":
        raise UserError(
            "this model has one plain embedding and no gate; --show-gate needs model.embedding split"
        )
    tokens = tokenizer.encode(text)
    with torch.no_grad():
        gates = torch.sigmoid(
            model.embedding.prose_logits(
                torch.tensor([tokens], device=next(model.parameters()).device)
            )
        )[0].tolist()
    characters = codecs.getincrementaldecoder("utf-8")(
        errors="replace"
    )  # a character of several tokens is shown with its last
    pieces = [characters.decode(tokenizer.decode_bytes([token])) for token in tokens]
    print(
        "\x1b[0m"
        + "".join(
            f"\x1b[48;2;{r};{g};{b}m\x1b[38;2;0;0;0m{piece}".replace("\n", "\x1b[0m\n")
            for piece, (r, g, b) in zip(pieces, map(shade, gates))
        )
        + "\x1b[0m"
    )
    print(
        "gate: "
        + "".join(
            f"\x1b[48;2;{r};{g};{b}m\x1b[38;2;0;0;0m{f' {value:.1f} '}"
            for value in (0, 0.25, 0.5, 0.75, 1)
            for r, g, b in [shade(value)]
        )
        + "\x1b[0m  0 code … 1 prose"
    )
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
    figure, axis = plt.subplots(
        figsize=(columns * 0.093 + 0.3, rows * 0.2 + 0.55), layout="constrained"
    )
    row = column = 0
    for piece, gate in zip(pieces, gates):
        colour = tuple(channel / 255 for channel in shade(gate))
        for character in piece:
            if character == "\n":
                row, column = row + 1, 0
                continue
            axis.add_patch(Rectangle((column, row), 1, 1, color=colour, linewidth=0))
            axis.text(
                column + 0.5,
                row + 0.55,
                character,
                family="monospace",
                fontsize=9.5,
                ha="center",
                va="center",
            )
            column += 1
    for number in range(11):
        axis.add_patch(
            Rectangle(
                (number * 2, rows + 0.6),
                2,
                0.7,
                color=tuple(channel / 255 for channel in shade(number / 10)),
                linewidth=0,
            )
        )
    axis.text(23, rows + 0.95, "gate, from 0 (code) to 1 (prose)", fontsize=8.5, va="center")
    axis.set(xlim=(0, columns), ylim=(rows + 1.4, 0))
    axis.axis("off")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def task_for(sample: Sample, style: str) -> Task:
    """The task to be played: one of a world, or the prompt with the tools of a file.

    Raises UserError for a file that holds no tools.
    """
    if not sample.tools:
        return Tasks(
            "validation",
            Eval.seed,
            [sample.world or "api"],
            Difficulty(style=style, fault_rate=sample.fault_rate),
        )[sample.task]
    path = Path(settings.absolute(sample.tools))
    try:
        tools = openai_tools(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read as JSON ({error}); wanted a list of tools in OpenAI's or MCP's format"
        ) from None
    if faults := check_tools(tools):
        raise UserError(
            f'{path} is no list of tools: {faults[0].message}; wanted [{{"type": "function", "function": {{"name": ..., "description": ..., "parameters": a JSON Schema of type object}}}}]'
        )
    return task_of(sample.prompt, tools, style)


def act(sample: Sample, model: SAGE, tokenizer: Tokenizer) -> None:
    """One episode with its decisions, shown as they are made; the files are whole after every step,
    so also when it is stopped.
    """
    device, plain = str(next(model.parameters()).device), is_qwen(sample.run)
    heads = (
        ThinkingHeads(model.config).to(device)
        if plain
        else checkpoint.load_heads(sample.run, model.config, device)
    )
    note = (
        ""
        if heads.trained
        else "the heads are untrained: their confidences are ½ whatever they see, and the gate never asks for a second thought"
    )
    thinking = sample.thinking
    if sample.tools:
        thinking.patience = 0.0  # people type slowly
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    shown = heard = 0

    def look(so_far: Thinking) -> None:
        nonlocal shown, heard
        data = record(so_far, model, heads, tokenizer, thinking, note)
        if sample.html:
            save(page(data), sample.html)
        if sample.json and sample.json != "-":
            save(json.dumps(data, ensure_ascii=False), sample.json)
        if sample.json == "-":
            return print(json.dumps(data, ensure_ascii=False)) if data["ended"] else None
        for step in data["steps"][shown:]:
            print(
                "\n".join(
                    [
                        *([opening_text(data, coloured)] if step["number"] == 1 else []),
                        step_text(data, step, coloured),
                    ]
                ),
                flush=True,
            )
        for step in data["steps"][heard:]:
            if step["observation"] is not None:
                print(observation_text(step, coloured), flush=True)
                heard = step["number"]
        shown = len(data["steps"])
        if data["ended"]:
            print(closing_text(data, coloured))

    task = task_for(sample, tokenizer.style)
    think(model, heads, tokenizer, [task], thinking, seed=sample.seed, watch=look)
    for path in filter(None, (sample.html, sample.json.strip("-"))):
        print(f"written: {path}", file=sys.stderr)


def main() -> None:
    sample = settings.sample_from_command_line()
    model, tokenizer = load(sample)
    if sample.think:
        return act(sample, model, tokenizer)
    if sample.show_gate:
        return show_gate(model, tokenizer, sample.prompt, sample.picture)

    if sample.chat:
        messages = [
            dict(role="system", content=tokenizers.STANDARD_PROMPT),
            dict(role="user", content=sample.prompt),
        ]
        prompt = chat_template.prompt_tokens(tokenizer, messages)
    else:
        prompt = [*tokenizer.start, *tokenizer.encode(sample.prompt)]
        print(sample.prompt, end="", flush=True)

    # tokens are bytes: a character may end in a later one, so the terminal gets what an incremental
    # decoder has complete
    characters = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def stream(row: int, token: int) -> None:
        if row == 0:
            print(characters.decode(tokenizer.decode_bytes([token])), end="", flush=True)

    on_cpu = next(model.parameters()).device.type == "cpu"
    compiled = (
        sample.compile == "on"
        or sample.compile == "auto"
        and sample.tokens >= 1000
        and machine.can_compile("cpu" if on_cpu else "cuda")
    )
    began = time.perf_counter()
    texts = generate(
        model,
        [prompt] * sample.samples,
        sample.tokens,
        sample.temperature,
        sample.top_p,
        stop=tokenizer.stop,
        seed=sample.seed,
        step=compiled_step(model) if compiled else next_logits,
        on_token=stream,
    )
    seconds = time.perf_counter() - began
    print(characters.decode(b"", final=True))
    for tokens in texts[1:]:
        print(f"{'-' * 20}\n{'' if sample.chat else sample.prompt}{tokenizer.decode(tokens)}")
    drawn = sum(map(len, texts))
    print(
        f"[{drawn} tokens in {seconds:.1f} s, {drawn / max(seconds, 1e-9):.0f} tokens/s]",
        file=sys.stderr,
    )


if __name__ == "__main__":
    settings.run_script(main)
