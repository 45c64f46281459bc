"""A tiny model and a few steps of every stage, each step in the log; see many_ranks.py."""

import os

from config import Data, Distill, Dpo, Heads, Model, Ppo, Train

_learnt = os.environ.get("SAGE_LEARNT", "")  # the run of an agent that acts
_common = dict(dtype="float32", compile="off", optimizer="adamw", log_every=1, save_every=0)
_common["seed"] = int(os.environ.get("SAGE_SEED", 1337))
_stage = dict(worlds="api,math", start=_learnt, **_common)
model = Model(
    vocab_size=1024,
    width=32,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=8,
    feed_forward=52,
    context=640,
    previous_token=True,
)
data = Data(sequence=64, path=os.environ.get("SAGE_TEXT", ""))
train = Train(
    steps=10, batch=2, accumulation=4, eval_every=5, eval_batches=3, sample_every=0, **_common
)
distill = Distill(
    steps=10,
    batch=5,
    trajectories=40,
    reflect_start=_learnt,
    reflect_steps=4,
    rounds=1,
    tasks=6,
    tries=1,
    replay=4.0,
    **_stage,
)
dpo = Dpo(steps=10, batch=5, pairs=30, trajectories=20, replay_rows=3, **_stage)
ppo = Ppo(
    steps=3,
    batch=2,
    prompts=6,
    samples=3,
    room=60,
    trajectories=20,
    replay_rows=3,
    stop_kl=9.0,
    malformed=-0.5,
    **_stage,
)
heads = Heads(
    steps=3,
    tasks=12,
    trajectories=6,
    validation=12,
    batch=12,
    room=250,
    eval_every=2,
    inverse="decoder",
    decay=0.7,
    contrast=20,
    **_stage,
)
