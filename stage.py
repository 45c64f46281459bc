"""What the stages of post-training share: where a stage begins, how it goes on, and how it ends (paper §3).

    out/toy/base → amplified → varied → reflected → safe → sage → thinking

Each stage is a run of its own beside the base run: it takes the decoder from the stage before and writes checkpoints, a log and a curve
into its own folder. The last one has sage's decoder, unchanged, and heads beside it. The loops, which differ, stand in distill.py, rl.py and heads.py; this file has only what would otherwise stand there four times.
"""

import json
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import threads  # before torch

import torch
from torch import nn

import checkpoint
import config as settings
import runtime
import tokenizer as tokenizers
from config import Config, Loop, Model, UserError
from model import SAGE
from muon import optimizers, set_rate

STAGES = ["base", "amplified", "varied", "reflected", "safe", "sage"]  # those that change the decoder
FREE = {"log_every", "save_every", "keep", "device", "dtype", "compile"}  # what may differ between a run and its resumption


def open_model(
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    window: int = Model.window,
    stride: int = Model.landmark_stride,
) -> SAGE:
    """The decoder of a run's last checkpoint, or of a folder of Qwen2.5 weights. Raises UserError.

    `window` and `stride` are for Qwen's weights, which name neither; a run has its own.
    """
    if checkpoint.is_qwen(folder):
        return checkpoint.load_qwen(folder, dtype, device, window, stride)
    return checkpoint.load_run(folder, dtype, device)[0]


def head_of(model: SAGE) -> torch.Tensor:
    """The matrix (V, D) that maps a model's hidden states to logits."""
    return model.embedding.text.weight if model.head is None else model.head.weight


class Stage:
    """One stage's run. `first` is the step it stands at, `kept` what its last checkpoint was given to keep (empty at the beginning).

    `section` is its settings (config.distill, config.dpo, config.ppo, config.heads), `steps` its length; `heads` makes modules for the decoder's shape that learn
    beside it, or with `frozen` alone.
    Raises UserError for a folder that is missing, that another stage wrote, or whose settings differ from those of a resumed run.
    """

    def __init__(self, config: Config, name: str, previous: str, steps: int, section: Loop, heads: Callable[[Model], nn.ModuleDict] | None = None, rate: float = 1.0,
                 frozen: bool = False):
        self.config, self.name, self.section, self.steps, self.rate = config, name, section, steps, rate
        lineage = Path(config.out).parent
        self.folder = lineage / (section.name or name)
        self.source = Path(settings.anchored(section.start)) if section.start else lineage / previous
        self.device = runtime.pick_device(section.device)
        runtime.settle(self.device)
        torch.manual_seed(section.seed)
        done = checkpoint.checkpoints(self.folder)
        if done and not config.resume:
            meta, _ = checkpoint.read_meta(done[-1])
            raise UserError(f"{self.folder} holds this stage at step {meta['step']} of {steps}; go on with --resume, or delete the folder to begin anew")
        self.kept, self.first, self.scale = {}, 0, 0.0
        mine = {key: value for key, value in asdict(section).items() if key not in FREE}
        if done:
            meta, stored = checkpoint.read_meta(done[-1])
            if meta.get("stage") != name:
                raise UserError(f"{self.folder} was written by stage {meta.get('stage', 'train')}, not {name}; give another name, or delete it")
            then = {key: value for key, value in meta["settings"][type(section).__name__.lower()].items() if key not in FREE}
            if then != mine:
                changed = ", ".join(f"{key}: {then.get(key)!r} → {value!r}" for key, value in mine.items() if then.get(key) != value)
                raise UserError(f"{self.folder} was begun with other settings ({changed}); give the same ones with --resume, or delete the folder")
            for key in ("window", "landmark_stride") if checkpoint.is_qwen(self.source) else ():
                asked, begun = getattr(config.model, key), getattr(stored.model, key)
                if asked != begun:
                    raise UserError(
                        f"{self.folder} was begun with model.{key} {begun}, not {asked}; "
                        "give the same one with --resume, or delete the folder"
                    )
            self.kept, self.first, config.model, origin = meta["kept"], meta["step"], stored.model, done[-1]
            section.dtype = meta["settings"][type(section).__name__.lower()]["dtype"]  # measured when the stage began; another one would not be the same run
            self.model = checkpoint.allocate(stored.model, torch.float32, self.device)
        else:
            if not checkpoint.is_qwen(self.source) and not checkpoint.checkpoints(self.source):
                raise UserError(f"stage {name} starts from {self.source}, where there is no run; {HOW_TO_MAKE.get(previous, 'make it first')}, or name a run's folder as start")
            self.model = self.another(self.source)
            config.model = self.model.config
        dtype = runtime.pick_dtype(section.dtype, self.device)
        section.dtype = str(dtype).removeprefix("torch.")
        self.autocast = torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=dtype == torch.bfloat16)
        self.heads = heads = heads(config.model).to(self.device) if heads else None
        self.tokenizer = tokenizers.load(config.data.tokenizer)
        if self.tokenizer.vocab_size > config.model.vocab_size:
            raise UserError(f"tokenizer {self.tokenizer.name} has {self.tokenizer.vocab_size} tokens, the model of {self.source} {config.model.vocab_size}; name its tokenizer in data.tokenizer")
        self.style = self.tokenizer.style
        self.model.train()
        self.model.requires_grad_(not frozen)
        self.optimizers = optimizers(heads if frozen else self.model, section, dtype)
        if heads is not None and not frozen:
            self.optimizers.append(torch.optim.AdamW(heads.parameters(), lr=section.learning_rate, weight_decay=0.0, betas=(section.beta1, section.beta2)))
            self.optimizers[-1].param_groups[0]["peak"] = section.learning_rate
        if done:
            checkpoint.load(origin, self.model, self.optimizers, heads)
        self.peak = runtime.matmul_peak(self.device, dtype)
        self.log = runtime.Log(self.folder, steps, self.first)
        self.log.say(f"stage   {name}: from {os.path.relpath(self.source, settings.ROOT)} to {os.path.relpath(self.folder, settings.ROOT)}, {steps:,} steps on {self.device}, "
                     f"products in {str(dtype).removeprefix('torch.')}")
        if self.first:
            self.log.say(f"resume  from step {self.first}")

    def another(self, folder: str | Path) -> SAGE:
        """A folder's model on this stage's device; Qwen's weights get this stage's window."""
        shape = self.config.model
        return open_model(folder, torch.float32, self.device, shape.window, shape.landmark_stride)

    @property
    def head(self) -> torch.Tensor:
        """The matrix (V, D) that maps hidden states to logits."""
        return head_of(self.model)

    def update(self, step: int) -> float:
        """Clip the gradients, take the optimisers' step at the schedule's rate, clear the gradients; the norm before clipping.

        Decoder and heads are clipped each by its own norm: a value head's errors must not shrink
        the policy's step. The norm returned is the decoder's, or the heads' where the decoder is
        frozen. Raises UserError for a gradient that is not finite, before anything was changed.
        """
        modules = [module for module in (self.model, self.heads) if module is not None]
        groups = [[p for p in module.parameters() if p.grad is not None] for module in modules]
        clip = self.section.clip
        norms = [torch.nn.utils.clip_grad_norm_(group, clip) for group in groups if group]
        if broken := [norm.item() for norm in norms if not norm.isfinite()]:
            kept = checkpoint.checkpoints(self.folder)
            raise UserError(
                f"step {step}: the gradient is {broken[0]}; lower the learning rate. "
                + (f"Last good checkpoint: {kept[-1]}" if kept else f"Intact: {self.source}")
            )
        self.scale = self.rate * set_rate(self.optimizers, self.section, step, self.steps, self.rate)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norms[0].item()

    def save(self, step: int, **kept) -> Path:
        """Write a checkpoint; `kept` (what JSON can hold) comes back as `self.kept` when the stage is resumed."""
        return checkpoint.save(self.folder, self.config, self.model, self.optimizers, step, {}, self.section.keep, self.heads, stage=self.name, kept=kept)

    def stop(self, step: int, **kept) -> None:
        """Save and leave, after Ctrl-C; says how to go on."""
        saved = self.save(step, **kept)
        self.log.bar.close()
        command = shlex.join(["python", *(word for word in sys.argv if word != "--resume"), "--resume"])
        print(f"\nstopped at step {step}, saved {saved}\ngo on with {command}")
        raise SystemExit(130)

    def finished(self) -> bool:
        """Whether the last checkpoint is the stage's end: then there is nothing to do, and it says so."""
        if self.first >= self.steps:
            print(f"stage {self.name} is complete")
        return self.first >= self.steps

    def finish(self, left: str = "loss", right: str = "") -> None:
        """Close the log, draw the curve of one or two logged figures, and say where everything is."""
        self.log.bar.close()
        print(f"saved   {checkpoint.latest(self.folder)}\ncurve   {runtime.draw_curve(self.folder, f'stage {self.name}', left, right)}")


HOW_TO_MAKE = {
    "base": "make it with python train.py config/toy.py",
    "amplified": "make it with python distill.py config/toy.py --stage amplify",
    "varied": "make it with python distill.py config/toy.py --stage vary",
    "reflected": "make it with python distill.py config/toy.py --stage reflect",
    "safe": "make it with python rl.py config/toy.py --stage dpo",
    "sage": "make it with python rl.py config/toy.py --stage ppo",
    "thinking": "make it with python heads.py config/toy.py",
}
