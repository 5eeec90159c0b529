"""Scores of sampled answers on clusters and texts made by hand."""

import math

import pytest
import torch
from factuality.small_records import made, samples
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks.small_writers import reader, writer

from glassformer.errors import InputError
from glassformer.factuality.records import record
from glassformer.factuality.sampled import (
    SAMPLED,
    Samples,
    disagreement,
    discrete_semantic_entropy,
    draw,
    embedding_consistency,
    lexical_similarity,
    meanings_of,
    number_of_meanings,
    self_check,
    semantic_entropy,
)
from glassformer.models.config import Sentence


def test_semantic_entropy_on_clusters_made_by_hand() -> None:
    # Paris has 0.3 + 0.1 (one of its forms was drawn twice), London 0.2, and nothing else: 2/3 and 1/3
    given_ones = samples(["Paris", "the Paris.", "London", "Paris"], [0.3, 0.1, 0.2, 0.3])
    assert given_ones.meanings == [0, 0, 1, 0]
    thirds = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert semantic_entropy(given_ones) == pytest.approx(thirds)
    quarters = -(3 / 4 * math.log(3 / 4) + 1 / 4 * math.log(1 / 4))
    assert discrete_semantic_entropy(given_ones) == pytest.approx(quarters)
    assert number_of_meanings(given_ones) == 2 and disagreement(given_ones) == 0.25


def test_semantic_entropy_at_its_ends() -> None:
    same = samples(["Paris"] * 5, [0.2] * 5)
    assert semantic_entropy(same) == discrete_semantic_entropy(same) == 0 and number_of_meanings(same) == 1
    apart = samples(["A b", "c", "d", "e"], [0.1] * 4)
    assert semantic_entropy(apart) == pytest.approx(math.log(4)) == discrete_semantic_entropy(apart)
    tiny = samples(["Paris", "London"], [math.exp(-600), math.exp(-602)])
    share = 1 / (1 + math.exp(-2))
    assert semantic_entropy(tiny) == pytest.approx(-share * math.log(share) - (1 - share) * math.log(1 - share))


@settings(deadline=None, derandomize=True)
@given(st.lists(st.sampled_from("abcde"), min_size=2, max_size=12))
def test_discrete_entropy_is_that_of_the_counts(texts: list[str]) -> None:
    found = discrete_semantic_entropy(samples(["x" + text for text in texts], [0.1] * len(texts)))
    shares = [texts.count(text) / len(texts) for text in set(texts)]
    assert found == pytest.approx(-sum(share * math.log(share) for share in shares), abs=1e-12)
    assert 0 <= found <= math.log(len(texts)) + 1e-12


def unit(*degrees: float) -> torch.Tensor:
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack((angles.cos(), angles.sin()), 1)


def test_meanings_by_likeness_to_the_first_of_each() -> None:
    near = unit(0, 30, 60, 90)  # cosine of 30 degrees is 0.87: each resembles its neighbour, not the next but one
    assert meanings_of(["a b", "c", "d", "e"], near, 0.8) == [0, 0, 1, 1]
    assert meanings_of(["a b", "c", "d", "e"], near, 0.9) == [0, 1, 2, 3]
    assert meanings_of(["a b", "c", "d", "e"]) == [0, 1, 2, 3]
    assert meanings_of(["in 1503", "in 1815", "1503"], unit(0, 1, 2)) == [0, 1, 0]
    assert meanings_of(["The USA.", "usa", "?", "!"]) == [0, 0, 1, 2]


def test_similarities_over_pairs() -> None:
    given_ones = samples(["a man rides", "a man", "dogs"], [0.1] * 3, vectors=unit(0, 0, 60, 90))
    assert lexical_similarity(given_ones) == pytest.approx(-(0.8 + 0 + 0) / 3)
    cosines = [math.cos(math.radians(angle)) for angle in (60, 90, 30)]
    assert embedding_consistency(given_ones) == pytest.approx(-sum(cosines) / 3, abs=1e-6)


def test_lexical_similarity_as_rouge_score_says() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=True)
    texts = ["The painter painted it in 1503.", "painted by a painter", "Painting: 1503"]
    pairs = [(texts[i], texts[j]) for i in range(3) for j in range(i + 1, 3)]
    expected = -sum(scorer.score(a, b)["rougeL"].fmeasure for a, b in pairs) / 3
    assert lexical_similarity(samples(texts, [0.1] * 3)) == pytest.approx(expected)


def test_self_check_by_hand() -> None:
    given_ones = samples(["a man rides", "the man"], [0.1] * 2, answer="A dog rides")
    # 8 words in all: a 2, man 2, rides 2, the 1, dog 1
    assert self_check(given_ones) == pytest.approx((math.log(4) + math.log(8) + math.log(4)) / 3)
    assert self_check(given_ones, worst=True) == pytest.approx(math.log(8))
    # begins: a 2 of 3; after a: man, dog; after dog: rides
    assert self_check(given_ones, n=2) == pytest.approx((math.log(3 / 2) + math.log(2) + 0) / 3)
    assert self_check(samples(["Paris"] * 3, [0.1] * 3, answer="Paris")) == 0
    assert self_check(samples(["Paris"] * 3, [0.1] * 3, answer="...")) > 0


def test_samples_are_drawn_each_by_itself() -> None:
    model = writer()
    answers = record(model, ["a man", "the road"], max_new_tokens=5)
    found = draw(model, answers, 3, max_new_tokens=5, seed=4)
    assert [len(one.others) for one in found] == [3, 3] and found[0].vectors is None
    for one, answer in zip(found, answers, strict=True):
        assert one.answer is answer and all(each.prompt_ids == answer.prompt_ids for each in one.others)
        assert len({each.ids for each in one.others}) == 3
    again = draw(model, answers, 3, max_new_tokens=5, seed=4, batch_size=1)
    assert [each.ids for one in again for each in one.others] == [each.ids for one in found for each in one.others]


def test_an_embedder_embeds_answer_and_others() -> None:
    model, embedder = writer(), reader(Sentence())
    answers = record(model, ["a man", "the road"], max_new_tokens=3)
    for one in draw(model, answers, 2, embedder=embedder, max_new_tokens=3, seed=1):
        assert one.vectors is not None
        texts = [each.text.strip() or "." for each in (one.answer, *one.others)]
        torch.testing.assert_close(one.vectors, embedder.embed(texts, truncate=True, normalize=True))
        assert all(math.isfinite(score.function(one)) for score in SAMPLED.values())


def test_what_cannot_be() -> None:
    model = writer()
    answers = record(model, ["a man"], max_new_tokens=2)
    with pytest.raises(InputError, match="2 at least, got 1"):
        draw(model, answers, 1)
    with pytest.raises(InputError, match="temperature 0"):
        draw(model, answers, 3, temperature=0)
    with pytest.raises(InputError, match="embedder"):
        embedding_consistency(samples(["a", "b"], [0.5, 0.5]))
    with pytest.raises(InputError, match="there must be 2"):
        lexical_similarity(Samples(made(), (made(),)))
