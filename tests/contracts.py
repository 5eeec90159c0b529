"""What every family must satisfy. A family's tests call these with its own small network.

Each function checks one promise and raises AssertionError where it is broken; networks are built with random weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from glassformer.layers.sites import planned, record, sites

TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}


def random_ids(rows: int, length: int, vocab_size: int, seed: int = 0) -> Tensor:
    """Ids without specials, [rows, length]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, vocab_size, (rows, length), generator=generator)


def pad(ids: Tensor, extra: int, pad_id: int = 0) -> Tensor:
    """Append `extra` columns of padding."""
    return torch.cat([ids, ids.new_full((len(ids), extra), pad_id)], dim=1)


def check_shapes(network: nn.Module, source: Tensor, target: Tensor) -> None:
    for mode in (True, False):
        logits = network.train(mode)(source, target).logits
        assert logits.shape == (*target.shape, network.config.vocab_size)
        assert torch.isfinite(logits).all()


def check_causality(network: nn.Module, source: Tensor, target: Tensor) -> None:
    """A later target token changes no earlier logits, and does change its own."""
    network.eval()
    before = network(source, target).logits
    changed = target.clone()
    changed[:, 3] = (changed[:, 3] - 3) % (network.config.vocab_size - 4) + 4
    after = network(source, changed).logits
    torch.testing.assert_close(after[:, :3], before[:, :3], **TOLERANCE)
    assert not torch.allclose(after[:, 3], before[:, 3], **TOLERANCE)


def check_padding_changes_nothing(network: nn.Module, source: Tensor, target: Tensor) -> None:
    network.eval()
    plain = network(source, target).logits
    padded = network(pad(source, 3), pad(target, 2)).logits[:, : target.shape[1]]
    torch.testing.assert_close(padded, plain, **TOLERANCE)


def check_batching_changes_nothing(network: nn.Module, source: Tensor, target: Tensor) -> None:
    network.eval()
    together = network(source, target).logits
    alone = torch.cat([network(source[i : i + 1], target[i : i + 1]).logits for i in range(len(source))])
    torch.testing.assert_close(together, alone, **TOLERANCE)


def check_cached_equals_uncached(network: nn.Module, source: Tensor, target: Tensor) -> None:
    """One id at a time, and in chunks of any cut, gives the logits of the whole forward."""
    network.eval()
    whole = network(source, target).logits
    for width in (1, 2, 3):
        state = network.start(source, target.shape[1])
        for start in range(0, target.shape[1], width):
            ids = target[:, start : start + width]
            logits = network.step(ids, None, state)
            torch.testing.assert_close(logits, whole[:, start + ids.shape[1] - 1], **TOLERANCE)


def check_rows_of_their_own_length(network: nn.Module, source: Tensor, target: Tensor) -> None:
    """Prompts of unequal length, then single steps, in one batch."""
    network.eval()
    rows = torch.arange(len(source))
    whole = network(source, target).logits
    lengths = rows % 3 + 1
    state = network.start(source, target.shape[1] + 3)
    prompt = target[:, :3].masked_fill(torch.arange(3) >= lengths[:, None], 0)
    torch.testing.assert_close(network.step(prompt, lengths, state), whole[rows, lengths - 1], **TOLERANCE)
    for ahead in range(2):
        logits = network.step(target[rows, lengths + ahead][:, None], None, state)
        torch.testing.assert_close(logits, whole[rows, lengths + ahead], **TOLERANCE)


def check_select(network: nn.Module, source: Tensor, target: Tensor) -> None:
    """Rows are repeated, permuted and dropped, unevenly too, as a beam does; each goes on as if alone."""
    network.eval()
    whole = network(source, target).logits
    state = network.start(source, target.shape[1])
    network.step(target[:, :1], None, state)
    origin = torch.arange(len(source))
    for place, rows in enumerate(([0, 0, 1, 1, 2, 2], [1, 0, 5, 4], [3, 0, 0], [2, 0, 1]), 1):
        index = torch.tensor(rows)
        state.select(index)
        origin = origin[index]
        logits = network.step(target[origin, place][:, None], None, state)
        torch.testing.assert_close(logits, whole[origin, place], **TOLERANCE)


@contextmanager
def empty_is_nan() -> Iterator[None]:
    """Memory that nobody has written yet holds NaN, so that reading it is seen."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@empty_is_nan()
def check_hypotheses(network: nn.Module, source: Tensor, target: Tensor) -> None:
    """Rows of one source that say different things and change places keep their own pasts."""
    network.eval()
    vocab_size, n = network.config.vocab_size, len(source)
    state = network.start(source, 12)
    network.step(target[:, :1], None, state)
    said, origin = target[:, :1], torch.arange(n)
    beam = torch.arange(n)[:, None]
    moves = [
        beam.expand(n, 3).flatten(),
        (beam * 3 + torch.tensor([2, 0, 2])).flatten(),
        (beam * 3 + torch.tensor([1, 2, 0])).flatten(),
        (beam[1:] * 3 + torch.tensor([0, 0, 1])).flatten(),
        torch.tensor([2, 0, 0, 4]),
        torch.tensor([3, 1]),
    ]
    for step, rows in enumerate(moves):
        state.select(rows)
        width = 2 if step == 2 else 1  # two ids at once, in the middle
        new = random_ids(len(rows), width, vocab_size, seed=step)
        said, origin = torch.cat([said[rows], new], 1), origin[rows]
        logits = network.step(new, None, state)
        torch.testing.assert_close(logits, network(source[origin], said).logits[:, -1], **TOLERANCE)


def check_legible_equals_fused(network: nn.Module, source: Tensor, target: Tensor) -> None:
    """A plan on every site that hands the value on changes nothing, padding included."""
    network.eval()
    source = pad(source, 2)
    watched = planned(network, {name: lambda value: value for name in sites(network)})
    expected = network(source, target).logits
    torch.testing.assert_close(watched(source, target).logits, expected, **TOLERANCE)


def check_every_site_fires(network: nn.Module, source: Tensor, target: Tensor) -> None:
    names = list(sites(network))
    assert names
    watched, values = record(network.eval(), names)
    watched(source, target)
    assert set(values) == set(names)
    assert not any(tap.active for tap in sites(network).values()), "a tap was left set on the original"


def check_edit_acts(network: nn.Module, source: Tensor, target: Tensor) -> None:
    """Zeroing any site changes the logits: no tap stands beside the way of the data."""
    network.eval()
    expected = network(source, target).logits
    for name in sites(network):
        edited = planned(network, {name: torch.zeros_like})(source, target).logits
        assert not torch.allclose(edited, expected, atol=1e-6), name


def check_builds_on_meta(network: nn.Module) -> None:
    with torch.device("meta"):
        twin = type(network)(network.config)
    assert all(parameter.is_meta for parameter in twin.parameters())
    assert {n: p.shape for n, p in twin.named_parameters()} == {n: p.shape for n, p in network.named_parameters()}


def check_gradients_reach_all(network: nn.Module, source: Tensor, target: Tensor) -> None:
    network.train()
    network.zero_grad()
    network(source, target).logits.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        if not name.endswith("to_key.bias"):  # softmax ignores what is equal for all keys
            assert parameter.grad.abs().sum() > 0, name


ON_BATCH = (
    check_shapes,
    check_causality,
    check_padding_changes_nothing,
    check_batching_changes_nothing,
    check_cached_equals_uncached,
    check_rows_of_their_own_length,
    check_select,
    check_hypotheses,
    check_legible_equals_fused,
    check_every_site_fires,
    check_edit_acts,
    check_gradients_reach_all,
)
"""Every contract that takes a network and a batch of sources and targets."""
