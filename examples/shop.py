"""A small shop's stock in an SQLite database that lives in memory: asked and sold from.

    python sample.py --think --model out/smol/distilled --thinking.mode fast \
        --tools examples/shop.py --prompt "How many teapots are left?"
"""

import sqlite3

_STOCK = sqlite3.connect(":memory:")
_STOCK.execute("CREATE TABLE stock (item TEXT PRIMARY KEY, pieces INTEGER, price REAL)")
_STOCK.executemany(
    "INSERT INTO stock VALUES (?, ?, ?)",
    [("teapot", 12, 24.5), ("cup", 80, 4.0), ("kettle", 3, 39.9), ("tray", 0, 15.0)],
)


def _row(item: str) -> tuple[int, float]:
    row = _STOCK.execute("SELECT pieces, price FROM stock WHERE item = ?", (item,)).fetchone()
    if row is None:
        items = ", ".join(name for (name,) in _STOCK.execute("SELECT item FROM stock"))
        raise ValueError(f"there is no {item}; there are {items}")
    return row


def pieces_left(item: str) -> int:
    """Count the pieces of an item in stock.

    item: the item, in the singular
    """
    return _row(item)[0]


def price_of(item: str, pieces: int = 1) -> float:
    """The price of some pieces of an item, in euros.

    item: the item, in the singular
    pieces: how many
    """
    return round(pieces * _row(item)[1], 2)


def sell(item: str, pieces: int) -> str:
    """Sell pieces of an item from the stock.

    item: the item, in the singular
    pieces: how many
    """
    left = _row(item)[0]
    if not 0 < pieces <= left:
        raise ValueError(f"{left} of {item} are left; sell between 1 and so many")
    _STOCK.execute("UPDATE stock SET pieces = pieces - ? WHERE item = ?", (pieces, item))
    return f"sold {pieces}, left {left - pieces}"
