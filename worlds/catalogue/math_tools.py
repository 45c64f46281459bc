"""Functions of `math` as tools: whole numbers, roots and triangles."""

import math

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import decimal, whole_number


@asked_for(
    "the factorial of {n}",
    """
    + What is the factorial of {n}?
    In how many orders can {n} books stand on a shelf?
    {n} runners start. How many different finishing orders are possible?
    Compute {n} factorial.
    How many ways are there to seat {n} guests in a row of {n} chairs?
    + Multiply all whole numbers from 1 to {n}.
    I keep forgetting what {n}! is. Can you tell me?
    Give me the number of permutations of {n} things.
    """,
    n=whole_number(3, 15),
)
def factorial(n: int) -> int:
    """The factorial of a whole number: the orders of n things.

    n: number from 0 to 1000
    """
    if not 0 <= n <= 1000:
        raise ValueError("n must be from 0 to 1000")
    return math.factorial(n)


@asked_for(
    "the greatest common divisor of {a} and {b}",
    """
    + What is the greatest common divisor of {a} and {b}?
    I want to cut a sheet of {a} by {b} mm into equal squares without waste. How large can they be?
    + Find the largest number that divides both {a} and {b}.
    gcd of {a} and {b}?
    By which number can I reduce the fraction {a}/{b}?
    There are {a} apples and {b} pears for identical baskets. At most how many baskets?
    + Give me the highest common factor of {a} and {b}.
    + Which is the biggest whole number that goes into {a} as well as into {b}?
    """,
    a=whole_number(12, 400),
    b=whole_number(12, 400),
)
def greatest_common_divisor(a: int, b: int) -> int:
    """The largest number that divides two others.

    a: first number
    b: second number
    """
    return math.gcd(a, b)


@asked_for(
    "the least common multiple of {a} and {b}",
    """
    + What is the least common multiple of {a} and {b}?
    One light flashes every {a} seconds, the other every {b}. After how many do both flash at once?
    + Find the smallest number that both {a} and {b} divide.
    lcm of {a} and {b}, please.
    Buses leave every {a} and every {b} minutes. How many minutes until they leave together again?
    I need the lowest common denominator for fractions over {a} and over {b}.
    Sausages come in packs of {a}, rolls in packs of {b}. What is the smallest equal number of both?
    Tell me the first number that is in the {a} times table and in the {b} times table.
    """,
    a=whole_number(4, 60),
    b=whole_number(4, 60),
)
def least_common_multiple(a: int, b: int) -> int:
    """The smallest number that two others divide.

    a: first number
    b: second number
    """
    return math.lcm(a, b)


@asked_for(
    "the number of ways to choose {k} of {n}",
    """
    In how many ways can I choose {k} people out of {n}?
    A team of {k} is picked from {n} players. How many teams are possible?
    How many different hands of {k} cards can be dealt from {n} cards?
    Out of {n} toppings I may take {k}. How many pizzas could I order?
    What is {n} choose {k}?
    Compute the binomial coefficient with {n} above and {k} below.
    The order does not matter: how many selections of {k} from {n} are there?
    We are {n} and need a committee of {k}. Count the possible committees.
    """,
    n=whole_number(6, 40),
    k=whole_number(2, 5),
)
def ways_to_choose(n: int, k: int) -> int:
    """The number of ways to choose k of n things, in any order.

    n: how many there are, up to 1000
    k: how many are chosen
    """
    if n > 1000:
        raise ValueError("n must be at most 1000")
    return math.comb(n, k)


@asked_for(
    "the hypotenuse over {a} and {b}",
    """
    + A right triangle has legs of {a} and {b}. How long is the hypotenuse?
    My room is {a} by {b} metres. How far is it from corner to corner?
    How long is the diagonal of a rectangle of {a} by {b}?
    I walked {a} km north and {b} km east. How far am I from home as the crow flies?
    The ladder stands {a} m from the wall and reaches {b} m up. How long is it?
    + Give me the length of the hypotenuse for legs {a} and {b}.
    A screen is {a} cm wide and {b} cm high. Find its diagonal.
    + By Pythagoras, what is the longest side if the short ones are {a} and {b}?
    """,
    a=decimal(1, 30),
    b=decimal(1, 30),
)
def hypotenuse(a: float, b: float) -> float:
    """The longest side of a right triangle.

    a: one leg
    b: the other leg
    """
    return round(math.hypot(a, b), 6)


@asked_for(
    "the square root of {x}",
    """
    + What is the square root of {x}?
    A square field has an area of {x} square metres. How long is one side?
    + Take the root of {x}.
    + Which number times itself gives {x}?
    I have {x} square tiles of a foot each; what is the side of the square they fill?
    Give me sqrt({x}).
    + Find the side of a square whose area is {x}.
    + Could you work out the square root of {x} for me?
    """,
    x=whole_number(2, 3000),
)
def square_root(x: float) -> float:
    """The square root of a number.

    x: number, not negative
    """
    return round(math.sqrt(x), 6)
