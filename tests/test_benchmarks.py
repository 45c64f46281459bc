"""Published benchmarks as tasks: the official scorers' verdicts, and the real files, which are not
part of the project."""

import json
import time
import zlib
from pathlib import Path

import bfcl_rule
import pytest

from config import UserError
from sandboxed import require_sandbox
from worlds.base import Episode
from worlds.extras.benchmarks import (
    BFCL_FILES,
    Database,
    agentbench_db,
    agentbench_os,
    bfcl,
    bfcl_task,
    said_answer,
    same_values,
    values_of,
    wrong_with,
)


def write(path: Path, *records: object, lines: bool = True) -> Path:
    """The records as a file, one per line or as one list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "\n".join(map(json.dumps, records)) if lines else json.dumps(records, indent=1),
        encoding="utf-8",
    )
    return path


# ------------------------------------------------------------------------------------ AgentBench DB

TABLE = {
    "table_name": "t",
    "table_info": {"columns": [{"name": "a"}, {"name": "b c"}], "rows": [["x", 1], ["y", 2.5]]},
}
ASKING = {"description": "?", "type": ["other"], "table": TABLE, "label": ["7"]}
CHANGING = {
    "description": "!",
    "type": ["DELETE"],
    "table": TABLE,
    "label": ["DELETE FROM t WHERE a = 'x'"],
    "answer_md5": "",
}


def database_tasks(folder: Path, *records: dict) -> list:
    write(folder / "dbbench" / "dev.jsonl", *records)
    return agentbench_db(folder)


@pytest.mark.parametrize(
    "file, changing, hashes, asking, runs, agrees",
    [("dev.jsonl", 40, 40, 20, 12, 3), ("standard.jsonl", 200, 195, 100, 66, 38)],
)
def test_database_statements_reproduce_the_published_hashes(
    real_data, file, changing, hashes, asking, runs, agrees
):
    """All of dev and 195 of 200 of standard (five need MySQL's escapes, names or collation); labels
    judge themselves right, and the published queries are as noisy as they are."""
    if not (real_data / "agentbench" / "dbbench" / file).is_file():
        pytest.skip(f"no {file}")
    found = [0, 0, 0, 0, 0]
    for task in agentbench_db(real_data / "agentbench", file):
        with Episode(task) as episode:
            if task.truth["changing"]:
                assert not episode.verify("done"), (
                    "the untouched table cannot have the hash of the changed one"
                )
                episode.step(task.solution[0].call)
                found[0], found[1] = found[0] + 1, found[1] + episode.verify("done")
            else:
                said = episode.step(
                    {"name": "sql", "arguments": {"query": task.truth["published"]}}
                )
                found[2], found[3], found[4] = (
                    found[2] + 1,
                    found[3] + (not said.startswith("error")),
                    found[4] + episode.verify(f"answer: {said}"),
                )
                assert episode.verify(task.answer) and not episode.verify("answer: 123456789")
    assert found == [changing, hashes, asking, runs, agrees]


# (answer, label, verdict): by AgentBench's DBResultProcessor.compare_results, commit 578c5e9f.
ANSWERS = [
    ("7", ["7.0"], True),
    ("7.01", ["7"], True),
    ("7.011", ["7"], False),
    ("21,000", ["21000.0"], True),
    ("none", ["None"], True),
    ("0", ["None"], True),
    ("", ["none"], True),
    ("NaN", ["0"], True),
    ("45%", ["45"], True),
    ("45 %", ["45"], True),
    ("%", ["0"], False),
    ("'x'", ["x"], True),
    ("x ", ["x"], True),
    ("X", ["x"], False),
    ("[('a',), ('b',)]", ["b", "a"], True),
    ('["a", "b"]', ["b"], False),
    ('["b", "a", "a"]', ["a", "b"], True),
    ("[(1,), (2.001,)]", ["2", "1"], True),
    ("[(1,), (1,)]", ["1"], False),
    ("[1, 1]", ["1"], False),
    ("Don't", ["Don't"], True),
    ('["Don\'t"]', ["Don't"], True),
    ("[]", ["0"], False),
    ("[]", [""], False),
    ("[('a', 'b')]", ["a", "b"], False),
    ("[('a', 1), ('b',)]", ["b"], True),
    ("[(None,)]", ["0"], True),
    ("[None]", ["none"], True),
    ("[abc]", ["abc"], True),
    ("[abc, def]", ["def", "abc"], True),
    ("[(abc,)]", ["abc"], True),
    ("[('1,234',)]", ["1234"], True),
    ("[March 19, 1998]", ["March 19, 1998"], False),
    ('["March 19, 1998"]', ["March 19, 1998"], True),
    ("March 19, 1998", ["March 19 1998"], True),
    ("[1.004, 1.0]", ["1.0", "1.012"], False),
    ("[1.0, 1.004]", ["1.0", "1.012"], True),
    ("1e3", ["1000"], True),
    ("1_000", ["1000"], True),
    ("inf", ["0"], True),
    ("[('x%',)]", ["x"], True),
    ("[True]", ["True"], True),
    ("True", ["1"], False),
    ("[1, 'a']", ["a", "1"], True),
    ("[1.0, 'a']", ["a", "1"], False),
    ("[[1, 2]]", ["[1, 2]"], True),
    ("[a, 'b, c']", ["b, c", "a"], True),
    ("[a,,b]", ["a", "b"], True),
    ("[a, ]", ["a"], False),
    ("(a,)", ["(a)"], True),
    ("[('a',)", ["[('a',)"], True),
    ("{'a'}", ["{'a'}"], True),
    ("[“a”]", ["“a”"], True),
    ("a,b", ["ab"], True),
    ("1–0", ["1–0"], True),
    ('["1–0", "2–0"]', ["1–0", "2–0"], True),
]


@pytest.mark.parametrize("given, label, right", ANSWERS)
def test_answers_are_compared_by_the_official_rule(given, label, right):
    assert same_values(values_of(given), values_of(label)) == right


@pytest.mark.parametrize(
    "message, answer",
    [
        ("answer: 5", "5"),
        ("Answer: 5", "5"),
        ("ANSWER:5", "5"),
        ("I looked.\nAnswer: a: b", "a: b"),
        ('Final Answer: ["a"]', '["a"]'),
        ("answer: 1\nanswer: 2", "2"),
        ("answer: two\nlines", "two\nlines"),
        ("  answer:  x", " x"),
        ("thus\n5", "5"),
        ("the answer: 5", "the answer: 5"),
        ("", ""),
        ("answer:", ""),
        ("done", "done"),
    ],
)
def test_the_answer_of_a_message(message, answer):
    assert said_answer(message) == answer


@pytest.mark.parametrize(
    "label, right, wrong",
    [
        (["7"], "7.0", "8"),
        ("7", "7", "70"),
        (7, "7", "6"),
        (7.5, "7.5", "7.6"),
        (["b", "a"], '["a", "b"]', "a"),
        (None, "none", "1"),
    ],
)
def test_labels_in_any_form(tmp_path, label, right, wrong):
    for kind in (["other"], "other"):
        (task,) = database_tasks(tmp_path, {**ASKING, "type": kind, "label": label})
        with Episode(task) as episode:
            assert (
                episode.verify(f"Answer: {right}")
                and episode.verify(task.answer)
                and not episode.verify(f"answer: {wrong}")
            )


@pytest.mark.parametrize("kind", [["DELETE"], "DELETE", ["UPDATE"], "INSERT"])
def test_without_a_published_hash_the_right_statement_is_run(tmp_path, kind):
    """As in the official scorer; of two tables both count."""
    (task,) = database_tasks(
        tmp_path, {**CHANGING, "type": kind, "table": [TABLE, {**TABLE, "table_name": "u"}]}
    )
    with Episode(task) as episode:
        assert not episode.verify("done")
        episode.step({"name": "sql", "arguments": {"query": "delete from t where \"b c\" = '1'"}})
        assert episode.verify("whatever")
        episode.step({"name": "sql", "arguments": {"query": "delete from u"}})
        assert not episode.verify("done")
        episode.step({"name": "sql", "arguments": {"query": "drop table t"}})
        assert not episode.verify("done")


def test_an_empty_table_has_the_hash_none(tmp_path):
    """MySQL's group_concat of no rows is NULL."""
    (task,) = database_tasks(tmp_path, {**CHANGING, "answer_md5": "[(None,)]"})
    with Episode(task) as episode:
        episode.step({"name": "sql", "arguments": {"query": "DELETE FROM t"}})
        assert episode.verify("done")


def test_cells_are_text_as_in_the_published_environment(tmp_path):
    (task,) = database_tasks(
        tmp_path,
        {
            **ASKING,
            "table": {
                **TABLE,
                "table_info": {**TABLE["table_info"], "rows": [[None, 1], [True, 2.0]]},
            },
        },
    )
    with Episode(task) as episode:
        assert (
            episode.step({"name": "sql", "arguments": {"query": "SELECT * FROM t"}})
            == "[('None', '1'), ('True', '2.0')]"
        )
        numbers = "WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
        long = f"{numbers} SELECT i FROM n"
        assert (said := episode.step({"name": "sql", "arguments": {"query": long}})).endswith(
            "[TRUNCATED]"
        ) and len(said) == 811


@pytest.mark.parametrize(
    "change, message",
    [
        ({"type": []}, "should be non-empty"),
        ({"type": 3}, r"\['type'\]"),
        ({"table": {}}, r"\['table'\]"),
        ({"description": None}, "description"),
        (
            {"table": {**TABLE, "table_info": {"columns": [{"name": "a"}], "rows": [["x", 1]]}}},
            "1 columns",
        ),
        ({"label": ...}, "needs a label"),
        ({"type": ["INSERT"]}, "needs answer_md5"),
        ({"type": "INSERT", "answer_md5": "", "label": []}, "needs answer_md5"),
        ({"user_sqlite": True}, "user_sqlite"),
    ],
)
def test_malformed_database_records_are_named_with_their_line(tmp_path, change, message):
    record = {key: value for key, value in {**ASKING, **change}.items() if value is not ...}
    with pytest.raises(UserError, match=f"dev.jsonl:2.*{message}"):
        database_tasks(tmp_path, ASKING, record)


def test_a_table_that_sqlite_does_not_take(tmp_path):
    (task,) = database_tasks(
        tmp_path,
        {
            **ASKING,
            "table": {
                **TABLE,
                "table_info": {"columns": [{"name": "a"}, {"name": "A"}], "rows": []},
            },
        },
    )
    with pytest.raises(UserError, match="duplicate column"):
        Database(task)


# ------------------------------------------------------------------------------------ AgentBench OS


def system_tasks(
    folder: Path, *records: dict, file: str = "dev.json", lines: bool = False
) -> tuple[list, dict]:
    write(folder / "os" / file, *records, lines=lines)
    return agentbench_os(folder, file)


def asked(**evaluation: object) -> dict:
    return {"description": "?", "evaluation": evaluation}


def test_operating_system_tasks(real_data):
    """Which of the 26 dev tasks run here: their example's output is right and another answer is
    not; of the rest the reason is known."""
    require_sandbox()
    tasks, reasons = agentbench_os(real_data / "agentbench")
    run, right = 0, 0
    for task in tasks:
        try:
            episode = Episode(task)
        except UserError as reason:
            reasons[task.seed] = str(reason)
            continue
        with episode:
            if task.solution and not task.truth["match"]:
                said = episode.step(task.solution[0].call)
                right += episode.verify(f"answer: {said}")
            else:  # a program in the background that keeps writing: it must be alive
                look = {
                    "name": "bash",
                    "arguments": {"command": "cat log r1/.plain.log 2>/dev/null | wc -c"},
                }
                first, end = (
                    int(episode.step(look)),
                    time.monotonic() + 10,
                )  # the slowest writes every three seconds
                while int(episode.step(look)) == first:
                    assert time.monotonic() < end, "nothing is written in the background"
                    time.sleep(0.1)
                right += episode.verify(f"Answer: {task.truth['match']['answer']}")
            assert not episode.verify("answer: 987654") and not episode.verify("")
            run += 1
    # task 8 compares "4.0K" by size-match.py, which takes whole numbers only: nothing is right
    # there, in the published environment neither
    assert (run, right) == (22, 21) and {3, 5, 24, 25} == set(reasons), reasons


@pytest.mark.slow
def test_operating_system_training_tasks(real_data):
    require_sandbox()
    tasks, reasons = agentbench_os(real_data / "agentbench", "training_1000.json")
    assert not reasons
    right = 0
    for task in tasks:
        try:
            with Episode(task) as episode:
                right += episode.verify(
                    f"answer: {episode.step(task.solution[0].call)}"
                ) and not episode.verify("answer: 987654")
        except UserError:
            pass
    assert right >= 950


@pytest.mark.parametrize(
    "match, right, wrong",
    [
        (
            "yes",
            ["answer: yes", "Answer:  yes ", "yes", "thus\nFinal answer: yes"],
            ["answer: Yes", "answer: yes.", "answer: ", ""],
        ),
        ("two\nlines", ["answer: two\nlines"], ["answer: lines", "lines"]),
        ({"answer": "yes", "strip": True}, ["answer:  yes "], ["answer: no"]),
        ({"answer": " yes", "strip": False}, ["answer:  yes"], ["answer: yes"]),
        ({"regex": "^[0-9]+$", "strip": True}, ["answer: 12 "], ["answer: 12a"]),
        ({"regex": "b+$", "strip": False}, ["answer: abb"], ["answer: abb "]),
        ({"regex": "(a+)+$"}, ["answer: aaa"], ["answer: " + "a" * 5000 + "b"]),
    ],
)
def test_answers_that_are_matched(tmp_path, match, right, wrong):
    require_sandbox()
    (task,), _ = system_tasks(tmp_path, asked(match=match))
    with Episode(task) as episode:
        assert [message for message in right if not episode.verify(message)] == []
        assert [message for message in wrong if episode.verify(message)] == []


FILES = {
    name: {"language": "python", "file": f"check/{name}.py"}
    for name in ("integer-match", "string-match", "size-match", "containing", "in")
}


@pytest.mark.parametrize(
    "check, example, right, wrong",
    [
        (
            [None, FILES["integer-match"]],
            "echo 12",
            ["12", " 12 ", "+12", "1_2"],
            ["12.0", "13", "twelve", ""],
        ),
        (
            [None, FILES["string-match"]],
            "printf ' a\\r\\nb\\n'",
            ["a\nb", "a\rb"],
            ["ab", "a b", "A\nb"],
        ),
        (
            [None, FILES["size-match"]],
            "echo 4096",
            ["4K", "4096B", "4096 Byte", "4 K", "4096"],
            ["4KB", "4.0K", "4k", "4M"],
        ),
        ([None, FILES["size-match"]], "echo 4.0K", [], ["4.0K", "4K", "4096"]),
        ([None, FILES["containing"]], "echo b", ["abc", "b"], ["ac"]),
        ([None, FILES["in"]], "echo abc", ["b", ""], ["d"]),
        (
            [
                None,
                {
                    "language": "python",
                    "code": "from sys import argv\nassert argv[1] == argv[2].strip()",
                },
            ],
            {"code": "seq 300 | tr -d '\\n'"},
            ["".join(map(str, range(1, 301)))],
            ["1"],
        ),
        ('[ "$1" = 5 ]', None, ["5"], ["6"]),
        ({"code": "[ $1 = 5 ] && exit 0; exit 3"}, None, ["5"], ["6"]),
        (
            [
                {"language": "bash", "code": "echo one; echo noise >&2"},
                {"language": "python", "code": "import sys\nexit(sys.argv[1:] != ['x', 'one\\n'])"},
            ],
            None,
            ["x"],
            ["y"],
        ),
        (["echo one", "echo $2 two", 'set -- $*; [ "$*" = "x one one two" ]'], None, ["x"], ["y"]),
        (["false", "true"], None, [], ["1"]),
        (["true", "false"], None, [], ["1"]),
        (None, "[ $1 = 4 ]", ["4"], ["5"]),
        ([{"language": "python", "code": "exit(0)"}], None, ["anything"], []),
    ],
)
def test_answers_that_are_checked(tmp_path, check, example, right, wrong):
    """The verdicts of AgentBench's own scripts (commit 578c5e9f), and of scripts in the data,
    chained as its task.py chains them."""
    require_sandbox()
    tasks, reasons = system_tasks(
        tmp_path, asked(check=check, **({"example": example} if example else {}))
    )
    assert not reasons
    with Episode(tasks[0]) as episode:
        assert [answer for answer in right if not episode.verify(f"answer: {answer}")] == []
        assert [answer for answer in wrong if episode.verify(f"answer: {answer}")] == []


def test_states_that_are_checked(tmp_path):
    """Variables and the folder of the start, lists of preparations in two languages, and a judge
    that the agent cannot replace."""
    require_sandbox()
    record = {
        "description": "?",
        "labels": ["x"],
        "start": "v=3; mkdir d; cd d; f() { echo $v; }",
        "create": {
            "local": "default",
            "init": [
                "echo 1 > a",
                {"language": "python", "code": "open('b', 'w').write('2')"},
                {"code": "true"},
            ],
        },
        "evaluation": {
            "check": [
                {"code": "find d/new"},
                {"language": "python", "code": "from sys import argv; exit(argv[1] != '5')"},
            ],
            "example": {"code": "touch new"},
        },
    }
    (task,), _ = system_tasks(tmp_path, record)
    with Episode(task) as episode:
        assert (
            episode.step({"name": "bash", "arguments": {"command": "f; cat ../a ../b; pwd"}})
            == "3\n1\n2/root/d"
        )
        assert not episode.verify("answer: 5")
        assert (
            episode.step(task.solution[0].call) == ""
            and episode.verify("answer: 5")
            and not episode.verify("answer: 6")
        )
        forge = (
            "cd /usr/local/bin; for t in find python3 bash; do "
            "printf '#!/bin/bash\\n' > $t; chmod +x $t; done; rm -r /root/d"
        )
        assert episode.step(
            {"name": "bash", "arguments": {"command": forge}}
        ) == "" and not episode.verify("answer: 5")
        assert episode.step({"name": "bash", "arguments": {"command": "seq 1000"}}).endswith(
            "truncated because the output is too long]"
        )


def test_a_program_that_talks_in_the_background_raises_nothing(tmp_path):
    """What it prints may follow a command's end at once, before its status is read."""
    require_sandbox()
    (task,), _ = system_tasks(
        tmp_path, {**asked(match="x"), "start": "(for i in {1..20000}; do echo $i; done) &"}
    )
    with Episode(task) as episode:
        for _ in range(100):
            episode.step({"name": "bash", "arguments": {"command": "true"}})
        assert episode.step({"name": "bash", "arguments": {"command": "echo end"}}).endswith("end")


def test_a_single_object_lines_and_scripts_of_their_own(tmp_path):
    """data/4/N4.json holds one object; a script's file is looked for in scripts/4, dev.json's in
    scripts/dev, and nowhere else."""
    require_sandbox()
    write(tmp_path / "os" / "data" / "4" / "N4.json", asked(match="love"))
    assert [task.answer for task in agentbench_os(tmp_path, "data/4/N4.json")[0]] == [
        "answer: love"
    ]
    assert (
        len(
            system_tasks(
                tmp_path, asked(match="1"), asked(match="2"), file="dev.jsonl", lines=True
            )[0]
        )
        == 2
    )
    for folder in ("4", "dev"):
        write(tmp_path / "os" / "scripts" / folder / "check" / "0.sh", 0).write_text(
            f"[ $1 = {folder} ]"
        )
    for file, answer in (("data/4/N5.json", "4"), ("dev.json", "dev")):
        (task,), _ = system_tasks(tmp_path, asked(check={"file": "check/0.sh"}), file=file)
        with Episode(task) as episode:
            assert episode.verify(f"answer: {answer}") and not episode.verify("answer: 5")
    (tmp_path / "secret.sh").write_text("true")
    for file in ("../../../secret.sh", str(tmp_path / "secret.sh"), "check", "check/none.sh"):
        assert (
            "not among the published data"
            in system_tasks(tmp_path, asked(check={"file": file}))[1][0]
        )


@pytest.mark.parametrize(
    "record, reason",
    [
        (
            asked(check={"language": "c++", "code": "int main() {}"}),
            "c\\+\\+; bash and python run here",
        ),
        (
            {**asked(match="x"), "create": {"init": {"language": "c", "code": ""}}},
            "preparation is written in c;",
        ),
        (
            {**asked(match="x"), "create": {"init": {"file": "init/stock-log.sh"}}},
            "init/stock-log.sh, which is not among",
        ),
        (asked(check=[None]), "it has none"),
        (asked(match={"regex": "("}), "malformed"),
    ],
)
def test_what_cannot_run_here_is_left_out_with_its_reason(tmp_path, record, reason):
    tasks, reasons = system_tasks(tmp_path, asked(match="x"), record)
    assert len(tasks) == 1
    with pytest.raises(UserError, match=f"dev.json:[0-9]+: .*{reason}"):
        raise UserError(reasons[1])


@pytest.mark.parametrize(
    "record",
    [
        {},
        [],
        3,
        {"description": "?"},
        asked(),
        asked(match=3),
        asked(match={}),
        asked(match={"answer": "x", "strip": "yes"}),
        asked(check={"path": "x"}),
        asked(check=[3]),
        {**asked(match="x"), "create": "x"},
        {**asked(match="x"), "start": ["x"]},
        {**asked(match="x"), "labels": "x"},
    ],
)
def test_malformed_system_records_are_named_with_their_line(tmp_path, record):
    write(tmp_path / "os" / "dev.jsonl", asked(match="x"), record)
    with pytest.raises(UserError, match="dev.jsonl:2 is not the published format"):
        agentbench_os(tmp_path, "dev.jsonl")


# --------------------------------------------------------------------------------------------- BFCL

QUESTION = {
    "id": "multiple_0",
    "question": [[{"role": "user", "content": "?"}]],
    "function": [
        {
            "name": "f",
            "description": "",
            "parameters": {
                "type": "dict",
                "properties": {"a": {"type": "integer"}},
                "required": ["a"],
            },
        }
    ],
}
ANSWER = {"id": "multiple_0", "ground_truth": [{"f": {"a": [1]}}]}


def bfcl_files(folder: Path, questions: list, answers: list, name: str = "multiple") -> Path:
    write(folder / f"BFCL_v4_{name}.json", *questions)
    write(folder / "possible_answer" / f"BFCL_v4_{name}.json", *answers)
    return folder


def schema_of(words: str) -> dict:
    """ "array of float" as the files write it."""
    outer, _, inner = words.partition(" of ")
    return {"type": outer, "items": {"type": inner}} if inner else {"type": outer}


@pytest.mark.parametrize("schema, allowed, value, verdict", bfcl_rule.VERDICTS)
def test_values_are_judged_by_the_official_rule(schema, allowed, value, verdict):
    function = {
        "name": "f",
        "parameters": {"properties": {"a": schema_of(schema)}, "required": ["a"]},
    }
    assert wrong_with({"name": "f", "arguments": {"a": value}}, function, {"a": allowed}) == verdict


@pytest.mark.parametrize("required, allowed, arguments, verdict", bfcl_rule.CALLS)
def test_arguments_are_judged_by_the_official_rule(required, allowed, arguments, verdict):
    function = {
        "name": "f",
        "parameters": {
            "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
            "required": required,
        },
    }
    assert wrong_with({"name": "f", "arguments": arguments}, function, allowed) == verdict
    assert wrong_with({"name": "F", "arguments": arguments}, function, allowed) == "wrong_func_name"


@pytest.mark.parametrize("expected, made, right", bfcl_rule.MESSAGES)
def test_each_expected_call_takes_the_first_right_one(expected, made, right):
    """The official matching is greedy: what an earlier expected call takes is gone for the later
    ones."""
    task = bfcl_task("parallel", QUESTION, "", [{"f": {"a": allowed}} for allowed in expected])
    with Episode(task) as episode:
        for value in made:
            episode.step({"name": "f", "arguments": {"a": value}})
        assert episode.verify("done") == right


@pytest.mark.parametrize("name", BFCL_FILES)
def test_function_calls_of_the_answer_key_are_right(real_data, name):
    """Every key allows its own calls, but four live ones, which the official checker refuses too:
    two allow no value at all, two another's argument."""
    if not (real_data / "bfcl" / f"BFCL_v4_{name}.json").is_file():
        pytest.skip(f"no BFCL_v4_{name}.json")
    unsolvable = []
    for task in bfcl(real_data / "bfcl", f"BFCL_v4_{name}.json"):
        call = {"name": "any", "arguments": {}}
        with Episode(task) as episode:
            for step in task.solution:
                episode.step(step.call)
            if name == "live_relevance":
                assert not episode.verify("done")
                episode.step(call)
            unsolvable += [] if episode.verify(task.answer) else [task.seed]
            episode.step(call)
            assert episode.verify(task.answer) == (name == "live_relevance"), "one call too many"
    assert unsolvable == {"live_simple": [106, 112], "live_multiple": [862, 964]}.get(name, [])


@pytest.mark.parametrize("name", bfcl_rule.OFFICIAL)
def test_verdicts_on_the_real_keys_are_the_official_ones(real_data, name):
    """Every allowed call and some tens of spoilt ones around each, 1896 to 66102 a file: the
    verdicts of the official checker, recorded as a checksum."""
    path = real_data / "bfcl" / "possible_answer" / f"BFCL_v4_{name}.json"
    release, trials, right, checksum = bfcl_rule.OFFICIAL[name]
    if not path.is_file() or zlib.crc32(path.read_bytes()) != release:
        pytest.skip(f"no BFCL_v4_{name}.json of the release that was judged")
    verdicts = b"".join(
        b"0" if bfcl_rule.verdict(*trial) else b"1"
        for _, *trial in bfcl_rule.trials(bfcl(real_data / "bfcl", name))
    )
    assert (len(verdicts), verdicts.count(b"1"), zlib.crc32(verdicts)) == (trials, right, checksum)


@pytest.mark.slow
@pytest.mark.parametrize("name", bfcl_rule.OFFICIAL)
def test_verdicts_beside_the_installed_leaderboard(name):
    """With `pip install --no-deps bfcl-eval`, which brings its data too: the families of all
    errors, trial by trial."""
    judge = bfcl_rule.official()
    if judge is None:
        pytest.skip("bfcl-eval is not installed")
    import bfcl_eval

    for kind, *trial in bfcl_rule.trials(bfcl(Path(bfcl_eval.__file__).parent / "data", name)):
        assert bfcl_rule.verdict(*trial) == judge(*trial), (kind, trial)


def test_calls_that_the_schema_refuses_reach_the_judge(tmp_path):
    """A wrong call counts though the check refuses it: irrelevance fails by it, and a right one
    after it does not mend it. One that the key allows against its schema is right."""
    wrong = {"name": "f", "arguments": {"a": "x"}}
    for name, message in (
        ("irrelevance", False),
        ("live_irrelevance", False),
        ("live_relevance", True),
    ):
        with Episode(bfcl_task(name, QUESTION, "", [])) as episode:
            assert episode.verify("x") is not message
            episode.step(wrong)
            assert episode.log[0].faults and episode.verify("x") is message
    with Episode(bfcl_task("multiple", QUESTION, "", ANSWER["ground_truth"])) as episode:
        episode.step(wrong)
        episode.step({"name": "f", "arguments": {"a": 1}})
        assert not episode.verify("done")
    with Episode(bfcl_task("multiple", QUESTION, "", [{"f": {"a": ["x"]}}])) as episode:
        assert episode.step(wrong) == "ok" and episode.verify("done")


def test_names_of_the_files(tmp_path):
    bfcl_files(tmp_path, [QUESTION], [ANSWER])
    for name in ("multiple", "BFCL_v4_multiple", "BFCL_v4_multiple.json"):
        assert [task.answer for task in bfcl(tmp_path, name)] == ["done"]
    for name, reason in (
        ("simple", "there are simple_python"),
        ("BFCL_v3_simple.json", "another release"),
        ("BFCL_v3_live_simple", "another release"),
        ("simple_java", "literals of Java"),
        ("BFCL_v4_simple_javascript.json", "literals of Java"),
        ("multi_turn_base", "several turns"),
        ("memory_kv", "memory holds"),
        ("web_search_base", "the web"),
        ("format_sensitivity", "system prompt"),
        ("../multiple", "there are"),
    ):
        with pytest.raises(UserError, match=f"no BFCL file .*{reason}"):
            bfcl(tmp_path, name)


def test_the_request_holds_all_messages():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "?"},
    ]
    task = bfcl_task(
        "live_simple",
        {**QUESTION, "id": "live_simple_12-3-0", "question": [messages]},
        "",
        ANSWER["ground_truth"],
    )
    assert (
        task.request == "system: Be brief.\n\nuser: Hi\n\nassistant: Hello\n\nuser: ?"
        and task.seed == 12
    )


@pytest.mark.parametrize(
    "question, answer, message",
    [
        ({}, {"id": "multiple_1"}, "BFCL_v4_multiple.json:1: .*no answer for multiple_0"),
        ({"id": "x"}, {}, r"BFCL_v4_multiple.json:1 .*\['id'\]"),
        ({"function": {}}, {}, r":1 .*\['function'\]"),
        ({"function": [{"name": "f"}]}, {}, "'parameters' is a required"),
        (
            {"function": [{"name": "f", "parameters": {"properties": {}}}]},
            {},
            "'required' is a required",
        ),
        ({"question": "?"}, {}, r"\['question'\]"),
        ({"question": QUESTION["question"] * 2}, {}, "too long"),
        ({"question": [[{"role": "user"}]]}, {}, "'content' is a required"),
        ({}, {"ground_truth": []}, "possible_answer/BFCL_v4_multiple.json:1 .*non-empty"),
        ({}, {"ground_truth": [{}]}, "should be non-empty"),
        ({}, {"ground_truth": [{"f": {}, "g": {}}]}, "too many properties"),
        ({}, {"ground_truth": [{"f": {"a": 1}}]}, "is not of type 'array'"),
        ({}, {"ground_truth": ["f(a=1)"]}, "is not of type 'object'"),
        ({}, {"ground_truth": [{"f": {"a": [{"b": 1}]}}]}, "is not of type 'array'"),
        (
            {},
            {"ground_truth": [{"g": {"a": [1]}}]},
            "possible_answer/BFCL_v4_multiple.json:1: the answer calls g",
        ),
        (
            {
                "function": [
                    {
                        "name": "f",
                        "parameters": {"properties": {"a": {"type": "number"}}, "required": []},
                    }
                ]
            },
            {},
            "type of f's a",
        ),
        (
            {
                "function": [
                    {
                        "name": "f",
                        "parameters": {"properties": {"a": {"type": "array"}}, "required": []},
                    }
                ]
            },
            {},
            "type of f's a",
        ),
        (
            {
                "function": [
                    {
                        "name": "f",
                        "parameters": {"properties": {"a": {"type": ["integer"]}}, "required": []},
                    }
                ]
            },
            {},
            "type of f's a",
        ),
    ],
)
def test_malformed_leaderboard_records_are_named_with_their_line(
    tmp_path, question, answer, message
):
    with pytest.raises(UserError, match=message):
        bfcl(bfcl_files(tmp_path, [{**QUESTION, **question}], [{**ANSWER, **answer}]), "multiple")


def test_two_answers_for_one_case(tmp_path):
    with pytest.raises(UserError, match="json:2: a second answer for multiple_0"):
        bfcl(bfcl_files(tmp_path, [QUESTION], [ANSWER, ANSWER]), "multiple")


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "is not there"),
        ("{broken", "jsonl:1 is not the published format"),
        ('{"a": 1}\n[', "jsonl:1 is not .*required"),
        (f'{json.dumps(ASKING)}\n\n{{"description": ', "jsonl:3 is not"),
        (f"{json.dumps(ASKING)}\n3", "jsonl:2 is not .*object"),
        (f"[{json.dumps(ASKING)},\n{json.dumps(ASKING)}", "jsonl:2 is not"),
        (f"[{json.dumps(ASKING)},\n\n {{}}]", "jsonl:3 is not .*required"),
        (f"[{json.dumps(ASKING)}] []", "jsonl:1 is not"),
        ("[" * 100_000, "is not the published format"),
        (b"\xff{}", "is not the published format"),
        ('{"description": ' + "9" * 5000 + "}", "is not the published format"),
    ],
)
def test_broken_files_are_named(tmp_path, text, message):
    path = tmp_path / "dbbench" / "dev.jsonl"
    path.parent.mkdir()
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        agentbench_db(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ASKING),
        json.dumps(ASKING, indent=2),
        json.dumps([ASKING], indent=2),
        "\ufeff" + json.dumps([ASKING]) + "\n\n",
    ],
)
def test_lines_lists_and_single_objects_are_read(tmp_path, text):
    (tmp_path / "dbbench").mkdir()
    (tmp_path / "dbbench" / "standard.jsonl").write_text(text, encoding="utf-8")
    assert [task.answer for task in agentbench_db(tmp_path, "standard.jsonl")] == ["answer: 7"]
