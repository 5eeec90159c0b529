"""T5 and T5 v1.1: our network against that of `transformers`, from its folders and from ours."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.oracles import exported, model_of, rows, transformers
from parity.seq2seq import check_everything, check_logits, check_seq2seq_gradients, talkative
from safetensors.torch import load_file, save_file
from torch import nn

from glassformer.checkpoints.huggingface import read_network
from glassformer.checkpoints.maps.t5 import MAP
from glassformer.errors import InputError

SHAPE = {
    "vocab_size": 43,
    "d_model": 24,
    "d_kv": 5,
    "d_ff": 40,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
    "n_positions": 64,
}
V1_1 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
CHOICES: dict[str, dict[str, Any]] = {
    "as published": {},
    "v1.1": V1_1,
    "v1.1, silu": {"feed_forward_proj": "gated-silu", "tie_word_embeddings": False},
    "heads that divide": {"d_kv": 6, "d_ff": 32, "feed_forward_proj": "gelu_new", "layer_norm_epsilon": 1e-3},
    "own start": {"decoder_start_token_id": 3, "num_decoder_layers": None},
}


def t5(**choices: Any) -> Any:
    model = model_of(transformers.T5ForConditionalGeneration, transformers.T5Config(**{**SHAPE, **choices}))
    talkative(model, model.decoder.final_layer_norm.weight)
    if not model.config.scale_decoder_outputs:
        # transformers ties when it builds, but not when it reads two matrices that differ
        model.lm_head.weight = nn.Parameter(torch.randn(43, 24) * 0.7)
        model.all_tied_weights_keys.pop("lm_head.weight")
    return ending(model)


@torch.no_grad()
def ending(model: Any) -> Any:
    """The model with eos nearer to the mean of the last states, so that texts end."""
    ids = rows(43, (8, 8, 8))[0]
    mean = model(input_ids=ids, decoder_input_ids=ids, output_hidden_states=True).decoder_hidden_states[-1].mean((0, 1))
    scale = 24**0.5 if model.config.scale_decoder_outputs else 1.0
    model.lm_head.weight[1] += 2.0 * scale * mean / (mean @ mean)
    return model


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES.keys())
def test_both_ways(choices: dict[str, Any], tmp_path: Path) -> None:
    theirs = t5(**choices)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = read_network(tmp_path / "theirs")
    tied = choices.get("tie_word_embeddings", True)
    assert (ours.config.tie_head, ours.config.scale_head) == (tied, tied)
    check_everything(ours, theirs)
    check_everything(ours, exported(ours, tmp_path / "ours", transformers.T5ForConditionalGeneration))


def rewritten(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def test_a_published_v1_1(tmp_path: Path) -> None:
    """Its config.json knows nothing of scaling: it says that the head is not tied, and that means both."""
    theirs = t5(**V1_1)
    theirs.save_pretrained(tmp_path)
    rewritten(tmp_path, scale_decoder_outputs=None, tie_word_embeddings=False)
    ours = read_network(tmp_path)
    assert not ours.config.tie_head and not ours.config.scale_head
    check_logits(ours, theirs)


def test_unscaled_and_tied(tmp_path: Path) -> None:
    """What transformers makes of a v1.1 whose folder has no head: it reads the words as the head, unscaled."""
    theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(**SHAPE, **V1_1)).eval()
    theirs.save_pretrained(tmp_path)
    ours = read_network(tmp_path)
    assert ours.config.tie_head and not ours.config.scale_head
    check_logits(ours, theirs)
    with pytest.raises(InputError, match="'scale_head' must be True"):
        MAP.write_config(ours.config)


def test_copies_and_the_bias_that_nobody_reads(tmp_path: Path) -> None:
    """Older folders keep the words three times over, and a bias of cross-attention."""
    theirs = t5()
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = theirs.shared.weight.detach().clone()
    unread = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    save_file({**tensors, unread: torch.ones(8, 4)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    check_logits(read_network(tmp_path), theirs)
    tensors["lm_head.weight"][5] += 1
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="must hold the same numbers"):
        read_network(tmp_path)


def test_gradients(tmp_path: Path) -> None:
    theirs = t5()
    theirs.save_pretrained(tmp_path)
    bias = "layer.0.SelfAttention.relative_attention_bias.weight"
    pairs = {
        "encoder.embedding.token.weight": "shared.weight",
        "encoder.relative.weight": f"encoder.block.0.{bias}",
        "decoder.relative.weight": f"decoder.block.0.{bias}",
        "decoder.blocks.1.cross_attention.to_key.weight": "decoder.block.1.layer.1.EncDecAttention.k.weight",
        "decoder.blocks.1.norm_3.weight": "decoder.block.1.layer.2.layer_norm.weight",
    }
    check_seq2seq_gradients(read_network(tmp_path), theirs, pairs)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"feed_forward_proj": "gated-tanh"}, "'feed_forward_proj'"),
        ({"is_encoder_decoder": False}, "'is_encoder_decoder'"),
        ({"architectures": ["T5EncoderModel"]}, "'architectures'"),
        ({"num_layers": 2.5}, "'num_layers'"),
    ],
    ids=str,
)
def test_what_cannot_be_held_is_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=re.escape(named)):
        MAP.read_config({**SHAPE, **wrong})


@pytest.mark.parametrize("name", ["relu", "gelu", "gelu_new", "gated-gelu", "gated-gelu_python", "gated-silu"])
def test_activations_keep_their_names(name: str) -> None:
    config = MAP.read_config({**SHAPE, "feed_forward_proj": name})
    assert MAP.write_config(config)["feed_forward_proj"] == name


@pytest.mark.parametrize("choice", [{"norm": "layer"}, {"n_kv_heads": 2}, {"head_bias": True}], ids=str)
def test_what_t5_does_not_have_is_not_written(choice: dict[str, Any]) -> None:
    config = MAP.read_config(SHAPE)
    assert MAP.read_config(MAP.write_config(config)) == config
    with pytest.raises(InputError, match=next(iter(choice))):
        MAP.write_config(replace(config, **choice))
