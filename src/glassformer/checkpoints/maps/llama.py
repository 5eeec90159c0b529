"""Llama (Touvron et al. 2023), and what has its shape (SmolLM2), as Hugging Face stores it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glassformer.checkpoints.maps.rules import Map, Rule, activation, fixed, initial_spread, only, setting
from glassformer.errors import InputError
from glassformer.models.config import Config, Rotary

_FIXED: dict[str, Any] = {
    "n_encoder_layers": 0,
    "norm_first": True,
    "norm": "rms",
    "gated": True,
    "scale_embedding": False,
    "scale_scores": True,
    "scale_head": False,
    "embedding_norm": False,
    "n_segments": 0,
    "pooler": False,
    "head_bias": False,
    "head": None,
}


def _read_config(settings: Mapping[str, Any]) -> Config:
    name = (setting(settings, "architectures", list, ["LlamaForCausalLM"]) or ["LlamaForCausalLM"])[0]
    if name not in ("LlamaForCausalLM", "LlamaModel"):
        raise InputError(f"'architectures' must name LlamaForCausalLM or LlamaModel, got {name!r}.")
    bias = setting(settings, "attention_bias", bool, False)
    if setting(settings, "mlp_bias", bool, False) != bias:
        raise InputError(
            f"'attention_bias' ({bias}) and 'mlp_bias' must be the same: biases are in all layers or none."
        )
    if setting(settings, "use_sliding_window", bool, True):
        only(settings, sliding_window=())
    d_model = setting(settings, "hidden_size", int, 4096)
    n_heads = setting(settings, "num_attention_heads", int, 32)
    d_head = None if settings.get("head_dim") is None else setting(settings, "head_dim", int)
    n_kv_heads = setting(settings, "num_key_value_heads", int, n_heads)
    eos_id = setting(settings, "eos_token_id", int, 2)
    return Config(
        vocab_size=setting(settings, "vocab_size", int, 32000),
        d_model=d_model,
        n_heads=n_heads,
        d_head=None if d_head is not None and d_head * n_heads == d_model else d_head,
        d_ff=setting(settings, "intermediate_size", int, 11008),
        n_decoder_layers=setting(settings, "num_hidden_layers", int, 32),
        positions=Rotary(_rope_base(settings)),
        max_length=setting(settings, "max_position_embeddings", int, 2048),
        norm_eps=setting(settings, "rms_norm_eps", float, 1e-6),
        activation=activation(settings, "hidden_act", "silu"),
        dropout=0.0,
        attention_dropout=setting(settings, "attention_dropout", float, 0.0),
        tie_head=setting(settings, "tie_word_embeddings", bool, False),
        bos_id=setting(settings, "bos_token_id", int, 1),
        eos_id=eos_id,
        pad_id=setting(settings, "pad_token_id", int, eos_id),
        n_kv_heads=None if n_kv_heads == n_heads else n_kv_heads,
        bias=bias,
        init_std=initial_spread(settings),
        **_FIXED,
    )


def _rope_base(settings: Mapping[str, Any]) -> float:
    """The base of the rotation, once written as `rope_theta`, today among `rope_parameters`; no scaling of it."""
    base = setting(settings, "rope_theta", float, 10000.0)
    for key in ("rope_scaling", "rope_parameters"):
        rope = setting(settings, key, dict, {})
        try:
            if any(isinstance(value, dict) for value in rope.values()):
                raise InputError("it must be the same for all layers.")
            only(rope, rope_type="default", type="default", partial_rotary_factor=(1, 1.0))
            base = setting(rope, "rope_theta", float, base)
        except InputError as error:
            raise InputError(f"'{key}': {error}") from None
    only(settings, partial_rotary_factor=(1, 1.0))
    if base <= 0:
        raise InputError(f"'rope_theta' must be positive, got {base}.")
    return base


def _write_config(config: Config) -> dict[str, Any]:
    fixed(config, **_FIXED)
    fixed(config, activation_dropout=0.0)
    if not isinstance(config.positions, Rotary):
        raise InputError(f"'positions' must be Rotary, got {config.positions!r}.")
    if config.d_model % config.n_heads:
        raise InputError(f"'d_model' ({config.d_model}) must be a multiple of 'n_heads' ({config.n_heads}).")
    return {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_decoder_layers,
        "rope_theta": config.positions.base,
        "max_position_embeddings": config.max_length,
        "rms_norm_eps": config.norm_eps,
        "hidden_act": {"gelu_tanh": "gelu_pytorch_tanh"}.get(config.activation, config.activation),
        "attention_dropout": config.attention_dropout,
        "tie_word_embeddings": config.tie_head,
        "attention_bias": config.bias,
        "mlp_bias": config.bias,
        "initializer_range": config.init_std,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id,
    }


def _rules(config: Config) -> list[Rule]:
    rules = [Rule("model.embed_tokens.weight", ("stack.embedding.token.weight",))]
    for layer in range(config.n_decoder_layers):
        theirs, ours = f"model.layers.{layer}", f"stack.blocks.{layer}"
        rules += [
            Rule(f"{theirs}.input_layernorm.weight", (f"{ours}.norm_1.weight",)),
            Rule(f"{theirs}.post_attention_layernorm.weight", (f"{ours}.norm_2.weight",)),
        ]
        for name, path in _DENSE.items():
            parts = ("weight", "bias") if config.bias else ("weight",)
            rules += [Rule(f"{theirs}.{name}.{part}", (f"{ours}.{path}.{part}",)) for part in parts]
    rules.append(Rule("model.norm.weight", ("stack.final_norm.weight",)))
    head = "stack.embedding.token.weight" if config.tie_head else "head.weight"
    return [*rules, Rule("lm_head.weight", (head,), optional=config.tie_head)]


_DENSE = {
    "self_attn.q_proj": "self_attention.to_query",
    "self_attn.k_proj": "self_attention.to_key",
    "self_attn.v_proj": "self_attention.to_value",
    "self_attn.o_proj": "self_attention.to_output",
    "mlp.gate_proj": "feed_forward.gate",
    "mlp.up_proj": "feed_forward.up",
    "mlp.down_proj": "feed_forward.down",
}

MAP = Map(
    "llama",
    "decoder",
    _read_config,
    _write_config,
    _rules,
    ignored=(r"(model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq",),
    prefix="model.",
)
