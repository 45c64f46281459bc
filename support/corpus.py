"""The text a run learns from: Python's own standard library, which lies on every machine that can
run this, or a user's folder.

Each document comes with a *kind* for every character, code or prose, which costs nothing: Python's
own tokenizer finds docstrings and comments, Markdown marks its code. The kinds are the split
embedding's weak labels (equation 4).

    python -m support.corpus        counts what is there
"""

import ast
import inspect
import io
import os
import re
import sysconfig
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config import UserError

PROSE, CODE = 0, 1
# Folders whose content is generated or repetitive.
SKIPPED_FOLDERS = set(
    "site-packages dist-packages test tests idle_test lib2to3 encodings turtledemo "
    "lib-dynload".split()
)
TEXT_SUFFIXES = set(
    ".py .pyi .md .rst .txt .json .toml .yaml .yml .sh .c .h .cpp .js .ts .html .css .sql".split()
)
PROSE_SUFFIXES = {".md", ".rst", ".txt", ""}


@dataclass
class Document:
    name: str  # relative path; a hash of it decides whether the document is held out
    text: str
    kinds: np.ndarray  # (len(text),) uint8, PROSE or CODE for every character


def python_kinds(source: str) -> np.ndarray:
    """PROSE inside docstrings and comments of Python source, CODE elsewhere; all CODE where the
    source does not tokenize.
    """
    kinds = np.full(len(source), CODE, np.uint8)
    starts = np.cumsum([0] + [len(line) for line in io.StringIO(source)])  # of lines, in characters
    statement_begins = True
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            docstring = token.type == tokenize.STRING and statement_begins
            if docstring or token.type == tokenize.COMMENT:
                (row, column), (end_row, end_column) = token.start, token.end
                kinds[starts[row - 1] + column : starts[end_row - 1] + end_column] = PROSE
            if token.type not in (tokenize.NL, tokenize.COMMENT):
                statement_begins = token.type in (
                    tokenize.NEWLINE,
                    tokenize.INDENT,
                    tokenize.DEDENT,
                )
    except (tokenize.TokenError, SyntaxError):
        kinds[:] = CODE
    return kinds


def markdown_kinds(text: str) -> np.ndarray:
    """CODE inside ``` fences, PROSE elsewhere."""
    kinds = np.full(len(text), PROSE, np.uint8)
    offset = 0
    fenced = False
    for line in text.splitlines(keepends=True):
        fence = line.lstrip().startswith("```")
        kinds[offset : offset + len(line)] = CODE if fenced or fence else PROSE
        fenced ^= fence
        offset += len(line)
    return kinds


def docstrings(source: str) -> str:
    """The module's documentation as a page of prose: each public name, its docstring below it;
    empty where nothing is documented.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    page = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if text := ast.get_docstring(node):
                page.append(f"{node.name}\n\n{text}" if hasattr(node, "name") else text)
    return "\n\n".join(page) + "\n" if page else ""


def library_files() -> dict[str, Path]:
    """The standard library's modules by name."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = {}
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            name
            for name in folders
            if name not in SKIPPED_FOLDERS and not name.startswith(("config-", "__"))
        )
        for path in (Path(folder, name) for name in sorted(names)):
            if path.suffix == ".py" and path.parent.name != "pydoc_data":
                found[str(path.relative_to(root))] = path
    return found


def standard_library() -> Iterator[Document]:
    """Every module's source, and beside it the page of its docstrings; last, Python's language
    reference (`help("if")`).
    """
    for name, path in library_files().items():
        try:
            source = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a handful of modules keep their authors' old encodings
        yield Document(name, source, python_kinds(source))
        if page := docstrings(source):
            # the same name: held out together with its module
            yield Document(name, page, np.full(len(page), PROSE, np.uint8))
    from pydoc_data import topics

    for topic, text in sorted(topics.topics.items()):
        text = inspect.cleandoc(text) + "\n"
        yield Document(f"topic {topic}", text, np.full(len(text), PROSE, np.uint8))


def folder_files(path: str | Path) -> dict[str, Path]:
    """The user's own text, by name: one file, or every text file below a folder.

    Raises UserError where there is none.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(
            f"no text at {path}: no such file or folder; give --data.path an existing one, "
            "or leave it out for the standard library"
        )
    if path.is_file():
        return {path.name: path}
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix in TEXT_SUFFIXES)
    found = {str(file.relative_to(path)): file for file in files}
    # .venv and .git hold others' text
    found = {name: file for name, file in found.items() if not re.search(r"(^|/)\.", name)}
    if not found:
        raise UserError(f"no text at {path}: no file ends in {' '.join(sorted(TEXT_SUFFIXES))}")
    return found


def folder(path: str | Path) -> Iterator[Document]:
    """The documents of the user's file or folder. Raises UserError for text that is not UTF-8."""
    for name, file in folder_files(path).items():
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{file}: byte {error.start} is not UTF-8; convert it (iconv -t utf-8) "
                "or leave it out"
            ) from None
        if file.suffix in (".py", ".pyi"):
            kinds = python_kinds(text)
        elif file.suffix == ".md":
            kinds = markdown_kinds(text)
        else:
            kinds = np.full(len(text), PROSE if file.suffix in PROSE_SUFFIXES else CODE, np.uint8)
        yield Document(name, text, kinds)


def files(path: str = "") -> dict[str, Path]:
    """The files that `documents` reads, by name."""
    return folder_files(path) if path else library_files()


def documents(path: str = "") -> Iterator[Document]:
    """The documents of a file or folder, or of the standard library where `path` is empty."""
    return folder(path) if path else standard_library()


if __name__ == "__main__":
    library = list(standard_library())
    characters = sum(len(d.text) for d in library)
    prose = sum(int((d.kinds == PROSE).sum()) for d in library)
    share = prose / characters
    print(
        f"{len(library):,} documents, {characters:,} characters, "
        f"{share:.0%} prose, {1 - share:.0%} code"
    )
