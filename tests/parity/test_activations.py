"""What passes inside: our traced sites against the hidden states and attentions of `transformers`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from parity.oracles import check_equal, rows
from parity.seq2seq import NEAR, batch_of
from parity.test_bart import bart
from parity.test_bert import bert
from parity.test_gpt2 import gpt2
from parity.test_llama import llama
from torch import Tensor

import glassformer as gf
from glassformer.checkpoints.huggingface import read_network

LAYERS = 2


def opened(theirs: Any, folder: Path) -> Any:
    """Our network with their weights; theirs stores its attention patterns from now on."""
    theirs.save_pretrained(folder)
    theirs.set_attn_implementation("eager")
    return read_network(folder)


def lists(ids: Tensor, real: Tensor) -> list[list[int]]:
    return [row[mask].tolist() for row, mask in zip(ids, real, strict=True)]


def check_pattern(ours: Tensor, theirs: Tensor, queries: Tensor, keys: Tensor) -> None:
    """Where there are tokens; ours is zero elsewhere."""
    both = (queries[:, None, :, None] & keys[:, None, None, :]).expand_as(ours)
    check_equal(ours[both], theirs[both])
    assert not ours[~both].any()


@pytest.mark.parametrize("make", [gpt2, llama], ids=["GPT-2", "Llama with shared keys"])
@torch.no_grad()
def test_decoders(make: Any, tmp_path: Path) -> None:
    theirs = make()
    ours = opened(theirs, tmp_path)
    ids, real = rows(43)
    out = theirs(ids, attention_mask=real.long(), output_hidden_states=True, output_attentions=True)
    asked = ["residual_pre[*]", "residual_post[*]", "final_norm.output", "self_attention.pattern[*]", "logits"]
    trace = gf.trace(ours, lists(ids, real), *asked)
    before, after = trace.stack("residual_pre[*]"), trace.stack("residual_post[*]")
    for layer in range(LAYERS):
        check_equal(before[layer][real], out.hidden_states[layer][real])
        check_pattern(trace.stack("self_attention.pattern[*]")[layer], out.attentions[layer], real, real)
    check_equal(after[0][real], out.hidden_states[1][real])
    check_equal(trace["final_norm.output"][real], out.hidden_states[LAYERS][real])  # theirs are after the last norm
    check_equal(trace["logits"][real], out.logits[real])


@torch.no_grad()
def test_encoders(tmp_path: Path) -> None:
    theirs = bert("BertForMaskedLM")
    ours = opened(theirs, tmp_path)
    ids, real = rows(43)
    out = theirs(ids, attention_mask=real.long(), output_hidden_states=True, output_attentions=True)
    trace = gf.trace(ours, lists(ids, real), "residual_pre[0]", "residual_post[*]", "self_attention.pattern[*]")
    check_equal(trace["residual_pre[0]"][real], out.hidden_states[0][real])
    for layer in range(LAYERS):
        check_equal(trace.stack("residual_post[*]")[layer][real], out.hidden_states[layer + 1][real])
        check_pattern(trace.stack("self_attention.pattern[*]")[layer], out.attentions[layer], real, real)


@torch.no_grad()
def test_encoder_decoders(tmp_path: Path) -> None:
    theirs = bart()
    ours = opened(theirs, tmp_path)
    source, source_real, target, target_real = batch_of(ours)
    out = theirs(
        input_ids=source,
        attention_mask=source_real.long(),
        decoder_input_ids=target,
        output_hidden_states=True,
        output_attentions=True,
    )
    patterns = ["encoder.self_attention", "decoder.self_attention", "decoder.cross_attention"]
    asked = [
        "encoder.residual_pre[0]",
        "decoder.residual_pre[0]",
        "encoder.residual_post[*]",
        "decoder.residual_post[*]",
    ]
    trace = gf.trace(
        ours, lists(source, source_real), *asked, *(f"{name}.pattern[*]" for name in patterns),
        target=lists(target, target_real),
    )  # fmt: skip
    for side, real, states in (
        ("encoder", source_real, out.encoder_hidden_states),
        ("decoder", target_real, out.decoder_hidden_states),
    ):
        check_equal(trace[f"{side}.residual_pre[0]"][real], states[0][real], NEAR)
        for layer, value in enumerate(trace.stack(f"{side}.residual_post[*]"), 1):
            check_equal(value[real], states[layer][real], NEAR)
        assert len(states) == layer + 1
    attended = (out.encoder_attentions, out.decoder_attentions, out.cross_attentions)
    sides = ((source_real, source_real), (target_real, target_real), (target_real, source_real))
    for name, expected, (queries, keys) in zip(patterns, attended, sides, strict=True):
        for ours_of, theirs_of in zip(trace.stack(f"{name}.pattern[*]"), expected, strict=True):
            check_pattern(ours_of, theirs_of, queries, keys)
