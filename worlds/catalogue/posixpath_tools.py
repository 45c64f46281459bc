"""Functions of `posixpath` as tools: names and folders in paths of files."""

import posixpath
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import NOUNS, Kind, made_by, write_plain

FOLDERS = "home srv data photos music backup projects archive reports invoices".split()
FILE_ENDINGS = "txt pdf csv jpg png mp3 tar.gz html docx".split()


def draw_folder(rng: Random) -> str:
    return "/" + "/".join([*rng.sample(FOLDERS, rng.randint(1, 3)), rng.choice(NOUNS)])


def draw_path(rng: Random) -> str:
    number = rng.choice(("", f"-{rng.randint(1, 40)}", f"_{rng.randint(2015, 2030)}"))
    return f"{draw_folder(rng)}/{rng.choice(NOUNS)}{number}.{rng.choice(FILE_ENDINGS)}"


def draw_detour(rng: Random) -> str:
    """A path that goes up again: /data/music/../photos"""
    first, second, third = rng.sample(FOLDERS, 3)
    return f"/{first}/{second}/{rng.choice(('..', '../.', './..'))}/{third}/{rng.choice(NOUNS)}"


FILE_PATH = Kind("text", draw_path, write_plain, lambda value: value.startswith("/"), "path")
FOLDER_PATH = made_by(draw_folder)


@asked_for(
    "the file name in {path}",
    """
    + What is the name of the file {path}, without the folders?
    + Strip the folders off {path}.
    Which file name is at the end of {path}?
    I only want to show the file's own name, not all of {path}. What is it?
    + Take {path} and give me just the last part.
    The list has full paths like {path}. How is the file itself called?
    + Give the base name of {path}.
    Cut everything up to the last slash from {path}.
    """,
    path=FILE_PATH,
)
def file_name(path: str) -> str:
    """The last part of a path.

    path: the path
    """
    return posixpath.basename(path)


@asked_for(
    "the folder of {path}",
    """
    + In which folder is {path}?
    + What is the parent folder of {path}?
    + Tell me the directory that holds {path}.
    I want to open the folder around {path}. What is its path?
    + Drop the last part of {path} and keep the folder.
    Where does {path} live? Name its folder.
    Give me the directory name of {path}.
    One level up from {path} is what?
    """,
    path=FILE_PATH,
)
def parent_folder(path: str) -> str:
    """The folder that holds a path.

    path: the path
    """
    return posixpath.dirname(path)


@asked_for(
    "the ending of {path}",
    """
    + What ending does {path} have?
    Which extension has the file {path}?
    + Find the file extension in {path}.
    To pick a program I must know the extension of {path}.
    Show me what comes from the last dot on in {path}.
    Is {path} a text, an image or what? The extension will do.
    + Give the suffix of {path}, with its dot.
    {path}: which extension is that?
    """,
    path=FILE_PATH,
)
def file_extension(path: str) -> str:
    """The ending of a file's name, with its dot.

    path: the path
    """
    return posixpath.splitext(path)[1]


@asked_for(
    "the path from {start} to {path}",
    """
    How do I get from the folder {start} to {path}, as a relative path?
    + Write {path} relative to {start}.
    I am in {start}. Which relative path leads to {path}?
    + Express {path} as seen from {start}.
    A link inside {start} should point to {path}. What relative path do I write?
    Starting in {start}, give me the way to {path} with dots and slashes.
    Turn {path} into a path relative to the directory {start}.
    Relative path, please: from {start}, to {path}.
    """,
    start=FOLDER_PATH,
    path=FILE_PATH,
)
def relative_path(start: str, path: str) -> str:
    """A path as seen from a folder.

    start: the folder
    path: the path to reach
    """
    return posixpath.relpath(path, start)


@asked_for(
    "{path} without detours",
    """
    Clean up the path {path}.
    Where does {path} really lead, without the dots?
    Simplify {path} by working out each .. in it.
    Which folder is {path} once the detours are gone?
    A script printed {path}. What is that in plain form?
    Normalise the path {path}.
    I followed {path} step by step. In which place am I?
    Write {path} with no dots and doubled slashes.
    """,
    path=made_by(draw_detour),
)
def normalise_path(path: str) -> str:
    """A path with its dots worked out.

    path: the path
    """
    return posixpath.normpath(path)
