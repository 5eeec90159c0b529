"""How our encoder-decoder is compared with one of `transformers`: logits, caches, greedy and beam search, gradients."""

from __future__ import annotations

from typing import Any

import torch
from parity.oracles import check_equal, check_gradients, rows
from torch import Tensor
from torch.nn import functional as F

from glassformer.generation.decoding import beam_search, greedy
from glassformer.models.encoder_decoder import EncoderDecoder

NEW = 24
NEAR = 3e-5
"""The largest difference of two logits: those of T5, which does not divide its scores, are about ten."""

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Sources, where they are real, targets, where they are real."""


@torch.no_grad()
def talkative(theirs: Any, last_norm: Tensor, eos: float = 0.0, words: float = 1.0) -> Any:
    """The model with weights such that what it writes depends on what it wrote, and may end: words (of that spread)
    outweigh what blocks add, no direction of the last states is favoured, and the bias of eos is raised by `eos`."""
    for name, parameter in theirs.named_parameters():
        if "shared" in name or "embed_tokens" in name:
            parameter.normal_(std=words)
        elif name.endswith("bias"):
            parameter.mul_(0.2)
        elif "norm" not in name and "layer" in name:
            parameter.mul_(0.5)
    scaled = getattr(theirs.config, "scale_decoder_outputs", False)
    last_norm.normal_(std=2.0 if scaled else 0.4 / words)
    if hasattr(theirs, "final_logits_bias"):
        theirs.final_logits_bias.normal_(std=0.3)
        theirs.final_logits_bias[0, theirs.config.eos_token_id] += eos
    return theirs


def batch_of(network: EncoderDecoder) -> Batch:
    """Sources and targets of unequal length, padded; targets begin as the config says."""
    config = network.config
    source, source_real = rows(config.source_vocab_size or config.vocab_size, (9, 4, 7), config.pad_id)
    target, target_real = rows(config.vocab_size, (6, 8, 3), config.pad_id)
    source[source_real & (source == config.pad_id)] = 5
    target[:, 0] = config.bos_id
    return source, source_real, target, target_real


def their_logits(theirs: Any, batch: Batch) -> Tensor:
    """Targets need no mask of their padding: no real position sees what comes after it."""
    source, source_real, target, _ = batch
    return theirs(input_ids=source, attention_mask=source_real.long(), decoder_input_ids=target).logits


def check_everything(ours: EncoderDecoder, theirs: Any) -> None:
    check_logits(ours, theirs)
    check_cache(ours, theirs)
    check_greedy(ours, theirs)
    check_beam(ours, theirs)


@torch.no_grad()
def check_logits(ours: EncoderDecoder, theirs: Any) -> None:
    """Whole forwards, in evaluation and in training mode."""
    batch = batch_of(ours)
    for training in (True, False):
        logits = ours.train(training)(batch[0], batch[2]).logits
        check_equal(logits[batch[3]], their_logits(theirs.train(training), batch)[batch[3]], NEAR)


@torch.no_grad()
def check_cache(ours: EncoderDecoder, theirs: Any) -> None:
    """Our steps, first for prompts of unequal length and then one id at a time, against their whole forward."""
    batch = batch_of(ours)
    source, target = batch[0], rows(ours.config.vocab_size, (8, 8, 8), ours.config.pad_id)[0]
    expected = their_logits(theirs, (source, batch[1], target, torch.ones_like(target)))
    each, lengths = torch.arange(3), torch.tensor([2, 4, 1])
    state = ours.start(source, 9)
    check_equal(ours.step(target[:, :4], lengths, state), expected[each, lengths - 1], NEAR)
    for ahead in range(4):
        place = lengths + ahead
        check_equal(ours.step(target[each, place][:, None], None, state), expected[each, place], NEAR)


def check_greedy(ours: EncoderDecoder, theirs: Any) -> None:
    """Both write the same ids, neither ends or pads; ours a batch at once."""
    source, real, _, _ = batch_of(ours)
    config = ours.config
    written = [list(found.ids) for found in greedy(ours, source, max_length=NEW, min_length=NEW)]
    for cache in (True, False):
        expected = generated(theirs, source, real, [config.pad_id, config.bos_id, config.eos_id], use_cache=cache)
        assert written == expected[:, 1:].tolist()
    assert len({token for ids in written for token in ids}) > 3, "a model that repeats one word shows little"


def check_beam(ours: EncoderDecoder, theirs: Any) -> None:
    """The best of four hypotheses by the plain sum of log-probabilities; some end by themselves."""
    source, real, _, _ = batch_of(ours)
    config = ours.config
    never = sorted({config.pad_id, config.bos_id} - {config.eos_id})
    best = [found[0] for found in beam_search(ours, source, beam=4, length_penalty=0.0, max_length=NEW, min_length=3)]
    options = {"num_beams": 4, "length_penalty": 0.0, "early_stopping": True, "min_new_tokens": 3}
    expected = generated(theirs, source, real, never, **options)
    for found, ids in zip(best, expected[:, 1:].tolist(), strict=True):
        end = ids.index(config.eos_id) + 1 if config.eos_id in ids else NEW
        assert (list(found.ids), found.finished) == (ids[:end], config.eos_id in ids)
    assert any(found.finished for found in best)


def generated(theirs: Any, source: Tensor, real: Tensor, never: list[int], **options: Any) -> Tensor:
    """What `generate` writes, without the tokens that it would force."""
    theirs.generation_config.forced_eos_token_id = None
    return theirs.generate(
        source, attention_mask=real.long(), suppress_tokens=never, do_sample=False, max_new_tokens=NEW, **options
    )


def check_seq2seq_gradients(ours: EncoderDecoder, theirs: Any, pairs: dict[str, str]) -> None:
    """`pairs`: our weight to theirs."""
    batch = batch_of(ours)
    answer = rows(ours.config.vocab_size, (8, 8, 8))[0].masked_fill(~batch[3], -100)

    def loss(model: Any) -> Tensor:
        logits = model(batch[0], batch[2]).logits if model is ours else their_logits(model, batch)
        return F.cross_entropy(logits.transpose(1, 2), answer)

    check_gradients(ours, theirs, {mine: (name, False) for mine, name in pairs.items()}, loss)
