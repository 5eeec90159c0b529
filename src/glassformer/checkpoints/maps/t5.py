"""T5 (Raffel et al. 2020) and T5 v1.1 (gated, untied; Flan-T5) as Hugging Face stores them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from glassformer.checkpoints.maps.bart import of_class
from glassformer.checkpoints.maps.rules import ACTIVATIONS, Map, Rule, fixed, initial_spread, only, setting
from glassformer.errors import InputError
from glassformer.models.config import Config, Relative

_FIXED: dict[str, Any] = {
    "source_vocab_size": None,
    "norm_first": True,
    "norm": "rms",
    "bias": False,
    "scale_embedding": False,
    "scale_scores": False,
    "embedding_norm": False,
    "n_segments": 0,
    "pooler": False,
    "head_bias": False,
    "head": None,
}

_GELU = "gated-gelu"  # the tanh form, in spite of its name


def _read_config(settings: Mapping[str, Any]) -> Config:
    of_class(settings, "T5ForConditionalGeneration", "T5Model", "T5WithLMHeadModel")
    only(settings, is_encoder_decoder=True, is_decoder=False)
    n_heads, d_head = setting(settings, "num_heads", int, 8), setting(settings, "d_kv", int, 64)
    d_model, layers = setting(settings, "d_model", int, 512), setting(settings, "num_layers", int, 6)
    gated, activation = _read_activation(settings)
    dropout = setting(settings, "dropout_rate", float, 0.1)
    # Version 1.1 says that it does not tie, and means that it does not scale; newer files may say either by itself.
    tied = setting(settings, "tie_word_embeddings", bool, True)
    scaled = setting(settings, "scale_decoder_outputs", bool, tied)
    pad_id = setting(settings, "pad_token_id", int, 0)
    return Config(
        vocab_size=setting(settings, "vocab_size", int, 32128),
        d_model=d_model,
        n_heads=n_heads,
        d_head=None if d_head * n_heads == d_model else d_head,
        d_ff=setting(settings, "d_ff", int, 2048),
        n_encoder_layers=layers,
        n_decoder_layers=setting(settings, "num_decoder_layers", int, layers),
        positions=Relative(
            setting(settings, "relative_attention_num_buckets", int, 32),
            setting(settings, "relative_attention_max_distance", int, 128),
        ),
        max_length=setting(settings, "n_positions", int, 512),
        norm_eps=setting(settings, "layer_norm_epsilon", float, 1e-6),
        activation=activation,
        gated=gated,
        dropout=dropout,
        attention_dropout=dropout,
        activation_dropout=dropout,
        tie_head=tied and scaled,
        scale_head=scaled,
        pad_id=pad_id,
        bos_id=setting(settings, "decoder_start_token_id", int, pad_id),
        eos_id=setting(settings, "eos_token_id", int, 1),
        init_std=initial_spread(settings),
        **_FIXED,
    )


def _read_activation(settings: Mapping[str, Any]) -> tuple[bool, Any]:
    name = setting(settings, "feed_forward_proj", str, "relu")
    gated, plain = name.startswith("gated-"), name.removeprefix("gated-")
    if plain not in ACTIVATIONS:
        raise InputError(f"'feed_forward_proj' must be 'gated-' or nothing and {', '.join(ACTIVATIONS)}, got {name!r}.")
    return gated, "gelu_tanh" if name == _GELU else ACTIVATIONS[plain]


def _write_config(config: Config) -> dict[str, Any]:
    fixed(config, **_FIXED)
    fixed(config, scale_head=config.tie_head)
    if not isinstance(config.positions, Relative):
        raise InputError(f"'positions' must be Relative, got {config.positions!r}.")
    if config.kv_heads != config.n_heads:
        raise InputError(f"'n_kv_heads' must be 'n_heads' ({config.n_heads}), got {config.kv_heads}.")
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "is_encoder_decoder": True,
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "num_heads": config.n_heads,
        "d_kv": config.head_width,
        "d_ff": config.d_ff,
        "num_layers": config.n_encoder_layers,
        "num_decoder_layers": config.n_decoder_layers,
        "relative_attention_num_buckets": config.positions.buckets,
        "relative_attention_max_distance": config.positions.max_distance,
        "n_positions": config.max_length,
        "layer_norm_epsilon": config.norm_eps,
        "feed_forward_proj": _write_activation(config),
        "dropout_rate": config.dropout,
        "tie_word_embeddings": config.tie_head,
        "initializer_range": config.init_std,
        "decoder_start_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id,
    }


def _write_activation(config: Config) -> str:
    if not config.gated:
        return "gelu_new" if config.activation == "gelu_tanh" else config.activation
    return {"gelu_tanh": _GELU, "gelu": "gated-gelu_python"}.get(config.activation, f"gated-{config.activation}")


def _rules(config: Config) -> list[Rule]:
    words = "decoder.embedding.token.weight"
    rules = [
        Rule(f"{place}.weight", (words,), optional=True)
        for place in ("shared", "encoder.embed_tokens", "decoder.embed_tokens")
    ]
    rules.append(Rule("lm_head.weight", ("head.weight",), optional=config.tie_head))
    for side, layers in (("encoder", config.n_encoder_layers), ("decoder", config.n_decoder_layers)):
        first = f"{side}.block.0.layer.0.SelfAttention"
        rules.append(Rule(f"{first}.relative_attention_bias.weight", (f"{side}.relative.weight",)))
        rules.append(Rule(f"{side}.final_layer_norm.weight", (f"{side}.final_norm.weight",)))
        for layer in range(layers):
            for theirs, ours in _layer(side == "decoder", config.gated).items():
                rules.append(Rule(f"{side}.block.{layer}.{theirs}.weight", (f"{side}.blocks.{layer}.{ours}.weight",)))
    return rules


def _layer(cross: bool, gated: bool) -> dict[str, str]:
    """A block: their sub-layers are numbered, each with the norm before it."""
    names = {"SelfAttention": "self_attention"} | ({"EncDecAttention": "cross_attention"} if cross else {})
    parts = {"q": "to_query", "k": "to_key", "v": "to_value", "o": "to_output"}
    layer: dict[str, str] = {}
    for number, (theirs, ours) in enumerate(names.items()):
        layer |= {f"layer.{number}.{theirs}.{part}": f"{ours}.{own}" for part, own in parts.items()}
    feed = {"wi_0": "gate", "wi_1": "up", "wo": "down"} if gated else {"wi": "up", "wo": "down"}
    layer |= {f"layer.{len(names)}.DenseReluDense.{part}": f"feed_forward.{own}" for part, own in feed.items()}
    return layer | {f"layer.{number}.layer_norm": f"norm_{number + 1}" for number in range(len(names) + 1)}


def _fit(config: Config, names: set[str]) -> Config:
    """A folder that says that the head is its own, and has none, means the embedding."""
    return config if "lm_head.weight" in names else replace(config, tie_head=True)


MAP = Map(
    "t5",
    "encoder-decoder",
    _read_config,
    _write_config,
    _rules,
    ignored=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
    fit=_fit,
)
