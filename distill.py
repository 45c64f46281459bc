"""Distillation and amplification, then reflective distillation (paper §3.1, Algorithm 1, equation
5), as one straight read.

    python distill.py config/toy.py                      all stages: out/toy/base → amplified → varied → reflected
    python distill.py config/toy.py --stage amplify      teacher's trajectories, and corrections of its hard negatives
    python distill.py config/toy.py --stage vary         a few more of them, whose requests and faults babble and whose teacher errs (ours, not the paper's)
    python distill.py config/toy.py --stage reflect      on-policy rounds: try, be told what was wrong, try again, learn from it
    python distill.py config/toy.py --resume             goes on where a stopped run was, to the bit

What differs from the usual fine-tuning:
- what the model did not write itself is masked, or weighs little (distill.prompt_weight)
- beside every few right calls stand their hard negatives: a wrong call, the words that name its
  fault, and the right call
- stage vary comes when texts have been learnt by heart: words that say nothing stand around the
  names that matter, so only these are still read; and some episodes show a call that the schemas
  refuse, masked, and what was said to it, so that the model learns to read its schemas again
- in stage reflect the student's own failures are the data; the failed attempt is shown and masked,
  critique and revision are learnt
"""

import json
import random
import time
from collections import Counter, defaultdict
from pathlib import Path

import support.openmp  # before torch

import torch
import torch.nn.functional as F

from support import checkpoint
from support import settings
from support import provenance
from support import runtime
from attention import check_documents
from config import Config, Distill, UserError
from support.data import Rows
from worlds.expert import critique, solve, trajectory
from losses import cross_entropy
from model import flops_per_token
from agent import AGAIN, Rollout, revision_prefix, episode_rates, prompt_of, rollouts
from support.training_run import Stage
from worlds.labels import WORDS, first_wrong, spans_of
from support.tokenizer import Tokenizer, chat_text
from worlds.tools import compact, given_text, parse
from worlds.base import Difficulty, Task, Tasks, strangers

Example = tuple[list[int], list[float]]  # token IDs, and how much each counts in the loss
# Of what `collect` writes: raised when the same student and tasks give another buffer.
VERSION = 1

# ------------------------------------------------------------------------------------------------------
# examples


def lesson(
    tokens: list[int], own: list[bool], prompt_weight: float, weight: float = 1.0
) -> Example:
    """A conversation to learn from: the model's own words at `weight`, all others at
    `prompt_weight` of it.
    """
    return tokens, [weight * (1.0 if mine else prompt_weight) for mine in own]


def conversation(
    messages: list[dict], tools: list, tokenizer: Tokenizer, style: str, prompt_weight: float
) -> Example:
    """A teacher's conversation to learn from.

    A slip that it shows is masked; that it was put right is learnt.
    """
    tokens, own = tokenizer.encode_chat(messages, tools, style)
    _, weights = lesson(tokens, own, prompt_weight)
    for message, (first, last) in zip(
        (m for m in messages if m["role"] == "assistant"),
        spans_of(tokens, own, tokenizer.stop),
        strict=True,
    ):
        if message.get("slip"):
            weights[first : last + 1] = [0.0] * (last + 1 - first)
    return tokens, weights


def success(attempt: Rollout, tokenizer: Tokenizer, prompt_weight: float) -> Example:
    """A verified attempt to learn from.

    A call that the check refused on the way is masked; that it was put right is learnt.
    """
    tokens, weights = lesson(attempt.tokens, attempt.action_mask, prompt_weight)
    for group, (first, last) in zip(
        attempt.groups, spans_of(tokens, attempt.action_mask, tokenizer.stop)
    ):
        if any(attempt.log[place].faults for place in group):
            weights[first : last + 1] = [0.0] * (last + 1 - first)
    return tokens, weights


def correction(
    row: dict, negative: dict, tokenizer: Tokenizer, style: str, prompt_weight: float
) -> Example:
    """A hard negative to put right: the request, the wrong call (masked), "again", then what was
    wrong with it and the right call.
    """
    wrong, right = (
        {"role": "assistant", "content": content, "tool_calls": [{"function": call}]}
        for content, call in (
            ("", negative["wrong"]),
            (f"{negative['kind']}: {negative['fault']}\n", negative["right"]),
        )
    )
    before = [row["messages"][0], wrong, {"role": "user", "content": AGAIN}]
    shown = len(tokenizer.encode_chat(before, row["tools"], style)[0])
    tokens, own = tokenizer.encode_chat([*before, right], row["tools"], style)
    return tokens, [
        0.0 if place < shown and mine else 1.0 if mine else prompt_weight
        for place, mine in enumerate(own)
    ]


def equation_5(
    attempt: list[int],
    style: str,
    told: str,
    revised: list[int],
    revised_own: list[bool],
    tokenizer: Tokenizer,
    weight: float,
    critique_weight: float,
) -> Example:
    """−w · [log P(y′ | x, y0, q) + η · log P(q | x, y0)]: the failed attempt is masked, critique
    and revision are learnt.

    `attempt` are the tokens of the conversation up to what failed; `revised` those behind the
    critique, with which of them the model is to write.
    """
    before = revision_prefix(tokenizer, style, attempt, told)
    words = len(tokenizer.encode(f"{told}\n"))
    return before + revised, [0.0] * (len(before) - words) + [weight * critique_weight] * words + [
        weight * mine for mine in revised_own
    ]


# ------------------------------------------------------------------------------------------------------
# stages amplify and vary


def drawn_rows(
    c: Distill, purpose: str, count: int, style: str, babble: float, slips: float
) -> list[dict]:
    """The scripted expert's verified trajectories, as lines of a teacher's file.

    Most of an expert's time goes into negatives: only as many as are used.
    """
    tasks = Tasks(
        purpose, c.seed, c.worlds.split(","), Difficulty.of(c, style=style, babble=babble)
    )
    chance, erring = (
        random.Random(f"negatives {purpose} {c.seed}"),
        random.Random(f"slips {purpose} {c.seed}"),
    )
    rows = [
        vars(
            trajectory(*tasks.arguments(i), chance.random() < c.correction, erring.random() < slips)
        )
        for i in range(count)
    ]
    return [row for row in rows if row["verified"]]


def untaught(row: dict) -> str:
    """Why a line's conversation cannot be rendered as it was meant; "" if it can."""
    try:
        chat_text(row["messages"], row["tools"])
    except UserError as problem:
        return str(problem)
    spelt = (
        number
        for number, message in enumerate(row["messages"])
        if message["role"] == "assistant" and any(parse(given_text(message.get("content"))))
    )
    number = next(spelt, None)  # its letters would be taught, not the markers
    return "" if number is None else f"message {number} has a call in its content"


def rows_of_file(c: Distill, say, style: str = "compact") -> list[dict]:
    """The verified trajectories in a file of teacher.py, their tools as a style shows them; other
    lines are counted by reason and passed over.

    Raises UserError where none is left.
    """
    path = Path(settings.absolute(c.file))
    if not path.exists():
        raise UserError(
            f"no file {path}; write one with python -m worlds.teacher --out {c.file}, or leave distill.file empty"
        )
    rows, refused = [], defaultdict(list)  # problem -> numbers of the lines that have it
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)
            problem = unfit(row, c, style) or untaught(row)
        except (ValueError, KeyError, TypeError, AttributeError):
            problem = "broken"
        if problem:
            refused[problem].append(number)
            continue
        if style == "compact":
            row["tools"] = [
                tool if isinstance(tool, str) else compact(tool) for tool in row["tools"]
            ]
        rows.append(row)
    if refused:
        count = sum(map(len, refused.values()))
        reasons = [
            f"{len(lines)} {problem} (first line {lines[0]})" for problem, lines in refused.items()
        ]
        say(
            f"        {count} of {count + len(rows)} lines of {path.name} are left out: {', '.join(reasons)}"
        )
    if not rows:
        raise UserError(
            f"{path} holds no verified trajectory of the worlds {c.worlds} for training; write some with python -m worlds.teacher --out {c.file}"
        )
    return rows


def unfit(row: dict, c: Distill, style: str) -> str:
    """Why a line of a teacher's file is not to be learnt from, or ""."""
    if not row["messages"] or row["tools"] is None or row["world"] not in c.worlds.split(","):
        return "of other worlds"
    if not row["verified"]:
        return "not verified"
    if row.get("difficulty", {}).get("split", "train") != "train":
        return "of a held-out split"
    if row.get("fault") and row["fault"] not in c.fault_kinds.split(","):
        return f"with the fault {row['fault']}, which distill.fault_kinds does not have"
    if strangers(json.dumps(row["negatives"])):  # as older versions drew them
        return "with held-out names in its negatives"
    if style == "qwen" and any(isinstance(tool, str) for tool in row["tools"]):
        return "with tools as compact lines, where the model reads schemas (teacher.py --difficulty.style qwen)"
    return ""


def tutor(c: Distill) -> dict:
    """Whose logits a stage learns from, by the hash of its weights."""
    run = settings.absolute(c.kl_teacher) if c.kl and c.kl_teacher else None
    return {"distill.kl_teacher": run and checkpoint.identity(run)}


def amplify(config: Config) -> None:
    """Stage 1: supervised learning on teacher trajectories and on corrections of hard negatives."""
    c = config.distill
    file = Path(settings.absolute(c.file))
    read = {"distill.file": provenance.digest(file) if c.file and file.is_file() else None}
    stage = Stage(config, "amplified", "base", c.steps, c, made_from=read | tutor(c))
    if not stage.finished():
        drawn = (
            rows_of_file(c, stage.log.say, stage.style)
            if c.file
            else drawn_rows(c, "amplify", c.trajectories, stage.style, 0.0, 0.0)
        )
        teach(stage, drawn)


def vary(config: Config) -> None:
    """Between the paper's stages 1 and 2: the same on fewer trajectories in which words vary and
    the teacher errs.
    """
    c = config.distill
    stage = Stage(
        config, "varied", "amplified", c.vary_steps, c, rate=c.reflect_rate, made_from=tutor(c)
    )
    if not stage.finished():
        teach(stage, drawn_rows(c, "vary", c.vary_trajectories, stage.style, c.babble, c.slips))


def examples_of(rows: list[dict], c: Distill, tokenizer: Tokenizer, style: str) -> list[Example]:
    """Trajectories to learn from, and one correction of each that comes with hard negatives."""
    examples = []
    for row in rows:
        examples.append(
            conversation(row["messages"], row["tools"], tokenizer, style, c.prompt_weight)
        )
        if row["negatives"] and c.correction:
            negative = random.Random(f"{row['seed']} {row['index']}").choice(row["negatives"])
            examples.append(correction(row, negative, tokenizer, style, c.prompt_weight))
    return examples


def teach(stage: Stage, rows: list[dict]) -> None:
    """All steps of a stage on teacher's trajectories."""
    c, examples = stage.section, examples_of(rows, stage.section, stage.tokenizer, stage.style)
    random.Random(c.seed).shuffle(examples)
    packed = Rows(examples, c.sequence, c.batch, c.seed, stage.model.config)
    packed.restore(stage.kept.get("rows", packed.state()))
    taught = sum(sum(weight > 0.5 for weight in weights) for _, weights in examples)
    stage.log.say(
        f"data    {len(rows):,} verified trajectories, {len(examples) - len(rows):,} corrections: {taught / 1e6:.1f}M taught tokens in {len(packed.order):,} rows of {c.sequence}"
    )
    learn(stage, packed, stage.first, stage.steps)
    stage.finish()


# ------------------------------------------------------------------------------------------------------
# learning from rows


def learn(stage: Stage, packed: Rows, first: int, last: int, **kept) -> None:
    """Optimiser steps first + 1 … last of a stage on packed rows; logs, saves, and stops on
    request.
    """
    c, config, model = stage.section, stage.config, stage.model
    teacher = stage.another(settings.absolute(c.kl_teacher)) if c.kl and c.kl_teacher else None
    if teacher and teacher.config.vocab_size != config.model.vocab_size:
        raise UserError(
            f"distill.kl_teacher has {teacher.config.vocab_size} tokens, the student {config.model.vocab_size}; their logits cannot be compared"
        )
    if teacher:  # rows were packed for the student
        check_documents(packed.tensors[3], teacher.config.window, teacher.config.landmark_stride)

    def loss_of(tokens, targets, weights, documents):
        """Weighted cross-entropy, and the divergence from the teacher's distribution at the taught
        tokens.
        """
        hidden = model.hidden(tokens, documents)
        loss = cross_entropy(hidden, stage.model.unembedding, targets, weights=weights)
        if teacher is None:
            return loss
        with torch.no_grad():
            wanted = teacher.logits(teacher.hidden(tokens, documents)).log_softmax(-1)
        divergence = F.kl_div(
            model.logits(hidden).float().log_softmax(-1), wanted, log_target=True, reduction="none"
        ).sum(-1)  # (B, T)
        return loss + c.kl * (divergence * weights).sum() / weights.sum()

    loss_of = runtime.compiled(loss_of, c.compile, last - first, stage.device)
    tokens_a_step = c.batch * c.sequence
    flops_a_step = tokens_a_step * flops_per_token(config.model, c.sequence)
    interval, logged = time.perf_counter(), first
    with runtime.stop_requested() as stopping:
        for step in range(first + 1, last + 1):
            tokens, targets, weights, documents = (
                tensor.to(stage.device) for tensor in packed.next()
            )
            with stage.autocast:
                loss = loss_of(tokens, targets, weights, documents)
            loss.backward()
            norm = stage.update(step)
            stage.log.bar.update()
            if step % c.log_every == 0 or step == last:
                now = time.perf_counter()
                seconds = (now - interval) / (step - logged)
                stage.log.line(
                    step,
                    seconds * 1e3,
                    tokens_a_step / seconds,
                    flops_a_step / seconds / stage.peak,
                    loss=loss.item(),
                    lr=c.learning_rate * stage.scale,
                    norm=norm,
                )
                interval, logged = now, step
            if stopping():
                stage.stop(step, rows=packed.state(), **kept)
            if step == last or c.save_every and step % c.save_every == 0:
                stage.save(step, rows=packed.state(), **kept)


# ------------------------------------------------------------------------------------------------------
# stage reflect


def reflect(config: Config) -> None:
    """Stage 2, Algorithm 1: sample, verify by execution, criticise, revise; learn from what came
    out, and begin anew with the better student.
    """
    c = config.distill
    stage = Stage(
        config, "reflected", "varied", c.reflect_steps, c, rate=c.reflect_rate, made_from=tutor(c)
    )
    if stage.finished():
        return
    for number in range(c.rounds):
        begin, end = (c.reflect_steps * n // c.rounds for n in (number, number + 1))
        if stage.first >= end:
            continue
        file = (
            stage.folder / f"buffer-{number}.jsonl"
        )  # readable; a resumed run reads it instead of sampling again
        within = stage.first > begin
        student = stage.kept.get("student")
        if not within:
            student = checkpoint.identity(stage.folder if begin else stage.source)
        made_from = {**stage.made_from, "version": VERSION, "round": number + 1, "student": student}
        if not file.exists():
            if within:
                raise UserError(
                    f"{file} is gone, and {stage.folder} stands at step {stage.first}, "
                    "within the round that learns from it; put it back, or delete the "
                    "folder to make it anew"
                )
            collect(stage, number, begin, file, made_from)
        if not file.stat().st_size:
            raise UserError(
                f"{file} is empty: no attempt succeeded and no revision could be made; train stage amplify longer, or delete {file} to sample again"
            )
        anew = stage.folder if within else file
        remedy = f"give the same command, or delete {anew} to sample again"
        rows = provenance.read_lines(file, made_from, stage.defaults, remedy)
        examples = [(row["tokens"], row["weights"]) for row in rows]
        packed = Rows(examples, c.sequence, c.batch, c.seed + number, stage.model.config)
        packed.restore(stage.kept["rows"] if within else packed.state())
        learn(stage, packed, max(begin, stage.first), end, student=student)
    stage.finish()


def collect(stage: Stage, number: int, begin: int, file: Path, made_from: dict) -> None:
    """One round of Algorithm 1, from step `begin`, with the present student: writes the buffer, one
    example per line, with the texts it was made of."""
    c, tokenizer = stage.section, stage.tokenizer
    seed, difficulty = c.seed * 1000 + 17 * (number + 1), Difficulty.of(c, style=stage.style)
    drawn = Tasks("reflect", c.seed, c.worlds.split(","), difficulty)
    tasks = [drawn[number * c.tasks + i] for i in range(c.tasks)]
    began = time.perf_counter()
    attempts = rollouts(stage.model, tokenizer, tasks, seed=seed)
    rates = episode_rates(attempts)
    lines, counts, rng = [], Counter(), random.Random(f"reflect {seed}")

    def keep(source: str, task: Task, example: Example, **more) -> None:
        counts[source] += 1
        lines.append(
            dict(
                source=source,
                world=task.world,
                kind=task.kind,
                seed=task.seed,
                **more,
                tokens=example[0],
                weights=example[1],
            )
        )

    failures = []
    for attempt in attempts:
        if attempt.verified:  # amplification of what went well
            keep(
                "success",
                attempt.task,
                success(attempt, tokenizer, c.prompt_weight),
                attempt=tokenizer.decode(attempt.tokens),
            )
        elif attempt.ended != "raised":
            failures.append(attempt)
        if attempt.ended != "raised" and (attempt.invalid or not attempt.verified):
            if c.step_weight and (
                found := first_wrong(attempt, tokenizer)
            ):  # the same for one step, told no more than a head can tell: think.py asks like that
                before, part, right = found
                told = WORDS[
                    "success" if part == "logic" and rng.random() < 0.5 else part
                ]  # what leads nowhere is not always told apart
                keep(
                    "step",
                    attempt.task,
                    equation_5(
                        before,
                        stage.style,
                        told,
                        right,
                        [True] * len(right),
                        tokenizer,
                        c.step_weight,
                        c.critique_weight,
                    ),
                    critique=told,
                    attempt=tokenizer.decode(before),
                    revision=tokenizer.decode(right),
                )
    open_ = [
        (attempt, *complaint(attempt)) for attempt in failures
    ]  # (failed attempt, task, critique), revised up to K times
    for attempt_number in range(1, c.tries + 1):
        room = stage.config.model.context - 384
        open_ = [entry for entry in open_ if len(entry[0].tokens) < room]
        if not open_:
            break
        prompts = [
            revision_prefix(tokenizer, task.difficulty.style, attempt.tokens, told)
            for attempt, task, told in open_
        ]
        revisions = rollouts(
            stage.model,
            tokenizer,
            [task for _, task, _ in open_],
            seed=seed + attempt_number,
            prompts=prompts,
        )
        left = []
        for (attempt, task, told), prompt, revision in zip(open_, prompts, revisions):
            if not revision.verified or revision.invalid:
                left.append((attempt, task, told))
                continue
            weight = 1 + (attempt_number - 1) / c.tries
            tokens, own = revision.tokens[len(prompt) :], revision.action_mask[len(prompt) :]
            keep(
                "revised",
                task,
                equation_5(
                    attempt.tokens,
                    stage.style,
                    told,
                    tokens,
                    own,
                    tokenizer,
                    weight,
                    c.critique_weight,
                ),
                tries=attempt_number,
                critique=told,
                attempt=tokenizer.decode(attempt.tokens),
                revision=tokenizer.decode(tokens),
            )
        open_ = left
    for attempt, task, told in open_:  # nothing helped: the teacher's own correction
        messages, episode = solve(task)
        if not episode.verified:
            continue
        start = prompt_of(task, tokenizer)
        tokens, own = tokenizer.encode_chat(
            [{"role": "user", "content": task.request}, *messages],
            task.shown_tools(),
            task.difficulty.style,
        )
        weight = 1 + (c.tries - 1) / c.tries if c.tries else 1.0  # without tries it is the first
        keep(
            "teacher",
            task,
            equation_5(
                attempt.tokens,
                stage.style,
                told,
                tokens[len(start) :],
                own[len(start) :],
                tokenizer,
                weight,
                c.critique_weight,
            ),
            tries=c.tries,
            critique=told,
            attempt=tokenizer.decode(attempt.tokens),
            revision=tokenizer.decode(tokens[len(start) :]),
        )
    replay, count = (
        Tasks("reflect replay", c.seed, drawn.worlds, difficulty),
        int(c.replay * c.tasks),
    )
    for index in range(number * count, (number + 1) * count):
        row = trajectory(*replay.arguments(index), negatives=False, slips=rng.random() < c.slips)
        keep(
            "replay",
            replay[index],
            conversation(row.messages, row.tools, tokenizer, stage.style, c.prompt_weight),
        )
    provenance.write_lines(file, lines, made_from)
    revised = counts["revised"] / max(len(failures), 1)
    long = sum(len(line["tokens"]) > c.sequence for line in lines)
    stage.log.say(
        f"round {number + 1}: {rates['success']:.1%} of {len(tasks)} tasks at the first try, {revised:.1%} of the failures revised by the student itself; "
        f"buffer {', '.join(f'{source} {count}' for source, count in counts.items())}"
        + (f"; {long} over {c.sequence} tokens, left out" if long else "")
        + f"; {time.perf_counter() - began:.0f} s"
    )
    sizes = {f"buffer_{source}": count for source, count in counts.items()}
    stage.log.write(
        step=begin, round=number + 1, first_try=rates["success"], revised=revised, **sizes
    )


def complaint(attempt: Rollout) -> tuple[Task, str]:
    """The task of a failed attempt and what its teacher says went wrong, from the episode's own
    log.
    """

    class Played:  # what expert.critique reads of an episode
        log = attempt.log

    return attempt.task, critique(
        attempt.task, Played, attempt.messages[-1] if attempt.messages else ""
    )


def main() -> None:
    config = settings.from_command_line()
    stages = {"amplify": amplify, "vary": vary, "reflect": reflect}
    if config.stage not in ("", *stages):
        raise UserError(
            f"--stage is {config.stage!r}; distill.py has amplify, vary and reflect (dpo and ppo are rl.py's)"
        )
    for name in [config.stage] if config.stage else stages:
        stages[name](config)


if __name__ == "__main__":
    settings.run_script(main)
