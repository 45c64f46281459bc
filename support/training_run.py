"""What all training scripts share: how a run begins, resumes, takes a step, logs and ends.

    out/toy/base → distilled → reflected → safe → sage → thinking       (paper §3)

Each stage is a run of its own beside the base run: it takes the decoder from the stage before and
writes checkpoints, a log and a curve into its own folder. The last one has the decoder of
sage, unchanged, and heads beside it. The loops, which differ, are in train.py, distill.py,
preferences.py, rl.py and heads.py; the functions at the top serve all of them, `TrainingRun` the
stages of post-training.
"""

import contextlib
import math
import shlex
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import support.openmp  # before torch

import torch
from torch import Tensor, nn
from torch.profiler import record_function

import parallel
from config import Config, Distill, Loop, Model, Tuning, UserError
from model import SAGE
from support import checkpoint, machine, provenance, ranks, result_tables, settings
from support.log import Interval, Log, draw_curve
from support.optimizers import make_optimizers, set_rates, warmup_stable_decay
from support.pretrained import is_pretrained, load_pretrained
from support.profiling import StepTrace
from support.weights import Parallelise, allocate_model
from worlds.difficulty import Difficulty
from worlds.expert import fingerprint
from worlds.tasks import world_names

# those that change the decoder
STAGES = [name for name in checkpoint.COMMANDS if name != "thinking"]

# What may differ between a stage's run and its resumption.
MAY_DIFFER_IN_STAGE = {
    *("log_every", "save_every", "keep", "device", "dtype", "compile", "minutes", "name"),
    *("start", "reflect_start", "file", "kl_teacher"),  # paths: their contents are compared
    "heads.eval_every",  # for the log alone; distill's may decide when the stage ends
}

# --------------------------------------------------------------------------------------------------
# All training scripts.


def open_model(
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    *,
    window: int = Model.window,
    stride: int = Model.landmark_stride,
    parallelise: Parallelise | None = None,
) -> SAGE:
    """The decoder of a run's last checkpoint, or published weights. Raises UserError.

    `window` and `stride` are for published weights, which name neither; a run has its own. Of a
    model that `parallelise` shards, each rank reads its own rows alone.
    """
    if is_pretrained(folder):
        return load_pretrained(
            folder, dtype, device, window=window, stride=stride, parallelise=parallelise
        )
    return checkpoint.load_run(folder, dtype, device, parallelise)[0]


def prepare_device(c: Loop) -> tuple[str, torch.dtype, torch.autocast]:
    """Where a run computes, its dtype, and the context that casts matrix products to it.

    Also begins the run's random numbers. A dtype that is measured, for "auto", replaces it in the
    settings.
    """
    device = machine.pick_device(c.device)
    machine.set_arithmetic(device)
    if device == "cpu":
        machine.keep_freed_memory()
    torch.manual_seed(c.seed)
    dtype = machine.pick_dtype(c.dtype, device)
    c.dtype = str(dtype).removeprefix("torch.")
    kind = device.split(":")[0]
    return device, dtype, torch.autocast(kind, torch.bfloat16, enabled=dtype == torch.bfloat16)


def claim_folder(folder: str | Path) -> Path | None:
    """Make this process the only writer of a run's folder; the run's last checkpoint, if any."""
    with ranks.fail_together():
        if ranks.rank() == 0:
            Path(folder).mkdir(parents=True, exist_ok=True)
            provenance.claim(folder)
            result_tables.commit()  # of the code that runs, whatever is checked out later
    done = checkpoint.checkpoints(folder)
    return ranks.from_first(done[-1] if done else None)


def refuse_to_overwrite(folder: str | Path, step: int, steps: int) -> None:
    """Raise UserError for a run that is there, and was not to be resumed."""
    raise UserError(
        f"{folder} holds a run at step {step} of {steps}; go on with --resume, or delete the "
        "folder to begin anew, or name another"
    )


def apply_gradients(
    optimizers: list[torch.optim.Optimizer],
    modules: list[nn.Module],
    c: Loop,
    step: int,
    folder: str | Path,
) -> float:
    """Clip the gradients, take the optimisers' step, clear the gradients.

    Each module is clipped by its own norm: a value head's errors must not shrink the policy's
    step. Returns the norm of the first one that has a gradient, before clipping. Raises UserError
    for a gradient that is not finite, before anything was changed.
    """
    norms = []
    for module in modules:
        parallel.sum_gradients(module)
        learning = [p for p in module.parameters() if p.grad is not None]
        if learning:
            norms.append(parallel.gradient_norm(learning))
            torch.nn.utils.clip_grads_with_norm_(learning, c.clip, norms[-1])
    if not all(norm.isfinite() for norm in norms):
        checkpoint.finish_saving()
        kept = checkpoint.checkpoints(folder)
        intact = f"Last good checkpoint: {kept[-1]}" if kept else "No checkpoint was written yet"
        section = type(c).__name__.lower()
        names = [name for name in vars(c) if name.endswith("learning_rate")]
        if c.optimizer != "muon":
            names.remove("muon_learning_rate")
        rates = [f"{section}.{name}" for name in names]
        raise UserError(
            f"step {step}: the gradient's norm is {', '.join(str(norm.item()) for norm in norms)}; "
            f"lower {' or '.join(rates)}. {intact}"
        )
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return norms[0].item()


def leave(log: Log, step: int, saved: Path) -> None:
    """End the process after Ctrl-C or SIGTERM, and print the command that resumes the run."""
    checkpoint.finish_saving()
    log.close()
    words = [word for word in sys.argv if word != "--resume"]
    command = shlex.join(["python", *words, "--resume"])
    if ranks.launched():
        command = command.replace("python", "torchrun …", 1)
    print(f"\nstopped at step {step}, saved {saved}\ngo on with {command}")
    raise SystemExit(130)


def freeze_below(model: SAGE, trained_blocks: int) -> None:
    """Let only the last `trained_blocks` and the norm behind them learn. Raises UserError."""
    layers = model.config.layers
    if trained_blocks > layers:
        raise UserError(
            f"trained_blocks is {trained_blocks}, and the model has {layers}; "
            "wanted at most as many"
        )
    model.requires_grad_(False)
    model.blocks[layers - trained_blocks :].requires_grad_(True)
    model.norm.requires_grad_(True)


class Meter:
    """What a loop has done since its last log line: means of its figures, and its speed.

        meter = Meter(first_step, peak)           `peak` is the device's, of machine.Peak
        with meter.waiting(): ...                 for the next examples
        with meter.alone(): ...                   work of a rank by itself, such as rollouts
        meter.count(tokens=4096, flops=2e9)       in every step, of all ranks; sums
        meter.add(loss=loss, norm=norm)           numbers, or tensors of one element
        with meter.paused(): ...                  validation, samples: not the loop's time
        meter.log_line(log, step, **meter.means())        and begins anew

    Tensors are read when the line is written; memory, skew and the speed of each rank's device are
    asked for then as well.
    """

    def __init__(self, step: int, peak: machine.Peak):
        self.peak = peak
        self.restart(step)

    def restart(self, step: int) -> None:
        self.step = step  # the one of the last log line
        self.began = time.perf_counter()
        self.waited = 0.0  # seconds of this rank
        self.worked_alone = 0.0  # seconds of this rank, waiting included
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

    @contextlib.contextmanager
    def alone(self):
        """Time inside the block is this rank's own work, less what it waits for others."""
        ranks.seconds_waited()
        start = time.perf_counter()
        yield
        self.worked_alone += time.perf_counter() - start - ranks.seconds_waited()

    @contextlib.contextmanager
    def waiting(self):
        """Time inside the block is spent waiting for data; in a trace it is called "data"."""
        before = self.worked_alone
        with self.alone(), record_function("data"):
            yield
        self.waited += self.worked_alone - before

    def log_line(self, log: Log, step: int, **figures: float) -> None:
        """Log `figures`, and what was seen of the interval. All ranks call it, at the same step."""
        log.line(step, self.interval(step), **figures)
        self.restart(step)

    def interval(self, step: int) -> Interval:
        """What was seen since the last line, of all ranks."""
        seen = ranks.gather(
            (self.worked_alone, self.waited, *machine.memory_used(self.peak.device))
        )
        worked_alone, waited, memory, reserved = zip(*seen)
        seconds = time.perf_counter() - self.began
        rate = self.flops / seconds / len(seen)  # FLOP/s of one device
        interval = Interval(
            ms=seconds / (step - self.step) * 1e3,
            tokens_per_second=self.tokens / seconds,
            peak_share=rate / self.peak.measured,
            mfu=rate / self.peak.published if self.peak.published else None,
            memory_gib=max(memory),
            reserved_gib=None if reserved[0] is None else max(reserved),
            data_wait=max(waited) / seconds,
        )
        if len(seen) > 1:
            typical = statistics.median_low(worked_alone)  # of two ranks, the one that waits
            interval.skew = (max(worked_alone) - typical) / seconds
            # The others wait for a slow device in each collective, so its own time cannot be told
            # from theirs: each multiplies some matrices alone.
            speeds = ranks.gather(self.peak.current_rate())
            interval.device_skew = 1 - min(speeds) / statistics.median_high(speeds)
            interval.slowest_rank = speeds.index(min(speeds))
        return interval


# --------------------------------------------------------------------------------------------------
# Post-training.


def adamw_of_heads(heads: nn.Module, c: Loop, rate: float) -> torch.optim.Optimizer:
    """The optimiser of heads that learn beside the decoder, at a rate of their own, no decay."""
    optimizer = torch.optim.AdamW(
        heads.parameters(), lr=rate, weight_decay=0.0, betas=(c.beta1, c.beta2)
    )
    optimizer.param_groups[0]["peak"] = rate
    return optimizer


class TrainingRun:
    """The run of one stage of post-training, begun or resumed.

        section       its settings: config.distill, dpo, ppo or heads
        steps         its length
        previous      the stage whose decoder it begins with, unless `start` or section.start names
                      another
        heads         makes modules for the decoder's shape, which learn beside it at `heads_rate`
        frozen        the decoder does not learn; the heads do, at the section's rates, those of
                      their parameters whose names begin with `pretrained` at `pretrained_rate`, if
                      it is not 0
        rate          multiplies all rates
        curve         the two logged figures that are drawn at the end
        made_from     what its data depends on beside the settings; the source's weights, the
                      tokenizer and the drawn tasks are added, and every checkpoint records it

    Then `first` is the step it stands at, `kept` what its last checkpoint was given to keep (empty
    at the beginning). Raises UserError for a folder that is missing, that another stage or another
    process writes, or whose settings, source run, tokenizer, data or tasks are not those of the run
    to be resumed.
    """

    def __init__(
        self,
        config: Config,
        name: str,
        previous: str,
        steps: int,
        section: Loop,
        *,
        heads: Callable[[Model], nn.ModuleDict] | None = None,
        heads_rate: float = 0.0,
        rate: float = 1.0,
        curve: tuple[str, str] = ("loss", ""),
        frozen: bool = False,
        pretrained: str = "",
        pretrained_rate: float = 0.0,
        made_from: dict | None = None,
        start: str | None = None,
    ):
        self.config = config
        self.name = name
        self.steps = steps
        self.section = section
        self.rate = rate
        self.curve = curve
        lineage = Path(config.out).parent
        self.folder = lineage / (section.name or name)
        self.source = lineage / previous
        start = section.start if start is None else start
        if start:
            self.source = Path(settings.absolute_model(start))

        # -- the folder, and what is in it
        runs = checkpoint.checkpoints(self.source) + checkpoint.checkpoints(self.folder)
        if not runs and not is_pretrained(self.source):
            known = not start and previous in checkpoint.COMMANDS
            remedy = f"make it with {checkpoint.command_of(previous)}" if known else "make it first"
            raise UserError(
                f"stage {name} starts from {self.source}, where there is no run; {remedy}, or name "
                "a run's folder as start"
            )
        self.refuse_experts()
        last = claim_folder(self.folder)
        meta, stored = checkpoint.read_meta(last) if last else ({"step": 0}, None)
        self.first = meta["step"]
        self.kept = meta.get("kept", {})
        self.steps = self.kept.get("steps", steps)  # fewer, where the time was too short for all
        if last and not config.resume:
            refuse_to_overwrite(self.folder, self.first, self.steps)

        # -- what it is made from; a run to be resumed must have been made from the same
        weights_folder = self.folder if last else self.source
        self.tokenizer = checkpoint.tokenizer_of(weights_folder, config.data.tokenizer)
        self.style = self.tokenizer.style
        self.section_name = type(section).__name__.lower()
        may_compile = ranks.launched() or isinstance(section, Distill)
        if section.compile == "on" and not may_compile:
            raise UserError(
                f"{self.section_name}.compile is 'on'; outside torchrun only train.py and "
                "distill.py compile"
            )
        self.defaults = self.identifying(asdict(type(section)()))
        self.made_from = self.record(made_from or {})
        remedy = "give every node the same files, programs and code"
        ranks.check_alike("data", self.made_from, remedy)
        notes = self.check_same_run(meta) if last else []

        # -- device, decoder, heads, optimisers
        if last:
            # decided when the stage began; others would not be the same run
            then = getattr(stored, self.section_name)
            section.dtype = then.dtype
            if section.compile == "auto":
                section.compile = then.compile
        self.device, dtype, self.autocast = prepare_device(section)
        self.dtype = dtype  # of matrix products
        compiles = may_compile and machine.should_compile(section.compile, steps, self.device)
        section.compile = "on" if compiles else "off"
        self.parallelise = partial(
            parallel.parallelise, c=config.parallel, dtype=dtype, compile_blocks=compiles
        )
        if last:
            home = parallel.parameter_device(config.parallel, self.device)
            self.model = allocate_model(stored.model, torch.float32, home, self.parallelise)
        else:
            self.model = self.load_decoder(self.source)
        config.model = self.model.config
        self.check_sequence()
        self.heads = heads(config.model).to(self.device) if heads else None
        self.model.requires_grad_(not frozen)
        if not frozen and section.trained_blocks:
            freeze_below(self.model, section.trained_blocks)
        self.optimizers = make_optimizers(
            self.heads if frozen else self.model, section, dtype, pretrained, pretrained_rate
        )
        if self.heads is not None and not frozen:
            self.optimizers.append(adamw_of_heads(self.heads, section, heads_rate))
        if last:
            checkpoint.load_checkpoint(last, self.model, self.optimizers, self.heads)

        self.peak = machine.Peak.of(self.device, dtype)
        self.log = Log(self.folder, self.steps, self.first, tensorboard=config.tensorboard)
        self.trace = StepTrace(config.profile, self.log)
        self.announce(notes)

    def refuse_experts(self) -> None:
        """Raise UserError for a source with experts, before its stage leaves anything behind."""
        runs = checkpoint.checkpoints(self.source)
        if not runs:
            return
        _, stored = checkpoint.read_meta(runs[-1])
        if stored.model.experts:
            raise UserError(
                f"{self.source} has {stored.model.experts} experts for each feed-forward, which "
                "only train.py keeps in balance (moe.py); start from a run without model.experts"
            )

    def check_sequence(self) -> None:
        """Raise UserError where the model cannot read the rows that this stage packs."""
        section, context = self.section, self.model.config.context
        packs = isinstance(section, Distill) or getattr(section, "replay_rows", 0)
        if packs and section.sequence > context:
            raise UserError(
                f"{self.section_name}.sequence is {section.sequence}, and the model of "
                f"{self.source} reads at most {context} tokens; lower it"
            )

    def announce(self, notes: list[str]) -> None:
        """The first lines of the log: from where to where, and what there is to note."""
        source, folder = map(settings.shown_path, (self.source, self.folder))
        self.log.say(
            f"stage   {self.name}: from {source} to {folder}, {self.steps:,} steps on "
            f"{self.device}, products in {self.section.dtype}"
        )
        self.log.say(f"peak    {self.peak}")
        for note in notes:
            self.log.say(f"note    {note}")
        if self.first:
            self.log.say(f"resume  from step {self.first}")
        elif self.config.resume:
            self.log.say(f"resume  there is nothing in {self.folder.name} to go on from: it begins")

    def load_decoder(self, folder: str | Path) -> SAGE:
        """A folder's model on this stage's device; published weights get this stage's window."""
        shape = self.config.model
        return open_model(
            folder,
            torch.float32,
            parallel.parameter_device(self.config.parallel, self.device),
            window=shape.window,
            stride=shape.landmark_stride,
            parallelise=self.parallelise,
        )

    def player(self) -> SAGE:
        """The decoder that plays episodes: the stage's own, or with `play_dtype` "products" a copy
        in the dtype of its matrix products. A sharded one is gathered in that dtype as it is.
        """
        if self.section.play_dtype == "float32" or ranks.launched():
            return self.model
        copy = allocate_model(self.model.config, self.dtype, self.device)
        copy.load_state_dict(self.model.state_dict())
        return copy.requires_grad_(False)

    # -- what the run is made from

    def identifying(self, values: dict) -> dict:
        """Of the section's settings, by their full names, those that make a run what it is."""
        return {
            f"{self.section_name}.{name}": value
            for name, value in values.items()
            if not {name, f"{self.section_name}.{name}"} & MAY_DIFFER_IN_STAGE
        }

    def record(self, more: dict) -> dict:
        """What the stage is made from: settings, source weights, tokenizer, tasks. It is stored
        with checkpoints and data files, and compared on resuming. A complete stage leaves its tasks
        out: nothing draws them any more.
        """
        now = self.identifying(asdict(self.section))
        found = {
            "settings": now,
            "given": [name for name, value in now.items() if value != self.defaults[name]],
            "source run": checkpoint.weights_identity(self.source),
            "tokenizer": self.tokenizer.hash,
            **more,
        }
        if is_pretrained(self.source):  # a run has its own
            shape = self.config.model
            found["window"] = [shape.window, shape.landmark_stride]
        if self.first < self.steps:
            # dpo's pairs are always safety's
            worlds = [*world_names(self.section.worlds), "safety"]
            if isinstance(self.section, Tuning):
                difficulty = Difficulty.of(self.section, style=self.style)
            else:  # heads.py's tasks are stage distill's; random words are for contrast alone
                babble = self.config.distill.babble if self.section.contrast else 0.0
                difficulty = Difficulty.of(self.config.distill, style=self.style, babble=babble)
            found["tasks"] = fingerprint(worlds, self.section.seed, difficulty)
        return found

    def check_same_run(self, meta: dict) -> list[str]:
        """Notes on resuming a checkpoint, for the log. Raises UserError where it was made from
        something else than this stage would be.
        """
        if meta.get("stage") != self.name:
            raise UserError(
                f"{self.folder} was written by stage {meta.get('stage', 'train')}, not "
                f"{self.name}; give another name, or delete it"
            )
        notes = [
            f"{setting} is no longer a setting" for setting in checkpoint.unknown_settings(meta)
        ]
        stored = meta["settings"].get(self.section_name, {})
        then = meta["made_from"] | dict(settings=self.identifying(stored), given=meta["given"])
        now = dict(self.made_from)
        asked = self.section.dtype
        if asked != "auto":
            then["dtype"] = stored.get("dtype", asked)
            now["dtype"] = asked
        if now["source run"] is None:
            notes.append(f"{self.source} is gone: whether this stage began from it cannot be told")
            now["source run"] = self.made_from["source run"] = then["source run"]
        if "tasks" not in now:
            then.pop("tasks", None)
        if found := provenance.differences(then, now, self.defaults):
            hint = ""
            if any(line.startswith("source run") for line in found):
                hint = f"; the run in {self.source} is not the one that this stage began from"
            raise UserError(
                f"{self.folder} was begun with other settings or from something else "
                f"({'; '.join(found)}){hint}; give the same command with --resume, or "
                "delete the folder to make it anew"
            )
        return notes

    # -- one step

    def plan(self, steps: int) -> None:
        """Take `steps` in all; checkpoints keep the number."""
        self.steps = self.log.total = self.log.bar.total = steps

    def begin_decay(self, step: int) -> None:
        """Plan so few steps that the rates fall from this one on, unless they do already."""
        planned = max(step + 1, round(step / max(1 - self.section.decay, 1e-9)))
        if planned < self.steps:
            self.plan(planned)
            self.log.say(f"plan    the rates fall from here: {planned:,} steps in all")

    def plan_minutes(self, minutes: float, seconds_per_step: float) -> None:
        """Plan as many of the steps as fit into the minutes, by what one takes here, and say so."""
        self.plan(ranks.from_first(max(1, min(self.steps, int(minutes * 60 / seconds_per_step)))))
        self.log.say(
            f"plan    {seconds_per_step:.2f} s per step on this machine: {self.steps:,} steps in "
            f"{self.steps * seconds_per_step / 60:.0f} minutes"
        )

    def update(self, step: int) -> float:
        """Take the optimisers' step at the schedule's rate; the gradient's norm before clipping,
        which is the decoder's, or the heads' where the decoder got no gradient.
        """
        set_rates(self.optimizers, warmup_stable_decay(self.section, step, self.steps), self.rate)
        modules = [module for module in (self.model, self.heads) if module is not None]
        return apply_gradients(self.optimizers, modules, self.section, step, self.folder)

    def is_log_step(self, step: int, last: int | None = None) -> bool:
        """Whether a log line is due; `last` is the loop's last step, by default the run's."""
        return step % self.section.log_every == 0 or step == (last or self.steps)

    def log_line(
        self, step: int, meter: Meter, figures: dict | None = None, shown: tuple[str, ...] = ()
    ) -> None:
        """Log the `figures` of an interval (the meter's means, where none are given) and the rate.

        Where `shown` names some of them, the others go to log.jsonl only.
        """
        figures = meter.means() if figures is None else figures
        line = {name: figures[name] for name in shown or figures if name in figures}
        hidden = {name: value for name, value in figures.items() if name not in line}
        scale = self.rate * warmup_stable_decay(self.section, step, self.steps)
        meter.log_line(self.log, step, **line, lr=self.section.learning_rate * scale)
        if hidden:
            self.log.write(step=step, **hidden)

    def end_step(
        self, step: int, stopping: Callable[[], bool], last: int | None = None, **kept
    ) -> None:
        """Move the bar; write a checkpoint where one is due; where a stop was asked for, leave.

        `kept` and `last` are as in `save` and `is_log_step`.
        """
        self.log.bar.update()
        self.trace.step()
        if stopping():
            self.stop(step, **kept)
        every = self.section.save_every
        if step == (last or self.steps) or every and step % every == 0:
            self.save(step, **kept)

    def save(self, step: int, **kept) -> Path:
        """Write a checkpoint; `kept` (what JSON can hold) comes back as `self.kept` when the stage
        is resumed.
        """
        return checkpoint.save_checkpoint(
            self.folder,
            self.config,
            self.model,
            self.optimizers,
            step,
            loader={},
            keep=self.section.keep,
            heads=self.heads,
            stage=self.name,
            kept=dict(kept, steps=self.steps),
            made_from=self.made_from,
            tokenizer=checkpoint.tokenizer_record(self.tokenizer),
        )

    # -- the end

    def stop(self, step: int, **kept) -> None:
        """Save and leave, after Ctrl-C; says how to go on."""
        leave(self.log, step, self.save(step, **kept))

    def finished(self) -> bool:
        """Whether the last checkpoint is the stage's end: then it says so, and nothing is to do."""
        if self.first < self.steps:
            return False
        logged, drawn = ((self.folder / name).exists() for name in ("log.jsonl", "loss.png"))
        if ranks.rank() == 0 and logged and not drawn:  # it was stopped at its end
            self.draw()
        print(f"stage {self.name} is complete: all {self.steps:,} steps are in {self.folder}")
        return True

    def draw(self) -> Path:
        """Draw the curve, and return its path."""
        return draw_curve(self.folder, f"stage {self.name}", *self.curve)

    def finish(self) -> None:
        """Close the log, draw the curve, and say where everything is."""
        checkpoint.finish_saving()
        self.log.close()
        if ranks.rank() == 0:
            print(f"saved   {checkpoint.latest(self.folder)}\ncurve   {self.draw()}")
