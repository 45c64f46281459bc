"""teacher.py: data sets survive interruption byte for byte, and the HTTP teacher keeps nothing that
did not verify.

The endpoint below is a fault injector with real sockets: it refuses, stalls, drips, hangs up and
talks nonsense, and in between it passes on what the scripted expert would say, so that a test can
see both that every fault is survived and that the work then gets done.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import distill
import weighted_examples
from worlds import WORLDS
from worlds.expert import invented, solve_task
from worlds.extras import teacher
from config import UserError
from conftest import ROOT
from support.tokenizer import toy
from worlds.difficulty import Difficulty
from worlds.tasks import Tasks, draw_task


# ------------------------------------------------------------------------------------- the data set


def write(out: Path, *options: str) -> None:
    teacher.main(["--out", str(out), "--tasks", "60", *options])


def test_a_data_set_is_the_same_however_it_was_written(tmp_path, capsys):
    few = ("--tasks", "30")
    write(tmp_path / "whole.jsonl", *few)
    data = (tmp_path / "whole.jsonl").read_bytes()
    assert len(data.splitlines()) == 30 and "verified      30" in capsys.readouterr().out

    (tmp_path / "torn.jsonl").write_bytes(data[: len(data) // 2])  # killed in the middle of a line
    (tmp_path / "torn.settings.json").write_bytes((tmp_path / "whole.settings.json").read_bytes())
    write(tmp_path / "torn.jsonl", *few)
    assert (tmp_path / "torn.jsonl").read_bytes() == data

    for shard in range(2):
        write(tmp_path / f"{shard}.jsonl", *few, "--shard", f"{shard}/2")
    lines = sorted(
        (line for k in range(2) for line in (tmp_path / f"{k}.jsonl").read_bytes().splitlines()),
        key=lambda line: json.loads(line)["index"],
    )
    assert lines == data.splitlines()

    with pytest.raises(UserError, match=r"begun with other settings \(seed: 0 → 1\)"):
        write(tmp_path / "whole.jsonl", *few, "--seed", "1")


@pytest.mark.parametrize(
    "options, word",
    [
        (["--worlds", "apy"], ",".join(WORLDS)),
        (["--shard", "2/2"], "NUMBER/COUNT"),
        (["--url", "http://x"], "--model"),
    ],
)
def test_mistakes_are_told(tmp_path, options, word):
    with pytest.raises(UserError, match=word):
        write(tmp_path / "x.jsonl", *options)


def test_a_mistake_on_the_command_line_is_one_line_and_status_1(tmp_path):
    made = subprocess.run(
        [
            sys.executable,
            "-m",
            "worlds.extras.teacher",
            "--worlds",
            "apy",
            "--out",
            tmp_path / "x.jsonl",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (
        made.returncode == 1 and made.stderr.startswith("error: ") and made.stderr.count("\n") == 1
    )


# -------------------------------------------------------------------------------- a model over HTTP


class Endpoint(ThreadingHTTPServer):
    """Says what `reply(request)` gives, after the faults in `faults`, one a request; counts what it
    was asked.
    """

    daemon_threads = True

    def __init__(self, reply, faults=()):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply, self.faults, self.asked, self.lock = reply, list(faults), 0, threading.Lock()
        self.closing = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def send(
        self,
        body: bytes,
        status: int = 200,
        kind: str = "application/json",
        length: int | None = None,
    ):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked += 1
            fault = self.server.faults.pop(0) if self.server.faults else None
        try:
            if isinstance(fault, int):
                self.send(b'{"error": {"message": "no"}}', fault)
            elif fault == "hang":
                self.server.closing.wait(20)
            elif fault == "drip":  # a byte now and then: no single read ever times out
                self.send(b"", length=10_000)
                while not self.server.closing.wait(0.2):
                    self.wfile.write(b" ")
                    self.wfile.flush()
            elif fault == "disconnect":
                self.connection.shutdown(socket.SHUT_RDWR)
            elif fault == "half":
                self.send(b'{"choices": [{"message"', length=5000)
                self.connection.shutdown(socket.SHUT_RDWR)
            elif isinstance(fault, bytes):
                self.send(fault, kind="text/html" if fault.startswith(b"<") else "application/json")
            else:
                self.send(
                    json.dumps({"choices": [{"message": self.server.reply(request)}]}).encode()
                )
        except OSError:
            pass  # the client has given up, as it should


def expert_reply(request: dict) -> dict:
    """What the scripted expert says next in this conversation, recognised by the user's words."""
    messages = [m for m in request["messages"] if m["role"] != "system"]
    task = next(task for task in TASKS if task.request == messages[0]["content"])
    said, _ = solve_task(task)
    return teacher.wire(said)[len(messages) - 1]


TASKS = [
    draw_task(name, 0, index, Difficulty(fault_rate=0.5))
    for name in ("api", "safety", "math")
    for index in range(4)
]
NONSENSE = [
    b"",
    b"<html>504</html>",
    b"null",
    b"[]",
    b"{}",
    b'{"choices": []}',
    b'{"choices": [{"message": null}]}',
    b'{"choices": [{"message": {"content": 7}}]}',
    b'{"choices": [{"message": {"tool_calls": [{}]}}]}',
    b'{"choices": "x"}',
    b"[" * 100_000,
    b"\xff\xfe",
    b'{"choices": [{"message": {"tool_calls": 3}}]}',
]


def teach(endpoint: Endpoint, **settings) -> teacher.HttpTeacher:
    return teacher.HttpTeacher(endpoint.url, "any", **{"pause": 0.01, "seconds": 1.0, **settings})


def test_every_transport_fault_is_survived():
    faults = [429, "hang", "disconnect", 503, "half", "drip", 500, *NONSENSE]
    with Endpoint(expert_reply, faults) as endpoint:
        client = teach(endpoint, tries=len(faults) + 1)
        messages, episode = client.solve(TASKS[0])
        assert episode.verify(messages[-1]["content"]) and invented(episode) == 0
        assert client.retries == {
            "rate limit": 1,
            "time-out": 2,
            "disconnected": 2,
            "status 503": 1,
            "status 500": 1,
            "malformed reply": len(NONSENSE),
        }


def test_retries_end_and_say_why():
    for fault, reason in (
        (429, "rate limit"),
        ("disconnect", "disconnected"),
        (b"nonsense", "malformed reply"),
        (400, "status 400"),
    ):
        with (
            Endpoint(expert_reply, [fault] * 9) as endpoint,
            pytest.raises(teacher.GaveUp, match=reason),
        ):
            teach(endpoint, tries=3).solve(TASKS[0])
    with (
        Endpoint(expert_reply, [401]) as endpoint,
        pytest.raises(UserError, match="OPENAI_API_KEY"),
    ):
        teach(endpoint).solve(TASKS[0])


def say(content="", name=None, arguments="{}"):
    call = (
        {
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}
            ]
        }
        if name
        else {}
    )
    return lambda request: {"role": "assistant", "content": content, **call}


@pytest.mark.parametrize(
    "reply, reason",
    [
        (say("answer: 0"), "not verified"),
        (say("", "nosuch"), "no end"),
        (say("", "x", "{oops"), "malformed call"),
        (say("", "x", '{"a": NaN}'), "malformed call"),
        (say("<tool_call>{</tool_call>"), "malformed call"),
        (say("\ud83d\ude00" * 1000), "not verified"),
        (say(None), "not verified"),
        (say("<tool_call>" + "[" * 100_000 + "</tool_call>"), "malformed call"),
    ],
)
def test_nothing_is_kept_that_did_not_verify(reply, reason):
    with Endpoint(reply) as endpoint:
        for task in TASKS[:3]:
            with pytest.raises(teacher.GaveUp, match=reason):
                teach(endpoint).solve(task)


def test_the_socratic_teacher_is_asked_about_the_attempt():
    seen = []
    with Endpoint(
        lambda request: seen.append(request) or say("step 1: rana is 17, not 18")(request)
    ) as endpoint:
        attempt = [{"role": "assistant", "content": "answer: 0"}]
        assert teach(endpoint).critique(TASKS[0], attempt) == "step 1: rana is 17, not 18"
    asked = seen[0]["messages"][-1]["content"]
    assert (
        "Socratic teacher" in asked
        and TASKS[0].request in asked
        and "answer: 0" in asked
        and TASKS[0].answer not in asked
    )


def test_a_right_answer_after_an_invented_argument_is_not_kept(monkeypatch):
    task = next(
        t for i in range(99) if (t := draw_task("api", 0, i, Difficulty(special=0.0))).solution
    )
    monkeypatch.setattr(sys.modules[__name__], "TASKS", [task])

    def invents_first(request):  # the expert's words, one turn late
        if len(request["messages"]) == 2:
            return say("", task.tools[0]["function"]["name"], '{"invented": 1}')(request)
        return expert_reply({"messages": [request["messages"][1], *request["messages"][4:]]})

    with (
        Endpoint(invents_first) as endpoint,
        pytest.raises(teacher.GaveUp, match="invented an argument"),
    ):
        teach(endpoint).solve(task)


def test_replies_are_cached_and_concurrent_runs_keep_their_order(tmp_path, monkeypatch):
    names = ["api", "safety", "math"]
    monkeypatch.setattr(
        sys.modules[__name__],
        "TASKS",
        [Tasks("teacher", 5, names, Difficulty(fault_rate=0.3))[i] for i in range(12)],
    )
    settings = teacher.TeacherSettings(
        worlds=",".join(names), seed=5, concurrency=4, negatives=False
    )
    with Endpoint(expert_reply, [429, "disconnect", 500] * 3) as endpoint:
        made = list(
            teacher.trajectories(settings, iter(range(12)), teach(endpoint, cache=tmp_path))
        )
        assert [index for index, _ in made] == list(range(12)) and all(
            t.verified and t.messages[0]["content"] == TASKS[i].request for i, t in made
        )
        asked = endpoint.asked
        again = list(
            teacher.trajectories(settings, iter(range(12)), teach(endpoint, cache=tmp_path))
        )
        assert endpoint.asked == asked and [asdict(t) for _, t in again] == [
            asdict(t) for _, t in made
        ]


def test_the_command_writes_what_verified_and_counts_the_rest(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        sys.modules[__name__],
        "TASKS",
        [Tasks("teacher", 0, ["api"], Difficulty(fault_rate=0.3))[i] for i in range(60)],
    )
    lazy = {task.request for task in TASKS[::3]}
    with Endpoint(
        lambda request: (
            say("answer: 0") if request["messages"][1]["content"] in lazy else expert_reply
        )(request)
    ) as endpoint:
        write(
            tmp_path / "http.jsonl",
            "--url",
            endpoint.url,
            "--model",
            "any",
            "--worlds",
            "api",
            "--concurrency",
            "4",
        )
    said = capsys.readouterr().out
    assert "verified      40" in said and "rejected      not verified 20" in said
    records = [json.loads(line) for line in (tmp_path / "http.jsonl").read_text().splitlines()]
    assert [r["index"] for r in records] == [i for i in range(60) if i % 3] and all(
        r["messages"][0]["content"] not in lazy for r in records
    )
    monkeypatch.setattr(teacher.time, "sleep", lambda seconds: None)
    write(
        tmp_path / "none.jsonl",
        "--url",
        "http://127.0.0.1:9/v1",
        "--model",
        "any",
        "--tasks",
        "1",
        "--seconds",
        "1",
    )
    assert "rejected      disconnected 1" in capsys.readouterr().out


# ----------------------------------------------------------------------------- what a message holds

CALL, OTHER = {"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}
AS_TEXT = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


def entries(*functions):
    return [
        {"id": str(number), "type": "function", "function": function}
        for number, function in enumerate(functions)
    ]


@pytest.mark.parametrize(
    "message, content, calls",
    [
        ({"content": "done"}, "done", []),
        ({"content": None}, "", []),
        ({}, "", []),
        ({"content": []}, "", []),
        (
            {
                "content": [{"type": "text", "text": "do"}, {"type": "text", "text": "ne"}],
                "tool_calls": None,
            },
            "done",
            [],
        ),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": AS_TEXT},
                    {"type": "text", "text": "done"},
                ]
            },
            "done",
            [],
        ),
        (
            {
                "content": "done",
                "reasoning_content": AS_TEXT,
                "reasoning": AS_TEXT,
                "tool_calls": [],
            },
            "done",
            [],
        ),
        ({"content": f"<think>{AS_TEXT}</think>\n\ndone"}, "done", []),
        ({"content": f"{AS_TEXT}, no</think>done"}, "done", []),
        ({"content": f"1. look\n{AS_TEXT}\nand so on"}, "1. look", [CALL]),
        (
            {
                "content": None,
                "tool_calls": entries(
                    {"name": "f", "arguments": '{"a": 1}'}, {"name": "g", "arguments": ""}
                ),
            },
            "",
            [CALL, OTHER],
        ),
        (
            {
                "content": None,
                "tool_calls": entries(
                    {"name": "f", "arguments": {"a": 1}}, {"name": "f", "arguments": {"a": 1}}
                ),
            },
            "",
            [CALL, CALL],
        ),
        (
            {
                "content": f"look\n{AS_TEXT}",
                "tool_calls": entries(
                    {"name": "f", "arguments": '{"a":1}'}, {"name": "g", "arguments": None}
                ),
            },
            "look",
            [CALL, OTHER],
        ),
        ({"content": AS_TEXT + AS_TEXT}, "", [CALL, CALL]),
        ({"content": AS_TEXT, "tool_calls": entries({"name": "g"})}, "", [OTHER, CALL]),
        ({"content": "", "function_call": {"name": "f", "arguments": '{"a": 1}'}}, "", [CALL]),
        ({"content": "done", "function_call": None}, "done", []),
        ({"content": "half \ud83c"}, "half \ufffd", []),
    ],
)
def test_a_servers_message_in_its_many_shapes(message, content, calls):
    assert teacher.read_reply(message) == {"content": content, "calls": calls, "faults": []}


@pytest.mark.parametrize(
    "function, word",
    [
        ({"name": None, "arguments": "{}"}, "name"),
        ({"name": ["f"], "arguments": "{}"}, "name"),
        ({"arguments": "{}"}, "name"),
        ({"name": "f", "arguments": "[1]"}, "list"),
        ({"name": "f", "arguments": 7}, "int"),
        ({"name": "f", "arguments": '{"a": "\\ud83c"}'}, "Unicode"),
    ],
)
def test_a_call_that_is_none_is_a_fault(function, word):
    found = teacher.read_reply({"content": None, "tool_calls": entries(function)})
    assert not found["calls"] and word in found["faults"][0].message


@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        "done",
        {"content": 7},
        {"content": [{"type": "image_url"}]},
        {"tool_calls": [3]},
        {"tool_calls": {"function": {}}},
        {"tool_calls": [{"function": "f"}]},
        {"function_call": "f"},
    ],
)
def test_what_is_no_message_is_a_malformed_reply(message):
    with pytest.raises(teacher.MalformedReply):
        teacher.read_reply(message)


@pytest.mark.parametrize(
    "bug",
    [
        ZeroDivisionError(),
        KeyError("x"),
        TypeError(),
        ValueError(),
        AttributeError(),
        RuntimeError(),
        FileNotFoundError(),
        RecursionError(),
    ],
)
def test_a_bug_of_ours_is_passed_on(bug, monkeypatch):
    """In the request or in reading the reply: once, and as it is."""
    with Endpoint(say("answer: 0")) as endpoint:
        for place, name in ((teacher.HttpTeacher, "ask"), (teacher, "read_reply")):
            with monkeypatch.context() as patch:
                patch.setattr(place, name, lambda *_: (_ for _ in ()).throw(bug))
                client = teach(endpoint)
                with pytest.raises(type(bug)):
                    client.complete([], [])
                assert not client.retries


def test_a_url_without_a_scheme_is_the_users_mistake():
    with pytest.raises(UserError, match="http://"):
        teacher.HttpTeacher("localhost:8000/v1", "any")


# ------------------------------------------------------------------------- several calls, and slips


def two_calls():
    """A task of two calls that need nothing of each other's results."""
    return next(
        t
        for t in (draw_task("api", 0, i, Difficulty(fault_rate=0.0)) for i in range(300))
        if sum(s.call is not None for s in t.solution) == 2
    )


def test_several_calls_of_a_message_are_carried_out_and_answered_by_id():
    task, seen = two_calls(), []
    calls = [step.call for step in task.solution if step.call]
    functions = [
        {"name": call["name"], "arguments": json.dumps(call["arguments"])} for call in calls
    ]

    def reply(request):
        seen.append(request["messages"][1:])
        return (
            {"content": task.answer}
            if len(request["messages"]) > 2
            else {"content": "both", "tool_calls": entries(*functions)}
        )

    with Endpoint(reply) as endpoint:
        messages, episode = teach(endpoint).solve(task)
    assert [entry.call for entry in episode.log] == calls and episode.verified
    assert [m["role"] for m in messages] == ["assistant", "tool", "tool", "assistant"] and not any(
        "slip" in m for m in messages
    )
    sent = seen[1]
    assert (
        [c["id"] for c in sent[1]["tool_calls"]]
        == ["call_1", "call_2"]
        == [m["tool_call_id"] for m in sent[2:]]
    )
    assert [m["content"] for m in sent[2:]] == [entry.observation for entry in episode.log]
    assert [c["function"] for c in sent[1]["tool_calls"]] == functions


def test_ids_run_on_over_messages():
    message = {
        "role": "assistant",
        "content": "",
        "slip": True,
        "tool_calls": [{"type": "function", "function": CALL}] * 2,
    }
    sent = teacher.wire(
        [
            message,
            *[{"role": "tool", "content": "x"}] * 2,
            message,
            *[{"role": "tool", "content": "y"}] * 2,
        ]
    )
    assert [m["tool_call_id"] for m in sent if m["role"] == "tool"] == [
        f"call_{n}" for n in (1, 2, 3, 4)
    ]
    assert all("slip" not in m for m in sent)  # ours, not the protocol's


def test_refused_calls_are_marked_and_not_taught():
    """A call that the check refuses spoils its message, also beside a right one; nothing of it has
    weight when it is taught.
    """
    task = two_calls()
    first, second = (step.call for step in task.solution if step.call)
    refused = {"name": second["name"], "arguments": {**second["arguments"], "kxq": 1}}
    script = [[{"name": "nosuch", "arguments": {}}], [first, refused], [second]]
    functions = [
        [{"name": c["name"], "arguments": json.dumps(c["arguments"])} for c in calls]
        for calls in script
    ]

    def reply(request):
        turn = sum(m["role"] == "assistant" for m in request["messages"])
        return (
            {"content": f"{turn}: so", "tool_calls": entries(*functions[turn])}
            if turn < 3
            else {"content": task.answer}
        )

    messages, taught = [], []
    with Endpoint(reply) as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            teacher, "invented", lambda episode: 0
        )  # such an episode is not kept; what is marked is the same in those that are
        messages, episode = teach(endpoint).solve(task)
    assert [m.get("slip") for m in messages if m["role"] == "assistant"] == [
        True,
        True,
        None,
        None,
    ] and episode.verified
    tokens, weights = weighted_examples.teacher_example(
        [{"role": "user", "content": task.request}, *messages], task.tools, toy(), "qwen", 0.1
    )
    taught = toy().decode([token for token, weight in zip(tokens, weights) if weight == 1.0])
    assert (
        "nosuch" not in taught
        and "kxq" not in taught
        and "2: so" in taught
        and task.answer in taught
        and "1: so" not in taught
    )


def test_an_injected_fault_is_nobodys_slip(monkeypatch):
    faulty = [
        t
        for t in (
            draw_task("api", 1, i, Difficulty(fault_rate=1.0, fault_kinds=("timeout",)))
            for i in range(40)
        )
        if t.solution and t.solution[0].call
    ]
    monkeypatch.setattr(sys.modules[__name__], "TASKS", faulty)
    with Endpoint(expert_reply) as endpoint:
        for task in faulty[:3]:
            messages, episode = teach(endpoint).solve(task)
            assert episode.faults and not any("slip" in m for m in messages)


# ------------------------------------------------------------------ a real server with a real model

SERVER = Path(os.environ.get("SAGE_SERVER_ENV", Path.home() / ".cache" / "sage-server"))


@pytest.fixture(scope="module")
def serve(tmp_path_factory):
    """transformers' own OpenAI-compatible server with a tiny random Qwen2, in an environment of its
    own (made once, 2 GB with torch).
    """
    if not (SERVER / "bin" / "transformers").exists():
        made = subprocess.run([sys.executable, "-m", "venv", SERVER], capture_output=True)
        made = (
            made.returncode
            or subprocess.run(
                [
                    SERVER / "bin" / "pip",
                    "install",
                    "-q",
                    "torch==2.13.0",
                    "transformers[serving]==5.23.0",
                ],
                timeout=1500,
            ).returncode
        )
        if made:
            shutil.rmtree(SERVER, ignore_errors=True)
            pytest.skip(
                "transformers' server could not be installed (no package registry?); "
                "set SAGE_SERVER_ENV to an environment that has it"
            )
    folder = tmp_path_factory.mktemp("qwen")
    tiny_qwen(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            SERVER / "bin" / "transformers",
            "serve",
            str(folder),
            "--port",
            str(port),
            "--device",
            "cpu",
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                assert process.poll() is None, "the server ended by itself"
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1", str(folder), process
    finally:
        process.kill()
        process.wait()


def tiny_qwen(folder: Path) -> None:
    """A random Qwen2 of 2 layers and 32 wide with a byte-level tokenizer and Qwen's chat format,
    saved as transformers saves them.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    letters = {
        letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))
    }
    inner = Tokenizer(models.BPE(vocab=letters, merges=[]))
    inner.pre_tokenizer, inner.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=4096,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    ).save_pretrained(folder)


@pytest.mark.slow
def test_a_real_server_with_a_random_model(serve, tmp_path):
    url, model, process = serve
    client = teacher.HttpTeacher(
        url, model, cache=tmp_path, tokens=24, seconds=60, tries=2, pause=0.1
    )
    reply = client.complete([{"role": "user", "content": "Find koti. nanu is 17."}], [])
    assert (
        isinstance(reply["content"], str)
        and not reply["calls"]
        and len(list(tmp_path.iterdir())) == 1
    )  # a real completion came through and was cached
    reasons = []
    for task in TASKS[:6]:
        with pytest.raises(teacher.GaveUp) as gave_up:
            client.solve(task)
        reasons.append(str(gave_up.value))
    assert set(reasons) <= {"not verified", "malformed call"}, (
        reasons
    )  # a random model earns nothing, and for its answers, not for the transport
    process.kill()
    process.wait()
    with pytest.raises(teacher.GaveUp, match="disconnected"):
        client.solve(TASKS[-1])
