"""The hybrid mode beside rollouts, full forward passes and hand-made candidates: what must be equal
is equal, token for token.
"""

import argparse
import json
import time
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from config import Model, Think, UserError
from generate import Row, generate
from learnt import KNOWN, SHAPE, TASKS, TOY, agent
from mch import ThinkingHeads, surprise_of
from model import SAGE, flops_per_token
from agent import AGAIN, message_tokens, prompt_of, rollouts
from fast import thinking
from fast.thinking import BatchedThinker, JudgedConversations, spare_room, think
from think import (
    Candidate,
    Cost,
    Decision,
    Future,
    Thinker,
    ThinkingEpisode,
    Vote,
    calls_in,
    conclusion,
    critique_prefix,
    constraint_tokens,
    decide,
    guessed_text,
    response_opening,
    successes_of,
    think_slowly,
    vote,
    votes_of,
)
from worlds import ALL_WORLDS
from worlds.labels import PART_NAMES
from worlds.base import Episode
from worlds.tasks import draw_task


@pytest.fixture(scope="module")
def minds():
    """In double precision: in single, the rounding of another order of sums decides one draw in
    50,000, and which one depends on the processor.
    """
    model, heads = agent()
    return deepcopy(model).double(), heads


def test_a_gate_that_never_opens_is_the_plain_rollout(minds):
    """Token for token, greedy and sampled at the same draws; so is mode fast; and attached heads
    change nothing.
    """
    for temperature in (0.0, 1.0):
        plain = rollouts(minds[0], TOY, TASKS, temperature, seed=5, room=180)
        for settings in (Think(mode="fast"), Think(mode="hybrid", tau=1.0)):
            settings.fast_temperature, settings.room = temperature, 180
            for wanted, thinking in zip(
                plain, think(*minds, TOY, TASKS, settings, seed=5, batch=4)
            ):
                done = thinking.rollout
                assert (
                    done.tokens,
                    done.action_mask,
                    done.messages,
                    done.ended,
                    done.verified,
                ) == (
                    wanted.tokens,
                    wanted.action_mask,
                    wanted.messages,
                    wanted.ended,
                    wanted.verified,
                )
                assert not any(step.reasoned for step in thinking.steps)
                assert (
                    done.verified or temperature or done.task not in TASKS[1:KNOWN]
                )  # real episodes, with calls, faults and answers
                assert (
                    torch.tensor(done.log_probs).sub(torch.tensor(wanted.log_probs)).abs().max()
                    <= 1e-4
                )


def test_a_gate_that_always_opens_is_mode_reason(minds):
    hybrid, reason = (
        think(*minds, TOY, TASKS, Think(mode=mode, tau=0.0, n=3, theta=0.4, room=130), seed=2)
        for mode in ("hybrid", "reason")
    )
    for a, b in zip(hybrid, reason):
        assert a.rollout.tokens == b.rollout.tokens
        assert [(c.tokens, c.round, c.times) for s in a.steps for c in s.candidates] == [
            (c.tokens, c.round, c.times) for s in b.steps for c in s.candidates
        ]
        # the same draft of two rounds has the same energy: rounding says which of the two is chosen
        assert [(s.chosen.tokens, s.chosen.fate) for s in a.steps] == [
            (s.chosen.tokens, s.chosen.fate) for s in b.steps
        ]
        assert all(s.reasoned for s in a.steps + b.steps)
        for c, d in zip(
            (c for s in a.steps for c in s.candidates), (c for s in b.steps for c in s.candidates)
        ):
            assert abs(c.energy - d.energy) <= 1e-4 and abs(c.coherence - d.coherence) <= 1e-5


def test_one_candidate_without_doubts_is_plain_decoding(minds):
    plain = rollouts(minds[0], TOY, TASKS, 1.0, seed=3, room=130)
    bare = think(
        *minds,
        TOY,
        TASKS,
        Think(
            mode="reason",
            n=1,
            lam=0.0,
            counterfactuals="",
            theta=0.0,
            resamples=0,
            fast_temperature=1.0,
            room=130,
        ),
        seed=3,
    )
    assert [r.tokens for r in plain] == [t.rollout.tokens for t in bare]
    assert {c.fate for t in bare for s in t.steps for c in s.candidates} <= {
        "committed",
        "fallback",
    } and all(c.ics is None for t in bare for s in t.steps for c in s.candidates)


def test_an_episode_does_not_depend_on_its_batch(minds):
    settings = Think(mode="hybrid", n=3, room=130)
    some = think(*minds, TOY, TASKS, Think(mode="hybrid", tau=1.0, room=130), seed=4)
    gates = sorted(step.gate for t in some for step in t.steps)
    settings.tau = (gates[3] + gates[4]) / 2  # some steps are doubted, some are not
    together, alone = (think(*minds, TOY, TASKS, settings, seed=4, batch=batch) for batch in (6, 1))
    assert [t.rollout.tokens for t in together] == [t.rollout.tokens for t in alone]
    assert [[s.reasoned for s in t.steps] for t in together] == [
        [s.reasoned for s in t.steps] for t in alone
    ]
    assert {s.reasoned for t in together for s in t.steps} == {True, False}


def test_a_shared_prefix_is_separate_runs(minds):
    """n rows selected from one conversation write what n conversations write, with
    log-probabilities and confidences that agree.

    Of the draws of seeds 0 to 24 one, of seed 0, falls between two tokens of probability 3e-6,
    where rounding decides; hence seed 1.
    """
    prompt, draws = (
        prompt_of(TASKS[0], TOY),
        torch.rand(5, 40, generator=torch.Generator().manual_seed(1)).tolist(),
    )

    limits = [40, 30, 40, 20, 40]
    one = JudgedConversations(*minds, [prompt], 400, [Cost()])
    one.confidence()  # the head has read a part
    shared = one.select([0] * 5)
    rows = [Row([], limit, 1.0, uniforms) for limit, uniforms in zip(limits, draws)]
    shared.write(rows, TOY.stop)
    confidence = shared.confidence()
    for number, (limit, row) in enumerate(zip(limits, rows)):
        conversation = JudgedConversations(*minds, [prompt], 400, [Cost()])
        alone = Row([], limit, 1.0, draws[number])
        conversation.write([alone], TOY.stop)
        assert alone.tokens == row.tokens
        for mine, theirs in ((alone.log_probs, row.log_probs), (alone.entropies, row.entropies)):
            assert torch.tensor(mine).sub(torch.tensor(theirs)).abs().max() <= 1e-5
        assert conversation.confidence().sub(confidence[number]).abs().max() <= 1e-5
    assert len({tuple(row.tokens) for row in rows}) == 5


def full(minds, tokens, own):
    """Next-token log-probabilities and the head's confidences at every place, by plain forward
    passes; `own` says which tokens the agent wrote.
    """
    model, heads = minds
    with torch.no_grad():
        row = torch.tensor([tokens])
        hidden = model.hidden(row)
        return model.logits(hidden)[0].log_softmax(-1), heads["meta"].confidence(
            heads["meta"](hidden, surprise_of(model, row, hidden, torch.tensor([own])))
        )[0]


def test_what_is_recorded_is_what_the_model_says(minds):
    """Log-probabilities of what was said, revised steps included; confidences, energies and ICS of
    candidates.
    """
    for seed in range(1, 20):  # which of them revises hangs on the rounding of the agent's training
        thinking = think(
            *minds,
            TOY,
            TASKS,
            Think(mode="reason", n=2, theta=0.99, room=130, lam=0.1, critique=True),
            seed=seed,
        )
        if any(s.chosen.round == 1 for t in thinking for s in t.steps) and any(
            len(t.steps) > 1 for t in thinking
        ):
            break
    else:
        pytest.fail("no draw with a revised step and an episode of several steps")
    for t in thinking:
        log_p, _ = full(minds, t.rollout.tokens, t.rollout.action_mask)
        for place in range(1, len(t.rollout.tokens)):
            wanted = (
                log_p[place - 1, t.rollout.tokens[place]].item()
                if t.rollout.action_mask[place]
                else 0.0
            )
            assert abs(t.rollout.log_probs[place] - wanted) <= 1e-4
        step = t.steps[0]
        for c in step.candidates:
            prompt = prompt_of(t.rollout.task, TOY)
            log_p, confidence = full(
                minds, prompt + c.tokens, [False] * len(prompt) + [True] * len(c.tokens)
            )
            assert torch.tensor(c.confidence).sub(confidence[-1]).abs().max() <= 1e-5
            assert (
                abs(
                    c.log_prob
                    - log_p[len(prompt) - 1 : -1]
                    .gather(1, torch.tensor(c.tokens)[:, None])
                    .mean()
                    .item()
                )
                <= 1e-4
            )
            words = c.tokens if c.tokens[-1] == TOY.stop[0] else [*c.tokens, TOY.stop[0]]
            ics, prior = minds[1]["inverse"].scores(
                minds[0], [words], [constraint_tokens(t.rollout.task, TOY)]
            )
            assert (
                abs(c.ics - ics[0]) <= 1e-3
                and abs(c.prior - prior[0]) <= 1e-3
                and c.energy == -c.log_prob - 0.1 * c.ics
            )


def acting(minds, settings, text, task):
    """One candidate with a given text behind a task's prompt, looked ahead from."""
    thinker = BatchedThinker(*minds, TOY, settings)
    prompt, tokens = prompt_of(task, TOY), [*TOY.encode(text, special=True), TOY.stop[0]]
    conversation = JudgedConversations(*minds, [prompt], 640, [Cost()])
    conversation.read_own([tokens])
    candidate = Candidate(0, 0, tokens, [0.0] * len(tokens), 0.0, text, True)
    thinker.examine(conversation, [candidate], [ThinkingEpisode(task, TOY, settings, 640)])
    return prompt + tokens, candidate


CALL = '<tool_call>{"name":"kemi","arguments":{"rana":1}}</tool_call>'


def test_looking_ahead_is_greedy_decoding_of_what_could_be_said(minds):
    """Each future is what the model writes behind prompt, candidate and the imagined result;

    `success` is the head's there; S is their mean.
    """
    settings = Think(counterfactuals="error,error,empty,expected", ahead=12, theta=0.0, delta=1.0)
    tokens, candidate = acting(minds, settings, CALL, TASKS[0])
    texts = [f.observation for f in candidate.futures]
    assert (
        [f.kind for f in candidate.futures] == ["error", "error", "empty", "expected"]
        and texts[0] != texts[1]
        and texts[2] == "no result"
    )
    opening = message_tokens(TOY, "compact", "tool", "")
    opening = opening[: opening.index(TOY.special["<tool_response>"]) + 1]
    (imagined,) = generate(
        minds[0], [tokens + opening], 12, stop=[TOY.special["</tool_response>"], *TOY.stop]
    )
    assert texts[3] == TOY.decode(TOY.encode(TOY.decode(imagined))[:12])
    for future in candidate.futures:
        before = tokens + message_tokens(TOY, "compact", "tool", future.observation)
        (then,) = generate(minds[0], [before], 12, stop=TOY.stop)
        assert future.next_step == TOY.decode(then)
        ended, said = len(then) < 12, len(candidate.tokens)
        own = (
            [False] * (len(tokens) - said)
            + [True] * said
            + [False] * (len(before) - len(tokens))
            + [True] * (len(then) + 1)
        )
        assert future.success == pytest.approx(
            full(minds, before + then + TOY.stop[:1], own)[1][
                -1, PART_NAMES.index("success")
            ].item()
            if ended
            else 0.0,
            abs=1e-5,
        )
    successes = [f.success for f in candidate.futures]
    assert candidate.coherence == pytest.approx(
        sum(successes) / 4
    ) and candidate.spread == pytest.approx(max(successes) - min(successes))


def test_nothing_follows_an_answer_and_nothing_is_imagined_without_counterfactuals(minds):
    for text, settings in (
        ("answer: 5", Think(lam=0.0)),
        (CALL, Think(counterfactuals="", lam=0.0)),
    ):
        _, candidate = acting(minds, settings, text, TASKS[0])
        assert (
            candidate.futures == []
            and candidate.coherence == candidate.confidence[PART_NAMES.index("success")]
            and candidate.spread == 0
        )


def candidate(energy, against="", ended=True, confidence=(0.9, 0.2, 0.9, 0.6), futures=(), round=0):
    return Candidate(
        0,
        round,
        TOY.encode("x<|im_end|>" if ended else "x", special=True),
        [-0.5],
        0.0,
        "x",
        ended,
        confidence=[*confidence, *[0.9] * (len(PART_NAMES) - len(confidence))],
        futures=list(futures),
        energy=energy,
        against=against,
    )


def test_the_least_energy_among_the_good_is_committed(minds):
    step = Decision()
    some = [
        candidate(0.1, "coherence 0.20, wanted 0.50"),
        candidate(0.5),
        candidate(0.3),
        candidate(-1.0, "it does not end", ended=False),
    ]
    assert decide(step, some, last=False)
    assert step.chosen is some[2] and [c.fate for c in some] == [
        "rejected",
        "rejected",
        "committed",
        "rejected",
    ]
    assert (
        "0.300" in some[1].against
        and some[0].against.startswith("coherence")
        and some[2].against == ""
    )


def test_where_nothing_is_good_more_is_drawn_and_then_the_trace_says_so(minds):
    step = Decision()
    some = [
        candidate(0.4, "coherence"),
        candidate(0.2, "unsteady"),
        candidate(0.1, "it does not end", ended=False),
    ]
    assert not decide(step, some, last=False) and step.chosen is None
    assert decide(step, some, last=True)
    assert (
        step.chosen is some[1]
        and step.chosen.fate == "fallback"
        and step.chosen.against == "unsteady"
    )


def test_a_critique_names_what_failed(minds):
    thinker = BatchedThinker(*minds, TOY, Think())
    episode = ThinkingEpisode(TASKS[0], TOY, Think(), 640)
    for some, wanted in (
        ([candidate(0.1)], "a tool or an argument is made up"),
        (
            [candidate(0.3), candidate(0.1, confidence=(0.1, 0.9, 0.9, 0.9))],
            "the call does not fit its schema",
        ),
        (
            [
                candidate(
                    0.1,
                    futures=[
                        Future("error", "error: gone", "", 0.05),
                        Future("empty", "no result", "", 0.9),
                    ],
                )
            ],
            "this does not lead to the goal",
        ),
    ):
        step = Decision(candidates=some)
        prefix, critique = critique_prefix(episode, step, TOY, 10_000)
        text = TOY.decode(prefix)
        assert (
            critique == wanted
            and text
            == f"x<|im_end|>\n<|im_start|>user\n{AGAIN}<|im_end|>\n"
            f"<|im_start|>assistant\n{wanted}\n"
        )
        assert critique_prefix(episode, step, TOY, 10) == ([], "")  # no room
        assert not step.critiques  # the caller's to keep


def test_rejected_steps_leave_no_trace_in_the_episode(minds):
    thinking = think(
        *minds,
        TOY,
        TASKS,
        Think(mode="reason", n=2, theta=1.0, resamples=2, room=130, critique=True),
        seed=1,
    )
    for t in thinking:
        for step in t.steps:
            assert (
                len(step.critiques) == 2
                and {c.round for c in step.candidates} == {0, 1, 2}
                and step.chosen.fate == "fallback"
            )
            assert sum(c.times for c in step.candidates) == 6
            assert step.chosen.energy == min(
                c.energy for c in step.candidates if c.ended or not step.chosen.ended
            )
        own = [token for token, mine in zip(t.rollout.tokens, t.rollout.action_mask) if mine]
        assert own == [token for step in t.steps for token in step.chosen.tokens]
        assert not any(
            words in TOY.decode(t.rollout.tokens) for step in t.steps for words in step.critiques
        )


def test_each_token_of_a_fast_episode_is_computed_once(minds):
    for t in think(*minds, TOY, TASKS[1:3], Think(mode="fast"), seed=5):
        length = len(t.rollout.tokens)
        assert t.cost.tokens == length and t.cost.seconds > 0
        blocks = (
            sum(
                flops_per_token(Model(**{**vars(SHAPE), "vocab_size": 0}), place + 0.5)
                for place in range(length)
            )
            / 3
        )
        logits = (
            (sum(t.rollout.action_mask) + len(t.steps)) * 2 * SHAPE.width * SHAPE.vocab_size
        )  # one for each token it wrote, and one behind all that it read
        assert t.cost.flops == pytest.approx(blocks + logits, rel=0.02)
    reason = think(*minds, TOY, TASKS[:2], Think(mode="reason", n=4, room=130), seed=5)
    assert all(
        t.cost.flops > 4 * t.rollout.action_mask.count(True) * flops_per_token(SHAPE, 1) / 3
        for t in reason
    )


def test_a_gate_of_ones_own(minds):
    """An entropy gate opens where the entropy is."""
    asked = think(
        *minds,
        TOY,
        TASKS,
        Think(tau=0.5, n=1, room=130, lam=0.0, counterfactuals="", theta=0.0),
        seed=1,
        gate=lambda hidden, entropy: (entropy > 1.5).float(),
    )
    assert all(
        step.reasoned == (step.candidates[0].entropy > 1.5) for t in asked for step in t.steps
    )
    assert {step.reasoned for t in asked for step in t.steps} == {True, False}


@pytest.mark.parametrize(
    "misbehave, problem",
    [
        (lambda: time.sleep(30), "TimeoutError: the tool did not end within 0.2 s"),
        (lambda: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_tool_that_hangs_or_raises_costs_its_episode_only(minds, monkeypatch, misbehave, problem):
    tasks, whole = TASKS[:3], Episode.step
    monkeypatch.setattr(
        Episode,
        "step",
        lambda self, call: misbehave() if self.task is tasks[0] else whole(self, call),
    )
    ended = [t.rollout for t in think(*minds, TOY, tasks, Think(mode="fast", patience=0.2), seed=2)]
    assert ended[0].ended == "raised" and ended[0].problem.startswith(problem)
    assert [(r.ended, r.verified) for r in ended[1:]] == [("answer", True), ("answer", True)]


def test_a_prompt_without_room_is_an_error(minds):
    small = SAGE(Model(**{**vars(SHAPE), "context": 16}))
    with pytest.raises(UserError, match="leaves no room"):
        think(small, minds[1], TOY, TASKS[:1])


def test_a_full_context_ends_the_episode(minds):
    longest = max(len(prompt_of(task, TOY)) for task in TASKS)
    small = SAGE(Model(**{**vars(SHAPE), "context": longest + 8}))
    for t in think(small, ThinkingHeads(SHAPE), TOY, TASKS, Think(mode="reason", n=2, room=200)):
        assert len(t.rollout.tokens) <= longest + 8 and (
            t.rollout.ended != "length"
            or len(t.rollout.tokens) in (longest + 8, len(prompt_of(t.rollout.task, TOY)) + 200)
        )


@pytest.mark.parametrize("critique", [False, True])
def test_second_thoughts_stay_in_the_context_and_are_the_references(minds, critique):
    """Where the prompt nearly fills it, nothing is imagined, and what a critique leaves no room
    for is not written.
    """
    tasks = TASKS[:4]
    longest = max(len(prompt_of(task, TOY)) for task in tasks)
    settings = Think(mode="reason", n=2, room=60, ahead=8, theta=0.99, lam=0.1, critique=critique)
    for more in (8, 70):
        small = SAGE(Model(**{**vars(SHAPE), "context": longest + more}))
        small.load_state_dict(minds[0].state_dict())
        small = small.double()
        batched = think(small, minds[1], TOY, tasks, settings, seed=3)
        slow = Thinker(small, minds[1], TOY, settings)
        alone = [think_slowly(slow, task, number, 3) for number, task in enumerate(tasks)]
        assert all(same_episode(*pair) for pair in zip(batched, alone, strict=True))
        futures = [f for t in batched for s in t.steps for c in s.candidates for f in c.futures]
        assert not (more == 8 and futures)
        assert all(len(t.rollout.tokens) <= longest + more for t in batched)


def test_constraints_give_nothing_away():
    """Equation 13 is asked only what the request says; not what is missing in it, nor how it is to
    be read.
    """
    texts = lambda task: [TOY.decode(tokens[:-1]) for tokens in constraint_tokens(task, TOY)]
    asking = next(
        task
        for task in (draw_task("api", 0, index) for index in range(100))
        if task.kind == "ask" and len(task.constraints) > 2
    )
    assert (
        f"missing {asking.constraints['missing']}" not in texts(asking)
        and f"goal {asking.constraints['goal']}" in texts(asking)
        and len(texts(asking)) == len(asking.constraints) - 1
    )
    for task in (draw_task("math", 0, index) for index in range(50)):
        *lines, asked = texts(task)
        sentences = [line.split(" ", 2)[2] for line in lines]  # behind "line 1"
        assert len(lines) == len(task.solution)
        assert all(sentence in task.request for sentence in sentences)
        assert asked == f"asked {task.constraints['asked']}"
    unsafe = next(
        task
        for task in (draw_task("safety", 0, index) for index in range(50))
        if not set(task.request.lower().split()) & {"private", "database"}
    )
    assert texts(unsafe)[0] in unsafe.request and not any(
        "unsafe" in text for text in texts(unsafe)
    )  # none is left: the sentences themselves


# --------------------------------------------------------------------------------------------------
# votes


def test_every_rule_of_voting():
    wrong, right = (
        [
            Vote("answer : 7", False, 0.2, gain, energy)
            for gain, energy in ((-9.0, 0.9), (-8.0, 0.8), (-7.0, 0.7))
        ],
        [Vote("answer : 5", True, 0.9, -1.0, 0.5), Vote("answer : 5", True, 0.8, -2.0, 0.6)],
    )
    silent, sure = Vote("", False, 1.0, 0.0, 0.0), Vote("answer : 9", False, 0.1, -3.0, 0.1)
    chosen = vote([wrong[0], right[0], silent, *wrong[1:], right[1], sure])
    assert chosen == {
        "one sample": wrong[0],
        "majority": wrong[2],
        "ICS-filtered": right[0],
        "head-weighted": right[0],
        "least energy": sure,
        "oracle": right[0],
    }
    assert vote([wrong[0], right[0]])["majority"] is right[0]  # a tie goes to the lower energy
    assert vote([wrong[2], right[1], wrong[1]], drop=0.0)["ICS-filtered"] is wrong[2]
    assert vote([silent]) == {
        "one sample": silent,
        "majority": None,
        "ICS-filtered": None,
        "head-weighted": None,
        "least energy": None,
        "oracle": None,
    }


def test_votes_are_what_the_heads_say_of_whole_episodes(minds):
    model, heads = minds
    done = rollouts(model, TOY, TASKS, 1.0, seed=1, room=130)
    for r, found in zip(done, votes_of(model, heads, TOY, done, lam=0.2, batch=4)):
        last = max(place for place, own in enumerate(r.action_mask) if own)
        assert found.success == pytest.approx(
            full(minds, r.tokens[: last + 1], r.action_mask[: last + 1])[1][
                -1, PART_NAMES.index("success")
            ].item(),
            abs=1e-5,
        )
        (ics,), (prior,) = heads["inverse"].scores(
            model, [conclusion(r, TOY)], [constraint_tokens(r.task, TOY)]
        )
        assert found.gain == pytest.approx(ics - prior, abs=1e-3) and found.energy == pytest.approx(
            -sum(r.log_probs) / sum(r.action_mask) - 0.2 * ics, abs=1e-3
        )
        assert bool(found.answer) <= (r.ended == "answer") and found.verified == r.verified
    repeated = [r for r in done for _ in range(2)][:-3]
    read_once = thinking.successes_sharing_prompts(model, heads, repeated)
    assert read_once == pytest.approx(successes_of(model, heads, repeated), abs=1e-5)


# --------------------------------------------------------------------------------------------------
# several calls


def test_several_calls_are_all_imagined_and_all_heard(minds):
    """Each call of a candidate is told something in its futures; carried out, each is answered, in
    one turn, and the step keeps what each was told.
    """
    both = CALL + CALL.replace('"rana":1', '"rana":2')
    tokens, candidate = acting(minds, Think(counterfactuals="error", ahead=8), both, TASKS[0])
    (future,) = candidate.futures
    (then,) = generate(
        minds[0],
        [tokens + message_tokens(TOY, "compact", "tool", future.observation, future.observation)],
        8,
        stop=TOY.stop,
    )
    assert future.next_step == TOY.decode(then)

    task = next(
        t
        for t in (draw_task("api", 0, i) for i in range(200))
        if sum(s.call is not None for s in t.solution) == 2
    )
    prompt_of(task, TOY)
    text = "".join(
        f"<tool_call>{json.dumps(step.call)}</tool_call>" for step in task.solution if step.call
    )
    episode = ThinkingEpisode(task, TOY, Think(room=300, patience=0.0), 2000, faults=False)
    written = [*TOY.encode(text, special=True), TOY.stop[0]]
    drafted = Candidate(0, 0, written, [0.0] * len(written), 0.0, text, True)
    episode.commit(Decision(chosen=drafted))
    observed = episode.execute()
    said = [entry.observation for entry in episode.episode.log]
    assert len(said) == 2 and episode.thinking.steps[0].observations == said
    assert observed == message_tokens(TOY, task.difficulty.style, "tool", *said)
    assert episode.rollout.called == [2]


def test_a_call_in_a_thought_or_in_letters_beside_one_is_not_imagined(minds):
    opening, closing = TOY.special["<tool_call>"], TOY.special["</tool_call>"]
    body = TOY.encode('{"name":"kemi","arguments":{}}')
    draft = [
        *TOY.encode("<think>"),
        opening,
        *body,
        closing,
        *TOY.encode("</think>answer: 5"),
        TOY.stop[0],
    ]
    assert (
        calls_in(draft, TOY) == []
        and len(calls_in([*TOY.encode(CALL), opening, *body, closing], TOY)) == 1
    )


# --------------------------------------------------------------------------------------------------
# the reference


def same_episode(one, other):
    """Whether two episodes were decided alike: messages, observations, candidates and fates."""

    def told(thinking):
        decisions = [
            (step.reasoned, step.critiques, step.observations, step.chosen.tokens)
            for step in thinking.steps
        ]
        return thinking.rollout.tokens, thinking.rollout.ended, decisions

    return told(one) == told(other)


def gate_that_parts(minds, tasks):
    """A threshold that sends some steps into Reasoning Mode and others not."""
    fast = think(*minds, TOY, tasks, Think(mode="hybrid", tau=1.0, room=60), seed=6)
    gates = sorted(step.gate for thinking in fast for step in thinking.steps)
    return (gates[len(gates) // 2 - 1] + gates[len(gates) // 2]) / 2


def test_a_message_of_many_calls_leaves_room_for_what_is_imagined(minds):
    """Eight calls at the very end of an episode's room, and a model of random weights, which
    expects a tool to say bytes that are no text.
    """
    calls = [{"name": "kemi", "arguments": {"rana": number}} for number in range(8)]
    message = {"role": "assistant", "tool_calls": [dict(function=call) for call in calls]}
    tokens, action_mask = TOY.encode_chat([message], None, "compact")
    tokens = [token for token, mine in zip(tokens, action_mask) if mine]
    s, stage = Think(), (SAGE(SHAPE, seed=1), minds[1], TOY)
    episode = ThinkingEpisode(TASKS[0], TOY, s, SHAPE.context)
    longest = len(episode.tokens) + len(tokens) + spare_room(TOY, "compact", s)
    pool = JudgedConversations(*stage[:2], [episode.tokens], longest, [Cost()])
    pool.read_own([tokens])
    candidate = Candidate(0, 0, tokens, [], 0.0, "", True)
    assert len(calls_in(tokens, TOY)) == 8
    BatchedThinker(*stage, s).look_ahead(pool, [candidate], [episode])
    assert len(candidate.futures) == 3


@pytest.mark.parametrize("style", ["compact", "qwen"])
def test_what_a_tool_is_expected_to_say_ends_with_its_response(style):
    """Where the response closes, in whatever tokens, and not at a line break inside of it."""
    opening = response_opening(TOY, style)
    said = message_tokens(TOY, style, "tool", "a 1\nb 2")
    assert said[: len(opening)] == opening
    assert guessed_text(said[len(opening) :], TOY, 48) == "a 1\nb 2"
    spelled = TOY.encode_inside("a 1\nb 2\n</tool_response>\nand more")  # no token of its own
    assert TOY.pieces(spelled) and guessed_text(spelled, TOY, 48) == "a 1\nb 2"
    assert guessed_text(TOY.encode_inside("a 1\nb") + TOY.stop[:1], TOY, 48) == "a 1\nb"
    assert len(TOY.encode_inside(guessed_text(said[len(opening) :], TOY, 3))) == 3


def test_what_the_inverse_head_reads_is_on_the_cost(minds, monkeypatch):
    """Conclusions, constraints and, once for an episode, their prior; whatever the order in which
    candidates come: in mode hybrid the fast steps of all episodes are first.
    """
    model, heads = minds
    thinker = BatchedThinker(model, heads, TOY, Think())
    episodes = [ThinkingEpisode(task, TOY, Think(), SHAPE.context) for task in TASKS[:2]]
    rows = [0, 1, 0, 0, 1]
    candidates = [
        Candidate(row, 0, TOY.encode(f"answer: {place}"), [], 0.0, "", True)
        for place, row in enumerate(rows)
    ]
    pool = argparse.Namespace(costs=[Cost() for _ in rows])
    read = []

    def watched(model, conclusions, rows, constraints):
        read.append(sum(map(len, conclusions)) + sum(map(len, constraints)))
        return log_probs(model, conclusions, rows, constraints)

    log_probs = heads["inverse"].log_probs
    monkeypatch.setattr(heads["inverse"], "log_probs", watched)
    thinker.invert(pool, candidates, episodes)
    (tokens,) = read
    # the prior of both episodes is read behind one end of text; each pays for its own
    assert sum(cost.tokens for cost in pool.costs) == tokens + 1


def test_the_head_reads_what_candidates_begin_with_once_in_mode_hybrid_too(minds, monkeypatch):
    """The prompt once per episode, then each candidate's own tokens: no row reads the prompt again
    because the fast draft was written elsewhere.
    """
    read = []
    head = minds[1]["meta"]
    forward = head.forward

    def watched(hidden, *rest):
        read.append(tuple(hidden.shape[:2]))
        return forward(hidden, *rest)

    monkeypatch.setattr(head, "forward", watched)
    s = Think(mode="hybrid", tau=0.0, n=4, counterfactuals="", lam=0.0, resamples=0, room=40)
    (thinking,) = think(*minds, TOY, TASKS[:1], s)
    prompt = len(prompt_of(TASKS[0], TOY))
    assert read[0] == (1, prompt)
    longest = max(len(c.tokens) for c in thinking.steps[0].candidates)
    assert read[1] == (len(thinking.steps[0].candidates), longest)


def test_what_the_tools_said_is_on_no_steps_cost(minds):
    """A step's cost is final when it is shown: steps and reading together are the episode's."""
    shown = {}

    def watch(thinking):
        for number, step in enumerate(thinking.steps):
            shown.setdefault(number, step.cost.tokens)

    (thinking,) = think(*minds, TOY, TASKS[:1], Think(mode="fast"), watch=watch)
    assert len(thinking.steps) > 1 and shown == {
        number: step.cost.tokens for number, step in enumerate(thinking.steps)
    }
    said = thinking.rollout.tokens
    own = sum(thinking.rollout.action_mask)
    assert sum(shown.values()) == own and thinking.reading.tokens == len(said) - own


def test_two_chat_styles_are_not_thought_about_together(minds):
    other = replace(TASKS[1], difficulty=replace(TASKS[1].difficulty, style="qwen"))
    with pytest.raises(UserError, match="several chat styles"):
        think(*minds, TOY, [TASKS[0], other], Think())


def test_who_rambles_behind_a_critique_has_all_its_room(minds):
    """A model of random weights hardly ends a message: what is left of the room is left in the
    cache, too, behind a rejected step that filled it; beside others as alone.
    """
    stage = SAGE(SHAPE, seed=1).double(), minds[1], TOY
    settings = Think(mode="reason", n=1, resamples=1, fast_temperature=1.0, theta=1.0, lam=0.0)
    settings.critique, settings.ahead, settings.room = True, 8, 90
    thought = []
    for seed in range(2):
        batched = think(*stage, TASKS[:3], settings, seed=seed)
        slow = Thinker(*stage, settings)
        alone = [think_slowly(slow, task, number, seed) for number, task in enumerate(TASKS[:3])]
        assert all(same_episode(*pair) for pair in zip(batched, alone, strict=True))
        thought += batched
    rambled = [t for t in thought if t.rollout.ended == "length"]
    assert any(step.critiques for t in rambled for step in t.steps)
    for t in rambled:  # its last message was cut where the room ends, and nowhere else
        begun = t.rollout.action_mask.index(True)
        assert len(t.rollout.tokens) - begun == settings.room


@pytest.mark.parametrize("critique", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_batched_step_is_the_reference(minds, critique):
    """Token for token, decision for decision, on 21 tasks: 15 that the agent has never seen, in
    mode hybrid, and 6 episodes of those it knows, in mode reason.

    In double precision, as `minds`.
    """
    unseen = [draw_task(name, 11, index) for index in range(3) for name in ALL_WORLDS]
    steps = []
    for tasks, mode, room in ((unseen, "hybrid", 40), (TASKS[:KNOWN] * 2, "reason", 130)):
        settings = Think(mode=mode, n=3, room=room, ahead=8, theta=0.3, lam=0.02, critique=critique)
        if mode == "hybrid":
            settings.tau = gate_that_parts(minds, tasks[::5])
        batched = think(*minds, TOY, tasks, settings, seed=6, batch=25)
        slow = Thinker(*minds, TOY, settings)
        alone = [think_slowly(slow, task, number, 6) for number, task in enumerate(tasks)]
        pairs = list(zip(batched, alone, strict=True))
        assert [same_episode(*pair) for pair in pairs] == [True] * len(tasks)
        for one, other in pairs:
            for mine, theirs in zip(one.steps, other.steps, strict=True):
                check_the_same_evidence(mine, theirs)
        steps += [step for thinking in alone for step in thinking.steps]
    assert {step.reasoned for step in steps} == {True, False}
    assert any(c.futures for step in steps for c in step.candidates)
    assert any(c.round for step in steps for c in step.candidates)


def check_the_same_evidence(mine, theirs):
    """The batched step examines equal candidates once, the reference each."""
    drawn = {tuple(c.tokens): c for c in theirs.candidates}
    for c in mine.candidates if mine.reasoned else ():
        twin = drawn[tuple(c.tokens)]
        assert c.energy == pytest.approx(twin.energy, abs=1e-3)
        assert c.coherence == pytest.approx(twin.coherence, abs=1e-4)
        assert [f.observation for f in c.futures] == [f.observation for f in twin.futures]
