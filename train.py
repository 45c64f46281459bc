"""Pretraining, as one straight read: settings, device, data, model, optimiser, loop.

    python train.py config/toy.py             a million parameters on the standard library, minutes
                                              on two CPU cores
    python train.py config/toy.py --resume    continues a stopped run (on a CPU, to the bit)
    python train.py config/gpt.py             the GPT-style baseline of equal size, the same lines
    python train.py config/toy.py --data.path ~/notes --out out/notes
    torchrun --nproc-per-node 8 train.py config/32b.py
                                              many GPUs, the same steps (parallel.py)
    python train.py config/32b.py --dry-run   what that would take, planned without a GPU

What differs from nanoGPT:
- Muon turns the matrices' momentum into a nearly orthogonal step; AdamW updates the rest.
- The rate follows Warmup-Stable-Decay.
- The split embedding's gate also learns, from weak labels, which tokens are code (§2.2).
- Held-out loss is in bits per byte of text, which does not depend on the vocabulary.
"""

import math
import time
from functools import partial
from itertools import islice
from pathlib import Path

import support.openmp  # before torch

import torch
from torch import Tensor

import moe
import parallel
from config import UserError
from generate import generate
from losses import cross_entropy, prose_loss
from model import SAGE, flops_per_token
from support import checkpoint, machine, plan, pretraining, ranks, settings
from support.interrupts import stop_requested
from support.log import Log
from support.optimizers import make_optimizers, set_rates, warmup_stable_decay
from support.profiling import StepTrace
from support.pretrained import load_pretrained
from support.token_files import TokenFile, TokenLoader, batches_in_order, token_files
from support.tokenizer import Tokenizer
from support.tokenizer_folder import load_tokenizer
from support.training_run import Meter, apply_gradients, leave, prepare_device
from support.weights import allocate_model


@torch.no_grad()
def bits_per_byte(
    model: SAGE,
    held_out: TokenFile,
    token_bytes: Tensor,
    device: str,
    *,
    sequence: int,
    batch: int,
    batches: int | None = None,
) -> float:
    """Held-out loss in bits per byte of text, over the first batches, or over everything.

    `token_bytes` (V,) is how many bytes of text each token stands for.
    """
    nats = 0.0
    size = 0  # bytes
    chosen = islice(batches_in_order(held_out, sequence, batch), batches)
    for (inputs, targets), counted in ranks.share_evenly(chosen):
        hidden = model.hidden(inputs.to(device))  # (B, T, D)
        loss = cross_entropy(hidden, model.unembedding, targets.to(device))
        if counted:
            nats += loss.item() * targets.numel()
            size += int(token_bytes[targets].sum())
    nats, size = ranks.total(torch.tensor([nats, size], dtype=torch.float64)).tolist()
    return nats / math.log(2) / size


def continuation(model: SAGE, tokenizer: Tokenizer, text: str, seed: int) -> str:
    """A text and what the model writes after it."""
    prompt = [tokenizer.end_of_text, *tokenizer.encode(text)]
    room = min(80, model.config.context - len(prompt))
    with parallel.gathered(model):
        rows = generate(
            model, [prompt], room, temperature=0.8, top_p=0.95, stop=tokenizer.stop, seed=seed
        )
    return text + tokenizer.decode(rows[0])


def main() -> None:
    began = time.perf_counter()
    ranks.start()
    config = settings.from_command_line()
    settings.refuse_unread(config, plans=True)
    c = config.train
    pretraining.check_accumulation(c)
    if c.start:
        pretraining.take_shape_of_start(config)
    if config.dry_run:
        plan.report(config)
        return

    # -- a new run, or one to resume: dtype, compile and steps were decided when it began
    asked_steps = c.steps
    last, meta = pretraining.find_run(config)

    # -- device: products in bf16 where that is faster, weights in float32
    device, dtype, autocast = prepare_device(c)

    # -- data
    if last or c.start:  # weights that were trained with a tokenizer
        tokenizer = checkpoint.tokenizer_of(config.out if last else c.start, config.data.tokenizer)
    else:
        tokenizer = load_tokenizer(config.data.tokenizer)
    if tokenizer.vocab_size > config.model.vocab_size:
        raise UserError(
            f"tokenizer {tokenizer.name} has {tokenizer.vocab_size} tokens, model.vocab_size is "
            f"{config.model.vocab_size}; set it to at least {tokenizer.vocab_size}"
        )
    train_file, held_out = token_files(config.data, tokenizer)
    loader = TokenLoader(train_file, config.data.sequence, c.batch, c.seed)
    special = set(tokenizer.special.values())  # these stand for no text
    sizes = [0 if i in special else len(text) for i, text in enumerate(tokenizer.token_bytes)]
    token_bytes = torch.tensor(sizes)  # (V,)

    # -- model
    # an expert's number of tokens depends on the data, so a step with experts is not compiled
    compiles = not config.model.experts and machine.should_compile(c.compile, c.steps, device)
    c.compile = "on" if compiles else "off"
    parallelise = partial(
        parallel.parallelise, c=config.parallel, dtype=dtype, compile_blocks=compiles
    )
    place = dict(device=parallel.parameter_device(config.parallel, device), parallelise=parallelise)
    if c.start:
        pattern = dict(window=config.model.window, stride=config.model.landmark_stride)
        model = load_pretrained(c.start, **pattern, **place)
        config.model = model.config
    else:
        model = allocate_model(config.model, torch.float32, **place)
        parallel.initialise(model, c.seed)

    routers = moe.find_routers(model)  # none, where there are no experts

    # -- optimisers
    optimizers = make_optimizers(model, c, dtype)

    # -- resume: refused if settings, text or first weights differ from the checkpoint's
    record = dict(
        data=dict(train=train_file.header, validation=held_out.header),
        start=checkpoint.weights_identity(c.start) if c.start else None,
        asked_steps=asked_steps,
    )
    first = 0
    if last:
        pretraining.check_same_run(last, meta, config, record)
        first = meta["step"]
        if pretraining.is_complete(config, last, first):
            return
        checkpoint.load_checkpoint(last, model, optimizers)
        loader.restore(meta["loader"])

    # -- the loss
    use_prose_loss = config.model.embedding == "split" and c.prose_weight > 0

    def losses(tokens: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of tokens (B, T + 1), and the gate's of their kinds."""
        inputs, targets = tokens[:, :-1], tokens[:, 1:]  # (B, T)
        loss = cross_entropy(model.hidden(inputs), model.unembedding, targets, c.z_loss)
        if not use_prose_loss:
            return loss, torch.zeros((), device=loss.device)
        return loss, prose_loss(model.embedding.prose_logits(inputs), kinds[:, :-1])

    losses = machine.compiled(losses, c.compile)
    if c.minutes and not last:
        with autocast:
            c.steps = pretraining.steps_that_fit(config, model, losses, device, began)

    # -- what will happen
    peak = machine.Peak.of(device, dtype)
    log = Log(config.out, c.steps, first, tensorboard=config.tensorboard)
    trace = StepTrace(config.profile, log)
    pretraining.introduce(log, config, model, train_file, held_out, peak=peak)
    if last:
        pretraining.introduce_resumption(log, meta, c.steps, asked_steps)

    def evaluate(batches: int | None = None) -> float:
        with autocast:
            return bits_per_byte(
                model,
                held_out,
                token_bytes,
                device,
                sequence=config.data.sequence,
                batch=c.batch,
                batches=batches,
            )

    def save(step: int) -> Path:
        return checkpoint.save_checkpoint(
            config.out,
            config,
            model,
            optimizers,
            step,
            loader=loader.state(),
            keep=c.keep,
            tokenizer=checkpoint.tokenizer_record(tokenizer),
            **record,
        )

    # -- the loop
    step_tokens = c.batch * c.accumulation * config.data.sequence
    step_flops = step_tokens * flops_per_token(config.model, config.data.sequence)
    meter = Meter(first, peak)
    with stop_requested() as stopping:
        for step in range(first + 1, c.steps + 1):
            scale = warmup_stable_decay(c, step, c.steps)  # of the peak rates
            set_rates(optimizers, scale)
            with meter.waiting():
                micro_batches = ranks.share([loader.next() for _ in range(c.accumulation)])
            figures = torch.zeros(2, device=device)  # the whole step's losses
            load = torch.zeros(len(routers), config.model.experts, device=device)  # share of tokens
            for number, (tokens, kinds) in enumerate(micro_batches, 1):  # (B, T + 1) each
                with autocast, moe.router_logits(routers) as logits:
                    loss, gate_loss = losses(tokens.to(device), kinds.to(device))
                total = loss + c.prose_weight * gate_loss
                if routers:
                    k = config.model.experts_per_token
                    total = total + moe.routing_loss(logits, k, c, step)
                    load += torch.stack([moe.expert_load(x, k) for x in logits]) / c.accumulation
                is_last = number == len(micro_batches)
                parallel.set_gradient_sync(model, config.parallel, is_last)
                (total / c.accumulation).backward()
                figures += torch.stack([loss, gate_loss]).detach() / c.accumulation
            loss, gate_loss = ranks.total(figures)
            meter.add(loss=loss)
            if use_prose_loss:
                meter.add(gate=gate_loss)
            if routers:
                load = ranks.total(load) * config.model.experts  # 1: an even share
                meter.add(least_load=load.min(), most_load=load.max())
            norm = apply_gradients(optimizers, [model], c, step, config.out)
            meter.add(norm=norm)
            meter.count(step_tokens, step_flops)
            log.bar.update()
            trace.step()

            if step % c.log_every == 0 or step == c.steps:
                meter.log_line(log, step, **meter.means(), lr=c.learning_rate * scale)
            if stopping():
                leave(log, step, save(step))
            if step == c.steps:
                save(step)
                break
            with meter.paused():
                if step % c.eval_every == 0:
                    bits = evaluate(c.eval_batches)
                    log.say(f"        held out: {bits:.3f} bits per byte (a part)")
                    log.write(step=step, bits_per_byte=bits, part=True)
                if c.sample_every and step % c.sample_every == 0:
                    sample = continuation(model, tokenizer, "def ", c.seed)
                    log.say("        sample:  " + sample.replace("\n", "\n        "))
                if c.save_every and step % c.save_every == 0:
                    save(step)

    # -- the end
    checkpoint.finish_saving()
    bits = evaluate()
    minutes = (time.perf_counter() - began) / 60
    log.write(step=c.steps, bits_per_byte=bits, part=False, minutes=round(minutes, 2))
    log.close()
    if c.sample_every:
        print(f"\nsample\n{continuation(model, tokenizer, 'def ', c.seed)}\n")
    pretraining.conclude(config, bits, len(held_out.tokens), minutes)


if __name__ == "__main__":
    settings.run_script(main, many_ranks=True)
