"""What the issue asks of speed, as data, and how a measured ratio is set beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rounds import ratio, spread

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Goal:
    """A ratio to reach: the floor is asked for, the goal is hoped for. `at_most` makes both upper bounds (seconds)."""

    floor: float
    goal: float
    at_most: bool = False

    def judged(self, value: Mapping[str, float]) -> dict[str, Any]:
        """A `Spread` as a mapping, with what its median reached."""
        reached = [value["median"] <= mark if self.at_most else value["median"] >= mark for mark in self.marks]
        word = "goal met" if reached[1] else "floor met" if reached[0] else "below the floor"
        return {**value, "floor": self.floor, "goal": self.goal, "reached": word}

    @property
    def marks(self) -> tuple[float, float]:
        return self.floor, self.goal


DECODE_STORED, DECODE_BEST = Goal(1.0, 1.5), Goal(1.2, 2.0)
PROMPT = Goal(3.0, 6.0)
HF_SAME, HF_BEST = Goal(3.0, 3.7), Goal(7.0, 10.0)
STREAMS = Goal(1.5, 3.0)
START_EMPTY, START_AFTER = Goal(5.0, 2.0, at_most=True), Goal(3.0, 1.0, at_most=True)
PATCHING, ONE_SITE = Goal(8.0, 15.0), Goal(1.05, 1.02, at_most=True)
BANDED, BANDED_MEMORY = Goal(4.0, 9.0), Goal(2.1, 2.1, at_most=True)
EMBED_FP32, EMBED_BF16 = Goal(2.2, 3.0), Goal(1.2, 1.6)


def compared(
    seconds: Mapping[str, Sequence[float]], ours: str, theirs: str, goal: Goal | None = None
) -> dict[str, Any]:
    """A row of the table: how many times as fast `ours` was, round by round, and what the issue asks for."""
    value = ratio(list(seconds[ours]), list(seconds[theirs])).as_mapping()
    return {"ours": ours, "theirs": theirs, **(value if goal is None else goal.judged(value))}


def best(seconds: Mapping[str, Sequence[float]], names: Sequence[str]) -> str:
    """The quickest of these contenders, by its median."""
    return min(names, key=lambda name: median(seconds[name]))


def row_line(row: Mapping[str, Any]) -> str:
    """A row as text: `ours / theirs: 1.23× (1.20 … 1.25); floor 1.2×, goal 2×: floor met`."""
    text = f"  {row['ours']} / {row['theirs']}: {spread(row, 2)}×"
    if "floor" in row:
        text += f"; floor {row['floor']:g}×, goal {row['goal']:g}×: {row['reached']}"
    return text + (f"  [{row['note']}]" if row.get("note") else "")


def data_root(given: Path | None) -> Path | None:
    """Where the data lies: what was given, else GLASSFORMER_SHARED/data, else ../shared/data where that is there."""
    if given is not None:
        return given
    shared = Path(os.environ.get("GLASSFORMER_SHARED") or ROOT.parent / "shared")
    return shared / "data" if (shared / "data").is_dir() else None
