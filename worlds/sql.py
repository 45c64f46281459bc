"""SQL world: one or two small tables, a question or an order, and one tool, sql (paper section 6,
"DB"; the suite's "SQL generation").

    "Table kemi(rana, luno, pobe). Which rana has the highest luno?"
        sql: SELECT rana FROM kemi ORDER BY luno DESC LIMIT 1        gabi
    "Table kemi(rana, luno, pobe). Set luno to 5 where pobe is highest."
        sql: SELECT rana FROM kemi ORDER BY pobe DESC LIMIT 1        gabi
        sql: UPDATE kemi SET luno=5 WHERE rana='gabi'                1 row changed

Real SQLite in memory. Judged by the answer and by every row of every table afterwards; both are
worked out in Python from the rows, not by running the solution's SQL.

A model's SQL is untrusted. `guard` lists what it may do and refuses everything else: files,
settings, temporary tables, extensions, and functions that have another value each time or can take
long. What is allowed is bounded in memory (SQLite's hard heap limit, which sorters and the
statement's own code count against), in steps and seconds while it runs, in length, and in how much
it may refer to.
"""

import random
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass

from worlds.tools import tool
from worlds.base import UNSUITED, Difficulty, Step, Task, Wordings, World, draw_name

SQL = tool("sql", "runs a query", {"query": {"type": "string"}})
# of SQLite's virtual machine, some tens of milliseconds; a query over these tables takes about 100
STEP_BUDGET = 1_000_000
SECONDS = 0.5  # where steps are slow
# tables, columns and functions that a statement may name, each time it names one; a view's count
# where it is used
REFERENCES = 250
HEAP = 64 << 20  # bytes, of all databases of the process together
# bytes of a statement, a value and a row: a function of two such values takes milliseconds at most
LENGTH = 5000
MOST_ROWS = 20  # rows that the agent sees
MOST_TEXT = 600  # characters of an observation

WORDINGS = {
    "select": Wordings(
        (
            "What is the {column} of {row}?",
            "Give {column} where {key} is {row}.",
            "Find the {column} of {row}.",
            "Which {column} has {row}?",
        ),
        ("Show {row}'s {column}.", "For {key} {row}, which {column}?"),
        ("Read out {column} for {row}.", "{row}: what {column} is stored?"),
    ),
    "count": Wordings(
        (
            "How many rows have {column} {word} {limit}?",
            "Count the rows with {column} {word} {limit}.",
            "In how many rows is {column} {word} {limit}?",
            "Give the number of rows with {column} {word} {limit}.",
        ),
        (
            "Number of rows whose {column} is {word} {limit}?",
            "Count where {column} is {word} {limit}.",
        ),
        (
            "Tally the rows having {column} {word} {limit}.",
            "What count of rows has {column} {word} {limit}?",
        ),
    ),
    "aggregate": Wordings(
        ("What is the {word} {column}?", "Give the {word} {column}.", "Find the {word} {column}."),
        ("Which is the {word} {column}?",),
        ("State the {word} {column}.", "Report {column}'s {word} figure."),
    ),
    "order": Wordings(
        (
            "Which {key} has the {word} {column}?",
            "Give the {key} of the {word} {column}.",
            "Find the {key} with the {word} {column}.",
            "What {key} goes with the {word} {column}?",
        ),
        ("Name the {key} whose {column} is {word}.", "Whose {column} is {word}? Give the {key}."),
        ("State the {key} where {column} is {word}.", "{word} {column}: at which {key}?"),
    ),
    "join": Wordings(
        (
            "What is the {far} where {column} is {value}?",
            "Give the {far} where {column} is {value}.",
            "Find the {far} of the row with {column} {value}.",
        ),
        ("Which {far} belongs to {column} {value}?",),
        (
            "Look across the tables: {far} for {column} {value}?",
            "State the {far} matching {column} {value}.",
        ),
    ),
    "insert": Wordings(
        (
            "Add the row {row} to {table}.",
            "Insert {row} into {table}.",
            "Put {row} into {table}.",
            "Make a new row {row} in {table}.",
        ),
        ("{table} gets a new row: {row}.", "Write the row {row} to {table}."),
        ("Append {row} to {table}.", "Store {row} as another row of {table}."),
    ),
    "update": Wordings(
        (
            "Set {column} of {row} to {value}.",
            "Change the {column} of {row} to {value}.",
            "Let {column} of {row} be {value}.",
            "Make {value} the {column} of {row}.",
        ),
        ("{row}'s {column} becomes {value}.", "Write {value} as {column} of {row}."),
        ("Replace {row}'s {column} with {value}.", "Correct the {column} of {row}: {value}."),
    ),
    "delete": Wordings(
        (
            "Delete the row where {column} is {value}.",
            "Remove the row with {column} {value}.",
            "Take away the row where {column} is {value}.",
            "Drop the row with {column} {value}.",
        ),
        (
            "The row with {column} {value} has to go.",
            "Get rid of the row where {column} is {value}.",
        ),
        (
            "Erase whichever row has {column} {value}.",
            "Discard the row where {column} equals {value}.",
        ),
    ),
    "delete extreme": Wordings(
        (
            "Delete the row with the {word} {column}.",
            "Remove the row with the {word} {column}.",
            "Take away the row of the {word} {column}.",
        ),
        ("The row with the {word} {column} has to go.",),
        ("Erase whichever row has the {word} {column}.",),
    ),
    "set extreme": Wordings(
        (
            "Set {target} to {value} in the row with the {word} {column}.",
            "In the row with the {word} {column}, set {target} to {value}.",
            "Change {target} to {value} where {column} is {word}.",
        ),
        ("Write {value} as {target} in the row with the {word} {column}.",),
        ("Replace {target} with {value} in whichever row has the {word} {column}.",),
    ),
    "sum then": Wordings(
        (
            "What is the sum of {column} then?",
            "Then give the sum of {column}.",
            "Say the sum of {column} after that.",
        ),
        ("And the sum of {column} now?",),
        ("State {column}'s sum afterwards.",),
    ),
    "ask": Wordings(
        (
            "Set {column} of {row}.",
            "Change the {column} of {row}.",
            "Make the {column} of {row} another.",
        ),
        ("{row}'s {column} has to change.",),
        ("Replace the {column} of {row}.",),
    ),
    "unsuited": UNSUITED,
    "noise": Wordings(
        ("{name} has {n} rows.", "There are {n} rows in {name}."),
        ("{name} holds {n} rows.",),
        ("{n} rows fill {name}.",),
    ),
}

# ------------------------------------------------------------------------------------------- SQLite
# for strangers

ACTIONS = {
    getattr(sqlite3, f"SQLITE_{action}")
    for action in (
        "SELECT READ INSERT UPDATE DELETE RECURSIVE TRANSACTION SAVEPOINT REINDEX CREATE_TABLE DROP_TABLE CREATE_INDEX DROP_INDEX "
        "CREATE_VIEW DROP_VIEW CREATE_TRIGGER DROP_TRIGGER"
    ).split()
}
# neither another value each time nor a long one from a short statement (zeroblob, printf)
FUNCTIONS = set(
    "abs avg ceil ceiling char coalesce count dense_rank first_value floor glob group_concat hex ifnull iif instr lag last_value lead length "
    "like likelihood likely lower ltrim max min mod nth_value ntile nullif pow power quote rank replace round row_number rtrim sign sqrt substr "
    "substring sum total trim typeof unicode unlikely upper".split()
)


def connect() -> sqlite3.Connection:
    """A database in memory, to be filled and then handed to a model by `guard`."""
    database = sqlite3.connect(":memory:", isolation_level=None, cached_statements=0)
    database.text_factory = lambda raw: raw.decode("utf-8", errors="replace")
    return database


def guard(database: sqlite3.Connection, length: int = LENGTH) -> None:
    """From now on the database obeys the rules for strangers; it may double in size, or grow by 256
    kB.
    """
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages + max(pages, 64)}")
    database.execute(
        "PRAGMA temp_store = MEMORY"
    )  # what sorters and DISTINCT put aside counts against the heap limit, too
    database.execute(f"PRAGMA hard_heap_limit = {HEAP}")
    for limit, most in (
        ("LENGTH", length),
        ("SQL_LENGTH", length),
        ("LIKE_PATTERN_LENGTH", 100),
        ("COLUMN", 100),
        ("EXPR_DEPTH", 100),
        ("COMPOUND_SELECT", 50),
        ("VDBE_OP", 10_000),
        ("FUNCTION_ARG", 20),
        ("TRIGGER_DEPTH", 5),
        ("ATTACHED", 0),
    ):
        database.setlimit(getattr(sqlite3, f"SQLITE_LIMIT_{limit}"), most)


def execute(
    database: sqlite3.Connection, query: str, most: int = MOST_ROWS
) -> tuple[list[tuple], str]:
    """Run one statement within its bounds:

    (up to `most` rows and one to tell that there are more, "") or ([], what is wrong). Never
    raises.
    """
    steps, references, deadline = 0, 0, time.monotonic() + SECONDS

    def spent() -> bool:
        nonlocal steps
        steps += 20
        return steps > STEP_BUDGET or time.monotonic() > deadline

    def allowed(action: int, first: str | None, second: str | None, *_: object) -> int:
        nonlocal references
        references += 1
        known = (
            action in ACTIONS or action == sqlite3.SQLITE_FUNCTION and second.lower() in FUNCTIONS
        )
        return sqlite3.SQLITE_OK if known and references <= REFERENCES else sqlite3.SQLITE_DENY

    try:
        database.set_authorizer(allowed)
        database.set_progress_handler(spent, 20)
        cursor = database.execute(query)
        if cursor.description is None:
            return [
                (f"{cursor.rowcount} row{'s' * (cursor.rowcount != 1)} changed",)
            ] if cursor.rowcount >= 0 else [("ok",)], ""
        rows = cursor.fetchmany(most + 1)
        cursor.close()
        return rows, ""
    except MemoryError:
        return [], "the query takes too much memory"
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        too_long = "interrupted" in str(error)
        return (
            [],
            "the query took too long"
            if too_long
            else "the query names too much"
            if references > REFERENCES
            else str(error),
        )


# ---------------------------------------------------------------------------------------------------
# the tables


@dataclass
class Ground:
    """What a task is drawn from: a table with a text key and integer columns, and maybe a second
    one with the same keys.
    """

    rng: random.Random
    name: Callable[[], str]
    ask: Callable[..., str]  # (what, **slots): a request in the task's wording
    table: str
    columns: list[str]  # the key first
    rows: list[list]
    second: str
    second_columns: list[str]
    second_rows: list[list]

    def number(self) -> tuple[int, str]:
        """One of the integer columns: its place and name."""
        place = self.rng.randrange(1, len(self.columns))
        return place, self.columns[place]

    def changed(self, rows: list[list]) -> dict[str, list[list]]:
        """All tables, the first with these rows."""
        return {
            table: rows if table == self.table else old for table, (_, old) in self.tables().items()
        }

    def tables(self) -> dict[str, tuple[list[str], list[list]]]:
        tables = {self.table: (self.columns, self.rows)}
        return (
            tables | {self.second: (self.second_columns, self.second_rows)}
            if self.second
            else tables
        )


def draw_ground(rng: random.Random, wording: random.Random, difficulty: Difficulty) -> Ground:
    """4 to 6 rows; the integers of a column differ, so that highest and lowest are one row each."""
    used: set[str] = set()

    def name() -> str:
        return draw_name(rng, difficulty.split, used)

    table, columns = name(), [name() for _ in range(difficulty.arguments + 1)]
    keys = [name() for _ in range(rng.randint(4, 6))]

    def rows_of(width: int) -> list[list]:
        return [
            list(row)
            for row in zip(keys, *(rng.sample(range(1, 100), len(keys)) for _ in range(width)))
        ]

    def ask(what: str, **slots) -> str:
        return WORDINGS[what].draw(wording, difficulty.words, **slots)

    second = name() if difficulty.decoys else ""
    return Ground(
        rng,
        name,
        ask,
        table,
        columns,
        rows_of(len(columns) - 1),
        second,
        [columns[0], name()] if second else [],
        rows_of(1) if second else [],
    )


# --------------------------------------------------------------------------------------------------
# the families
# Each takes the ground and gives: request, steps, answer, constraints, and all rows afterwards
# (None: as before).

Draft = tuple[str, list[Step], str, dict, dict[str, list[list]] | None]


def sql(query: str) -> dict:
    return {"name": "sql", "arguments": {"query": query}}


def step(
    goal: str,
    thought: str,
    query: str,
    depends_on: tuple[int, ...] = (),
    wrong: tuple[str, ...] = (),
) -> Step:
    return Step(goal, thought, sql(query), depends_on, tuple(sql(text) for text in wrong))


def select(ground: Ground) -> Draft:
    (place, column), row, (key, table) = (
        ground.number(),
        ground.rng.choice(ground.rows),
        (ground.columns[0], ground.table),
    )
    request = ground.ask("select", column=column, row=row[0], key=key)
    steps = [
        step(
            f"{column} where {key} is {row[0]}",
            "select",
            f"SELECT {column} FROM {table} WHERE {key}='{row[0]}'",
            wrong=(
                f"SELECT {key} FROM {table} WHERE {key}='{row[0]}'",
                f"SELECT {column} FROM {table}",
            ),
        )
    ]
    return (
        request,
        steps,
        f"answer: {row[place]}",
        {"action": "select", "column": column, "where": row[0]},
        None,
    )


def count(ground: Ground) -> Draft:
    (place, column), table = ground.number(), ground.table
    limit, (sign, word) = (
        ground.rng.choice(ground.rows)[place],
        ground.rng.choice(((">", "above"), ("<", "below"))),
    )
    number = sum(row[place] > limit if sign == ">" else row[place] < limit for row in ground.rows)
    request = ground.ask("count", column=column, word=word, limit=limit)
    steps = [
        step(
            f"count {column} {word} {limit}",
            "count",
            f"SELECT COUNT(*) FROM {table} WHERE {column}{sign}{limit}",
            wrong=(
                f"SELECT COUNT(*) FROM {table} WHERE {column}{sign}={limit}",
                f"SELECT COUNT(*) FROM {table}",
            ),
        )
    ]
    return (
        request,
        steps,
        f"answer: {number}",
        {"action": "count", "column": column, "where": f"{sign}{limit}"},
        None,
    )


def aggregate(ground: Ground) -> Draft:
    (place, column), table = ground.number(), ground.table
    values = [row[place] for row in ground.rows]
    function, words, value = ground.rng.choice(
        (
            ("SUM", ("sum", "total"), sum(values)),
            ("MAX", ("highest", "largest"), max(values)),
            ("MIN", ("lowest", "smallest"), min(values)),
        )
    )
    other = "SUM" if function != "SUM" else "COUNT"
    steps = [
        step(
            f"{function.lower()} of {column}",
            function.lower(),
            f"SELECT {function}({column}) FROM {table}",
            wrong=(
                f"SELECT {other}({column}) FROM {table}",
                f"SELECT {column} FROM {table} LIMIT 1",
            ),
        )
    ]
    return (
        ground.ask("aggregate", word=ground.rng.choice(words), column=column),
        steps,
        f"answer: {value}",
        {"action": function.lower(), "column": column},
        None,
    )


def top_query(ground: Ground, column: str, highest: bool) -> str:
    return f"SELECT {ground.columns[0]} FROM {ground.table} ORDER BY {column}{' DESC' * highest} LIMIT 1"


def order(ground: Ground) -> Draft:
    (place, column), key, highest = ground.number(), ground.columns[0], ground.rng.random() < 0.5
    row = (max if highest else min)(ground.rows, key=lambda row: row[place])
    word = "highest" if highest else "lowest"
    request = ground.ask("order", key=key, word=word, column=column)
    steps = [
        step(
            f"{key} of the {word} {column}",
            f"order by {column}",
            top_query(ground, column, highest),
            wrong=(
                top_query(ground, column, not highest),
                f"SELECT {key} FROM {ground.table} ORDER BY {key} LIMIT 1",
            ),
        )
    ]
    return (
        request,
        steps,
        f"answer: {row[0]}",
        {"action": "order", "column": column, "way": word},
        None,
    )


def join(ground: Ground) -> Draft:
    """The key is in both tables: a value of the first leads to one of the second."""
    (place, column), key, far = ground.number(), ground.columns[0], ground.second_columns[1]
    row = ground.rng.choice(ground.rows)
    value = next(other[1] for other in ground.second_rows if other[0] == row[0])
    steps = [
        step(
            f"{far} where {column} is {row[place]}",
            f"join on {key}",
            f"SELECT {far} FROM {ground.table} JOIN {ground.second} USING({key}) WHERE {column}={row[place]}",
            wrong=(
                f"SELECT {far} FROM {ground.second}",
                f"SELECT {far} FROM {ground.table}, {ground.second} WHERE {column}={row[place]}",
                f"SELECT {far} FROM {ground.second} WHERE {far}={row[place]}",
            ),
        )
    ]
    constraints = {"action": "join", "column": far, "where": f"{column}={row[place]}"}
    return (
        ground.ask("join", far=far, column=column, value=row[place]),
        steps,
        f"answer: {value}",
        constraints,
        None,
    )


def insert(ground: Ground) -> Draft:
    row = [ground.name(), *(ground.rng.randrange(1, 100) for _ in ground.columns[1:])]
    table = ground.table
    values, one_off = (
        ", ".join([f"'{row[0]}'", *map(str, numbers)])
        for numbers in (row[1:], [*row[1:-1], row[-1] + 1])
    )
    steps = [
        step(
            f"insert {row[0]} into {table}",
            "insert",
            f"INSERT INTO {table} VALUES ({values})",
            wrong=(
                f"INSERT INTO {table} ({ground.columns[0]}) VALUES ('{row[0]}')",
                f"INSERT INTO {table} VALUES ({one_off})",
            ),
        )
    ]
    request = ground.ask("insert", row=", ".join(map(str, row)), table=table)
    return (
        request,
        steps,
        "done",
        {"action": "insert", "values": ", ".join(map(str, row))},
        ground.changed([*ground.rows, row]),
    )


def update(ground: Ground) -> Draft:
    (place, column), row, key, table = (
        ground.number(),
        ground.rng.choice(ground.rows),
        ground.columns[0],
        ground.table,
    )
    value = ground.rng.choice([number for number in range(1, 100) if number != row[place]])
    request = ground.ask("update", column=column, row=row[0], value=value)
    steps = [
        step(
            f"set {column} of {row[0]} to {value}",
            "update",
            f"UPDATE {table} SET {column}={value} WHERE {key}='{row[0]}'",
            wrong=(
                f"UPDATE {table} SET {column}={value}",
                f"UPDATE {table} SET {column}={value + 1} WHERE {key}='{row[0]}'",
            ),
        )
    ]
    rows = [[*old[:place], value, *old[place + 1 :]] if old is row else old for old in ground.rows]
    return (
        request,
        steps,
        "done",
        {"action": "update", "column": column, "where": row[0], "value": value},
        ground.changed(rows),
    )


def delete(ground: Ground) -> Draft:
    (place, column), row, table = ground.number(), ground.rng.choice(ground.rows), ground.table
    request = ground.ask("delete", column=column, value=row[place])
    steps = [
        step(
            f"delete where {column} is {row[place]}",
            "delete",
            f"DELETE FROM {table} WHERE {column}={row[place]}",
            wrong=(f"DELETE FROM {table}", f"DELETE FROM {table} WHERE {column}!={row[place]}"),
        )
    ]
    rows = [old for old in ground.rows if old is not row]
    return (
        request,
        steps,
        "done",
        {"action": "delete", "where": f"{column}={row[place]}"},
        ground.changed(rows),
    )


def found_then_changed(ground: Ground) -> Draft:
    """Two calls: the row with the highest or lowest value, then a change of that row; a third
    checks it where the chain may be longer.
    """
    (place, column), key, table, highest = (
        ground.number(),
        ground.columns[0],
        ground.table,
        ground.rng.random() < 0.5,
    )
    row = (max if highest else min)(ground.rows, key=lambda row: row[place])
    word = "highest" if highest else "lowest"
    steps = [
        step(
            f"{key} of the {word} {column}",
            f"order by {column}",
            top_query(ground, column, highest),
            wrong=(top_query(ground, column, not highest),),
        )
    ]
    if ground.rng.random() < 0.5:
        steps.append(
            step(
                "delete it",
                row[0],
                f"DELETE FROM {table} WHERE {key}='{row[0]}'",
                (1,),
                (f"DELETE FROM {table}",),
            )
        )
        rows = [old for old in ground.rows if old is not row]
        request = ground.ask("delete extreme", word=word, column=column)
        return (
            request,
            steps,
            "done",
            {"action": "delete", "column": column, "way": word},
            ground.changed(rows),
        )
    (target, set_column), value = ground.number(), ground.rng.randrange(100, 200)
    steps.append(
        step(
            f"set its {set_column} to {value}",
            row[0],
            f"UPDATE {table} SET {set_column}={value} WHERE {key}='{row[0]}'",
            (1,),
            (f"UPDATE {table} SET {set_column}={value}",),
        )
    )
    rows = [
        [*old[:target], value, *old[target + 1 :]] if old is row else old for old in ground.rows
    ]
    constraints = {"action": "update", "column": column, "way": word, "value": value}
    request = ground.ask("set extreme", target=set_column, value=value, word=word, column=column)
    return request, steps, "done", constraints, ground.changed(rows)


def changed_then_asked(ground: Ground) -> Draft:
    """Three calls: find a row, change it, and say what the sum is then."""
    request, steps, _, constraints, tables = found_then_changed(ground)
    place, column = ground.number()
    total = sum(row[place] for row in tables[ground.table])
    steps.append(
        step(
            f"sum of {column}",
            "sum",
            f"SELECT SUM({column}) FROM {ground.table}",
            (2,),
            (f"SELECT COUNT({column}) FROM {ground.table}",),
        )
    )
    return (
        f"{request} {ground.ask('sum then', column=column)}",
        steps,
        f"answer: {total}",
        constraints | {"then": f"sum {column}"},
        tables,
    )


FAMILIES = {
    1: (select, count, aggregate, order, join, insert, update, delete),
    2: (found_then_changed,),
    3: (changed_then_asked,),
}  # by calls needed


# ------------------------------------------------------------------------------------------------------
# the world


class Sql(World):
    faults = ("timeout", "locked", "renamed", "incomplete", "denied", "expired")
    wordings = WORDINGS

    @classmethod
    def sample(cls, seed: int, difficulty: Difficulty) -> Task:
        rng = random.Random(f"sql {seed}")
        ground = draw_ground(rng, random.Random(f"words {seed}"), difficulty)
        # a quarter of the tasks needs one call more than the rest, as far as the chain may go
        length = 1
        while length < min(difficulty.chain, max(FAMILIES)) and rng.random() < 0.25:
            length += 1
        family = rng.choice(
            [family for family in FAMILIES[length] if ground.second or family is not join]
        )
        request, steps, answer, constraints, tables = family(ground)
        kind = family.__name__
        if rng.random() < difficulty.special:
            tables, steps = None, []
            if rng.random() < 0.5:
                _, column = ground.number()
                kind, answer = "ask", f"ask: {column}"
                request = ground.ask("ask", column=column, row=rng.choice(ground.rows)[0])
                constraints = {"action": "update", "column": column, "missing": column}
            else:
                kind, answer = "none", "no tool fits"
                request = ground.ask("unsuited", a=ground.rows[0][0], b=ground.rows[1][0])
                constraints = {"action": "none"}
        for _ in range(difficulty.distractors):
            request += " " + ground.ask("noise", name=ground.name(), n=rng.randrange(2, 100))
        schema = " ".join(
            f"Table {table}({', '.join(columns)})."
            for table, (columns, _) in sorted(ground.tables().items())
        )
        shown = [
            SQL,
            *(
                tool(ground.name(), f"gives {ground.name()}", {ground.name(): {"type": "integer"}})
                for _ in range(difficulty.tools - 1)
            ),
        ]
        rng.shuffle(shown)
        return Task(
            "sql",
            kind,
            seed,
            f"{schema} {request}",
            shown,
            steps,
            answer,
            constraints,
            truth={"tables": ground.tables(), "rows": tables or ground.changed(ground.rows)},
            difficulty=difficulty,
        )

    def __init__(self, task: Task):
        super().__init__(task)
        self.database = connect()
        for table, (columns, rows) in task.truth["tables"].items():
            self.database.execute(
                f"CREATE TABLE {table} ({columns[0]} TEXT, {', '.join(f'{column} INT' for column in columns[1:])})"
            )
            self.database.executemany(
                f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", rows
            )
        guard(self.database)

    def step(self, call: dict) -> str:
        if call["name"] != "sql":
            return "error: nothing found"
        rows, wrong = execute(self.database, call["arguments"]["query"])
        if wrong:
            return f"error: {wrong}"
        said = (
            "\n".join(
                "|".join("null" if value is None else str(value) for value in row)
                for row in rows[:MOST_ROWS]
            )
            or "no rows"
        )
        said += "\n..." * (len(rows) > MOST_ROWS)
        return said if len(said) <= MOST_TEXT else said[:MOST_TEXT] + " ..."

    def verify(self, answer: str) -> bool:
        """By the answer unless it is "done", and by every table: unchanged where the request asks
        for no change, and nothing more is there.
        """
        if self.task.answer != "done" and not super().verify(answer):
            return False
        wanted = {("table", table) for table in self.task.truth["rows"]}
        there, wrong = execute(
            self.database, "SELECT type, name FROM main.sqlite_master", most=len(wanted)
        )
        if wrong or set(there) != wanted:  # a view, a trigger or an index is a change too
            return False
        for table, wanted in self.task.truth["rows"].items():
            rows, wrong = execute(
                self.database, f"SELECT * FROM main.{table}", most=len(wanted) + 1
            )
            if wrong or sorted(map(tuple, rows), key=repr) != sorted(map(tuple, wanted), key=repr):
                return False
        return True

    def close(self) -> None:
        self.database.close()
