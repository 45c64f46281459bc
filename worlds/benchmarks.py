"""Published benchmarks as tasks of the worlds' protocol, from files in a folder that the user names (paper section 6).

    agentbench_db(folder, file)   AgentBench DB, dbbench/dev.jsonl or standard.jsonl: SQL in SQLite (the published environment is MySQL)
    agentbench_os(folder, file)   AgentBench OS, os/dev.json and such: bash in the sandbox (the published environment is a Docker container)
    bfcl(folder, name)            Berkeley function calling, BFCL_v4_<name>.json with possible_answer/: one turn of calls

Each gives a list of Tasks for worlds.Episode. The judges follow the official scorers' code, also where it surprises:
- github.com/ShishirPatil/gorilla, Apache-2.0, commit 6ea57973 (bfcl-eval 2026.3.23): bfcl_eval/eval_checker/ast_eval/ast_checker.py
- github.com/THUDM/AgentBench, Apache-2.0, commit 578c5e9f: src/server/tasks/dbbench/result_processor.py, os_interaction/task.py

What differs from those:
- An answer is the last message's "answer: ..." instead of a call of an answering tool.
- DB: an answer in the form of a list is read as literals. The official scorer runs it as Python: there "[2010-11]" is 1999.
- OS: a task runs as a user that looks like root and may do nothing more, on Debian instead of Ubuntu. Scripts in C and C++ are refused.
- BFCL: Java, JavaScript, multi-turn, memory and web search are refused. A message that is no call does not end the episode.

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
from tools import tool
from worlds import Step, Task, World
from worlds.sandbox import Limits, Sandbox, SandboxDied
from worlds.sql import connect, execute, guard


# -------------------------------------------------------------------------------------------------------- files

TEXT = {"type": "string"}


def rows_of(path: Path, form: dict[str, Any]) -> list[tuple[str, dict]]:
    """[("file:line", record)] of a .json list, a single object, or a file with one object per line.

    `form` is the JSON schema of a record. Raises UserError that names file and line.
    """
    if not path.is_file():
        raise UserError(f"{path} is not there; name the folder that holds the benchmark's published files "
                        "(README, 'Real data')")
    decoder, validator, rows = json.JSONDecoder(), jsonschema.Draft202012Validator(form), []
    line, counted, at = 1, 0, 0
    try:
        text = path.read_text(encoding="utf-8-sig")
        listed = text.lstrip().startswith("[")
        if listed:
            json.loads(text)                     # brackets and commas; below only the records' lines are looked for
            at = text.index("[") + 1
        between = re.compile(r"[\s,]*" if listed else r"\s*")
        while (at := between.match(text, at).end()) < len(text) and not (listed and text[at] == "]"):
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


def said_answer(message: str) -> str:
    """What the agent's last message gives as its answer: all that follows the last "answer:" at a line's beginning
    (or "Answer:", "Final Answer:"), else the last line."""
    parts = re.split(r"^[ \t]*(?:final[ \t]+)?answer:[ \t]?", message, flags=re.IGNORECASE | re.MULTILINE)
    return parts[-1] if len(parts) > 1 else (message.strip().splitlines() or [""])[-1]


# ----------------------------------------------------------------------------------------------- AgentBench DB

SQL = tool("sql", "Run one SQLite statement and get its result.", {"query": TEXT})
CHANGING = ("INSERT", "UPDATE", "DELETE")
TABLE = {"type": "object", "required": ["table_name", "table_info"], "properties": {
    "table_name": TEXT,
    "table_info": {"type": "object", "required": ["columns", "rows"], "properties": {
        "columns": {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["name"], "properties": {"name": TEXT}}},
        "rows": {"type": "array", "items": {"type": "array"}}}}}}
DB_RECORD = {"type": "object", "required": ["description", "type", "table"], "properties": {
    "description": TEXT, "add_description": TEXT, "evidence": TEXT, "answer_md5": TEXT, "label": True,
    "type": {"anyOf": [TEXT, {"type": "array", "minItems": 1, "items": TEXT}]},
    "table": {"anyOf": [TABLE, {"type": "array", "minItems": 1, "items": TABLE}]},
    "sql": {"type": "object", "properties": {"query": TEXT}}}}


def several(value: Any) -> list:
    """A list as it is, anything else as a list of one."""
    return value if isinstance(value, list) else [value]


def agentbench_db(folder: str | Path, file: str = "dev.jsonl") -> list[Task]:
    """The tasks of dbbench/<file>. Those that change tables are judged by the tables' hash, the others by their label.

    Those others carry no solution: many of the published queries do not run, or do not give the label
    (tests/test_benchmarks.py counts them).
    """
    return [db_task(number, place, row)
            for number, (place, row) in enumerate(rows_of(Path(folder) / "dbbench" / file, DB_RECORD))]


def db_task(number: int, place: str, row: dict) -> Task:
    """One DB task. Raises UserError where the record holds too little to judge by."""
    kind, tables, query = several(row["type"])[0], several(row["table"]), row.get("sql", {}).get("query", "")
    for table in tables:
        columns = table["table_info"]["columns"]
        if any(len(cells) != len(columns) for cells in table["table_info"]["rows"]):
            raise UserError(f"{place}: table {table['table_name']} has {len(columns)} columns, and a row of another length")
    if row.get("user_sqlite"):
        raise UserError(f"{place}: the task needs a database file of its own (user_sqlite), which is not among the published data")
    lines = [row["description"], row.get("add_description", ""), row.get("evidence", "")]
    request = "\n".join(line for line in lines if line)
    truth = {"tables": tables, "published": query, "changing": kind in CHANGING}
    if kind not in CHANGING:
        if "label" not in row:
            raise UserError(f"{place}: a task of type {kind} needs a label")
        label = several(row["label"])
        answer = str(label[0]) if len(label) == 1 else json.dumps(label, ensure_ascii=False)
        return Task("benchmarks.Database", kind, number, request, [SQL], [], f"answer: {answer}", {}, truth | {"label": label, "hash": None})
    gold = next((text for text in several(row.get("label", [])) if isinstance(text, str)), query)
    hashed = row.get("answer_md5")
    if hashed is None or not (hashed or gold):
        raise UserError(f"{place}: a task of type {kind} needs answer_md5, or an empty one and the right statement as its label")
    steps = [Step("run the statement", "run it", {"name": "sql", "arguments": {"query": gold}})] if gold else []
    return Task("benchmarks.Database", kind, number, request, [SQL], steps, "done", {}, truth | {"hash": hashed, "gold": gold})


class Database(World):
    """The tables of one task of AgentBench DB. Raises UserError where SQLite does not take them."""
    faults = ("timeout", "locked", "renamed", "incomplete", "denied")

    def __init__(self, task: Task):
        super().__init__(task)
        self.database = tables_of(task)

    def step(self, call: dict) -> str:
        rows, wrong = execute(self.database, call["arguments"]["query"], most=800)
        said = str(rows)
        return f"error: {wrong}" if wrong else said if len(said) <= 800 else said[:800] + "[TRUNCATED]"

    def verify(self, answer: str) -> bool:
        truth = self.task.truth
        if not truth["changing"]:
            return same_values(values_of(said_answer(answer).strip()), values_of(truth["label"]))
        if truth["hash"]:
            return values_of(self.hash()) == values_of(truth["hash"])
        right = Database(self.task)              # as the official scorer does where no hash is published
        execute(right.database, truth["gold"])
        same = self.hash() == right.hash()
        right.close()
        return same

    def hash(self) -> str:
        """MySQL's md5(group_concat(substring(md5(concat_ws(',', cells)), 1, 5) order by it)) of each table, sorted.

        MySQL cuts group_concat at 1024 characters, and says None of an empty table. Where a table is gone there is no hash.
        """
        hashes = []
        for table in self.task.truth["tables"]:
            rows, wrong = execute(self.database, f"SELECT * FROM main.{quoted(table['table_name'])}", most=1_000_000)
            marks = sorted(md5(",".join(str(cell) for cell in row if cell is not None))[:5] for row in rows)
            hashes.append(wrong or (md5(",".join(marks)[:1024]) if marks else "None"))
        return "_".join(sorted(hashes))

    def close(self) -> None:
        self.database.close()


def tables_of(task: Task) -> Any:
    """A database with the task's tables: every cell is text, which reproduces the published hashes."""
    database = connect()
    for table in task.truth["tables"]:
        name, info = quoted(table["table_name"]), table["table_info"]
        columns = ", ".join(quoted(column["name"]) + " TEXT" for column in info["columns"])
        places = ", ".join("?" * len(info["columns"]))
        try:
            database.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
            database.executemany(f"INSERT INTO {name} VALUES ({places})", ([str(cell) for cell in cells] for cells in info["rows"]))
        except (database.Error, UnicodeEncodeError) as error:
            database.close()
            raise UserError(f"SQLite does not take the table {table['table_name']} of task {task.seed}: {error}") from None
    guard(database)
    return database


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def quoted(name: str) -> str:
    """A table's or column's name for SQLite, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


EMPTY = ("none", "null", "undefined", "nan", "inf", "infinity", "-inf", "-infinity", "")


def normal(value: Any) -> str:
    """A value as the official scorer compares it: no quotes around it, no percent sign, no thousands' commas, and "0"
    for everything empty."""
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
        values = [value for value in values if len(value) == 1]  # rows of several columns are no answer
    return [normal(value) for value in values]


def same_values(given: list[str], wanted: list[str]) -> bool:
    """Numbers within 0.01, each given one for the first wanted one that is left; anything else as sets."""
    try:
        numbers, left = [float(value) for value in given], [float(value) for value in wanted]
    except ValueError:
        return set(given) == set(wanted)
    for number in numbers:
        near = next((place for place, other in enumerate(left) if abs(number - other) <= 1e-2), None)
        if near is None:
            return False
        del left[near]
    return not left


# ----------------------------------------------------------------------------------------------- AgentBench OS

BASH = tool("bash", "Run a bash command as if typed into one shell.", {"command": TEXT})
SHOWN = 800  # characters of an output that the published interface shows
LIMITS = Limits(wall=20.0, processes=64, open_files=256, output=65536)  # `echo 123>file` opens file 123
PLACES = ("/home", "/etc", "/var", "/opt", "/usr/local", "/mnt", "/srv")  # writable in the container, and so here
PREPARED = ("cp /usr/share/base-passwd/passwd.master /etc/passwd && cp /usr/share/base-passwd/group.master /etc/group && mkdir -p /var/log /var/tmp "
            "/usr/local/bin /usr/local/sbin && touch /etc/login.defs")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"  # what an agent installs comes last: it cannot replace the judge's tools
SHELL = f"""PATH={PATH}; . /dev/shm/shell 2>/dev/null
trap '{{ declare -p; declare -f; printf "cd %q\\n" "$PWD"; }} >/dev/shm/shell 2>/dev/null' EXIT
eval "$1" """  # variables, functions and the folder stay from one command to the next

SCRIPT = {"anyOf": [TEXT, {"type": "null"},
                    {"type": "object", "required": ["file"], "properties": {"file": TEXT, "language": TEXT}},
                    {"type": "object", "required": ["code"], "properties": {"code": TEXT, "language": TEXT}}]}
SCRIPTS = {"anyOf": [SCRIPT, {"type": "array", "items": SCRIPT}]}
MATCH = {"anyOf": [TEXT,
                   {"type": "object", "required": ["answer"], "properties": {"answer": TEXT, "strip": {"type": "boolean"}}},
                   {"type": "object", "required": ["regex"],
                    "properties": {"regex": TEXT, "strip": {"type": "boolean"}}}]}
OS_RECORD = {"type": "object", "required": ["description", "evaluation"], "properties": {
    "description": TEXT, "start": SCRIPT, "example": SCRIPT, "labels": {"type": "array", "items": TEXT},
    "create": {"type": ["object", "array", "null"], "properties": {"init": SCRIPTS}},
    "evaluation": {"type": "object", "properties": {"check": SCRIPTS, "match": MATCH, "example": SCRIPT},
                   "anyOf": [{"required": ["match"]}, {"required": ["check"]}]}}}

NEWLINES = 'v = [text.replace("\\r\\n", "\\n").replace("\\r", "\\n").strip() for text in sys.argv[1:]]; '
CHECKS = {  # of the official scripts those that the data files name, for folders that hold the data files alone
    "check/integer-match.py": "import sys; sys.exit(int(sys.argv[1]) != int(sys.argv[2]))",
    "check/string-match.py": f"import sys; {NEWLINES}sys.exit(v[0] != v[1])",
    "check/containing.py": f"import sys; {NEWLINES}sys.exit(v[1] not in v[0])",
    "check/in.py": f"import sys; {NEWLINES}sys.exit(v[0] not in v[1])",
    "check/size-match.py": """import sys
UNITS = {"B": 0, "Byte": 0, "K": 1, "KB": 1, "M": 2, "MB": 2, "G": 3, "GB": 3, "T": 4, "TB": 4, "P": 5, "PB": 5}
def size(text):  # the first unit in this order that the text ends with: "4KB" is 4K of B, and so no number
    unit = next((unit for unit in UNITS if text.strip().endswith(unit)), "")
    return int(text.strip().removesuffix(unit)) * 1024 ** UNITS.get(unit, 0)
sys.exit(size(sys.argv[1]) != size(sys.argv[2]))"""}


def agentbench_os(folder: str | Path, file: str = "dev.json") -> tuple[list[Task], dict[int, str]]:
    """(tasks of os/<file> that can run here, {number of another: why it cannot}).

    Judged by `match` (equality or a regular expression on the answer) or by the task's checks. Scripts that a task names are
    read from os/scripts/: data/1/stock.json names those of scripts/1, dev.json those of scripts/dev.
    """
    path = Path(folder) / "os" / file
    scripts = Path(folder) / "os" / "scripts" / (path.parent.name if path.parent.name.isdigit() else path.stem)
    tasks, left_out = [], {}
    for number, (place, row) in enumerate(rows_of(path, OS_RECORD)):
        try:
            tasks.append(os_task(number, row, scripts))
        except UserError as reason:
            left_out[number] = f"{place}: {reason}"
    return tasks, left_out


def os_task(number: int, row: dict, scripts: Path) -> Task:
    """One OS task. Raises UserError where it needs a file that is not there, or a language that does not run here."""
    def command(part: Any, what: str) -> list[str] | None:
        """The command line of a script, to which the answer and earlier outputs are appended; None of none."""
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
            raise UserError(f"its {what} is written in python, and there is no /usr/bin/python3 for the sandbox")
        return ["/usr/bin/python3", "-I", "-S", "-c", f"from sys import exit\n{code}"]  # without site, since an agent may write to /usr/local/lib

    def script(file: str, what: str) -> str:
        path = (scripts / file).resolve()
        if path.is_relative_to(scripts.resolve()) and path.is_file():
            return path.read_text(encoding="utf-8")
        if file not in CHECKS:
            raise UserError(f"its {what} is the file {file}, which is not among the published data")
        return CHECKS[file]

    judge, create = row["evaluation"], row["create"] if isinstance(row.get("create"), dict) else {}
    start = command(row.get("start"), "background program")
    preparation = [command(part, "preparation") for part in several(create.get("init"))]
    example = command(judge.get("example", row.get("example")), "example")
    match = {"answer": judge["match"]} if isinstance(judge.get("match"), str) else judge.get("match")
    truth: dict[str, Any] = {"preparation": [line for line in preparation if line], "start": start, "match": match, "checks": []}
    if match is None:                            # where both stand, the official scorer takes the match
        truth["checks"] = [example if part is None else command(part, "check") for part in several(judge["check"])]
        if not all(truth["checks"]):
            raise UserError("its check is its example, and it has none")
    try:
        regex.compile((match or {}).get("regex", ""))
    except regex.error as error:
        raise UserError(f"its regular expression is malformed: {error}") from None
    steps = [Step("run the example", "run it", {"name": "bash", "arguments": {"command": as_text(example)}})] if example else []
    answer = f"answer: {match['answer']}" if "answer" in (match or {}) else ""
    return Task("benchmarks.System", ",".join(row.get("labels", ["training"])), number, row["description"], [BASH], steps, answer, {}, truth)


class System(World):
    """One container of AgentBench OS. Raises UserError if the task's own preparation fails in it."""
    faults = ("timeout", "renamed", "incomplete", "denied")

    def __init__(self, task: Task):
        super().__init__(task)
        self.sandbox = Sandbox(limits=LIMITS, home="/root", user=0, folders=PLACES, background=True)
        start = [typed(as_text(task.truth["start"]))] if task.truth["start"] else []
        for command in (PREPARED, *map(shlex.join, task.truth["preparation"]), *start):
            result = self.sandbox.run(command)
            if result.status:
                self.close()
                raise UserError(f"preparing the task failed with status {result.status}: {result.output.strip()}")

    def step(self, call: dict) -> str:
        try:
            result = self.sandbox.run(typed(call["arguments"]["command"]))
        except SandboxDied as died:
            return f"error: {died}"
        said = result.output.rstrip("\n") + result.stopped * bool(result.stopped)
        if len(said) > SHOWN:
            said = said[:SHOWN - 20] + "\n[truncated because the output is too long]"
        return said if result.status == 0 else f"error {result.status}: {said}"

    def verify(self, answer: str) -> bool:
        """Whether the answer matches, or each check ends with status 0: a check is given the answer, then what the checks before it printed."""
        given, match = said_answer(answer), self.task.truth["match"]
        if match is not None:
            given = given.strip() if match.get("strip", True) else given
            return given == match["answer"] if "answer" in match else found(match["regex"], given)
        said = [given.strip()]
        for check in self.task.truth["checks"]:
            try:
                result = self.sandbox.run(f"export PATH={PATH}; exec {shlex.join([*check, *said])} 2>/dev/null")
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


def typed(command: str) -> str:
    """The command line that runs a command in the shell that all commands share."""
    return shlex.join(["/bin/bash", "-c", SHELL, "bash", command])


def found(pattern: str, text: str) -> bool:
    """Whether a regular expression is found in a text; not if looking for it takes longer than a second."""
    try:
        return regex.search(pattern, text, timeout=1.0) is not None
    except TimeoutError:
        return False


# -------------------------------------------------------------------------------------------------------- BFCL

BFCL_FILES = ("simple_python", "multiple", "parallel", "parallel_multiple", "irrelevance",
              "live_simple", "live_multiple", "live_parallel", "live_parallel_multiple", "live_irrelevance", "live_relevance")
BFCL_REFUSED = {  # what a name contains: why such a file is not read
    "BFCL_v": "it belongs to another release, and the rule here goes with BFCL_v4",
    "java": "its values are literals of Java or JavaScript, and their parsers are not built here",
    "multi_turn": "it is judged by the state of an API after several turns",
    "memory": "it is judged by what a memory holds", "web_search": "it needs the web",
    "format_sensitivity": "it varies the system prompt of the other files", "exec": "the leaderboard has given it up",
    "rest": "the leaderboard has given it up", "sql": "the leaderboard has given it up", "chatable": "the leaderboard has given it up"}
CALLED = {"type": "object", "required": ["name", "parameters"], "properties": {"name": TEXT, "description": TEXT, "parameters": {
    "type": "object", "required": ["properties", "required"], "properties": {
        "properties": {"type": "object", "additionalProperties": {"type": "object"}}, "required": {"type": "array", "items": TEXT}}}}}
BFCL_RECORD = {"type": "object", "required": ["id", "question", "function"], "properties": {
    "id": {"type": "string", "pattern": r"_[0-9]+(-[0-9]+)*$"}, "function": {"type": "array", "items": CALLED},
    "question": {"type": "array", "minItems": 1, "maxItems": 1, "items": {"type": "array", "minItems": 1, "items": {
        "type": "object", "required": ["role", "content"], "properties": {"role": TEXT, "content": TEXT}}}}}}
CHOICE = {"additionalProperties": {"type": "array"}, "items": {"additionalProperties": {"type": "array"}}}  # each key of an object has choices
BFCL_ANSWER = {"type": "object", "required": ["id", "ground_truth"], "properties": {"id": TEXT, "ground_truth": {
    "type": "array", "minItems": 1, "items": {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": {
        "type": "object", "additionalProperties": {"type": "array", "items": CHOICE}}}}}}

TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": None}  # the files' own words for JSON Schema's
PYTHON = {"string": str, "integer": int, "float": float, "boolean": bool, "array": list, "tuple": list, "dict": dict, "any": str}
DROPPED = str.maketrans("'", '"', " ,./-_*^")


def json_schema(schema: Any) -> Any:
    """A schema of the files as JSON Schema."""
    if isinstance(schema, list):
        return [json_schema(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    translated = {key: json_schema(value) if key in ("items", "parameters") else value for key, value in schema.items() if key != "optional"}
    if isinstance(schema.get("properties"), dict):
        translated["properties"] = {key: json_schema(value) for key, value in schema["properties"].items()}
    if isinstance(schema.get("type"), str) and (kind := TYPES.get(schema["type"], schema["type"])) != schema["type"]:
        translated.pop("type")
        translated |= {"type": kind} if kind else {}
    return translated


def bfcl(folder: str | Path, name: str) -> list[Task]:
    """The tasks of one file of `BFCL_FILES`, by its category ("live_simple") or its own name ("BFCL_v4_live_simple.json")."""
    name = name.removeprefix("BFCL_v4_").removesuffix(".json")
    if name not in BFCL_FILES:
        reason = next((f"; {reason}" for part, reason in BFCL_REFUSED.items() if part in name), "")
        raise UserError(f"there is no BFCL file {name!r} here{reason}; there are {', '.join(BFCL_FILES)}")
    answers: dict[str, tuple[str, list]] = {}
    if "relevance" not in name:
        for place, row in rows_of(Path(folder) / "possible_answer" / f"BFCL_v4_{name}.json", BFCL_ANSWER):
            if row["id"] in answers:
                raise UserError(f"{place}: a second answer for {row['id']}")
            answers[row["id"]] = place, row["ground_truth"]
    tasks = []
    for place, row in rows_of(Path(folder) / f"BFCL_v4_{name}.json", BFCL_RECORD):
        if "relevance" not in name and row["id"] not in answers:
            raise UserError(f"{place}: possible_answer/BFCL_v4_{name}.json has no answer for {row['id']}; take both files from one release")
        tasks.append(bfcl_task(name, row, *answers.get(row["id"], (place, []))))
    return tasks


def bfcl_task(name: str, row: dict, place: str, key: list[dict]) -> Task:
    """One BFCL case with its answer key, which stands at `place`."""
    functions: dict[str, dict] = {}
    for function in row["function"]:
        functions.setdefault(function["name"], function)
    for called, allowed in expected(key):
        if called not in functions:
            raise UserError(f"{place}: the answer calls {called}, which the question does not offer")
        properties = functions[called]["parameters"]["properties"]
        for argument in allowed.keys() & properties.keys():
            schema = properties[argument]
            kinds = [schema, schema.get("items")] if schema.get("type") in ("array", "tuple") else [schema]
            if any(not isinstance(kind, dict) or kind.get("type") not in [*PYTHON] for kind in kinds):
                raise UserError(f"{place}: the type of {called}'s {argument} is none of {', '.join(PYTHON)}: {str(schema)[:100]}")
    steps = [Step(f"call {called}", "call it", {"name": called, "arguments": right_arguments(allowed, functions[called])})
             for called, allowed in expected(key)]
    tools = [{"type": "function", "function": json_schema(function)} for function in functions.values()]
    number = int(row["id"].rsplit("_", 1)[1].split("-")[0])
    answer = "no tool fits" if "irrelevance" in name else "done"
    return Task("benchmarks.Functions", name, number, request_of(row["question"][0]), tools, steps, answer, {}, {"key": key, "functions": functions})


def expected(key: list[dict]) -> Iterator[tuple[str, dict[str, list]]]:
    """(function, {argument: allowed values}) of each call that an answer key wants."""
    for entry in key:
        yield from entry.items()


def request_of(messages: list[dict]) -> str:
    """The user's message; where there are others (a system prompt, earlier turns), all of them with their roles."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def right_arguments(allowed: dict[str, list], function: dict) -> dict[str, Any]:
    """The arguments of a right call: of every argument that cannot be left out the first allowed value.

    Where the key allows to leave out what the schema requires ("" among the values), the rule wants it all the same.
    """
    return {argument: plain(next((value for value in values if value != ""), ""))
            for argument, values in allowed.items() if argument in function["parameters"]["properties"]
            and ("" not in values or argument in function["parameters"]["required"])}


def plain(choice: Any) -> Any:
    """An allowed value as a value: an object, also one in a list, has a list of choices for each key."""
    if isinstance(choice, list):
        return [plain(item) if isinstance(item, dict) else item for item in choice]
    if isinstance(choice, dict):
        return {key: next(iter(options), None) for key, options in choice.items() if "" not in options}
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
        """Each expected call, in the key's order, takes the first call left that is right for it, and none is left over.

        Irrelevance: no call. Relevance: any call at all.
        """
        if "relevance" in self.task.kind:
            return bool(self.calls) == ("irrelevance" not in self.task.kind)
        left = list(self.calls)
        for name, allowed in expected(self.task.truth["key"]):
            place = next((place for place, call in enumerate(left) if not wrong_with(call, self.task.truth["functions"][name], allowed)), None)
            if place is None:
                return False
            del left[place]
        return not left


def wrong_with(call: dict, function: dict, allowed: dict[str, list]) -> str:
    """The official error of a call: wrong_func_name, missing_required, unexpected_param, type_error, value_error,
    missing_optional, or "" of a right one."""
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

    A key whose own type breaks the schema (a variable's name for a number, an int for a float) is followed to the letter.
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
    """The type of the first allowed value; None if there is none but "", which stands for an argument left out."""
    return next((type(choice) for choice in allowed if choice != ""), None)


def has_type(value: Any, allowed: list, wanted: type, inner: type | None) -> bool:
    """Whether a value is of the schema's type or else the key's; a list's items for one of the allowed lists."""
    if type(value) is not wanted:
        return type(value) is key_type(allowed)
    return inner is None or any(not isinstance(choice, list) or all(type(item) in (inner, key_type(choice)) for item in value)
                                for choice in allowed)


def meets(value: Any, allowed: list, wanted: type, inner: type | None) -> bool:
    """Whether a value of the schema's type is an allowed one."""
    if wanted is dict:
        return any(meets_object(value, choice) for choice in allowed)
    if wanted is list:
        lists = [choice for choice in allowed if isinstance(choice, (list, str, dict))]  # "" counts as the empty list
        if inner is dict:
            return any(len(value) == len(choice) and all(map(meets_object, value, choice)) for choice in lists)
        return list(map(standard, value)) in [list(map(standard, choice)) for choice in lists]
    return standard(value) in map(standard, allowed)


def meets_object(value: Any, choice: Any) -> bool:
    """Whether an object has for each key one of the key's choices, and leaves out only what has "" among them."""
    if not isinstance(value, dict) or not isinstance(choice, dict):
        return False
    return (all(key in choice and standard(item) in map(standard, choice[key]) for key, item in value.items())
            and all(key in value or "" in options for key, options in choice.items()))


def standard(value: Any) -> Any:
    """A text without case, spaces and ,./-_*^ and with one kind of quotes; what is inside a list or an object stays as it is."""
    return value.translate(DROPPED).lower() if isinstance(value, str) else value
