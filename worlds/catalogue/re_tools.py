"""Functions of `re` as tools: things found in texts and replaced."""

import re
from datetime import date, timedelta
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import (
    DATE,
    NOUNS,
    PEOPLE,
    SENTENCE,
    Kind,
    in_quotes,
    made_by,
    whole_number,
)

MEMOS = (
    "Pay {a} euros to the plumber and {b} to the baker",
    "Room {a} is free, room {b} is not",
    "The {b} bus takes {a} minutes",
    "Order {a} plates and {b} cups for {name}",
    "{name} ran {a} km in {b} minutes",
    "Gate {b}, seat {a}, boarding with {name}",
)
DATED = (
    "Dentist on {0}, haircut on {1}",
    "The rent due on {0} was paid on {1}",
    "From {0} to {1} we are in Oslo",
    "Voucher of {0}, valid until {1}",
    "{name} moves out on {0}, keys by {1}",
    "Your parcel left on {0}",
    "Choir on {0}, {1} and {2}",
)
PRICED = (
    "Bread {0}, cheese {1}",
    "{0} for the taxi, {1} for lunch, {2} for stamps",
    "Soup {0}, tea {1}, cake {2}",
    "Gloves {0}, a scarf {1}",
    "Entry {0}, coat check {1}",
    "Paid {0} for shoes and {1} for laces",
)
POSTS = (
    "Home again! #{0} #{1}",
    "Look at this #{0} near the old {1}",
    "{name} found a #{0} and a #{1} today",
    "Best {0} ever #{1} #{2}",
    "#{0} season is here, and no #{1} in sight",
    "Rain all day, so #{0} it is #{1} #{2}",
)


def draw_memo(rng: Random) -> str:
    numbers = rng.sample(range(2, 400), 2)
    return rng.choice(MEMOS).format(a=numbers[0], b=numbers[1], name=rng.choice(PEOPLE))


def draw_mail(rng: Random) -> str:
    """A line with the addresses of one or two people in it."""
    hosts = ("example.org", "mail.example.com", "post.example.net")
    people = [f"{name.lower()}@{rng.choice(hosts)}" for name in rng.sample(PEOPLE, 2)]
    forms = ("Write to {0} or to {1}", "{0} is away, ask {1}", "From {0}: lunch at noon?")
    return rng.choice(forms).format(*people)


def draw_dated(rng: Random) -> str:
    """A line with one to three dates of a few months, as in 14.03.2025."""
    first = date.fromisoformat(DATE.draw(rng))
    days = [first + timedelta(later) for later in sorted(rng.sample(range(120), 3))]
    return rng.choice(DATED).format(*(f"{day:%d.%m.%Y}" for day in days), name=rng.choice(PEOPLE))


def draw_priced(rng: Random) -> str:
    """A line with two or three prices of one currency."""
    sign = rng.choice("$€£")
    prices = [f"{sign}{rng.randint(30, 1500) / 20:.2f}" for _ in range(3)]
    return rng.choice(PRICED).format(*prices)


def draw_post(rng: Random) -> str:
    """A line with one or two hashtags."""
    return rng.choice(POSTS).format(*rng.sample(NOUNS, 3), name=rng.choice(PEOPLE))


def draw_secret(rng: Random) -> str:
    """A number that is nobody's business: of a card, a telephone, an account."""
    groups = [f"{rng.randrange(10_000):04}" for _ in range(4)]
    forms = ("{0} {1} {2} {3}", "+44 {0} {1}", "Account {0}{1}", "DE{0} {1} {2}", "ID {0}-{1}")
    return rng.choice(forms).format(*groups)


def draw_cramped(rng: Random) -> str:
    """A name that programmers wrote: blueTrainTicket."""
    first, *others = rng.sample(NOUNS, 3)
    return first + "".join(word.capitalize() for word in others)


LETTER = made_by(lambda rng: rng.choice("aeionrst"), in_quotes)
NEW_WORD = made_by(lambda rng: rng.choice(NOUNS), in_quotes)
OLD_WORD = made_by(lambda rng: rng.choice("the of her his a in and for is".split()), in_quotes)


@asked_for(
    "the numbers in {text}",
    """
    Which numbers are in {text}?
    Pull the numbers out of {text}.
    My note says {text}. List every number in it.
    I only care about the figures: {text}. Give me those.
    Find all whole numbers in {text}, in order.
    From {text}, extract the numbers.
    What figures does {text} mention?
    Read {text} and leave nothing but the numbers.
    """,
    text=Kind("memo", draw_memo, in_quotes),
)
def find_numbers(text: str) -> list[int]:
    """The whole numbers in a text, in order.

    text: the text
    """
    return [int(digits) for digits in re.findall(r"\d{1,18}", text)]


@asked_for(
    "the e-mail addresses in {text}",
    """
    Which e-mail addresses are in {text}?
    Get me the email addresses out of {text}.
    I have to answer this: {text}. To which addresses can I write?
    Collect all mail addresses from {text}.
    Copy just the addresses from {text}, please.
    The message reads {text}. List the e-mail addresses in it.
    Find every address with an @ in {text}.
    Who can be mailed, according to {text}? I want the addresses.
    """,
    text=Kind("mail", draw_mail, in_quotes),
)
def find_emails(text: str) -> list[str]:
    """The e-mail addresses in a text, in order.

    text: the text
    """
    return re.findall(r"[\w.]+@[\w.]+\w", text)


@asked_for(
    "{text} with {new} for every {old}",
    """
    + Replace the word {old} by {new} in {text}.
    + In {text}, put {new} wherever the word {old} stands.
    The word {old} has to go from {text}. Write {new} in its place.
    + Swap every {old} for {new} in {text}. What does it say then?
    I wrote {text} but meant {new}, not {old}. Correct it.
    + Change {old} to {new} in {text}, whole words only.
    How does {text} read with {new} instead of {old}?
    For my nonsense poem, turn each {old} in {text} into {new}.
    """,
    text=SENTENCE,
    old=OLD_WORD,
    new=NEW_WORD,
)
def replace_word(text: str, old: str, new: str) -> str:
    """Replace a whole word wherever it stands.

    text: the text
    old: the word to replace
    new: the word to put there
    """
    return re.sub(rf"\b{re.escape(old)}\b", lambda match: new, text)


@asked_for(
    "the number of times {letter} occurs in {text}",
    """
    + How often does the letter {letter} occur in {text}?
    + Count the {letter} in {text}.
    I cut letters out of cardboard for {text}. How many {letter} do I need?
    + How many times is {letter} used in {text}?
    Wheel of fortune: the answer is {text}, somebody buys {letter}. How many are there?
    The key {letter} sticks. How often must I hit it to type {text}?
    + Tell me the number of {letter} in {text}.
    Go through {text} and count each {letter}, small or capital.
    """,
    text=SENTENCE,
    letter=LETTER,
)
def count_letter(text: str, letter: str) -> int:
    """How often a letter occurs in a text, small or capital.

    text: the text
    letter: the letter
    """
    return len(re.findall(re.escape(letter), text, re.IGNORECASE))


@asked_for(
    "{name} as separate words",
    """
    Split the variable name {name} into words.
    Which words are run together in {name}?
    Make {name} readable: small letters and spaces.
    A heading for the column {name} should be in plain words. Which ones?
    Take the camel case out of {name}.
    How would one write {name} as normal words?
    Put spaces into {name} where a new word begins.
    Turn the identifier {name} into lower-case words.
    """,
    name=made_by(draw_cramped),
)
def split_camel_case(name: str) -> str:
    """The words of a name such as blueTrain, with spaces between.

    name: the name
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


@asked_for(
    "the dates in {text}",
    """
    Which dates does {text} mention?
    My landlord wrote {text}. Put the days into the form YYYY-MM-DD.
    Find every date in {text}.
    I have to block some days in the diary. The message is {text}. Which days?
    When is all that? I am looking at {text} and want only the days, year first.
    Rewrite the dates from {text} with the year at the front, and drop the rest.
    {text} is what the clerk told me. Which calendar days were named?
    Get the dates out of {text} for my spreadsheet.
    """,
    text=Kind("dated", draw_dated, in_quotes),
)
def find_dates(text: str) -> list[str]:
    """The days that a text names as in 14.03.2025, each as 2025-03-14.

    text: the text
    """
    found = re.findall(r"\b([0-9]{2})\.([0-9]{2})\.([0-9]{4})\b", text)
    return ["-".join(reversed(parts)) for parts in found]


@asked_for(
    "the prices in {text}",
    """
    Which prices are named in {text}?
    Pick out all amounts of money in {text}, with their signs.
    The waiter's note reads {text}. List what each thing costs.
    Just the prices from {text}, please, as they are written.
    I copied {text} off a poster. What are the amounts?
    Find everything that stands behind a currency sign in {text}.
    Go over {text} and show me each price on its own.
    What sums of money do I read about in {text}?
    """,
    text=Kind("priced", draw_priced, in_quotes),
)
def find_prices(text: str) -> list[str]:
    """The amounts with $, € or £ in a text, each as it stands there.

    text: the text
    """
    return re.findall(r"[$€£][0-9]{1,15}(?:\.[0-9]{2})?", text)


@asked_for(
    "what everything in {text} costs together",
    """
    What do I pay in all if the list says {text}?
    Add up the money in {text}.
    The slip in my pocket says {text}. How much did I spend?
    Total cost of this, please: {text}.
    My flatmate sent {text} and wants one figure for it. Which?
    Sum the prices that occur in {text}.
    Is fifty enough for {text}? Tell me the total.
    How much money is {text} altogether?
    """,
    text=Kind("priced", draw_priced, in_quotes),
)
def sum_of_prices(text: str) -> float:
    """The sum of all amounts with $, € or £ in a text.

    text: the text
    """
    found = re.findall(r"[$€£]([0-9]{1,12})(?:\.([0-9]{2}))?", text)
    if not found:
        raise ValueError("the text names no price")
    return sum(int(whole) * 100 + int(cents or 0) for whole, cents in found) / 100


@asked_for(
    "the hashtags in {text}",
    """
    Which hashtags are in {text}?
    Someone posted {text}. Under which topics will people find it?
    List the tags of the post {text}, without the hash signs.
    Collect the hashtags from {text}.
    I want to follow the same topics as {text}. What are they?
    My photo has the caption {text}. How is it tagged?
    Pull the tags out of {text}; leave the other words behind.
    For the archive, note the keywords that {text} marks.
    """,
    text=Kind("post", draw_post, in_quotes),
)
def find_hashtags(text: str) -> list[str]:
    """The words behind a # in a text, in order.

    text: the text
    """
    return re.findall(r"#(\w+)", text)


@asked_for(
    "{text} with all but the last {shown} digits hidden",
    """
    Hide the digits of {text}, except for the last {shown}.
    The receipt must not show {text} openly. Star out everything but {shown} digits at the end.
    How does {text} look when only its final {shown} digits can be read?
    Mask {text} so that {shown} digits remain.
    I am sending a screenshot with {text}. Black out the number, leaving {shown} digits.
    Put stars over {text}; the last {shown} figures may stay.
    Our clerk should recognise {text} by {shown} digits and see no more. What do we print?
    Make {text} safe to show, with {shown} digits left at its end.
    """,
    text=made_by(draw_secret, in_quotes),
    shown=whole_number(2, 5),
)
def mask_digits(text: str, shown: int) -> str:
    """A text with * for its digits, of which the last few stay.

    text: the text
    shown: how many digits stay
    """
    if shown < 0:
        raise ValueError("shown must not be negative")
    hidden = len(re.findall(r"[0-9]", text)) - shown
    return re.sub(r"[0-9]", "*", text, count=hidden) if hidden > 0 else text


@asked_for(
    "the first word with {letters} in {text}",
    """
    + What is the first word in {text} that has {letters} in it?
    + Find a word with {letters} in {text}, the earliest one.
    We practise the sound {letters} at school. Which word of {text} has it first?
    + Read {text} until you meet {letters}. Which word is that in?
    Crossword help: something from {text} that contains {letters}. The first will do.
    + In {text}, where does {letters} turn up first? Give the whole word.
    I underlined {letters} in {text}. Tell me the word around the first line.
    + Search {text} for {letters} and give me the word that it is part of.
    """,
    text=SENTENCE,
    letters=made_by(lambda rng: rng.choice("th er ll oo ea ow st in an ar ou".split()), in_quotes),
)
def first_word_with(text: str, letters: str) -> str:
    """The earliest word in a text that contains some letters, small or capital.

    text: the text
    letters: letters next to each other
    """
    for word in re.findall(r"\w+", text):
        if letters and letters.lower() in word.lower():
            return word
    raise ValueError(f"no word has {letters}")
