"""The commands of the small bash that look at files: ls, cat, head, tail, wc, sort, uniq, grep, with GNU's output and complaints."""

import re
import shlex
from collections.abc import Callable

from worlds.bash.arguments import Streams, inputs, options, say
from worlds.bash.files import IS_FOLDER, Failure, Files, Unknown, walk


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
        return re.compile(translated.encode(), re.IGNORECASE if "i" in given else 0).search
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
            files += [(path if names else path.removeprefix("./"), inner.data) for path, inner in walk(node, name.rstrip("/")) if not inner.is_folder]
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
            if found:
                return 0                         # without a look at what follows
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
    return 0 if any_match and status == 1 else status
