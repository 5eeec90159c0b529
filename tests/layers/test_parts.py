"""Dropout, cross-entropy, norms, positions, sites: each against its definition."""

import copy
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from glassformer.errors import InputError
from glassformer.layers import cross_entropy
from glassformer.layers.cross_entropy import linear_cross_entropy
from glassformer.layers.dropout import Dropout, dropout_generator
from glassformer.layers.feed_forward import FeedForward
from glassformer.layers.norm import LayerNorm
from glassformer.layers.positions import sinusoidal
from glassformer.layers.sites import planned, record, sites
from glassformer.models.config import Config
from glassformer.models.decoder import Decoder


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
def test_dropout_keeps_the_mean_and_the_share(p: float) -> None:
    layer, x = Dropout(p), torch.ones(400, 500)
    dropped = layer(x)
    assert (dropped == 0).float().mean().item() == pytest.approx(p, abs=0.005)
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    assert layer.eval()(x) is x


def test_dropout_belongs_to_its_generator() -> None:
    def draw(seed: int) -> torch.Tensor:
        with dropout_generator(torch.Generator().manual_seed(seed)):
            return Dropout(0.5)(torch.ones(3, 7))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(2, 50), st.sampled_from([0.0, 0.1, 0.4]), st.integers(0, 2**16))
def test_cross_entropy_equals_torch(rows: int, vocab: int, smoothing: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, 6, generator=generator).requires_grad_()
    weight = torch.randn(vocab, 6, generator=generator).requires_grad_()
    target = torch.randint(0, vocab, (rows,), generator=generator)
    logits = hidden @ weight.T
    expected = F.cross_entropy(logits, target, reduction="sum", label_smoothing=smoothing)
    loss, nll, correct = linear_cross_entropy(hidden, weight, target, smoothing)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(nll, F.cross_entropy(logits, target, reduction="sum"), rtol=1e-4, atol=1e-3)
    assert correct == (logits.argmax(-1) == target).sum()
    wanted = torch.autograd.grad(expected * 0.3, (hidden, weight))
    got = torch.autograd.grad(loss * 0.3, (hidden, weight))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_cross_entropy_in_chunks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    arguments = torch.randn(100, 8), torch.randn(30, 8), torch.randint(0, 30, (100,)), 0.1
    whole = linear_cross_entropy(*arguments)
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", 1)
    torch.testing.assert_close(linear_cross_entropy(*arguments), whole)


def test_cross_entropy_survives_certainty() -> None:
    """The target's probability underflows to zero, its loss does not become infinite."""
    loss, nll, _ = linear_cross_entropy(torch.eye(2) * 500, torch.eye(2), torch.tensor([1, 1]))
    torch.testing.assert_close(nll, torch.tensor(500.0))
    torch.testing.assert_close(loss, nll)


def test_cross_entropy_in_bfloat16() -> None:
    torch.manual_seed(0)
    hidden, weight, target = torch.randn(20, 8).bfloat16(), torch.randn(30, 8), torch.randint(0, 30, (20,))
    weight.requires_grad_()
    loss, *_ = linear_cross_entropy(hidden, weight, target)
    expected = F.cross_entropy(hidden.float() @ weight.T, target, reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0.1)
    loss.backward()
    assert weight.grad.dtype == torch.float32


@pytest.mark.parametrize("watched", [False, True])
def test_layer_norm_equals_torch(watched: bool) -> None:
    torch.manual_seed(0)
    layer, x = LayerNorm(8), torch.randn(2, 3, 8)
    expected = F.layer_norm(x, (8,), layer.weight, layer.bias)
    if watched:
        layer, values = record(layer, ["scale"])
    torch.testing.assert_close(layer(x), expected)
    if watched:
        torch.testing.assert_close(values["scale"][..., 0], (x.var(-1, correction=0) + 1e-5).rsqrt())


def test_sinusoidal_positions_are_the_papers() -> None:
    table = sinusoidal(50, 6)
    assert table.shape == (50, 6)
    torch.testing.assert_close(table[7, 0], torch.tensor(7.0).sin())
    torch.testing.assert_close(table[7, 3], (torch.tensor(7.0) / 10000 ** (2 / 6)).cos())


def test_a_plan_leaves_the_original_alone() -> None:
    layer = FeedForward(4, 8)
    x = torch.randn(2, 4)
    expected = layer(x)
    silent = planned(layer, {"hidden": torch.zeros_like})
    torch.testing.assert_close(silent(x), layer.down.bias.expand(2, 4))
    torch.testing.assert_close(layer(x), expected)
    assert silent.up.weight is layer.up.weight
    assert list(sites(copy.deepcopy(layer))) == ["pre", "hidden", "output"]


def test_plans_run_at_once_in_two_threads() -> None:
    layer, x = FeedForward(4, 8), torch.randn(2, 4)
    expected = layer(x)
    results: dict[str, bool] = {}

    def run(name: str, plan: dict) -> None:
        outputs = [planned(layer, plan)(x) for _ in range(200)]
        wanted = layer.down.bias.expand(2, 4) if plan else expected
        results[name] = all(torch.allclose(output, wanted) for output in outputs)

    threads = [
        threading.Thread(target=run, args=arguments)
        for arguments in (("plain", {}), ("edited", {"hidden": torch.zeros_like}))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {"plain": True, "edited": True}


def test_a_misspelt_site_is_refused_with_a_hint() -> None:
    with pytest.raises(InputError, match="no site 'hiden'. Did you mean 'hidden'"):
        planned(FeedForward(4, 8), {"hiden": torch.zeros_like})


def test_a_planned_copy_shares_all_modules_beside_the_way_to_what_is_planned() -> None:
    network = Decoder(Config(vocab_size=11, d_model=8, n_heads=2, d_ff=16, n_encoder_layers=0, n_decoder_layers=2))
    copied = planned(network, {"residual_mid[1]": torch.zeros_like, "self_attention.pattern[1]": torch.zeros_like})
    shared = set(map(id, network.modules()))
    own = {path for path, module in copied.named_modules() if id(module) not in shared}
    block, attention = "stack.blocks.1", "stack.blocks.1.self_attention"
    way = ["", "stack", "stack.blocks", block, attention, f"{block}.taps", f"{attention}.taps"]
    assert own == {*way, f"{block}.taps.residual_mid", f"{attention}.taps.pattern"}
    assert not any(tap.active for tap in sites(network).values())
    assert [name for name, tap in sites(copied).items() if tap.active] == [
        "self_attention.pattern[1]",
        "residual_mid[1]",
    ]
    again = planned(copied, {"residual_pre[0]": torch.ones_like})
    assert sum(tap.active for tap in sites(again).values()) == 3  # plans add up, and leave the first copy alone
    assert sum(tap.active for tap in sites(copied).values()) == 2
