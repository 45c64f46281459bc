r"""Qwen2.5-0.5B's shape: from its weights on one GPU, or from scratch without --train.start.

    python train.py config/05b.py --train.start ~/models/Qwen2.5-0.5B \
        --data.tokenizer ~/models/Qwen2.5-0.5B --data.path ~/text
    python distill.py config/05b.py --stage distill --distill.start ~/models/Qwen2.5-0.5B \
        --data.tokenizer ~/models/Qwen2.5-0.5B

Of one GPU train.py's dry run (--dry-run) asks 45 GiB, of which 37.5 are live; bench/gpu.py's single
step of this shape took 34 on an H100 (docs/BENCH.md). On 24 GiB:
--parallel.activation-checkpointing selective (22). Neither script has been run with it on a GPU.

Post-training's rates and sizes are usual ones for a model of this size; they have not been tried.
"""

from config import Data, Distill, Dpo, DryRun, Model, Ppo, Train

out = "out/05b/base"

model = Model(
    vocab_size=151_936,
    width=896,
    layers=24,
    heads=14,
    kv_heads=2,
    head_dim=64,
    feed_forward=4864,
    context=32_768,
    rope_theta=1e6,
    norm_eps=1e-6,
    tied=True,
    window=4096,
    landmark_stride=64,
)
data = Data(
    tokenizer="models/Qwen2.5-0.5B",  # a folder with Qwen's tokenizer.json
    sequence=4096,
)
train = Train(
    steps=10_000,
    batch=4,
    accumulation=32,  # 4 × 32 × 4096 = 524k tokens per step, as GPT-3 of this size
    optimizer="adamw",
    learning_rate=6e-4,
    warmup=0.01,
    decay=0.2,
    z_loss=1e-4,  # keeps bf16 logits from drifting in long runs
    log_every=1,
    eval_every=500,
    sample_every=1000,
    save_every=500,
)
distill = Distill(
    # the weights come from AdamW; Muon's fixed-size steps are for matrices that start small
    optimizer="adamw",
    learning_rate=1e-5,
    steps=2000,
    batch=8,
    sequence=2048,
    trajectories=20_000,
)
dpo = Dpo(learning_rate=1e-6, batch=16, sequence=1024)
ppo = Ppo(learning_rate=1e-6, prompts=24, room=1024, sequence=3072, replay_rows=4)
plan = DryRun(ranks=1)
