"""BERT under each of its heads: our network against that of `transformers`, from its folders and from ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from parity.oracles import check_equal, check_gradients, exported, model_of, rows, transformers
from torch import Tensor
from torch.nn import functional as F

from glassformer.checkpoints.huggingface import read_network

SHAPE = {
    "vocab_size": 43,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 16,
}
HEADS = (
    "BertModel",
    "BertForMaskedLM",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertForQuestionAnswering",
)


def bert(kind: str, **choices: Any) -> Any:
    config = transformers.BertConfig(**{**SHAPE, "id2label": {0: "bad", 1: "good", 2: "neither"}, **choices})
    if kind == "BertForQuestionAnswering":
        config.num_labels = 2
    return model_of(getattr(transformers, kind), config)


def answers(model: Any, ids: Tensor, real: Tensor, segments: Tensor) -> Tensor:
    """What a model of theirs says, as ours would give it."""
    out = model(ids, attention_mask=real.long(), token_type_ids=segments)
    if hasattr(out, "start_logits"):
        return torch.stack((out.start_logits, out.end_logits), -1)
    if hasattr(out, "last_hidden_state"):
        weight = real[..., None].float()
        return (out.last_hidden_state * weight).sum(1) / weight.sum(1)
    return out.prediction_logits if hasattr(out, "prediction_logits") else out.logits


@torch.no_grad()
def check_same(ours: Any, theirs: Any) -> None:
    ids, real = rows(43)
    segments = (torch.arange(ids.shape[1]) > 3).long().expand_as(ids)
    mine, other = ours(ids, segments).logits, answers(theirs, ids, real, segments)
    per_token = mine.dim() == 3
    check_equal(mine[real] if per_token else mine, other[real] if per_token else other)
    stack = getattr(theirs, "bert", theirs)
    states = stack(ids, attention_mask=real.long(), token_type_ids=segments).last_hidden_state
    check_equal(ours(ids, segments).hidden[real], states[real])
    if ours.pooler is not None:
        check_equal(ours.pooler(ours(ids, segments).hidden[:, 0]), stack.pooler(states))


@pytest.mark.parametrize("kind", HEADS)
def test_both_ways(kind: str, tmp_path: Path) -> None:
    theirs = bert(kind)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = read_network(tmp_path / "theirs")
    check_same(ours, theirs)
    check_same(ours, exported(ours, tmp_path / "ours", getattr(transformers, kind)))


CHOICES: dict[str, dict[str, Any]] = {
    "one head": {"num_attention_heads": 1, "layer_norm_eps": 1e-2},
    "tanh": {"hidden_act": "gelu_new", "type_vocab_size": 3},
    "relu": {"hidden_act": "relu", "pad_token_id": 3},
}


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES.keys())
def test_choices(choices: dict[str, Any], tmp_path: Path) -> None:
    theirs = bert("BertForMaskedLM", **choices)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="5KB")
    ours = read_network(tmp_path / "theirs")
    ids, real = rows(43, pad_id=ours.config.pad_id)
    with torch.no_grad():
        check_equal(ours(ids).logits[real], theirs(ids, attention_mask=real.long()).logits[real])
    check_same(read_network(tmp_path / "theirs"), theirs) if ours.config.pad_id == 0 else None
    exported(ours, tmp_path / "ours", transformers.BertForMaskedLM)


def test_pretraining(tmp_path: Path) -> None:
    """With the head for the next sentence, which is left aside, and the names of parts as they once were."""
    theirs = bert("BertForPreTraining")
    theirs.save_pretrained(tmp_path)
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for new, name in old.items():
        tensors = {key.replace(new, name): tensor for key, tensor in tensors.items()}
    tensors["bert.embeddings.position_ids"] = torch.arange(16)[None]
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    check_same(read_network(tmp_path), theirs)


def test_without_a_pooler(tmp_path: Path) -> None:
    theirs = model_of(lambda config: transformers.BertModel(config, add_pooling_layer=False), bert("BertModel").config)
    theirs.save_pretrained(tmp_path)
    ours = read_network(tmp_path)
    assert ours.pooler is None
    check_same(ours, theirs)


def test_gradients(tmp_path: Path) -> None:
    theirs = bert("BertForMaskedLM", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    theirs.save_pretrained(tmp_path)
    ids, real = rows(43)
    target = ids.masked_fill(~real, -100)
    pairs = {
        "stack.blocks.0.self_attention.to_query.weight": ("bert.encoder.layer.0.attention.self.query.weight", False),
        "stack.embedding.segment.weight": ("bert.embeddings.token_type_embeddings.weight", False),
        "stack.embedding.token.weight": ("bert.embeddings.word_embeddings.weight", False),
        "head.norm.weight": ("cls.predictions.transform.LayerNorm.weight", False),
    }

    def loss(model: Any) -> Tensor:
        logits = model(ids, attention_mask=real.long()).logits if model is theirs else model(ids).logits
        return F.cross_entropy(logits.transpose(1, 2), target)

    check_gradients(read_network(tmp_path), theirs, pairs, loss)
