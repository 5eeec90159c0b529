"""Every family keeps its contracts on a GPU, and computes there what it computes on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import contracts
import pytest
import torch
from models import test_convolutional, test_decoder, test_encoder, test_encoder_decoder, test_recurrent
from torch import Tensor, nn

from glassformer.models.encoder import Encoder

Made = Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]


def _decoder(config: Any) -> Made:
    return lambda: (test_decoder.network_of(config), (contracts.random_ids(3, 6, config.vocab_size),))


def _pair(module: Any, config: Any) -> Made:
    def make() -> tuple[nn.Module, tuple[Tensor, ...]]:
        source = contracts.random_ids(3, 7, config.vocab_size)
        source[1, 5:] = config.pad_id
        return module.network_of(config), (source, contracts.random_ids(3, 6, config.vocab_size, seed=1))

    return make


WRITERS = {
    **{f"decoder: {name}": _decoder(config) for name, config in test_decoder.CHOICES.items()},
    **{
        f"{module.__name__.rpartition('test_')[2]}: {name}": _pair(module, config)
        for module in (test_encoder_decoder, test_recurrent, test_convolutional)
        for name, config in module.CHOICES.items()
    },
}
every_writer = pytest.mark.parametrize("made", WRITERS.values(), ids=WRITERS.keys())
CONTRACTS = [
    contracts.check_causality,
    contracts.check_padding_changes_nothing,
    contracts.check_cached_equals_uncached,
    contracts.check_rows_of_their_own_length,
    contracts.check_select,
]


@every_writer
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
def test_contract(made: Made, contract: Callable[..., None], device: torch.device) -> None:
    network, batch = made()
    network.to(device)
    with torch.device(device):
        contract(network, *(ids.to(device) for ids in batch))


def _with_gradients(network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and the gradient of every parameter, on the CPU."""
    network.zero_grad()
    logits = network.eval()(*batch).logits.float()
    logits.log_softmax(-1)[..., 1].mean().backward()
    grads = {name: one.grad.cpu().clone() for name, one in network.named_parameters() if one.grad is not None}
    return logits.detach().cpu(), grads


@every_writer
def test_forward_and_backward_equal_the_cpu(made: Made, device: torch.device) -> None:
    check_equal(*made(), device)


@pytest.mark.parametrize("config", test_encoder.CHOICES.values(), ids=test_encoder.CHOICES.keys())
def test_encoders_equal_the_cpu(config: Any, device: torch.device) -> None:
    torch.manual_seed(0)
    check_equal(contracts.drawn(Encoder(config)), (contracts.random_ids(3, 6, config.vocab_size),), device)


def check_equal(network: nn.Module, batch: tuple[Tensor, ...], device: torch.device) -> None:
    logits, grads = _with_gradients(network, batch)
    there, theirs = _with_gradients(network.to(device), tuple(ids.to(device) for ids in batch))
    torch.testing.assert_close(there, logits, atol=1e-4, rtol=1e-3)
    assert theirs.keys() == grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(
            theirs[name], grad, atol=1e-4, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}"
        )
