"""SQL world: one or two small tables, a question or an order, and one tool, sql (paper section 6,
"DB"; the suite's "SQL generation").

    "Table kemi(rana, luno, pobe). Which rana has the highest luno?"
        sql: SELECT rana FROM kemi ORDER BY luno DESC LIMIT 1        gabi
    "Table kemi(rana, luno, pobe). Set luno to 5 where pobe is highest."
        sql: SELECT rana FROM kemi ORDER BY pobe DESC LIMIT 1        gabi
        sql: UPDATE kemi SET luno=5 WHERE rana='gabi'                1 row changed

Real SQLite in memory. Judged by the answer and by every row of every table afterwards; both are
worked out in Python from the rows, not by running the solution's SQL.

A model's SQL is untrusted. `execute` allows what ACTIONS and FUNCTIONS list and nothing else: no
files, settings, temporary tables or extensions, no functions that have another value each time or
can take long. What is allowed is bounded in memory (SQLite's hard heap limit, which sorters and the
statement's own code count against), in steps and seconds while it runs, in length, and in how much
it may refer to.
"""

import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from worlds.base import SolutionStep, Task, World, cut_text
from worlds.difficulty import Difficulty
from worlds.drawing import UNSUITED, Draft, Drawing, Families, draw_chain_length
from worlds.english import EnglishTable, draw_person, draw_table, words_of_split
from worlds.splits import Wordings
from worlds.tools import make_tool

SQL_TOOLS = {  # by Difficulty's `names`
    "invented": make_tool("sql", "runs a query", {"query": {"type": "string"}}),
    "english": make_tool(
        "run_sql",
        "Run one SQL statement on the SQLite database and return its rows",
        {"query": {"type": "string", "description": "the SQL statement"}},
    ),
}

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
        (
            ("what", "{column}", "{row}"),
            ("which {column}", "{row}"),
            ("{column}", "{key} is {row}"),
            ("find", "{column}", "{row}"),
        ),
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
        (
            ("how many rows", "{column} {word} {limit}"),
            ("number", "rows", "{column} {word} {limit}"),
            ("count", "rows", "{column} {word} {limit}"),
        ),
    ),
    "aggregate": Wordings(
        ("What is the {word} {column}?", "Give the {word} {column}.", "Find the {word} {column}."),
        ("Which is the {word} {column}?",),
        ("State the {word} {column}.", "Report {column}'s {word} figure."),
        (("{word} {column}",),),
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
        (("{key}", "{word} {column}"),),
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
        (("{far}", "{column} is {value}"), ("{far}", "{column} {value}")),
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
        (("{row}", "{table}"),),
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
        (("{column} of {row}", "{value}"), ("{column}", "{row}", "{value}")),
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
        (
            ("delete", "row", "{column} is {value}"),
            ("remove", "row", "{column} {value}"),
            ("drop", "row", "{column} {value}"),
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
        (("delete", "row", "{word} {column}"), ("remove", "row", "{word} {column}")),
    ),
    "set extreme": Wordings(
        (
            "Set {target} to {value} in the row with the {word} {column}.",
            "In the row with the {word} {column}, set {target} to {value}.",
            "Change {target} to {value} where {column} is {word}.",
        ),
        ("Write {value} as {target} in the row with the {word} {column}.",),
        ("Replace {target} with {value} in whichever row has the {word} {column}.",),
        (
            ("{target} to {value}", "row", "{word} {column}"),
            ("set {target}", "to {value}", "row", "{word} {column}"),
        ),
    ),
    "sum then": Wordings(
        (
            "What is the sum of {column} then?",
            "Then give the sum of {column}.",
            "Say the sum of {column} after that.",
        ),
        ("And the sum of {column} now?",),
        ("State {column}'s sum afterwards.",),
        (("sum", "{column}"), ("sum of {column}",)),
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
        (("{name}", "{n} rows"),),
    ),
}

# ----------------------------------------------------------------------------- SQLite for strangers

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
MOST_BYTES = 1 << 20  # of all rows that a statement gives
MOST_TEXT = 600  # characters of an observation

_ACTION_NAMES = """SELECT READ INSERT UPDATE DELETE RECURSIVE TRANSACTION SAVEPOINT REINDEX
CREATE_TABLE DROP_TABLE CREATE_INDEX DROP_INDEX CREATE_VIEW DROP_VIEW CREATE_TRIGGER DROP_TRIGGER"""
ACTIONS = {getattr(sqlite3, f"SQLITE_{name}") for name in _ACTION_NAMES.split()}
# neither another value each time nor a long one from a short statement (zeroblob, printf)
FUNCTIONS = set(
    """abs avg ceil ceiling char coalesce count dense_rank first_value floor glob group_concat hex
    ifnull iif instr lag last_value lead length like likelihood likely lower ltrim max min mod
    nth_value ntile nullif pow power quote rank replace round row_number rtrim sign sqrt substr
    substring sum total trim typeof unicode unlikely upper""".split()
)


def connect() -> sqlite3.Connection:
    """A database in memory, to be filled and then handed to a model by `guard`."""
    database = sqlite3.connect(":memory:", isolation_level=None, cached_statements=0)
    database.text_factory = lambda raw: raw.decode("utf-8", errors="replace")
    return database


def guard(database: sqlite3.Connection, length: int = LENGTH) -> None:
    """From now on the database's sizes are bounded; it may double, or grow by 256 kB."""
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages + max(pages, 64)}")
    # what sorters and DISTINCT put aside counts against the heap limit, too
    database.execute("PRAGMA temp_store = MEMORY")
    database.execute(f"PRAGMA hard_heap_limit = {HEAP}")
    limits = {
        sqlite3.SQLITE_LIMIT_LENGTH: length,
        sqlite3.SQLITE_LIMIT_SQL_LENGTH: length,
        sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 100,
        sqlite3.SQLITE_LIMIT_COLUMN: 100,
        sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
        sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 50,
        sqlite3.SQLITE_LIMIT_VDBE_OP: 10_000,
        sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 20,
        sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 5,
        sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    }
    for limit, most in limits.items():
        database.setlimit(limit, most)


def execute(
    database: sqlite3.Connection, query: str, most: int = MOST_ROWS, *, most_bytes: int = MOST_BYTES
) -> tuple[list[tuple], str]:
    """Run one statement within its bounds. Never raises.

    (up to `most` rows, and one more where there are more, "") or ([], what is wrong). Rows whose
    texts have more than `most_bytes` bytes together are refused.
    """
    steps = 0
    references = 0
    deadline = time.monotonic() + SECONDS

    def spent() -> bool:
        nonlocal steps
        steps += 20
        return steps > STEP_BUDGET or time.monotonic() > deadline

    def allowed(action: int, first: str | None, second: str | None, *_: object) -> int:
        nonlocal references
        references += 1
        function = action == sqlite3.SQLITE_FUNCTION and second.lower() in FUNCTIONS
        if (action in ACTIONS or function) and references <= REFERENCES:
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY

    try:
        database.set_authorizer(allowed)
        database.set_progress_handler(spent, 20)
        cursor = database.execute(query)
        if cursor.description is not None:
            rows = []
            size = 0
            for row in cursor:
                size += sum(len(str(cell).encode()) for cell in row)
                rows.append(row)
                if size > most_bytes or len(rows) > most:
                    break
            cursor.close()
            return ([], "the rows are too long") if size > most_bytes else (rows, "")
        if cursor.rowcount < 0:
            return [("ok",)], ""
        return [(f"{cursor.rowcount} row{'' if cursor.rowcount == 1 else 's'} changed",)], ""
    except MemoryError:
        return [], "the query takes too much memory"
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
            return [], "the query took too long"
        if references > REFERENCES:
            return [], "the query names too much"
        return [], str(error)


# --------------------------------------------------------------------------------------- the tables

Rows = list[list]
FIRST_YEAR = 1500  # a column whose values begin here or later holds years


def sql_call(query: str, tool: str = "sql") -> dict:
    return {"name": tool, "arguments": {"query": query}}


def spoken(value: Any) -> Any:
    """What a column is called in a sentence; other values are themselves."""
    return value.replace("_", " ") if isinstance(value, str) else value


class Tables(Drawing):
    """A table with a text key and integer columns, and maybe a second one with the same keys.

    4 to 6 rows. The integers of a column differ, so that highest and lowest are one row each.
    """

    def __init__(self, seed: int, difficulty: Difficulty):
        super().__init__("sql", seed, difficulty, WORDINGS)
        self.tool = SQL_TOOLS[difficulty.names]
        self.label_kind = ""  # of the words in a further column of the table; "": there is none
        self.second = ""
        self.second_columns: list[str] = []
        self.second_rows: Rows = []
        if self.english:
            self.draw_english()
        else:
            self.draw_invented()

    def draw_invented(self) -> None:
        """Tables whose names, columns and keys are syllables."""
        difficulty = self.difficulty
        self.table = self.name()
        self.columns = [self.name() for _ in range(difficulty.arguments + 1)]  # the key first
        self.key = self.columns[0]
        self.values = {column: range(1, 100) for column in self.columns[1:]}
        keys = [self.name() for _ in range(self.difficulty.size * self.rng.randint(4, 6))]
        if difficulty.decoys:
            self.second = self.name()
        self.rows = self.rows_of(keys, list(self.values.values()))
        if self.second:
            self.second_columns = [self.key, self.name()]
            self.second_rows = self.rows_of(keys, [range(1, 100)])

    def draw_english(self) -> None:
        """Tables out of worlds/english.py, with some of their columns."""
        table = draw_table(self.rng, self.split)
        self.used |= {table.name, table.second}
        self.table = table.name
        self.key = table.key
        self.key_kind = table.kind
        self.label_kind = table.label_kind
        numbers = self.rng.sample(list(table.numbers), self.difficulty.arguments)
        self.values = {column: table.numbers[column] for column in numbers}
        self.columns = [self.key, table.label, *numbers]
        count = self.difficulty.size * self.rng.randint(4, 6)
        keys = [self.new_key() for _ in range(min(count, self.most_rows(table)))]
        self.rows = self.rows_of(keys, list(self.values.values()))
        for row in self.rows:
            row.insert(1, self.name(self.label_kind))
        if self.difficulty.decoys:
            self.second = table.second
            self.second_columns = [self.key, *table.second_numbers]
            self.second_rows = self.rows_of(keys, list(table.second_numbers.values()))

    def most_rows(self, table: EnglishTable) -> int:
        """How many rows the split's words and the columns' values are enough for, with four to
        spare for what else a task draws; never fewer than the six of a table of size 1.
        """
        people = ("people", "surnames") if self.key_kind == "people" else (self.key_kind,)
        kinds = Counter([*people, self.label_kind])
        words = [len(words_of_split(kind, self.split)) // times for kind, times in kinds.items()]
        values = [*self.values.values(), *table.second_numbers.values()]
        return max(min(*words, *map(len, values)) - 4, 6)

    def new_key(self) -> str:
        """A key that no row has yet."""
        if not self.english:
            return self.name()
        if self.key_kind == "people":
            return draw_person(self.rng, self.split, self.used)
        return self.name(self.key_kind)

    def new_row(self) -> list:
        """A row that the table does not have yet."""
        row = [self.new_key()]
        if self.label_kind:
            row.append(self.name(self.label_kind))
        return [*row, *(self.rng.choice(values) for values in self.values.values())]

    def rows_of(self, keys: list[str], values: list[range]) -> Rows:
        """Rows with these keys and an integer out of each range."""
        columns = [self.rng.sample(some, len(keys)) for some in values]
        return [list(row) for row in zip(keys, *columns)]

    def other_value(self, column: str, taken: Sequence[int]) -> int:
        """A value of a column, but none of these."""
        return self.rng.choice([value for value in self.values[column] if value not in taken])

    def step(
        self,
        words: tuple[str, str],
        query: str,
        depends_on: tuple[int, ...] = (),
        wrong: tuple[str, ...] = (),
    ) -> SolutionStep:
        """A step with its goal and thought, its query, and queries that look right and are not."""
        goal, thought = words
        wrong_calls = tuple(self.call(other) for other in wrong)
        return SolutionStep(goal, thought, self.call(query), depends_on, wrong_calls)

    def call(self, query: str) -> dict:
        return sql_call(query, self.tool["function"]["name"])

    def ask(self, what: str, **slots: Any) -> str:
        """A sentence of the request; in English columns are words, not identifiers."""
        if self.english:
            slots = {"table": self.table, "key": self.key} | slots
            slots = {slot: spoken(value) for slot, value in slots.items()}
        return super().ask(what, **slots)

    def number_column(self, summed: bool = False) -> tuple[int, str]:
        """One of the integer columns, or of those that one may add up: its place and name."""
        names = [name for name in self.values if not (summed and self.holds_years(name))]
        name = self.rng.choice(names or list(self.values))
        return self.columns.index(name), name

    def holds_years(self, column: str) -> bool:
        """Nobody adds up years."""
        return self.values[column].start >= FIRST_YEAR

    def any_column(self) -> tuple[int, str]:
        """A column that is not the key: its place and name."""
        place = self.rng.randrange(1, len(self.columns))
        return place, self.columns[place]

    def contents(self) -> dict[str, tuple[list[str], Rows]]:
        """Each table's columns and rows."""
        tables = {self.table: (self.columns, self.rows)}
        if self.second:
            tables[self.second] = (self.second_columns, self.second_rows)
        return tables

    def with_rows(self, rows: Rows) -> dict[str, Rows]:
        """Each table's rows, the first table with these."""
        after = {table: old for table, (_, old) in self.contents().items()}
        after[self.table] = rows
        return after

    def top_query(self, column: str, highest: bool) -> str:
        """The query for the key of the row with the highest or lowest value."""
        way = " DESC" if highest else ""
        return f"SELECT {self.key} FROM {self.table} ORDER BY {column}{way} LIMIT 1"

    def schema(self) -> str:
        """Table kemi(rana, luno)."""
        tables = sorted(self.contents().items())
        return " ".join(f"Table {table}({', '.join(columns)})." for table, (columns, _) in tables)


def with_value(rows: Rows, changed: list, place: int, value: int) -> Rows:
    """The rows, one of them with another value at a place."""
    new = list(changed)
    new[place] = value
    return [new if row is changed else row for row in rows]


# ------------------------------------------------------------------------------------- the families
# Each drafts a task from the tables; `after` of a draft is every table's rows.


def sql_literal(value: str | int) -> str:
    """A value as a query writes it."""
    return f"'{value}'" if isinstance(value, str) else str(value)


def select_value(t: Tables) -> Draft:
    place, column = t.any_column()
    row = t.rng.choice(t.rows)
    where = f"WHERE {t.key}='{row[0]}'"
    step = t.step(
        t.said(
            (f"{column} where {t.key} is {row[0]}", "select"),
            (f"Look up the {column} of {row[0]}", f"Filter by {t.key}."),
        ),
        f"SELECT {column} FROM {t.table} {where}",
        wrong=(f"SELECT {t.key} FROM {t.table} {where}", f"SELECT {column} FROM {t.table}"),
    )
    return Draft(
        request=t.ask("select", column=column, row=row[0], key=t.key),
        steps=[step],
        answer=f"answer: {row[place]}",
        constraints={"action": "select", "column": column, "where": row[0]},
    )


def count_rows(t: Tables) -> Draft:
    place, column = t.number_column()
    limit = t.rng.choice(t.rows)[place]
    sign, word = t.rng.choice(((">", "above"), ("<", "below")))
    values = [row[place] for row in t.rows]
    number = sum(value > limit if sign == ">" else value < limit for value in values)
    step = t.step(
        t.said(
            (f"count {column} {word} {limit}", "count"),
            (f"Count the rows with {column} {word} {limit}", "COUNT(*) with a condition."),
        ),
        f"SELECT COUNT(*) FROM {t.table} WHERE {column}{sign}{limit}",
        wrong=(
            f"SELECT COUNT(*) FROM {t.table} WHERE {column}{sign}={limit}",
            f"SELECT COUNT(*) FROM {t.table}",
        ),
    )
    return Draft(
        request=t.ask("count", column=column, word=word, limit=limit),
        steps=[step],
        answer=f"answer: {number}",
        constraints={"action": "count", "column": column, "where": f"{sign}{limit}"},
    )


def aggregate_column(t: Tables) -> Draft:
    place, column = t.number_column()
    values = [row[place] for row in t.rows]
    total_words = t.said(("sum", "total"), ("total", "combined"))
    choices = [
        ("SUM", total_words, sum(values)),
        ("MAX", ("highest", "largest"), max(values)),
        ("MIN", ("lowest", "smallest"), min(values)),
    ]
    if t.holds_years(column):
        choices.pop(0)
    function, words, value = t.rng.choice(choices)
    other = "SUM" if function != "SUM" else "COUNT"
    step = t.step(
        t.said(
            (f"{function.lower()} of {column}", function.lower()),
            (f"Get the {function} of {column}", f"{function}({column}) over all rows."),
        ),
        f"SELECT {function}({column}) FROM {t.table}",
        wrong=(
            f"SELECT {other}({column}) FROM {t.table}",
            f"SELECT {column} FROM {t.table} LIMIT 1",
        ),
    )
    return Draft(
        request=t.ask("aggregate", word=t.rng.choice(words), column=column),
        steps=[step],
        answer=f"answer: {value}",
        constraints={"action": function.lower(), "column": column},
    )


def draw_extreme(t: Tables) -> tuple[str, str, list, SolutionStep]:
    """The row with the highest or lowest value of a column: (column, "highest" or "lowest", row,
    the step that finds it).
    """
    place, column = t.number_column()
    highest = t.rng.random() < 0.5
    word = "highest" if highest else "lowest"
    by_value = sorted(t.rows, key=lambda row: row[place])
    row = by_value[-1] if highest else by_value[0]
    step = t.step(
        t.said(
            (f"{t.key} of the {word} {column}", f"order by {column}"),
            (f"Find the {t.key} with the {word} {column}", f"Sort by {column}, take one row."),
        ),
        t.top_query(column, highest),
        wrong=(t.top_query(column, not highest),),
    )
    return column, word, row, step


def top_row(t: Tables) -> Draft:
    column, word, row, step = draw_extreme(t)
    by_key = t.call(f"SELECT {t.key} FROM {t.table} ORDER BY {t.key} LIMIT 1")
    return Draft(
        request=t.ask("order", key=t.key, word=word, column=column),
        steps=[replace(step, wrong=(*step.wrong, by_key))],
        answer=f"answer: {row[0]}",
        constraints={"action": "order", "column": column, "way": word},
    )


def join_tables(t: Tables) -> Draft:
    """The key is in both tables: a value of the first leads to one of the second."""
    place, column = t.number_column()
    far = t.second_columns[1]
    row = t.rng.choice(t.rows)
    value = dict(t.second_rows)[row[0]]
    where = f"{column}={row[place]}"
    step = t.step(
        t.said(
            (f"{far} where {column} is {row[place]}", f"join on {t.key}"),
            (f"Find the {far} where {column} is {row[place]}", f"Join the tables on {t.key}."),
        ),
        f"SELECT {far} FROM {t.table} JOIN {t.second} USING({t.key}) WHERE {where}",
        wrong=(
            f"SELECT {far} FROM {t.second}",
            f"SELECT {far} FROM {t.table}, {t.second} WHERE {where}",
            f"SELECT {far} FROM {t.second} WHERE {far}={row[place]}",
        ),
    )
    return Draft(
        request=t.ask("join", far=far, column=column, value=row[place]),
        steps=[step],
        answer=f"answer: {value}",
        constraints={"action": "join", "column": far, "where": where},
    )


def insert_row(t: Tables) -> Draft:
    new = t.new_row()
    key = new[0]
    values = ", ".join(map(sql_literal, new))
    one_off = ", ".join(map(sql_literal, [*new[:-1], new[-1] + 1]))
    named = [f"{column} {value}" for column, value in zip(t.columns, new)]
    row = ", ".join(t.said(list(map(str, new)), named))
    step = t.step(
        t.said(
            (f"insert {key} into {t.table}", "insert"),
            (f"Insert {key} into {t.table}", "All columns in their order."),
        ),
        f"INSERT INTO {t.table} VALUES ({values})",
        wrong=(
            f"INSERT INTO {t.table} ({t.key}) VALUES ('{key}')",
            f"INSERT INTO {t.table} VALUES ({one_off})",
        ),
    )
    return Draft(
        request=t.ask("insert", row=row, table=t.table),
        steps=[step],
        answer="done",
        constraints={"action": "insert", "values": ", ".join(map(str, new))},
        after=t.with_rows([*t.rows, new]),
    )


def update_row(t: Tables) -> Draft:
    place, column = t.number_column()
    row = t.rng.choice(t.rows)
    value = t.other_value(column, [row[place]])
    where = f"WHERE {t.key}='{row[0]}'"
    step = t.step(
        t.said(
            (f"set {column} of {row[0]} to {value}", "update"),
            (f"Set the {column} of {row[0]} to {value}", f"Only where {t.key} matches."),
        ),
        f"UPDATE {t.table} SET {column}={value} {where}",
        wrong=(
            f"UPDATE {t.table} SET {column}={value}",
            f"UPDATE {t.table} SET {column}={value + 1} {where}",
        ),
    )
    return Draft(
        request=t.ask("update", column=column, row=row[0], value=value),
        steps=[step],
        answer="done",
        constraints={"action": "update", "column": column, "where": row[0], "value": value},
        after=t.with_rows(with_value(t.rows, row, place, value)),
    )


def delete_row(t: Tables) -> Draft:
    place, column = t.number_column()
    row = t.rng.choice(t.rows)
    value = row[place]
    step = t.step(
        t.said(
            (f"delete where {column} is {value}", "delete"),
            (f"Delete the row where {column} is {value}", "Only the row that matches."),
        ),
        f"DELETE FROM {t.table} WHERE {column}={value}",
        wrong=(f"DELETE FROM {t.table}", f"DELETE FROM {t.table} WHERE {column}!={value}"),
    )
    return Draft(
        request=t.ask("delete", column=column, value=value),
        steps=[step],
        answer="done",
        constraints={"action": "delete", "where": f"{column}={value}"},
        after=t.with_rows([old for old in t.rows if old is not row]),
    )


def find_then_change(t: Tables) -> Draft:
    """Two calls: the row with the highest or lowest value, then a change of that row."""
    column, word, row, find = draw_extreme(t)
    where = f"WHERE {t.key}='{row[0]}'"
    if t.rng.random() < 0.5:
        delete = t.step(
            t.said(("delete it", row[0]), ("Delete that row", f"It is {row[0]}.")),
            f"DELETE FROM {t.table} {where}",
            depends_on=(1,),
            wrong=(f"DELETE FROM {t.table}",),
        )
        return Draft(
            request=t.ask("delete extreme", word=word, column=column),
            steps=[find, delete],
            answer="done",
            constraints={"action": "delete", "column": column, "way": word},
            after=t.with_rows([old for old in t.rows if old is not row]),
        )
    place, target = t.number_column()
    if t.english:
        value = t.other_value(target, [other[place] for other in t.rows])
    else:
        value = t.rng.randrange(100, 200)
    update = t.step(
        t.said(
            (f"set its {target} to {value}", row[0]),
            (f"Set its {target} to {value}", f"It is {row[0]}."),
        ),
        f"UPDATE {t.table} SET {target}={value} {where}",
        depends_on=(1,),
        wrong=(f"UPDATE {t.table} SET {target}={value}",),
    )
    return Draft(
        request=t.ask("set extreme", target=target, value=value, word=word, column=column),
        steps=[find, update],
        answer="done",
        constraints={"action": "update", "column": column, "way": word, "value": value},
        after=t.with_rows(with_value(t.rows, row, place, value)),
    )


def change_then_sum(t: Tables) -> Draft:
    """Three calls: find a row, change it, and say what the sum is then."""
    draft = find_then_change(t)
    place, column = t.number_column(summed=True)
    total = sum(row[place] for row in draft.after[t.table])
    step = t.step(
        t.said(
            (f"sum of {column}", "sum"),
            (f"Get the sum of {column}", f"SUM({column}) over all rows."),
        ),
        f"SELECT SUM({column}) FROM {t.table}",
        depends_on=(2,),
        wrong=(f"SELECT COUNT({column}) FROM {t.table}",),
    )
    return Draft(
        request=f"{draft.request} {t.ask('sum then', column=column)}",
        steps=[*draft.steps, step],
        answer=f"answer: {total}",
        constraints={**draft.constraints, "then": f"sum {column}"},
        after=draft.after,
    )


def ask_for_value(t: Tables) -> Draft:
    """A change whose value is not given."""
    _, column = t.number_column()
    request = t.ask("ask", column=column, row=t.rng.choice(t.rows)[0])
    constraints = {"action": "update", "column": column, "missing": column}
    return Draft(request, [], f"ask: {column}", constraints)


def fit_no_tool(t: Tables) -> Draft:
    """A request that has nothing to do with the tables."""
    if t.english:
        a, b = t.name("people"), t.name("people")
    else:
        a, b = t.rows[0][0], t.rows[1][0]
    request = t.ask("unsuited", a=a, b=b)
    return Draft(request, [], "no tool fits", {"action": "none"})


SQL_FAMILIES: Families = {
    1: {
        "select": select_value,
        "count": count_rows,
        "aggregate": aggregate_column,
        "order": top_row,
        "join": join_tables,
        "insert": insert_row,
        "update": update_row,
        "delete": delete_row,
    },
    2: {"found_then_changed": find_then_change},
    3: {"changed_then_asked": change_then_sum},
}


# ---------------------------------------------------------------------------------------- the world


def by_repr(rows: list) -> list[tuple]:
    """Rows as tuples in an order that any values have."""
    return sorted(map(tuple, rows), key=repr)


class Sql(World):
    """A database in memory."""

    faults = ("timeout", "locked", "renamed", "incomplete", "denied", "expired")
    wordings = WORDINGS

    @classmethod
    def sample(cls, seed: int, difficulty: Difficulty) -> Task:
        tables = Tables(seed, difficulty)
        rng = tables.rng

        # what is asked
        length = draw_chain_length(rng, difficulty, max(SQL_FAMILIES))
        families = dict(SQL_FAMILIES[length])
        if not tables.second:
            families.pop("join", None)
        kind = rng.choice(list(families))
        draft = families[kind](tables)

        # another right answer than a call
        if rng.random() < difficulty.special:
            kind = "ask" if rng.random() < 0.5 else "none"
            draft = ask_for_value(tables) if kind == "ask" else fit_no_tool(tables)

        noise = tables.noise()
        return Task(
            world="sql",
            kind=kind,
            seed=seed,
            request=f"{tables.schema()} {draft.request}{noise}",
            tools=tables.with_decoys(tables.tool),
            solution=tables.planned(draft.steps),
            answer=draft.answer,
            constraints=draft.constraints,
            truth={
                "tables": tables.contents(),
                "rows": draft.after or tables.with_rows(tables.rows),
            },
            difficulty=difficulty,
        )

    def __init__(self, task: Task):
        super().__init__(task)
        self.database = connect()
        for table, (columns, rows) in task.truth["tables"].items():
            kinds = ["TEXT" if isinstance(value, str) else "INT" for value in rows[0]]
            typed = ", ".join(map(" ".join, zip(columns, kinds)))
            self.database.execute(f"CREATE TABLE {table} ({typed})")
            places = ", ".join("?" * len(columns))
            self.database.executemany(f"INSERT INTO {table} VALUES ({places})", rows)
        guard(self.database)

    def step(self, call: dict) -> str:
        if call["name"] != SQL_TOOLS[self.task.difficulty.names]["function"]["name"]:
            return "error: nothing found"
        rows, wrong = execute(self.database, call["arguments"]["query"])
        if wrong:
            return cut_text(f"error: {wrong}", MOST_TEXT)
        lines = []
        for row in rows[:MOST_ROWS]:
            lines.append("|".join("null" if value is None else str(value) for value in row))
        text = "\n".join(lines) or "no rows"
        if len(rows) > MOST_ROWS:
            text += "\n..."
        return cut_text(text, MOST_TEXT)

    def verify(self, answer: str) -> bool:
        """By the answer unless it is "done", and by every table: unchanged where the request asks
        for no change, and nothing more is there.
        """
        if self.task.answer != "done" and not super().verify(answer):
            return False
        wanted = self.task.truth["rows"]

        # a view, a trigger or an index is a change too
        query = "SELECT type, name FROM main.sqlite_master"
        there, wrong = execute(self.database, query, most=len(wanted))
        if wrong or set(there) != {("table", table) for table in wanted}:
            return False
        for table, wanted_rows in wanted.items():
            query = f"SELECT * FROM main.{table}"
            rows, wrong = execute(self.database, query, most=len(wanted_rows) + 1)
            if wrong or by_repr(rows) != by_repr(wanted_rows):
                return False
        return True

    def close(self) -> None:
        self.database.close()
