r"""Qwen2.5-32B's shape on 16 GPUs of 80 GiB or more. Planned with --dry-run, not run by anyone yet.

    python train.py config/32b.py --dry-run --plan.ranks 64
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \
        train.py config/32b.py

What the dry run says of 4 × 4096 tokens in each pass, in whole GiB: live on each GPU at the peak,
and with what it assumes for the allocator's gaps, NCCL and CUDA; tokens/s at an assumed MFU of 40%
of 989 TFLOP/s.

    ranks    live    assumed                                        tokens/s
        8      87        102    too large for 80 GiB, fits 141        15,215
       16      55         66    fits 80                               30,429
       64      32         39    fits 80                              121,716

On 8 GPUs of 80 GiB nothing helps but --parallel.offload (with --train.batch 1 about 20 GiB, and 63
per rank in the host's memory): even 1 × 4096 needs 87.

Long rows, on 64 ranks: 32k fits 80 GiB (56); 128k needs 176, which no GPU here has, since a row is
not shared out over ranks (context parallelism).

    python train.py config/32b.py --dry-run --plan.ranks 64 --data.sequence 32768 \
        --train.batch 1 --train.accumulation 64

Where weights are loaded (--train.start), the folder's own config.json is what counts.
"""

from config import Data, Distill, Dpo, DryRun, Model, Parallel, Ppo, Train

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
# small steps for published weights, as in config/05b.py; tried by no one yet
distill = Distill(
    optimizer="adamw", learning_rate=1e-5, steps=2000, batch=8, sequence=2048, trajectories=20_000
)
dpo = Dpo(learning_rate=1e-6, batch=16, sequence=1024)
ppo = Ppo(learning_rate=1e-6, prompts=24, room=1024, sequence=3072, replay_rows=4)
parallel = Parallel(
    activation_checkpointing="full",
    accumulate="sharded",  # a whole gradient is 125 GiB
)
plan = DryRun(ranks=16)
