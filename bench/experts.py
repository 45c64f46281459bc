"""Do all experts stay in use, with and without the losses of appendix A.3? A small decoder of two
layers with eight experts each, two of them per token, on Python's standard library, trained once
for each variant and seed.

    python bench/experts.py            about 8 minutes on one core; prints, records
                                       docs/results/experts.json, draws docs/experts.png
    python bench/experts.py --seeds 1 --steps 60 --dry    a quick look that records nothing

Variants: no auxiliary loss, the z-loss alone, the balance loss alone, both. With one seed all begin
with the same weights and read the same rows. Figures, of a layer's load over the last tenth of the
steps, then the mean over layers:
- entropy of the load / log N: 1 is even, log 2 / log 8 = 0.33 is the same two experts always
- least and most used expert: its share of the choices × N, 1 is an even share
- idle: experts with less than a tenth of an even share, of the 16 in both layers
and the held-out loss.
"""

import math
import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import support.openmp  # before torch

import torch
import tyro
from torch import Tensor

import moe
from config import Data, Model, Train
from losses import cross_entropy, prose_loss
from model import SAGE, parameters
from support import machine
from support import result_tables as results
from support.optimizers import make_optimizers, set_rates, warmup_stable_decay
from support.token_files import TokenLoader, token_files
from support.tokenizer import toy
from train import bits_per_byte

SHAPE = Model(
    width=64,
    layers=2,
    heads=2,
    kv_heads=1,
    feed_forward=96,
    previous_token=True,
    experts=8,
    experts_per_token=2,
)
# weights of the balance loss and of the z-loss
VARIANTS = {
    "neither": (0.0, 0.0),
    "z-loss": (0.0, Train.router_z_loss),
    "balance": (Train.balance_weight, 0.0),
    "both": (Train.balance_weight, Train.router_z_loss),
}


@dataclass
class Settings:
    """How long each variant trains, and how often."""

    steps: int = 300
    seeds: int = 3
    variants: tuple[str, ...] = tuple(VARIANTS)
    batch: int = 8
    sequence: int = 256
    experts_per_token: int = SHAPE.experts_per_token
    optimizer: str = "muon"  # of the matrices, the routers' too; or adamw
    dry: bool = False  # record and draw nothing


def train(s: Settings, variant: str, seed: int, files: tuple) -> tuple[Tensor, float]:
    """The load of each expert (steps, L, N) as it was trained, and the held-out bits per byte."""
    balance_weight, z_weight = VARIANTS[variant]
    c = Train(
        steps=s.steps,
        batch=s.batch,
        muon_learning_rate=0.005,  # as in config/toy.py
        optimizer=s.optimizer,
        balance_weight=balance_weight,
        router_z_loss=z_weight,
    )
    k = s.experts_per_token
    model = SAGE(replace(SHAPE, experts_per_token=k), seed).train()
    routers = moe.find_routers(model)
    optimizers = make_optimizers(model, c, torch.float32)
    loader = TokenLoader(files[0], s.sequence, s.batch, seed)
    loads = []
    for step in range(1, s.steps + 1):
        set_rates(optimizers, warmup_stable_decay(c, step, s.steps))
        tokens, kinds = loader.next()
        inputs, targets = tokens[:, :-1], tokens[:, 1:]  # (B, T)
        with moe.router_logits(routers) as logits:
            loss = cross_entropy(model.hidden(inputs), model.unembedding, targets)
        gate = prose_loss(model.embedding.prose_logits(inputs), kinds[:, :-1])
        (loss + gate + moe.routing_loss(logits, k, c, step)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), c.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        loads.append(torch.stack([moe.expert_load(x, k) for x in logits]))  # (L, N)
    special = set(toy().special.values())  # these stand for no text
    sizes = [0 if i in special else len(text) for i, text in enumerate(toy().token_bytes)]
    size = dict(sequence=s.sequence, batch=s.batch, batches=20)
    bits = bits_per_byte(model, files[1], torch.tensor(sizes), "cpu", **size)
    return torch.stack(loads), bits


def figures(loads: Tensor, bits: float) -> dict[str, float]:
    """What the docstring names, of one run's loads (steps, L, N)."""
    N = loads.shape[-1]
    load = loads[-max(1, len(loads) // 10) :].mean(0)  # (L, N)
    entropy = -(load * load.clamp(min=1e-12).log()).sum(-1) / math.log(N)  # (L,)
    return {
        "entropy of the load / log N": entropy.mean().item(),
        "least used expert": N * load.amin(-1).mean().item(),
        "most used expert": N * load.amax(-1).mean().item(),
        "idle experts": (load < 0.1 / N).sum().item(),
        "held-out loss": bits,
    }


def draw(loads: dict[str, Tensor], path: Path) -> None:
    """The first seed's load of each expert over the steps, a panel for each variant."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    figure, axes = plt.subplots(1, len(loads), figsize=(11, 3.2), sharey=True, layout="constrained")
    titles = {"neither": "no auxiliary loss", "both": "both", "balance": "balance loss alone"}
    for axis, (variant, load) in zip(axes, loads.items()):
        width = max(1, len(load) // 40)
        whole = load[: len(load) // width * width]
        smooth = whole.unflatten(0, (-1, width)).mean(1)  # (points, L, N)
        steps = (torch.arange(len(smooth)) + 0.5) * width
        for layer, colour in zip(range(load.shape[1]), ("tab:blue", "tab:orange")):
            lines = axis.plot(steps, smooth[:, layer], color=colour, linewidth=0.9)
            lines[0].set_label(f"layer {layer + 1}")
        axis.axhline(1 / load.shape[-1], color="black", linewidth=0.8, linestyle=":")
        axis.set_title(titles.get(variant, f"{variant} alone"), fontsize=10)
        axis.set_xlabel("step")
        axis.set_ylim(0, 0.5)
    axes[0].set_ylabel("share of the choices, per expert")
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=80)
    plt.close(figure)
    with Image.open(path) as image:
        few_colours = image.quantize(32)
    few_colours.save(path, optimize=True)  # a fifth of the bytes


def main(s: Settings) -> None:
    machine.set_arithmetic("cpu")
    machine.keep_freed_memory()
    files = token_files(Data(), toy())
    shape = replace(SHAPE, experts_per_token=s.experts_per_token)
    idle = moe.idle_parameters(shape)
    total = parameters(shape)
    print(f"{total:,} parameters, {total - idle:,} used per token; {s.steps} steps", flush=True)
    drawn = {}
    units = {"held-out loss": "bits per byte", "idle experts": f"of {SHAPE.layers * SHAPE.experts}"}
    for variant in s.variants:
        runs = []
        for seed in range(1, s.seeds + 1):
            loads, bits = train(s, variant, seed, files)
            drawn.setdefault(variant, loads)
            runs.append(figures(loads, bits))
            words = ", ".join(f"{name} {value:.3f}" for name, value in runs[-1].items())
            print(f"{variant:8} seed {seed}: {words}", flush=True)
        for name in runs[0]:
            values = [run[name] for run in runs]
            spread = f"± {statistics.stdev(values):.3f} std" if s.seeds > 1 else ""
            print(f"{variant:8} {name:28} {statistics.mean(values):.3f} {spread}", flush=True)
            if not s.dry:
                results.record(
                    "experts",
                    f"{variant}/{name}",
                    round(statistics.mean(values), 4),
                    spread=spread,
                    seeds=s.seeds,
                    unit=units.get(name, "1 = even"),
                )
    if not s.dry:
        draw(drawn, ROOT / "docs" / "experts.png")


if __name__ == "__main__":
    main(tyro.cli(Settings))
