"""Examples: what is predicted, of what, and where nothing is; masks as BERT's paper says, over a large sample."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.text.examples import (
    IGNORE,
    LabelledTexts,
    MaskedWindows,
    Masking,
    PromptedTexts,
    Windows,
)

PAD = 0
IDS = st.lists(st.integers(9, 99), max_size=12)
FILLED = st.lists(st.integers(9, 99), min_size=1, max_size=9)
FRAMES = st.sampled_from([((), ()), ((1,), ()), ((), (2,)), ((1,), (2, 3))])
MASKING = Masking(mask_id=4, vocab_size=100, special_ids=(0, 1, 2, 3, 4, 50))


def groups(data, count):
    """The rows of an epoch in batches of any composition."""
    order = data.draw(st.permutations(range(count)))
    size = data.draw(st.integers(1, max(1, count)))
    return [np.array(order[start : start + size]) for start in range(0, count, size)]


# --- Windows ----------------------------------------------------------------------------------------------------------


def rows_of(windows, epoch, data):
    """For each window in its order: ids, targets and documents, without padding; what pads is checked here."""
    lengths = windows.lengths(epoch)
    found = {}
    for rows in groups(data, len(lengths)):
        batch = windows.batch(rows, epoch)
        assert batch.ids.dtype == batch.target.dtype == torch.int64
        assert batch.ids.shape == batch.target.shape == (len(rows), lengths[rows].max())
        assert batch.n_tokens == lengths[rows].sum()
        assert batch.full == bool((batch.target != IGNORE).all())
        documents = batch.documents
        assert documents is None or (documents.dtype == torch.int64 and documents.any())
        documents = torch.zeros_like(batch.ids) if documents is None else documents
        for number, row in enumerate(rows.tolist()):
            real = lengths[row]
            assert (batch.ids[number, real:] == PAD).all() and (batch.target[number, real:] == IGNORE).all()
            found[row] = [part[number, :real].tolist() for part in (batch.ids, batch.target, documents)]
    return [found[row] for row in range(len(lengths))]


@settings(deadline=None, max_examples=150)
@given(st.lists(IDS, min_size=1, max_size=5), FRAMES, st.integers(1, 9), st.booleans(), st.data())
def test_windows(texts, frame, context, every, data):
    before, after = frame
    flat = [i for text in texts for i in (*before, *text, *after)]
    owner = [number for number, text in enumerate(texts) for _ in range(len(before) + len(text) + len(after))]
    seed, epoch = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9))
    make = {"before": before, "after": after, "pad_id": PAD, "seed": seed, "every": every}
    if len(flat) < (2 if every else context + 1):
        with pytest.raises(InputError, match=rf"there are {len(flat)} tokens of text, fewer than a window needs"):
            Windows(texts, context, **make)
        return
    windows = Windows(texts, context, **make)
    rows = rows_of(windows, epoch, data)
    assert all(len(ids) == context for ids, _, _ in (rows[:-1] if every else rows))
    ids, target, _ = ([i for row in rows for i in row[part]] for part in range(3))

    # Which piece of the text was read: all of it, or whole windows from the epoch's offset on.
    offset = 0 if every else windows._offset(epoch)
    end = len(flat) - 1 if every else offset + len(rows) * context
    assert 0 <= offset <= max(0, context - 1) and end > len(flat) - 1 - context and end <= len(flat) - 1
    assert ids == flat[offset:end]
    expected = [flat[i + 1] if owner[i] == owner[i + 1] else IGNORE for i in range(offset, end)]
    assert target == expected
    if every:  # every token but the documents' first ones, exactly once
        assert sum(i != IGNORE for i in target) == sum(a == b for a, b in pairwise(owner))

    place = offset
    for row_ids, _, documents in rows:
        owners = owner[place : place + len(row_ids)]
        assert documents == [number - owners[0] for number in owners]
        place += len(row_ids)


def test_windows_by_hand():
    windows = Windows([[5, 6], [7], [8, 9, 10]], 4, before=[1], every=True)  # 1 5 6 1 7 1 8 9 10
    assert windows.lengths(3).tolist() == [4, 4]
    batch = windows.batch(np.array([0, 1]), 3)
    assert batch.ids.tolist() == [[1, 5, 6, 1], [7, 1, 8, 9]]
    assert batch.target.tolist() == [[5, 6, IGNORE, 7], [IGNORE, 8, 9, 10]]
    assert batch.documents is not None and batch.documents.tolist() == [[0, 0, 0, 1], [0, 1, 1, 1]]
    assert (batch.n_tokens, batch.full) == (8, False)
    alone = Windows([[5, 6, 7, 8, 9, 10]], 4, every=True, pad_id=3).batch(np.array([1, 0]), 0)
    assert alone.ids.tolist() == [[9, 3, 3, 3], [5, 6, 7, 8]]
    assert alone.target.tolist() == [[10, IGNORE, IGNORE, IGNORE], [6, 7, 8, 9]]
    assert (alone.documents, alone.n_tokens, alone.full) == (None, 5, False)
    assert Windows([[5, 6, 7]], 2, every=True).batch(np.array([0]), 0).full


def test_windows_of_an_epoch_begin_at_its_own_offset():
    def first(seed, epoch):
        windows = Windows([list(range(100))], 8, seed=seed)
        return int(windows.batch(np.array([0]), epoch).ids[0, 0])

    assert {first(0, epoch) for epoch in range(100)} == set(range(8))
    assert [first(3, epoch) for epoch in range(9)] == [first(3, epoch) for epoch in range(9)]
    assert [first(3, epoch) for epoch in range(9)] != [first(4, epoch) for epoch in range(9)]
    # One window and a token: there is nowhere else to begin; one token more: two places.
    assert {Windows([[1] * 9], 8)._offset(epoch) for epoch in range(30)} == {0}
    assert {Windows([[1] * 10], 8)._offset(epoch) for epoch in range(30)} == {0, 1}


def test_too_little_text():
    with pytest.raises(InputError, match=r"^there are 4 tokens of text, fewer than a window needs \(5\)\.$"):
        Windows([[5, 6], [7, 8]], 4)
    with pytest.raises(InputError, match=r"^there are 1 tokens of text, fewer than a window needs \(2\)\.$"):
        Windows([[], [5]], 4, every=True)
    assert Windows([[5, 6], [7, 8, 9]], 4).lengths(0).tolist() == [4]


# --- Hidden tokens ----------------------------------------------------------------------------------------------------


def pieces_of(masked, epoch, data, frame):
    """For each piece in its order: what it says, without its frame, and the places to predict."""
    before, after = map(list, frame)
    lengths = masked.lengths(epoch)
    found = {}
    for rows in groups(data, len(lengths)):
        batch = masked.batch(rows, epoch)
        assert batch.ids.dtype == batch.places.dtype == batch.target.dtype == torch.int64
        assert batch.ids.shape == (len(rows), lengths[rows].max()) and batch.n_tokens == lengths[rows].sum()
        said = batch.ids.flatten().clone()
        said[batch.places] = batch.target
        hidden = torch.zeros_like(said, dtype=torch.bool)
        hidden[batch.places] = True
        assert len(batch.places) == len(batch.target) == hidden.sum()
        for number, row in enumerate(rows.tolist()):
            ids, chosen = (part.view(batch.ids.shape)[number].tolist() for part in (said, hidden))
            assert ids[lengths[row] :] == [PAD] * (len(ids) - lengths[row])
            end = lengths[row] - len(after)
            assert ids[: len(before)] == before and ids[end : lengths[row]] == after
            assert not any(chosen[: len(before)]) and not any(chosen[end:])
            inside = slice(len(before), end)
            found[row] = ids[inside], chosen[inside], batch.ids[number].tolist()[inside]
    return [found[row] for row in range(len(lengths))]


@settings(deadline=None, max_examples=150)
@given(st.lists(IDS, min_size=1, max_size=5), FRAMES, st.integers(2, 9), st.booleans(), st.data())
def test_pieces_with_hidden_tokens(texts, frame, room, every, data):
    context = room + len(frame[0]) + len(frame[1])
    make = {"before": frame[0], "after": frame[1], "pad_id": PAD, "every": every}
    if not any(texts):
        with pytest.raises(InputError, match="no text to learn from: all documents are empty"):
            MaskedWindows(texts, context, MASKING, **make)
        return
    seed, epoch = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9))
    masked = MaskedWindows(texts, context, MASKING, seed=seed, **make)
    pieces = pieces_of(masked, epoch, data, frame)
    # What was read, piece after piece, is every document from its beginning to its end.
    left = iter(pieces)
    for text in filter(None, texts):
        parts = []
        while sum(map(len, parts)) < len(text):
            parts.append(next(left)[0])
        assert [i for part in parts for i in part] == text
        assert all(len(part) == room for part in parts[1:-1]) and 1 <= len(parts[0]) <= room >= len(parts[-1]) >= 1
        assert len(parts) == 1 if len(text) <= room else len(parts[0]) == room or not every
    assert next(left, None) is None
    for said, chosen, shown in pieces:
        assert sum(chosen) == max(1, round(0.15 * len(said)))
        for i, hidden, seen in zip(said, chosen, shown, strict=True):
            assert seen == i if not hidden else seen in (i, MASKING.mask_id) or seen not in MASKING.special_ids
    # The same whatever the batches are, and only for this seed and epoch.
    again = MaskedWindows(texts, context, MASKING, seed=seed, **make)
    assert pieces_of(again, epoch, data, frame) == pieces


def test_a_piece_is_as_long_as_the_context_with_its_frame():
    masked = MaskedWindows([[9] * 10], 6, MASKING, before=[1], after=[2], every=True)
    assert masked.lengths(0).tolist() == masked.lengths(7).tolist() == [6, 6, 4]
    assert masked.batch(np.array([2, 0]), 0).n_tokens == 10


def test_hidden_tokens_are_those_of_the_paper():
    """15 % to predict, of which 80 % are shown as the mask, 10 % as any ordinary token, 10 % as they are."""
    length, count = 100, 2000
    vocabulary = Masking(mask_id=7, vocab_size=500, special_ids=(0, 1, 7, 300, 499))
    text = np.random.default_rng(0).choice([i for i in range(500) if i not in vocabulary.special_ids], (count, length))
    masked = MaskedWindows(text.tolist(), length, vocabulary)
    batch = masked.batch(np.arange(count), 0)
    ids, original = batch.ids.flatten().numpy(), text.flatten()
    places, target = batch.places.numpy(), batch.target.numpy()
    assert len(places) == len(set(places.tolist())) == 0.15 * length * count
    assert (target == original[places]).all()
    others = np.setdiff1d(np.arange(length * count), places)
    assert (ids[others] == original[others]).all()
    shown = ids[places]
    hidden, kept = shown == 7, shown == target
    drawn = shown[~hidden & ~kept]
    for share, expected in ((hidden.mean(), 0.8), (kept.mean(), 0.1 + 0.1 / 495), (len(drawn) / len(places), 0.1)):
        assert abs(share - expected) < 4 * (expected * (1 - expected) / len(places)) ** 0.5
    # Any ordinary token may be drawn, none more often than others, and no special one.
    counts = np.bincount(drawn, minlength=500)
    assert counts[list(vocabulary.special_ids)].sum() == 0
    ordinary = np.delete(counts, vocabulary.special_ids)
    mean = len(drawn) / 495
    chi_square = ((ordinary - mean) ** 2 / mean).sum()
    assert abs(chi_square - 494) < 4 * (2 * 494) ** 0.5
    # Every place is as likely as any other, and so is what happens there.
    at_place = np.bincount(places % length, minlength=length)
    assert np.abs(at_place - 300).max() < 5 * (count * 0.15 * 0.85) ** 0.5
    assert abs(hidden[: len(hidden) // 2].mean() - hidden[len(hidden) // 2 :].mean()) < 0.02


def test_masks_are_new_in_every_epoch_and_for_every_seed():
    text = [list(range(9, 49)), list(range(9, 49))]

    def places(seed, epoch):
        return MaskedWindows(text, 40, MASKING, seed=seed).batch(np.arange(2), epoch).places.tolist()

    assert places(0, 0) == places(0, 0)
    drawn = [places(seed, epoch) for seed in range(3) for epoch in range(5)]
    assert all(a != b for n, a in enumerate(drawn) for b in drawn[:n])
    first, second = places(0, 0)[:6], [place - 40 for place in places(0, 0)[6:]]
    assert first != second  # the same text twice has masks of its own each time


def test_where_a_document_is_cut_moves_unless_every_token_counts_alike():
    text = [list(range(9, 39))]
    cuts = [tuple(MaskedWindows(text, 10, MASKING, seed=1).lengths(epoch).tolist()) for epoch in range(60)]
    assert {lengths[0] for lengths in cuts} == set(range(1, 11))
    assert all(sum(lengths) == 30 for lengths in cuts)
    moving = MaskedWindows(text, 10, MASKING, seed=1)
    assert [tuple(moving.lengths(epoch).tolist()) for epoch in (5, 3, 5, 0)] == [cuts[5], cuts[3], cuts[5], cuts[0]]
    every = MaskedWindows(text, 10, MASKING, seed=1, every=True)
    assert {tuple(every.lengths(epoch).tolist()) for epoch in range(9)} == {(10, 10, 10)}
    assert {tuple(MaskedWindows([text[0][:10]], 10, MASKING).lengths(epoch)) for epoch in range(9)} == {(10,)}


def test_something_is_predicted_in_every_piece_and_the_rate_is_heeded():
    batch = MaskedWindows([[9], [10], [11, 12]], 8, MASKING).batch(np.arange(3), 0)
    assert batch.target[:2].tolist() == [9, 10] and len(batch.places) == 3
    half = Masking(4, 100, (0, 1, 2, 3, 4), rate=0.5)
    assert len(MaskedWindows([[9] * 20], 20, half).batch(np.array([0]), 0).places) == 10


def test_a_context_without_room():
    for context, frame in ((1, ()), (3, (1,)), (0, ())):
        with pytest.raises(InputError, match=rf"'context' must leave room for text between .*, got {context}\.$"):
            MaskedWindows([[9, 9]], context, MASKING, before=frame, after=frame)
    assert MaskedWindows([[9, 9]], 4, MASKING, before=[1], after=[2]).lengths(0).tolist() == [4]


# --- Labels and prompts -----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.tuples(FILLED, st.integers(0, 5)), min_size=1, max_size=8), st.integers(0, 8), st.data())
def test_labelled_texts(items, pad_id, data):
    texts, labels = map(list, zip(*items, strict=True))
    examples = LabelledTexts(texts, labels, pad_id)
    assert examples.lengths(4).tolist() == [len(text) for text in texts]
    for rows in groups(data, len(texts)):
        batch = examples.batch(rows, 4)
        assert batch.ids.dtype == batch.labels.dtype == torch.int64
        width = max(len(texts[row]) for row in rows)
        assert batch.ids.tolist() == [texts[row] + [pad_id] * (width - len(texts[row])) for row in rows]
        assert batch.labels.tolist() == [labels[row] for row in rows]
        assert batch.n_tokens == sum(len(texts[row]) for row in rows)


@settings(deadline=None)
@given(st.lists(st.tuples(FILLED, FILLED), min_size=1, max_size=8), st.integers(0, 8), st.data())
def test_prompted_texts_predict_their_answers_alone(items, pad_id, data):
    prompts, answers = map(list, zip(*items, strict=True))
    examples = PromptedTexts(prompts, answers, pad_id)
    lengths = [len(prompt) + len(answer) - 1 for prompt, answer in items]
    assert examples.lengths(2).tolist() == lengths
    for rows in groups(data, len(items)):
        batch = examples.batch(rows, 2)
        assert batch.ids.dtype == batch.target.dtype == torch.int64
        assert batch.ids.is_contiguous()
        assert batch.ids.shape == batch.target.shape == (len(rows), max(lengths[row] for row in rows))
        assert (batch.documents, batch.full, batch.n_tokens) == (None, False, sum(lengths[row] for row in rows))
        for ids, target, row in zip(batch.ids.tolist(), batch.target.tolist(), rows.tolist(), strict=True):
            read = prompts[row] + answers[row][:-1]
            wanted = [IGNORE] * (len(prompts[row]) - 1) + answers[row]
            assert ids[: len(read)] == read
            assert target == wanted + [IGNORE] * (len(target) - len(wanted))
            # Beyond its end a row may hold its last token, which nothing that is predicted can see.
            assert all(i in (pad_id, answers[row][-1]) for i in ids[len(read) :])


def test_texts_without_a_token():
    with pytest.raises(InputError, match=r"^text 2 has no token; leave it out of the data\.$"):
        LabelledTexts([[5], [], [6]], [0, 1, 0])
    with pytest.raises(InputError, match=r"^text 1 has no token"):
        PromptedTexts([[], [5]], [[6], [7]])
    with pytest.raises(InputError, match=r"^text 2 has no token"):
        PromptedTexts([[4], [5]], [[6], []])
    assert len(LabelledTexts([], []).lengths(0)) == len(PromptedTexts([], []).lengths(0)) == 0


@pytest.mark.parametrize(
    "batch",
    [
        Windows([[5, 6], [7, 8]], 3).batch(np.array([0]), 0),
        Windows([[5, 6, 7, 8]], 3).batch(np.array([0]), 0),
        MaskedWindows([[9, 9, 9]], 3, MASKING).batch(np.array([0]), 0),
        LabelledTexts([[5, 6]], [1]).batch(np.array([0]), 0),
        PromptedTexts([[5, 6]], [[7]]).batch(np.array([0]), 0),
    ],
    ids=["windows of documents", "windows", "masked", "labelled", "prompted"],
)
def test_batches_move_whole(batch):
    moved = batch.to("meta")
    assert type(moved) is type(batch) and batch.parts() == [batch] and moved.n_tokens == batch.n_tokens
    for name, part in vars(batch).items():
        if isinstance(part, torch.Tensor):
            assert getattr(moved, name).device.type == "meta" and getattr(moved, name).shape == part.shape
        else:
            assert getattr(moved, name) == part
