"""What every family must satisfy. A family's tests call these with its own small network.

Each function checks one promise and raises AssertionError where it is broken; networks are built with random weights.
A batch is what the network takes: (source, target), or (ids,). The last of it is what is written.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from glassformer.layers.sites import planned, record, sites

Network = TypeVar("Network", bound=nn.Module)

TOLERANCE = {"atol": 3e-5, "rtol": 1e-4}


def random_ids(rows: int, length: int, vocab_size: int, seed: int = 0) -> Tensor:
    """Ids without specials, [rows, length]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, vocab_size, (rows, length), generator=generator)


def pad(ids: Tensor, extra: int, pad_id: int = 0) -> Tensor:
    """Append `extra` columns of padding."""
    return torch.cat([ids, ids.new_full((len(ids), extra), pad_id)], dim=1)


def drawn(network: Network) -> Network:
    """The network with all its biases, norms and distances drawn: fresh ones are zeros and ones, and hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1 or name.endswith("relative.weight"):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network


def start(network: Any, batch: tuple[Tensor, ...], capacity: int) -> Any:
    """A decoding state for the rows of a batch, nothing written yet."""
    return network.start(batch[0] if len(batch) == 2 else len(batch[0]), capacity)


def check_shapes(network: nn.Module, *batch: Tensor) -> None:
    for mode in (True, False):
        output = network.train(mode)(*batch)
        assert output.logits.shape == (*batch[-1].shape, network.config.vocab_size)
        assert output.hidden.shape == (*batch[-1].shape, network.config.d_model)
        assert torch.isfinite(output.logits).all()


def check_causality(network: nn.Module, *batch: Tensor) -> None:
    """A later target token changes no earlier logits, and does change its own."""
    network.eval()
    before = network(*batch).logits
    changed = batch[-1].clone()
    changed[:, 3] = (changed[:, 3] - 3) % (network.config.vocab_size - 4) + 4
    after = network(*batch[:-1], changed).logits
    torch.testing.assert_close(after[:, :3], before[:, :3], **TOLERANCE)
    assert not torch.allclose(after[:, 3], before[:, 3], **TOLERANCE)


def check_padding_changes_nothing(network: nn.Module, *batch: Tensor) -> None:
    network.eval()
    plain = network(*batch).logits
    padded = network(*(pad(ids, 2 + place, network.config.pad_id) for place, ids in enumerate(batch))).logits
    if plain.ndim == 3:
        padded = padded[:, : plain.shape[1]]
    torch.testing.assert_close(padded, plain, **TOLERANCE)


def check_batching_changes_nothing(network: nn.Module, *batch: Tensor) -> None:
    network.eval()
    together = network(*batch).logits
    alone = torch.cat([network(*(ids[i : i + 1] for ids in batch)).logits for i in range(len(together))])
    torch.testing.assert_close(together, alone, **TOLERANCE)


def check_cached_equals_uncached(network: nn.Module, *batch: Tensor) -> None:
    """One id at a time, and in chunks of one width, gives the logits of the whole forward."""
    length = batch[-1].shape[1]
    for width in (1, 2, 3):
        check_chunks(network, [min(width, length - begin) for begin in range(0, length, width)], *batch)


def check_chunks(network: nn.Module, widths: list[int], *batch: Tensor) -> None:
    """The same for chunks of those widths."""
    network.eval()
    target, end = batch[-1], 0
    whole = network(*batch).logits
    state = start(network, batch, target.shape[1])
    for width in widths:
        logits, end = network.step(target[:, end : end + width], None, state), end + width
        torch.testing.assert_close(logits, whole[:, end - 1], **TOLERANCE)


def check_rows_of_their_own_length(network: nn.Module, *batch: Tensor) -> None:
    """Prompts of unequal length, single steps, another uneven chunk, and steps again, in one batch."""
    network.eval()
    target = batch[-1]
    rows = torch.arange(len(target))
    whole = network(*batch).logits
    held = rows % 3 + 1
    state = start(network, batch, target.shape[1] + 3)
    prompt = target[:, :3].masked_fill(torch.arange(3) >= held[:, None], 0)
    torch.testing.assert_close(network.step(prompt, held, state), whole[rows, held - 1], **TOLERANCE)
    for widths in (torch.ones_like(held), 1 + (rows == 0).long(), None):
        index = held[:, None] + torch.arange(1 if widths is None else int(widths.max()))
        logits = network.step(target.gather(1, index), widths, state)
        held = held + (1 if widths is None else widths)
        torch.testing.assert_close(logits, whole[rows, held - 1], **TOLERANCE)


def check_select(network: nn.Module, *batch: Tensor) -> None:
    """Rows are repeated, permuted and dropped, unevenly too, as a beam does; each goes on as if alone."""
    network.eval()
    target = batch[-1]
    whole = network(*batch).logits
    state = start(network, batch, target.shape[1])
    network.step(target[:, :1], None, state)
    origin = torch.arange(len(target))
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
def check_hypotheses(network: nn.Module, *batch: Tensor) -> None:
    """Rows of one source that say different things and change places keep their own pasts."""
    network.eval()
    target = batch[-1]
    vocab_size, n = network.config.vocab_size, len(target)
    state = start(network, batch, 12)
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
        torch.testing.assert_close(
            logits, network(*(ids[origin] for ids in batch[:-1]), said).logits[:, -1], **TOLERANCE
        )


def check_legible_equals_fused(network: nn.Module, *batch: Tensor) -> None:
    """A plan on every site that hands the value on changes nothing, padding included."""
    network.eval()
    batch = (pad(batch[0], 2, network.config.pad_id), *batch[1:])
    watched = planned(network, {name: torch.clone for name in sites(network)})
    torch.testing.assert_close(watched(*batch).logits, network(*batch).logits, **TOLERANCE)


def check_every_site_fires(network: nn.Module, *batch: Tensor) -> None:
    names = list(sites(network))
    assert names
    watched, values = record(network.eval(), names)
    watched(*batch)
    assert set(values) == set(names)
    assert not any(tap.active for tap in sites(network).values()), "a tap was left set on the original"


def check_sites_fire_in_steps(network: nn.Module, *batch: Tensor) -> None:
    """What is written from a cache passes the same sites, and the logits stay the same."""
    network.eval()
    names = [name for name in sites(network) if not name.startswith("encoder.")]
    watched, values = record(network, names)
    state, plain = start(watched, batch, 4), start(network, batch, 4)
    once = {name for name in values if "cross_attention" in name}  # keys and values of the source, when it is read
    for ids in (batch[-1][:, :2], batch[-1][:, 2:3]):
        values.clear()
        torch.testing.assert_close(watched.step(ids, None, state), network.step(ids, None, plain), **TOLERANCE)
        assert set(values) | once == set(names)


def check_edit_acts(network: nn.Module, *batch: Tensor) -> None:
    """Zeroing any site changes the logits: no tap stands beside the way of the data."""
    network.eval()
    expected = network(*batch).logits
    for name in sites(network):
        edited = planned(network, {name: torch.zeros_like})(*batch).logits
        assert not torch.allclose(edited, expected, atol=1e-6), name


def check_builds_on_meta(network: nn.Module) -> None:
    with torch.device("meta"):
        twin = type(network)(network.config)
    assert all(parameter.is_meta for parameter in twin.parameters())
    assert {n: p.shape for n, p in twin.named_parameters()} == {n: p.shape for n, p in network.named_parameters()}


def check_gradients_reach_all(network: nn.Module, *batch: Tensor) -> None:
    network.train()
    network.zero_grad()
    logits = network(*batch).logits
    (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        if not name.endswith("to_key.bias"):  # softmax ignores what is equal for all keys
            assert parameter.grad.abs().sum() > 0, name


def check_put(network: nn.Module, ids: Tensor) -> None:
    """Rows join a running batch in the places of others, from a smaller state; all go on as if alone."""
    network.eval()
    whole = network(ids).logits
    state, joining = network.start(3, 8), network.start(2, 5)
    network.step(ids[:, :4], None, state)
    network.step(ids[:2, :3], torch.tensor([3, 1]), joining)
    state.put(torch.tensor([2, 0]), joining)
    text, held = torch.tensor([1, 1, 0]), torch.tensor([1, 4, 3])
    assert state.lengths == held.tolist()
    for ahead in range(2):
        logits = network.step(ids[text, held + ahead][:, None], None, state)
        torch.testing.assert_close(logits, whole[text, held + ahead], **TOLERANCE)


def check_rewind(network: nn.Module, ids: Tensor) -> None:
    """A row that went back, to its very beginning too, goes on as if it had never said the rest."""
    network.eval()
    whole = network(ids).logits
    state = network.start(3, 9)
    network.step(random_ids(3, 5, network.config.vocab_size, seed=3), None, state)
    for row in range(3):
        state.rewind(row, 0)
    network.step(ids[:, :4], torch.tensor([4, 4, 3]), state)
    state.rewind(0, 1)
    rows, held = torch.arange(3), torch.tensor([1, 4, 3])
    for ahead in range(2):
        logits = network.step(ids[rows, held + ahead][:, None], None, state)
        torch.testing.assert_close(logits, whole[rows, held + ahead], **TOLERANCE)


def check_grow(network: nn.Module, ids: Tensor) -> None:
    network.eval()
    whole = network(ids).logits
    state = network.start(len(ids), 2)
    network.step(ids[:, :2], None, state)
    state.grow(6)
    state.grow(3)
    assert state.capacity == 6
    for place in range(2, ids.shape[1]):
        torch.testing.assert_close(network.step(ids[:, place : place + 1], None, state), whole[:, place], **TOLERANCE)


def check_leftovers_are_not_seen(network: nn.Module, ids: Tensor) -> None:
    """Whatever lies beyond a row's length, however large, changes nothing: in steps, in chunks, after a select."""
    network.eval()
    rows, held, whole = torch.arange(3), torch.tensor([2, 1, 3]), network(ids).logits
    state = network.start(3, 9)
    state.keys.fill_(1e30)
    state.values.fill_(-1e30)
    torch.testing.assert_close(network.step(ids[:, :3], held, state), whole[rows, held - 1], **TOLERANCE)
    index = held[:, None] + torch.arange(2)
    torch.testing.assert_close(network.step(ids.gather(1, index), None, state), whole[rows, held + 1], **TOLERANCE)
    order = torch.tensor([2, 0, 1])
    state.select(order)
    logits = network.step(ids[order, held[order] + 2][:, None], None, state)
    torch.testing.assert_close(logits, whole[order, held[order] + 2], **TOLERANCE)


def check_read(network: nn.Module, ids: Tensor) -> None:
    """`read` gives the states at all new positions, of a prompt and of what follows it."""
    network.eval()
    whole = network(ids).hidden
    state = network.start(len(ids), ids.shape[1])
    for part in (slice(0, 3), slice(3, None)):
        torch.testing.assert_close(network.read(ids[:, part], None, state), whole[:, part], **TOLERANCE)


ON_BATCH = (
    check_padding_changes_nothing,
    check_batching_changes_nothing,
    check_legible_equals_fused,
    check_every_site_fires,
    check_edit_acts,
    check_gradients_reach_all,
)
"""Every contract that takes any network and a batch."""

ON_WRITING = (
    check_shapes,
    check_causality,
    check_cached_equals_uncached,
    check_rows_of_their_own_length,
    check_select,
    check_hypotheses,
    check_sites_fire_in_steps,
)
"""Those of networks that write word by word: `start`, `step` and `state.select`."""

ON_ROWS = (check_put, check_rewind, check_grow, check_leftovers_are_not_seen, check_read)
"""Those of networks whose state is a `RowState`; their batch is three rows of six ids."""
