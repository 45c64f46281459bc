"""Pretraining, as one straight read: settings, device, data, model, optimiser, loop.

    python train.py config/toy.py                     a million parameters on the standard library, minutes on two CPU cores
    python train.py config/toy.py --resume            goes on where a stopped run was, to the bit
    python train.py config/gpt.py                     the GPT-style baseline of equal size, through the same lines
    python train.py config/toy.py --data.path ~/notes --out out/notes

What differs from nanoGPT: Muon turns the matrices' momentum into a nearly orthogonal step, AdamW
keeps the rest; the rate follows Warmup-Stable-Decay; the split embedding's gate is taught, weakly,
which tokens are code; loss is also told in bits a byte, which does not depend on the vocabulary.
"""

import math
import os
import shlex
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import support.openmp  # before torch

import torch

from support import checkpoint
from support import settings
from support import data
from support import provenance
from support import runtime
from support import tokenizer as tokenizers
from config import Config, UserError
from generate import generate
from losses import cross_entropy, gate_loss
from model import SAGE, flops_per_token
from fast.muon import optimizers as make_optimizers
from fast.muon import set_rate


# What may differ between a run and its --resume: how often it speaks and saves, where it runs. All
# else is the run's own.
# Of what paths name the contents are compared.
FREE = {
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


def compared(names: dict) -> dict:
    """Of settings by their full names, those that make a run what it is."""
    return {
        name: value
        for name, value in names.items()
        if name.startswith(("model.", "data.", "train.")) and name not in FREE
    }


def differences(
    meta: dict, config: Config, steps: int, text: dict, start: dict | None
) -> list[str]:
    """In what a run differs from its --resume: settings, text, the weights that it started from.

    `meta` is its checkpoint's; `steps` are asked for now (the run may have planned fewer), `text`
    are the headers of the token files, `start` is checkpoint.identity.
    """
    then, now = compared(settings.flatten(meta["settings"])), compared(settings.flatten(asdict(config)))
    now["train.steps"] = steps
    if "asked_steps" in meta:
        then["train.steps"] = meta["asked_steps"]
    elif then["train.minutes"]:  # an older run, which says only what it had time for
        then["train.steps"] = steps
    before, after = (
        {part: header["source"] for part, header in headers.items()}
        for headers in (meta.get("data", {}), text)
    )
    run = dict(
        settings=then, given=meta.get("given", []), text=before, start=meta.get("start", start)
    )
    return provenance.differences(
        run, dict(settings=now, text=after, start=start), compared(settings.flatten(asdict(Config())))
    )


def main() -> None:
    began = time.perf_counter()
    config = settings.from_command_line()
    c = config.train
    if c.start:
        config.model = replace(
            checkpoint.read_config(Path(c.start)),
            window=config.model.window,
            landmark_stride=config.model.landmark_stride,
        )
        settings.validate(config)

    # -- resume, or a new run; what was decided when the run began (dtype, compile, steps) holds to
    # its end
    asked, last = c.steps, None
    if config.resume:
        checkpoint.latest(config.out)
    Path(config.out).mkdir(parents=True, exist_ok=True)
    provenance.claim(config.out)
    if checkpoint.checkpoints(config.out):
        last = checkpoint.latest(config.out)
        meta, stored = checkpoint.read_meta(last)
        if not config.resume:
            raise UserError(
                f"{config.out} holds a run at step {meta['step']} of "
                f"{stored.train.steps}; go on with --resume, or give another --out, "
                "or delete the folder"
            )
        if "stage" in meta:
            raise UserError(
                f"{config.out} was written by stage {meta['stage']}, not by train.py; "
                "give another --out"
            )
        for name in ("dtype", "compile"):
            if getattr(c, name) == "auto":
                setattr(c, name, getattr(stored.train, name))
        c.steps = stored.train.steps

    # -- device: products in bf16 where that is faster, weights in float32
    device = runtime.pick_device(c.device)
    runtime.settle(device)
    torch.manual_seed(c.seed)
    dtype = runtime.pick_dtype(c.dtype, device)
    c.dtype = str(dtype).removeprefix("torch.")
    autocast = torch.autocast(device.split(":")[0], torch.bfloat16, enabled=dtype == torch.bfloat16)

    # -- data
    if learnt := config.out if last else c.start:  # weights that were trained with a tokenizer
        tokenizer = checkpoint.tokenizer_of(learnt, config.data.tokenizer)
    else:
        tokenizer = tokenizers.load(config.data.tokenizer)
    if tokenizer.vocab_size > config.model.vocab_size:
        raise UserError(
            f"tokenizer {tokenizer.name} has {tokenizer.vocab_size} tokens, model.vocab_size is {config.model.vocab_size}; set it to at least {tokenizer.vocab_size}"
        )
    train_file, held_out = data.prepare(config.data, tokenizer)
    source = dict(train=train_file.header, validation=held_out.header)
    started_from = checkpoint.identity(c.start) if c.start else None
    loader = data.Loader(train_file, config.data.sequence, c.batch, c.seed)
    lengths = torch.tensor(
        [
            0 if token in tokenizer.special.values() else len(b)
            for token, b in enumerate(tokenizer.token_bytes)
        ]
    )  # bytes a token stands for

    # -- model
    if c.start:
        model = checkpoint.load_qwen(
            c.start, device=device, window=config.model.window, stride=config.model.landmark_stride
        )
        config.model = model.config
    else:
        model = SAGE(config.model, seed=c.seed).to(device)
    model.train()
    head = model.unembedding

    optimizers = make_optimizers(model, c, dtype)

    # -- resume: the same settings and text, then the state
    first = 0
    if last:
        if found := differences(meta, config, asked, source, started_from):
            plan = ""
            if any(line.startswith("train.steps") for line in found):
                plan = f"; the plan of {c.steps:,} steps, by which the rates fall, holds to its end"
            raise UserError(
                f"{last} was trained with other settings or text ({'; '.join(found)}); "
                "give the same command with --resume, or another --out to begin "
                f"anew{plan}"
            )
        logged = runtime.read_log(config.out) if Path(config.out, "log.jsonl").exists() else []
        if meta["step"] >= c.steps and any(record.get("part") is False for record in logged):
            print(
                f"{config.out} is complete: all {c.steps:,} steps are in {last}; more of them "
                "are another run, with more --train.steps and another --out"
            )
            return
        checkpoint.load(last, model, optimizers)
        loader.restore(meta["loader"])
        first = meta["step"]

    # -- the loss
    def losses(tokens: torch.Tensor, kinds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean cross-entropy of tokens (B, T + 1), and the gate's of their kinds."""
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        loss = cross_entropy(model.hidden(inputs), head, targets, c.z_loss)
        gated = config.model.embedding == "split" and c.gate_weight > 0
        return loss, (
            gate_loss(model.embedding.prose_logits(inputs), kinds[:, :-1])
            if gated
            else torch.zeros((), device=loss.device)
        )

    compiled = c.compile == "on" or (
        c.compile == "auto" and c.steps >= 500 and runtime.can_compile(device)
    )
    c.compile = "on" if compiled else "off"
    if compiled:
        print("compiling, up to a minute the first time on a machine", flush=True)
        losses = torch.compile(losses)
    if (
        c.minutes and not config.resume
    ):  # two steps on blank tokens, the second timed; they leave no trace
        blank = torch.zeros((c.batch, config.data.sequence + 1), dtype=torch.int64, device=device)
        for _ in range(2):
            start = time.perf_counter()
            with autocast:
                sum(losses(blank, blank.to(torch.uint8))).backward()
            model.norm.weight.grad.sum().item()  # waits for a GPU
            seconds = (
                (time.perf_counter() - start) * c.accumulation * 1.15
            )  # and the share of the optimiser, of looking in between, of the end
        model.zero_grad(set_to_none=True)
        left = c.minutes * 60 - (time.perf_counter() - began)
        planned, c.steps = c.steps, max(1, min(c.steps, int(left / seconds)))
        if c.steps < planned:
            print(
                f"this machine takes {seconds * 1e3:.0f} ms a step: {c.steps} steps instead of {planned}, to end within {c.minutes:g} minutes (--train.minutes 0 takes them all)"
            )

    # -- what will happen
    tokens_a_step = c.batch * c.accumulation * config.data.sequence
    flops_a_step = tokens_a_step * flops_per_token(config.model, config.data.sequence)
    peak = runtime.matmul_peak(device, dtype)
    log = runtime.Log(config.out, c.steps, first)
    log.say(
        f"model   {sum(p.numel() for p in model.parameters()):,} parameters, {config.model.layers} layers × {config.model.width} wide, {config.model.embedding} embedding, "
        f"on {device}, {'compiled' if compiled else 'not compiled'}"
    )
    log.say(
        f"data    {len(train_file.tokens):,} training tokens, {len(held_out.tokens):,} held out; {train_file.kinds.mean():.0%} code, the rest prose"
    )
    log.say(
        f"batch   {c.batch} sequences × {config.data.sequence} tokens × {c.accumulation} accumulated = {tokens_a_step:,} tokens a step; "
        f"{c.steps:,} steps = {c.steps * tokens_a_step / 1e6:.1f}M tokens = {c.steps * tokens_a_step / len(train_file.tokens):.1f} epochs"
    )
    log.say(
        f"cost    {c.steps * flops_a_step / 1e12:.1f} TFLOP; this machine's measured {c.dtype} matrix peak is {peak / 1e9:.0f} GFLOP/s"
    )
    for name in checkpoint.gone(meta) if last else ():
        log.say(f"note    {name} is no longer a setting")
    if first:
        log.say(f"resume  from step {first}")
    if first and c.steps < asked:
        log.say(f"note    the plan of {c.steps:,} of {asked:,} steps, made when it began, holds")

    @torch.no_grad()
    def bits_per_byte(batches: int | None) -> float:
        """Held-out loss in bits a byte of text, over the first batches or, with None, over
        everything.
        """
        model.eval()
        nats, size = 0.0, 0
        for number, (inputs, targets) in enumerate(
            data.in_order(held_out, config.data.sequence, c.batch)
        ):
            if number == batches:
                break
            with autocast:
                nats += (
                    cross_entropy(model.hidden(inputs.to(device)), head, targets.to(device)).item()
                    * targets.numel()
                )
            size += int(lengths[targets].sum())
        model.train()
        return nats / math.log(2) / size

    def sample() -> str:
        """A short continuation of "def "."""
        prompt = [tokenizer.end_of_text, *tokenizer.encode("def ")]
        tokens = generate(
            model,
            [prompt],
            min(80, config.model.context - len(prompt)),
            temperature=0.8,
            top_p=0.95,
            stop=tokenizer.stop,
            seed=c.seed,
        )[0]
        model.train()
        return "def " + tokenizer.decode(tokens)

    def save(step: int) -> Path:
        return checkpoint.save(
            config.out,
            config,
            model,
            optimizers,
            step,
            loader.state(),
            c.keep,
            data=source,
            start=started_from,
            asked_steps=asked,
            tokenizer=checkpoint.tokenizer_record(tokenizer),
        )

    # -- the loop; the rate warms up, stays, and falls (Warmup-Stable-Decay)
    interval, logged = time.perf_counter(), first
    with runtime.stop_requested() as stopping:
        for step in range(first + 1, c.steps + 1):
            scale = set_rate(optimizers, c, step, c.steps)
            loss = gate = 0.0
            for _ in range(c.accumulation):
                tokens, kinds = (x.to(device) for x in loader.next())
                with autocast:
                    parts = losses(tokens, kinds)
                ((parts[0] + c.gate_weight * parts[1]) / c.accumulation).backward()
                loss, gate = (
                    total + part.detach() / c.accumulation
                    for total, part in zip((loss, gate), parts)
                )
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), c.clip)
            if not torch.isfinite(norm):
                kept = checkpoint.checkpoints(config.out)
                raise UserError(
                    f"step {step}: the gradient is {norm.item()}; lower train.learning_rate. {f'Last good checkpoint: {kept[-1]}' if kept else 'No checkpoint was written yet'}"
                )
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            log.bar.update()

            if step % c.log_every == 0 or step == c.steps:
                now = time.perf_counter()
                seconds = (now - interval) / (step - logged)
                numbers = dict(loss=loss.item(), lr=c.learning_rate * scale, norm=norm.item())
                if gate.item():
                    numbers["gate"] = gate.item()
                log.line(
                    step,
                    seconds * 1e3,
                    tokens_a_step / seconds,
                    flops_a_step / seconds / peak,
                    **numbers,
                )
                interval, logged = now, step
            if stopping():
                log.bar.close()
                command = shlex.join(
                    ["python", *(word for word in sys.argv if word != "--resume"), "--resume"]
                )
                print(f"\nstopped at step {step}, saved {save(step)}\ngo on with {command}")
                raise SystemExit(130)
            if step == c.steps:
                save(step)
                break
            pause = time.perf_counter()
            if step % c.eval_every == 0:
                bits = bits_per_byte(c.eval_batches)
                log.say(f"        held out: {bits:.3f} bits a byte (a part)")
                log.write(step=step, bits_per_byte=bits, part=True)
            if c.sample_every and step % c.sample_every == 0:
                log.say("        sample:  " + sample().replace("\n", "\n        "))
            if c.save_every and step % c.save_every == 0:
                save(step)
            interval += time.perf_counter() - pause  # looking and saving are not training time

    # -- the end
    bits = bits_per_byte(None)
    log.write(
        step=c.steps,
        bits_per_byte=bits,
        part=False,
        minutes=round((time.perf_counter() - began) / 60, 2),
    )
    log.bar.close()
    print(f"\nsample\n{sample()}\n")
    print(
        f"held out: {bits:.4f} bits a byte over all {len(held_out.tokens):,} held-out tokens, after {(time.perf_counter() - began) / 60:.1f} minutes"
    )
    run = os.path.relpath(config.out, settings.ROOT)
    print(
        f"saved     {checkpoint.latest(config.out)}\ncurve     {runtime.draw_curve(config.out, f'{run}: {bits:.3f} bits a byte held out')}"
    )
    flag = "" if run == Config().out else f" --run {run}"
    print(
        f'next      python sample.py{flag} --prompt "def "\n          python sample.py{flag} --show-gate --prompt "# words, then x = 1"'
    )


if __name__ == "__main__":
    settings.run_script(main)
