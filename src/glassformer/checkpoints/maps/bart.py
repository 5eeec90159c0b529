"""BART (Lewis et al. 2020) as Hugging Face stores it; Marian's folders (`marian.py`) have the same layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from glassformer.checkpoints.maps.rules import Map, Rule, activation, fixed, only, plain_heads, setting
from glassformer.errors import InputError
from glassformer.models.config import Config, Learned

POST_NORM: dict[str, Any] = {
    "norm_first": False,
    "norm": "layer",
    "norm_eps": 1e-5,
    "gated": False,
    "bias": True,
    "scale_scores": True,
    "scale_head": False,
    "n_segments": 0,
    "pooler": False,
    "head": None,
}
"""Choices that BART and Marian have and no setting names."""

_FIXED: dict[str, Any] = {
    **POST_NORM,
    "source_vocab_size": None,
    "positions": Learned(),
    "embedding_norm": True,
}

_SKIPPED = 2  # positions begin at row 2 of their table


def _read_config(settings: Mapping[str, Any]) -> Config:
    of_class(settings, "BartForConditionalGeneration", "BartModel")
    only(settings, normalize_embedding=True, static_position_embeddings=False, extra_pos_embeddings=_SKIPPED)
    eos_id = setting(settings, "eos_token_id", int, 2)
    return Config(
        vocab_size=setting(settings, "vocab_size", int, 50265),
        pad_id=setting(settings, "pad_token_id", int, 1),
        bos_id=setting(settings, "decoder_start_token_id", int, eos_id),
        eos_id=eos_id,
        **_FIXED,
        **read_shape(settings),
    )


def of_class(settings: Mapping[str, Any], *names: str) -> None:
    """`InputError` unless "architectures" begins with one of `names`, or is not there."""
    name = (setting(settings, "architectures", list, [names[0]]) or [names[0]])[0]
    if name not in names:
        raise InputError(f"'architectures' must name {' or '.join(names)}, got {name!r}.")


def read_shape(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What BART and Marian name alike, as fields of our `Config`."""
    only(settings, is_encoder_decoder=True, is_decoder=False, normalize_before=False, add_final_layer_norm=False)
    return {
        "d_model": setting(settings, "d_model", int, 1024),
        "n_heads": _equal(settings, "attention_heads", 16),
        "d_ff": _equal(settings, "ffn_dim", 4096),
        "n_encoder_layers": setting(settings, "encoder_layers", int, 12),
        "n_decoder_layers": setting(settings, "decoder_layers", int, 12),
        "max_length": setting(settings, "max_position_embeddings", int, 1024),
        "activation": activation(settings, "activation_function", "gelu"),
        "dropout": setting(settings, "dropout", float, 0.1),
        "attention_dropout": setting(settings, "attention_dropout", float, 0.0),
        "activation_dropout": setting(settings, "activation_dropout", float, 0.0),
        "tie_head": setting(settings, "tie_word_embeddings", bool, True),
        "scale_embedding": setting(settings, "scale_embedding", bool, False),
        "head_bias": True,
        "init_std": None if settings.get("init_std") is None else setting(settings, "init_std", float),
    }


def _equal(settings: Mapping[str, Any], name: str, default: int) -> int:
    """A size that is named for each side and must be the same on both."""
    encoder, decoder = (setting(settings, f"{side}_{name}", int, default) for side in ("encoder", "decoder"))
    if encoder != decoder:
        raise InputError(
            f"'encoder_{name}' ({encoder}) and 'decoder_{name}' ({decoder}) must be the same: one size serves both."
        )
    return encoder


def _write_config(config: Config) -> dict[str, Any]:
    fixed(config, **_FIXED)
    return {
        "architectures": ["BartForConditionalGeneration"],
        "vocab_size": config.vocab_size,
        **write_shape(config),
    }


def write_shape(config: Config) -> dict[str, Any]:
    """The inverse of `read_shape`, and the special ids."""
    plain_heads(config)
    return {
        "is_encoder_decoder": True,
        "d_model": config.d_model,
        "encoder_attention_heads": config.n_heads,
        "decoder_attention_heads": config.n_heads,
        "encoder_ffn_dim": config.d_ff,
        "decoder_ffn_dim": config.d_ff,
        "encoder_layers": config.n_encoder_layers,
        "decoder_layers": config.n_decoder_layers,
        "max_position_embeddings": config.max_length,
        "activation_function": {"gelu_tanh": "gelu_pytorch_tanh"}.get(config.activation, config.activation),
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.activation_dropout,
        "tie_word_embeddings": config.tie_head,
        "scale_embedding": config.scale_embedding,
        "init_std": config.init_std,
        "decoder_start_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id,
    }


def _rules(config: Config) -> list[Rule]:
    rules = [*shared_words(config), *layers_and_bias(config)]
    for side in ("encoder", "decoder"):
        theirs, ours = f"model.{side}", f"{side}.embedding"
        rules.append(Rule(f"{theirs}.embed_positions.weight", (f"{ours}.position",), skipped=_SKIPPED))
        rules += _both(f"{theirs}.layernorm_embedding", f"{ours}.norm")
    return rules


def shared_words(config: Config) -> list[Rule]:
    """One matrix for the words of source and target, under whichever of its names is stored; and the head's.

    Where the head has its own, today's transformers reads all embeddings apart: then each is written.
    """
    copies = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
    rules = [Rule("model.shared.weight", ("decoder.embedding.token.weight",), optional=True)]
    for theirs in copies:
        rules.append(Rule(theirs, ("decoder.embedding.token.weight",), optional=True, repeated=not config.tie_head))
    return [*rules, Rule("lm_head.weight", ("head.weight",), optional=config.tie_head)]


def layers_and_bias(config: Config) -> list[Rule]:
    """All blocks, and the number for each word of the vocabulary."""
    rules = []
    for side, layers in (("encoder", config.n_encoder_layers), ("decoder", config.n_decoder_layers)):
        for layer in range(layers):
            for theirs, ours in (_ENCODER_LAYER if side == "encoder" else _DECODER_LAYER).items():
                rules += _both(f"model.{side}.layers.{layer}.{theirs}", f"{side}.blocks.{layer}.{ours}")
    return [*rules, Rule("final_logits_bias", ("head.bias",), as_row=True)] if config.head_bias else rules


def _attention(theirs: str, ours: str) -> dict[str, str]:
    parts = {"q_proj": "to_query", "k_proj": "to_key", "v_proj": "to_value", "out_proj": "to_output"}
    return {f"{theirs}.{part}": f"{ours}.{own}" for part, own in parts.items()}


_ENCODER_LAYER = {
    **_attention("self_attn", "self_attention"),
    "self_attn_layer_norm": "norm_1",
    "fc1": "feed_forward.up",
    "fc2": "feed_forward.down",
    "final_layer_norm": "norm_2",
}

_DECODER_LAYER = {
    **_ENCODER_LAYER,
    **_attention("encoder_attn", "cross_attention"),
    "encoder_attn_layer_norm": "norm_2",
    "final_layer_norm": "norm_3",
}


def _both(theirs: str, ours: str) -> list[Rule]:
    return [Rule(f"{theirs}.{part}", (f"{ours}.{part}",)) for part in ("weight", "bias")]


def fit_bias(config: Config, names: set[str]) -> Config:
    """A folder without a bias for the words (the bare stack) is a network without."""
    return replace(config, head_bias="final_logits_bias" in names)


MAP = Map(
    "bart",
    "encoder-decoder",
    _read_config,
    _write_config,
    _rules,
    ignored=(r"(model\.)?(encoder|decoder)\.version",),
    prefix="model.",
    fit=fit_bias,
)
