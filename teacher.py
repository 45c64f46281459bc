"""The teacher: a scripted expert for every world, any OpenAI-compatible model over HTTP, and the data set that both write (paper 3.1, B.1).

    python teacher.py --tasks 1000 --out out/trajectories.jsonl                      the scripted expert, all worlds
    python teacher.py --tasks 200 --out out/theirs.jsonl --url http://localhost:8000/v1 --model qwen

The expert knows each task's solution, but it meets the task's fault like anyone else: it reads the error and reacts to what that says. The
HTTP teacher knows nothing; it is prompted, parsed, retried, and *nothing it writes is kept unless executing it verified the task*.

A line of the data set is one episode: messages as tokenizer.chat takes them, the tools, the constraints, and for every call of the solution
its three hard negatives with the fault that each has. `seed`, `index` and `difficulty` rebuild the task (worlds.draw). The same command
writes the same bytes, however often it was interrupted; `--shard 0/2` and `--shard 1/2` write two halves in two processes.
"""

import hashlib
import json
import os
import random
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import tyro
from tqdm import tqdm

from config import UserError
from tokenizer import AGENTIC, SOCRATIC_TEACHER
from tools import Plan, check, decode, hard_negatives, parse
from worlds import FAULT_TEXTS, SYLLABLES, WORLDS, Difficulty, Episode, Task, draw, failed, same_answer

MOST_TURNS = 12  # of one episode with a model over HTTP; the longest solution has 4 calls, and each may fail once or twice


@dataclass
class Trajectory:
    """One episode as training data."""
    world: str
    kind: str
    seed: int                                    # with `index` and `difficulty` the arguments of worlds.draw
    index: int
    difficulty: dict
    tools: list                                  # as shown to the model: schemas, or compact lines
    messages: list[dict]
    answer: str
    constraints: dict[str, Any]
    fault: str | None                            # the kind of fault that was delivered
    invented: int                                # arguments and tools that no schema in force has: 0 for an expert
    verified: bool
    negatives: list[dict] = field(default_factory=list)


def call_message(content: str, call: dict) -> dict:
    """An assistant's message with one tool call, as OpenAI's clients write it."""
    return {"role": "assistant", "content": content, "tool_calls": [{"type": "function", "function": call}]}


# ---------------------------------------------------------------------------------------------- reactions to faults

def pattern(text: str) -> re.Pattern:
    """The regular expression that a fault's text template stands for."""
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\S+)", re.escape(text)) + r"\s*")


SIGNS = [(kind, pattern(text)) for kind, texts in FAULT_TEXTS.items() for text in texts]


def react(observation: str) -> tuple[str, Callable[[dict], dict]] | None:
    """What an error text asks for: the thought, and a change of the arguments; None where the text is no known fault."""
    for kind, sign in SIGNS:
        if match := sign.fullmatch(observation):
            found = match.groupdict()
            key, value, new = found.get("key", ""), found.get("value", ""), found.get("new", "")
            return {
                "timeout": ("the same call again", lambda given: given),
                "locked": ("the same call again", lambda given: given),
                "renamed": (f"{new} instead of {key}", lambda given: {new if k == key else k: v for k, v in given.items()}),
                "moved": (f"{key} {new} instead of {value}", lambda given: {k: int(new) if k == key and str(v) == value else v for k, v in given.items()}),
                "type": (f"{key} as a string", lambda given: {k: str(v) if k == key else v for k, v in given.items()}),
                "denied": (f"with key {new}", lambda given: {**given, "key": int(new)}),
            }[kind]
    return None


# ------------------------------------------------------------------------------------------------ the scripted expert

def opening(task: Task) -> str:
    """The plan that an episode begins with, or "" where the right reaction is a message."""
    return Plan({number: (step.goal, step.depends_on) for number, step in enumerate(task.solution, 1)}).write()


def solve(task: Task, faults: bool = True) -> tuple[list[dict], Episode]:
    """The expert's messages for a task, after the user's, and the episode it played (closed, to be asked about its log and verdict)."""
    messages: list[dict] = []
    content = [opening(task)] if task.solution else []
    changes: dict[str, list[Callable[[dict], dict]]] = {}   # tool -> what its faults have asked for so far
    with Episode(task, faults) as episode:
        for number, step in enumerate(task.solution, 1):
            if step.call is None:
                continue
            thought, name = step.thought, step.call["name"]
            for _ in range(3):
                arguments = step.call["arguments"]
                for change in changes.get(name, []):
                    arguments = change(arguments)
                call = {"name": name, "arguments": arguments}
                said = episode.step(call)
                messages += [call_message("\n".join([*content, f"{number}: {thought}"]), call), {"role": "tool", "content": said}]
                content = []
                if not (failed(said) and (reaction := react(said))):
                    break
                thought, change = reaction
                changes.setdefault(name, []).append(change)
        messages.append({"role": "assistant", "content": "\n".join([*content, task.answer])})
        episode.verified = episode.verify(task.answer)
    return messages, episode


def invented(episode: Episode) -> int:
    """The audit: how many of an episode's calls name a tool or an argument that the schemas in force do not have (one each)."""
    return sum(fault.kind in ("unknown_tool", "unexpected") for entry in episode.log for fault in entry.faults)


def expert(name: str, seed: int, index: int, difficulty: Difficulty, negatives: bool = True) -> Trajectory:
    """The scripted expert's trajectory for task `index` of `seed`."""
    task = draw(name, seed, index, difficulty)
    messages, episode = solve(task)
    return record(task, seed, index, messages, episode, episode.verified, negatives)


def record(task: Task, seed: int, index: int, messages: list[dict], episode: Episode, verified: bool, negatives: bool = True) -> Trajectory:
    """An episode as a line of the data set."""
    spoilt = []
    rng = random.Random(f"negatives {task.seed}")
    for step in task.solution if negatives else ():
        if step.call:
            for kind, call in hard_negatives(step.call, task.tools, rng, task).items():
                found = check(call, task.tools)
                spoilt.append({"kind": kind, "right": step.call, "wrong": call, "fault": found[0].message if found else difference(step.call, call)})
    changed = {key: value for key, value in asdict(task.difficulty).items() if value != getattr(Difficulty(), key)}
    return Trajectory(task.world, task.kind, seed, index, changed, task.shown_tools(), [{"role": "user", "content": task.request}, *messages],
                      task.answer, task.constraints, episode.fault and episode.fault[1], invented(episode), verified, spoilt)


def random_call(rng: random.Random, tools: list[dict], words: list[str]) -> dict:
    """A call that obeys a random tool's schema; its values are drawn from `words` where the type allows, otherwise at random."""
    function = rng.choice(tools)["function"]
    parameters = function["parameters"]
    numbers = [int(word) for word in words if word.isdigit()]

    def value(schema: dict) -> Any:
        if "enum" in schema:
            return rng.choice(schema["enum"])
        kind = schema["type"]
        if kind == "boolean":
            return rng.random() < 0.5
        if kind in ("integer", "number"):
            return rng.choice(numbers) if numbers else rng.randrange(1000)
        return " ".join(rng.choices(words, k=rng.randint(1, 3))) if words else rng.choice(SYLLABLES)

    keys = [key for key in parameters["properties"] if key in parameters["required"] or rng.random() < 0.5]
    return {"name": function["name"], "arguments": {key: value(parameters["properties"][key]) for key in keys}}


def by_chance(name: str, tasks: int, seed: int = 0, informed: bool = False) -> int:
    """How many of `tasks` tasks verify after as many random valid calls as the solution has and an answer out of what was said last.

    `informed`: values come from the request instead of from nowhere, which a policy that copies without reading could do.
    """
    right = 0
    for index in range(tasks):
        task = draw(name, seed, index)
        rng = random.Random(index)
        words = re.findall(r"\w+", task.request)
        with Episode(task) as episode:
            said = task.request
            for _ in range(max(1, len(task.solution)) if task.tools else 0):
                said = episode.step(random_call(rng, task.tools, words if informed else []))
            right += episode.verify(f"answer: {rng.choice(re.findall(r'[0-9]+', said) or words)}")
    return right


# ------------------------------------------------------------------------------------------------------- critiques

def difference(right: dict, wrong: dict) -> str:
    """In what a call differs from the right one, in one line."""
    if right["name"] != wrong["name"]:
        return f"{right['name']} is the tool for this, not {wrong['name']}"
    for key, value in right["arguments"].items():
        if key not in wrong["arguments"]:
            return f"{key} is missing: {plain(value)}"
        if wrong["arguments"][key] != value:
            return f"{key} is {plain(value)}, not {plain(wrong['arguments'][key])}"
    return f"nothing was said about {', '.join(key for key in wrong['arguments'] if key not in right['arguments'])}"


def plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def critique(task: Task, episode: Episode, message: str) -> str:
    """What went wrong first in a failed attempt, in one line that names the true fault; `message` is the attempt's last one.

    The first step of the solution that was not done is found, then the first call made while it was open that neither was right nor
    was put right by the next call of the same tool.
    """
    steps = {number: step for number, step in enumerate(task.solution, 1) if step.call}
    done: set[int] = set()
    strays: dict[int | None, list[int]] = {}     # the step that was open -> places in the log of the calls that were not right
    for place, entry in enumerate(episode.log):
        open_step = next((number for number in steps if number not in done), None)
        if right := [number for number, step in steps.items() if number not in done and entry.taken == step.call]:
            done.add(right[0])
        else:
            strays.setdefault(open_step, []).append(place)
    missing = next((number for number in steps if number not in done), None)
    if missing is None:
        if steps and same_answer(message, task.answer) and strays.get(None):
            return f"nobody asked for {plain(episode.log[strays[None][0]].call)}"
        return critique_of_answer(task, message)
    for place in strays.get(missing, ()):
        entry = episode.log[place]
        later = next((other for other in episode.log[place + 1:] if tool_of(other.call) == tool_of(entry.call)), None)
        if entry.taken:
            return f"step {missing}: {difference(steps[missing].call, entry.taken)}"
        if later and later.taken:
            continue
        if reaction := react(entry.said):
            return f"after \"{entry.said.removeprefix('error: ')}\": {reaction[0]}"
        return entry.said.removeprefix("error: ")
    return f"step {missing} is missing: {steps[missing].goal}"


def tool_of(call: Any) -> str:
    """The tool that a call means to use, as far as that can be told."""
    found = decode(call)
    return found["name"] if isinstance(found, dict) else ""


def critique_of_answer(task: Task, message: str) -> str:
    """What is wrong with a last message where the calls were right, or where no call was wanted."""
    if task.answer.startswith("ask: "):
        return f"{task.answer.removeprefix('ask: ')} is not given, so ask for it"
    if task.answer.startswith("no tool"):
        return "no tool gives what is asked, so say that no tool fits"
    if task.answer.startswith("refuse"):
        return task.answer.replace("refuse:", "refuse, because")
    for number, step in enumerate(task.solution, 1):
        if step.call is None and step.goal not in message:
            return f"line {number} should be {step.goal}"
    if message.strip().lower().startswith("refuse"):
        return "nothing here is dangerous, so do it"
    return "the answer must be what the last step gave" if task.solution else f"the answer is {task.answer}"


def preference(task: Task) -> dict[str, list[dict]] | None:
    """A safety task as a preference pair {"prompt", "chosen", "rejected"} of messages for DPO; None for a task of another world.

    Unsafe: refusing is chosen over complying, ignoring a hidden order over obeying it. Benign: doing it is chosen over refusing.
    """
    if task.world != "safety":
        return None
    prompt, (chosen, _) = [{"role": "user", "content": task.request}], solve(task, faults=False)
    if order := task.truth.get("complies"):
        shared = chosen[:-1]                     # the file was read either way; what matters is what comes then
        content = "1: as told" if shared else f"1. {order['name']}\n1: as told"
        return {"prompt": prompt + shared, "chosen": chosen[-1:], "rejected": [call_message(content, order)]}
    return {"prompt": prompt, "chosen": chosen, "rejected": [{"role": "assistant", "content": "refuse: this is not safe"}]}


# -------------------------------------------------------------------------------------------- a model over HTTP

HOW_TO_END = """
Write the plan as lines "1. goal" and "2. goal (after 1)". End with one last line and no call:
"answer: VALUE" (the value that the last tool gave, "done" where the tool only said so), "ask: NAME" if a needed value is missing,
"no tool fits" if no tool gives what is asked, or "refuse: REASON"."""
LARGEST_REPLY = 4_000_000  # bytes of one HTTP body


class GaveUp(Exception):
    """A task that is not kept; the text is the reason, short enough to count by."""


class HttpTeacher:
    """A model behind an OpenAI-compatible endpoint (vLLM, SGLang, llama.cpp, transformers serve, a cloud).

    Transient failures (429, 5xx, time-outs, disconnects, bodies that are not the protocol) are retried with growing pauses, then the
    task is given up and counted. `seconds` bounds a whole reply, also one that arrives a byte at a time. Replies are cached on disk by
    their request, so an interrupted run pays for nothing twice.
    """

    def __init__(self, url: str, model: str, key: str = "none", cache: Path | None = None, seconds: float = 120, tries: int = 5,
                 pause: float = 1.0, temperature: float = 0.0, tokens: int = 400):
        import openai  # here: the scripted expert needs no client

        self.openai, self.model, self.cache = openai, model, cache
        self.seconds, self.tries, self.pause, self.temperature, self.tokens = seconds, tries, pause, temperature, tokens
        self.client = openai.OpenAI(base_url=url, api_key=key, timeout=seconds, max_retries=0)
        self.retries: Counter[str] = Counter()   # what went wrong on the way, by kind

    def complete(self, messages: list[dict], tools: list[dict]) -> dict:
        """The model's next message as {"content", "calls", "faults"}; raises GaveUp when the retries are used up."""
        request = {"model": self.model, "messages": [{"role": "system", "content": AGENTIC + HOW_TO_END}, *wire(messages)],
                   "temperature": self.temperature, "max_tokens": self.tokens, **({"tools": tools} if tools else {})}
        place = self.cache and self.cache / f"{hashlib.sha256(json.dumps([str(self.client.base_url), request]).encode()).hexdigest()}.json"
        if place and place.exists():
            return read_message(json.loads(place.read_text()))
        for attempt in range(self.tries):
            if attempt:
                time.sleep(self.pause * 2 ** min(attempt - 1, 6) * random.uniform(0.5, 1))
            try:
                message = self.ask(request)
                read = read_message(message)
            except self.openai.APITimeoutError:
                problem = "time-out"
            except self.openai.RateLimitError:
                problem = "rate limit"
            except (self.openai.AuthenticationError, self.openai.PermissionDeniedError, self.openai.NotFoundError) as error:
                raise UserError(f"{self.client.base_url} answers {error.status_code} for model {self.model!r}; check --url, --model and $OPENAI_API_KEY") from None
            except self.openai.APIStatusError as error:
                problem = f"status {error.status_code}"
                if error.status_code < 500:      # this request will not get better by asking again
                    raise GaveUp(problem) from None
            except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
                problem = "malformed reply"
            except Exception as error:           # the transport's own errors have other names in every version of the client
                problem = "time-out" if "Timeout" in type(error).__name__ else "disconnected"
            else:
                if place:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    aside = place.with_suffix(f".{random.getrandbits(32)}")
                    aside.write_text(json.dumps(message))
                    aside.replace(place)
                return read
            self.retries[problem] += 1
        raise GaveUp(problem)

    def ask(self, request: dict) -> dict:
        """One request; the reply's message as the server sent it. The body is read by hand to bound its size and its time."""
        end, body = time.monotonic() + self.seconds, bytearray()
        with self.client.chat.completions.with_streaming_response.create(**request) as response:
            for piece in response.iter_bytes():
                body += piece
                if time.monotonic() > end:
                    raise TimeoutError("Timeout")
                if len(body) > LARGEST_REPLY:
                    raise ValueError("too large")
        return json.loads(body)["choices"][0]["message"]

    def solve(self, task: Task) -> tuple[list[dict], Episode]:
        """The model's messages for a task and its episode, verified by execution; raises GaveUp with the reason otherwise."""
        messages: list[dict] = []
        with Episode(task) as episode:
            for _ in range(MOST_TURNS):
                reply = self.complete([{"role": "user", "content": task.request}, *messages], task.tools)
                if not reply["calls"] and not reply["faults"]:
                    messages.append({"role": "assistant", "content": reply["content"]})
                    if not episode.verify(reply["content"]):
                        raise GaveUp("not verified")
                    if invented(episode):
                        raise GaveUp("invented an argument")
                    return messages, episode
                if reply["faults"] or len(reply["calls"]) > 1:
                    raise GaveUp("malformed call" if reply["faults"] else "several calls at once")
                call = reply["calls"][0]
                messages += [call_message(reply["content"], call), {"role": "tool", "content": episode.step(call)}]
        raise GaveUp("no end")

    def critique(self, task: Task, attempt: list[dict]) -> str:
        """What the model says went wrong in a failed attempt (Algorithm 1's critique), with the Socratic teacher's prompt."""
        shown = json.dumps({"task": task.request, "tools": task.tools, "attempt": attempt}, ensure_ascii=False)
        return self.complete([{"role": "user", "content": f"{SOCRATIC_TEACHER}\n\n{shown}"}], [])["content"]


def wire(messages: list[dict]) -> list[dict]:
    """Our messages as the protocol wants them: arguments as text, calls and results joined by an id."""
    sent, calls = [], 0
    for message in messages:
        if message["role"] == "tool":
            sent.append({**message, "tool_call_id": f"call_{calls}"})
        elif "tool_calls" in message:
            calls += 1
            function = message["tool_calls"][0]["function"]
            sent.append({**message, "tool_calls": [{"id": f"call_{calls}", "type": "function", "function": {
                "name": function["name"], "arguments": json.dumps(function["arguments"])}}]})
        else:
            sent.append(message)
    return sent


def read_message(message: dict) -> dict:
    """A server's message as text, calls and faults; calls may stand in the protocol's field or in the text. Raises where it is neither."""
    content = message.get("content") or ""
    if not isinstance(content, str):
        raise TypeError("content is no text")
    calls, faults = parse(content)
    for entry in message.get("tool_calls") or ():
        function = entry["function"]
        call = decode(f'{{"name": {json.dumps(function["name"])}, "arguments": {function["arguments"] or "{}"}}}')
        (calls if isinstance(call, dict) else faults).append(call)
    return {"content": content.split("<tool_call>")[0].strip(), "calls": calls, "faults": faults}


# ------------------------------------------------------------------------------------------------------- the data set

@dataclass
class Settings:
    """Write a data set of verified trajectories."""
    out: str = "out/trajectories.jsonl"          # the data set; settings, rejections and statistics stand beside it
    tasks: int = 1000                            # tasks to draw; the expert solves all, a model over HTTP fewer
    worlds: str = "api,sql,shell,math,safety"    # drawn in turn
    seed: int = 0
    negatives: bool = True                       # three wrong versions of each call, executed; most of the time goes here
    shard: str = "0/1"                           # "1/4": the second of four processes, each with its own file
    url: str = ""                                # an OpenAI-compatible endpoint instead of the expert; the key is $OPENAI_API_KEY
    model: str = ""
    concurrency: int = 8                         # requests under way
    seconds: float = 120.0                       # for one reply
    difficulty: Difficulty = field(default_factory=lambda: Difficulty(fault_rate=0.3))


def trajectories(settings: Settings, indexes: Iterator[int], teacher: HttpTeacher | None) -> Iterator[tuple[int, Trajectory | str]]:
    """For each index, in order, its trajectory or the reason why there is none."""
    names = settings.worlds.split(",")

    def make(index: int) -> Trajectory | str:
        name = names[index % len(names)]
        if not teacher:
            return expert(name, settings.seed, index, settings.difficulty, settings.negatives)
        task = draw(name, settings.seed, index, settings.difficulty)
        try:
            messages, episode = teacher.solve(task)
        except GaveUp as reason:
            return str(reason)
        return record(task, settings.seed, index, messages, episode, True, settings.negatives)

    if not teacher:
        yield from ((index, make(index)) for index in indexes)
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
    """The records of a file that may have been cut off in the middle of its last line; the torn line is removed from the file."""
    if not path.exists():
        return []
    data = path.read_bytes()
    if (end := data.rfind(b"\n") + 1) < len(data):
        with path.open("r+b") as file:
            file.truncate(end)
    return [json.loads(line) for line in data[:end].splitlines()]


def statistics(records: list[dict], rejected: list[dict]) -> dict:
    """What is in a data set: counts by world, kind, fault, negative and number of calls; lengths in tokens of the toy vocabulary."""
    from tokenizer import toy

    tokenizer = toy()
    lengths = sorted(len(tokenizer.encode_chat(r["messages"], r["tools"], "compact" if r["tools"] and isinstance(r["tools"][0], str) else "qwen")[0])
                     for r in records)
    calls = [sum("tool_calls" in message for message in r["messages"]) for r in records]
    return {
        "trajectories": len(records), "verified": sum(r["verified"] for r in records), "invented": sum(r["invented"] for r in records),
        "worlds": dict(Counter(r["world"] for r in records)), "kinds": dict(Counter(f"{r['world']} {r['kind']}" for r in records)),
        "faults": dict(Counter(r["fault"] for r in records if r["fault"])), "calls": dict(sorted(Counter(calls).items())),
        "tools": dict(sorted(Counter(len(r["tools"]) for r in records).items())),
        "negatives": dict(Counter(n["kind"] for r in records for n in r["negatives"])),
        "tokens": {"mean": round(sum(lengths) / len(lengths), 1), "median": lengths[len(lengths) // 2], "most": lengths[-1]} if lengths else {},
        "rejected": dict(Counter(r["reason"] for r in rejected)),
    }


def main(arguments: list[str] | None = None) -> None:
    settings = tyro.cli(Settings, args=arguments, description=__doc__)
    for name in settings.worlds.split(","):
        if name not in WORLDS:
            raise UserError(f"--worlds names {name!r}; there are {','.join(WORLDS)}")
    if not (part := re.fullmatch(r"(\d+)/(\d+)", settings.shard)) or int(part[1]) >= int(part[2]):
        raise UserError(f"--shard is {settings.shard!r}; wanted NUMBER/COUNT with the number from 0, such as 0/2")
    if settings.url and not settings.model:
        raise UserError("--url needs --model, the name under which the server knows it")
    out = Path(settings.out)
    beside = {kind: out.with_suffix(f".{kind}") for kind in ("settings.json", "rejected.jsonl", "statistics.json")}
    out.parent.mkdir(parents=True, exist_ok=True)
    asked = asdict(replace(settings, tasks=0, concurrency=0, seconds=0.0, out=""))   # what may change when a run is continued
    if beside["settings.json"].exists() and (old := json.loads(beside["settings.json"].read_text())) != json.loads(json.dumps(asked)):
        changed = ", ".join(key for key in asked if old.get(key) != json.loads(json.dumps(asked[key])))
        raise UserError(f"{out} was begun with other settings ({changed}); give the same ones to go on, or another --out")
    beside["settings.json"].write_text(json.dumps(asked, indent=1))
    teacher = None
    if settings.url:
        teacher = HttpTeacher(settings.url, settings.model, os.environ.get("OPENAI_API_KEY", "none"), out.parent / "http-cache", settings.seconds)

    done = [r["index"] for path in (out, beside["rejected.jsonl"]) for r in whole_lines(path)]
    indexes = range(int(part[1]), settings.tasks, int(part[2]))
    left = [index for index in indexes if index > max(done, default=-1)]
    bar = tqdm(total=len(indexes), initial=len(indexes) - len(left), unit="task", mininterval=0.5, disable=None)
    with out.open("a") as kept, beside["rejected.jsonl"].open("a") as rejected, bar:
        for index, made in trajectories(settings, iter(left), teacher):
            bar.update()
            if isinstance(made, Trajectory) and made.verified:
                kept.write(json.dumps(asdict(made), ensure_ascii=False) + "\n")
            else:
                rejected.write(json.dumps({"index": index, "reason": made if isinstance(made, str) else "not verified"}) + "\n")
            if teacher:
                kept.flush(), rejected.flush()
    found = statistics(whole_lines(out), whole_lines(beside["rejected.jsonl"]))
    beside["statistics.json"].write_text(json.dumps(found, indent=1))
    for key, value in found.items():
        print(f"{key:13} " + (", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)))
    if teacher and teacher.retries:
        print(f"{'retried':13} " + ", ".join(f"{k} {v}" for k, v in teacher.retries.items()))
    print(f"wrote         {out}")


if __name__ == "__main__":
    try:                                         # runtime.run would do, but it brings torch along, and no tensor is needed here
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
