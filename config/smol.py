"""SmolLM2: a published model of 135 million parameters becomes an agent in plain English.

    make agent                                   stage distill, in 45 minutes on two cores
    make agent MINUTES=10                        the same, shorter
    python distill.py config/smol.py --stage reflect            then rl.py, heads.py, as for the toy
    python sample.py --think --thinking.mode fast --model out/smol/distilled \\
        --tools examples/weather.py --prompt "..."

There is no base run: stage distill starts from the weights as they were published
(support/published.py), which answer in English and call no tool. Two cores train some 700 tokens
per second, so everything here is small, and the upper half of the blocks learns alone. On a GPU
--distill.steps, --distill.trained-blocks 0 and all tasks may grow.
"""

from config import Data, Distill, Dpo, Eval, Heads, Model, Ppo

out = "out/smol/base"  # the stages (distilled, reflected, safe, sage, thinking) lie beside it

# the shape comes with the weights; these two are landmark attention's
model = Model(window=4096, landmark_stride=64)
data = Data(tokenizer="smollm2")

_every_stage = dict(
    names="english",
    renamed=0.5,
    longer=0.5,
    babble=0.0,
    trained_blocks=15,
    play_dtype="products",
    compile="off",
    keep=1,
)

distill = Distill(
    **_every_stage,
    start="smollm2",
    worlds="library,library,library,sql,library,shell,library,safety",
    steps=4000,
    minutes=36,  # of training, so that environment, weights and tasks fit into 45 minutes
    # the weights come from AdamW; Muon's fixed-size steps are for matrices that start small
    optimizer="adamw",
    learning_rate=3e-4,
    weight_decay=0.0,
    warmup=0.03,
    batch=1,
    sequence=1536,
    # with one request per conversation the prompt is most of it, and only a seventh of the tokens
    # is taught
    requests=6,
    trajectories=4000,
    prompt_weight=0.0,
    correction=0.15,
    reflect_steps=250,
    reflect_rate=0.3,
    rounds=1,
    tasks=150,
    replay=2.0,
    log_every=10,
    save_every=100,
)
dpo = Dpo(
    **_every_stage,
    trajectories=300,
    replay_rows=1,
    sequence=1024,
    steps=60,
    batch=4,
    learning_rate=3e-5,
    pairs=240,  # as many as the steps take: reading them first is half of the stage's time
    worlds="library,sql,shell",
)
# the run on record began from rejection sampling (--ppo.start out/smol/rejection), two hours on two
# cores (docs/LOG.md, 2026-11-30)
ppo = Ppo(
    **_every_stage | dict(longer=0.0),
    sequence=1024,
    room=200,
    worlds="library",
    steps=40,
    prompts=24,
    samples=4,
    batch=4,
    advantage="rloo",
    epochs=1,
    minibatches=1,
    kl=0.0,
    learning_rate=5e-5,
    log_every=1,
    save_every=5,
)
# the heads on record (docs/CLAIMS.md, "The real model: thinking") learn by contrast, and from own
# episodes of the usual length without faults
heads = Heads(
    worlds="library,sql,library,safety",
    inverse="decoder",  # begins as a copy of the judged one, which reads English already
    # of the copied decoder, as in stage distill; the confidence head keeps Muon's rate: by AdamW
    # at 3e-4 it learnt nothing in 40 steps (docs/LOG.md)
    decoder_learning_rate=3e-4,
    weight_decay=0.0,
    # 300 taught the confidence head next to nothing; 1,000 taught it to tell what was made up
    # (AUROC 0.90; half an hour of playing on two cores; docs/LOG.md, 2026-11-30)
    tasks=1000,
    trajectories=300,
    solutions=300,
    validation=100,
    batch=16,
    sequence=1024,
    play_dtype="products",
    steps=150,
    save_every=30,
    keep=1,
)
eval = Eval(names="english", tasks=100, worlds="library,sql,shell,safety", batch=32)
