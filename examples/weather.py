"""Weather tools: the climate of some towns, month by month. Example data, rounded.

    python sample.py --think --model out/smol/distilled --thinking.mode fast \
        --tools examples/weather.py --prompt "How warm does it get in Lisbon in July?"
"""

from calendar import month_name
from typing import Literal

# mean daily high in °C and rain in mm, January to December
CLIMATE = {
    "Oslo": (
        (0, 1, 5, 11, 17, 21, 23, 21, 16, 9, 4, 0),
        (58, 44, 49, 53, 69, 81, 94, 104, 83, 93, 85, 53),
    ),
    "Lisbon": (
        (15, 16, 18, 20, 22, 26, 28, 28, 26, 23, 18, 15),
        (100, 85, 53, 68, 53, 16, 4, 6, 28, 81, 114, 120),
    ),
    "Nairobi": (
        (26, 27, 27, 25, 24, 23, 23, 23, 26, 26, 24, 25),
        (64, 57, 93, 219, 177, 35, 18, 24, 28, 55, 154, 101),
    ),
    "Sydney": (
        (26, 26, 25, 23, 20, 18, 17, 18, 20, 22, 24, 25),
        (100, 117, 130, 126, 120, 131, 97, 80, 68, 76, 84, 77),
    ),
}
MONTHS = tuple(month_name[1:])  # January to December
Month = Literal[MONTHS]
Town = Literal["Oslo", "Lisbon", "Nairobi", "Sydney"]


def temperature(town: Town, month: Month) -> int:
    """The mean daily high of a town in a month, in degrees Celsius.

    town: the town
    month: the month
    """
    return CLIMATE[town][0][MONTHS.index(month)]


def rainfall(town: Town, month: Month) -> int:
    """The rain of a town in a month, in millimetres.

    town: the town
    month: the month
    """
    return CLIMATE[town][1][MONTHS.index(month)]


def to_fahrenheit(celsius: float) -> float:
    """Convert degrees Celsius to Fahrenheit.

    celsius: the temperature
    """
    return round(celsius * 9 / 5 + 32, 1)
