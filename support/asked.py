"""Published questions, asked and answered: likelihoods, texts, votes (§6.2, §6.3).

support/protocols.py says what is asked of each benchmark, in which form, with how many worked
examples, and how long an answer may be; support/questions.py reads the authors' files,
support/graders.py has their rules. An answer is found in one of three ways:

    generation  the model writes, and a rule finds the answer in what it wrote
    letters     the likeliest of " A", " B", ... behind the question and its options, as text
    options     the likeliest option behind the question alone, log P per byte of the option

A letter's prefix is read once for all letters; options continue from copies of its cache.

What the paper calls Think is a vote (§6.3), and so it is here: of `votes` samples those that have
an answer, the half of these with the least gain in inverse consistency (equation 13) dropped, the
majority of the rest.
"""

import hashlib
import random
from dataclasses import asdict
from typing import NamedTuple

import torch

from agent import uniforms_of
from config import Benchmarks, UserError
from fast.thinking import forward_flops
from generate import Conversations, Row, decode, pad
from mch import ThinkingHeads, closed, constraint_texts
from support import provenance, settings
from support.graders import math_verified
from support.measured import Stage, benchmark_folder
from support.protocols import (
    LOADERS,
    OWN_MATH,
    RULES,
    Protocol,
    Rule,
    prompt_of_question,
    resolved,
    way_of,
)
from support.questions import Question, Questions
from think import Vote, vote

ANSWERS_VERSION = 1  # raised when rows change, so that no older ones pass for the same
RULES_VERSION = 2  # raised when numbers or letters are read otherwise from a text


class Asked(NamedTuple):
    """A question that is asked: its number in the benchmark, and the prompt's tokens."""

    number: int
    question: Question
    prompt: list[int]


# --------------------------------------------------------------------------------------------------
# Likelihoods.


@torch.no_grad()
def choice_log_probs(
    stage: Stage, prompts: list[list[int]], choices: list[list[list[int]]]
) -> list[list[float]]:
    """log P(choice | prompt) in nats, for the choices of each prompt, all in tokens.

    The prompts are read once, together. Where every choice is one token, their logits say all;
    else each choice continues from a copy of its prompt's cache.
    """
    longest = max(len(tokens) for some in choices for tokens in some)
    read = Conversations(stage.model, prompts, max(map(len, prompts)) + longest)
    first = read.logits.float().log_softmax(-1)  # (B, V)
    found = []
    for row, some in enumerate(choices):
        log_probs = [first[row, tokens[0]].item() for tokens in some]
        if longest > 1:
            copies = read.select([row] * len(some))
            tokens, places = pad(some, first.device)  # (choices, T)
            hidden = copies.feed(tokens, torch.where(places < 0, -1, places + len(prompts[row])))
            following = stage.model.logits(hidden[:, :-1]).float().log_softmax(-1)
            following = following.gather(2, tokens[:, 1:, None]).squeeze(2)  # (choices, T − 1)
            rest = following.masked_fill(places[:, 1:] < 0, 0).sum(1).tolist()
            log_probs = [one + more for one, more in zip(log_probs, rest, strict=True)]
        found.append(log_probs)
    return found


def likelihood_rows(stage: Stage, p: Protocol, asked: list[Asked]) -> list[dict]:
    """Rows of questions whose answer is the likeliest choice."""
    encode, config = stage.tokenizer.encode_inside, stage.model.config
    prompts = [one.prompt for one in asked]
    texts = [
        one.question.options if p.scoring == "options" else tuple(one.question.letters)
        for one in asked
    ]
    choices = [[encode(f" {text}") for text in some] for some in texts]
    scores = choice_log_probs(stage, prompts, choices)
    rows = []
    for (number, question, prompt), some, tokens, log_probs in zip(asked, texts, choices, scores):
        if p.scoring == "options":
            sizes = [max(len(text.encode()), 1) for text in some]  # in bytes
            log_probs = [s / size for s, size in zip(log_probs, sizes, strict=True)]
        answer = question.letters[max(range(len(some)), key=log_probs.__getitem__)]
        flops = forward_flops(config, len(prompt), len(prompt) / 2, 1)
        further = sum(len(choice) - 1 for choice in tokens)
        flops += forward_flops(config, further, len(prompt), further)
        row = question_row(number, question, len(prompt), written=further, flops=flops)
        row |= dict(log_probs=[round(score, 4) for score in log_probs], answer=answer)
        rows.append(row | dict(right=answer == question.gold))
    return rows


def question_row(number: int, question: Question, read: int, written: int, flops: float) -> dict:
    """What every row says of its question and its cost."""
    return dict(
        number=number,
        source=question.source,
        group=question.group,
        question=question.text,
        gold=question.gold,
        read=read,
        written=written,
        flops=flops,
    )


def too_long_row(number: int, question: Question, length: int) -> dict:
    """The row of a question whose prompt leaves no room in the context: it counts as wrong."""
    row = question_row(number, question, length, written=0, flops=0.0)
    return row | dict(answer="", right=False, too_long=True)


# --------------------------------------------------------------------------------------------------
# Texts.


# A plain prompt's next block begins with it: a text that reaches it has gone on. Looked for in the
# last few tokens: as many as it has bytes, and some more where the first one is cut.
QUESTION = "Question:"


class AnswerRow(Row):
    """An answer being written. As plain text it ends where it goes on to the next question."""

    def __init__(self, stage: Stage, p: Protocol, room: int, temperature: float, uniforms: list):
        super().__init__([], room, temperature, uniforms)
        self.tokenizer, self.plain = stage.tokenizer, p.prompt == "plain"

    def append(self, token: int, log_prob: float, entropy: float, stop: list[int]) -> int:
        token = super().append(token, log_prob, entropy, stop)
        if self.plain and not self.ended:
            if QUESTION in self.tokenizer.decode(self.tokens[-len(QUESTION) - 3 :]):
                self.end("question")
        return token

    @property
    def text(self) -> str:
        tokens = self.tokens[:-1] if self.ended == "stop" else self.tokens
        text = self.tokenizer.decode(tokens)
        return text.partition(QUESTION)[0] if self.plain else text


@torch.no_grad()
def written_answers(
    stage: Stage, p: Protocol, a: Benchmarks, asked: list[Asked]
) -> list[list[AnswerRow]]:
    """The texts for each question: one, greedy, or a.votes samples, with random numbers of their
    own whatever else is asked.
    """
    context = stage.model.config.context
    votes = 1 if a.mode == "fast" else a.votes
    temperature = 0.0 if a.mode == "fast" else a.temperature
    answers = []
    for number, _, prompt in asked:
        room = min(p.room, context - len(prompt))
        for sample in range(votes):
            uniforms = uniforms_of(a.seed, number * votes + sample, room)
            answers.append(AnswerRow(stage, p, room, temperature, uniforms))
    prompts = [prompt for _, _, prompt in asked for _ in range(votes)]
    for begin in range(0, len(prompts), a.batch):
        some = slice(begin, begin + a.batch)
        longest = max(map(len, prompts[some]))
        limit = min(longest + p.room, context)
        conversations = Conversations.of_prompts(stage.model, prompts[some], limit)
        decode(conversations, answers[some], stage.tokenizer.stop)
    return [answers[begin : begin + votes] for begin in range(0, len(answers), votes)]


def gains_of(
    stage: Stage, heads: ThinkingHeads, question: Question, answers: list[AnswerRow]
) -> tuple[list[float], float]:
    """ICS − prior of each answer, in nats: how much better the question's sentences can be told
    again from it than from nothing (equation 13); and the FLOPs that it took.
    """
    tokenizer, inverse = stage.tokenizer, heads["inverse"]
    end = tokenizer.stop[0]
    asked = constraint_texts({}, question.text)
    constraints = [[*tokenizer.encode(text), end] for text in asked]
    length = sum(map(len, constraints))
    gains, flops = [], 0.0
    for answer in answers:  # one by one: the caches of many long answers fill the memory
        words = closed(answer.tokens, end)
        (ics,), (prior,) = inverse.scores(stage.model, [words], [constraints])
        gains.append(ics - prior)
        for given in (len(words), 1):  # the prior is the same given one token
            flops += forward_flops(stage.model.config, given + length, given, length)
            flops += forward_flops(inverse.config, given + length, given, 0)
    return gains, flops


def chosen_by_vote(samples: list[dict], rule: Rule, filtered: bool) -> dict | None:
    """The sample that the vote chooses (think.vote); None where no sample has an answer."""
    votes = []
    for s in samples:
        key = rule.key(s["answer"]) if s["answer"] else ""
        votes.append(Vote(key, s["right"], 0.0, s.get("gain", 0.0), -s["log_prob"]))
    winner = vote(votes)["ICS-filtered" if filtered else "majority"]
    return next((s for s, v in zip(samples, votes, strict=True) if v is winner), None)


def generation_rows(
    stage: Stage,
    p: Protocol,
    a: Benchmarks,
    asked: list[Asked],
    *,
    heads: ThinkingHeads | None = None,
) -> list[dict]:
    """Rows of questions whose answer is read from what the model writes."""
    rule = OWN_MATH if p.rule == "math" and a.grader == "own" else RULES[p.rule]
    config = stage.model.config
    rows = []
    texts = written_answers(stage, p, a, asked)
    for (number, question, prompt), answers in zip(asked, texts, strict=True):
        flops = forward_flops(config, len(prompt), len(prompt) / 2, 1)  # read once for all samples
        samples = []
        for answer in answers:
            said = rule.read(answer.text, question)
            sample = dict(text=answer.text, answer=said, right=rule.right(said, question))
            if rule.second:
                sample["second"] = rule.second(answer.text, question)
            length = len(answer.tokens)
            mean = sum(answer.log_probs) / max(length, 1)
            samples.append(sample | dict(ended=answer.ended, tokens=length, log_prob=mean))
            flops += forward_flops(config, length, len(prompt) + length / 2, length)
        if heads:
            gains, more = gains_of(stage, heads, question, answers)
            samples = [s | dict(gain=gain) for s, gain in zip(samples, gains, strict=True)]
            flops += more
        chosen = samples[0]
        if a.mode != "fast":
            chosen = chosen_by_vote(samples, rule, filtered=a.mode == "think")
        if chosen is None:  # no sample has an answer
            chosen = samples[0] | dict(right=False)
        written = sum(s["tokens"] for s in samples)
        row = question_row(number, question, len(prompt), written=written, flops=flops)
        row |= {key: chosen[key] for key in ("answer", "right", "second") if key in chosen}
        rows.append(row | dict(samples=samples))
    return rows


# --------------------------------------------------------------------------------------------------
# A benchmark.


def numbers_of(name: str, group: str, groups: dict[int, str], a: Benchmarks) -> list[int]:
    """The numbers of a benchmark's items, or of one group's, in the order of asking.

    `groups` has each item's group by its number. Raises UserError where there is no such group.
    """
    known = set(groups.values())
    if group and known == {""}:
        raise UserError(f"{name} has no groups; leave :{group} out")
    if group and group not in known:
        raise UserError(f"{name} has no {group}; {settings.nearest(group, sorted(known))}")
    numbers = [number for number, own in groups.items() if group in ("", own)]
    random.Random(a.seed).shuffle(numbers)
    return numbers[: a.limit or None]


def check_examples(name: str, p: Protocol, found: Questions) -> None:
    """Raise UserError where the protocol wants more worked examples than there are."""
    fewest = min(len(found.examples_for(question)) for question in found.tested)
    if fewest < p.shots:
        raise UserError(
            f"{name} wants {p.shots} worked examples before each question, and its folder has "
            f"{fewest} for some; add the file (docs/EVALUATION.md), or --shots {fewest}"
        )


class AskedBenchmark:
    """A benchmark's questions, as the command line wants them asked. Raises UserError where it
    contradicts itself, and for files that are missing, of another form, or without a grader.
    """

    def __init__(self, task: str, a: Benchmarks):
        self.settings = a
        self.name, _, group = task.partition(":")
        self.protocol = resolved(self.name, a)
        self.how = way_of(self.protocol, a)
        self.found = LOADERS[self.name](benchmark_folder(a.data))
        if not self.found.tested:
            file = self.found.files[0]
            raise UserError(f"{file} holds no question; take the file as it is published")
        groups = {number: question.group for number, question in enumerate(self.found.tested)}
        self.numbers = numbers_of(self.name, group, groups, a)
        check_examples(self.name, self.protocol, self.found)
        if self.protocol.rule == "math" and a.grader == "math-verify":
            math_verified("1", "1")
        self.at_once = a.batch if a.mode == "fast" else max(1, a.batch // a.votes)

    def made_from(self, stage: Stage) -> dict:
        """What a row depends on."""
        a, p = self.settings, self.protocol
        made_from = dict(
            version=ANSWERS_VERSION,
            files=provenance.digest(*self.found.files),
            stage=stage.weights,
            protocol=asdict(p),
            seed=a.seed,
        )
        if p.scoring == "generation" and p.rule != "math":
            made_from["rule"] = RULES_VERSION
        if p.shots:
            examples = repr(sorted(self.found.examples.items())).encode()
            made_from["examples"] = hashlib.sha256(examples).hexdigest()[:16]
        if a.mode != "fast":
            made_from |= dict(mode=a.mode, votes=a.votes, temperature=a.temperature)
        if p.rule == "math":
            made_from["grader"] = a.grader
        return made_from

    def prompt(self, stage: Stage, number: int) -> list[int]:
        question = self.found.tested[number]
        examples = self.found.examples_for(question)[: self.protocol.shots]
        context = stage.model.config.context
        return prompt_of_question(question, examples, self.protocol, stage.tokenizer, context)

    def measure(self, stage: Stage, heads: ThinkingHeads | None, numbers: list[int]) -> list[dict]:
        """The rows of the questions of these numbers."""
        context = stage.model.config.context
        asked = [Asked(n, self.found.tested[n], self.prompt(stage, n)) for n in numbers]
        fitting = [one for one in asked if len(one.prompt) < context]
        rows = []
        if fitting and self.protocol.scoring == "generation":
            rows = generation_rows(stage, self.protocol, self.settings, fitting, heads=heads)
        elif fitting:
            rows = likelihood_rows(stage, self.protocol, fitting)
        for number, question, prompt in asked:
            if len(prompt) >= context:
                rows.append(too_long_row(number, question, len(prompt)))
        return rows

    def described(self, stage: Stage) -> dict:
        """What a result says beside its figures: the protocol, and the first question's prompt."""
        first = stage.tokenizer.decode(self.prompt(stage, self.numbers[0]))
        return dict(protocol=asdict(self.protocol), first_prompt=first)
