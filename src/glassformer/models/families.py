"""Which network a config is for."""

from __future__ import annotations

from torch import nn

from glassformer.models.config import AnyConfig, Config, ConvolutionalConfig, RecurrentConfig
from glassformer.models.convolutional import Convolutional
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.models.recurrent import Recurrent

TextToText = EncoderDecoder | Recurrent | Convolutional
"""Networks that read a source and write a target: (source, target) in, and the same seam for decoding."""

TEXT_TO_TEXT: tuple[type[nn.Module], ...] = (EncoderDecoder, Recurrent, Convolutional)


def network_class(config: AnyConfig) -> type[nn.Module]:
    """The class of a config's network: of a `Config`, by which layers it has."""
    if isinstance(config, RecurrentConfig):
        return Recurrent
    if isinstance(config, ConvolutionalConfig):
        return Convolutional
    assert isinstance(config, Config)
    if config.n_encoder_layers and config.n_decoder_layers:
        return EncoderDecoder
    return Encoder if config.n_encoder_layers else Decoder
