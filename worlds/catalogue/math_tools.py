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


@asked_for(
    "the area of a circle with a radius of {radius}",
    """
    + How large is a circle whose radius is {radius}?
    + Give me the area inside a circle of radius {radius}.
    A sprinkler in the middle of the lawn reaches {radius} m. How many square metres get wet?
    I want to carpet a round room, {radius} m from the middle to the wall. How much carpet is that?
    The goat is tied to a stake with {radius} m of rope. On how much ground can it graze?
    + Pi r squared, please, with {radius} for r.
    How much space does a round table take up if it measures {radius} cm from centre to edge?
    + The radius of a pond is {radius}. What is its surface?
    """,
    radius=decimal(0.5, 40),
)
def circle_area(radius: float) -> float:
    """The area of a circle.

    radius: from the centre to the edge
    """
    if not 0 <= radius <= 1e9:
        raise ValueError("the radius must be from 0 to 1000000000")
    return round(math.pi * radius * radius, 4)


@asked_for(
    "the volume of a cylinder of radius {radius} and height {height}",
    """
    + Compute the volume of a cylinder with radius {radius} and height {height}.
    A rain barrel is {height} dm high and has a radius of {radius} dm. How many litres does it hold?
    How much air is in a round tower, {radius} m in radius and {height} m tall?
    + What fits into a can if its radius is {radius} and its height {height}?
    The silo has a radius of {radius} m and walls of {height} m. How much grain can I store in it?
    A shaft goes down {height} m, {radius} m from middle to wall. How much earth was dug out?
    + How big is a drum, in cubic units, of radius {radius} that stands {height} high?
    + A cheese is a wheel with a radius of {radius}, {height} thick. How much cheese is that?
    """,
    radius=decimal(0.5, 12),
    height=decimal(1, 30),
)
def cylinder_volume(radius: float, height: float) -> float:
    """The content of a body with a round base and straight walls.

    radius: of its base
    height: of its walls
    """
    if not (0 <= radius <= 1e6 and 0 <= height <= 1e6):
        raise ValueError("radius and height must be from 0 to 1000000")
    return round(math.pi * radius * radius * height, 4)


@asked_for(
    "the number of doublings from {start} to {goal}",
    """
    + How many times must {start} be doubled to reach {goal}?
    A dish has {start} bacteria, and twice as many every hour. How many hours until {goal}?
    Duckweed covers {start} square metres of a lake of {goal} and spreads twofold daily. Days left?
    + Starting at {start}, I go times two again and again. After how many steps am I at {goal}?
    Each round of a chain letter has twice the readers. It began with {start}. Rounds until {goal}?
    + Keep doubling {start}. How often, until it is no longer below {goal}?
    Our club has {start} members and doubles every year. In how many years will there be {goal}?
    + At how many doublings does {start} get past {goal}, or equal to it?
    """,
    start=whole_number(1, 60),
    goal=whole_number(300, 90_000),
)
def doublings_needed(start: float, goal: float) -> int:
    """How often an amount must become twice as much until it is at least another.

    start: the first amount
    goal: what it is to reach
    """
    if not 0 < start <= goal or math.isinf(goal / start):
        raise ValueError("start must be above 0, and not above the goal")
    mantissa, exponent = math.frexp(goal / start)  # the logarithm to base 2, without rounding
    return exponent - 1 if mantissa == 0.5 else exponent


@asked_for(
    "the yearly growth from {start} to {end} in {years} years",
    """
    The village had {start} people and, {years} years later, {end}. What was its growth per year?
    Rent rose from {start} to {end} within {years} years. How many percent a year is that?
    + From {start} to {end} in {years} years: at what constant yearly rate?
    I put {start} into a fund and have {end} after {years} years. Which annual return did I get?
    + If something goes from {start} to {end} over {years} years, how fast does it grow each year?
    {years} years ago the shop sold {start} books, this year {end}. Average yearly change, please.
    + Which yearly percentage turns {start} into {end} when {years} years pass?
    Storks: first {start}, then {end}, {years} years on. Give the annual increase in percent.
    """,
    start=whole_number(400, 900),
    end=whole_number(901, 1600),
    years=whole_number(2, 25),
)
def yearly_growth(start: float, end: float, years: int) -> float:
    """The steady rate, in percent, at which one value became another.

    start: the value at first
    end: the value at last
    years: how long that took
    """
    if not (0 < start <= 1e15 and 0 < end <= 1e15 and 1 <= years <= 1000):
        raise ValueError("values must be above 0 and years from 1 to 1000")
    try:
        return round(100 * math.expm1((math.log(end) - math.log(start)) / years), 2)
    except OverflowError:
        raise ValueError("the growth is too large") from None


@asked_for(
    "the distance to the horizon from a height of {height} metres",
    """
    How far can I see over the sea from {height} m up?
    A lighthouse is {height} metres high. Up to how many kilometres off does a sailor see its lamp?
    How many km away is the horizon for someone at a height of {height} m?
    The crow's nest hangs {height} m above the water. What is the greatest view from there?
    + Tell me how far off the horizon is when the eye is at a height, in metres, of {height}.
    We are in a balloon, {height} m above flat land. Where does the view end, in kilometres?
    From a cliff of {height} m, at what distance does a ship sink out of sight?
    + With {height} as metres above the sea, how distant is the line where sky and water meet?
    """,
    height=whole_number(3, 900),
)
def horizon_distance(height: float) -> float:
    """How many kilometres away the earth's curve ends the view.

    height: metres above the ground
    """
    if not 0 <= height <= 1e6:
        raise ValueError("the height must be from 0 to 1000000 metres")
    kilometres = height / 1000
    return round(math.sqrt(kilometres * (2 * 6371 + kilometres)), 2)


@asked_for(
    "the angle of a ramp that rises {rise} over {run}",
    """
    + A ramp goes up by {rise} over a length of {run}. How steep is it in degrees?
    My roof rises {rise} cm over {run} cm of house. What is its pitch?
    The road climbs {rise} m while the map shows {run} m. At what angle?
    Can a wheelchair get up {rise} cm within {run} cm? Give me the incline in degrees.
    + For a rise of {rise} and a run of {run}, what is the angle to the floor?
    A slide starts {rise} cm above the sand, {run} cm away. How many degrees does it lean?
    + What gradient, as an angle, do stairs have that go {rise} up and {run} along?
    The tower is {rise} m tall and its shadow {run} m long. How high does the sun stand, in degrees?
    """,
    rise=whole_number(5, 90),
    run=whole_number(95, 600),
)
def ramp_angle(rise: float, run: float) -> float:
    """The angle between a slanting line and level ground, in degrees.

    rise: how far it goes up
    run: how far it goes along
    """
    if not (rise >= 0 and run > 0):
        raise ValueError("rise must not be negative and run must be above 0")
    return round(math.degrees(math.atan2(rise, run)), 2)
