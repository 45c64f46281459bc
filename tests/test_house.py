"""The house: imports go downwards only, scripts never import scripts, importing does nothing, and
words agree with code.
"""

import ast
import json
import os
import re
import shlex
import subprocess
import sys

import pytest
import tyro

from config import Benchmarks
from support import settings
from conftest import ROOT

# From the ground up. A module may import what stands before it, never what stands after.
TOOL_FILES = " ".join(
    f"worlds.catalogue.{path.stem}"
    for path in sorted((ROOT / "worlds/catalogue").glob("*_tools.py"))
)
ORDER = f"""
    support.openmp  fast.compiling  config  support.rendezvous  support.ranks  support.published
    support.settings  support.gguf_file
    support.provenance
    support.result_tables  support.intervals  support.cells  support.answer_table
    support.graders  support.questions
    support.machine  support.interrupts
    support.corpus  support.schemas  worlds  worlds.splits  worlds.tools  worlds.calls  worlds.plans
    worlds.negatives  support.tokenizer
    support.chat_template  support.protocols  support.tokenizer_spec  support.tokenizer_library
    support.tokenizer_gguf  support.tokenizer_folder  support.tokenizer_train
    support.model_checks  support.qwen_sizes
    fast.cross_entropy  losses  theory  fast.decoding  fast.kernels  fast.attention
    fast.shared_pasts  attention  fast.forked_cache  moe  model  parallel  fast.muon  fast.graphs
    support.log  support.profiling
    worlds.english  worlds.phrasings  worlds.faults  worlds.difficulty
    worlds.base  worlds.tasks  worlds.drawing
    worlds.extras.sandbox  worlds.api  worlds.sql  worlds.shell  worlds.math  worlds.safety
    worlds.expert  worlds.critique
    worlds.extras.cases
    worlds.extras.tool_schema  worlds.extras.tool_child  worlds.extras.tool_process
    worlds.extras.toolbox  worlds.renaming
    worlds.catalogue.values worlds.catalogue.entries {TOOL_FILES}
    worlds.catalogue.everything worlds.catalogue.wordings worlds.library
    worlds.extras.chance  worlds.extras.terminal  worlds.extras.benchmarks
    worlds.extras.teacher
    worlds.teacher_file  worlds.labels
    generate  mch  support.sharded  support.weights  support.adapter  support.pretrained
    support.checkpoint
    support.export  support.token_files  support.packing  support.optimizers  support.training_run
    support.measured  support.pretraining  support.plan
    agent  think  fast.thinking  labelled_steps  weighted_examples
    support.replay  preferences
    support.asked  support.played  benchmarks
    support.gate_picture  support.trace_data  support.trace_text  support.trace_page
""".split()
SCRIPTS = ["train", "distill", "rl", "heads", "sample", "eval", "worlds.__main__"]
PACKAGES = ("fast", "support", "worlds", "worlds/extras", "worlds/catalogue")
# packages whose own file holds nothing but words
EMPTY = {"fast", "support", "worlds.extras", "worlds.catalogue"}


def modules():
    """Every module of the project but tests and benches: its name → its file."""
    found = {path.stem: path for path in ROOT.glob("*.py")} | {
        "config": ROOT / "config/__init__.py"
    }
    for package in PACKAGES:
        for path in (ROOT / package).glob("*.py"):
            name = f"{package}.{path.stem}".replace("/", ".")
            found[name.removesuffix(".__init__")] = path
    return found


def imported(path):
    """Modules that a file imports, inside functions too, by their full names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_has_its_place():
    known = {*ORDER, *SCRIPTS, *EMPTY}
    assert set(modules()) <= known, "a new module needs a place in ORDER or SCRIPTS"


@pytest.mark.parametrize("name", sorted(set(modules()) - EMPTY))
def test_imports_go_downwards(name):
    for target in set(imported(modules()[name])) & set(modules()) - EMPTY - {name}:
        assert target not in SCRIPTS, f"{name} imports the script {target}"
        if name not in SCRIPTS:
            place = ORDER.index
            assert place(target) < place(name), f"{name} imports {target}, which stands above it"


def test_threads_come_before_torch():
    """Whoever runs a model sets how its threads wait before torch reads it; what the user has set
    stands.
    """
    scripts = [f"{name.replace('.', '/')}.py" for name in [*SCRIPTS, "support.training_run"]]
    for path in [*map(ROOT.joinpath, scripts), *(ROOT / "bench").glob("*.py")]:
        if path.stem in ("loading", "scale"):  # these read and write weights
            continue
        body = ast.parse(path.read_text()).body
        names = [node.names[0].name for node in body if isinstance(node, ast.Import)]
        if "torch" in names:
            assert "support.openmp" in names, path.name
            assert names.index("support.openmp") < names.index("torch"), path.name
    code = """
import support.training_run, os
print(os.environ['OMP_WAIT_POLICY'], os.environ.get('GOMP_SPINCOUNT'))
"""
    ours = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    clean = {key: value for key, value in os.environ.items() if key not in ours}
    for given, wanted in (
        ({}, "PASSIVE 1000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"),
        ({"GOMP_SPINCOUNT": "7"}, "PASSIVE 7"),
    ):
        run = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**clean, **given},
        )
        assert run.stdout.strip() == wanted


def test_importing_does_nothing():
    """No output, no file, no device, no global torch setting, from importing everything."""
    names = ", ".join(sorted(set(modules()) - {"worlds.__main__"}))
    code = f"""
import torch
settings = lambda: (torch.get_num_threads(), torch.get_float32_matmul_precision())
before = settings()
import {names}
assert settings() == before
"""

    def files():
        kept = ("__pycache__", ".git", ".venv", "out")
        return {path for path in ROOT.rglob("*") if not set(kept) & set(path.parts)}

    before = files()
    result = subprocess.run(
        [sys.executable, "-B", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert files() == before


@pytest.mark.parametrize("name", sorted(modules()))
def test_every_module_says_what_it_is(name):
    for path in [modules()[name]]:
        text = ast.get_docstring(ast.parse(path.read_text()))
        assert text and len(text) > 40, (
            f"{path} needs a docstring: what, the paper's section, what differs, the command"
        )


def test_tables_agree_with_results():
    result = subprocess.run(
        [sys.executable, "-m", "support.result_tables", "--check"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def tracked():
    """Files of the checkout, as git knows them; every file where there is no git."""
    result = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
    return (
        set(result.stdout.split())
        if result.returncode == 0
        else {str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if p.is_file()}
    )


def test_readme_tree_is_the_folder():
    """Every file in the README's tree exists, and every source file of the root is in it."""
    tree = re.search(
        r"## The files\n.*?```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )[1]
    named = {word for line in tree.splitlines() if line.strip() for word in [line.split()[0]]}
    assert not {name for name in named if not (ROOT / name).exists()}
    assert {path.name for path in ROOT.glob("*.py")} <= named


def test_readme_commands_exist():
    """Scripts, settings files, make targets and options of the README's commands are there."""
    text = (ROOT / "README.md").read_text()
    commands = re.findall(
        r"^(?:\$ )?((?:python|make|torchrun) .*)",
        "\n".join(re.findall(r"```(?:sh)?\n(.*?)```", text, re.DOTALL)),
        re.MULTILINE,
    )
    assert len(commands) > 8
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in commands:
        words = shlex.split(command, comments=True)
        if words[0] == "make":
            assert words[1] in targets, command
            continue
        if words[0] == "torchrun":  # its own options come before the script
            words = words[next(i for i, word in enumerate(words) if word.endswith(".py")) - 1 :]
        if words[1] == "-m":
            assert words[2] == "pytest" or words[2] in modules(), command
            continue
        assert (ROOT / words[1]).exists(), command
        options = words[2:]
        if words[1] == "eval.py" and "--tasks" in options:
            settings.validate(tyro.cli(Benchmarks, args=options), "--")
        elif words[1] in ("train.py", "distill.py", "rl.py", "heads.py", "eval.py"):
            settings.from_command_line([word for word in options if word != "--help"])
        elif words[1] == "sample.py":
            settings.sample_from_command_line(options)
        else:
            text = (ROOT / words[1]).read_text()
            assert all(
                word[2:].replace("-", "_") in text for word in options if word.startswith("--")
            ), command


def test_readme_pictures_exist():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", (ROOT / "README.md").read_text())
    assert pictures and all((ROOT / name).is_file() for name in pictures)


def test_nothing_heavy_is_committed():
    sizes = {name: (ROOT / name).stat().st_size for name in tracked() if (ROOT / name).is_file()}
    adapters = [sizes.pop(name) for name in list(sizes) if name.startswith("adapters/")]
    assert max(adapters) <= 5_000_000 and sum(adapters) < 6_000_000
    assert sum(sizes.values()) < 8 << 20, sorted(sizes.items(), key=lambda item: -item[1])[:5]


def test_benches_that_record_at_once_lose_nothing(tmp_path):
    code = """
import sys
from pathlib import Path
from support import result_tables as results
results.FOLDER = Path(sys.argv[1])
results.commit = results.machine = lambda: ''
for i in range(100):
    results.record('x', f'{sys.argv[2]} {i}', i)
"""
    both = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path, name], cwd=ROOT) for name in "ab"
    ]
    assert [one.wait() for one in both] == [0, 0]
    assert len(json.loads((tmp_path / "x.json").read_text())) == 200


# --------------------------------------------------------------------------------------------------
# How it reads.


def sources():
    """Every Python file of the project, tests and benches too."""
    return [ROOT / name for name in sorted(tracked()) if name.endswith(".py")]


QUOTED = ("tests/test_tokenizer.py", "tests/test_chat_template.py")  # published chat templates


def test_a_hundred_columns():
    wide = []
    for path in sources():
        name = str(path.relative_to(ROOT))
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if len(line) > 100 and not (name in QUOTED and "{" in line):
                wide.append(f"{name}:{number}")
    assert not wide


def public_names(path):
    """The names that a module defines at its top, but for those that begin with an underscore."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def test_a_public_name_exists_once():
    """`main` is every script's, WORDINGS every world's."""
    places = {}
    for module, path in modules().items():
        for name in set(public_names(path)) - {"main", "WORDINGS"}:
            places.setdefault(name, []).append(module)
    assert not {name: found for name, found in places.items() if len(found) > 1}


FOR_TORCH = ("fast.kernels", "fast.attention", "fast.cross_entropy")


def test_at_most_five_positional_parameters():
    """The rest are named where they are passed. Custom operators, autograd functions and kernels
    take what torch and Triton want.
    """
    long = []
    for module, path in modules().items():
        if module in FOR_TORCH:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                names = [argument.arg for argument in node.args.posonlyargs + node.args.args]
                if len([name for name in names if name not in ("self", "cls")]) > 5:
                    long.append(f"{module}.{node.name}")
    assert not long


def test_one_statement_a_line():
    """No tuple of calls as a statement, no semicolon, no two statements under one colon."""
    packed = []
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Tuple):
                packed.append(f"{module}:{node.lineno}")
            if isinstance(node, ast.stmt) and hasattr(node, "body") and isinstance(node.body, list):
                if node.body[0].lineno == node.lineno and not isinstance(node, ast.ClassDef):
                    packed.append(f"{module}:{node.lineno}")
    assert not packed


# of the paper, as its table of contents has them
SECTIONS = """
    1 2 2.1 2.1.1 2.2 2.3 3 3.1 3.1.1 3.1.2 3.1.3 4 4.1 4.2 5 5.1 5.2 5.3 5.4 5.5
    6 6.1 6.2 6.3 6.4 6.5 7 7.1 7.2 8 9 9.1 9.2 9.3 10 10.1 11
    A A.1 A.2 A.3 B B.1 B.2 B.3 C C.1 C.2 D D.1 D.2 E
""".split()


def test_cited_parts_of_the_paper_exist():
    """Sections that are cited with § or as the paper's, and equations 1 to 27."""
    wrong = []
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    for path in [*sources(), *pages]:
        text = path.read_text()
        cited = re.findall(r"§\s?(\d+(?:\.\d+)*|[A-E](?:\.\d+)*)", text)
        for listed in re.findall(r"paper,? sections? ([\d.]+(?:(?:, | and )[\d.]+)*)", text):
            cited += [number.rstrip(".") for number in re.findall(r"\d[\d.]*", listed)]
        wrong += [f"{path.name}: §{number}" for number in cited if number not in SECTIONS]
        for number in re.findall(r"[Ee]q(?:uation|\.)s? (\d+)", text):
            if not 1 <= int(number) <= 27:
                wrong.append(f"{path.name}: equation {number}")
    assert not wrong


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 180
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")


def test_what_the_pages_name_is_there():
    """Each `name` in file.py that PAPER.md and ARCHITECTURE.md speak of is defined in that file."""
    missing = []
    for page in ("PAPER.md", "ARCHITECTURE.md"):
        text = (ROOT / "docs" / page).read_text()
        for match in re.finditer(r"((?:`[^`\n]+`(?:, | and )?)+) in ([\w/]+\.py)", text):
            files = [path for path in sources() if str(path).endswith("/" + match[2])]
            defined = {
                getattr(node, "name", "")
                for path in files
                for node in ast.walk(ast.parse(path.read_text()))
            }
            defined |= {name for path in files for name in public_names(path)}
            for name in re.findall(r"`([A-Za-z_][\w.]*)`", match[1]):
                if name.split(".")[-1] not in defined:
                    missing.append(f"{page}: {name} in {match[2]}")
    assert not missing


def test_the_walks_name_what_is_there():
    """Each step of the README's walks: a file, and names that stand in it."""
    steps = re.findall(r"^\d\. ([\w/]+\.py)[^:]*: (.*)$", (ROOT / "README.md").read_text(), re.M)
    assert len(steps) == 20
    for name, words in steps:
        source = (ROOT / name).read_text()
        for mentioned in re.findall(r"`([A-Za-z_][\w.]*)`", words):
            assert re.search(rf"\b{mentioned.split('.')[-1]}\b", source), (name, mentioned)
