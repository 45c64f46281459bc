"""Preference learning for safety, then reinforcement learning from execution (paper §3.1.2, §10.1, CodePPO), as one straight read.

    python rl.py config/toy.py                     both stages: out/toy/reflected → safe → sage
    python rl.py config/toy.py --stage dpo         Direct Preference Optimization: refusing what is unsafe, doing what only looks so
    python rl.py config/toy.py --stage ppo         Proximal Policy Optimization on episodes in the worlds
    python rl.py config/toy.py --stage ppo --ppo.advantage group --ppo.name grpo       without a value head, for comparison
    python rl.py config/toy.py --resume            goes on where a stopped run was, to the bit

What differs from the textbook:
- preferences go both ways: an unsafe request's refusal over compliance, and a benign look-alike's compliance over refusal
- episodes of the other worlds are replayed beside the pairs, or the model that learnt to refuse forgets to act (the "alignment tax")
- they are replayed beside the rewards, too (InstructGPT's PPO-ptx), or a rate at which rewards move anything destroys what was learnt before
- the reward is execution's verdict, once, at the end; a call that does not parse ends the episode (zero tolerance), an invented argument costs
- advantages step from one of the model's own tokens to the next; what tools say in between is not an action
- a reward is measured from the mean of the same task's other samples, so that an easy world's successes are no praise for their every word
- a task whose episodes all went the same way teaches nothing and is left out of the update, and so is an episode whose world raised; a step of
  nothing but such tasks is skipped and counted
- the value head reads hidden states without a gradient into them, so the policy's gradient is the policy loss's alone
"""

import math
import time
from collections import Counter

import threads  # before torch

import numpy as np
import torch
from torch import Tensor, nn

import config as settings
import runtime
from config import Config, Dpo, Ppo, UserError
from data import Rows, pack
from expert import preference, trajectory
from losses import (IGNORE, dpo_loss, generalized_advantages, group_advantages, kl_k2, kl_k3, leave_one_out, per_document, ppo_loss, shares, token_log_probs, value_loss, whiten)
from model import SAGE, flops_per_token
from rollout import Rollout, figures, rollouts
from stage import Stage, head_of, open_model
from tokenizer import Tokenizer
from worlds import Difficulty, Task, Tasks

Example = tuple[list[int], list[bool]]  # token IDs, and which of them are taught

# ------------------------------------------------------------------------------------------------------ stage dpo


def completion(task: Task, prompt: list[dict], messages: list[dict], tokenizer: Tokenizer) -> Example:
    """A conversation of which only the messages behind the prompt are taught."""
    tools, style = task.shown_tools(), task.difficulty.style
    shown = len(tokenizer.encode_chat(prompt, tools, style, generation_prompt=True)[0])
    tokens, own = tokenizer.encode_chat(prompt + messages, tools, style)
    return tokens, [mine and place >= shown for place, mine in enumerate(own)]


def pairs_of(c: Dpo, tokenizer: Tokenizer, style: str) -> list[Example]:
    """Preference pairs, flattened: chosen at even places, rejected at odd ones; pairs that do not fit in a row are left out."""
    examples: list[Example] = []
    tasks = Tasks("dpo", c.seed, ["safety"], Difficulty(style=style))
    for index in range(c.pairs):
        task = tasks[index]
        pair = preference(task)
        both = [completion(task, pair["prompt"], pair[side], tokenizer) for side in ("chosen", "rejected")]
        if max(len(tokens) for tokens, _ in both) <= c.sequence:
            examples += both
    return examples


@torch.no_grad()
def total_log_probs(model: SAGE, examples: list[Example], device: str, together: int = 128) -> Tensor:
    """log P of each example's taught tokens, summed, (N,)."""
    sums = []
    for start in range(0, len(examples), together):
        part = examples[start:start + together]
        packed = pack(part, max(len(tokens) for tokens, _ in part))
        tokens, targets, documents = packed.tokens.to(device), packed.targets.to(device), packed.documents.to(device)
        log_probs, _ = token_log_probs(model.hidden(tokens, documents), head_of(model), targets)
        sums.append(per_document(log_probs, documents, len(part)))
    return torch.cat(sums)


def replayed(stage: Stage, worlds: str) -> Rows | None:
    """The teacher's episodes of some worlds as packed rows, `replay_rows` at a time; None where the stage replays none."""
    c = stage.section
    if not c.replay_rows:
        return None
    purpose = {"safe": "dpo replay", "sage": "ppo replay"}[stage.name]  # tasks of its own: nothing that is rewarded is also recited
    tasks = Tasks(purpose, c.seed, worlds.split(","), Difficulty.of(c, style=stage.style))
    rows = [trajectory(*tasks.arguments(i), negatives=False) for i in range(c.trajectories)]
    replay = Rows([stage.tokenizer.encode_chat(row.messages, row.tools, stage.style) for row in rows], c.sequence, c.replay_rows, c.seed)
    replay.restore(stage.kept.get("replay", replay.state()))
    return replay


def replay_loss(stage: Stage, replay: Rows) -> Tensor:
    """Mean cross-entropy of the next rows' taught tokens."""
    tokens, targets, _, documents = (tensor.to(stage.device) for tensor in replay.next())
    with stage.autocast:
        log_probs = token_log_probs(stage.model.hidden(tokens, documents), stage.head, targets)[0]
    return -log_probs.sum() / (targets != IGNORE).sum()


def dpo(config: Config) -> None:
    """Stage 3: learn from pairs of messages which one is wanted, beside replayed episodes of the other worlds."""
    c = config.dpo
    stage = Stage(config, "safe", "reflected", c.steps, c)
    if stage.finished():
        return
    model, tokenizer, device = stage.model, stage.tokenizer, stage.device

    examples = pairs_of(c, tokenizer, stage.style)
    count = len(examples) // 2
    if count < c.batch:
        raise UserError(f"{count} of {c.pairs} pairs fit in dpo.sequence {c.sequence}; {c.batch} are needed for one step: raise dpo.sequence")

    # -- the reference's opinion of them, once: it is frozen
    with stage.autocast:
        reference = total_log_probs(open_model(stage.source, device=device), examples, device).view(count, 2)

    replay = replayed(stage, c.worlds)
    stage.log.say(f"data    {count:,} pairs of the safety world, {c.trajectories if replay else 0:,} episodes of {c.worlds} to replay")

    def taught_log_probs(tokens: Tensor, targets: Tensor, documents: Tensor) -> Tensor:
        with stage.autocast:
            return token_log_probs(model.hidden(tokens.to(device), documents.to(device)), stage.head, targets.to(device))[0]

    interval, logged, seen = time.perf_counter(), stage.first, Counter()
    with runtime.stop_requested() as stopping:
        for step in range(stage.first + 1, c.steps + 1):
            epoch, place = divmod(step - 1, count // c.batch)  # the place in the data is a function of the step
            chosen = np.random.default_rng([c.seed, epoch]).permutation(count)[place * c.batch:(place + 1) * c.batch]
            some = [examples[2 * pair + side] for pair in chosen for side in (0, 1)]
            packed = pack(some, max(len(tokens) for tokens, _ in some))  # short rows: attention's cost is their square
            log_probs = taught_log_probs(packed.tokens, packed.targets, packed.documents)  # (R, T)
            whose = packed.documents.to(device)
            sums, fixed = per_document(log_probs, whose, 2 * c.batch), reference[torch.from_numpy(chosen).to(device)]
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

            seen.update({name: part.item() for name, part in parts.items()} | dict(accuracy=(margins > 0).float().mean().item(), margin=margins.mean().item(), tokens=size))
            if step % c.log_every == 0 or step == c.steps:
                now, steps = time.perf_counter(), step - logged
                means = {name: value / steps for name, value in seen.items()}
                rate = means.pop("tokens") * steps / (now - interval)
                stage.log.line(step, (now - interval) / steps * 1e3, rate, rate * flops_per_token(config.model, c.sequence) / stage.peak, loss=means["dpo"] + c.nll * means["nll"] + c.replay * means.get("replay", 0.0),
                               **means, lr=c.learning_rate * stage.scale, norm=norm)
                interval, logged, seen = now, step, Counter()
            kept = dict(replay=replay.state()) if replay else {}
            if stopping():
                stage.stop(step, **kept)
            if step == c.steps or c.save_every and step % c.save_every == 0:
                stage.save(step, **kept)
    stage.finish("dpo", "accuracy")


# ------------------------------------------------------------------------------------------------------ stage ppo


def reward(episode: Rollout, c: Ppo) -> float:
    """Execution's verdict, 1 or 0, less what each invented argument costs; `malformed` where zero tolerance ended the episode."""
    return c.malformed if episode.ended == "malformed" else float(episode.verified) + c.invented * episode.invented


def draw_episodes(stage: Stage, step: int) -> list[Rollout]:
    """`samples` episodes of each of the step's `prompts` tasks, next to each other; a function of the weights, the seed and the step."""
    c = stage.section
    drawn = Tasks("ppo", c.seed, c.worlds.split(","), Difficulty.of(c, style=stage.style))
    first = (step - 1) * c.prompts
    tasks = [task for i in range(first, first + c.prompts) for task in [drawn[i]] * c.samples]
    return rollouts(stage.model, stage.tokenizer, tasks, c.temperature, seed=c.seed * 100_003 + step, batch=len(tasks), tolerance=c.tolerance, zero_tolerance=True, room=c.room)


def ppo(config: Config) -> None:
    """CodePPO: draw episodes, judge them by execution, and make what went better than expected likelier, in small steps."""
    c = config.ppo

    def heads(shape) -> nn.ModuleDict:
        value = nn.Linear(shape.width, 1)
        nn.init.zeros_(value.weight), nn.init.zeros_(value.bias)  # knows nothing at first: every advantage is then the return itself
        return nn.ModuleDict({"value": value})

    stage = Stage(config, "sage", "safe", c.steps, c, heads if c.advantage == "gae" else None)
    if stage.finished():
        return
    model, device = stage.model, stage.device
    if stage.heads:
        stage.optimizers[-1].param_groups[0]["peak"] = c.value_learning_rate
    reference = open_model(stage.source, device=device)  # a frozen copy, read from the disk: nothing of it is shared
    skipped, replay = stage.kept.get("skipped", 0), replayed(stage, c.worlds)

    def look(model: SAGE, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log-probabilities of the model's own tokens, entropies, and values of some packed rows, each (R, T)."""
        with stage.autocast:
            hidden = model.hidden(tokens[rows], documents[rows])
            log_probs, entropy = token_log_probs(hidden, head_of(model), targets[rows], temperature=c.temperature)
            value = stage.heads["value"](hidden.detach()).squeeze(-1).float() if stage.heads else torch.zeros_like(log_probs)
        return log_probs, entropy, value

    interval, logged, seen, replayed_losses = time.perf_counter(), stage.first, Counter(), []
    with runtime.stop_requested() as stopping:
        for step in range(stage.first + 1, c.steps + 1):
            # -- episodes and their rewards
            began = time.perf_counter()
            done = draw_episodes(stage, step)
            rollout_seconds = time.perf_counter() - began
            rewards = torch.tensor([reward(episode, c) for episode in done])
            for episode, given in zip(done, rewards.tolist()):
                if not math.isfinite(given):
                    raise UserError(f"step {step}: the reward of a task of the world {episode.task.world} (seed {episode.task.seed}) is {given}; look at ppo.malformed, ppo.invented and that world's verify")
            counted = [i for i, episode in enumerate(done) if episode.ended != "raised" and len(episode.tokens) <= c.sequence]
            if not counted:
                raise UserError(f"step {step}: not one of {len(done)} episodes can be learnt from: the worlds {c.worlds} raised, or episodes are over ppo.sequence {c.sequence} tokens")

            # -- what each was worth beside the same task's others; an episode that does not count moves nobody
            groups = torch.full((len(done),), math.nan).index_put((torch.tensor(counted),), rewards[counted]).view(c.prompts, c.samples)
            better = leave_one_out(groups).flatten() if c.samples > 1 and (c.baseline == "task" or c.advantage == "group") else rewards - rewards[counted].mean()
            told = [i for i in counted if better[i].abs() > 1e-6]  # a task that went the same way every time teaches nothing: half of the work saved
            signal, told = bool(told), told or counted
            packed = pack([(done[i].tokens, done[i].own) for i in told], max(len(done[i].tokens) for i in told))  # short rows: attention's cost is their square
            tokens, targets, documents = packed.tokens.to(device), packed.targets.to(device), packed.documents.to(device)  # (R, T)
            own, weights = targets != IGNORE, shares(targets != IGNORE, documents, c.mean)

            # -- before the first update: the policy that sampled, the reference, the values
            with torch.no_grad():
                parts = [look(model, rows) + look(reference, rows)[:1] for rows in torch.arange(len(tokens)).split(c.batch)]
                old, entropy, values, fixed = (torch.cat(part) for part in zip(*parts))

            # -- advantages
            if c.advantage == "gae":
                final = torch.zeros_like(values)
                for (row, column), i in zip(packed.positions, told):  # the reward comes with the last of the model's own tokens
                    final[row, column + len(done[i].own) - 2 - done[i].own[::-1].index(True)] = better[i]
                advantages, returns = generalized_advantages(final, values, own, c.gamma, c.lam, documents)
                explained = 1 - (returns - values)[own].var() / returns[own].var() if signal else torch.zeros(())
                advantages = whiten(advantages, own)
            else:
                each = group_advantages(groups.where(~groups.isnan(), groups.nanmean(1, keepdim=True)).nan_to_num()).flatten()[told].to(device)
                advantages, returns, explained = each[documents.clamp(min=0)] * own, torch.zeros_like(values), torch.zeros(())

            # -- a few passes, as long as the policy stays near the one that sampled
            clipped = moved = norm = 0.0
            if not signal:
                skipped += 1
            for epoch in range(c.epochs if signal else 0):
                shuffled = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(c.seed * 1_000_003 + step * 97 + epoch))
                drift = 0.0
                for part in shuffled.tensor_split(min(c.minibatches, len(tokens))):
                    share = shares(own[part], documents[part], c.mean)
                    for places in torch.arange(len(part)).split(c.batch):
                        rows, w = part[places], share[places]
                        new, spread, value = look(model, rows)
                        loss, bound = ppo_loss(new, old[rows], advantages[rows], w, c.ratio_clip)
                        loss = loss + c.kl * (kl_k2(new, fixed[rows]) * w).sum() - c.entropy * (spread * w).sum()
                        if stage.heads:
                            loss = loss + value_loss(value, values[rows], returns[rows], w, c.value_clip)
                        loss.backward()
                        clipped += bound.item() / c.minibatches / c.epochs
                        drift += (kl_k3(old[rows], new.detach()) * w).sum().item() / c.minibatches  # KL(sampler ‖ now) on the sampler's own draws
                    if replay:
                        again = replay_loss(stage, replay)
                        (c.replay * again).backward()
                        replayed_losses.append(again.item())
                    norm = stage.update(step)
                moved = drift
                if drift > c.stop_kl:
                    break
            stage.log.bar.update()

            # -- what a watcher wants to know
            found = figures(done)
            sampled = torch.zeros_like(old)
            for (row, column), i in zip(packed.positions, told):
                sampled[row, column:column + len(done[i].tokens) - 1] = torch.tensor(done[i].log_probs[1:])
            seen.update(dict(reward=rewards.mean().item(), success=found["success"], invented=found["invented_per_call"], malformed=found.get("ended_malformed", 0.0), calls=found["calls"], kl=(kl_k3(old, fixed) * weights).sum().item(),
                             entropy=(entropy * weights).sum().item(), clip=clipped, moved=moved, explained=explained.item(), mismatch=(sampled - old)[own].abs().max().item(), raised=found.get("ended_raised", 0.0),
                             rollout_share=rollout_seconds, tokens=sum(len(episode.tokens) for episode in done), work=tokens.numel(), own=found["tokens"] * len(done), norm=norm) | {f"reward_{name}": value for name, value in per_world(done, rewards).items()})
            if step % c.log_every == 0 or step == c.steps:
                now, steps = time.perf_counter(), step - logged
                means = {name: value / steps for name, value in seen.items()}
                if replayed_losses:
                    means["replay"] = sum(replayed_losses) / len(replayed_losses)
                    replayed_losses = []
                means["rollout_share"] *= steps / (now - interval)
                rate, work = (means.pop(name) * steps / (now - interval) for name in ("tokens", "work"))
                cost = flops_per_token(config.model, c.sequence) * (c.epochs + 2 / 3)  # old and reference are a third each of forward and backward; drawing comes on top
                shown = {name: means.pop(name) for name in ("reward", "success", "invented", "kl", "entropy", "clip", "explained")}
                stage.log.line(step, (now - interval) / steps * 1e3, rate, work * cost / stage.peak, **shown, skipped=skipped, lr=c.learning_rate * stage.scale, norm=means.pop("norm"))
                stage.log.write(step=step, **means)
                interval, logged, seen = now, step, Counter()
            kept = dict(skipped=skipped) | (dict(replay=replay.state()) if replay else {})
            if stopping():
                stage.stop(step, **kept)
            if step == c.steps or c.save_every and step % c.save_every == 0:
                stage.save(step, **kept)
    stage.finish("reward", "success")


def per_world(done: list[Rollout], rewards: Tensor) -> dict[str, float]:
    """Mean reward of each world."""
    given: dict[str, list[float]] = {}
    for episode, value in zip(done, rewards.tolist()):
        given.setdefault(episode.task.world, []).append(value)
    return {name: sum(values) / len(values) for name, values in given.items()}


def main() -> None:
    config = settings.from_command_line()
    if config.stage not in ("", "dpo", "ppo"):
        raise UserError(f"--stage is {config.stage!r}; rl.py has dpo and ppo (amplify, vary and reflect are distill.py's)")
    if config.stage in ("", "dpo"):
        dpo(config)
    if config.stage in ("", "ppo"):
        ppo(config)


if __name__ == "__main__":
    settings.run(main)
