"""Values of real-looking arguments: how each kind is drawn, and how people write it in a request.

    value = DATE.draw(rng)           "2024-03-03", as the argument wants it
    DATE.write(rng, value)           "3 March 2024"

Only Python's standard library is imported here and in the catalogue: the process that executes the
tools reads these files.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from random import Random
from typing import Any


def anything(value: Any) -> bool:
    """Whether a value may stand for an argument of a kind without limits."""
    return True


@dataclass(frozen=True)
class Kind:
    """A kind of value."""

    type: str  # one of `value_type`'s: which results of other tools may stand in its place
    draw: Callable[[Random], Any]
    write: Callable[[Random, Any], str]
    fits: Callable[[Any], bool] = anything  # which of these results
    alluded: str = ""  # what it is where a request does not give it; empty: its type


def value_type(value: Any) -> str:
    """The type of a result, as chains connect them."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, list):
        if value and all(type(entry) in (int, float) for entry in value):
            return "numbers"
        return "words" if value and all(isinstance(entry, str) for entry in value) else "other"
    if isinstance(value, str):
        return "date" if is_date(value) else "text"
    return "other"


def is_date(text: str) -> bool:
    """Whether a text is a date as ISO 8601 writes it."""
    try:
        return len(text) == 10 and bool(date.fromisoformat(text))
    except ValueError:
        return False


# ----------------------------------------------------------------------------------------- numbers

SMALL = "zero one two three four five six seven eight nine ten eleven twelve".split()


def write_number(rng: Random, value: float) -> str:
    """7 or seven, 12500 or 12,500."""
    if type(value) is int and 0 <= value <= 12 and rng.random() < 0.3:
        return SMALL[value]
    if type(value) is int and value >= 10_000 and rng.random() < 0.5:
        return f"{value:,}"
    return str(value)


def whole_number(low: int, high: int) -> Kind:
    """An integer from low to high."""

    def fits(value: Any) -> bool:
        return low <= value <= high

    return Kind("integer", lambda rng: rng.randint(low, high), write_number, fits)


def decimal(low: float, high: float, digits: int = 1) -> Kind:
    """A number from low to high with so many decimal places."""

    def write(rng: Random, value: float) -> str:
        return str(value) if type(value) is int else f"{value:.{digits}f}"

    def fits(value: Any) -> bool:
        return low <= value <= high

    def draw(rng: Random) -> float:
        return round(rng.uniform(low, high), digits)

    return Kind("number", draw, write, fits)


def write_list(rng: Random, values: list) -> str:
    """4, 8 and 15; or 4, 8, 15; or [4, 8, 15]."""
    texts = [str(value) for value in values]
    form = rng.randrange(4)
    if form == 0 and len(texts) > 1:
        return f"{', '.join(texts[:-1])} and {texts[-1]}"
    return f"[{', '.join(texts)}]" if form == 1 else ", ".join(texts)


def bracketed(kind: Kind) -> Kind:
    """A kind of lists that are always written in brackets, for requests with two of them."""
    return replace(kind, write=lambda rng, values: f"[{', '.join(map(str, values))}]")


def numbers(low: int, high: int, shortest: int = 4, longest: int = 7) -> Kind:
    """A list of integers."""

    def draw(rng: Random) -> list[int]:
        return [rng.randint(low, high) for _ in range(rng.randint(shortest, longest))]

    def fits(value: Any) -> bool:
        return shortest <= len(value) <= 20

    return Kind("numbers", draw, write_list, fits)


def increasing(low: int, high: int) -> Kind:
    """A sorted list of different integers."""

    def draw(rng: Random) -> list[int]:
        return sorted(rng.sample(range(low, high + 1), rng.randint(4, 7)))

    def fits(value: Any) -> bool:
        return 2 <= len(value) <= 20 and value == sorted(value)

    return Kind("numbers", draw, write_list, fits)


def prices(low: int, high: int) -> Kind:
    """A list of prices with cents."""

    def draw(rng: Random) -> list[float]:
        return [rng.randint(low * 20, high * 20) / 20 for _ in range(rng.randint(3, 6))]

    def write(rng: Random, values: list[float]) -> str:
        return write_list(rng, [f"{value:.2f}" for value in values])

    def fits(value: Any) -> bool:
        return 2 <= len(value) <= 20

    return Kind("numbers", draw, write, fits)


# ------------------------------------------------------------------------------------------- dates


def write_date(rng: Random, value: str) -> str:
    """3 March 2024, March 3, 2024 or 2024-03-03."""
    day = date.fromisoformat(value)
    form = rng.randrange(5)
    if form < 2:
        return f"{day.day} {day:%B} {day.year}"
    if form < 4:
        return f"{day:%B} {day.day}, {day.year}"
    return value


def dates(first_year: int, last_year: int) -> Kind:
    """A date, as YYYY-MM-DD."""
    first = date(first_year, 1, 1)
    days = (date(last_year, 12, 31) - first).days

    def draw(rng: Random) -> str:
        return str(first + timedelta(rng.randint(0, days)))

    return Kind("date", draw, write_date)


DATE = dates(2015, 2030)
YEAR = Kind("year", lambda rng: rng.randint(1890, 2060), lambda rng, value: str(value))


# ------------------------------------------------------------------------------------------ choices


def write_plain(rng: Random, value: Any) -> str:
    """As it is."""
    return str(value)


def one_of(*choices: Any) -> Kind:
    """One of some values, written as they are."""
    return Kind("choice", lambda rng: rng.choice(choices), write_plain)


def named(names: dict[Any, str], alluded: str = "") -> Kind:
    """A value that a request calls by another name: {"tokyo": "Japan's capital"}."""
    values = list(names)
    return Kind(
        "choice", lambda rng: rng.choice(values), lambda rng, value: names[value], alluded=alluded
    )


def made_by(
    draw: Callable[[Random], Any], write: Callable[[Random, Any], str] = write_plain
) -> Kind:
    """A kind of its own, into which no other tool's result fits."""
    return Kind("own", draw, write)


# -------------------------------------------------------------------------------------------- texts

NOUNS = """
apple anchor autumn balcony banana basket bicycle blanket bottle bridge butter button cabbage
camera candle carpet castle cellar cherry chimney circle copper corner cotton cousin curtain
dinner doctor dragon elephant engine family farmer feather finger forest garden giraffe hammer
harbour honey island jacket kettle kitchen ladder lantern lemon letter library market meadow
mirror monkey morning mountain museum needle ocean orange orchard oven painter palace paper
pencil pepper picture pillow planet pocket potato rabbit railway river sailor saddle school
shadow silver sister spider station summer sunset table teacher temple thunder ticket tiger
tomato tunnel turtle umbrella valley village violin voyage wallet water weather whistle window
winter wizard yellow
""".split()
SENTENCES = """
The train to the coast leaves at noon.
My neighbour grows tomatoes on the roof.
We met in front of the old theatre.
Nobody had told the cook about the guests.
A cold wind came down from the hills.
Please water the plants while I am away.
The museum is closed on Mondays.
She keeps her letters in a blue box.
Our cat sleeps on the warm engine.
The bridge was built before the war.
He paid for the coffee with an old coin.
Two swans were waiting under the bridge.
The second bus was even later than the first.
I left my umbrella at the dentist.
There is no sugar left in the kitchen.
Her brother plays the violin at weddings.
The children built a castle out of boxes.
It rained for nine days without a break.
They painted the fence green last spring.
A stranger asked us for the way to the harbour.
The lecture starts ten minutes late.
Every window faces the river.
The dog next door barks at the moon.
You can see the island on a clear day.
Most of the apples fell in the storm.
Dinner will be ready in half an hour.
The library opens again in September.
He reads the paper from back to front.
My sister collects stamps from small countries.
The soup needs more pepper and less salt.
""".strip().splitlines()
TITLES = """
the old man and the lake
a short history of bread
letters from a quiet island
how to fix a bicycle
the last summer of the orchard
notes on winter birds
the girl who counted stars
cooking for a large family
a guide to the northern railways
the secret life of clocks
""".strip().splitlines()
PEOPLE = """
Anna Bruno Clara David Elena Farid Grace Hugo Irene Jonas Karim Laura Miguel Nadia Oscar Paula
Quentin Rosa Samuel Teresa Umar Vera Walter Yusuf Zoe
""".split()


def in_quotes(rng: Random, text: str) -> str:
    """A text in quotation marks."""
    mark = "'" if "'" not in text and rng.random() < 0.25 else '"'
    return f"{mark}{text}{mark}"


def backquoted(rng: Random, text: str) -> str:
    """A piece of code between backquotes."""
    return f"`{text}`"


def short_text(value: Any) -> bool:
    """Whether a text is short enough to be worked on further, and has letters."""
    return len(value) <= 120 and any(map(str.isalpha, value))


def texts(*choices: str, at_least: int = 0) -> Kind:
    """One of some texts, in quotation marks."""

    def fits(value: Any) -> bool:
        return short_text(value) and value.count(" ") >= at_least

    return Kind("text", lambda rng: rng.choice(choices), in_quotes, fits)


def draw_phrase(rng: Random) -> str:
    return " ".join(rng.sample(NOUNS, rng.randint(2, 4)))


WORD = texts(*NOUNS)
SENTENCE = texts(*SENTENCES, at_least=2)
TITLE = texts(*TITLES, at_least=1)
PHRASE = Kind("text", draw_phrase, in_quotes, short_text)

PASTED_FOLDERS = "etc usr var opt tmp media share users work old".split()
PASTED_ENDINGS = "md png zip json py log xlsx svg".split()


def draw_pasted(rng: Random) -> str:
    """What people paste: paths, addresses, codes, all to be copied sign by sign."""
    first, second, third = rng.sample(NOUNS, 3)
    folder = rng.choice(PASTED_FOLDERS)
    file = f"{second}{rng.choice('-_.')}{rng.randint(1, 99)}.{rng.choice(PASTED_ENDINGS)}"
    code = rng.randbytes(rng.randint(3, 9))
    forms = (
        f"/{folder}/{first}",
        f"/{folder}/{first}/{file}",
        f"/{first}/{third}/{folder}/{file}",
        f"~/{first}/{file}",
        file,
        f"https://{first}.org/{second}/{third}",
        f"{first}.{second}@{third}.com",
        f"{first[:3].upper()}-{rng.randint(10, 99_999)}",
        code.hex(),
        base64.b64encode(code).decode(),
        f"{rng.randint(0, 9)}.{rng.randint(0, 30)}.{rng.randint(0, 9)}",
        f"{first}={second};{third}",
    )
    return rng.choice(forms)


def write_copied(rng: Random, text: str) -> str:
    """In quotation marks; half of the texts without spaces stand alone."""
    return text if " " not in text and rng.random() < 0.5 else in_quotes(rng, text)


def or_pasted(kind: Kind) -> Kind:
    """A kind of texts, of which half are pasted from somewhere."""

    def draw(rng: Random) -> str:
        return draw_pasted(rng) if rng.random() < 0.5 else kind.draw(rng)

    return replace(kind, draw=draw, write=write_copied)


def word_list(shortest: int = 3, longest: int = 6) -> Kind:
    """A list of different words."""

    def draw(rng: Random) -> list[str]:
        return rng.sample(NOUNS, rng.randint(shortest, longest))

    def fits(value: Any) -> bool:
        return shortest <= len(value) <= 12 and all(map(short_text, value))

    return Kind("words", draw, write_list, fits)
