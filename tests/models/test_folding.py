"""Folding changes where norms' numbers are written, and not what a network says."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import contracts
import pytest
import torch
from torch import Tensor

from glassformer.errors import InputError
from glassformer.layers.int8 import int8
from glassformer.layers.low_rank import LowRank, add_low_rank, merge_low_rank
from glassformer.layers.norm import LayerNorm, RMSNorm
from glassformer.layers.quantized import quantized
from glassformer.layers.sites import record, sites
from glassformer.models.config import (
    Classification,
    Config,
    Learned,
    RecurrentConfig,
    Relative,
    Rotary,
    Sentence,
    Sinusoidal,
    Spans,
)
from glassformer.models.families import network_class
from glassformer.models.folding import folded
from glassformer.models.recurrent import Recurrent

GPT2 = Config(
    vocab_size=40,
    d_model=32,
    n_heads=4,
    d_ff=24,
    n_encoder_layers=0,
    n_decoder_layers=2,
    positions=Learned(),
    max_length=32,
    norm_first=True,
    activation="gelu_tanh",
    dropout=0.0,
    scale_embedding=False,
    init_std=0.3,
)
LLAMA = replace(GPT2, positions=Rotary(), n_kv_heads=2, norm="rms", gated=True, activation="silu", bias=False)
PAIR = replace(GPT2, n_encoder_layers=2, positions=Sinusoidal(), scale_embedding=True)
READER = replace(GPT2, n_encoder_layers=2, n_decoder_layers=0, n_segments=2)
T5 = replace(LLAMA, n_encoder_layers=1, positions=Relative(8, 6), scale_scores=False, scale_head=True, gated=False)
WRITERS = {
    "GPT-2": GPT2,
    "GPT-2 without biases": replace(GPT2, bias=False),
    "GPT-2, untied, a bias for each word": replace(GPT2, tie_head=False, head_bias=True),
    "normed embeddings": replace(GPT2, embedding_norm=True),
    "Llama": LLAMA,
    "gated with LayerNorm": replace(LLAMA, norm="layer"),
    "encoder and decoder": PAIR,
    "learned positions": replace(PAIR, positions=Learned(), source_vocab_size=44),
    "T5": T5,
    "T5 with LayerNorm": replace(T5, norm="layer"),
    "masked words": READER,
}
LABELS = {
    "labels": replace(READER, head=Classification(("good", "bad"))),
    "labels from the pooler": replace(READER, head=Classification(("good", "bad")), pooler=True),
    "spans beside a pooler": replace(READER, head=Spans(), pooler=True),
    "sentences": replace(READER, head=Sentence(), norm="rms"),
}
every_writer = pytest.mark.parametrize("config", WRITERS.values(), ids=WRITERS.keys())


def network_of(config: Any) -> Any:
    torch.manual_seed(0)
    return contracts.drawn(network_class(config)(config)).double().eval()


def batch_of(config: Any) -> tuple[Tensor, ...]:
    ids = contracts.random_ids(3, 7, 40)
    both = config.n_encoder_layers and config.n_decoder_layers
    return (ids, contracts.random_ids(3, 6, 40, seed=1)) if both else (ids,)


@every_writer
def test_logits_are_the_same_less_a_constant(config: Config) -> None:
    network = network_of(config)
    before, kept = network(*batch_of(config)).logits, copy.deepcopy(network.state_dict())
    duplicate = folded(network)
    after = duplicate(*batch_of(config)).logits
    torch.testing.assert_close(after, before - before.mean(-1, keepdim=True), atol=1e-9, rtol=0)
    assert before.mean(-1).abs().max() > 1e-3  # so that the line above asks for something
    assert type(duplicate) is type(network) and list(sites(duplicate)) == list(sites(network))
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, kept[name], atol=0, rtol=0)
    assert network.config == config


@every_writer
def test_norms_are_plain_and_the_head_is_free(config: Config) -> None:
    duplicate = folded(network_of(config))
    for name, module in duplicate.named_modules():
        if isinstance(module, LayerNorm | RMSNorm) and "embedding" not in name:
            assert (module.weight == 1).all(), name
            assert not isinstance(module, LayerNorm) or (module.bias == 0).all(), name
    stack = next(module for module in (getattr(duplicate, name, None) for name in ("stack", "decoder")) if module)
    words = getattr(duplicate.head, "words", duplicate.head)
    assert words.weight is not stack.embedding.token.weight
    assert words.weight.mean(0).abs().max() < 1e-9


@every_writer
def test_the_config_is_that_of_the_copy(config: Config) -> None:
    """A network made from it takes the copy's tensors, all of them, and says the same."""
    duplicate = folded(network_of(config))
    again: Any = network_class(duplicate.config)(duplicate.config).double().eval()
    again.load_state_dict(duplicate.state_dict())
    batch = batch_of(config)
    torch.testing.assert_close(again(*batch).logits, duplicate(*batch).logits, atol=1e-9, rtol=0)


@pytest.mark.parametrize("config", LABELS.values(), ids=LABELS.keys())
def test_other_heads_say_exactly_the_same(config: Config) -> None:
    network, (ids,) = network_of(config), batch_of(config)
    torch.testing.assert_close(folded(network)(ids).logits, network(ids).logits, atol=1e-9, rtol=0)


def test_single_precision() -> None:
    network, batch = network_of(GPT2).float(), batch_of(GPT2)
    before = network(*batch).logits.softmax(-1)
    torch.testing.assert_close(folded(network)(*batch).logits.softmax(-1), before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [GPT2, LLAMA, PAIR], ids=["GPT-2", "Llama", "encoder and decoder"])
def test_what_heads_do_is_the_same(config: Config) -> None:
    """Patterns are, and what is written is, less its mean over D where writing is centred."""
    network, batch = network_of(config), batch_of(config)
    names = [name for name in sites(network) if name.endswith((".pattern[1]", ".output[1]")) and "norm" not in name]
    assert len(names) in (3, 8)
    for centre in (False, True):
        found = []
        for one in (network, folded(network, centre=centre)):
            watched, values = record(one, names)
            watched(*batch)
            found.append(values)
        for name in names:
            wanted = found[0][name]
            if centre and config.norm == "layer" and "output" in name:
                wanted = wanted - wanted.mean(-1, keepdim=True)
            torch.testing.assert_close(found[1][name], wanted, atol=1e-9, rtol=0)


def test_centred_streams_have_mean_zero() -> None:
    network, batch = network_of(GPT2), batch_of(GPT2)
    for centre, most in ((True, 1e-9), (False, 10.0)):
        watched, values = record(folded(network, centre=centre), ["residual_post[0]", "residual_post[1]"])
        watched(*batch)
        means = torch.stack(list(values.values())).mean(-1).abs()
        assert means.max() < most and (centre or means.min() > 1e-6)


def test_decoding_goes_on_alike() -> None:
    """The copy has the same seam for generation."""
    duplicate, ids = folded(network_of(GPT2).float()), contracts.random_ids(2, 5, 40)
    logits = duplicate.step(ids, None, duplicate.start(2, 8))
    torch.testing.assert_close(logits, duplicate(ids).logits[:, -1], **contracts.TOLERANCE)


def test_a_copy_can_be_folded_again() -> None:
    once, batch = folded(network_of(PAIR)), batch_of(PAIR)
    torch.testing.assert_close(folded(once)(*batch).logits, once(*batch).logits, atol=1e-9, rtol=0)


def test_what_cannot_be_folded_is_refused() -> None:
    with pytest.raises(InputError, match="post-norm network .* is the residual stream itself"):
        folded(network_of(replace(READER, norm_first=False)))
    with pytest.raises(InputError, match="only norms of Transformers are folded; this network is a Recurrent"):
        folded(Recurrent(RecurrentConfig(vocab_size=20, d_model=8)))
    for few in (int8(network_of(GPT2).float()), quantized(network_of(LLAMA).float(), 8)):
        with pytest.raises(InputError, match="4 or 8 bits: load it plainly"):
            folded(few)
    adapted = network_of(GPT2)
    add_low_rank(adapted, LowRank(2, 4.0))
    with pytest.raises(InputError, match="low-rank ones: merge them first"):
        folded(adapted)
    merge_low_rank(adapted)
    assert folded(adapted).config.tie_head is False
