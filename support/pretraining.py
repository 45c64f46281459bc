"""What train.py needs beside its loop: checks of its settings, whether a run may be resumed, how
many steps fit into the time, the first and the last lines that it prints.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch

import parallel
from config import Config, Train, UserError
from model import SAGE, flops_per_token
from moe import idle_parameters
from support import checkpoint, machine, provenance, ranks, settings
from support.log import Log, draw_curve, read_log
from support.pretrained import read_pretrained_config
from support.token_files import TokenFile
from support.training_run import claim_folder, refuse_to_overwrite

# What may differ between a run and its --resume: how often it logs and saves, and where it runs.
# Of what paths name, the contents are compared.
MAY_DIFFER = {
    "train.log_every",
    "train.eval_every",
    "train.eval_batches",
    "train.sample_every",
    "train.save_every",
    "train.keep",
    "train.device",
    "train.start",
    "data.path",
    "data.tokenizer",
}


def check_accumulation(c: Train) -> None:
    """Raise UserError where the passes of a step cannot be shared out evenly over the ranks."""
    if c.accumulation % ranks.world_size():
        raise UserError(
            f"train.accumulation {c.accumulation} cannot be shared out over {ranks.world_size()} "
            "ranks; give a multiple of them: each rank makes its part of the passes of a step"
        )


def take_shape_of_start(config: Config) -> None:
    """Set the model section to the shape of the weights in `train.start`, which name neither window
    nor landmark stride. Raises UserError.
    """
    if config.model.experts:
        raise UserError(
            f"model.experts is {config.model.experts}, and the weights in {config.train.start} "
            "have one feed-forward per block; leave out model.experts, or train.start"
        )
    config.model = replace(
        read_pretrained_config(Path(config.train.start)),
        window=config.model.window,
        landmark_stride=config.model.landmark_stride,
    )
    settings.validate(config)


def find_run(config: Config) -> tuple[Path | None, dict]:
    """Claim the run's folder: the checkpoint to go on from and its meta.json, or for a new run None
    and {}. Sets what was decided when the run began: dtype, compile and the number of steps.

    Raises UserError where there is nothing to resume, or a run that was not to be resumed, or that
    of another script.
    """
    c = config.train
    if config.resume and not ranks.restarts():
        checkpoint.latest(config.out)  # an error where there is nothing to resume, not a folder
    last = claim_folder(config.out)
    if last is None:
        return None, {}
    meta, stored = checkpoint.read_meta(last)
    if not config.resume:
        refuse_to_overwrite(config.out, meta["step"], stored.train.steps)
    if "stage" in meta:
        raise UserError(
            f"{config.out} was written by stage {meta['stage']}, not by train.py; "
            "give another --out"
        )
    if c.dtype == "auto":
        c.dtype = stored.train.dtype
    if c.compile == "auto":
        c.compile = stored.train.compile
    c.steps = stored.train.steps
    return last, meta


def identifying(values: dict) -> dict:
    """Of settings by their full names, those that make a run what it is."""
    return {
        name: value
        for name, value in values.items()
        if name.startswith(("model.", "data.", "train.")) and name not in MAY_DIFFER
    }


def check_same_run(last: Path, meta: dict, config: Config, record: dict) -> None:
    """Raise UserError where a checkpoint's settings, text or first weights are not those of the
    run that is to go on from it.

    `meta` is the checkpoint's; `record` is what the run's own checkpoints say of these.
    """
    then = identifying(settings.flatten(meta["settings"]))
    now = identifying(settings.flatten(asdict(config)))
    then["train.steps"] = meta["asked_steps"]  # the run may have planned fewer
    now["train.steps"] = record["asked_steps"]
    found = provenance.differences(
        dict(settings=then, given=meta["given"], text=sources(meta["data"]), start=meta["start"]),
        dict(settings=now, text=sources(record["data"]), start=record["start"]),
        identifying(settings.flatten(asdict(Config()))),
    )
    if not found:
        return
    plan = ""
    if any(line.startswith("train.steps") for line in found):
        steps = config.train.steps
        plan = f"; the plan of {steps:,} steps, by which the rates fall, holds to its end"
    raise UserError(
        f"{last} was trained with other settings or text ({'; '.join(found)}); give the same "
        f"command with --resume, or another --out to begin anew{plan}"
    )


def sources(headers: dict) -> dict:
    """The hashes of the texts that token files were made from."""
    return {part: header["source"] for part, header in headers.items()}


def is_complete(config: Config, last: Path, step: int) -> bool:
    """Whether a run has taken all its steps and measured its end; says so."""
    logged = []
    if Path(config.out, "log.jsonl").exists():
        logged = read_log(config.out)
    steps = config.train.steps
    if step < steps or not any(entry.get("part") is False for entry in logged):
        return False
    print(
        f"{config.out} is complete: all {steps:,} steps are in {last}; more of them are another "
        "run, with more --train.steps and another --out"
    )
    return True


def steps_that_fit(config: Config, model: SAGE, losses: Callable, device: str, began: float) -> int:
    """How many of the planned steps this machine takes until `train.minutes` after `began`.

    Two steps on blank tokens, the second timed; they leave no trace. `losses` are
    train.py's, of tokens and kinds (B, T + 1).
    """
    c = config.train
    shape = (c.batch, config.data.sequence + 1)
    tokens = torch.zeros(shape, dtype=torch.int64, device=device)
    for _ in range(2):
        start = time.perf_counter()
        sum(losses(tokens, tokens.to(torch.uint8))).backward()
        machine.wait_for(device)
        taken = time.perf_counter() - start
    passes = c.accumulation // ranks.world_size()
    seconds = 1.15 * passes * taken  # and a share for the optimiser, validation and the end
    model.zero_grad(set_to_none=True)
    left = c.minutes * 60 - (time.perf_counter() - began)
    steps = ranks.from_first(max(1, min(c.steps, int(left / seconds))))
    if steps < c.steps:
        print(
            f"this machine takes {seconds * 1e3:.0f} ms per step: {steps} steps instead of "
            f"{c.steps}, to end within {c.minutes:g} minutes (--train.minutes 0 takes them all)"
        )
    return steps


def introduce(
    log: Log,
    config: Config,
    model: SAGE,
    train_file: TokenFile,
    held_out: TokenFile,
    *,
    peak: machine.Peak,
) -> None:
    """The first lines of the log: model, data, batch and cost."""
    c, shape, sequence = config.train, config.model, config.data.sequence
    step_tokens = c.batch * c.accumulation * sequence
    tokens = c.steps * step_tokens
    where = model.unembedding.device.type
    if ranks.launched():
        where = f"{ranks.world_size()} ranks ({parallel.device_type()})"
    idle = ""
    if shape.experts:
        idle = f"{idle_parameters(shape):,} of them idle at each token, {shape.experts} experts, "
    log.say(
        f"model   {sum(p.numel() for p in model.parameters()):,} parameters, {idle}"
        f"{shape.layers} layers × {shape.width} wide, {shape.embedding} embedding, on {where}, "
        f"{'compiled' if c.compile == 'on' else 'not compiled'}"
    )
    log.say(
        f"data    {len(train_file.tokens):,} training tokens, {len(held_out.tokens):,} held out; "
        f"{train_file.kinds.mean():.0%} code, the rest prose"
    )
    log.say(
        f"batch   {c.batch} sequences × {sequence} tokens × {c.accumulation} accumulated = "
        f"{step_tokens:,} tokens per step; {c.steps:,} steps = {tokens / 1e6:.1f}M tokens = "
        f"{tokens / len(train_file.tokens):.1f} epochs"
    )
    log.say(f"cost    {tokens * flops_per_token(shape, sequence) / 1e12:.1f} TFLOP; {peak}")


def introduce_resumption(log: Log, meta: dict, steps: int, asked_steps: int) -> None:
    """What the log says of a run that goes on from a checkpoint with this meta.json."""
    for name in checkpoint.unknown_settings(meta):
        log.say(f"note    {name} is no longer a setting")
    log.say(f"resume  from step {meta['step']}")
    if steps < asked_steps:
        log.say(
            f"note    the plan of {steps:,} of {asked_steps:,} steps, made when it began, holds"
        )


def conclude(config: Config, bits_per_byte: float, tokens: int, minutes: float) -> None:
    """The last lines: the result over all held-out `tokens`, where everything is, what is next."""
    if ranks.rank() > 0:
        return
    run = settings.shown_path(config.out)
    title = f"{run}: {bits_per_byte:.3f} bits per byte held out"
    flag = "" if run == Config().out else f" --run {run}"
    print(
        f"held out: {bits_per_byte:.4f} bits per byte over all {tokens:,} held-out tokens, after "
        f"{minutes:.1f} minutes\n"
        f"saved     {checkpoint.latest(config.out)}\n"
        f"curve     {draw_curve(config.out, title)}\n"
        f'next      python sample.py{flag} --prompt "def "\n'
        f'          python sample.py{flag} --show-gate --prompt "# words, then x = 1"'
    )
