"""Rows that share their pasts answer as rows that share nothing: as the whole text read at once."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attention import LandmarkCache
from config import Model, UserError
from fast.compiling import capturing
from fast.forked_cache import ForkedCache, forked, groups_of, with_common_pasts
from generate import Conversations, generate, pad, read_token
from model import SAGE, State

ROOM, VOCABULARY = 80, 50
CONFIG = Model(
    layers=2,
    heads=4,
    kv_heads=2,
    width=32,
    head_dim=8,
    feed_forward=48,
    vocab_size=VOCABULARY,
    context=128,
    window=96,
    previous_token=True,
)


def smearing(config: Model) -> SAGE:
    """A model whose keys and embeddings lean on the tokens before them, and whose distributions are
    not uniform.
    """
    model = SAGE(config, seed=3)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4)
        for block in model.blocks:
            block.attention.smear.fill_(0.7)
        model.embedding.code.weight.neg_()
        model.embedding.out.weight.fill_(0.01)
    return model.double().eval()


MODEL = smearing(CONFIG)
WINDOWED = smearing(dataclasses.replace(CONFIG, window=16))


class Texts:
    """Rows being read, each with all that it has read, as tokens."""

    def __init__(self, state: State, texts: list[list[int]]):
        self.state, self.texts = state, texts

    def read(self, more: list[list[int]]) -> None:
        """Append to each row; what the model says behind it is what it says of the whole text."""
        longest = max(map(len, more))
        tokens = torch.zeros(len(more), longest, dtype=torch.int64)
        positions = torch.full((len(more), longest), -1)
        for row, (text, new) in enumerate(zip(self.texts, more)):
            tokens[row, : len(new)] = torch.tensor(new, dtype=torch.int64)
            positions[row, : len(new)] = len(text) + torch.arange(len(new))
        hidden = MODEL.hidden(tokens, state=self.state, positions=positions)
        for row, new in enumerate(more):
            self.texts[row] = self.texts[row] + new
            if new:
                whole = MODEL.hidden(torch.tensor([self.texts[row]]))[0, -len(new) :]
                torch.testing.assert_close(hidden[row, : len(new)], whole, atol=1e-10, rtol=1e-8)

    def fork(self) -> None:
        self.state = self.state.forked()

    def select(self, chosen: list[int]) -> "Texts":
        return Texts(self.state.select(chosen), [self.texts[row] for row in chosen])

    def join(self, others: "Texts") -> "Texts":
        return Texts(State.join([self.state, others.state]), self.texts + others.texts)


def begun(texts: list[list[int]], room: int = ROOM) -> Texts:
    some = Texts(State(CONFIG, len(texts), room, torch.float64), [[] for _ in texts])
    some.read(texts)
    return some


prompts_of = st.lists(
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=9), min_size=1, max_size=3
)
kinds = st.sampled_from(["fork", "select", "prune", "token", "several", "join"])
steps = st.lists(kinds, max_size=9)


@torch.no_grad()
@settings(max_examples=60, deadline=None)
@given(prompts_of, steps, st.data())
def test_any_order_of_forks_gives_what_the_whole_text_gives(prompts, todo, data):
    rows = begun(prompts)
    for step in todo:
        if step == "fork":
            rows.fork()
            assert isinstance(rows.state.cache, ForkedCache)
        elif step == "select":
            index = st.integers(0, len(rows.texts) - 1)
            rows = rows.select(data.draw(st.lists(index, min_size=1, max_size=5)))
        elif step == "prune":
            rows.state = rows.state.pruned()
        elif step == "join":
            others = begun(data.draw(prompts_of))
            if data.draw(st.booleans()):
                others.fork()
            rows = rows.join(others)
        else:
            size = dict(min_size=1, max_size=1) if step == "token" else dict(max_size=5)
            one = st.lists(st.integers(0, VOCABULARY - 1), **size)
            more = [data.draw(one) for _ in rows.texts]
            if max(map(len, more)) and max(map(len, rows.texts)) + 5 < ROOM:
                rows.read(more)


@torch.no_grad()
def test_a_row_that_reads_nothing_and_one_that_ends_change_nothing():
    rows = begun([[1, 2, 3], [4, 5]])
    rows.fork()
    rows = rows.select([0, 1, 1, 0])
    for more in ([[6], [], [7], [8]], [[], [], [9], []], [[1, 2], [3], [], [4, 4, 4]]):
        rows.read(more)


@torch.no_grad()
def test_prompts_are_kept_once_and_rows_only_what_follows():
    prompt = [1, 2, 3] * 20
    one = Conversations(MODEL, [prompt], ROOM).state.cache
    shared = Conversations.of_prompts(MODEL, [prompt] * 8, ROOM).state.cache
    assert one.pasts is None
    past = sum(x.nbytes for x in [*shared.pasts.keys, *shared.pasts.values])
    own = sum(x.nbytes for x in [*shared.keys, *shared.values])
    slot = 2 * 2 * 2 * 8 * 8  # layers, keys and values, heads, width, bytes
    assert past == 60 * slot
    assert own == 8 * (shared.max_tokens - 60 + 1) * slot
    counts = [shared.lengths, shared.seen_from]
    assert shared.bytes == past + own + sum(x.nbytes for x in counts)


@torch.no_grad()
def test_pasts_that_nobody_has_any_more_are_left_out():
    rows = begun([[1], [2, 3], [4]])
    rows.fork()
    some = rows.select([1, 1])
    assert some.state.cache.pasts is rows.state.cache.pasts
    some.state = some.state.pruned()
    assert some.state.cache.pasts.lengths.tolist() == [2]
    joined = rows.select([1, 1]).join(begun([[5, 6, 7]]))
    assert joined.state.cache.pasts.lengths.tolist() == [2, 3]
    assert joined.state.cache.past_of_row.tolist() == [0, 0, 1]
    assert rows.state.cache.pasts.lengths.tolist() == [1, 2, 1]  # as they were
    for each in (some, joined, rows):
        each.read([[8, 9]] * len(each.texts))


@torch.no_grad()
def test_a_state_and_its_fork_go_their_own_ways():
    state = begun([[1, 2, 3], [4]])
    fork = Texts(state.state.forked(), list(state.texts))
    again = Texts(fork.state.forked(), list(fork.texts))  # nothing read since: the same
    assert again.state is fork.state
    state.read([[5, 6], [7]])
    fork.read([[8], [9, 1]])
    again = Texts(fork.state.forked(), list(fork.texts))
    state.read([[2], [2]])
    fork.read([[3], [3]])
    again.read([[4], [4]])


@torch.no_grad()
@pytest.mark.parametrize("order", [0, 1])
def test_rows_can_be_filled_to_the_last_slot(order):
    rows = begun([[1, 2], list(range(30))], room=32)
    rows.fork()
    rows = rows.select([0, 1, 0, 1])
    others = begun([[3, 4, 5]], room=32)
    rows = others.join(rows) if order else rows.join(others)
    for _ in range(30):
        rows.read([[7] if len(text) < 32 else [] for text in rows.texts])
    assert all(len(text) == 32 for text in rows.texts)
    rows.fork()  # with no slot left
    with pytest.raises(UserError, match="32"):
        rows.read([[1]] * 5)


@torch.no_grad()
def test_a_row_that_has_read_nothing_can_be_joined():
    rows = begun([[1, 2, 3], [4]])
    rows.fork()
    unread = begun([[], [5]])
    assert unread.state.forked() is unread.state
    rows = rows.join(unread)
    rows.read([[6], [7], [8, 9], []])


@torch.no_grad()
def test_no_rows_stay_no_rows():
    rows = begun([[1, 2, 3], [4]])
    rows.fork()
    none = rows.select([])
    assert len(none.state.pruned().cache.past_of_row) == 0
    assert len(begun([[1]]).select([]).state.forked().cache.lengths) == 0
    joined = rows.join(begun([[5]]).select([]))
    joined.read([[6], [7]])


@torch.no_grad()
def test_rows_are_written_back():
    """Candidates of a row go on, and the chosen one takes the row's place."""
    conversations = Conversations(MODEL, [[1, 2, 3], [4, 5]], ROOM)
    conversations.share()
    candidates = conversations.select([1, 1, 0])
    candidates.read([[6], [7, 8], [9]])
    conversations.put([1, 0], candidates.select([1, 2]))
    conversations.read([[3], [2, 2]])
    whole = [MODEL(torch.tensor([text]))[0, -1] for text in ([1, 2, 3, 9, 3], [4, 5, 7, 8, 2, 2])]
    torch.testing.assert_close(conversations.logits, torch.stack(whole))
    with pytest.raises(AssertionError):
        other = Conversations(MODEL, [[1, 2, 3]], ROOM)
        other.share()
        conversations.put([0], other)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "autocast"])
def test_other_dtypes_and_more_than_one_piece(kind):
    """Beside a cache that shares nothing, it rounds no worse: both are compared with float64. 300
    tokens at once are read in two pieces.
    """
    large = dataclasses.replace(CONFIG, context=900, window=900)
    generator = torch.Generator().manual_seed(1)
    texts = [torch.randint(0, VOCABULARY, (n,), generator=generator).tolist() for n in (5, 200, 17)]
    more = [torch.randint(0, VOCABULARY, (n,), generator=generator).tolist() for n in (300, 0, 9)]
    rows = [1, 2, 0, 0]

    def answers(model: SAGE, share: bool) -> list[torch.Tensor]:
        conversations = Conversations(model, texts, 800)
        if share:
            conversations.share()
        conversations = conversations.select(rows)
        padded = pad([more[row] for row in rows], "cpu", conversations.lengths)
        several = conversations.feed(*padded)
        conversations.read([[3], [4], [5], [6]])
        return [several[2], several[3], several[1, :9], conversations.logits]

    exact = answers(smearing(large), share=False)
    model = smearing(large).to(torch.bfloat16 if kind == "bfloat16" else torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
        plain, shared = answers(model, share=False), answers(model, share=True)
    for truth, theirs, ours in zip(exact, plain, shared, strict=True):
        allowed = 2 * (theirs - truth).abs().max()
        assert 0 < (ours - truth).abs().max() <= allowed


def test_with_gradients_nothing_is_shared():
    """torch's kernel has none for its log-sum-exp."""
    assert begun([[1, 2, 3]]).state.forked().cache.pasts is None


@torch.no_grad()
def test_a_compiled_step_reads_a_forked_state():
    rows = begun([[1, 2, 3], [4, 5]])
    rows.fork()
    rows = rows.select([1, 0, 1])
    step = torch.compile(read_token, fullgraph=True, dynamic=False, backend="aot_eager")
    tokens, positions = torch.tensor([[6], [7], [8]]), rows.state.cache.lengths[:, None].clone()
    hidden, _ = step(MODEL, rows.state, tokens, positions)
    for row, text in enumerate(([4, 5, 6], [1, 2, 3, 7], [4, 5, 8])):
        whole = MODEL.hidden(torch.tensor([text]))[0, -1]
        torch.testing.assert_close(hidden[row], whole, atol=1e-10, rtol=1e-8)
    # for every length of a prompt it would be compiled anew, so that `generate` shares nothing then
    assert generate(MODEL, [[1, 2]] * 2, 3, step=step) == generate(MODEL, [[1, 2]] * 2, 3)


@torch.no_grad()
def test_where_a_token_can_leave_the_window_nothing_is_shared():
    cache = State(WINDOWED.config, 2, ROOM).cache
    cache.lengths += 3
    assert forked(cache) is cache and type(cache) is LandmarkCache
    assert with_common_pasts([cache, cache]) == [cache, cache]
    prompts = [[1, 2, 3]] * 3
    plain = generate(WINDOWED, prompts[:1], 30)
    assert generate(WINDOWED, prompts, 30) == plain * 3


@torch.no_grad()
def test_recorded_steps_read_their_pasts_one_by_one():
    """Where shapes must be static nothing may depend on which row has which past."""
    rows = begun([[1, 2, 3], [4, 5]])
    rows.fork()
    rows = rows.select([1, 0, 1])
    with capturing():
        assert rows.state.cache.plan(torch.tensor([[2], [3], [2]])).groups is None
        rows.read([[6], [7], [8]])
        rows.read([[9], [1], [2]])


@pytest.mark.parametrize(
    "past_of_row, pasts, even",
    [
        ([0], 1, True),
        ([1, 1], 2, True),
        ([2, 0, 2, 1, 0], 3, True),
        ([2, 0, 2, 2, 0], 4, False),  # two pasts have no row
        ([3, 1, 1, 0, 1, 1, 2, 1, 1, 1], 4, False),  # one has nearly all
    ],
)
def test_every_row_has_a_place_of_its_own_beside_those_with_its_past(past_of_row, pasts, even):
    groups = groups_of(torch.tensor(past_of_row), pasts)
    places = groups.places.tolist()
    assert len(set(places)) == len(places)
    assert groups.rows[groups.places].tolist() == list(range(len(past_of_row)))
    assert (groups.pasts is None) == even
    whose = list(range(pasts)) if even else groups.pasts.tolist()
    n = len(groups.rows) // len(whose)
    assert [whose[place // n] for place in places] == past_of_row
    assert len(groups.rows) <= 2 * max(len(past_of_row), pasts)  # few places are empty


@torch.no_grad()
def test_samples_of_one_prompt_are_those_of_prompts_that_share_nothing():
    prompts = [[1, 2, 3, 4]] * 4 + [[5, 6]] * 3
    together = generate(MODEL, prompts, 20, 1.0, seed=5)
    alone = [generate(MODEL, [prompt], 20, 1.0, seed=5 + n)[0] for n, prompt in enumerate(prompts)]
    assert together == alone
    assert len(set(map(tuple, together))) == len(prompts)
