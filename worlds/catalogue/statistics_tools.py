"""Functions of `statistics` as tools: figures that sum up a list of numbers."""

import statistics

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import bracketed, numbers, prices

AGES = numbers(18, 90)
SCORES = numbers(1, 100)


@asked_for(
    "the median of {values}",
    """
    + What is the median of {values}?
    The ages in our choir are {values}. Which age is the median?
    + Sort these and tell me the value in the middle: {values}.
    + Find the median for {values}.
    Rents in our street are {values}. What is the middle rent, so that half pay less?
    I have measured {values}; the median would be enough for me.
    + Median of {values}, please.
    An outlier spoils the average, so give me the median of {values} instead.
    """,
    values=AGES,
)
def median(values: list[float]) -> float:
    """The median of some numbers.

    values: the numbers
    """
    return statistics.median(values)


@asked_for(
    "the average of {values}",
    """
    + What is the average of {values}?
    I paid {values} for lunch this week. What did I pay on average?
    + Compute the mean of {values}.
    My marks are {values}. What is my average?
    These are the daily takings: {values}. Give me the arithmetic mean.
    + Add up {values} and divide by how many there are.
    + On average, how much is {values}?
    + Tell me the mean value of {values}.
    """,
    values=prices(2, 60),
)
def mean(values: list[float]) -> float:
    """The arithmetic mean of some numbers.

    values: the numbers
    """
    return round(statistics.fmean(values), 6)


@asked_for(
    "the standard deviation of {values}",
    """
    + What is the standard deviation of {values}?
    How much do {values} scatter? I want the standard deviation.
    My scale showed {values}. Find the sample standard deviation.
    + Calculate the standard deviation for {values}.
    For the lab report I need the standard deviation of the readings {values}.
    + Give me the spread of {values} as a standard deviation.
    The waiting times were {values}. What is their standard deviation?
    + Standard deviation, please: {values}.
    """,
    values=SCORES,
)
def standard_deviation(values: list[float]) -> float:
    """The sample standard deviation of some numbers.

    values: the numbers
    """
    return round(statistics.stdev(values), 6)


@asked_for(
    "the slope of the line through {x} and {y}",
    """
    + Fit a straight line: x is {x}, y is {y}. What is its slope?
    I measured y = {y} at x = {x}. How steep is the best line?
    + What is the slope of the regression line for x = {x} and y = {y}?
    Take x values {x} with y values {y} and give me the slope of the linear fit.
    After {x} hours the tank held {y} litres. By linear regression, how many litres per hour?
    + Find the gradient of the least-squares line with x {x} and y {y}.
    With x as {x} and y as {y}, how much does y grow per step of x on average?
    Draw the best line through the points with x {x} and y {y}; I only need the slope.
    """,
    x=bracketed(numbers(1, 30, 4, 4)),
    y=bracketed(numbers(1, 99, 4, 4)),
)
def slope(x: list[float], y: list[float]) -> float:
    """The slope of the least-squares line through points.

    x: the points' x
    y: the points' y, as many
    """
    return round(statistics.linear_regression(x, y).slope, 6)
