"""Functions of `uuid` as tools: identifiers made of names, and what is in those made by a clock."""

import re
import uuid
from datetime import date, timedelta
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import NOUNS, Kind, made_by, write_plain

FIRST_CLOCK_DAY = date(1582, 10, 15)  # from which such clocks count
DAY_TICKS = 24 * 60 * 60 * 10**7  # in a day, of 100 ns each


def draw_stamped(rng: Random) -> str:
    """An identifier made by some device at some time since 2005."""
    days = (date(2005, 1, 1) - FIRST_CLOCK_DAY).days + rng.randrange(7000)
    ticks = days * DAY_TICKS + rng.randrange(DAY_TICKS)
    clock = (ticks % 2**32, (ticks >> 32) % 2**16, ticks >> 48)
    rest = (rng.randrange(64), rng.randrange(256), rng.randrange(2**40))
    return str(uuid.UUID(fields=(*clock, *rest), version=1))


def read_stamped(identifier: str) -> uuid.UUID:
    """An identifier that holds a time and a device."""
    found = uuid.UUID(identifier)
    if found.version != 1:
        raise ValueError("the identifier holds no time and no device")
    return found


def draw_named_host(rng: Random) -> str:
    return f"{rng.choice(NOUNS)}.example.{rng.choice(('org', 'com', 'net'))}"


def is_host(text: str) -> bool:
    return re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", text[:100]) is not None


STAMPED = made_by(draw_stamped)


@asked_for(
    "the day on which {identifier} was made",
    """
    On which day was {identifier} made?
    The scanner stamped {identifier} on the parcel. From what date is it?
    How old is the record {identifier}? The day it was created will do.
    Somebody claims {identifier} is from last week. When was it really generated?
    Read the date out of {identifier}.
    A ticket bears {identifier}, without a date next to it. When was it issued?
    Tell me the calendar day hidden in {identifier}.
    For the archive I must date the entry {identifier}.
    """,
    identifier=STAMPED,
)
def uuid_day(identifier: str) -> str:
    """The day a UUID with a clock in it was made.

    identifier: the UUID
    """
    return str(FIRST_CLOCK_DAY + timedelta(read_stamped(identifier).time // DAY_TICKS))


@asked_for(
    "the device that made {identifier}",
    """
    Which machine made {identifier}?
    The till printed {identifier}, but which of our tills? Its network address is in there.
    Get the MAC address out of {identifier}.
    Someone uploaded {identifier}. From what hardware did it come?
    Trace {identifier} back to the network card.
    I would like to know where {identifier} originated, as a hardware address.
    Whose computer is behind {identifier}? Six pairs of hex digits will tell me.
    Two scanners are in use; name the one that issued {identifier}, by its address.
    """,
    identifier=STAMPED,
)
def uuid_device(identifier: str) -> str:
    """The network card noted in a UUID.

    identifier: the UUID
    """
    digits = f"{read_stamped(identifier).node:012x}"
    return ":".join(digits[place : place + 2] for place in range(0, 12, 2))


@asked_for(
    "the UUID for {host}",
    """
    Which UUID belongs to {host}?
    + Sites are filed under 32 hex digits with dashes, made from the name. And {host}?
    + Derive an identifier from {host}, which is the name of a host.
    Give {host} its name-based UUID.
    Both offices must get the same UUID for {host} without asking each other. What is it?
    + Make a UUID out of {host}.
    I need the universally unique identifier of the site {host}.
    Under what identifier would {host} be filed, if the id follows from the name?
    """,
    host=Kind("text", draw_named_host, write_plain, is_host, "host"),
)
def uuid_of_host(host: str) -> str:
    """A UUID that follows from a host's name.

    host: such as www.example.org
    """
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, host))
