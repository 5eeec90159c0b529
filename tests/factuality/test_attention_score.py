"""Scores of attention: the patterns against a trace, the recurrence against a direct loop and cases worked by hand."""

import math

import pytest
import torch
from generation.small_decoders import byte_level, decoder
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks.small_writers import reader, writer
from torch import Tensor

import glassformer as gf
from glassformer.errors import InputError
from glassformer.factuality import attention_score
from glassformer.factuality.attention_score import ATTENTION, attended, middle_layers, recurrent_attention
from glassformer.factuality.records import Record, record, record_answers
from glassformer.factuality.uncertainty import perplexity
from glassformer.models.config import Sentence
from glassformer.tasks.model import Model
from glassformer.text.pipeline import TextPipeline

PROMPTS = ["a man", "two women eat on the road", "the road", "日本"]


def by_hand(probabilities: list[float], attention: Tensor, alpha: float) -> float:
    """The definition, step by step, without logarithms of sums."""
    layers = []
    for layer in attention.tolist():
        means = [sum(head) / len(head) if head else 0.0 for head in layer]
        head = layer[means.index(max(means))]
        confidences = [probabilities[0]]
        for p, a in zip(probabilities[1:], head, strict=True):
            confidences.append(alpha * p + (1 - alpha) * a * confidences[-1])
        layers.append(-sum(math.log(c) for c in confidences) / len(confidences))
    return max(layers)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(n=st.integers(1, 7), alpha=st.floats(0.01, 1.0), seed=st.integers(0, 99))
def test_the_recurrence_is_that_of_a_direct_loop(n: int, alpha: float, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    attention = torch.rand(3, 2, n - 1, generator=random, dtype=torch.float64)
    probabilities = (0.01 + 0.99 * torch.rand(n, generator=random, dtype=torch.float64)).tolist()
    found = recurrent_attention([math.log(p) for p in probabilities], attention, alpha)
    assert found == pytest.approx(by_hand(probabilities, attention, alpha), abs=1e-9)


def test_one_case_in_numbers() -> None:
    # two layers of two heads; the second head of the first layer and the first of the second look back more
    attention = torch.tensor([[[0.1, 0.1], [0.5, 1.0]], [[0.2, 0.0], [0.0, 0.1]]], dtype=torch.float64)
    logs = [math.log(p) for p in (0.5, 0.25, 1.0)]
    first = [0.5, 0.2 * 0.25 + 0.8 * 0.5 * 0.5]
    first.append(0.2 + 0.8 * 1.0 * first[1])
    second = [0.5, 0.2 * 0.25 + 0.8 * 0.2 * 0.5, 0.2]
    expected = -math.log(math.prod(second)) / 3
    assert math.prod(second) < math.prod(first)
    assert recurrent_attention(logs, attention) == pytest.approx(expected, abs=1e-12)


def test_ends_of_the_range() -> None:
    one = record_answers(writer(), ["a man"], [" rides the bike"])[0]
    seen = attended(writer(), [one])[0]
    assert recurrent_attention(one.logprobs, seen.reading, 1.0) == pytest.approx(perplexity(one))
    # no attention at all: every confidence but the first is α p; improbable tokens do not underflow
    none = torch.zeros(1, 1, 2)
    expected = -(3 * -900 + 2 * math.log(0.2)) / 3
    assert recurrent_attention([-900.0] * 3, none) == pytest.approx(expected)
    assert recurrent_attention([-0.75], torch.zeros(4, 2, 0)) == pytest.approx(0.75)


def test_attention_is_what_a_trace_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(decoder(rotary=True), byte_level(), TextPipeline(unicode="none"), "generation")
    found = record(model, PROMPTS, max_new_tokens=6) + record_answers(model, ["a"], [[5]])
    count = model.network.config.n_decoder_layers
    together = attended(model, found, range(count))
    monkeypatch.setattr(attention_score, "PATTERN_BYTES", 1)
    alone = attended(model, found, range(count))
    for one, seen, single in zip(found, together, alone, strict=True):
        whole = gf.trace(model, [[*one.prompt_ids, *one.ids]], "self_attention.pattern[*]")
        patterns = whole.stack("self_attention.pattern[*]")[:, 0]
        begin = len(one.prompt_ids)
        assert seen.record is one and seen.reading.shape == (count, patterns.shape[1], len(one.ids) - 1)
        for place in range(1, len(one.ids)):
            own = begin + place
            torch.testing.assert_close(seen.reading[:, :, place - 1], patterns[:, :, own, own - 1])
            torch.testing.assert_close(seen.writing[:, :, place - 1], patterns[:, :, own - 1, own - 1])
        torch.testing.assert_close(single.reading, seen.reading)
        torch.testing.assert_close(single.writing, seen.writing)


def test_scores_read_the_middle_layers() -> None:
    model = writer()
    one = record(model, ["two women"], max_new_tokens=5)[0]
    seen = attended(model, [one])[0]
    layers = list(middle_layers(model.network.config.n_decoder_layers))
    whole = attended(model, [one], range(model.network.config.n_decoder_layers))[0]
    torch.testing.assert_close(seen.reading, whole.reading[layers])
    probabilities = [math.exp(log) for log in one.logprobs]
    for name, weights in (("recurrent attention", seen.reading), ("recurrent attention, writing", seen.writing)):
        assert ATTENTION[name].function(seen) == pytest.approx(by_hand(probabilities, weights, 0.2), abs=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 12, 30, 31])
def test_middle_layers(count: int) -> None:
    expected = range(count // 3, math.ceil(count / 3 * 2) + 1)
    assert list(middle_layers(count)) == [layer for layer in expected if layer < count]
    assert middle_layers(count)


def test_refused() -> None:
    with pytest.raises(InputError, match="decoder"):
        attended(reader(Sentence()), [])
    with pytest.raises(InputError, match="a token"):
        attended(writer(), [Record((1,), (), "", (), (), ())])
    with pytest.raises(InputError, match="n − 1 attentions, got 2 and 0"):
        recurrent_attention([-1.0, -1.0], torch.zeros(1, 1, 0))
    for alpha in (0.0, 1.5):
        with pytest.raises(InputError, match="'alpha'"):
            recurrent_attention([-1.0], torch.zeros(1, 1, 0), alpha)
