"""How each published benchmark is asked and judged: the one place that says so (§6.2, §6.3).

    PROTOCOLS["mmlu"]      the prompt, worked examples before it, how an answer is found, its length
    RULES["choice"]        how an answer is read from a text, and when it is right
    LOADERS["mmlu"]        who reads its files (support/questions.py)

Where the paper says nothing (it names neither prompts nor numbers of examples), a protocol follows
the benchmark's authors, or else says what it does. What differs from the authors' is in
docs/EVALUATION.md.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from config import Benchmarks, UserError
from support import chat_template
from support.graders import (
    boxed,
    gsm8k_answer,
    last_number,
    math_verified,
    normal_math,
    same_math,
    stated_letter,
)
from support.questions import Question, gpqa, gsm8k, math500, mgsm, mmlu, mmlu_pro, mmmlu
from support.tokenizer import Tokenizer


@dataclass(frozen=True)
class Protocol:
    """How a benchmark is asked. In `chat` the question is one turn of a user's in the model's own
    template; `plain` is text, an `opening` and then blocks. Worked examples come before, as turns
    or as blocks; as many as fit into the model's context.

    An answer ends with the model's stop tokens, after `room` tokens, and as plain text also where
    the model goes on to another "Question:".
    """

    rule: str  # of RULES
    scoring: str  # generation, letters or options
    prompt: str  # chat or plain
    shots: int
    room: int
    chat: str
    plain: str = "Question: {question}\nAnswer:"
    opening: str = ""


CHOOSE = (
    "{question}\n\n{options}\n\n"
    "Think step by step. End with a line that says Answer: and the letter of the right option."
)
LISTED = "Question: {question}\n{options}\nAnswer:"
ABOUT = "The following are multiple choice questions (with answers) about {group}.\n\n"

PROTOCOLS = {
    "gsm8k": Protocol(
        rule="gsm8k",
        scoring="generation",
        prompt="chat",
        shots=0,
        room=400,
        chat="{question}\n\nThink step by step. End with a line of #### and the number alone.",
    ),
    "math500": Protocol(
        rule="math",
        scoring="generation",
        prompt="chat",
        shots=0,
        room=1024,
        chat="{question}\n\nThink step by step, and put the final answer into \\boxed{{}}.",
    ),
    # the instruction is English whatever the question's language (EN-CoT of MGSM's authors)
    "mgsm": Protocol(
        rule="number",
        scoring="generation",
        prompt="chat",
        shots=0,
        room=400,
        chat="{question}\n\nThink step by step. End with a line that holds the number alone.",
    ),
    # as its authors do: five examples of the subject, and the likeliest letter
    "mmlu": Protocol(
        rule="choice",
        scoring="letters",
        prompt="plain",
        shots=5,
        room=512,  # by generation
        chat=CHOOSE,
        plain="{question}\n{options}\nAnswer:",
        opening=ABOUT,
    ),
    # its authors' five examples of the subject, worked step by step
    "mmlu_pro": Protocol(
        rule="choice",
        scoring="generation",
        prompt="chat",
        shots=5,
        room=1024,
        chat=CHOOSE,
        plain=LISTED,
        opening=ABOUT,
    ),
    "mmmlu": Protocol(
        rule="choice",
        scoring="generation",
        prompt="chat",
        shots=0,
        room=512,
        chat=CHOOSE,
        plain=LISTED,
    ),
    "gpqa": Protocol(
        rule="choice",
        scoring="generation",
        prompt="chat",
        shots=0,
        room=1024,
        chat=CHOOSE,
        plain=LISTED,
    ),
}
LOADERS = dict(
    gsm8k=gsm8k, math500=math500, mgsm=mgsm, mmlu=mmlu, mmlu_pro=mmlu_pro, mmmlu=mmmlu, gpqa=gpqa
)


@dataclass(frozen=True)
class Rule:
    """How an answer is read from a text, and when it is right. `second`, where there is one, is
    another opinion on the text, reported beside it. `key`: answers with one key vote together.
    """

    read: Callable[[str, Question], str]
    right: Callable[[str, Question], bool] = lambda answer, question: answer == question.gold
    second: Callable[[str, Question], bool] | None = None
    key: Callable[[str], str] = str


RULES = {
    # second: lm-eval's "flexible", which does not ask for the ####
    "gsm8k": Rule(
        read=lambda text, question: gsm8k_answer(text),
        second=lambda text, question: last_number(text) == last_number(question.gold),
    ),
    "number": Rule(read=lambda text, question: last_number(text)),
    "math": Rule(
        read=lambda text, question: boxed(text),
        right=lambda answer, question: math_verified(answer, question.gold),
        second=lambda text, question: same_math(boxed(text), question.gold),
        key=normal_math,
    ),
    "choice": Rule(read=lambda text, question: stated_letter(text, question.letters)),
}
# MATH where math-verify is not asked
OWN_MATH = replace(
    RULES["math"], right=lambda answer, question: same_math(answer, question.gold), second=None
)


def resolved(name: str, a: Benchmarks) -> Protocol:
    """A benchmark's protocol with what the command line changes. Raises UserError."""
    p = PROTOCOLS[name]
    scoring = a.scoring or ("generation" if a.mode != "fast" else p.scoring)
    if scoring != "generation":
        if p.rule != "choice":
            raise UserError(f"{name} has no options to choose from; leave --scoring {scoring} out")
        if a.mode != "fast":
            raise UserError(
                f"--mode {a.mode} counts sampled answers, and likelihoods are always the same; "
                f"take --scoring generation, or --mode fast"
            )
        if a.prompt == "chat":
            raise UserError(f"--scoring {scoring} continues a text; leave --prompt chat out")
    prompt, shots = p.prompt, p.shots
    if scoring != p.scoring:  # the benchmark's examples belong to its own way
        prompt, shots = ("chat" if scoring == "generation" else "plain"), 0
    return replace(
        p,
        scoring=scoring,
        prompt=a.prompt or prompt,
        shots=shots if a.shots < 0 else a.shots,
        room=a.room or p.room,
    )


def way_of(p: Protocol, a: Benchmarks) -> str:
    """How answers are found, in a word: "letters", "vote@32"."""
    return p.scoring if a.mode == "fast" else f"{a.mode}@{a.votes}"


# --------------------------------------------------------------------------------------------------
# Prompts.


def fill_in(template: str, question: Question) -> str:
    """A template with a question in it."""
    listed = zip(question.letters, question.options)
    options = "\n".join(f"{letter}. {option}" for letter, option in listed)
    group = question.group.replace("_", " ")
    return template.format(question=question.text, options=options, group=group)


def worked(question: Question, p: Protocol) -> str:
    """What stands behind an example's question: how it is solved, or its answer alone."""
    if p.scoring == "options":
        return question.options[question.letters.index(question.gold)]
    if p.scoring == "letters":
        return question.gold
    end = f"Answer: {question.gold}" if p.prompt == "chat" else question.gold
    return question.solution or end


def prompt_text(question: Question, examples: list[Question], p: Protocol) -> str:
    """The prompt in the plain form."""
    template = "Question: {question}\nAnswer:" if p.scoring == "options" else p.plain
    blocks = [f"{fill_in(template, shot)} {worked(shot, p)}\n\n" for shot in examples]
    return fill_in(p.opening, question) + "".join(blocks) + fill_in(template, question)


def prompt_of_question(
    question: Question, examples: list[Question], p: Protocol, tokenizer: Tokenizer, context: int
) -> list[int]:
    """The prompt's tokens, with as many of the examples as leave room in a model's context for what
    is read behind it: an answer, a letter, or the longest option.
    """
    room = dict(generation=p.room, letters=1)
    options = max((len(tokenizer.encode(option)) for option in question.options), default=0)
    room["options"] = options + 1  # and the space before it
    for count in range(len(examples), -1, -1):
        shots = examples[:count]
        if p.prompt == "chat":
            messages = []
            for shot in shots:
                messages.append(dict(role="user", content=fill_in(p.chat, shot)))
                messages.append(dict(role="assistant", content=worked(shot, p)))
            messages.append(dict(role="user", content=fill_in(p.chat, question)))
            tokens = chat_template.prompt_tokens(tokenizer, messages)
        else:
            tokens = [*tokenizer.start, *tokenizer.encode(prompt_text(question, shots, p))]
        if len(tokens) + room[p.scoring] <= context:
            break
    return tokens
