"""Batches: every pair once an epoch, within the budget, in an order that a seed and an epoch fix, from any place on."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.text.pairs import PARTS, PairBatches
from glassformer.text.tokenizer import BOS, EOS, PAD

IDS = st.lists(st.integers(4, 99), max_size=12)
CORPORA = st.lists(st.tuples(IDS, IDS), min_size=1, max_size=60)


def batches_of(corpus, tokens=40, seed=0, bucket=True):
    return PairBatches(
        [pair[0] for pair in corpus], [pair[1] for pair in corpus], tokens=tokens, seed=seed, bucket=bucket
    )


def realistic(n=29_000):
    random = np.random.default_rng(0)
    source = np.clip(random.gamma(8, 1.7, n), 3, 60).astype(int)
    target = np.clip(source + random.normal(0, 2.5, n), 3, 60).astype(int)
    return [[5] * length for length in source], [[6] * length for length in target]


@settings(deadline=None, max_examples=60)
@given(CORPORA, st.integers(13, 80), st.integers(0, 2**31), st.integers(0, 50), st.booleans())
def test_an_epoch_has_every_pair_once_within_the_budget(corpus, tokens, seed, epoch, bucket):
    batches = batches_of(corpus, tokens, seed, bucket)
    plan = batches.epoch(epoch)
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(corpus)))
    for rows in plan:
        assert len(rows) > 0
        longest = max(max(len(corpus[row][0]), len(corpus[row][1])) + 1 for row in rows)
        assert len(rows) * longest <= tokens
    again = batches_of(corpus, tokens, seed, bucket).epoch(epoch)
    assert all(np.array_equal(a, b) for a, b in zip(plan, again, strict=True))


@settings(deadline=None, max_examples=60)
@given(CORPORA, st.booleans())
def test_batches_hold_the_pairs_and_nothing_else(corpus, bucket):
    batches = batches_of(corpus, bucket=bucket)
    for batch in batches.once():
        assert batch.source.dtype == batch.target.dtype == batch.rows.dtype == torch.int64
        real = 0
        for row, source, target in zip(batch.rows.tolist(), batch.source.tolist(), batch.target.tolist(), strict=True):
            x, y = [*corpus[row][0], EOS], [BOS, *corpus[row][1], EOS]
            assert source == x + [PAD] * (len(source) - len(x))
            assert target == y + [PAD] * (len(target) - len(y))
            real += len(x) + len(y) - 1
        assert (batch.source[:, -1] != PAD).any() and (batch.target[:, -1] != PAD).any()
        assert batch.n_source_tokens == int((batch.source != PAD).sum())
        assert batch.n_target_tokens == int((batch.target[:, 1:] != PAD).sum())
        places = batch.source.numel() + batch.target[:, 1:].numel()
        assert batch.padding == pytest.approx(1 - real / places)


@settings(deadline=None, max_examples=40)
@given(CORPORA, st.integers(0, 25), st.integers(0, 1000))
def test_a_restored_cursor_goes_on_where_the_other_stopped(corpus, stop, seed):
    def take(cursor, n):
        return [next(cursor).rows.tolist() for _ in range(n)]

    uninterrupted = take(batches_of(corpus, seed=seed).cursor(), stop + 12)
    cursor = batches_of(corpus, seed=seed).cursor()
    before = take(cursor, stop)
    state = cursor.state()
    assert set(state) == {"epoch", "index"}
    restored = batches_of(corpus, seed=seed).restore(state)
    assert restored.state() == state
    assert before + take(restored, 12) == uninterrupted


def test_a_cursor_crosses_epochs_and_names_the_next_batch():
    batches = batches_of([([4], [4, 5])] * 10, tokens=6)
    plan = batches.epoch(0)
    cursor = batches.cursor(epoch=0, index=len(plan) - 1)
    assert next(cursor).rows.tolist() == plan[-1].tolist()
    assert cursor.state() == {"epoch": 1, "index": 0}
    assert next(cursor).rows.tolist() == batches.epoch(1)[0].tolist()
    assert cursor.state() == {"epoch": 1, "index": 1}


def test_epochs_and_seeds_differ():
    source, target = realistic(300)
    batches = PairBatches(source, target, tokens=200, seed=1)
    orders = [np.concatenate(plan).tolist() for plan in (batches.epoch(0), batches.epoch(1))]
    orders.append(np.concatenate(PairBatches(source, target, tokens=200, seed=2).epoch(0)).tolist())
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_like_lengths_go_together_and_batches_are_shuffled():
    batches = PairBatches(*realistic(), tokens=4096, seed=3)
    assert batches.padding(0) < 0.08
    assert PairBatches(*realistic(), tokens=4096, seed=3, bucket=False).padding(0) > 0.4
    widths = [int(batches.target_lengths[rows].max()) for rows in batches.epoch(0)]
    assert widths != sorted(widths)
    n_pairs = sum(len(batch) for batch in batches.once())
    assert n_pairs == len(batches) == 29_000
    assert sum(batch.n_target_tokens for batch in batches.once()) == batches.n_target_tokens
    assert sum(batch.n_source_tokens for batch in batches.once()) == batches.n_source_tokens
    shares = [batch.padding for batch in batches.once()]
    assert min(shares) <= batches.padding(0) <= max(shares)


def test_planning_an_epoch_and_padding_are_fast():
    batches = PairBatches(*realistic(), tokens=4096, seed=0)

    def best(work, times=7):
        spans = []
        for _ in range(times):
            start = time.perf_counter()
            work()
            spans.append(time.perf_counter() - start)
        return min(spans)

    assert best(lambda: batches.epoch(5)) < 0.050
    rows = batches.epoch(0)[0]
    assert best(lambda: batches.batch(rows)) < 0.005


def test_a_batch_moves():
    batch = batches_of([([4, 5], [6])]).batch([0]).to("meta")
    assert batch.source.device.type == batch.target.device.type == batch.rows.device.type == "meta"
    assert (batch.n_source_tokens, batch.n_target_tokens, len(batch)) == (3, 2, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PairBatches([], [], tokens=10), "no pairs"),
        (lambda: PairBatches([[4]], [], tokens=10), "as many sources as targets, got 1 and 0"),
        (lambda: PairBatches([[4], [4] * 10], [[4], [4]], tokens=10), r"pair 2 has a sentence of 11 tokens.*of 10"),
        (lambda: PairBatches([[4], [4]], [[4], [4] * 10], tokens=10), r"pair 2 has a sentence of 11 tokens.*of 10"),
        (lambda: PairBatches([[4]], [[4]], tokens=10, seed=-1), "'seed' must be at least 0"),
        (lambda: PairBatches([[4]], [[4]], tokens=10).cursor(0, 2), "batch 2 of epoch 0, which has only 1"),
        (lambda: PairBatches([[4]], [[4]], tokens=10).cursor(-1, 0), "at least 0"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_sentence_as_long_as_the_budget_fits():
    assert len(PairBatches([[4] * 9], [[4]], tokens=10).epoch(0)) == 1


def test_parts_hold_the_same_pairs_with_less_padding() -> None:
    random = np.random.default_rng(0)
    ids = [random.integers(4, 90, size=random.integers(1, 40)).tolist() for _ in range(60)]
    whole = PairBatches(ids, ids[::-1], tokens=10**6, bucket=False).batch(range(60))
    parts = whole.parts()
    assert len(parts) == PARTS
    assert sum(part.padding * part.target.numel() for part in parts) < 0.6 * whole.padding * whole.target.numel()
    assert sum(part.n_source_tokens for part in parts) == whole.n_source_tokens
    assert sum(part.n_target_tokens for part in parts) == whole.n_target_tokens
    for part in parts:
        for i, row in enumerate(part.rows.tolist()):
            for cut, full in ((part.source[i], whole.source[row]), (part.target[i], whole.target[row])):
                assert torch.equal(cut, full[: len(cut)]) and not full[len(cut) :].any()


def test_a_batch_with_little_padding_is_its_only_part() -> None:
    batch = PairBatches([[5, 6]] * 8, [[7]] * 8, tokens=100).batch(range(8))
    assert batch.parts() == [batch]
