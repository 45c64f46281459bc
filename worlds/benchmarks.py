"""Published benchmarks as tasks of the worlds' protocol, from files in a folder that the user names (paper section 6).

    agentbench_db(folder)     AgentBench DB, dbbench/dev.jsonl: SQL over one table in SQLite (the published environment is MySQL)
    agentbench_os(folder)     AgentBench OS, os/dev.json and such: bash in the sandbox (the published environment is a Docker container)
    bfcl(folder, name)        Berkeley function calling, BFCL_v4_<name>.json with possible_answer/: one turn of calls

Each gives a list of Tasks for worlds.Episode; the judges follow the official scorers' rules. Differences from those, all on the side of the
environment: every cell is TEXT in SQLite (that reproduces the published hashes); an OS task runs as a user that looks like root and may do nothing
more, on Debian instead of Ubuntu. The check scripts that OS tasks name are not in the data files; three of them are written anew in
CHECKS, and a task that needs another one raises UserError when it is read, or is left out with its reason (`agentbench_os` returns both).

Sources: github.com/THUDM/AgentBench and github.com/ShishirPatil/gorilla, both Apache-2.0.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from config import UserError
from tools import tool
from worlds import Step, Task, World
from worlds.sandbox import Limits, Sandbox, SandboxDied
from worlds.sql import connect, execute, guard


def rows_of(path: Path) -> list[dict]:
    """The records of a .json list or of a file with one JSON object a line. Raises UserError that names file and line."""
    if not path.is_file():
        raise UserError(f"{path} is not there; name the folder that holds the benchmark's published files (README, 'Real data')")
    text = path.read_text(encoding="utf-8")
    try:
        if text.lstrip().startswith("["):
            return json.loads(text)
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise UserError(f"{path} is not the published format: {error}") from None


def said_answer(message: str) -> str:
    """What the agent's last message gives as its answer: the last line, without "answer:"."""
    lines = message.strip().splitlines() or [""]
    return lines[-1].removeprefix("answer:").strip()


# ------------------------------------------------------------------------------------------------- AgentBench DB

SQL = tool("sql", "Run one SQLite statement and get its result.", {"query": {"type": "string"}})


def agentbench_db(folder: str | Path) -> list[Task]:
    """The tasks of dbbench/dev.jsonl. Those that change the table are judged by its published hash, the others by their label.

    Those others carry no solution: many of the published queries do not run, or do not give the label (tests/test_benchmarks.py counts them).
    """
    tasks = []
    for number, row in enumerate(rows_of(Path(folder) / "dbbench" / "dev.jsonl")):
        changing = row["type"][0] in ("INSERT", "UPDATE", "DELETE")
        label = row["label"]
        steps = [Step("run the statement", "run it", {"name": "sql", "arguments": {"query": label[0]}})] if changing else []
        tasks.append(Task("benchmarks.Database", row["type"][0], number, f"{row['description']}\n{row['add_description']}", [SQL],
                          steps, "done" if changing else f"answer: {label[0] if len(label) == 1 else json.dumps(label, ensure_ascii=False)}", {},
                          truth={"table": row["table"], "hash": row["answer_md5"][3:-4] if changing else None, "label": label,
                                 "published": row.get("sql", {}).get("query", "")}))
    return tasks


class Database(World):
    """One table of AgentBench DB."""
    faults = ("timeout", "locked", "renamed", "incomplete", "denied")

    def __init__(self, task: Task):
        super().__init__(task)
        self.database = connect()
        table = task.truth["table"]
        self.table, rows = quoted(table["table_name"]), table["table_info"]["rows"]
        columns = [column["name"] for column in table["table_info"]["columns"]]
        self.database.execute(f"CREATE TABLE {self.table} ({', '.join(quoted(column) + ' TEXT' for column in columns)})")
        self.database.executemany(f"INSERT INTO {self.table} VALUES ({', '.join('?' * len(columns))})", rows)
        guard(self.database)

    def step(self, call: dict) -> str:
        rows, wrong = execute(self.database, call["arguments"]["query"])
        return f"error: {wrong}" if wrong else str(rows)[:800]

    def verify(self, answer: str) -> bool:
        if self.task.truth["hash"]:
            return self.hash() == self.task.truth["hash"]
        return same_values(values_of(said_answer(answer)), [normal(value) for value in self.task.truth["label"]])

    def hash(self) -> str:
        """MySQL's md5(group_concat(substring(md5(concat_ws(',', cells)), 1, 5) order by it)), which cuts group_concat at 1024 characters."""
        rows, _ = execute(self.database, f"SELECT * FROM main.{self.table}", most=1_000_000)
        marks = sorted(md5(",".join(str(cell) for cell in row if cell is not None))[:5] for row in rows)
        return md5(",".join(marks)[:1024])

    def close(self) -> None:
        self.database.close()


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def quoted(name: str) -> str:
    """A table's or column's name for SQLite, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def normal(value: Any) -> str:
    """A value as the official scorer compares it: no percent sign, no thousands' commas, and "0" for everything empty."""
    text = str(value).strip().strip("'\"").removesuffix("%").strip().replace(",", "")
    return "0" if text.lower() in ("none", "null", "undefined", "nan", "inf", "infinity", "-inf", "-infinity", "") else text


def values_of(answer: str) -> list[str]:
    """The values of an answer: a JSON list, the rows that sql printed, or one value."""
    if answer.startswith("["):
        found = re.findall(r"'([^']*)'|\"([^\"]*)\"|([^\s,()\[\]'\"]+)", answer)
        return [normal("".join(parts)) for parts in found]
    return [normal(answer)]


def same_values(given: list[str], wanted: list[str]) -> bool:
    """Numbers within 0.01, one for one; anything else as sets."""
    def numbers(values: list[str]) -> list[float] | None:
        try:
            return sorted(map(float, values))
        except ValueError:
            return None

    a, b = numbers(given), numbers(wanted)
    if a is not None and b is not None:
        return len(a) == len(b) and all(abs(x - y) <= 1e-2 for x, y in zip(a, b))
    return set(given) == set(wanted)


# ------------------------------------------------------------------------------------------------- AgentBench OS

BASH = tool("bash", "Run a bash command in the home folder; files stay, variables do not.", {"command": {"type": "string"}})
LIMITS = Limits(wall=20.0, processes=64, open_files=256, output=800)  # the published interface shows 800 characters; `echo 123>file` opens file 123
PLACES = ("/home", "/etc", "/var", "/opt", "/usr/local", "/mnt", "/srv")  # writable in the container, and so here
PREPARED = ("cp /usr/share/base-passwd/passwd.master /etc/passwd && cp /usr/share/base-passwd/group.master /etc/group && mkdir -p /var/log /var/tmp "
            "&& touch /etc/login.defs")


def whole(text: str) -> int:
    """A whole number, as Python's int() reads it."""
    return int(text.strip())


def size(text: str) -> float:
    """A size in bytes from "4.0K", "12 MB" and such."""
    number, unit = re.fullmatch(r"\s*([\d.]+)\s*([BKMGTP]?)(?:B|yte)?\s*", text).groups()
    return float(number) * 1024.0 ** "BKMGTP".index(unit or "B")


CHECKS = {"check/integer-match.py": whole, "check/size-match.py": size, "check/string-match.py": lambda text: text.replace("\r", "").strip()}


def agentbench_os(folder: str | Path, file: str = "dev.json") -> tuple[list[Task], dict[int, str]]:
    """(tasks of os/<file> that can run here, {number of another: why it cannot}).

    Judged by `match` (equality or a regular expression on the answer), or by comparing it, the way that the named check does, with what the
    example command prints in the same sandbox.
    """
    tasks, left_out = [], {}
    for number, row in enumerate(rows_of(Path(folder) / "os" / file)):
        try:
            tasks.append(os_task(number, row))
        except UserError as reason:
            left_out[number] = str(reason)
    return tasks, left_out


def os_task(number: int, row: dict) -> Task:
    """One OS task. Raises UserError where it needs a file that the data does not hold."""
    def code(part: Any, what: str) -> str:
        if isinstance(part, dict) and "file" in part:
            raise UserError(f"its {what} is the file {part['file']}, which is not among the published data")
        return part.get("code", "") if isinstance(part, dict) else part or ""

    judge = row["evaluation"]
    create = row.get("create") if isinstance(row.get("create"), dict) else {}
    truth: dict[str, Any] = {"init": code(create.get("init"), "preparation"), "start": code(row.get("start"), "background program"),
                             "match": judge.get("match"), "check": None, "example": ""}
    if "check" in judge:
        checks = judge["check"] if isinstance(judge["check"], list) else [judge["check"]]
        if checks[0] is not None or len(checks) != 2 or checks[1].get("file") not in CHECKS:
            code(checks[-1], "check")
            raise UserError(f"its check {judge['check']} is of no known form")
        truth |= {"check": checks[1]["file"], "example": code(judge.get("example"), "example")}
    example = truth["example"] or code(row.get("example"), "example")
    steps = [Step("run the example", "run it", {"name": "bash", "arguments": {"command": example}})] if example else []
    return Task("benchmarks.System", ",".join(row.get("labels", ["training"])), number, row["description"], [BASH], steps,
                f"answer: {judge['match']}" if isinstance(judge.get("match"), str) else "", {}, truth=truth)


class System(World):
    """One container of AgentBench OS. Raises UserError if the task's own preparation fails in it."""
    faults = ("timeout", "renamed", "incomplete", "denied")

    def __init__(self, task: Task):
        super().__init__(task)
        self.sandbox = Sandbox(limits=LIMITS, home="/root", user=0, folders=PLACES, background=True)
        for command in filter(None, (PREPARED, task.truth["init"], task.truth["start"])):
            result = self.sandbox.run(command)
            if result.status:
                self.close()
                raise UserError(f"preparing the task failed with status {result.status}: {result.output.strip()}")

    def step(self, call: dict) -> str:
        try:
            result = self.sandbox.run(call["arguments"]["command"])
        except SandboxDied as died:
            return f"error: {died}"
        said = result.output.rstrip("\n") + result.stopped * bool(result.stopped)
        return said if result.status == 0 else f"error {result.status}: {said}"

    def verify(self, answer: str) -> bool:
        given, match, check = said_answer(answer), self.task.truth["match"], self.task.truth["check"]
        if check is None:
            return given == match if isinstance(match, str) else re.search(match["regex"], given) is not None
        try:
            wanted = self.sandbox.run(self.task.truth["example"]).output
            return CHECKS[check](given) == CHECKS[check](wanted)
        except (ValueError, AttributeError, SandboxDied):  # no number, no size, no sandbox any more
            return False

    def close(self) -> None:
        self.sandbox.close()


# --------------------------------------------------------------------------------------------------------- BFCL

BFCL_FILES = ("simple_python", "multiple", "parallel", "irrelevance")
TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": None}  # the files' own words for JSON Schema's
CHECKED = {"string": str, "integer": int, "float": float, "number": float, "boolean": bool, "array": list, "tuple": list, "dict": dict}
DROPPED = str.maketrans("", "", " ,./-_*^")


def json_schema(schema: Any) -> Any:
    """A schema of the files as JSON Schema."""
    if isinstance(schema, list):
        return [json_schema(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    translated = {key: json_schema(value) if key in ("items", "parameters") else value for key, value in schema.items() if key != "optional"}
    if "properties" in schema:
        translated["properties"] = {key: json_schema(value) for key, value in schema["properties"].items()}
    if isinstance(schema.get("type"), str) and (kind := TYPES.get(schema["type"], schema["type"])) != schema["type"]:
        translated.pop("type")
        translated |= {"type": kind} if kind else {}
    return translated


def bfcl(folder: str | Path, name: str) -> list[Task]:
    """The tasks of one file of `BFCL_FILES`; right is exactly the set of calls that the answer key allows (irrelevance: no call)."""
    if name not in BFCL_FILES:
        raise UserError(f"there is no BFCL file {name!r} here; there are {', '.join(BFCL_FILES)}")
    folder = Path(folder)
    keys = {} if name == "irrelevance" else {row["id"]: row["ground_truth"] for row in rows_of(folder / "possible_answer" / f"BFCL_v4_{name}.json")}
    tasks = []
    for row in rows_of(folder / f"BFCL_v4_{name}.json"):
        if row["id"] not in keys and name != "irrelevance":
            raise UserError(f"possible_answer/BFCL_v4_{name}.json has no answer for {row['id']}; take both files from one release")
        key = keys.get(row["id"], [])
        functions = {function["name"]: function for function in row["function"]}
        steps = []
        for called, allowed in ((called, allowed) for answer in key for called, allowed in answer.items()):
            required = functions[called]["parameters"].get("required", [])
            steps.append(Step(f"call {called}", "call it", {"name": called, "arguments": dict(first_choice(allowed, required))}))
        tools = [{"type": "function", "function": json_schema(function)} for function in row["function"]]
        number = int(row["id"].rsplit("_", 1)[1].split("-")[0])
        tasks.append(Task("benchmarks.Functions", name, number, row["question"][0][-1]["content"], tools, steps,
                          "done" if steps else "no tool fits", {}, truth={"key": key, "functions": functions}))
    return tasks


def first_choice(allowed: dict[str, list], required: Sequence[str] = ()) -> Iterator[tuple[str, Any]]:
    """The arguments of a right call: of every argument that cannot be left out the first allowed value.

    Three keys allow to leave out what their own schema requires ("" among the values); the rule then wants it all the same.
    """
    for argument, values in allowed.items():
        if "" not in values or argument in required:
            yield argument, plain(next(value for value in values if value != ""))


def plain(value: Any) -> Any:
    """An allowed value as a value: in an object, each key has a list of choices of its own."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return dict(first_choice(value)) if isinstance(value, dict) and all(isinstance(choices, list) for choices in value.values()) else value


class Functions(World):
    """One BFCL case: the calls are collected and compared."""
    faults = ()

    def __init__(self, task: Task):
        super().__init__(task)
        self.calls: list[dict] = []

    def step(self, call: dict) -> str:
        self.calls.append(call)
        return "ok"

    def verify(self, answer: str) -> bool:
        """Each expected call is met by one of the calls made, in any order, and none is left over."""
        wanted = [(name, allowed) for entry in self.task.truth["key"] for name, allowed in entry.items()]
        left = list(self.calls)
        for name, allowed in wanted:
            met = next((call for call in left if call["name"] == name and not wrong_with(call, self.task.truth["functions"][name], allowed)), None)
            if met is None:
                return False
            left.remove(met)
        return not left


def wrong_with(call: dict, function: dict, allowed: dict[str, list]) -> str:
    """The official error of a call's arguments: missing_required, unexpected_param, type_error, value_error, or ""."""
    properties, arguments = function["parameters"]["properties"], call["arguments"]
    if any(key not in arguments for key in function["parameters"].get("required", [])):
        return "missing_required"
    for key, value in arguments.items():
        if key not in properties or key not in allowed:
            return "unexpected_param"
        if error := wrong_value(value, properties[key], allowed[key]):
            return error
    return "missing_required" if any(key not in arguments and "" not in values for key, values in allowed.items()) else ""


def wrong_value(value: Any, schema: dict, allowed: list) -> str:
    """type_error, value_error or "" of one argument."""
    wanted, choices = CHECKED.get(schema["type"]), [choice for choice in allowed if choice != ""]
    if wanted and choices and type(choices[0]) is not wanted and type(value) is type(choices[0]):
        return "" if value in choices else "value_error"     # the key itself breaks the schema here: a variable's name, an int for a float
    if wanted is float and type(value) is int:
        value = float(value)
    if wanted and type(value) is not wanted:
        return "type_error"
    inner = CHECKED.get(schema.get("items", {}).get("type")) if wanted is list else None
    if inner and any(type(item) is not inner and not (inner is float and type(item) is int) for item in value):
        return "type_error"
    return "" if any(meets(value, choice) for choice in allowed) else "value_error"


def meets(value: Any, choice: Any) -> bool:
    """Whether a value is an allowed one: strings without regard to case, spaces and ,./-_*^ ; lists item by item; objects key by key."""
    if isinstance(value, str) and isinstance(choice, str):
        return value.translate(DROPPED).lower() == choice.translate(DROPPED).lower()
    if isinstance(value, list) and isinstance(choice, list):
        return len(value) == len(choice) and all(map(meets, value, choice))
    if isinstance(value, dict) and isinstance(choice, dict):
        return all(key in choice for key in value) and all(key in value and any(meets(value[key], option) for option in options) or
                                                           key not in value and "" in options for key, options in choice.items())
    return value == choice and isinstance(value, bool) == isinstance(choice, bool)
