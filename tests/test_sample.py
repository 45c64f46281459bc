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
from dataclasses import replace

import pytest
import torch

import sample
from config import Config, Model, Sample, Think, UserError
from fast.thinking import think
from learnt import SHAPE, TASKS, TOY, agent
from mch import ThinkingHeads, surprise_of
from model import SAGE, rotary
from support import checkpoint, gate_picture, settings, trace_data, trace_page, trace_text
from support import tokenizer_folder, tokenizer_spec
from support.pretrained import save_pretrained
from worlds.expert import solve_task
from worlds.labels import PART_NAMES

HARD_TO_PLEASE = (  # every candidate is rejected, and drawn anew after a critique
    "--thinking.mode reason --thinking.n 4 --thinking.theta 1.0 "
    "--thinking.temperature 1.5 --thinking.critique"
).split()


def learnt_observations() -> list[str]:
    """What the tools say in the episode that the agent knows by heart: an error, then ok."""
    return [message["content"] for message in solve_task(TASKS[1])[0] if message["role"] == "tool"]


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
        arguments = ["sample.py", "--think", "--run", folder, *map(str, words)]
        monkeypatch.setattr(sys, "argv", arguments)
        sample.main()
        return capsys.readouterr().out

    return go


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    """An episode's page and data, thought about from beginning to end, with rejected candidates."""
    folder = tmp_path_factory.mktemp("trace")
    page, data = folder / "t.html", folder / "t.json"
    files = ["--html", str(page), "--json", str(data)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "Tasks", lambda *words: [TASKS[1]])
        patch.setattr(sys, "argv", ["sample.py", "--think", "--run", run, *files, *HARD_TO_PLEASE])
        sample.main()
    return page, json.loads(data.read_text())


def text_of(trace: dict, begin: int, end: int) -> str:
    return "".join(text for text, _, _ in trace["tokens"][begin:end])


# ------------------------------------------------------------------------------------ what is shown


def test_the_terminal_shows_every_step(call):
    text = call()
    assert "verified" in text
    assert text.count("── step") == 3
    assert "heads are untrained" in text
    assert f"1. {TASKS[1].solution[0].goal}" in text
    assert "→" not in text  # nothing was imagined, since the gate stays shut
    bars = r"  ".join(rf"{name} [█░]{{10}} \d\.\d\d" for name in PART_NAMES)
    assert re.search(bars, text)
    assert re.search(r"gate 0\.\d{3} [>≤] τ 0\.500", text)
    assert "← error" in text
    assert "← ok" in text
    words = "--thinking.mode reason --thinking.n 3 --thinking.theta 1.0 --thinking.critique"
    thought = call(*words.split())
    assert "   ● " in thought
    assert "critique: " in thought
    assert "all were rejected" in thought
    assert "coherence" in thought
    assert " E " in thought
    for kind in ("error", "empty", "expected"):
        assert f"if {kind}" in thought
    assert "\x1b" not in text + thought  # no terminal, no colours


def test_every_ending_has_its_words(written):
    _, trace = written
    endings = ("answer", "malformed", "invalid", "time", "turns", "loop", "length", "raised", "")
    for ended in endings:
        words = trace_text.verdict({**trace, "ended": ended, "verified": None})
        assert words.startswith(("answered", "ended: ", "not finished"))


def test_a_case_ends_with_a_judgement(run, monkeypatch, capsys, tmp_path):
    """Each of its tasks: in terminal, page and data; the heads are asked with --think."""
    page, data = tmp_path / "t.html", tmp_path / "t.json"
    words = ["--case", "refusal", "--run", run, "--html", str(page), "--json", str(data)]
    for more, mode in (([], "fast"), (["--think"], "hybrid")):
        monkeypatch.setattr(sys, "argv", ["sample.py", *words, *more])
        sample.main()
        shown = capsys.readouterr().out
        assert shown.count("this model   ") == shown.count("the paper's  ") == 2
        for name in ("t.json", "t-1.json"):
            trace = json.loads((tmp_path / name).read_text())
            judgement = trace["judgement"]
            assert trace["settings"]["mode"] == mode
            assert f"{judgement['outcome']}: {judgement['seen']}" in shown
            html = (tmp_path / name.replace("json", "html")).read_text()
            assert judgement["outcome"] in html
    with pytest.raises(UserError, match="--case brings its own task"):
        sample.settings.sample_from_command_line(["--case", "loop", "--world", "api"])


def test_trained_heads_are_not_called_untrained(call, tmp_path):
    model, _ = agent()
    heads = ThinkingHeads(SHAPE)
    with torch.no_grad():
        heads.trained.fill_(1)
    checkpoint.save_checkpoint(tmp_path / "run", Config(model=SHAPE), model, [], 1, heads=heads)
    assert "untrained" not in call("--thinking.mode", "fast", folder=str(tmp_path / "run"))


def test_the_data_is_the_episode(written):
    _, trace = written
    whole = text_of(trace, 0, trace["length"])
    tokens = TOY.encode(whole, special=True)
    assert trace["verified"]
    assert trace["length"] == len(trace["tokens"])
    assert len(trace["steps"]) >= 2
    markers = [TOY.special.get(text) for text, _, marker in trace["tokens"] if marker]
    assert None not in markers
    assert tokens[0] == markers[0]
    for step in trace["steps"]:
        begin, end = step["wrote"]
        assert text_of(trace, begin, end) == step["text"] + "<|im_end|>"
        assert len(step["attention"]) == trace["length"]
        assert abs(sum(step["attention"]) - 1) < 0.03
        assert sum(step["attention"][end:]) == 0
        fates = {candidate["fate"] for candidate in step["candidates"]}
        assert fates and fates <= {"rejected", "fallback", "committed"}
        if step["observation"]:
            assert text_of(trace, *step["observed"]) == step["observation"]
    of_steps = sum(step["cost"]["tokens"] for step in trace["steps"])
    assert trace["cost"]["tokens"] == trace["reading"]["tokens"] + of_steps


@torch.no_grad()
def test_confidences_of_the_trace_are_the_heads():
    """Also of steps that stayed fast and never asked the head."""
    model, heads = agent()
    settings = Think(mode="fast")
    (thinking,) = think(model, heads, TOY, [TASKS[1]], settings)
    trace = trace_data.trace_of(thinking, model, heads, TOY, settings)
    tokens = torch.tensor([thinking.rollout.tokens])
    action_mask = torch.tensor([thinking.rollout.action_mask])
    hidden = model.hidden(tokens)
    logits = heads["meta"](hidden, surprise_of(model, tokens, hidden, action_mask))
    confidence = heads["meta"].confidence(logits)[0]
    gates = torch.sigmoid(model.embedding.prose_logits(tokens))[0]
    for step in trace["steps"]:
        shown = torch.tensor(step["confidence"])
        assert (shown - confidence[step["wrote"][1] - 1]).abs().max() < 1e-4
        assert [candidate["confidence"] for candidate in step["candidates"]] == [None]
    shown = torch.tensor([gate for _, gate, _ in trace["tokens"]])
    assert (shown - gates).abs().max() < 1e-3


@pytest.mark.parametrize("window", [4096, 8])
@torch.no_grad()
def test_attention_shown_is_attention_used(window):
    """The written-out probabilities, times the block's values, give what the block's own attention
    gives; also past the window.
    """
    shape = Model(**{**vars(SHAPE), "window": window, "landmark_stride": 4, "kv_heads": 1})
    head = ThinkingHeads(shape)["meta"]
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(30, shape.width, generator=generator)
    attention = head.block.attention
    attention.o.weight.copy_(torch.eye(64))
    attention.smear.fill_(0.3)
    shares = trace_data.attention_of(head, hidden, [5, 29])  # (S, H, T)
    x = head.block.attention_norm(hidden[None])
    values = attention.v(x).view(30, 1, 32).transpose(0, 1).expand(2, -1, -1)  # (H, T, d)
    shown = (shares.transpose(0, 1) @ values).transpose(0, 1).reshape(2, 64)
    rotation = rotary(torch.arange(30)[None], shape)
    used = attention(x, rotation)[0, [5, 29]]
    assert (shown - used).abs().max() < 1e-5
    assert (shares.sum(-1) - 1).abs().max() < 1e-5
    assert shares[0, :, 6:].sum() == 0


def test_what_a_tool_says_does_not_steer_the_terminal():
    controls = "all is well\x1b[2K\r\x1b]0;title\x07\x9b1m\n\tyes"
    step = dict(observation=controls, failed=False, loop="")
    shown = "all is well�[2K��]0;title��1m\n\tyes"
    assert trace_text.observation_text(step, coloured=False) == f"   ← {shown}"
    assert trace_text.observation_text(step) == f"\x1b[32m   ← {shown}\x1b[0m"
    assert "\x1b" not in trace_text.clip(controls, 80)
    half = trace_data.through_json({"said": "caf\udce9 and \ud800"})["said"]
    assert half.encode() and half == "caf� and �" == trace_text.paint(
        "caf\udce9 and \ud800", "", False
    )


def test_plans_are_trees():
    plan = {"1": ["a", []], "2": ["b", [1]], "3": ["c", [1]], "4": ["d", [2, 3]]}
    assert trace_text.tree_lines(plan, "2") == [
        "4. d",
        "├─ 2. b   ◀",
        "│  └─ 1. a",
        "└─ 3. c",
        "   └─ 1. a",
    ]
    circle = {"1": ["a", [2]], "2": ["b", [1, 9]]}  # and a step that is not there
    assert trace_text.tree_lines(circle, None) == ["1. a", "└─ 2. b", "   └─ 1. a"]
    message = "x: y\n1. copy\n2. count (after 1)\n1: first"
    assert trace_data.plan_lines(message) == {"1": ["copy", []], "2": ["count", [1]]}
    assert trace_data.plan_step_of("1. copy\n2: go") == "2"
    # hours, if each run of lines were tried from each of its places
    assert trace_data.plan_step_of("\n" * 300_000 + "go") is None


@pytest.mark.parametrize(
    "texts, begin, wanted, span",
    [
        (["ab", "cd", "ef"], 0, "cd", [1, 2]),
        (["ab", "cd", "ef"], 0, "bcde", [0, 3]),
        (["cd", "ab", "cd"], 1, "cd", [2, 3]),
        (["ab", "", "é", "f"], 0, "é", [2, 3]),  # a character of two tokens
        (["ab", "cd"], 1, "ab", [1, 1]),
        (["ab", "cd"], 1, "", [1, 1]),
        (["ab", "cd"], 0, "cde", [0, 0]),  # not all there
    ],
)
def test_which_tokens_hold_a_text(texts, begin, wanted, span):
    assert trace_data.span_of(texts, begin, wanted) == span


# ----------------------------------------------------------------------------------------- the page


def test_the_page_needs_nothing_and_trusts_nothing(written):
    path, trace = written
    page = path.read_text()
    html.parser.HTMLParser().feed(page)
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    for forbidden in ("<script", "@import", "url("):
        assert forbidden not in page
    hostile = json.loads(json.dumps(trace))
    attack = '"><script>alert(1)</script>'
    step = hostile["steps"][0]
    hostile["request"] = attack
    hostile["note"] = attack
    hostile["problem"] = attack
    hostile["verified"] = None
    hostile["tokens"][5][0] = attack
    hostile["plan"] = {"1": [attack, []]}
    step["observation"] = attack
    step["observed"] = [0, 0]
    step["call"] = attack
    step["critiques"] = [attack]
    step["candidates"][0]["reason"] = attack
    step["candidates"][0]["text"] = attack
    step["candidates"][0]["futures"] = [
        dict(kind=attack, observation=attack, next_step=attack, success=0.5)
    ]
    page = trace_page.page_of(hostile)
    assert "<script" not in page
    assert f'"{attack[:3]}' not in page
    assert page.count("&lt;script&gt;alert(1)") >= 12


def test_the_page_shows_any_number_of_parts(written):
    _, trace = written
    more = json.loads(json.dumps(trace))
    more["parts"].append("kindness")
    for step in more["steps"]:
        step["confidence"].append(0.25)
        for candidate in step["candidates"]:
            candidate["confidence"].append(0.25)
    page = trace_page.page_of(more)
    assert page.count("<span>kindness</span>") == len(more["steps"])
    assert f"kindness {trace_text.bar(0.25)} 0.25" in trace_text.step_text(more, more["steps"][0])


def chromium(page, tmp_path, script=""):
    """A page as headless Chromium has it after `script`: (DOM, console).

    Skips, or fails where SAGE_REQUIRE_CHROMIUM=1, without one.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if not program:
        why = (
            "no chromium here (apt-get install chromium): "
            "the trace page was not looked at in a browser"
        )
        if os.environ.get("SAGE_REQUIRE_CHROMIUM") == "1":
            pytest.fail(why)
        pytest.skip(why)
    path = tmp_path / "page.html"
    script = f"<script>addEventListener('load', () => {{ {script} }})</script></body>"
    path.write_text(page.replace("</body>", script))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    options.append(f"--user-data-dir={tmp_path / 'profile'}")
    result = subprocess.run(
        [program, *options, "--dump-dom", f"file://{path}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout, [line for line in result.stderr.splitlines() if "CONSOLE" in line]


LOOK_AROUND = """
const first = document.querySelector('details.step');
const inside = first.querySelector('.columns');
const token = document.querySelector('details.step .t');
const shadeOf = element => getComputedStyle(element).backgroundColor;
const found = {};

found.steps = document.querySelectorAll('details.step').length;
found.visible = inside.checkVisibility();
const height = first.getBoundingClientRect().height;
const rejected = document.querySelector('tr.rejected code');
found.struck = getComputedStyle(rejected).textDecorationLine;

found.plain = shadeOf(token);
document.getElementById('gate').click();
found.gate = shadeOf(token);
document.getElementById('look1').click();
const shaded = /rgba?[(][0-9]+, [0-9]+, [0-9]+(, 0[.][1-9].*)?[)]/;
found.looked = [...document.querySelectorAll('.t')].filter(t => shadeOf(t).match(shaded)).length;

const width = element => element.getBoundingClientRect().width;
const bars = [...document.querySelectorAll('.bar i')];
found.bars = bars.every(bar => width(bar) <= width(bar.parentNode) + 1);
found.fits = document.documentElement.scrollWidth <= innerWidth;

first.querySelector('summary').click();
found.open = first.open;
found.gone = !inside.checkVisibility() && first.getBoundingClientRect().height < height / 2;
first.querySelector('summary').click();
found.again = first.open;
document.body.dataset.found = JSON.stringify(found);
"""


def test_the_page_in_a_browser(written, tmp_path):
    """Every step is there, the console is silent, steps collapse, rejected candidates are struck
    out, tokens are shaded by gate and by attention.
    """
    path, trace = written
    dom, console = chromium(path.read_text(), tmp_path, LOOK_AROUND)
    assert console == []
    found = json.loads(re.search(r'data-found="([^"]*)"', dom)[1].replace("&quot;", '"'))
    gate = trace["tokens"][trace["steps"][0]["wrote"][0]][1]
    assert found.pop("looked") > 0
    assert found == dict(
        steps=len(trace["steps"]),
        visible=True,
        struck="line-through",
        plain="rgba(0, 0, 0, 0)",
        gate=f"rgb{gate_picture.shade(gate)}",
        bars=True,
        fits=True,
        open=False,
        gone=True,
        again=True,
    )


def test_an_error_in_the_page_would_be_seen(tmp_path):
    """The console is really read."""
    assert chromium("<body></body>", tmp_path, "undefined.call()")[1]


# --------------------------------------------------------------------------------------- the gate


def test_the_gate_as_colours(run, monkeypatch, capsys, tmp_path):
    """Every token on its gate's colour, in the terminal and as a PNG."""
    text = "def f(x):\n    return “é”  # a line that is long enough for the scale below it"
    picture = tmp_path / "gate.png"
    words = ["sample.py", "--run", run, "--show-gate", "--prompt", text, "--picture", str(picture)]
    monkeypatch.setattr(sys, "argv", words)
    sample.main()
    printed = capsys.readouterr().out
    plain = re.sub(r"\x1b\[[0-9;]*m", "", printed)
    assert plain.startswith(f"{text}\ngate:  0.0 ")
    gates = gate_picture.prose_shares(agent()[0], TOY.encode(text))
    for gate in gates:
        assert "\x1b[48;2;{};{};{}m".format(*gate_picture.shade(gate)) in printed
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_continuations_end_with_their_speed(run, monkeypatch, capsys):
    words = ["sample.py", "--run", run, "--prompt", "def ", "--tokens", "20", "--samples", "2"]
    monkeypatch.setattr(sys, "argv", words)
    sample.main()
    printed = capsys.readouterr()
    assert printed.out.startswith("def ")
    assert f"{'-' * 20}\ndef " in printed.out
    assert re.fullmatch(r"\[\d+ tokens in \d+\.\d s, \d+ tokens/s\]\n", printed.err)


# ------------------------------------------------------------------------------- tools of one's own


@pytest.fixture
def tools(tmp_path):
    path = tmp_path / "tools.json"
    path.write_text(json.dumps(TASKS[1].tools))
    return path


@pytest.fixture
def own(tools, call):
    """sample.py with a file of the tools that the agent knows, and its request."""

    def go(*words):
        return call("--tools", tools, "--prompt", TASKS[1].request, *words)

    return go


def test_what_is_typed_is_what_the_tool_says(own, monkeypatch, tmp_path):
    observations = learnt_observations()
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join([*observations, ""])))
    text = own("--json", tmp_path / "t.json")
    trace = json.loads((tmp_path / "t.json").read_text())
    assert [step["observation"] for step in trace["steps"]] == [*observations, None]
    assert "← ok" in text
    assert trace["verified"] is None  # nobody knows what is right
    assert trace["ended"] == "answer"
    assert "answered" in text
    assert trace["request"] == TASKS[1].request
    assert trace["world"] == "terminal.Terminal"


def test_ctrl_c_leaves_whole_files(own, monkeypatch, tmp_path):
    class Impatient(io.StringIO):
        def readline(self):
            if self.tell():
                raise KeyboardInterrupt
            return super().readline()

    observations = learnt_observations()
    monkeypatch.setattr(sys, "stdin", Impatient("\n".join(observations)))
    with pytest.raises(KeyboardInterrupt):
        own("--json", tmp_path / "t.json", "--html", tmp_path / "t.html")
    trace = json.loads((tmp_path / "t.json").read_text())
    assert [step["observation"] for step in trace["steps"]] == [observations[0], None]
    assert trace["ended"] == ""
    assert trace_text.verdict(trace) == "not finished"
    assert (tmp_path / "t.html").read_text().endswith("</html>\n")
    assert not list(tmp_path.glob("*.tmp"))


def test_json_to_the_terminal_is_nothing_but_json(call):
    assert json.loads(call("--json", "-", "--thinking.mode", "fast"))["verified"]


def test_tools_as_an_mcp_server_lists_them(own, monkeypatch, tools, tmp_path):
    listed = []
    for tool in TASKS[1].tools:
        function = tool["function"]
        listed.append(
            {
                "name": function["name"],
                "description": function["description"],
                "inputSchema": function["parameters"],
            }
        )
    tools.write_text(json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": listed}}))
    observations = learnt_observations()
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join([*observations, ""])))
    own("--json", tmp_path / "t.json")
    trace = json.loads((tmp_path / "t.json").read_text())
    assert [step["observation"] for step in trace["steps"]] == [*observations, None]


NONSENSE = {"type": "object", "properties": {"b": {"type": "nonsense"}}}


@pytest.mark.parametrize(
    "content, wanted",
    [
        ("{", "cannot be read as JSON"),
        ('{"a": 1}', "tools must be a list, not dict"),
        ('["a"]', "is no list of tools: tool 0 must be"),
        (json.dumps([dict(name="a", parameters=NONSENSE)]), "the schema of a cannot be used"),
        ('[{"name": "a"}, {"name": "a"}]', "two tools are called a"),
    ],
)
def test_a_tool_file_that_is_none(call, tmp_path, content, wanted):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(UserError, match=re.escape(wanted)):
        call("--tools", tmp_path / "bad.json")


def test_a_tool_file_that_is_missing(call, tmp_path):
    with pytest.raises(UserError, match=r"cannot be read as JSON \(.*No such file"):
        call("--tools", tmp_path / "missing.json")


def test_a_run_without_heads(call, tmp_path):
    checkpoint.save_checkpoint(tmp_path / "bare", Config(model=SHAPE), agent()[0], [], 1)
    wanted = r"no thinking heads; train them with python heads.py config/toy.py"
    with pytest.raises(UserError, match=wanted):
        call(folder=str(tmp_path / "bare"))
    call("--thinking.mode", "fast", folder=str(tmp_path / "bare"))  # asks none


@pytest.mark.parametrize(
    "words, wanted",
    [
        (["--tools", "x.json", "--world", "api"], "give either"),
        (["--thinking.counterfactuals", "rain"], "'rain'"),
        (["--thinking.n", "0"], "--thinking.n is 0"),
        (["--task", "-1"], "--task is -1"),
        (["--thinking.tau", "2"], "--thinking.tau is 2"),
        (["--think", "--world", "cases.Mail"], "which is played by a command of its own"),
    ],
)
def test_bad_settings(call, words, wanted):
    with pytest.raises(UserError, match=re.escape(wanted)):
        call(*words)


def test_a_case_without_think_asks_no_head():
    played = Sample(case="monty", thinking=Think(mode="reason"))
    with pytest.raises(UserError, match="--thinking.mode reason needs --think"):
        settings.validate(played)
    settings.validate(replace(played, think=True))


def test_a_misspelt_setting_is_no_setting(call, capsys):
    with pytest.raises(SystemExit):
        call("--worlds", "api")
    assert "Perhaps you meant" in capsys.readouterr().err


def test_think_settings_need_think(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sample.py", "--html", "x.html"])
    with pytest.raises(UserError, match="add --think"):
        sample.main()


def test_a_prompt_over_the_context_is_said(own):
    wanted = f"leaves no room in the model's context of {SHAPE.context}"
    with pytest.raises(UserError, match=wanted):
        own("--prompt", "word " * 700)


def test_a_qwen_folder_thinks_with_untrained_heads(call, tools, tmp_path):
    """Any Qwen2 folder will do, in Qwen's own template; it is said that its heads mean nothing."""
    folder = tmp_path / "qwen"
    special = {marker: 256 + number for number, marker in enumerate(tokenizer_folder.QWEN_SPECIAL)}
    shape = Model(
        vocab_size=256 + len(special),
        width=32,
        layers=2,
        heads=2,
        kv_heads=1,
        head_dim=16,
        feed_forward=48,
        context=4096,
    )
    save_pretrained(SAGE(shape), folder)
    added = {token: dict(content=marker) for marker, token in special.items()}
    (folder / "vocab.json").write_text(json.dumps(tokenizer_spec.gpt2_alphabet()))
    (folder / "merges.txt").write_text("")
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(added_tokens_decoder=added)))
    words = "--thinking.mode reason --thinking.n 2 --thinking.room 40".split()
    words += ["--tools", tools, "--prompt", "Copy it.", "--html", tmp_path / "t.html"]
    text = call(*words, folder=str(folder))
    assert "heads are untrained" in text
    assert f"{PART_NAMES[0]} █████░░░░░ 0.50" in text
    assert "Copy it." in (tmp_path / "t.html").read_text()
