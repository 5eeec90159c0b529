"""One step: accumulation, the dropout's key, clipping, the optimizer's state."""

from __future__ import annotations

import functools
import random

import numpy as np
import pytest
import torch
from tiny_runs import tiny_recipe

from glassformer.models.config import Config
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.tasks.objectives import seq2seq
from glassformer.text.pairs import PairBatches
from glassformer.training.gradients import accumulate, clip_gradients, dropout_seed
from glassformer.training.optimizers import build_optimizer, fill_optimizer, optimizer_tensors

OBJECTIVE = functools.partial(seq2seq, label_smoothing=0.1)


def network(dropout: float = 0.0) -> EncoderDecoder:
    torch.manual_seed(0)
    config = Config(
        vocab_size=20, d_model=16, n_heads=2, d_ff=32, n_encoder_layers=1, n_decoder_layers=1, dropout=dropout
    )
    return EncoderDecoder(config).train()


def pairs() -> PairBatches:
    generator = random.Random(0)
    sides = [[[generator.randint(4, 19) for _ in range(generator.randint(1, 9))] for _ in range(24)] for _ in range(2)]
    return PairBatches(*sides, tokens=1000)


def gradients(net: EncoderDecoder, parts: list[np.ndarray], step: int = 1) -> dict[str, torch.Tensor]:
    net.zero_grad()
    batches = pairs()
    accumulate(net, OBJECTIVE, [batches.batch(rows) for rows in parts], seed=1, step=step)
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def test_one_batch_or_four_micro_batches_give_equal_gradients() -> None:
    rows = np.arange(24)
    net = network()
    whole = gradients(net, [rows])
    # Unequal parts: a mean of means would be wrong by far here.
    parts = gradients(net, [rows[:1], rows[1:3], rows[3:10], rows[10:]])
    assert whole.keys() == parts.keys() and whole
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-5, atol=1e-7)


def test_the_gradient_is_that_of_the_mean_loss() -> None:
    net, batch = network(), pairs().batch(np.arange(24))
    ours = gradients(net, [np.arange(24)])
    net.zero_grad()
    OBJECTIVE(net, batch).mean.backward()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-5, atol=1e-7)


def test_dropout_depends_on_the_step_and_on_nothing_that_was_drawn_before() -> None:
    net, rows = network(dropout=0.3), np.arange(24)
    first = gradients(net, [rows[:12], rows[12:]], step=5)
    torch.rand(100)
    again = gradients(net, [rows[:12], rows[12:]], step=5)
    other = gradients(net, [rows[:12], rows[12:]], step=6)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_dropout_seeds_differ_in_every_part_of_their_key_even_in_32_bits() -> None:
    keys = [(seed, step, micro, rank) for seed in (1, 2) for step in range(50) for micro in range(4) for rank in (0, 1)]
    assert len({dropout_seed(*key) % 2**32 for key in keys}) == len(keys)


def test_clipping_scales_to_the_limit_and_reports_the_norm_before() -> None:
    net = network()
    gradients(net, [np.arange(24)])
    norm = clip_gradients(net, 0.0)
    exact = sum(float(p.grad.double().square().sum()) for p in net.parameters() if p.grad is not None) ** 0.5
    assert norm == pytest.approx(exact, rel=1e-5)
    assert clip_gradients(net, exact / 2) == pytest.approx(exact, rel=1e-5)
    assert clip_gradients(net, exact) == pytest.approx(exact / 2, rel=1e-5)


@pytest.mark.parametrize("kind", ["adam", "adamw", "muon"])
def test_an_optimizer_filled_from_tensors_goes_on_to_the_bit(kind: str) -> None:
    settings = tiny_recipe(optimizer=kind, weight_decay=0.01).training
    net, twin = network(), network()
    optimizer, other = build_optimizer(net, settings), build_optimizer(twin, settings)
    for step in (1, 2):
        gradients(net, [np.arange(24)], step)
        optimizer.step()
    twin.load_state_dict(net.state_dict())
    stored = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer, net).items()}
    fill_optimizer(other, twin, stored, "here")
    for one, its in ((net, optimizer), (twin, other)):
        gradients(one, [np.arange(24)], 3)
        its.step()
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))


def test_adam_is_the_papers_update() -> None:
    """Kingma and Ba 2015, algorithm 1, by hand on one step."""
    net = network()
    settings = tiny_recipe().training
    optimizer = build_optimizer(net, settings)
    before = {name: p.detach().double() for name, p in net.named_parameters()}
    found = gradients(net, [np.arange(24)])
    optimizer.step()
    for name, parameter in net.named_parameters():
        gradient = found[name].double()
        wanted = before[name] - settings.learning_rate * gradient / (gradient.abs() + settings.eps)
        torch.testing.assert_close(parameter.detach().double(), wanted, rtol=1e-4, atol=2e-5)


def test_weight_decay_spares_biases_and_gains() -> None:
    groups = build_optimizer(network(), tiny_recipe(weight_decay=0.1).training).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert all(p.ndim >= 2 for p in groups[0]["params"]) and all(p.ndim < 2 for p in groups[1]["params"])
