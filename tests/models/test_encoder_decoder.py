"""The encoder-decoder keeps every contract, in each of its choices; its published sizes have the published counts."""

from collections.abc import Callable
from dataclasses import replace
from unittest import mock

import contracts
import pytest
import torch

from glassformer.errors import InputError
from glassformer.layers.kernels import library
from glassformer.layers.sites import record
from glassformer.models.config import Config, Learned, Relative, Rotary, Sinusoidal
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.models.packing import packs
from glassformer.models.sizes import sizes

SMALL = Config(vocab_size=40, d_model=16, n_heads=2, d_ff=24, n_encoder_layers=2, n_decoder_layers=2, max_length=32)
CHOICES = {
    "paper": SMALL,
    "pre-norm": replace(SMALL, norm_first=True),
    "learned positions": replace(SMALL, positions=Learned()),
    "untied": replace(SMALL, tie_head=False, source_vocab_size=50),
    "wide heads": replace(SMALL, d_head=5, n_heads=3, activation="gelu"),
    "Marian": replace(SMALL, positions=Sinusoidal(halves=True), activation="silu", head_bias=True),
    "BART": replace(
        SMALL, positions=Learned(), embedding_norm=True, scale_embedding=False, activation="gelu", head_bias=True
    ),
    "T5": replace(
        SMALL,
        positions=Relative(8, 6),
        norm="rms",
        norm_first=True,
        bias=False,
        scale_embedding=False,
        scale_scores=False,
        scale_head=True,
        d_head=5,
    ),
    "T5 v1.1": replace(
        SMALL,
        positions=Relative(8, 6),
        norm="rms",
        norm_first=True,
        bias=False,
        scale_embedding=False,
        scale_scores=False,
        gated=True,
        activation="gelu_tanh",
        tie_head=False,
        n_heads=4,
        n_kv_heads=2,
    ),
    "shared keys and rotations": replace(SMALL, positions=Rotary(100.0), n_heads=4, n_kv_heads=2, norm_first=True),
    "all dropouts": replace(SMALL, attention_dropout=0.2, activation_dropout=0.2),
}


def network_of(config: Config) -> EncoderDecoder:
    torch.manual_seed(0)
    return contracts.drawn(EncoderDecoder(config))


@pytest.mark.parametrize("config", CHOICES.values(), ids=CHOICES.keys())
@pytest.mark.parametrize("contract", contracts.ON_BATCH + contracts.ON_WRITING, ids=lambda contract: contract.__name__)
def test_contract(contract: Callable[..., None], config: Config) -> None:
    source = contracts.random_ids(3, 7, SMALL.vocab_size)
    source[1, 5:] = config.pad_id
    contract(network_of(config), source, contracts.random_ids(3, 6, SMALL.vocab_size, seed=1))


@pytest.mark.parametrize("config", CHOICES.values(), ids=CHOICES.keys())
def test_training_leaves_padding_out(config: Config) -> None:
    """The states that count and all gradients are those of the padded batch; where they cannot be had so, it stays."""
    network = network_of(replace(config, dropout=0.0)).train()
    source, target = contracts.random_ids(4, 9, SMALL.vocab_size), contracts.random_ids(4, 8, SMALL.vocab_size, seed=1)
    source[1, 5:], source[3, 1:] = config.pad_id, config.pad_id
    real = torch.arange(8) < torch.tensor([[3], [8], [1], [6]])
    able = (
        config.attention_dropout == 0 and not isinstance(config.positions, Relative) and library("batches") is not None
    )
    assert packs(network) == able and not packs(network.eval()) and not packs(record(network.train(), ["logits"])[0])

    def states() -> list[torch.Tensor]:
        hidden = network.hidden_at(real, source, target)
        slopes = torch.autograd.grad(hidden.square().sum(), list(network.parameters()), allow_unused=True)
        return [hidden, *(slope for slope in slopes if slope is not None)]

    if config.attention_dropout:
        return
    with mock.patch("glassformer.models.encoder_decoder.packs", return_value=False):
        padded = states()
    for got, wanted in zip(states(), padded, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def test_too_many_positions_are_refused_in_training_too() -> None:
    ids = contracts.random_ids(2, SMALL.max_length + 1, SMALL.vocab_size)
    with pytest.raises(InputError, match=f"at most {SMALL.max_length} positions, got {SMALL.max_length + 1}"):
        network_of(SMALL).train().hidden_at(ids != SMALL.pad_id, ids[:, :3], ids)


@pytest.mark.parametrize("config", CHOICES.values(), ids=CHOICES.keys())
def test_builds_on_the_meta_device(config: Config) -> None:
    contracts.check_builds_on_meta(network_of(config))


def count(config: Config) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in EncoderDecoder(config).parameters())


def closed_form(config: Config) -> int:
    """Embedding, then a block: 4 (8 with cross-attention) projections, the feed-forward, 2 (3) norms."""
    d, f = config.d_model, config.d_ff
    attention, feed, norm = 4 * d * (d + 1), d * (f + 1) + f * (d + 1), 2 * d
    encoder = config.n_encoder_layers * (attention + feed + 2 * norm)
    decoder = config.n_decoder_layers * (2 * attention + feed + 3 * norm)
    return config.vocab_size * d + encoder + decoder


@pytest.mark.parametrize(
    ("name", "millions"), [("transformer-base", 63), ("transformer-big", 214), ("transformer-tiny", 2.6)]
)
def test_published_sizes(name: str, millions: float) -> None:
    """Table 3 prints 65M and 213M; the exact counts at 37,000 pieces are the closed form's."""
    assert count(sizes[name]) == closed_form(sizes[name])
    assert count(sizes[name]) / 1e6 == pytest.approx(millions, rel=0.01)


def test_three_way_tying_is_one_matrix() -> None:
    network = network_of(SMALL)
    assert network.head.weight is network.encoder.embedding.token.weight
    assert network.head.weight is network.decoder.embedding.token.weight


def test_longer_than_the_positions_is_refused() -> None:
    ids = contracts.random_ids(1, SMALL.max_length + 1, SMALL.vocab_size)
    with pytest.raises(InputError, match="at most 32 positions, got 33"):
        network_of(SMALL)(ids, ids[:, :3])


def test_decoding_beyond_the_capacity_is_refused() -> None:
    network = network_of(SMALL).eval()
    ids = contracts.random_ids(1, 3, SMALL.vocab_size)
    with pytest.raises(InputError, match="opened for 2"):
        network.step(ids, None, network.start(ids, 2))


@pytest.mark.parametrize(
    "wrong", [{"d_model": 0}, {"dropout": 1.0}, {"n_heads": 3}, {"n_encoder_layers": -1}], ids=lambda wrong: str(wrong)
)
def test_impossible_config_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        replace(SMALL, **wrong)


@pytest.mark.parametrize("wrong", [{"buckets": 3}, {"max_distance": 16}], ids=str)
def test_impossible_buckets_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="buckets"):
        Relative(**wrong)
