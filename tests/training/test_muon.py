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
