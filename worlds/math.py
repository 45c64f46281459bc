"""Math world: word problems of several steps with an explicit list of constraints and traps (paper
sections 5.3, 6.3, 6.4).

    "kemi has 12 pens. kemi has 5 fewer than luna. pano has 2 times as many as luna. How many has
    pano?"

No tools: the plan *is* the solution, one computation per line, each line naming the lines it needs;
the answer is an integer. A trap is a sentence whose first reading gives a wrong number ("kemi has 5
fewer than luna" read as luna = kemi - 5, boxes rounded down). Everybody who falls for it arrives at
the same number, so a majority can be wrong: that is where voting and verified voting part (section
6.4, "Is it just voting?"). `truth["tempting"]` is the number that the first trap leads to.

The constraints are the request's own sentences, each under the line that it gives rise to, and who
is asked for: what the inverse-consistency head tells again from the lines. "luna = 12 - 5" tells of
another sentence than "luna = 12 + 5" does, whether or not anybody knows which one is right.
"""

from worlds.base import SolutionStep, Task, World
from worlds.difficulty import Difficulty
from worlds.drawing import Drawing
from worlds.splits import Wordings

THINGS = {  # by Difficulty's `names`; "books" is a table's name in English (worlds/english.py)
    "invented": ("pens", "cups", "eggs", "coins", "nails", "books"),
    "english": ("pens", "cups", "eggs", "coins", "nails", "marbles"),
}
LARGEST_COUNT = 40  # numbers stay small: the point is reading and order, not arithmetic

HAVING_HELD_OUT = (  # somebody's number, in validation's words and in test's
    (
        "{a} holds {n} {thing}.",
        "{a} keeps {n} {thing}.",
        "{a} counts {n} {thing}.",
        "There are {n} {thing} kept with {a}.",
        "With {a} are {n} {thing}.",
        "{a} was left {n} {thing}.",
    ),
    (
        "{a} owns {n} {thing}.",
        "{a} got {n} {thing}.",
        "{a} brings {n} {thing}.",
        "There are {n} {thing} stored with {a}.",
        "{a}'s are {n} {thing}.",
        "{a} arrives with {n} {thing}.",
    ),
)
HAVING_PARTS = (("{a}", "{n} {thing}"),)
# Of a relation: {b} follows from {a}. What is held out says it with a known word (more, fewer,
# times, boxes) in another sentence: a model that has read little else cannot know a synonym.
WORDINGS = {
    "start": Wordings(
        ("{a} has {n} {thing}.", "There are {n} {thing} with {a}."), *HAVING_HELD_OUT, HAVING_PARTS
    ),
    "more": Wordings(
        ("{b} has {n} more than {a}.", "With {n} more than {a} comes {b}."),
        (
            "{b} holds {n} more than {a}.",
            "{b} keeps {n} more than {a}.",
            "{b} counts {n} more than {a}.",
            "There are {n} more with {b} than with {a}.",
            "With {b} are {n} more than with {a}.",
            "{b} holds as many as {a} and {n} more.",
        ),
        (
            "{b} owns {n} more than {a}.",
            "{b} got {n} more than {a}.",
            "{b} brings {n} more than {a}.",
            "There are {n} more stored with {b} than with {a}.",
            "{b}'s are {n} more than {a}'s.",
            "{b} owns what {a} owns and {n} more.",
        ),
        (("{b}", "{n} more", "than {a}"),),
    ),
    "fewer": Wordings(
        ("{b} has {n} fewer than {a}.", "With {n} fewer than {a} comes {b}."),
        (
            "{b} holds {n} fewer than {a}.",
            "{b} keeps {n} fewer than {a}.",
            "{b} counts {n} fewer than {a}.",
            "There are {n} fewer with {b} than with {a}.",
            "With {b} are {n} fewer than with {a}.",
            "{b} holds as many as {a} but {n} fewer.",
        ),
        (
            "{b} owns {n} fewer than {a}.",
            "{b} got {n} fewer than {a}.",
            "{b} brings {n} fewer than {a}.",
            "There are {n} fewer stored with {b} than with {a}.",
            "{b}'s are {n} fewer than {a}'s.",
            "{b} owns what {a} owns but {n} fewer.",
        ),
        (("{b}", "{n} fewer", "than {a}"),),
    ),
    "times": Wordings(
        ("{b} has {n} times as many as {a}.", "With {n} times as many as {a} comes {b}."),
        (
            "{b} holds {n} times as many as {a}.",
            "{b} keeps {n} times as many as {a}.",
            "{b} counts {n} times as many as {a}.",
            "There are {n} times as many with {b} as with {a}.",
            "With {b} are {n} times as many as with {a}.",
            "{b} holds as many as {a}, {n} times.",
        ),
        (
            "{b} owns {n} times as many as {a}.",
            "{b} got {n} times as many as {a}.",
            "{b} brings {n} times as many as {a}.",
            "There are {n} times as many stored with {b} as with {a}.",
            "{b}'s are {n} times as many as {a}'s.",
            "{b} owns what {a} owns, {n} times.",
        ),
        (("{b}", "{n} times as many", "as {a}"),),
    ),
    "boxes": Wordings(
        (
            "{b} is the number of boxes for all of {a}'s, {n} in a box.",
            "All of {a}'s go into boxes of {n}, {b} is the number of boxes.",
        ),
        (
            "{b} boxes hold all of {a}'s, {n} in each.",
            "{b} boxes of {n} hold all that {a} keeps.",
            "With {n} in a box, {b} boxes hold all of {a}'s.",
            "{b} counts the boxes of {n} for all of {a}'s.",
            "For all of {a}'s there are {b} boxes of {n}.",
            "{b} is how many boxes of {n} hold all of {a}'s.",
        ),
        (
            "{a}'s get packed in lots of {n}, taking {b} boxes.",
            "All of {a}'s get packed into boxes of {n}, {b} in number.",
            "{b} boxes store all of {a}'s, {n} in one.",
            "{b} stands for the number of boxes of {n} that store {a}'s.",
            "Packing all of {a}'s takes {b} boxes of {n}.",
            "{a}'s are stored in boxes, {n} in one, {b} boxes.",
        ),
        (("{b}", "boxes", "{a}'s", "{n} in a box"), ("{a}'s", "boxes of {n}", "{b}")),
    ),
    "noise": Wordings(("{a} has {n} {thing}.",), *HAVING_HELD_OUT, HAVING_PARTS),
    "ask": Wordings(
        ("How many has {a}?", "What is the number of {a}?", "Say how many {a} has."),
        (
            "{a} holds how many?",
            "Count what {a} keeps.",
            "Count how many {a} holds.",
            "How many are with {a}?",
            "How many are kept with {a}?",
            "How many {a} holds, say.",
        ),
        (
            "How many are {a}'s?",
            "{a} owns how many?",
            "State how many {a} owns.",
            "{a} got how many?",
            "What is the number that {a} brings?",
            "What number are {a}'s?",
        ),
        (("how many", "{a}"), ("number", "{a}")),
    ),
    "ask boxes": Wordings(
        ("What is {a}?", "Say what {a} is."),
        (
            "{a} is how many?",
            "How many is {a}?",
            "Count how many {a} is.",
            "{a} counts how many?",
            "How many boxes is {a}?",
            "What does {a} count?",
        ),
        (
            "State {a}.",
            "State what {a} is.",
            "{a} is what number?",
            "{a} stands for what number?",
            "{a} stands for how many?",
            "What does {a} stand for?",
        ),
        (("{a}",),),
    ),
}
# How a new number b follows from a known number a, and what a hasty reader takes it for. "turned"
# names the known one first: "{a} has {n} more than {b}."
RELATIONS = {
    "more": (lambda a, n: a + n, None),
    "fewer": (lambda a, n: a - n, None),
    "times": (lambda a, n: a * n, None),
    "turned more": (lambda a, n: a - n, lambda a, n: a + n),
    "turned fewer": (lambda a, n: a + n, lambda a, n: a - n),
    "turned times": (lambda a, n: a // n if a % n == 0 else 0, lambda a, n: a * n),
    "boxes": (lambda a, n: -(-a // n), lambda a, n: a // n),
}
OPERATORS = {
    "more": "+",
    "fewer": "-",
    "times": "*",
    "turned more": "-",
    "turned fewer": "+",
    "turned times": "/",
    "boxes": "/",
}


class Story:
    """A word problem, drawn sentence by sentence."""

    def __init__(self, draw: Drawing):
        self.draw = draw
        draw.used.clear()
        self.people = [draw.name()]
        self.start = draw.rng.randrange(5, 25)
        self.thing = draw.rng.choice(THINGS[draw.difficulty.names])
        self.sentences = [draw.ask("start", a=self.people[0], n=self.start, thing=self.thing)]
        self.value = self.start  # of the last person
        self.tempting = self.start  # the same as a hasty reader has it
        self.trapped = False  # the first trap was passed; a hasty reader reads the rest well
        self.values = [self.start]
        self.kinds: list[str] = []
        self.changes: list[int] = []
        self.steps = [SolutionStep(f"{self.people[0]} = {self.start}", "", None)]
        shortest, longest = draw.difficulty.shortest, draw.difficulty.chain
        for _ in range(draw.rng.randint(shortest, longest)):
            self.add_sentence()

    def add_sentence(self) -> None:
        """One more person, whose number follows from the last one's."""
        rng = self.draw.rng
        kinds = [kind for kind in RELATIONS if kind != "boxes" or not self.kinds]
        kind = rng.choice(kinds)
        n = rng.randrange(2, 4) if "times" in kind else rng.randrange(2, 10)
        self.people.append(self.draw.name())
        known, new = self.people[-2:]
        if kind.startswith("turned"):
            known, new = new, known
        self.sentences.append(self.draw.ask(kind.removeprefix("turned "), a=known, b=new, n=n))

        right, hasty = RELATIONS[kind]
        before = self.value
        self.value = right(before, n)
        if hasty and not self.trapped:
            self.tempting = hasty(self.tempting, n)
            self.trapped = True
        else:
            self.tempting = right(self.tempting, n)
        rounded = " up" if kind == "boxes" else ""  # an exact one would be no trap
        line = f"{self.people[-1]} = {before} {OPERATORS[kind]} {n}{rounded} = {self.value}"
        self.steps.append(SolutionStep(line, "", None, (len(self.steps),)))
        self.values.append(self.value)
        self.kinds.append(kind)
        self.changes.append(n)

    def sound(self) -> bool:
        """Whether all numbers are in range, the trap tempts to another number (to one out of range
        now and then), and no number of the request is the answer.
        """
        in_range = all(0 < value <= LARGEST_COUNT for value in self.values)
        tempts = not self.trapped or self.tempting != self.value
        return in_range and tempts and self.value not in {self.start, *self.changes}

    def add_noise(self) -> None:
        """A sentence about somebody else, anywhere behind the first, without the answer."""
        rng = self.draw.rng
        name = self.draw.name()
        n = rng.choice([number for number in range(5, 25) if number != self.value])
        noise = self.draw.ask("noise", a=name, n=n, thing=self.thing)
        self.sentences.insert(rng.randrange(1, len(self.sentences) + 1), noise)


class Math(World):
    """Word problems; no tools."""

    faults = ()
    wordings = WORDINGS
    why_not_acting = "it has no tools"

    @classmethod
    def sample(cls, seed: int, difficulty: Difficulty) -> Task:
        draw = Drawing("math", seed, difficulty, WORDINGS)
        story = Story(draw)
        while not story.sound():
            story = Story(draw)
        constraints = {
            f"line {number}": sentence.rstrip(".")
            for number, sentence in enumerate(story.sentences, 1)
        }
        for _ in range(difficulty.distractors):
            story.add_noise()

        asked = story.people[-1]
        question = draw.ask("ask boxes" if story.kinds[-1] == "boxes" else "ask", a=asked)
        return Task(
            world="math",
            kind="trap" if story.trapped else "plain",
            seed=seed,
            request=" ".join([*story.sentences, question]),
            tools=[],
            solution=story.steps,
            answer=f"answer: {story.value}",
            constraints={**constraints, "asked": asked},
            truth={"tempting": story.tempting if story.trapped else None},
            difficulty=difficulty,
        )

    def step(self, call: dict) -> str:
        return "error: there are no tools here; work it out"
