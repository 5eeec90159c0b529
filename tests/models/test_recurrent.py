"""The recurrent network keeps every contract in each of its choices, and computes what its equations say."""

from collections.abc import Callable
from dataclasses import replace

import contracts
import pytest
import torch
from torch import Tensor

from glassformer.errors import InputError
from glassformer.generation.decoding import beam_search, greedy
from glassformer.layers.low_rank import LowRank, add_low_rank
from glassformer.layers.recurrence import Recurrence, initialize_recurrence
from glassformer.models.recurrent import Recurrent, RecurrentConfig

SMALL = RecurrentConfig(vocab_size=40, d_model=16, n_encoder_layers=2, n_decoder_layers=2, max_length=32)
CHOICES = {
    "Luong": SMALL,
    "Bahdanau": replace(SMALL, attention="additive", n_encoder_layers=1, n_decoder_layers=1),
    "input feeding": replace(SMALL, input_feeding=True),
    "without attention": replace(SMALL, attention="none"),
    "plain": replace(SMALL, cell="rnn", attention="additive"),
    "untied": replace(SMALL, tie_head=False, source_vocab_size=50, head_bias=True),
}


def network_of(config: RecurrentConfig) -> Recurrent:
    torch.manual_seed(0)
    network = contracts.drawn(Recurrent(config))
    with torch.no_grad():  # fresh states are small, and hide what changes them
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2)
    return network


def batch() -> tuple[Tensor, Tensor]:
    source = contracts.random_ids(3, 7, SMALL.vocab_size)
    source[1, 5:] = SMALL.pad_id
    return source, contracts.random_ids(3, 6, SMALL.vocab_size, seed=1)


@pytest.mark.parametrize("config", CHOICES.values(), ids=CHOICES.keys())
@pytest.mark.parametrize("contract", contracts.ON_BATCH + contracts.ON_WRITING, ids=lambda contract: contract.__name__)
def test_contract(contract: Callable[..., None], config: RecurrentConfig) -> None:
    contract(network_of(config), *batch())


@pytest.mark.parametrize("config", CHOICES.values(), ids=CHOICES.keys())
def test_builds_on_the_meta_device(config: RecurrentConfig) -> None:
    contracts.check_builds_on_meta(network_of(config))


def lstm_by_hand(layer: Recurrence, direction: str, x: Tensor) -> Tensor:
    """Hochreiter & Schmidhuber's equations, one row, one position and one gate after another."""
    weights = dict(layer.network.named_parameters())
    size = layer.network.hidden_size
    w, u = weights[f"weight_ih_l0{direction}"], weights[f"weight_hh_l0{direction}"]
    b = weights[f"bias_ih_l0{direction}"] + weights[f"bias_hh_l0{direction}"]
    h, c, states = x.new_zeros(size), x.new_zeros(size), []
    for word in x:
        i, f, g, o = (
            w[k * size : (k + 1) * size] @ word + u[k * size : (k + 1) * size] @ h + b[k * size : (k + 1) * size]
            for k in range(4)
        )
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        states.append(h)
    return torch.stack(states)


def test_encoder_and_decoder_are_the_equations() -> None:
    """A whole forward pass, written down again from the papers, for rows of unequal length."""
    network = network_of(replace(SMALL, n_encoder_layers=1, n_decoder_layers=1, attention="additive")).eval()
    source, target = batch()
    got = network(source, target).logits
    encoder, decoder = network.encoder.blocks[0].recurrence, network.decoder.blocks[0].recurrence
    look = network.decoder.cross_attention
    assert look is not None and look.to_query is not None and look.to_key is not None and look.to_score is not None
    table = network.encoder.embedding.token.weight
    for row, real in enumerate((7, 5, 7)):
        x = table[source[row, :real]]
        read = torch.cat((lstm_by_hand(encoder, "", x), lstm_by_hand(encoder, "_reverse", x.flip(0)).flip(0)), -1)
        end = torch.cat((read[-1, :8], read[0, 8:]))
        begun = torch.tanh(network.decoder.bridge.weight @ end + network.decoder.bridge.bias)
        h, c = begun.chunk(2)
        for place, word in enumerate(table[target[row]]):
            gates = decoder.network.weight_ih_l0 @ word + decoder.network.weight_hh_l0 @ h
            i, f, g, o = (gates + decoder.network.bias_ih_l0 + decoder.network.bias_hh_l0).chunk(4)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            energy = [
                look.to_score.weight[0] @ torch.tanh(look.to_query.weight @ h + look.to_key.weight @ one)
                for one in read
            ]
            weight = torch.stack(energy).softmax(0)
            context = sum((w * one for w, one in zip(weight, read, strict=True)), torch.zeros(16))
            joined = network.decoder.to_found
            found = torch.tanh(joined.weight @ torch.cat((context, h)) + joined.bias)
            torch.testing.assert_close(got[row, place], table @ found, atol=1e-5, rtol=1e-4)


def test_input_feeding_reads_what_was_found() -> None:
    """The first position has nothing to read; from the second on, the input is the word beside what was found."""
    network = network_of(replace(SMALL, input_feeding=True)).eval()
    source, target = batch()
    whole = network.hidden(source, target)
    state = network.start(source, 8)
    assert not state.found.any()
    network.step(target[:, :1], None, state)
    torch.testing.assert_close(state.found, whole[:, 0])
    state.found = torch.zeros_like(state.found)
    assert not torch.allclose(network.step(target[:, 1:2], None, state), network.head(whole[:, 1]), atol=1e-4)


def test_plain_recurrence_is_elmans() -> None:
    torch.manual_seed(0)
    layer = Recurrence("rnn", 4, 6)
    x = torch.randn(2, 5, 4)
    states, end = layer(x)
    weights = dict(layer.network.named_parameters())
    h = torch.zeros(2, 6)
    for place in range(5):
        h = torch.tanh(
            x[:, place] @ weights["weight_ih_l0"].T
            + weights["bias_ih_l0"]
            + h @ weights["weight_hh_l0"].T
            + weights["bias_hh_l0"]
        )
        torch.testing.assert_close(states[:, place], h)
    torch.testing.assert_close(end.state, h)
    assert end.cell is None


def test_fresh_weights() -> None:
    """Forget gates are open, recurrent matrices orthogonal."""
    layer = Recurrence("lstm", 12, 8, both_ways=True)
    initialize_recurrence(layer)
    network = layer.network
    for ending in ("l0", "l0_reverse"):
        bias = getattr(network, f"bias_ih_{ending}")
        assert bias.tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8
        for gate in getattr(network, f"weight_hh_{ending}").split(4):
            torch.testing.assert_close(gate @ gate.T, torch.eye(4))


def test_beam_search_and_greedy_agree_with_the_whole_forward() -> None:
    network = network_of(SMALL).eval()
    source = batch()[0]
    found = greedy(network, source, max_length=8)
    for row, hypothesis in enumerate(found):
        ids = [network.config.bos_id]
        for token, logprob in zip(hypothesis.ids, hypothesis.logprobs, strict=True):
            real = source[row : row + 1, : int((source[row] != 0).sum())]
            logits = network(real, torch.tensor([ids])).logits[0, -1]
            torch.testing.assert_close(logits.log_softmax(-1)[token].item(), logprob, atol=1e-4, rtol=0)
            ids.append(token)
    wide = beam_search(network, source, beam=4, n_best=2, max_length=8)
    assert [len(each) for each in wide] == [2, 2, 2]
    assert all(each[0].score >= each[1].score for each in wide)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_model": 15}, "'d_model' must be even"),
        ({"n_decoder_layers": 0}, "'n_decoder_layers' must be at least 1"),
        ({"dropout": 1.0}, r"'dropout' must be in \[0, 1\)"),
    ],
)
def test_configs_that_cannot_be(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SMALL, **change)  # type: ignore[arg-type]


def test_too_many_positions_are_refused() -> None:
    network = network_of(SMALL)
    with pytest.raises(InputError, match="at most 32 positions, got 33"):
        network(torch.ones(1, 33, dtype=torch.long), torch.ones(1, 3, dtype=torch.long))


def test_low_rank_layers_are_for_transformers() -> None:
    with pytest.raises(InputError, match="the blocks of a Transformer; this network has none"):
        add_low_rank(network_of(SMALL), LowRank(2, 4.0))
