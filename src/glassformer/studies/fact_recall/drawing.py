"""The figures of a study of recall: bands with intervals, and lines over layers or shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glassformer.studies.study import Picture, matplotlib_figure, save_figure
from glassformer.tasks.intervals import Interval


@dataclass(frozen=True)
class Band:
    """A value with its interval, under a name."""

    name: str
    value: float
    interval: Interval


@dataclass(frozen=True)
class Line:
    """Values over x, with intervals where there are any."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    intervals: Sequence[Interval] = ()


def bands(
    folder: Path,
    name: str,
    groups: Mapping[str, Sequence[Band]],
    caption: str,
    unit: str,
    levels: Mapping[str, float] | None = None,
) -> Picture:
    """Horizontal bars in groups, each with its interval; `levels` are lines across, by their style."""
    count = sum(map(len, groups.values())) + len(groups)
    figure = matplotlib_figure(8, 1.2 + 0.3 * count)
    axes = figure.subplots()
    place, ticks = 0.0, []
    for number, (group, members) in enumerate(groups.items()):
        for band in members:
            low, high = band.value - band.interval.low, band.interval.high - band.value
            error = [[max(0.0, low)], [max(0.0, high)]]
            axes.barh(place, band.value, color=f"C{number}", xerr=error, error_kw={"lw": 1, "capsize": 2})
            ticks.append((place, band.name))
            place += 1
        axes.text(1.01, place - 1, group, transform=axes.get_yaxis_transform(), fontsize=8, color=f"C{number}")
        place += 0.7
    for style, value in (levels or {}).items():
        axes.axvline(value, color="0.3", lw=1, ls=style)
    axes.set_yticks([where for where, _ in ticks], [text for _, text in ticks], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="0.7", lw=0.8)
    axes.set_xlabel(unit)
    return save_figure(figure, folder, name, caption)


def lines(
    folder: Path,
    name: str,
    drawn: Sequence[Line],
    caption: str,
    labels: tuple[str, str],
    *,
    log: bool = False,
    levels: Mapping[str, float] | None = None,
    ticks: Sequence[str] = (),
) -> Picture:
    """Lines, with bands between the ends of their intervals; `labels` are those of the axes."""
    figure = matplotlib_figure(8, 4.4)
    axes: Any = figure.subplots()
    for number, line in enumerate(drawn):
        axes.plot(line.x, line.y, "o-", color=f"C{number}", ms=3, lw=1.3, label=line.name)
        if line.intervals:
            low, high = [each.low for each in line.intervals], [each.high for each in line.intervals]
            axes.fill_between(line.x, low, high, color=f"C{number}", alpha=0.18, lw=0)
    for style, value in (levels or {}).items():
        axes.axhline(value, color="0.3", lw=1, ls=style)
    if log:
        axes.set_xscale("log")
    if ticks:
        axes.set_xticks(range(len(ticks)), ticks, fontsize=8, rotation=30)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return save_figure(figure, folder, name, caption)
