"""What length costs: measured at toy scale, fits and counts against known answers, each claim both ways."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from glassformer.layers.lookup import Lookup
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.studies.architectures import cost
from glassformer.studies.architectures import measuring as cost_measuring
from glassformer.studies.architectures.cost import verdicts as cost_claims
from glassformer.studies.architectures.measuring import Timing
from glassformer.studies.study import Claim, Setting

FAMILIES = cost_measuring.FAMILIES
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return json.loads(json.dumps(cost.PART.run(Setting("toy")), allow_nan=False))


def test_the_part_draws_and_tells_what_it_measured(measured: dict[str, Any], tmp_path: Path) -> None:
    pictures = cost.PART.draw(measured, tmp_path)
    assert [picture.file for picture in pictures] == ["cost_steps.png", "cost_layers.png", "cost_decoding.png"]
    assert all((tmp_path / picture.file).read_bytes().startswith(PNG) for picture in pictures)
    assert all("n = 3 repeats" in picture.caption and "seed" in picture.caption for picture in pictures)
    for table in cost.PART.tables(measured):
        assert table.rows and all(len(row) == len(table.columns) for row in table.rows)
    found = cost.PART.claims(measured)
    assert len({each.text for each in found}) == len(found) == 9
    assert all(each.rule and each.measured for each in found)


def test_all_families_have_as_many_parameters(measured: dict[str, Any]) -> None:
    counts = measured["parameters"].values()
    assert max(counts) <= 1.07 * min(counts)


def test_toy_lengths_are_too_short_to_say_what_long_ones_do(measured: dict[str, Any]) -> None:
    verdicts = [each.verdict for each in cost.PART.claims(measured)]
    assert verdicts[:3] == ["not testable here"] * 3 and verdicts[5] == "not testable here"


def test_decoding_memory_of_real_states(measured: dict[str, Any]) -> None:
    decoding, (short, long) = measured["decoding"], measured["decoding_lengths"]
    first, last = decoding["Transformer"]["written"]
    layers, width = 2, measured["widths"]["Transformer"]
    assert first == 4 * 2 * layers * width * short and last == first * long / short
    for name in ("LSTM", "LSTM without attention"):  # state, cell and what was found
        assert decoding[name]["written"] == [4 * 3 * measured["widths"][name]] * 2
    assert decoding["LSTM without attention"]["read"] == [0, 0]
    assert decoding["LSTM"]["read"][1] == 2 * decoding["LSTM"]["read"][0] > 0


def test_slope_finds_the_power() -> None:
    assert cost_measuring.slope([2, 4, 8], [3 * n**1.7 for n in (2, 4, 8)]) == pytest.approx(1.7)


def test_exponent_is_of_the_longer_half_with_the_range_of_the_repeats() -> None:
    lengths = [1, 2, 4, 8]
    seconds = [[9.0, 9.0, 9.0], [9.0, 9.0, 9.0], [4.0, 4.0, 4.0], [8.0, 16.0, 4.0]]
    assert cost_measuring.exponent(lengths, seconds) == pytest.approx((1.0, 0.0, 2.0))
    assert cost_measuring.growth(lengths, [5, 5, 4, 16]) == pytest.approx(2.0)


def test_saved_bytes_of_known_networks() -> None:
    x = torch.randn(3, 5, requires_grad=True)
    assert cost_measuring.saved_bytes(nn.Tanh(), lambda: x.tanh()) == 3 * 5 * 4  # the result
    assert cost_measuring.saved_bytes(nn.Tanh(), lambda: x[:2] * x[1:]) == 3 * 5 * 4  # two views of one memory
    dense = nn.Linear(5, 7)
    assert cost_measuring.saved_bytes(dense, lambda: dense(x)) == 3 * 5 * 4  # the input, not the weights
    lookup = Lookup(6, "dot")
    mask = torch.ones(1, 1, 1, 50, dtype=torch.bool)
    sizes = []
    for places in (10, 20, 40):
        query = torch.randn(1, places, 6, requires_grad=True)
        key = torch.randn(1, places, 6)
        memory = lookup.keys_values(key, key)
        here = mask[..., :places]
        sizes.append(cost_measuring.saved_bytes(lookup, lambda q=query, m=memory, k=here: lookup(q, m, k)))
    assert sizes[2] - sizes[1] > 3 * (sizes[1] - sizes[0])  # the pattern


def test_brief_works_are_called_again_and_take_turns() -> None:
    calls: list[str] = []
    found = cost_measuring.rounds({name: lambda n=name: calls.append(n) for name in "ab"}, Timing(2, 3))
    assert "".join(calls) == "ab" + "aaabbb" * 2
    assert all(len(each) == 2 and min(each) > 0 for each in found.values())


def test_a_state_counts_only_filled_positions() -> None:
    network = EncoderDecoder(cost_measuring.configs(60_000, 32)["Transformer"]).eval()
    state = network.start(cost_measuring.pairs(1, 8).source, 32)
    assert cost.held(state)[1] == 0
    network.step(torch.tensor([[4]]), None, state)
    assert cost.held(state)[1] == 4 * 2 * 2 * network.config.d_model


def test_layers_of_all_kinds_keep_their_shape() -> None:
    x = torch.randn(2, 9, 8)
    for layer, call in cost.layer_kinds(8).values():
        assert call(x).shape == x.shape and list(layer.parameters())


def made_up(power: dict[str, float] | None = None, factor: dict[str, float] | None = None) -> dict[str, Any]:
    """Results in which all claims hold; `power` and `factor` change how time grows, and how much there is of it."""
    lengths = [16, 32, 64, 128, 256, 512]
    powers = {"Transformer": 1.5, "self-attention": 1.5} | (power or {})
    factors = {"Transformer": 0.1, "self-attention": 0.1} | (factor or {})

    def costs(name: str, size: float) -> dict[str, Any]:
        times = [factors.get(name, 1.0) * n ** powers.get(name, 1.0) for n in lengths]
        return {"seconds": [[time * jitter for jitter in (1.0, 1.01, 0.99)] for time in times], "bytes": [size * n for n in lengths]}  # fmt: skip # noqa: E501

    written = {name: [9, 9] for name in FAMILIES} | {"Transformer": [16, 32]}
    slow = {"Transformer": 2.0}
    return {
        "lengths": lengths,
        "rows": 2,
        "threads": 1,
        "widths": dict.fromkeys(FAMILIES, 96),
        "parameters": dict.fromkeys(FAMILIES, 1),
        "steps": {name: costs(name, 0.9 if name == "LSTM" else 1.0) for name in FAMILIES},
        "layer_width": 128,
        "layers": {name: costs(name, 1.0) for name in ("self-attention", "recurrence", "convolution")},
        "decoding_lengths": [16, 32],
        "decoding_rows": 4,
        "source": 16,
        "decoding": {
            name: {"seconds": [[slow.get(name, 1.0)] * 3] * 2, "written": written[name], "read": [1, 2]}
            for name in FAMILIES
        },
    }


def verdicts(result: dict[str, Any]) -> list[str]:
    found: list[Claim] = cost_claims.claims(result)
    return [each.verdict for each in found]


def test_every_claim_can_hold() -> None:
    assert verdicts(made_up()) == ["supported"] * 9


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (0, {"power": {"Transformer": 1.0}}),
        (1, {"power": {"self-attention": 0.9}}),
        (2, {"power": {"convolution": 1.3}}),
        (3, {"factor": {"Transformer": 1.0}}),
        (4, {"factor": {"self-attention": 1.0}}),
    ],
)
def test_claims_about_time_can_fail(number: int, change: dict[str, Any]) -> None:
    assert verdicts(made_up(**change))[number] == "not supported"


def test_claims_about_memory_and_decoding_can_fail() -> None:
    result = made_up()
    steps, decoding = result["steps"], result["decoding"]
    steps["Transformer"]["bytes"] = [n**1.2 for n in result["lengths"]]
    steps["LSTM"]["bytes"] = [n**1.2 for n in result["lengths"]]
    decoding["LSTM"]["written"] = [9, 10]
    decoding["LSTM"]["seconds"] = [[2.0] * 3] * 2
    assert verdicts(result) == ["supported"] * 5 + ["not supported"] * 4


def test_claims_about_lengths_that_were_not_measured_are_not_testable() -> None:
    result = made_up()
    result["layer_width"], result["widths"] = 1024, dict.fromkeys(FAMILIES, 1024)
    assert verdicts(result)[:3] == ["not testable here"] * 3
    result["layer_width"], result["widths"] = 16, dict.fromkeys(FAMILIES, 16)
    assert verdicts(result)[3:5] == ["not testable here"] * 2
    for each in (*result["steps"].values(), *result["layers"].values()):
        each["seconds"], each["bytes"] = each["seconds"][:4], each["bytes"][:4]
    result["lengths"] = result["lengths"][:4]
    assert verdicts(result)[5] == "not testable here"
