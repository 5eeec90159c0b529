"""The encoder keeps every contract that is not about writing, in each of its choices and under each head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import contracts
import pytest
import torch
from torch import Tensor

from glassformer.errors import InputError
from glassformer.layers.sites import planned
from glassformer.models.config import (
    Classification,
    Config,
    Head,
    Learned,
    MaskedLM,
    Relative,
    Rotary,
    Sentence,
    Spans,
    Tagging,
)
from glassformer.models.encoder import Encoder

BERT = Config(
    vocab_size=40,
    d_model=16,
    n_heads=2,
    d_ff=24,
    n_encoder_layers=2,
    n_decoder_layers=0,
    positions=Learned(),
    max_length=96,
    activation="gelu",
    scale_embedding=False,
    embedding_norm=True,
    n_segments=2,
    head_bias=True,
    head=MaskedLM(),
    init_std=0.3,
)
LABELS = ("yes", "no", "perhaps")
CHOICES = {
    "BERT": BERT,
    "pre-norm, rotary, shared keys": replace(
        BERT, positions=Rotary(100.0), n_heads=4, n_kv_heads=2, norm_first=True, norm="rms", gated=True, n_segments=0
    ),
    "relative": replace(BERT, positions=Relative(8, 6), bias=False, head_bias=False),
    "untied": replace(BERT, tie_head=False, head=None),
    "labels": replace(BERT, head=Classification(LABELS), pooler=True),
    "labels without a pooler": replace(BERT, head=Classification(LABELS)),
    "labels of the mean": replace(BERT, head=Classification(LABELS), pooler=True, pooling="mean"),
    "tags": replace(BERT, head=Tagging(LABELS)),
    "spans": replace(BERT, head=Spans()),
    "mean": replace(BERT, head=Sentence()),
    "first": replace(BERT, head=Sentence("cls", normalize=False)),
}
every_choice = pytest.mark.parametrize("config", CHOICES.values(), ids=CHOICES.keys())


def network_of(config: Config) -> Encoder:
    torch.manual_seed(0)
    return contracts.drawn(Encoder(config)).eval()


def ids_of(rows: int = 3, length: int = 7) -> Tensor:
    ids = contracts.random_ids(rows, length, BERT.vocab_size)
    ids[1, 5:] = BERT.pad_id
    return ids


@every_choice
@pytest.mark.parametrize("contract", contracts.ON_BATCH, ids=lambda contract: contract.__name__)
def test_contract(contract: Callable[..., None], config: Config) -> None:
    one_segment = replace(config, n_segments=min(config.n_segments, 1))  # a second is not in this batch
    contract(network_of(one_segment), ids_of())


@every_choice
def test_builds_on_the_meta_device(config: Config) -> None:
    contracts.check_builds_on_meta(network_of(config))


@pytest.mark.parametrize(
    ("head", "shape"),
    [
        (None, (3, 7, 40)),
        (MaskedLM(), (3, 7, 40)),
        (Classification(LABELS), (3, 3)),
        (Tagging(LABELS), (3, 7, 3)),
        (Spans(), (3, 7, 2)),
        (Sentence(), (3, 16)),
        (Sentence("cls"), (3, 16)),
    ],
    ids=str,
)
def test_shapes_of_each_head(head: Head | None, shape: tuple[int, ...]) -> None:
    network = network_of(replace(BERT, head=head))
    for mode in (True, False):
        output = network.train(mode)(ids_of())
        assert output.logits.shape == shape and torch.isfinite(output.logits).all()
        assert output.hidden.shape == (3, 7, 16)
    if isinstance(head, Sentence):
        torch.testing.assert_close(output.logits.norm(dim=-1), torch.ones(3))


@pytest.mark.parametrize("pooler", [True, False])
def test_labels_are_read_off_the_first_state_or_the_mean_of_all_real_ones(pooler: bool) -> None:
    for pooling in ("first", "mean"):
        network = network_of(replace(BERT, head=Classification(LABELS), pooler=pooler, pooling=pooling))
        output = network(ids_of())
        states = [output.hidden[0], output.hidden[1, :5], output.hidden[2]]
        text = torch.stack([state[0] if pooling == "first" else state.mean(0) for state in states])
        if network.pooler is not None:
            text = torch.tanh(text @ network.pooler.dense.weight.T + network.pooler.dense.bias)
        torch.testing.assert_close(output.logits, network.head(text))


def test_long_sequences() -> None:
    """Beyond 64 positions attention is PyTorch's fused kernel, whose mask hides padding as well."""
    network, ids = network_of(BERT), contracts.random_ids(2, 90, 40)
    ids[0, 50:] = BERT.pad_id
    contracts.check_legible_equals_fused(network, ids)
    contracts.check_padding_changes_nothing(network, ids)
    alone = network(ids[:1, :50]).logits
    torch.testing.assert_close(network(ids).logits[:1, :50], alone, **contracts.TOLERANCE)


@every_choice
def test_every_position_sees_every_other(config: Config) -> None:
    """A later token changes all earlier states, an earlier one all later ones."""
    network, ids = network_of(config), contracts.random_ids(1, 6, 40)
    before = network(ids).hidden
    for place in (0, 5):
        changed = ids.clone()
        changed[0, place] = (changed[0, place] - 3) % 36 + 4
        moved = (network(changed).hidden - before).abs().amax(-1)
        assert (moved > 1e-4).all()


def test_segments_matter() -> None:
    network, ids = network_of(BERT), contracts.random_ids(2, 6, 40)
    segments = torch.tensor([[0, 0, 0, 1, 1, 1]]).expand(2, -1)
    torch.testing.assert_close(network(ids, torch.zeros_like(ids)).logits, network(ids).logits)
    difference = (network(ids, segments).logits - network(ids).logits).abs().amax(-1)
    assert (difference > 1e-4).all()


def test_segments_have_a_site() -> None:
    """What passes there are the vectors of the segments, and one may be swapped for the other."""
    network, ids = network_of(BERT), contracts.random_ids(2, 6, 40)
    second = network.stack.embedding.segment.weight[1]
    swapped = planned(network, {"embedding.segment": lambda value: second.expand_as(value)})
    torch.testing.assert_close(swapped(ids).logits, network(ids, torch.ones_like(ids)).logits)


@every_choice
def test_where_there_is_padding_may_be_said(config: Config) -> None:
    """`real` says it for ids that look like words, and for padding ids that are words."""
    network, ids = network_of(config), ids_of()
    real = ids != config.pad_id
    disguised = network(ids.masked_fill(~real, 9), None, real).logits
    whole = network(ids).logits
    if whole.ndim == 3:
        disguised, whole = disguised[real], whole[real]
    torch.testing.assert_close(disguised, whole, **contracts.TOLERANCE)
    assert not torch.allclose(network(ids, None, torch.ones_like(real)).logits[1], network(ids).logits[1], atol=1e-4)


@every_choice
def test_the_states_alone_are_those_of_a_whole_forward(config: Config) -> None:
    """Also where padding and segments are given."""
    network, ids = network_of(config).eval(), ids_of()
    real = torch.ones_like(ids, dtype=torch.bool)
    segments = (torch.arange(ids.shape[1]) > 3).long().expand_as(ids) if config.n_segments else None
    assert torch.equal(network.hidden(ids), network(ids).hidden)
    given = network.hidden(ids, segments, real)
    assert torch.equal(given, network(ids, segments, real).hidden)
    assert not torch.allclose(given, network.hidden(ids), atol=1e-4)


def test_the_head_of_words_reads_them_place_by_place() -> None:
    network, ids = network_of(BERT), ids_of()
    places = torch.tensor([1, 8, 15])
    chosen = network.head.features(network.hidden(ids).flatten(0, 1)[places])
    logits = network(ids).logits.flatten(0, 1)[places]
    torch.testing.assert_close(network.head.words(chosen), logits, **contracts.TOLERANCE)


def test_a_mean_is_over_real_tokens() -> None:
    network, ids = network_of(replace(BERT, head=Sentence(normalize=False))), ids_of()
    output = network(ids)
    torch.testing.assert_close(output.logits[1], output.hidden[1, :5].mean(0), **contracts.TOLERANCE)
    empty = network(torch.full((1, 4), BERT.pad_id)).logits
    assert not empty.any(), "a text without a token is the zero vector, not NaN"


@pytest.mark.parametrize("layers", [{"n_decoder_layers": 1}, {"n_encoder_layers": 0}], ids=str)
def test_other_layers_are_refused(layers: dict[str, int]) -> None:
    with pytest.raises(InputError, match="encoder layers only"):
        Encoder(replace(BERT, **layers))


@pytest.mark.parametrize("kind", [Classification, Tagging])
def test_labels_must_be_there(kind: type) -> None:
    with pytest.raises(InputError, match="at least one label"):
        kind(())
