r"""Qwen2.5-7B's shape on 8 GPUs or more. Planned with --dry-run, not run by anyone yet.

    python train.py config/7b.py --dry-run --plan.ranks 16
    torchrun --nproc-per-node 8 train.py config/7b.py

What the dry run says of 4 × 4096 tokens in each pass, in whole GiB: live on each GPU at the peak,
and with what it assumes for the allocator's gaps, NCCL and CUDA; tokens/s at an assumed MFU of 40%
of 989 TFLOP/s.

    ranks    live    assumed               tokens/s
        8      40         48    fits 80      66,832
       16      32         39    fits 80     133,665
       64      26         32    fits 80     534,660

Long rows, on 8 ranks: 32k fits 80 GiB (43), 128k 141 (99).

    python train.py config/7b.py --dry-run --plan.memory 141 --data.sequence 131072 \
        --train.batch 1 --train.accumulation 16 --parallel.activation-checkpointing full

Where weights are loaded (--train.start), the folder's own config.json is what counts.
"""

from config import Data, Distill, Dpo, DryRun, Model, Parallel, Ppo, Train

out = "out/7b/base"

model = Model(
    vocab_size=152_064,
    width=3584,
    layers=28,
    heads=28,
    kv_heads=4,
    head_dim=128,
    feed_forward=18_944,
    context=131_072,
    rope_theta=1e6,
    norm_eps=1e-6,
    tied=False,
    window=4096,
    landmark_stride=64,
)
data = Data(
    tokenizer="models/Qwen2.5-7B",  # a folder with Qwen's tokenizer.json
    sequence=4096,
)
train = Train(
    steps=10_000,
    batch=4,
    accumulation=128,  # 4 × 128 × 4096 = 2.1M tokens per step, shared out over 8, 16 or 64 ranks
    optimizer="adamw",
    learning_rate=3e-4,
    warmup=0.01,
    decay=0.2,
    z_loss=1e-4,  # keeps bf16 logits from drifting in long runs
    log_every=1,
    eval_every=500,
    sample_every=1000,
    save_every=500,
)
# small steps for published weights, as in config/05b.py; tried by no one yet
distill = Distill(
    optimizer="adamw", learning_rate=1e-5, steps=2000, batch=8, sequence=2048, trajectories=20_000
)
dpo = Dpo(learning_rate=1e-6, batch=16, sequence=1024)
ppo = Ppo(learning_rate=1e-6, prompts=24, room=1024, sequence=3072, replay_rows=4)
parallel = Parallel(
    activation_checkpointing="selective",  # 80 GiB are too few for "none" at this batch
    accumulate="sharded",  # a whole gradient is 30 GiB
)
plan = DryRun(ranks=8)
