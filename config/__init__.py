"""Every setting of the project: its range, its default, and the reason for it.

A settings file fills these sections in (config/toy.py is the one to read), and the command line,
which comes after it, wins:

    python train.py config/toy.py --train.steps 500 --data.path ~/notes

Files and command lines are read and checked by support/settings.py; `--help` shows these comments.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple


class UserError(Exception):
    """A mistake of the user's, in one line: what was found, what was wanted, and what to do.

    Scripts print it and exit with status 1.
    """


class Range(NamedTuple):
    """The numbers that a setting may be."""

    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None


Positive = Annotated[int, Range(at_least=1)]
Length = Annotated[int, Range(at_least=2)]  # of a sequence: one token and the one it predicts
Natural = Annotated[int, Range(at_least=0)]
Seed = Annotated[int, Range(at_least=0, at_most=2**32 - 1)]
NonNegative = Annotated[float, Range(at_least=0)]
AboveZero = Annotated[float, Range(above=0)]
Share = Annotated[float, Range(at_least=0, at_most=1)]
Names = Literal["invented", "english"]  # whose words tasks are made of (worlds/difficulty.py)
# how long and how crowded tasks are (worlds/difficulty.py)
Rung = Literal["standard", "easy", "middle", "hard", "up-to-middle", "up-to-hard"]
OpenShare = Annotated[float, Range(above=0, below=1)]
Beta = Annotated[float, Range(at_least=0, below=1)]


@dataclass
class Model:
    """The decoder's shape. The defaults are a toy's; Qwen2.5's are in support/qwen_sizes.py."""

    # whose block: Qwen2's has biases on q, k and v, Qwen3's a norm of each query and key, Llama's
    # and Mistral's neither; also the name under which transformers opens an export
    family: Literal["qwen2", "qwen3", "llama", "mistral"] = "qwen2"

    vocab_size: Positive = 1024  # rows of the embedding; at least the tokenizer's tokens
    width: Positive = 128  # D, the residual stream
    layers: Positive = 4  # L, blocks
    heads: Positive = 4  # H, query heads
    kv_heads: Positive = 2  # K, key and value heads; each serves H/K query heads
    head_dim: Positive = 32  # d, of one head; even, since rotary embedding turns pairs
    feed_forward: Positive = 384  # F, SwiGLU's inner width; 3·D costs slightly more than GELU's 4·D
    context: Positive = 1024  # longest sequence the model promises to handle, in tokens
    rope_theta: AboveZero = 10_000.0  # base of the rotary wavelengths; Qwen2.5 uses 1e6
    # for texts beyond the context of pretraining: long wavelengths are stretched, as in Llama 3.1
    # or by YaRN (arXiv:2309.00071)
    rope_scaling: Literal["none", "llama3", "yarn"] = "none"
    rope_factor: Annotated[float, Range(at_least=1)] = 1.0  # by how much
    rope_context: Positive = 8192  # tokens of the context of pretraining
    # turns within that context: pairs with fewer are stretched, with more stay as they are, those
    # between are blended; Llama 3.1 has 1 and 4, YaRN 1 and 32
    rope_low: AboveZero = 1.0
    rope_high: AboveZero = 4.0
    rope_gain: AboveZero = 1.0  # multiplies cos and sin: YaRN's attention factor
    norm_eps: AboveZero = 1e-5  # equation 2's ε, inside the root
    tied: bool = True  # output matrix = E_text, as in Qwen2.5 up to 3B; large models have their own
    # landmark attention's W and k: a token attends to the last W tokens, itself included, and to
    # every k-th token before them
    window: Positive = 4096
    landmark_stride: Positive = 64
    embedding: Literal["split", "plain"] = "split"  # equation 4, or one matrix as everywhere else
    prose_width: Positive = 8  # dimensions of the split embedding's light classifier
    prose_kernel: Positive = 4  # how many last token IDs that classifier sees
    # smear each key with the one before it: tiny models learn to copy sooner; Qwen has none
    previous_token: bool = False
    activation: Literal["swiglu", "gelu"] = "swiglu"  # equation 3, or GPT-2's, for the baseline
    norm: Literal["rms", "layer"] = "rms"  # equation 2, or GPT-2's, for the baseline
    # N, experts in place of each feed-forward (A.3, moe.py); 0: none, as in SAGE-32B and Qwen2.5
    experts: Natural = 0
    experts_per_token: Positive = 2  # k, how many of them each token takes

    @property
    def strides(self) -> list[int]:
        """The landmark stride of each layer: all that asks for a stride asks here."""
        return [self.landmark_stride] * self.layers


@dataclass
class Data:
    """What is read."""

    path: str = ""  # a text file or a folder of them; empty: this Python's standard library
    # "toy" (config/toy.bpe), a folder with a tokenizer.json, a .gguf file, or smollm2
    tokenizer: str = "toy"
    sequence: Length = 256  # T, tokens of one training example
    validation: OpenShare = 0.05  # share of the files held out, chosen by a hash of their names
    max_bytes: Natural = 0  # stop reading after so many bytes of text; 0: read all


@dataclass
class Loop:
    """What every training loop takes: optimiser, schedule, logging and checkpoint intervals."""

    steps: Positive = 2000  # optimiser steps
    batch: Positive = 16  # B, rows of tokens in one forward pass
    optimizer: Literal["muon", "adamw"] = "muon"  # Muon for matrices, AdamW for the rest; or AdamW
    learning_rate: NonNegative = 3e-3  # AdamW's peak
    muon_learning_rate: NonNegative = 0.02  # Muon's peak; larger, since its updates have fixed size
    weight_decay: NonNegative = 0.1  # of matrices only; not of gains, biases and the gate
    beta1: Beta = 0.9  # AdamW's momentum
    beta2: Beta = 0.95  # AdamW's second moment; shorter than 0.999 since runs are short
    clip: AboveZero = 1.0  # largest gradient norm
    warmup: NonNegative = 0.02  # share of the steps with a rising rate
    decay: NonNegative = 0.3  # share, at the end, with a falling rate (Warmup-Stable-Decay)
    final: NonNegative = 0.05  # the rate at the very end, as a share of the peak
    # of the matrix products, weights stay float32; auto: whichever is faster here
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    # torch.compile of the loss, by train.py and distill.py; under torchrun of every stage's blocks.
    # auto: if there is a C++ compiler and ≥ 500 steps to repay it
    compile: Literal["auto", "on", "off"] = "auto"
    seed: Seed = 1337  # of the weights, the data and its order
    log_every: Positive = 20  # steps between log lines
    save_every: Natural = 500  # steps between checkpoints; 0: only the last
    keep: Positive = 2  # checkpoints kept
    device: str = "auto"  # auto: a GPU if there is one


@dataclass
class Train(Loop):
    """How train.py learns."""

    # published weights (a folder, a .gguf file, smollm2), whose shape replaces the model section;
    # empty: random weights
    start: str = ""
    accumulation: Positive = 1  # forward passes per optimiser step
    z_loss: NonNegative = 0.0  # weight of (log Σ exp logits)²: logits drift less in long bf16 runs
    # weight of the split embedding's weak labels (code or prose, from Python's own tokenizer)
    prose_weight: NonNegative = 1.0
    # with model.experts: weight of the balance loss of each layer; Switch Transformer's
    balance_weight: NonNegative = 0.01
    # with model.experts: weight of the routers' z-loss of each layer, ST-MoE's; and the share of
    # the steps over which it rises to that (A.3's "Warmup-Z-Loss")
    router_z_loss: NonNegative = 0.001
    router_z_warmup: Share = 0.1
    # plan fewer steps where the machine is too slow for all in this time, start included; 0: never
    minutes: NonNegative = 0.0
    eval_every: Positive = 500  # steps between validations
    eval_batches: Positive = 20  # batches per validation; the last one reads all that is held out
    sample_every: Natural = 500  # steps between samples; 0: none


@dataclass
class Parallel:
    """How a model is placed on devices (parallel.py): changes memory and speed, not results."""

    # none: keep all activations; selective: recompute the feed-forward's wide products, keep
    # attention and what is no wider than the residual stream; full: keep each block's input alone
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    # under torchrun: keep parameters, gradients and optimiser state in the CPU's memory
    offload: bool = False
    # under torchrun, where a rank makes several passes per step of train.py: every rank keeps a
    # whole gradient (4 bytes per parameter) and ranks sum once, or they sum after each pass and
    # keep 1/W of it
    accumulate: Literal["whole", "sharded"] = "whole"


@dataclass
class DryRun:
    """What --dry-run plans for (support/plan.py)."""

    ranks: Positive = 1  # W, GPUs; each is one rank
    memory: AboveZero = 80.0  # GiB per GPU: 80 for an H100, 141 for an H200
    tflops: AboveZero = 989.0  # each GPU's published peak in bfloat16, TFLOP/s
    # assumed share of that peak that training reaches; torchtitan's 32B reaches 39% on 8 H100s
    mfu: Annotated[float, Range(above=0, at_most=1)] = 0.4
    tokens: NonNegative = 0.0  # to train on, such as 1e12; 0: as many as train.steps take


@dataclass
class Tuning(Loop):
    """What every stage after pretraining takes beside Loop's settings; heads.py does not."""

    # only the last so many blocks and the norm behind them learn; 0: everything. With half of them
    # SmolLM2 trained on 1.75 × the tokens per second (docs/LOG.md)
    trained_blocks: Natural = 0
    # dtype of the weights while they play episodes (reflect, ppo): float32, as training keeps them,
    # or that of its matrix products, which halves the bytes read per token; under torchrun always
    # the latter
    play_dtype: Literal["float32", "products"] = "float32"
    # -- the tasks that are played, taught or replayed (worlds/difficulty.py)
    # names of tools, tables, files and people: made of syllables, or real, with English requests
    names: Names = "invented"
    rung: Rung = "standard"  # of the ladder of difficulty
    # share of the library world's tasks whose tools and arguments have other names than their own,
    # so that names are read and not remembered (docs/LOG.md)
    renamed: Share = 0.0
    # chance, call after call, that a task needs one more, from its rung's fewest to its most
    longer: Share = 0.25
    # share of episodes in which a tool fails on purpose, once, or twice at the rung hard
    fault_rate: Share = 0.3
    # of faults in training; one kind each is held out for validation and test
    fault_kinds: str = "timeout,locked,renamed,moved,type,incomplete"
    # share of fault messages, and of requests' sentences where names are invented, that are what
    # counts among words that mean nothing there, so that names, schemas and relations are read and
    # no phrases (worlds/splits.py; docs/LOG.md, 2026-11-27 and -30)
    babble: Share = 0.5


@dataclass
class Distill(Tuning):
    """How distill.py teaches, from the teacher and from the student's failures (Algorithm 1)."""

    batch: Positive = 8
    # of stage distill: plan fewer steps where this machine is too slow for all of them; 0: never
    minutes: NonNegative = 0.0
    # T of a packed row; an episode of the toy worlds has 90 to 360 tokens, a revision both attempts
    sequence: Length = 512
    worlds: str = "all"  # drawn in turn; or names of worlds/__init__.py with commas
    # teacher episodes of stage distill; drawn fresh, seen about once or twice
    trajectories: Positive = 40_000
    # stage distill: requests in one conversation, where a world has several for the same tools
    requests: Positive = 1
    # stage distill: read teacher episodes from this file of teacher.py instead of drawing them
    file: str = ""
    # share of episodes with a correction: a wrong call is shown, its fault named and the right call
    # given
    correction: Share = 0.3
    # stage distill: steps between plays of validation tasks, sampled, whose success and entropy go
    # to the log; 0: none
    eval_every: Natural = 0
    eval_tasks: Positive = 100  # of each world
    # the mean success of those worlds at which the rates begin to fall at once (which adds to it):
    # reinforcement explores with the entropy that is left; 1: only where every task succeeds
    enough: Share = 1.0
    # of the loss on the user's and the tools' words, outside equation 5; 0 masks them exactly
    prompt_weight: NonNegative = 0.1
    # chance that the teacher, where it makes calls, gets one wrong
    # (masked), is corrected by the check, and gets it right; a tenth of the toy's episodes have one
    slips: Share = 0.15
    reflect_steps: Positive = 600  # optimiser steps of stage reflect, shared evenly by its rounds
    # of the peak rates, in stage reflect: at the full ones a round undoes what stage distill's
    # decay had settled (docs/LOG.md)
    reflect_rate: NonNegative = 0.2
    rounds: Positive = 2  # of Algorithm 1; each samples from the student that the last one left
    tasks: Positive = 750  # tasks sampled in a round
    tries: Natural = 2  # K, revisions a failed task gets before the teacher writes its own
    # learn from failed attempts, too; without them it is rejection sampling, the control
    failures: bool = True
    critique_weight: NonNegative = 0.5  # η of equation 5, weight of the critique's own words
    # weight of revising the first wrong step alone, given only which part of it is wrong (as
    # think.py asks for it); 0: none
    step_weight: NonNegative = 1.0
    # teacher's episodes mixed in, per task of a round; with fewer the student forgets more than it
    # gains on unseen names (docs/LOG.md)
    replay: NonNegative = 8.0
    kl: NonNegative = 0.0  # weight of KL(teacher ‖ student) over all logits, given `kl_teacher`
    # a run, or published weights of the same vocabulary, whose logits are distilled
    kl_teacher: str = ""
    # the run, or the published weights, to start from; empty: the stage before, beside `out`
    start: str = ""  # of stage distill
    reflect_start: str = ""  # of stage reflect
    name: str = ""  # the folder to write, beside `out`; empty: distilled, reflected


@dataclass
class Dpo(Tuning):
    """How rl.py's stage dpo learns from preferences what to refuse, and what not to."""

    steps: Positive = 150
    batch: Positive = 16  # pairs in one step
    # Muon's steps have a fixed size; preferences need small ones
    optimizer: Literal["muon", "adamw"] = "adamw"
    learning_rate: NonNegative = 1e-4
    weight_decay: NonNegative = 0.0  # the model is to stay near the one before it, not near zero
    pairs: Positive = 2000  # preference pairs of the safety world, half about benign requests
    # β, the paper's; with 0 only the two terms below teach: the supervised control
    beta: NonNegative = 0.1
    # weight of the chosen message's cross-entropy, which keeps it likely while the rejected falls
    nll: NonNegative = 0.1
    # of the teacher's episodes that are replayed, so that acting is not forgotten
    worlds: str = "all but safety"
    trajectories: Positive = 1000  # of them
    replay: NonNegative = 1.0  # weight of their cross-entropy
    replay_rows: Natural = 4  # rows of them in one step; 0: none
    # T of a packed row of them; pairs longer than this are left out
    sequence: Length = 384
    log_every: Positive = 10
    start: str = ""  # the run to start from; empty: reflected, beside `out`
    name: str = ""  # the folder to write, beside `out`; empty: safe


@dataclass
class Ppo(Tuning):
    """How rl.py's stage ppo learns from execution (the paper's CodePPO)."""

    steps: Positive = 150  # each draws `prompts` × `samples` episodes
    batch: Positive = 32  # packed rows in one forward pass; a step's gradient is summed over all
    # Muon's steps have a fixed size, however small the advantages
    optimizer: Literal["muon", "adamw"] = "adamw"
    # of the toy: 1e-4 moves nothing that can be measured; with 16 tasks in a step this destroys the
    # policy unless the teacher's episodes are replayed (docs/LOG.md)
    learning_rate: NonNegative = 3e-4
    weight_decay: NonNegative = 0.0  # the reference policy is what to stay near, not zero
    beta2: Beta = 0.99  # gradients of a few hundred episodes scatter
    warmup: NonNegative = 0.05
    decay: NonNegative = 0.2
    worlds: str = "all but math"  # drawn in turn
    prompts: Positive = 64  # tasks in one step; with fewer than 16 its gradient is mostly noise
    samples: Positive = 8  # episodes of each task
    # dynamic sampling (DAPO): up to so many draws of `prompts` tasks, until as many tasks have
    # samples that differ in reward; 1: off
    draws: Positive = 1
    tasks: Natural = 0  # different tasks, which then come again; 0: every task is a new one
    temperature: AboveZero = 1.0  # of the sampler, and of the log-probabilities of what it drew
    room: Positive = 384  # tokens that an episode may add to its prompt
    # longer episodes are left out; with prompts up to 256 and `room` there are none
    sequence: Length = 640
    # reward of an episode that ends with a call that does not parse or names no tool
    malformed: float = -1.0
    invented: float = -0.5  # reward of each invented argument
    # refused calls until the episode ends; long failing episodes would dominate the loss
    tolerance: Positive = 2
    # gae: a value head and token-level GAE; rloo: each reward less the mean of its task's other
    # samples; group: (reward − mean)/deviation over all of the task's samples (GRPO)
    advantage: Literal["gae", "rloo", "group"] = "gae"
    # with gae: at most so many first steps in which the value head learns alone …
    value_warmup: Natural = 0
    # … until it explains this share of the returns' variance. Of returns less their task's other
    # samples (`baseline`) it can only explain what tells these apart
    value_explains: Share = 1.0
    # what is subtracted from a reward: the mean of its task's other samples, or of the step's other
    # episodes (always so with one sample; docs/LOG.md)
    baseline: Literal["task", "batch"] = "task"
    # with gae: a reward that comes at the end is worth as much at the beginning
    gamma: Share = 1.0
    # with gae, its λ: 1 trusts the reward alone; the smaller, the more the value head
    lam: Share = 1.0
    mean: Literal["sequence", "token"] = "sequence"  # each episode counts the same, or each token
    epochs: Positive = 2  # passes over a step's episodes
    minibatches: Positive = 2  # optimiser steps in one pass
    ratio_clip: OpenShare = 0.2  # PPO's ε
    ratio_clip_high: NonNegative = 0.0  # ε upwards, DAPO's is 0.28; 0: the same as downwards
    kl: NonNegative = 0.01  # weight of ½·(log π/π_ref)² (k2)
    # once the KL from the policy that sampled exceeds this, in nats per token, a step's remaining
    # epochs are left out (CleanRL's target_kl)
    stop_kl: NonNegative = 0.03
    entropy: NonNegative = 0.0  # weight of a bonus for entropy
    trajectories: Positive = 1000  # of the teacher's episodes of the same worlds, to replay
    # weight of their cross-entropy in every optimiser step (InstructGPT's PPO-ptx)
    replay: NonNegative = 1.0
    # rows of them in one optimiser step; 0: none, and every step learns from rewards alone
    replay_rows: Natural = 0
    value_learning_rate: NonNegative = 3e-3  # with gae: of the value head, which starts at zero
    value_clip: NonNegative = 0.5  # with gae: how far a value may move in one step
    log_every: Positive = 5
    save_every: Natural = 25
    start: str = ""  # the run to start from; empty: stage dpo's, beside `out`
    name: str = ""  # the folder to write, beside `out`; empty: sage


@dataclass
class Heads(Loop):
    """How heads.py trains confidence and inverse head on a fixed decoder (equations 6, 7, 13)."""

    # the data is seen once, dealt out over them; fewer and larger ones learn less
    steps: Positive = 300
    batch: Positive = 128  # episodes played together
    muon_learning_rate: NonNegative = 0.01
    learning_rate: NonNegative = 4e-3
    worlds: str = "all"  # drawn in turn; faults come as in distill
    tasks: Positive = 1500  # of the model's own episodes, sampled at temperature 1
    # expert's episodes, each with up to three hard negatives of one of its calls
    trajectories: Positive = 450
    solutions: Natural = 0  # more of the expert's, for the inverse head alone: it learns slowly
    # more tasks for it, with as many sentences in random words as distill.babble says: while the
    # rates fall it learns to prefer a right one of the agent's samples of a task to a wrong one
    # (not the contrast between tasks by which bench/hybrid.py filters votes)
    contrast: Natural = 0
    # samples of each of those tasks
    contrast_samples: Positive = 6
    # further episodes of each kind, for calibration, the gate's threshold and the closing table
    validation: Positive = 300
    room: Positive = 384  # tokens that an episode may add to its prompt
    play_dtype: Literal["float32", "products"] = "float32"  # as in the stages before
    sequence: Length = 640  # longer episodes are left out
    # what reads plan and conclusion for the inverse head: the judged decoder with one block more,
    # or a decoder of the head's own, which begins as its copy and whose blocks learn, too
    inverse: Literal["block", "decoder"] = "block"
    # of that decoder, which has learnt before, by AdamW; 0: it learns as the new blocks do
    decoder_learning_rate: NonNegative = 0.0
    # share of the inverse head's examples without plan and conclusion: it learns the prior P(C)
    prior: Share = 0.15
    # ρ, share of steps that the gate sends into Reasoning Mode; from the paper's costs 1.0/3.8/1.4
    rho: Share = 0.14
    eval_every: Positive = 100  # steps between evaluations of the validation episodes
    start: str = ""  # the run whose decoder gets the heads; empty: sage, beside `out`
    name: str = ""  # the folder to write, beside `out`; empty: thinking


@dataclass
class Think:
    """How think.py takes a step: at once, by comparing candidates, or as the gate says (§4.2)."""

    # System 1, System 2, or whichever the gate asks for
    mode: Literal["fast", "reason", "hybrid"] = "hybrid"
    # Reasoning Mode iff γ > τ; 0 always, 1 never; negative: the threshold that came with the heads
    tau: Annotated[float, Range(at_most=1)] = -1.0
    n: Positive = 8  # candidates of a step in Reasoning Mode; the first is the fast one
    # λ of equation 14, the "skepticism": nats per token for one nat of inverse consistency
    lam: NonNegative = 0.01
    # what a tool might say, imagined for each candidate; empty: no looking ahead
    counterfactuals: str = "error,empty,expected"
    ahead: Positive = 48  # tokens of an imagined result, and of the step imagined behind it
    theta: Share = 0.5  # θ, the least coherence: mean `success` over the imagined futures
    # δ, its largest spread over them; 1: any, since right steps have varied futures (docs/LOG.md)
    delta: Share = 1.0
    resamples: Natural = 1  # times that new candidates are drawn where none is good enough
    # show them what was wrong with the best rejected one; the toy does better without (docs/LOG.md)
    critique: bool = False
    fast_temperature: NonNegative = 0.0  # of the fast step; 0: always the likeliest token
    temperature: NonNegative = 1.0  # of the other candidates
    room: Positive = 384  # tokens that an episode may add to its prompt
    # seconds that the tools of one message may take together, until one is interrupted and has
    # failed; 0: the world's own limit alone
    patience: NonNegative = 30.0
    # failures of one call in a row, or of calls made of the same words, that end the episode as a
    # loop (worlds.base.loop_in); 0: none do, and the trace names the third
    loop: Natural = 0


@dataclass
class Eval:
    """What eval.py measures, and on how much."""

    runs: str = ""  # runs to measure, with commas; empty: all stages beside `out`
    # tasks of each world for one figure; the standard error of a rate is then at most 2.9 points
    tasks: Positive = 300
    samples: Positive = 1  # of each task, where success and inventions are sampled
    worlds: str = "all"
    names: Names = "invented"  # as in distill
    rung: Rung = "standard"  # as in distill
    batch: Positive = 64  # episodes played together
    room: Positive = 384  # tokens that an episode may add to its prompt
    # recipes are chosen by validation tasks and reported on test tasks
    split: Literal["validation", "test"] = "validation"
    seed: Seed = 0  # of the tasks; training draws others, whatever its seed (tasks.seed_of)
    device: str = "auto"  # auto: a GPU if there is one


@dataclass
class Config:
    """All sections of one training run."""

    out: str = "out/toy/base"  # the run's folder; the stages after it lie beside it
    resume: bool = False  # go on from the last checkpoint in `out`
    # also write the log's figures for TensorBoard, into the run's folder
    tensorboard: bool = False
    # steps to trace with torch.profiler, as first:count, such as 10:3, counted from 1 where this
    # process begins; empty: none
    profile: str = ""
    # of train.py: say what the run would take on `plan.ranks` GPUs, and train nothing
    dry_run: bool = False
    stage: str = ""  # of distill.py: distill or reflect; of rl.py: dpo or ppo; empty: all
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    train: Train = field(default_factory=Train)
    parallel: Parallel = field(default_factory=Parallel)
    plan: DryRun = field(default_factory=DryRun)
    distill: Distill = field(default_factory=Distill)
    dpo: Dpo = field(default_factory=Dpo)
    ppo: Ppo = field(default_factory=Ppo)
    heads: Heads = field(default_factory=Heads)
    think: Think = field(default_factory=Think)
    eval: Eval = field(default_factory=Eval)


@dataclass
class Sample:
    """How sample.py continues a prompt, or acts, with `think`."""

    # a run, a folder of published weights, a .gguf file, or the name of a model that is fetched
    # (smollm2); empty: out/toy/base, with `think` out/toy/thinking, with `case` out/toy/sage
    run: str = ""
    model: str = ""  # the same
    prompt: str = "def "  # the text to continue; with `tools` the request
    chat: bool = False  # wrap the prompt in the chat template
    tokens: Positive = 200  # longest continuation, in tokens
    samples: Positive = 1  # continuations, drawn together in one batch
    temperature: NonNegative = 0.8  # 0: always the likeliest token
    # draw from the smallest set of tokens that holds this much probability
    top_p: Annotated[float, Range(above=0, at_most=1)] = 0.95
    seed: int = 0  # of the draws
    dtype: Literal["bfloat16", "float32"] = "float32"  # of the weights
    window: Natural = 0  # landmark attention's W; 0: the run's own, and 4096 for published weights
    landmark_stride: Natural = 0  # its k; 0: the run's own, and 64 for published weights
    device: str = "auto"  # auto: a GPU if there is one
    # torch.compile the step; auto: from 1000 tokens on, when it repays its start
    compile: Literal["auto", "on", "off"] = "auto"
    show_gate: bool = False  # colour the prompt by the split embedding's gate, and stop there
    picture: str = ""  # with --show-gate: also write the coloured prompt to this PNG
    # act and show each decision, in a task of `world`, or on `prompt` with the tools of a file
    think: bool = False
    # play one of the paper's case studies (worlds/extras/cases.py) and judge what the model did; at
    # once, or with --think as the heads say
    case: Literal["", "recovery", "loop", "monty", "segfault", "refusal", "flights"] = ""
    # with --think: whose task is played (worlds/__init__.py); empty: api, if there are no `tools`
    world: str = ""
    task: Natural = 0  # its number among eval.py's validation tasks, unseen by training
    names: Names = "invented"  # of that task, as in distill
    # words of its request: those of validation tasks, or training's
    wording: Literal["split", "train"] = "split"
    fault_rate: Share = 0.0  # probability that a tool fails once on purpose
    # with --think: a Python file, whose functions are the tools and run in a process with limits;
    # or a JSON file of OpenAI tool schemas, which names the Python file behind them, or you type
    # what the tools say
    tools: str = ""
    html: str = ""  # with --think or --case: also write the trace to this page
    # with --think or --case: also write it to this file, as data; "-": print that instead of text
    json: str = ""
    thinking: Think = field(default_factory=Think)  # how it decides; what it may cost


@dataclass
class Benchmarks:
    """What eval.py --tasks asks and plays, of whom, and how (benchmarks.py, §6)."""

    # a run, a folder of published weights, a .gguf file, or the name of a model that is fetched
    model: str = "smollm2"
    # with commas; "mgsm:de" is one group of a benchmark (a language, subject, locale or file);
    # support/protocols.py and support/played.py have the names
    tasks: str = "gsm8k"
    limit: Natural = 0  # items of each, drawn by `seed`, more beginning with fewer; 0: all
    # fast: the likeliest token each time. vote: the majority of `votes` samples, of questions only.
    # think: of questions the majority of the half of the answers that explains them best, the
    # paper's Think (§6.3); of what is played think.py's hybrid steps (§4.2). Needs heads
    mode: Literal["fast", "vote", "think"] = "fast"
    votes: Positive = 32  # the paper's
    temperature: AboveZero = 1.0  # of the samples
    # the next four change a benchmark's own protocol; "" or −1 or 0: as it says
    scoring: Literal["", "generation", "letters", "options"] = ""
    prompt: Literal["", "chat", "plain"] = ""
    shots: Annotated[int, Range(at_least=-1)] = -1  # worked examples before the question
    room: Natural = 0  # tokens that an answer may have, or an episode may add to its prompt
    # who judges MATH: math-verify with ours beside it, or ours alone
    grader: Literal["math-verify", "own"] = "math-verify"
    # of our worlds' tasks: recipes are chosen by validation tasks and reported on test tasks
    split: Literal["test", "validation"] = "test"
    batch: Positive = 16  # answers or episodes written together
    seed: Seed = 0  # of the items' order, of the samples, and of our worlds' tasks
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"  # of the weights; auto: the faster
    device: str = "auto"  # auto: a GPU if there is one
    data: str = ""  # folder of benchmark data; empty: $SAGE_DATA, else ../shared/data
    folder: str = "out/benchmarks"  # where rows and results are kept, by model
