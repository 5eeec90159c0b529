"""GPT-2: our network against that of `transformers`, from its folders and from ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.oracles import check_decoder, check_gradients, exported, model_of, rows, transformers
from torch.nn import functional as F

from glassformer.checkpoints.huggingface import read_network
from glassformer.errors import InputError
from glassformer.models.config import Banded, Dense
from glassformer.models.decoder import Decoder
from glassformer.models.sizes import sizes

SHAPE = {"vocab_size": 43, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 64}
CHOICES: dict[str, dict[str, Any]] = {
    "usual": {},
    "untied": {"tie_word_embeddings": False},
    "narrow": {"n_inner": 20, "activation_function": "relu"},
    "one head": {"n_head": 1, "activation_function": "gelu", "layer_norm_epsilon": 1e-2},
    "scores as they are": {"scale_attn_weights": False},
}


def gpt2(**choices: Any) -> Any:
    config = transformers.GPT2Config(**{**SHAPE, "bos_token_id": 1, "eos_token_id": 2, **choices})
    return model_of(transformers.GPT2LMHeadModel, config)


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES.keys())
def test_both_ways(choices: dict[str, Any], tmp_path: Path) -> None:
    theirs = gpt2(**choices)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = read_network(tmp_path / "theirs")
    check_decoder(ours, theirs)
    check_decoder(ours, exported(ours, tmp_path / "ours", transformers.GPT2LMHeadModel))


def gpt3(attention: Any) -> Decoder:
    """GPT-3 Small (Brown et al. 2020) with fewer and narrower layers, drawn as one that is to be trained."""
    small = {"vocab_size": 43, "d_model": 24, "n_heads": 3, "d_head": None, "d_ff": 96, "n_decoder_layers": 4}
    ids = {"pad_id": 0, "bos_id": 1, "eos_id": 2}
    torch.manual_seed(0)
    return Decoder(replace(sizes["gpt3-small"], max_length=64, attention=attention, **small, **ids)).eval()


def test_a_dense_gpt3_is_a_stock_gpt2(tmp_path: Path) -> None:
    """What is trained with `attention = "dense"` runs elsewhere, whole; with bands it would be another network."""
    ours = gpt3(Dense())
    theirs = exported(ours, tmp_path / "ours", transformers.GPT2LMHeadModel)
    assert type(theirs).__name__ == "GPT2LMHeadModel" and theirs.config.n_positions == 64
    check_decoder(ours, theirs)
    banded = gpt3(Banded(8))
    banded.load_state_dict(ours.state_dict())
    ids = torch.arange(3, 35)[None]
    assert not torch.allclose(banded(ids).logits, theirs(ids).logits, atol=1e-3)
    with pytest.raises(InputError, match="stock GPT-2 cannot express locally banded attention.*2 banded layers"):
        exported(banded, tmp_path / "banded", transformers.GPT2LMHeadModel)
    assert not (tmp_path / "banded").exists()


def test_half_precision_and_shards(tmp_path: Path) -> None:
    theirs = gpt2().half()
    theirs.save_pretrained(tmp_path, max_shard_size="5KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    check_decoder(read_network(tmp_path), theirs.float())


def test_base_model(tmp_path: Path) -> None:
    """The folders that OpenAI's models come in: no prefix, and the masks among the tensors."""
    import safetensors.torch

    theirs = gpt2()
    theirs.transformer.save_pretrained(tmp_path)
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    for layer in range(2):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 64, 64)
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    check_decoder(read_network(tmp_path), theirs)


def test_gradients(tmp_path: Path) -> None:
    theirs = gpt2(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    theirs.save_pretrained(tmp_path)
    ids, real = rows(43, pad_id=2)
    target = ids[:, 1:].masked_fill(~real[:, 1:], -100)
    pairs = {
        "stack.blocks.0.self_attention.to_output.weight": ("transformer.h.0.attn.c_proj.weight", True),
        "stack.blocks.1.feed_forward.up.weight": ("transformer.h.1.mlp.c_fc.weight", True),
        "stack.embedding.position": ("transformer.wpe.weight", False),
        "stack.embedding.token.weight": ("transformer.wte.weight", False),
    }
    check_gradients(
        read_network(tmp_path),
        theirs,
        pairs,
        lambda model: F.cross_entropy(model(ids).logits[:, :-1].transpose(1, 2), target),
    )
