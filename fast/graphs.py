"""Decoding steps as CUDA graphs: the GPU runs a recorded step again with one call from the host.

A step launches a thousand small kernels, which takes the host longer than the GPU needs to read the
weights. A graph is recorded once for each batch size and then repeats the same kernels on the same
addresses, so everything that a step reads or writes lies in fixed memory here: tokens, positions,
and a `model.State` of many rows. Batch sizes are 1, 2, 4, … 64 and then multiples of 64; rows that
are left over have position −1 and read nothing. Prompts are read without a graph.

    step = fastest_step(model, read_token)     what generate.decode takes
    StepGraph(step, capture=record)            the same with another recorder, for tests on a CPU

Not measured on a GPU: neither the step as the model is written nor the compiled one inside a graph.
"""

import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fast.compiling import capturing
from fast.decoding import compiled_step
from model import State

Step = Callable[..., tuple[Tensor, Tensor]]  # generate.read_token and what equals it
Recording = tuple[Callable[[], None], tuple[Tensor, ...]]  # replay, and the outputs it fills


def record_cuda(run: Callable[[], tuple[Tensor, ...]]) -> Recording:
    """Record the kernels that `run` launches as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):  # what happens only once is not recorded: compiling, workspaces
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # other threads may use the GPU meanwhile
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = run()
    return graph.replay, outputs


def padded_size(rows: int) -> int:
    """The batch size whose graph serves so many rows."""
    return 1 << (rows - 1).bit_length() if rows <= 64 else -(-rows // 64) * 64


class StepGraph:
    """A decoding step that is recorded once for each batch size and then replayed.

    A state that takes a step moves into this object's memory and stays there, until another one
    takes a step: then it moves out, into memory of its own. Between its steps a state may be read
    and written as any other.
    """

    def __init__(self, step: Step, capture: Callable[..., Recording] = record_cuda):
        self.step, self.capture = step, capture
        self.recordings: dict[int, Recording] = {}  # by batch size
        self.memory: State | None = None  # as many rows as the largest batch so far
        self.tenant: Callable[[], State | None] = lambda: None  # whose rows lie in `memory`
        self.weights: list[int] = []  # their addresses

    @torch.no_grad()
    def __call__(
        self, model: nn.Module, state: State, tokens: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Hidden states (B, D) and logits (B, V) after one more token per row; tokens and positions
        (B, 1).
        """
        rows = len(tokens)
        if self.tenant() is not state:
            self.move_out()
            self.provide_memory(model, state)
            self.move_in(state)
        size = padded_size(rows)
        if size not in self.recordings:
            self.recordings[size] = self.record(model, size)
        replay, outputs = self.recordings[size]
        self.tokens[:rows].copy_(tokens)
        self.positions[:rows].copy_(positions)
        replay()
        # copies: the next replay overwrites the outputs, whoever asks for it
        hidden, logits = (output[:rows].clone() for output in outputs)
        return hidden, logits

    def record(self, model: nn.Module, size: int) -> Recording:
        """The step of a batch of `size` rows."""
        state = self.memory.holding([x[:size] for x in self.memory.tensors()])
        tokens = self.tokens[:size]
        positions = self.positions[:size]
        positions.fill_(-1)  # reading nothing changes nothing, however often it runs
        with capturing(), torch.cuda.device_of(tokens):
            return self.capture(lambda: self.step(model, state, tokens, positions))

    def provide_memory(self, model: nn.Module, state: State) -> None:
        """Memory for a state like this one; what was recorded is lost where that must be new."""
        size = padded_size(len(state.tokens))
        weights = [p.data_ptr() for p in model.parameters()]  # sharded ones are gathered anew
        fits = (
            self.memory is not None
            and size <= len(self.memory.tokens)
            and layout(state) == layout(self.memory)
            and weights == self.weights
        )
        if fits:
            return
        self.recordings.clear()
        self.weights = weights
        with torch.inference_mode(False):  # else only inference mode could write to it
            device = state.tokens.device
            self.tokens = torch.zeros(size, 1, dtype=torch.int64, device=device)
            self.positions = torch.full((size, 1), -1, device=device)
            memory = [
                torch.zeros(size, *x.shape[1:], dtype=x.dtype, device=device)
                for x in state.tensors()
            ]
        self.memory = state.holding(memory)

    def move_in(self, state: State) -> None:
        """Let a state's rows be the first ones of the memory; the others read nothing."""
        rows = [x[: len(state.tokens)] for x in self.memory.tensors()]
        for here, there in zip(rows, state.tensors(), strict=True):
            here.copy_(there)
        state.use(rows)
        self.tenant = weakref.ref(state)
        self.positions.fill_(-1)

    def move_out(self) -> None:
        """Give the state that lies in the memory, if it is still in use, memory of its own."""
        state = self.tenant()
        if state is not None:
            with torch.inference_mode(False):
                state.use([x.clone() for x in state.tensors()])


def layout(state: State) -> list:
    """What two states must have in common for one graph to serve both."""
    cache = state.cache
    tensors = [(x.shape[1:], x.dtype, x.device) for x in state.tensors()]
    return [cache.window, cache.stride, cache.max_tokens, id(cache.pasts), *tensors]


_steps: weakref.WeakKeyDictionary[nn.Module, dict[bool, Step]] = weakref.WeakKeyDictionary()


def fastest_step(model: nn.Module, plain: Step, compile: bool = False) -> Step:
    """The plain step, or with `compile` the same under torch.compile; on a GPU as a CUDA graph,
    which is kept as long as the model.
    """
    device = next(model.parameters()).device.type
    # under autocast the bf16 copies of weights change addresses from step to step
    if device != "cuda" or torch.is_autocast_enabled(device):
        return compiled_step(model) if compile else plain
    steps = _steps.setdefault(model, {})
    if compile not in steps:
        steps[compile] = StepGraph(compiled_step(model) if compile else plain)
    return steps[compile]
