"""Functions of `signal` as tools: how programs were told to end."""

import signal

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import made_by

# alike on all systems
SIGNAL_NAMES = "HUP INT QUIT ILL TRAP ABRT FPE KILL SEGV PIPE ALRM TERM".split()
SIGNAL_NUMBERS = {f"SIG{name}": int(getattr(signal, f"SIG{name}", 0)) for name in SIGNAL_NAMES}
STATUS_BASE = 128  # what a shell adds to a signal's number


@asked_for(
    "the number of {name}",
    """
    What number does {name} have?
    I want to write kill with a number instead of {name}. Which one?
    Look up the numeric value of {name}.
    The manual page only says {name}; my script takes an integer. Translate it.
    {name} as a number, please.
    In a quiz on Unix: which number stands for {name}?
    My supervisor program lists signals by number. Under which do I find {name}?
    How does one send {name} if only digits are allowed?
    """,
    name=made_by(lambda rng: rng.choice(list(SIGNAL_NUMBERS))),
)
def signal_number(name: str) -> int:
    """The number of a signal.

    name: such as SIGTERM
    """
    if name not in SIGNAL_NUMBERS:
        raise ValueError(f"name must be one of {', '.join(SIGNAL_NUMBERS)}")
    return SIGNAL_NUMBERS[name]


@asked_for(
    "the signal behind exit status {status}",
    """
    My program ended with status {status}. What killed it?
    The job on the server stopped, exit code {status}. Which signal was that?
    Why did the night run die? The log says it exited with {status}.
    An exit status of {status} stands for which signal?
    The container is gone and left {status}. Name the signal.
    $? is {status}. Who or what ended my command?
    Explain the return code {status}, as shells report it after a signal.
    Did it crash or was it stopped? All I have is the exit code {status}.
    """,
    status=made_by(lambda rng: STATUS_BASE + rng.choice(list(SIGNAL_NUMBERS.values()))),
)
def ended_by(status: int) -> str:
    """The signal that ended a program.

    status: its exit status, above 128
    """
    for name, number in SIGNAL_NUMBERS.items():
        if number == status - STATUS_BASE:
            return name
    raise ValueError("the status stands for no signal that all systems have")
