"""The decoder keeps every contract, in each of its choices, and for sequences that the fused paths take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import contracts
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.models.config import Banded, Config, Learned, Relative, Rotary
from glassformer.models.decoder import Decoder

GPT2 = Config(
    vocab_size=40,
    d_model=16,
    n_heads=4,
    d_ff=24,
    n_encoder_layers=0,
    n_decoder_layers=2,
    positions=Learned(),
    max_length=96,
    norm_first=True,
    activation="gelu_tanh",
    scale_embedding=False,
    init_std=0.3,
)
CHOICES = {
    "GPT-2": GPT2,
    "GPT-1": replace(GPT2, norm_first=False, activation="gelu"),
    "Llama": replace(
        GPT2, positions=Rotary(100.0), n_kv_heads=2, norm="rms", gated=True, activation="silu", bias=False
    ),
    "one kind of keys": replace(GPT2, positions=Rotary(), n_kv_heads=1, d_head=6),
    "untied": replace(GPT2, tie_head=False, attention_dropout=0.2),
    "relative": replace(GPT2, positions=Relative(8, 6), norm="rms", bias=False, scale_scores=False),
    "bias for each word": replace(GPT2, head_bias=True),
    "banded": replace(GPT2, attention=Banded(4)),
    "banded in all, rotary": replace(GPT2, attention=Banded(4, every=1), positions=Rotary(100.0), n_kv_heads=2),
    "banded, relative": replace(GPT2, attention=Banded(3, every=1), positions=Relative(8, 6)),
}
every_choice = pytest.mark.parametrize("config", CHOICES.values(), ids=CHOICES.keys())


def network_of(config: Config) -> Decoder:
    torch.manual_seed(0)
    return contracts.drawn(Decoder(config))


@every_choice
@pytest.mark.parametrize(
    "contract", contracts.ON_BATCH + contracts.ON_WRITING + contracts.ON_ROWS, ids=lambda contract: contract.__name__
)
def test_contract(contract: Callable[..., None], config: Config) -> None:
    contract(network_of(config), contracts.random_ids(3, 6, config.vocab_size))


@every_choice
@pytest.mark.parametrize("contract", contracts.ON_WRITING + contracts.ON_ROWS, ids=lambda contract: contract.__name__)
def test_contract_without_our_kernel(
    contract: Callable[..., None], config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no C++ compiler, steps go through torch."""
    monkeypatch.setattr("glassformer.layers.rows.at_hand", lambda *_: False)
    contract(network_of(config), contracts.random_ids(3, 6, config.vocab_size))


@every_choice
def test_builds_on_the_meta_device(config: Config) -> None:
    contracts.check_builds_on_meta(network_of(config))


@every_choice
@settings(deadline=None, max_examples=8)
@given(widths=st.lists(st.integers(1, 40), min_size=1, max_size=6).filter(lambda widths: sum(widths) <= 90))
def test_cached_equals_uncached_in_chunks_of_any_cut(config: Config, widths: list[int]) -> None:
    """Texts longer than the stride of the cache, and chunks longer than what plain products serve, among them."""
    ids = contracts.random_ids(2, sum(widths), config.vocab_size)
    contracts.check_chunks(network_of(config), widths, ids)


@every_choice
def test_long_sequences(config: Config) -> None:
    """Beyond 64 positions attention is PyTorch's fused kernel, and the cache is read in two strides."""
    network, ids = network_of(config), contracts.random_ids(2, 90, config.vocab_size)
    contracts.check_legible_equals_fused(network, ids)
    contracts.check_chunks(network, [60, 3, 1, 1, 20, 1, 4], ids)


def test_more_positions_than_there_are_are_refused() -> None:
    network = network_of(GPT2)
    with pytest.raises(InputError, match="has 96 positions, 97 are needed"):
        network.start(1, 97)
    with pytest.raises(InputError, match="at most 96 positions, got 97"):
        network(contracts.random_ids(1, 97, 40))
    state = network.start(2, 4)
    network.step(contracts.random_ids(2, 3, 40), torch.tensor([1, 3]), state)
    with pytest.raises(InputError, match="needs 5 positions, the state was opened for 4"):
        network.step(contracts.random_ids(2, 2, 40), None, state)


def test_what_a_state_cannot_do_is_refused() -> None:
    network = network_of(GPT2)
    state, long = network.start(2, 4), network.start(1, 8)
    network.step(contracts.random_ids(1, 6, 40), None, long)
    with pytest.raises(InputError, match="6 positions does not fit into 4"):
        state.put(torch.tensor([0]), long)
    with pytest.raises(InputError, match="row 0 has 6 positions, it cannot go back to 7"):
        long.rewind(0, 7)


@pytest.mark.parametrize("layers", [{"n_encoder_layers": 1}, {"n_decoder_layers": 0}], ids=str)
def test_other_layers_are_refused(layers: dict[str, int]) -> None:
    with pytest.raises(InputError, match="decoder layers only"):
        Decoder(replace(GPT2, **layers))
