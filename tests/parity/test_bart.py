"""BART: our network against that of `transformers`, from its folders and from ours."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.oracles import exported, model_of, transformers
from parity.seq2seq import check_everything, check_logits, check_seq2seq_gradients, talkative
from safetensors.torch import load_file

from glassformer.checkpoints.huggingface import read_network
from glassformer.checkpoints.maps.bart import MAP
from glassformer.errors import InputError
from glassformer.models.config import Sinusoidal

SHAPE = {
    "vocab_size": 43,
    "d_model": 24,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 64,
    "dropout": 0.0,
}
CHOICES: dict[str, dict[str, Any]] = {
    "as published": {},
    "scaled": {"scale_embedding": True, "activation_function": "relu"},
    "own start": {"decoder_start_token_id": 0, "activation_function": "gelu_new"},
}


def bart(**choices: Any) -> Any:
    model = model_of(transformers.BartForConditionalGeneration, transformers.BartConfig(**{**SHAPE, **choices}))
    last_norm = model.model.decoder.layers[-1].final_layer_norm.weight
    return talkative(model, last_norm, words=0.2 if model.config.scale_embedding else 1.0)


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES.keys())
def test_both_ways(choices: dict[str, Any], tmp_path: Path) -> None:
    theirs = bart(**choices)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = read_network(tmp_path / "theirs")
    check_everything(ours, theirs)
    check_everything(ours, exported(ours, tmp_path / "ours", transformers.BartForConditionalGeneration))


def test_positions_begin_at_row_two(tmp_path: Path) -> None:
    theirs = bart()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = read_network(tmp_path / "theirs")
    table = theirs.model.encoder.embed_positions.weight
    assert table.shape[0] == 66 and torch.equal(ours.encoder.embedding.position, table[2:])
    exported(ours, tmp_path / "ours", transformers.BartForConditionalGeneration)
    written = load_file(tmp_path / "ours" / "model.safetensors")["model.encoder.embed_positions.weight"]
    assert torch.equal(written[2:], table[2:]) and not written[:2].any()


def test_bare_stack(tmp_path: Path) -> None:
    """Its folder has no prefix, and no bias for the words."""
    theirs = bart()
    theirs.final_logits_bias.zero_()
    theirs.model.save_pretrained(tmp_path / "theirs")
    ours = read_network(tmp_path / "theirs")
    assert not ours.config.head_bias
    check_logits(ours, theirs)
    check_logits(ours, exported(ours, tmp_path / "ours", transformers.BartForConditionalGeneration))


def test_eos_begins_and_ends_a_target() -> None:
    config = MAP.read_config(SHAPE)
    assert (config.pad_id, config.bos_id, config.eos_id) == (1, 2, 2)


def test_gradients(tmp_path: Path) -> None:
    theirs = bart()
    theirs.save_pretrained(tmp_path)
    pairs = {
        "encoder.embedding.token.weight": "model.shared.weight",
        "encoder.embedding.norm.weight": "model.encoder.layernorm_embedding.weight",
        "encoder.blocks.2.self_attention.to_output.weight": "model.encoder.layers.2.self_attn.out_proj.weight",
        "decoder.blocks.0.cross_attention.to_query.weight": "model.decoder.layers.0.encoder_attn.q_proj.weight",
    }
    check_seq2seq_gradients(read_network(tmp_path), theirs, pairs)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"decoder_ffn_dim": 48}, "'encoder_ffn_dim' (40) and 'decoder_ffn_dim' (48)"),
        ({"normalize_before": True}, "'normalize_before'"),
        ({"normalize_embedding": False}, "'normalize_embedding'"),
        ({"is_encoder_decoder": False}, "'is_encoder_decoder'"),
        ({"architectures": ["BartForSequenceClassification"]}, "'architectures'"),
    ],
    ids=str,
)
def test_what_cannot_be_held_is_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=re.escape(named)):
        MAP.read_config({**SHAPE, **wrong})


@pytest.mark.parametrize(
    "choice", [{"positions": Sinusoidal()}, {"norm_eps": 1e-6}, {"source_vocab_size": 50}, {"d_head": 8}], ids=str
)
def test_what_bart_does_not_have_is_not_written(choice: dict[str, Any]) -> None:
    config = MAP.read_config(SHAPE)
    assert MAP.read_config(MAP.write_config(config)) == config
    with pytest.raises(InputError, match=next(iter(choice))):
        MAP.write_config(replace(config, **choice))
