"""Marian's translators (Junczys-Dowmunt et al. 2018; OPUS-MT) as Hugging Face stores them.

The original Transformer, post-norm, with all sines before all cosines, and BART's names of tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glassformer.checkpoints.maps.bart import (
    POST_NORM,
    fit_bias,
    layers_and_bias,
    of_class,
    read_shape,
    shared_words,
    write_shape,
)
from glassformer.checkpoints.maps.rules import Map, Rule, fixed, only, setting
from glassformer.errors import InputError
from glassformer.models.config import Config, Sinusoidal

_FIXED: dict[str, Any] = {**POST_NORM, "positions": Sinusoidal(halves=True), "embedding_norm": False}


def _read_config(settings: Mapping[str, Any]) -> Config:
    of_class(settings, "MarianMTModel", "MarianModel")
    only(settings, normalize_embedding=False, static_position_embeddings=True)
    vocab_size = setting(settings, "vocab_size", int, 58101)
    target_size = setting(settings, "decoder_vocab_size", int, vocab_size)
    shared = setting(settings, "share_encoder_decoder_embeddings", bool, True)
    if shared and target_size != vocab_size:
        raise InputError(
            f"'decoder_vocab_size' ({target_size}) must be 'vocab_size' ({vocab_size}) where "
            "'share_encoder_decoder_embeddings' is true."
        )
    pad_id = setting(settings, "pad_token_id", int, 58100)
    return Config(
        vocab_size=target_size,
        source_vocab_size=None if shared else vocab_size,
        pad_id=pad_id,
        bos_id=setting(settings, "decoder_start_token_id", int, pad_id),
        eos_id=setting(settings, "eos_token_id", int, 0),
        **_FIXED,
        **read_shape(settings),
    )


def _write_config(config: Config) -> dict[str, Any]:
    fixed(config, **_FIXED)
    source_size = config.source_vocab_size
    return {
        "architectures": ["MarianMTModel"],
        "vocab_size": config.vocab_size if source_size is None else source_size,
        "decoder_vocab_size": config.vocab_size,
        "share_encoder_decoder_embeddings": source_size is None,
        **write_shape(config),
    }


def _rules(config: Config) -> list[Rule]:
    if config.source_vocab_size is None:
        return [*shared_words(config), *layers_and_bias(config)]
    return [
        Rule("model.encoder.embed_tokens.weight", ("encoder.embedding.token.weight",)),
        Rule("model.decoder.embed_tokens.weight", ("decoder.embedding.token.weight",)),
        Rule("lm_head.weight", ("head.weight",), optional=config.tie_head),
        *layers_and_bias(config),
    ]


MAP = Map(
    "marian",
    "encoder-decoder",
    _read_config,
    _write_config,
    _rules,
    ignored=(r"(model\.)?(encoder|decoder)\.embed_positions\.weight",),  # sines and cosines
    prefix="model.",
    fit=fit_bias,
)
