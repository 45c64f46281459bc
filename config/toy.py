"""The toy: about a million parameters learn Python's standard library on two CPU cores in under
five minutes, then to act.

python train.py config/toy.py       the base model
make sage                           the whole lineage: base → distilled → reflected → safe → sage
"""

from config import Data, Distill, Dpo, Eval, Heads, Model, Ppo, Train

out = "out/toy/base"  # the later stages (distilled, reflected, safe, sage) lie beside it

model = Model(
    # short words only, but a small head: at this width a 50k vocabulary would be 94% of the model
    vocab_size=1024,
    width=128,
    layers=4,
    heads=4,
    kv_heads=2,  # two query heads to a key head, so that the grouped path is exercised
    head_dim=32,
    feed_forward=384,
    context=1024,  # an agent's episode with its tool schemas fits
    # tiny models learn to copy many times sooner; exactly off in every Qwen shape
    previous_token=True,
)
data = Data(
    path="",  # this Python's own standard library
    sequence=256,
)
train = Train(
    steps=1200,  # 2.5M tokens, over half of the standard library
    # small steps and many of them: 1.815 bits per byte where 16 gave 1.857 after equal tokens
    # (docs/LOG.md)
    batch=8,
    muon_learning_rate=0.005,  # 1.51 bits per byte; 0.01 gave 1.57, 0.02 1.63 (docs/LOG.md)
    eval_every=200,
    minutes=4.4,  # on a slow machine fewer steps, and the rates' plan shrinks with them
    # measured: costs the loss nothing, and without it the classifier does not learn what prose
    # is (docs/LOG.md)
    prose_weight=1.0,
)
distill = Distill(
    steps=3900,  # stage distill: 12M tokens
    batch=6,
    sequence=512,  # a failed attempt and its revision fit
    muon_learning_rate=0.01,
    # unseen tools are the hardest to learn: half of all episodes
    worlds="api,sql,api,math,api,shell,api,math,api,safety",
    trajectories=48_000,
    reflect_steps=400,
    rounds=2,
    # with eight times as many of the expert's episodes some 350k tokens, which a round sees not
    # quite twice
    tasks=200,
)
dpo = Dpo(steps=100)
ppo = Ppo(
    steps=40,
    prompts=16,
    samples=8,
    replay_rows=4,  # with so few tasks in a step the policy forgets without them (docs/LOG.md)
    # elsewhere most tasks go right every time, which teaches nothing
    worlds="api,sql,api,shell,api,safety",
)
heads = Heads(
    worlds="api,sql,api,shell,math,safety",  # unseen tools fail most often, so twice
    tasks=3000,  # AUROC of success on API tasks 0.78 with 1200, 0.82 with 3000 (docs/LOG.md)
    trajectories=900,
    solutions=6000,  # the inverse head is slow to learn
)
eval = Eval(tasks=300, batch=128)
