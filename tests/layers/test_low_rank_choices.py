"""Which layers become low-rank ones, which parameters train beside them, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from layers.adapted_networks import adapted, batch_of, every_family, filled, network_of
from torch import nn

from glassformer.errors import InputError
from glassformer.layers.linear import Linear
from glassformer.layers.low_rank import DENSE, LowRank, add_low_rank, has_low_rank, low_rank_tensors, merge_low_rank


def names_of(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


@every_family
def test_only_the_thin_matrices_train(family: str) -> None:
    network = network_of(family)
    there = {name for name, module in network.named_modules() if name.rpartition(".")[2] in DENSE and module}
    names = add_low_rank(network, LowRank(2, 4.0))
    assert there and names_of(network) == {f"{name}.lora_{letter}" for name in there for letter in "ab"}
    assert names == list(low_rank_tensors(network)) and set(names) == names_of(network)
    assert all(not tensor.requires_grad for tensor in low_rank_tensors(network).values())


@pytest.mark.parametrize("family", ["GPT", "encoder and decoder"])
def test_the_layers_that_are_chosen_are_adapted_and_no_others(family: str) -> None:
    network = network_of(family)
    names = add_low_rank(network, LowRank(2, 4.0, layers=("to_query", "down")))
    assert {name.split(".")[-2] for name in names} == {"to_query", "down"}
    places = {name.split(".")[-3] for name in names}
    assert places == {"self_attention", "feed_forward"} | ({"cross_attention"} if family != "GPT" else set())
    assert type(network.head) is Linear


NORM = ("norm.weight", "norm.bias")


@pytest.mark.parametrize(
    "family, train, expected",
    [
        ("BERT", ["head"], {f"head.{name}" for name in ("dense.weight", "dense.bias", *NORM, "words.bias")}),
        ("BERT", ["head.dense"], {"head.dense.weight", "head.dense.bias"}),
        ("BERT", ["hea", "head.dens"], set()),
        ("labels", ["head", "pooler.dense.bias"], {"head.labels.weight", "head.labels.bias", "pooler.dense.bias"}),
        ("GPT", ["head"], set()),
        ("GPT", ["stack.embedding.token"], {"stack.embedding.token.weight"}),
    ],
)
def test_what_is_named_trains_beside_them(family: str, train: list[str], expected: set[str]) -> None:
    """A part by its whole name; a tied head goes by the embedding's name."""
    network = network_of(family)
    names = add_low_rank(network, LowRank(2, 4.0), train)
    assert {name for name in names if "lora" not in name} == expected
    network.train()(*batch_of(family)).logits.sum().backward()
    assert {name for name, parameter in network.named_parameters() if parameter.grad is not None} == set(names)


def test_the_thin_tensors_are_all_that_has_to_be_kept() -> None:
    network, batch = network_of("labels"), batch_of("labels")
    add_low_rank(network, LowRank(3, 5.0), ["head"])
    with torch.no_grad():
        filled(network).head.labels.weight.mul_(2)
    again = network_of("labels")
    add_low_rank(again, LowRank(3, 5.0), ["head"])
    assert not torch.allclose(again(*batch).logits, network(*batch).logits, atol=1e-2)
    again.load_state_dict(low_rank_tensors(network), strict=False)
    assert torch.equal(again(*batch).logits, network(*batch).logits)


@pytest.mark.parametrize(
    "choices, message",
    [
        ({"rank": 0}, "'rank' ≥ 1"),
        ({"alpha": 0.0}, "'alpha' > 0"),
        ({"dropout": 1.0}, r"'dropout' in \[0, 1\), got 2, 1.0 and 1.0"),
        ({"dropout": -0.1}, r"'dropout' in \[0, 1\)"),
        ({"layers": ()}, "at least one dense layer of to_query"),
        ({"layers": ("to_qery",)}, "'to_qery' is no dense layer of a block. Did you mean 'to_query'"),
        ({"layers": ("up", "head")}, "'head' is no dense layer of a block"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LowRank(**{"rank": 2, "alpha": 1.0, **choices})


@pytest.mark.parametrize("layers", [("gate",), ("up", "gate")])
def test_a_layer_that_is_not_there_is_refused_and_nothing_has_changed(layers: tuple[str, ...]) -> None:
    network = network_of("GPT")
    with pytest.raises(InputError, match="have no dense layer 'gate'; they have to_query, .*down"):
        add_low_rank(network, LowRank(2, 4.0, layers=layers))
    assert all(parameter.requires_grad for parameter in network.parameters()) and not has_low_rank(network)
    assert any("gate" in name for name in add_low_rank(network_of("Llama"), LowRank(2, 4.0, layers=layers)))


def test_a_network_without_blocks_and_one_that_is_adapted_are_refused() -> None:
    with pytest.raises(InputError, match="the blocks of a Transformer; this network has none"):
        add_low_rank(nn.Sequential(Linear(3, 3)), LowRank(2, 4.0))
    network = adapted("GPT")
    before = names_of(network)
    with pytest.raises(InputError, match="low-rank layers already: merge them"):
        add_low_rank(network, LowRank(2, 4.0))
    assert names_of(network) == before
    merge_low_rank(network)
    assert add_low_rank(network, LowRank(2, 4.0))
