"""Functions of `calendar` as tools: months, leap years and weekdays of a month."""

import calendar
from datetime import date
from typing import Literal

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import YEAR, named, one_of

MONTH = named({number: calendar.month_name[number] for number in range(1, 13)})
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@asked_for(
    "the number of days in {month} {year}",
    """
    How many days does {month} {year} have?
    I am paid by the day. How many days are in {month} {year}?
    Give me the length of {month} {year} in days.
    What was the number of days in {month} of {year}?
    How long is {month} in the year {year}, in days?
    I rent the boat for all of {month} {year}; for how many days must I pay?
    Number of days, {month} {year}, please.
    Find out how many days there are in {month} {year}.
    """,
    year=YEAR,
    month=MONTH,
)
def days_in_month(year: int, month: int) -> int:
    """The number of days in a month.

    year: the year, e.g. 2024
    month: the month, 1 to 12
    """
    if not 1 <= year <= 9999:
        raise ValueError("the year must be from 1 to 9999")
    return calendar.monthrange(year, month)[1]


@asked_for(
    "the number of leap years from {first} to {last}",
    """
    + How many leap years are there from {first} to {last}?
    + Count the leap years between {first} and {last}, both included.
    My grandmother lived from {first} to {last}. How many leap years did she see?
    Between {first} and {last}, how often was there a 29 February?
    + Give the number of leap years in the years {first} to {last}.
    For a table of birthdays I need the number of leap years from {first} through {last}.
    + From {first} up to and including {last}, how many years have 366 days?
    The clock was built in {first} and stopped in {last}. How many leap years did it run through?
    """,
    first=YEAR,
    last=YEAR,
)
def leap_years(first: int, last: int) -> int:
    """Count the leap years in a range of years.

    first: first year
    last: last year, included
    """
    if last < first:
        raise ValueError("the last year lies before the first")
    return calendar.leapdays(first, last + 1)


@asked_for(
    "the date of the first {weekday} in {month} {year}",
    """
    When is the first {weekday} in {month} {year}?
    The club meets on the first {weekday} of the month. Which date is that in {month} {year}?
    Give me the date of the first {weekday} of {month} {year}.
    What date does the first {weekday} of {month} {year} have?
    We vote on the first {weekday} in {month} {year}; please find the date.
    On what day does the first {weekday} come in {month} {year}?
    Find the earliest {weekday} in {month} {year}.
    The market is held on the first {weekday} each month. Tell me the day for {month} {year}.
    """,
    year=YEAR,
    month=MONTH,
    weekday=one_of(*WEEKDAYS),
)
def first_weekday(
    year: int,
    month: int,
    weekday: Literal["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
) -> str:
    """The date of the first such weekday in a month.

    year: the year, e.g. 2024
    month: the month, 1 to 12
    weekday: the weekday
    """
    first = date(year, month, 1)
    return str(first.replace(day=1 + (WEEKDAYS.index(weekday) - first.weekday()) % 7))
