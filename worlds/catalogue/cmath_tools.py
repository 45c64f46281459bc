"""Functions of `cmath` as tools: directions, ways and turns on a map."""

import cmath
import math

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import decimal, whole_number

LEG = decimal(1, 40)
ANGLE = whole_number(5, 355)


def parts_of(place: complex) -> list[float]:
    """Both coordinates, rounded, without negative zeros. Raises ValueError for infinite ones."""
    if not cmath.isfinite(place):
        raise ValueError("the numbers are too large")
    return [round(place.real, 4) + 0.0, round(place.imag, 4) + 0.0]


@asked_for(
    "the bearing of a place {east} east and {north} north",
    """
    The lighthouse is {east} km east and {north} km north of us. What course do we steer?
    From the car park, the hut lies {east} m east and {north} m north. Which way do I walk?
    A plane has to go {east} miles east and {north} miles north. On which heading?
    My phone says the café is {east} steps to the east and {north} to the north. Compass degrees?
    + Which compass angle belongs to {east} on the east axis and {north} on the north axis?
    The treasure: {east} paces east, {north} paces north. Where does the needle have to point?
    + Going east by {east} and north by {north}, what is the direction in degrees?
    On the map the church is {east} cm right of the school and {north} cm above. Bearing?
    """,
    east=LEG,
    north=LEG,
)
def bearing_to(east: float, north: float) -> float:
    """The direction of a place in degrees, 0 for north and 90 for east.

    east: how far east it is
    north: how far north it is
    """
    if not east and not north:
        raise ValueError("a place that is here has no direction")
    return round(math.degrees(cmath.phase(complex(north, east))) % 360, 2) % 360


@asked_for(
    "the way east and north of {distance} on bearing {bearing}",
    """
    I walked {distance} km on a bearing of {bearing} degrees. How far east and north did I get?
    A ship sails {distance} miles on course {bearing}. Where is she then, east and north of here?
    A drone flies {distance} m at heading {bearing}. Give me its shift to the east and to the north.
    The pirate's note says {distance} paces, compass at {bearing}. What is that in x and y?
    + Split a move of {distance} on bearing {bearing} into a part to the east and one to the north.
    From home I cycle {distance} km towards {bearing} degrees. My coordinates, east first?
    Wind carried the balloon {distance} km in the direction {bearing}. How far east, how far north?
    + How far east and north does a way of {distance} lead, if the course is {bearing}?
    """,
    distance=decimal(2, 60),
    bearing=ANGLE,
)
def walk_offset(distance: float, bearing: float) -> list[float]:
    """How far east and how far north a straight way leads.

    distance: length of the way
    bearing: its direction in degrees, clockwise from north
    """
    if abs(bearing) > 1e6:
        raise ValueError("the bearing must be in degrees")
    place = cmath.rect(distance, math.radians(bearing))
    return parts_of(complex(place.imag, place.real))


@asked_for(
    "the point ({x}, {y}) turned by {degrees} degrees",
    """
    Turn the point ({x}, {y}) by {degrees} degrees to the left around the origin.
    On my garden plan the tree is at ({x}, {y}). I give the plan a left turn of {degrees}°. And now?
    A seat on the big wheel is at ({x}, {y}) from the hub. It goes on {degrees} degrees. Where to?
    Rotate ({x}, {y}) counter-clockwise by {degrees} degrees.
    The robot's arm ends at ({x}, {y}) and swings {degrees} degrees left. New position?
    I am drawing a star and have one corner, ({x}, {y}). The next is {degrees} degrees further on.
    Swing the vector ({x}, {y}) anticlockwise through {degrees} degrees. What becomes of it?
    If a record spins backwards by {degrees} degrees, where does a speck at ({x}, {y}) go?
    """,
    x=LEG,
    y=LEG,
    degrees=ANGLE,
)
def turn_point(x: float, y: float, degrees: float) -> list[float]:
    """A point after it went round the origin, against the clock.

    x: its first coordinate
    y: its second coordinate
    degrees: the angle
    """
    if abs(degrees) > 1e6:
        raise ValueError("the angle must be in degrees")
    return parts_of(complex(x, y) * cmath.rect(1, math.radians(degrees)))
