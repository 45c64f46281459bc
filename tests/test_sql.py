"""The SQL world: what a query may not do, the judge, and each family against rows worked out another way."""

import sqlite3
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worlds import Difficulty, Episode, draw
from worlds.sql import connect, execute, guard, sql


def database() -> sqlite3.Connection:
    made = connect()
    made.execute("CREATE TABLE t (a TEXT, b INT)")
    made.execute("INSERT INTO t VALUES ('x', 1)")
    guard(made)
    return made


@pytest.mark.parametrize("query", [
    "VACUUM INTO '/tmp/sage-leak.db'", "ATTACH '/tmp/sage-leak.db' AS other", "ATTACH ':memory:' AS other", "DETACH main",
    "PRAGMA writable_schema=1", "PRAGMA max_page_count=999999", "PRAGMA database_list", "SELECT * FROM pragma_database_list",
    "SELECT load_extension('x')", "SELECT fts3_tokenizer('simple')", "CREATE VIRTUAL TABLE v USING fts5(x)", "DELETE FROM sqlite_master",
    "SELECT random()", "SELECT randomblob(9)", "SELECT date('now')", "SELECT CURRENT_TIMESTAMP", "SELECT strftime('%s', 'now')", "SELECT unixepoch()",
    "SELECT readfile('/etc/passwd')", "SELECT 1; DROP TABLE t", "SELECT 'a\0b'", "SELECT '\ud800'", "SELECT", "no sql at all",
    "SELECT zeroblob(1000000000)", "SELECT replace(hex(zeroblob(400000)), '0', hex(zeroblob(400000)))", "SELECT printf('%.*c', 100000000, 'x')",
    "SELECT group_concat(hex(zeroblob(100000))) FROM (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 1000) SELECT x FROM c)",
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c",
    "CREATE TABLE big AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 9000) SELECT x, hex(zeroblob(9000)) FROM c",
    "INSERT INTO t WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x, x FROM c",
    "SELECT 1" + " + 1" * 50_000, "SELECT " + "(" * 5000 + "1" + ")" * 5000,
])
def test_a_query_may_not(query):
    made = database()
    rows, wrong = execute(made, query)
    assert wrong and not rows
    assert execute(made, "SELECT a, b FROM main.t")[0] == [("x", 1)]
    assert not Path("/tmp/sage-leak.db").exists()


def test_the_step_budget_ends_what_would_not_end():
    start = time.process_time()
    assert execute(database(), "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT sum(x) FROM c")[1] == "the query took too long"
    assert time.process_time() - start < 30      # not a measurement: without the budget this never ends


@given(st.text() | st.text("SELECT*FROMt();,'\"=ab1 \n"))
def test_any_text_is_answered(query):
    rows, wrong = execute(database(), query)
    assert isinstance(rows, list) and isinstance(wrong, str)


def test_results_are_cut_and_shown_the_same_way_each_time():
    task = draw("sql", 1, 0)
    with Episode(task) as episode:
        many = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 100) SELECT x FROM c"
        assert episode.step(sql(many)).splitlines() == [*map(str, range(1, 21)), "..."]
        assert episode.step(sql("SELECT NULL, 1.5, 'a'")) == "null|1.5|a"
        assert len(episode.step(sql("SELECT hex(zeroblob(5000))"))) < 700
        table = next(iter(task.truth["tables"]))
        assert episode.step(sql(f"SELECT * FROM {table} WHERE 0")) == "no rows"
        assert episode.step(sql(f"DELETE FROM {table} WHERE 0")) == "0 rows changed"


def test_the_judge_looks_at_every_table():
    for index in range(150):
        task = draw("sql", 2, index, Difficulty(special=0.0))
        (first, (columns, _)), *others = task.truth["tables"].items()
        for spoil in (f"UPDATE {first} SET {columns[1]} = -1", f"INSERT INTO {first} ({columns[0]}) VALUES ('more')", "CREATE TABLE further (a)",
                      f"DROP TABLE {first}", *(f"DELETE FROM {name}" for name, _ in others)):
            with Episode(task) as episode:
                for step in task.solution:
                    episode.step(step.call)
                assert episode.verify(task.answer)
                assert not episode.step(sql(spoil)).startswith("error")
                assert not episode.verify(task.answer)
    with Episode(task) as episode:               # a temporary table of the same name does not hide the real one
        episode.step(sql(f"UPDATE {first} SET {columns[1]} = -1"))
        episode.step(sql(f"CREATE TEMP TABLE {first} AS SELECT * FROM {first}"))
        assert not episode.verify(task.answer)


def test_answers_against_plain_python():
    """SELECT tasks worked out from the request's constraints alone."""
    seen = set()
    for index in range(600):
        task = draw("sql", 3, index, Difficulty(special=0.0, arguments=3))
        wanted, said = task.constraints, task.answer.removeprefix("answer: ")
        for columns, rows in task.truth["tables"].values():
            records = [dict(zip(columns, row)) for row in rows]
            if task.kind == "select" and wanted["column"] in columns and len(columns) > 2:
                assert [str(r[wanted["column"]]) for r in records if r[columns[0]] == wanted["where"]] == [said]
            elif task.kind == "order" and wanted["column"] in columns:
                ranked = sorted(records, key=lambda r: r[wanted["column"]])
                assert ranked[-1 if wanted["way"] == "highest" else 0][columns[0]] == said
            elif task.kind == "count" and wanted["column"] in columns:
                assert sum(eval(f"{r[wanted['column']]}{wanted['where']}") for r in records) == int(said)
            elif task.kind == "aggregate" and wanted["column"] in columns:
                assert {"sum": sum, "max": max, "min": min}[wanted["action"]](r[wanted["column"]] for r in records) == int(said)
            else:
                continue
            seen.add(task.kind)
    assert seen == {"select", "order", "count", "aggregate"}
