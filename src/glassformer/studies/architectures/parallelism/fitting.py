"""Two small laws fitted to the times of steps: work and waiting, and Amdahl's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from glassformer.studies.architectures.measuring import Spread, ratios, spread
from glassformer.studies.study import Result

Point = tuple[float, float, float]
"""What a step has: FLOPs of products, words, and layers that wait for each other."""


def work_and_waiting(points: Sequence[Point], seconds: Sequence[float]) -> tuple[float, float, float, float]:
    """a, b, c, d ≥ 0 of seconds ≈ a · flops + b · words + c · chain + d: least squares of relative errors.

    Of all fits with some of the four terms, the best whose coefficients are not negative; of equally good ones, the one
    with fewer terms (a chain that is the same everywhere cannot be told from d).
    """
    matrix = _with_constant(points) / np.asarray(seconds)[:, None]
    scale = matrix.max(0)  # FLOPs are millions of times as many as steps that wait
    best, least = np.zeros(4), np.inf
    for chosen in (list(each) for size in (1, 2, 3, 4) for each in combinations(range(4), size)):
        some = np.linalg.lstsq(matrix[:, chosen] / scale[chosen], np.ones(len(matrix)), rcond=None)[0]
        error = float(np.square(matrix[:, chosen] / scale[chosen] @ some - 1).sum())
        if (some >= 0).all() and error < least - 1e-12:
            best, least = np.zeros(4), error
            best[chosen] = some
    a, b, c, d = (best / scale).tolist()
    return a, b, c, d


def _with_constant(points: Sequence[Point]) -> NDArray[np.float64]:
    return np.asarray([(*point, 1.0) for point in points])


def _points(result: Result, name: str) -> list[Point]:
    """What a family's step has in each shape, then in each batch."""
    rows, length = result["batches"], result["length"]
    words = [*[result["words"]] * len(result["shapes"]), *(each * length for each in rows)]
    chains = [*result["chains"][name], *[result["batch_chains"][name]] * len(rows)]
    return [*zip([*result["flops"][name], *result["batch_flops"][name]], words, chains, strict=True)]


def _fits(result: Result, name: str) -> list[NDArray[np.float64]]:
    """Of each repeat, the four terms of the fit (columns) at each point (rows), as shares of the measured time.

    Fitted over the shapes, where what has to wait changes, and over the batches, where the work does.
    """
    points = _points(result, name)
    rows = [*result["shape_seconds"][name], *result["batch_seconds"][name]]
    return [
        _with_constant(points) * work_and_waiting(points, seconds) / np.asarray(seconds)[:, None]
        for seconds in zip(*rows, strict=True)
    ]


def shares(result: Result, name: str) -> list[Spread]:
    """For each shape, the share of a family's fitted time that is waiting: (c · chain + d) / sum. The spread is that of
    the repeats' fits."""
    fits = [fit / fit.sum(1, keepdims=True) for fit in _fits(result, name)]
    return [spread([float(fit[place, 2:].sum()) for fit in fits]) for place in range(len(result["shapes"]))]


def fit_error(result: Result, name: str) -> float:
    """By how much the fit misses a time, in the median of all shapes, batches and repeats; 0.1 is a tenth."""
    return float(np.median([np.abs(fit.sum(1) - 1) for fit in _fits(result, name)]))


def amdahl(threads: Sequence[int], seconds: Sequence[float]) -> float:
    """f of 1 / speed-up = f + (1 - f) / threads, by least squares; the first is one thread.

    0: twice the threads, half the time. 1: threads do not help. Above 1: they hinder.
    """
    parts = 1 / np.asarray(threads, dtype=float)
    x, y = 1 - parts, np.asarray(seconds) / seconds[0] - parts
    return float(x @ y / (x @ x))


def thread_seconds(result: Result, name: str, shape: int) -> list[list[float]]:
    """Repeats of a family's step of the first (0) or the last (-1) shape, a row for each number of threads."""
    return [found[name][shape] for found in result["thread_seconds"]]


def serial_share(result: Result, name: str, shape: int) -> Spread:
    """`amdahl` of each repeat."""
    rows = thread_seconds(result, name, shape)
    return spread([amdahl(result["thread_counts"], repeat) for repeat in zip(*rows, strict=True)])


def speed_up(result: Result, name: str, shape: int) -> Spread:
    """Of all threads against one."""
    rows = thread_seconds(result, name, shape)
    return spread(ratios(rows[0], rows[-1]))


def slow_down(result: Result, name: str) -> Spread:
    """Time of the fewest and longest rows as a multiple of that of the most and shortest, of as many words."""
    seconds = result["shape_seconds"][name]
    return spread(ratios(seconds[-1], seconds[0]))


def batch_gain(result: Result, name: str) -> Spread:
    """Words a second in the largest batch as a multiple of those in the smallest."""
    seconds, rows = result["batch_seconds"][name], result["batches"]
    return spread([ratio * rows[-1] / rows[0] for ratio in ratios(seconds[0], seconds[-1])])
