"""Passages found by words and by meaning: BM25 against its formula, ranks merged as the paper says."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks.small_readers import WORDS, reader

from glassformer.errors import InputError
from glassformer.factuality.documents import Documents
from glassformer.factuality.retrieval import RANK_CONSTANT, Index, _best, words_of
from glassformer.models.config import Sentence, Spans

bm25s = pytest.importorskip("bm25s", reason="the extra 'ground' is not installed")

TEXTS = {
    "lisa": "The Mona Lisa was painted by Leonardo da Vinci between 1503 and 1519.",
    "rhine": "The Rhine flows through Basel, Strasbourg and Cologne.",
    "paint": "Painters mixed paint; a painting by Leonardo hangs in Paris.",
}


def names(index: Index, query: str, count: int = 5) -> list[str]:
    return [found.passage.document.name for found in index.search(query, count)]


def test_words_are_the_beginnings_of_words_without_those_that_say_nothing() -> None:
    assert words_of("When were the Paintings, painted in 1503–1519?") == ["painti", "painte", "1503", "1519"]
    assert words_of("Straße 12345678") == ["strass", "12345678"]
    assert words_of("Who is it?") == ["who", "is", "it"]
    assert words_of("?!") == []


def bm25(query: list[str], passages: list[list[str]], k1: float = 1.5, b: float = 0.75) -> list[float]:
    """Lucene's BM25, as bm25s has it."""
    mean = sum(map(len, passages)) / len(passages)
    scores = []
    for words in passages:
        score = 0.0
        for word in query:
            df, tf = sum(word in other for other in passages), words.count(word)
            idf = math.log(1 + (len(passages) - df + 0.5) / (df + 0.5))
            score += idf * tf / (tf + k1 * (1 - b + b * len(words) / mean))
        scores.append(score)
    return scores


def test_the_ranking_by_words_is_that_of_bm25() -> None:
    draw = np.random.default_rng(0)
    texts = {str(n): " ".join(draw.choice(WORDS[:12], draw.integers(3, 30))) for n in range(40)}
    index = Index(Documents.of_texts(texts))
    for _ in range(10):
        query = " ".join(draw.choice(WORDS[:14], 3, replace=False))
        scores = bm25(words_of(query), [words_of(text) for text in texts.values()])
        expected = [n for n in sorted(range(40), key=lambda n: (-round(scores[n], 5), n)) if scores[n] > 0][:10]
        assert [int(name) for name in names(index, query, 10)] == expected


def test_passages_that_share_no_word_are_not_found() -> None:
    index = Index(Documents.of_texts(TEXTS))
    assert names(index, "Who painted the Mona Lisa?")[0] == "lisa"
    assert "rhine" not in names(index, "Who painted the Mona Lisa?")
    assert index.search("Which volcano erupted?") == []
    assert len(index.search("Leonardo", 1)) == 1


def test_ranks_are_merged_by_their_reciprocals() -> None:
    embedder = reader(Sentence(), positions=32)
    draw = np.random.default_rng(1)
    texts = {str(n): " ".join(draw.choice(WORDS[:10], 6)) for n in range(20)}
    index = Index(Documents.of_texts(texts), embedder)
    query = " ".join(WORDS[:3])
    vectors = torch.nn.functional.normalize(embedder.embed(list(texts.values()), normalize=False), dim=1)
    cosines = vectors @ torch.nn.functional.normalize(embedder.embed(query, normalize=False), dim=0)
    by_meaning = torch.argsort(cosines, descending=True).tolist()
    by_words = [int(name) for name in names(Index(Documents.of_texts(texts)), query, 20)]
    expected = {
        row: sum(1 / (RANK_CONSTANT + ranking.index(row) + 1) for ranking in (by_meaning, by_words) if row in ranking)
        for row in range(20)
    }
    found = index.search(query, 20)
    assert {int(one.passage.document.name): one.score for one in found} == pytest.approx(expected)
    assert [one.score for one in found] == sorted(expected.values(), reverse=True)


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.5]), min_size=1, max_size=30), st.integers(1, 35))
def test_the_best_are_those_of_a_stable_sort(scores: list[float], count: int) -> None:
    expected = sorted(range(len(scores)), key=lambda row: -scores[row])[:count]
    assert _best(np.array(scores), count) == expected


def test_embedding_says_how_far_it_is() -> None:
    lines: list[str] = []
    texts = {str(n): WORDS[n % 40] for n in range(300)}
    index = Index(Documents.of_texts(texts), reader(Sentence(), positions=32), say=lines.append)
    assert lines == ["embedded 256 of 300 passages", "embedded 300 of 300 passages"]
    assert len(index) == 300 and len(index.search(WORDS[0], 400)) >= 50


def test_documents_without_words_and_questions_without_words() -> None:
    index = Index(Documents.of_texts({"a": "!!! ???"}))
    assert len(index) == 0 and index.search("anything") == []
    with pytest.raises(InputError, match=r"must have words in it, got '\?!'"):
        index.search("?!")
    with pytest.raises(InputError, match="at least 1, got 0"):
        index.search("word", 0)


def test_a_model_that_does_not_embed_and_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = Documents.of_texts(TEXTS)
    with pytest.raises(InputError, match="'embed' wants a model with a sentence head"):
        Index(documents, reader(Spans()))
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(InputError, match=r"the extra 'ground': pip install 'glassformer\[ground\]'"):
        Index(documents)
