"""Speed of rollouts, beside transformers' `generate` driving the same episodes with the same
weights in one run; and what a step of stage ppo spends where.

The peer is what one writes with `generate`: prompts padded at the left, every turn generated until
the slowest row's message ends, the tools' answers appended, and the whole conversation read again
in the next turn. One by one is the same with a batch of 1. Both sides decode greedily; the weights
have learnt the episodes by heart (a minute of training), so that real ones are played: calls,
faults, answers, of all lengths. Then the same tasks several times each and all at once, as stage
ppo plays them: rollouts read a prompt once for all of its samples. (Greedily here, too: the samples
of a task are alike, and end together.)

    python bench/rollout.py             prints and records docs/results/posttraining.json
    python bench/rollout.py --episodes 8 --learn 3 --rounds 1 --steps 0 --dry     in seconds
"""

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support.openmp  # before torch

import torch
import transformers

import rl
import worlds.tasks
from agent import EpisodeRow, Rollout, prompt_of, rollouts
from by_heart import learnt_by_heart
from model import SAGE
from support import result_tables, settings
from support import tokenizer as tokenizers
from support.pretrained import load_pretrained
from support.tokenizer import Tokenizer
from worlds.base import Episode, Task
from worlds.difficulty import Difficulty

ROOM = 256  # tokens an episode may add to its prompt
WORLDS = ("api", "sql", "shell", "safety")


def by_generate(
    model: transformers.Qwen2ForCausalLM, tokenizer: Tokenizer, tasks: list[Task], batch: int
) -> list[Rollout]:
    """The episodes as transformers' users drive them: turn by turn, all read anew each turn."""
    stop = list(tokenizer.stop)
    done = []
    for start in range(0, len(tasks), batch):
        rows = []
        for task in tasks[start : start + batch]:
            rows.append(EpisodeRow(task, tokenizer, prompt_of(task, tokenizer), [], room=ROOM))
        while alive := [row for row in rows if not row.ended]:
            # -- every message that is under way, as one batch padded at the left
            longest = max(len(row.tokens) for row in alive)
            padding = [longest - len(row.tokens) for row in alive]
            texts = [[0] * blank + row.tokens for blank, row in zip(padding, alive)]
            mask = [[0] * blank + [1] * (longest - blank) for blank in padding]
            with torch.no_grad():
                output = model.generate(
                    torch.tensor(texts),
                    attention_mask=torch.tensor(mask),
                    max_new_tokens=max(row.room for row in alive),
                    do_sample=False,
                    eos_token_id=stop,
                    pad_token_id=0,
                )
            # -- each row takes its message up to the stop token, acts, and reads the observations
            for row, message in zip(alive, output[:, longest:].tolist()):
                for token in message:
                    if row.forced or row.ended:
                        break
                    row.append(token, 0.0, 0.0, stop)
                while row.forced and not row.ended:
                    row.append(0, 0.0, 0.0, stop)
        done += [row.rollout for row in rows]
    return done


def compare(
    ours: SAGE,
    theirs: transformers.Qwen2ForCausalLM,
    tokenizer: Tokenizer,
    tasks: list[Task],
    *,
    batch: int,
    samples: int,
    rounds: int,
    dry: bool,
) -> None:
    """Print the speed of rollouts and of the two peers, each task played `samples` times; record
    the ratios unless `dry`.
    """
    tasks = [task for task in tasks for _ in range(samples)]
    runners = {
        "rollouts": lambda: rollouts(ours, tokenizer, tasks, 0.0, batch=batch, room=ROOM),
        "generate, batched": lambda: by_generate(theirs, tokenizer, tasks, batch),
    }
    if samples == 1:
        runners["generate, one by one"] = lambda: by_generate(theirs, tokenizer, tasks, 1)
    times: dict[str, list[float]] = {name: [] for name in runners}
    played: dict[str, list[Rollout]] = {}
    for _ in range(rounds):
        for name, play in runners.items():
            began = time.perf_counter()
            played[name] = play()
            times[name].append(time.perf_counter() - began)

    count = len(tasks)
    endings = dict(Counter(episode.ended for episode in played["rollouts"]))
    print(
        f"{count} episodes, batch {batch}, {torch.get_num_threads()} threads, "
        f"{rounds} rounds taken in turns; {endings}"
    )
    fastest = count / statistics.median(times["rollouts"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        ratios = [mine / fast for mine, fast in zip(seconds, times["rollouts"])]
        ratio = statistics.median(ratios)
        spread = f"min {min(ratios):.2f} max {max(ratios):.2f}"
        pairs = list(zip(played[name], played["rollouts"]))
        same = sum(mine.tokens == fast.tokens for mine, fast in pairs) / count
        sampled = sum(sum(episode.action_mask) for episode in played[name])
        verified = sum(episode.verified for episode in played[name]) / count
        print(
            f"  {name:22} {sampled / median:8.0f} sampled tokens/s  "
            f"{count / median:7.2f} episodes/s  {ratio:6.2f} × the time of rollouts ({spread}); "
            f"{same:.0%} of episodes the same, {verified:.0%} verified"
        )
        if name != "rollouts" and not dry:
            result_tables.record(
                "posttraining",
                f"rollout speed/times {name}" + f", {samples} samples of a task" * (samples > 1),
                round(ratio, 2),
                unit="×",
                n=count,
                spread=spread,
                goal="≥ 5" if "batched" in name else "",
                note=f"{fastest:.1f} episodes/s against {count / median:.2f}; "
                f"{same:.0%} of episodes the same",
            )


def time_ppo(folder: Path, steps: int, *, dry: bool) -> None:
    """Where a step of stage ppo spends its time, by clocks around rollouts and worlds."""
    clock: Counter = Counter()

    def clocked(name: str, function: Callable) -> Callable:
        def wrapper(*words, **named):
            began = time.perf_counter()
            try:
                return function(*words, **named)
            finally:
                clock[name] += time.perf_counter() - began

        return wrapper

    config = settings.from_file("config/toy.py")
    config.out = str(folder / "lineage" / "base")
    config.ppo.start = str(folder)
    config.ppo.steps = steps
    config.ppo.log_every = 10**6
    settings.validate(config)
    places = [
        (rl, "rollouts", "rollouts"),
        (worlds.tasks, "draw_task", "tasks"),
        (Episode, "__init__", "worlds"),
        (Episode, "step", "worlds"),
        (Episode, "verify", "worlds"),
    ]
    with contextlib.ExitStack() as stack:
        for owner, attribute, name in places:
            wrapper = clocked(name, getattr(owner, attribute))
            stack.enter_context(mock.patch.object(owner, attribute, wrapper))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        began = time.perf_counter()
        rl.ppo(config)
        total = time.perf_counter() - began

    seconds = {
        "rollouts": clock["rollouts"] - clock["worlds"],
        "worlds": clock["worlds"] + clock["tasks"],
        "update": total - clock["rollouts"] - clock["tasks"],
    }
    shares = {name: 100 * value / total for name, value in seconds.items()}
    c = config.ppo
    words = ", ".join(f"{name} {share:.0f}%" for name, share in shares.items())
    print(
        f"a step of stage ppo, {c.prompts} tasks × {c.samples} episodes, {c.epochs} epochs: "
        f"{total / steps:.2f} s, of which {words}"
    )
    if dry:
        return
    for name, share in shares.items():
        result_tables.record(
            "posttraining",
            f"rl step/{name}",
            round(share, 1),
            unit="%",
            n=steps,
            note=f"of {total / steps:.2f} s; {c.prompts} × {c.samples} episodes, {c.epochs} epochs",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--samples", type=int, default=8, help="of each task, in the second part")
    parser.add_argument("--learn", type=int, default=400, help="steps by which weights are learnt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="steps of stage ppo; 0: none")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    a = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_float32_matmul_precision("medium")
    tokenizer = tokenizers.toy()
    tasks = []
    for index in range(a.episodes):
        world = WORLDS[index % len(WORLDS)]
        tasks.append(worlds.tasks.draw_task(world, 0, index, Difficulty(fault_rate=0.3)))
    with tempfile.TemporaryDirectory() as folder:
        theirs = learnt_by_heart(tasks, tokenizer, a.learn)
        theirs.save_pretrained(folder)
        ours = load_pretrained(folder)
        for samples in sorted({1, a.samples}):
            options = dict(batch=a.batch * samples, rounds=a.rounds, dry=a.dry)
            compare(ours, theirs, tokenizer, tasks, samples=samples, **options)
        if a.steps:
            time_ppo(Path(folder), a.steps, dry=a.dry)


if __name__ == "__main__":
    main()
