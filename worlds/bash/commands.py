"""All commands of the small bash: find, which can run the others, the few that are the shell's own, and the table.

A command takes the file tree, its arguments and its streams, and returns the exit status. An option that is not here raises Unknown.
"""

import re
from collections.abc import Callable

from worlds.bash.arguments import Streams, glob, moment, say
from worlds.bash.changing import mkdir, rm, tar, touch, transfer
from worlds.bash.files import NOT_EMPTY, NOW, Failure, Files, Node, Unknown, walk
from worlds.bash.reading import cat, ends, grep, ls, sort, uniq, wc
from worlds.sandbox import HOME


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
