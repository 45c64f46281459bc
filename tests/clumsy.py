"""An agent that acts and errs, without a model: episodes with refused calls, senseless calls,
missing steps and wrong answers.
"""

import random

from worlds.expert import call_message, solve_task
from support import tokenizer as tokenizers
from worlds.negatives import hard_negatives
from agent import Rollout
from worlds.base import Episode, Task

TOY = tokenizers.toy()


def prompt_of(task: Task) -> list[int]:
    user = {"role": "user", "content": task.request}
    return TOY.encode_chat(
        [user], task.shown_tools(), task.difficulty.style, generation_prompt=True
    )[0]


def clumsy(task: Task, prompt: list[int], number: int) -> Rollout:
    """An episode as a model would have lived it: now and then a call is misread, senseless or
    missing, or the answer is wrong.
    """
    rng = random.Random(f"clumsy {task.seed} {number}")
    messages, _ = solve_task(task, slips=rng.random() < 0.3)
    said_answer = task.answer if rng.random() < 0.6 else "answer: 0"
    shown: list[dict] = []
    with Episode(task) as episode:
        for message in messages[:-1]:
            if "tool_calls" not in message or rng.random() < 0.1:
                continue
            call = message["tool_calls"][0]["function"]
            if rng.random() < 0.2:
                known = [step.call for step in task.solution]
                wrong = hard_negatives(call, task.tools, rng, task) if call in known else {}
                call = rng.choice([*wrong.values(), call])
            shown += [
                call_message(message["content"], call),
                {"role": "tool", "content": episode.step(call)},
            ]
        shown.append({"role": "assistant", "content": said_answer})
        verified = episode.verify(said_answer)
    user = {"role": "user", "content": task.request}
    tokens, own = TOY.encode_chat([user, *shown], task.shown_tools(), task.difficulty.style)
    start = len(prompt_of(task))
    tokens, own = [*prompt, *tokens[start:]], [*([False] * len(prompt)), *own[start:]]
    texts = [message["content"] for message in shown if message["role"] == "assistant"]
    return Rollout(
        task,
        tokens,
        own,
        [0.0] * len(tokens),
        texts,
        "answer",
        verified,
        episode.faults,
        episode.log,
        called=[1] * len(episode.log) + [0],
    )


class Played:
    """Stands for agent.rollouts; `episodes` are all that were played."""

    def __init__(self):
        self.episodes: list[Rollout] = []

    def __call__(self, model, tokenizer, tasks, *_, prompts=None, **__) -> list[Rollout]:
        prompts = prompts or [prompt_of(task) for task in tasks]
        done = [
            clumsy(task, prompt, number)
            for number, (task, prompt) in enumerate(zip(tasks, prompts))
        ]
        self.episodes += done
        return done
