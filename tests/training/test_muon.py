"""Muon: what it does to a matrix, and which parameters it takes."""

import pytest
import torch
from tiny_runs import tiny_recipe
from torch import nn

import glassformer as gf
from glassformer.training.muon import Muon, orthogonal
from glassformer.training.optimizers import build_optimizer, set_learning_rate


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 20), (2, 20, 6)])
def test_orthogonal_keeps_the_singular_vectors_and_evens_the_values(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    values = u.mT @ orthogonal(matrices) @ vh.mT
    diagonal = values.diagonal(dim1=-2, dim2=-1)
    assert ((diagonal > 0.6) & (diagonal < 1.25)).all()
    torch.testing.assert_close(values, torch.diag_embed(diagonal), atol=1e-4, rtol=0)


def test_a_step_is_that_of_torch_but_for_its_bfloat16() -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(12, 30)) for _ in range(2))
    settings = {"lr": 0.1, "weight_decay": 0.1}
    other_groups = [{"params": [nn.Parameter(torch.ones(2))]}]
    optimizer = Muon([{"params": [ours]}], other_groups, betas=(0.9, 0.95), eps=1e-8, **settings)
    other = torch.optim.Muon([theirs], momentum=0.95, adjust_lr_fn="match_rms_adamw", **settings)
    for _ in range(3):
        ours.grad = torch.randn(12, 30)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        other.step()
    moved = (ours - 1).norm()
    assert moved > 0.5
    assert (ours - theirs).norm() < 0.02 * moved


def test_it_takes_inner_matrices_and_adamw_the_rest() -> None:
    network = gf.EncoderDecoder(gf.Config(vocab_size=30, d_model=8, n_heads=2, d_ff=16, tie_head=False))
    optimizer = build_optimizer(network, tiny_recipe(optimizer="muon", weight_decay=0.1).training)
    inner, matrices, vectors = (set(group["params"]) for group in optimizer.param_groups)
    assert network.encoder.blocks[0].feed_forward.up.weight in inner
    assert {network.head.weight, network.decoder.embedding.token.weight} <= matrices
    assert all(parameter.ndim == 1 for parameter in vectors)
    assert len(inner) + len(matrices) + len(vectors) == len(list(network.parameters()))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.1, 0.0]


def test_one_learning_rate_moves_all() -> None:
    network = gf.EncoderDecoder(gf.Config(vocab_size=30, d_model=8, n_heads=2, d_ff=16))
    optimizer = build_optimizer(network, tiny_recipe(optimizer="muon").training)
    before = [parameter.clone() for parameter in network.parameters()]
    for rate, moves in ((0.0, False), (1e-2, True)):
        set_learning_rate(optimizer, rate)
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        changed = [not torch.equal(a, b) for a, b in zip(network.parameters(), before, strict=True)]
        assert all(changed) if moves else not any(changed)


def given(parameters: list[nn.Parameter], seed: int) -> list[torch.Tensor]:
    """Random gradients, and what they are."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def test_steps_are_the_formulas_with_each_groups_own_rate_and_decay() -> None:
    """The update of the docstring written out, for matrices of several shapes, wide and tall."""
    torch.manual_seed(0)
    shapes = [(6, 20), (6, 20), (20, 6), (8, 8)]
    matrices = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    expected, momenta = [matrix.detach().clone() for matrix in matrices], [torch.zeros(shape) for shape in shapes]
    rates, decays = [0.1, 0.1, 0.1, 0.02], [0.3, 0.3, 0.3, 0.0]
    groups = [
        {"params": matrices[:3], "weight_decay": 0.3},
        {"params": matrices[3:], "weight_decay": 0.0, "lr": 0.02, "momentum": 0.5},
    ]
    optimizer = Muon(groups, [], lr=0.1, betas=(0.9, 0.95), eps=1e-8)
    for step in range(3):
        for place, gradient in enumerate(given(matrices, step)):
            beta = 0.95 if place < 3 else 0.5
            momenta[place] = beta * momenta[place] + (1 - beta) * gradient
            direction = orthogonal(((1 - beta) * gradient + beta * momenta[place])[None])[0]
            size = 0.2 * max(shapes[place]) ** 0.5
            expected[place] -= rates[place] * (size * direction + decays[place] * expected[place])
        optimizer.step()
    for matrix, wanted, momentum in zip(matrices, expected, momenta, strict=True):
        torch.testing.assert_close(matrix.detach(), wanted, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(optimizer.state[matrix]["momentum"], momentum)


def test_a_step_has_the_size_of_adamws() -> None:
    """What Liu et al. choose the factor for: about 0.2 for each number, whatever the matrix's shape and gradient."""
    for shape in ((64, 64), (16, 256), (256, 16)):
        matrix = nn.Parameter(torch.zeros(shape))
        optimizer = Muon([{"params": [matrix]}], [], lr=1.0, betas=(0.9, 0.95), eps=1e-8)
        given([matrix], 0)[0].mul_(1e-3)
        optimizer.step()
        assert 0.14 < matrix.detach().square().mean().sqrt() < 0.24


def test_the_rest_is_adamws_to_the_bit() -> None:
    ours, theirs = ([nn.Parameter(torch.ones(5, 4)), nn.Parameter(torch.ones(3))] for _ in range(2))
    choices: dict = {"betas": (0.8, 0.9), "eps": 1e-3}
    groups = [[{"params": [p], "weight_decay": 0.1 * p.ndim, "lr": 0.03 * p.ndim} for p in ps] for ps in (ours, theirs)]
    optimizer = Muon([{"params": [nn.Parameter(torch.ones(2, 2))]}], groups[0], lr=0.1, **choices)
    other = torch.optim.AdamW(groups[1], lr=0.1, **choices)
    for step in range(3):
        given(ours, step)
        given(theirs, step)
        optimizer.step()
        other.step()
    assert all(torch.equal(mine, its) for mine, its in zip(ours, theirs, strict=True))


def test_what_has_no_gradient_stays_and_a_closure_is_called() -> None:
    moved, kept, bias = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4))
    optimizer = Muon(
        [{"params": [moved, kept]}], [{"params": [bias]}], lr=0.1, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.5
    )

    def closure() -> float:
        optimizer.zero_grad()
        loss = (moved @ bias).square().sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 64.0
    assert not torch.equal(moved, torch.ones(4, 4)) and not torch.equal(bias, torch.ones(4))
    assert torch.equal(kept, torch.ones(4, 4)) and kept not in optimizer.state


def test_orthogonal_knows_no_neighbours_and_no_size() -> None:
    """A matrix comes out the same alone or beside others, many times as large, and the other way round."""
    torch.manual_seed(0)
    matrices = torch.randn(4, 6, 10)
    together = orthogonal(matrices)
    alone = torch.cat([orthogonal(matrix[None]) for matrix in matrices])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(orthogonal(matrices * 1e4), together, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(orthogonal(matrices.mT), together.mT, rtol=1e-4, atol=1e-5)
    assert not orthogonal(torch.zeros(1, 3, 3)).any()


@pytest.mark.parametrize("given_as", [torch.float32, torch.bfloat16])
def test_orthogonal_in_bfloat16_is_near_to_that_in_float32(given_as: torch.dtype) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, 12, 20).to(given_as)
    exact, rounded = orthogonal(matrices.float()), orthogonal(matrices, dtype=torch.bfloat16)
    assert rounded.dtype == given_as
    difference = (rounded.float() - exact).norm() / exact.norm()
    assert 1e-4 < difference < 0.03
