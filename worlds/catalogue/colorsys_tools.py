"""Functions of `colorsys` as tools: colours on screens."""

import colorsys

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import made_by, whole_number

HEX = made_by(
    lambda rng: f"#{rng.randrange(256):02x}{rng.randrange(256):02x}{rng.randrange(256):02x}"
)


def channels(colour: str) -> list[float]:
    """Red, green and blue from 0 to 1."""
    digits = colour.removeprefix("#")
    if len(digits) != 6:
        raise ValueError("a colour has six hexadecimal digits")
    return [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]


def as_hex(values: tuple[float, ...]) -> str:
    return "#" + "".join(f"{round(value * 255):02x}" for value in values)


@asked_for(
    "the hue of {colour}",
    """
    What hue does the colour {colour} have, in degrees?
    Where on the colour wheel is {colour}?
    Give me the hue of {colour} in degrees.
    My lamp is set by hue. What do I choose for {colour}?
    Find the hue angle of {colour}.
    The designer picked {colour}; I have to enter its hue, 0 to 360.
    {colour}: how many degrees on the colour circle?
    Work out the hue for the web colour {colour}.
    """,
    colour=HEX,
)
def hue_of(colour: str) -> int:
    """The hue of a colour in degrees.

    colour: the colour, #rrggbb
    """
    return round(colorsys.rgb_to_hls(*channels(colour))[0] * 360)


@asked_for(
    "the lightness of {colour}",
    """
    How light is the colour {colour}, in percent?
    What is the HSL lightness of {colour}?
    Is {colour} dark enough for white text? Give me its lightness in percent.
    Tell me the lightness of {colour}.
    My e-reader shows only grey. How bright would {colour} be as HSL lightness?
    Find the percentage of lightness in {colour}.
    Between black at 0 and white at 100, where is {colour}?
    Compute the lightness value of {colour}.
    """,
    colour=HEX,
)
def lightness_of(colour: str) -> int:
    """The HSL lightness of a colour in percent.

    colour: the colour, #rrggbb
    """
    return round(colorsys.rgb_to_hls(*channels(colour))[1] * 100)


@asked_for(
    "the colour with hue {hue}, saturation {saturation} and brightness {brightness}",
    """
    Which hex colour has hue {hue}, saturation {saturation} and brightness {brightness}?
    Mix me a colour of hue {hue} degrees, {saturation}% saturated and {brightness}% bright.
    Convert HSV {hue}, {saturation}, {brightness} to hex.
    My paint program shows H {hue}, S {saturation}, V {brightness}. What is the hex code?
    I want {hue} degrees on the wheel at {saturation}% saturation, {brightness}% value, as #rrggbb.
    Turn hue {hue}, saturation {saturation}%, value {brightness}% into a web colour.
    For the style sheet: what is hsv({hue}, {saturation}%, {brightness}%) in hex?
    What web colour is the lamp at hue {hue}, saturation {saturation}, brightness {brightness}?
    """,
    hue=whole_number(0, 359),
    saturation=whole_number(5, 100),
    brightness=whole_number(5, 100),
)
def colour_from_hsv(hue: int, saturation: int, brightness: int) -> str:
    """The colour with a hue, a saturation and a brightness (HSV).

    hue: degrees
    saturation: percent
    brightness: percent
    """
    return as_hex(colorsys.hsv_to_rgb(hue / 360, saturation / 100, brightness / 100))


@asked_for(
    "the complement of {colour}",
    """
    What is the complementary colour of {colour}?
    Which colour is opposite {colour} on the wheel?
    My walls are {colour}. Give me the colour that contrasts most in hue.
    Turn the hue of {colour} by 180 degrees.
    Find the counterpart of {colour} on the colour circle.
    The logo is {colour}; its links should have the complement. Which hex code?
    Show me the opposite hue to {colour}, as hex.
    Complement of {colour}, please.
    """,
    colour=HEX,
)
def complement_of(colour: str) -> str:
    """The colour on the other side of the colour wheel.

    colour: the colour, #rrggbb
    """
    hue, lightness, saturation = colorsys.rgb_to_hls(*channels(colour))
    return as_hex(colorsys.hls_to_rgb((hue + 0.5) % 1, lightness, saturation))


@asked_for(
    "the grey version of {colour}",
    """
    Our printer has black ink only. What does {colour} turn into on paper?
    Which grey is as bright to the eye as {colour}?
    Convert {colour} to greyscale.
    The photo is black and white now. What became of the {colour} in it?
    Take all colour out of {colour} and give me the hex code that is left.
    A disabled button should be {colour} turned grey. What do I write in the style sheet?
    How would {colour} look in an old film without colours, as #rrggbb?
    Desaturate {colour} by its luma.
    """,
    colour=HEX,
)
def grey_of(colour: str) -> str:
    """The neutral tone that has the same luma (YIQ).

    colour: the colour, #rrggbb
    """
    luma = colorsys.rgb_to_yiq(*channels(colour))[0]
    return as_hex((luma, luma, luma))
