"""The commands of the small bash that change files: mkdir, touch, rm, cp, mv, tar, with GNU's complaints."""

import gzip
import io
import struct
import tarfile

from worlds.bash.arguments import Streams, moment, options, say
from worlds.bash.files import EXISTS, IS_FOLDER, MISSING, NO_FOLDER, NOT_EMPTY, NOW, Failure, Files, Node, Unknown, walk


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
            try:
                tree.find(name).modified = when
            except Failure as failure:
                if "c" not in given:
                    tree.create(name).modified = when
                elif str(failure) != MISSING:
                    raise
        except Failure as failure:
            verb = "setting times of" if name.endswith("/") or "c" in given else "cannot touch"
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


def take(tree: Files, command: str, source: str, goal: str, deep: bool, made: set[str]) -> str:
    """Copy or move one path to another: "" or the complaint. `made` holds the paths that this command has written."""
    try:
        node = tree.find(source)
    except Failure as failure:
        return f"cannot stat {source!r}: {failure}"
    if node.is_folder and command == "cp" and not deep:
        return f"-r not specified; omitting directory {source!r}"
    try:
        there = tree.find(goal)
    except Failure as failure:
        if str(failure) == NO_FOLDER:
            return f"cannot stat {goal!r}: {failure}"
        there = None
    if there and goal in made and not there.is_folder:
        return f"will not overwrite just-created {goal!r} with {source!r}"
    if there is node:
        return f"{source!r} and {goal!r} are the same file"
    if there and there.is_folder and not node.is_folder:
        return f"cannot overwrite directory {goal!r} with non-directory" + f" {source!r}" * (command == "mv")
    if there and node.is_folder and not there.is_folder:
        return f"cannot overwrite non-directory {goal!r} with directory {source!r}"
    kind = "directory" if node.is_folder else "regular file"
    cannot = f"cannot move {source!r} to {goal!r}" if command == "mv" else f"cannot create {kind} {goal!r}"
    try:
        folder, last = tree.parent(goal)
    except Failure as failure:
        return f"{cannot}: {failure}"
    if node.is_folder and any(inner is folder for _, inner in walk(node, "")):
        if command == "cp":
            raise Unknown("cp of a folder into itself")
        return f"cannot move {source!r} to a subdirectory of itself, {goal!r}"
    if goal.endswith("/") and not node.is_folder:
        return f"{cannot}: {NO_FOLDER}"
    if command == "mv":
        if there and there.children:
            return f"{cannot}: {NOT_EMPTY}"
        tree.remove(source)
        folder.children[last], folder.modified = node, NOW
    elif there and node.is_folder:
        merge(there, node)
    elif there:
        there.data, there.modified = node.data, NOW
    else:
        folder.children[last], folder.modified = copy(node), NOW
    made.add(goal)
    return ""


def transfer(tree: Files, arguments: list[str], streams: Streams, command: str) -> int:
    """cp and mv: from one path to another, or from many into a folder."""
    given, names = options(arguments, "rRf" if command == "cp" else "f", "t")
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
        if name in (".", ".."):
            raise Unknown(f"{command} {source}")
        complaint = take(tree, command, source, f"{target.rstrip('/') or '/'}/{name}" if into else target, bool(given.keys() & {"r", "R"}), made)
        if complaint:
            status = say(streams, f"{command}: {complaint}")
    return status


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
        if any(part.startswith("/") or ".." in part.split("/") for part in names) or not names:
            raise Unknown("tar of these paths")
        above = name.rpartition("/")[0] or "."
        if tree.exists(above) and any(node is tree.find(above) for start in names if tree.exists(start) for _, node in walk(tree.find(start), "")):
            raise Unknown("tar of a folder that holds the archive")
        packed, status = bytearray(), 0
        packed_nodes: set[int] = set()
        for start in names:
            try:
                top = tree.find(start)
            except Failure as failure:
                say(streams, f"tar: {start}: Cannot stat: {failure}")
                status = 2
                continue
            for path, node in walk(top, start.rstrip("/")):
                if id(node) in packed_nodes:     # tar would write a hard link to itself
                    raise Unknown("tar of one thing twice")
                packed_nodes.add(id(node))
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
        reason = NO_FOLDER if tree.exists(given["C"]) else MISSING
        say(streams, f"tar: {given['C']}: Cannot open: {reason}\ntar: Error is not recoverable: exiting now")
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
