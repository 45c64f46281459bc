"""Settings: files and command line, and the errors that name the nearest setting."""

import os
import re
import subprocess
import sys

import pytest

from config import UserError
from conftest import ROOT
from forked_script import run
from support import settings


def script(*words, cwd=ROOT, **environment):
    """Run a script of the project as a user would; returns the finished process."""
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


@pytest.mark.parametrize(
    "name", [p.name for p in (ROOT / "config").glob("*.py") if p.name != "__init__.py"]
)
def test_every_shipped_file_reads(name):
    config = settings.from_file(f"config/{name}")
    assert config.data.sequence <= config.model.context


def test_large_files_are_qwens_shapes():
    from support.qwen_sizes import SIZES

    for name, size in (("05b", "0.5B"), ("7b", "7B"), ("32b", "32B")):
        assert settings.from_file(f"config/{name}.py").model == SIZES[size]


def test_command_line_wins_over_file():
    config = settings.from_command_line(["config/toy.py", "--train.learning-rate", "1e-3"])
    assert config.train.learning_rate == 1e-3
    assert config.model == settings.from_file("config/toy.py").model


@pytest.mark.parametrize(
    "text, wanted",
    [
        (
            "from config import Model\nmodel = Model(layer=3)",
            r"x\.py:2: Model has no setting layer; did you mean layers\?",
        ),
        (
            "from config import Model\nmodle = Model()",
            r"x\.py: no section modle; did you mean model\?",
        ),
        (
            "from config import Model\nmodel = Model(layers='3')",
            r"model\.layers is '3', str; wanted int",
        ),
        (
            "from config import Model\nmodel = Model(layers=3.0)",
            r"model\.layers is 3\.0, float; wanted int",
        ),
        (
            "from config import Model\nmodel = Model(layers=True)",
            r"model\.layers is True, bool; wanted int",
        ),
        (
            "from config import Model\nmodel = Model(norm='rsm')",
            r"model\.norm is 'rsm'; wanted one of 'rms', 'layer'",
        ),
        (
            "from config import Model\nmodel = Model(heads=3, kv_heads=2)",
            r"heads is 3, not a multiple",
        ),
        (
            "from config import Model, Data\nmodel = Model(context=64)\ndata = Data(sequence=128)",
            r"sequence 128 is over model\.context 64",
        ),
        ("model = (", r"x\.py:1: not valid Python"),
        ("a = 1/0", r"x\.py:1: ZeroDivisionError"),
    ],
)
def test_a_bad_file_is_one_line_naming_the_remedy(tmp_path, text, wanted):
    (tmp_path / "x.py").write_text(text)
    with pytest.raises(UserError, match=wanted) as caught:
        settings.from_file(tmp_path / "x.py")
    assert "\n" not in str(caught.value)


def test_missing_file_names_the_nearest():
    with pytest.raises(
        UserError, match=r"no settings file config/ty\.py; did you mean config/toy\.py"
    ):
        settings.from_file("config/ty.py")


@pytest.mark.parametrize(
    "command, wanted",
    [
        ("train.py config/toy.py --train.learning-rat 1", "--train.learning-rate FLOAT"),
        ("sample.py --promt x", "--prompt STR"),
        ("train.py config/toy.py --train.steps many", "--train.steps"),
    ],
)
def test_misspelt_and_ill_typed_options_exit_nonzero_and_name_the_setting(command, wanted):
    finished = script(*command.split())
    assert finished.returncode == 2
    assert wanted in finished.stderr


@pytest.mark.parametrize(
    "options, wanted",
    [
        ("--train.steps 0", "train.steps is 0; wanted at least 1"),
        ("--train.clip 0", "train.clip is 0.0; wanted above 0"),
        ("--train.beta2 1", "train.beta2 is 1.0; wanted at least 0 and below 1"),
        ("--data.validation 1", "data.validation is 1.0; wanted above 0 and below 1"),
        ("--distill.slips 1.5", "distill.slips is 1.5; wanted at least 0 and at most 1"),
        ("--think.tau 2", "think.tau is 2.0; wanted at most 1"),
        ("--think.counterfactuals empty,eror", "think.counterfactuals names 'eror'"),
        ("--train.warmup 0.8", "are shares of one run; together they exceed 1"),
        ("--model.norm-eps 0", "model.norm_eps is 0.0; wanted above 0"),
        ("--distill.correction 3", "distill.correction is 3.0; wanted at least 0 and at most 1"),
        ("--distill.kl 0.5", "a weight needs a teacher, and a teacher a weight"),
        ("--distill.kl-teacher x", "a weight needs a teacher, and a teacher a weight"),
        ("--ppo.advantage rloo --ppo.baseline batch", "goes with 'gae' alone"),
        ("--ppo.advantage group --ppo.lam 0.9", "'group' has no value head"),
        ("--ppo.advantage rloo --ppo.value-explains 0.3", "'rloo' has no value head"),
        ("--distill.reflect-steps 2 --distill.rounds 3", "some rounds would learn nothing"),
        ("--ppo.prompts 1 --ppo.samples 1", "and there are none"),
        ("--ppo.value-warmup 150", "the policy would never learn"),
        ("--ppo.seed 4294967296", "ppo.seed is 4294967296; wanted at least 0 and at most"),
        ("--distill.enough 0.5", "nothing measures when it is reached"),
        ("--ppo.value-explains 0.3 --ppo.lam 0.9", "returns hold the values themselves"),
        ("--distill.minutes 5 --distill.eval-every 10", "are counted for training alone"),
        ("--ppo.value-explains 0.3", "it ends a warm-up that there is none of"),
    ],
)
def test_values_out_of_range_are_errors(options, wanted):
    with pytest.raises(UserError, match=re.escape(wanted)):
        settings.from_command_line(options.split())


@pytest.mark.parametrize(
    "command, wanted",
    [
        ("distill.py --dry-run", "--dry-run is train.py's"),
        ("rl.py --dry-run --stage ppo", "--dry-run is train.py's"),
        ("heads.py --dry-run", "--dry-run is train.py's"),
        ("train.py --stage distill", "--stage is 'distill', and this script has no stages"),
        ("heads.py --stage dpo", "--stage is 'dpo', and this script has no stages"),
        ("rl.py --stage reflect", "this script has dpo and ppo"),
    ],
)
def test_what_a_script_does_not_read_it_refuses(command, wanted):
    finished = run(*command.split())
    assert finished.returncode == 1 and wanted in finished.stderr, finished.stderr


def test_a_sample_names_its_options():
    with pytest.raises(UserError, match="--top_p is 0.0; wanted at most 1 and above 0"):
        settings.sample_from_command_line(["--top-p", "0"])
    with pytest.raises(UserError, match="--picture draws the gate; add --show-gate"):
        settings.sample_from_command_line(["--picture", "x.png"])


def test_help_shows_type_default_and_reason():
    text = script("train.py", "config/toy.py", "--help").stdout
    assert (
        "--train.learning-rate FLOAT" in text
        and "AdamW's peak" in text
        and "(default: 0.003)" in text
    )


def test_paths_are_found_from_the_current_directory_then_from_the_projects(tmp_path, monkeypatch):
    (tmp_path / "notes").mkdir()
    monkeypatch.chdir(tmp_path)
    config = settings.from_command_line(
        ["config/toy.py", "--data.path", "notes", "--data.tokenizer", "models/x"]
    )
    assert (
        config.data.path == str(tmp_path / "notes")
        and config.data.tokenizer == str(ROOT / "models/x")
        and config.out == str(ROOT / "out/toy/base")
    )


def test_works_from_any_directory(tmp_path):
    text = script(str(ROOT / "train.py"), "config/toy.py", "--help", cwd=tmp_path)
    assert text.returncode == 0 and "default: out/toy/base" in text.stdout
