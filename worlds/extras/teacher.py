r"""The teacher: the scripted expert or any OpenAI-compatible model over HTTP, and the data set that
they write (paper 3.1, B.1).

    python -m worlds.extras.teacher --tasks 1000 --out out/trajectories.jsonl
        the scripted expert, all worlds
    python -m worlds.extras.teacher --tasks 200 --out out/theirs.jsonl \
        --url http://localhost:8000/v1 --model qwen
        a model over HTTP

A model over HTTP does not see the solutions; it is prompted, parsed, retried, and *nothing it
writes is kept unless executing it verified the task*, with no invented argument on the way. What is
rejected is counted by reason.

A line of the data set is one episode (expert.Trajectory): messages as tokenizer.chat_text takes
them, the tools, the constraints, and for every call of the solution its three hard negatives with
the fault that each has. `seed`, `index` and `difficulty` rebuild the task (tasks.draw_task). The
same command writes the same bytes, however often it was interrupted; `--shard 0/2` and
`--shard 1/2` write two halves in two processes.
"""

import hashlib
import json
import os
import random
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import tyro
from tqdm import tqdm

from support import provenance
from config import UserError
from support.settings import flatten, run_script
from worlds.expert import Trajectory, as_trajectory, call_message, fingerprint, invented, trajectory
from support.tokenizer import AGENTIC_PROMPT, SOCRATIC_TEACHER
from worlds.calls import call_from_openai, calls_and_faults, read_message, text_from_openai
from worlds import WORLDS
from worlds.base import Episode, Task, failed
from worlds.difficulty import Difficulty
from worlds.tasks import Tasks, world_names

MOST_CALLS = 12  # of one episode; the longest chain has 8, and a call may fail once or twice
LARGEST_REPLY = 4_000_000  # bytes of one HTTP body


# ------------------------------------------------------------------------------- a model over HTTP

HOW_TO_END = """
Write the plan as lines "1. goal" and "2. goal (after 1)". End with one last line and no call:
"answer: VALUE" with the value that the last tool gave, "done" where there is none to give, \
"ask: NAME" if a needed value is missing,
"no tool fits" if no tool gives what is asked, or "refuse: REASON"."""


class GaveUp(Exception):
    """A task that is not kept; the text is the reason, short enough to count by."""


class MalformedReply(Exception):
    """A reply's body is not the protocol; the text says where."""


class HttpTeacher:
    """A model behind an OpenAI-compatible endpoint (vLLM, SGLang, llama.cpp, transformers serve, a
    cloud).

    Transient failures (429, 5xx, time-outs, disconnects, bodies that are not the protocol) are
    retried with growing pauses, then the task is given up and counted; any other exception is a bug
    and is passed on. `seconds` bounds a whole reply, also one that arrives a byte at a time.
    Replies are cached on disk by their request, so an interrupted run pays for nothing twice.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str = "none",
        cache: Path | None = None,  # a folder
        seconds: float = 120,  # for a whole reply
        tries: int = 5,
        pause: float = 1.0,  # seconds before the second try; doubled before each further one
        temperature: float = 0.0,
        tokens: int = 400,  # most tokens of a reply
    ):
        try:
            import openai  # here: the scripted expert needs no client
        except ImportError:
            raise UserError(
                "a teacher over HTTP needs the client openai; pip install openai"
            ) from None
        if not url.startswith(("http://", "https://")):
            raise UserError(f"--url is {url!r}; wanted http://… or https://…, up to /v1")
        self.openai = openai
        self.model = model
        self.cache = cache
        self.seconds = seconds
        self.tries = tries
        self.pause = pause
        self.temperature = temperature
        self.tokens = tokens
        self.client = openai.OpenAI(base_url=url, api_key=key, timeout=seconds, max_retries=0)
        # while a body is read, errors are not the client's but those of the library below it:
        # httpx, and from version 3 on httpx2
        http = [sys.modules[name] for name in ("httpx", "httpx2") if name in sys.modules]
        self.timeouts = (openai.APITimeoutError, TimeoutError, *(h.TimeoutException for h in http))
        self.disconnects = (openai.APIConnectionError, ConnectionError)
        self.disconnects += tuple(h.RequestError for h in http)
        self.retries: Counter[str] = Counter()  # what went wrong on the way, by kind

    def complete(self, messages: list[dict], tools: list[dict]) -> dict:
        """The model's next message as {"content", "calls", "faults"}; raises GaveUp when the
        retries are used up.
        """
        request = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": AGENTIC_PROMPT + HOW_TO_END},
                *wire(messages),
            ],
            "temperature": self.temperature,
            "max_tokens": self.tokens,
            **({"tools": tools} if tools else {}),
        }
        place = self.cache_place(request) if self.cache else None
        if place and place.exists():
            return read_reply(json.loads(place.read_text()))
        for attempt in range(self.tries):
            if attempt:
                time.sleep(self.pause * 2 ** min(attempt - 1, 6) * random.uniform(0.5, 1))
            try:
                message = self.ask(request)
                found = read_reply(message)
            except self.timeouts:
                problem = "time-out"
            except self.disconnects:
                problem = "disconnected"
            except MalformedReply:
                problem = "malformed reply"
            except self.openai.RateLimitError:
                problem = "rate limit"
            except (
                self.openai.AuthenticationError,
                self.openai.PermissionDeniedError,
                self.openai.NotFoundError,
            ) as error:
                raise UserError(
                    f"{self.client.base_url} answers {error.status_code} for model {self.model!r}; "
                    "check --url, --model and $OPENAI_API_KEY"
                ) from None
            except self.openai.APIStatusError as error:
                problem = f"status {error.status_code}"
                if error.status_code < 500:  # this request will not get better by asking again
                    raise GaveUp(problem) from None
            else:
                if place:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    aside = place.with_suffix(f".{random.getrandbits(32)}")
                    aside.write_text(json.dumps(message))
                    aside.replace(place)
                return found
            self.retries[problem] += 1
        raise GaveUp(problem)

    def cache_place(self, request: dict) -> Path:
        """The file in the cache that a request's reply belongs in."""
        key = json.dumps([str(self.client.base_url), request])
        return self.cache / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    def ask(self, request: dict) -> dict:
        """One request; the reply's message as the server sent it.

        The body is read by hand to bound its size and its time.
        """
        end = time.monotonic() + self.seconds
        body = bytearray()
        with self.client.chat.completions.with_streaming_response.create(**request) as response:
            for piece in response.iter_bytes():
                body += piece
                if time.monotonic() > end:
                    raise TimeoutError
                if len(body) > LARGEST_REPLY:
                    raise MalformedReply(f"more than {LARGEST_REPLY} bytes")
        try:
            return json.loads(body)["choices"][0]["message"]
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as problem:
            raise MalformedReply(f"{type(problem).__name__} in the body") from None

    def solve(self, task: Task) -> tuple[list[dict], Episode]:
        """The model's messages for a task and its episode, verified by execution; raises GaveUp
        with the reason otherwise.
        """
        messages: list[dict] = []
        with Episode(task) as episode:
            while len(episode.log) < MOST_CALLS:
                reply = self.complete(
                    [{"role": "user", "content": task.request}, *messages], task.tools
                )
                if reply["faults"]:
                    raise GaveUp("malformed call")
                if reply["calls"]:
                    if len(episode.log) + len(reply["calls"]) > MOST_CALLS:
                        raise GaveUp("no end")
                    messages += carried_out(episode, reply["content"], reply["calls"])
                    continue
                messages.append({"role": "assistant", "content": reply["content"]})
                if not episode.verify(reply["content"]):
                    raise GaveUp("not verified")
                if invented(episode):
                    raise GaveUp("invented an argument")
                return messages, episode
        raise GaveUp("no end")

    def critique(self, task: Task, attempt: list[dict]) -> str:
        """What the model says went wrong in a failed attempt (Algorithm 1's critique), with the
        Socratic teacher's prompt.
        """
        seen = {"task": task.request, "tools": task.tools, "attempt": attempt}
        question = f"{SOCRATIC_TEACHER}\n\n{json.dumps(seen, ensure_ascii=False)}"
        return self.complete([{"role": "user", "content": question}], [])["content"]


def carried_out(episode: Episode, content: str, calls: list[dict]) -> list[dict]:
    """A message with its calls, and a result for each.

    The message is a slip, which nobody is to imitate (expert.solve_task), where a call was refused
    or answered by an error of its own making. One such call spoils its whole message: words and
    order of the others were chosen with it. An injected fault is nobody's slip.
    """
    before = len(episode.log)
    results = [{"role": "tool", "content": episode.step(call)} for call in calls]
    injected = [place for place, _ in episode.faults]
    slipped = any(
        entry.faults or failed(entry.observation) and place not in injected
        for place, entry in enumerate(episode.log[before:], before)
    )
    return [call_message(content, *calls) | ({"slip": True} if slipped else {}), *results]


def wire(messages: list[dict]) -> list[dict]:
    """Our messages as the protocol wants them: arguments as text, calls and results joined by an
    id.
    """
    sent = []
    waiting: deque[str] = deque()  # ids of calls whose results are to come
    number = 0
    for message in messages:
        out = {"role": message["role"], "content": message["content"]}
        if message["role"] == "tool":
            out["tool_call_id"] = waiting.popleft()
        for call in message.get("tool_calls", ()):
            number += 1
            waiting.append(f"call_{number}")
            function = {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}
            entry = {"id": waiting[-1], "type": "function", "function": function}
            out.setdefault("tool_calls", []).append(entry)
        sent.append(out)
    return sent


def read_reply(message: dict) -> dict:
    """A server's message as text, calls and faults. Raises MalformedReply where it is no message.

    Calls may stand in the protocol's field, in its field of 2023 (function_call), or in the text;
    one that stands in field and text counts once. A thought, in its own field or in <think>, is
    left out.
    """
    if not isinstance(message, dict):
        raise MalformedReply(f"the message is a {type(message).__name__}")
    try:
        words, written = read_message(text_from_openai(message.get("content")))
    except ValueError as problem:
        raise MalformedReply(str(problem)) from None
    entries = message.get("tool_calls") or []
    if not entries and message.get("function_call"):
        entries = [{"function": message["function_call"]}]
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("function"), dict) for e in entries
    ):
        raise MalformedReply("tool_calls are no list of functions")
    calls, faults = calls_and_faults([call_from_openai(entry["function"]) for entry in entries])
    more, more_faults = calls_and_faults([call for _, call in written])
    known = {json.dumps(call, sort_keys=True) for call in calls}
    calls += [call for call in more if json.dumps(call, sort_keys=True) not in known]
    return {"content": words.strip(), "calls": calls, "faults": faults + more_faults}


# ------------------------------------------------------------------------------------ the data set


@dataclass
class TeacherSettings:
    """Write a data set of verified trajectories."""

    # the data set; settings, rejections and statistics stand beside it
    out: str = "out/trajectories.jsonl"
    tasks: int = 1000  # tasks to draw; the expert solves all, a model over HTTP fewer
    worlds: str = "all"  # drawn in turn; or names with commas
    seed: int = 0
    # three wrong versions of each call, executed; most of the time goes here
    negatives: bool = True
    shard: str = "0/1"  # "1/4": the second of four processes, each with its own file
    url: str = ""  # an OpenAI-compatible endpoint instead of the expert; the key is $OPENAI_API_KEY
    model: str = ""
    concurrency: int = 8  # requests under way
    seconds: float = 120.0  # for one reply
    difficulty: Difficulty = field(default_factory=lambda: Difficulty(fault_rate=0.3))


def trajectories(
    settings: TeacherSettings, indexes: Iterator[int], teacher: HttpTeacher | None
) -> Iterator[tuple[int, Trajectory | str]]:
    """For each index, in order, its trajectory or the reason why there is none."""
    tasks = Tasks("teacher", settings.seed, world_names(settings.worlds), settings.difficulty)

    def make(index: int) -> Trajectory | str:
        if not teacher:
            return trajectory(*tasks.arguments(index), negatives=settings.negatives)
        task = tasks[index]
        try:
            messages, episode = teacher.solve(task)
        except GaveUp as reason:
            return str(reason)
        _, seed, _, _ = tasks.arguments(index)
        return as_trajectory(task, seed, index, messages, episode, negatives=settings.negatives)

    if not teacher:
        for index in indexes:
            yield index, make(index)
        return
    pool = ThreadPoolExecutor(settings.concurrency)
    waiting: deque = deque()
    try:
        for index in indexes:
            waiting.append((index, pool.submit(make, index)))
            if len(waiting) >= 2 * settings.concurrency:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def whole_lines(path: Path) -> list[dict]:
    """The records of a file that may have been cut off in the middle of its last line; the torn
    line is removed from the file.
    """
    if not path.exists():
        return []
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        with path.open("r+b") as file:
            file.truncate(end)
    return [json.loads(line) for line in data[:end].splitlines()]


def go_on(paths: list[Path], indexes: range) -> list[int]:
    """The indexes still to be done. What stands in the files (kept, rejected) behind the first gap
    is removed: a machine that stops may lose the end of one file and not of the other, and lines
    come in the order of their indexes."""
    records = [whole_lines(path) for path in paths]
    done = {row["index"] for rows in records for row in rows}
    first = next((place for place, index in enumerate(indexes) if index not in done), len(indexes))
    left = list(indexes[first:])
    for path, rows in zip(paths, records):
        before = sum(not left or row["index"] < left[0] for row in rows)
        if before < len(rows):
            lines = path.read_bytes().splitlines(keepends=True)
            provenance.replace(path, b"".join(lines[:before]))
    return left


FREE = ("tasks", "concurrency", "seconds", "out")  # what may change when a data set is continued


def made_from(settings: TeacherSettings) -> dict:
    """What a data set depends on, as its settings.json has it: settings, and hashes of the drawn
    tasks and of what a model over HTTP is told."""
    defaults, names = flatten(asdict(TeacherSettings())), flatten(asdict(settings))
    names = {name: value for name, value in names.items() if name not in FREE}
    given = [name for name, value in names.items() if value != defaults[name]]
    tasks = fingerprint(world_names(settings.worlds), settings.seed, settings.difficulty)
    prompt = hashlib.sha256((AGENTIC_PROMPT + HOW_TO_END).encode()).hexdigest()[:16]
    return dict(settings=names, given=given, tasks=tasks, prompt=prompt if settings.url else None)


def refuse_another(path: Path, out: Path, settings: TeacherSettings) -> None:
    """Raise UserError where the settings.json of a data set is damaged or says that it was made
    from something else."""
    now = made_from(settings)
    try:
        then = json.loads(path.read_text())
        if "settings" not in then:  # of an older version, which wrote settings alone
            names = {name: value for name, value in flatten(then).items() if name not in FREE}
            then = dict(settings=names)
            now = dict(settings=now["settings"])
        changed = provenance.differences(then, now, flatten(asdict(TeacherSettings())))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}), so nothing says what {out} was made "
            "from; give another --out, or delete both"
        ) from None
    if changed:
        raise UserError(
            f"{out} was begun with other settings ({'; '.join(changed)}); give the "
            "same ones to go on, or another --out"
        )


def statistics(records: list[dict], rejected: list[dict]) -> dict:
    """What is in a data set: counts by world, kind, fault, negative and number of calls; lengths in
    tokens of the toy vocabulary.
    """
    from support.tokenizer import toy

    tokenizer = toy()
    lengths = []
    for row in records:
        tools = row["tools"]
        style = "compact" if tools and isinstance(tools[0], str) else "qwen"
        lengths.append(len(tokenizer.encode_chat(row["messages"], tools, style)[0]))
    lengths.sort()
    tokens = {}
    if lengths:
        tokens = {
            "mean": round(sum(lengths) / len(lengths), 1),
            "median": lengths[len(lengths) // 2],
            "most": lengths[-1],
        }
    calls = [sum(len(message.get("tool_calls", ())) for message in r["messages"]) for r in records]
    return {
        "trajectories": len(records),
        "verified": sum(r["verified"] for r in records),
        "invented": sum(r["invented"] for r in records),
        "worlds": dict(Counter(r["world"] for r in records)),
        "kinds": dict(Counter(f"{r['world']} {r['kind']}" for r in records)),
        "faults": dict(Counter(k for r in records if r["fault"] for k in r["fault"].split(", "))),
        "calls": dict(sorted(Counter(calls).items())),
        "tools": dict(sorted(Counter(len(r["tools"]) for r in records).items())),
        "negatives": dict(Counter(n["kind"] for r in records for n in r["negatives"])),
        "tokens": tokens,
        "rejected": dict(Counter(r["reason"] for r in rejected)),
    }


def check_settings(settings: TeacherSettings) -> None:
    """Raise UserError where the settings do not go together."""
    if settings.difficulty.split != "train":
        raise UserError(
            f"--difficulty.split is {settings.difficulty.split}; a teacher's data set is for "
            "training, and its names and words are training's"
        )
    for name in world_names(settings.worlds):
        if name not in WORLDS:
            raise UserError(f"--worlds names {name!r}; there are {','.join(WORLDS)}")
    part = re.fullmatch(r"(\d+)/(\d+)", settings.shard)
    if not part or int(part[1]) >= int(part[2]):
        raise UserError(
            f"--shard is {settings.shard!r}; wanted NUMBER/COUNT with the number from 0, "
            "such as 0/2"
        )
    if settings.url and not settings.model:
        raise UserError("--url needs --model, the name under which the server knows it")


def claim_data_set(out: Path, settings: TeacherSettings) -> None:
    """Make a data set's file, or go on with one that was begun with the same settings."""
    about = out.with_suffix(".settings.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = not out.exists()
    out.touch()
    provenance.claim(out)
    if about.exists():
        refuse_another(about, out, settings)
    elif not fresh and out.stat().st_size:
        raise UserError(
            f"{out} holds something already, and no {about.name} "
            "beside it says what it was made from; give another --out"
        )
    provenance.replace(about, json.dumps(made_from(settings), indent=1))


def show_statistics(found: dict) -> None:
    """Statistics as lines."""
    for key, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {count}" for name, count in value.items())
        print(f"{key:13} {value}")


def main(arguments: list[str] | None = None) -> None:
    settings = tyro.cli(TeacherSettings, args=arguments, description=__doc__)
    check_settings(settings)
    out = Path(settings.out)
    rejections = out.with_suffix(".rejected.jsonl")
    claim_data_set(out, settings)
    teacher = None
    if settings.url:
        teacher = HttpTeacher(
            settings.url,
            settings.model,
            key=os.environ.get("OPENAI_API_KEY", "none"),
            cache=out.parent / "http-cache",
            seconds=settings.seconds,
        )

    # the episodes that are not there yet
    number, count = map(int, settings.shard.split("/"))
    indexes = range(number, settings.tasks, count)
    left = go_on([out, rejections], indexes)
    done = len(indexes) - len(left)
    bar = tqdm(total=len(indexes), initial=done, unit="task", mininterval=0.5, disable=None)
    with out.open("a") as kept, rejections.open("a") as rejected, bar:
        for index, made in trajectories(settings, iter(left), teacher):
            bar.update()
            if isinstance(made, Trajectory) and made.verified:
                kept.write(json.dumps(asdict(made), ensure_ascii=False) + "\n")
            else:
                reason = made if isinstance(made, str) else "not verified"
                rejected.write(json.dumps({"index": index, "reason": reason}) + "\n")
            kept.flush()
            rejected.flush()

    found = statistics(whole_lines(out), whole_lines(rejections))
    provenance.replace(out.with_suffix(".statistics.json"), json.dumps(found, indent=1))
    show_statistics(found)
    if teacher and teacher.retries:
        show_statistics({"retried": teacher.retries})
    print(f"wrote         {out}")


if __name__ == "__main__":
    run_script(main)
