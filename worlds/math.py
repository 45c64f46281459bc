"""Math world: word problems of several steps with an explicit list of constraints and traps (paper sections 5.3, 6.3, 6.4).

    "kemi has 12 pens. kemi has 5 fewer than luna. pano has 2 times as many as luna. How many has pano?"

No tools: the plan *is* the solution, one computation a line, each line naming the lines it needs; the answer is an integer. A trap is a
sentence whose first reading gives a wrong number ("kemi has 5 fewer than luna" read as luna = kemi - 5, boxes rounded down). Who falls
for it falls for the same number, so a majority can be wrong: that is where voting and verified voting part (section 6.4, "Is it just
voting?"). `truth["tempting"]` is the number that the first trap leads to.

The constraints (the start, the change of each sentence, who is asked for) are what the inverse-consistency head reconstructs.
"""

import random

from worlds import Difficulty, Step, Task, World, draw_name

THINGS = ("pens", "cups", "eggs", "coins", "nails", "books")
LARGEST = 40  # numbers stay small: the point is reading and order, not arithmetic

RELATIONS = {  # kind: (sentence about a known {a} and a new {b}, what is so, what a hasty reader takes it for)
    "more": ("{b} has {n} more than {a}.", lambda a, n: a + n, None),
    "fewer": ("{b} has {n} fewer than {a}.", lambda a, n: a - n, None),
    "times": ("{b} has {n} times as many as {a}.", lambda a, n: a * n, None),
    "turned more": ("{a} has {n} more than {b}.", lambda a, n: a - n, lambda a, n: a + n),
    "turned fewer": ("{a} has {n} fewer than {b}.", lambda a, n: a + n, lambda a, n: a - n),
    "turned times": ("{a} has {n} times as many as {b}.", lambda a, n: a // n if a % n == 0 else 0, lambda a, n: a * n),
    "boxes": ("{b} is the number of boxes for all of {a}'s, {n} in a box.", lambda a, n: -(-a // n), lambda a, n: a // n),
}
SIGNS = {"more": "+", "fewer": "-", "times": "*", "turned more": "-", "turned fewer": "+", "turned times": "/", "boxes": "/"}


class Math(World):
    faults = ()

    @classmethod
    def sample(cls, rng: random.Random, difficulty: Difficulty) -> Task:
        seed = rng.getrandbits(32)
        rng = random.Random(seed)
        used: set[str] = set()
        while True:                              # until all numbers are in range, the trap tempts to another number, and copying one is no answer
            used.clear()
            people = [draw_name(rng, difficulty.split, used)]
            value = tempting = start = rng.randrange(5, 25)
            thing = rng.choice(THINGS)
            sentences = [f"{people[0]} has {start} {thing}."]
            steps = [Step(f"{people[0]} = {start}", "", None)]
            constraints: dict = {"start": start}
            kinds: list[str] = []
            fell = False                         # into the first trap; a hasty reader is assumed to read the rest well
            for place in range(rng.randint(1, difficulty.chain)):
                kind = rng.choice([kind for kind in RELATIONS if kind != "boxes"]) if place else rng.choice([*RELATIONS])
                sentence, right, hasty = RELATIONS[kind]
                n = rng.randrange(2, 4) if "times" in kind else rng.randrange(2, 10)
                people.append(draw_name(rng, difficulty.split, used))
                sentences.append(sentence.format(a=people[-2], b=people[-1], n=n))
                before, value = value, right(value, n)
                tempting = (hasty if hasty and not fell else right)(tempting, n)
                fell = fell or hasty is not None
                up = " up" if kind == "boxes" and before % n else ""
                steps.append(Step(f"{people[-1]} = {before} {SIGNS[kind]} {n}{up} = {value}", "", None, (len(steps),)))
                constraints |= {f"change {place + 1}": n, f"kind {place + 1}": kind}
                kinds.append(kind)
            numbers = [int(step.goal.split(" = ")[-1]) for step in steps]
            said = {start, *(constraints[f"change {place + 1}"] for place in range(len(kinds)))}
            if all(0 < number <= LARGEST for number in numbers) and (not fell or tempting != value) and value not in said:
                break
        for _ in range(difficulty.distractors):
            sentences.insert(rng.randrange(1, len(sentences) + 1), f"{draw_name(rng, difficulty.split, used)} has {rng.randrange(5, 25)} {thing}.")
        asked = f"What is {people[-1]}?" if kinds[-1] == "boxes" else f"How many has {people[-1]}?"
        return Task("math", "trap" if fell else "plain", seed, " ".join([*sentences, asked]), [], steps, f"answer: {value}",
                    {**constraints, "asked": people[-1]}, truth={"tempting": tempting if fell else None}, difficulty=difficulty)

    def step(self, call: dict) -> str:
        return "error: there are no tools here; work it out"
