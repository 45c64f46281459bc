"""The eighteen commands of the small bash (bash.py), each with the options that an agent's everyday lines need and GNU's own complaints.

A command takes the file tree, its arguments and its streams, and returns the exit status. An option that is not here raises Unknown.
"""

import fnmatch
import gzip
import io
import re
import shlex
import struct
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from datetime import datetime, timedelta, timezone

from worlds.files import EXISTS, IS_FOLDER, MISSING, NO_FOLDER, NOT_EMPTY, NOW, Failure, Files, Node, Unknown, walk
from worlds.sandbox import HOME


@dataclass
class Streams:
    """Where a command reads and writes."""
    stdin: bytes
    out: bytearray
    err: bytearray
    piped: bool = False            # stdin is a pipe, not a file


@lru_cache(1000)
def glob(pattern: str) -> Callable[[str], re.Match | None]:
    """A glob pattern as a function that matches names; [^...] is [!...]."""
    return re.compile(fnmatch.translate(pattern.replace("[^", "[!"))).match


def options(arguments: list[str], flags: str, valued: str = "", longer: tuple[str, ...] = ()) -> tuple[dict[str, str], list[str]]:
    """GNU's way with options: letters may be joined, a value may follow or be attached, operands stand anywhere."""
    given: dict[str, str] = {}
    operands: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word == "--":
            operands += rest
        elif word in longer:
            given[word] = ""
        elif word.startswith("--") or not word.startswith("-") or word == "-":
            if word.startswith("-"):
                raise Unknown(f"the option {word}" if word != "-" else "- as a file")
            operands.append(word)
        else:
            letters = word[1:]
            while letters:
                letter, letters = letters[0], letters[1:]
                if letter in valued:
                    value = letters or next(rest, None)
                    if value is None:
                        raise Unknown(f"-{letter} without its value")
                    given[letter] = value
                    break
                if letter not in flags:
                    raise Unknown(f"the option -{letter}")
                given[letter] = ""
    return given, operands


def say(streams: Streams, text: str) -> int:
    """Complain; the status of a failed command."""
    streams.err += text.encode() + b"\n"
    return 1


def inputs(tree: Files, streams: Streams, command: str, files: list[str]) -> Iterator[tuple[str, bytes | None]]:
    """(name, bytes) of each file that can be read, or of standard input as ("", bytes); complains about the others, giving (name, None)."""
    if not files:
        yield "", streams.stdin
    for name in files:
        try:
            yield name, tree.read(name)
        except Failure as failure:
            say(streams, f"{command}: {shlex.quote(name)}: {failure}")
            yield name, None

# -------------------------------------------------------------------------------------------- looking at files

def ls(tree: Files, arguments: list[str], streams: Streams) -> int:
    given, names = options(arguments, "1aAdr")
    status, files, folders = 0, [], []
    for name in names or ["."]:
        try:
            (folders if tree.find(name).is_folder and "d" not in given else files).append(name)
        except Failure as failure:
            say(streams, f"ls: cannot access {name!r}: {failure}")
            status = 2
    blocks = [sorted(files, reverse="r" in given)] if files else []
    for folder in sorted(folders, reverse="r" in given):
        inside = [name for name in tree.find(folder).children if not name.startswith(".") or given.keys() & {"a", "A"}]
        inside = sorted(inside + [".", ".."] * ("a" in given), reverse="r" in given)
        blocks.append([f"{folder}:"] * (len(names) > 1) + inside)
    streams.out += "\n".join("".join(line + "\n" for line in block) for block in blocks).encode()
    return status


def cat(tree: Files, arguments: list[str], streams: Streams) -> int:
    given, names = options(arguments, "n")
    status, number, fresh = 0, 0, True
    for _, data in inputs(tree, streams, "cat", names):
        if data is None:
            status = 1
        elif "n" not in given:
            streams.out += data
        else:
            for line in data.splitlines(keepends=True):
                number += fresh
                streams.out += (b"%6d\t" % number if fresh else b"") + line
                fresh = line.endswith(b"\n")
    return status


def ends(tree: Files, arguments: list[str], streams: Streams, command: str) -> int:
    """head and tail."""
    if arguments and re.fullmatch(r"-\d+", arguments[0]):       # the old way: -3
        if command == "tail" and len(arguments) > 2:
            return say(streams, f"tail: option used in invalid context -- {arguments[0][1]}")
        arguments = ["-n", arguments[0][1:], *arguments[1:]]
    given, names = options(arguments, "qv", "nc")
    unit = "c" if "c" in given else "n"
    amount = given.get(unit, "10")
    if not re.fullmatch(r"[+-]?\d+", amount):
        raise Unknown(f"the number {amount}")
    status, header = 0, ("v" in given or len(names) > 1) and "q" not in given
    first = True
    for name in names or [""]:
        try:
            data = tree.find(name).data if name else streams.stdin
        except Failure as failure:
            status = say(streams, f"{command}: cannot open {name!r} for reading: {failure}")
            continue
        if header:
            streams.out += ("\n" * (not first) + f"==> {name or 'standard input'} <==\n").encode()
            first = False
        if data is None:
            status = say(streams, f"{command}: error reading {name!r}: {IS_FOLDER}")
            continue
        pieces = data.splitlines(keepends=True) if unit == "n" else [data[i:i + 1] for i in range(len(data))]
        count = int(amount)
        if command == "head":
            kept = pieces[:count] if not amount.startswith("-") else pieces[:max(0, len(pieces) + count)]
        else:
            kept = pieces[max(0, count - 1):] if amount.startswith("+") else pieces[max(0, len(pieces) - abs(count)):]
        streams.out += b"".join(kept)
    return status


def wc(tree: Files, arguments: list[str], streams: Streams) -> int:
    given, names = options(arguments, "lwc")
    columns = [letter for letter in "lwc" if letter in given or not given]
    status = 0
    # GNU's width: one for a single number, seven where a size is not known beforehand, else the digits of the sizes' sum
    known = [node for name in names if (node := tree.look(name))]
    if len(columns) == 1 and len(names) <= 1:
        width = 1
    elif not names:
        width = 7 if streams.piped or streams.stdin == b"" else len(str(len(streams.stdin)))
    else:
        width = max(7 if any(node.is_folder for node in known) else 1, len(str(sum(len(node.data or b"") for node in known))))
    total = [0] * len(columns)

    def line(counts: list[int], name: str) -> bytes:
        return " ".join([f"{count:{width}d}" for count in counts] + [name] * bool(name)).encode() + b"\n"

    for name in names or [""]:
        try:
            data = tree.read(name) if name else streams.stdin
        except Failure as failure:
            status = say(streams, f"wc: {shlex.quote(name)}: {failure}")
            if str(failure) == IS_FOLDER:
                streams.out += line([0] * len(columns), name)
            continue
        counts = [{"l": data.count(b"\n"), "w": len(data.split()), "c": len(data)}[letter] for letter in columns]
        total = [a + b for a, b in zip(total, counts)]
        streams.out += line(counts, name)
    if len(names) > 1:
        streams.out += line(total, "total")
    return status


def lines_of(data: bytes) -> list[bytes]:
    """The lines without their ends; a last line need not have one."""
    return data.split(b"\n")[:-1] if data.endswith(b"\n") else data.split(b"\n") if data else []


def sort(tree: Files, arguments: list[str], streams: Streams) -> int:
    given, names = options(arguments, "nru")
    lines: list[bytes] = []
    for verb, ask in (("cannot read", tree.find), ("read failed", tree.read)):  # all are opened first; a folder can be opened, not read
        for name in names:
            try:
                ask(name)
            except Failure as failure:
                say(streams, f"sort: {verb}: {shlex.quote(name)}: {failure}")
                return 2
    for name in names or [""]:
        lines += lines_of(tree.read(name) if name else streams.stdin)

    def number(line: bytes) -> float:
        found = re.match(rb"[ \t]*(-?\d*\.?\d*)", line)[1]
        return float(found) if re.search(rb"\d", found) else 0.0

    if "u" in given:
        key = number if "n" in given else bytes
        unique: dict[object, bytes] = {}
        for line in lines:
            unique.setdefault(key(line), line)
        lines = sorted(unique.values(), key=key, reverse="r" in given)
    else:
        lines.sort(key=lambda line: (number(line), line) if "n" in given else line, reverse="r" in given)
    streams.out += b"".join(line + b"\n" for line in lines)
    return 0


def uniq(tree: Files, arguments: list[str], streams: Streams) -> int:
    given, names = options(arguments, "cdu")
    if len(names) > 1:
        raise Unknown("uniq with an output file")
    try:
        lines = lines_of(tree.find(names[0]).data if names else streams.stdin) if not names or not tree.is_folder(names[0]) else None
    except Failure as failure:
        return say(streams, f"uniq: {shlex.quote(names[0])}: {failure}")
    if lines is None:
        return say(streams, f"uniq: error reading '{names[0]}'")
    groups: list[list] = []
    for line in lines:
        if groups and groups[-1][0] == line:
            groups[-1][1] += 1
        else:
            groups.append([line, 1])
    for line, count in groups:
        if ("d" not in given or count > 1) and ("u" not in given or count == 1):
            streams.out += (b"%7d " % count if "c" in given else b"") + line + b"\n"
    return 0


def expression(pattern: str, given: dict[str, str]) -> Callable[[bytes], object]:
    """grep's pattern as a search in a line. Basic: \\( \\| and so on mean something special, ( | + ? { do not; extended (-E): the other way round."""
    if pattern.replace(" ", "").isalnum() and not given.keys() & {"i", "w"}:
        word = pattern.encode()                  # a plain word needs no expression, and compiling one costs more than the search
        return lambda line: word in line
    if "F" in given:
        translated = re.escape(pattern)
    else:
        translated, at = "", 0
        while at < len(pattern):
            character = pattern[at]
            if character == "\\":
                at += 1
                follows = pattern[at:at + 1]
                if not follows or follows.isalnum() or follows == "<" or follows == ">":
                    raise Unknown(f"the pattern {pattern}")
                translated += follows if follows in "()|+?{}" and "E" not in given else re.escape(follows)
            elif character == "[":
                end = pattern.find("]", at + 2 + (pattern[at + 1:at + 2] == "^"))
                if end < 0 or "[" in pattern[at + 1:end]:
                    raise Unknown(f"the pattern {pattern}")
                translated += pattern[at:end + 1].replace("\\", "\\\\")
                at = end
            elif character in "()|+?{}" and "E" not in given:
                translated += re.escape(character)
            elif character == "*" and at == 0:
                translated += "\\*"
            elif character == "^" and at > 0 or character == "$" and at < len(pattern) - 1:
                if "E" in given:
                    raise Unknown(f"the pattern {pattern}")
                translated += re.escape(character)
            else:
                translated += character
            at += 1
    if "w" in given:
        translated = rf"(?<!\w)(?:{translated})(?!\w)"
    try:
        return re.compile(translated.replace("$", r"\Z").encode() if "F" not in given else translated.encode(), re.IGNORECASE if "i" in given else 0).search
    except re.error:
        raise Unknown(f"the pattern {pattern}") from None


def grep(tree: Files, arguments: list[str], streams: Streams) -> int:
    given, names = options(arguments, "ivclnwhHrREFqs", "e")
    if "e" not in given:
        if not names:
            raise Unknown("grep without a pattern")
        given["e"], *names = names
    find = expression(given["e"], given)
    deep = given.keys() & {"r", "R"}
    status, any_match = 1, False
    files: list[tuple[str, bytes | None]] = []
    if not names and not deep:
        files.append(("(standard input)", streams.stdin))
    for name in names or (["."] if deep else []):
        try:
            node = tree.find(name)
        except Failure as failure:
            files.append((f"grep: {name}: {failure}", None))
            continue
        if not node.is_folder:
            files.append((name, node.data))
        elif deep:
            files += [(path.removeprefix("./") if not names else path, inner.data) for path, inner in walk(node, name.rstrip("/")) if not inner.is_folder]
        else:
            files += [(f"grep: {name}: {IS_FOLDER}", None), (name, b"")]
    named = ("H" in given or len(names) > 1 or deep and not (len(names) == 1 and not tree.is_folder(names[0]))) and "h" not in given
    for name, data in files:
        if data is None:
            if "s" not in given:
                say(streams, name)
            status = 2
            continue
        found = [(number, line) for number, line in enumerate(lines_of(data), 1) if bool(find(line)) != ("v" in given)]
        any_match = any_match or bool(found)
        prefix = f"{name}:".encode() if named else b""
        if "q" in given:
            continue
        if "l" in given:
            streams.out += name.encode() + b"\n" if found else b""
        elif "c" in given:
            streams.out += prefix + b"%d\n" % len(found)
        elif found and b"\0" in data:
            say(streams, f"grep: {name}: binary file matches")
        else:
            for number, line in found:
                streams.out += prefix + (b"%d:" % number if "n" in given else b"") + line + b"\n"
    return 0 if any_match and (status == 1 or "q" in given) else status


# ---------------------------------------------------------------------------------------------------- find

@lru_cache(1000)
def moment(text: str) -> float:
    """The time that a date names, in Unix seconds: ISO dates, and the few relative words that agents use."""
    now = datetime.fromtimestamp(NOW, timezone.utc)
    if match := re.fullmatch(r"(\d+) days? ago", text):
        return (now - timedelta(days=int(match[1]))).timestamp()
    if text in ("now", "today", "yesterday"):
        return (now - timedelta(days=text == "yesterday")).timestamp()
    try:
        return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        raise Unknown(f"the date {text}") from None


def compared(wanted: str, actual: int) -> bool:
    """find's numbers: +n is more, -n is less, n is exactly."""
    number = int(wanted.lstrip("+-"))
    return actual > number if wanted[0] == "+" else actual < number if wanted[0] == "-" else actual == number


UNITS = {"c": 1, "w": 2, "b": 512, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}
TESTS: dict[str, Callable[[str, Node, str], bool]] = {           # option: (its value, the node, its path) -> does it hold
    "-name": lambda value, node, path: bool(glob(value)(path.rstrip("/").split("/")[-1])),
    "-iname": lambda value, node, path: bool(glob(value.lower())(path.rstrip("/").split("/")[-1].lower())),
    "-path": lambda value, node, path: bool(glob(value)(path)),
    "-type": lambda value, node, path: node.is_folder == (value == "d"),
    "-size": lambda value, node, path: compared(value.rstrip("cwbkMG"), -(-len(node.data) // UNITS[value[-1] if value[-1] in UNITS else "b"])),
    "-newermt": lambda value, node, path: node.modified > moment(value),
    "-mtime": lambda value, node, path: compared(value, (NOW - node.modified) // 86400),
}
VALUES = {"-type": "[fd]", "-size": r"[+-]?\d+[cwbkMG]?", "-mtime": r"[+-]?\d+", "-maxdepth": r"\d+", "-mindepth": r"\d+"}


def find(tree: Files, arguments: list[str], streams: Streams) -> int:
    at = next((i for i, word in enumerate(arguments) if word.startswith("-") or word in ("!", "(", ")")), len(arguments))
    starts, rest = arguments[:at] or ["."], iter(arguments[at:])
    depth = {"-mindepth": 0, "-maxdepth": 1 << 30}
    groups: list[list[tuple[bool, str, str | list[str]]]] = [[]]  # groups joined by -o of (negated, test or action, its value)
    negated = False
    for word in rest:
        value: str | list[str] = ""
        if word in TESTS or word in depth:
            value = next(rest, None)
            if value is None or not re.fullmatch(VALUES.get(word, ".*"), value):
                raise Unknown(f"find {word} {value}")
        if word == "-exec":
            value = []
            for part in rest:
                if part == ";" or part == "+" and value and value[-1] == "{}":
                    value.append(part)
                    break
                value.append(part)
            if not value or value[-1] not in (";", "+"):
                say(streams, "find: missing argument to `-exec'")
                return 1
            if value[0] not in COMMANDS:
                raise Unknown(f"find -exec {value[0]}")
        if word in ("!", "-not"):
            negated = not negated
        elif word in ("-o", "-or"):
            groups.append([])
        elif word in depth:
            depth[word] = int(value)
        elif word in TESTS or word in ("-empty", "-print", "-delete", "-exec"):
            groups[-1].append((negated, word, value))
            negated = False
        elif word not in ("-a", "-and"):
            raise Unknown(f"find {word}")
    if negated or not all(groups) and len(groups) > 1:
        raise Unknown("this find expression")
    acting = any(word in ("-print", "-delete", "-exec") for group in groups for _, word, _ in group)
    status, together = 0, []

    def holds(word: str, value: str | list[str], path: str, node: Node) -> bool:
        nonlocal status
        if word == "-empty":
            return not node.children if node.is_folder else not node.data
        if word == "-size" and node.is_folder:
            raise Unknown("find -size of a folder")
        if word == "-print":
            streams.out += path.encode() + b"\n"
            return True
        if word == "-delete":
            if node.children:
                status = say(streams, f"find: cannot delete {path!r}: {NOT_EMPTY}")
                return False
            if path != ".":
                tree.remove(path)
            return True
        if word == "-exec":
            if value[-1] == "+":
                together.append((value[:-2], path))
                return True
            return COMMANDS[value[0]](tree, [part.replace("{}", path) for part in value[1:-1]], Streams(streams.stdin, streams.out, streams.err)) == 0
        return TESTS[word](value, node, path)

    for start in starts:
        try:
            top = tree.find(start)
        except Failure as failure:
            status = say(streams, f"find: {start!r}: {failure}")
            continue
        deleting = any(word == "-delete" for group in groups for _, word, _ in group)
        for path, node in list(walk(top, start, after=deleting)):
            path = path.replace("//", "/")
            if depth["-mindepth"] <= path.rstrip("/").count("/") - start.rstrip("/").count("/") <= depth["-maxdepth"]:
                matched = any(all(holds(word, value, path, node) != negated for negated, word, value in group) for group in groups)
                if matched and not acting:
                    streams.out += path.encode() + b"\n"
    for command in dict.fromkeys(tuple(words) for words, _ in together):
        paths = [path for words, path in together if tuple(words) == command]
        status = COMMANDS[command[0]](tree, [*command[1:], *paths], Streams(streams.stdin, streams.out, streams.err)) and 1 or status
    return status


# ---------------------------------------------------------------------------------------------- changing files

def mkdir(tree: Files, arguments: list[str], streams: Streams) -> int:
    given, names = options(arguments, "p")
    if not names:
        raise Unknown("mkdir without a name")
    status = 0
    for name in names:
        parts = name.rstrip("/").split("/")
        for count in range(1 if "p" in given else len(parts), len(parts) + 1):
            path = "/".join(parts[:count])
            if path == "" or "p" in given and path in (".", ".."):
                continue
            try:
                if node := tree.look(path):
                    if "p" not in given or not node.is_folder:
                        raise Failure(EXISTS if count == len(parts) or "p" not in given else NO_FOLDER)
                else:
                    folder, last = tree.parent(path)
                    folder.children[last] = Node(None, NOW, {})
                    folder.modified = NOW
            except Failure as failure:
                said = path if "p" in given else name
                status = say(streams, f"mkdir: cannot create directory {said!r}: {failure}")
                break
    return status


def touch(tree: Files, arguments: list[str], streams: Streams) -> int:
    given, names = options(arguments, "c", "d")
    when = int(moment(given["d"])) if "d" in given else NOW
    status = 0
    for name in names:
        try:
            if node := tree.look(name):
                node.modified = when
            elif "c" not in given:
                tree.create(name).modified = when
        except Failure as failure:
            verb = "setting times of" if name.endswith("/") else "cannot touch"
            status = say(streams, f"touch: {verb} {name!r}: {MISSING if name.endswith('/') and str(failure) == IS_FOLDER else failure}")
    return status


def rm(tree: Files, arguments: list[str], streams: Streams) -> int:
    given, names = options(arguments, "rRfd")
    if "d" in given and "." in names:
        raise Unknown("rm -d .")
    status = 0
    for name in names:
        if name.rstrip("/").split("/")[-1] in (".", ".."):
            if given.keys() & {"r", "R"}:
                status = say(streams, f"rm: refusing to remove '.' or '..' directory: skipping {name!r}")
            else:
                status = say(streams, f"rm: cannot remove {name!r}: {IS_FOLDER}")
            continue
        try:
            node = tree.find(name)
            if node.is_folder and not given.keys() & {"r", "R"} and not ("d" in given and not node.children):
                raise Failure(NOT_EMPTY if "d" in given else IS_FOLDER)
            tree.remove(name)
        except Failure as failure:
            if "f" not in given or str(failure) not in (MISSING, NO_FOLDER):
                status = say(streams, f"rm: cannot remove {name!r}: {failure}")
    return status


def copy(node: Node) -> Node:
    """A copy of a file or folder, made now."""
    return Node(node.data, NOW, None if node.children is None else {name: copy(child) for name, child in node.children.items()})


def transfer(tree: Files, arguments: list[str], streams: Streams, command: str) -> int:
    """cp and mv: from one path to another, or from many into a folder."""
    given, names = options(arguments, "rRf" if command == "cp" else "f", "t")
    verb = "copy" if command == "cp" else "move"
    if "t" in given:
        target, sources = given["t"], names
    elif len(names) < 2:
        missing = "file operand" if not names else f"destination file operand after {names[0]!r}"
        return say(streams, f"{command}: missing {missing}\nTry '{command} --help' for more information.")
    else:
        *sources, target = names
    if len(set(sources)) < len(sources):
        raise Unknown(f"{command} of one thing twice")
    into = tree.is_folder(target)
    if not into and (len(sources) > 1 or "t" in given):
        try:
            tree.find(target)
            reason = NO_FOLDER
        except Failure as failure:
            reason = str(failure)
        return say(streams, f"{command}: target {'directory ' if 't' in given else ''}{target!r}: {reason}")
    status, made = 0, set()
    for source in sources:
        name = source.rstrip("/").split("/")[-1]
        goal = f"{target.rstrip('/') or '/'}/{name}" if into else target
        if name in (".", ".."):
            raise Unknown(f"{command} {source}")
        try:
            node = tree.find(source)
        except Failure as failure:
            status = say(streams, f"{command}: cannot stat {source!r}: {failure}")
            continue
        if node.is_folder and command == "cp" and not given.keys() & {"r", "R"}:
            status = say(streams, f"cp: -r not specified; omitting directory {source!r}")
            continue
        try:
            there = tree.look(goal)
            if goal in made and there and not there.is_folder:
                status = say(streams, f"{command}: will not overwrite just-created {goal!r} with {source!r}")
                continue
            if there is node:
                status = say(streams, f"{command}: {source!r} and {goal!r} are the same file")
                continue
            if there and there.is_folder and not node.is_folder:
                status = say(streams, f"{command}: cannot overwrite directory {goal!r} with non-directory"
                             + (f" {source!r}" if command == "mv" else ""))
                continue
            if there and node.is_folder and not there.is_folder:
                status = say(streams, f"{command}: cannot overwrite non-directory {goal!r} with directory {source!r}")
                continue
            folder, last = tree.parent(goal)
            if node.is_folder and any(inner is folder for _, inner in walk(node, "")):
                if command == "cp":
                    raise Unknown("cp of a folder into itself")
                status = say(streams, f"mv: cannot move {source!r} to a subdirectory of itself, {goal!r}")
                continue
            if goal.endswith("/") and not node.is_folder:
                status = say(streams, f"cp: cannot create regular file {goal!r}: {NO_FOLDER}" if command == "cp" else
                             f"mv: cannot move {source!r} to {goal!r}: {NO_FOLDER}")
                continue
            if command == "cp":
                if there and node.is_folder:
                    merge(there, node)
                elif there:
                    there.data, there.modified = node.data, NOW
                else:
                    folder.children[last] = copy(node)
                    folder.modified = NOW
            else:
                if there and there.children:
                    status = say(streams, f"mv: cannot move {source!r} to {goal!r}: {NOT_EMPTY}")
                    continue
                tree.remove(source)
                folder.children[last] = node
                folder.modified = NOW
            made.add(goal)
        except Failure as failure:
            kind = "directory" if node.is_folder else "regular file"
            status = say(streams, f"cp: cannot create {kind} {goal!r}: {failure}" if command == "cp" else
                         f"mv: cannot {verb} {source!r} to {goal!r}: {failure}")
    return status


def merge(there: Node, node: Node) -> None:
    """Copy a folder's contents over those of another."""
    for name, child in node.children.items():
        other = there.children.get(name)
        if other and other.is_folder != child.is_folder:
            raise Unknown("cp of a folder over a file")
        if other and child.is_folder:
            merge(other, child)
        elif other:
            other.data, other.modified = child.data, NOW
        else:
            there.children[name] = copy(child)
            there.modified = NOW


HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")


def entry(name: str, node: Node) -> bytes:
    """A file or folder as tar keeps it: a header in GNU's form, the data, zeros up to a block of 512. (tarfile takes ten times as long.)"""
    if len(name.encode()) > 100:
        raise Unknown("tar of so long a path")
    size, kind = len(node.data or b""), b"5" if node.is_folder else b"0"
    mode = b"%07o" % (0o755 if node.is_folder else 0o644)
    fields = [name.encode(), mode, b"%07o" % 1000, b"%07o" % 1000, b"%011o" % size, b"%011o" % node.modified, b" " * 8, kind,
              b"", b"ustar  ", b"", b"", b"", b"", b""]
    fields[6] = b"%06o\0 " % sum(HEADER.pack(*fields))
    return HEADER.pack(*fields) + (node.data or b"") + b"\0" * (-size % 512)


def tar(tree: Files, arguments: list[str], streams: Streams) -> int:
    if arguments and not arguments[0].startswith("-"):
        arguments = ["-" + arguments[0], *arguments[1:]]         # tar's old way: tar cf x.tar docs
    given, names = options(arguments, "cxtz", "fC")
    mode = given.keys() & {"c", "x", "t"}
    if len(mode) != 1 or "f" not in given or "C" in given and "c" in given:
        raise Unknown("this use of tar")
    name, failed = given["f"], "tar: Exiting with failure status due to previous errors"
    if "c" in given:
        if any(part.startswith("/") or ".." in part.split("/") for part in names) or len(set(names)) != len(names) or not names:
            raise Unknown("tar of these paths")
        above = name.rpartition("/")[0] or "."
        if tree.exists(above) and any(node is tree.find(above) for start in names if tree.exists(start) for _, node in walk(tree.find(start), "")):
            raise Unknown("tar of a folder that holds the archive")
        packed, status = bytearray(), 0
        for start in names:
            try:
                top = tree.find(start)
            except Failure as failure:
                say(streams, f"tar: {start}: Cannot stat: {failure}")
                status = 2
                continue
            for path, node in walk(top, start.rstrip("/")):
                packed += entry(path + "/" * node.is_folder, node)
        data = bytes(packed).ljust((len(packed) + 1024 + 10239) // 10240 * 10240, b"\0")  # two empty blocks, in records of twenty
        try:
            file = tree.create(name)
        except Failure as failure:
            say(streams, f"tar: {name}: Cannot open: {failure}\ntar: Error is not recoverable: exiting now")
            return 2
        file.data, file.modified = gzip.compress(data, mtime=0) if "z" in given else data, NOW
        if status:
            say(streams, failed)
        return status
    try:
        data = tree.read(name)
    except Failure as failure:
        say(streams, f"tar: {name}: Cannot open: {failure}\ntar: Error is not recoverable: exiting now")
        return 2
    try:
        archive = tarfile.open(fileobj=io.BytesIO(data))
    except tarfile.TarError:
        raise Unknown("this archive") from None
    members = archive.getmembers()
    if "t" in given:
        if names:
            raise Unknown("tar -t with names")
        streams.out += "".join(member.name + "/" * member.isdir() + "\n" for member in members).encode()
        return 0
    if names:
        raise Unknown("tar -x with names")
    if "C" in given and not tree.is_folder(given["C"]):
        say(streams, f"tar: {given['C']}: Cannot open: {MISSING if not tree.exists(given['C']) else NO_FOLDER}\ntar: Error is not recoverable: exiting now")
        return 2
    for member in members:
        target = f"{given.get('C', '.')}/{member.name}"
        if member.isdir():
            mkdir(tree, ["-p", target], streams)
        else:
            above = target.rpartition("/")[0]
            if not tree.exists(above):
                mkdir(tree, ["-p", above], streams)
            tree.create(target).data = archive.extractfile(member).read()
        tree.find(target).modified = int(member.mtime)
    for member in members:                                       # what was put into a folder has moved its time
        tree.find(f"{given.get('C', '.')}/{member.name}").modified = int(member.mtime)
    return 0


# -------------------------------------------------------------------------------------------------- the rest

def echo(tree: Files, arguments: list[str], streams: Streams) -> int:
    newline = True
    while arguments and re.fullmatch("-[neE]+", arguments[0]):
        if "e" in arguments[0]:
            raise Unknown("echo -e")
        newline = newline and "n" not in arguments[0]
        arguments = arguments[1:]
    streams.out += " ".join(arguments).encode() + b"\n" * newline
    return 0


def cd(tree: Files, arguments: list[str], streams: Streams) -> int:
    target = arguments[0] if arguments else ""
    if len(arguments) > 1:
        return say(streams, "bash: line 1: cd: too many arguments")
    if target.startswith("-"):
        raise Unknown(f"cd {target}")
    if not target:
        tree.here = []
        return 0
    try:
        tree.enter(target)
    except Failure as failure:
        return say(streams, f"bash: line 1: cd: {target}: {failure}")
    return 0


def pwd(tree: Files, arguments: list[str], streams: Streams) -> int:
    streams.out += "/".join([HOME, *tree.here]).encode() + b"\n"
    return 0


COMMANDS: dict[str, Callable[[Files, list[str], Streams], int]] = {
    "ls": ls, "cat": cat, "wc": wc, "sort": sort, "uniq": uniq, "grep": grep, "find": find, "mkdir": mkdir, "touch": touch, "rm": rm,
    "tar": tar, "echo": echo, "cd": cd, "pwd": pwd, "true": lambda *_: 0, "false": lambda *_: 1,
    "head": lambda *given: ends(*given, "head"), "tail": lambda *given: ends(*given, "tail"),
    "cp": lambda *given: transfer(*given, "cp"), "mv": lambda *given: transfer(*given, "mv"),
}
