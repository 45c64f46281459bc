"""Pretraining, as one straight read: settings, device, data, model, optimiser, loop.

    python train.py config/toy.py                     a million parameters on the standard library, minutes on two CPU cores
    python train.py config/toy.py --resume            goes on where a stopped run was, to the bit
    python train.py config/gpt.py                     the GPT-style baseline of equal size, through the same lines
    python train.py config/toy.py --data.path ~/notes --out out/notes

What differs from nanoGPT: Muon turns the matrices' momentum into a nearly orthogonal step, AdamW keeps the rest; the rate follows
Warmup-Stable-Decay; the split embedding's gate is taught, weakly, which tokens are code; loss is also told in bits a byte, which
does not depend on the vocabulary.
"""

import math
import os
import time
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch loads: threads that spin while they wait are ten times slower on a busy machine

import torch

import checkpoint
import config as settings
import data
import runtime
import tokenizer as tokenizers
from config import UserError
from generate import generate
from losses import cross_entropy, gate_loss
from model import SAGE, flops_per_token
from muon import Muon


def main() -> None:
    began = time.perf_counter()
    config = settings.from_command_line()
    c = config.train
    if c.start:
        config.model = checkpoint.read_config(Path(c.start).expanduser())
        settings.check(config)

    # -- device: products in bf16 where that is faster, weights in float32. "medium" lets float32 products take a CPU's faster library.
    device = runtime.pick_device(c.device)
    torch.set_float32_matmul_precision("medium")
    torch.manual_seed(c.seed)
    dtype = runtime.pick_dtype(c.dtype, device)
    autocast = torch.autocast(device.split(":")[0], torch.bfloat16, enabled=dtype == torch.bfloat16)

    # -- data
    tokenizer = tokenizers.load(config.data.tokenizer)
    if tokenizer.vocab_size > config.model.vocab_size:
        raise UserError(f"tokenizer {tokenizer.name} has {tokenizer.vocab_size} tokens, model.vocab_size is {config.model.vocab_size}; set it to at least {tokenizer.vocab_size}")
    train_file, held_out = data.prepare(config.data, tokenizer)
    loader = data.Loader(train_file, config.data.sequence, c.batch, c.seed)
    lengths = torch.tensor([0 if token in tokenizer.special.values() else len(b) for token, b in enumerate(tokenizer.token_bytes)])  # bytes a token stands for

    # -- model
    model = checkpoint.load_qwen(c.start, device=device) if c.start else SAGE(config.model, seed=c.seed).to(device)

    # -- optimisers: matrices inside blocks to Muon; embeddings and head to AdamW with decay; gains, biases, gate and smear without
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and name.startswith("blocks.")]
    tables = [p for name, p in model.named_parameters() if name in ("embedding.text.weight", "embedding.code.weight", "head.weight")]
    rest = [p for p in model.parameters() if not any(p is q for q in matrices + tables)]
    decayed = tables if c.optimizer == "muon" else matrices + tables
    optimizers = [torch.optim.AdamW([dict(params=decayed, weight_decay=c.weight_decay), dict(params=rest, weight_decay=0.0)],
                                    lr=c.learning_rate, betas=(c.beta1, c.beta2), fused=True)]
    if c.optimizer == "muon":
        optimizers.append(Muon(matrices, lr=c.muon_learning_rate, weight_decay=c.weight_decay, dtype=dtype))
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["peak"] = group["lr"]

    # -- resume
    first, metadata = 0, dict(data=dict(train=train_file.header, validation=held_out.header))
    if config.resume:
        last = checkpoint.latest(config.out)
        meta, stored = checkpoint.read_meta(last)
        changed = [f"{section}.{name}: {asdict(getattr(stored, section))[name]!r} → {value!r}" for section in ("model", "data")
                   for name, value in asdict(getattr(config, section)).items() if asdict(getattr(stored, section))[name] != value]
        if changed or meta["data"] != metadata["data"]:
            raise UserError(f"{last} was trained with other settings or text ({'; '.join(changed) or 'the text itself changed'}); give the same command with --resume, or another --out")
        checkpoint.load(last, model, optimizers)
        first, c.steps = meta["step"], stored.train.steps  # the plan of the rates is the run's own
        loader.restore(meta["loader"])
    elif checkpoint.checkpoints(config.out) and checkpoint.latest(config.out).name != f"checkpoint-{c.steps:07}":
        raise UserError(f"{config.out} holds an unfinished run; add --resume to go on, or name another --out, or delete the folder")

    # -- the loss
    def losses(tokens: torch.Tensor, kinds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean cross-entropy of tokens (B, T + 1), and the gate's of their kinds."""
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        weight = model.embedding.text.weight if model.head is None else model.head.weight
        loss = cross_entropy(model.hidden(inputs), weight, targets, c.z_loss)
        gated = config.model.embedding == "split" and c.gate_weight > 0
        return loss, gate_loss(model.embedding.gate_logits(inputs), kinds[:, :-1]) if gated else torch.zeros(())

    compiled = c.compile == "on" or c.compile == "auto" and c.steps - first >= 500 and runtime.can_compile(device)
    if compiled:
        print("compiling, up to a minute the first time on a machine", flush=True)
        losses = torch.compile(losses)
    if c.minutes and not config.resume:  # two steps on blank tokens, the second timed; they leave no trace
        blank = torch.zeros((c.batch, config.data.sequence + 1), dtype=torch.int64, device=device)
        for _ in range(2):
            start = time.perf_counter()
            with autocast:
                sum(losses(blank, blank)).backward()
            seconds = (time.perf_counter() - start) * c.accumulation * 1.15  # and the share of the optimiser, of looking in between, of the end
        model.zero_grad(set_to_none=True)
        left = c.minutes * 60 - (time.perf_counter() - began)
        planned, c.steps = c.steps, max(1, min(c.steps, int(left / seconds)))
        if c.steps < planned:
            print(f"this machine takes {seconds * 1e3:.0f} ms a step: {c.steps} steps instead of {planned}, to end within {c.minutes:g} minutes (--train.minutes 0 takes them all)")

    # -- what will happen
    tokens_a_step = c.batch * c.accumulation * config.data.sequence
    flops_a_step = tokens_a_step * flops_per_token(config.model, config.data.sequence)
    peak = runtime.matmul_peak(device, dtype)
    log = runtime.Log(config.out, c.steps, first)
    log.say(f"model   {sum(p.numel() for p in model.parameters()):,} parameters, {config.model.layers} layers × {config.model.width} wide, {config.model.embedding} embedding, "
            f"on {device}, {'compiled' if compiled else 'not compiled'}")
    log.say(f"data    {len(train_file.tokens):,} training tokens, {len(held_out.tokens):,} held out; {train_file.kinds.mean():.0%} code, the rest prose")
    log.say(f"batch   {c.batch} sequences × {config.data.sequence} tokens × {c.accumulation} accumulated = {tokens_a_step:,} tokens a step; "
            f"{c.steps:,} steps = {c.steps * tokens_a_step / 1e6:.1f}M tokens = {c.steps * tokens_a_step / len(train_file.tokens):.1f} epochs")
    log.say(f"cost    {c.steps * flops_a_step / 1e12:.1f} TFLOP; this machine's measured {str(dtype).removeprefix('torch.')} matrix peak is {peak / 1e9:.0f} GFLOP/s")
    if first:
        log.say(f"resume  from step {first}")

    @torch.no_grad()
    def bits_per_byte(batches: int | None) -> float:
        """Held-out loss in bits a byte of text, over the first batches or, with None, over everything."""
        model.eval()
        nats, size = 0.0, 0
        for number, (inputs, targets) in enumerate(data.in_order(held_out, config.data.sequence, c.batch)):
            if number == batches:
                break
            with autocast:
                logits = model(inputs.to(device)).float()
            nats += torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.to(device).flatten(), reduction="sum").item()
            size += int(lengths[targets].sum())
        model.train()
        return nats / math.log(2) / size

    def sample() -> str:
        prompt = [tokenizer.end_of_text, *tokenizer.encode("def ")]
        tokens = generate(model, [prompt], min(80, config.model.context - len(prompt)), temperature=0.8, top_p=0.95, stop=tokenizer.stop, seed=c.seed)[0]
        model.train()
        return "def " + tokenizer.decode(tokens)

    def save(step: int):
        return checkpoint.save(config.out, config, model, optimizers, step, loader.state(), c.keep, **metadata)

    # -- the loop
    model.train()
    interval, logged = time.perf_counter(), first
    with runtime.stop_requested() as stopping:
        for step in range(first + 1, c.steps + 1):
            warm, stable_until = max(1, int(c.warmup * c.steps)), c.steps - int(c.decay * c.steps)
            scale = min(step / warm, 1.0) if step <= stable_until else 1 - (1 - c.final) * (step - stable_until) / (c.steps - stable_until)
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = group["peak"] * scale

            for _ in range(c.accumulation):
                tokens, kinds = (x.to(device) for x in loader.next())
                with autocast:
                    loss, gate = losses(tokens, kinds)
                ((loss + c.gate_weight * gate) / c.accumulation).backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), c.clip)
            if not torch.isfinite(norm):
                kept = checkpoint.checkpoints(config.out)
                raise UserError(f"step {step}: the gradient is {norm.item()}; lower train.learning_rate. {f'Last good checkpoint: {kept[-1]}' if kept else 'No checkpoint was written yet'}")
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
                log.line(step, seconds * 1e3, tokens_a_step / seconds, flops_a_step / seconds / peak, **numbers)
                interval, logged = now, step
            if step % c.eval_every == 0 and step < c.steps:
                bits = bits_per_byte(c.eval_batches)
                log.say(f"        held out: {bits:.3f} bits a byte (a part)")
                log.write(step=step, bits_per_byte=bits, part=True)
            if c.sample_every and step % c.sample_every == 0 and step < c.steps:
                log.say("        sample:  " + sample().replace("\n", "\n        "))
            if stopping():
                log.bar.close()
                print(f"\nstopped at step {step}, saved {save(step)}\ngo on with the same command and --resume")
                raise SystemExit(130)
            if c.save_every and step % c.save_every == 0 and step < c.steps:
                save(step)
            if step % c.eval_every == 0 or c.sample_every and step % c.sample_every == 0 or c.save_every and step % c.save_every == 0:
                interval, logged = time.perf_counter(), step  # evaluation, sampling and saving are not training time

    # -- the end
    minutes = (time.perf_counter() - began) / 60
    bits = bits_per_byte(None)
    log.write(step=c.steps, bits_per_byte=bits, part=False, minutes=round(minutes, 2))
    saved = save(c.steps)
    log.bar.close()
    print(f"\nsample\n{sample()}\n")
    print(f"held out: {bits:.4f} bits a byte over all {len(held_out.tokens):,} held-out tokens, after {minutes:.1f} minutes")
    print(f"saved     {saved}\ncurve     {runtime.draw_curve(config.out, f'{os.path.relpath(config.out, settings.ROOT)}: {bits:.3f} bits a byte held out')}")
    run = os.path.relpath(config.out, settings.ROOT)
    flag = "" if run == settings.Sample().run else f" --run {run}"
    print(f'next      python sample.py{flag} --prompt "def "\n          python sample.py{flag} --show-gate --prompt "# prose, then code" ')


if __name__ == "__main__":
    settings.run(main)
