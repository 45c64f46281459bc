"""Qwen2.5-32B's shape, and a recipe for it. Not run by anyone yet: it needs more memory than one
device, and the sharded path is not built.

Where weights are loaded (--train.start), the folder's own config.json is what counts.
"""

from config import Data, DryRun, Model, Parallel, Train

out = "out/32b/base"

model = Model(
    vocab_size=152_064,
    width=5120,
    layers=64,
    heads=40,
    kv_heads=8,
    head_dim=128,
    feed_forward=27_648,
    context=131_072,
    rope_theta=1e6,
    norm_eps=1e-5,
    tied=False,
    window=4096,
    landmark_stride=64,
)
data = Data(
    tokenizer="models/Qwen2.5-32B",  # a folder with Qwen's tokenizer.json
    sequence=4096,
)
train = Train(
    steps=10_000,
    batch=4,
    accumulation=128,  # 4 × 128 × 4096 = 2.1M tokens per step, shared out over 8, 16 or 64 ranks
    optimizer="adamw",
    learning_rate=1.5e-4,
    warmup=0.01,
    decay=0.2,
    z_loss=1e-4,  # keeps bf16 logits from drifting in long runs
    log_every=1,
    eval_every=500,
    sample_every=0,  # a sample would gather all weights on each rank: 62 GiB
    save_every=500,
)
parallel = Parallel(
    activation_checkpointing="full",
    accumulate="sharded",  # a whole gradient is 125 GiB
)
plan = DryRun(ranks=16)
