"""Small: fourteen million parameters, the toy's whole lineage for one GPU. Not measured yet: no GPU
was at hand.

    python train.py config/small.py && python distill.py config/small.py
    python rl.py config/small.py && python eval.py config/small.py
"""

from config import Data, Distill, Dpo, Eval, Heads, Model, Ppo, Train

out = "out/small/base"

model = Model(
    vocab_size=1024,  # the toy's words: what grows is what stands behind them
    width=384,
    layers=8,
    heads=6,
    kv_heads=2,
    head_dim=64,  # the kernels' smallest
    feed_forward=1152,
    context=1024,
    previous_token=True,
)
data = Data(sequence=512)
train = Train(
    steps=1000,
    batch=64,  # 33k tokens per step: a GPU is busy only with many
    muon_learning_rate=0.005,
    eval_every=250,
)
distill = Distill(
    steps=1800,
    batch=32,
    sequence=512,
    muon_learning_rate=0.005,
    worlds="api,sql,api,shell,api,math,api,safety",
    trajectories=130_000,
    reflect_steps=300,
    rounds=2,
    tasks=1000,
)
dpo = Dpo(steps=100, batch=32)
ppo = Ppo(steps=60, prompts=32, samples=8, batch=128, replay_rows=4)
heads = Heads(worlds="api,sql,api,shell,math,safety", tasks=3000)
eval = Eval(tasks=300, batch=600)
