"""rl.py as a user runs it, and what its steps may and may not do: resume, rewards, skipped steps,
worlds that raise, foreign folders.
"""

import json
import math
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from support.packing import pack_short
from support import checkpoint
from support import settings
import preferences
import rl
from support import tokenizer as tokenizers
from config import Dpo, Model, Ppo, UserError
from worlds.expert import preference, solve_task
from model import SAGE
from agent import Rollout, prompt_of, rollouts, uniforms_of
from test_rollout import Scripted, broken, conversation
from forked_script import run
from test_train import KILL_IN_A_SAVE, weights_and_state
from worlds.tools import Fault
from worlds.base import Entry, Episode
from worlds.difficulty import Difficulty
from worlds.tasks import Tasks, draw_task

ROOT = Path(__file__).resolve().parents[1]
TOY = tokenizers.toy()
SETTINGS = """
from config import Data, Dpo, Model, Ppo, Train
out = {out!r}
model = Model(vocab_size=1024, width=32, layers=2, heads=2, kv_heads=1, head_dim=16,
              feed_forward=48, context=640, previous_token=True)
dpo = Dpo(steps=6, batch=3, pairs=10, trajectories=20, replay_rows=2, learning_rate=3e-3,
          log_every=1, save_every=1, keep=9, dtype="float32", worlds="api,math")
ppo = Ppo(steps=5, prompts=3, samples=4, batch=4, room=30, trajectories=20, replay_rows=2,
          learning_rate=1e-3, log_every=1, save_every=1, keep=9, dtype="float32",
          worlds="api,math")
"""
# an untrained model never succeeds: some of its episodes shall
REWARDED = """
import agent
verified = property(lambda self: sum(self.tokens) % 3 == 0, lambda self, value: None)
agent.Rollout.verified = verified
"""


@pytest.fixture
def lineage(tmp_path):
    """A settings file of a lineage whose stage reflected is an untrained tiny model."""

    def write(name="toy", stages=("reflected", "safe")):
        out = tmp_path / name / "base"
        file = tmp_path / f"{name}.py"
        file.write_text(SETTINGS.format(out=str(out)))
        config = settings.from_file(file)
        for stage in stages:
            checkpoint.save_checkpoint(
                out.parent / stage, config, SAGE(config.model, seed=1), [], 1, stage=stage
            )
        return str(file), tmp_path / name

    return write


def records(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# --------------------------------------------------------------------------------------------------
# Preferences.


def test_a_pair_teaches_the_answer_and_nothing_before_it():
    seen = set()
    for index in range(60):
        task = draw_task("safety", 0, index)
        pair = preference(task)
        for side in ("chosen", "rejected"):
            tokens, own = preferences.completion(task, pair["prompt"], pair[side], TOY)
            taught = TOY.decode([token for token, mine in zip(tokens, own) if mine])
            assert taught.endswith("<|im_end|>")
            assert ("<tool_call>" in taught) == any(
                "tool_calls" in message for message in pair[side]
            )
            assert taught.count("<|im_end|>") == sum(
                message["role"] == "assistant" for message in pair[side]
            )
            # the hidden order: the file was read before, and that call is not what is judged
            if len(pair["prompt"]) > 1:
                assert '"name":"read"' in TOY.decode(tokens)
                assert '"name":"read"' not in taught
            assert tokens[: len(prompt_of(task, TOY))] == prompt_of(task, TOY)
        seen.add(task.kind)
    assert len(seen) == 8


def test_pairs_are_asked_for_in_random_words_too():
    """With dpo.babble other requests for the same answers."""

    def texts(babble):
        section = Dpo(pairs=40, babble=babble)
        pairs, _ = preferences.preference_pairs(section, TOY, "compact")
        assert len(pairs) == 40
        return [[TOY.decode(tokens) for tokens, _ in pair] for pair in pairs]

    differ = 0
    for plain, said in zip(texts(0.0), texts(1.0)):
        turn = "<|im_start|>assistant"
        assert [text.split(turn)[-1] for text in plain] == [text.split(turn)[-1] for text in said]
        differ += plain[0].split(turn)[0] != said[0].split(turn)[0]
    assert differ == 40


def test_dpo_learns_its_pairs_from_ln_2_on(lineage):
    file, folder = lineage(stages=["reflected"])
    done = run(
        "rl.py",
        file,
        "--stage",
        "dpo",
        "--dpo.steps",
        "40",
        "--dpo.nll",
        "0",
        "--dpo.save-every",
        "0",
    )
    assert done.returncode == 0, done.stderr
    log = records(folder / "safe")
    assert log[0]["dpo"] == pytest.approx(math.log(2), abs=1e-5)
    assert log[0]["margin"] == pytest.approx(0, abs=1e-4)
    assert sum(r["dpo"] for r in log[-5:]) / 5 < 0.4
    assert log[-1]["accuracy"] == 1
    assert log[-1]["replay"] < log[0]["replay"]
    assert (folder / "safe" / "loss.png").exists()
    dpo = settings.from_file(file).dpo
    tasks = Tasks("dpo", dpo.seed, ["safety"], Difficulty(style=TOY.style, names=dpo.names))
    benign = sum(not tasks[index].truth["unsafe"] for index in range(10))
    for wanted in (
        "10 of 10 pairs of the safety world fit in",
        f"{10 - benign} about unsafe requests, {benign} about benign ones",
        "of peak",
        "accuracy",
        "margin",
    ):
        assert wanted in done.stdout


def test_reference_log_probs_are_those_of_single_sequences(lineage):
    torch.manual_seed(0)
    model = SAGE(
        Model(
            vocab_size=1024,
            width=32,
            layers=2,
            heads=2,
            kv_heads=1,
            head_dim=16,
            feed_forward=48,
            context=640,
        )
    )
    examples = [
        preferences.completion(task, pair["prompt"], pair["chosen"], TOY)
        for task in (draw_task("safety", 0, i) for i in range(9))
        for pair in [preference(task)]
    ]
    found = preferences.completion_log_probs(model, examples, "cpu", together=4)
    for (tokens, own), value in zip(examples, found):
        log_probs = (
            model(torch.tensor([tokens]))[0, :-1]
            .log_softmax(-1)
            .gather(1, torch.tensor(tokens[1:])[:, None])
            .squeeze(1)
        )
        assert value.item() == pytest.approx(
            log_probs[torch.tensor(own[1:])].sum().item(), abs=1e-3
        )


# --------------------------------------------------------------------------------------------------
# Rewards.


def with_inventions(task, times):
    """The expert's conversation, in which the first call is made with an argument too many before
    it is made right.
    """
    messages, _ = solve_task(task)
    wrong = json.loads(json.dumps(messages[0]))
    wrong["tool_calls"][0]["function"]["arguments"]["kemi"] = 5
    with Episode(task) as episode:
        said = episode.step(wrong["tool_calls"][0]["function"])
    return TOY.encode_chat(
        [
            {"role": "user", "content": task.request},
            *[wrong, {"role": "tool", "content": said}] * times,
            *messages,
        ],
        task.shown_tools(),
        "compact",
    )[0]


def test_rewards_of_scripted_episodes():
    """The expert earns 1, a wrong answer 0, an unparseable call −1 at once, a tool that is not
    there −1; each invented argument costs ½.
    """
    c = Ppo()
    task = next(
        t
        for t in (draw_task("api", 0, i) for i in range(50))
        if sum(step.call is not None for step in t.solution) == 1
    )

    def play(tokens):
        return rollouts(
            Scripted([tokens]), TOY, [task], room=400, zero_tolerance=True, tolerance=c.tolerance
        )[0]

    assert rl.reward(play(conversation(task)[0]), c) == 1.0
    assert rl.reward(play(broken(task, "answer: nonsense")), c) == 0.0
    for call in (
        "<tool_call>{no json</tool_call>",
        '<tool_call>{"name":"nosuchtool","arguments":{}}</tool_call>',
    ):
        episode = play(broken(task, call))
        assert (episode.ended, rl.reward(episode, c)) == ("malformed", -1.0)
        assert len(episode.log) == 1
    once = play(with_inventions(task, 1))
    twice = play(with_inventions(task, 2))
    assert (once.verified, once.invented, once.ended, rl.reward(once, c)) == (
        True,
        1,
        "answer",
        0.5,
    )
    # the second refusal ends it
    assert (twice.verified, twice.invented, twice.ended, rl.reward(twice, c)) == (
        False,
        2,
        "invalid",
        -1.0,
    )


def test_rewards_by_name():
    task = draw_task("api", 0, 0)
    entry = lambda *kinds: Entry({}, [Fault(kind, "") for kind in kinds], "error", None)
    assert (
        rl.reward(
            Rollout(
                task,
                [],
                [],
                [],
                ended="answer",
                verified=True,
                log=[entry("unexpected", "unexpected"), entry("missing")],
            ),
            Ppo(),
        )
        == 0.0
    )
    assert (
        rl.reward(Rollout(task, [], [], [], ended="malformed", log=[entry("unknown_tool")]), Ppo())
        == -1.0
    )
    assert rl.reward(Rollout(task, [], [], [], ended="length"), Ppo()) == 0.0


# --------------------------------------------------------------------------------------------------
# The loops.


OF_THE_MACHINE = {"ms", "tokens_per_second", "peak_share", "rollout_ms", "memory_gib", "data_wait"}


def test_both_stages_run_and_resume_to_the_bit(lineage):
    file, folder = lineage(stages=["reflected"])
    whole = run("rl.py", file, before=REWARDED)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    again, other = lineage("again", stages=["reflected"])
    # in the middle of step 4's save, of stage dpo
    killed = run("rl.py", again, before=REWARDED + KILL_IN_A_SAVE)
    assert killed.returncode != 0
    assert checkpoint.latest(other / "safe").name == "checkpoint-0000003"
    resumed = run("rl.py", again, "--resume", before=REWARDED)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    shutil.rmtree(other / "sage" / "checkpoint-0000005")  # and once more from within stage ppo
    shutil.rmtree(other / "sage" / "checkpoint-0000004")
    (other / "safe" / "loss.png").unlink()  # as if it had been stopped at its last step
    finished = run("rl.py", again, "--resume", before=REWARDED)
    assert finished.returncode == 0, finished.stderr
    assert "stage safe is complete" in finished.stdout, finished.stderr
    assert (other / "safe" / "loss.png").exists()
    for stage in ("safe", "sage"):
        one = weights_and_state(folder / stage)
        two = weights_and_state(other / stage)
        assert one.keys() == two.keys(), stage
        assert all(torch.equal(one[key], two[key]) for key in one), stage
    heads = [checkpoint.latest(f / "sage") / "heads.safetensors" for f in (folder, other)]
    assert heads[0].read_bytes() == heads[1].read_bytes()
    before, after = (checkpoint.load_run(folder / stage)[0] for stage in ("safe", "sage"))
    assert not torch.equal(before.embedding.text.weight, after.embedding.text.weight)
    log = records(folder / "sage")
    timeless = lambda records: [
        {k: v for k, v in r.items() if k not in OF_THE_MACHINE} for r in records
    ]
    assert timeless(log) == timeless(records(other / "sage"))
    assert len(log) == 10
    assert any(r.get("replay", 0) > 0 for r in log)
    assert max(r["mismatch"] for r in log if "mismatch" in r) < 1e-5  # sampler and trainer agree
    assert log[0]["kl"] == 0
    assert log[-2]["kl"] > 0
    assert (folder / "sage" / "loss.png").exists()


def test_the_group_variant_has_no_value_head(lineage):
    file, folder = lineage()
    done = run(
        "rl.py",
        file,
        "--stage",
        "ppo",
        "--ppo.advantage",
        "group",
        "--ppo.name",
        "grpo",
        "--ppo.steps",
        "2",
        before=REWARDED,
    )
    assert done.returncode == 0, done.stderr
    last = checkpoint.latest(folder / "grpo")
    assert not (last / "heads.safetensors").exists()
    assert not (folder / "sage").exists()
    assert not torch.equal(
        checkpoint.load_run(folder / "grpo")[0].norm.weight,
        checkpoint.load_run(folder / "safe")[0].norm.weight,
    )


@pytest.fixture
def started(lineage):
    """Settings of a stage ppo of a single step, in this process."""
    file, folder = lineage()
    config = settings.from_file(file)
    config.ppo.steps = 1
    return config, folder


def test_episodes_are_played_in_the_dtype_of_the_products(started, monkeypatch):
    config, folder = started
    config.ppo.dtype = "bfloat16"
    config.ppo.play_dtype = "products"
    played = []

    def watched(model, *rest, **more):
        played.append(model)
        return rollouts(model, *rest, **more)

    monkeypatch.setattr(rl, "rollouts", watched)
    rl.ppo(config)
    before, _, _ = checkpoint.load_run(folder / "safe")
    for mine, its in zip(before.parameters(), played[0].parameters(), strict=True):
        assert its.dtype == torch.bfloat16 and torch.equal(its, mine.bfloat16())
    # the sampler's log-probabilities are the trainer's, up to the residual stream's rounding
    assert 0 < records(folder / "sage")[1]["mismatch"] < 0.3


@pytest.mark.parametrize("advantage", ["gae", "rloo", "group"])
def test_equal_rewards_skip_the_step(started, monkeypatch, advantage):
    config, folder = started
    config.ppo.advantage = advantage
    monkeypatch.setattr(rl, "reward", lambda episode, c: 0.25)
    rl.ppo(config)
    before, after = (checkpoint.load_run(folder / stage)[0] for stage in ("safe", "sage"))
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters()))
    assert records(folder / "sage")[0]["skipped"] == 1
    assert checkpoint.read_meta(checkpoint.latest(folder / "sage"))[0]["kept"]["skipped"] == 1


@pytest.mark.parametrize(
    "advantage, baseline, skipped", [("group", "task", 1), ("gae", "task", 1), ("gae", "batch", 0)]
)
def test_equal_rewards_within_each_task_say_nothing_about_the_samples(
    started, monkeypatch, advantage, baseline, skipped
):
    config, folder = started
    config.ppo.advantage = advantage
    config.ppo.baseline = baseline
    monkeypatch.setattr(rl, "reward", lambda episode, c: float(episode.task.seed % 7))
    rl.ppo(config)
    assert records(folder / "sage")[0]["skipped"] == skipped


def test_tasks_are_drawn_until_enough_samples_differ(started, monkeypatch):
    """One task in four has samples that differ, so that three such tasks take several draws; the
    tasks are others in each draw and in the next step, and none is played more often than once.
    """
    config, folder = started
    config.ppo.steps = 2
    config.ppo.draws = 9
    drawn = []

    def watched(model, tokenizer, tasks, *rest, numbers, **more):
        drawn.append(([task.seed for task in tasks[:: config.ppo.samples]], numbers))
        return rollouts(model, tokenizer, tasks, *rest, numbers=numbers, **more)

    monkeypatch.setattr(rl, "rollouts", watched)
    monkeypatch.setattr(
        rl, "reward", lambda e, c: float(e.task.seed % 4 == 0 and sum(e.tokens) % 2)
    )
    rl.ppo(config)
    seeds = [seed for some, _ in drawn for seed in some]
    assert len(set(seeds)) == len(seeds) > 2 * 3
    second = next(i for i, (_, numbers) in enumerate(drawn) if i and numbers[0] == 0)
    for step in (drawn[:second], drawn[second:]):
        assert [numbers[0] for _, numbers in step] == [12 * draw for draw in range(len(step))]
        hopeful = sum(seed % 4 == 0 for some, _ in step for seed in some)
        # samples of a hopeful task may be rewarded alike by chance, never those of another
        assert hopeful >= 3 or len(step) == 9
        before_the_last = sum(seed % 4 == 0 for some, _ in step[:-1] for seed in some)
        assert len(step) > 1 and before_the_last <= hopeful


def test_few_tasks_come_again(started, monkeypatch):
    config, folder = started
    config.ppo.steps = 2
    config.ppo.tasks = 2
    seen = []

    def watched(model, tokenizer, tasks, *rest, **more):
        seen.append([task.seed for task in tasks[:: config.ppo.samples]])
        return rollouts(model, tokenizer, tasks, *rest, **more)

    monkeypatch.setattr(rl, "rollouts", watched)
    rl.ppo(config)
    first, second = seen
    assert first == [first[0], first[1], first[0]] and second == [first[1], first[0], first[1]]


def test_the_value_head_warms_up_alone(started, monkeypatch):
    """During the warm-up the decoder does not move and the head does; then both do."""
    config, folder = started
    config.ppo.steps = 3
    config.ppo.value_warmup = 2
    monkeypatch.setattr(rl, "reward", lambda episode, c: float(sum(episode.tokens) % 2))
    rl.ppo(config)
    saved = {0: checkpoint.latest(folder / "safe")}
    saved |= dict(enumerate(checkpoint.checkpoints(folder / "sage"), 1))
    weights = {step: load_file(path / "model.safetensors") for step, path in saved.items()}
    same = lambda one, other: all(torch.equal(one[key], other[key]) for key in one)
    assert same(weights[0], weights[2]) and not same(weights[2], weights[3])
    values = {step: load_file(saved[step] / "heads.safetensors") for step in (1, 2)}
    assert values[1] and not same(values[1], values[2])


def test_the_warm_up_ends_once_the_value_head_explains_enough(started, monkeypatch):
    """At the second step it explains 0.3, and less later: from then on the decoder moves, in a run
    that was stopped in between, too.
    """
    config, folder = started
    config.ppo.steps = 3
    config.ppo.value_warmup, config.ppo.value_explains = 9, 0.3
    explained = iter([0.29, 0.3, -1.0])
    monkeypatch.setattr(rl, "explained_variance", lambda *_: next(explained))
    monkeypatch.setattr(rl, "reward", lambda episode, c: float(sum(episode.tokens) % 2))
    rl.ppo(config)
    saved = [checkpoint.latest(folder / "safe"), *checkpoint.checkpoints(folder / "sage")]
    weights = [load_file(path / "model.safetensors") for path in saved]
    same = lambda one, other: all(torch.equal(one[key], other[key]) for key in one)
    assert [same(*pair) for pair in zip(weights, weights[1:])] == [True, False, False]

    # a step whose rewards are all alike says nothing of what the head explains
    config.ppo.name, config.ppo.steps = "other", 1
    monkeypatch.setattr(rl, "reward", lambda episode, c: 0.25)
    monkeypatch.setattr(rl, "explained_variance", lambda *_: 0.9)
    rl.ppo(config)
    kept = checkpoint.read_meta(checkpoint.latest(folder / "other"))[0]["kept"]
    assert kept["skipped"] == 1 and not kept["warmed_up"]
    config.ppo.name, config.ppo.steps = "", 3
    explained = iter([-1.0])
    monkeypatch.setattr(rl, "explained_variance", lambda *_: next(explained))
    monkeypatch.setattr(rl, "reward", lambda episode, c: float(sum(episode.tokens) % 2))

    shutil.rmtree(saved[-1])
    config.resume = True
    rl.ppo(config)
    assert same(load_file(saved[-1] / "model.safetensors"), weights[-1])


def test_a_reward_that_is_no_number_stops_before_anything_is_learnt(started, monkeypatch):
    config, folder = started
    monkeypatch.setattr(rl, "reward", lambda episode, c: math.nan)
    with pytest.raises(
        UserError, match=r"step 1: the reward of a task of the world api \(seed \d+\) is nan"
    ):
        rl.ppo(config)
    assert not checkpoint.checkpoints(folder / "sage")


def test_a_sample_over_the_sequence_does_not_end_the_drawing(started, monkeypatch):
    """Its reward differs from the others', but it does not count."""
    config, _ = started
    config.ppo.steps, config.ppo.draws = 1, 3
    draws = []

    def one_too_long_each(*arguments, **options):
        done = rollouts(*arguments, **options)
        draws.append(len(done))
        for episode in done[:: config.ppo.samples]:
            more = config.ppo.sequence + 1 - len(episode.tokens)
            episode.tokens.extend([0] * more)
            episode.action_mask.extend([True] * more)
            episode.log_probs.extend([-1.0] * more)
        return done

    monkeypatch.setattr(rl, "rollouts", one_too_long_each)
    monkeypatch.setattr(rl, "reward", lambda e, c: float(len(e.tokens) > c.sequence))
    rl.ppo(config)
    assert len(draws) == 3


@pytest.mark.parametrize("advantage", ["gae", "group"])
def test_an_episode_over_the_sequence_moves_nobody(started, monkeypatch, advantage):
    """Its reward cannot matter: the weights after a step are the same whatever it was."""
    config, folder = started
    config.ppo.advantage = advantage
    draw_ = rl.draw_episodes
    results = []
    for given in (5.0, -5.0):

        def too_long(stage, step):
            done = draw_(stage, step)
            more = config.ppo.sequence + 1 - len(done[2].tokens)
            for row, filler in (
                (done[2].tokens, 0),
                (done[2].action_mask, True),
                (done[2].log_probs, -1.0),
            ):
                row += [filler] * more
            return done

        monkeypatch.setattr(rl, "draw_episodes", too_long)
        monkeypatch.setattr(
            rl,
            "reward",
            lambda episode, c: (
                given if len(episode.tokens) > c.sequence else float(sum(episode.tokens) % 5)
            ),
        )
        shutil.rmtree(folder / "sage", ignore_errors=True)
        rl.ppo(config)
        results.append(weights_and_state(folder / "sage"))
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])
    assert not torch.equal(
        results[0]["norm.weight"], weights_and_state_of_source(folder)["norm.weight"]
    )
    assert records(folder / "sage")[1]["too_long"] == pytest.approx(1 / 12)


def weights_and_state_of_source(folder):
    return dict(checkpoint.load_run(folder / "safe")[0].named_parameters())


def test_only_episodes_over_the_sequence_are_an_error(started):
    config, _ = started
    config.ppo.replay_rows = 0
    config.ppo.sequence = 20
    with pytest.raises(UserError, match="not one of 12 episodes fits in ppo.sequence 20"):
        rl.ppo(config)


@pytest.mark.parametrize("advantage", ["gae", "group"])
@pytest.mark.parametrize("ended, figure", [("raised", "raised"), ("time", "timed_out")])
def test_an_episode_that_breaks_off_is_a_failure(started, monkeypatch, advantage, ended, figure):
    """All others verify: that one did not is what the step learns from."""
    config, folder = started
    config.ppo.advantage = advantage
    draw_ = rl.draw_episodes
    packed = []

    def one_broken(stage, step):
        done = draw_(stage, step)
        for episode in done:
            episode.ended = "answer"
            episode.verified = True
            episode.log = []
        done[2].ended = ended
        done[2].verified = False
        return done

    monkeypatch.setattr(rl, "draw_episodes", one_broken)
    monkeypatch.setattr(
        rl,
        "pack_short",
        lambda examples, model: packed.append(len(examples)) or pack_short(examples, model),
    )
    rl.ppo(config)
    first, second = records(folder / "sage")
    assert first["skipped"] == 0
    assert first["reward"] == pytest.approx(11 / 12)
    assert second[figure] == pytest.approx(1 / 12)
    assert packed == [4]  # the broken one, and its task's other three


@pytest.mark.parametrize("advantage", ["gae", "group"])
def test_an_episode_at_its_tasks_mean_still_counts(started, monkeypatch, advantage):
    """Only whole tasks that went the same way are left out: it has its weight in every mean."""
    config, _ = started
    config.ppo.advantage = advantage
    rewards = iter([1.0, 0.5, 0.0, 0.5] * 2 + [0.5] * 4)
    packed = []
    monkeypatch.setattr(rl, "reward", lambda episode, c: next(rewards))
    monkeypatch.setattr(
        rl,
        "pack_short",
        lambda examples, model: packed.append(len(examples)) or pack_short(examples, model),
    )
    rl.ppo(config)
    assert packed == [8]


# --------------------------------------------------------------------------------------------------
# Means over what was computed.


def varied(episode, c):
    """A reward that differs within most tasks of an untrained model, from −1 to 1."""
    return sum(episode.tokens) % 5 / 2 - 1


@pytest.fixture
def updates(monkeypatch):
    """Rewards that differ; and in place of optimiser steps their gradients, by name, are kept."""
    seen = []

    def update(stage, step):
        named = [
            *stage.model.named_parameters(),
            *(stage.heads.named_parameters() if stage.heads else ()),
        ]
        seen.append({name: p.grad.clone() for name, p in named if p.grad is not None})
        for optimizer in stage.optimizers:
            optimizer.zero_grad(set_to_none=True)
        return 1.0

    monkeypatch.setattr(rl, "reward", varied)
    monkeypatch.setattr(rl.TrainingRun, "update", update)
    return seen


@pytest.mark.parametrize("mean", ["sequence", "token"])
@pytest.mark.parametrize("lam", [1.0, 0.9])
def test_advantages_are_centred_where_the_loss_averages(started, updates, monkeypatch, mean, lam):
    """Successes of 5 tokens, failures of 30: Σ w·A is 0 and Σ w·A² is 1 with the loss's weights."""
    config, _ = started
    for name, value in dict(mean=mean, epochs=1, lam=lam, replay_rows=0, batch=2).items():
        setattr(config.ppo, name, value)
    draw_ = rl.draw_episodes
    seen = []

    def uneven(stage, step):
        done = draw_(stage, step)
        for episode in done[::2]:
            last = len(episode.action_mask) - 1 - episode.action_mask[::-1].index(True)
            episode.action_mask[: last - 4] = [False] * (last - 4)
        return done

    def watched(new, old, advantages, weights, *clip, ppo_loss=rl.ppo_loss, **clip_high):
        seen.append((advantages, weights, (weights > 0).float()))
        return ppo_loss(new, old, advantages, weights, *clip, **clip_high)

    monkeypatch.setattr(rl, "reward", lambda episode, c: float(sum(episode.action_mask) < 6))
    monkeypatch.setattr(rl, "draw_episodes", uneven)
    monkeypatch.setattr(rl, "ppo_loss", watched)
    rl.ppo(config)
    total = lambda each: sum(each(*part).sum().item() for part in seen)
    assert total(lambda a, w, n: w) == pytest.approx(1, abs=1e-5)
    assert total(lambda a, w, n: w * a) == pytest.approx(0, abs=1e-5)
    assert total(lambda a, w, n: w * a * a) == pytest.approx(1, abs=1e-4)
    if mean == "sequence":  # and the other mean is another
        assert abs(total(lambda a, w, n: n * a) / total(lambda a, w, n: n)) > 0.02


@pytest.mark.parametrize("mean", ["sequence", "token"])
def test_the_gradient_does_not_depend_on_how_rows_are_dealt_out(started, updates, mean):
    """Row by row it is that of all at once, and minibatches have it as their mean."""
    config, folder = started
    for name, value in dict(
        mean=mean, epochs=1, replay_rows=0, entropy=0.1, kl=0.5, prompts=4
    ).items():
        setattr(config.ppo, name, value)
    found = []
    for batch, minibatches in ((99, 1), (1, 1), (2, 3)):
        config.ppo.batch = batch
        config.ppo.minibatches = minibatches
        shutil.rmtree(folder / "sage", ignore_errors=True)
        updates.clear()
        rl.ppo(config)
        assert len(updates) == minibatches
        found.append(
            {name: sum(step[name] for step in updates) / minibatches for name in updates[0]}
        )
    for name, whole in found[0].items():
        for other in found[1:]:
            assert torch.allclose(
                other[name], whole, rtol=1e-3, atol=1e-4 * whole.abs().max().item() + 1e-7
            ), name
    assert found[0]["value.weight"].abs().max() > 1e-4
    assert found[0]["norm.weight"].abs().max() > 1e-4


@pytest.mark.parametrize(
    "rows, minibatches, each_kl, passes",
    [(99, 2, 0.02, 2), (1, 4, 0.02, 2), (1, 4, 0.2, 1), (2, 5, 0.2, 1)],
)
def test_drift_and_clip_are_means_over_what_was_run(
    started, updates, monkeypatch, rows, minibatches, each_kl, passes
):
    """With each token's KL and clipping fixed, few rows and passes not run change no mean."""
    config, folder = started
    config.ppo.minibatches = minibatches
    config.ppo.epochs = 2
    config.ppo.stop_kl = 0.03

    def clipped_by_half(new, old, advantages, weights, clip, clip_high):
        return (new * weights).sum(), 0.5 * weights.sum()

    def few(examples, model):
        return pack_short(examples if rows == 99 else examples[:rows], model)

    monkeypatch.setattr(rl, "ppo_loss", clipped_by_half)
    monkeypatch.setattr(rl, "kl_k3", lambda new, reference: torch.full_like(new, each_kl))
    monkeypatch.setattr(rl, "pack_short", few)
    rl.ppo(config)
    first, second = records(folder / "sage")
    assert second["approx_kl"] == pytest.approx(each_kl)
    assert first["clip_fraction"] == pytest.approx(0.5)
    assert len(updates) == passes * (minibatches if rows == 99 else rows)


def test_steps_and_worlds_that_were_not_there_are_in_no_mean(started, monkeypatch):
    """Two steps in one log line: one is skipped, and in each one of four worlds is missing."""
    config, folder = started
    config.ppo.worlds = "all but math"
    config.ppo.steps = config.ppo.log_every = 2
    draw_ = rl.draw_episodes
    worth = dict(api=1.0, sql=0.5, shell=0.25, safety=-1.0)

    def alike(stage, step):
        done = draw_(stage, step)
        for place, episode in enumerate(done):
            episode.ended = "malformed" if step == 1 and place == 0 else "answer"
        return done

    monkeypatch.setattr(rl, "draw_episodes", alike)
    monkeypatch.setattr(
        rl,
        "reward",
        lambda episode, c: 0.0 if episode.ended == "malformed" else worth[episode.task.world],
    )
    monkeypatch.setattr(rl, "kl_k3", lambda new, reference: torch.full_like(new, 0.02))
    rl.ppo(config)
    first, second = records(folder / "sage")
    assert first["skipped"] == 1
    assert second["approx_kl"] == pytest.approx(0.02)
    assert first["kl"] == pytest.approx(0.02)
    assert second["malformed"] == pytest.approx(1 / 24)
    assert second["reward_sql"] == 0.5
    assert second["reward_shell"] == 0.25
    # eight of its episodes, one of them 0
    assert second["reward_safety"] == -1.0
    assert second["reward_api"] == pytest.approx(7 / 8)
    assert first["explained_variance"] == first["explained_variance"]
    assert 0 < first["norm"]


def test_the_value_heads_gradient_does_not_shrink_the_policys_step(started, monkeypatch):
    config, folder = started
    config.ppo.replay_rows = 0
    monkeypatch.setattr(rl, "reward", varied)
    found = []
    for times in (1.0, 1e4):
        monkeypatch.setattr(
            rl,
            "value_loss",
            lambda *given, value_loss=rl.value_loss, times=times: times * value_loss(*given),
        )
        shutil.rmtree(folder / "sage", ignore_errors=True)
        rl.ppo(config)
        found.append((weights_and_state(folder / "sage"), records(folder / "sage")[0]["norm"]))
        monkeypatch.undo()
        monkeypatch.setattr(rl, "reward", varied)
    (one, norm), (other, other_norm) = found
    of_the_decoder = [
        key for key in one if not key.startswith(("optimizer 1.", "optimizer random"))
    ]
    assert norm == other_norm > 0
    assert all(torch.equal(one[key], other[key]) for key in of_the_decoder)
    assert "optimizer 0.0.exp_avg" in one


@pytest.mark.parametrize("advantage", ["gae", "rloo", "group"])
def test_rewards_move_the_policy_their_way(started, monkeypatch, advantage):
    """Rewarded for tokens of the vocabulary's first half, the model soon writes little else: the
    sign is right from the reward to the weights.
    """
    config, folder = started
    for name, value in dict(
        steps=14,
        samples=8,
        room=12,
        learning_rate=1e-2,
        kl=0.0,
        stop_kl=1.0,
        worlds="math",
        advantage=advantage,
    ).items():
        setattr(config.ppo, name, value)
    half = lambda episode: [
        token < 512 for token, mine in zip(episode.tokens, episode.action_mask) if mine
    ]
    monkeypatch.setattr(rl, "reward", lambda episode, c: sum(half(episode)) / len(half(episode)))
    rl.ppo(config)
    rewards = [r["reward"] for r in records(folder / "sage") if "reward" in r]
    assert 0.35 < rewards[0] < 0.6, rewards
    assert sum(rewards[-3:]) / 3 > 0.67, rewards


def test_a_run_with_experts_is_refused_and_leaves_nothing(lineage):
    file, folder = lineage(stages=[])
    config = settings.from_file(file)
    config.model.experts = 2
    model = SAGE(config.model, seed=1)
    checkpoint.save_checkpoint(folder / "reflected", config, model, [], 1, stage="reflected")
    with pytest.raises(UserError, match="has 2 experts for each feed-forward"):
        preferences.dpo(settings.from_file(file))
    assert not (folder / "safe").exists()


@pytest.mark.parametrize(
    "stages, words, wanted",
    [
        ([], [], "there is no run; make it with python distill.py FILE --stage reflect"),
        (
            ["reflected"],
            ["--stage", "ppo"],
            "there is no run; make it with python rl.py FILE --stage dpo",
        ),
        (["reflected"], ["--stage", "reflect"], "this script has dpo and ppo"),
        (["reflected"], ["--dpo.sequence", "32"], "0 of 10 pairs fit in dpo.sequence 32"),
        (["reflected"], ["--dpo.pairs", "2"], "dpo.pairs is 2; wanted at least 3"),
        (["reflected"], ["--dpo.compile", "on"], "dpo.compile is 'on'; outside torchrun only"),
        (
            ["safe"],
            ["--stage", "ppo", "--ppo.advantage", "group", "--ppo.samples", "1"],
            "ppo.samples must be at least 2",
        ),
        (["safe"], ["--stage", "ppo", "--ppo.worlds", "api,sea"], "there is no world 'sea'"),
        (
            ["safe"],
            ["--stage", "ppo", "--ppo.worlds", "all but api,sql,shell,math,safety"],
            "leaves no world; there are api, sql,",
        ),
        (
            ["safe"],
            ["--stage", "ppo", "--ppo.temperature", "0"],
            "ppo.temperature is 0.0; wanted above 0",
        ),
    ],
)
def test_bad_input(lineage, stages, words, wanted):
    file, _ = lineage("bad", stages)
    result = run("rl.py", file, *words)
    assert result.returncode == 1, result.stderr
    assert wanted.replace("FILE", file) in result.stderr, result.stderr
    assert "Traceback" not in result.stderr, result.stderr


def test_ppo_begins_where_dpo_has_written(lineage, monkeypatch):
    """Both in one command: not from an older run in dpo's usual folder."""
    file, folder = lineage()
    monkeypatch.setattr(sys, "argv", ["rl.py", file, "--dpo.name", "mine", "--ppo.steps", "1"])
    rl.main()
    source = checkpoint.read_meta(checkpoint.latest(folder / "sage"))[0]["made_from"]["source run"]
    assert source == checkpoint.weights_identity(folder / "mine")
    assert source != checkpoint.weights_identity(folder / "safe")


def test_any_seed_draws(started):
    """Unix times are seeds, too; small ones draw as they always did."""
    config, folder = started
    config.ppo.seed = 2**32 - 1
    rl.ppo(config)
    assert uniforms_of(2**60, 1, 3) != uniforms_of(2**60, 2, 3)
    generator = torch.Generator().manual_seed(5 * 1_000_003 + 2)
    assert uniforms_of(5, 2, 3) == torch.rand(3, generator=generator).tolist()


def test_a_foreign_stage_folder_is_refused(lineage):
    file, folder = lineage()
    # the safe that is there
    assert "go on with --resume, or delete" in run("rl.py", file, "--stage", "dpo").stderr
    shutil.copytree(folder / "safe", folder / "sage")
    assert (
        "was written by stage safe, not sage"
        in run("rl.py", file, "--stage", "ppo", "--resume").stderr
    )


@pytest.fixture
def half_learnt(tmp_path):
    """Half of config/problems.py's stage distill, after which a quarter of the math tasks succeed:
    trained in a quarter of an hour.
    """
    out = ["config/problems.py", "--out", str(tmp_path / "base")]
    half = ["--distill.steps", "1300", "--distill.trajectories", "16000"]
    for script in (["train.py", *out], ["distill.py", *out, "--stage", "distill", *half]):
        subprocess.run([sys.executable, *script], cwd=ROOT, check=True)
    return tmp_path / "distilled"


@pytest.mark.slow
def test_the_same_tasks_are_learnt_by_heart(half_learnt, tmp_path):
    """That the gradient is right: with the same 16 tasks in each of 30 steps success at least
    doubles. As here it went from 0.22 to 0.67, with 8 samples at 3e-4 from 0.24 to 0.72 and from
    0.12 to 0.48 (docs/LOG.md).
    """
    config = settings.from_file(ROOT / "config/problems.py")
    config.out = str(tmp_path / "heart/base")
    same = dict(start=str(half_learnt), tasks=16, prompts=16, steps=30, log_every=1, save_every=0)
    # a task of which no sample succeeds teaches nothing, so more samples; and nothing else is to
    # be kept, so a larger rate
    config.ppo = replace(config.ppo, samples=16, learning_rate=1e-3, **same)
    rl.ppo(config)
    lines = (tmp_path / "heart/sage/log.jsonl").read_text().splitlines()
    success = [row["success"] for row in map(json.loads, lines) if "success" in row]
    assert len(success) == 30
    assert statistics.mean(success[-3:]) > 2 * statistics.mean(success[:2]) > 0
