"""Several documents in a row of a decoder: each is read as if it stood alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import contracts
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from glassformer.errors import InputError
from glassformer.layers.masks import document_mask
from glassformer.models.config import Config, Learned, Relative, Rotary, Sinusoidal
from glassformer.models.decoder import Decoder

GPT = Config(
    vocab_size=40,
    d_model=16,
    n_heads=4,
    d_ff=24,
    n_encoder_layers=0,
    n_decoder_layers=2,
    positions=Learned(),
    max_length=96,
    norm_first=True,
    dropout=0.0,
    init_std=0.3,
)
POSITIONS = {
    "learned": GPT,
    "sinusoidal": replace(GPT, positions=Sinusoidal(), norm_first=False),
    "rotary": replace(GPT, positions=Rotary(100.0), n_kv_heads=2, norm="rms", gated=True, bias=False),
    "relative": replace(GPT, positions=Relative(8, 6), scale_scores=False),
}
every_kind = pytest.mark.parametrize("config", POSITIONS.values(), ids=POSITIONS.keys())
ROWS = st.lists(st.lists(st.integers(1, 24), min_size=1, max_size=4), min_size=1, max_size=3)


def network_of(config: Config) -> Decoder:
    torch.manual_seed(0)
    return contracts.drawn(Decoder(config)).eval()


def packed(rows: list[list[int]], seed: int = 0, step: int = 1) -> tuple[Tensor, Tensor, list[list[Tensor]]]:
    """Random documents of those lengths: as ids of padded rows, their numbers, and each by itself."""
    width = max(sum(lengths) for lengths in rows)
    whole = contracts.random_ids(len(rows), width, 40, seed)
    documents = torch.zeros_like(whole)
    alone: list[list[Tensor]] = []
    for row, lengths in enumerate(rows):
        ends = torch.tensor(lengths).cumsum(0)
        numbers = torch.bucketize(torch.arange(width), ends, right=True)  # padding is one more document
        documents[row] = numbers * step + row
        whole[row, ends[-1] :] = 0
        alone.append(list(whole[row, : ends[-1]].split(lengths)))
    return whole, documents, alone


@every_kind
@settings(deadline=None, max_examples=25)
@given(rows=ROWS, step=st.integers(1, 3), seed=st.integers(0, 99))
def test_packed_they_are_as_they_are_alone(config: Config, rows: list[list[int]], step: int, seed: int) -> None:
    """Rows longer than what plain products serve among them; numbers begin anywhere and may leave some out."""
    network = network_of(config)
    ids, documents, alone = packed(rows, seed, step)
    with torch.no_grad():
        logits = network.head(network.hidden(ids, documents))
        for row, texts in enumerate(alone):
            end = 0
            for text in texts:
                begin, end = end, end + len(text)
                torch.testing.assert_close(logits[row, begin:end], network(text[None]).logits[0], **contracts.TOLERANCE)


@every_kind
def test_gradients_are_those_of_all_documents_alone(config: Config) -> None:
    network = network_of(config).train()
    ids, documents, alone = packed([[3, 5, 1], [7, 2]])
    weights = torch.randn(40, generator=torch.Generator().manual_seed(3))
    network.zero_grad()
    real = ids != 0
    (network.head(network.hidden(ids, documents)) @ weights)[real].sum().backward()
    together = {name: parameter.grad for name, parameter in network.named_parameters()}
    network.zero_grad(set_to_none=True)
    for text in (text for texts in alone for text in texts):
        (network(text[None]).logits @ weights).sum().backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(together[name], parameter.grad, atol=1e-4, rtol=1e-3, msg=name)


@every_kind
def test_no_document_sees_another_and_each_sees_its_own_past(config: Config) -> None:
    network = network_of(config)
    ids, documents, _ = packed([[4, 3, 3]])
    changed = ids.clone()
    changed[0, 4] = (changed[0, 4] - 3) % 36 + 4
    moved = (network.hidden(changed, documents) - network.hidden(ids, documents)).abs().amax(-1)[0]
    assert (moved[4:7] > 1e-4).all() and not moved[:4].any() and not moved[7:].any()


@every_kind
def test_one_document_a_row_is_the_usual(config: Config) -> None:
    network, ids = network_of(config), contracts.random_ids(2, 7, 40)
    numbers = torch.tensor([[0], [5]]).expand(2, 7)
    torch.testing.assert_close(network.hidden(ids, numbers), network(ids).hidden, **contracts.TOLERANCE)
    torch.testing.assert_close(network.hidden(ids), network(ids).hidden)


@every_kind
def test_what_was_learnt_of_places_counts_from_each_documents_begin(config: Config) -> None:
    """Packing is no different from padding, so it would be wrong if places counted on: they matter here."""
    network = network_of(config)
    ids = contracts.random_ids(1, 4, 40).repeat(1, 2)
    whole, cut = network.hidden(ids), network.hidden(ids, torch.tensor([[0] * 4 + [1] * 4]))
    torch.testing.assert_close(cut[:, 4:], cut[:, :4], **contracts.TOLERANCE)
    assert not torch.allclose(whole[:, 4:], cut[:, 4:], atol=1e-2)


@every_kind
@pytest.mark.parametrize("packed_row", [False, True])
def test_a_row_of_more_positions_than_there_are_is_refused(config: Config, packed_row: bool) -> None:
    network: Any = network_of(config)
    ids = contracts.random_ids(1, 97, 40)
    with pytest.raises(InputError, match="at most 96 positions, got 97"):
        network.hidden(ids, torch.zeros_like(ids) if packed_row else None)


@given(st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5).map(sorted), min_size=1, max_size=3))
def test_the_mask_is_where_the_numbers_are_equal(documents: list[list[int]]) -> None:
    expected = [[[[a == b for b in row] for a in row]] for row in documents]
    assert document_mask(torch.tensor(documents)).tolist() == expected
