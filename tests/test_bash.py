"""The small bash against the real one: random command lines over random trees, in the sandbox and in process."""

import io
import random
import re
import tarfile

import pytest

from sandboxed import need_sandbox  # noqa: F401  (a fixture for the whole module)
from worlds.bash import Bash
from worlds.bash.files import NOW
from worlds.sandbox import File, Result, Sandbox, Tree

NAMES = ["docs", "old", "src", "a.txt", "b.txt", "c.log", "d.pdf", "two words", ".hidden", "README"]
TEXTS = ["", "one\n", "err 1\nok 2\nerr 3\n", "b\na\nb\nb\n", "10\n9\n-3\nx 4\n", "no end", "Error at 5\nerror at 6\n\nwarn\n"]
FIRST_DAY = 1_600_000_000
ORDER_OF_FOLDERS = ("find", "grep -r", "tar")    # these print in the order that the file system keeps


def random_tree(rng: random.Random) -> dict[str, File]:
    """Two levels of folders with a few small files; every entry has a date of its own, years before the test."""
    def date() -> int:
        return FIRST_DAY + rng.randrange(400) * 86400 + rng.randrange(86400)

    tree = {".": File(None, date())}
    for folder in rng.sample(["docs", "old", "src", "docs/in"], rng.randint(1, 4)):
        if "/" not in folder or folder.split("/")[0] in tree:
            tree[folder] = File(None, date())
    for _ in range(rng.randint(2, 8)):
        folder = rng.choice([*tree, "."])
        if tree[folder].data is None:
            name = rng.choice(NAMES[3:])
            path = name if folder == "." else f"{folder}/{name}"
            if path not in tree:
                tree[path] = File(rng.choice(TEXTS).encode(), date())
    return tree


def random_line(rng: random.Random, tree: Tree) -> str:
    """A command line of one to three parts; about one path in five does not exist, and some uses are plainly wrong."""
    def path(kind: str = "any") -> str:
        folders = [name for name, file in tree.items() if file.data is None]
        files = [name for name, file in tree.items() if file.data is not None] or ["a.txt"]
        chosen = rng.choice({"any": [*folders, *files], "file": files, "folder": folders}[kind])
        if rng.random() < 0.2:
            chosen = rng.choice(["nope", "nope/x", f"{rng.choice(files)}/x", "docs/nope", "./docs", "docs/", "src/../docs"])
        return f"'{chosen}'" if " " in chosen else chosen

    def glob() -> str:
        return rng.choice(["*", "*.txt", "docs/*", "*/*.txt", "[ab].txt", "?.log", "*.zip", "*/", "docs/[!a]*", "do*"])

    def day() -> str:
        return f"202{rng.randint(0, 1)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"

    def some(choose, most: int = 3) -> str:
        return " ".join(choose() for _ in range(rng.randint(1, most)))

    def test() -> str:
        return rng.choice([f"-name '{rng.choice(['*.txt', '*.pdf', 'a*', 'docs', '*'])}'", "-iname 'READ*'", "-type f", "-type d", "-empty",
                           f"-newermt {day()}", f"! -newermt {day()}", f"-mtime {rng.choice(['1', '-3', '+7'])}", "-type f -size -5c", "-type f -size +0",
                           f"-newermt '{rng.choice(['yesterday', '2 days ago'])}'", "-mindepth 1", "-maxdepth 1", "-not -name '*.log'"])

    def looking() -> str:
        return rng.choice([
            lambda: f"ls {rng.choice(['', '-1', '-a', '-A', '-r', '-d'])} {rng.choice(['', some(path), glob()])}",
            lambda: f"cat {rng.choice(['', '-n'])} {some(path)}",
            lambda: f"head {rng.choice(['', '-n 1', '-2', '-c 4', '-n -1'])} {some(path)}",
            lambda: f"tail {rng.choice(['', '-n 1', '-2', '-n +2', '-c 3'])} {some(path)}",
            lambda: f"wc {rng.choice(['', '-l', '-c', '-w', '-lw'])} {rng.choice([some(path), glob()])}",
            lambda: f"sort {rng.choice(['', '-r', '-n', '-u', '-nr', '-nu'])} {some(path, 2)}",
            lambda: f"uniq {rng.choice(['', '-c', '-d', '-u'])} {path()}",
            lambda: f"grep {rng.choice(['', '-i', '-v', '-c', '-l', '-n', '-w', '-h', '-H', '-q', '-r', '-rl', '-rc', '-rn', '-s'])} "
                    f"{rng.choice(['err', 'o', '^a', '3$', '[0-9]', '.', 'b*', chr(39) + 'err [13]' + chr(39), 'zzz', '-E ' + chr(39) + 'ok|warn' + chr(39), '-F .'])} "
                    f"{some(path)}",
            lambda: f"find {rng.choice(['', path(), '. ', some(path, 2)])} {' '.join(test() for _ in range(rng.randint(0, 3)))}",
            lambda: f"find . -name '*.txt' {rng.choice(['-o', ''])} {test()}",
            lambda: f"find {path('folder')} -type f -exec {rng.choice(['wc -l', 'grep -c o', 'ls', 'head -n 1 -v'])} {{}} \\;",
            lambda: f"echo {rng.choice(['-n', ''])} {rng.choice([glob(), 'some  words', chr(34) + 'a  b' + chr(34), chr(92) + '*', '-e', ''])}",
            lambda: "pwd", lambda: rng.choice(["foo", "git_status --now", "true", "false"]),
        ])()

    def changing() -> str:
        return rng.choice([
            lambda: f"mkdir {rng.choice(['', '-p'])} {some(lambda: rng.choice([path(), 'new', 'new/deep', 'docs/new/']), 2)}",
            lambda: f"touch {rng.choice(['', '-c', '-d ' + day()])} {some(lambda: rng.choice([path(), 'fresh.txt', 'docs/fresh']), 2)}",
            lambda: f"rm {rng.choice(['', '-f', '-r', '-rf', '-d'])} {rng.choice([some(path), glob()])}",
            lambda: f"mv {some(path, 2)} {path()}", lambda: f"mv {glob()} {path('folder')}", lambda: f"mv {path()} fresh",
            lambda: f"cp {rng.choice(['', '-r'])} {some(lambda: path('file'), 2)} {path()}", lambda: f"cp -r {path('folder')} fresh", lambda: f"cp {path()} fresh",
            lambda: f"cp {glob()} {path('folder')}", lambda: f"mv -t {path('folder')} {path('file')}",
            lambda: f"mkdir -p out && find {path('folder')} -maxdepth 1 -name '{rng.choice(['*.txt', '*.pdf'])}' {test()} -exec {rng.choice(['cp', 'mv'])} {{}} out/ \\;",
            lambda: f"find {path('folder')} -name '*.txt' -delete",
            lambda: f"tar -c{rng.choice(['', 'z'])}f out.tar {some(lambda: path('folder'), 2)} && {rng.choice(['tar -tf out.tar', 'mkdir u && tar -xf out.tar -C u'])}",
            lambda: f"tar {rng.choice(['-tf', 'xf'])} nope.tar",
            lambda: f"echo {rng.choice(['hi', '-n x'])} {rng.choice(['>', '>>'])} {rng.choice([path(), 'fresh', 'docs/fresh'])}",
            lambda: f"sort {path('file')} > sorted.txt", lambda: f"cd {path('folder')} && touch here",
        ])()

    parts = [looking() if rng.random() < 0.6 else changing()]
    while rng.random() < 0.4 and len(parts) < 3:
        joiner = rng.choice([" 2>/dev/null | ", " && ", " || ", "; ", " > fresh; cat ", " 2>/dev/null; ", " 2>&1 | "])
        after = rng.choice(["sort", "wc -l", "sort | uniq -c", "grep -c o", "cat"]) if joiner.endswith("| ") and "||" not in joiner else \
            "fresh" if "cat" in joiner else looking()
        parts += [joiner, after]
    return "".join(parts)


def comparable(command: str, result: Result) -> tuple[list[str], int]:
    """What was printed and the status; where the file system decides the order, the lines are sorted."""
    if not any(word in command for word in ORDER_OF_FOLDERS):
        return [result.output], result.status
    return sorted(filter(None, re.split("\n|(?<=no end)|(?<=words)|(?<=a  b)", result.output))), result.status


def contents(command: str, tree: Tree) -> dict[str, object]:
    """A tree without what may differ: the time of what was written during the test, and the order of files in an archive or a listing."""
    def content(file: File) -> object:
        try:
            with tarfile.open(fileobj=io.BytesIO(file.data or b"")) as archive:
                return sorted((member.name, member.isdir(), archive.extractfile(member).read() if member.isfile() else b"") for member in archive)
        except tarfile.TarError:
            return sorted(file.data.splitlines()) if file.data and any(word in command for word in ORDER_OF_FOLDERS) else file.data

    return {path: (content(file), min(file.modified, NOW)) for path, file in tree.items()}


def disagreements(count: int, seed: int) -> tuple[int, int, list[str]]:
    """(lines compared, lines that the small bash refuses, descriptions of those that differ)."""
    rng = random.Random(seed)
    compared, refused, different = 0, 0, []
    while compared < count:
        tree = random_tree(rng)
        line = random_line(rng, tree)
        small = Bash(tree)
        mine = small.run(line)
        if "this small shell does not know" in mine.output:
            refused += 1
            continue
        with Sandbox(tree) as real:
            theirs = real.run(line)
            compared += 1
            if comparable(line, mine) != comparable(line, theirs):
                different.append(f"{line}\n  bash: {theirs}\n  here: {mine}\n  tree: {sorted(tree)}")
            elif contents(line, small.tree()) != contents(line, real.tree()):
                different.append(f"{line}\n  bash: {contents(line, real.tree())}\n  here: {contents(line, small.tree())}")
    return compared, refused, different


def test_equals_real_bash():
    compared, refused, different = disagreements(600, seed=1)
    assert not different, "\n".join(different[:5])
    assert compared >= 500 and refused < compared / 4, f"{refused} lines refused beside {compared} compared"


@pytest.mark.slow
def test_equals_real_bash_on_many_more_lines():
    _, _, different = disagreements(3000, seed=2)
    assert not different, "\n".join(different[:5])
