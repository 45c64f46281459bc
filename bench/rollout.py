"""Speed of rollouts, beside transformers' `generate` driving the same episodes with the same
weights in one run; and what a step of stage ppo spends where.

The peer is what one writes with `generate`: prompts padded at the left, every turn generated until
the slowest row's message ends, the tools' answers appended as text, and the whole conversation read
again in the next turn. One by one is the same with a batch of 1. Both sides decode greedily; the
weights have learnt the episodes by heart (a minute of training), so that real ones are played:
calls, faults, answers, of all lengths.

    python bench/rollout.py                                  prints and records docs/results/posttraining.json
    python bench/rollout.py --episodes 8 --learn 3 --rounds 1 --dry     tries it out in seconds, records nothing
"""

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support.openmp  # before torch

import torch
import transformers

from support.qwen import load_qwen
from support import settings
from support import result_tables as results
import rl
from support import tokenizer as tokenizers
from worlds.expert import solve
from agent import Row, prompt_of, rollouts
from worlds.base import Difficulty, Episode, draw

ROOM = 256  # tokens an episode may add to its prompt


def learnt_by_heart(tasks, tokenizer, steps: int) -> transformers.Qwen2ForCausalLM:
    """A Qwen2 of the toy's size that has seen the expert's episodes of these tasks until it can say
    them.
    """
    torch.manual_seed(0)
    model = transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            vocab_size=1024,
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=384,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
        )
    )
    texts = []
    for task in tasks:
        tokens, own = tokenizer.encode_chat(
            [{"role": "user", "content": task.request}, *solve(task)[0]],
            task.shown_tools(),
            task.difficulty.style,
        )
        texts.append((tokens, [token if mine else -100 for token, mine in zip(tokens, own)]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        some = [texts[i] for i in torch.randperm(len(texts), generator=generator)[:8].tolist()]
        longest = max(len(tokens) for tokens, _ in some)
        fill = lambda part, blank: torch.tensor(
            [x[part] + [blank] * (longest - len(x[part])) for x in some]
        )
        loss = model(
            input_ids=fill(0, 0), labels=fill(1, -100)
        ).loss  # padding at the right: nobody looks at it
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 20, 1.2 * (steps - step) / steps)
        optimizer.step()
        optimizer.zero_grad()
    print(f"learnt by heart: loss {loss.item():.3f} after {steps} steps")
    return model.eval()


def by_generate(model, tokenizer, tasks, batch: int) -> list:
    """The episodes as transformers' users drive them: turn by turn, everything read anew each turn."""
    stop = list(tokenizer.stop)
    done = []
    for start in range(0, len(tasks), batch):
        rows = [
            Row(task, prompt_of(task, tokenizer), True, torch.zeros(1))
            for task in tasks[start : start + batch]
        ]
        begun = {id(row): row.start for row in rows}
        while alive := [row for row in rows if not row.rollout.ended]:
            longest = max(len(row.rollout.tokens) for row in alive)
            tokens = torch.tensor(
                [[0] * (longest - len(row.rollout.tokens)) + row.rollout.tokens for row in alive]
            )
            mask = torch.tensor(
                [
                    [0] * (longest - len(row.rollout.tokens)) + [1] * len(row.rollout.tokens)
                    for row in alive
                ]
            )
            left = max(ROOM - len(row.rollout.tokens) + begun[id(row)] for row in alive)
            with torch.no_grad():
                new = model.generate(
                    tokens,
                    attention_mask=mask,
                    max_new_tokens=left,
                    do_sample=False,
                    eos_token_id=stop,
                    pad_token_id=0,
                )[:, longest:].tolist()
            for row, message in zip(alive, new):
                end = next(
                    (place + 1 for place, token in enumerate(message) if token in stop),
                    len(message),
                )
                message = message[: min(end, ROOM - len(row.rollout.tokens) + begun[id(row)])]
                row.rollout.tokens += message
                row.rollout.action_mask += [True] * len(message)
                if message and message[-1] in stop:
                    row.act(tokenizer, 2, False)
                    row.rollout.tokens += row.queue
                    row.rollout.action_mask += [False] * len(row.queue)
                    row.queue.clear()
                    row.start = len(row.rollout.tokens)
                if not row.rollout.ended and len(row.rollout.tokens) - begun[id(row)] >= ROOM:
                    row.end("length")
        done += [row.rollout for row in rows]
    return done


def compare(ours, theirs, tokenizer, tasks, batch: int, rounds: int, note) -> None:
    runners = {
        "rollouts": lambda: rollouts(ours, tokenizer, tasks, 0.0, batch=batch, room=ROOM),
        "generate, batched": lambda: by_generate(theirs, tokenizer, tasks, batch),
        "generate, one by one": lambda: by_generate(theirs, tokenizer, tasks, 1),
    }
    times, played = {name: [] for name in runners}, {}
    for _ in range(rounds):
        for name, call in runners.items():
            start = time.perf_counter()
            played[name] = call()
            times[name].append(time.perf_counter() - start)
    print(
        f"{len(tasks)} episodes, batch {batch}, {torch.get_num_threads()} threads, {rounds} rounds taken in turns; {dict(Counter(r.ended for r in played['rollouts']))}"
    )
    for name, seconds in times.items():
        own, median = sum(sum(r.action_mask) for r in played[name]), statistics.median(seconds)
        ratios = [theirs / mine for theirs, mine in zip(seconds, times["rollouts"])]
        same = sum(a.tokens == b.tokens for a, b in zip(played[name], played["rollouts"])) / len(
            tasks
        )
        verified = sum(r.verified for r in played[name]) / len(tasks)
        print(
            f"  {name:22} {own / median:8.0f} own tokens/s  {len(tasks) / median:7.2f} episodes/s  {statistics.median(ratios):6.2f} × the time of rollouts (min {min(ratios):.2f} max {max(ratios):.2f}); "
            f"{same:.0%} of episodes the same, {verified:.0%} verified"
        )
        if name != "rollouts":
            note(
                f"rollout speed/times {name}",
                round(statistics.median(ratios), 2),
                unit="×",
                n=len(tasks),
                spread=f"min {min(ratios):.2f} max {max(ratios):.2f}",
                goal="≥ 8" if "batched" in name else "",
                note=f"{len(tasks) / statistics.median(times['rollouts']):.1f} episodes/s against {len(tasks) / median:.2f}; {same:.0%} of episodes the same",
            )


def spent(folder: Path, steps: int, note) -> None:
    """Where a step of stage ppo spends its time, by clocks around rollouts and around the worlds."""
    clock: Counter = Counter()

    def timed(name, function):
        def wrapper(*words, **named):
            start = time.perf_counter()
            try:
                return function(*words, **named)
            finally:
                clock[name] += time.perf_counter() - start

        return wrapper

    config = settings.from_file("config/toy.py")
    config.out, config.ppo.start, config.ppo.steps, config.ppo.log_every = (
        str(folder / "lineage" / "base"),
        str(folder),
        steps,
        10**6,
    )
    whole = Episode.step, Episode.verify, Episode.__init__, rl.draw, rl.rollouts
    Episode.step, Episode.verify, Episode.__init__, rl.draw = (
        timed("worlds", function) for function in whole[:4]
    )
    rl.rollouts = timed("rollouts", whole[4])
    settings.validate(config)
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        rl.ppo(config)
    total = time.perf_counter() - start
    Episode.step, Episode.verify, Episode.__init__, rl.draw, rl.rollouts = whole
    c = config.ppo
    shares = {
        "rollouts": clock["rollouts"] - clock["worlds"],
        "worlds": clock["worlds"],
        "update": total - clock["rollouts"],
    }
    print(
        f"a step of stage ppo, {c.prompts} tasks × {c.samples} episodes, {c.epochs} epochs: {total / steps:.2f} s, of which "
        + ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in shares.items())
    )
    for name, seconds in shares.items():
        note(
            f"rl step/{name}",
            round(100 * seconds / total, 1),
            unit="%",
            n=steps,
            note=f"of {total / steps:.2f} s; {c.prompts} × {c.samples} episodes, {c.epochs} epochs",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--learn", type=int, default=400, help="training steps of the weights that are used"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="steps of stage ppo")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    a = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_float32_matmul_precision("medium")
    note = (
        (lambda *words, **named: None)
        if a.dry
        else lambda *words, **named: results.record("posttraining", *words, **named)
    )
    tokenizer = tokenizers.toy()
    names = ("api", "sql", "shell", "safety")
    tasks = [
        draw(names[i % len(names)], 0, i, Difficulty(fault_rate=0.3)) for i in range(a.episodes)
    ]
    with tempfile.TemporaryDirectory() as folder:
        theirs = learnt_by_heart(tasks, tokenizer, a.learn)
        theirs.save_pretrained(folder)
        compare(load_qwen(folder), theirs, tokenizer, tasks, a.batch, a.rounds, note)
        spent(Path(folder), a.steps, note)


if __name__ == "__main__":
    main()
