"""Reinforcement where there is something to gain: the toy on word problems, of which stage distill
solves half in words that it has not read (docs/LOG.md, 2026-11-30, "In other words").

    python train.py config/problems.py
    python distill.py config/problems.py --stage distill
    python rl.py config/problems.py --stage ppo
    python heads.py config/problems.py
    python bench/lineage.py out/problems/distilled out/problems/sage --model toy --names invented \\
        --worlds math,api --only worlds --sampled 300 --faulty 0 --room 384 --batch 128
"""

import dataclasses

from config import Distill, Heads
from config.toy import data, model, ppo, train

out = "out/problems/base"

# all steps, however slow the machine: what is compared from here on must not depend on its speed
train = dataclasses.replace(train, minutes=0)

distill = Distill(
    steps=2600,  # 8M tokens; with half as many fewer word problems succeed (docs/LOG.md)
    batch=6,
    sequence=512,
    muon_learning_rate=0.01,
    worlds="api,math",
    trajectories=32_000,
)
ppo = dataclasses.replace(
    ppo, start="out/problems/distilled", worlds="math", steps=80, save_every=20
)
heads = Heads(
    start="out/problems/distilled",
    worlds="math",  # where one sample is often wrong and another right
    tasks=2000,
    trajectories=450,
    # with 10,000 and 600 steps an earlier agent was not shown to gain by thinking: its inverse head
    # preferred a swapped operator to the right one in a quarter of the tasks (docs/LOG.md)
    solutions=20_000,
    # without, thinking is not shown to gain anything in wordings that the inverse head has not read
    contrast=10_000,
    steps=1600,
    decay=0.5,  # pairs come in the last half
    inverse="decoder",  # one block cannot tell a word problem again (docs/LOG.md, 2026-11-29)
)
