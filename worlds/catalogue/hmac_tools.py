"""Functions of `hmac` as tools: seals that only those who share a secret can make."""

import hmac
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import NOUNS, SENTENCE, in_quotes, made_by, or_pasted, whole_number


def draw_shared_secret(rng: Random) -> str:
    return f"{rng.choice(NOUNS)}{rng.randint(10, 99)}"


SHARED_SECRET = made_by(draw_shared_secret, in_quotes)


@asked_for(
    "the seal of {text} under {secret}",
    """
    + Seal {text} with the secret {secret}.
    + Sign {text}, using {secret} as the key.
    My bank wants proof that {text} is from me. We share {secret}. What do I send along?
    Two spies agreed on {secret}. How does one mark {text} so that the other trusts it?
    + What code vouches for {text} among those who know {secret}?
    Nobody should be able to change {text} on its way. With {secret} between us, what do I append?
    + Authenticate {text} by means of {secret}.
    A note reads {text}. Work out which seal belongs under it if the key is {secret}.
    """,
    text=or_pasted(SENTENCE),
    secret=SHARED_SECRET,
)
def seal_text(text: str, secret: str) -> str:
    """A short code that shows that a text comes from who knows a secret.

    text: the text
    secret: what both sides know
    """
    return hmac.new(secret.encode(), text.encode(), "sha256").hexdigest()[:8]


@asked_for(
    "code number {count} under {secret}",
    """
    The door asks for code number {count}. My token was set up with {secret}. What do I type?
    I lost my code generator. The secret was {secret} and this is login {count}. Which digits?
    Give me one-time password {count} for {secret}.
    The cash machine is at count {count}, the shared key is {secret}. What six digits open it?
    + With {secret}, which passcode comes up when the count of logins is {count}?
    Act as my key fob: secret {secret}, counter {count}.
    + What would the token show the time its counter stands at {count}, if {secret} is inside?
    Log me in: it takes the throwaway code for {secret}, count {count}.
    """,
    secret=SHARED_SECRET,
    count=whole_number(1, 500),
)
def one_time_code(secret: str, count: int) -> str:
    """Six digits for a single login, as tokens show them.

    secret: what token and server know
    count: how often the token was used
    """
    if not 0 <= count < 2**63:
        raise ValueError("count must not be negative")
    digest = hmac.new(secret.encode(), count.to_bytes(8, "big"), "sha1").digest()
    start = digest[-1] % 16
    number = int.from_bytes(digest[start : start + 4], "big") % 2**31
    return f"{number % 10**6:06}"
