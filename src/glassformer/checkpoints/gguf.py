"""Models in GGUF, the single-file format of llama.cpp: metadata to config and tokenizer, tensors to a network.

Names of tensors and keys: gguf-py, constants.py. llama.cpp turns neighbouring coordinates of queries and keys together,
so the rows of their matrices lie in pairs there; here they are put back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from glassformer.checkpoints.gguf_file import GGUF, open_gguf
from glassformer.checkpoints.maps.apply import build, fill, match, outline, rules_for, to_ours
from glassformer.checkpoints.maps.rules import Rule, only, setting
from glassformer.checkpoints.native import Loaded
from glassformer.errors import InputError, did_you_mean
from glassformer.layers.quantized import as_blocks, quantized
from glassformer.models.config import Config, Learned, Rotary
from glassformer.text.pipeline import TextPipeline
from glassformer.text.pretrained import tokenizer_from_gguf

BLOCK_KINDS = ("Q4_0", "Q4_1", "Q8_0")
"""Kinds of stored weights whose blocks of 32 can be used as they are."""


@dataclass(frozen=True)
class _Architecture:
    """`read_config` takes the metadata without the architecture's prefix, the size of the vocabulary and whether the
    head is tied; `rules` gives every tensor of a network with that config."""

    read_config: Callable[[Mapping[str, Any], int, bool], Config]
    rules: Callable[[Config], list[Rule]]


def read_gguf(path: str | Path, *, stored: bool = False) -> Loaded:
    """The model in a GGUF file as an fp32 network on the CPU, with the file's tokenizer and chat template.

    With `stored`, weights of 4 and 8 bits stay as they are, and the network is for running only; see
    `layers.quantized`.

    `extra["gguf"]` is the file's path, for `quantized_blocks`; `extra["eos_ids"]` lists the tokens that end a text
    where there are several. Raises `InputError` for a damaged file, an unknown architecture or setting, and tensors
    that do not fit.
    """
    file = open_gguf(path)
    config, rules = _config_and_rules(file)
    try:
        tokenizer = tokenizer_from_gguf(file.metadata)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"{path}: the tokenizer must fit the network: it has {tokenizer.vocab_size} tokens, the network "
            f"{config.vocab_size}. Use another copy."
        )
    template = file.metadata.get("tokenizer.chat_template", "")
    pipeline = TextPipeline(unicode="none", chat_template=template if isinstance(template, str) else "")
    network = _stored(file, config, rules) if stored else build("decoder", config, rules, file.tensors, str(path))
    extra: dict[str, Any] = {"gguf": str(path)}
    ends = [config.eos_id, *(_id(file, name, config.eos_id) for name in ("eot", "eom"))]
    if len(set(ends)) > 1:
        extra["eos_ids"] = list(dict.fromkeys(ends))
    return Loaded(network, tokenizer, pipeline, "generation", config, extra)


def quantized_blocks(path: str | Path) -> dict[str, tuple[str, Tensor]]:
    """The weights that the file stores as Q4_0, Q4_1 or Q8_0: kind and blocks, uint8 [out, in / 32, bytes], by the name
    of our parameter. Rows lie as ours do. See `gguf_file.StoredTensor.blocks` for what the bytes mean."""
    file = open_gguf(path)
    config, rules = _config_and_rules(file)
    network = outline("decoder", config, str(path))
    match(network, rules, file.tensors, str(path))
    return _blocks_for(network, file, rules)


def _blocks_for(network: nn.Module, file: GGUF, rules: list[Rule]) -> dict[str, tuple[str, Tensor]]:
    rows = {name: len(tensor) for name, tensor in network.state_dict().items()}
    found: dict[str, tuple[str, Tensor]] = {}
    for rule in rules:
        tensor = file.tensors.get(rule.theirs)
        if tensor is not None and tensor.kind in BLOCK_KINDS and not set(rule.ours) & set(found):
            parts = to_ours(rule, tensor.blocks(), [rows[name] for name in rule.ours])
            found |= {name: (tensor.kind, part) for name, part in zip(rule.ours, parts, strict=True)}
    return found


def _stored(file: GGUF, config: Config, rules: list[Rule]) -> nn.Module:
    """A network that runs on the stored blocks; only what is stored otherwise is read."""
    network = outline("decoder", config, str(file.path))
    found = match(network, rules, file.tensors, str(file.path))
    blocks = {name: as_blocks(kind, part) for name, (kind, part) in _blocks_for(network, file, rules).items()}
    others = [rule for rule in rules if not set(rule.ours) & set(blocks)]
    fill(network, others, file.tensors, found, str(file.path))
    return quantized(network, None, blocks).eval()


def _config_and_rules(file: GGUF) -> tuple[Config, list[Rule]]:
    name = file.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in _ARCHITECTURES:
        raise InputError(
            f"{file.path}: 'general.architecture' must be one of {', '.join(_ARCHITECTURES)}, got {name!r}."
            f"{did_you_mean(str(name), _ARCHITECTURES)} No other is known."
        )
    architecture = _ARCHITECTURES[name]
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise InputError(f"{file.path}: 'token_embd.weight' [vocabulary, width] must be among the tensors.")
    own = {key.removeprefix(f"{name}."): value for key, value in file.metadata.items() if key.startswith(f"{name}.")}
    ids = {f"{role}_id": _id(file, role, default) for role, default in (("bos", 1), ("eos", 2))}
    ids["pad_id"] = _id(file, "padding", ids["eos_id"])
    try:
        config = architecture.read_config({**own, **ids}, embedding.shape[0], "output.weight" not in file.tensors)
    except InputError as error:
        raise InputError(f"{file.path}, metadata of {name}: {error}") from None
    return config, rules_for(architecture.rules, config, file.tensors, str(file.path))


def _id(file: GGUF, role: str, default: int) -> int:
    value = file.metadata.get(f"tokenizer.ggml.{role}_token_id")
    return value if isinstance(value, int) else default


def _shape(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the architectures say in the same words."""
    return {
        "d_model": setting(data, "embedding_length", int),
        "n_heads": setting(data, "attention.head_count", int),
        "d_ff": setting(data, "feed_forward_length", int),
        "n_encoder_layers": 0,
        "n_decoder_layers": setting(data, "block_count", int),
        "max_length": setting(data, "context_length", int),
        "dropout": 0.0,
        "norm_first": True,
        "scale_embedding": False,
        **{name: data[name] for name in ("bos_id", "eos_id", "pad_id")},
    }


def _llama_config(data: Mapping[str, Any], vocab_size: int, tied: bool) -> Config:
    only(data, **{"rope.scaling.type": "none", "expert_count": 0, "rope.scaling.factor": (0.0, 1.0)})
    shape = _shape(data)
    usual = shape["d_model"] // max(shape["n_heads"], 1)
    width = setting(data, "attention.key_length", int, setting(data, "rope.dimension_count", int, usual))
    only(data, **{"attention.value_length": width, "rope.dimension_count": width})
    kv_heads = setting(data, "attention.head_count_kv", int, shape["n_heads"])
    return Config(
        vocab_size=vocab_size,
        **shape,
        d_head=None if width * shape["n_heads"] == shape["d_model"] else width,
        n_kv_heads=None if kv_heads == shape["n_heads"] else kv_heads,
        positions=Rotary(setting(data, "rope.freq_base", float, 10000.0)),
        norm="rms",
        norm_eps=_single(setting(data, "attention.layer_norm_rms_epsilon", float)),
        activation="silu",
        gated=True,
        bias=False,
        tie_head=tied,
    )


def _gpt2_config(data: Mapping[str, Any], vocab_size: int, tied: bool) -> Config:
    return Config(
        vocab_size=vocab_size,
        **_shape(data),
        positions=Learned(),
        norm_eps=_single(setting(data, "attention.layer_norm_epsilon", float)),
        activation="gelu_tanh",
        tie_head=tied,
    )


def _single(value: float) -> float:
    """What a number was before it was stored in 32 bits: 1e-5 comes back as 9.99999975e-06."""
    return float(f"{value:.7g}")


def _layer(layer: int, names: Mapping[str, str], parts: tuple[str, ...]) -> list[Rule]:
    ours = f"stack.blocks.{layer}"
    return [
        Rule(f"blk.{layer}.{theirs}.{part}", tuple(f"{ours}.{path}.{part}" for path in paths.split()))
        for theirs, paths in names.items()
        for part in parts
    ]


def _llama_rules(config: Config) -> list[Rule]:
    rules = [Rule("token_embd.weight", ("stack.embedding.token.weight",))]
    for layer in range(config.n_decoder_layers):
        rules += _layer(layer, _LLAMA, ("weight",))
        for name, path, heads in (("q", "to_query", config.n_heads), ("k", "to_key", config.kv_heads)):
            ours = f"stack.blocks.{layer}.self_attention.{path}.weight"
            rules.append(Rule(f"blk.{layer}.attn_{name}.weight", (ours,), paired_heads=heads))
    rules.append(Rule("output_norm.weight", ("stack.final_norm.weight",)))
    return rules if config.tie_head else [*rules, Rule("output.weight", ("head.weight",))]


def _gpt2_rules(config: Config) -> list[Rule]:
    rules = [
        Rule("token_embd.weight", ("stack.embedding.token.weight",)),
        Rule("position_embd.weight", ("stack.embedding.position",)),
    ]
    for layer in range(config.n_decoder_layers):
        rules += _layer(layer, _GPT2, ("weight", "bias"))
    rules += [Rule(f"output_norm.{part}", (f"stack.final_norm.{part}",)) for part in ("weight", "bias")]
    return rules if config.tie_head else [*rules, Rule("output.weight", ("head.weight",))]


_LLAMA = {
    "attn_norm": "norm_1",
    "attn_v": "self_attention.to_value",
    "attn_output": "self_attention.to_output",
    "ffn_norm": "norm_2",
    "ffn_gate": "feed_forward.gate",
    "ffn_up": "feed_forward.up",
    "ffn_down": "feed_forward.down",
}
_GPT2 = {
    "attn_norm": "norm_1",
    "attn_qkv": "self_attention.to_query self_attention.to_key self_attention.to_value",
    "attn_output": "self_attention.to_output",
    "ffn_norm": "norm_2",
    "ffn_up": "feed_forward.up",
    "ffn_down": "feed_forward.down",
}

_ARCHITECTURES = {
    "llama": _Architecture(_llama_config, _llama_rules),
    "gpt2": _Architecture(_gpt2_config, _gpt2_rules),
}
