"""Shell world: a small file tree, a request, and one tool, bash (paper section 6, "OS"; section
7.1, yesterday's PDF files).

    "It is 2021-03-15. Move the pdf files of yesterday from kemi to luno."
        bash: mkdir -p luno && find kemi -name '*.pdf' -newermt 2021-03-14 ! -newermt 2021-03-15
        -exec mv -t luno {} +
    "Which file of kemi says mero? Move it to luno."
        bash: grep -l mero kemi/*        kemi/raba.log
        bash: mkdir -p luno && mv kemi/raba.log luno

Judged by the whole tree afterwards, against one that the generator worked out in Python, not by
running the solution; and by the answer, where one is asked for.

The commands run in real bash in a sandbox (worlds/extras/sandbox.py); without bubblewrap there is
no shell world. Every tree is dated years ago and a request that needs a day names it, so that
results do not depend on when they are asked for. That makes the paper's case come true by itself:
`-mtime 1` counts from the machine's clock, and finds nothing.
"""

import json
import re
import shlex
import threading
from datetime import date, datetime, time, timedelta, timezone

from worlds.base import SolutionStep, Task, World, cut_text
from worlds.difficulty import Difficulty
from worlds.drawing import UNSUITED, Draft, Drawing, Families, draw_chain_length
from worlds.english import FILE_KINDS_IN_ENGLISH, draw_file_name, fill_line
from worlds.extras.sandbox import File, Limits, Sandbox, SandboxDied, Tree, available
from worlds.splits import Wordings
from worlds.tools import make_tool

BASH_TOOLS = {  # by Difficulty's `names`
    "invented": make_tool("bash", "runs a command", {"command": {"type": "string"}}),
    "english": make_tool(
        "bash",
        "Run a bash command in the working directory and return what it prints",
        {"command": {"type": "string", "description": "the command line"}},
    ),
}
FILE_KINDS = {
    "invented": ("txt", "log", "pdf", "csv", "tmp"),
    "english": tuple(FILE_KINDS_IN_ENGLISH),
}
MOST_OUTPUT = 600  # characters that the agent sees
SHELL_LIMITS = Limits(wall=1.5, cpu=1)  # a command of these tasks takes milliseconds
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
        (
            ("how many", "{kind} files", "{a}"),
            ("number", "{kind} files", "{a}"),
            ("count", "{kind} files", "{a}"),
        ),
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
        (("how many lines", "{path}"), ("number", "lines", "{path}"), ("count", "lines", "{path}")),
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
        (("how many lines", "{path}", "{word}"), ("count", "{word}", "{path}")),
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
        (
            ("move", "{kind} files", "from {a}", "to {b}"),
            ("put", "{kind} files", "of {a}", "into {b}"),
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
        (
            ("copy", "{kind} files", "from {a}", "to {b}"),
            ("copy", "{kind} files", "of {a}", "in {b}"),
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
        (("delete", "{kind} files", "{a}"), ("remove", "{kind} files", "{a}")),
    ),
    "yesterday": Wordings(
        (
            "It is {today}. Move the {kind} files of yesterday from {a} to {b}.",
            "It is {today}. All {kind} files of {a} of yesterday belong to {b}, move them.",
            "Today is {today}. Put the {kind} files of yesterday from {a} into {b}.",
        ),
        ("It is {today}. Take the {kind} files of yesterday out of {a}, into {b}.",),
        ("Date: {today}. Transfer {a}'s {kind} files of yesterday, {b} is their destination.",),
        (("is {today}", "move", "{kind} files of yesterday", "from {a}", "to {b}"),),
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
        (("{a}", "{b}.tar"), ("archive {b}.tar", "{a}")),
    ),
    "lines of located": Wordings(
        (
            "How many lines has the file of {a} that says {word}?",
            "Count the lines of the file of {a} that says {word}.",
            "What is the number of lines of the file in {a} with {word}?",
        ),
        ("The file of {a} where {word} stands has how many lines?",),
        ("Tally the lines of whichever file inside {a} mentions {word}.",),
        (
            ("how many lines", "file of {a}", "says {word}"),
            ("count the lines", "file of {a}", "says {word}"),
        ),
    ),
    "move located": Wordings(
        (
            "Which file of {a} says {word}? Move it to {b}.",
            "Move the file of {a} that says {word} to {b}.",
            "Put the file of {a} that has {word} into {b}.",
        ),
        ("Take the file where {word} stands out of {a}, into {b}.",),
        ("Relocate whichever file inside {a} mentions {word}: {b} is its destination.",),
        (
            ("move", "file of {a}", "says {word}", "to {b}"),
            ("put", "file of {a}", "has {word}", "into {b}"),
        ),
    ),
    "delete located": Wordings(
        (
            "Delete the file of {a} that says {word}.",
            "Which file of {a} says {word}? Remove it.",
            "Remove the file of {a} that has {word}.",
        ),
        ("Get rid of the file under {a} where {word} stands.",),
        ("Erase whichever file inside {a} mentions {word}.",),
        (("delete", "file of {a}", "says {word}"), ("remove", "file of {a}", "has {word}")),
    ),
    "collected": Wordings(
        (
            "Say how many there are, and pack {b} into {b}.tar.",
            "Then count them, and make an archive {b}.tar of {b}.",
        ),
        ("How many are they? Write {b} to a new archive {b}.tar too.",),
        ("Tally them afterwards, then bundle {b}, as {b}.tar.",),
        (("how many", "pack {b} into {b}.tar"), ("count", "archive {b}.tar of {b}")),
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
        (("{name}", "{n} files"),),
    ),
}

# ----------------------------------------------------------------------------------------- the tree


class Folder(Drawing):
    """What a task is drawn from: a folder with files of two kinds, a target, a word that some lines
    have, and a day.

    Two to four files are of the kind asked for, one to three of another, or `difficulty.size` times
    as many; decoys are files of a second folder with the same kinds.
    """

    def __init__(self, seed: int, difficulty: Difficulty):
        super().__init__("shell", seed, difficulty, WORDINGS)
        rng = self.rng
        self.source = self.name("folders")
        self.target = self.name("folders")
        self.word = self.name("topics")
        self.kind, self.other = rng.sample(FILE_KINDS[difficulty.names], 2)  # asked for; there too
        self.today = date(2021, 1, 10) + timedelta(days=rng.randrange(1000))

        # paths with their ages; the kind asked for has every age as often as the others
        ages = rng.sample((0, 1, 2, 9), 4)
        self.files: dict[str, tuple[str, int]] = {}  # path → (text, days before today)
        fitting = difficulty.size * rng.randint(2, 4)
        for place in range(fitting + difficulty.size * rng.randint(1, 3)):
            kind = self.kind if place < fitting else self.other
            self.files[f"{self.source}/{self.file_name(kind)}"] = "", ages[place % 4]
        if difficulty.decoys:
            aside = self.name("folders")
            for _ in range(difficulty.decoys):
                age = rng.choice(ages)
                path = f"{aside}/{self.file_name()}"
                self.files[path] = "", age

        # two to five lines; the word is in none of them until a family puts it there
        for path, (_, age) in self.files.items():
            lines = [self.line(path) for _ in range(rng.randint(2, 5))]
            self.files[path] = "".join(lines), age

    def file_name(self, kind: str = "") -> str:
        """A name for a file of a kind; "": of either kind."""
        if self.english:
            kind = kind or self.rng.choice((self.kind, self.other))
            return draw_file_name(self.rng, kind, self.split, self.used)
        return f"{self.name()}.{kind or self.rng.choice((self.kind, self.other))}"

    def line(self, path: str) -> str:
        """A line of a file without the word: a name and a number, or what such a file may say."""
        if not self.english:
            return f"{self.name()} {self.rng.randrange(100)}\n"
        line = self.rng.choice(FILE_KINDS_IN_ENGLISH[path.split(".")[-1]].lines)
        return fill_line(self.rng, line, self.split, self.word) + "\n"

    def mention(self, path: str, number: int) -> str:
        """A line of a file with the word, and a number."""
        if not self.english:
            return f"{self.word} {number}"
        line = FILE_KINDS_IN_ENGLISH[path.split(".")[-1]].mention
        return line.format(word=self.word, n=number, m=number + 1)

    def spoken(self, kind: str) -> str:
        """What files with an extension are called: "PDF" of "the PDF files"."""
        return self.said(kind, FILE_KINDS_IN_ENGLISH[kind].spoken)

    def of_kind(self, kind: str) -> list[str]:
        """The folder's files of a kind."""
        start = f"{self.source}/"
        return [path for path in self.files if path.startswith(start) and path.endswith("." + kind)]

    def texts(self) -> dict[str, str]:
        """Each path's text."""
        return {path: text for path, (text, _) in self.files.items()}

    def without(self, paths: list[str]) -> dict[str, str]:
        """The tree's texts after these files have gone."""
        return {path: text for path, text in self.texts().items() if path not in paths}

    def moved(self, paths: list[str]) -> dict[str, str]:
        """The tree's texts after these files have gone to the target."""
        return self.without(paths) | self._at_target(paths)

    def copied(self, paths: list[str]) -> dict[str, str]:
        """The tree's texts after these files were copied to the target."""
        return self.texts() | self._at_target(paths)

    def _at_target(self, paths: list[str]) -> dict[str, str]:
        return {f"{self.target}/{path.split('/')[-1]}": self.files[path][0] for path in paths}


def tree_of(files: dict[str, tuple[str, int]], today: date) -> Tree:
    """The files and their folders with their times: each at an hour of its day that its text
    decides.
    """
    tree: dict[str, File] = {".": File(None)} | {path.split("/")[0]: File(None) for path in files}
    for path, (text, age) in files.items():
        noon = datetime.combine(today - timedelta(days=age), time(12), timezone.utc)
        tree[path] = File(text.encode(), int(noon.timestamp()) + len(text) % 60 * 600)
    return tree


def texts_of(tree: Tree) -> dict[str, str]:
    """The texts of all files. Empty folders do not count, links count as themselves."""
    texts = {}
    for path, file in tree.items():
        if file.data is not None:
            texts[path] = file.data.decode(errors="replace")
        elif file.other:
            texts[path] = file.other
    return texts


# ------------------------------------------------------------------------------------- the families
# Each drafts a task from the folder, and may change its files first; `after` of a draft is every
# file's text.


def bash_call(command: str) -> dict:
    return {"name": "bash", "arguments": {"command": command}}


def bash_step(
    goal: str,
    thought: str,
    command: str,
    depends_on: tuple[int, ...] = (),
    wrong: tuple[str, ...] = (),
) -> SolutionStep:
    return SolutionStep(goal, thought, bash_call(command), depends_on, tuple(map(bash_call, wrong)))


def count_files(folder: Folder) -> Draft:
    a, kind = folder.source, folder.kind
    spoken = folder.spoken(kind)
    step = bash_step(
        folder.said(f"count {kind} in {a}", f"Count the {spoken} files in {a}"),
        folder.said(f"find {kind}, count", f"Find the *.{kind} files and count them."),
        f"find {a} -name '*.{kind}' | wc -l",
        wrong=(
            f"find . -name '*.{kind}' | wc -l",
            f"find {a} -name '*.{folder.other}' | wc -l",
            f"ls {a} | wc -l",
        ),
    )
    return Draft(
        request=folder.ask("count", kind=spoken, a=a),
        steps=[step],
        answer=f"answer: {len(folder.of_kind(kind))}",
        constraints={"action": "count", "from": a, "kind": kind},
    )


def count_lines(folder: Folder) -> Draft:
    path = folder.of_kind(folder.kind)[0]
    another = folder.of_kind(folder.other)[0]
    text, _ = folder.files[path]
    step = bash_step(
        folder.said(f"count lines of {path}", f"Count the lines of {path}"),
        folder.said("count lines", "wc -l gives the number of lines."),
        f"wc -l < {path}",
        wrong=(f"wc -c < {path}", f"wc -l < {another}"),
    )
    return Draft(
        request=folder.ask("lines", path=path),
        steps=[step],
        answer=f"answer: {text.count(chr(10))}",
        constraints={"action": "lines", "from": path},
    )


def count_matching(folder: Folder) -> Draft:
    path, word = folder.of_kind(folder.kind)[0], folder.word
    text, age = folder.files[path]
    lines = text.splitlines()
    for place, line in enumerate(lines):
        if folder.rng.random() < 0.6 or place == 0:
            number = re.search(r"[0-9]+", line)[0]
            lines[place] = folder.mention(path, int(number))
    folder.files[path] = "\n".join(lines) + "\n", age
    number = sum(word in line for line in lines)
    step = bash_step(
        folder.said(f"count {word} in {path}", f"Count the lines of {path} that mention {word}"),
        folder.said(f"grep {word}, count", "grep -c says how many lines match."),
        f"grep -c {word} {path}",
        wrong=(f"wc -l < {path}", f"grep -vc {word} {path}"),
    )
    return Draft(
        request=folder.ask("matching", path=path, word=word),
        steps=[step],
        answer=f"answer: {number}",
        constraints={"action": "matching", "from": path, "word": word},
    )


def move_files(folder: Folder) -> Draft:
    a, b, kind = folder.source, folder.target, folder.kind
    spoken = folder.spoken(kind)
    step = bash_step(
        folder.said(f"move {kind} from {a} to {b}", f"Move the {spoken} files from {a} to {b}"),
        folder.said(f"make {b}, move {kind}", f"Make sure that {b} is there, then move them."),
        f"mkdir -p {b} && mv {a}/*.{kind} {b}",
        wrong=(
            f"mv {a}/*.{kind} {b}",
            f"mkdir -p {b} && cp {a}/*.{kind} {b}",
            f"mkdir -p {b} && mv {a}/* {b}",
        ),
    )
    return Draft(
        request=folder.ask("move", kind=spoken, a=a, b=b),
        steps=[step],
        answer="done",
        constraints={"action": "move", "from": a, "to": b, "kind": kind},
        after=folder.moved(folder.of_kind(kind)),
    )


def copy_files(folder: Folder) -> Draft:
    a, b, kind = folder.source, folder.target, folder.kind
    spoken = folder.spoken(kind)
    step = bash_step(
        folder.said(f"copy {kind} from {a} to {b}", f"Copy the {spoken} files from {a} to {b}"),
        folder.said(f"make {b}, copy {kind}", f"Make sure that {b} is there, then copy them."),
        f"mkdir -p {b} && cp {a}/*.{kind} {b}",
        wrong=(
            f"cp {a}/*.{kind} {b}",
            f"mkdir -p {b} && mv {a}/*.{kind} {b}",
            f"mkdir -p {b} && cp {a}/* {b}",
        ),
    )
    return Draft(
        request=folder.ask("copy", kind=spoken, a=a, b=b),
        steps=[step],
        answer="done",
        constraints={"action": "copy", "from": a, "to": b, "kind": kind},
        after=folder.copied(folder.of_kind(kind)),
    )


def delete_files(folder: Folder) -> Draft:
    a, kind = folder.source, folder.kind
    spoken = folder.spoken(kind)
    step = bash_step(
        folder.said(f"delete {kind} in {a}", f"Delete the {spoken} files in {a}"),
        folder.said(f"remove {kind}", f"Remove only what ends in .{kind}."),
        f"rm {a}/*.{kind}",
        wrong=(f"rm {a}/*", f"rm -r {a}", f"rm {a}/*.{folder.other}"),
    )
    return Draft(
        request=folder.ask("delete", kind=spoken, a=a),
        steps=[step],
        answer="done",
        constraints={"action": "delete", "from": a, "kind": kind},
        after=folder.without(folder.of_kind(kind)),
    )


def move_yesterdays(folder: Folder) -> Draft:
    """The paper's case (section 7.1): only a range of days finds yesterday's files."""
    a, b, kind = folder.source, folder.target, folder.kind
    spoken = folder.spoken(kind)
    first = folder.of_kind(kind)[0]
    folder.files[first] = folder.files[first][0], 1  # at least one is of yesterday
    today = folder.today
    day = today - timedelta(days=1)
    find = f"mkdir -p {b} && find {a} -name '*.{kind}'"
    move = f"-exec mv -t {b} {{}} +"
    step = bash_step(
        folder.said(
            f"move {kind} of {day} from {a} to {b}",
            f"Move the {spoken} files of {day} from {a} to {b}",
        ),
        folder.said(f"yesterday is {day}", f"Yesterday was {day}."),
        f"{find} -newermt {day} ! -newermt {today} {move}",
        wrong=(
            f"{find} -mtime 1 {move}",  # the paper's own error
            f"{find} -newermt yesterday {move}",
            f"{find} -newermt {today} {move}",
            f"{find} -newermt {day} {move}",
        ),
    )
    return Draft(
        request=folder.ask("yesterday", today=today, kind=spoken, a=a, b=b),
        steps=[step],
        answer="done",
        constraints={"action": "move", "from": a, "to": b, "kind": kind, "day": str(day)},
        after=folder.moved([path for path in folder.of_kind(kind) if folder.files[path][1] == 1]),
    )


def archive_of(texts: dict[str, str], folder: str) -> str:
    """What the judge reads out of an archive of a folder: its texts, as JSON."""
    packed = {path: text for path, text in texts.items() if path.startswith(folder + "/")}
    return json.dumps(packed, sort_keys=True)


def archive_folder(folder: Folder) -> Draft:
    a, b = folder.source, folder.target
    step = bash_step(
        folder.said(f"pack {a} into {b}.tar", f"Pack {a} into {b}.tar"),
        folder.said(f"tar {a}", "tar -cf makes an archive."),
        f"tar -cf {b}.tar {a}",
        wrong=(
            f"tar -cf {a}.tar {a}",
            f"tar -czf {b}.tgz {a}",
            f"tar -cf {b}.tar {a}/*.{folder.kind}",
        ),
    )
    texts = folder.texts()
    return Draft(
        request=folder.ask("archive", a=a, b=b),
        steps=[step],
        answer="done",
        constraints={"action": "archive", "from": a, "to": b},
        after=texts | {f"{b}.tar": archive_of(texts, a)},
    )


def find_then_act(folder: Folder) -> Draft:
    """Two calls: which file says the word, then what to do with that one."""
    a, b, word = folder.source, folder.target, folder.word
    path = folder.rng.choice(folder.of_kind(folder.kind) + folder.of_kind(folder.other))
    text, age = folder.files[path]
    text = f"{folder.mention(path, folder.rng.randrange(100))}\n{text}"
    folder.files[path] = text, age
    find = bash_step(
        folder.said(f"which file of {a} says {word}", f"Find the file in {a} that mentions {word}"),
        folder.said(f"grep {word}", "grep -l names the file that matches."),
        f"grep -l {word} {a}/*",
        wrong=(f"grep -c {word} {a}/*", f"ls {a}"),
    )
    found = folder.said(path, f"It is {path}.")
    action = folder.rng.choice(("lines", "move", "delete"))
    constraints = {"action": action, "from": a}
    if action == "lines":
        act = bash_step(
            folder.said("count its lines", "Count its lines"),
            found,
            f"wc -l < {path}",
            (1,),
            (f"wc -c < {path}",),
        )
        return Draft(
            request=folder.ask("lines of located", a=a, word=word),
            steps=[find, act],
            answer=f"answer: {text.count(chr(10))}",
            constraints={**constraints, "word": word},
        )
    if action == "move":
        act = bash_step(
            folder.said(f"move it to {b}", f"Move it to {b}"),
            found,
            f"mkdir -p {b} && mv {path} {b}",
            (1,),
            (f"mv {path} {b}", f"mkdir -p {b} && cp {path} {b}"),
        )
        return Draft(
            request=folder.ask("move located", a=a, b=b, word=word),
            steps=[find, act],
            answer="done",
            constraints={**constraints, "to": b, "word": word},
            after=folder.moved([path]),
        )
    act = bash_step(
        folder.said("delete it", "Delete it"), found, f"rm {path}", (1,), (f"rm {a}/*",)
    )
    return Draft(
        request=folder.ask("delete located", a=a, word=word),
        steps=[find, act],
        answer="done",
        constraints={**constraints, "word": word},
        after=folder.without([path]),
    )


def collect_files(folder: Folder) -> Draft:
    """Three calls: move all of a kind, count them at their new place, pack that place."""
    draft = move_files(folder)
    b, kind = folder.target, folder.kind
    count = bash_step(
        folder.said(f"count {kind} in {b}", f"Count the {folder.spoken(kind)} files in {b}"),
        folder.said("count", "Find them at their new place and count them."),
        f"find {b} -name '*.{kind}' | wc -l",
        (1,),
        (f"find . -name '*.{folder.other}' | wc -l",),
    )
    pack = bash_step(
        folder.said(f"pack {b} into {b}.tar", f"Pack {b} into {b}.tar"),
        folder.said(f"tar {b}", "tar -cf makes an archive."),
        f"tar -cf {b}.tar {b}",
        (1,),
        (f"tar -cf {folder.source}.tar {b}",),
    )
    return Draft(
        request=f"{draft.request} {folder.ask('collected', b=b)}",
        steps=[*draft.steps, count, pack],
        answer=f"answer: {len(folder.of_kind(kind))}",
        constraints={**draft.constraints, "then": "count, archive"},
        after=draft.after | {f"{b}.tar": archive_of(draft.after, b)},
    )


SHELL_FAMILIES: Families = {
    1: {
        "count": count_files,
        "lines": count_lines,
        "matching": count_matching,
        "move": move_files,
        "copy": copy_files,
        "delete": delete_files,
        "yesterday": move_yesterdays,
        "archive": archive_folder,
    },
    2: {"located": find_then_act},
    3: {"collected": collect_files},
}


def ask_for_folder(folder: Folder) -> Draft:
    """A move or a copy whose target is not given."""
    action = folder.rng.choice(("move", "copy"))
    request = folder.ask(
        "ask",
        action=action,
        Action=action.capitalize(),
        kind=folder.spoken(folder.kind),
        a=folder.source,
    )
    if request.startswith(action):
        request = request[0].upper() + request[1:]
    constraints = {
        "action": action,
        "from": folder.source,
        "kind": folder.kind,
        "missing": "folder",
    }
    return Draft(request, [], "ask: folder", constraints)


def fit_no_command(folder: Folder) -> Draft:
    """A request that has nothing to do with files."""
    if folder.english:
        a, b = folder.name("people"), folder.name("people")
    else:
        a, b = folder.source, folder.target
    request = folder.ask("unsuited", a=a, b=b)
    return Draft(request, [], "no tool fits", {"action": "none"})


# ---------------------------------------------------------------------------------------- the world


class Shell(World):
    """A folder in a sandbox, and bash."""

    faults = ("timeout", "locked", "renamed", "incomplete", "denied", "expired")
    wordings = WORDINGS
    # .sandboxes: those that may be used again; a sandbox ends with the thread that started it
    idle = threading.local()

    @classmethod
    def why_unplayable(cls) -> str:
        if available():
            return ""
        return (
            "a model's commands run nowhere but in bubblewrap, which is not installed "
            "(apt-get install bubblewrap)"
        )

    @classmethod
    def sample(cls, seed: int, difficulty: Difficulty) -> Task:
        folder = Folder(seed, difficulty)
        rng = folder.rng

        # what is asked
        length = draw_chain_length(rng, difficulty, max(SHELL_FAMILIES))
        families = SHELL_FAMILIES[length]
        kind = rng.choice(list(families))
        draft = families[kind](folder)

        # another right answer than a call
        if rng.random() < difficulty.special:
            kind = "ask" if rng.random() < 0.5 else "none"
            draft = ask_for_folder(folder) if kind == "ask" else fit_no_command(folder)

        noise = folder.noise()
        return Task(
            world="shell",
            kind=kind,
            seed=seed,
            request=draft.request + noise,
            tools=folder.with_decoys(BASH_TOOLS[difficulty.names]),
            solution=folder.planned(draft.steps),
            answer=draft.answer,
            constraints=draft.constraints,
            truth={"files": folder.files, "today": folder.today, "texts": draft.after},
            difficulty=difficulty,
        )

    def __init__(self, task: Task):
        super().__init__(task)
        self.sandbox: Sandbox | None = None  # opened by the first command: many episodes need none
        known = [call for step in task.solution for call in (step.call, *step.wrong) if call]
        self.written_here = {call["arguments"]["command"] for call in known}
        self.reusable = True  # nothing ran in it that was not written here

    def idle_sandboxes(self) -> list[Sandbox]:
        """This thread's sandboxes that may be used again."""
        if not hasattr(self.idle, "sandboxes"):
            self.idle.sandboxes = []
        return self.idle.sandboxes

    def open(self) -> Sandbox:
        """This episode's sandbox, filled with the task's tree."""
        if self.sandbox is not None:
            return self.sandbox
        tree = tree_of(self.task.truth["files"], self.task.truth["today"])
        idle = self.idle_sandboxes()
        while idle:
            self.sandbox = idle.pop()
            try:
                self.sandbox.refill(tree)
                return self.sandbox
            except SandboxDied:
                self.sandbox.close()
        self.sandbox = Sandbox(tree, SHELL_LIMITS)
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
        text = "\n".join(filter(None, (result.output.rstrip("\n"), result.stopped)))
        text = cut_text(text, MOST_OUTPUT)
        if result.status == 0:
            return text or "ok"
        return f"error: {text or 'no output'} (status {result.status})"

    def verify(self, answer: str) -> bool:
        """By the answer unless it is "done", and by the tree: unchanged where the request asks for
        no change.
        """
        if self.task.answer != "done" and not super().verify(answer):
            return False
        unchanged = {path: text for path, (text, _) in self.task.truth["files"].items()}
        wanted = self.task.truth["texts"] or unchanged
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
        unpack = f"tar -xf {shlex.quote(path)} -C {place}"
        result = self.sandbox.run(f"rm -rf {place} && mkdir {place} && {unpack}")
        if result.status:
            return "no archive"
        return json.dumps(texts_of(self.sandbox.tree(place)), sort_keys=True)

    def close(self) -> None:
        if self.sandbox is None:
            return
        idle = self.idle_sandboxes()
        if self.reusable and len(idle) < MOST_IDLE:
            idle.append(self.sandbox)
        else:
            self.sandbox.close()
        self.sandbox = None
