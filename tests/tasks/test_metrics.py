"""Scores say by what they were measured, and those that cannot be compared have different signatures."""

import pytest
import sacrebleu

from glassformer.errors import InputError
from glassformer.tasks.metrics import bleu, chrf, exact_match

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


@pytest.mark.parametrize("metric", [bleu, chrf, exact_match])
def test_unequal_or_empty_is_an_error(metric: object) -> None:
    with pytest.raises(InputError, match="got 2 and 1"):
        metric(HYPOTHESES, REFERENCES[:1])  # type: ignore[operator]
    with pytest.raises(InputError, match="nothing to score"):
        metric([], [])  # type: ignore[operator]
