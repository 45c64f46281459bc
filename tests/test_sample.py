"""sample.py --think as a user runs it: the trace in the terminal, as data and as a page in a real
browser; tools of one's own; bad input; Ctrl-C.
"""

import html.parser
import io
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch

from support import checkpoint
from support.qwen import save_qwen
import sample
from support import tokenizer_folder
from support import traces
from config import Config, Model, UserError
from worlds.expert import solve
from learnt import SHAPE, TASKS, TOY, agent
from mch import ThinkingHeads, surprise_of
from model import SAGE


def heard() -> list[str]:
    """An error, then ok: what the agent knows by heart."""
    return [message["content"] for message in solve(TASKS[1])[0] if message["role"] == "tool"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The agent of learnt.py as a run's folder."""
    model, heads = agent()
    folder = tmp_path_factory.mktemp("thinking")
    checkpoint.save_checkpoint(folder, Config(model=SHAPE), model, [], 1, heads=heads)
    return str(folder)


@pytest.fixture
def call(run, monkeypatch, capsys):
    """Run sample.py in this process: its output. The task is one that the agent knows by heart."""
    monkeypatch.setattr(sample, "Tasks", lambda *words: [TASKS[1]])

    def go(*words, folder=run):
        monkeypatch.setattr(
            sys, "argv", ["sample.py", "--think", "--run", folder, *map(str, words)]
        )
        sample.main()
        return capsys.readouterr().out

    return go


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    """One episode's page and data, thought about from beginning to end, with rejected candidates."""
    folder = tmp_path_factory.mktemp("trace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "Tasks", lambda *words: [TASKS[1]])
        patch.setattr(
            sys,
            "argv",
            [
                "sample.py",
                "--think",
                "--run",
                run,
                "--html",
                str(folder / "t.html"),
                "--json",
                str(folder / "t.json"),
                "--thinking.mode",
                "reason",
                "--thinking.n",
                "4",
                "--thinking.theta",
                "1.0",
                "--thinking.temperature",
                "1.5",
                "--thinking.critique",
            ],
        )
        sample.main()
    return folder / "t.html", json.loads((folder / "t.json").read_text())


# ------------------------------------------------------------------------------------------------------
# what is shown


def test_the_terminal_shows_every_step(call):
    text = call()
    assert "verified" in text and text.count("── step") == 3 and "heads are untrained" in text
    assert (
        f"1. {TASKS[1].solution[0].goal}" in text and "→" not in text
    )  # a plan; nothing was imagined, since the gate stays shut
    assert re.search(
        r"syntax [█░]{10} \d\.\d\d  grounded [█░]{10} \d\.\d\d  logic [█░]{10} \d\.\d\d  success [█░]{10} \d\.\d\d",
        text,
    )
    assert re.search(r"gate 0\.\d{3} [>≤] τ 0\.500", text) and "← error" in text and "← ok" in text
    thought = call(
        "--thinking.mode",
        "reason",
        "--thinking.n",
        "3",
        "--thinking.theta",
        "1.0",
        "--thinking.critique",
    )
    for part in (
        "   ● ",
        "critique: ",
        "all were rejected",
        "coherence",
        "if error",
        "if empty",
        "if expected",
        " E ",
    ):
        assert part in thought
    assert "\x1b" not in text + thought  # no terminal, no colours


def test_trained_heads_are_not_called_untrained(call, tmp_path):
    model, _ = agent()
    heads = ThinkingHeads(SHAPE)
    with torch.no_grad():
        heads.trained.fill_(1)
    checkpoint.save_checkpoint(tmp_path / "run", Config(model=SHAPE), model, [], 1, heads=heads)
    assert "untrained" not in call("--thinking.mode", "fast", folder=str(tmp_path / "run"))


def test_the_data_is_the_episode(written, run):
    _, data = written
    model, heads = agent()
    tokens = TOY.encode("".join(piece for piece, _, _ in data["tokens"]), special=True)
    assert data["verified"] and data["length"] == len(data["tokens"]) and len(data["steps"]) >= 2
    ids = [TOY.special.get(piece) for piece, _, special in data["tokens"] if special]
    assert None not in ids and tokens[0] == ids[0]
    for step in data["steps"]:
        begin, end = step["wrote"]
        assert (
            "".join(piece for piece, _, _ in data["tokens"][begin:end])
            == step["text"] + "<|im_end|>"
        )
        assert (
            len(step["attention"]) == data["length"]
            and abs(sum(step["attention"]) - 1) < 0.03
            and sum(step["attention"][end:]) == 0
        )
        assert step["candidates"] and {c["fate"] for c in step["candidates"]} <= {
            "rejected",
            "fallback",
            "committed",
        }
        if step["observation"]:
            begin, end = step["observed"]
            assert "".join(piece for piece, _, _ in data["tokens"][begin:end]) == step["observation"]
    assert data["cost"]["tokens"] == data["reading"]["tokens"] + sum(
        step["cost"]["tokens"] for step in data["steps"]
    )


def test_confidences_of_the_record_are_the_heads(run):
    """Also of steps that stayed fast and never asked the head."""
    from config import Think
    from fast.thinking import think

    model, heads = agent()
    (thinking,) = think(model, heads, TOY, [TASKS[1]], Think(mode="fast"))
    data = traces.record(thinking, model, heads, TOY, Think(mode="fast"))
    with torch.no_grad():
        tokens, own = (
            torch.tensor([thinking.rollout.tokens]),
            torch.tensor([thinking.rollout.action_mask]),
        )
        hidden = model.hidden(tokens)
        confidence = heads["meta"].confidence(
            heads["meta"](hidden, surprise_of(model, tokens, hidden, own))
        )[0]
        gates = torch.sigmoid(model.embedding.prose_logits(torch.tensor([thinking.rollout.tokens])))[
            0
        ]
    for step in data["steps"]:
        assert (
            torch.tensor(step["confidence"]).sub(confidence[step["wrote"][1] - 1]).abs().max()
            < 1e-4
        )
    assert torch.tensor([gate for _, gate, _ in data["tokens"]]).sub(gates).abs().max() < 1e-3
    assert [c["confidence"] for step in data["steps"] for c in step["candidates"]] == [None] * len(
        data["steps"]
    )


@torch.no_grad()
def test_attention_shown_is_attention_used():
    """The written-out probabilities, times the block's values, give what the block's own attention
    gives; also past the window.
    """
    for window in (4096, 8):
        shape = Model(**{**vars(SHAPE), "window": window, "landmark_stride": 4, "kv_heads": 1})
        head, hidden = (
            ThinkingHeads(shape)["meta"],
            torch.randn(30, shape.width, generator=torch.Generator().manual_seed(0)),
        )
        attention = head.block.attention
        attention.o.weight.copy_(torch.eye(64))
        attention.smear.fill_(0.3)
        shares = traces.attention_of(head, hidden, [5, 29])  # (S, H, T)
        x = head.block.attention_norm(hidden[None])
        values = attention.v(x).view(30, 1, 32).transpose(0, 1).expand(2, -1, -1)  # (H, T, d)
        rotation = traces.rotary(torch.arange(30)[None], 32, shape.rope_theta)
        wanted = attention(x, rotation)[0, [5, 29]]
        assert (shares.transpose(0, 1) @ values).transpose(0, 1).reshape(2, 64).sub(
            wanted
        ).abs().max() < 1e-5
        assert shares.sum(-1).sub(1).abs().max() < 1e-5 and shares[0, :, 6:].sum() == 0


def test_plans_are_trees():
    plan = {"1": ["a", []], "2": ["b", [1]], "3": ["c", [1]], "4": ["d", [2, 3]]}
    assert traces.tree_lines(plan, "2") == [
        "4. d",
        "├─ 2. b   ◀",
        "│  └─ 1. a",
        "└─ 3. c",
        "   └─ 1. a",
    ]
    assert traces.tree_lines({"1": ["a", [2]], "2": ["b", [1, 9]]}, None) == [
        "1. a",
        "└─ 2. b",
        "   └─ 1. a",
    ]  # a circle, and a step that is not there
    assert (
        traces.plan_of("x: y\n1. copy\n2. count (after 1)\n1: first")
        == {"1": ["copy", []], "2": ["count", [1]]}
        and traces.at_of("1. copy\n2: go") == "2"
    )


# ------------------------------------------------------------------------------------------------------
# the page


def test_the_page_needs_nothing_and_trusts_nothing(written):
    path, data = written
    text = path.read_text()
    html.parser.HTMLParser().feed(text)
    assert (
        not re.search(r"(src|href)=\"(?!data:)", text)
        and "<script" not in text
        and "@import" not in text
        and "url(" not in text
    )
    hostile = json.loads(json.dumps(data))
    hostile["request"] = hostile["steps"][0]["observation"] = hostile["steps"][0]["candidates"][0][
        "reason"
    ] = hostile["tokens"][5][0] = '"><script>alert(1)</script>'
    hostile["steps"][0]["observed"] = [0, 0]
    assert (
        "<script" not in traces.page(hostile)
        and traces.page(hostile).count("&lt;script&gt;alert(1)") >= 4
    )


def chromium(page, tmp_path, script=""):
    """A page as headless Chromium has it after `script`:

    (DOM, console). Skips, or fails where SAGE_REQUIRE_CHROMIUM=1, without one.
    """
    program = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if not program:
        why = "no chromium here (apt-get install chromium): the trace page was not looked at in a browser"
        pytest.fail(why) if os.environ.get("SAGE_REQUIRE_CHROMIUM") == "1" else pytest.skip(why)
    path = tmp_path / "page.html"
    path.write_text(
        page.replace(
            "</body>", f"<script>addEventListener('load', () => {{ {script} }})</script></body>"
        )
    )
    result = subprocess.run(
        [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            f"file://{path}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout, [line for line in result.stderr.splitlines() if "CONSOLE" in line]


def test_the_page_in_a_browser(written, tmp_path):
    """Every step is there, the console is silent, steps collapse, rejected candidates are struck
    out, tokens are shaded by gate and by attention.
    """
    path, data = written
    script = """
    const first = document.querySelector('details.step'), inside = first.querySelector('.columns'), token = document.querySelector('details.step .t'), found = {};
    const colour = () => getComputedStyle(token).backgroundColor;
    found.steps = document.querySelectorAll('details.step').length;
    found.tall = inside.checkVisibility(); const tall = first.getBoundingClientRect().height;
    found.struck = getComputedStyle(document.querySelector('tr.rejected code')).textDecorationLine;
    found.plain = colour();
    document.getElementById('gate').click(); found.gate = colour();
    document.getElementById('look1').click(); found.look = [...document.querySelectorAll('.t')].filter(t => getComputedStyle(t).backgroundColor.match(/rgba?[(][0-9]+, [0-9]+, [0-9]+(, 0[.][1-9].*)?[)]/)).length;
    found.bars = [...document.querySelectorAll('.bar i')].every(bar => bar.getBoundingClientRect().width <= bar.parentNode.getBoundingClientRect().width + 1);
    found.wide = document.documentElement.scrollWidth <= innerWidth;
    first.querySelector('summary').click(); found.open = first.open; found.gone = !inside.checkVisibility() && first.getBoundingClientRect().height < tall / 2;
    first.querySelector('summary').click(); found.again = first.open;
    document.body.dataset.found = JSON.stringify(found);"""
    dom, console = chromium(path.read_text(), tmp_path, script)
    assert console == []
    found = json.loads(re.search(r'data-found="([^"]*)"', dom)[1].replace("&quot;", '"'))
    gate = data["tokens"][data["steps"][0]["wrote"][0]][1]
    assert found == dict(
        steps=len(data["steps"]),
        tall=True,
        struck="line-through",
        plain="rgba(0, 0, 0, 0)",
        gate=f"rgb{traces.shade(gate)}",
        look=found["look"],
        bars=True,
        wide=True,
        open=False,
        gone=True,
        again=True,
    )
    assert found["look"] > 0


def test_an_error_in_the_page_would_be_seen(tmp_path):
    """The console is really read."""
    assert chromium("<body></body>", tmp_path, "undefined.call()")[1]


# ------------------------------------------------------------------------------------------------------
# tools of one's own


@pytest.fixture
def tools(tmp_path):
    path = tmp_path / "tools.json"
    path.write_text(json.dumps(TASKS[1].tools))
    return path


@pytest.fixture
def own(monkeypatch, tools, call):
    """sample.py with a file of the tools that the agent knows, and its request."""
    return lambda *words, **more: call(
        "--tools", tools, "--prompt", TASKS[1].request, *words, **more
    )


def test_what_is_typed_is_what_the_tool_says(own, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join([*heard(), ""])))
    text = own("--json", tmp_path / "t.json")
    data = json.loads((tmp_path / "t.json").read_text())
    assert [step["observation"] for step in data["steps"]] == [*heard(), None] and "← ok" in text
    assert (
        data["verified"] is None and data["ended"] == "answer" and "answered" in text
    )  # nobody knows what is right
    assert (data["request"], data["world"]) == (TASKS[1].request, "terminal.Terminal")


def test_ctrl_c_leaves_whole_files(own, monkeypatch, tmp_path):
    class Impatient(io.StringIO):
        def readline(self):
            if self.tell():
                raise KeyboardInterrupt
            return super().readline()

    monkeypatch.setattr(sys, "stdin", Impatient("\n".join(heard())))
    with pytest.raises(KeyboardInterrupt):
        own("--json", tmp_path / "t.json", "--html", tmp_path / "t.html")
    data = json.loads((tmp_path / "t.json").read_text())
    assert (
        len(data["steps"]) == 2
        and data["steps"][0]["observation"] == heard()[0]
        and data["steps"][1]["observation"] is None
        and data["ended"] == ""
    )
    assert (
        (tmp_path / "t.html").read_text().endswith("</html>\n")
        and not list(tmp_path.glob("*.tmp"))
        and "not finished" in traces.verdict(data)
    )


def test_json_to_the_terminal_is_nothing_but_json(call):
    assert json.loads(call("--json", "-", "--thinking.mode", "fast"))["verified"]


def test_tools_as_an_mcp_server_lists_them(own, monkeypatch, tools, tmp_path):
    listed = [
        {
            "name": tool["function"]["name"],
            "description": tool["function"]["description"],
            "inputSchema": tool["function"]["parameters"],
        }
        for tool in TASKS[1].tools
    ]
    tools.write_text(json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": listed}}))
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join([*heard(), ""])))
    own("--json", tmp_path / "t.json")
    assert [step["observation"] for step in json.loads((tmp_path / "t.json").read_text())["steps"]] == [
        *heard(),
        None,
    ]


@pytest.mark.parametrize(
    "content, wanted",
    [
        ("{", "cannot be read as JSON"),
        ('{"a": 1}', "tools must be a list, not dict"),
        ('["a"]', "is no list of tools: tool 0 must be"),
        (
            '[{"name": "a", "parameters": {"type": "object", "properties": {"b": {"type": "nonsense"}}}}]',
            "the schema of a cannot be used",
        ),
        ('[{"name": "a"}, {"name": "a"}]', "two tools are called a"),
        (None, "cannot be read as JSON (.*No such file"),
    ],
)
def test_a_tool_file_that_is_none(call, tmp_path, content, wanted):
    if content is not None:
        (tmp_path / "bad.json").write_text(content)
    with pytest.raises(
        UserError, match=wanted.replace("(", "[(]", 1) if content is None else re.escape(wanted)
    ):
        call("--tools", tmp_path / "bad.json")


def test_a_run_without_heads(call, tmp_path):
    checkpoint.save_checkpoint(tmp_path / "bare", Config(model=SHAPE), agent()[0], [], 1)
    with pytest.raises(
        UserError, match=r"no thinking heads; train them with python heads.py config/toy.py"
    ):
        call(folder=str(tmp_path / "bare"))


@pytest.mark.parametrize(
    "words, wanted",
    [
        (["--tools", "x.json", "--world", "api"], "give either"),
        (["--thinking.counterfactuals", "rain"], "'rain'"),
        (["--thinking.n", "0"], "thinking.n is 0"),
        (["--task", "-1"], "--task is -1"),
        (["--thinking.tau", "2"], "thinking.tau is 2.0"),
    ],
)
def test_bad_settings(call, words, wanted):
    with pytest.raises(UserError, match=re.escape(wanted)):
        call(*words)


def test_think_settings_need_think(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sample.py", "--html", "x.html"])
    with pytest.raises(UserError, match="add --think"):
        sample.main()


def test_a_prompt_over_the_context_is_said(own):
    with pytest.raises(
        UserError, match=f"leaves no room in the model's context of {SHAPE.context}"
    ):
        own("--prompt", "word " * 700)


def test_a_qwen_folder_thinks_with_untrained_heads(call, tools, tmp_path, monkeypatch):
    """Any Qwen2 folder will do, in Qwen's own template; what its heads say is said to mean nothing."""
    folder = tmp_path / "qwen"
    special = {marker: 256 + number for number, marker in enumerate(tokenizer_folder.QWEN_SPECIAL)}
    save_qwen(
        SAGE(
            Model(
                vocab_size=256 + len(special),
                width=32,
                layers=2,
                heads=2,
                kv_heads=1,
                head_dim=16,
                feed_forward=48,
                context=4096,
            )
        ),
        folder,
    )
    (folder / "vocab.json").write_text(json.dumps(tokenizer_folder.gpt2_alphabet()))
    (folder / "merges.txt").write_text("")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            dict(
                added_tokens_decoder={
                    token: dict(content=marker) for marker, token in special.items()
                }
            )
        )
    )
    text = call(
        "--tools",
        tools,
        "--prompt",
        "Copy it.",
        "--thinking.mode",
        "reason",
        "--thinking.n",
        "2",
        "--thinking.room",
        "40",
        "--html",
        tmp_path / "t.html",
        folder=str(folder),
    )
    assert (
        "heads are untrained" in text
        and "syntax █████░░░░░ 0.50" in text
        and "Copy it." in (tmp_path / "t.html").read_text()
    )
