"""`score` and `perplexity` against the logits of whole texts and of windows read one by one."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks.small_writers import writer
from tokenizers import processors

from glassformer.errors import InputError
from glassformer.tasks.model import Model
from glassformer.text.tokenizer import Tokenizer

TEXTS = ["a man", "two women eat über", "a", "", "日本 the road"]


@torch.no_grad()
def logprobs(model: Model, ids: list[int]) -> list[float]:
    wanted = model.network(torch.tensor([ids])).logits[0].log_softmax(-1)
    return [float(wanted[i, token]) for i, token in enumerate(ids[1:])]


@pytest.mark.parametrize("batch_tokens", [1, 20, 4096])
def test_scores_are_the_networks_own(batch_tokens: int) -> None:
    model = writer()
    found = model.score(TEXTS, batch_tokens=batch_tokens)
    for text, one in zip(TEXTS, found, strict=True):
        ids = model.tokenizer.encode(text)
        assert list(one.ids) == ids
        if ids:
            wanted = logprobs(model, ids)
            assert one.logprobs[0] is None and one.logprobs[1:] == pytest.approx(wanted, abs=1e-4)
            assert one.total == pytest.approx(sum(wanted), abs=1e-3)
        if len(ids) > 1:
            assert one.perplexity == pytest.approx(math.exp(-sum(wanted) / len(wanted)), rel=1e-3)
    assert found[3].logprobs == () and math.isnan(found[3].perplexity) and math.isnan(found[2].perplexity)
    assert model.score(TEXTS[1]).total == pytest.approx(found[1].total, abs=1e-4)
    assert model.score(model.tokenizer.encode(TEXTS[1])).ids == found[1].ids


def test_a_first_token_of_the_models_own_gives_the_first_word_a_probability() -> None:
    model = writer()
    backend = model.tokenizer._backend.from_str(model.tokenizer._backend.to_str())
    backend.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    framed = Model(model.network, Tokenizer(backend, specials={"bos": "<|endoftext|>"}), model.pipeline)
    ids = model.tokenizer.encode("a man")
    score = framed.score("a man")
    assert score.ids == tuple(ids) and score.logprobs == pytest.approx(logprobs(model, [0, *ids]), abs=1e-4)
    assert framed.generate("a man", max_new_tokens=3).prompt_ids == (0, *ids)
    assert framed.score([0, *ids]).logprobs[0] is None


@settings(deadline=None, derandomize=True, max_examples=20)
@given(length=st.integers(2, 60), context=st.integers(2, 20), data=st.data())
def test_every_token_is_scored_once_with_enough_past(length: int, context: int, data: st.DataObject) -> None:
    model = writer()
    stride = data.draw(st.integers(1, context - 1))
    ids = torch.randint(1, 300, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    found = model.perplexity(ids, stride=stride, context=context, batch_tokens=50)
    wanted, end, start = [], 1, 0
    while end < length:
        last = min(start + context, length)
        wanted += logprobs(model, ids[start:last])[end - start - 1 :]
        assert start == 0 or end - start >= context - stride
        start, end = start + stride, last
    assert found.n_tokens == len(wanted) == length - 1
    assert found.nll == pytest.approx(-sum(wanted), abs=1e-2)
    assert found.value == pytest.approx(math.exp(found.nll / found.n_tokens))
    assert (found.context, found.stride) == (context, stride)


def test_a_short_text_has_one_window() -> None:
    model = writer()
    found = model.perplexity("two women eat")
    assert (found.context, found.stride) == (48, 24)
    assert found.value == pytest.approx(model.score("two women eat").perplexity, rel=1e-4)


def test_what_cannot_be_scored() -> None:
    model = writer()
    with pytest.raises(InputError, match="text 2 has 49 tokens, .* use perplexity"):
        model.score([[5], [5] * 49])
    for settings_, message in (
        ({"context": 1}, "'context' must be from 2"),
        ({"context": 49}, "'context' must be from 2"),
        ({"stride": 48}, "'stride' must be from 1"),
        ({"context": 8, "stride": 0}, "'stride'"),
        ({"batch_tokens": 0}, "'batch_tokens'"),
    ):
        with pytest.raises(InputError, match=message):
            model.perplexity("a man rides", **settings_)
    with pytest.raises(InputError, match="at least 2 tokens"):
        model.perplexity("a")
    with pytest.raises(InputError, match="one text"):
        model.perplexity(["a", "b"])  # type: ignore[arg-type]
