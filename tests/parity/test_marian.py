"""Marian: our network against that of `transformers`, from its folders and from ours."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.oracles import exported, model_of, transformers
from parity.seq2seq import check_everything, check_logits, check_seq2seq_gradients, talkative
from safetensors.torch import load_file, save_file

from glassformer.checkpoints.huggingface import read_network
from glassformer.checkpoints.maps.marian import MAP
from glassformer.errors import InputError
from glassformer.models.config import Learned, Sinusoidal

SHAPE = {
    "vocab_size": 43,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 64,
    "pad_token_id": 42,
    "decoder_start_token_id": 42,
    "eos_token_id": 0,
    "scale_embedding": True,
    "activation_function": "swish",
    "dropout": 0.0,
}
CHOICES: dict[str, dict[str, Any]] = {
    "as published": {},
    "unscaled": {"scale_embedding": False, "activation_function": "gelu"},
    "own start": {"decoder_start_token_id": 1, "activation_function": "relu"},
    "two vocabularies": {"share_encoder_decoder_embeddings": False, "vocab_size": 50, "decoder_vocab_size": 43},
    "untied": {
        "share_encoder_decoder_embeddings": False,
        "vocab_size": 50,
        "decoder_vocab_size": 43,
        "tie_word_embeddings": False,
    },
}


def marian(**choices: Any) -> Any:
    model = model_of(transformers.MarianMTModel, transformers.MarianConfig(**{**SHAPE, **choices}))
    with torch.no_grad():
        for side in (model.model.encoder, model.model.decoder):  # drawn like weights; they are sines and cosines
            side.embed_positions.weight.copy_(side.embed_positions.create_weight())
    last_norm = model.model.decoder.layers[-1].final_layer_norm.weight
    eos = 1.0 if model.config.share_encoder_decoder_embeddings else 6.0
    return talkative(model, last_norm, eos, words=0.2 if model.config.scale_embedding else 1.0)


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES.keys())
def test_both_ways(choices: dict[str, Any], tmp_path: Path) -> None:
    theirs = marian(**choices)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = read_network(tmp_path / "theirs")
    assert ours.config.positions == Sinusoidal(halves=True)
    check_everything(ours, theirs)
    check_everything(ours, exported(ours, tmp_path / "ours", transformers.MarianMTModel))


def test_untied_head_above_shared_words(tmp_path: Path) -> None:
    """An older folder keeps the words once, today's reader wants each copy."""
    theirs = marian(tie_word_embeddings=False)
    with torch.no_grad():
        for side in ("encoder", "decoder"):
            theirs.get_submodule(f"model.{side}.embed_tokens").weight.copy_(theirs.model.shared.weight)
    theirs.save_pretrained(tmp_path / "theirs")
    path = tmp_path / "theirs" / "model.safetensors"
    once = {name: tensor for name, tensor in load_file(path).items() if "embed_tokens" not in name}
    save_file(once, path, metadata={"format": "pt"})
    ours = read_network(tmp_path / "theirs")
    assert not ours.config.tie_head
    check_everything(ours, theirs)
    check_everything(ours, exported(ours, tmp_path / "ours", transformers.MarianMTModel))


def test_stored_sines_and_copies_are_passed_over(tmp_path: Path) -> None:
    theirs = marian()
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for side in ("encoder", "decoder"):
        tensors[f"model.{side}.embed_positions.weight"] = theirs.state_dict()[f"model.{side}.embed_positions.weight"]
        tensors[f"model.{side}.embed_tokens.weight"] = theirs.model.shared.weight.detach().clone()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    check_logits(read_network(tmp_path), theirs)
    tensors["model.encoder.embed_tokens.weight"][3] += 1
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="must hold the same numbers"):
        read_network(tmp_path)


def test_gradients(tmp_path: Path) -> None:
    theirs = marian(decoder_start_token_id=1)  # where it is padding, its vector gets no gradient there
    theirs.save_pretrained(tmp_path)
    pairs = {
        "encoder.embedding.token.weight": "model.shared.weight",
        "encoder.blocks.0.self_attention.to_key.weight": "model.encoder.layers.0.self_attn.k_proj.weight",
        "decoder.blocks.2.cross_attention.to_value.weight": "model.decoder.layers.2.encoder_attn.v_proj.weight",
        "decoder.blocks.1.norm_2.weight": "model.decoder.layers.1.encoder_attn_layer_norm.weight",
    }
    check_seq2seq_gradients(read_network(tmp_path), theirs, pairs)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"decoder_ffn_dim": 48}, "'encoder_ffn_dim' (40) and 'decoder_ffn_dim' (48)"),
        ({"decoder_attention_heads": 2}, "'encoder_attention_heads' (4) and 'decoder_attention_heads' (2)"),
        ({"decoder_vocab_size": 40}, "'decoder_vocab_size' (40)"),
        ({"normalize_before": True}, "'normalize_before'"),
        ({"static_position_embeddings": False}, "'static_position_embeddings'"),
        ({"activation_function": "tanh"}, "'activation_function'"),
        ({"architectures": ["MarianForCausalLM"]}, "'architectures'"),
        ({"d_model": "wide"}, "'d_model'"),
    ],
    ids=str,
)
def test_what_cannot_be_held_is_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=re.escape(named)):
        MAP.read_config({**SHAPE, **wrong})


@pytest.mark.parametrize("choice", [{"positions": Learned()}, {"norm_first": True}, {"n_kv_heads": 2}], ids=str)
def test_what_marian_does_not_have_is_not_written(choice: dict[str, Any]) -> None:
    config = MAP.read_config(SHAPE)
    assert MAP.read_config(MAP.write_config(config)) == config
    with pytest.raises(InputError, match=next(iter(choice))):
        MAP.write_config(replace(config, **choice))
