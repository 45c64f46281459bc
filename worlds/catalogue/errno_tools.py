"""Functions of `errno` as tools: what systems call their failures."""

import errno

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import made_by

# alike on all systems
ERROR_NUMBERS = [1, 2, 3, 4, 5, 7, 8, 9, 10, *range(12, 15), *range(16, 25), 27, 28, 32]


@asked_for(
    "the name of error {number}",
    """
    What is system error {number} called?
    The copier gave up with errno {number}. What does that stand for?
    My screen says "failed ({number})". Which error is it?
    I get the error code {number} when I open the file. Its symbolic name, please.
    Name the errno constant with the value {number}.
    The technician read out error {number} over the phone. Find what it is called.
    Which E-word belongs to the failure number {number}?
    For the report I need a name, not just error {number}.
    """,
    number=made_by(lambda rng: rng.choice(ERROR_NUMBERS)),
)
def error_name(number: int) -> str:
    """What a system error is called, by its number.

    number: errno
    """
    if number not in ERROR_NUMBERS:
        raise ValueError("the number has no name that all systems know")
    return errno.errorcode[number]


@asked_for(
    "the number of the error {name}",
    """
    Which number is {name}?
    A form asks for the errno, but the log just has {name}. What do I fill in?
    I am looking for the integer behind {name}.
    By which value does a program recognise {name}?
    {name} came up again. What code should I search my old logs for?
    Convert {name} to its error number.
    The gauge can display digits only. What would it display for {name}?
    Tell me the value of errno after {name}.
    """,
    name=made_by(lambda rng: errno.errorcode[rng.choice(ERROR_NUMBERS)]),
)
def error_number(name: str) -> int:
    """The errno of a system error, by its name.

    name: such as ENOENT
    """
    for number in ERROR_NUMBERS:
        if errno.errorcode[number] == name:
            return number
    raise ValueError(f"{name} is no error that all systems know")
