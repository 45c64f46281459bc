"""lm-eval's side of bench/harness.py: a process of its own, since EleutherAI's harness lives in an
environment of its own.

Evaluates tasks that are there as files with a model that is there as a folder, in float32,
greedily, without a network. Writes to ANSWERS, as JSON, {task: [row, ...]} with a row per question
and filter: what lm-eval logs of it, and the tokens of its prompt and continuations by lm-eval's own
encoders. Requests that were answered are kept beside ANSWERS: what was stopped goes on there.

    ENVIRONMENT/bin/python bench/harness_worker.py WEIGHTS TASK_FOLDER ANSWERS BATCH TASK...
"""

import json
import os
import sys
from pathlib import Path

os.environ |= dict(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

from lm_eval import __version__, simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager


def tokens_of(lm: HFLM, sample: dict) -> dict:
    """The tokens that lm-eval makes of a question's requests."""
    requests = sample["arguments"]
    if isinstance(requests[0][1], dict):  # generation: a prompt and its settings
        tokens, _ = lm.tok_batch_encode([requests[0][0]])
        return dict(prompt=tokens[0].tolist())
    pairs = [lm._encode_pair(*request[:2]) for request in requests]
    return dict(prompt=pairs[0][0], continuations=[continuation for _, continuation in pairs])


def main() -> None:
    weights, folder, answers, batch, *tasks = sys.argv[1:]
    lm = HFLM(pretrained=weights, dtype="float32", device="cpu", batch_size=int(batch))
    found = {}
    for task in tasks:
        results = simple_evaluate(
            model=lm,
            tasks=[task],
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            use_cache=str(Path(answers).with_suffix("")),
            bootstrap_iters=0,
        )
        found[task] = []
        for sample in results["samples"][task]:
            kept = ("doc", "target", "filter", "resps", "filtered_resps", *sample["metrics"])
            row = {key: sample[key] for key in kept}
            found[task].append(row | dict(tokens=tokens_of(lm, sample)))
        Path(answers).write_text(json.dumps(dict(version=__version__, tasks=found)))


if __name__ == "__main__":
    main()
