"""Preference learning for safety, then reinforcement learning from execution (paper §3.1.2, §10.1,
CodePPO), as one straight read.

    python rl.py config/toy.py                     both stages: out/toy/reflected → safe → sage
    python rl.py config/toy.py --stage dpo         Direct Preference Optimization: refusing what is unsafe, doing what only looks so
    python rl.py config/toy.py --stage ppo         Proximal Policy Optimization on episodes in the worlds
    python rl.py config/toy.py --stage ppo --ppo.advantage group --ppo.name grpo       without a value head, for comparison
    python rl.py config/toy.py --resume            goes on where a stopped run was, to the bit

What differs from the textbook:
- preferences go both ways: an unsafe request's refusal over compliance, and a benign look-alike's
  compliance over refusal
- episodes of the other worlds are replayed beside the pairs, or the model that learnt to refuse
  forgets to act (the "alignment tax")
- they are replayed beside the rewards, too (InstructGPT's PPO-ptx), or a rate at which rewards move
  anything destroys what was learnt before
- the reward is execution's verdict, once, at the end; a call that does not parse ends the episode
  (zero tolerance), an invented argument costs
- advantages step from one of the model's own tokens to the next; what tools say in between is not
  an action
- a reward is measured from the mean of the same task's other samples, so that an easy world's
  successes are no praise for their every word
- an episode that raised or ran out of time is a failure like any other; only those longer than
  ppo.sequence are left out
- a task whose episodes all went the same way teaches nothing and is left out of the update; a step
  of nothing but such tasks is skipped and counted
- one set of weights makes every mean, from the advantages' centre to the losses and what is logged
- the value head reads hidden states without a gradient into them, so the policy's gradient is the
  policy loss's alone
"""

import math
import time
from collections import Counter, defaultdict

import support.openmp  # before torch

import numpy as np
import torch
from torch import Tensor, nn

from support import settings
from support.interrupts import stop_requested
from config import Config, Dpo, Ppo, UserError
from support.packing import PackedLoader, pack
from worlds.expert import preference, trajectory
from losses import (
    IGNORE,
    differ,
    dpo_loss,
    explained_variance,
    generalized_advantages,
    group_advantages,
    kl_k3,
    kl_loss,
    leave_one_out,
    per_document,
    ppo_loss,
    shares,
    token_log_probs,
    value_loss,
    whiten,
)
from model import SAGE, flops_per_token
from agent import Rollout, episode_rates, rollouts
from support.training_run import Stage
from support.tokenizer import Tokenizer
from worlds.base import Difficulty, Task, Tasks

Example = tuple[list[int], list[bool]]  # token IDs, and which of them are taught

# ------------------------------------------------------------------------------------------------------
# stage dpo


def completion(
    task: Task, prompt: list[dict], messages: list[dict], tokenizer: Tokenizer
) -> Example:
    """A conversation of which only the messages behind the prompt are taught."""
    tools, style = task.shown_tools(), task.difficulty.style
    shown = len(tokenizer.encode_chat(prompt, tools, style, generation_prompt=True)[0])
    tokens, own = tokenizer.encode_chat(prompt + messages, tools, style)
    return tokens, [mine and place >= shown for place, mine in enumerate(own)]


def pairs_of(c: Dpo, tokenizer: Tokenizer, style: str) -> list[Example]:
    """Preference pairs, flattened: chosen at even places, rejected at odd ones; pairs that do not
    fit in a row are left out.
    """
    examples: list[Example] = []
    tasks = Tasks("dpo", c.seed, ["safety"], Difficulty(style=style))
    for index in range(c.pairs):
        task = tasks[index]
        pair = preference(task)
        both = [
            completion(task, pair["prompt"], pair[side], tokenizer)
            for side in ("chosen", "rejected")
        ]
        if max(len(tokens) for tokens, _ in both) <= c.sequence:
            examples += both
    return examples


@torch.no_grad()
def total_log_probs(
    model: SAGE, examples: list[Example], device: str, together: int = 128
) -> Tensor:
    """log P of each example's taught tokens, summed, (N,)."""
    sums = []
    for start in range(0, len(examples), together):
        part = examples[start : start + together]
        packed = pack(part, max(len(tokens) for tokens, _ in part), model.config)
        tokens, targets, documents = (
            packed.tokens.to(device),
            packed.targets.to(device),
            packed.documents.to(device),
        )
        log_probs, _ = token_log_probs(model.hidden(tokens, documents), model.unembedding, targets)
        sums.append(per_document(log_probs, documents, len(part)))
    return torch.cat(sums)


def replayed(stage: Stage, worlds: str) -> PackedLoader | None:
    """The teacher's episodes of some worlds as packed rows, `replay_rows` at a time;

    None where the stage replays none.
    """
    c = stage.section
    if not c.replay_rows:
        return None
    purpose = {"safe": "dpo replay", "sage": "ppo replay"}[
        stage.name
    ]  # nothing that is rewarded is also recited
    tasks = Tasks(purpose, c.seed, worlds.split(","), Difficulty.of(c, style=stage.style))
    rows = [trajectory(*tasks.arguments(i), negatives=False) for i in range(c.trajectories)]
    examples = [stage.tokenizer.encode_chat(row.messages, row.tools, stage.style) for row in rows]
    replay = PackedLoader(examples, c.sequence, c.replay_rows, c.seed, stage.model.config)
    replay.restore(stage.kept.get("replay", replay.state()))
    return replay


def replay_loss(stage: Stage, replay: PackedLoader) -> Tensor:
    """Mean cross-entropy of the next rows' taught tokens."""
    tokens, targets, _, documents = (tensor.to(stage.device) for tensor in replay.next())
    with stage.autocast:
        log_probs = token_log_probs(
            stage.model.hidden(tokens, documents), stage.model.unembedding, targets
        )[0]
    return -log_probs.sum() / (targets != IGNORE).sum()


def dpo(config: Config) -> None:
    """Stage 3: learn from pairs of messages which one is wanted, beside replayed episodes of the
    other worlds.
    """
    c = config.dpo
    stage = Stage(config, "safe", "reflected", c.steps, c)
    if stage.finished():
        return
    model, tokenizer, device = stage.model, stage.tokenizer, stage.device

    examples = pairs_of(c, tokenizer, stage.style)
    count = len(examples) // 2
    if count < c.batch:
        raise UserError(
            f"{count} of {c.pairs} pairs fit in dpo.sequence {c.sequence}; {c.batch} are needed for one step: raise dpo.sequence"
        )

    # -- the reference's opinion of them, once: it is frozen
    with stage.autocast:
        reference = total_log_probs(stage.another(stage.source), examples, device).view(count, 2)

    replay = replayed(stage, c.worlds)
    stage.log.say(
        f"data    {count:,} pairs of the safety world, {c.trajectories if replay else 0:,} episodes of {c.worlds} to replay"
    )

    def taught_log_probs(tokens: Tensor, targets: Tensor, documents: Tensor) -> Tensor:
        with stage.autocast:
            return token_log_probs(
                model.hidden(tokens.to(device), documents.to(device)),
                stage.model.unembedding,
                targets.to(device),
            )[0]

    interval, logged, seen = time.perf_counter(), stage.first, Counter()
    with stop_requested() as stopping:
        for step in range(stage.first + 1, c.steps + 1):
            epoch, place = divmod(
                step - 1, count // c.batch
            )  # the place in the data is a function of the step
            chosen = np.random.default_rng([c.seed, epoch]).permutation(count)[
                place * c.batch : (place + 1) * c.batch
            ]
            some = [examples[2 * pair + side] for pair in chosen for side in (0, 1)]
            longest = max(len(ids) for ids, _ in some)  # attention's cost is a row's square
            packed = pack(some, longest, model.config)
            log_probs = taught_log_probs(packed.tokens, packed.targets, packed.documents)  # (R, T)
            whose = packed.documents.to(device)
            sums, fixed = (
                per_document(log_probs, whose, 2 * c.batch),
                reference[torch.from_numpy(chosen).to(device)],
            )
            loss, margins = dpo_loss(sums[::2], sums[1::2], fixed[:, 0], fixed[:, 1], c.beta)
            own = (packed.targets != IGNORE).to(device) & (whose % 2 == 0)
            parts = dict(dpo=loss, nll=-(log_probs * shares(own, whose, "token")).sum())
            total, size = parts["dpo"] + c.nll * parts["nll"], whose.numel()
            if replay:
                parts["replay"] = replay_loss(stage, replay)
                total, size = total + c.replay * parts["replay"], size + c.replay_rows * c.sequence
            total.backward()
            norm = stage.update(step)
            stage.log.bar.update()

            seen.update(
                {name: part.item() for name, part in parts.items()}
                | dict(
                    accuracy=(margins > 0).float().mean().item(),
                    margin=margins.mean().item(),
                    tokens=size,
                )
            )
            if step % c.log_every == 0 or step == c.steps:
                now, steps = time.perf_counter(), step - logged
                means = {name: value / steps for name, value in seen.items()}
                rate = means.pop("tokens") * steps / (now - interval)
                stage.log.line(
                    step,
                    (now - interval) / steps * 1e3,
                    rate,
                    rate * flops_per_token(config.model, c.sequence) / stage.peak,
                    loss=means["dpo"] + c.nll * means["nll"] + c.replay * means.get("replay", 0.0),
                    **means,
                    lr=c.learning_rate * stage.scale,
                    norm=norm,
                )
                interval, logged, seen = now, step, Counter()
            kept = dict(replay=replay.state()) if replay else {}
            if stopping():
                stage.stop(step, **kept)
            if step == c.steps or c.save_every and step % c.save_every == 0:
                stage.save(step, **kept)
    stage.finish("dpo", "accuracy")


# ------------------------------------------------------------------------------------------------------
# stage ppo


def reward(episode: Rollout, c: Ppo) -> float:
    """Execution's verdict, 1 or 0, less what each invented argument costs.

    `malformed` where zero tolerance ended the episode. One that raised or ran out of time has
    verified nothing: 0, less the same costs.
    """
    return (
        c.malformed
        if episode.ended == "malformed"
        else float(episode.verified) + c.invented * episode.invented
    )


def draw_episodes(stage: Stage, step: int) -> list[Rollout]:
    """`samples` episodes of each of the step's `prompts` tasks, next to each other; a function of
    the weights, the seed and the step.
    """
    c = stage.section
    drawn = Tasks("ppo", c.seed, c.worlds.split(","), Difficulty.of(c, style=stage.style))
    first = (step - 1) * c.prompts
    tasks = [task for i in range(first, first + c.prompts) for task in [drawn[i]] * c.samples]
    return rollouts(
        stage.model,
        stage.tokenizer,
        tasks,
        c.temperature,
        seed=c.seed * 100_003 + step,
        batch=len(tasks),
        tolerance=c.tolerance,
        zero_tolerance=True,
        room=c.room,
    )


SHOWN = ("reward", "success", "invented", "kl", "entropy", "clip_fraction", "explained_variance")
ENDS = {"malformed": "malformed", "raised": "raised", "timed_out": "time"}  # figure: Rollout.ended


def interval_figures(episodes: list[Rollout], seen: dict[str, list[float]]) -> dict[str, float]:
    """The figures of a log interval: rates of its episodes, and means of what was `seen`.

    A mean is over the numbers that there are (a skipped step has no approx_kl, and NaN is none); a
    figure without any is left out. `mismatch` is the largest.
    """
    rates = episode_rates(episodes)
    found = {name: rates.get(f"ended_{why}", 0.0) for name, why in ENDS.items()}
    found |= dict(success=rates["success"], calls=rates["calls"])
    found |= dict(invented=rates["invented_per_call"])
    for name, numbers in seen.items():
        if known := [number for number in numbers if not math.isnan(number)]:
            found[name] = max(known) if name == "mismatch" else sum(known) / len(known)
    return found


def ppo(config: Config) -> None:
    """CodePPO: draw episodes, judge them by execution, and make what went better than expected
    likelier, in small steps.
    """
    c = config.ppo

    def heads(shape) -> nn.ModuleDict:
        value = nn.Linear(shape.width, 1)
        (
            nn.init.zeros_(value.weight),
            nn.init.zeros_(value.bias),
        )  # knows nothing at first: every advantage is then the return itself
        return nn.ModuleDict({"value": value})

    stage = Stage(config, "sage", "safe", c.steps, c, heads if c.advantage == "gae" else None)
    if stage.finished():
        return
    model, device = stage.model, stage.device
    if stage.heads:
        stage.optimizers[-1].param_groups[0]["peak"] = c.value_learning_rate
    reference = stage.another(stage.source)  # a frozen copy, from the disk: nothing is shared
    skipped, replay = stage.kept.get("skipped", 0), replayed(stage, c.worlds)

    def evaluate(model: SAGE, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log P of the model's own tokens, entropies and values of packed rows, each (R, T)."""
        with stage.autocast:
            hidden = model.hidden(tokens[rows], documents[rows])
            log_probs, entropy = token_log_probs(
                hidden, model.unembedding, targets[rows], temperature=c.temperature
            )
            if not stage.heads:
                return log_probs, entropy, torch.zeros_like(log_probs)
            return log_probs, entropy, stage.heads["value"](hidden.detach()).squeeze(-1).float()

    def losses_of(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The rows' part of the loss, the clip fraction and approx_kl: `weights` sum to 1."""
        old, w = old_log_probs[rows], weights[rows]
        new, entropy, new_values = evaluate(model, rows)
        loss, clip_fraction = ppo_loss(new, old, advantages[rows], w, c.ratio_clip)
        loss = loss + c.kl * kl_loss(new, old, ref_log_probs[rows], w)
        loss = loss - c.entropy * (entropy * w).sum()
        if stage.heads:
            loss = loss + value_loss(new_values, values[rows], returns[rows], w, c.value_clip)
        return loss, clip_fraction, (kl_k3(old, new.detach()) * w).sum()  # KL(sampler ‖ now)

    began, logged, rollout_seconds, flops = time.perf_counter(), stage.first, 0.0, 0.0
    drawn, seen = [], defaultdict(list)  # a log interval's episodes, and numbers to be averaged
    with stop_requested() as stopping:
        for step in range(stage.first + 1, c.steps + 1):
            # -- episodes and their rewards
            rollout_seconds -= time.perf_counter()
            episodes = draw_episodes(stage, step)
            rollout_seconds += time.perf_counter()
            drawn += episodes
            rewards = torch.tensor([reward(episode, c) for episode in episodes])  # (P·G,)
            for episode, given in zip(episodes, rewards.tolist()):
                if not math.isfinite(given):
                    raise UserError(
                        f"step {step}: the reward of a task of the world {episode.task.world} (seed {episode.task.seed}) is {given}; look at ppo.malformed, ppo.invented and that world's verify"
                    )
                seen["reward"].append(given)
                seen[f"reward_{episode.task.world}"].append(given)
            fits = torch.tensor([len(episode.tokens) <= c.sequence for episode in episodes])
            seen["too_long"] += (~fits).float().tolist()
            if not fits.any():
                raise UserError(
                    f"step {step}: not one of {len(episodes)} episodes fits in ppo.sequence "
                    f"{c.sequence}; raise it, or lower ppo.room"
                )

            # -- each reward beside the others of its group: the same task's, or the whole step's
            by_task = c.samples > 1 and (c.baseline == "task" or c.advantage == "group")
            groups = rewards.where(fits, math.nan)  # NaN: does not count
            groups = groups.view(c.prompts if by_task else 1, -1)  # (P, G) or (1, P·G)
            centred_rewards = leave_one_out(groups).flatten()
            telling = differ(groups).expand_as(groups).flatten() & fits  # half of the work saved
            signal = bool(telling.any())
            skipped += not signal
            taught = (telling if signal else fits).nonzero().flatten().tolist()

            # -- as packed rows, short ones: attention's cost is their square
            examples = [(episodes[i].tokens, episodes[i].action_mask) for i in taught]
            packed = pack(examples, max(len(ids) for ids, _ in examples), config.model)
            tokens, targets = packed.tokens.to(device), packed.targets.to(device)  # (R, T)
            documents, action_mask = packed.documents.to(device), targets != IGNORE
            weights = shares(action_mask, documents, c.mean)  # of every mean below

            # -- before the first update: the policy that sampled, its values, the reference
            with torch.no_grad():
                parts = [
                    evaluate(model, rows) + evaluate(reference, rows)[:1]
                    for rows in torch.arange(len(tokens)).split(c.batch)
                ]
                old_log_probs, entropy, values, ref_log_probs = map(torch.cat, zip(*parts))

            # -- advantages
            if c.advantage == "gae":
                token_rewards = torch.zeros_like(values)
                for (row, column), i in zip(packed.positions, taught):
                    last_own = (
                        len(episodes[i].action_mask) - 1 - episodes[i].action_mask[::-1].index(True)
                    )
                    token_rewards[row, column + last_own - 1] = centred_rewards[i]
                advantages, returns = generalized_advantages(
                    token_rewards, values, action_mask, c.gamma, c.lam, documents
                )
                advantages = whiten(advantages, weights)
            else:
                each = group_advantages(groups).flatten()[taught].to(device)
                advantages = each[documents.clamp(min=0)] * action_mask

            # -- a few passes, as long as the policy stays near the one that sampled
            passes, approx_kl = 0, 0.0
            while signal and passes < c.epochs and approx_kl <= c.stop_kl:
                generator = torch.Generator().manual_seed(c.seed * 1_000_003 + step * 97 + passes)
                shuffled = torch.randperm(len(tokens), generator=generator)
                minibatches = shuffled.tensor_split(min(c.minibatches, len(tokens)))
                approx_kl = clip_fraction = 0.0
                for minibatch in minibatches:
                    for rows in minibatch.split(c.batch):
                        loss, clipped, divergence = losses_of(rows)
                        # times their number: minibatches' gradients have the whole batch's as mean
                        (len(minibatches) * loss).backward()
                        clip_fraction += clipped.item()
                        approx_kl += divergence.item()
                    if replay:
                        again = replay_loss(stage, replay)
                        (c.replay * again).backward()
                        seen["replay"].append(again.item())
                        size = c.replay_rows * c.sequence
                        flops += size * flops_per_token(config.model, c.sequence)
                    seen["norm"].append(stage.update(step))
                seen["clip_fraction"].append(clip_fraction)
                passes += 1
            stage.log.bar.update()

            # -- what a watcher wants to know
            if signal:
                seen["approx_kl"].append(approx_kl)
            if signal and stage.heads:
                seen["explained_variance"].append(explained_variance(values, returns, weights))
            seen["kl"].append((kl_k3(old_log_probs, ref_log_probs) * weights).sum().item())
            seen["entropy"].append((entropy * weights).sum().item())
            for (row, column), i in zip(packed.positions, taught):
                here = slice(column, column + len(episodes[i].tokens) - 1)
                sampled = torch.tensor(episodes[i].log_probs[1:], device=device)
                off = (sampled - old_log_probs[row, here])[action_mask[row, here]]
                seen["mismatch"].append(off.abs().max().item())
            cost = flops_per_token(config.model, tokens.shape[1])
            flops += (passes + 2 / 3) * tokens.numel() * cost  # old and reference go forward only
            if step % c.log_every == 0 or step == c.steps:
                now, steps = time.perf_counter(), step - logged
                seconds, found = now - began, interval_figures(drawn, seen)
                rate = sum(len(episode.tokens) for episode in drawn) / seconds
                own = sum(sum(episode.action_mask) for episode in drawn) / steps
                shown = {name: found.pop(name) for name in SHOWN if name in found}
                shown |= dict(skipped=skipped, lr=c.learning_rate * stage.scale)
                shown |= dict(norm=found.pop("norm")) if "norm" in found else {}
                share = flops / seconds / stage.peak
                stage.log.line(step, seconds / steps * 1e3, rate, share, **shown)
                share = rollout_seconds / seconds
                stage.log.write(step=step, **found, own=own, rollout_share=share)
                began, logged, rollout_seconds, flops = now, step, 0.0, 0.0
                drawn, seen = [], defaultdict(list)
            kept = dict(skipped=skipped) | (dict(replay=replay.state()) if replay else {})
            if stopping():
                stage.stop(step, **kept)
            if step == c.steps or c.save_every and step % c.save_every == 0:
                stage.save(step, **kept)
    stage.finish("reward", "success")


def main() -> None:
    config = settings.from_command_line()
    if config.stage not in ("", "dpo", "ppo"):
        raise UserError(
            f"--stage is {config.stage!r}; rl.py has dpo and ppo (distill and reflect are distill.py's)"
        )
    if config.stage in ("", "dpo"):
        dpo(config)
    if config.stage in ("", "ppo"):
        ppo(config)


if __name__ == "__main__":
    settings.run_script(main)
