"""Every setting of the project, with its type, its default and the reason for it; and how a script
gets its settings.

A settings file is plain Python that fills in these sections (config/toy.py is the one to read). The
command line comes after it and wins:

    python train.py config/toy.py --train.steps 500 --data.path ~/notes

A misspelt or ill-typed setting is an error that names the nearest one, in a file as on the command
line.
"""

import difflib
import re
import sys
import traceback
import types
import typing
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

ROOT = Path(__file__).resolve().parents[1]


class UserError(Exception):
    """A mistake of the user's: one line that says what was found, what was wanted and what to do.

    Scripts print it and exit 1.
    """


@dataclass
class Model:
    """The decoder's shape. The defaults are a toy's; every Qwen2.5 size is in support/qwen_sizes.py."""

    vocab_size: int = 1024  # rows of the embedding; must be at least the tokenizer's
    width: int = 128  # D, the residual stream
    layers: int = 4  # L, blocks
    heads: int = 4  # H, query heads
    kv_heads: int = (
        2  # K, key and value heads, shared by H/K query heads each (grouped-query attention)
    )
    head_dim: int = 32  # d, of one head; even, since rotary embedding turns pairs
    feed_forward: int = (
        384  # F, SwiGLU's inner width; 3·D costs what GELU's 4·D would, less a little
    )
    context: int = 1024  # longest sequence the model promises to handle, in tokens
    rope_theta: float = (
        10_000.0  # base of the rotary wavelengths; Qwen2.5 uses 1e6 for its long context
    )
    norm_eps: float = 1e-5  # equation 2's ε, inside the root
    tied: bool = True  # head shares E_text, as in Qwen2.5 up to 3B; large models have their own
    window: int = 4096  # landmark attention's W: every token sees the last W, itself included
    landmark_stride: int = 64  # landmark attention's k: and, of the whole past, every k-th
    embedding: Literal["split", "plain"] = "split"  # equation 4, or one matrix as everywhere else
    gate_width: int = 8  # dimensions of the split embedding's light classifier
    gate_kernel: int = 4  # how many last token IDs that classifier sees
    # smear each key with the one before it: copying comes sooner in tiny models; Qwen has none
    previous_token: bool = False
    activation: Literal["swiglu", "gelu"] = "swiglu"  # equation 3, or GPT-2's, for the baseline
    norm: Literal["rms", "layer"] = "rms"  # equation 2, or GPT-2's, for the baseline

    def check(self) -> None:
        for name, least in dict(
            vocab_size=1,
            width=1,
            layers=1,
            heads=1,
            kv_heads=1,
            head_dim=2,
            feed_forward=1,
            context=1,
            window=1,
            landmark_stride=1,
            gate_width=1,
            gate_kernel=1,
        ).items():
            if getattr(self, name) < least:
                raise UserError(f"model.{name} is {getattr(self, name)}; wanted at least {least}")
        if self.heads % self.kv_heads:
            raise UserError(
                f"model.heads is {self.heads}, not a multiple of model.kv_heads {self.kv_heads}; each key head serves a whole number of query heads"
            )
        if self.head_dim % 2:
            raise UserError(
                f"model.head_dim is {self.head_dim}; rotary embedding needs an even number"
            )


@dataclass
class Data:
    """What is read."""

    # a text file or a folder of them; empty: this Python's own standard library, about half code,
    # half prose
    path: str = ""
    tokenizer: str = "toy"  # "toy" (config/toy.bpe), or a folder that holds Qwen's tokenizer.json
    sequence: int = 256  # T, tokens of one training example
    validation: float = 0.05  # share of the files held out, chosen by a hash of their names
    max_bytes: int = 0  # stop reading after so many bytes of text; 0: read all

    def check(self) -> None:
        if not 0 < self.validation < 1:
            raise UserError(f"data.validation is {self.validation}; wanted a share between 0 and 1")
        if self.sequence < 2 or self.max_bytes < 0:
            raise UserError(
                f"data.sequence is {self.sequence}, max_bytes {self.max_bytes}; wanted at least 2 tokens, and 0 bytes or more"
            )


@dataclass
class Loop:
    """What every training loop takes: the optimiser, its schedule, how often to speak and to save."""

    steps: int = 2000  # optimiser steps
    batch: int = 16  # B, rows of tokens in one forward pass
    optimizer: Literal["muon", "adamw"] = (
        "muon"  # Muon for the matrices, AdamW for the rest; or AdamW for all
    )
    learning_rate: float = 3e-3  # AdamW's peak
    muon_learning_rate: float = (
        0.02  # Muon's peak; its updates have a fixed size, so its rate is its own scale
    )
    weight_decay: float = 0.1  # matrices only; gains, biases and the gate are left alone
    beta1: float = 0.9  # AdamW's momentum
    beta2: float = 0.95  # AdamW's second moment; shorter than 0.999 since runs are short
    clip: float = 1.0  # largest gradient norm
    warmup: float = 0.02  # share of the steps with a rising rate
    decay: float = 0.3  # share of the steps, at the end, with a falling rate (Warmup-Stable-Decay)
    final: float = 0.05  # the rate at the very end, as a share of the peak
    dtype: Literal["auto", "bfloat16", "float32"] = (
        "auto"  # of the matrix products, weights stay float32; auto: whichever is faster here
    )
    compile: Literal["auto", "on", "off"] = (
        "auto"  # torch.compile; auto: if there is a C++ compiler and ≥ 500 steps to repay it
    )
    seed: int = 1337  # of the weights, the data and its order
    log_every: int = 20  # steps between log lines
    save_every: int = 500  # steps between checkpoints; 0: only the last
    keep: int = 2  # checkpoints kept
    device: str = "auto"  # auto: a GPU if there is one

    def at_least(self, **least: float) -> None:
        """Raise UserError for a setting below its bound, with the section's name."""
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise UserError(
                    f"{type(self).__name__.lower()}.{name} is {getattr(self, name)}; wanted at least {bound}"
                )

    def check(self) -> None:
        self.at_least(
            steps=1,
            batch=1,
            log_every=1,
            save_every=0,
            keep=1,
            learning_rate=0,
            muon_learning_rate=0,
            weight_decay=0,
            warmup=0,
            decay=0,
            final=0,
            seed=0,
        )
        section = type(self).__name__.lower()
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.clip > 0):
            raise UserError(
                f"{section}.beta1 is {self.beta1}, beta2 {self.beta2}, clip {self.clip}; wanted betas in [0, 1) and a clip above 0"
            )
        if self.warmup + self.decay > 1:
            raise UserError(
                f"{section}.warmup {self.warmup} and {section}.decay {self.decay} are shares of one run; together they exceed 1"
            )


@dataclass
class Train(Loop):
    """How train.py learns."""

    # a folder of Qwen2.5 weights to start from, whose shape replaces the model section; empty:
    # random weights
    start: str = ""
    accumulation: int = 1  # forward passes to one optimiser step
    z_loss: float = (
        0.0  # weight of (log Σ exp logits)², which keeps logits from drifting in long bf16 runs
    )
    # weight of the split embedding's weak labels (code or prose, from Python's own tokenizer)
    gate_weight: float = 1.0
    # if more than 0: where the machine is too slow for all steps in this time, reading and
    # compiling included, plan fewer
    minutes: float = 0.0
    eval_every: int = 500  # steps between validations
    eval_batches: int = (
        20  # batches of one validation on the way; the last one reads everything held out
    )
    sample_every: int = 500  # steps between samples; 0: none

    def check(self) -> None:
        super().check()
        self.at_least(
            minutes=0,
            accumulation=1,
            eval_every=1,
            eval_batches=1,
            sample_every=0,
            z_loss=0,
            gate_weight=0,
        )


@dataclass
class Distill(Loop):
    """How distill.py teaches: stages amplify and vary learn from the teacher, stage reflect from
    its own failures (Algorithm 1).
    """

    batch: int = 8
    # T of a packed row; an episode of the toy worlds has 90 to 360 tokens, a revision both attempts
    sequence: int = 512
    worlds: str = "api,sql,shell,math,safety"  # drawn in turn
    trajectories: int = (
        40_000  # teacher episodes of stage amplify; drawn fresh, seen about once or twice
    )
    # stage amplify: read teacher episodes from this file of teacher.py instead of drawing them
    file: str = ""
    fault_rate: float = 0.3  # share of episodes in which a tool fails once on purpose
    # of faults in training; one kind each is held out for validation and test
    fault_kinds: str = "timeout,locked,renamed,moved,type,incomplete"
    # corrections per episode: a hard negative is shown, its fault is named and the right call
    # given; 0: no negatives
    correction: float = 0.3
    # of the loss on the user's and the tools' words, outside equation 5; 0 masks them exactly
    prompt_weight: float = 0.1
    vary_steps: int = 400  # optimiser steps of stage vary
    vary_trajectories: int = 8000  # teacher episodes of stage vary, drawn fresh
    # in stages vary and reflect: share of the faults, and of the API world's requests, whose words
    # say nothing, so that only the names in them are read (docs/LOG.md)
    babble: float = 0.5
    # in stages vary and reflect: chance that the teacher, where it makes calls, gets one wrong
    # (masked), is told so by the check, and gets it right; a tenth of the toy's episodes have one
    slips: float = 0.15
    reflect_steps: int = 600  # optimiser steps of stage reflect, shared evenly between its rounds
    # of the peak rates, in stages vary and reflect: at the full ones a round undoes what stage
    # amplify's decay had settled (docs/LOG.md)
    reflect_rate: float = 0.2
    rounds: int = 2  # of Algorithm 1; each samples from the student that the round before left
    tasks: int = 750  # tasks sampled in a round
    tries: int = 2  # K, revisions a failed task gets before the teacher writes its own
    critique_weight: float = 0.5  # η of equation 5, weight of the critique's own words
    # weight of revising the first wrong step alone, told only which part of it is wrong (as
    # think.py asks for it); 0: none
    step_weight: float = 1.0
    # teacher episodes with faults per task of a round: with fewer, what is new costs more than it
    # gives on unseen names (docs/LOG.md)
    replay: float = 8.0
    kl: float = 0.0  # weight of KL(teacher ‖ student) over all logits, where `kl_teacher` is given
    # a run, or a folder of Qwen2.5 weights of the same vocabulary, whose logits are distilled
    kl_teacher: str = ""
    start: str = ""  # the run to start from; empty: the stage before, beside `out`
    name: str = ""  # the folder to write, beside `out`; empty: amplified, varied, reflected

    def check(self) -> None:
        super().check()
        self.at_least(
            sequence=2,
            trajectories=1,
            fault_rate=0,
            correction=0,
            prompt_weight=0,
            vary_steps=1,
            vary_trajectories=1,
            babble=0,
            slips=0,
            reflect_steps=1,
            reflect_rate=0,
            rounds=1,
            tasks=1,
            tries=0,
            critique_weight=0,
            step_weight=0,
            replay=0,
            kl=0,
        )
        if self.babble > 1 or self.slips > 1:
            raise UserError(
                f"distill.babble is {self.babble}, slips {self.slips}; both are shares, wanted 0 to 1"
            )


@dataclass
class Dpo(Loop):
    """How rl.py's stage dpo learns from preferences what to refuse, and what not to."""

    steps: int = 150
    batch: int = 16  # pairs in one step
    optimizer: Literal["muon", "adamw"] = (
        "adamw"  # Muon's steps have a fixed size; preferences need small ones
    )
    learning_rate: float = 1e-4
    weight_decay: float = 0.0  # the model is to stay near the one before it, not near zero
    pairs: int = 2000  # preference pairs of the safety world, half of them about benign requests
    beta: float = (
        0.1  # β, the paper's; with 0 only the two terms below teach: the supervised control
    )
    # weight of the chosen message's own cross-entropy, which keeps it likely while the rejected one
    # falls
    nll: float = 0.1
    # of the teacher's episodes that are replayed, so that acting is not forgotten
    worlds: str = "api,sql,shell,math"
    trajectories: int = 1000  # of them
    replay: float = 1.0  # weight of their cross-entropy
    replay_rows: int = 4  # rows of them in one step; 0: none
    sequence: int = 384  # T of a packed row of them; pairs longer than this are left out
    fault_rate: float = 0.3  # share of replayed episodes in which a tool fails once on purpose
    fault_kinds: str = "timeout,locked,renamed,moved,type,incomplete"  # as in distill
    babble: float = 0.5  # as in distill
    log_every: int = 10
    start: str = ""  # the run to start from; empty: reflected, beside `out`
    name: str = ""  # the folder to write, beside `out`; empty: safe

    def check(self) -> None:
        super().check()
        self.at_least(
            pairs=self.batch,
            beta=0,
            nll=0,
            trajectories=1,
            replay=0,
            replay_rows=0,
            sequence=2,
            fault_rate=0,
            babble=0,
        )


@dataclass
class Ppo(Loop):
    """How rl.py's stage ppo learns from execution (the paper's CodePPO)."""

    steps: int = 150  # each draws `prompts` × `samples` episodes
    batch: int = 32  # packed rows in one forward pass; a step's gradient is summed over all of them
    optimizer: Literal["muon", "adamw"] = (
        "adamw"  # Muon's steps have a fixed size, however little an advantage says
    )
    # 1e-4 moves nothing that can be measured, and this destroys the policy unless teacher's
    # episodes are replayed (docs/LOG.md)
    learning_rate: float = 3e-4
    weight_decay: float = 0.0  # the reference policy is what to stay near, not zero
    beta2: float = 0.99  # gradients of a few hundred episodes scatter
    warmup: float = 0.05
    decay: float = 0.2
    worlds: str = "api,sql,shell,safety"  # drawn in turn
    prompts: int = 24  # tasks in one step; fewer than 16 and a step says little
    samples: int = 8  # episodes of each task
    temperature: float = 1.0  # of the sampler, and of every log-probability
    room: int = 384  # tokens that an episode may add to its prompt
    sequence: int = (
        640  # longer episodes are left out; with prompts up to 256 and `room` there are none
    )
    fault_rate: float = 0.3  # share of tasks in which a tool fails once on purpose
    # of faults in training; one kind each is held out for validation and test
    fault_kinds: str = "timeout,locked,renamed,moved,type,incomplete"
    babble: float = 0.5  # as in distill
    malformed: float = (
        -1.0
    )  # reward of an episode that ends with a call that does not parse or names no tool
    invented: float = -0.5  # reward of each invented argument
    # calls that the schemas refuse, until the episode ends; long failing episodes teach ranting
    tolerance: int = 2
    advantage: Literal["gae", "group"] = (
        "gae"  # a value head and token-level GAE, or the mean of the same task's samples (GRPO)
    )
    baseline: Literal["task", "batch"] = (
        # a reward is measured from its task's other samples, or from the whole step's mean
        # (docs/LOG.md)
        "task"
    )
    gamma: float = 1.0  # a reward that comes at the end is worth as much at the beginning
    lam: float = 1.0  # λ of GAE: 1 leans on the reward alone, less on the value head
    mean: Literal["sequence", "token"] = "sequence"  # each episode counts the same, or each token
    epochs: int = 2  # passes over a step's episodes
    minibatches: int = 2  # optimiser steps in one pass
    clip: float = 1.0
    ratio_clip: float = 0.2  # PPO's ε
    kl: float = 0.01  # weight of ½·(log π/π_ref)² (k2)
    # nats a token from the policy that sampled, at which a step's further passes are left out
    stop_kl: float = 0.03
    entropy: float = 0.0  # weight of a bonus for entropy
    trajectories: int = 1000  # of the teacher's episodes of the same worlds, to replay
    replay: float = (
        1.0  # weight of their cross-entropy in every optimiser step (InstructGPT's PPO-ptx)
    )
    replay_rows: int = 4  # rows of them in one optimiser step; 0: none
    value_learning_rate: float = 3e-3  # of the value head, which starts at zero
    value_clip: float = 0.5  # how far a value may move in one step
    log_every: int = 5
    save_every: int = 25
    start: str = ""  # the run to start from; empty: safe, beside `out`
    name: str = ""  # the folder to write, beside `out`; empty: sage

    def check(self) -> None:
        super().check()
        self.at_least(
            prompts=1,
            samples=1,
            room=1,
            sequence=2,
            fault_rate=0,
            babble=0,
            tolerance=1,
            trajectories=1,
            replay=0,
            replay_rows=0,
            gamma=0,
            lam=0,
            epochs=1,
            minibatches=1,
            kl=0,
            stop_kl=0,
            entropy=0,
            value_learning_rate=0,
            value_clip=0,
        )
        if not (
            self.temperature > 0 and 0 < self.ratio_clip < 1 and self.gamma <= 1 and self.lam <= 1
        ):
            raise UserError(
                f"ppo.temperature is {self.temperature}, ratio_clip {self.ratio_clip}, gamma {self.gamma}, lam {self.lam}; wanted a temperature above 0, a clip in (0, 1), gamma and lam in [0, 1]"
            )
        if self.advantage == "group" and self.samples < 2:
            raise UserError(
                "ppo.advantage 'group' compares samples of one task; ppo.samples must be at least 2"
            )


@dataclass
class Heads(Loop):
    """How heads.py trains what tells sure steps from doubtful ones, beside a decoder that stays as
    it is (equations 6, 7 and 13).
    """

    # optimiser steps; the data is shared out over them, so that it is seen once; fewer learn less,
    # a third pass over-fits
    steps: int = 300
    batch: int = 128  # episodes played together
    muon_learning_rate: float = 0.01
    learning_rate: float = 4e-3
    worlds: str = "api,sql,shell,math,safety"  # drawn in turn; faults come as in distill
    tasks: int = 1500  # of the model's own episodes, sampled at temperature 1
    trajectories: int = (
        450  # expert's episodes, each with up to three hard negatives of one of its calls
    )
    # further expert's episodes for the inverse head alone, which learns slowly and needs no samples
    solutions: int = 0
    # further episodes of each of the two, for calibration, the gate's threshold and the closing
    # table
    validation: int = 300
    room: int = 384  # tokens that an episode may add to its prompt
    sequence: int = 640  # longer episodes are left out
    # share of the constraints that the inverse head learns to expect without plan and conclusion
    prior: float = 0.15
    # ρ, the share of steps that the gate's threshold sends into Reasoning Mode: the paper's costs
    # 1.0/3.8/1.4
    rho: float = 0.14
    eval_every: int = 100  # steps between looks at the validation episodes
    start: str = ""  # the run whose decoder gets the heads; empty: sage, beside `out`
    name: str = ""  # the folder to write, beside `out`; empty: thinking

    def check(self) -> None:
        super().check()
        self.at_least(
            tasks=1,
            trajectories=1,
            solutions=0,
            validation=1,
            room=1,
            sequence=2,
            prior=0,
            rho=0,
            eval_every=1,
        )
        if self.prior > 1 or self.rho > 1:
            raise UserError(
                f"heads.prior is {self.prior}, rho {self.rho}; both are shares, wanted 0 to 1"
            )


@dataclass
class Think:
    """How think.py takes a step: at the first try, after a second thought about several candidates,
    or as the gate says (§4.2).
    """

    mode: Literal["fast", "reason", "hybrid"] = (
        "hybrid"  # System 1, System 2, or whichever the gate asks for
    )
    # the gate's threshold: Reasoning Mode iff γ > τ; 0 always, 1 never; negative: the one that came
    # with the heads
    tau: float = -1.0
    n: int = 8  # candidates of a step in Reasoning Mode; the first is the fast one
    # λ of equation 14, the "skepticism": nats a token that one nat of inverse consistency is worth
    lam: float = 0.01
    # what a tool might say, imagined for each candidate; empty: no looking ahead
    counterfactuals: str = "error,empty,expected"
    ahead: int = 48  # tokens of an imagined result, and of the step imagined behind it
    theta: float = 0.5  # θ, the least coherence: mean `success` over the imagined futures
    # δ, its largest spread over them; 1 asks for nothing: right steps have futures that differ
    # (docs/LOG.md)
    delta: float = 1.0
    resamples: int = 1  # times that new candidates are drawn where none is good enough
    # tell them what was wrong with the best of the rejected ones; the toy does better untold
    # (docs/LOG.md)
    critique: bool = False
    fast_temperature: float = 0.0  # of the fast step; 0: always the likeliest token
    temperature: float = 1.0  # of the other candidates
    room: int = 384  # tokens that an episode may add to its prompt
    patience: float = 30.0  # seconds for a tool to answer, then the episode ends; 0: for ever

    def check(self) -> None:
        if unknown := set(filter(None, self.counterfactuals.split(","))) - {
            "error",
            "empty",
            "expected",
        }:
            raise UserError(
                f"think.counterfactuals names {min(unknown)!r}; wanted some of error, empty, expected, with commas"
            )
        if (
            min(self.n, self.ahead, self.room) < 1
            or min(self.lam, self.resamples, self.fast_temperature, self.temperature, self.patience)
            < 0
        ):
            raise UserError(
                f"think.n is {self.n}, ahead {self.ahead}, room {self.room}, lam {self.lam}, resamples {self.resamples}, fast_temperature {self.fast_temperature}, "
                f"temperature {self.temperature}, patience {self.patience}; wanted at least 1 of the first three, and 0 or more of the others"
            )
        if not (0 <= self.theta <= 1 and 0 <= self.delta <= 1 and self.tau <= 1):
            raise UserError(
                f"think.theta is {self.theta}, delta {self.delta}, tau {self.tau}; they are probabilities, wanted 0 to 1 (tau: or negative)"
            )


@dataclass
class Eval:
    """What eval.py measures, and on how much."""

    runs: str = ""  # runs to measure, with commas; empty: all stages beside `out`
    # tasks of each world for one figure; the standard error of a rate is then at most 2.9 points
    tasks: int = 300
    worlds: str = "api,sql,shell,math,safety"
    batch: int = 64  # episodes played together
    room: int = 384  # tokens an episode may add to its prompt
    split: Literal["validation", "test"] = (
        "validation"  # recipes are chosen by validation tasks and reported on test tasks
    )
    seed: int = 0  # of the tasks; training draws others whatever its seed (worlds.seed_of)
    device: str = "auto"  # auto: a GPU if there is one

    def check(self) -> None:
        if min(self.tasks, self.batch, self.room) < 1 or self.seed < 0:
            raise UserError(
                f"eval.tasks is {self.tasks}, batch {self.batch}, room {self.room}, seed {self.seed}; wanted at least 1, and a seed of 0 or more"
            )


@dataclass
class Config:
    """All sections of one training run."""

    out: str = "out/toy/base"  # the run's folder; the stages after it lie beside it
    resume: bool = False  # go on from the last checkpoint in `out`
    stage: str = ""  # of distill.py: amplify, vary or reflect; of rl.py: dpo or ppo; empty: all
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    train: Train = field(default_factory=Train)
    distill: Distill = field(default_factory=Distill)
    dpo: Dpo = field(default_factory=Dpo)
    ppo: Ppo = field(default_factory=Ppo)
    heads: Heads = field(default_factory=Heads)
    think: Think = field(default_factory=Think)
    eval: Eval = field(default_factory=Eval)

    def check(self) -> None:
        if self.data.sequence > self.model.context:
            raise UserError(
                f"data.sequence {self.data.sequence} is over model.context {self.model.context}; shorten the one or lengthen the other"
            )


@dataclass
class Sample:
    """How sample.py continues a prompt, or with `think` acts."""

    # a run's folder, or a folder of Qwen2.5 weights; empty: out/toy/base, with `think`
    # out/toy/thinking
    run: str = ""
    prompt: str = "def "  # the text to continue; with `tools` the request
    chat: bool = False  # wrap the prompt in the chat template
    tokens: int = 200  # longest continuation, in tokens
    samples: int = 1  # continuations, drawn together in one batch
    temperature: float = 0.8  # 0: always the likeliest token
    top_p: float = 0.95  # draw from the smallest set of tokens that holds this much probability
    seed: int = 0  # of the draws
    dtype: Literal["bfloat16", "float32"] = "float32"  # of the weights
    window: int = 0  # landmark attention's W; 0: the run's own, and 4096 for Qwen2.5's weights
    landmark_stride: int = 0  # its k; 0: the run's own, and 64 for Qwen2.5's weights
    device: str = "auto"  # auto: a GPU if there is one
    compile: Literal["auto", "on", "off"] = (
        "auto"  # torch.compile the step; auto: from 1000 tokens on, when it repays its start
    )
    show_gate: bool = False  # colour the prompt by the split embedding's gate, and stop there
    picture: str = ""  # with --show-gate: also write the coloured prompt to this PNG
    # act, step by step, and show each decision: a task of `world`, or `prompt` with the tools of a
    # file
    think: bool = False
    world: Literal["", "api", "sql", "shell", "math", "safety"] = (
        ""  # with --think: whose task is played; empty: api, if there are no `tools`
    )
    # its number: eval.py's validation task of that number, with names and words that training has
    # never seen
    task: int = 0
    fault_rate: float = 0.0  # probability that a tool fails once on purpose
    # with --think: a JSON file of tool schemas in OpenAI's format; you type what the tools say,
    # nothing is executed
    tools: str = ""
    html: str = ""  # with --think: also write the trace to this page
    json: str = (
        ""  # with --think: also write it to this file, as data; "-": print that instead of the text
    )
    thinking: Think = field(default_factory=Think)  # how it decides; what it may cost

    def check(self) -> None:
        if self.tokens < 1 or self.samples < 1:
            raise UserError(
                f"--tokens is {self.tokens} and --samples {self.samples}; wanted at least 1 of each"
            )
        if self.window < 0 or self.landmark_stride < 0:
            raise UserError(
                f"--window is {self.window} and --landmark-stride {self.landmark_stride}; "
                "wanted numbers of tokens, or 0 for the model's own"
            )
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise UserError(
                f"--temperature is {self.temperature} and --top-p {self.top_p}; wanted a temperature ≥ 0 and a probability in (0, 1]"
            )
        if self.picture and not self.show_gate:
            raise UserError("--picture draws the gate; add --show-gate")
        if not self.think and any((self.world, self.tools, self.html, self.json)):
            raise UserError(
                "--world, --tools, --html and --json belong to an agent that acts; add --think"
            )
        if self.world and self.tools:
            raise UserError("--world brings its own tools; give either --world or --tools")
        if self.task < 0 or not 0 <= self.fault_rate <= 1:
            raise UserError(
                f"--task is {self.task} and --fault-rate {self.fault_rate}; wanted a number from 0, and a probability"
            )
        if not self.prompt:
            raise UserError("--prompt is empty; give at least one character to continue")


# ---------------------------------------------------------------------------------------------------------------------
# From a file and a command line to settings.


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """` — did you mean X?`, or the whole list where nothing is near."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else "known: " + ", ".join(known)


def check(section, where: str = "") -> None:
    """Check types and ranges of a section and of all sections inside it; raise UserError for the
    first that is off.
    """
    hints = typing.get_type_hints(type(section))
    for setting in fields(section):
        value, wanted, name = (
            getattr(section, setting.name),
            hints[setting.name],
            f"{where}{setting.name}",
        )
        if is_dataclass(wanted):
            if not isinstance(value, wanted):
                raise UserError(f"{name} is {value!r}; wanted {wanted.__name__}(...)")
            check(value, f"{name}.")
        elif typing.get_origin(wanted) is Literal:
            if value not in typing.get_args(wanted):
                raise UserError(
                    f"{name} is {value!r}; wanted one of {', '.join(map(repr, typing.get_args(wanted)))}"
                )
        elif isinstance(value, bool) is not (wanted is bool) or not isinstance(
            value, (int, float) if wanted is float else wanted
        ):
            raise UserError(
                f"{name} is {value!r}, {type(value).__name__}; wanted {wanted.__name__}"
            )
    section.check()


def read(path: str | Path) -> Config:
    """Settings from a file of plain Python values: `out`, and the sections of Config.

    The file is looked up from the current directory, then from the project's. Raises UserError with
    file and line.
    """
    found = next((p for p in (Path(path), ROOT / path) if p.is_file()), None)
    if found is None:
        known = sorted(
            str(p.relative_to(ROOT))
            for p in (ROOT / "config").glob("*.py")
            if p.name != "__init__.py"
        )
        raise UserError(f"no settings file {path}; {nearest(str(path), known)}")
    names: dict = {}
    try:
        exec(compile(found.read_text(), str(found), "exec"), names)
    except SyntaxError as error:
        raise UserError(
            f"{found}:{error.lineno}: not valid Python: {error.msg}; compare with config/toy.py"
        ) from None
    except UserError:
        raise
    except Exception as error:
        line = next(
            (
                frame.lineno
                for frame in reversed(traceback.extract_tb(error.__traceback__))
                if frame.filename == str(found)
            ),
            0,
        )
        unknown = re.match(
            r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error)
        )
        if unknown and unknown[1] in globals():
            known = [setting.name for setting in fields(globals()[unknown[1]])]
            raise UserError(
                f"{found}:{line}: {unknown[1]} has no setting {unknown[2]}; {nearest(unknown[2], known)}"
            ) from None
        raise UserError(f"{found}:{line}: {type(error).__name__}: {error}") from None
    sections = {setting.name for setting in fields(Config)} - {"resume", "stage"}
    given = {
        name: value
        for name, value in names.items()
        if not name.startswith("_") and not isinstance(value, (type, types.ModuleType))
    }
    for name in given:
        if name not in sections:
            raise UserError(f"{found}: no section {name}; {nearest(name, sorted(sections))}")
    config = Config(**given)
    check(config)
    return config


def flat(stored: dict) -> dict:
    """Settings as asdict gives them, by their full names: {"out": ..., "model.width": ...}."""
    return {
        f"{section}.{name}" if name else section: value
        for section, values in stored.items()
        for name, value in (values.items() if isinstance(values, dict) else [("", values)])
    }


def given(config: Config) -> list[str]:
    """The full names of all settings that are not at their defaults."""
    defaults = flat(asdict(Config()))
    return [name for name, value in flat(asdict(config)).items() if value != defaults[name]]


def restored(stored: dict) -> Config:
    """Settings that asdict wrote, perhaps in another version of the code: what it did not have is
    at its default, and what is gone is left out. Raises UserError for a damaged model section."""
    hints = typing.get_type_hints(Config)
    known = {name: stored[name] for name in hints if name in stored}
    for section, values in known.items():
        if is_dataclass(kind := hints[section]):
            names = {setting.name for setting in fields(kind)}
            known[section] = kind(**{name: values[name] for name in values.keys() & names})
    config = Config(**known)
    check(config.model, "model.")
    return config


def reject_unknown(arguments: list[str], kind: type) -> None:
    """Raise UserError for an option that the settings `kind` does not have, naming the nearest."""
    hints, known = typing.get_type_hints(kind), ["help"]
    for setting in fields(kind):
        inner = fields(hints[setting.name]) if is_dataclass(hints[setting.name]) else ()
        known += [f"{setting.name}.{part.name}" for part in inner] or [setting.name]
    known = [name.replace("_", "-") for name in known]
    for word in arguments:
        name = word.partition("=")[0].removeprefix("--").replace("_", "-")
        if word.startswith("--") and name not in known and name.replace("no-", "", 1) not in known:
            raise UserError(f"no option --{name}; {nearest(name, known)}")


def anchored(path: str) -> str:
    """A path a user gave, absolute: from the current directory if it is there, else from the
    project's.
    """
    path_ = Path(path).expanduser()
    return str(path_.resolve() if path_.exists() else ROOT / path_)


def from_command_line(arguments: list[str] | None = None) -> Config:
    """Settings of a training script: an optional settings file first, then --section.setting value
    pairs that win over it.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    file = arguments[0] if arguments and not arguments[0].startswith("-") else None
    default, options = read(file) if file else Config(), arguments[1:] if file else arguments
    reject_unknown(options, Config)
    config = tyro.cli(
        Config,
        default=default,
        args=options,
        description="Settings file first (config/toy.py), then any of these.",
    )
    check(config)
    if config.data.path:
        config.data.path = anchored(config.data.path)
    if config.data.tokenizer != "toy":
        config.data.tokenizer = anchored(config.data.tokenizer)
    if config.train.start:
        config.train.start = anchored(config.train.start)
    return replace(config, out=str(ROOT / config.out))


def sample_from_command_line(arguments: list[str] | None = None) -> Sample:
    """Settings of sample.py: --setting value pairs only."""
    arguments = sys.argv[1:] if arguments is None else arguments
    reject_unknown(arguments, Sample)
    sample = tyro.cli(Sample, args=arguments)
    check(sample)
    return replace(
        sample, run=anchored(sample.run or ("out/toy/thinking" if sample.think else "out/toy/base"))
    )


def run(main: Callable[[], None]) -> None:
    """Run a script's main; a user's mistake ends it with one line and exit status 1, Ctrl-C with
    130, `| head` quietly.
    """
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        print(file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        sys.stderr.close()
    except OSError as error:  # a disk that is full, a folder that may not be written
        raise SystemExit(f"error: {error}") from None
