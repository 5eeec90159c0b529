"""ROUGE is, to the last bit, what the package rouge-score computes; and what it is by hand."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.stem.porter import PorterStemmer
from rouge_score.rouge_scorer import RougeScorer

from glassformer.errors import InputError
from glassformer.tasks.rouge import NAMES, Overlap, longest_common_subsequence, rouge, rouge_scores, tokens
from glassformer.text.stemmer import stem

THEIRS = {stemmer: RougeScorer(list(NAMES), use_stemmer=stemmer) for stemmer in (False, True)}
SHARED = Path(os.environ.get("GLASSFORMER_SHARED", Path(__file__).parents[3] / "shared"))
WIKIPEDIA = SHARED / "data" / "wikipedia" / "dev.txt"
needs_wikipedia = pytest.mark.skipif(not WIKIPEDIA.exists(), reason="needs Wikipedia text, by GLASSFORMER_SHARED")


def assert_same(hypothesis: str, reference: str, stemmer: bool) -> None:
    theirs = THEIRS[stemmer].score(reference, hypothesis)
    wanted = {name: Overlap(score.precision, score.recall, score.fmeasure) for name, score in theirs.items()}
    assert rouge_scores(hypothesis, reference, stemmer=stemmer) == wanted


def test_by_hand() -> None:
    scores = rouge_scores("The cat sat, the cat!", "the cat lay on the sofa")
    # Shared: the (2), cat (1) of 5 and 6 words; "the cat" once of 4 and 5 pairs; "the cat … the" in order.
    assert scores["rouge1"] == Overlap(3 / 5, 3 / 6, pytest.approx(6 / 11))
    assert scores["rouge2"] == Overlap(1 / 4, 1 / 5, pytest.approx(2 / 9))
    assert scores["rougeL"] == Overlap(3 / 5, 3 / 6, pytest.approx(6 / 11))


def test_order_matters_to_rouge_l_alone() -> None:
    scores = rouge_scores("c b a", "a b c")
    assert (scores["rouge1"].f1, scores["rouge2"].f1, scores["rougeL"].f1) == (1, 0, pytest.approx(1 / 3))


def test_stemmer() -> None:
    assert rouge(["connections"], ["connected"])["rouge1"] == 100
    assert rouge(["connections"], ["connected"], stemmer=False)["rouge1"] == 0
    assert tokens("Was the CAFÉ's 3rd being?") == ["was", "the", "caf", "s", "3rd", "be"]


def test_the_corpus_is_the_mean_of_its_texts() -> None:
    scores = rouge(["a b c", "x", "a b"], ["a b c", "y", "a c"])
    assert scores == {"rouge1": pytest.approx(50), "rouge2": pytest.approx(100 / 3), "rougeL": pytest.approx(50)}


def test_nothing_is_shared_with_nothing() -> None:
    for hypothesis, reference in [("", ""), ("", "word"), ("word", ""), ("¿?", "…")]:
        assert set(rouge_scores(hypothesis, reference).values()) == {Overlap(0, 0, 0)}


WORDS = st.sampled_from(["a", "the", "Running", "runs", "run", "cat's", "relational", "relate", "É", "x-1", "\n"])
TEXTS = st.one_of(st.lists(WORDS, max_size=12).map(" ".join), st.text(max_size=30))


@given(TEXTS, TEXTS, st.booleans())
def test_any_texts_score_as_by_rouge_score(hypothesis: str, reference: str, stemmer: bool) -> None:
    assert_same(hypothesis, reference, stemmer)


@given(st.lists(st.sampled_from("abc"), max_size=90), st.lists(st.sampled_from("abc"), max_size=90))
def test_longest_common_subsequence(first: list[str], second: list[str]) -> None:
    row = [0] * (len(second) + 1)
    for token in first:
        above, row = row, [0]
        for j, other in enumerate(second):
            row.append(above[j] + 1 if token == other else max(above[j + 1], row[j]))
    assert longest_common_subsequence(first, second) == row[-1]


@needs_wikipedia
def test_real_words_and_sentences() -> None:
    text = WIKIPEDIA.read_text(encoding="utf-8")[:300_000]
    theirs = PorterStemmer()
    words = sorted(set(re.findall("[a-z0-9]+", text.lower())))
    assert len(words) > 5000
    assert [stem(word) for word in words] == [theirs.stem(word) for word in words]
    sentences = [sentence for sentence in re.split(r"(?<=[.!?])\s+", text) if len(sentence) > 20]
    assert len(sentences) > 1500
    for before, after in zip(sentences, sentences[1:], strict=False):
        assert_same(before, after, stemmer=True)


@needs_wikipedia
def test_real_corpus() -> None:
    lines = [line for line in WIKIPEDIA.read_text(encoding="utf-8").splitlines() if len(line) > 200][:41]
    for stemmer in (True, False):
        theirs = [THEIRS[stemmer].score(r, h) for h, r in zip(lines, lines[1:], strict=False)]
        wanted = {name: 100 * sum(score[name].fmeasure for score in theirs) / len(theirs) for name in NAMES}
        assert rouge(lines[:-1], lines[1:], stemmer=stemmer) == pytest.approx(wanted, rel=1e-12)


def test_unequal_or_empty_is_an_error() -> None:
    with pytest.raises(InputError, match="got 2 and 1"):
        rouge(["a", "b"], ["a"])
    with pytest.raises(InputError, match="nothing to score"):
        rouge([], [])
