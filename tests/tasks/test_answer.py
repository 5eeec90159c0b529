"""The verb `answer`: the best span of a context, whatever pieces it is read in, and refusals; the scores of many."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks.small_readers import WORDS, local_reader, reader, words

from glassformer.errors import InputError
from glassformer.models.config import Classification, Spans
from glassformer.tasks import squad
from glassformer.tasks.answer import LONGEST, Answer, answers_of, best_refusal, best_spans, evaluate_answers
from glassformer.tasks.intervals import bootstrap
from glassformer.tasks.model import Model
from glassformer.text.questions import Answer as Right
from glassformer.text.questions import Question
from glassformer.text.spans import SpanPieces

VOCABULARY = words().vocab_size


@pytest.fixture(scope="module")
def model() -> Model:
    return reader(Spans(), positions=64)


def some_questions(count: int = 20, longest: int = 50) -> list[Question]:
    draw = random.Random(0)
    found = []
    for number in range(count):
        context = draw.choices(WORDS, k=draw.randint(1, longest))
        place = draw.randrange(len(context))
        answers = () if number % 3 == 2 else (Right(context[place], len(" ".join(context[:place])) + (place > 0)),)
        found.append(Question(str(number), " ".join(draw.choices(WORDS, k=3)), " ".join(context), answers))
    return found


def asked(questions: list[Question]) -> tuple[list[str], list[str]]:
    return [one.question for one in questions], [one.context for one in questions]


# --- Spans ------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    rows=st.integers(1, 3),
    width=st.integers(1, 12),
    longest=st.integers(1, 14),
    seed=st.integers(0, 10**6),
    closed=st.floats(0, 0.9),
)
def test_best_spans_are_those_of_a_search_over_all(
    rows: int, width: int, longest: int, seed: int, closed: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, 2, width, generator=generator)
    shut = torch.rand(rows, width, generator=generator) < closed
    shut[:, seed % width] = False  # somewhere an answer can be
    logits = logits.masked_fill(shut[:, None], -math.inf)
    scores, first, last = best_spans(logits, longest)
    for row in range(rows):
        begin, end = logits[row].tolist()
        spans = [(i, j) for i in range(width) for j in range(i, min(i + longest, width))]
        found = (int(first[row]), int(last[row]))
        assert found in spans
        assert float(scores[row]) == pytest.approx(max(begin[i] + end[j] for i, j in spans))
        assert float(scores[row]) == pytest.approx(begin[found[0]] + end[found[1]])


def test_an_answer_is_a_part_of_its_context_with_its_score(model: Model) -> None:
    question, context = "bab deb fib ?", "gub  kyb,\tlab mob"
    one = model.answer(question, context)
    assert isinstance(one, Answer) and one.answered and one.text == one.span
    assert one.start is not None and one.end is not None and context[one.start : one.end] == one.text
    ids, segments = model.tokenizer.encode_pair(question, context)
    logits = model.network(torch.tensor([ids]), torch.tensor([segments])).logits[0].detach()
    first = segments.index(1)
    inner = logits[first : len(ids) - 1]
    best = max((float(inner[i, 0] + inner[j, 1]), i, j) for i in range(len(inner)) for j in range(i, len(inner)))
    assert one.score == pytest.approx(best[0] - float(logits[0].sum()), abs=1e-4)
    ranges = model.tokenizer.encode_spans(context)[1]
    assert (one.start, one.end) == (ranges[best[1]][0], ranges[best[2]][1])


def test_an_answer_has_at_most_so_many_tokens() -> None:
    """The first word begins best, the last ends best, and they are too far apart."""
    tokenizer = words()
    table = torch.zeros(VOCABULARY, 2)
    context = WORDS[:40]
    table[tokenizer.encode(context[0])[0], 0] = 5.0
    table[tokenizer.encode(context[-1])[0], 1] = 4.0
    model = local_reader(table)
    near = model.answer("bab ?", " ".join([*context[:10], context[-1]]))
    assert near.text.split() == [*context[:10], context[-1]]
    far = model.answer("bab ?", " ".join(context))
    assert far.text.split()[0] == context[0] and len(far.text.split()) <= LONGEST


@settings(deadline=None, max_examples=60)
@given(
    length=st.integers(1, 40),
    room=st.integers(4, 20),
    stride=st.integers(1, 20),
    seed=st.integers(0, 10**6),
)
def test_a_local_answer_is_found_in_whatever_pieces(length: int, room: int, stride: int, seed: int) -> None:
    """The best of all spans that some piece holds; where pieces overlap by as much as the answer of the whole context
    is long, that is the answer of the whole."""
    stride = min(stride, room)
    draw = random.Random(seed)
    context = draw.sample(WORDS, length)
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(VOCABULARY, 2, generator=generator)
    model = local_reader(table)
    question = "bab deb"
    one = model.answer(question, " ".join(context), max_tokens=room + 5, stride=stride)
    scores = [table[model.tokenizer.encode(word)[0]].tolist() for word in context]
    begins = [0] if length <= room else [*range(0, length - room, stride), length - room]
    spans = {
        (i, j)
        for begin in begins
        for i in range(begin, min(begin + room, length))
        for j in range(i, min(begin + room, i + LONGEST, length))
    }
    best = max(spans, key=lambda span: scores[span[0]][0] + scores[span[1]][1])
    assert one.text.split() == context[best[0] : best[1] + 1]
    null = float(table[model.tokenizer.cls_id].sum())
    assert one.score == pytest.approx(scores[best[0]][0] + scores[best[1]][1] - null, abs=1e-4)
    whole = model.answer(question, " ".join(context), max_tokens=100)
    if len(whole.text.split()) <= room - stride + 1:
        assert (one.text, one.start, one.end) == (whole.text, whole.start, whole.end)


def test_no_piece_is_longer_than_asked() -> None:
    model = local_reader(torch.zeros(VOCABULARY, 2))
    context = " ".join(WORDS)
    for settings_, widest in (({}, len(WORDS) + 4), ({"max_tokens": 20, "stride": 7}, 20), ({"max_tokens": 12}, 12)):
        model.network.widths.clear()  # type: ignore[operator, union-attr]
        model.answer("bab", context, **settings_)  # type: ignore[call-overload]
        assert max(model.network.widths) == widest  # type: ignore[arg-type]


def test_a_model_of_few_positions_reads_long_contexts(model: Model) -> None:
    """Without a stride, pieces are a third of what it can read apart."""
    context = " ".join(WORDS * 4)
    assert model.answer("bab deb", context).answered
    assert model.answer("bab deb", context) == model.answer("bab deb", context, max_tokens=64, stride=21)


# --- Many questions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_tokens", [1, 100, 100_000])
def test_questions_come_back_in_order_whatever_the_batches(model: Model, batch_tokens: int) -> None:
    from glassformer.tasks.answer import answer

    questions, contexts = asked(some_questions(longest=100))
    alone = [model.answer(question, context) for question, context in zip(questions, contexts, strict=True)]
    together = answer(model, questions, contexts, batch_tokens=batch_tokens)
    for one, other in zip(together, alone, strict=True):
        assert (one.text, one.start, one.end) == (other.text, other.start, other.end)
        assert one.score == pytest.approx(other.score, abs=1e-4)
    assert len({one.text for one in alone}) > 10


def test_a_list_may_share_its_context_and_may_be_empty(model: Model) -> None:
    questions, context = ["bab ?", "deb fib ?"], " ".join(WORDS[:20])
    assert model.answer(questions, context) == model.answer(questions, [context, context])
    assert model.answer([], context) == [] == model.answer([], [])


# --- Refusals ---------------------------------------------------------------------------------------------------------


def test_a_question_is_refused_where_no_answer_scores_higher_by_the_threshold() -> None:
    tokenizer = words()
    table = torch.zeros(VOCABULARY, 2)
    table[tokenizer.encode("lab")[0]] = torch.tensor([1.0, 2.0])
    assert tokenizer.cls_id is not None
    table[tokenizer.cls_id] = torch.tensor([2.5, 2.5])  # two above the best span
    context = "bab lab deb"
    for threshold, refused in ((None, False), (1.9, True), (2.0, False), (2.1, False), (-3.0, True), (math.inf, False)):
        for model, given_ in ((local_reader(table, threshold), None), (local_reader(table, -9.0), threshold)):
            one = model.answer("fib", context, threshold=given_)
            if threshold is None and given_ is None and model.config.head.threshold is not None:
                continue  # the model's own, asked for by None
            assert one.answered != refused, threshold
            assert one.score == pytest.approx(-2.0) and one.span == "lab"
            assert (one.text, one.start, one.end) == (("", None, None) if refused else ("lab", 4, 7))


def test_no_answer_scores_as_in_the_piece_that_doubts_it_least(model: Model) -> None:
    question, context = "bab deb", " ".join(WORDS * 2)
    pieces = SpanPieces(model.tokenizer, [question], [context], max_tokens=24, stride=7)
    rows = pieces.batch(torch.arange(len(pieces.pieces)).numpy())
    logits = model.network(rows.ids, rows.segments).logits.detach()
    nulls = logits[:, 0].sum(-1)
    best, _, _ = best_spans(logits.mT.masked_fill(~rows.allowed[:, None], -math.inf))
    one = model.answer(question, context, max_tokens=24, stride=7)
    assert one.score == pytest.approx(float(best.max() - nulls.min()), abs=1e-4)
    assert len(nulls) > 5 and nulls.max() - nulls.min() > 0.1


def test_the_threshold_that_is_found_is_the_best(model: Model) -> None:
    questions = some_questions()
    best = best_refusal(answers_of(model, questions, threshold=float("inf")), questions)
    f1 = {
        value: evaluate_answers(model, questions, threshold=value)["f1"]
        for value in (best.value, -1e6, 1e6, best.value - 0.5, best.value + 0.5, 0.0)
    }
    assert f1[best.value] == pytest.approx(best.f1) == max(f1.values())


# --- Scores and mistakes ----------------------------------------------------------------------------------------------


def test_scores_are_those_of_squad(model: Model) -> None:
    questions = some_questions()
    found = model.answer(*asked(questions), threshold=0.0)
    predictions = {one.id: answer.text for one, answer in zip(questions, found, strict=True)}
    references = {one.id: [right.text for right in one.answers] for one in questions}
    wanted = squad.score_answers(predictions, references)
    scores = evaluate_answers(model, questions, threshold=0.0)
    assert {name: scores[name] for name in wanted if name != "missing"} == {
        name: value for name, value in wanted.items() if name != "missing"
    }
    each = squad.score_questions(predictions, references).values()
    interval = bootstrap([100 * score.f1 for score in each])
    assert scores["f1_interval"] == [interval.low, interval.high] and interval.low < scores["f1"] < interval.high
    assert (scores["n"], scores["threshold"]) == (20, 0.0) and 0 < scores["f1"] < 100


def test_scores_of_questions_that_all_have_answers(model: Model) -> None:
    questions = [one for one in some_questions() if one.answers]
    scores = evaluate_answers(model, questions, max_tokens=32, stride=9)
    assert "threshold" not in scores and scores["n"] == len(questions)
    same_ids = [Question("x", one.question, one.context, one.answers) for one in questions]
    assert evaluate_answers(model, same_ids, max_tokens=32, stride=9)["f1"] == scores["f1"]


@pytest.mark.parametrize(
    ("questions", "contexts", "settings_", "message"),
    [
        (["bab"], ["deb", "fib"], {}, "every question needs its context, got 1 and 2"),
        (["bab", " "], ["deb", "fib"], {}, "question 2 or its context is empty"),
        (["bab", "deb"], ["fib", "\n"], {}, "question 2 or its context is empty"),
        (["bab"], ["\u200b"], {}, "the context of question 1 has no token"),
        (["bab " * 62], [" ".join(WORDS)], {}, "question 1 has 62 tokens: with 64 in all, that leaves 0"),
        (["bab"], [" ".join(WORDS)], {"stride": 61}, "leaves 60 for its context, fewer than the stride of 61"),
    ],
)
def test_what_cannot_be_answered(
    model: Model, questions: list[str], contexts: list[str], settings_: dict[str, Any], message: str
) -> None:
    contexts = [context * 3 if len(context) > 100 else context for context in contexts]
    with pytest.raises(InputError, match=message):
        model.answer(questions, contexts, **settings_)


def test_errors_count_from_the_first_line(model: Model) -> None:
    for questions, contexts, message in (
        (["bab", ""], "deb", "question 12 or its context is empty"),
        (["bab", "bab " * 62], " ".join(WORDS), "question 12 has 62 tokens"),
        (["bab", "deb"], ["fib", "\u200b"], "the context of question 12 has no token"),
    ):
        with pytest.raises(InputError, match=message):
            model.answer(questions, contexts, first_line=11)


def test_other_models_do_not_answer() -> None:
    with pytest.raises(InputError, match=r"'answer' wants a model with a head for spans; .* labels \(classify\)"):
        reader(Classification(("a", "b"))).answer("bab", "deb")
