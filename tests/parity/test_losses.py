"""Our objectives against the losses that the models of `transformers` compute themselves, and their gradients."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.oracles import check_gradients, model_of, rows, transformers
from torch import Tensor

from glassformer.checkpoints.huggingface import read_network
from glassformer.tasks.objectives import IGNORE, causal_lm, classification, masked_lm, seq2seq, spans
from glassformer.text.examples import LabelledBatch, MaskedBatch, TextBatch
from glassformer.text.pairs import PairBatch
from glassformer.text.spans import SpanBatch

BERT_SHAPE = {
    "vocab_size": 43,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 16,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "id2label": {0: "bad", 1: "good", 2: "neither"},
}
BERT_PAIRS = {
    "stack.blocks.0.self_attention.to_query.weight": ("bert.encoder.layer.0.attention.self.query.weight", False),
    "stack.blocks.1.feed_forward.down.bias": ("bert.encoder.layer.1.output.dense.bias", False),
    "stack.embedding.token.weight": ("bert.embeddings.word_embeddings.weight", False),
}
HEAD_PAIRS = {
    "BertForMaskedLM": {
        "head.words.bias": ("cls.predictions.bias", False),
        "head.dense.weight": ("cls.predictions.transform.dense.weight", False),
    },
    "BertForSequenceClassification": {
        "head.labels.weight": ("classifier.weight", False),
        "pooler.dense.weight": ("bert.pooler.dense.weight", False),
    },
    "BertForQuestionAnswering": {"head.labels.weight": ("qa_outputs.weight", False)},
}


def check_bert(kind: str, folder: Path, ours: Any, theirs: dict[str, Any]) -> None:
    """`ours` is the loss of our network, `theirs` the inputs of their model, which gives one with them."""
    config = transformers.BertConfig(**BERT_SHAPE)
    if kind == "BertForQuestionAnswering":
        config.num_labels = 2
    model = model_of(getattr(transformers, kind), config)
    model.save_pretrained(folder)

    def loss(one: Any) -> Tensor:
        return model(**theirs).loss if one is model else ours(one).mean

    check_gradients(read_network(folder), model, {**BERT_PAIRS, **HEAD_PAIRS[kind]}, loss)


def test_masked_lm(tmp_path: Path) -> None:
    ids, real = rows(43)
    target = torch.randint(4, 43, ids.shape, generator=torch.Generator().manual_seed(2))
    chosen = real & (torch.arange(ids.numel()).view_as(ids) % 3 != 1)
    batch = MaskedBatch(ids, chosen.flatten().nonzero()[:, 0], target[chosen])
    assert 3 < chosen.sum() < real.sum()
    theirs = {"input_ids": ids, "attention_mask": real.long(), "labels": target.where(chosen, torch.tensor(IGNORE))}
    check_bert("BertForMaskedLM", tmp_path, partial(masked_lm, batch=batch), theirs)


def test_classification(tmp_path: Path) -> None:
    ids, real = rows(43)
    batch = LabelledBatch(ids, torch.tensor([2, 0, 1]))
    theirs = {"input_ids": ids, "attention_mask": real.long(), "labels": batch.labels}
    check_bert("BertForSequenceClassification", tmp_path, partial(classification, batch=batch), theirs)


def test_spans(tmp_path: Path) -> None:
    """Theirs may find an answer anywhere, in the question too: so may ours here."""
    ids, real = rows(43, lengths=(9, 9, 9))
    segments = (torch.arange(9) > 3).long().expand_as(ids)
    span = torch.tensor([[5, 8], [0, 0], [7, 7]])
    batch = SpanBatch(ids, segments, real, span, torch.arange(3))
    theirs = {"input_ids": ids, "token_type_ids": segments, "start_positions": span[:, 0], "end_positions": span[:, 1]}
    check_bert("BertForQuestionAnswering", tmp_path, partial(spans, batch=batch), theirs)


@pytest.mark.parametrize("tied", [True, False])
def test_causal_lm(tied: bool, tmp_path: Path) -> None:
    """Theirs shift the labels themselves."""
    shape = {"vocab_size": 43, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 64, "tie_word_embeddings": tied}
    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 1, "eos_token_id": 2}
    theirs = model_of(transformers.GPT2LMHeadModel, transformers.GPT2Config(**shape, **still))
    theirs.save_pretrained(tmp_path)
    ids, real = rows(43)
    labels = ids.where(real, torch.tensor(IGNORE))
    batch = TextBatch(ids[:, :-1], labels[:, 1:])
    pairs = {
        "stack.blocks.0.self_attention.to_output.weight": ("transformer.h.0.attn.c_proj.weight", True),
        "stack.embedding.position": ("transformer.wpe.weight", False),
        "stack.embedding.token.weight": ("transformer.wte.weight", False),
        **({} if tied else {"head.weight": ("lm_head.weight", False)}),
    }

    def loss(one: Any) -> Tensor:
        if one is theirs:
            return theirs(ids, attention_mask=real.long(), labels=labels).loss
        return causal_lm(one, batch).mean

    check_gradients(read_network(tmp_path), theirs, pairs, loss)


def test_packed_documents(tmp_path: Path) -> None:
    """Theirs have no word for documents that share a row: each is given to them alone."""
    shape = {"vocab_size": 43, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 64}
    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 1, "eos_token_id": 2}
    theirs = model_of(transformers.GPT2LMHeadModel, transformers.GPT2Config(**shape, **still))
    theirs.save_pretrained(tmp_path)
    lengths = [4, 9, 2]
    ids, _ = rows(43, lengths=(sum(lengths),))
    target = torch.cat((ids[:, 1:], ids[:, :1]), 1)
    target[:, torch.tensor(lengths).cumsum(0) - 1] = IGNORE
    documents = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))[None]
    batch = TextBatch(ids, target, documents)
    pairs = {
        "stack.blocks.1.self_attention.to_output.weight": ("transformer.h.1.attn.c_proj.weight", True),
        "stack.embedding.position": ("transformer.wpe.weight", False),
    }

    def loss(one: Any) -> Tensor:
        if one is not theirs:
            return causal_lm(one, batch).mean
        losses = [theirs(text, labels=text).loss * (text.shape[1] - 1) for text in ids.split(lengths, 1)]
        return torch.stack(losses).sum() / (sum(lengths) - len(lengths))

    check_gradients(read_network(tmp_path), theirs, pairs, loss)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_seq2seq(smoothing: float, tmp_path: Path) -> None:
    """BART has a bias for each word of its vocabulary, which it does not train. Smoothing is that of their trainer."""
    shape = {"vocab_size": 43, "d_model": 24, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 32}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40}
    config = transformers.BartConfig(**shape, **heads, dropout=0.0, pad_token_id=1)
    theirs = model_of(transformers.BartForConditionalGeneration, config)
    theirs.final_logits_bias.normal_(std=0.3)
    theirs.save_pretrained(tmp_path)
    network = read_network(tmp_path)
    (source, source_real), (words, real) = rows(43, pad_id=1), rows(43, (5, 8, 3), pad_id=1)
    target = torch.cat((torch.full((3, 1), network.config.bos_id), words), 1)
    batch = PairBatch(source, target, torch.arange(3), int(source_real.sum()), int(real.sum()), 1)
    labels = words.where(real, torch.tensor(IGNORE))
    pairs = {
        "encoder.blocks.0.feed_forward.up.weight": ("model.encoder.layers.0.fc1.weight", False),
        "decoder.blocks.0.cross_attention.to_query.weight": (
            "model.decoder.layers.0.encoder_attn.q_proj.weight",
            False,
        ),
        "encoder.embedding.token.weight": ("model.shared.weight", False),
    }
    smoother = transformers.trainer_pt_utils.LabelSmoother(epsilon=smoothing)

    def loss(one: Any) -> Tensor:
        if one is theirs:
            given = {"input_ids": source, "attention_mask": source_real.long(), "decoder_input_ids": target[:, :-1]}
            out = theirs(**given, labels=labels)
            return smoother(out, labels) if smoothing else out.loss
        return seq2seq(one, batch, smoothing).mean

    check_gradients(network, theirs, pairs, loss)
