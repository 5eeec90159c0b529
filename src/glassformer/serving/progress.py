"""How far long work has come, told as it goes on, and how it is stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class Stopped(Exception):  # noqa: N818 - not an error: somebody no longer wants the answer
    """The work was stopped on request; there is no answer."""


@dataclass(frozen=True)
class Progress:
    """What long work tells and asks between its parts: `on_progress` is told the share that is done, from 0 to 1;
    when `stopped` says so, `at` raises `Stopped`. `begin` and `end` are where this work lies in the whole of it."""

    on_progress: Callable[[float], None] | None = None
    stopped: Callable[[], bool] | None = None
    begin: float = 0.0
    end: float = 1.0

    def at(self, share: float) -> None:
        """`share` of this work is done."""
        if self.stopped is not None and self.stopped():
            raise Stopped
        if self.on_progress is not None:
            self.on_progress(self.begin + (self.end - self.begin) * min(share, 1.0))

    def part(self, number: int, count: int) -> Progress:
        """The progress of part `number` (from 0) of `count` equal ones."""
        each = (self.end - self.begin) / count
        return Progress(self.on_progress, self.stopped, self.begin + number * each, self.begin + (number + 1) * each)
