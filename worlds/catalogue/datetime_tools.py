"""Functions of `datetime` as tools: days and times of day."""

from datetime import date, datetime, timedelta

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import DATE, dates, made_by, whole_number

CLOCK = made_by(lambda rng: f"{rng.randint(0, 23):02}:{rng.choice((0, 5, 10, 15, 20, 40, 45)):02}")


@asked_for(
    "the number of days from {start} to {end}",
    """
    + How many days lie between {start} and {end}?
    I leave on {start} and come back on {end}. How many days is that?
    + Count the days from {start} to {end}.
    The course runs from {start} to {end}; tell me its length in days.
    If I start saving on {start} and stop on {end}, for how many days do I save?
    + {start} until {end}: how many days?
    + I have to know how far apart {start} and {end} are, in days.
    Our lease begins on {start} and ends on {end}. Give me the number of days.
    """,
    start=DATE,
    end=DATE,
)
def days_between(start: str, end: str) -> int:
    """Count the days from one date to another.

    start: first date, YYYY-MM-DD
    end: last date, YYYY-MM-DD
    """
    days = (date.fromisoformat(end) - date.fromisoformat(start)).days
    if days < 0:
        raise ValueError("the end lies before the start")
    return days


@asked_for(
    "the date {days} days after {start}",
    """
    What date is {days} days after {start}?
    The bill is dated {start} and has to be paid within {days} days. What is the last day?
    Add {days} days to {start}.
    + From {start}, go forward by {days}, counted in days. Which date is it?
    My visa was issued on {start} and is good for {days} days; when does it run out?
    Count {days} days forward from {start} and give me the date.
    The plants went in on {start}. They need {days} days, so when are they ripe?
    + If I start on {start} and wait as many days as {days}, which date do I reach?
    """,
    start=DATE,
    days=whole_number(3, 400),
)
def add_days(start: str, days: int) -> str:
    """The date some days after another.

    start: date, YYYY-MM-DD
    days: days to add
    """
    return str(date.fromisoformat(start) + timedelta(days))


@asked_for(
    "the weekday of {day}",
    """
    + What day of the week is {day}?
    + On which weekday does {day} fall?
    Was it a Monday, a Tuesday or what on {day}?
    I was told to come on {day}, but not which weekday that is. Which one?
    + Tell me the weekday of {day}.
    My calendar is torn: find out what day of the week belongs to {day}.
    Is {day} on a weekend? Just name the day of the week.
    + Look up which weekday {day} is.
    """,
    day=dates(1950, 2040),
)
def weekday_of(day: str) -> str:
    """The weekday of a date, as an English word.

    day: date, YYYY-MM-DD
    """
    return f"{date.fromisoformat(day):%A}"


@asked_for(
    "the calendar week of {day}",
    """
    + Which calendar week is {day} in?
    + What is the ISO week number of {day}?
    The plumber says he comes in the week of {day}. What number has that week?
    + Give me the week number for {day}.
    + In which week of the year does {day} fall?
    Our shift plan goes by week numbers. Which one holds {day}?
    + Find the number of the week that has {day} in it.
    + I need the calendar week belonging to {day}.
    """,
    day=DATE,
)
def week_number(day: str) -> int:
    """The ISO calendar week of a date.

    day: date, YYYY-MM-DD
    """
    return date.fromisoformat(day).isocalendar().week


@asked_for(
    "the place of {day} in its year",
    """
    + Which day of the year is {day}, counted from 1 January?
    + If 1 January is day 1, what number does {day} have?
    Number the days of the year; which number is on {day}?
    The tide table only has day numbers. Under what number do I find {day}?
    How many days of its year have begun by {day}?
    + Give the day-of-year number of {day}.
    Our logbook counts days from New Year. What does it show on {day}?
    + Work out the ordinal day of {day} within its year.
    """,
    day=DATE,
)
def day_of_year(day: str) -> int:
    """The place of a date in its year; 1 is 1 January.

    day: date, YYYY-MM-DD
    """
    return date.fromisoformat(day).timetuple().tm_yday


@asked_for(
    "the time {minutes} minutes after {start}",
    """
    + What time is it {minutes} minutes after {start}?
    The film starts at {start} and runs for {minutes} minutes. When is it over?
    I put the bread in at {start}; it needs {minutes} minutes. When do I take it out?
    + Add {minutes} minutes to {start}.
    We set off at {start} and drive {minutes} minutes, so when do we arrive?
    Move my {start} appointment back by {minutes} minutes. What is the new time?
    Clock says {start}. What will it say in {minutes} minutes?
    Tell me the time of day {minutes} minutes later than {start}.
    """,
    start=CLOCK,
    minutes=whole_number(5, 300),
)
def add_minutes(start: str, minutes: int) -> str:
    """The time of day some minutes later.

    start: time of day, HH:MM
    minutes: minutes to add
    """
    return f"{datetime.strptime(start, '%H:%M') + timedelta(minutes=minutes):%H:%M}"
