"""GPT-2 (Radford et al. 2019) as Hugging Face stores it: dense weights [in, out]; queries, keys and values fused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glassformer.checkpoints.maps.rules import Map, Rule, activation, fixed, initial_spread, only, plain_heads, setting
from glassformer.errors import InputError
from glassformer.models.config import Config, Learned

_FIXED: dict[str, Any] = {
    "n_encoder_layers": 0,
    "positions": Learned(),
    "norm_first": True,
    "norm": "layer",
    "gated": False,
    "bias": True,
    "scale_embedding": False,
    "scale_head": False,
    "embedding_norm": False,
    "n_segments": 0,
    "pooler": False,
    "head_bias": False,
    "head": None,
}


def _read_config(settings: Mapping[str, Any]) -> Config:
    name = (setting(settings, "architectures", list, ["GPT2LMHeadModel"]) or ["GPT2LMHeadModel"])[0]
    if name not in ("GPT2LMHeadModel", "GPT2Model"):
        raise InputError(f"'architectures' must name GPT2LMHeadModel or GPT2Model, got {name!r}.")
    only(settings, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    d_model = setting(settings, "n_embd", int, 768)
    # One number here where they have two more, for the embeddings (embd_pdrop); it acts in training alone.
    return Config(
        vocab_size=setting(settings, "vocab_size", int, 50257),
        d_model=d_model,
        n_heads=setting(settings, "n_head", int, 12),
        d_ff=setting(settings, "n_inner", int, 4 * d_model),
        n_decoder_layers=setting(settings, "n_layer", int, 12),
        max_length=setting(settings, "n_positions", int, 1024),
        norm_eps=setting(settings, "layer_norm_epsilon", float, 1e-5),
        activation=activation(settings, "activation_function", "gelu_new"),
        dropout=setting(settings, "resid_pdrop", float, 0.1),
        attention_dropout=setting(settings, "attn_pdrop", float, 0.1),
        tie_head=setting(settings, "tie_word_embeddings", bool, True),
        bos_id=setting(settings, "bos_token_id", int, 50256),
        eos_id=setting(settings, "eos_token_id", int, 50256),
        pad_id=setting(settings, "pad_token_id", int, setting(settings, "eos_token_id", int, 50256)),
        scale_scores=setting(settings, "scale_attn_weights", bool, True),
        init_std=initial_spread(settings),
        **_FIXED,
    )


def _write_config(config: Config) -> dict[str, Any]:
    fixed(config, **_FIXED)
    plain_heads(config)
    fixed(config, activation_dropout=0.0)
    return {
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocab_size,
        "n_embd": config.d_model,
        "n_head": config.n_heads,
        "n_inner": None if config.d_ff == 4 * config.d_model else config.d_ff,
        "n_layer": config.n_decoder_layers,
        "n_positions": config.max_length,
        "n_ctx": config.max_length,
        "layer_norm_epsilon": config.norm_eps,
        "activation_function": {"gelu_tanh": "gelu_new"}.get(config.activation, config.activation),
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.attention_dropout,
        "scale_attn_weights": config.scale_scores,
        "tie_word_embeddings": config.tie_head,
        "initializer_range": config.init_std,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id,
    }


def _rules(config: Config) -> list[Rule]:
    rules = [
        Rule("transformer.wte.weight", ("stack.embedding.token.weight",)),
        Rule("transformer.wpe.weight", ("stack.embedding.position",)),
    ]
    for layer in range(config.n_decoder_layers):
        theirs, ours = f"transformer.h.{layer}", f"stack.blocks.{layer}"
        rules += [*_norm(f"{theirs}.ln_1", f"{ours}.norm_1"), *_norm(f"{theirs}.ln_2", f"{ours}.norm_2")]
        for name, parts in _DENSE.items():
            paths = [f"{ours}.{part}" for part in parts]
            rules += [
                Rule(f"{theirs}.{name}.weight", tuple(f"{path}.weight" for path in paths), transposed=True),
                Rule(f"{theirs}.{name}.bias", tuple(f"{path}.bias" for path in paths)),
            ]
    rules += _norm("transformer.ln_f", "stack.final_norm")
    head = "stack.embedding.token.weight" if config.tie_head else "head.weight"
    return [*rules, Rule("lm_head.weight", (head,), optional=config.tie_head)]


_DENSE = {
    "attn.c_attn": ("self_attention.to_query", "self_attention.to_key", "self_attention.to_value"),
    "attn.c_proj": ("self_attention.to_output",),
    "mlp.c_fc": ("feed_forward.up",),
    "mlp.c_proj": ("feed_forward.down",),
}


def _norm(theirs: str, ours: str) -> list[Rule]:
    return [Rule(f"{theirs}.{part}", (f"{ours}.{part}",)) for part in ("weight", "bias")]


MAP = Map(
    "gpt2",
    "decoder",
    _read_config,
    _write_config,
    _rules,
    ignored=(r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",),
    prefix="transformer.",
)
