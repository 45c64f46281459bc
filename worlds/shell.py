"""Shell world: a small file tree, a request, and one tool, bash (paper section 6, "OS"; section
7.1, yesterday's PDF files).

    "It is 2021-03-15. Move the pdf files of yesterday from kemi to luno."
        bash: mkdir -p luno && find kemi -name '*.pdf' -newermt 2021-03-14 ! -newermt 2021-03-15
        -exec mv -t luno {} +
    "Which file of kemi says mero? Move it to luno."
        bash: grep -l mero kemi/*        kemi/raba.log
        bash: mkdir -p luno && mv kemi/raba.log luno

Judged by the answer, or by the whole tree afterwards against one that the generator worked out in
Python, not by running the solution.

The commands run in real bash in a sandbox (worlds/sandbox.py); without bubblewrap there is no shell
world. Every tree is dated years ago and a request that needs a day names it, so that results do not
depend on when they are asked for. That makes the paper's case come true by itself: `-mtime 1`
counts from the machine's clock, and finds nothing.
"""

import json
import random
import shlex
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone

from worlds.tools import tool
from worlds.base import UNSUITED, Difficulty, Step, Task, Wordings, World, draw_name
from worlds.sandbox import File, Limits, Sandbox, SandboxDied, Tree

BASH = tool("bash", "runs a command", {"command": {"type": "string"}})
KINDS = ("txt", "log", "pdf", "csv", "tmp")
MOST_TEXT = 600  # characters of output that the agent sees
LIMITS = Limits(wall=1.5, cpu=1)  # a command of these tasks takes milliseconds
MOST_IDLE = 4  # sandboxes kept for the next episode, per thread

WORDINGS = {
    "count": Wordings(
        (
            "How many {kind} files are in {a}?",
            "Count the {kind} files of {a}.",
            "What is the number of {kind} files in {a}?",
            "Say how many {kind} files {a} has.",
        ),
        ("{a} holds how many {kind} files?", "Number of {kind} files under {a}?"),
        ("Tally the {kind} files inside {a}.", "Report {a}'s count of {kind} files."),
    ),
    "lines": Wordings(
        (
            "How many lines has {path}?",
            "Count the lines of {path}.",
            "What is the number of lines in {path}?",
            "Say how many lines {path} has.",
        ),
        ("{path} holds how many lines?",),
        ("Tally the lines inside {path}.", "How long is {path}, in lines?"),
    ),
    "matching": Wordings(
        (
            "How many lines of {path} say {word}?",
            "Count {word} in {path}.",
            "In how many lines of {path} is {word}?",
            "Say how many lines of {path} have {word}.",
        ),
        ("{word} stands in how many lines of {path}?",),
        ("Tally the lines mentioning {word} inside {path}.",),
    ),
    "move": Wordings(
        (
            "Move the {kind} files from {a} to {b}.",
            "All {kind} files of {a} belong to {b}, move them.",
            "Put the {kind} files of {a} into {b}.",
            "{b} is to get the {kind} files of {a}, move them.",
        ),
        ("Take all {kind} files out of {a}, into {b}.", "The {kind} files go from {a} to {b}."),
        (
            "Transfer {a}'s {kind} files, {b} is their destination.",
            "Relocate each {kind} file: {a} to {b}.",
        ),
    ),
    "copy": Wordings(
        (
            "Copy the {kind} files from {a} to {b}.",
            "{b} needs a copy of the {kind} files of {a}.",
            "Make copies of the {kind} files of {a} in {b}.",
            "All {kind} files of {a}, copy them to {b}.",
        ),
        ("{b} gets the {kind} files too that {a} has.",),
        (
            "Duplicate {a}'s {kind} files, {b} is their destination.",
            "Back up each {kind} file of {a} inside {b}.",
        ),
    ),
    "delete": Wordings(
        (
            "Delete the {kind} files of {a}.",
            "Remove all {kind} files from {a}.",
            "The {kind} files in {a}, delete them.",
            "Clear {a} of its {kind} files.",
        ),
        ("Get rid of the {kind} files under {a}.", "No {kind} files are to stay in {a}."),
        ("Erase each {kind} file inside {a}.", "Discard {a}'s {kind} files."),
    ),
    "yesterday": Wordings(
        (
            "It is {today}. Move the {kind} files of yesterday from {a} to {b}.",
            "It is {today}. All {kind} files of {a} of yesterday belong to {b}, move them.",
            "Today is {today}. Put the {kind} files of yesterday from {a} into {b}.",
        ),
        ("It is {today}. Take the {kind} files of yesterday out of {a}, into {b}.",),
        ("Date: {today}. Transfer {a}'s {kind} files of yesterday, {b} is their destination.",),
    ),
    "archive": Wordings(
        (
            "Pack {a} into {b}.tar.",
            "Make an archive {b}.tar of {a}.",
            "Put {a} into the archive {b}.tar.",
            "{b}.tar is to be an archive of {a}.",
        ),
        ("Write {a} to a new archive {b}.tar.",),
        ("Bundle {a}, as {b}.tar.", "Create {b}.tar, holding {a}."),
    ),
    "lines of located": Wordings(
        (
            "How many lines has the file of {a} that says {word}?",
            "Count the lines of the file of {a} that says {word}.",
            "What is the number of lines of the file in {a} with {word}?",
        ),
        ("The file of {a} where {word} stands has how many lines?",),
        ("Tally the lines of whichever file inside {a} mentions {word}.",),
    ),
    "move located": Wordings(
        (
            "Which file of {a} says {word}? Move it to {b}.",
            "Move the file of {a} that says {word} to {b}.",
            "Put the file of {a} that has {word} into {b}.",
        ),
        ("Take the file where {word} stands out of {a}, into {b}.",),
        ("Relocate whichever file inside {a} mentions {word}: {b} is its destination.",),
    ),
    "delete located": Wordings(
        (
            "Delete the file of {a} that says {word}.",
            "Which file of {a} says {word}? Remove it.",
            "Remove the file of {a} that has {word}.",
        ),
        ("Get rid of the file under {a} where {word} stands.",),
        ("Erase whichever file inside {a} mentions {word}.",),
    ),
    "collected": Wordings(
        (
            "Say how many there are, and pack {b} into {b}.tar.",
            "Then count them, and make an archive {b}.tar of {b}.",
        ),
        ("How many are they? Write {b} to a new archive {b}.tar too.",),
        ("Tally them afterwards, then bundle {b}, as {b}.tar.",),
    ),
    "ask": Wordings(
        (
            "{action} the {kind} files from {a}.",
            "{action} all {kind} files of {a}.",
            "The {kind} files in {a}, {action} them.",
        ),
        ("{action} what {kind} files {a} has.",),
        ("{action} each {kind} file inside {a}.",),
    ),
    "unsuited": UNSUITED,
    "noise": Wordings(
        ("{name} has {n} files.", "There are {n} files in {name}."),
        ("{name} holds {n} files.",),
        ("{n} files fill {name}.",),
    ),
}


# -----------------------------------------------------------------------------------------------------
# the tree


@dataclass
class Ground:
    """What a task is drawn from: a folder with files of two kinds, a target, a word that some lines
    have, and a day.
    """

    rng: random.Random
    name: Callable[[], str]
    ask: Callable[..., str]  # (what, **slots): a request in the task's wording
    files: dict[str, tuple[str, int]]  # path -> (text, days before today)
    source: str
    target: str
    kind: str  # the kind of file asked for ...
    other: str  # ... and another that is there too
    word: str
    today: date

    def of_kind(self, kind: str) -> list[str]:
        return [
            path
            for path in self.files
            if path.startswith(self.source + "/") and path.endswith("." + kind)
        ]

    def moved(self, paths: list[str], keep: bool = False) -> dict[str, str]:
        """The tree's texts after these files have gone to the target, or were copied there."""
        texts = {path: text for path, (text, _) in self.files.items() if keep or path not in paths}
        return texts | {
            f"{self.target}/{path.split('/')[-1]}": self.files[path][0] for path in paths
        }


def draw_ground(rng: random.Random, wording: random.Random, difficulty: Difficulty) -> Ground:
    """A folder with two or three files of the kind asked for and as many others; decoys are files
    of a second folder with the same kinds.
    """
    used: set[str] = set()

    def name() -> str:
        return draw_name(rng, difficulty.split, used)

    def ask(what: str, **slots) -> str:
        return WORDINGS[what].draw(wording, difficulty.words, **slots)

    source, target, word = name(), name(), name()
    kind, other = rng.sample(KINDS, 2)
    today = date(2021, 1, 10) + timedelta(days=rng.randrange(1000))
    ages = rng.sample((0, 1, 2, 9), 4)  # the kind asked for has every age as often as the others
    files = {}
    found = rng.randint(2, 4)
    for place in range(found + rng.randint(1, 3)):
        files[f"{source}/{name()}.{kind if place < found else other}"] = "", ages[place % 4]
    if difficulty.decoys:
        aside = name()
        for _ in range(difficulty.decoys):
            files[f"{aside}/{name()}.{rng.choice((kind, other))}"] = "", rng.choice(ages)
    for (
        path,
        (_, age),
    ) in (
        files.items()
    ):  # two to five lines of names; the word is in none of them until a family puts it there
        files[path] = (
            "".join(f"{name()} {rng.randrange(100)}\n" for _ in range(rng.randint(2, 5))),
            age,
        )
    return Ground(rng, name, ask, files, source, target, kind, other, word, today)


def tree_of(files: dict[str, tuple[str, int]], today: date) -> Tree:
    """The files and their folders with their times: each at an hour of its day that its text
    decides.
    """
    tree: dict[str, File] = {".": File(None)} | {path.split("/")[0]: File(None) for path in files}
    for path, (text, age) in files.items():
        noon = datetime.combine(today - timedelta(days=age), time(12), timezone.utc)
        tree[path] = File(text.encode(), int(noon.timestamp()) + len(text) * 600)
    return tree


# --------------------------------------------------------------------------------------------------
# the families
# Each takes the ground, may change its files, and gives: request, steps, answer, constraints, and
# the texts afterwards (None: as before).

Draft = tuple[str, list[Step], str, dict, dict[str, str] | None]


def bash(command: str) -> dict:
    return {"name": "bash", "arguments": {"command": command}}


def step(
    goal: str,
    thought: str,
    command: str,
    depends_on: tuple[int, ...] = (),
    wrong: tuple[str, ...] = (),
) -> Step:
    return Step(goal, thought, bash(command), depends_on, tuple(bash(line) for line in wrong))


def count(ground: Ground) -> Draft:
    folder, kind = ground.source, ground.kind
    request = ground.ask("count", kind=kind, a=folder)
    steps = [
        step(
            f"count {kind} in {folder}",
            f"find {kind}, count",
            f"find {folder} -name '*.{kind}' | wc -l",
            wrong=(
                f"find . -name '*.{kind}' | wc -l",
                f"find {folder} -name '*.{ground.other}' | wc -l",
                f"ls {folder} | wc -l",
            ),
        )
    ]
    return (
        request,
        steps,
        f"answer: {len(ground.of_kind(kind))}",
        {"action": "count", "from": folder, "kind": kind},
        None,
    )


def lines(ground: Ground) -> Draft:
    path = ground.of_kind(ground.kind)[0]
    number = ground.files[path][0].count("\n")
    request = ground.ask("lines", path=path)
    steps = [
        step(
            f"count lines of {path}",
            "count lines",
            f"wc -l < {path}",
            wrong=(f"wc -c < {path}", f"wc -l < {ground.of_kind(ground.other)[0]}"),
        )
    ]
    return request, steps, f"answer: {number}", {"action": "lines", "from": path}, None


def matching(ground: Ground) -> Draft:
    path, word = ground.of_kind(ground.kind)[0], ground.word
    text, age = ground.files[path]
    rows = [
        f"{word} {row.split()[1]}" if ground.rng.random() < 0.6 or not place else row
        for place, row in enumerate(text.splitlines())
    ]
    ground.files[path] = "\n".join(rows) + "\n", age
    number = sum(word in row for row in rows)
    request = ground.ask("matching", path=path, word=word)
    steps = [
        step(
            f"count {word} in {path}",
            f"grep {word}, count",
            f"grep -c {word} {path}",
            wrong=(f"wc -l < {path}", f"grep -vc {word} {path}"),
        )
    ]
    return (
        request,
        steps,
        f"answer: {number}",
        {"action": "matching", "from": path, "word": word},
        None,
    )


def move(ground: Ground) -> Draft:
    a, b, kind = ground.source, ground.target, ground.kind
    request = ground.ask("move", kind=kind, a=a, b=b)
    steps = [
        step(
            f"move {kind} from {a} to {b}",
            f"make {b}, move {kind}",
            f"mkdir -p {b} && mv {a}/*.{kind} {b}",
            wrong=(
                f"mv {a}/*.{kind} {b}",
                f"mkdir -p {b} && cp {a}/*.{kind} {b}",
                f"mkdir -p {b} && mv {a}/* {b}",
            ),
        )
    ]
    return (
        request,
        steps,
        "done",
        {"action": "move", "from": a, "to": b, "kind": kind},
        ground.moved(ground.of_kind(kind)),
    )


def copy(ground: Ground) -> Draft:
    a, b, kind = ground.source, ground.target, ground.kind
    request = ground.ask("copy", kind=kind, a=a, b=b)
    steps = [
        step(
            f"copy {kind} from {a} to {b}",
            f"make {b}, copy {kind}",
            f"mkdir -p {b} && cp {a}/*.{kind} {b}",
            wrong=(
                f"cp {a}/*.{kind} {b}",
                f"mkdir -p {b} && mv {a}/*.{kind} {b}",
                f"mkdir -p {b} && cp {a}/* {b}",
            ),
        )
    ]
    return (
        request,
        steps,
        "done",
        {"action": "copy", "from": a, "to": b, "kind": kind},
        ground.moved(ground.of_kind(kind), keep=True),
    )


def delete(ground: Ground) -> Draft:
    a, kind = ground.source, ground.kind
    request = ground.ask("delete", kind=kind, a=a)
    steps = [
        step(
            f"delete {kind} in {a}",
            f"remove {kind}",
            f"rm {a}/*.{kind}",
            wrong=(f"rm {a}/*", f"rm -r {a}", f"rm {a}/*.{ground.other}"),
        )
    ]
    gone = ground.of_kind(kind)
    return (
        request,
        steps,
        "done",
        {"action": "delete", "from": a, "kind": kind},
        {p: text for p, (text, _) in ground.files.items() if p not in gone},
    )


def yesterday(ground: Ground) -> Draft:
    a, b, kind = ground.source, ground.target, ground.kind
    path = ground.of_kind(kind)[0]
    ground.files[path] = ground.files[path][0], 1
    today, day = ground.today, ground.today - timedelta(days=1)
    request = ground.ask("yesterday", today=today, kind=kind, a=a, b=b)
    find = f"mkdir -p {b} && find {a} -name '*.{kind}'"
    steps = [
        step(
            f"move {kind} of {day} from {a} to {b}",
            f"yesterday is {day}",
            f"{find} -newermt {day} ! -newermt {today} -exec mv -t {b} {{}} +",
            wrong=(
                f"{find} -mtime 1 -exec mv -t {b} {{}} +",  # the paper's own error
                f"{find} -newermt yesterday -exec mv -t {b} {{}} +",
                f"{find} -newermt {today} -exec mv -t {b} {{}} +",
                f"{find} -newermt {day} -exec mv -t {b} {{}} +",
            ),
        )
    ]
    paths = [path for path in ground.of_kind(kind) if ground.files[path][1] == 1]
    return (
        request,
        steps,
        "done",
        {"action": "move", "from": a, "to": b, "kind": kind, "day": str(day)},
        ground.moved(paths),
    )


def archive(ground: Ground) -> Draft:
    a, b = ground.source, ground.target
    request = ground.ask("archive", a=a, b=b)
    steps = [
        step(
            f"pack {a} into {b}.tar",
            f"tar {a}",
            f"tar -cf {b}.tar {a}",
            wrong=(
                f"tar -cf {a}.tar {a}",
                f"tar -czf {b}.tgz {a}",
                f"tar -cf {b}.tar {a}/*.{ground.kind}",
            ),
        )
    ]
    texts = {path: text for path, (text, _) in ground.files.items()}
    packed = {path: text for path, text in texts.items() if path.startswith(a + "/")}
    return (
        request,
        steps,
        "done",
        {"action": "archive", "from": a, "to": b},
        texts | {f"{b}.tar": json.dumps(packed, sort_keys=True)},
    )


def located(ground: Ground) -> Draft:
    """Two calls: which file says the word, then what to do with that one; a third where the chain
    may be longer.
    """
    a, b, word = ground.source, ground.target, ground.word
    path = ground.rng.choice(ground.of_kind(ground.kind) + ground.of_kind(ground.other))
    text, age = ground.files[path]
    ground.files[path] = f"{word} {ground.rng.randrange(100)}\n" + text, age
    find = step(
        f"which file of {a} says {word}",
        f"grep {word}",
        f"grep -l {word} {a}/*",
        wrong=(f"grep -c {word} {a}/*", f"ls {a}"),
    )
    action = ground.rng.choice(("lines", "move", "delete"))
    if action == "lines":
        request = ground.ask("lines of located", a=a, word=word)
        steps = [find, step("count its lines", path, f"wc -l < {path}", (1,), (f"wc -c < {path}",))]
        return (
            request,
            steps,
            f"answer: {text.count(chr(10)) + 1}",
            {"action": "lines", "from": a, "word": word},
            None,
        )
    if action == "move":
        request = ground.ask("move located", a=a, b=b, word=word)
        steps = [
            find,
            step(
                f"move it to {b}",
                path,
                f"mkdir -p {b} && mv {path} {b}",
                (1,),
                (f"mv {path} {b}", f"mkdir -p {b} && cp {path} {b}"),
            ),
        ]
        return (
            request,
            steps,
            "done",
            {"action": "move", "from": a, "to": b, "word": word},
            ground.moved([path]),
        )
    request = ground.ask("delete located", a=a, word=word)
    steps = [find, step("delete it", path, f"rm {path}", (1,), (f"rm {a}/*",))]
    return (
        request,
        steps,
        "done",
        {"action": "delete", "from": a, "word": word},
        {p: t for p, (t, _) in ground.files.items() if p != path},
    )


def collected(ground: Ground) -> Draft:
    """Three calls: move all of a kind, count them at their new place, pack that place."""
    request, steps, _, constraints, texts = move(ground)
    b, kind = ground.target, ground.kind
    moved = {path: text for path, text in texts.items() if path.startswith(b + "/")}
    steps += [
        step(
            f"count {kind} in {b}",
            "count",
            f"find {b} -name '*.{kind}' | wc -l",
            (1,),
            (f"find . -name '*.{ground.other}' | wc -l",),
        ),
        step(
            f"pack {b} into {b}.tar",
            f"tar {b}",
            f"tar -cf {b}.tar {b}",
            (1,),
            (f"tar -cf {ground.source}.tar {b}",),
        ),
    ]
    return (
        f"{request} {ground.ask('collected', b=b)}",
        steps,
        f"answer: {len(moved)}",
        constraints | {"then": "count, archive"},
        texts | {f"{b}.tar": json.dumps(moved, sort_keys=True)},
    )


FAMILIES = {
    1: (count, lines, matching, move, copy, delete, yesterday, archive),
    2: (located,),
    3: (collected,),
}  # by calls needed


# ------------------------------------------------------------------------------------------------------
# the world


class Shell(World):
    faults = ("timeout", "locked", "renamed", "incomplete", "denied", "expired")
    wordings = WORDINGS

    @classmethod
    def sample(cls, seed: int, difficulty: Difficulty) -> Task:
        rng = random.Random(f"shell {seed}")
        ground = draw_ground(rng, random.Random(f"words {seed}"), difficulty)
        # a quarter of the tasks needs one call more than the rest, as far as the chain may go
        length = 1
        while length < min(difficulty.chain, max(FAMILIES)) and rng.random() < 0.25:
            length += 1
        family = rng.choice(FAMILIES[length])
        request, steps, answer, constraints, texts = family(ground)
        kind = family.__name__
        if rng.random() < difficulty.special:
            texts, steps = None, []
            if rng.random() < 0.5:
                kind, answer = "ask", "ask: folder"
                action = rng.choice(("move", "copy"))
                request = ground.ask("ask", action=action, kind=ground.kind, a=ground.source)
                request = (
                    request[0].upper() + request[1:] if request.startswith(action) else request
                )
                constraints = {
                    "action": action,
                    "from": ground.source,
                    "kind": ground.kind,
                    "missing": "folder",
                }
            else:
                kind, answer = "none", "no tool fits"
                request = ground.ask("unsuited", a=ground.source, b=ground.target)
                constraints = {"action": "none"}
        for _ in range(difficulty.distractors):
            request += " " + ground.ask("noise", name=ground.name(), n=rng.randrange(2, 100))
        decoys = [
            tool(ground.name(), f"gives {ground.name()}", {ground.name(): {"type": "integer"}})
            for _ in range(difficulty.tools - 1)
        ]
        shown = [BASH, *decoys]
        rng.shuffle(shown)
        return Task(
            "shell",
            kind,
            seed,
            request,
            shown,
            steps,
            answer,
            constraints,
            truth={"files": ground.files, "today": ground.today, "texts": texts},
            difficulty=difficulty,
        )

    idle = (
        threading.local()
    )  # .sandboxes: those that may be used again; a sandbox ends with the thread that started it

    def __init__(self, task: Task):
        super().__init__(task)
        self.sandbox: Sandbox | None = None  # opened by the first command: many episodes need none
        known = [call for step in task.solution for call in (step.call, *step.wrong) if call]
        self.written_here = {call["arguments"]["command"] for call in known}
        self.reusable = True

    def open(self) -> Sandbox:
        """This episode's sandbox, filled with the task's tree."""
        if self.sandbox is None:
            tree = tree_of(self.task.truth["files"], self.task.truth["today"])
            while idle := getattr(self.idle, "sandboxes", []):
                self.sandbox = idle.pop()
                try:
                    self.sandbox.refill(tree)
                    return self.sandbox
                except SandboxDied:
                    self.sandbox.close()
            self.sandbox = Sandbox(tree, LIMITS)
        return self.sandbox

    def step(self, call: dict) -> str:
        if call["name"] != "bash":
            return "error: nothing found"
        command = call["arguments"]["command"]
        self.reusable = self.reusable and command in self.written_here
        try:
            result = self.open().run(command)
        except SandboxDied as died:
            return f"error: {died}"
        said = "\n".join(filter(None, (result.output.rstrip("\n"), result.stopped)))
        said = said if len(said) <= MOST_TEXT else said[:MOST_TEXT] + " ..."
        return (
            (said or "ok")
            if result.status == 0
            else f"error: {said or 'no output'} (status {result.status})"
        )

    def verify(self, answer: str) -> bool:
        """By the answer unless it is "done", and by the tree: unchanged where the request asks for
        no change.
        """
        unchanged = {path: text for path, (text, _) in self.task.truth["files"].items()}
        wanted = self.task.truth["texts"] or unchanged
        if self.task.answer != "done" and not super().verify(answer):
            return False
        if self.sandbox is None:  # nothing was run
            return wanted == unchanged
        try:
            texts = texts_of(self.sandbox.tree())
            for path in texts.keys() & wanted.keys():
                if path.endswith(".tar"):
                    texts[path] = self.unpacked(path)
            return texts == wanted
        except SandboxDied:
            return False

    def unpacked(self, path: str) -> str:
        """The texts that an archive holds, as JSON; unpacked inside, since archives are made to
        hurt those who read them.
        """
        place = "/tmp/unpacked"
        result = self.sandbox.run(
            f"rm -rf {place} && mkdir {place} && tar -xf {shlex.quote(path)} -C {place}"
        )
        return (
            json.dumps(texts_of(self.sandbox.tree(place)), sort_keys=True)
            if result.status == 0
            else "no archive"
        )

    def close(self) -> None:
        if self.sandbox is None:
            return
        idle = self.idle.__dict__.setdefault("sandboxes", [])
        if self.reusable and len(idle) < MOST_IDLE:
            idle.append(self.sandbox)
        else:
            self.sandbox.close()
        self.sandbox = None


def texts_of(tree: Tree) -> dict[str, str]:
    """The texts of all files. Empty folders do not count, links count as themselves."""
    texts = {
        path: file.data.decode(errors="replace")
        for path, file in tree.items()
        if file.data is not None
    }
    return texts | {path: file.other for path, file in tree.items() if file.other}
