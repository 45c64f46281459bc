"""Functions of `urllib.parse` as tools: addresses of web pages."""

import urllib.parse
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import NOUNS, PHRASE, Kind, made_by, or_pasted, write_plain

HOSTS = "www.example.org shop.example.com news.example.net tickets.example.com".split()
KEYS = {"page": "3 7 12 40".split(), "lang": "en fr de pt".split(), "sort": "price date".split()}


def draw_url(rng: Random) -> str:
    query = {"q": rng.choice(NOUNS)}
    for key in rng.sample(list(KEYS), 2):
        query[key] = rng.choice(KEYS[key])
    path = "/".join(rng.sample(NOUNS, rng.randint(1, 2)))
    return f"https://{rng.choice(HOSTS)}/{path}?{urllib.parse.urlencode(query)}"


URL = Kind("text", draw_url, write_plain, lambda value: value.startswith("http"), "url")
PAGE = made_by(lambda rng: draw_url(rng).partition("?")[0])
LINK_TO = made_by(
    lambda rng: (
        rng.choice(("", "../", "/")) + rng.choice(NOUNS) + rng.choice((".html", "/", ".png"))
    )
)

URL_TEXTS = (
    """
café {}, {} & chips, 50% off: {}, what's a {}?, {} + 1, my {} (new), São Paulo {}, {}/photos,
the "{}" list, {} = good
""".replace("\n", " ")
    .strip()
    .split(", ")
)
URL_PIECE = Kind(
    "text",
    lambda rng: urllib.parse.quote(rng.choice(URL_TEXTS).format(rng.choice(NOUNS)), safe=""),
    write_plain,
    lambda value: "%" in value,
)


@asked_for(
    "the host of {url}",
    """
    + Which host does {url} point to?
    + What is the domain in {url}?
    Before I click {url}, whose server is that? The host name will do.
    + Take the host name out of {url}.
    I want to block the site behind {url}. Which host do I enter?
    + Give me the server part of {url}.
    Without the path and all that, what is left of {url}? I mean the host.
    To which machine does a browser connect for {url}?
    """,
    url=URL,
)
def url_host(url: str) -> str:
    """The host in a web address.

    url: the address
    """
    return urllib.parse.urlsplit(url).hostname or ""


@asked_for(
    "the value of {key} in {url}",
    """
    What value does {key} have in {url}?
    + Read the parameter {key} from {url}.
    + In the link {url}, what is {key} set to?
    My program gets {url} and needs the query value {key}. What is it?
    + Find {key} in the query string of {url}.
    Somebody shared {url}. What did they choose for {key}?
    Look at {url} and tell me its {key}.
    Which {key} does the address {url} ask for?
    """,
    url=URL,
    key=made_by(lambda rng: rng.choice(("q", "page", "lang", "sort"))),
)
def query_value(url: str, key: str) -> str:
    """The value of a parameter in a web address.

    url: the address
    key: the parameter
    """
    values = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
    if key not in values:
        raise ValueError(f"the address has no {key}")
    return values[key][0]


@asked_for(
    "{text} encoded for a web address",
    """
    + Encode {text} for use in a URL.
    + How do I write {text} inside a link?
    A link to a search must carry {text}. How is it percent-encoded?
    + Percent-encode {text}.
    + Make {text} safe for a web address.
    Spaces are not allowed in addresses. What becomes of {text}?
    The address ends in ?q= and then {text}. What do I put there, properly escaped?
    URL-escape {text} for me.
    """,
    text=or_pasted(PHRASE),
)
def encode_for_url(text: str) -> str:
    """A text as it is written within a web address.

    text: the text
    """
    return urllib.parse.quote(text, safe="")


@asked_for(
    "the full address of {link} on {page}",
    """
    The page {page} has a link to {link}. What is its full address?
    Where does {link} lead to from {page}?
    Resolve the relative link {link} against {page}.
    I clicked on {link} at {page}. At which address am I now?
    Complete the link {link}, found on {page}.
    A picture is given as {link} in {page}. From which URL is it loaded?
    Join {page} and {link} as a browser would.
    Turn {link} into an absolute address, seen from {page}.
    """,
    page=PAGE,
    link=LINK_TO,
)
def resolve_link(page: str, link: str) -> str:
    """The full address of a link on a page.

    page: the page's address
    link: the link as it stands there
    """
    return urllib.parse.urljoin(page, link)


@asked_for(
    "the plain words behind {text}",
    """
    + What does {text} say in plain words?
    My log file is full of things such as {text}. How do they read?
    + Decode {text}, which comes from a link.
    Somebody searched for {text}, says the address bar. What did they really type?
    + Undo the percent signs in {text}.
    I downloaded a file called {text}. What name did its author give it?
    The part behind ?q= is {text}. Which words are those?
    + Make {text} readable again; it has been through a browser.
    """,
    text=URL_PIECE,
)
def decode_from_url(text: str) -> str:
    """The text behind a piece of a web address with its %20 and the like.

    text: the piece of the address
    """
    return urllib.parse.unquote(text)


@asked_for(
    "{url} without its parameters",
    """
    + Shorten the link {url} by all that follows the question mark.
    I am sending {url} to my aunt. Leave out the settings in it; what do I send?
    + Which address is left of {url} without its query?
    + Take the parameters off {url}.
    To see whether we know the page already, I need {url} in its bare form.
    They track me with what is tacked on to {url}. Give me a clean one.
    Print {url} for a poster, only as far as the page itself.
    + What is {url} up to the path, query gone?
    """,
    url=URL,
)
def without_query(url: str) -> str:
    """A web address as far as its path.

    url: the address
    """
    return urllib.parse.urlsplit(url)._replace(query="", fragment="").geturl()
