"""Which networks compute a padded batch without its padding, as one row (`layers.ragged`)."""

from __future__ import annotations

import torch
from torch import nn

from glassformer.layers.ragged import can_pack
from glassformer.layers.sites import is_planned
from glassformer.models.config import Config, Relative


def packs(network: nn.Module) -> bool:
    """Whether a training step of `network` leaves padding out: on a CPU, where nothing depends on a query and a key
    together (dropout on the pattern, relative positions, a band), no plan watches sites, and no weight is in shards.

    In eval mode a padded batch stays one, so that what is looked into is equal, to the last bit, to a plain pass; but
    see `packs_texts`.
    """
    return network.training and torch.is_grad_enabled() and _packable(network)


def packs_texts(network: nn.Module) -> bool:
    """The same for texts that are only read, in fp32."""
    return not network.training and _packable(network) and next(network.parameters()).dtype == torch.float32


def _packable(network: nn.Module) -> bool:
    config = network.config
    if not isinstance(config, Config) or isinstance(config.positions, Relative) or _banded(config):
        return False
    weight, drops = next(network.parameters()), network.training and config.attention_dropout > 0
    return not drops and type(weight) is nn.Parameter and can_pack(weight.device) and not is_planned(network)


def _banded(config: Config) -> bool:
    return any(config.band(layer) for layer in range(config.n_encoder_layers + config.n_decoder_layers))
