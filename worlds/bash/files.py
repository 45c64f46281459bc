"""A file tree in memory, with the system's own words for what cannot be done. The small bash and its commands work on it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

from worlds.sandbox import HOME, File, Tree

NOW = int(datetime(2026, 1, 1, tzinfo=timezone.utc).timestamp())
MISSING, NO_FOLDER, IS_FOLDER, EXISTS, NOT_EMPTY = (
    "No such file or directory", "Not a directory", "Is a directory", "File exists", "Directory not empty")


class Unknown(Exception):
    """Something real bash could do and this one does not."""


class Failure(Exception):
    """What the system says about a path."""


@dataclass(slots=True)
class Node:
    """A file (data) or a folder (children)."""
    data: bytes | None
    modified: int
    children: dict[str, "Node"] | None = None

    @property
    def is_folder(self) -> bool:
        return self.children is not None


class Files:
    """A home folder: files and folders by path, and the folder that paths start from."""

    def __init__(self, tree: Tree):
        self.root = Node(None, NOW, {})
        self.here: list[str] = []            # the current folder, below the home folder
        for path, file in tree.items():
            folder = self.root
            *above, name = path.split("/")
            for part in above:
                folder = folder.children.setdefault(part, Node(None, NOW, {}))
            if name == ".":
                folder.modified = file.modified
            elif file.data is None and name in folder.children:
                folder.children[name].modified = file.modified
            else:
                folder.children[name] = Node(file.data, file.modified, {} if file.data is None else None)

    def tree(self) -> dict[str, File]:
        """What the home folder holds, in the sandbox's form."""
        return {path: File(node.data, node.modified) for path, node in walk(self.root, "") if path}

    def parts(self, path: str) -> list[str]:
        """A path's names from the home folder on, "." and ".." and empty ones included."""
        if not path:
            raise Failure(MISSING)
        if path[0] != "/":
            return [*self.here, *path.split("/")]
        if path != HOME and not path.startswith(HOME + "/"):
            raise Unknown(f"the path {path}")
        return path[len(HOME):].split("/")

    def find(self, path: str) -> Node:
        """The node at a path. Raises Failure where the system would."""
        node, above = self.root, []
        for part in self.parts(path):
            if node.children is None:
                raise Failure(NO_FOLDER)
            if part == "..":
                if not above:
                    raise Unknown("what lies above the home folder")
                node = above.pop()
            elif part not in ("", "."):
                above.append(node)
                node = node.children.get(part)
                if node is None:
                    raise Failure(MISSING)
        return node

    def enter(self, path: str) -> None:
        """Make a folder the current one. Raises Failure."""
        if not self.find(path).is_folder:
            raise Failure(NO_FOLDER)
        names: list[str] = []
        for part in self.parts(path):            # there are no links here: what ".." means can be read off the path
            if part == "..":
                names.pop()
            elif part not in ("", "."):
                names.append(part)
        self.here = names

    def look(self, path: str) -> Node | None:
        """The node at a path, if there is one."""
        try:
            return self.find(path)
        except Failure:
            return None

    def exists(self, path: str) -> bool:
        return self.look(path) is not None

    def is_folder(self, path: str) -> bool:
        node = self.look(path)
        return node is not None and node.is_folder

    def parent(self, path: str) -> tuple[Node, str]:
        """The folder that holds, or would hold, a path, and the last name."""
        above, _, name = path.rstrip("/").rpartition("/")
        if name in ("", ".", ".."):
            raise Unknown(f"the path {path} here")
        folder = self.find(above or ("/" if path.startswith("/") else "."))
        if not folder.is_folder:
            raise Failure(NO_FOLDER)
        return folder, name

    def read(self, path: str) -> bytes:
        """A file's bytes."""
        if path == "/dev/null":
            return b""
        node = self.find(path)
        if node.is_folder:
            raise Failure(IS_FOLDER)
        return node.data

    def create(self, path: str) -> Node:
        """The file at a path, made if it is not there."""
        if node := self.look(path):
            if node.is_folder:
                raise Failure(IS_FOLDER)
            return node
        folder, name = self.parent(path)
        if path.endswith("/"):
            raise Failure(IS_FOLDER)
        folder.children[name] = Node(b"", NOW)
        folder.modified = NOW
        return folder.children[name]

    def remove(self, path: str) -> None:
        folder, name = self.parent(path)
        del folder.children[name]
        folder.modified = NOW


def walk(node: Node, path: str, *, after: bool = False) -> Iterator[tuple[str, Node]]:
    """Every (path, node) from here down, folders before what they hold (or after it), in the order of names."""
    if not after:
        yield path, node
    for name in sorted(node.children or ()):
        yield from walk(node.children[name], f"{path}/{name}" if path else name, after=after)
    if after:
        yield path, node
