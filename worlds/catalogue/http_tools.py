"""Functions of `http` as tools: the numbers with which web servers answer, and their names."""

import http
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import Kind, in_quotes, made_by, write_plain

CODES = [
    *(200, 201, 202, 204, 206, 207, 301, 302, 303, 304, 307, 308),
    *(400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 415, 417, 418, 423, 424),
    *(425, 426, 428, 429, 431, 451, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511),
]
RENAMED = (413, 414, 416, 422)  # whose phrases Python 3.13 changed
STATUS_FAMILIES = ("information", "success", "redirection", "client error", "server error")
STATUS = Kind("integer", lambda rng: rng.choice(CODES), write_plain, CODES.__contains__)


def status_of(code: int) -> http.HTTPStatus:
    """Raises ValueError for a number that is no status."""
    if code in RENAMED:
        raise ValueError(f"the phrase of {code} has changed over the years")
    return http.HTTPStatus(code)


def draw_phrase_of_status(rng: Random) -> str:
    return http.HTTPStatus(rng.choice(CODES)).phrase


@asked_for(
    "the official words for status {code}",
    """
    + What is the official phrase for HTTP status {code}?
    The page will not open, all I see is {code}. What does that mean, in the usual words?
    My log says {code} and nothing else. Put it into words.
    + An answer from the web server is just {code}. Turn it into its text.
    For a poster in the office I need what stands behind {code} in web browsers.
    The shop's site greets me with error {code}. What is that error called?
    A web server replied {code}. What did it want to tell me?
    + In the standard's own words, what does a web server say with {code}?
    """,
    code=STATUS,
)
def status_phrase(code: int) -> str:
    """The text that goes with a web server's number.

    code: number of the answer, e.g. 200
    """
    return status_of(code).phrase


@asked_for(
    "the number of the web answer {phrase}",
    """
    Which HTTP status code stands for {phrase}?
    My server should answer {phrase}. Which number do I return?
    The browser shows {phrase}, without a number. What would the number be?
    Look up the code of {phrase}.
    In the tests I check for {phrase}, but by number. By which?
    {phrase} is what the website told me; support asks for the three digits.
    Give me the three-digit code that means {phrase} on the web.
    A filter for log lines with {phrase} needs the code. What is it?
    """,
    phrase=made_by(draw_phrase_of_status, in_quotes),
)
def status_code(phrase: str) -> int:
    """The number that a web server sends with a text.

    phrase: the text, in small or capital letters
    """
    for status in http.HTTPStatus:
        if status.phrase.lower() == phrase.lower() and status not in RENAMED:
            return int(status)
    raise ValueError("no status has this phrase")


@asked_for(
    "the family of web answer {code}",
    """
    + To which family of HTTP answers does {code} belong?
    A download ended with {code}. Did it work, or whose fault is it?
    + Is {code} a success, a redirection or an error, and on which side?
    The monitor of our website went to {code}. Do we blame the visitor or the machine?
    Sort the response {code} into its class.
    I got {code} from the booking page. Should I look at what I typed or wait until they repair it?
    + What kind of answer from a web server is {code}?
    Colour the log by class of status. This line has {code}. Which class is it?
    """,
    code=STATUS,
)
def status_family(code: int) -> str:
    """Success, redirection, client error, ...: the sort of a web server's number.

    code: number of the answer, e.g. 200
    """
    return STATUS_FAMILIES[http.HTTPStatus(code) // 100 - 1]
