"""Functions of `email.headerregistry` as tools: who a letter's first lines name."""

from email.errors import MessageError
from email.headerregistry import Address, HeaderRegistry
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import PEOPLE, made_by

FAMILY_NAMES = "Ito Bell Costa Khan Moreau Novak Olsen Petrov Quist Reyes Silva Weber".split()
MAIL_PROVIDERS = "example.org mail.example.com post.example.net school.example.org".split()
MAILBOXES = "office info kitchen sales team desk choir".split()


def draw_sender(rng: Random) -> str:
    """Such as Anna Bell <anna.bell@example.org>."""
    name, family = rng.choice(PEOPLE), rng.choice(FAMILY_NAMES)
    users = (name.lower(), f"{name}.{family}".lower(), f"{name[0]}{family}".lower())
    user = rng.choice((*users, rng.choice(MAILBOXES)))
    form = rng.choice(("{} {} <{}>", "{} {} <{}>", '"{1}, {0}" <{2}>'))
    return form.format(name, family, f"{user}@{rng.choice(MAIL_PROVIDERS)}")


def draw_recipients(rng: Random) -> str:
    return ", ".join(draw_sender(rng) for _ in range(rng.randint(2, 3)))


def addresses_of(line: str) -> tuple[Address, ...]:
    """The addresses in a line such as that behind To."""
    if len(line) > 500 or not line.isprintable():
        raise ValueError("a line may have 500 characters that can be printed")
    try:
        found = HeaderRegistry()("to", line)
        if not found.defects and found.addresses:
            return found.addresses
    except (MessageError, LookupError):  # the parser runs over the line's end
        pass
    raise ValueError("this is no line of addresses")


SENDER = made_by(draw_sender)


@asked_for(
    "the name of the sender {sender}",
    """
    A letter came from {sender}. What do I call them?
    Take just the person's name from {sender}.
    Who is {sender}, without the technical part?
    The From line reads {sender}. What does a mail program show as its author?
    I want to print a label for {sender} with nothing but the name.
    Whose name stands in {sender}?
    Remove the address from {sender}; which name is left?
    How does the writer of {sender} sign, going by the header?
    """,
    sender=SENDER,
)
def sender_name(sender: str) -> str:
    """The person's name in a mail header's address.

    sender: as in Anna <a@b.org>
    """
    name = addresses_of(sender)[0].display_name
    if not name:
        raise ValueError("the address has no name")
    return name


@asked_for(
    "the mailbox of {sender}",
    """
    What is in front of the @ in {sender}?
    Give me the mailbox of {sender}, without the host.
    With which user name does {sender} log in, most likely?
    The new server keeps the local part of {sender}. What is it?
    Take the user out of {sender}.
    Our accounts are named like the left half of the address. Which account is {sender}?
    From {sender} I need what precedes the at sign.
    Under what account is {sender} known at their provider?
    """,
    sender=SENDER,
)
def sender_mailbox(sender: str) -> str:
    """What stands before the @ of a mail header's address.

    sender: as in Anna <a@b.org>
    """
    return addresses_of(sender)[0].username


@asked_for(
    "the people in {line}",
    """
    Who got this mail? The line says {line}
    List the people addressed by {line}.
    To: {line}. I need the names for the minutes of the meeting.
    Which names are in {line}?
    Invite cards go to {line}. What do I write on each of them?
    The whole choir is in copy: {line}. Who are they?
    Turn the recipients {line} into a plain list of names.
    Read out to me who will receive it: {line}
    """,
    line=made_by(draw_recipients),
)
def people_in_line(line: str) -> list[str]:
    """The names of all whom a mail header's line names.

    line: as in Anna <a@b.org>, Bo <b@b.org>
    """
    return [address.display_name or address.username for address in addresses_of(line)]


@asked_for(
    "the header entry for {name} at {address}",
    """
    How do I enter {name} with {address} in the To line?
    Make a header entry of the name {name} and the address {address}.
    {name} can be reached at {address}. Write that the way mail programs do.
    My newsletter should come from {name}, {address}. What goes into From?
    Combine {name} and {address} into one recipient.
    Add the contact: {name}, {address}. What does the full entry look like?
    Put {address} behind {name}, in the form that headers want.
    Write the sender's line for {name} who uses {address}.
    """,
    name=made_by(lambda rng: f"{rng.choice(PEOPLE)} {rng.choice(FAMILY_NAMES)}"),
    address=made_by(lambda rng: f"{rng.choice(MAILBOXES)}@{rng.choice(MAIL_PROVIDERS)}"),
)
def header_entry(name: str, address: str) -> str:
    """A name and an address as one entry of a mail header.

    name: the person's name
    address: the e-mail address
    """
    if len(name) + len(address) > 500:
        raise ValueError("name and address may have 500 characters")
    try:
        return str(Address(name, addr_spec=address))
    except (MessageError, LookupError):
        raise ValueError("this is no address") from None
