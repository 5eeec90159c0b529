"""Filters equal those of transformers; draws have the right frequencies and do not depend on other rows."""

import math
from collections.abc import Sequence

import pytest
import torch
from generation.small_decoders import Row
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from glassformer.errors import InputError
from glassformer.generation.sampling import (
    Sampling,
    adjusted,
    candidates,
    choose,
    draw,
    generator_of,
    log_probabilities,
)


def logits_of(rows: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * 3


def filtered(logits: Tensor, sampling: Sampling, ids: list[list[int]]) -> Tensor:
    """All logits after all filters, minus infinity where removed."""
    values, places = candidates(adjusted(logits.clone(), sampling, ids) / sampling.temperature, sampling)
    return values if places is None else torch.full_like(logits, -math.inf).scatter_(1, places, values)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    temperature=st.floats(0.2, 3),
    top_k=st.sampled_from([0, 1, 5, 40, 5000]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.01]),
    min_p=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    penalty=st.sampled_from([1.0, 1.3, 0.7]),
    bias=st.dictionaries(st.integers(0, 49), st.sampled_from([-100.0, -1.0, 2.5]), max_size=4),
    width=st.sampled_from([50, 2000, 9000]),
    seed=st.integers(0, 1000),
)
def test_filters_equal_those_of_transformers(
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    penalty: float,
    bias: dict[int, float],
    width: int,
    seed: int,
) -> None:
    processors = pytest.importorskip("transformers").generation.logits_process
    logits = logits_of(3, width, seed)
    ids = [[1, 2, 2], [5, 6, 7], [30, 40, 49]]
    chain = [processors.SequenceBiasLogitsProcessor([[[i], b] for i, b in bias.items()])] if bias else []
    chain += [processors.RepetitionPenaltyLogitsProcessor(penalty)] if penalty != 1 else []
    chain += [processors.TemperatureLogitsWarper(temperature)]
    chain += [processors.TopKLogitsWarper(top_k)] if top_k else []
    chain += [processors.TopPLogitsWarper(top_p)] if top_p < 1 else []
    chain += [processors.MinPLogitsWarper(min_p)] if min_p else []
    wanted = logits.clone()
    for processor in chain:
        wanted = processor(torch.tensor(ids), wanted)
    sampling = Sampling(temperature, top_k, top_p, min_p, penalty, bias)
    torch.testing.assert_close(filtered(logits, sampling, ids), wanted)


@pytest.mark.parametrize(
    "sampling", [Sampling(1.0), Sampling(0.8, top_k=10, top_p=0.9), Sampling(1.5, top_p=0.7), Sampling(4.0)]
)
def test_draws_fall_as_often_as_is_probable(sampling: Sampling) -> None:
    logits = logits_of(1, 600)
    values, places = candidates(logits / sampling.temperature, sampling)
    n = 20_000
    chance = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    drawn = draw(values.expand(n, -1), chance)
    drawn = drawn if places is None else places[0][drawn]
    wanted = filtered(logits, sampling, [[]]).softmax(-1)[0]
    torch.testing.assert_close(torch.bincount(drawn, minlength=600) / n, wanted, atol=2 / n, rtol=0)


def test_what_was_removed_is_never_drawn() -> None:
    values = torch.full((1, 700), -math.inf)
    values[0, 1], values[0, 3] = 0.0, -90.0
    for chance in (0.0, 0.5, 1 - 2**-53, 1.0):
        assert draw(values, torch.tensor([chance], dtype=torch.float64)).tolist() in ([1], [3])


def test_a_row_draws_alike_in_any_company() -> None:
    logits = logits_of(5, 500)
    kinds = [Sampling(), Sampling(1.0), Sampling(0.7, 20), Sampling(1.3, top_p=0.8), Sampling(1.0, min_p=0.1)]

    def rows() -> list[Row]:
        return [Row(kind, generator=generator_of(3, place)) for place, kind in enumerate(kinds)]

    together = choose(logits, rows()).tolist()
    alone = [int(choose(logits[i : i + 1], [row])) for i, row in enumerate(rows())]
    assert together == alone
    assert together[0] == int(logits[0].argmax())


def test_every_row_and_seed_has_its_own_chance() -> None:
    draws = {float(torch.rand((), generator=generator_of(seed, row))) for seed in range(4) for row in range(4)}
    assert len(draws) == 16


def test_a_tiny_temperature_is_greedy_and_stays_finite() -> None:
    logits = logits_of(4, 100) * 100
    rows = [Row(Sampling(1e-30)) for _ in range(4)]
    assert choose(logits, rows).tolist() == logits.argmax(-1).tolist()


def test_functions_see_the_ids_and_change_the_logits() -> None:
    seen = []

    def forbid(ids: Sequence[int], logits: Tensor) -> Tensor:
        seen.append(tuple(ids))
        logits[ids[-1]] = -math.inf
        return logits

    logits = logits_of(1, 10)
    best = int(logits.argmax())
    assert choose(logits, [Row(Sampling(functions=(forbid,)), ids=[4, best])]).tolist() != [best]
    assert seen == [(4, best)] and int(logits.argmax()) == best
    with pytest.raises(InputError, match=r"logits function must return a tensor of shape \[10\], got \[3\]"):
        choose(logits, [Row(Sampling(functions=(lambda ids, row: row[:3],)))])


def test_a_mask_is_obeyed_and_nothing_left_is_an_error() -> None:
    logits = logits_of(2, 10)
    mask = torch.zeros(10, dtype=torch.bool)
    mask[7] = True
    assert choose(logits, [Row(Sampling(), mask=mask), Row(Sampling(1.0), mask=mask)]).tolist() == [7, 7]
    with pytest.raises(InputError, match="no token is left"):
        choose(logits, [Row(Sampling(), mask=~mask & mask), Row(Sampling())])


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0), Sampling(repetition_penalty=1.2)])
def test_logits_that_are_not_numbers_are_an_error(sampling: Sampling) -> None:
    logits = logits_of(2, 10)
    logits[1, 3] = math.nan
    with pytest.raises(InputError, match="not numbers"):
        choose(logits, [Row(sampling)] * 2)


def test_log_probabilities_are_the_models_own() -> None:
    logits = logits_of(3, 400)
    own, top = log_probabilities(logits, torch.tensor([5, 6, 7]), 4)
    wanted = logits.log_softmax(-1)
    assert own == pytest.approx([float(wanted[i, 5 + i]) for i in range(3)], abs=1e-5)
    for row, pairs in zip(wanted, top, strict=True):
        best = row.topk(4)
        assert [token for token, _ in pairs] == best.indices.tolist()
        assert [logprob for _, logprob in pairs] == pytest.approx(best.values.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -0.1}, "'temperature' must be 0"),
        ({"temperature": math.nan}, "'temperature'"),
        ({"temperature": math.inf}, "'temperature'"),
        ({"temperature": "hot"}, "'temperature'"),
        ({"top_k": -1}, "'top_k' must be a whole number"),
        ({"top_k": 1.5}, "'top_k'"),
        ({"top_p": 0}, "'top_p' must be above 0"),
        ({"top_p": 1.1}, "'top_p'"),
        ({"min_p": -0.1}, "'min_p'"),
        ({"repetition_penalty": 0}, "'repetition_penalty' must be above 0"),
        ({"logit_bias": {"a": 1}}, "'logit_bias' must map ids"),
        ({"logit_bias": {3: math.nan}}, "'logit_bias' must map ids"),
    ],
)
def test_numbers_out_of_range(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**wrong)
