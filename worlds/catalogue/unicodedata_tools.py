"""Functions of `unicodedata` as tools: characters and their names."""

import unicodedata

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import Kind, in_quotes, made_by, named

SIGN = made_by(lambda rng: rng.choice("§€ß£¥ñøÅçæ½±µΩπ→♥☂☕♪✓∞≠ж♞"), in_quotes)
SIGN_NAMES = {
    "EURO SIGN": "the euro sign",
    "SECTION SIGN": "the section sign",
    "INFINITY": "the sign for infinity",
    "SNOWMAN": "the snowman",
    "UMBRELLA": "the umbrella",
    "CHECK MARK": "the check mark",
    "GREEK SMALL LETTER PI": "the Greek small letter pi",
    "DEGREE SIGN": "the degree sign",
    "BLACK STAR": "the black star",
    "PILCROW SIGN": "the pilcrow sign",
}
ACCENTED_TEXTS = (
    """
café crème, São Paulo, Zürich, naïve façade, jalapeño, Dvořák, smörgåsbord, Gdańsk, El Niño,
crème brûlée, Malmö, château
""".replace("\n", " ")
    .strip()
    .split(", ")
)
ACCENTED = Kind(
    "text", lambda rng: rng.choice(ACCENTED_TEXTS), in_quotes, lambda value: not value.isascii()
)


@asked_for(
    "the Unicode name of {character}",
    """
    What is the official name of the character {character}?
    I found {character} in a text. What is this sign called in Unicode?
    Name the character {character}.
    Look up the Unicode name of {character}.
    How do I call {character} in an e-mail to the printer? The Unicode name will do.
    Which name does the standard give to {character}?
    What am I looking at: {character}? I want its Unicode name.
    Identify the symbol {character} by its name.
    """,
    character=SIGN,
)
def character_name(character: str) -> str:
    """The Unicode name of a character.

    character: one character
    """
    if len(character) != 1:
        raise ValueError("give one character")
    return unicodedata.name(character)


@asked_for(
    "the character of {name}",
    """
    Give me the character for {name}.
    My keyboard lacks {name}. Show it so that I can copy it.
    Which Unicode character is {name}?
    Type {name} for me.
    I need {name} as a single character.
    How does one write {name}?
    Produce {name}, please; I will paste it.
    What does {name} look like?
    """,
    name=named(SIGN_NAMES),
)
def character_by_name(name: str) -> str:
    """The character with a Unicode name.

    name: the Unicode name in capitals, e.g. EURO SIGN
    """
    try:
        return unicodedata.lookup(name)
    except KeyError:
        raise ValueError("no character has this name") from None


@asked_for(
    "{text} without accents",
    """
    + Remove the accents from {text}.
    + Write {text} without any accents.
    The booking system takes plain letters only. How do I enter {text}?
    + What is {text} in unaccented letters?
    Strip all marks off the letters in {text}.
    For a file name I need {text} with no accents on it.
    + Reduce {text} to its base letters.
    How would {text} be spelled on a typewriter that has no accents?
    """,
    text=ACCENTED,
)
def strip_accents(text: str) -> str:
    """A text without the accents on its letters.

    text: the text
    """
    parts = unicodedata.normalize("NFD", text)
    return "".join(part for part in parts if not unicodedata.combining(part))


@asked_for(
    "the value of the character {character}",
    """
    The recipe asks for {character} of a cup. What is that as a decimal?
    Which number does the sign {character} stand for?
    My scale takes no fractions like {character}. What do I key in?
    How much is {character}, written with a point?
    Turn the single sign {character} into a number that I can reckon with.
    The plank should be {character} inch thick. My ruler has decimals only; which one is it?
    What is the numeric value of {character}?
    A spreadsheet cell holds {character} and cannot be added. Give me its worth as a plain number.
    """,
    character=made_by(lambda rng: rng.choice("½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"), in_quotes),
)
def character_value(character: str) -> float:
    """The number that one character means, such as 0.5 for a half.

    character: one character
    """
    if len(character) != 1:
        raise ValueError("give one character")
    return round(unicodedata.numeric(character), 4)
