"""Rounds of competitors that take turns, and what is said of them: medians, ranges, ratios within a round."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from peer import SETTLE_SECONDS


@dataclass(frozen=True)
class Spread:
    """Median and range over rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(median(values), min(values), max(values))

    def as_mapping(self) -> dict[str, float]:
        return {"median": round(self.median, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


def take_turns(competitors: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """`rounds` times: each competitor once, in order. A competitor returns the seconds it took; one works at a time."""
    seconds: dict[str, list[float]] = {name: [] for name in competitors}
    for number in range(rounds):
        for name, run in competitors.items():
            seconds[name].append(run())
            time.sleep(SETTLE_SECONDS)
        line = ", ".join(f"{name} {values[-1]:.2f} s" for name, values in seconds.items())
        print(f"round {number + 1} of {rounds}: {line}", file=sys.stderr, flush=True)
    return seconds


def rate(seconds: list[float], tokens: int) -> Spread:
    """Tokens a second, over rounds."""
    return Spread.of([tokens / value for value in seconds])


def ratio(ours: list[float], theirs: list[float]) -> Spread:
    """How many times as fast ours was, round by round: a slow spell of the machine meets both sides of one round."""
    return Spread.of([peer / own for own, peer in zip(ours, theirs, strict=True)])


def spread(value: Mapping[str, float], digits: int) -> str:
    """A `Spread` as text."""
    return f"{value['median']:,.{digits}f} ({value['low']:,.{digits}f} … {value['high']:,.{digits}f})"


def machine_lines(limits: Mapping[str, Any]) -> list[str]:
    """The machine's own limits as text."""
    return [
        f"machine: {limits['processor']}, {limits['threads']} threads, torch {limits['torch']}",
        f"  fp32 GEMM {limits['fp32_gflops']:.0f} GFLOP/s, bf16 GEMM {limits['bf16_gflops']:.0f} GFLOP/s, "
        f"memory read {limits['read_gb_per_s']:.1f} GB/s",
    ]
