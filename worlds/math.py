"""Math world: word problems of several steps with an explicit list of constraints and traps (paper
sections 5.3, 6.3, 6.4).

    "kemi has 12 pens. kemi has 5 fewer than luna. pano has 2 times as many as luna. How many has
    pano?"

No tools: the plan *is* the solution, one computation a line, each line naming the lines it needs;
the answer is an integer. A trap is a
sentence whose first reading gives a wrong number ("kemi has 5 fewer than luna" read as luna = kemi
- 5, boxes rounded down). Who falls
for it falls for the same number, so a majority can be wrong: that is where voting and verified
voting part (section 6.4, "Is it just
voting?"). `truth["tempting"]` is the number that the first trap leads to.

The constraints (the start, the change of each sentence, who is asked for) are what the
inverse-consistency head reconstructs.
"""

import random

from worlds.base import Difficulty, Step, Task, Wordings, World, draw_name

THINGS = ("pens", "cups", "eggs", "coins", "nails", "books")
LARGEST = 40  # numbers stay small: the point is reading and order, not arithmetic

WORDINGS = {  # of a relation: {b} is told by {a}
    "start": Wordings(
        ("{a} has {n} {thing}.", "There are {n} {thing} with {a}."),
        ("{a} holds {n} {thing}.",),
        ("{a} owns {n} {thing}.",),
    ),
    "more": Wordings(
        ("{b} has {n} more than {a}.", "With {n} more than {a} comes {b}."),
        ("{b} holds {n} more than {a}.",),
        ("{b} owns {n} more than {a}.",),
    ),
    "fewer": Wordings(
        ("{b} has {n} fewer than {a}.", "With {n} fewer than {a} comes {b}."),
        ("{b} holds {n} fewer than {a}.",),
        ("{b} owns {n} fewer than {a}.",),
    ),
    "times": Wordings(
        ("{b} has {n} times as many as {a}.", "With {n} times as many as {a} comes {b}."),
        ("{b} holds {n} times as many as {a}.",),
        ("{b} owns {n} times as many as {a}.",),
    ),
    "boxes": Wordings(
        (
            "{b} is the number of boxes for all of {a}'s, {n} in a box.",
            "All of {a}'s go into boxes of {n}, {b} is the number of boxes.",
        ),
        ("{b} boxes hold all of {a}'s, {n} in each.",),
        ("{a}'s get packed in lots of {n}, taking {b} boxes.",),
    ),
    "noise": Wordings(
        ("{a} has {n} {thing}.",), ("{a} holds {n} {thing}.",), ("{a} owns {n} {thing}.",)
    ),
    "ask": Wordings(
        ("How many has {a}?", "What is the number of {a}?", "Say how many {a} has."),
        ("{a} holds how many?",),
        ("How many are {a}'s?",),
    ),
    "ask boxes": Wordings(
        ("What is {a}?", "Say what {a} is."), ("{a} is how many?",), ("State {a}.",)
    ),
}
# kind: what is so of a known a and a new b, and what a hasty reader takes it for; "turned" names
# the known one first: "{a} has {n} more than {b}."
RELATIONS = {
    "more": (lambda a, n: a + n, None),
    "fewer": (lambda a, n: a - n, None),
    "times": (lambda a, n: a * n, None),
    "turned more": (lambda a, n: a - n, lambda a, n: a + n),
    "turned fewer": (lambda a, n: a + n, lambda a, n: a - n),
    "turned times": (lambda a, n: a // n if a % n == 0 else 0, lambda a, n: a * n),
    "boxes": (lambda a, n: -(-a // n), lambda a, n: a // n),
}
SIGNS = {
    "more": "+",
    "fewer": "-",
    "times": "*",
    "turned more": "-",
    "turned fewer": "+",
    "turned times": "/",
    "boxes": "/",
}


class Math(World):
    faults = ()
    wordings = WORDINGS

    @classmethod
    def sample(cls, seed: int, difficulty: Difficulty) -> Task:
        rng, wording = random.Random(f"math {seed}"), random.Random(f"words {seed}")
        used: set[str] = set()

        def ask(what: str, **slots) -> str:
            return WORDINGS[what].draw(wording, difficulty.words, **slots)

        # until all numbers are in range, the trap tempts to another number, and copying one is no
        # answer
        while True:
            used.clear()
            people = [draw_name(rng, difficulty.split, used)]
            value = tempting = start = rng.randrange(5, 25)
            thing = rng.choice(THINGS)
            sentences = [ask("start", a=people[0], n=start, thing=thing)]
            steps = [Step(f"{people[0]} = {start}", "", None)]
            constraints: dict = {"start": start}
            kinds: list[str] = []
            fell = False  # into the first trap; a hasty reader is assumed to read the rest well
            for place in range(rng.randint(1, difficulty.chain)):
                kind = (
                    rng.choice([kind for kind in RELATIONS if kind != "boxes"])
                    if place
                    else rng.choice([*RELATIONS])
                )
                right, hasty = RELATIONS[kind]
                n = rng.randrange(2, 4) if "times" in kind else rng.randrange(2, 10)
                people.append(draw_name(rng, difficulty.split, used))
                other, haver = people[-2:]
                if kind.startswith("turned"):
                    other, haver = haver, other
                sentences.append(ask(kind.removeprefix("turned "), a=other, b=haver, n=n))
                before, value = value, right(value, n)
                tempting = (hasty if hasty and not fell else right)(tempting, n)
                fell = fell or hasty is not None
                up = " up" if kind == "boxes" and before % n else ""
                steps.append(
                    Step(
                        f"{people[-1]} = {before} {SIGNS[kind]} {n}{up} = {value}",
                        "",
                        None,
                        (len(steps),),
                    )
                )
                constraints |= {f"change {place + 1}": n, f"kind {place + 1}": kind}
                kinds.append(kind)
            numbers = [int(step.goal.split(" = ")[-1]) for step in steps]
            said = {start, *(constraints[f"change {place + 1}"] for place in range(len(kinds)))}
            if (
                all(0 < number <= LARGEST for number in numbers)
                and (not fell or tempting != value)
                and value not in said
            ):
                break
        for _ in range(difficulty.distractors):
            noise = ask(
                "noise",
                a=draw_name(rng, difficulty.split, used),
                n=rng.randrange(5, 25),
                thing=thing,
            )
            sentences.insert(rng.randrange(1, len(sentences) + 1), noise)
        asked = ask("ask boxes" if kinds[-1] == "boxes" else "ask", a=people[-1])
        return Task(
            "math",
            "trap" if fell else "plain",
            seed,
            " ".join([*sentences, asked]),
            [],
            steps,
            f"answer: {value}",
            {**constraints, "asked": people[-1]},
            truth={"tempting": tempting if fell else None},
            difficulty=difficulty,
        )

    def step(self, call: dict) -> str:
        return "error: there are no tools here; work it out"
