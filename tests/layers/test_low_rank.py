"""Low-rank layers: against modules written by hand, merged, in networks of every family."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import contracts
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layers.adapted_networks import FAMILIES, LLAMA, adapted, batch_of, every_family, filled, network_of
from torch import Tensor, nn
from torch.nn import functional as F

from glassformer.generation import compiled
from glassformer.layers.int8 import int8
from glassformer.layers.linear import Linear
from glassformer.layers.low_rank import LowRank, LowRankLinear, add_low_rank, has_low_rank, merge_low_rank
from glassformer.layers.quantized import quantized
from glassformer.layers.sites import share
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder


class ByHand(nn.Module):
    """What Hu et al. write, term by term: x Wᵀ + b + (α / r) (x Aᵀ) Bᵀ."""

    def __init__(self, layer: LowRankLinear, rank: int, alpha: float) -> None:
        super().__init__()
        self.weight = layer.weight.detach().clone()
        self.bias = None if layer.bias is None else layer.bias.detach().clone()
        self.a, self.b = (nn.Parameter(thin.detach().clone()) for thin in (layer.lora_a, layer.lora_b))
        self.factor = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("...i,oi->...o", x, self.weight)
        if self.bias is not None:
            y = y + self.bias
        return y + self.factor * torch.einsum("...i,ri,or->...o", x, self.a, self.b)


def written_by_hand(network: nn.Module, rank: int, alpha: float) -> nn.Module:
    """A copy of the network with a `ByHand` in the place of every low-rank layer."""
    twin = copy.deepcopy(network)
    for module in list(twin.modules()):
        for name, child in module.named_children():
            if isinstance(child, LowRankLinear):
                setattr(module, name, ByHand(child, rank, alpha))
    return twin


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5)),
    lead=st.lists(st.integers(1, 4), max_size=3),
    alpha=st.sampled_from([0.5, 1.0, 16.0]),
    bias=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_a_layer_is_the_one_written_by_hand(
    sizes: tuple[int, int, int], lead: list[int], alpha: float, bias: bool, seed: int
) -> None:
    """Its output with gradients and without, where other products are used, and the gradients themselves."""
    torch.manual_seed(seed)
    inputs, outputs, rank = sizes
    layer = filled(LowRankLinear(Linear(inputs, outputs, bias), rank, alpha))
    twin = ByHand(layer, rank, alpha)
    x, other = (torch.randn(*lead, inputs, generator=torch.Generator().manual_seed(seed)) for _ in range(2))
    ours, theirs = layer(x.requires_grad_()), twin(other.requires_grad_())
    torch.testing.assert_close(ours, theirs, **contracts.TOLERANCE)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), theirs, **contracts.TOLERANCE)
    weights = torch.randn(ours.shape)
    for y in (ours, theirs):
        (y * weights).sum().backward()
    for mine, its in ((x, other), (layer.lora_a, twin.a), (layer.lora_b, twin.b)):
        torch.testing.assert_close(mine.grad, its.grad, atol=1e-4, rtol=1e-4)
    assert layer.weight.grad is None and (layer.bias is None or layer.bias.grad is None)


@every_family
def test_a_network_is_the_one_written_by_hand(family: str) -> None:
    network, batch = adapted(family).train(), batch_of(family)
    twin = written_by_hand(network, 3, 5.0).train()
    logits, theirs = network(*batch).logits, twin(*batch).logits
    torch.testing.assert_close(logits, theirs, **contracts.TOLERANCE)
    weights = torch.randn(logits.shape)
    for values in (logits, theirs):
        (values * weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    for name, parameter in twin.named_parameters():
        if name.endswith((".a", ".b")):
            mine = gradients.pop(f"{name[:-1]}lora_{name[-1]}")
            assert mine is not None
            torch.testing.assert_close(mine, parameter.grad, atol=1e-4, rtol=1e-3)
    assert gradients and all(gradient is None for gradient in gradients.values())


@every_family
def test_it_begins_without_a_change(family: str) -> None:
    network, batch = network_of(family).eval(), batch_of(family)
    with torch.no_grad():
        before = network(*batch).logits
        add_low_rank(network, LowRank(3, 5.0))
        assert has_low_rank(network)
        assert torch.equal(network(*batch).logits, before)
        assert not torch.allclose(filled(network)(*batch).logits, before, atol=1e-2), "the drawn matrices do nothing"


def test_the_first_matrix_is_drawn_as_that_of_a_dense_layer() -> None:
    """From ±1/√in by torch's generator, the same for the same seed; the weight is neither drawn nor copied."""
    plain = Linear(64, 500)
    weight = plain.weight
    torch.manual_seed(3)
    layer, twin = LowRankLinear(plain, 100, 1.0), LowRankLinear(plain, 100, 1.0)
    assert layer.lora_a.abs().max().item() == pytest.approx(1 / 8, rel=1e-3) and layer.lora_a.mean().abs() < 0.005
    assert layer.lora_a.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.02)
    torch.manual_seed(3)
    assert torch.equal(LowRankLinear(plain, 100, 1.0).lora_a, layer.lora_a)
    assert not torch.equal(layer.lora_a, twin.lora_a)
    assert layer.weight is weight and not layer.lora_b.any()
    assert list(layer.state_dict()) == ["weight", "bias", "lora_a", "lora_b"]


@every_family
def test_merged_it_is_the_same_network(family: str) -> None:
    network, batch = adapted(family, dropout=0.5).eval(), batch_of(family)
    layers = {name: module for name, module in network.named_modules() if isinstance(module, LowRankLinear)}
    exact = {
        name: layer.weight.double() + 5.0 / 3 * layer.lora_b.double() @ layer.lora_a.double()
        for name, layer in layers.items()
    }
    with torch.no_grad():
        before = network(*batch).logits
        assert merge_low_rank(network) == len(layers)
        torch.testing.assert_close(network(*batch).logits, before, **contracts.TOLERANCE)
    assert not has_low_rank(network) and merge_low_rank(network) == 0
    assert network.state_dict().keys() == network_of(family).state_dict().keys()
    for name, weight in exact.items():
        merged = network.get_submodule(name)
        assert type(merged) is Linear and not merged.training
        torch.testing.assert_close(merged.weight.double(), weight, atol=1e-6, rtol=1e-6)
    assert not any(parameter.requires_grad for parameter in network.parameters())


@every_family
def test_merging_a_shared_copy_leaves_the_network_alone(family: str) -> None:
    network, batch = adapted(family).eval(), batch_of(family)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    logits = network(*batch).logits
    merged = share(network)
    merge_low_rank(merged)
    assert has_low_rank(network) and not has_low_rank(merged)
    assert torch.equal(network(*batch).logits, logits) and logits.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    there = merged(*batch).logits
    filled(network).requires_grad_(False)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("lora_b"):
                parameter.mul_(3)
    assert not torch.allclose(network(*batch).logits, logits, atol=1e-2)
    assert torch.equal(merged(*batch).logits, there), "the copy has weights of its own"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_are_summed_before_they_are_rounded(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = filled(LowRankLinear(Linear(24, 12).to(dtype), 4, 2.0))
    assert layer.lora_a.dtype == layer.lora_b.dtype == torch.float32
    exact = layer.weight.double() + 0.5 * layer.lora_b.double() @ layer.lora_a.double()
    merged = layer.effective_weight()
    assert merged.dtype == dtype
    torch.testing.assert_close(merged, exact.to(dtype), rtol=1e-7 if dtype == torch.float64 else 0.008, atol=1e-7)
    x = torch.randn(5, 24, dtype=dtype)
    assert layer(x).dtype == dtype
    torch.testing.assert_close(layer(x).double(), x.double() @ exact.t() + layer.bias.double(), atol=0.05, rtol=0.02)


def test_dropout_falls_on_the_thin_product_alone_and_in_training_alone() -> None:
    """With W = 0 and A = B = 1 the update is the input: what is left of it is scaled, and b stays whole."""
    layer = LowRankLinear(Linear(64, 64), 64, 128.0, dropout=0.25)
    with torch.no_grad():
        layer.weight.zero_()
        for thin in (layer.lora_a, layer.lora_b):
            thin.copy_(torch.eye(64))
        x = torch.rand(50, 64) + 1
        kept = (layer.train()(x) - layer.bias) / 2
        whole = (layer.eval()(x) - layer.bias) / 2
    torch.testing.assert_close(whole, x)
    dropped = kept.abs() < 1e-5
    assert 0.2 < dropped.float().mean() < 0.3
    torch.testing.assert_close(kept[~dropped], x[~dropped] / 0.75)


@every_family
def test_dropout_is_off_in_evaluation(family: str) -> None:
    network, batch = adapted(family, dropout=0.5), batch_of(family)
    without = adapted(family)
    assert torch.equal(network.eval()(*batch).logits, without.eval()(*batch).logits)
    assert not torch.allclose(network.train()(*batch).logits, without.train()(*batch).logits, atol=1e-2)


def test_it_is_added_in_the_mode_of_what_it_replaces() -> None:
    for mode in (True, False):
        network = network_of("GPT").train(mode)
        add_low_rank(network, LowRank(2, 2.0))
        assert all(module.training == mode for module in network.modules())


def test_under_autocast_it_computes_in_bfloat16() -> None:
    network, batch = adapted("GPT").train(), batch_of("GPT")
    exact = network(*batch).logits
    exact.square().sum().backward()
    wanted = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.requires_grad}
    network.zero_grad()
    seen = []
    layer = network.stack.blocks[0].feed_forward.up
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0].dtype, output.dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(*batch).logits
        with torch.no_grad():
            row = layer(torch.ones(1, 16))
    handle.remove()
    assert seen[0][1] == row.dtype == torch.bfloat16
    assert (logits.float() - exact).norm() < 0.03 * exact.norm()
    logits.float().square().sum().backward()
    for name, parameter in network.named_parameters():
        if name in wanted:
            assert parameter.grad is not None and parameter.grad.dtype == torch.float32, name
            assert (parameter.grad - wanted[name]).norm() < 0.1 * wanted[name].norm(), name
        else:
            assert parameter.grad is None, name


def test_under_autocast_the_sum_is_rounded_once() -> None:
    """It is nearer to what fp32 gives than the sum of two products that were each rounded to bf16."""
    torch.manual_seed(0)
    layer, x = filled(LowRankLinear(Linear(100, 64), 8, 8.0)), torch.randn(200, 100)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        once = layer(x)
        update = F.linear(F.linear(x, layer.lora_a), layer.lora_b)
        twice = F.linear(x, layer.weight, layer.bias) + layer.scale * update
    assert (once.float() - exact).norm() < (twice.float() - exact).norm()


def test_nothing_of_the_outputs_size_is_kept_for_the_backward_pass() -> None:
    layer, x = filled(LowRankLinear(Linear(8, 20), 3, 1.0)), torch.randn(50, 8, requires_grad=True)
    kept: list[tuple[int, ...]] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tuple(sorted(tensor.shape)))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x).sum().backward()
    assert set(kept) == {(8, 50), (3, 50), (8, 20), (3, 8), (3, 20)}


HELD = (
    contracts.check_padding_changes_nothing,
    contracts.check_batching_changes_nothing,
    contracts.check_legible_equals_fused,
    contracts.check_every_site_fires,
    contracts.check_edit_acts,
)


CONTRACTS = [
    pytest.param(contract, family, id=f"{family}, {contract.__name__}")
    for family, (kind, _) in FAMILIES.items()
    for contract in (HELD if kind is Encoder else HELD + contracts.ON_WRITING)
]


@pytest.mark.parametrize("contract, family", CONTRACTS)
def test_contract(contract: Callable[..., None], family: str) -> None:
    contract(adapted(family, rank=2, alpha=1.0), *batch_of(family))


@pytest.mark.parametrize("rounded", [int8, lambda network: quantized(network, 8)], ids=["int8", "quantized"])
def test_rounded_to_8_bits_it_keeps_what_was_learnt(rounded: Callable[[Any], Any]) -> None:
    torch.manual_seed(0)
    network = contracts.drawn(Decoder(replace(LLAMA, d_model=64, d_ff=96))).eval()
    add_low_rank(network, LowRank(3, 5.0))
    merged = share(filled(network))
    merge_low_rank(merged)
    ids = contracts.random_ids(2, 6, 40)
    with torch.no_grad():
        assert torch.equal(rounded(network)(ids).logits, rounded(merged)(ids).logits)
    assert has_low_rank(network)


def test_it_is_not_run_by_code_for_plain_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "SMALL", 0)
    network = adapted("GPT")
    assert compiled.accelerated(network) is network
    merge_low_rank(network)
    assert compiled.accelerated(network) is not network
