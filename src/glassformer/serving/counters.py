"""What a service counts: requests, tokens, and how long those who asked had to wait."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

BOUNDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds up to which a bucket counts; one more bucket has all that took longer."""


@dataclass(frozen=True)
class Histogram:
    """How many values fell into each bucket: `counts[i]` are those above bounds[i - 1] and at most bounds[i]; the last
    has the rest. `total` is the sum of all values."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def number(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """A bound that at least `share` of the values do not exceed: infinite in the last bucket, 0 without values."""
        seen, wanted = 0, share * self.number
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            if seen >= wanted and seen:
                return bound
        return 0.0


@dataclass(frozen=True)
class Figures:
    """A service at one moment. Times are seconds; counts go from its start on.

    `outcomes` counts requests that have ended, by "stop", "length", "deadline", "shutdown", "cancelled" or "error".
    `prompt_tokens` are those of requests that got a place, `reused_tokens` the ones among them that had been read for
    an earlier request. `alive`: whether the thread that answers is there; `failures`: exceptions that it survived.
    """

    alive: bool
    streams: int
    running: int
    waiting: int
    outcomes: Mapping[str, int]
    refused: int
    prompt_tokens: int
    reused_tokens: int
    reused_requests: int
    prefix_bytes: int
    generated_tokens: int
    failures: int
    first_token: Histogram
    between_tokens: Histogram
    whole: Histogram


@dataclass
class Recorder:
    """A histogram that grows."""

    bounds: tuple[float, ...] = BOUNDS
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def histogram(self) -> Histogram:
        """As it is now."""
        return Histogram(self.bounds, tuple(self.counts), self.total)


@dataclass
class Counters:
    """What `Figures` tells, as it grows: changed by the one thread that answers."""

    outcomes: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    reused_tokens: int = 0
    reused_requests: int = 0
    generated_tokens: int = 0
    failures: int = 0
    first_token: Recorder = field(default_factory=Recorder)
    between_tokens: Recorder = field(default_factory=Recorder)
    whole: Recorder = field(default_factory=Recorder)
