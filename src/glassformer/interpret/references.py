"""What other texts have at the same place: their mean, or one of them. Spans are laid end to end from their last
position, since that is what spans of different lengths have in common."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from glassformer.errors import InputError
from glassformer.interpret.acting import AXIS
from glassformer.interpret.expressions import Kind
from glassformer.interpret.spans import Places

Pair = tuple[Places, Places | None]


def others(count: int, available: int, seed: int, same: bool) -> Int[Tensor, n]:
    """For each of `count` texts one of the `available`, drawn by `seed`; another than itself where they are the `same`.

    A random cycle through all of them is drawn, so that each serves once.
    """
    generator = torch.Generator().manual_seed(seed)
    if not same:
        return torch.randint(available, (count,), generator=generator)
    if count < 2:
        raise InputError("resampling puts in what another text has: give at least two texts, or a reference.")
    order = torch.randperm(count, generator=generator)
    found = torch.empty(count, dtype=torch.long)
    found[order] = order.roll(1)
    return found


def aligned(values: Tensor, there: Pair, here: Pair, rows: Tensor, kind: Kind) -> Tensor:
    """For each text the values of text `rows[i]` at the corresponding slots: the last for the last, and where that one
    has fewer, its first for all that are left over."""
    if kind == "rows":
        return values[rows]
    chosen = values[rows.to(values.device)]
    for axis, source, wanted in zip((AXIS[kind], 3), there, here, strict=True):
        if source is None or wanted is None:
            continue
        slots = torch.arange(wanted.index.shape[1], device=values.device)
        counts = source.counts[rows.to(source.index.device)]
        index = (slots + (counts - wanted.counts)[:, None]).clamp(min=0)
        index = torch.minimum(index, (counts - 1).clamp_min(0)[:, None])
        shape = [len(rows)] + [1] * (chosen.ndim - 1)
        shape[axis] = len(slots)
        wide = list(chosen.shape)
        wide[axis] = len(slots)
        chosen = chosen.gather(axis, index.reshape(shape).expand(wide))
    return chosen


def mean_of(values: Tensor, there: Pair, here: Pair, kind: Kind) -> Tensor:
    """For each text the mean over all others' and its own values, slot by slot, counted from the last."""
    if kind == "rows":
        return values.mean(0, keepdim=True).expand(len(here[0].index), *values.shape[1:])
    weights = values.new_ones(len(values), *[1] * (values.ndim - 1))
    axes = [AXIS[kind]] + ([] if there[1] is None else [3])
    for axis, places in zip(axes, there, strict=False):
        assert places is not None
        values, real = from_the_end(values, places, axis)
        shape = [len(values)] + [1] * (values.ndim - 1)
        shape[axis] = real.shape[1]
        weights = weights * real.reshape(shape)
    means = (values * weights).sum(0) / weights.sum(0).clamp_min(1)
    for axis, places in zip(axes, here, strict=False):
        assert places is not None
        means = _to_slots(means if means.ndim == values.ndim else means[None], places, axis)
    return means


def from_the_end(values: Tensor, places: Places, axis: int) -> tuple[Tensor, Tensor]:
    """Values with their real slots moved to the right, and which are real then."""
    k = places.index.shape[1]
    slots = torch.arange(k, device=values.device)
    index = (slots - (k - places.counts)[:, None]).clamp_min(0)
    real = slots >= (k - places.counts)[:, None]
    return _gathered(values, index, axis), real


def _to_slots(means: Tensor, places: Places, axis: int) -> Tensor:
    """Means counted from the end, [1 or n, …, k', …], at each text's slots."""
    k, have = places.index.shape[1], means.shape[axis]
    slots = torch.arange(k, device=means.device)
    index = (slots + (have - places.counts)[:, None]).clamp(0, have - 1)
    return _gathered(means.expand(len(index), *means.shape[1:]), index, axis)


def _gathered(values: Tensor, index: Tensor, axis: int) -> Tensor:
    shape = [len(index)] + [1] * (values.ndim - 1)
    shape[axis] = index.shape[1]
    wide = list(values.shape)
    wide[axis] = index.shape[1]
    return values.gather(axis, index.reshape(shape).expand(wide))
