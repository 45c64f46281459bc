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
    steps=3000,  # stage distill: 9M tokens
    batch=6,
    sequence=512,  # a failed attempt and its revision fit
    muon_learning_rate=0.01,
    # unseen tools and word problems are the hardest to learn. Of the latter it then solves half in
    # training's words and a third in others, so that the stages after it can gain
    worlds="api,math,sql,math,api,shell,math,api,math,safety",
    trajectories=36_000,
    reflect_steps=400,
    rounds=2,
    # with eight times as many of the expert's episodes some 350k tokens, which a round sees not
    # quite twice
    tasks=200,
)
dpo = Dpo(steps=100)
ppo = Ppo(
    steps=40,
    # where a task goes right every time there is nothing to learn; without API tasks those, which
    # go right in two of three, are forgotten (docs/CLAIMS.md)
    worlds="math,math,math,api",
    prompts=64,  # new ones in every step: the same few again are learnt by heart
    samples=8,
    advantage="rloo",  # no value head: in earlier runs it explained nothing
    # 1e-4 is slower; at 1e-3, with API tasks in the mix, success fell within ten steps
    learning_rate=3e-4,
    epochs=1,  # one step per batch: the ratio is 1, and nothing is ever clipped
    minibatches=1,
    mean="token",
    kl=0.0,
    log_every=2,
)
heads = Heads(
    worlds="api,sql,api,shell,math,safety",  # unseen tools fail most often, so twice
    tasks=3000,  # AUROC of success on API tasks 0.78 with 1200, 0.82 with 3000 (docs/LOG.md)
    trajectories=900,
    solutions=6000,  # the inverse head is slow to learn
)
eval = Eval(tasks=300, batch=128)
