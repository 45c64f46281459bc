"""Attacks on the time and the memory of whoever judges an agent: the check of calls, the worlds in
process, SQL, what is read after a shell's commands.

    python bench/bounds.py
        a table, docs/results/sandbox.json, from which docs/SANDBOX.md is made, and a fuzz of
        100 000 calls
    python bench/bounds.py --fuzz 0    the table alone

Each attack runs in a process of its own that has done nothing else, and is held to 2 seconds and
200 MB beyond what the imports take; nothing may be raised.
"""

import argparse
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SECONDS, MEGABYTES = 2.0, 200

# the longest text that the functions allowed here may make of a short statement: 4,608 characters
LONG = "replace(replace(replace('aaaaaaaaaaaa','a','bbbbbbbb'),'b','cccccc'),'c','dddddddd')"
COUNTING = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {n}) "

SQL = {  # name: statements, one after the other
    "endless recursion": [COUNTING.format(n=10**9) + "SELECT count(*) FROM c"],
    "cross join of eight": [
        "SELECT count(*) FROM "
        + ", ".join(
            f"(SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT {i + 9})" for i in range(8)
        )
    ],
    "instr of long texts": [f"SELECT instr({LONG}, substr({LONG}, 1, 2000) || '1')"],
    "replace in a long text, many times": [
        COUNTING.format(n=3000) + f"SELECT sum(length(replace({LONG}, 'dd', 'ab'))) FROM c"
    ],
    "LIKE with many wildcards": [f"SELECT {LONG} LIKE '%d%d%d%d%d%d%d%d%d%d%d%d%1'"],
    "GLOB with many wildcards": [f"SELECT {LONG} GLOB '*d*d*d*d*d*d*d*d*d*d*d*d*1'"],
    "a blob of a gigabyte": ["SELECT zeroblob(1000000000)"],
    "values that double": ["SELECT " + "replace(" * 12 + "'aaaa'" + ", 'a', 'aaaa')" * 12],
    "a temporary table without end": [
        "CREATE TEMP TABLE z AS " + COUNTING.format(n=10**7) + f"SELECT {LONG} AS b FROM c"
    ],
    "a sort without end": [
        COUNTING.format(n=10**7) + f"SELECT {LONG} || i AS b FROM c ORDER BY b DESC LIMIT 1"
    ],
    "group_concat without end": [
        COUNTING.format(n=10**7) + "SELECT length(group_concat(i)) FROM c"
    ],
    "a row of a hundred long values": [
        f"WITH z(b) AS (SELECT {LONG}) SELECT "
        + ", ".join(["b"] * 100)
        + " FROM z UNION ALL SELECT "
        + ", ".join(["1"] * 100)
    ],
    "two hundred rows of a hundred long values": [
        COUNTING.format(n=200)
        + f", z(b) AS (SELECT {LONG}) SELECT "
        + ", ".join(["b"] * 100)
        + " FROM c, z"
    ],
    "a table that doubles": [
        "CREATE TABLE z (b)",
        f"INSERT INTO z VALUES ({LONG})",
        *["INSERT INTO z SELECT b FROM z"] * 20,
    ],
    "an index on much": [
        "CREATE TABLE z (b)",
        "INSERT INTO z " + COUNTING.format(n=10**7) + f"SELECT {LONG} || i FROM c",
        "CREATE INDEX q ON z (b)",
    ],
    "a trigger that feeds itself": [
        "CREATE TABLE z (b)",
        "CREATE TRIGGER t AFTER INSERT ON z BEGIN INSERT INTO z VALUES (new.b + 1); END",
        "INSERT INTO z VALUES (1)",
    ],
    "a table that is a view": [
        "ALTER TABLE {table} RENAME TO old",
        f"CREATE VIEW {{table}} AS {COUNTING.format(n=10**9)} SELECT i FROM c",
    ],
    "a query nested deep": ["SELECT " + "(" * 2400 + "1" + ")" * 2400],
    "two hundred terms": ["SELECT 1" + " UNION ALL SELECT 1" * 200],
    "json nested deep": ["SELECT json_extract('" + "[" * 2400 + "]" * 2400 + "', '$[0]')"],
    "views that double": [
        "CREATE VIEW v0 AS SELECT 1 AS a",
        *[f"CREATE VIEW v{i + 1} AS SELECT x.a FROM v{i} AS x, v{i} AS y" for i in range(30)],
        "SELECT count(*) FROM v30",
    ],
    "half a character": ["SELECT '\ud800'"],
    "a NUL": ["SELECT 'a\0b'"],
    "a window over much": [
        COUNTING.format(n=10**7)
        + "SELECT sum(i) OVER (ORDER BY i ROWS BETWEEN 10000 PRECEDING AND CURRENT ROW) FROM c"
    ],
}

SPARSE = (
    "printf '%s' x > z; rm z; python3 -c \"h = bytearray(512)\n"
    "put = lambda at, b: h.__setitem__(slice(at, at + len(b)), b)\nput(0, b'x')\n"
    "[put(a, b) for a, b in ((100, b'0000644\\0'), (108, b'0000000\\0'), (116, b'0000000\\0'), "
    "(124, b'00000000000\\0'), (136, b'00000000000\\0'), (148, b'        '), (156, b'S'), "
    "(257, b'ustar  \\0'), (386, b'00000000000\\0' * 2), (483, b'%011o\\0' % 8000000000))]\n"
    "put(148, b'%06o\\0 ' % sum(h))\nopen('{archive}', 'wb').write(bytes(h) + bytes(1024))\""
)

SHELL = {  # name: commands, before the expert's; {archive} is the file that the task wants
    "an archive that claims 8 GB": [SPARSE],
    "an archive of 100 MB of zeros": ["head -c 100000000 /dev/zero | gzip > {archive}"],
    "an archive cut short": ["tar -cf a.tar . ; head -c 60 a.tar > {archive}"],
    "an archive of ten thousand files": [
        "mkdir m; cd m; for i in {{1..10000}}; do : > $i; done; cd ..; tar -cf {archive} m; rm -r m"
    ],
    "an archive with folders a thousand deep": [
        "d=.; for i in {{1..1000}}; do d=$d/a; done; mkdir -p $d; tar -cf {archive} a; rm -r a"
    ],
    "an archive of bits by chance": ["head -c 100000 /dev/urandom > {archive}"],
    "sparse files of 8 MB, a thousand": ["for i in {{1..1000}}; do truncate -s 8M s$i; done"],
    "a full home folder": ["for i in 1 2 3 4; do head -c 8000000 /dev/zero > f$i; done"],
    "output without end": ["yes"],
    "a command without end": ["while :; do :; done"],
    "processes without end": [":(){{ :|:& }}; :"],
    "memory without end": ["a=x; while :; do a=$a$a; done"],
    "a long line": ["echo " + "x" * 40_000],
    "a regular expression that doubles": [
        "echo {letters}b | grep -cE '(a+)+c'".replace("{letters}", "a" * 40)
    ],
}

WORLDS = {  # name: (world, arguments of every text, every integer)
    "a text of a megabyte": ("safety", "x" * 1_000_000, 1),
    "rm with a thousand options": ("safety", "rm " + "-r " * 100_000 + "x", 1),
    "spaces where a pattern looks": ("safety", "dd " + " " * 200_000 + "of=", 1),
    "digits where a card might be": ("safety", "1 " * 200_000, 1),
    "an address without end": ("safety", "a." * 100_000 + "@" + "b." * 100_000, 1),
    "braces of a fork bomb": ("safety", ":(){" * 50_000, 1),
    "the largest integer": ("api", "x", 2**63 - 1),
    "a long name for a quantity": ("api", "ü" * 300_000, 5),
}

CHECK = {  # name: (schema of the arguments, arguments)
    "a pattern that doubles": (
        {"properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}},
        {"a": "a" * 60 + "!"},
    ),
    "a pattern of keys that doubles": ({"patternProperties": {"^(x+x+)+y$": {}}}, {"x" * 60: 1}),
    "uniqueItems of ten thousand objects": (
        {"properties": {"a": {"type": "array", "uniqueItems": True}}},
        {"a": [{"n": i, "m": [i]} for i in range(10_000)]},
    ),
    "references that double": (
        {
            "properties": {"a": {"$ref": "#/$defs/d0"}},
            "$defs": {
                **{f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)},
                "d40": {"type": "integer"},
            },
        },
        {"a": 1},
    ),
    "a reference to itself": (
        {"properties": {"a": {"$ref": "#/$defs/d"}}, "$defs": {"d": {"$ref": "#/$defs/d"}}},
        {"a": 1},
    ),
    "arguments nested a thousand deep": ({"properties": {"a": {}}}, None),
    "an enumeration of a hundred thousand": (
        {"properties": {"a": {"enum": list(range(100_000))}}},
        {"a": -1},
    ),
    "ten thousand alternatives": (
        {"properties": {"a": {"anyOf": [{"const": i} for i in range(10_000)]}}},
        {"a": -1},
    ),
    "a reference into the network": (
        {"properties": {"a": {"$ref": "http://10.255.255.1/x.json"}}},
        {"a": 1},
    ),
}


def attacks() -> list[tuple[str, str]]:
    return [
        (group, name)
        for group, table in (("check", CHECK), ("sql", SQL), ("shell", SHELL), ("world", WORLDS))
        for name in table
    ]


# -------------------------------------------------------------- one attack, in a process of its own


def act(group: str, name: str) -> str:
    """Carry out an attack; what was said, short."""
    from worlds.calls import check_call
    from worlds.tools import check_tools
    from worlds.base import Episode
    from worlds.difficulty import Difficulty
    from worlds.tasks import draw_task

    if group == "check":
        schema, arguments = CHECK[name]
        if arguments is None:
            arguments = {"a": 1}
            for _ in range(1000):
                arguments = {"a": arguments}
        tool = {
            "type": "function",
            "function": {"name": "f", "parameters": {"type": "object", **schema}},
        }
        return str(
            [fault.kind for fault in check_call({"name": "f", "arguments": arguments}, [tool])]
            + [fault.kind for fault in check_tools([tool])]
        )
    if group == "sql":
        task = next(
            task
            for task in (draw_task("sql", 1, index) for index in range(99))
            if task.answer == "done"
        )
        table = next(iter(task.truth["tables"]))
        calls = [
            {"name": "sql", "arguments": {"query": query.replace("{table}", table)}}
            for query in SQL[name]
        ]
    elif group == "shell":
        task = next(
            task
            for task in (draw_task("shell", 1, index) for index in range(200))
            if task.kind == "archive"
        )
        archive = next(path for path in task.truth["texts"] if path.endswith(".tar"))
        calls = [
            {"name": "bash", "arguments": {"command": command.format(archive=archive)}}
            for command in SHELL[name]
        ]
    else:
        world, text, number = WORLDS[name]
        task = next(
            task
            for task in (
                draw_task(world, 1, index, Difficulty(arguments=4, special=0.0))
                for index in range(99)
            )
            if task.solution
        )
        calls = []
        for tool in task.tools:
            properties = tool["function"]["parameters"]["properties"]
            kinds = {"string": text, "integer": number, "boolean": True}
            calls.append(
                {
                    "name": tool["function"]["name"],
                    "arguments": {key: kinds[schema["type"]] for key, schema in properties.items()},
                }
            )
    with Episode(task) as episode:
        said = [episode.step(call) for call in calls]
        verdict = episode.verify(task.answer)
    if episode.problem:
        raise RuntimeError(episode.problem)
    return f"{said[-1][:60]!r}, verified {verdict}"


ALONE = """
import re, sys, time
sys.path.insert(0, {folder!r})
import bounds
from worlds.calls import check_call
import worlds.sql, worlds.safety, worlds.shell, worlds.api
call = {{"name": "f", "arguments": {{}}}}
check_call(call, [{{"type": "function", "function": {{"name": "f"}}}}])
def kilobytes(what):
    return int(re.search(rf"{{what}}:\\s+(\\d+)", open("/proc/self/status").read())[1])
open("/proc/self/clear_refs", "w").write("5")  # the peak is counted from here
before, began = kilobytes("VmRSS"), time.perf_counter()
said = bounds.act(*sys.argv[1:])
seconds = time.perf_counter() - began
megabytes = (kilobytes("VmHWM") - before) / 1024
print(f"{{seconds:.3f}}\\t{{megabytes:.1f}}\\t{{said}}")
"""


def attempt(group: str, name: str, patience: float = 30.0) -> tuple[float, float, str]:
    """An attack in a process of its own: (seconds, megabytes beyond the imports, what came of
    it).
    """
    command = [sys.executable, "-c", ALONE.format(folder=str(ROOT / "bench")), group, name]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=patience,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        return patience, float("nan"), "NO END"
    if done.returncode:
        return (
            float("nan"),
            float("nan"),
            "RAISED "
            + (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1][:200],
        )
    seconds, megabytes, said = done.stdout.rstrip("\n").split("\t", 2)
    return float(seconds), float(megabytes), said


def held(seconds: float, megabytes: float, said: str) -> bool:
    return (
        seconds <= SECONDS and megabytes <= MEGABYTES and not said.startswith(("RAISED", "NO END"))
    )


# --------------------------------------------------------------------------------------------- fuzz


def fuzz(count: int, seed: int = 0) -> Counter:
    """Random calls, most of them valid and hostile, in episodes of all worlds: what came of them.

    Raises what a world raises.
    """
    from worlds.extras.chance import random_call
    from worlds import WORLDS as ALL
    from worlds.base import Episode
    from worlds.difficulty import Difficulty
    from worlds.tasks import draw_task

    rng, found = random.Random(seed), Counter()
    nasty = [
        "",
        "\0",
        "' OR 1=1 --",
        "$(:)",
        "../../etc/passwd",
        "*" * 50,
        "\U0001f600",
        "\ud800",
        "-" * 500,
        "DROP TABLE x",
        "rm -rf /",
        "a" * 5000,
        *(query for queries in SQL.values() for query in queries),
        *(line for lines in SHELL.values() for line in lines if len(line) < 300),
    ]
    quick = [
        text
        for text in nasty
        if not any(
            word in text
            for word in (
                "yes",
                "while",
                ":|:",
                "RECURSIVE",
                "8000000",
                "10000",
                "1000}",
                "truncate",
            )
        )
    ]
    names = [
        name for name in ALL for _ in range({"math": 0, "shell": 1}.get(name, 6))
    ]  # a sandbox takes its time
    while found.total() < count:
        task = draw_task(
            rng.choice(names), seed, rng.randrange(1_000_000), Difficulty(fault_rate=0.3)
        )
        words = rng.choices(
            [*task.request.split(), *rng.choices(nasty if rng.random() < 0.01 else quick, k=4)], k=8
        )
        with Episode(task) as episode:
            for _ in range(min(8, count - found.total())):
                call = random_call(rng, episode.tools, words)
                if rng.random() < 0.2 and call["arguments"]:
                    call["arguments"][rng.choice(list(call["arguments"]))] = rng.choice(
                        [None, 1.5, 2**70, [], {}, True, "x", float("nan")]
                    )
                said = episode.step(
                    call if rng.random() < 0.9 else json.dumps(call)[: rng.randrange(1, 200)]
                )
                found[
                    (
                        "refused"
                        if episode.log[-1].faults
                        else "error"
                        if said.startswith("error")
                        else "done"
                    )
                ] += 1
            episode.verify(rng.choice([task.answer, "", "answer: 0", rng.choice(nasty)]))
            if episode.problem:
                raise RuntimeError(f"{task.world} {task.seed}: {episode.problem}")
    return found


def main() -> None:
    # here: it brings torch along, whose import would be most of what an attack's process takes
    from support import result_tables as results

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fuzz", type=int, default=100_000, help="calls")
    a = parser.parse_args()
    failed = 0
    for group, name in attacks():
        seconds, megabytes, said = attempt(group, name)
        good = held(seconds, megabytes, said)
        failed += not good
        print(
            f"{group:6} {name:45} {seconds:7.2f} s {megabytes:7.1f} MB  "
            f"{'held' if good else 'NOT HELD'}  {said[:90]}",
            flush=True,
        )
        results.record(
            "sandbox",
            f"bounds/{group}: {name}",
            round(seconds, 2),
            unit="s",
            note=f"{'held' if good else 'NOT HELD'}, {megabytes:.0f} MB: {said[:80]}",
        )
    print(
        f"{len(attacks()) - failed} of {len(attacks())} held: "
        f"at most {SECONDS:g} s and {MEGABYTES} MB, nothing raised"
    )
    if a.fuzz:
        found = fuzz(a.fuzz)
        print(f"fuzz: {found.total()} calls, {dict(found)}, nothing raised")
        results.record(
            "sandbox",
            "summary/fuzzed calls",
            found.total(),
            note=f"{', '.join(f'{count} {what}' for what, count in found.items())}; nothing raised",
        )
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
