"""Settings: files and command line, and the errors that name the nearest setting."""

import os
import subprocess
import sys

import pytest

import config
from config import UserError
from conftest import ROOT


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
    settings = config.read(f"config/{name}")
    assert settings.data.sequence <= settings.model.context


def test_large_files_are_qwens_shapes():
    from support.qwen_sizes import SIZES

    for name, size in (("05b", "0.5B"), ("7b", "7B"), ("32b", "32B")):
        assert config.read(f"config/{name}.py").model == SIZES[size]


def test_command_line_wins_over_file():
    settings = config.from_command_line(["config/toy.py", "--train.learning-rate", "1e-3"])
    assert settings.train.learning_rate == 1e-3
    assert settings.model == config.read("config/toy.py").model


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
        config.read(tmp_path / "x.py")
    assert "\n" not in str(caught.value)


def test_missing_file_names_the_nearest():
    with pytest.raises(
        UserError, match=r"no settings file config/ty\.py; did you mean config/toy\.py"
    ):
        config.read("config/ty.py")


def test_misspelt_and_ill_typed_options_exit_nonzero_and_name_the_setting():
    with pytest.raises(
        UserError, match=r"no option --train.learning-rat; did you mean train.learning-rate\?"
    ):
        config.from_command_line(["config/toy.py", "--train.learning-rat", "1"])
    with pytest.raises(UserError, match=r"no option --promt; did you mean prompt\?"):
        config.sample_from_command_line(["--promt", "x"])
    wrong = script("train.py", "config/toy.py", "--train.steps", "many")
    assert wrong.returncode == 2 and "--train.steps" in wrong.stderr


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
    settings = config.from_command_line(
        ["config/toy.py", "--data.path", "notes", "--data.tokenizer", "models/x"]
    )
    assert (
        settings.data.path == str(tmp_path / "notes")
        and settings.data.tokenizer == str(ROOT / "models/x")
        and settings.out == str(ROOT / "out/toy/base")
    )


def test_works_from_any_directory(tmp_path):
    text = script(str(ROOT / "train.py"), "config/toy.py", "--help", cwd=tmp_path)
    assert text.returncode == 0 and "default: out/toy/base" in text.stdout
