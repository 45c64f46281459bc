"""Published benchmarks as tasks of the worlds' protocol, from files in a folder (section 6).

    agentbench_db(folder, file)   AgentBench DB, dbbench/dev.jsonl or standard.jsonl: SQL in SQLite
    agentbench_os(folder, file)   AgentBench OS, os/dev.json and such: bash in the sandbox
    bfcl(folder, name)            Berkeley function calling, BFCL_v4_<name>.json: one turn of calls

Each gives a list of Tasks for worlds.base.Episode. The judges follow the official scorers' code,
also where it surprises. Both are Apache-2.0:
- github.com/ShishirPatil/gorilla, commit 6ea57973 (bfcl-eval 2026.3.23): ast_checker.py
- github.com/THUDM/AgentBench, commit 578c5e9f: dbbench/result_processor.py, os_interaction/task.py

What differs from those:
- An answer is the last message's "answer: ..." instead of a call of an answering tool.
- DB: SQLite instead of MySQL. An answer in the form of a list is read as literals; the official
  scorer runs it as Python, where "[2010-11]" is 1999.
- OS: the sandbox instead of a container: Debian, and a user that looks like root and may do nothing
  more. Scripts in C and C++ are refused.
- BFCL: Java, JavaScript, multi-turn, memory and web search are refused. A message that is no call
  does not end the episode.

What a file holds that these formats do not allow is a UserError with file and line.
"""

import ast
import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import regex  # unlike re it can stop a search that backtracks for ever

from config import UserError
from worlds.tools import make_tool
from worlds.base import SolutionStep, Task, World
from worlds.extras.sandbox import Limits, Sandbox, SandboxDied
from worlds.shell import Shell
from worlds.sql import connect, execute, guard


# -------------------------------------------------------------------------------------------- files

SHOWN = 800  # characters of an observation that AgentBench shows
TEXT = {"type": "string"}


def object_with(*required: str, **properties: Any) -> dict[str, Any]:
    """The JSON schema of an object with these properties, `required` among them, and any others."""
    return {"type": "object", "required": list(required), "properties": properties}


def list_of(items: Any, **more: Any) -> dict[str, Any]:
    """The JSON schema of a list."""
    return {"type": "array", "items": items, **more}


def rows_of(path: Path, form: dict[str, Any]) -> list[tuple[str, dict]]:
    """[("file:line", record)] of a .json list, a single object, or a file with one object per line.

    `form` is the JSON schema of a record. Raises UserError that names file and line.
    """
    if not path.is_file():
        raise UserError(
            f"{path} is not there; name the folder that holds the benchmark's "
            "published files (docs/WORLDS.md, 'Real data')"
        )
    decoder, validator, rows = json.JSONDecoder(), jsonschema.Draft202012Validator(form), []
    line, counted, at = 1, 0, 0
    try:
        text = path.read_text(encoding="utf-8-sig")
        listed = text.lstrip().startswith("[")
        if listed:
            json.loads(text)  # brackets and commas; below, the records' lines
            at = text.index("[") + 1
        between = re.compile(r"[\s,]*" if listed else r"\s*")
        while (at := between.match(text, at).end()) < len(text):
            if listed and text[at] == "]":
                break
            line, counted = line + text.count("\n", counted, at), at
            record, at = decoder.raw_decode(text, at)
            if problem := jsonschema.exceptions.best_match(validator.iter_errors(record)):
                where = "".join(f"[{part!r}]" for part in problem.absolute_path)
                raise ValueError(f"record{where}: {problem.message[:200]}")
            rows.append((f"{path}:{line}", record))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno} is not the published format: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}:{line} is not the published format: {error}") from None
    return rows


ANSWER = re.compile(r"^[ \t]*(?:final[ \t]+)?answer:[ \t]?", re.IGNORECASE | re.MULTILINE)


def said_answer(message: str) -> str:
    """What the agent's last message gives as its answer: all that follows the last "answer:" at a
    line's beginning (or "Answer:", "Final Answer:"), else the last line."""
    parts = ANSWER.split(message)
    return parts[-1] if len(parts) > 1 else (message.strip().splitlines() or [""])[-1]


# ------------------------------------------------------------------------------------ AgentBench DB

SQL = make_tool("sql", "Run one SQLite statement and get its result.", {"query": TEXT})
CHANGING = ("INSERT", "UPDATE", "DELETE")
TABLE = object_with(
    "table_name",
    "table_info",
    table_name=TEXT,
    table_info=object_with(
        "columns",
        "rows",
        columns=list_of(object_with("name", name=TEXT), minItems=1),
        rows=list_of({"type": "array"}),
    ),
)
DB_RECORD = object_with(
    "description",
    "type",
    "table",
    description=TEXT,
    add_description=TEXT,
    evidence=TEXT,
    answer_md5=TEXT,
    sql=object_with(query=TEXT),
    type={"anyOf": [TEXT, list_of(TEXT, minItems=1)]},
    table={"anyOf": [TABLE, list_of(TABLE, minItems=1)]},
)


def several(value: Any) -> list:
    """A list as it is, anything else as a list of one."""
    return value if isinstance(value, list) else [value]


def agentbench_db(folder: str | Path, file: str = "dev.jsonl") -> list[Task]:
    """The tasks of dbbench/<file>. Those that change tables are judged by the tables' hash, the
    others by their label.

    Those others carry no solution: many of the published queries do not run, or do not give the
    label (tests/test_benchmarks.py counts them).
    """
    rows = rows_of(Path(folder) / "dbbench" / file, DB_RECORD)
    return [db_task(number, place, row) for number, (place, row) in enumerate(rows)]


def db_task(number: int, place: str, row: dict) -> Task:
    """One DB task. Raises UserError where the record holds too little to judge by."""
    kind, tables = several(row["type"])[0], several(row["table"])
    query = row.get("sql", {}).get("query", "")
    for table in tables:
        width = len(table["table_info"]["columns"])
        if any(len(cells) != width for cells in table["table_info"]["rows"]):
            raise UserError(
                f"{place}: table {table['table_name']} has {width} columns, "
                "and a row of another length"
            )
    if row.get("user_sqlite"):
        raise UserError(
            f"{place}: the task needs a database file (user_sqlite), "
            "which is not among the published data"
        )
    lines = [row["description"], row.get("add_description", ""), row.get("evidence", "")]
    truth = {
        "tables": tables,
        "published": query,
        "changing": kind in CHANGING,
        "hash": row.get("answer_md5"),
    }
    if kind in CHANGING:
        labels = [text for text in several(row.get("label", [])) if isinstance(text, str)]
        truth["gold"] = labels[0] if labels else query
        if truth["hash"] is None or not (truth["hash"] or truth["gold"]):
            raise UserError(
                f"{place}: a task of type {kind} needs answer_md5, "
                "or an empty one and its statement as label"
            )
        answer, call = "done", {"name": "sql", "arguments": {"query": truth["gold"]}}
        steps = [SolutionStep("run the statement", "run it", call)] if truth["gold"] else []
    else:
        if "label" not in row:
            raise UserError(f"{place}: a task of type {kind} needs a label")
        label = truth["label"] = several(row["label"])
        answer = f"answer: {label[0] if len(label) == 1 else json.dumps(label, ensure_ascii=False)}"
        steps = []
    request = "\n".join(filter(None, lines))
    return Task("benchmarks.Database", kind, number, request, [SQL], steps, answer, {}, truth)


class Database(World):
    """The tables of one task of AgentBench DB. Raises UserError where SQLite does not take them."""

    faults = ("timeout", "locked", "renamed", "incomplete", "denied")

    def __init__(self, task: Task):
        super().__init__(task)
        self.database = tables_of(task)

    def step(self, call: dict) -> str:
        rows, wrong = execute(self.database, call["arguments"]["query"], most=SHOWN)
        if wrong:
            return f"error: {wrong}"
        said = str(rows)
        return said if len(said) <= SHOWN else said[:SHOWN] + "[TRUNCATED]"

    def verify(self, answer: str) -> bool:
        truth = self.task.truth
        if not truth["changing"]:
            return same_values(values_of(said_answer(answer).strip()), values_of(truth["label"]))
        if truth["hash"]:
            return values_of(self.hash()) == values_of(truth["hash"])
        right = Database(self.task)  # so does the official scorer without a hash
        execute(right.database, truth["gold"])
        same = self.hash() == right.hash()
        right.close()
        return same

    def hash(self) -> str:
        """MySQL's md5(group_concat(substring(md5(concat_ws(',', cells)), 1, 5) order by it)) of
        each table, sorted.

        MySQL cuts group_concat at 1024 characters, and says None of an empty table; of one that is
        gone only the error is told, which is no right hash.
        """
        hashes = []
        for table in self.task.truth["tables"]:
            query = f"SELECT * FROM main.{quoted(table['table_name'])}"
            rows, wrong = execute(self.database, query, most=1_000_000, most_bytes=1 << 26)
            texts = [",".join(str(cell) for cell in row if cell is not None) for row in rows]
            marks = ",".join(sorted(md5(text)[:5] for text in texts))
            hashes.append(wrong or (md5(marks[:1024]) if marks else "None"))
        return "_".join(sorted(hashes))

    def close(self) -> None:
        self.database.close()


def tables_of(task: Task) -> Any:
    """A database with the task's tables; every cell is text, as in the published environment."""
    database = connect()
    for table in task.truth["tables"]:
        name, info = quoted(table["table_name"]), table["table_info"]
        columns = ", ".join(quoted(column["name"]) + " TEXT" for column in info["columns"])
        places = ", ".join("?" * len(info["columns"]))
        try:
            database.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
            cells = [[str(cell) for cell in row] for row in info["rows"]]
            database.executemany(f"INSERT INTO {name} VALUES ({places})", cells)
        except (database.Error, UnicodeEncodeError) as error:
            database.close()
            raise UserError(
                f"SQLite does not take table {name} of task {task.seed}: {error}"
            ) from None
    guard(database)
    return database


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def quoted(name: str) -> str:
    """A table's or column's name for SQLite, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


EMPTY = ("none", "null", "undefined", "nan", "inf", "infinity", "-inf", "-infinity", "")


def normal(value: Any) -> str:
    """A value as the official scorer compares it: no quotes around it, no percent sign, no commas,
    and "0" for everything empty."""
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    text = str(value).strip().strip("'\"").strip()
    if text.endswith("%"):
        return text[:-1].strip()
    if not text.startswith("[") and not text.endswith("]"):
        text = text.replace(",", "")
    return "0" if text.lower() in EMPTY else text


def values_of(answer: Any) -> list[str]:
    """The values of an answer: a list, the rows that sql printed, or one value."""
    if not isinstance(answer, str) or not (answer.startswith("[") and answer.endswith("]")):
        return [normal(value) for value in several(answer)]
    try:
        values = ast.literal_eval(answer)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # names without quotes
        single = answer.strip("[]")
        if single.startswith("(") and single.endswith(",)") and single.count("(") == 1:
            return [normal(single[1:-2])]
        parts = re.findall(r"(?:[^,'\"]|['\"][^'\"]*(?:['\"]|$))+", answer[1:-1])
        return [normal(part) for part in (re.sub(r"['\"]", "", part) for part in parts) if part]
    if all(isinstance(value, tuple) for value in values):
        values = [value for value in values if len(value) == 1]  # wider rows are no answer
    return [normal(value) for value in values]


def same_values(given: list[str], wanted: list[str]) -> bool:
    """Numbers within 0.01, each for the first wanted one that is left; anything else as sets."""
    try:
        numbers, left = [float(value) for value in given], [float(value) for value in wanted]
    except ValueError:
        return set(given) == set(wanted)
    for number in numbers:
        near = next((other for other in left if abs(number - other) <= 1e-2), None)
        if near is None:
            return False
        left.remove(near)
    return not left


# ------------------------------------------------------------------------------------ AgentBench OS

BASH = make_tool("bash", "Run a bash command as if typed into one shell.", {"command": TEXT})
# `echo 123>file` opens file 123.
OS_LIMITS = Limits(wall=20.0, processes=64, open_files=256, output=65536)
# Writable in the container, and so here.
PLACES = ("/home", "/etc", "/var", "/opt", "/usr/local", "/mnt", "/srv")
PREPARED = """cp /usr/share/base-passwd/passwd.master /etc/passwd &&
cp /usr/share/base-passwd/group.master /etc/group && touch /etc/login.defs &&
mkdir -p /var/log /var/tmp /usr/local/bin /usr/local/sbin"""
# What an agent installs comes last, so that it does not replace the judge's tools.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
# Variables, functions and the folder stay from one command to the next.
SHELL = f"""PATH={PATH}; . /dev/shm/shell 2>/dev/null
trap '{{ declare -p; declare -f; printf "cd %q\\n" "$PWD"; }} >/dev/shm/shell 2>/dev/null' EXIT
eval "$1" """

FLAG = {"type": "boolean"}
SCRIPT = {
    "anyOf": [
        TEXT,
        {"type": "null"},
        object_with("file", file=TEXT, language=TEXT),
        object_with("code", code=TEXT, language=TEXT),
    ]
}
SCRIPTS = {"anyOf": [SCRIPT, list_of(SCRIPT)]}
MATCH = {
    "anyOf": [
        TEXT,
        object_with("answer", answer=TEXT, strip=FLAG),
        object_with("regex", regex=TEXT, strip=FLAG),
    ]
}
OS_RECORD = object_with(
    "description",
    "evaluation",
    description=TEXT,
    start=SCRIPT,
    example=SCRIPT,
    labels=list_of(TEXT),
    create={**object_with(init=SCRIPTS), "type": ["object", "array", "null"]},
    evaluation={
        **object_with(check=SCRIPTS, match=MATCH, example=SCRIPT),
        "anyOf": [{"required": ["match"]}, {"required": ["check"]}],
    },
)

NEWLINES = """import sys
v = [text.replace("\\r\\n", "\\n").replace("\\r", "\\n").strip() for text in sys.argv[1:]]
"""
CHECKS = {  # the official scripts that the data files name, for folders without scripts/
    "check/integer-match.py": "import sys; sys.exit(int(sys.argv[1]) != int(sys.argv[2]))",
    "check/string-match.py": f"{NEWLINES}sys.exit(v[0] != v[1])",
    "check/containing.py": f"{NEWLINES}sys.exit(v[1] not in v[0])",
    "check/in.py": f"{NEWLINES}sys.exit(v[0] not in v[1])",
    "check/size-match.py": """import sys
UNITS = ["B", "Byte", "K", "KB", "M", "MB", "G", "GB", "T", "TB", "P", "PB"]
def size(text):  # the first unit that the text ends with: "4KB" is 4K of B, and so no number
    unit = next((unit for unit in UNITS if text.strip().endswith(unit)), "B")
    return int(text.strip().removesuffix(unit)) * 1024 ** (UNITS.index(unit) // 2)
sys.exit(size(sys.argv[1]) != size(sys.argv[2]))""",
}


def agentbench_os(folder: str | Path, file: str = "dev.json") -> tuple[list[Task], dict[int, str]]:
    """(tasks of os/<file> that can run here, {number of another: why it cannot}).

    Judged by `match` (equality or a regular expression on the answer) or by the task's checks.
    Scripts that a task names are read from os/scripts/: for data/1/stock.json from scripts/1, for
    dev.json from scripts/dev.
    """
    path = Path(folder) / "os" / file
    own = path.parent.name if path.parent.name.isdigit() else path.stem
    scripts = Path(folder) / "os" / "scripts" / own
    tasks, left_out = [], {}
    for number, (place, row) in enumerate(rows_of(path, OS_RECORD)):
        try:
            tasks.append(os_task(number, row, scripts))
        except UserError as reason:
            left_out[number] = f"{place}: {reason}"
    return tasks, left_out


def os_task(number: int, row: dict, scripts: Path) -> Task:
    """One OS task. Raises UserError where it needs a file or a language that is not there."""

    def command(part: Any, what: str) -> list[str] | None:
        """The command line of a script, before its arguments; None of none."""
        part = {"code": part} if isinstance(part, str) else part
        if part is None:
            return None
        language = part.get("language", "bash")
        code = part["code"] if "file" not in part else script(part["file"], what)
        if language == "bash":
            return ["/bin/bash", "-c", code, "--"]
        if language != "python":
            raise UserError(f"its {what} is written in {language}; bash and python run here")
        if not shutil.which("python3", path="/usr/bin"):
            raise UserError(f"its {what} is written in python, and there is no /usr/bin/python3")
        # without site, which reads /usr/local/lib, where an agent may write; only `exit` is missed
        return ["/usr/bin/python3", "-I", "-S", "-c", f"from sys import exit\n{code}"]

    def script(file: str, what: str) -> str:
        path = (scripts / file).resolve()
        if path.is_relative_to(scripts.resolve()) and path.is_file():
            return path.read_text(encoding="utf-8")
        if file not in CHECKS:
            raise UserError(f"its {what} is the file {file}, which is not among the published data")
        return CHECKS[file]

    judge = row["evaluation"]
    create = row["create"] if isinstance(row.get("create"), dict) else {}
    start = command(row.get("start"), "background program")
    preparation = [command(part, "preparation") for part in several(create.get("init"))]
    example = command(judge.get("example", row.get("example")), "example")
    match, checks = judge.get("match"), []
    match = {"answer": match} if isinstance(match, str) else match
    if match is None:  # of both the official scorer takes the match
        checks = [
            example if part is None else command(part, "check") for part in several(judge["check"])
        ]
        if not all(checks):
            raise UserError("its check is its example, and it has none")
    try:
        regex.compile((match or {}).get("regex", ""))
    except regex.error as error:
        raise UserError(f"its regular expression is malformed: {error}") from None
    steps = []
    if example:
        call = {"name": "bash", "arguments": {"command": as_text(example)}}
        steps = [SolutionStep("run the example", "run it", call)]
    answer = f"answer: {match['answer']}" if "answer" in (match or {}) else ""
    kind = ",".join(row.get("labels", ["training"]))
    truth = {
        "preparation": [line for line in preparation if line],
        "start": start,
        "match": match,
        "checks": checks,
    }
    return Task(
        "benchmarks.System", kind, number, row["description"], [BASH], steps, answer, {}, truth
    )


class System(World):
    """One container of AgentBench OS. Raises UserError if the task's preparation fails in it."""

    faults = ("timeout", "renamed", "incomplete", "denied")
    why_unplayable = Shell.why_unplayable

    def __init__(self, task: Task):
        super().__init__(task)
        self.sandbox = Sandbox(
            limits=OS_LIMITS, home="/root", user=0, folders=PLACES, background=True
        )
        start = [in_shared_shell(as_text(task.truth["start"]))] if task.truth["start"] else []
        for command in (PREPARED, *map(shlex.join, task.truth["preparation"]), *start):
            result = self.sandbox.run(command)
            if result.status:
                self.close()
                raise UserError(
                    f"preparing the task failed with status {result.status}: "
                    f"{result.output.strip()}"
                )

    def step(self, call: dict) -> str:
        try:
            result = self.sandbox.run(in_shared_shell(call["arguments"]["command"]))
        except SandboxDied as died:
            return f"error: {died}"
        said = result.output.rstrip("\n") + result.stopped
        if len(said) > SHOWN:
            said = said[: SHOWN - 20] + "\n[truncated because the output is too long]"
        return said if result.status == 0 else f"error {result.status}: {said}"

    def verify(self, answer: str) -> bool:
        """Whether the answer matches, or each check ends with status 0; a check is given the
        answer, then what each check before it printed."""
        given, match = said_answer(answer), self.task.truth["match"]
        if match is not None:
            given = given.strip() if match.get("strip", True) else given
            if "answer" in match:
                return given == match["answer"]
            return regex_found(match["regex"], given)
        said = [given.strip()]
        for check in self.task.truth["checks"]:
            line = shlex.join([*check, *said])
            try:
                result = self.sandbox.run(f"export PATH={PATH}; exec {line} 2>/dev/null")
            except SandboxDied:
                return False
            if result.status:
                return False
            said.append(result.output)
        return True

    def close(self) -> None:
        self.sandbox.close()


def as_text(line: list[str]) -> str:
    """What somebody would type for a script's command line."""
    return line[2] if line[0] == "/bin/bash" else shlex.join(line)


def in_shared_shell(command: str) -> str:
    """The command line that runs a command in the shell that all commands share."""
    return shlex.join(["/bin/bash", "-c", SHELL, "bash", command])


def regex_found(pattern: str, text: str) -> bool:
    """Whether a regular expression is found in a text; not if that takes longer than a second."""
    try:
        return regex.search(pattern, text, timeout=1.0) is not None
    except TimeoutError:
        return False


# --------------------------------------------------------------------------------------------- BFCL

BFCL_FILES = (
    "simple_python",
    "multiple",
    "parallel",
    "parallel_multiple",
    "irrelevance",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
    "live_irrelevance",
    "live_relevance",
)
BFCL_REFUSED = {  # what a name contains: why such a file is not read
    "BFCL_v": "it belongs to another release, and the rule here goes with BFCL_v4",
    "java": "its values are literals of Java or JavaScript, and their parsers are not built here",
    "multi_turn": "it is judged by the state of an API after several turns",
    "memory": "it is judged by what a memory holds",
    "web_search": "it needs the web",
    "format_sensitivity": "it varies the system prompt of the other files",
}
CALLED = object_with(
    "name",
    "parameters",
    name=TEXT,
    description=TEXT,
    parameters=object_with(
        "properties",
        "required",
        required=list_of(TEXT),
        properties={"type": "object", "additionalProperties": {"type": "object"}},
    ),
)
MESSAGES = list_of(object_with("role", "content", role=TEXT, content=TEXT), minItems=1)
BFCL_RECORD = object_with(
    "id",
    "question",
    "function",
    id={"type": "string", "pattern": r"_[0-9]+(-[0-9]+)*$"},
    question=list_of(MESSAGES, minItems=1, maxItems=1),
    function=list_of(CALLED),
)
# An allowed value is anything; but each key of an object, also of one in a list, has choices.
BFCL_CHOICES = {"additionalProperties": {"type": "array"}}
ALLOWED = {
    "type": "object",
    "additionalProperties": list_of({**BFCL_CHOICES, "items": BFCL_CHOICES}),
}
BFCL_CALL = {
    "type": "object",
    "minProperties": 1,
    "maxProperties": 1,
    "additionalProperties": ALLOWED,
}
BFCL_ANSWER = object_with(
    "id", "ground_truth", id=TEXT, ground_truth=list_of(BFCL_CALL, minItems=1)
)

# The files' own words for JSON Schema's types, and for Python's.
TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": None}
PYTHON = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}
DROPPED = str.maketrans("'", '"', " ,./-_*^")


def json_schema(schema: Any) -> Any:
    """A function or a schema of the files with JSON Schema's words for types."""
    if not isinstance(schema, dict):
        return schema
    translated = {key: value for key, value in schema.items() if key != "optional"}
    for key in schema.keys() & {"items", "parameters"}:
        translated[key] = json_schema(schema[key])
    if isinstance(schema.get("properties"), dict):
        properties = schema["properties"].items()
        translated["properties"] = {key: json_schema(inner) for key, inner in properties}
    if isinstance(schema.get("type"), str) and schema["type"] in TYPES:
        translated["type"] = TYPES[schema["type"]]
        if translated["type"] is None:
            del translated["type"]
    return translated


def bfcl(folder: str | Path, name: str) -> list[Task]:
    """The tasks of one file of `BFCL_FILES`, by category ("live_simple") or its own name
    ("BFCL_v4_live_simple.json")."""
    name = name.removeprefix("BFCL_v4_").removesuffix(".json")
    if name not in BFCL_FILES:
        reason = next((f"; {reason}" for part, reason in BFCL_REFUSED.items() if part in name), "")
        raise UserError(
            f"there is no BFCL file {name!r} here{reason}; there are {', '.join(BFCL_FILES)}"
        )
    file, judged = f"BFCL_v4_{name}.json", "relevance" not in name
    answers: dict[str, tuple[str, list]] = {}
    rows = rows_of(Path(folder) / "possible_answer" / file, BFCL_ANSWER) if judged else []
    for place, row in rows:
        if row["id"] in answers:
            raise UserError(f"{place}: a second answer for {row['id']}")
        answers[row["id"]] = place, row["ground_truth"]
    tasks = []
    for place, row in rows_of(Path(folder) / file, BFCL_RECORD):
        if judged and row["id"] not in answers:
            raise UserError(
                f"{place}: possible_answer/{file} has no answer for {row['id']}; "
                "take both files from one release"
            )
        tasks.append(bfcl_task(name, row, *answers.get(row["id"], (place, []))))
    return tasks


def bfcl_task(name: str, row: dict, place: str, key: list[dict]) -> Task:
    """One BFCL case with its answer key, which stands at `place`."""
    functions: dict[str, dict] = {}
    for function in row["function"]:
        functions.setdefault(function["name"], function)
    steps = []
    for called, allowed in expected(key):
        if called not in functions:
            raise UserError(f"{place}: the answer calls {called}, which is no function there")
        properties = functions[called]["parameters"]["properties"]
        for argument in allowed.keys() & properties.keys():
            if not known(properties[argument]):
                raise UserError(
                    f"{place}: the type of {called}'s {argument} is none of "
                    f"{', '.join(PYTHON)}: {str(properties[argument])[:100]}"
                )
        call = {"name": called, "arguments": right_arguments(allowed, functions[called])}
        steps.append(SolutionStep(f"call {called}", "call it", call))
    tools = [
        {"type": "function", "function": json_schema(function)} for function in functions.values()
    ]
    number = int(row["id"].rsplit("_", 1)[1].split("-")[0])
    answer = "no tool fits" if "irrelevance" in name else "done"
    return Task(
        "benchmarks.Functions",
        name,
        number,
        request_of(row["question"][0]),
        tools,
        steps,
        answer,
        {},
        {"key": key, "functions": functions},
    )


def known(schema: dict) -> bool:
    """Whether the rule knows the type of an argument, and of a list's items."""
    parts = [schema, schema.get("items")] if schema.get("type") in ("array", "tuple") else [schema]
    return all(isinstance(part, dict) and part.get("type") in [*PYTHON] for part in parts)


def expected(key: list[dict]) -> Iterator[tuple[str, dict[str, list]]]:
    """(function, {argument: allowed values}) of each call that an answer key wants."""
    for entry in key:
        yield from entry.items()


def request_of(messages: list[dict]) -> str:
    """The user's message; with others (a system prompt, earlier turns), all with their roles."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def right_arguments(allowed: dict[str, list], function: dict) -> dict[str, Any]:
    """The arguments of a right call: the first allowed value of each that cannot be left out.

    What the schema requires is wanted even where the key lets it be left out ("").
    """
    properties, required = (function["parameters"][part] for part in ("properties", "required"))
    return {
        argument: first_choices(next((value for value in values if value != ""), ""))
        for argument, values in allowed.items()
        if argument in properties and ("" not in values or argument in required)
    }


def first_choices(choice: Any) -> Any:
    """An allowed value as a value: of an object, also one in a list, each key's first choice."""
    if isinstance(choice, list):
        return [first_choices(item) if isinstance(item, dict) else item for item in choice]
    if isinstance(choice, dict):
        return {
            key: next(iter(choices), None) for key, choices in choice.items() if "" not in choices
        }
    return choice


class Functions(World):
    """One BFCL case: the calls are collected and compared, the malformed ones too."""

    faults = ()
    checked = False

    def __init__(self, task: Task):
        super().__init__(task)
        self.calls: list[dict] = []

    def step(self, call: dict) -> str:
        self.calls.append(call)
        return "ok"

    def verify(self, answer: str) -> bool:
        """Each expected call, in the key's order, takes the first call left that is right for it,
        and none is left over.

        Irrelevance: no call. Relevance: any call at all.
        """
        if "relevance" in self.task.kind:
            return bool(self.calls) == ("irrelevance" not in self.task.kind)
        left = list(self.calls)
        for name, allowed in expected(self.task.truth["key"]):
            function = self.task.truth["functions"][name]
            verdicts = [wrong_with(call, function, allowed) for call in left]
            if "" not in verdicts:
                return False
            del left[verdicts.index("")]
        return not left


def wrong_with(call: dict, function: dict, allowed: dict[str, list]) -> str:
    """The official error of a call, or "" of a right one: wrong_func_name, missing_required,
    unexpected_param, type_error, value_error, missing_optional."""
    properties, arguments = function["parameters"]["properties"], call["arguments"]
    if call["name"] != function["name"]:
        return "wrong_func_name"
    if any(argument not in arguments for argument in function["parameters"]["required"]):
        return "missing_required"
    for argument, value in arguments.items():
        if argument not in properties or argument not in allowed:
            return "unexpected_param"
        if error := wrong_value(value, properties[argument], allowed[argument]):
            return error
    if any(argument not in arguments and "" not in values for argument, values in allowed.items()):
        return "missing_optional"
    return ""


def wrong_value(value: Any, schema: dict, allowed: list) -> str:
    """type_error, value_error or "" of one argument.

    A key of another type than the schema's (a variable's name for a number) is followed as it is.
    """
    wanted = PYTHON[schema["type"]]
    inner = PYTHON[schema["items"]["type"]] if wanted is list else None
    if schema["type"] == "float" and type(value) is int and abs(value) < 2**1023:
        value = float(value)
    if not has_type(value, allowed, wanted, inner):
        return "type_error"
    if key_type(allowed) not in (None, wanted):
        return "" if value in allowed else "value_error"
    return "" if meets(value, allowed, wanted, inner) else "value_error"


def key_type(allowed: list) -> type | None:
    """The type of the first allowed value but "", which says that none need be given; or None."""
    return next((type(choice) for choice in allowed if choice != ""), None)


def has_type(value: Any, allowed: list, wanted: type, inner: type | None) -> bool:
    """Whether a value has the schema's type, or else the key's; and its items an allowed list's."""
    if type(value) is not wanted:
        return type(value) is key_type(allowed)
    if inner is None or any(not isinstance(choice, list) for choice in allowed):  # "" says nothing
        return True
    return any(all(type(item) in (inner, key_type(choice)) for item in value) for choice in allowed)


def meets(value: Any, allowed: list, wanted: type, inner: type | None) -> bool:
    """Whether a value of the schema's type is an allowed one."""
    if wanted is dict:
        return any(meets_object(value, choice) for choice in allowed)
    if wanted is list:
        lists = [choice for choice in allowed if isinstance(choice, (list, str, dict))]
        if inner is dict:
            same = [choice for choice in lists if len(choice) == len(value)]
            return any(all(map(meets_object, value, choice)) for choice in same)
        return list(map(standard, value)) in [list(map(standard, choice)) for choice in lists]
    return standard(value) in map(standard, allowed)


def meets_object(value: Any, choice: Any) -> bool:
    """Whether each key has one of its choices, and only a key with "" among them is left out."""
    if not isinstance(value, dict) or not isinstance(choice, dict):
        return False
    if any(key not in value and "" not in choices for key, choices in choice.items()):
        return False
    return all(
        key in choice and standard(item) in map(standard, choice[key])
        for key, item in value.items()
    )


def standard(value: Any) -> Any:
    """A text without case, spaces and ,./-_*^ and with one kind of quotes; others as they are."""
    return value.translate(DROPPED).lower() if isinstance(value, str) else value
