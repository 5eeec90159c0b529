"""Scores say by what they were measured, and those that cannot be compared have different signatures."""

import pytest
import sacrebleu
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.tasks.metrics import accuracy, bleu, chrf, exact_match, macro_f1

HYPOTHESES = ["the cat sat on a mat .", "there is a dog ."]
REFERENCES = ["the cat sat on the mat .", "there is a dog ."]


def test_bleu_is_sacrebleu() -> None:
    wanted = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score
    assert bleu(HYPOTHESES, REFERENCES).value == pytest.approx(wanted)
    assert 0 < wanted < 100
    assert chrf(HYPOTHESES, REFERENCES).value == pytest.approx(sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score)


def test_signatures() -> None:
    assert "tok:13a" in bleu(HYPOTHESES, REFERENCES).signature
    assert "case:mixed" in bleu(HYPOTHESES, REFERENCES).signature
    assert "tok:none" in bleu(HYPOTHESES, REFERENCES, tokenized=True).signature
    assert "case:lc" in bleu(HYPOTHESES, REFERENCES, lowercase=True).signature
    assert "case:lc" in chrf(HYPOTHESES, REFERENCES, lowercase=True).signature


def test_tokens_are_taken_as_they_are() -> None:
    joined = [line.replace(" .", ".") for line in REFERENCES]
    assert bleu(joined, REFERENCES).value == pytest.approx(100)
    assert bleu(joined, REFERENCES, tokenized=True).value < 100


def test_case() -> None:
    upper = [line.upper() for line in REFERENCES]
    assert bleu(upper, REFERENCES, lowercase=True).value == pytest.approx(100)
    assert bleu(upper, REFERENCES).value < 50


def test_exact_match() -> None:
    assert exact_match(HYPOTHESES, REFERENCES) == 0.5


def test_labels_by_hand() -> None:
    predicted, reference = ["good", "bad", "good", "good"], ["good", "good", "bad", "good"]
    assert accuracy(predicted, reference) == 0.5
    # good: 2 hits, 3 times in each; bad: never right
    assert macro_f1(predicted, reference) == pytest.approx((4 / 6 + 0) / 2)


@settings(deadline=None)  # scikit-learn's first call is slow
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_labels_score_as_by_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    predicted, reference = (list(side) for side in zip(*pairs, strict=True))
    assert accuracy(predicted, reference) == pytest.approx(sklearn.metrics.accuracy_score(reference, predicted))
    wanted = sklearn.metrics.f1_score(reference, predicted, average="macro", zero_division=0)
    assert macro_f1(predicted, reference) == pytest.approx(wanted)


@pytest.mark.parametrize("metric", [bleu, chrf, exact_match, accuracy, macro_f1])
def test_unequal_or_empty_is_an_error(metric: object) -> None:
    with pytest.raises(InputError, match="got 2 and 1"):
        metric(HYPOTHESES, REFERENCES[:1])  # type: ignore[operator]
    with pytest.raises(InputError, match="nothing to score"):
        metric([], [])  # type: ignore[operator]
