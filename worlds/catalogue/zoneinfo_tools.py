"""Functions of `zoneinfo` as tools: clocks in other places."""

from datetime import datetime
from random import Random
from zoneinfo import ZoneInfo

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import DATE, made_by, named

ZONES = {
    zone: zone.rpartition("/")[2].replace("_", " ")
    for zone in """
    Europe/London Europe/Paris Europe/Berlin Europe/Madrid Europe/Athens Europe/Lisbon Europe/Oslo
    Asia/Tokyo Asia/Dubai Asia/Singapore Asia/Seoul Africa/Cairo Africa/Lagos Africa/Nairobi
    America/New_York America/Chicago America/Denver America/Toronto Australia/Sydney
    """.split()
}
CITY = named(ZONES, "place")


def zone_of(name: str) -> ZoneInfo:
    """A time zone; raises ValueError if there is none of this name."""
    try:
        return ZoneInfo(name)
    except (KeyError, OSError):
        raise ValueError(f"no time zone {name}") from None


def draw_moment(rng: Random) -> str:
    day = DATE.draw(rng)
    return f"{day} {rng.randint(0, 23):02}:{rng.choice((0, 15, 30, 45)):02}"


def write_moment(rng: Random, value: str) -> str:
    day, _, clock = value.partition(" ")
    return f"{clock} on {DATE.write(rng, day)}"


MOMENT = made_by(draw_moment, write_moment)


@asked_for(
    "the time in {target} when it is {time} in {source}",
    """
    When it is {time} in {source}, what time is it in {target}?
    The call is at {time}, {source} time. When is that in {target}?
    Convert {time} from {source} to {target} time.
    My flight leaves {source} at {time}. What do the clocks in {target} show then?
    I live in {target}. The concert is streamed from {source} at {time}; when do I switch on?
    {time} in {source} is what local time in {target}?
    A colleague in {source} wrote to me at {time} her time. What time was it in {target}?
    Tell me the local date and time in {target} for {time} in {source}.
    """,
    time=MOMENT,
    source=CITY,
    target=CITY,
)
def convert_time(time: str, source: str, target: str) -> str:
    """A local time as the local time of another zone.

    time: YYYY-MM-DD HH:MM
    source: its time zone, e.g. Europe/Rome
    target: the other time zone
    """
    moment = datetime.strptime(time, "%Y-%m-%d %H:%M").replace(tzinfo=zone_of(source))
    return f"{moment.astimezone(zone_of(target)):%Y-%m-%d %H:%M}"


@asked_for(
    "the offset of {zone} from UTC on {day}",
    """
    + How many hours is {zone} ahead of UTC on {day}?
    + What is the UTC offset of {zone} on {day}, in hours?
    + By how many hours does {zone} differ from Greenwich time on {day}?
    The server logs UTC. How many hours do I add for {zone} on {day}?
    + Give me the offset from UTC in {zone} on {day}.
    Does {zone} have summer time on {day}? Just tell me its hours from UTC.
    + On {day}, UTC plus how many hours is {zone}?
    I have to set the clock of a camera in {zone}: what is the UTC offset there on {day}?
    """,
    zone=CITY,
    day=DATE,
)
def utc_offset(zone: str, day: str) -> float:
    """How many hours a zone is ahead of UTC at noon of a day.

    zone: the time zone, e.g. Europe/Rome
    day: date, YYYY-MM-DD
    """
    noon = datetime.strptime(f"{day} 12", "%Y-%m-%d %H").replace(tzinfo=zone_of(zone))
    return noon.utcoffset().total_seconds() / 3600


@asked_for(
    "the hours that {there} is ahead of {here} on {day}",
    """
    + How many hours is {there} ahead of {here} on {day}?
    I fly from {here} to {there} on {day}. By how much do I put my watch forward?
    + On {day}, what is the time difference from {here} to {there}?
    My son lives in {there}, I in {here}. How much later is it at his place on {day}?
    + What must be added to the time of {here} to get that of {there} on {day}?
    I work in {here} for a firm in {there}. How many hours before me do they go to lunch on {day}?
    + Compare the clocks on {day}: how many hours does {there} have over {here}?
    The match in {there} is on TV in {here} on {day}. How far is the stadium's clock ahead of mine?
    """,
    here=CITY,
    there=CITY,
    day=DATE,
)
def clock_difference(here: str, there: str, day: str) -> float:
    """How many hours later it is by the clocks of one zone than by another's.

    here: the zone to compare with, e.g. Europe/Rome
    there: the zone where it may be later
    day: date, YYYY-MM-DD
    """
    noon = datetime.strptime(f"{day} 12", "%Y-%m-%d %H").replace(tzinfo=zone_of(here))
    difference = noon.astimezone(zone_of(there)).utcoffset() - noon.utcoffset()
    return difference.total_seconds() / 3600
