"""Batches of examples: each once an epoch, within the budget, in an order that seed and epoch fix, from anywhere on."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.text.batches import Cursor, ExampleBatches, Ragged, cut
from glassformer.text.examples import LabelledTexts, MaskedWindows, Masking, Windows
from glassformer.text.pairs import PairBatches

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=50)


class Numbered:
    """Examples that say which they are: a batch is its rows and epoch. Their lengths may depend on the epoch."""

    def __init__(self, *lengths):
        self._lengths = [np.array(one) for one in lengths]

    def lengths(self, epoch):
        return self._lengths[epoch % len(self._lengths)]

    def batch(self, rows, epoch):
        assert rows.dtype == np.int64
        return rows.tolist(), epoch


@settings(deadline=None)
@given(st.lists(LENGTHS, min_size=1, max_size=3), st.integers(12, 60), st.integers(0, 2**31), st.integers(0, 40))
def test_an_epoch_has_every_example_once_within_the_budget(lengths, tokens, seed, epoch):
    batches = ExampleBatches(Numbered(*lengths), tokens=tokens, seed=seed)
    mine = lengths[epoch % len(lengths)]
    plan = batches.epoch(epoch)
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(mine)))
    for rows in plan:
        assert len(rows) > 0
        assert len(rows) * max(mine[row] for row in rows) <= tokens
    # Those of like length go together: between two batches, all of one are at most as long as all of the other.
    ends = sorted((min(mine[row] for row in rows), max(mine[row] for row in rows)) for rows in plan)
    assert all(a[1] <= b[0] for a, b in zip(ends, ends[1:], strict=False))
    again = ExampleBatches(Numbered(*lengths), tokens=tokens, seed=seed)
    list(again.once())
    assert [rows.tolist() for rows in again.epoch(epoch)] == [rows.tolist() for rows in plan]
    places = sum(len(rows) * max(mine[row] for row in rows) for rows in plan)
    assert batches.padding(epoch) == pytest.approx(1 - sum(mine) / places)
    assert len(batches) == len(lengths[0])


def test_once_is_the_first_epoch_and_batches_are_those_of_their_epoch():
    batches = ExampleBatches(Numbered([1, 2, 3, 4]), tokens=4)
    assert list(batches.once()) == [(rows.tolist(), 0) for rows in batches.epoch(0)]
    assert batches.batch([2, 0], 5) == ([2, 0], 5)
    assert batches.batch([1]) == ([1], 0)


def test_epochs_and_seeds_differ_and_lengths_come_in_random_order():
    examples = Numbered(list(range(1, 201)))

    def plan(seed, epoch):
        return [rows.tolist() for rows in ExampleBatches(examples, tokens=400, seed=seed).epoch(epoch)]

    assert plan(0, 0) != plan(0, 1) != plan(1, 1) != plan(1, 0) != plan(0, 0)
    longest = [max(rows) for rows in plan(0, 0)]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)
    # Of equal lengths, who goes together changes too.
    equal = ExampleBatches(Numbered([5] * 100), tokens=50)
    assert {frozenset(rows.tolist()) for rows in equal.epoch(0)} != {
        frozenset(rows.tolist()) for rows in equal.epoch(1)
    }


@settings(deadline=None)
@given(st.lists(LENGTHS, min_size=1, max_size=3), st.integers(0, 60), st.integers(0, 99))
def test_a_restored_cursor_goes_on_where_the_other_stopped(lengths, stop, seed):
    def fresh():
        return ExampleBatches(Numbered(*lengths), tokens=24, seed=seed)

    whole = fresh().restore({"epoch": 0, "index": 0})
    uninterrupted = [next(whole) for _ in range(stop + 30)]
    cursor = fresh().restore({"epoch": 0, "index": 0})
    before = [next(cursor) for _ in range(stop)]
    state = cursor.state()
    restored = fresh().restore(state)
    assert isinstance(restored, Cursor) and iter(restored) is restored
    assert restored.state() == state
    assert before + [next(restored) for _ in range(30)] == uninterrupted
    # Epoch after epoch, each as planned.
    batches, planned, epoch = fresh(), [], 0
    while len(planned) < len(uninterrupted):
        planned += [(rows.tolist(), epoch) for rows in batches.epoch(epoch)]
        epoch += 1
    assert uninterrupted == planned[: len(uninterrupted)]


def test_a_cursor_names_the_batch_that_comes_next():
    batches = ExampleBatches(Numbered([4] * 3), tokens=4)
    cursor = batches.restore({"epoch": 2, "index": 2})
    assert cursor.state() == {"epoch": 2, "index": 2}
    assert next(cursor)[1] == 2
    assert cursor.state() == {"epoch": 3, "index": 0}
    assert batches.restore({"epoch": 2, "index": 3}).state() == {"epoch": 3, "index": 0}


@pytest.mark.parametrize(
    "examples",
    [
        MaskedWindows([[9, 10, 11] * 9, [12] * 20], 8, Masking(4, 30, (0, 1, 2, 3, 4)), before=[2], after=[3], seed=5),
        Windows([[9, 10, 11] * 9, [12] * 20], 8, seed=5),
    ],
    ids=["masked", "windows"],
)
def test_a_training_that_goes_on_sees_the_same_tensors(examples):
    cursor = ExampleBatches(examples, tokens=24, seed=5).restore({"epoch": 0, "index": 0})
    for _ in range(7):
        next(cursor)
    other = ExampleBatches(examples, tokens=24, seed=5).restore(cursor.state())
    for _ in range(9):
        mine, theirs = vars(next(cursor)), vars(next(other))
        assert mine.keys() == theirs.keys()
        for name, part in mine.items():
            same = torch.equal(part, theirs[name]) if isinstance(part, torch.Tensor) else part == theirs[name]
            assert same, name


def test_batches_of_texts():
    texts = [[5], [6, 7], [8, 9, 10], [11, 12]]
    batches = ExampleBatches(LabelledTexts(texts, [0, 1, 2, 3]), tokens=4)
    seen = {}
    for batch in batches.once():
        assert batch.ids.numel() <= 4
        for ids, label in zip(batch.ids.tolist(), batch.labels.tolist(), strict=True):
            seen[label] = [i for i in ids if i]
    assert seen == dict(enumerate(texts))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExampleBatches(Numbered([]), tokens=9), r"^there are no examples to make batches of; check the data"),
        (lambda: ExampleBatches(Numbered([1]), tokens=9, seed=-1), r"^'seed' must be at least 0, got -1\.$"),
        (
            lambda: ExampleBatches(Numbered([9, 11, 10]), tokens=9),
            r"^example 2 has 11 tokens, more than the batch budget of 9: raise 'training\.batch_tokens'\.$",
        ),
        (
            lambda: ExampleBatches(Numbered([9]), tokens=9).restore({"epoch": -1, "index": 0}),
            "at least 0, got -1 and 0",
        ),
        (
            lambda: ExampleBatches(Numbered([9]), tokens=9).restore({"epoch": 0, "index": -1}),
            "at least 0, got 0 and -1",
        ),
        (
            lambda: ExampleBatches(Numbered([9]), tokens=9).restore({"epoch": 4, "index": 2}),
            r"^the cursor stands at batch 2 of epoch 4, which has only 1: the data, the tokenizer or",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()
    assert len(ExampleBatches(Numbered([9]), tokens=9).epoch(0)) == 1  # as long as the budget fits


# --- What they are made of --------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(4, 9), max_size=5), min_size=1, max_size=8), st.booleans(), st.data())
def test_ragged_sequences(sequences, framed, data):
    before, after = ([1], [2, 3]) if framed else ([], [])
    ragged = Ragged(sequences, before, after)
    whole = [before + ids + after for ids in sequences]
    assert ragged.flat.tolist() == [i for ids in whole for i in ids]
    assert ragged.lengths.tolist() == [len(ids) for ids in whole]
    rows = data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=5))
    if not ragged.flat.size:
        return
    padded = ragged.padded(np.array(rows), -7)
    width = max(len(whole[row]) for row in rows)
    assert padded.dtype == np.int64
    assert padded.tolist() == [whole[row] + [-7] * (width - len(whole[row])) for row in rows]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(9, 40), st.randoms())
def test_cuts_are_made_as_late_as_can_be(lengths, tokens, random):
    order = list(range(len(lengths)))
    random.shuffle(order)
    batches = [rows.tolist() for rows in cut(np.array(order), np.array(lengths), tokens)]
    assert [row for rows in batches for row in rows] == order
    for rows, following in zip(batches, [*batches[1:], None], strict=True):
        assert len(rows) * max(lengths[row] for row in rows) <= tokens
        if following is not None:
            assert (len(rows) + 1) * max(lengths[row] for row in [*rows, following[0]]) > tokens


def test_pairs_with_other_ends_and_padding():
    batch = PairBatches([[5], [6, 7]], [[8, 9], [10]], tokens=6, ends=(50, 51), pad_id=52).batch([0, 1])
    assert batch.source.tolist() == [[5, 51, 52], [6, 7, 51]]
    assert batch.target.tolist() == [[50, 8, 9, 51], [50, 10, 51, 52]]
    assert (batch.pad_id, batch.n_source_tokens, batch.n_target_tokens, batch.n_tokens) == (52, 5, 5, 5)
    assert batch.padding == pytest.approx(1 - 10 / 12)
    wide = [[5] * length for length in (1, 1, 1, 1, 20, 1)]
    parts = PairBatches(wide, wide, tokens=200, ends=(50, 51), pad_id=52).batch(range(6)).parts()
    assert len(parts) > 1 and sum(len(part) for part in parts) == 6
    assert all((part.source != 52).any(0).all() and part.pad_id == 52 for part in parts)
