"""The SQL world: what a query may not do, the judge, and each family against rows worked out
another way.
"""

import resource
import sqlite3
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import worlds.sql
from worlds.base import Episode
from worlds.difficulty import Difficulty
from worlds.english import ENGLISH_TABLES
from worlds.tasks import draw_task
from worlds.sql import HEAP, connect, execute, guard, sql_call


def database() -> sqlite3.Connection:
    made = connect()
    made.execute("CREATE TABLE t (a TEXT, b INT)")
    made.execute("INSERT INTO t VALUES ('x', 1)")
    guard(made)
    return made


@pytest.mark.parametrize(
    "query",
    [
        "VACUUM INTO '/tmp/sage-leak.db'",
        "ATTACH '/tmp/sage-leak.db' AS other",
        "ATTACH ':memory:' AS other",
        "DETACH main",
        "PRAGMA writable_schema=1",
        "PRAGMA max_page_count=999999",
        "PRAGMA database_list",
        "SELECT * FROM pragma_database_list",
        "SELECT load_extension('x')",
        "SELECT fts3_tokenizer('simple')",
        "CREATE VIRTUAL TABLE v USING fts5(x)",
        "DELETE FROM sqlite_master",
        "SELECT random()",
        "SELECT randomblob(9)",
        "SELECT date('now')",
        "SELECT CURRENT_TIMESTAMP",
        "SELECT strftime('%s', 'now')",
        "SELECT unixepoch()",
        "SELECT readfile('/etc/passwd')",
        "SELECT 1; DROP TABLE t",
        "SELECT 'a\0b'",
        "SELECT '\ud800'",
        "SELECT",
        "no sql at all",
        "SELECT zeroblob(1000000000)",
        "SELECT replace(hex(zeroblob(400000)), '0', hex(zeroblob(400000)))",
        "SELECT printf('%.*c', 100000000, 'x')",
        "SELECT group_concat(hex(zeroblob(100000))) FROM (WITH RECURSIVE c(x) AS "
        "(SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 1000) SELECT x FROM c)",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c",
        "CREATE TABLE big AS WITH RECURSIVE c(x) AS "
        "(SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 9000) SELECT x, hex(zeroblob(9000)) FROM c",
        "INSERT INTO t WITH RECURSIVE c(x) AS "
        "(SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x, x FROM c",
        "SELECT 1" + " + 1" * 50_000,
        "SELECT " + "(" * 5000 + "1" + ")" * 5000,
        "CREATE TEMP TABLE x AS SELECT 1",
        "CREATE TEMP VIEW x AS SELECT 1",
        "CREATE TEMP TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END",
        "ANALYZE",
        "ALTER TABLE t RENAME TO s",
        "ALTER TABLE t ADD COLUMN c AS (b || b)",
        "EXPLAIN QUERY PLAN PRAGMA x",
        "SELECT zeroblob(9)",
        "SELECT json('1')",
        "SELECT json_group_array(a) FROM t",
        "SELECT sqlite_compileoption_get(1)",
        "SELECT last_insert_rowid()",
        "SELECT 'a' LIKE '" + "%a" * 60 + "'",
        "SELECT " + ",".join(["1"] * 101),
        "SELECT " + " UNION SELECT ".join(["1"] * 60),
        "SELECT '" + "a" * 6000 + "'",
    ],
)
def test_a_query_may_not(query):
    made = database()
    rows, wrong = execute(made, query)
    assert wrong and not rows
    assert execute(made, "SELECT a, b FROM main.t")[0] == [("x", 1)]
    assert not Path("/tmp/sage-leak.db").exists()


def test_the_step_budget_ends_what_would_not_end():
    start = time.process_time()
    assert (
        execute(
            database(),
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT sum(x) FROM c",
        )[1]
        == "the query took too long"
    )
    assert time.process_time() - start < 30  # not a measurement: without the budget this never ends


ROWS = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c) "
WIDE = "a" * 2000


@pytest.mark.parametrize(
    "query",
    [
        ROWS + f"SELECT i FROM c ORDER BY i || '{WIDE}'",
        ROWS + f"SELECT count(DISTINCT i || '{WIDE}') FROM c",
        ROWS + f"SELECT i || '{WIDE}' x FROM c GROUP BY x",
        f"WITH RECURSIVE c(i, s) AS (SELECT 1, '{WIDE}' UNION SELECT i+1, s FROM c) "
        "SELECT count(*) FROM c",
        "WITH RECURSIVE c(s) AS (SELECT 'a' UNION ALL SELECT s || s FROM c) SELECT max(s) FROM c",
        "WITH a0 AS (SELECT 1 x)"
        + "".join(f", a{n} AS (SELECT 1 FROM a{n - 1}, a{n - 1})" for n in range(1, 60))
        + " SELECT 1 FROM a59",
        "WITH a0 AS (SELECT 1 x)"
        + "".join(f", a{n} AS (SELECT x + x + x x FROM a{n - 1})" for n in range(1, 60))
        + " SELECT x FROM a59",
        "SELECT * FROM v20",
    ],
    ids=[
        "sort",
        "distinct",
        "group",
        "union",
        "doubled text",
        "doubled tables",
        "doubled expressions",
        "views of views",
    ],
)
def test_memory_and_the_making_of_a_query_are_bounded(query):
    """What no count of steps sees: it is refused, and the process has not grown by more than twice
    SQLite's own limit.
    """
    made = database()
    for number in range(21):
        execute(
            made,
            f"CREATE VIEW v{number} AS SELECT "
            + ("1 x" if number == 0 else f"v.x FROM v{number - 1} v, v{number - 1} w"),
        )
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    rows, wrong = execute(made, query)
    assert wrong and not rows
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 * HEAP // 1024
    assert (
        time.process_time() - began < 10
    )  # not a measurement: without the bounds these need minutes
    assert execute(made, "SELECT a, b FROM t")[0] == [("x", 1)]


def test_slow_steps_meet_the_clock(monkeypatch):
    monkeypatch.setattr(worlds.sql, "SECONDS", 0.05)
    began = time.process_time()
    query = (
        ROWS.replace("FROM c)", "FROM c LIMIT 200000)")
        + f"SELECT sum(instr('{WIDE}' || i, '{'a' * 1000}' || 'b' || i)) FROM c"
    )
    assert execute(database(), query)[1] == "the query took too long"
    assert (
        time.process_time() - began < 10
    )  # not a measurement: its two hundred thousand rows need a minute


def test_many_databases_filled_to_their_limit_leave_room_for_one_more():
    """The heap limit is the whole process's: a batch of hostile episodes must not starve the
    others.
    """
    filled = [database() for _ in range(128)]
    for made in filled:
        execute(made, f"INSERT INTO t {ROWS} SELECT '{WIDE}', i FROM c LIMIT 1000")
        while not execute(made, f"INSERT INTO t VALUES ('{WIDE}', 1)")[1]:
            pass
    assert execute(database(), "SELECT a, b FROM t ORDER BY a")[0] == [("x", 1)]


@pytest.mark.parametrize(
    "hostile",
    [
        ("CREATE VIEW extra AS SELECT 1",),
        ("CREATE TRIGGER g BEFORE INSERT ON {t} BEGIN DELETE FROM {t}; END",),
        ("CREATE INDEX extra ON {t} ({a})",),
        ("CREATE TABLE other AS SELECT * FROM {t}", "DROP TABLE {t}"),
        ("DROP TABLE {t}", f"CREATE VIEW {{t}} AS {ROWS} SELECT i, i FROM c"),
        ("DROP TABLE {t}", "CREATE TABLE {t} AS SELECT CAST(x'fffe' AS TEXT) x, 9e999 y"),
        ("UPDATE {t} SET {a} = CAST(x'ff00fe' AS TEXT)",),
        ("UPDATE {t} SET {a} = {a} || '" + "b" * 4000 + "'",),
        ("DELETE FROM {t}", "DROP TABLE {t}"),
        ("CREATE TABLE w (" + ",".join(f"c{n}" for n in range(90)) + ")",),
        (
            "DROP TABLE {t}",
            "CREATE TABLE {t} (x TEXT, g AS (x || x), h AS (g || g), i AS (h || h))",
            "INSERT INTO {t} (x) VALUES ('" + "a" * 200 + "')",
        ),
        ("CREATE TABLE n (a INTEGER PRIMARY KEY AUTOINCREMENT)", "DROP TABLE n"),
    ],
)
def test_the_judge_says_no_after_hostile_statements(hostile):
    """Right calls and answer, and a change that nobody asked for."""
    for index in range(3):
        task = [
            task
            for task in (draw_task("sql", 4, index, Difficulty(special=0.0)) for index in range(40))
            if task.answer.startswith("answer")
        ][index]
        table, (columns, _) = next(iter(task.truth["tables"].items()))
        with Episode(task, faults=False) as episode:
            for step in task.solution:
                episode.step(step.call)
            assert episode.verify(task.answer)
            for statement in hostile:
                assert not episode.step(
                    sql_call(statement.replace("{t}", table).replace("{a}", columns[0]))
                ).startswith("error")
            assert (episode.verify(task.answer), episode.problem) == (False, "")


def test_a_number_written_as_text_is_not_the_number():
    made = database()
    assert execute(made, "CREATE TABLE s AS SELECT '5' x")[1] == "" and execute(
        made, "SELECT x FROM s"
    )[0] == [("5",)]


@given(st.text() | st.text("SELECT*FROMt();,'\"=ab1 \n"))
def test_any_text_is_answered(query):
    rows, wrong = execute(database(), query)
    assert isinstance(rows, list) and isinstance(wrong, str)


def test_results_are_cut_and_shown_the_same_way_each_time():
    task = draw_task("sql", 1, 0)
    with Episode(task) as episode:
        counting = "SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 100"
        many = f"WITH RECURSIVE c(x) AS ({counting}) SELECT x FROM c"
        assert episode.step(sql_call(many)).splitlines() == [*map(str, range(1, 21)), "..."]
        assert episode.step(sql_call("SELECT NULL, 1.5, 'a'")) == "null|1.5|a"
        assert len(episode.step(sql_call("SELECT hex(zeroblob(5000))"))) < 700
        table = next(iter(task.truth["tables"]))
        assert episode.step(sql_call(f"SELECT * FROM {table} WHERE 0")) == "no rows"
        assert episode.step(sql_call(f"DELETE FROM {table} WHERE 0")) == "0 rows changed"


def test_rows_are_bounded_in_bytes():
    made = database()
    execute(made, "CREATE TABLE w (b)")
    execute(made, f"INSERT INTO w VALUES ('{'x' * 4500}')")
    wide = ", ".join(["w.b"] * 90)
    assert execute(made, f"SELECT {wide} FROM w") == ([("x" * 4500,) * 90], "")
    assert execute(made, f"SELECT {wide} FROM w, t, (SELECT 1 UNION SELECT 2 UNION SELECT 3)") == (
        [],
        "the rows are too long",
    )


def test_an_error_is_told_as_what_it_is_and_cut():
    """Though it quotes a query of any words, of any length."""
    assert "no such column" in execute(database(), "SELECT interrupted FROM t")[1]
    with Episode(draw_task("sql", 0, 0)) as episode:
        said = episode.step(sql_call(f"SELECT {'a' * 4900} FROM t"))
    assert said.startswith("error: ") and len(said) < worlds.sql.MOST_TEXT + 10


def test_nobody_adds_up_years():
    """In tables of real words some columns hold years."""
    long = Difficulty(names="english", shortest=3, chain=3, special=0.0)
    years = {
        column
        for table in ENGLISH_TABLES
        for column, values in table.numbers.items()
        if values.start >= worlds.sql.FIRST_YEAR
    }
    tasks = [draw_task("sql", 0, index, long) for index in range(200)]
    shown = 0
    for task in tasks:
        shown += any(years & set(columns) for columns, _ in task.truth["tables"].values())
    assert shown > 10, "no years were there to be added up"
    assert not years & {task.constraints["then"].removeprefix("sum ") for task in tasks}


def test_the_judge_looks_at_every_table():
    for index in range(150):
        task = draw_task("sql", 2, index, Difficulty(special=0.0))
        (first, (columns, _)), *others = task.truth["tables"].items()
        for spoil in (
            f"UPDATE {first} SET {columns[1]} = -1",
            f"INSERT INTO {first} ({columns[0]}) VALUES ('more')",
            "CREATE TABLE further (a)",
            f"DROP TABLE {first}",
            *(f"DELETE FROM {name}" for name, _ in others),
        ):
            with Episode(task) as episode:
                for step in task.solution:
                    episode.step(step.call)
                assert episode.verify(task.answer)
                assert not episode.step(sql_call(spoil)).startswith("error")
                assert not episode.verify(task.answer)
    with Episode(task) as episode:  # a temporary table of the same name does not hide the real one
        episode.step(sql_call(f"UPDATE {first} SET {columns[1]} = -1"))
        episode.step(sql_call(f"CREATE TEMP TABLE {first} AS SELECT * FROM {first}"))
        assert not episode.verify(task.answer)


def test_answers_against_plain_python():
    """SELECT tasks worked out from the request's constraints alone."""
    seen = set()
    for index in range(600):
        task = draw_task("sql", 3, index, Difficulty(special=0.0, arguments=3))
        wanted, said = task.constraints, task.answer.removeprefix("answer: ")
        for columns, rows in task.truth["tables"].values():
            records = [dict(zip(columns, row)) for row in rows]
            if task.kind == "select" and wanted["column"] in columns and len(columns) > 2:
                assert [
                    str(r[wanted["column"]]) for r in records if r[columns[0]] == wanted["where"]
                ] == [said]
            elif task.kind == "order" and wanted["column"] in columns:
                ranked = sorted(records, key=lambda r: r[wanted["column"]])
                assert ranked[-1 if wanted["way"] == "highest" else 0][columns[0]] == said
            elif task.kind == "count" and wanted["column"] in columns:
                assert sum(eval(f"{r[wanted['column']]}{wanted['where']}") for r in records) == int(
                    said
                )
            elif task.kind == "aggregate" and wanted["column"] in columns:
                assert {"sum": sum, "max": max, "min": min}[wanted["action"]](
                    r[wanted["column"]] for r in records
                ) == int(said)
            else:
                continue
            seen.add(task.kind)
    assert seen == {"select", "order", "count", "aggregate"}
