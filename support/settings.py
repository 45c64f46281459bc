"""How a script gets its settings: from a file of plain Python, then from the command line, which
wins over it. The settings themselves, with their defaults and reasons, are in config/__init__.py.

    python train.py config/toy.py --train.steps 500 --data.path ~/notes

A misspelt or ill-typed setting is an error that names the nearest one.
"""

import difflib
import importlib.util
import re
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import tyro

import config as sections
from support import ranks
from support.published import model_path
from config import (
    Benchmarks,
    Config,
    Distill,
    Dpo,
    Loop,
    Model,
    Ppo,
    Range,
    Sample,
    Think,
    UserError,
)
from support.rendezvous import end_after_lost_rank, is_lost_rank_error

ROOT = Path(__file__).resolve().parents[1]  # of the checkout
TRACE_WINDOW = re.compile(r"([2-9]|[1-9]\d+):[1-9]\d*")  # of --profile
COUNTERFACTUALS = ["error", "empty", "expected"]  # what think.py can imagine of a tool's result


# ------------------------------------------------------------------------------------------------
# Checks.


def validate(section, prefix: str = "") -> None:
    """Check the types and ranges of a section and of all sections inside it.

    `prefix` stands before the names in errors: "model." or "--". Raises UserError for the first
    setting that is off.
    """
    hints = typing.get_type_hints(type(section), include_extras=True)
    for setting in fields(section):
        name = prefix + setting.name
        value = getattr(section, setting.name)
        wanted = hints[setting.name]
        if is_dataclass(wanted):
            if not isinstance(value, wanted):
                raise UserError(f"{name} is {value!r}; wanted {wanted.__name__}(...)")
            validate(value, f"{name}.")
        else:
            _validate_value(name, value, wanted)
    if wrong := _contradiction(section):
        raise UserError(wrong)


def _validate_value(name: str, value, wanted) -> None:
    """Raise UserError unless `value` has the type `wanted`, and lies in its range if it has one."""
    if typing.get_origin(wanted) is Literal:
        choices = typing.get_args(wanted)
        if value not in choices:
            raise UserError(f"{name} is {value!r}; wanted one of {', '.join(map(repr, choices))}")
        return
    bounds = Range()
    if typing.get_origin(wanted) is Annotated:
        wanted, bounds = typing.get_args(wanted)
    accepted = (int, float) if wanted is float else wanted
    # in Python True is an int, and `--steps True` a mistake all the same
    if not isinstance(value, accepted) or isinstance(value, bool) is not (wanted is bool):
        raise UserError(f"{name} is {value!r}, {type(value).__name__}; wanted {wanted.__name__}")
    if not (
        (bounds.at_least is None or value >= bounds.at_least)
        and (bounds.at_most is None or value <= bounds.at_most)
        and (bounds.above is None or value > bounds.above)
        and (bounds.below is None or value < bounds.below)
    ):
        limits = [
            f"{kind.replace('_', ' ')} {limit}"
            for kind, limit in bounds._asdict().items()
            if limit is not None
        ]
        raise UserError(f"{name} is {value}; wanted {' and '.join(limits)}")


def _contradiction(s) -> str:
    """What two settings of a section, each right by itself, get wrong together; empty: nothing."""
    match s:
        case Model() if s.heads % s.kv_heads:
            return (
                f"model.heads is {s.heads}, not a multiple of model.kv_heads {s.kv_heads}; "
                "each key head serves a whole number of query heads"
            )
        case Model() if s.head_dim % 2:
            return f"model.head_dim is {s.head_dim}; rotary embedding needs an even number"
        case Model() if s.rope_low >= s.rope_high:
            return f"model.rope_low is {s.rope_low}; wanted less than model.rope_high {s.rope_high}"
        case Model() if s.experts == 1:
            return "model.experts is 1; wanted 0, one dense feed-forward, or at least 2 experts"
        case Model() if 0 < s.experts < s.experts_per_token:
            return (
                f"model.experts_per_token is {s.experts_per_token}; wanted at most "
                f"{s.experts}, as many as model.experts"
            )
        case Loop() if s.warmup + s.decay > 1:
            section = type(s).__name__.lower()
            return (
                f"{section}.warmup {s.warmup} and {section}.decay {s.decay} are shares of one run; "
                "together they exceed 1"
            )
        case Dpo() if s.pairs < s.batch:
            return f"dpo.pairs is {s.pairs}; wanted at least {s.batch}, as many as dpo.batch"
        case Ppo() if s.advantage != "gae" and s.samples < 2:
            return (
                f"ppo.advantage {s.advantage!r} compares samples of one task; ppo.samples must be "
                "at least 2"
            )
        case Ppo() if s.advantage != "gae" and s.baseline == "batch":
            return (
                f"ppo.advantage {s.advantage!r} measures a reward from its task's other samples; "
                "ppo.baseline 'batch' goes with 'gae' alone"
            )
        case Ppo() if s.advantage != "gae" and (
            s.gamma < 1 or s.lam < 1 or s.value_warmup or s.value_explains < 1
        ):
            return (
                f"ppo.advantage {s.advantage!r} has no value head; ppo.gamma, ppo.lam, "
                "ppo.value_warmup and ppo.value_explains go with 'gae' alone"
            )
        case Ppo() if s.value_explains < 1 and (s.lam < 1 or s.gamma < 1):
            return (
                f"ppo.value_explains is {s.value_explains}: with ppo.lam or ppo.gamma below 1 the "
                "returns hold the values themselves, which these always explain; give it 1"
            )
        case Ppo() if s.value_explains < 1 and not s.value_warmup:
            return (
                f"ppo.value_explains is {s.value_explains}, and ppo.value_warmup 0: it ends a "
                "warm-up that there is none of; give ppo.value_warmup the most steps it may take"
            )
        case Distill() if bool(s.kl) != bool(s.kl_teacher):
            return (
                f"distill.kl is {s.kl} and distill.kl_teacher {s.kl_teacher!r}: a weight needs a "
                "teacher, and a teacher a weight"
            )
        case Distill() if s.reflect_steps < s.rounds:
            return (
                f"distill.reflect_steps is {s.reflect_steps}, fewer than distill.rounds "
                f"{s.rounds}: some rounds would learn nothing"
            )
        case Ppo() if s.prompts * s.samples == 1:
            return (
                "ppo.prompts and ppo.samples are 1: a reward is measured from those of other "
                "episodes, and there are none"
            )
        case Ppo() if s.value_warmup >= s.steps and s.value_explains == 1:
            return (
                f"ppo.value_warmup {s.value_warmup} is all of ppo.steps {s.steps}: the policy "
                "would never learn; lower it, or give ppo.value_explains"
            )
        case Distill() if s.minutes and s.eval_every:
            return (
                f"distill.minutes is {s.minutes:g} and distill.eval_every {s.eval_every}: the "
                "minutes are counted for training alone; give one of them 0"
            )
        case Distill() if s.enough < 1 and not s.eval_every:
            return (
                f"distill.enough is {s.enough}, and distill.eval_every 0: nothing measures when it "
                "is reached; give distill.eval_every the steps between two measurements"
            )
        case Ppo() if s.draws > 1 and s.samples < 2:
            return (
                f"ppo.draws is {s.draws}, and with one sample per task no two samples differ; "
                "ppo.samples must be at least 2"
            )
        case Think():
            for kind in s.counterfactuals.split(","):
                if kind and kind not in COUNTERFACTUALS:
                    return (
                        f"think.counterfactuals names {kind!r}; wanted some of "
                        f"{', '.join(COUNTERFACTUALS)}, with commas"
                    )
        case Sample() if "." in s.world:
            return (
                f"world is {s.world!r}, which is played by a command of its own (--case, --tools); "
                "wanted one of the worlds of worlds/__init__.py"
            )
        case Sample() if s.case and s.thinking.mode == "reason" and not s.think:
            return (
                "a case is played at once, without the heads; --thinking.mode reason needs --think "
                "beside --case"
            )
        case Config() if s.profile and not TRACE_WINDOW.fullmatch(s.profile):
            return (
                f"profile is {s.profile!r}; wanted first:count, such as 10:3 for this process's "
                "steps 10 to 12; the first is at least 2, since the profiler warms up in the one "
                "before"
            )
        case Config() if s.tensorboard and importlib.util.find_spec("tensorboard") is None:
            return "--tensorboard needs its package; pip install -e '.[tensorboard]'"
        case Config() if s.data.sequence > s.model.context:
            return (
                f"data.sequence {s.data.sequence} is over model.context {s.model.context}; "
                "shorten the one or lengthen the other"
            )
        case Config() if s.model.experts and s.train.compile == "on":
            return (
                f"train.compile is 'on' with {s.model.experts} experts (model.experts); a compiled "
                "step would send every token through all of them, since it cannot depend on where "
                "tokens go; set it to auto or off"
            )
        case Sample() if s.run and s.model:
            return "--model and --run name one thing, what is sampled; give either"
        case Sample() if s.picture and not s.show_gate:
            return "--picture draws the gate; add --show-gate"
        case Sample() if s.case and (s.world or s.tools or s.show_gate):
            return "--case brings its own task; leave --world, --tools and --show-gate out"
        case Sample() if not s.think and not s.case and any((s.world, s.tools, s.html, s.json)):
            return "--world, --tools, --html and --json belong to an agent that acts; add --think"
        case Sample() if s.world and s.tools:
            return "--world brings its own tools; give either --world or --tools"
        case Sample() if not s.prompt:
            return "--prompt is empty; give at least one character to continue"
    return ""


# ------------------------------------------------------------------------------------------------
# Files.


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean X?`, or the whole list where nothing is near."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else "known: " + ", ".join(known)


def from_file(path: str | Path) -> Config:
    """Settings from a file of plain Python values: `out`, and the sections of Config.

    The file is looked up from the current directory, then from the project's. Raises UserError with
    file and line.
    """
    found = next((p for p in (Path(path), ROOT / path) if p.is_file()), None)
    if found is None:
        files = [p for p in (ROOT / "config").glob("*.py") if p.name != "__init__.py"]
        known = sorted(str(p.relative_to(ROOT)) for p in files)
        raise UserError(f"no settings file {path}; {nearest(str(path), known)}")
    names: dict = {}
    try:
        exec(compile(found.read_text(), str(found), "exec"), names)
    except SyntaxError as error:
        raise UserError(
            f"{found}:{error.lineno}: not valid Python: {error.msg}; compare with config/toy.py"
        ) from None
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(found)]
        line = lines[-1] if lines else 0
        raise UserError(f"{found}:{line}: {_explained(error)}") from None
    given = {
        name: value
        for name, value in names.items()
        if not name.startswith("_") and not isinstance(value, (type, types.ModuleType))
    }
    known = sorted({setting.name for setting in fields(Config)} - {"resume", "dry_run", "stage"})
    for name in given:
        if name not in known:
            raise UserError(f"{found}: no section {name}; {nearest(name, known)}")
    config = Config(**given)
    validate(config)
    return config


def _explained(error: Exception) -> str:
    """One line for what a settings file raised; a misspelt setting with the nearest one."""
    misspelt = re.match(
        r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error)
    )
    if misspelt and is_dataclass(section := getattr(sections, misspelt[1], None)):
        known = [setting.name for setting in fields(section)]
        return f"{misspelt[1]} has no setting {misspelt[2]}; {nearest(misspelt[2], known)}"
    return f"{type(error).__name__}: {error}"


# ------------------------------------------------------------------------------------------------
# Settings as they are stored beside a run.


def flatten(stored: dict) -> dict:
    """Settings as asdict gives them, by their full names: {"out": ..., "model.width": ...}."""
    flat = {}
    for section, values in stored.items():
        if isinstance(values, dict):
            flat |= {f"{section}.{name}": value for name, value in values.items()}
        else:
            flat[section] = values
    return flat


def not_default(config: Config) -> list[str]:
    """The full names of all settings that are not at their defaults."""
    defaults = flatten(asdict(Config()))
    return [name for name, value in flatten(asdict(config)).items() if value != defaults[name]]


def from_dict(stored: dict) -> Config:
    """Settings that asdict wrote, perhaps in another version of the code: what it did not have is
    at its default, and what is gone is left out. Raises UserError for a damaged model section.
    """
    hints = typing.get_type_hints(Config)
    known = {name: stored[name] for name in hints if name in stored}
    for name, values in known.items():
        section = hints[name]
        if is_dataclass(section):
            settings = {setting.name for setting in fields(section)}
            known[name] = section(**{key: values[key] for key in values.keys() & settings})
    config = Config(**known)
    validate(config.model, "model.")
    return config


# ------------------------------------------------------------------------------------------------
# The command line.


def absolute(path: str) -> str:
    """A path that a user gave, absolute: from the current directory if it is there, else from the
    project's.
    """
    given = Path(path).expanduser()
    return str(given.resolve() if given.exists() else ROOT / given)


def shown_path(path: str | Path) -> str:
    """A path as a message shows it: within the project relative to it, else whole."""
    path = Path(path).absolute()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def absolute_model(name: str) -> str:
    """The absolute path of a model or tokenizer that a user gave: a folder or file, or the name of
    a published model, which is fetched where it is not there yet. Raises UserError.
    """
    path = absolute(name)
    if Path(path).exists() or "/" in name:
        return path
    return str(model_path(name).absolute())


def from_command_line(arguments: list[str] | None = None) -> Config:
    """Settings of a training script: an optional settings file first, then --section.setting value
    pairs that win over it.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    defaults = Config()
    if arguments and not arguments[0].startswith("-"):
        defaults = from_file(arguments[0])
        arguments = arguments[1:]
    try:
        config = tyro.cli(
            Config,
            default=defaults,
            args=arguments,
            description="Settings file first (config/toy.py), then any of these.",
            console_outputs=ranks.rank() == 0,
        )
    except SystemExit:  # --help, or an error
        ranks.gather(None)  # a rank that ended sooner would end the first before it has said why
        raise
    validate(config)
    remedy = "start all with the same command and the same settings file"
    ranks.check_alike("settings", flatten(asdict(config)), remedy)
    if config.data.path:
        config.data.path = absolute(config.data.path)
    if config.data.tokenizer != "toy":
        config.data.tokenizer = absolute_model(config.data.tokenizer)
    if config.train.start:
        config.train.start = absolute_model(config.train.start)
    if ranks.restarts():
        config.resume = True
    return replace(config, out=str(ROOT / Path(config.out).expanduser()))


def refuse_unread(config: Config, *, stages: tuple[str, ...] = (), plans: bool = False) -> None:
    """Raise UserError for --stage and --dry-run that the script would not read: it has these
    `stages`, and `plans` says whether it can plan a run instead of doing it.
    """
    if config.stage and config.stage not in stages:
        here = f"has {' and '.join(stages)}" if stages else "has no stages"
        raise UserError(
            f"--stage is {config.stage!r}, and this script {here}; distill and reflect are "
            "distill.py's, dpo and ppo rl.py's"
        )
    if config.dry_run and not plans:
        raise UserError("--dry-run is train.py's: this script trains, and plans nothing")


def sample_from_command_line(arguments: list[str] | None = None) -> Sample:
    """Settings of sample.py: --setting value pairs only."""
    sample = tyro.cli(Sample, args=arguments)
    validate(sample, "--")
    standard = "out/toy/sage" if sample.case else "out/toy/base"
    if sample.think:
        standard = "out/toy/thinking"
    return replace(sample, run=absolute_model(sample.model or sample.run or standard))


def benchmarks_from_command_line(arguments: list[str] | None = None) -> Benchmarks:
    """Settings of eval.py --tasks (benchmarks.py): --setting value pairs only."""
    asked = tyro.cli(Benchmarks, args=arguments)
    validate(asked, "--")
    return replace(asked, model=absolute_model(asked.model))


def run_script(main: Callable[[], None], many_ranks: bool = False) -> None:
    """Run a script's main; a user's mistake ends it with one line and exit status 1, Ctrl-C with
    130, `| head` and the loss of another rank quietly. Under torchrun only what is made for
    `many_ranks` runs.
    """
    try:
        if not many_ranks:
            ranks.refuse_many()
        main()
        ranks.stop()
    except BrokenPipeError:
        sys.stderr.close()
    except (UserError, OSError) as error:  # OSError: a disk that is full, a read-only folder
        says = ranks.is_first_to_say(str(error))
        end_with(f"error: {error}" if says else 1)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        end_with(130)
    except SystemExit as end:
        end_with(end.code)
    except RuntimeError as error:
        if not is_lost_rank_error(error):
            raise
        end_after_lost_rank(error)


def end_with(code: str | int | None) -> NoReturn:
    """End the script as SystemExit does: with an exit status, or a message and status 1."""
    if ranks.launched():
        ranks.end_before_teardown(1 if isinstance(code, str) else code or 0)
    raise SystemExit(code) from None
