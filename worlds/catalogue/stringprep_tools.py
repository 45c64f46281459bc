"""Functions of `stringprep` as tools: names as servers compare them."""

import stringprep

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import Kind, in_quotes

STREETS = (
    "Große Straße|WEISSE GASSE|Weiße Gasse|Rue de l'Étoile|ÅGATAN|Plaça Major|Øvre Gate|CALLE AÑIL|"
    "Am Schloß|Číslo Deset|Fußweg|Königsallee|MAIN STREET|High Street|ΟΔΟΣ ΕΡΜΟΥ"
).split("|")


@asked_for(
    "{name} with its case folded",
    """
    + In what form does a server compare {name} with other names?
    + Fold the case of {name}.
    + Write {name} so that it no longer matters how it was spelt, in capitals or not.
    Two lists spell a street differently. One has {name}. What do I search the other for?
    + What does {name} become when capitals and ß are evened out?
    Visitors type {name} in all sorts of ways. Give me the key under which it is stored.
    + Bring {name} into the form for matching without regard to case.
    Is the login {name} taken? I must look it up in folded form.
    """,
    name=Kind(
        "text", lambda rng: rng.choice(STREETS), in_quotes, lambda value: 0 < len(value) <= 120
    ),
)
def fold_name(name: str) -> str:
    """A name in the form in which case makes no difference, ß as ss.

    name: the name
    """
    return "".join(map(stringprep.map_table_b3, name))
