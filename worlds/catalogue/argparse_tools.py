"""Functions of `argparse` as tools: orders with options, such as --milk oat."""

import argparse
import shlex
from random import Random
from typing import Any, NoReturn

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import backquoted, made_by

DRINK_OPTIONS = {
    "milk": "oat soy cow almond".split(),
    "size": "small medium large".split(),
    "cup": "paper glass china".split(),
    "shots": "1 2 3 4".split(),
}
DRINKS = "coffee tea cocoa latte espresso".split()
TOPPINGS = "olives ham basil onion tuna corn garlic pepper egg spinach".split()
DRINK_FLAGS = {"s": "sugar", "i": "ice", "c": "cream"}


class OrderParser(argparse.ArgumentParser):
    """A parser that raises ValueError where others end the program."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def parsed_option(command: str, *names: str, **settings: Any) -> Any:
    """What an option, the only one that is known, has in a command; None if it is missing."""
    if len(command) > 500:
        raise ValueError("a command may have 500 characters")
    parser = OrderParser(add_help=False, allow_abbrev=False)
    parser.add_argument(*names, dest="wanted", **settings)
    return parser.parse_known_args(shlex.split(command))[0].wanted


def long_option(option: str) -> str:
    name = option.removeprefix("--")
    if not name.isidentifier() or len(name) > 40:
        raise ValueError("an option is a word")
    return f"--{name}"


def draw_drink(rng: Random) -> str:
    """Such as latte --milk oat --size small."""
    options = rng.sample(list(DRINK_OPTIONS), rng.randint(2, 3))
    written = [f"--{key}{rng.choice(' =')}{rng.choice(DRINK_OPTIONS[key])}" for key in options]
    return " ".join([rng.choice(DRINKS), *written])


def draw_pizza(rng: Random) -> str:
    """Such as pizza --add ham --without olives --add corn."""
    toppings = rng.sample(TOPPINGS, rng.randint(3, 5))
    keys = ["add", "without", *(rng.choice(("add", "add", "without")) for _ in toppings[2:])]
    rng.shuffle(keys)
    return " ".join(["pizza", *(f"--{k} {t}" for k, t in zip(keys, toppings, strict=True))])


def draw_drink_flags(rng: Random) -> str:
    """Such as tea -ss -i."""
    flags = [
        letter * rng.randint(1, 4) for letter in rng.sample(list(DRINK_FLAGS), rng.randint(1, 3))
    ]
    if rng.random() < 0.5:
        return f"{rng.choice(DRINKS)} -{''.join(flags)}"
    return " ".join([rng.choice(DRINKS), *(f"-{flag}" for flag in flags)])


@asked_for(
    "the {option} in {command}",
    """
    What {option} does {command} ask for?
    The order came in as {command}. Which {option} is it?
    Tell me the {option} chosen in {command}.
    A customer typed {command} at the machine. I am looking for the {option}.
    Parse {command} and return the setting of {option}.
    In {command}, what stands behind --{option}?
    Our barista gets {command} on her screen. What should she note down for {option}?
    Read {command}: the {option}, please.
    """,
    command=made_by(draw_drink, backquoted),
    option=made_by(lambda rng: rng.choice(list(DRINK_OPTIONS))),
)
def option_value(command: str, option: str) -> str:
    """What a command sets an option to.

    command: as in "tea --milk oat"
    option: such as milk
    """
    found = parsed_option(command, long_option(option))
    if found is None:
        raise ValueError(f"the command has no {option}")
    return found


@asked_for(
    "all of --{option} in {command}",
    """
    Collect everything after --{option} in {command}.
    The kitchen got {command}. List each thing given with --{option}.
    How was --{option} used in {command}? I want all of it.
    In {command} the option --{option} may come more than once. What does it add up to?
    Go through {command} and gather whatever --{option} names.
    From {command}, make one list of what --{option} says.
    Someone ordered {command}. Which toppings are behind --{option}?
    Write down, in order, every --{option} of {command}.
    """,
    command=made_by(draw_pizza, backquoted),
    option=made_by(lambda rng: rng.choice(("add", "without"))),
)
def option_values(command: str, option: str) -> list[str]:
    """All that a command gives with an option that is repeated.

    command: as in "pizza --add ham --add corn"
    option: such as add
    """
    found = parsed_option(command, long_option(option), action="append")
    if found is None:
        raise ValueError(f"the command has no {option}")
    return found


@asked_for(
    "how often -{flag} stands in {command}",
    """
    How many times is -{flag} given in {command}?
    Each -{flag} in {command} is one spoonful. How many spoons?
    Count the {flag} switches of {command}.
    With {command}, how far is the -{flag} setting turned up?
    The vending machine reads {command}. What is the count for -{flag}?
    A friend ordered {command}. How strong is the -{flag} in it, as a number?
    Repeating -{flag} means more of it. What amount does {command} come to?
    Number of -{flag} in {command}, joined ones too.
    """,
    command=made_by(draw_drink_flags, backquoted),
    flag=made_by(lambda rng: rng.choice(list(DRINK_FLAGS))),
)
def flag_count(command: str, flag: str) -> int:
    """How often a command has a switch of one letter.

    command: as in "tea -ss -i"
    flag: such as s
    """
    if len(flag) != 1 or not flag.isalpha():
        raise ValueError("a flag is one letter")
    # the others are known as well, since they may be joined to it
    parser = OrderParser(add_help=False, allow_abbrev=False)
    for letter in {*filter(str.isalpha, command[:500]), flag}:
        parser.add_argument(f"-{letter}", dest=letter, action="count", default=0)
    found = vars(parser.parse_known_args(shlex.split(command[:500]))[0])[flag]
    if not found:
        raise ValueError(f"the command has no {flag}")
    return found
