"""Two small laws fitted to the times of steps: work and waiting, and Amdahl's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from glassformer.studies.architectures.cost_measuring import Spread, ratios, spread
from glassformer.studies.study import Result

Point = tuple[float, float, float]
"""What a step has: FLOPs of products, words, and layers that wait for each other."""


def work_and_waiting(points: Sequence[Point], seconds: Sequence[float]) -> tuple[float, float, float]:
    """a, b, c ≥ 0 of seconds ≈ a · flops + b · words + c · chain: least squares of relative errors.

    Of all fits with some of the three terms, the best whose coefficients are not negative.
    """
    matrix = np.asarray(points, dtype=float) / np.asarray(seconds)[:, None]
    scale = matrix.max(0)  # FLOPs are millions of times as many as steps that wait
    best, least = np.zeros(3), np.inf
    for chosen in (list(each) for size in (1, 2, 3) for each in combinations(range(3), size)):
        some = np.linalg.lstsq(matrix[:, chosen] / scale[chosen], np.ones(len(matrix)), rcond=None)[0]
        error = float(np.square(matrix[:, chosen] / scale[chosen] @ some - 1).sum())
        if (some >= 0).all() and error < least - 1e-12:
            best, least = np.zeros(3), error
            best[chosen] = some
    a, b, c = (best / scale).tolist()
    return a, b, c


def _waiting(fit: tuple[float, float, float], point: Point) -> float:
    parts = [coefficient * value for coefficient, value in zip(fit, point, strict=True)]
    return parts[-1] / sum(parts)


def shares(result: Result, name: str) -> list[Spread]:
    """For each shape, the share of a family's fitted time that is waiting; the spread is that of the repeats' fits.

    Fitted over the shapes, where what has to wait changes, and over the batches, where the work does.
    """
    rows, length = result["batches"], result["length"]
    words = [*[result["words"]] * len(result["shapes"]), *(each * length for each in rows)]
    chains = [*result["chains"][name], *[result["batch_chains"][name]] * len(rows)]
    points = [*zip([*result["flops"][name], *result["batch_flops"][name]], words, chains, strict=True)]
    seconds = [*result["shape_seconds"][name], *result["batch_seconds"][name]]
    fits = [work_and_waiting(points, repeat) for repeat in zip(*seconds, strict=True)]
    return [spread([_waiting(fit, point) for fit in fits]) for point in points[: len(result["shapes"])]]


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
