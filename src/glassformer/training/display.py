"""What a person sees of a training, on stderr: the plan, a moving line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TextIO


class Display:
    """Prints to `stream`; `every` is the least number of seconds between two plain progress lines."""

    def __init__(self, stream: TextIO | None = None, every: float = 10.0) -> None:
        self.stream = stream if stream is not None else sys.stderr
        self.moving = self.stream.isatty()
        self.every = 0.2 if self.moving else every
        self._last = 0.0
        self._width = 0

    def say(self, line: str) -> None:
        """A line that stays."""
        self._clear()
        print(line, file=self.stream, flush=True)

    def table(self, rows: Sequence[tuple[str, str]]) -> None:
        """Two columns: names and what they are."""
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            self.say(f"  {name:<{width}}  {value}")

    def progress(self, step: int, steps: int, parts: Sequence[str]) -> None:
        """Where the training is; shown at most once in `every` seconds, in place on a terminal."""
        now = time.monotonic()
        if now - self._last < self.every:
            return
        self._last = now
        line = " · ".join([f"step {step}/{steps}", *parts])
        if not self.moving:
            self.say(line)
            return
        done = round(24 * step / max(steps, 1))
        line = f"[{'━' * done}{' ' * (24 - done)}] {line}"
        print("\r" + line.ljust(self._width), end="", file=self.stream, flush=True)
        self._width = len(line)

    def _clear(self) -> None:
        if self._width:
            print("\r" + " " * self._width + "\r", end="", file=self.stream)
            self._width = 0


class Silent(Display):
    """Says nothing: for tests and for programs that show their own."""

    def say(self, line: str) -> None:
        """Nothing."""

    def progress(self, step: int, steps: int, parts: Sequence[str]) -> None:
        """Nothing."""


def duration(seconds: float) -> str:
    """`95` → `"1 min 35 s"`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(n_bytes: float) -> str:
    """`3_400_000` → `"3.4 MB"`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes / 1e3:.0f} kB"
