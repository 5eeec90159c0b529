"""The families that a checkpoint may hold, by the name written in `glassformer.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from glassformer.errors import InputError, did_you_mean
from glassformer.models.config import Config, ConvolutionalConfig, RecurrentConfig
from glassformer.models.convolutional import Convolutional
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.models.recurrent import Recurrent


@dataclass(frozen=True)
class Family:
    """A network's class and the class of its config; `network(config)` builds one."""

    network: type[nn.Module]
    config: type[Any]


families: dict[str, Family] = {
    "encoder-decoder": Family(EncoderDecoder, Config),
    "encoder": Family(Encoder, Config),
    "decoder": Family(Decoder, Config),
    "recurrent": Family(Recurrent, RecurrentConfig),
    "convolutional": Family(Convolutional, ConvolutionalConfig),
}


def family_of(network: nn.Module) -> str:
    """The family's name of a network; `InputError` for a class that has none."""
    for name, family in families.items():
        if type(network) is family.network:
            return name
    raise InputError(
        f"A checkpoint holds one of {', '.join(sorted(families))}; {type(network).__name__} is none of them."
    )


def family(name: str, where: str) -> Family:
    """The family called `name`; `InputError` where there is none."""
    if name not in families:
        raise InputError(
            f"{where}: 'family' must be one of {', '.join(sorted(families))}, got {name!r}."
            f"{did_you_mean(str(name), families)}"
        )
    return families[name]
