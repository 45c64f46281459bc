"""Functions of `stat` as tools: who may do what with a file on Linux."""

import re
import stat
from random import Random
from typing import Literal

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import made_by, one_of

MODES = "400 440 444 555 600 640 644 660 664 666 700 711 740 744 750 755 764 770 775".split()
FLAGS = {
    "read": (stat.S_IRUSR, stat.S_IRGRP, stat.S_IROTH),
    "write": (stat.S_IWUSR, stat.S_IWGRP, stat.S_IWOTH),
    "run": (stat.S_IXUSR, stat.S_IXGRP, stat.S_IXOTH),
}
MODE = made_by(lambda rng: rng.choice(MODES))


def mode_of(digits: str) -> int:
    """Raises ValueError unless these are three octal digits."""
    if not re.fullmatch("[0-7]{3}", digits):
        raise ValueError("a mode has three digits from 0 to 7")
    return int(digits, 8)


def draw_letters(rng: Random) -> str:
    return stat.filemode(int(rng.choice(MODES), 8))[1:]


@asked_for(
    "the permission letters of mode {mode}",
    """
    What does chmod {mode} look like in the list of ls?
    Write the mode {mode} with r, w and x.
    The guide says to set {mode}. Which row of letters will I see then?
    Spell out the permissions {mode} in letters.
    I set {mode} on my diary. Show me the nine signs that a listing has for it.
    Translate {mode} from octal into rwx notation.
    In a screenshot of the terminal, how would a file with rights {mode} start, after the dash?
    My backup program wants letters such as rw-r--r--, but I only know {mode}.
    """,
    mode=MODE,
)
def permission_letters(mode: str) -> str:
    """A file's rights as r, w, x and dashes.

    mode: the rights as three octal digits, e.g. 640
    """
    return stat.filemode(mode_of(mode))[1:]


@asked_for(
    "the octal mode for {letters}",
    """
    Which number do I give to chmod to get {letters}?
    The listing says {letters}. What is that as three digits?
    Convert {letters} to octal.
    I want a second file with the same rights as this one, {letters}. chmod what?
    Turn the permission string {letters} into its number.
    A script of mine compares modes such as 644. What should it expect for {letters}?
    In front of the file's name I read {letters}. Tell me the mode in digits.
    How many hundreds, tens and ones is {letters}, in the old Unix way?
    """,
    letters=made_by(draw_letters),
)
def permission_digits(letters: str) -> str:
    """A file's rights as three octal digits.

    letters: the rights as r, w, x and dashes, e.g. rw-r-----
    """
    if not re.fullmatch("(?:[r-][w-][x-]){3}", letters):
        raise ValueError("rights are nine letters such as rw-r-----")
    mode = 0
    for place, letter in enumerate(letters):
        if letter != "-":
            mode |= FLAGS[("read", "write", "run")[place % 3]][place // 3]
    return f"{mode:03o}"


@asked_for(
    "those who may {action} a file of mode {mode}",
    """
    Who may {action} a file of mode {mode}?
    With permissions {mode}, which of owner, group and others can {action} it?
    I protected my letters with {mode}. Who is still able to {action} them?
    Check {mode}: list everybody who is allowed to {action}.
    Our shared script is set to {mode}. Which people can {action} it?
    My flatmate uses the same computer. The file has {mode}. To {action} it, who must one be?
    Among owner, group and others, name those that {mode} lets {action}.
    The admin asks who could {action} the salary list. Its mode is {mode}.
    """,
    mode=MODE,
    action=one_of("read", "write", "run"),
)
def who_may(mode: str, action: Literal["read", "write", "run"]) -> list[str]:
    """The people to whom a file is open: owner, group, others.

    mode: the rights as three octal digits, e.g. 640
    action: what they want to do with it
    """
    bits = mode_of(mode)
    people = ("owner", "group", "others")
    return [who for who, flag in zip(people, FLAGS[action], strict=True) if bits & flag]
