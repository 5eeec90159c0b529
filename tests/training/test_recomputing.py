"""Blocks that are computed twice have the gradients of those that are not, dropout included, and keep less."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_tasks import recipe_of
from torch import Tensor, nn

from glassformer.layers.dropout import dropout_generator
from glassformer.models.families import network_class
from glassformer.training.recomputing import RecomputedBlock, recompute_blocks

IDS = torch.tensor([[5, 9, 4, 7, 11, 6], [8, 3, 10, 5, 2, 9]])


def network_of(task: str) -> nn.Module:
    """A tiny network of that task's recipe, in training mode."""
    torch.manual_seed(1)
    config = recipe_of(task, model_dropout=0.3).network_config(vocab_size=20, pad_id=0)
    return network_class(config)(config).train()


def backward(network: nn.Module, *inputs: Tensor) -> tuple[dict[str, Tensor], int]:
    """The gradients of one pass, and how many numbers it kept for them."""
    kept: set[tuple[int, int]] = set()
    parameters = {parameter.data_ptr() for parameter in network.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in parameters:
            kept.add((tensor.data_ptr(), tensor.numel()))
        return tensor

    generator = torch.Generator().manual_seed(3)
    with dropout_generator(generator), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = network(*inputs).logits
    hidden.square().sum().backward()
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    return found, sum(count for _, count in kept)


@pytest.mark.parametrize(("task", "inputs"), [("characters", 1), ("masked", 1), ("summaries", 2)])
def test_gradients_are_the_same_and_less_is_kept(task: str, inputs: int) -> None:
    plain = network_of(task)
    twice = copy.deepcopy(plain)
    recompute_blocks(twice)
    assert any(isinstance(module, RecomputedBlock) for module in twice.modules())
    expected, kept = backward(plain, *[IDS] * inputs)
    found, fewer = backward(twice, *[IDS] * inputs)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert fewer < 0.6 * kept


def test_other_dropout_would_be_noticed() -> None:
    """The control of the test above: with another generator the gradients differ."""
    plain = network_of("characters")
    first, _ = backward(plain, IDS)
    plain.zero_grad()
    generator = torch.Generator().manual_seed(4)
    with dropout_generator(generator):
        plain(IDS).logits.square().sum().backward()
    assert any(not torch.equal(first[name], p.grad) for name, p in plain.named_parameters() if p.grad is not None)
