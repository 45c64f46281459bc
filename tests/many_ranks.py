"""Every training script on a tiny model, one after the other in one process; test_parallel.py runs
this alone and under torchrun, with as many ranks as it likes.

    python tests/many_ranks.py FOLDER [case ...]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import distill
import heads
import labelled_steps
from support import ranks
import rl
import train

SETTINGS = Path(__file__).with_name("many_ranks_settings.py")
CASES = {  # a script's main, and its options beside the settings file
    "plain": (train.main, ""),
    "one_pass": (train.main, "--train.accumulation 4 --train.batch 1 --model.window 16"),
    "untied": (train.main, "--model.no-tied --parallel.accumulate sharded"),
    "selective": (train.main, "--parallel.activation-checkpointing selective --parallel.offload"),
    "full": (train.main, "--parallel.activation-checkpointing full --model.no-tied"),
    "experts": (train.main, "--model.experts 4 --parallel.activation-checkpointing full"),
    "muon": (train.main, "--train.optimizer muon"),
    "distilled": (distill.main, "--stage distill"),
    "reflected": (distill.main, "--stage reflect"),
    # validation tasks end it: its rates fall from the first step on
    "enough": (
        distill.main,
        "--stage distill --distill.name enough --distill.eval-every 1 --distill.eval-tasks 2 "
        "--distill.enough 0",
    ),
    "safe": (rl.main, "--stage dpo"),
    "sage": (rl.main, "--stage ppo"),
    "group": (rl.main, "--stage ppo --ppo.advantage group --ppo.name group --ppo.replay-rows 0"),
    "thinking": (heads.main, ""),
}
PRETRAINING = [name for name, (main, _) in CASES.items() if main is train.main]
contrast_pairs = labelled_steps.contrast_pairs


def alternating_pairs(samples: list[dict]) -> list[dict]:
    """Pairs as if every second sample were right: this agent's hardly ever are."""
    return contrast_pairs([row | dict(verified=n % 2 == 0) for n, row in enumerate(samples)])


def run(folder: Path, name: str) -> None:
    main, options = CASES[name]
    out = folder / (name if name in PRETRAINING else "base")
    sys.argv = ["", str(SETTINGS), "--out", str(out), *options.split()]
    main()


if __name__ == "__main__":
    labelled_steps.contrast_pairs = alternating_pairs
    folder = Path(sys.argv[1])
    for name in sys.argv[2:] or CASES:
        run(folder, name)
    ranks.stop()
