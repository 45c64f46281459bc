"""Rollouts beside the expert's own conversations, the trainer's log-probabilities, and worlds that
misbehave.
"""

import json
import os
import time
from pathlib import Path

import pytest
import torch

from support import tokenizer as tokenizers
from config import Model, UserError
from worlds import WORLDS
from worlds.expert import solve_task
from model import SAGE
from agent import EpisodeRow, Rollout, episode_rates, prompt_of, rollouts
from worlds.base import Entry, Episode
from worlds.difficulty import RUNGS, Difficulty
from worlds.tasks import draw_task
from worlds.extras.benchmarks import bfcl

TINY = Model(
    vocab_size=1024,
    width=32,
    layers=2,
    heads=2,
    kv_heads=1,
    head_dim=16,
    feed_forward=48,
    context=640,
    previous_token=True,
)
TOY = tokenizers.toy()


class Scripted(torch.nn.Module):
    """A "model" that writes given conversations: after the token at position p of row r it is sure
    of script[r][p + 1].
    """

    def __init__(self, scripts):
        super().__init__()
        self.config, self.scripts, self.weight = TINY, scripts, torch.nn.Parameter(torch.zeros(1))

    def hidden(self, tokens, state=None, positions=None):
        state.cache.advance(positions)
        return positions[..., None]

    def logits(self, hidden):
        logits = torch.full((len(hidden), TINY.vocab_size), -50.0)
        for row, position in enumerate(hidden.reshape(len(hidden), -1)[:, -1].tolist()):
            script = self.scripts[row]
            logits[row, script[min(position + 1, len(script) - 1)]] = 50.0
        return logits

    def forward(self, tokens, state, positions):
        return self.logits(self.hidden(tokens, state, positions))[:, None]


def conversation(task):
    messages, _ = solve_task(task)
    return TOY.encode_chat(
        [{"role": "user", "content": task.request}, *messages], task.shown_tools(), "compact"
    )


@pytest.mark.parametrize("world", WORLDS)
def test_the_experts_words_give_the_experts_conversation(world):
    """Token for token what the chat template makes of the expert's messages, tools' answers and
    injected faults included, and verified.
    """
    tasks = [draw_task(world, 3, index, Difficulty(fault_rate=0.7)) for index in range(8)]
    wanted = [conversation(task) for task in tasks]
    for done, (tokens, own) in zip(
        rollouts(Scripted([t for t, _ in wanted]), TOY, tasks, room=400), wanted
    ):
        assert (done.ended, done.verified, done.invented) == ("answer", True, 0)
        length = len(
            done.tokens
        )  # the template puts a line end behind the last message, which nobody writes
        assert (
            done.tokens == tokens[:length]
            and done.action_mask == own[:length]
            and length == len(tokens) - 1
        )
        assert done.recovered in (None, True)


def test_log_probabilities_are_the_trainers():
    torch.manual_seed(0)
    model = SAGE(TINY).train()
    with torch.no_grad():
        for p in model.parameters():  # far from uniform, so that an error would show
            p.mul_(3)
    tasks = [draw_task(world, 1, index) for index in range(3) for world in ("api", "math", "shell")]
    for done in rollouts(model, TOY, tasks, seed=5, room=60):
        log_probs = model(torch.tensor([done.tokens]))[0].log_softmax(-1)
        for place in range(1, len(done.tokens)):
            if done.action_mask[place]:
                assert (
                    abs(log_probs[place - 1, done.tokens[place]].item() - done.log_probs[place])
                    <= 1e-5
                )
            else:
                assert done.log_probs[place] == 0


def test_an_episode_does_not_depend_on_its_batch():
    model, tasks = SAGE(TINY), [draw_task("api", 2, index) for index in range(20)]
    together = rollouts(
        model, TOY, tasks, seed=1, room=50, batch=20
    )  # 20 rows: the batch shrinks on the way
    for batch in (1, 3, 12):  # and here others take the places of those that are done
        some = rollouts(model, TOY, tasks, seed=1, room=50, batch=batch)
        assert [a.tokens for a in together] == [b.tokens for b in some] and [
            a.ended for a in together
        ] == [b.ended for b in some]
        assert (
            max(
                abs(x - y) for a, b in zip(together, some) for x, y in zip(a.log_probs, b.log_probs)
            )
            < 1e-4
        )
    assert {r.ended for r in together} != {"length"} and len(
        {len(r.tokens) - len(prompt_of(r.task, TOY)) for r in together}
    ) > 3
    assert [a.tokens for a in together] != [
        b.tokens for b in rollouts(model, TOY, tasks, seed=2, room=50)
    ]


class Punctual(Scripted):
    """Writes "x" and ends its message at every 37th position, whoever's row it is."""

    def logits(self, hidden):
        ends = hidden.reshape(len(hidden), -1)[:, -1] % 37 == 0
        return 50.0 * torch.nn.functional.one_hot(
            torch.where(ends, TOY.stop[0], TOY.encode("x")[0]), TINY.vocab_size
        )


@pytest.mark.parametrize("batch", [1, 2, 5, 16])
def test_rows_that_come_and_go_at_different_times_all_get_their_due(batch):
    tasks = [draw_task(world, 1, index) for index in range(12) for world in ("api", "sql", "math")]
    done = rollouts(Punctual([]), TOY, tasks, room=30, batch=batch)
    left = [
        (1 - len(prompt_of(task, TOY))) % 37 + 1 for task in tasks
    ]  # tokens up to the end of the message
    assert [r.task for r in done] == tasks and [sum(r.action_mask) for r in done] == [
        min(30, n) for n in left
    ]
    assert [r.ended for r in done] == ["answer" if n <= 30 else "length" for n in left] and {
        "answer",
        "length",
    } == {r.ended for r in done}


def test_progress_counts_what_has_ended():
    tasks = [draw_task("math", 1, index) for index in range(12)]
    told = []
    rollouts(Punctual([]), TOY, tasks, room=30, batch=4, progress=lambda *x: told.append(x))
    ended = [done for done, _ in told]
    assert {total for _, total in told} == {12}
    assert ended == sorted(ended) and ended[0] == 0 and ended[-1] >= 8


def broken(task, call):
    """The expert's conversation with its first call replaced by other text."""
    tokens, own = conversation(task)
    start = own.index(True)
    return tokens[:start] + TOY.encode(call, special=True) + [TOY.special["<|im_end|>"]] * 40


@pytest.mark.parametrize(
    "call, zero_tolerance, ended",
    [
        ("<tool_call>{no json</tool_call>", True, "malformed"),
        ('<tool_call>{"name":"nosuchtool","arguments":{}}</tool_call>', True, "malformed"),
        ('<tool_call>{"name":"nosuchtool","arguments":{}}</tool_call>', False, "invalid"),
    ],
)
def test_wrong_calls_end_episodes(call, zero_tolerance, ended):
    task = next(t for t in (draw_task("api", 0, i) for i in range(50)) if t.solution)
    tolerance = 1 if ended == "invalid" else 2
    done = rollouts(
        Scripted([broken(task, call)]),
        TOY,
        [task],
        zero_tolerance=zero_tolerance,
        tolerance=tolerance,
    )[0]
    assert done.ended == ended and not done.verified and done.invalid == 1


def test_a_world_that_raises_costs_its_episode_only(monkeypatch):
    tasks = [
        next(t for t in (draw_task("api", seed, i) for i in range(50)) if t.solution)
        for seed in (0, 1, 2)
    ]
    model, whole = Scripted([conversation(task)[0] for task in tasks]), Episode.step

    def step(self, call):
        if self.task is tasks[1]:
            raise RuntimeError("the world ends")
        return whole(self, call)

    monkeypatch.setattr(Episode, "step", step)
    assert [(r.ended, r.verified) for r in rollouts(model, TOY, tasks, room=400)] == [
        ("answer", True),
        ("raised", False),
        ("answer", True),
    ]


def test_recovery_and_invention_are_counted():
    task = draw_task("api", 0, 0)
    call = {"name": "kemi", "arguments": {}}
    entry = lambda said, taken=None, faults=(): Entry(call, list(faults), said, taken)
    recovered = Rollout(
        task,
        [],
        [],
        [],
        faults=[(0, "timeout")],
        log=[entry("error: timeout"), entry("error: x"), entry("5", call)],
    )
    too_late = Rollout(
        task,
        [],
        [],
        [],
        faults=[(0, "timeout")],
        log=[entry("error: timeout"), entry("error: x"), entry("error: x"), entry("5", call)],
    )
    other_tool = Rollout(
        task,
        [],
        [],
        [],
        faults=[(0, "timeout")],
        log=[entry("error: timeout"), entry("5", {"name": "other", "arguments": {}})],
    )
    assert [r.recovered for r in (recovered, too_late, other_tool, Rollout(task, [], [], []))] == [
        True,
        False,
        False,
        None,
    ]
    assert episode_rates([recovered, too_late])["recovery"] == 0.5


def test_a_prompt_without_room_is_an_error():
    with pytest.raises(UserError, match="leaves no room"):
        rollouts(
            SAGE(
                Model(
                    vocab_size=1024,
                    width=32,
                    layers=1,
                    heads=2,
                    kv_heads=1,
                    head_dim=16,
                    feed_forward=48,
                    context=16,
                )
            ),
            TOY,
            [draw_task("api", 0, 0)],
        )


def test_prompt_ends_where_the_model_begins():
    task = draw_task("sql", 0, 0)
    assert TOY.decode(prompt_of(task, TOY)).endswith(
        f"{task.request}<|im_end|>\n<|im_start|>assistant\n"
    )


# --------------------------------------------------------------------------------------------------
# several calls in one message


def letters(task, *texts):
    """A row of a task that has said these texts, markers as IDs, each judged as it ends: the row,
    and what was said back each time.
    """
    row = EpisodeRow(task, TOY, prompt_of(task, TOY), [])
    back = []
    for text in texts:
        row.message_start = len(row.rollout.tokens)
        row.rollout.tokens += [*TOY.encode(text, special=True), TOY.stop[0]]
        row.message_ended()
        back.append(TOY.decode(row.forced))
        row.rollout.tokens += row.forced
        row.forced.clear()
    return row, back


def of_calls(*calls):
    return "\n".join(
        call if isinstance(call, str) else f"<tool_call>{json.dumps(call)}</tool_call>"
        for call in calls
    )


@pytest.fixture
def two():
    """A task of two steps, its two calls, and the answer."""
    task = next(
        t
        for t in (
            draw_task("api", 0, i, Difficulty(fault_rate=0.0, style="qwen")) for i in range(200)
        )
        if sum(s.call is not None for s in t.solution) == 2
    )
    return task, *(step.call for step in task.solution if step.call), task.answer


def test_several_calls_of_a_message_are_carried_out_in_order(two):
    task, first, second, answer = two
    row, back = letters(task, f"both: {of_calls(first, second)}", answer)
    said = [entry.observation for entry in row.episode.log]
    messages = [
        {"role": "assistant", "content": ""},
        *({"role": "tool", "content": text} for text in said),
    ]
    assert (
        back[0]
        == "\n"
        + TOY.decode(TOY.encode_chat(messages, style="qwen", generation_prompt=True)[0]).split(
            "assistant\n<|im_end|>\n", 1
        )[1]
    )
    assert back[0].count("<tool_response>") == 2 and back[0].count("<|im_start|>user") == 1
    assert (row.rollout.ended, row.rollout.verified, row.rollout.called, row.rollout.groups) == (
        "answer",
        True,
        [2, 0],
        [[0, 1], []],
    )


@pytest.mark.parametrize(
    "bad",
    ["<tool_call>{oops</tool_call>", '<tool_call>{"name": "nosuch", "arguments": {}}</tool_call>'],
)
def test_calls_behind_a_wrong_one_are_carried_out(two, bad):
    task, first, second, answer = two
    row, back = letters(task, of_calls(first, bad, second), answer)
    assert [bool(entry.faults) for entry in row.episode.log] == [False, True, False] and back[
        0
    ].count("<tool_response>") == 3
    assert row.rollout.verified and row.rollout.invalid == 1


def test_limits_count_calls(two):
    task, first, _, _ = two
    wrong = {"name": "nosuch", "arguments": {}}
    row, back = letters(task, of_calls(wrong, wrong, first))
    assert (row.rollout.ended, len(row.rollout.log), back) == (
        "invalid",
        2,
        [""],
    )  # what stands behind the end is not carried out
    row, _ = letters(task, of_calls(*[first] * 7), of_calls(*[first] * 7))
    assert (row.rollout.ended, len(row.rollout.log), row.rollout.called) == ("turns", 10, [7, 3])
    row = EpisodeRow(task, TOY, prompt_of(task, TOY), [], zero_tolerance=True)
    row.rollout.tokens += [*TOY.encode(of_calls(first, wrong, first), special=True), TOY.stop[0]]
    row.message_ended()
    assert (row.rollout.ended, len(row.rollout.log)) == ("malformed", 2)


def test_a_long_task_has_calls_to_spare():
    """Of a task that needs eight, two more calls do not end the episode, since one may be refused
    and another meet a fault; four more do.
    """
    hard = Difficulty(**RUNGS["hard"], special=0.0)
    tasks = (draw_task("api", 0, index, hard) for index in range(200))
    task = next(task for task in tasks if len(task.solution) == 8)
    row = EpisodeRow(task, TOY, prompt_of(task, TOY), [], room=2000, faults=False)
    for step in [*task.solution, task.solution[-1], task.solution[-1]]:
        row.episode.step(step.call)
        assert not row.over()
    row.episode.step(task.solution[-1].call)
    row.episode.step(task.solution[-1].call)
    assert row.over() == "turns"


def test_a_draft_is_not_carried_out_and_an_answer_is_judged_without_its_thought(two):
    task, first, second, answer = two
    row, _ = letters(
        task,
        f"<think>{of_calls(second)}</think>{of_calls(first)}",
        of_calls(second),
        f"<think>or {of_calls(first)}?</think>{answer}",
    )
    assert (
        [entry.call for entry in row.episode.log] == [first, second]
        and row.rollout.verified
        and row.rollout.messages[-1] == answer
    )


def test_a_fault_is_only_heard_of_after_its_message():
    """The same call twice in a message: the second one does not answer the fault of the first."""
    task = draw_task("api", 0, 0)
    call = {"name": "kemi", "arguments": {}}
    log = [
        Entry(call, [], "error: timeout", None),
        Entry(call, [], "5", call),
        Entry(call, [], "error: x", None),
        Entry(call, [], "5", call),
    ]
    recovered = lambda called, length: (
        Rollout(
            task, [], [], [], faults=[(0, "timeout")], log=log[:length], called=called
        ).recovered
    )
    assert [
        recovered([2], 2),
        recovered([2, 1], 3),
        recovered([2, 1, 1], 4),
        recovered([1, 1], 2),
    ] == [False, False, True, True]


@pytest.mark.skipif("SAGE_DATA" not in os.environ, reason="needs the benchmarks' files: SAGE_DATA")
def test_parallel_tasks_of_the_leaderboard_are_solved_in_one_message():
    for task in bfcl(Path(os.environ["SAGE_DATA"]) / "bfcl", "parallel")[:50]:
        calls = [step.call for step in task.solution]
        row, back = letters(task, of_calls(*calls), "done")
        assert row.rollout.verified and len(calls) == back[0].count("<tool_response>") > 1


def test_a_world_that_hangs_is_interrupted(monkeypatch):
    """Its episode ends as too long, whether a call or the verdict hangs; the answer is not
    believed.
    """
    for part in ("step", "verify"):
        with monkeypatch.context() as patch:
            patch.setattr("worlds.api.Api.patience", 0.2)
            patch.setattr(f"worlds.api.Api.{part}", lambda *_: time.sleep(60) or "1")
            task = next(t for t in (draw_task("api", 0, i) for i in range(50)) if t.solution)
            row = EpisodeRow(task, TOY, [1], [], faults=False)
            call = (
                f"<tool_call>{json.dumps(task.solution[0].call)}</tool_call>"
                if part == "step"
                else task.answer
            )
            row.rollout.tokens += [*TOY.encode(call), TOY.stop[0]]
            row.message_ended()
            assert (row.rollout.ended, row.rollout.verified) == ("time", False)


def test_a_verdict_that_comes_too_late_is_not_believed(monkeypatch):
    task = next(t for t in (draw_task("api", 0, i) for i in range(50)) if t.solution)
    row = EpisodeRow(task, TOY, [1], [], faults=False)

    def late(answer):
        row.episode.seconds = row.episode.world.patience  # spent, and no alarm rang
        return True

    monkeypatch.setattr(row.episode, "verify", late)
    row.answer("1")
    assert (row.rollout.ended, row.rollout.verified) == ("time", False)
