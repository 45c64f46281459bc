"""bench/lineage.py on a tiny random model: intervals, resumption, BFCL's official rule, figures."""

import json
import math
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

sys.path.append(str(ROOT / "bench"))
import choice
import lineage
from agent import EpisodeRow, Rollout, prompt_of
from config import Config, Model, UserError
from model import SAGE
from support import checkpoint, corpus, result_tables
from support import tokenizer as tokenizers
from support.intervals import bootstrap_ratio, wilson
from support.measured import RowFile, Stage
from worlds.calls import write_call
from worlds.difficulty import Difficulty
from worlds.extras.benchmarks import bfcl
from worlds.tasks import draw_task

TOY = tokenizers.toy()
SHAPE = Model(
    vocab_size=1024,
    width=32,
    layers=1,
    heads=2,
    kv_heads=1,
    head_dim=16,
    feed_forward=32,
    context=2048,
    window=2048,
)


# ------------------------------------------------------------------------------------------- choice


def test_log_probabilities_are_those_of_each_text_alone():
    model = SAGE(SHAPE, seed=3).eval()
    stage = Stage("random", model, TOY, {})
    pairs = [([5, 6, 7], [8, 9]), ([5], [6, 7, 8, 9, 10, 11]), ([12, 13, 14, 15], [16])]
    alone = []
    for prefix, tokens in pairs:
        with torch.no_grad():
            log_probs = model.logits(model.hidden(torch.tensor([prefix + tokens])))[0].log_softmax(
                -1
            )
        places = range(len(prefix) - 1, len(prefix) + len(tokens) - 1)
        alone.append(sum(log_probs[place, token].item() for place, token in zip(places, tokens)))
    assert choice.log_probabilities(stage, pairs) == pytest.approx(alone, abs=1e-4)


def test_the_likeliest_tool_is_compared_with_the_right_one(monkeypatch):
    task = draw_task("library", 0, 1, Difficulty(names="english", special=0.0, chain=1))
    names = [tool["function"]["name"] for tool in task.tools]
    right = names.index(task.solution[0].call["name"])
    for likeliest in range(len(names)):
        scores = [float(place == likeliest) for place in range(len(names))]
        monkeypatch.setattr(choice, "log_probabilities", lambda stage, pairs: scores)
        found = choice.choices(Stage("none", None, TOY, {}), task)
        assert found == dict(plan=likeliest == right, inverse=likeliest == right)


# ---------------------------------------------------------------------------------------- intervals


def test_wilson_is_the_published_interval():
    """Values of Newcombe 1998, table I (81 of 263, 15 of 148, 0 of 20, 1 of 29)."""
    for successes, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(5, 5)[1] == 1.0 and wilson(0, 0) == (0.0, 1.0)


def test_the_bootstrap_keeps_what_belongs_to_one_task_together():
    shares = torch.rand(200, generator=torch.Generator().manual_seed(0)).double()
    low, high = bootstrap_ratio(shares.tolist(), [1.0] * 200, draws=2000)
    half = 1.96 * shares.std().item() / math.sqrt(200)
    mean = shares.mean().item()
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.005)
    # a ratio that is the same for every task does not scatter, whatever their sizes
    assert bootstrap_ratio([2.0, 4.0, 10.0], [1.0, 2.0, 5.0], draws=200) == (2.0, 2.0)
    # tasks without a call: draws of them alone have no ratio
    low, high = bootstrap_ratio([0.0, 1.0], [0.0, 2.0], draws=200)
    assert (low, high) == (0.5, 0.5)


def test_pass_at_k_counts_tasks_and_pass_at_1_their_mean():
    rows = [
        dict(episodes=[dict(verified=verified) for verified in outcomes])
        for outcomes in ([True, False], [False, False], [True, True], [False, False])
    ]
    figures = lineage.sampled_figures("api", rows)
    assert figures["success/api sampled, pass@1"].value == 37.5
    both = figures["success/api sampled, pass@2"]
    assert (both.value, both.n) == (50.0, 4)
    assert (both.low / 100, both.high / 100) == pytest.approx(wilson(2, 4))
    none = lineage.sampled_figures("api", [rows[1]] * 30)["success/api sampled, pass@1"]
    assert none.low == 0 and 10 < none.high < 13  # rule of three: 3 of 30


# ------------------------------------------------------------------------------------- kept rows


def test_rows_outlive_a_kill_and_not_other_settings(tmp_path, capsys):
    path = tmp_path / "stage" / "rows.jsonl"
    kept = RowFile(path, dict(seed=0))
    assert not path.exists(), "looking writes nothing"
    kept.add([dict(number=2, value="two")])
    kept.add([dict(number=0, value="zero")])
    with path.open("a") as file:
        file.write('{"number": 1, "val')  # killed in the middle of a line
    again = RowFile(path, dict(seed=0))
    assert list(again.rows) == [2, 0]
    again.add([dict(number=1, value="one")])
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()[1:]] == [2, 0, 1]
    assert RowFile(path, dict(seed=1)).rows == {}
    before = again.rows
    other = RowFile(path, dict(seed=1))
    other.add([dict(number=7)])
    assert set(RowFile(path, dict(seed=1)).rows) == {7}
    assert RowFile(path, dict(seed=0)).rows == before  # asked in the first way again
    RowFile(path, dict(seed=0)).add([dict(number=8)])
    assert set(RowFile(path, dict(seed=0)).rows) == {*before, 8}
    assert set(RowFile(path, dict(seed=1)).rows) == {7}
    said = capsys.readouterr().out
    assert "made from something else; its rows go to rows." in said


def test_a_damaged_line_is_measured_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    RowFile(path, {}).add([dict(number=number) for number in range(3)])
    path.write_text(path.read_text().replace('{"number": 1', '{"numb\x00'))
    assert set(RowFile(path, {}).rows) == {0, 2}


def test_two_who_measure_the_same_lose_nothing(tmp_path):
    path = tmp_path / "rows.jsonl"
    one, other = RowFile(path, {}), RowFile(path, {})
    one.add([dict(number=1)])
    other.add([dict(number=2)])
    one.add([dict(number=3)])
    assert set(RowFile(path, {}).rows) == {1, 2, 3}
    code = "from support.measured import RowFile; from pathlib import Path; import sys\n"
    code += "RowFile(Path(sys.argv[1]), {}).add([dict(number=4)])"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, cwd=ROOT)
    assert done.returncode and b"another process is writing" in done.stderr


# ------------------------------------------------------------------------------ the official rule

FUNCTION = {
    "name": "area",
    "description": "The area of a rectangle.",
    "parameters": {
        "type": "dict",
        "properties": {"width": {"type": "integer"}, "height": {"type": "integer"}},
        "required": ["width", "height"],
    },
}
CALLS = [dict(width=3, height=4), dict(width=5, height=6)]


def bfcl_folder(folder):
    """Two cases of every file of the leaderboard that the bench reads."""
    wanted = {
        "simple_python": CALLS[:1],
        "multiple": CALLS[:1],
        "parallel": CALLS,
        "irrelevance": [],
    }
    for name, calls in wanted.items():
        questions, answers = [], []
        for number in range(2):
            question = [[dict(role="user", content="How large is it?")]]
            identity = f"{name}_{number}"
            questions.append(dict(id=identity, question=question, function=[FUNCTION]))
            truth = [{"area": {key: [value] for key, value in call.items()}} for call in calls]
            answers.append(dict(id=identity, ground_truth=truth))
        for place, rows in (("", questions), ("possible_answer/", answers if calls else [])):
            path = folder / "bfcl" / place / f"BFCL_v4_{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(map(json.dumps, rows)))
    return folder


def played(task, *messages: str) -> Rollout:
    """The episode of an agent that writes these messages."""
    prompt = prompt_of(task, TOY)
    row = EpisodeRow(task, TOY, prompt, [], room=600, temperature=0.0, tolerance=10)
    for message in messages:
        while row.forced:
            row.append(0, 0.0, 0.0, TOY.stop)
        for token in [*TOY.encode(message, special=True), TOY.stop[0]]:
            row.append(token, 0.0, 0.0, TOY.stop)
    if not row.ended:
        row.end("length")
    return row.rollout


def verdicts(task, *messages: str) -> tuple[bool, bool]:
    """Of the first of these messages, and of the episode."""
    found = lineage.bfcl_verdicts(task, played(task, *messages))
    return found["official"], found["whole"]


def test_the_first_message_is_judged_as_the_leaderboard_does(tmp_path):
    folder = bfcl_folder(tmp_path) / "bfcl"
    simple = bfcl(folder, "simple_python")[0]
    parallel = bfcl(folder, "parallel")[0]
    irrelevance = bfcl(folder, "irrelevance")[0]
    first, second = [write_call(dict(name="area", arguments=call)) for call in CALLS]
    assert verdicts(simple, first, "done") == (True, True)
    assert verdicts(simple, first) == (True, True)
    assert verdicts(simple, second, first, "done") == (False, False)
    assert verdicts(simple, first, second, "done") == (True, False)
    assert verdicts(simple, "I cannot.") == (False, False)
    assert verdicts(parallel, first + second, "done") == (True, True)
    assert verdicts(parallel, second, first, "done") == (False, True)  # one call per message
    assert verdicts(irrelevance, "no tool fits") == (True, True)
    assert verdicts(irrelevance, first, "done") == (False, False)
    broken = "<tool_call>\n{area}\n</tool_call>"
    assert verdicts(irrelevance, broken, "done") == (True, True)  # as there: nothing was called
    assert verdicts(parallel, broken + first + second, "done") == (False, False)


# ---------------------------------------------------------------------------------- our own worlds


def rows_of(messages_of, faults: bool = False) -> list[dict]:
    """Rows of 30 API tasks, played by whoever writes messages_of(task)."""
    difficulty = Difficulty(fault_rate=float(faults), fault_kinds=("timeout",))
    rows = []
    for number in range(30):
        task = draw_task("api", 5, number, difficulty)
        row = dict(number=number, kind=task.kind, needed=lineage.calls_needed(task), unsafe=None)
        episode = lineage.episode_row(task, played(task, *messages_of(task)))
        rows.append(row | dict(episodes=[episode]))
    return rows


def expert(task) -> list[str]:
    return [*[write_call(step.call) for step in task.solution], task.answer]


def test_the_expert_is_right_in_every_figure():
    rows = rows_of(expert)
    figures = lineage.success_figures("api", rows) | lineage.call_figures("api greedy", rows)
    assert {name for name in figures if name.startswith("success")} == {
        "success/api greedy",
        "success/api greedy, 1 call",
        "success/api greedy, 2 calls",
        "success/api greedy, right answer is: ask",
        "success/api greedy, right answer is: none",
    }
    wanted = {name: 0 if name.startswith("invented") else 100 for name in figures}
    assert {name: figure.value for name, figure in figures.items()} == wanted
    parts = [figure.n for name, figure in figures.items() if name.startswith("success/api greedy,")]
    assert sum(parts) == figures["success/api greedy"].n == 30


def test_mistakes_are_counted_for_what_they_are():
    def inventor(task):
        """Adds an argument, once; and gives up."""
        calls = [step.call for step in task.solution]
        wrong = [{**call, "arguments": {**call["arguments"], "verbose": True}} for call in calls]
        return [*map(write_call, wrong[:1]), "no tool fits"]

    rows = rows_of(inventor)
    acting = [row for row in rows if row["needed"]]
    figures = lineage.success_figures("api", rows) | lineage.call_figures("api greedy", rows)
    assert figures["first call/api exact"].value == 0
    assert figures["first call/api is JSON of a call"].value == 100
    assert figures["success/api greedy, right answer is: none"].value == 100
    assert figures["invented/api greedy, per call"].value == 100
    assert figures["calls/api greedy, accepted by the check"].value == 0
    share = 100 * len(acting) / 30
    assert figures["invented/api greedy, episodes with any"].value == pytest.approx(share)

    def patient(task):
        """Repeats the call that met the fault."""
        calls = [write_call(step.call) for step in task.solution]
        return [*calls[:1], *calls[:1], *calls[1:], task.answer]

    rows = rows_of(patient, faults=True)
    recovered = lineage.fault_figures("api", "fault seen", rows)["recovery/api, familiar kinds"]
    given_up = lineage.fault_figures("api", "fault seen", rows_of(inventor, faults=True))
    assert recovered.value > 0 and recovered.n > 0 and given_up == {}


# ------------------------------------------------------------------------------------ the command


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs the bench on a tiny random model; `command.rows()` are what it kept."""
    config = Config(model=SHAPE)
    model = SAGE(SHAPE, seed=1)
    record = checkpoint.tokenizer_record(TOY)
    checkpoint.save_checkpoint(tmp_path / "tiny", config, model, [], 1, tokenizer=record)
    monkeypatch.setenv("SAGE_DATA", str(bfcl_folder(tmp_path / "data")))
    monkeypatch.setattr(result_tables, "FOLDER", tmp_path / "results")
    documents = [
        corpus.Document(kind, f"{kind} {'text of it ' * 30}", torch.full((340,), value).numpy())
        for kind, value in (("prose", corpus.PROSE), ("code", corpus.CODE))
        for _ in range(2)
    ]
    monkeypatch.setattr(corpus, "standard_library", lambda: documents)
    options = "--worlds api --names invented --tasks 3 --sampled 2 --samples 2 --faulty 1 --bfcl 2"
    options += " --documents 2 --tokens 32 --room 8 --dtype float32 --reference tiny --batch 1"

    def run(*more: str) -> dict:
        folder = str(tmp_path / "measured")
        words = [str(tmp_path / "tiny"), *options.split(), "--folder", folder, *more]
        return lineage.main(words)["tiny"]

    def rows() -> dict[str, list]:
        files = sorted((tmp_path / "measured").rglob("*.jsonl"))
        return {
            path.stem: [json.loads(line) for line in path.read_text().splitlines()[1:]]
            for path in files
        }

    run.rows = rows
    run.results = tmp_path / "results" / "smol.json"
    return run


def test_the_command_measures_all_and_goes_on_where_it_was_stopped(command, monkeypatch, capsys):
    """Killed after the third chunk it keeps what it has, and ends as if it had not been."""
    measure = lineage.Episodes.measure
    chunks = []

    def killed(part, stage, numbers):
        if len(chunks) == 3:
            raise KeyboardInterrupt
        chunks.append(part.name)
        return measure(part, stage, numbers)

    monkeypatch.setattr(lineage.Episodes, "at_once", lambda part: 1)
    monkeypatch.setattr(lineage.Episodes, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        command()
    assert [len(rows) for rows in command.rows().values()] == [3]

    measured = []

    def counted(part, stage, numbers):
        measured.extend((part.name, number) for number in numbers)
        return measure(part, stage, numbers)

    monkeypatch.setattr(lineage.Episodes, "measure", counted)
    figures = command()
    assert "api/greedy" not in dict(measured)
    assert measured.count(("bfcl/parallel", 1)) == 1
    interrupted = command.rows()

    # measured in one go, in chunks of another size, with three times the samples' batch
    measured.clear()
    monkeypatch.setattr(lineage.Episodes, "at_once", lambda part: 4)
    figures_again = command("--folder", str(command.results.parent / "again"), "--batch", "3")
    assert figures_again == figures
    assert command() == figures and interrupted == command.rows()

    assert figures["bfcl/irrelevance"].value == 100 and figures["bfcl/parallel"].value == 0
    assert figures["success/api sampled, pass@2"].n == 2
    prose = figures["text/prose"]
    assert prose.low <= prose.value <= prose.high and prose.unit == "bits per byte"
    assert figures["text/prose, change"].value == 0

    records = json.loads(command.results.read_text())
    by_name = {record["name"]: record for record in records}
    assert by_name["tiny/bfcl/irrelevance"]["n"] == 2
    assert by_name["tiny/bfcl/irrelevance"]["spread"] == "(34.2 to 100.0)"
    assert by_name["tiny/success/api greedy"]["n"] == 3


def test_an_estimate_measures_and_writes_nothing(command, capsys):
    command("--estimate")
    said = capsys.readouterr().out
    assert "to do" in said and "in all" in said
    assert command.rows() == {} and not command.results.exists()


def test_rows_that_were_put_aside_have_the_file_again_once_they_are_asked_for(command):
    """bench/claims.py reads the file: a try on validation tasks in between must not be judged."""
    only = ("--only", "worlds", "--dry")
    command(*only)
    test = command.rows()["api greedy"]
    command(*only, "--split", "validation")
    assert command.rows()["api greedy"] != test
    # nothing asked of a part: what is there stays where it is
    command(*only, "--split", "validation", "--tasks", "1", "--sampled", "0", "--faulty", "0")
    command(*only)
    assert command.rows()["api greedy"] == test
    assert len(command.rows()["api sampled"]) == 2


def test_counts_below_zero_are_refused(command):
    with pytest.raises(UserError, match="--samples is -1; wanted 0 or more"):
        command("--samples", "-1")
