"""Networks built without memory draw the numbers of those built plainly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from glassformer.checkpoints.tensors import network_tensors
from glassformer.models.config import Config
from glassformer.models.families import network_class
from glassformer.models.sizes import sizes
from glassformer.settings import from_mapping, to_mapping
from glassformer.training.parallel.drawing import fill, unfilled

SMALL = {"d_model": 16, "n_heads": 2, "d_ff": 24, "vocab_size": 31, "max_length": 20}
SIZES = {
    "gpt2": {"n_decoder_layers": 2},
    "gpt3-small": {"n_decoder_layers": 2},
    "bert-base": {"n_encoder_layers": 2},
    "transformer-tiny": {"n_encoder_layers": 1, "n_decoder_layers": 2},
    "t5-small": {"n_encoder_layers": 1, "n_decoder_layers": 2},
}


def config_of(size: str, **changes: Any) -> Config:
    known = to_mapping(sizes[size])
    wanted = {**SMALL, **SIZES[size], **changes}
    return from_mapping(Config, {**known, **{name: wanted[name] for name in wanted if name in known}}, size)


def built(config: Config, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return network_class(config)(config)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("changes", [{}, {"init_std": None}, {"init_std": 0.02}])
def test_numbers_are_those_of_building_plainly(size: str, changes: dict[str, Any]) -> None:
    """All tensors to the bit, and the random numbers that come after; parameters take no memory in between."""
    config = config_of(size, **changes)
    plain = built(config, seed=3)
    after = torch.rand(4)
    with unfilled() as draws:
        empty = built(config, seed=3)
    assert torch.equal(torch.rand(4), after)
    assert all(parameter.is_meta for parameter in empty.parameters())
    draws.names(empty)
    before = torch.get_rng_state()
    fill(empty, draws, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)
    wanted, found = network_tensors(plain), network_tensors(empty)
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    assert [b.tolist() for b in plain.buffers()] == [b.tolist() for b in empty.buffers()]
    assert len(list(plain.parameters())) == len(list(empty.parameters()))  # what is tied stays tied


def test_a_part_of_the_network_has_the_numbers_of_its_names() -> None:
    """As a stage of a pipeline has: other parameters are never drawn."""
    config = config_of("gpt2")
    plain = network_tensors(built(config, seed=5))
    with unfilled() as draws:
        empty: Any = built(config, seed=5)
    draws.names(empty)
    empty.stack.blocks[0] = nn.Identity()
    fill(empty, draws, torch.device("cpu"))
    found = dict(empty.named_parameters())
    assert not any(name.startswith("stack.blocks.0.") for name in found) and len(found) > 5
    assert all(torch.equal(plain[name], tensor) for name, tensor in found.items())


def test_a_network_to_look_at_has_no_numbers() -> None:
    config = config_of("bert-base")
    with unfilled(draw=False):
        network = network_class(config)(config)
    assert all(parameter.is_meta for parameter in network.parameters())
