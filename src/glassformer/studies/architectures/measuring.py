"""Timing steps, counting what they keep, and fitting how both grow: shared by the parts about cost."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn

from glassformer.models.config import AnyConfig
from glassformer.models.families import network_class
from glassformer.studies.architectures.families import matched
from glassformer.studies.study import Setting
from glassformer.tasks.objectives import seq2seq

FAMILIES = ("Transformer", "ConvS2S", "LSTM", "LSTM without attention")
VOCABULARY = 256
"""Few words: what is compared are layers, and a large table of words would hide them."""

BRIEF = 0.05
"""Seconds within which a repeat is called again."""

Repeats = Sequence[float]
"""The same thing timed several times, in seconds."""


class Spread(NamedTuple):
    """The middle of some repeats, the lowest and the highest.

    Between the lowest and the highest of five independent repeats lies the true median with probability 15/16, whatever
    their distribution; of three, with 3/4.
    """

    median: float
    low: float
    high: float

    def text(self, digits: int = 2, scale: float = 1.0) -> str:
        """`median (low–high)`, each multiplied by `scale`."""
        middle, low, high = (f"{value * scale:.{digits}f}" for value in self)
        return f"{middle} ({low}–{high})"


def spread(values: Sequence[float]) -> Spread:
    """The `Spread` of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(above: Repeats, below: Repeats) -> list[float]:
    """Each repeat's quotient: both were timed one after the other, on a machine that was as busy for both."""
    return [over / under for over, under in zip(above, below, strict=True)]


def slope(lengths: Sequence[float], values: Sequence[float]) -> float:
    """The exponent p of values ≈ c · lengths^p: least squares on the logarithms of both."""
    x, y = ([math.log(value) for value in numbers] for numbers in (lengths, values))
    return statistics.linear_regression(x, y).slope


def exponent(lengths: Sequence[int], seconds: Sequence[Repeats]) -> Spread:
    """How a time grows over the longer half of the lengths: the slope of each repeat. `seconds` is a row a length."""
    begin = len(lengths) // 2
    return spread([slope(lengths[begin:], repeat) for repeat in zip(*seconds[begin:], strict=True)])


def growth(lengths: Sequence[int], numbers: Sequence[float]) -> float:
    """The same of numbers that are exact, such as bytes."""
    begin = len(lengths) // 2
    return slope(lengths[begin:], numbers[begin:])


@dataclass(frozen=True)
class Pairs:
    """A batch for `seq2seq`: rows of random words without padding."""

    source: Int[Tensor, "B S"]
    target: Int[Tensor, "B U"]


def pairs(rows: int, length: int) -> Pairs:
    """`length` words in, as many predicted; the same ones at every call. Which they are does not matter for cost."""
    generator = torch.Generator().manual_seed(length)
    source = torch.randint(4, VOCABULARY, (rows, length), generator=generator)
    return Pairs(source, torch.randint(4, VOCABULARY, (rows, length + 1), generator=generator))


def configs(parameters: int, longest: int) -> dict[str, AnyConfig]:
    """The families at so many parameters. ConvS2S' tables of positions, a row a position, are not among them: what it
    can read at most is no choice of its layers."""
    fitted = matched(parameters, VOCABULARY, max_length=1, names=FAMILIES)
    return {name: replace(config, max_length=longest + 1) for name, config in fitted.items()}


def build(config: AnyConfig) -> Any:
    """A fresh network, in training."""
    return network_class(config)(config).train()


def forward(network: Any, batch: Pairs) -> Callable[[], Tensor]:
    """What gives the mean loss of a batch."""
    return lambda: seq2seq(network, batch).mean


def step(network: Any, batch: Pairs) -> Callable[[], None]:
    """Forward and backward of the mean loss."""

    def work() -> None:
        network.zero_grad(set_to_none=True)
        seq2seq(network, batch).mean.backward()

    return work


class Timing(NamedTuple):
    """How often something is timed: `repeats` values, each the fastest of up to `calls` calls (see `rounds`)."""

    repeats: int
    calls: int


def timing(setting: Setting) -> Timing:
    """That of a scale."""
    return setting.pick(Timing(3, 1), Timing(5, 3), Timing(5, 3))


def rounds(works: Mapping[str, Callable[[], object]], often: Timing) -> dict[str, list[float]]:
    """Seconds of each work, `often.repeats` values, after one call for warming up.

    The works take turns, so that what else the machine does falls on all of them. A brief one, which a single switch to
    another program would make several times longer, is called again, and its fastest call counts.
    """
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(often.repeats):
        for name, work in works.items():
            seconds[name].append(_fastest(work, often.calls))
    return seconds


def _fastest(work: Callable[[], object], calls: int) -> float:
    taken: list[float] = []
    while len(taken) < calls and sum(taken) < BRIEF:
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def saved_bytes(network: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes that `forward` leaves behind for the backward pass, without the network's parameters and buffers.

    Every tensor that autograd saves is seen by a hook; several that share their memory count once.
    """
    own = {each.untyped_storage().data_ptr() for each in (*network.parameters(), *network.buffers())}
    saved: dict[int, Tensor] = {}  # tensors are kept, so that no two of them can have lain at the same place

    def keep(tensor: Tensor) -> Tensor:
        saved.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    sizes = [tensor.untyped_storage().nbytes() for place, tensor in saved.items() if place not in own]
    del result
    return sum(sizes)
