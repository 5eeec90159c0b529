"""The verb `classify`: labels in order whatever the batches, and the scores of many."""

from __future__ import annotations

import random

import pytest
import torch
from tasks.small_readers import WORDS, reader

from glassformer.errors import InputError
from glassformer.models.config import Classification, MaskedLM, Spans
from glassformer.tasks import metrics
from glassformer.tasks.classify import Label, evaluate_labels
from glassformer.tasks.intervals import wilson
from glassformer.tasks.model import Model
from glassformer.text.pipeline import TextPipeline

LABELS = ("bad", "fair", "good")


@pytest.fixture(scope="module")
def model() -> Model:
    return reader(Classification(LABELS))


def some_texts(count: int = 30) -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=draw.randint(0, 20))) for _ in range(count)]


def test_a_string_gives_one_and_a_list_gives_a_list(model: Model) -> None:
    one = model.classify("bab deb")
    assert isinstance(one, Label) and model.classify(["bab deb"]) == [one] and model.classify([]) == []
    assert tuple(one.probabilities) == LABELS and sum(one.probabilities.values()) == pytest.approx(1)
    assert one.probability == max(one.probabilities.values()) == one.probabilities[one.label]
    ids = model.tokenizer.encode("bab deb", frame=True)
    wanted = model.network(torch.tensor([ids])).logits[0].softmax(-1)
    assert list(one.probabilities.values()) == pytest.approx(wanted.tolist(), abs=1e-6)


@pytest.mark.parametrize("batch_tokens", [1, 40, 100_000])
def test_texts_come_back_in_order_whatever_the_batches(model: Model, batch_tokens: int) -> None:
    texts = some_texts()
    alone = [model.classify(text) for text in texts]
    together = model.classify(texts, batch_tokens=batch_tokens)
    assert [one.label for one in together] == [one.label for one in alone]
    assert len({one.label for one in alone}) == len(LABELS)
    for one, other in zip(together, alone, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_texts_too_long(model: Model) -> None:
    texts = ["bab", "bab " * 31]
    with pytest.raises(InputError, match="line 2 has 33 tokens, the model reads at most 32: .*truncate=True"):
        model.classify(texts)
    with pytest.raises(InputError, match="line 102 has"):
        model.classify(texts, first_line=101)
    _, cut = model.classify(texts, truncate=True)
    assert cut.probabilities == pytest.approx(model.classify("bab " * 30).probabilities, abs=1e-5)


def test_the_pipeline_is_applied() -> None:
    model = reader(Classification(LABELS), pipeline=TextPipeline(lowercase=True))
    assert model.classify("BAB Deb") == model.classify("bab deb")
    kept = reader(Classification(LABELS))
    assert kept.classify("BAB Deb") != kept.classify("bab deb")


def test_what_cannot_be_classified(model: Model) -> None:
    for head, purpose in ((Spans(), "finds answers"), (MaskedLM(), "fills masks")):
        with pytest.raises(InputError, match=f"'classify' wants a model with a head for labels; .*{purpose}"):
            reader(head).classify("bab")
    with pytest.raises(InputError, match="item 2 is None"):
        model.classify(["bab", None])  # type: ignore[list-item]


def test_scores_are_those_of_the_metrics(model: Model) -> None:
    texts = some_texts(40)
    predicted = [one.label for one in model.classify(texts)]
    draw = random.Random(1)
    labels = [label if draw.random() < 0.7 else draw.choice(LABELS) for label in predicted]
    found = evaluate_labels(model, texts, labels, batch_tokens=50)
    assert found["accuracy"] == metrics.accuracy(predicted, labels)
    assert found["macro_f1"] == metrics.macro_f1(predicted, labels)
    interval = wilson(sum(p == r for p, r in zip(predicted, labels, strict=True)), 40)
    assert found["accuracy_interval"] == [interval.low, interval.high]
    assert 0.6 < found["accuracy"] < 1 and found["n"] == 40 and found["seconds"] > 0
    assert evaluate_labels(model, texts, predicted)["accuracy"] == 1.0


def test_what_cannot_be_scored(model: Model) -> None:
    with pytest.raises(InputError, match="text 2 has the label 'god', and the model knows bad, fair, good only"):
        evaluate_labels(model, ["bab", "deb"], ["good", "god"])
    with pytest.raises(InputError, match="nothing to score"):
        evaluate_labels(model, [], [])
    with pytest.raises(InputError, match="every prediction needs its reference"):
        evaluate_labels(model, ["bab", "deb"], ["good"])
    with pytest.raises(InputError, match="reads at most 32"):
        evaluate_labels(model, ["bab " * 40], ["good"])
    assert evaluate_labels(model, ["bab " * 40], ["good"], truncate=True)["n"] == 1
