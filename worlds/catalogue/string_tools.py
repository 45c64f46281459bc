"""Functions of `string` as tools: capitals, punctuation and alphabets."""

import string

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import (
    PEOPLE,
    PHRASE,
    SENTENCES,
    TITLE,
    Kind,
    in_quotes,
    made_by,
    whole_number,
)

PUNCTUATED = Kind(
    "text",
    lambda rng: rng.choice(SENTENCES).replace(" ", rng.choice((", ", " - ", "; ")), 1) + "!",
    in_quotes,
    lambda value: any(sign in value for sign in string.punctuation) and len(value) <= 120,
)
LETTER_PLACE = made_by(lambda rng: rng.choice(string.ascii_lowercase), in_quotes)


@asked_for(
    "{text} with a capital on each word",
    """
    + Capitalise every word of {text}.
    + Write {text} as a heading, each word with a capital.
    The book is called {text}. How does the title look with all words capitalised?
    + Put a capital at the start of each word in {text}.
    I typed {text} in small letters, but it is a title. Fix that.
    + Turn {text} into title style, every word starting in upper case.
    For the cover we need {text} with capitals. What do I print?
    How would {text} be written on a door plate with big first letters?
    """,
    text=TITLE,
)
def capitalise_words(text: str) -> str:
    """A text with a capital at the start of each word.

    text: the text
    """
    return string.capwords(text)


@asked_for(
    "{text} without punctuation",
    """
    + Remove the punctuation from {text}.
    + What is left of {text} without commas, stops and other marks?
    My search chokes on punctuation. Clean {text} up for it.
    + Strip {text} of all punctuation marks.
    For a telegram I need {text} with no signs in it, only words.
    + Take every mark out of {text} but keep words and spaces.
    Delete dots, commas and the like in {text}.
    The word counter wants plain words: how does {text} read without marks?
    """,
    text=PUNCTUATED,
)
def remove_punctuation(text: str) -> str:
    """A text without punctuation.

    text: the text
    """
    return text.translate(str.maketrans("", "", string.punctuation))


@asked_for(
    "the letter {steps} places after {letter}",
    """
    Which letter comes {steps} places after {letter} in the alphabet?
    Go {steps} letters on from {letter}. Where do you end up?
    In a secret code {letter} stands for the letter {steps} further on. Which one is meant?
    Count {steps} letters forward from {letter}, starting over after z.
    Seat rows go by letter. I sit in row {letter}, she sits {steps} rows behind. Which row is hers?
    Shift {letter} by {steps} in the alphabet.
    From {letter}, take {steps} steps through the alphabet and tell me the letter.
    {letter} plus {steps} is which letter?
    """,
    letter=LETTER_PLACE,
    steps=whole_number(2, 20),
)
def shift_letter(letter: str, steps: int) -> str:
    """The letter some places on in the alphabet; a follows z.

    letter: a small letter
    steps: how many places on
    """
    if len(letter) != 1 or letter not in string.ascii_lowercase:
        raise ValueError("give one small letter")
    return string.ascii_lowercase[(string.ascii_lowercase.index(letter) + steps) % 26]


@asked_for(
    "the greeting {template} for {name}",
    """
    Fill {name} into the template {template}.
    My form letter says {template}. What does it say for {name}?
    Use the template {template} with the name {name}.
    Write the card for {name}; the text is {template}.
    What comes out of {template} when $name is {name}?
    I have {template} and the next guest is {name}. Give me the finished line.
    Put {name} where {template} has $name.
    Personalise {template} for {name}.
    """,
    template=made_by(
        lambda rng: rng.choice(
            (
                "Dear $name, welcome back",
                "Happy birthday, $name",
                "$name has a parcel at the desk",
                "Table for $name, by the window",
                "Thank you, $name, see you soon",
            )
        ),
        in_quotes,
    ),
    name=made_by(lambda rng: rng.choice(PEOPLE)),
)
def fill_template(template: str, name: str) -> str:
    """A text with a name in the place of $name.

    template: the text with $name
    name: the name
    """
    return string.Template(template).safe_substitute(name=name)


@asked_for(
    "the letters of the alphabet missing from {text}",
    """
    + Which letters of the alphabet are missing from {text}?
    + What letters does {text} not use, in order?
    I want a sentence with all letters. What does {text} still lack?
    + List the letters that never occur in {text}.
    Is {text} a pangram? If not, tell me the missing letters.
    Check {text} for the letters of the alphabet and give those it leaves out.
    + Find every letter from a to z that is not in {text}.
    Which of the 26 letters are unused in {text}?
    """,
    text=PHRASE,
)
def missing_letters(text: str) -> str:
    """The letters from a to z that a text does not have.

    text: the text
    """
    present = set(text.lower())
    return "".join(letter for letter in string.ascii_lowercase if letter not in present)
