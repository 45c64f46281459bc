"""Rows that share their pasts answer as rows that share nothing: as the whole text read at once."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attention import LandmarkCache
from config import Model
from fast.compiling import capturing
from fast.forked_cache import ForkedCache, forked, groups_of, with_common_pasts
from generate import Conversations, generate
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
MODEL = SAGE(CONFIG, seed=3).double().eval()
WINDOWED = SAGE(dataclasses.replace(CONFIG, window=16), seed=3).double().eval()


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


def begun(texts: list[list[int]]) -> Texts:
    some = Texts(State(CONFIG, len(texts), ROOM, torch.float64), [[] for _ in texts])
    some.read(texts)
    return some


prompts_of = st.lists(
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=9), min_size=1, max_size=3
)
steps = st.lists(st.sampled_from(["fork", "select", "token", "several", "join"]), max_size=9)


@torch.no_grad()
@settings(max_examples=60, deadline=None)
@given(prompts_of, steps, st.data())
def test_any_order_of_forks_gives_what_the_whole_text_gives(prompts, todo, data):
    rows = begun(prompts)
    for step in todo:
        if step == "fork":
            rows.state.cache = forked(rows.state.cache)
            assert isinstance(rows.state.cache, ForkedCache)
        elif step == "select":
            index = st.integers(0, len(rows.texts) - 1)
            chosen = data.draw(st.lists(index, min_size=1, max_size=5))
            rows = Texts(rows.state.select(chosen), [rows.texts[row] for row in chosen])
        elif step == "join":
            others = begun(data.draw(prompts_of))
            if data.draw(st.booleans()):
                others.state.cache = forked(others.state.cache)
            joined = State.join([rows.state, others.state])
            rows = Texts(joined, rows.texts + others.texts)
        else:
            size = dict(min_size=1, max_size=1) if step == "token" else dict(max_size=5)
            one = st.lists(st.integers(0, VOCABULARY - 1), **size)
            more = [data.draw(one) for _ in rows.texts]
            if max(map(len, more)) and max(map(len, rows.texts)) + 5 < ROOM:
                rows.read(more)


@torch.no_grad()
def test_a_row_that_reads_nothing_and_one_that_ends_change_nothing():
    rows = begun([[1, 2, 3], [4, 5]])
    rows.state.cache = forked(rows.state.cache)
    rows = Texts(rows.state.select([0, 1, 1, 0]), [rows.texts[row] for row in (0, 1, 1, 0)])
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
    assert shared.bytes >= past + own


@torch.no_grad()
def test_pasts_that_nobody_has_any_more_are_left_out():
    rows = begun([[1], [2, 3], [4]])
    rows.state.cache = forked(rows.state.cache)
    others = begun([[5, 6, 7]])
    joined = State.join([rows.state.select([1, 1]), others.state])
    assert joined.cache.pasts.lengths.tolist() == [2, 3]
    assert joined.cache.past_of_row.tolist() == [0, 0, 1]
    assert rows.state.cache.pasts.lengths.tolist() == [1, 2, 1]  # as they were


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
    rows.state.cache = forked(rows.state.cache)
    rows = Texts(rows.state.select([1, 0, 1]), [rows.texts[row] for row in (1, 0, 1)])
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
