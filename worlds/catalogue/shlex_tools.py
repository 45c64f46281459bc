"""Functions of `shlex` as tools: command lines and their words."""

import shlex
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import NOUNS, PHRASE, Kind, backquoted

COMMAND_FORMS = (
    "cp 'my {0}.txt' backup/{1}",
    'grep -n "{0} {1}" notes.txt',
    "mv {0}.jpg '{1} {2}.jpg'",
    'tar -czf {0}.tgz "{1} {2}" {3}',
    "echo '{0} {1}' {2}",
)


def draw_command(rng: Random) -> str:
    return rng.choice(COMMAND_FORMS).format(*rng.sample(NOUNS, 4))


COMMAND = Kind("command", draw_command, backquoted)


@asked_for(
    "the words of the command {command}",
    """
    Into which words does a shell split {command}?
    Split the command line {command} into its arguments.
    I typed {command}. What does the program get as its argument list?
    Take {command} apart as bash would.
    Break {command} into words, minding the quotes.
    My script starts programs from a list. Turn {command} into that list.
    List the separate parts of {command}, quotes removed.
    How would {command} be read by a shell, word by word?
    """,
    command=COMMAND,
)
def split_command(command: str) -> list[str]:
    """The words of a command line, as a shell splits it.

    command: the command line
    """
    return shlex.split(command)


@asked_for(
    "{text} quoted for a shell",
    """
    + Quote {text} for use in a shell command.
    + How do I pass {text} to a program as one argument?
    A file is called {text}. What do I type after rm, properly quoted?
    + Make {text} safe for the command line.
    The blanks in {text} confuse bash. Write it so that it stays one word.
    + Wrap {text} the way a shell needs it.
    In a script, what stands for {text} so that nothing is split?
    Give me {text} with shell quotes as needed.
    """,
    text=PHRASE,
)
def quote_argument(text: str) -> str:
    """A text quoted as one word of a command line.

    text: the text
    """
    return shlex.quote(text)


@asked_for(
    "the number of arguments in {command}",
    """
    How many arguments does {command} pass to its program, not counting the program itself?
    Count what follows the program's name in {command}, quoted parts as one.
    The tool takes two arguments only. How many does {command} give it?
    Without the first word, how many words has {command} for a shell?
    What is the argument count of {command}?
    Number of arguments behind the command name in {command}?
    My script checks $#. What is it after {command}?
    Tell me how many parameters I hand over by {command}.
    """,
    command=COMMAND,
)
def count_arguments(command: str) -> int:
    """How many arguments a command line gives to its program.

    command: the command line
    """
    return max(len(shlex.split(command)) - 1, 0)
