"""The split embedding's gate as colours behind a text (paper §2.2): in the terminal and as a PNG.

gates = prose_shares(model, tokens)                     one per token, from 0 (code) to 1 (prose)
print(coloured_text(token_texts(tokens, tokenizer), gates))
draw_gates(token_texts(tokens, tokenizer), gates, path)
"""

import codecs
from pathlib import Path

import torch

from model import SAGE
from support.tokenizer import Tokenizer

# blue and orange, which colour-blind readers can tell apart too
BLUE = (88, 140, 222)
ORANGE = (240, 150, 60)
RESET = "\x1b[0m"


def shade(gate: float) -> tuple[int, int, int]:
    """A gate value's colour: orange for code (0), white for undecided (½), blue for prose (1)."""
    target = BLUE if gate > 0.5 else ORANGE
    strength = abs(2 * gate - 1)
    return tuple(round(255 + (channel - 255) * strength) for channel in target)


def token_texts(tokens: list[int], tokenizer: Tokenizer) -> list[str]:
    """The text of each token; a character of several tokens stands with its last one."""
    characters = codecs.getincrementaldecoder("utf-8")(errors="replace")
    return [characters.decode(tokenizer.decode_bytes([token])) for token in tokens]


@torch.no_grad()
def prose_shares(model: SAGE, tokens: list[int]) -> list[float]:
    """The gate at each token; ½ throughout for a model with one plain embedding."""
    if model.config.embedding != "split":
        return [0.5] * len(tokens)
    device = next(model.parameters()).device
    logits = model.embedding.prose_logits(torch.tensor([tokens], device=device))  # (1, T)
    return torch.sigmoid(logits)[0].tolist()


def coloured_text(texts: list[str], gates: list[float]) -> str:
    """Tokens on their gates' colours, and a scale below them, in a terminal's escape codes."""

    def on_colour(text: str, gate: float) -> str:
        red, green, blue = shade(gate)
        return f"\x1b[48;2;{red};{green};{blue}m\x1b[38;2;0;0;0m{text}"

    lines = "".join(on_colour(text, gate) for text, gate in zip(texts, gates, strict=True))
    lines = lines.replace("\n", f"{RESET}\n")
    scale = "".join(on_colour(f" {gate:.1f} ", gate) for gate in (0, 0.25, 0.5, 0.75, 1))
    return f"{RESET}{lines}{RESET}\ngate: {scale}{RESET}  0 code … 1 prose"


def draw_gates(texts: list[str], gates: list[float], path: Path) -> None:
    """The same as a PNG: one rectangle per character, and the scale below."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    def rectangle(x: float, y: float, width: float, height: float, gate: float) -> Rectangle:
        colour = [channel / 255 for channel in shade(gate)]
        return Rectangle((x, y), width, height, color=colour, linewidth=0)

    lines = "".join(texts).split("\n")
    columns = max(map(len, lines))
    rows = len(lines)
    size = (columns * 0.093 + 0.3, rows * 0.2 + 0.55)  # inches
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    letter = dict(family="monospace", fontsize=9.5, ha="center", va="center")
    row = column = 0
    for text, gate in zip(texts, gates, strict=True):
        for character in text:
            if character == "\n":
                row += 1
                column = 0
                continue
            axis.add_patch(rectangle(column, row, 1, 1, gate))
            axis.text(column + 0.5, row + 0.55, character, **letter)
            column += 1
    for tenth in range(11):
        axis.add_patch(rectangle(tenth * 2, rows + 0.6, 2, 0.7, tenth / 10))
    axis.text(23, rows + 0.95, "gate, from 0 (code) to 1 (prose)", fontsize=8.5, va="center")
    axis.set(xlim=(0, columns), ylim=(rows + 1.4, 0))
    axis.axis("off")
    figure.savefig(path, dpi=150)
    plt.close(figure)
