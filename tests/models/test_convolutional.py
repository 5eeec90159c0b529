"""The convolutional network keeps every contract in each of its choices, and computes what its paper says."""

from collections.abc import Callable
from dataclasses import replace

import contracts
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from glassformer.errors import InputError
from glassformer.generation.decoding import greedy
from glassformer.models.convolutional import Convolutional, ConvolutionalConfig

SMALL = ConvolutionalConfig(vocab_size=40, d_model=16, n_encoder_layers=2, n_decoder_layers=2, max_length=32)
CHOICES = {
    "paper": SMALL,
    "wide": replace(SMALL, kernel=5, n_decoder_layers=3),
    "no window": replace(SMALL, kernel=1),
    "untied": replace(SMALL, tie_head=False, source_vocab_size=50, head_bias=True),
}


def network_of(config: ConvolutionalConfig) -> Convolutional:
    torch.manual_seed(0)
    network = contracts.drawn(Convolutional(config))
    with torch.no_grad():  # as large as trained ones: embeddings of N(0, 0.1²) hide what changes
        for parameter in network.parameters():
            parameter.mul_(2)
    return network


def batch() -> tuple[Tensor, Tensor]:
    source = contracts.random_ids(3, 7, SMALL.vocab_size)
    source[1, 5:] = SMALL.pad_id
    return source, contracts.random_ids(3, 6, SMALL.vocab_size, seed=1)


@pytest.mark.parametrize("config", CHOICES.values(), ids=CHOICES.keys())
@pytest.mark.parametrize("contract", contracts.ON_BATCH + contracts.ON_WRITING, ids=lambda contract: contract.__name__)
def test_contract(contract: Callable[..., None], config: ConvolutionalConfig) -> None:
    contract(network_of(config), *batch())


@pytest.mark.parametrize("config", CHOICES.values(), ids=CHOICES.keys())
def test_builds_on_the_meta_device(config: ConvolutionalConfig) -> None:
    contracts.check_builds_on_meta(network_of(config))


def convolved(weight: Tensor, bias: Tensor, kernel: int, x: Tensor) -> Tensor:
    """torch's own convolution and gate for [T, D], where `x` has been padded."""
    d_model = x.shape[1]
    filters = weight.view(2 * d_model, kernel, d_model).transpose(1, 2)
    return F.glu(F.conv1d(x.T[None], filters, bias)[0].T, -1)


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, kernel=5)], ids=["3", "5"])
def test_it_is_what_the_paper_says(config: ConvolutionalConfig) -> None:
    """A whole forward pass, written down again from sections 3.1 to 3.5, row by row."""
    network = network_of(config).eval()
    source, target = batch()
    got = network(source, target).logits
    half, k = 0.5**0.5, config.kernel
    for row, real in enumerate((7, 5, 7)):
        embedding = network.encoder.embedding
        assert embedding.position is not None and network.decoder.embedding.position is not None
        e = z = embedding.token.weight[source[row, :real]] + embedding.position[:real]
        for block in network.encoder.blocks:
            dense = block.convolution.dense
            z = (z + convolved(dense.weight, dense.bias, k, F.pad(z, (0, 0, k // 2, k // 2)))) * half
        offered = (z + e) * half
        g = x = network.decoder.embedding.token.weight[target[row]] + network.decoder.embedding.position[:6]
        for block in network.decoder.blocks:
            dense = block.convolution.dense
            h = convolved(dense.weight, dense.bias, k, F.pad(x, (0, 0, k - 1, 0)))
            d = (block.to_query(h) + g) * half
            c = (d @ z.T).softmax(-1) @ offered * real**0.5
            x = (x + (h + block.to_output(c)) * half) * half
        torch.testing.assert_close(got[row], x @ network.head.weight.T, atol=1e-4, rtol=1e-4)


def test_a_position_sees_as_far_as_layers_and_kernel_reach() -> None:
    """Encoder: ⌊k/2⌋ places a layer to each side. Decoder: k - 1 places a layer back, without the source."""
    network = network_of(replace(SMALL, n_encoder_layers=2, n_decoder_layers=2)).eval()
    source = contracts.random_ids(1, 12, SMALL.vocab_size)
    changed = source.clone()
    changed[0, 6] = (changed[0, 6] - 3) % 36 + 4
    real = source != 0
    before, after = network.encoder(source, real)[0], network.encoder(changed, real)[0]
    assert (before != after).any(-1)[0].nonzero()[:, 0].tolist() == [4, 5, 6, 7, 8]
    target = contracts.random_ids(1, 12, SMALL.vocab_size, seed=3)
    other = target.clone()
    other[0, 2] = (other[0, 2] - 3) % 36 + 4
    before, after = network.hidden(source, target), network.hidden(source, other)
    assert (before != after).any(-1)[0].nonzero()[:, 0].tolist() == [2, 3, 4, 5, 6]


def test_states_keep_their_variance() -> None:
    """Fresh weights and √½ at every sum: twelve layers later the states are about as large as the embeddings."""
    torch.manual_seed(0)
    config = replace(SMALL, d_model=128, n_encoder_layers=12, n_decoder_layers=12, dropout=0.0)
    network = Convolutional(config).eval()
    source, target = contracts.random_ids(8, 20, 40), contracts.random_ids(8, 20, 40, seed=1)
    embedded = network.decoder.embedding(target).std()
    assert 0.3 < network.hidden(source, target).std() / embedded < 3


def test_greedy_agrees_with_the_whole_forward() -> None:
    network = network_of(SMALL).eval()
    source = batch()[0]
    for row, hypothesis in enumerate(greedy(network, source, max_length=8)):
        ids = torch.tensor([[network.config.bos_id, *hypothesis.ids[:-1]]])
        logits = network(source[row : row + 1, : int((source[row] != 0).sum())], ids).logits[0]
        logits[:, [network.config.pad_id, network.config.bos_id]] = float("-inf")
        assert logits.argmax(-1).tolist() == list(hypothesis.ids)


@pytest.mark.parametrize(
    ("change", "message"), [({"kernel": 4}, "'kernel' must be odd"), ({"d_model": 0}, "'d_model'")]
)
def test_configs_that_cannot_be(change: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SMALL, **change)  # type: ignore[arg-type]


def test_too_many_positions_are_refused() -> None:
    network = network_of(SMALL)
    ids = torch.ones(1, 33, dtype=torch.long)
    for source, target in ((ids, ids[:, :3]), (ids[:, :3], ids)):
        with pytest.raises(InputError, match="at most 32 positions, got 33"):
            network(source, target)
    with pytest.raises(InputError, match="at most 32 positions, got 40"):
        network.start(ids[:, :3], 40)
