"""Llama: our network against that of `transformers`, from its folders and from ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from parity.oracles import check_decoder, check_gradients, exported, model_of, rows, transformers
from torch.nn import functional as F

from glassformer.checkpoints.huggingface import read_network

SHAPE = {
    "vocab_size": 43,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
CHOICES: dict[str, dict[str, Any]] = {
    "shared keys": {},
    "own keys": {"num_key_value_heads": 6},
    "tied": {"tie_word_embeddings": True},
    "wide heads": {"head_dim": 10},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "base and epsilon": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "rms_norm_eps": 1e-3},
    "activation": {"hidden_act": "gelu_pytorch_tanh"},
}


def llama(**choices: Any) -> Any:
    return model_of(transformers.LlamaForCausalLM, transformers.LlamaConfig(**{**SHAPE, **choices}))


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES.keys())
def test_both_ways(choices: dict[str, Any], tmp_path: Path) -> None:
    theirs = llama(**choices)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = read_network(tmp_path / "theirs")
    check_decoder(ours, theirs)
    check_decoder(ours, exported(ours, tmp_path / "ours", transformers.LlamaForCausalLM))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_shards(dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = llama().to(dtype)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="5KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 2
    ours = read_network(tmp_path / "theirs")
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    theirs = theirs.float()
    theirs.model.rotary_emb = type(theirs.model.rotary_emb)(theirs.config)  # its own angles were rounded, too
    check_decoder(ours, theirs)
    back = exported(ours, tmp_path / "ours", transformers.LlamaForCausalLM, dtype=dtype)
    assert back.dtype == dtype
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(back.state_dict()[name].float(), tensor), name


def test_base_model(tmp_path: Path) -> None:
    """The bare stack's folder lacks the prefix of all names."""
    theirs = llama(tie_word_embeddings=True)
    theirs.model.save_pretrained(tmp_path)
    check_decoder(read_network(tmp_path), theirs)


def test_gradients(tmp_path: Path) -> None:
    theirs = llama()
    theirs.save_pretrained(tmp_path)
    ids, real = rows(43, pad_id=2)
    target = ids[:, 1:].masked_fill(~real[:, 1:], -100)
    pairs = {
        "stack.blocks.0.self_attention.to_key.weight": ("model.layers.0.self_attn.k_proj.weight", False),
        "stack.blocks.1.feed_forward.gate.weight": ("model.layers.1.mlp.gate_proj.weight", False),
        "stack.embedding.token.weight": ("model.embed_tokens.weight", False),
        "stack.final_norm.weight": ("model.norm.weight", False),
    }
    check_gradients(
        read_network(tmp_path),
        theirs,
        pairs,
        lambda model: F.cross_entropy(model(ids).logits[:, :-1].transpose(1, 2), target),
    )
