"""The house: imports go downwards only, scripts never import scripts, importing does nothing, and words agree with code."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys

import pytest

import config as settings
from conftest import ROOT

# From the ground up. A module may import what stands before it, never what stands after.
ORDER = ["threads", "config", "provenance", "results", "runtime", "corpus", "schemas", "tools", "tokenizer", "chat_template",
         "losses", "muon", "kernels", "attention", "model", "mch", "checkpoint", "data", "worlds",
         "expert", "stage", "teacher", "generate", "rollout", "steps", "talk", "think", "traces"]
SCRIPTS = ["train", "distill", "rl", "heads", "sample", "eval", "theory"]


def modules():
    """Every module of the project but tests and benches: its name → its files."""
    found = {path.stem: [path] for path in ROOT.glob("*.py")}
    found |= {folder.name: sorted(folder.glob("*.py")) for folder in (ROOT / "config", ROOT / "worlds")}
    return found


def imported(path):
    """Names of top-level packages that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


def test_every_module_has_its_place():
    assert set(modules()) <= set(ORDER + SCRIPTS), "a new module needs a place in ORDER or SCRIPTS"


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_go_downwards(name):
    ours = set(modules())
    for path in modules()[name]:
        for target in set(imported(path)) & ours - {name}:
            if name in SCRIPTS or path.name == "__main__.py":  # python -m worlds is a script as well
                assert target not in SCRIPTS, f"{path.name} is a script and imports the script {target}"
            else:
                assert target not in SCRIPTS and ORDER.index(target) < ORDER.index(name), f"{path.name} imports {target}, which stands above it"


def test_threads_come_before_torch():
    """Whoever runs a model sets how its threads wait before torch reads it; what the user has set stands."""
    for path in [*(ROOT / f"{name}.py" for name in [*SCRIPTS, "stage"]), *(ROOT / "bench").glob("*.py")]:
        names = [node.names[0].name for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import)] if path.exists() else []
        if "torch" in names and path.stem not in ("loading", "scale"):  # these read and write weights
            assert "threads" in names and names.index("threads") < names.index("torch"), path.name
    code = "import stage, os; print(os.environ['OMP_WAIT_POLICY'], os.environ.get('GOMP_SPINCOUNT'))"
    clean = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    for given, wanted in (({}, "PASSIVE 1000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"), ({"GOMP_SPINCOUNT": "7"}, "PASSIVE 7")):
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env={**clean, **given}).stdout.strip() == wanted


def test_importing_does_nothing():
    """No output, no file, no device, no global torch setting, from importing everything."""
    names = sorted(set(modules()) - {"worlds"}) + ["worlds"]
    code = f"import torch; t = torch.get_num_threads(); p = torch.get_float32_matmul_precision()\nimport {', '.join(names)}\nassert (t, p) == (torch.get_num_threads(), torch.get_float32_matmul_precision())"
    before = {path for path in ROOT.rglob("*") if "__pycache__" not in path.parts and ".git" not in path.parts and ".venv" not in path.parts}
    result = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    after = {path for path in ROOT.rglob("*") if "__pycache__" not in path.parts and ".git" not in path.parts and ".venv" not in path.parts}
    assert {p for p in after - before if "out" not in p.relative_to(ROOT).parts[:1]} == set()


@pytest.mark.parametrize("name", sorted(modules()))
def test_every_module_says_what_it_is(name):
    for path in modules()[name]:
        text = ast.get_docstring(ast.parse(path.read_text()))
        assert text and len(text) > 40, f"{path} needs a docstring: what, the paper's section, what differs, the command"


def test_tables_agree_with_results():
    result = subprocess.run([sys.executable, "results.py", "--check"], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def tracked():
    """Files of the checkout, as git knows them; every file where there is no git."""
    result = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
    return set(result.stdout.split()) if result.returncode == 0 else {str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if p.is_file()}


def test_readme_tree_is_the_folder():
    """Every file in the README's annotated tree exists, and every source file of the root is in it."""
    tree = re.search(r"## The files\n.*?```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    named = {word for line in tree.splitlines() if line.strip() for word in [line.split()[0]]}
    assert not {name for name in named if not (ROOT / name).exists()}
    assert {path.name for path in ROOT.glob("*.py")} <= named


def test_readme_commands_exist():
    """Scripts, settings files, make targets and options that the README's commands use are there."""
    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"^(?:\$ )?((?:python|make|torchrun) .*)", "\n".join(re.findall(r"```(?:sh)?\n(.*?)```", text, re.DOTALL)), re.MULTILINE)
    assert len(commands) > 8
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in commands:
        words = shlex.split(command, comments=True)
        if words[0] == "make":
            assert words[1] in targets, command
            continue
        if words[1] == "-m":
            assert words[2] == "pytest" or (ROOT / words[2]).exists(), command
            continue
        assert (ROOT / words[1]).exists(), command
        options = words[2:]
        if words[1] in ("train.py", "distill.py", "rl.py", "heads.py", "eval.py"):
            settings.from_command_line([word for word in options if word != "--help"])
        elif words[1] == "sample.py":
            settings.sample_from_command_line(options)
        else:
            text = (ROOT / words[1]).read_text()
            assert all(word[2:].replace("-", "_") in text for word in options if word.startswith("--")), command


def test_readme_pictures_exist():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", (ROOT / "README.md").read_text())
    assert len(pictures) >= 2 and all((ROOT / name).is_file() for name in pictures)


def test_nothing_heavy_is_committed():
    sizes = {name: (ROOT / name).stat().st_size for name in tracked() if (ROOT / name).is_file()}
    assert sum(sizes.values()) < 8 << 20, sorted(sizes.items(), key=lambda item: -item[1])[:5]


def test_benches_that_record_at_once_lose_nothing(tmp_path):
    code = "import sys; from pathlib import Path; import results; results.FOLDER = Path(sys.argv[1]); results.commit = results.machine = lambda: ''\n" \
           "for i in range(100): results.record('x', f'{sys.argv[2]} {i}', i)"
    both = [subprocess.Popen([sys.executable, "-c", code, tmp_path, name], cwd=ROOT) for name in "ab"]
    assert [one.wait() for one in both] == [0, 0]
    assert len(json.loads((tmp_path / "x.json").read_text())) == 200
