"""Which parameters an optimizer moves, how fast and with what decay; its state as named tensors."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_runs import tiny_recipe
from torch import Tensor, nn

from glassformer.errors import InputError
from glassformer.layers.low_rank import LowRank, add_low_rank
from glassformer.models.config import Classification, Config, Learned, Relative
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.training.finetuning import Finetune, freeze, learning_rate_factors
from glassformer.training.muon import Muon
from glassformer.training.optimizers import build_optimizer, fill_optimizer, optimizer_tensors, set_learning_rate
from glassformer.training.recipes import Training

SHAPE: dict[str, Any] = {"vocab_size": 20, "d_model": 8, "n_heads": 2, "d_ff": 12, "max_length": 16, "dropout": 0.0}
BERT = Config(n_encoder_layers=2, n_decoder_layers=0, positions=Learned(), n_segments=2, head_bias=True, **SHAPE)
LABELS = replace(BERT, head=Classification(("good", "bad")), pooler=True)
GPT = Config(n_encoder_layers=0, n_decoder_layers=2, positions=Learned(), norm_first=True, **SHAPE)
T5 = Config(n_encoder_layers=1, n_decoder_layers=1, positions=Relative(4, 6), **SHAPE)
KINDS = ("adam", "adamw", "muon")
every_kind = pytest.mark.parametrize("kind", KINDS)


def network_of(config: Config, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    kind = EncoderDecoder if config.n_encoder_layers and config.n_decoder_layers else Encoder
    return (kind if config.n_encoder_layers else Decoder)(config)


def settings_of(kind: str, **choices: Any) -> Training:
    return tiny_recipe(optimizer=kind, learning_rate=0.01, **choices).training


def give_gradients(network: nn.Module, seed: int) -> None:
    """Random ones, to what has gradients."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = gradient if parameter.requires_grad else None


def names_in(network: nn.Module, group: dict[str, Any]) -> set[str]:
    names = {parameter: name for name, parameter in network.named_parameters()}
    return {names[parameter] for parameter in group["params"]}


def values(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("config", [BERT, LABELS, GPT, T5], ids=["BERT", "labels", "GPT", "T5"])
@every_kind
def test_every_trained_parameter_is_in_one_group_and_decay_falls_on_matrices(kind: str, config: Config) -> None:
    network = network_of(config)
    freeze(network, ["blocks[0].*.up", "norm_1.weight"])
    optimizer = build_optimizer(network, settings_of(kind, weight_decay=0.1))
    found = [name for group in optimizer.param_groups for name in names_in(network, group)]
    assert sorted(found) == sorted(name for name, parameter in network.named_parameters() if parameter.requires_grad)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(found)
    for group in optimizer.param_groups:
        matrices = {parameter.ndim >= 2 for parameter in group["params"]}
        assert matrices == {group["weight_decay"] == 0.1} and group["weight_decay"] in (0.0, 0.1)
        assert (group["lr"], group["factor"]) == (0.01, 1.0)


@pytest.mark.parametrize(
    "config, outer",
    [
        (BERT, r"head\.dense\.weight|stack\.embedding\..*"),
        (LABELS, r"head\.labels\.weight|pooler\.dense\.weight|stack\.embedding\..*"),
        (GPT, r"stack\.embedding\..*"),
        (replace(GPT, tie_head=False), r"head\.weight|stack\.embedding\..*"),
        (T5, r".*\.(embedding|relative)\..*"),
    ],
)
def test_muon_takes_the_dense_layers_between_embeddings_and_head(config: Config, outer: str) -> None:
    network = network_of(config)
    inner, matrices, _ = build_optimizer(network, settings_of("muon")).param_groups
    assert "momentum" in inner and "momentum" not in matrices
    wide = {name for name, parameter in network.named_parameters() if parameter.ndim == 2}
    assert names_in(network, matrices) == {name for name in wide if re.fullmatch(outer, name)}
    assert names_in(network, inner) == wide - names_in(network, matrices)
    assert all(".blocks." in name for name in names_in(network, inner))


def test_low_rank_matrices_are_adamws() -> None:
    network = network_of(LABELS)
    add_low_rank(network, LowRank(2, 4.0), ["head"])
    optimizer = build_optimizer(network, settings_of("muon", weight_decay=0.1))
    matrices, vectors = optimizer.param_groups
    assert names_in(network, vectors) == {"head.labels.bias"}
    assert all(re.search("lora_[ab]$|head.labels.weight", name) for name in names_in(network, matrices))
    before = values(network)
    give_gradients(network, 1)
    optimizer.step()
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name


def test_muon_works_where_inner_matrices_are_all_that_is_trained() -> None:
    network = network_of(GPT)
    freeze(network, ["embedding", "*.bias", "*norm*"])
    optimizer = build_optimizer(network, settings_of("muon"))
    before = values(network)
    give_gradients(network, 1)
    optimizer.step()
    assert len(optimizer.param_groups) == 1
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_steps_are_those_of_torch_with_a_group_for_each_parameter(kind: str) -> None:
    """With factors, decay, frozen parts and a rate that changes."""
    network, twin = network_of(LABELS), network_of(LABELS)
    finetune = Finetune(layer_decay=0.5, head_rate=3.0)
    for one in (network, twin):
        freeze(one, ["blocks[0].self_attention"])
    factors = learning_rate_factors(network, finetune, ["head.labels.weight"])
    choices: dict[str, Any] = {"betas": (0.8, 0.9), "eps": 1e-3}
    optimizer = build_optimizer(network, settings_of(kind, weight_decay=0.1, **choices), factors)
    groups = [
        {"params": [parameter], "weight_decay": 0.1 * (parameter.ndim > 1), "name": name}
        for name, parameter in twin.named_parameters()
        if parameter.requires_grad
    ]
    other = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind](groups, **choices)
    assert len({factor for factor in factors.values()}) == 5
    for step, rate in enumerate((0.01, 0.02, 0.001)):
        set_learning_rate(optimizer, rate)
        for group in other.param_groups:
            group["lr"] = rate * factors[group["name"]]
        for one, its in ((network, optimizer), (twin, other)):
            give_gradients(one, step)
            its.step()
    mine, theirs = values(network), values(twin)
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-5, atol=1e-7, msg=name)


@every_kind
def test_groups_have_the_rate_times_their_factor_the_largest_first(kind: str) -> None:
    network = network_of(GPT)
    factors = {name: 4.0 if "up" in name else 0.25 if "down" in name else 1.0 for name in values(network)}
    del factors["stack.final_norm.weight"]
    optimizer = build_optimizer(network, settings_of(kind), factors)
    found: dict[bool, list[float]] = {}
    for group in optimizer.param_groups:
        assert {factors.get(name, 1.0) for name in names_in(network, group)} == {group["factor"]}
        assert group["lr"] == 0.01 * group["factor"]
    set_learning_rate(optimizer, 0.5)
    for group in optimizer.param_groups:
        assert group["lr"] == 0.5 * group["factor"]
        found.setdefault(group["params"][0].ndim == 2, []).append(group["factor"])
    assert found == {True: [4.0, 1.0, 0.25] + [1.0] * (kind == "muon"), False: [4.0, 1.0, 0.25]}


def test_a_rate_of_their_own_for_muons_matrices() -> None:
    """`muon_rate` on top of the layer's factor: the same step, so many times as far; AdamW's is the same."""
    moved: list[dict[str, Tensor]] = []
    for rate in (1.0, 3.0):
        network = network_of(GPT)
        before = values(network)
        optimizer = build_optimizer(network, settings_of("muon", muon_rate=rate), dict.fromkeys(before, 0.5))
        set_learning_rate(optimizer, 0.01)
        assert [group["factor"] for group in optimizer.param_groups] == [0.5 * rate, 0.5, 0.5]
        inner = names_in(network, optimizer.param_groups[0])
        give_gradients(network, 1)
        optimizer.step()
        moved.append({name: value - before[name] for name, value in values(network).items()})
    for name, once in moved[0].items():
        expected = 3 * once if name in inner else once
        assert once.any()
        torch.testing.assert_close(moved[1][name], expected, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_decoupled_decay_shrinks_matrices_by_their_own_rate(kind: str) -> None:
    """Without a gradient's pull a step multiplies by 1 - η λ, η with its factor; biases and gains stay."""
    network = network_of(GPT)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    before = values(network)
    factors = {name: 0.5 if "blocks.0" in name else 2.0 for name in before}
    optimizer = build_optimizer(network, settings_of(kind, weight_decay=0.1), factors)
    set_learning_rate(optimizer, 0.2)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in values(network).items():
        shrunk = 1 - 0.2 * factors[name] * 0.1 if value.ndim == 2 else 1.0
        torch.testing.assert_close(value, before[name] * shrunk, msg=name)


def test_with_adam_decay_is_the_gradients() -> None:
    """Its first step has the size of the rate, whatever the decay is, and goes towards zero."""
    network = network_of(GPT)
    before = values(network)
    optimizer = build_optimizer(network, settings_of("adam", weight_decay=0.3, eps=1e-12))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in values(network).items():
        expected = before[name] - 0.01 * before[name].sign() * (value.ndim == 2)
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-4, msg=name)


@every_kind
def test_what_the_recipe_says_is_handed_on(kind: str) -> None:
    optimizer = build_optimizer(network_of(GPT), settings_of(kind, betas=(0.5, 0.75), eps=1e-4))
    inner: Any = optimizer._adam if isinstance(optimizer, Muon) else optimizer
    assert type(inner) is (torch.optim.Adam if kind == "adam" else torch.optim.AdamW)
    for group in inner.param_groups:
        assert (group["betas"], group["eps"], group["fused"]) == ((0.5, 0.75), 1e-4, True)


@pytest.mark.parametrize("precision, dtype", [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_muon_computes_in_the_trainings_precision(precision: str, dtype: torch.dtype) -> None:
    optimizer = build_optimizer(network_of(GPT), settings_of("muon", precision=precision))
    assert isinstance(optimizer, Muon) and optimizer.dtype == dtype


def prepared(seed: int) -> Any:
    """Half a network frozen, low-rank layers beside, a head that learns faster."""
    network = network_of(LABELS, seed)
    add_low_rank(network, LowRank(2, 4.0, layers=("up", "to_key")), ["head", "pooler.dense.weight", "stack.blocks.1"])
    freeze(network, ["stack.blocks.1.feed_forward.down"])
    return network, learning_rate_factors(network, Finetune(layer_decay=0.7, head_rate=2.0), ["head.labels.weight"])


@every_kind
def test_filled_from_tensors_it_goes_on_to_the_bit(kind: str) -> None:
    (network, factors), (twin, _) = prepared(0), prepared(1)
    settings = settings_of(kind, weight_decay=0.01)
    optimizer, other = build_optimizer(network, settings, factors), build_optimizer(twin, settings, factors)
    for step in (1, 2):
        set_learning_rate(optimizer, 0.01 * step)
        give_gradients(network, step)
        optimizer.step()
    twin.load_state_dict(network.state_dict())
    stored = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer, network).items()}
    fill_optimizer(other, twin, stored, "here")
    again = optimizer_tensors(other, twin)
    assert again.keys() == stored.keys() and all(torch.equal(again[name], stored[name]) for name in stored)
    for one, its in ((network, optimizer), (twin, other)):
        set_learning_rate(its, 0.03)
        give_gradients(one, 3)
        its.step()
    mine, theirs = values(network), values(twin)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@every_kind
def test_its_state_has_names_and_frozen_parameters_have_none(kind: str) -> None:
    network, factors = prepared(0)
    optimizer = build_optimizer(network, settings_of(kind), factors)
    assert optimizer_tensors(optimizer, network) == {}
    give_gradients(network, 1)
    optimizer.step()
    found = optimizer_tensors(optimizer, network)
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert {name.rpartition("/")[0] for name in found} == trained
    fields = {name.rpartition("/")[2] for name in found}
    assert fields == {"step", "exp_avg", "exp_avg_sq"} | ({"momentum"} if kind == "muon" else set())
    assert found["head.labels.weight/exp_avg"].shape == network.head.labels.weight.shape


@every_kind
def test_state_that_fits_nothing_is_refused(kind: str) -> None:
    network = network_of(LABELS)
    optimizer = build_optimizer(network, settings_of(kind))
    give_gradients(network, 1)
    optimizer.step()
    stored = optimizer_tensors(optimizer, network)
    frozen = network_of(LABELS)
    freeze(frozen, ["pooler"])
    with pytest.raises(InputError, match="file x: 'pooler.dense.*belongs to a frozen parameter: it was trained when"):
        fill_optimizer(build_optimizer(frozen, settings_of(kind)), frozen, stored, "file x")
    other = network_of(GPT)
    with pytest.raises(InputError, match="file x: '.*/.*' belongs to no parameter of the network"):
        fill_optimizer(build_optimizer(other, settings_of(kind)), other, stored, "file x")


@every_kind
def test_something_has_to_be_trained(kind: str) -> None:
    with pytest.raises(InputError, match="nothing to train: every parameter is frozen. Freeze less"):
        build_optimizer(network_of(GPT).requires_grad_(False), settings_of(kind))
