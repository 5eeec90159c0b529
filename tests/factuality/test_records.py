"""Records: entropies, margins and states of a running engine against a network that reads everything anew."""

import math

import pytest
import torch
from generation.small_decoders import END, byte_level, decoder
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks.small_writers import writer
from torch import Tensor

from glassformer.errors import InputError
from glassformer.factuality.records import Record, read_again, record, record_answers
from glassformer.generation.engine import Engine, generate
from glassformer.generation.requests import Event, Request, joined
from glassformer.generation.sampling import Sampling, Spread

PROMPTS = ["a man", "two women eat", "the road", "", "日本"]


def by_hand(logits: Tensor) -> tuple[float, float]:
    """Entropy and margin of one distribution, word by word, in doubles."""
    p = logits.double().softmax(-1).tolist()
    first, second = sorted(p, reverse=True)[:2]
    return -math.fsum(x * math.log(x) for x in p if x > 0), math.log(first / second)


def check(one: Record) -> None:
    """Everything in a record, from the whole text read anew."""
    network = writer().network
    ids = torch.tensor([[*one.prompt_ids, *one.ids]])
    with torch.no_grad():
        output = network(ids[:, :-1])
    begin = len(one.prompt_ids) - 1
    assert len(one.ids) == len(one.logprobs) == len(one.entropies) == len(one.margins)
    for place, token in enumerate(one.ids):
        logits = output.logits[0, begin + place]
        entropy, margin = by_hand(logits)
        assert one.entropies[place] == pytest.approx(entropy, abs=1e-4)
        assert one.margins[place] == pytest.approx(margin, abs=1e-4)
        assert one.logprobs[place] == pytest.approx(float(logits.log_softmax(-1)[token]), abs=1e-4)
    if one.states is not None and len(one.states) == len(one.ids):
        torch.testing.assert_close(one.states, output.hidden[0, begin:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [2, 3, 255, 256, 300, 5000])
def test_entropy_and_margin_in_closed_form(size: int) -> None:
    flat = torch.zeros(size)
    certain = torch.full((size,), -math.inf)
    certain[1] = 7.0
    two = certain.clone()
    two[0] = 7.0 - math.log(3)  # probabilities 3/4 and 1/4
    logits = torch.stack([flat, certain, two, two + 30])
    found = Spread.of(logits)
    half = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    assert found.entropies == pytest.approx([math.log(size), 0, half, half], abs=1e-5)
    torch.testing.assert_close(found.total, logits.logsumexp(-1))
    assert found.margins == pytest.approx([0, math.inf, math.log(3), math.log(3)], abs=1e-5)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(size=st.integers(2, 700), scale=st.sampled_from([0.01, 1.0, 10.0, 80.0]), seed=st.integers(0, 99))
def test_entropy_and_margin_word_by_word(size: int, scale: float, seed: int) -> None:
    logits = torch.randn(3, size, generator=torch.Generator().manual_seed(seed)) * scale
    spread = Spread.of(logits)
    for row, pair in zip(logits, zip(spread.entropies, spread.margins, strict=True), strict=True):
        assert pair == pytest.approx(by_hand(row), abs=1e-4, rel=1e-5)


@pytest.mark.parametrize("how", [{}, {"temperature": 1.3, "seed": 3, "top_k": 9}, {"logit_bias": {7: 6.0}}])
def test_a_record_is_what_the_network_says(how: dict[str, object]) -> None:
    found = record(writer(), PROMPTS, max_new_tokens=9, keep="all", **how)  # type: ignore[arg-type]
    for one in found:
        check(one)


def test_neighbours_and_chunks_change_nothing() -> None:
    model = writer()
    together = record(model, PROMPTS, max_new_tokens=12, keep="all")
    for batch_size in (1, 2):
        apart = record(model, PROMPTS, max_new_tokens=12, keep="all", batch_size=batch_size)
        for one, other in zip(together, apart, strict=True):
            assert one.ids == other.ids and one.text == other.text
            assert one.entropies == pytest.approx(other.entropies, abs=1e-5)
            assert one.margins == pytest.approx(other.margins, abs=1e-5)
            torch.testing.assert_close(one.states, other.states, atol=1e-5, rtol=1e-4)


@settings(deadline=None, derandomize=True, max_examples=10)
@given(
    asked=st.lists(st.tuples(st.integers(1, 30), st.booleans(), st.booleans(), st.integers(0, 6)), max_size=5),
    rows=st.integers(1, 4),
    chunk=st.sampled_from([1, 5, 512]),
)
def test_only_who_asks_is_told_and_others_are_not_disturbed(
    asked: list[tuple[int, bool, bool, int]], rows: int, chunk: int
) -> None:
    requests = [
        Request(tuple(range(5, 5 + length)), new, Sampling(), row=i, uncertainty=unsure, states=states)
        for i, (length, unsure, states, new) in enumerate(asked)
    ]
    found = generate(Engine(decoder(), byte_level(), eos_ids=[END], rows=rows, chunk=chunk), requests)
    for request, result in zip(requests, found, strict=True):
        plain = Request(request.ids, request.max_new_tokens)
        alone = generate(Engine(decoder(), byte_level(), eos_ids=[END]), [plain])[0]
        assert result.ids == alone.ids and result.text == alone.text
        assert result.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        assert len(result.entropies) == len(result.margins) == (len(result.ids) if request.uncertainty else 0)
        assert (0 if result.states is None else len(result.states)) == (len(result.ids) if request.states else 0)


def test_a_stream_tells_what_generate_tells() -> None:
    model = writer()
    for prompt in PROMPTS:
        whole = model.generate(prompt, max_new_tokens=9, uncertainty=True, states=True)
        pieces = list(model.stream(prompt, max_new_tokens=9, uncertainty=True, states=True))
        assert whole.entropies == tuple(value for piece in pieces for value in piece.entropies or ())
        assert whole.margins == tuple(value for piece in pieces for value in piece.margins or ())
        assert torch.equal(whole.states, torch.cat([piece.states for piece in pieces if piece.states is not None]))
    plain = model.generate("a man", max_new_tokens=3)
    assert plain.entropies is None and plain.margins is None and plain.states is None
    assert next(iter(model.stream("a man"))).entropies is None


def test_states_keep_the_ends_and_take_gradients() -> None:
    model = writer()
    every, ends = (record(model, ["a man"], max_new_tokens=6, keep=keep)[0] for keep in ("all", "ends"))
    assert every.states is not None and ends.states is not None
    assert torch.equal(every.states[[0, -1]], ends.states) and ends.states.shape == (2, 32)
    (ends.states * torch.ones(32, requires_grad=True)).sum().backward()
    assert record(model, ["a man"], max_new_tokens=6)[0].states is None


@pytest.mark.parametrize("keep", ["all", "ends"])
def test_an_answer_that_is_given_makes_the_same_record(keep: str) -> None:
    model = writer()
    written = record(model, PROMPTS, max_new_tokens=7, keep=keep)  # type: ignore[arg-type]
    prompts, answers = [one.prompt_ids for one in written], [one.ids for one in written]
    given_ones = record_answers(model, prompts, answers, keep=keep, batch_tokens=20)  # type: ignore[arg-type]
    for one, other in zip(written, given_ones, strict=True):
        assert (one.prompt_ids, one.ids, one.text) == (other.prompt_ids, other.ids, other.text)
        for name in ("logprobs", "entropies", "margins"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-4)
        torch.testing.assert_close(one.states, other.states, atol=1e-4, rtol=1e-4)
        assert other.states is not None and not other.states.is_inference()


def test_answers_as_text() -> None:
    model = writer()
    one = record_answers(model, ["a man"], [" rides"])[0]
    assert one.text == " rides" and list(one.ids) == model.tokenizer.encode(" rides")
    check(one)


def test_states_of_other_layers_are_read_again() -> None:
    model = writer()
    written = record(model, PROMPTS, max_new_tokens=5, keep="all")
    for one, other in zip(written, read_again(model, written, "final_norm.output", keep="all"), strict=True):
        torch.testing.assert_close(one.states, other.states, atol=1e-4, rtol=1e-4)
    both = read_again(model, written, "residual_post[0,1]")
    apart = [read_again(model, written, f"residual_post[{layer}]", keep="all") for layer in (0, 1)]
    for one, first, second in zip(both, *apart, strict=True):
        assert one.states is not None and first.states is not None and second.states is not None
        assert one.states.shape == (2, 64)
        torch.testing.assert_close(one.states, torch.cat((first.states, second.states), 1)[[0, -1]])


def test_a_conversation() -> None:
    model = writer()
    messages = [{"role": "user", "content": "a man"}]
    one = record(model, [messages], max_new_tokens=5)[0]
    said = model.chat(messages, max_new_tokens=5)
    assert (one.ids, one.prompt_ids, one.text) == (said.ids, said.prompt_ids, said.text)


def test_an_end_counts_as_a_token() -> None:
    model = writer()
    one = record(model, ["a man"], max_new_tokens=5, logit_bias={END: 50.0})[0]
    assert one.ids == (END,) and one.text == "" and len(one.entropies) == 1
    check(one)


def test_what_cannot_be() -> None:
    model = writer()
    with pytest.raises(InputError, match="a list of prompts"):
        record(model, "a man")
    with pytest.raises(InputError, match="not both"):
        record(model, ["a man", [{"role": "user", "content": "a"}]])
    with pytest.raises(InputError, match="beam"):
        record(model, ["a man"], beam=2)
    with pytest.raises(InputError, match="'uncertainty' and 'states'"):
        model.generate("a man", beam=2, uncertainty=True)
    with pytest.raises(InputError, match="every prompt needs its answer"):
        record_answers(model, ["a man"], [])
    with pytest.raises(InputError, match="a token each"):
        record_answers(model, ["a man"], [""])
    with pytest.raises(InputError, match="at most 48"):
        record_answers(model, ["a man"], [[5] * 60])
    with pytest.raises(InputError, match="without positions"):
        read_again(model, [], "residual_post[0] @ end")
    assert record(model, []) == [] == record_answers(model, [], [])


def test_events_join_to_a_result_without_what_was_not_asked_for() -> None:
    result = joined([Event(0, (5,), "a"), Event(0, (6,), "b", finish_reason="length")])
    assert result.ids == (5, 6) and result.entropies == () and result.states is None
