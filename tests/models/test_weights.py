"""Matrices by layer and head: what they mean, that they are the network's own, and what a network does not have."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, cast

import contracts
import pytest
import torch
from torch import Tensor

from glassformer.errors import InputError
from glassformer.layers import kernels
from glassformer.layers.int8 import int8
from glassformer.layers.low_rank import LowRank, add_low_rank
from glassformer.layers.quantized import dequantize, quantize, quantized
from glassformer.layers.sites import record
from glassformer.models.config import Classification, Config, ConvolutionalConfig, Learned, RecurrentConfig, Rotary
from glassformer.models.convolutional import Convolutional
from glassformer.models.families import network_class
from glassformer.models.recurrent import Recurrent
from glassformer.models.weights import Weights
from glassformer.tasks.model import Model

GPT = Config(
    vocab_size=40,
    d_model=32,
    n_heads=4,
    d_ff=64,
    n_encoder_layers=0,
    n_decoder_layers=3,
    positions=Learned(),
    max_length=16,
    norm_first=True,
    dropout=0.0,
    init_std=0.3,
)
LLAMA = replace(GPT, positions=Rotary(), n_kv_heads=2, norm="rms", gated=True, activation="silu", bias=False)
BERT = replace(GPT, n_encoder_layers=2, n_decoder_layers=0, norm_first=False, head_bias=True)
PAPER = replace(GPT, n_encoder_layers=2, n_decoder_layers=3, norm_first=False)
PLACES = {
    "GPT": (GPT, "self_attention", ""),
    "Llama": (LLAMA, "self_attention", ""),
    "BERT": (BERT, "self_attention", ""),
    "encoder": (PAPER, "encoder.self_attention", "encoder."),
    "decoder": (PAPER, "decoder.self_attention", "decoder."),
}
every_place = pytest.mark.parametrize(("config", "place", "prefix"), PLACES.values(), ids=PLACES.keys())


def network_of(config: Any) -> Any:
    torch.manual_seed(0)
    return contracts.drawn(network_class(config)(config)).eval()


def values_of(network: Any, *names: str) -> dict[str, Tensor]:
    ids = contracts.random_ids(2, 5, 40)
    watched, values = record(network, names)
    both = network.config.n_encoder_layers and network.config.n_decoder_layers
    watched(*((ids, contracts.random_ids(2, 6, 40, seed=1)) if both else (ids,)))
    return values


def bias_or_zero(weights: Weights, name: str, *index: int) -> Tensor | float:
    try:
        return getattr(weights, name)[index if len(index) > 1 else index[0]]
    except InputError:
        return 0.0


@every_place
def test_rows_times_matrices_give_what_heads_do(config: Config, place: str, prefix: str) -> None:
    """Against the sites of a forward: values, what heads write, and the whole output."""
    network = network_of(config)
    weights = Weights(network).of(place)
    read = f"{prefix}norm_1.output[1]" if config.norm_first else f"{prefix}residual_pre[1]"
    sites = {name: f"{place}.{name}[1]" for name in ("query", "value", "mixed", "head_output", "output")}
    values = values_of(network, read, *sites.values())
    x, found = values[read], {name: values[site] for name, site in sites.items()}
    shared = config.n_heads // config.kv_heads
    for head in range(config.n_heads):
        value = x @ weights.W_V[1, head] + bias_or_zero(weights, "b_V", 1, head)
        torch.testing.assert_close(value, found["value"][:, head // shared], **contracts.TOLERANCE)
        written = found["mixed"][:, head] @ weights.W_O[1, head]
        torch.testing.assert_close(written, found["head_output"][:, head], **contracts.TOLERANCE)
        if not isinstance(config.positions, Rotary):
            query = x @ weights.W_Q[1, head] + bias_or_zero(weights, "b_Q", 1, head)
            torch.testing.assert_close(query, found["query"][:, head], **contracts.TOLERANCE)
    heads = sum(found["mixed"][:, head] @ weights.W_O[1, head] for head in range(config.n_heads))
    output = heads + bias_or_zero(weights, "b_O", 1)
    torch.testing.assert_close(output, found["output"], **contracts.TOLERANCE)


@pytest.mark.parametrize("config", [GPT, LLAMA, BERT], ids=["GPT", "Llama", "BERT"])
def test_feed_forwards_and_the_whole(config: Config) -> None:
    network = network_of(config)
    weights = Weights(network)
    read = "norm_2.output[1]" if config.norm_first else "residual_mid[1]"
    names = ("feed_forward.pre[1]", "feed_forward.hidden[1]", "feed_forward.output[1]", "embedding.token")
    values = values_of(network, read, *names)
    x, (pre, hidden, output, token) = values[read], (values[name] for name in names)
    first, bias = ("W_gate", "b_gate") if config.gated else ("W_in", "b_in")
    torch.testing.assert_close(x @ getattr(weights, first)[1] + bias_or_zero(weights, bias, 1), pre)
    torch.testing.assert_close(hidden @ weights.W_out[1] + bias_or_zero(weights, "b_out", 1), output)
    ids = contracts.random_ids(2, 5, 40)
    torch.testing.assert_close(weights.W_E[ids] * config.d_model**0.5, token)
    if config is not BERT:
        result = network(ids)
        torch.testing.assert_close(result.hidden @ weights.W_U, result.logits, **contracts.TOLERANCE)
    else:
        assert weights.b_U.data_ptr() == network.head.words.bias.data_ptr()


def test_cross_attention_reads_the_encoder() -> None:
    network = network_of(PAPER)
    weights = Weights(network).of("decoder.cross_attention")
    values = values_of(network, "encoder.residual_post[1]", "decoder.cross_attention.key[2]")
    key = values["encoder.residual_post[1]"] @ weights.W_K[2, 3] + weights.b_K[2, 3]
    torch.testing.assert_close(key, values["decoder.cross_attention.key[2]"][:, 3])


@pytest.mark.parametrize("config", [GPT, LLAMA], ids=["GPT", "Llama"])
def test_views_are_the_network_itself(config: Config) -> None:
    network = network_of(config)
    weights, attention = Weights(network), network.stack.blocks[1].self_attention
    shared = config.n_heads // config.kv_heads
    for name, layer, head in (("W_Q", "to_query", 2), ("W_K", "to_key", 2 // shared), ("W_V", "to_value", 2 // shared)):
        view, whole = getattr(weights, name)[1, 2], getattr(attention, layer).weight
        assert view.shape == (32, 8) and not view.requires_grad
        assert view.data_ptr() == whole[8 * head].data_ptr()
    assert weights.W_O[1, 2].data_ptr() == attention.to_output.weight[:, 16:].data_ptr()
    assert weights.W_in[1].data_ptr() == network.stack.blocks[1].feed_forward.up.weight.data_ptr()
    assert weights.W_E.data_ptr() == weights.W_U.data_ptr() == network.head.weight.data_ptr()
    ids = contracts.random_ids(1, 5, 40)
    before, kept = network(ids).logits, copy.deepcopy(network)
    weights.W_O[-2, -2].zero_()
    kept.stack.blocks[1].self_attention.to_output.weight.data[:, 16:24] = 0
    assert not torch.equal(network(ids).logits, before)
    torch.testing.assert_close(network(ids).logits, kept(ids).logits, atol=0, rtol=0)


def test_slices_are_stacked_copies() -> None:
    weights = Weights(network_of(LLAMA))
    assert weights.W_Q[:, 0].shape == (3, 32, 8)
    assert weights.W_K[1:, 1:4].shape == (2, 3, 32, 8)
    assert weights.W_O[0].shape == (4, 8, 32) and weights.OV[:, ::2].shape == (3, 2, 32, 32)
    assert weights.W_in[:2].shape == (2, 32, 64)
    torch.testing.assert_close(weights.W_K[1:, 1:4][1, 2], weights.W_K[2, 3])
    torch.testing.assert_close(weights.W_K[0, 0], weights.W_K[0, 1])
    assert not torch.equal(weights.W_K[0, 1], weights.W_K[0, 2])
    part = weights.W_Q[0:1, 0]
    part.zero_()
    assert weights.W_Q[0, 0].abs().max() > 0


@pytest.mark.parametrize("config", [GPT, LLAMA], ids=["GPT", "Llama"])
def test_products(config: Config) -> None:
    weights = Weights(network_of(config))
    for layer, head in ((0, 0), (2, 3)):
        ov = weights.W_V[layer, head] @ weights.W_O[layer, head]
        qk = weights.W_Q[layer, head] @ weights.W_K[layer, head].T
        torch.testing.assert_close(weights.OV[layer, head], ov)
        torch.testing.assert_close(weights.QK[layer, head], qk)


def test_scores_are_those_of_qk() -> None:
    """Without biases, x @ QK @ y / √d is the score; with rotary positions, at distance 0."""
    network = network_of(LLAMA)
    values = values_of(network, "norm_1.output[1]", "self_attention.scores[1]")
    x, scores = values["norm_1.output[1]"], values["self_attention.scores[1]"]
    wanted = torch.einsum("btd,hde,bte->bht", x, Weights(network).QK[1], x) / 8**0.5
    torch.testing.assert_close(scores.diagonal(dim1=-2, dim2=-1), wanted, **contracts.TOLERANCE)


def test_low_rank_layers_give_the_sum() -> None:
    network = network_of(GPT)
    add_low_rank(network, LowRank(2, 4.0))
    layer = network.stack.blocks[0].self_attention.to_query
    with torch.no_grad():
        layer.lora_b.normal_()
    wanted = (layer.weight + 2.0 * layer.lora_b @ layer.lora_a)[8:16].T
    torch.testing.assert_close(Weights(network).W_Q[0, 1], wanted)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("compiled", [True, False])
def test_quantised_layers_give_what_they_stand_for(bits: Any, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if compiled and kernels.library("generation") is None:
        pytest.skip("there is no C++ compiler")
    if not compiled:
        monkeypatch.setattr("glassformer.layers.quantized.library", lambda *_: None)
    network = network_of(LLAMA)
    few, block = Weights(quantized(network, bits)), network.stack.blocks[2]
    for name, layer in (("W_Q", "to_query"), ("W_K", "to_key"), ("W_V", "to_value")):
        whole = dequantize(quantize(getattr(block.self_attention, layer).weight, bits))
        shared = 1 if name == "W_Q" else 2
        wanted = whole[8 * (3 // shared) : 8 * (3 // shared) + 8].T
        torch.testing.assert_close(getattr(few, name)[2, 3], wanted, atol=1e-6, rtol=1e-5)
    for name, layer in (("W_gate", "gate"), ("W_in", "up"), ("W_out", "down")):
        wanted = dequantize(quantize(getattr(block.feed_forward, layer).weight, bits)).T
        torch.testing.assert_close(getattr(few, name)[2], wanted, atol=1e-6, rtol=1e-5)
    assert few.OV[0, 0].shape == (32, 32) and few.W_U.shape == (32, 40)


def test_int8_layers_give_what_they_stand_for() -> None:
    """With biases, which are cut apart as the matrices are."""
    network = network_of(PAPER)
    try:
        few = Weights(int8(network)).of("decoder.self_attention")
    except InputError as error:
        pytest.skip(str(error))
    plain = Weights(network).of("decoder.self_attention")
    for name in ("W_Q", "W_K", "W_V", "W_O"):
        difference = getattr(few, name)[1, 2] - getattr(plain, name)[1, 2]
        assert 0 < difference.abs().max() < 0.01
    torch.testing.assert_close(few.b_V[1, 2], plain.b_V[1, 2])
    down = Weights(int8(network)).of("decoder").W_out[0] - Weights(network).of("decoder").W_out[0]
    assert down.abs().max() < 0.01


def test_an_encoder_decoder_asks_for_the_place() -> None:
    weights = Weights(network_of(PAPER))
    places = ("encoder", "encoder.self_attention", "decoder", "decoder.self_attention", "decoder.cross_attention")
    assert weights.places == places
    assert weights.of("encoder").W_Q[:, 0].shape == (2, 32, 8)
    assert weights.of("decoder").W_in[:].shape == (3, 32, 64)
    assert weights.W_E.shape == (40, 32) and weights.W_U.shape == (32, 40)
    assert weights.of("decoder").W_pos.shape == (16, 32)
    with pytest.raises(InputError, match=r"'W_Q' in several places.*of\('decoder.cross_attention'\)\.W_Q"):
        _ = weights.W_Q
    with pytest.raises(InputError, match=r"'W_K' in several places.*one of decoder.self_attention, decoder.cross"):
        _ = weights.of("decoder").W_K
    with pytest.raises(InputError, match=r"'W_in' in several .*of\('decoder'\)\.W_in, with one of encoder, decoder"):
        _ = weights.W_in
    with pytest.raises(InputError, match=r"no place 'decoder.cross_atention'. Did you mean 'decoder.cross_attention'"):
        weights.of("decoder.cross_atention")
    with pytest.raises(InputError, match="'W_E' in several places"):
        _ = Weights(network_of(replace(PAPER, source_vocab_size=50))).W_E


def test_what_there_is_not() -> None:
    weights = Weights(network_of(LLAMA))
    with pytest.raises(InputError, match="no weights 'W_q'. Did you mean 'W_Q'"):
        _ = weights.W_q
    with pytest.raises(InputError, match="there is no layer 3: the layers are 0 to 2"):
        weights.W_Q[3, 0]
    with pytest.raises(InputError, match="there is no head -5: the heads are 0 to 3"):
        weights.W_K[0, -5]
    with pytest.raises(InputError, match="a head must be a whole number or a slice, got 'all'"):
        weights.W_Q[0, "all"]  # type: ignore[index]
    with pytest.raises(InputError, match="the layers 5:9 are none of the 3"):
        weights.W_in[5:9]
    for name in ("b_Q", "b_O", "b_in", "b_U"):
        with pytest.raises(InputError, match=f"no '{name}': this layer has no bias"):
            getattr(weights, name)
    with pytest.raises(InputError, match="no 'W_pos': its positions enter in the attention"):
        _ = weights.W_pos
    with pytest.raises(InputError, match="no 'W_gate': its feed-forwards are not gated"):
        _ = Weights(network_of(GPT)).W_gate
    with pytest.raises(InputError, match="no 'W_U': its head is a LabelHead"):
        _ = Weights(network_of(replace(BERT, head=Classification(("a", "b"))))).W_U


def test_predecessors_have_no_heads() -> None:
    recurrent = Recurrent(RecurrentConfig(vocab_size=20, d_model=8))
    with pytest.raises(InputError, match="a Recurrent with .*decoder.cross_attention.to_query.* by these names"):
        Weights(recurrent)
    with pytest.raises(InputError, match="a Convolutional with "):
        Weights(Convolutional(ConvolutionalConfig(vocab_size=20, d_model=8)))


def test_it_can_be_shown_and_copied() -> None:
    weights = Weights(network_of(PAPER)).of("decoder.cross_attention")
    assert repr(weights) == "Weights(2+3 layers of 32, 4 heads of 8; decoder.cross_attention)"
    assert repr(weights.W_Q) == "W_Q[layer, head] of 3 layers with 4 heads"
    assert repr(Weights(network_of(GPT)).W_in) == "W_in[layer] of 3 layers"
    assert "W_Q" in dir(weights)
    assert copy.deepcopy(weights).W_Q[0, 0].shape == (32, 8)


def test_a_model_gives_its_weights_and_a_folded_model() -> None:
    network = network_of(LLAMA)
    model = Model(network, cast(Any, None), cast(Any, None), "generation", (3,))
    assert model.weights.W_Q[0, 1].data_ptr() == network.stack.blocks[0].self_attention.to_query.weight[8].data_ptr()
    plain = model.folded()
    assert (plain.task, plain.ends) == ("generation", (3,)) and plain.network is not network
    ids = contracts.random_ids(2, 5, 40)
    probabilities = network(ids).logits.softmax(-1)
    torch.testing.assert_close(plain.network(ids).logits.softmax(-1), probabilities, **contracts.TOLERANCE)
