"""What the stages of post-training share: where a stage begins, how it goes on, and how it ends
(paper §3).

    out/toy/base → distilled → reflected → safe → sage → thinking

Each stage is a run of its own beside the base run: it takes the decoder from the stage before and
writes checkpoints, a log and a curve into its own folder. The last one has sage's decoder,
unchanged, and heads beside it. The loops, which differ, stand in distill.py, rl.py and heads.py;
this file has only what would otherwise stand there four times.
"""

import contextlib
import math
import os
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import support.openmp  # before torch

import torch
from torch import Tensor, nn

from support import checkpoint
from support.qwen import is_qwen, load_qwen
from support.weights import allocate_model
from support import settings
from support import provenance
from support import machine
from support.log import Log, draw_curve
from config import Config, Loop, Model, UserError
from worlds.expert import fingerprint
from model import SAGE
from fast.muon import optimizers, set_rate
from support.provenance import differences
from worlds.base import Difficulty

STAGES = [
    "base",
    "distilled",
    "reflected",
    "safe",
    "sage",
]  # those that change the decoder
# What may differ between a run and its resumption; of what paths name the contents are compared.
FREE = {"log_every", "save_every", "keep", "device", "dtype", "compile"}
FREE |= {"start", "name", "file", "kl_teacher"}


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
    if is_qwen(folder):
        return load_qwen(folder, dtype, device, window, stride)
    return checkpoint.load_run(folder, dtype, device)[0]


class Meter:
    """What a loop has done since its last log line: means of its figures, and its speed.

        meter = Meter(first_step)
        meter.count(tokens=4096, flops=2e9)       in every step; sums
        meter.add(loss=loss, norm=norm)           numbers, or tensors of one element
        meter.log_line(log, step, peak)           means since the last line; begins anew

    Tensors are read when the line is written, so that no step waits for a GPU.
    """

    def __init__(self, step: int):
        self.restart(step)

    def restart(self, step: int) -> None:
        self.step = step  # the one of the last log line
        self.began = time.perf_counter()
        self.tokens = 0
        self.flops = 0.0
        self.values: dict[str, list[float | Tensor]] = defaultdict(list)

    def count(self, tokens: int = 0, flops: float = 0.0) -> None:
        self.tokens += tokens
        self.flops += flops

    def add(self, **figures: float | Tensor) -> None:
        for name, value in figures.items():
            self.values[name].append(value.detach() if isinstance(value, Tensor) else value)

    def means(self) -> dict[str, float]:
        """Mean of each figure over those of its values that are numbers; one without any is left
        out.
        """
        means = {}
        for name, values in self.values.items():
            numbers = [float(value) for value in values if not math.isnan(value)]
            if numbers:
                means[name] = sum(numbers) / len(numbers)
        return means

    @contextlib.contextmanager
    def paused(self):
        """Time inside the block is not the loop's: validation, samples, checkpoints."""
        start = time.perf_counter()
        yield
        self.began += time.perf_counter() - start

    def log_line(self, log: Log, step: int, peak: float, **figures: float) -> None:
        """Log `figures` (the means, where none are given) and the speed; `peak` is in FLOP/s."""
        seconds = time.perf_counter() - self.began
        log.line(
            step,
            seconds / (step - self.step) * 1e3,
            self.tokens / seconds,
            self.flops / seconds / peak,
            **(figures or self.means()),
        )
        self.restart(step)


class Stage:
    """One stage's run. `first` is the step it stands at, `kept` what its last checkpoint was given
    to keep (empty at the beginning).

    `section` is its settings (config.distill, config.dpo, config.ppo, config.heads), `steps` its
    length; `heads` makes modules for the decoder's shape that learn
    beside it, or with `frozen` alone. `made_from` is what its data depends on beside them; the
    source's weights, the tokenizer and the drawn tasks are added, and every checkpoint records it.
    Raises UserError for a folder that is missing, that another stage or another process writes, or
    whose settings, source run, tokenizer, data or tasks are not those of the run to be resumed.
    """

    def __init__(
        self,
        config: Config,
        name: str,
        previous: str,
        steps: int,
        section: Loop,
        heads: Callable[[Model], nn.ModuleDict] | None = None,
        rate: float = 1.0,
        frozen: bool = False,
        made_from: dict | None = None,
    ):
        self.config, self.name, self.section, self.steps, self.rate = (
            config,
            name,
            section,
            steps,
            rate,
        )
        lineage = Path(config.out).parent
        self.folder = lineage / (section.name or name)
        self.source = (
            Path(settings.absolute(section.start)) if section.start else lineage / previous
        )
        self.device = machine.pick_device(section.device)
        machine.set_arithmetic(self.device)
        torch.manual_seed(section.seed)
        runs = checkpoint.checkpoints(self.source) + checkpoint.checkpoints(self.folder)
        if not runs and not is_qwen(self.source):
            command = checkpoint.COMMANDS.get(previous)
            remedy = f"make it with {command}" if command else "make it first"
            raise UserError(
                f"stage {name} starts from {self.source}, where there is no run; "
                f"{remedy}, or name a run's folder as start"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        provenance.claim(self.folder)
        done = checkpoint.checkpoints(self.folder)
        meta, stored = checkpoint.read_meta(done[-1]) if done else (None, None)
        if done and not config.resume:
            raise UserError(
                f"{self.folder} holds this stage at step {meta['step']} of {steps}; go on with --resume, or delete the folder to begin anew"
            )
        self.kept, self.first, self.scale, notes = {}, 0, 0.0, []
        learnt = self.folder if done else self.source
        self.tokenizer = checkpoint.tokenizer_of(learnt, config.data.tokenizer)
        self.style = self.tokenizer.style
        self.made_from = self.record(made_from or {}, complete=bool(done) and meta["step"] >= steps)
        if done:
            notes = self.compare(meta)
            self.kept, self.first, config.model, origin = (
                meta["kept"],
                meta["step"],
                stored.model,
                done[-1],
            )
            # measured when the stage began; another one would not be the same run
            section.dtype = getattr(stored, type(section).__name__.lower()).dtype
            self.model = allocate_model(stored.model, torch.float32, self.device)
        else:
            self.model = self.another(self.source)
            config.model = self.model.config
        dtype = machine.pick_dtype(section.dtype, self.device)
        section.dtype = str(dtype).removeprefix("torch.")
        self.autocast = torch.autocast(
            self.device.split(":")[0], torch.bfloat16, enabled=dtype == torch.bfloat16
        )
        self.heads = heads = heads(config.model).to(self.device) if heads else None
        self.model.train()
        self.model.requires_grad_(not frozen)
        self.optimizers = optimizers(heads if frozen else self.model, section, dtype)
        if heads is not None and not frozen:
            self.optimizers.append(
                torch.optim.AdamW(
                    heads.parameters(),
                    lr=section.learning_rate,
                    weight_decay=0.0,
                    betas=(section.beta1, section.beta2),
                )
            )
            self.optimizers[-1].param_groups[0]["peak"] = section.learning_rate
        if done:
            checkpoint.load_checkpoint(origin, self.model, self.optimizers, heads)
        self.peak = machine.matmul_peak(self.device, dtype)
        self.log = Log(self.folder, steps, self.first)
        self.log.say(
            f"stage   {name}: from {os.path.relpath(self.source, settings.ROOT)} to {os.path.relpath(self.folder, settings.ROOT)}, {steps:,} steps on {self.device}, "
            f"products in {str(dtype).removeprefix('torch.')}"
        )
        for note in notes:
            self.log.say(f"note    {note}")
        if done:
            self.log.say(f"resume  from step {self.first}")
        elif config.resume:
            self.log.say(f"resume  there is nothing in {self.folder.name} to go on from: it begins")

    def names(self, settings: dict) -> dict:
        """Settings of the stage's section by their full names, without those that are free."""
        section = type(self.section).__name__.lower()
        return {f"{section}.{name}": value for name, value in settings.items() if name not in FREE}

    def record(self, more: dict, complete: bool) -> dict:
        """All that the stage is made from, as checkpoints and data files record it; a complete one
        draws no more tasks."""
        self.defaults = self.names(asdict(type(self.section)()))
        now = self.names(asdict(self.section))
        found = {
            "settings": now,
            "given": [name for name, value in now.items() if value != self.defaults[name]],
            "source run": checkpoint.weights_identity(self.source),
            "tokenizer": self.tokenizer.hash,
            **more,
        }
        if is_qwen(self.source):  # a run has its own
            shape = self.config.model
            found["window"] = [shape.window, shape.landmark_stride]
        if not complete:
            faults = self.section if hasattr(self.section, "fault_rate") else self.config.distill
            worlds = [*self.section.worlds.split(","), "safety"]  # dpo's pairs are always safety's
            difficulty = Difficulty.of(faults, style=self.style)
            found["tasks"] = fingerprint(worlds, self.section.seed, difficulty)
        return found

    def compare(self, meta: dict) -> list[str]:
        """What there is to say about resuming a checkpoint. Raises UserError where it was made from
        something else than this stage would be."""
        if meta.get("stage") != self.name:
            raise UserError(
                f"{self.folder} was written by stage {meta.get('stage', 'train')}, not "
                f"{self.name}; give another name, or delete it"
            )
        notes = [f"{setting} is no longer a setting" for setting in checkpoint.unknown_settings(meta)]
        stored = meta["settings"].get(type(self.section).__name__.lower(), {})
        then, now = dict(meta.get("made_from", {})), dict(self.made_from)
        then |= dict(settings=self.names(stored), given=meta.get("given", []))
        if (asked := self.section.dtype) != "auto":
            then["dtype"], now["dtype"] = stored.get("dtype", asked), asked
        if "made_from" not in meta:
            notes.append(
                "an older version of the code made this run, without a record of what "
                "from: only settings are compared"
            )
            now = {name: now[name] for name in ("settings", "dtype") if name in now}
        elif now["source run"] is None:
            notes.append(f"{self.source} is gone: whether this stage began from it cannot be told")
            now["source run"] = self.made_from["source run"] = then["source run"]
        if "tasks" not in now:
            then.pop("tasks", None)
        if found := differences(then, now, self.defaults):
            other = any(line.startswith("source run") for line in found)
            hint = f"; the run in {self.source} is not the one that this stage began from" * other
            raise UserError(
                f"{self.folder} was begun with other settings or from something else "
                f"({'; '.join(found)}){hint}; give the same command with --resume, or "
                "delete the folder to make it anew"
            )
        return notes

    def another(self, folder: str | Path) -> SAGE:
        """A folder's model on this stage's device; Qwen's weights get this stage's window."""
        shape = self.config.model
        return open_model(folder, torch.float32, self.device, shape.window, shape.landmark_stride)

    def update(self, step: int) -> float:
        """Clip the gradients, take the optimisers' step at the schedule's rate, clear the
        gradients; the norm before clipping.

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
        self.scale = self.rate * set_rate(
            self.optimizers, self.section, step, self.steps, self.rate
        )
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norms[0].item()

    def is_log_step(self, step: int, last: int | None = None) -> bool:
        """Whether a log line is due; `last` is the loop's last step, of the whole run as a rule."""
        return step % self.section.log_every == 0 or step == (last or self.steps)

    def log_line(
        self, step: int, meter: Meter, figures: dict | None = None, shown: tuple[str, ...] = ()
    ) -> None:
        """Log the `figures` of an interval (the meter's means, where none are given) and the rate.

        Where `shown` names some of them, the others go to log.jsonl only.
        """
        figures = meter.means() if figures is None else figures
        line = {name: figures[name] for name in shown or figures if name in figures}
        meter.log_line(
            self.log, step, self.peak, **line, lr=self.section.learning_rate * self.scale
        )
        if hidden := {name: value for name, value in figures.items() if name not in line}:
            self.log.write(step=step, **hidden)

    def end_step(
        self, step: int, stopping: Callable[[], bool], last: int | None = None, **kept
    ) -> None:
        """Move the bar; write a checkpoint where one is due; where a stop was asked for, leave.

        `kept` and `last` are as in `save` and `is_log_step`.
        """
        self.log.bar.update()
        if stopping():
            self.stop(step, **kept)
        every = self.section.save_every
        if step == (last or self.steps) or every and step % every == 0:
            self.save(step, **kept)

    def save(self, step: int, **kept) -> Path:
        """Write a checkpoint;

        `kept` (what JSON can hold) comes back as `self.kept` when the stage is resumed.
        """
        tokenizer = checkpoint.tokenizer_record(self.tokenizer)
        return checkpoint.save_checkpoint(
            self.folder,
            self.config,
            self.model,
            self.optimizers,
            step,
            keep=self.section.keep,
            heads=self.heads,
            stage=self.name,
            kept=kept,
            made_from=self.made_from,
            tokenizer=tokenizer,
        )

    def stop(self, step: int, **kept) -> None:
        """Save and leave, after Ctrl-C; says how to go on."""
        saved = self.save(step, **kept)
        self.log.bar.close()
        command = shlex.join(
            ["python", *(word for word in sys.argv if word != "--resume"), "--resume"]
        )
        print(f"\nstopped at step {step}, saved {saved}\ngo on with {command}")
        raise SystemExit(130)

    def finished(self) -> bool:
        """Whether the last checkpoint is the stage's end: then there is nothing to do, and it says
        so.
        """
        if self.first >= self.steps:
            print(f"stage {self.name} is complete: all {self.steps:,} steps are in {self.folder}")
        return self.first >= self.steps

    def finish(self, left: str = "loss", right: str = "") -> None:
        """Close the log, draw the curve of one or two logged figures, and say where everything is."""
        self.log.bar.close()
        print(
            f"saved   {checkpoint.latest(self.folder)}\ncurve   {draw_curve(self.folder, f'stage {self.name}', left, right)}"
        )
