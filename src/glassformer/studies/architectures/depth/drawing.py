"""The figures of the part "depth"."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glassformer.studies.architectures.depth.blocks import COLORS
from glassformer.studies.study import Picture, Result, matplotlib_figure, save_figure


def draw(result: Result, folder: Path) -> Sequence[Picture]:
    """Gradients and ranks over the blocks of fresh networks; losses of trained ones over their depth."""
    return [_start(result, folder), _losses(result, folder)]


def geometric_mean(values: Sequence[float]) -> float:
    """exp of the mean logarithm; a value of 0 counts as 1e-300."""
    return math.exp(sum(math.log(max(value, 1e-300)) for value in values) / len(values))


def _start(result: Result, folder: Path) -> Picture:
    figure = matplotlib_figure(11, 4.5)
    left, right = figure.subplots(1, 2)
    for name, found in result["start"].items():
        over_last = [[each / max(seed[-1], 1e-300) for each in seed] for seed in found["gradients"]]
        blocks = [geometric_mean(column) for column in zip(*over_last, strict=True)]
        left.plot(range(1, len(blocks) + 1), blocks, ".-", color=COLORS[name], label=name)
        ranks = [geometric_mean(column) for column in zip(*found["ranks"], strict=True)]
        right.plot(range(len(ranks)), ranks, ".-", color=COLORS[name], label=name)
    left.set(xlabel="block", ylabel="gradient norm / that of the last block", yscale="log", title="Gradient")
    right.set(xlabel="blocks passed", ylabel="‖X − 1x̄ᵀ‖ / ‖X‖", yscale="log", title="What tells positions apart")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    caption = (
        f"Fresh networks of {result['depth']} blocks, about {result['parameters']:,} parameters each; geometric means "
        f"of {result['start_seeds']} seed(s). Left: the gradient's norm over a block's parameters, as a multiple "
        "of the last block's. Right: the share of the states' norm that is not common to all positions, in double "
        "precision (about 1e-16 is nothing at all), every position seeing every other."
    )
    return save_figure(figure, folder, "depth-start", caption)


def _losses(result: Result, folder: Path) -> Picture:
    figure = matplotlib_figure(8, 4.5)
    axes = figure.subplots()
    top = 1.25 * result["uniform"]
    for name in dict.fromkeys(each["wiring"] for each in result["trainings"]):
        rows = [each for each in result["trainings"] if each["wiring"] == name]
        _line(axes, name, rows, top)
    axes.axhline(result["uniform"], color="0.5", linestyle=":", linewidth=1)
    axes.axhline(result["entropy"], color="0.5", linestyle="--", linewidth=1)
    first = min(each["depth"] for each in result["trainings"])
    axes.text(first, result["uniform"], "guessing", color="0.4", fontsize=8, va="bottom")
    axes.text(first, result["entropy"], "knowing the table", color="0.4", fontsize=8, va="bottom")
    depths = sorted({each["depth"] for each in result["trainings"]})
    axes.set_xscale("log", base=2)
    axes.set_xticks(depths, [str(depth) for depth in depths])
    axes.set(xlabel="blocks", ylabel="test loss (nats a word)", ylim=(0.8 * result["entropy"], top))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    caption = (
        f"Loss after {result['steps']} steps on the made-up language, about {result['parameters']:,} parameters at "
        f"each depth; mean of {result['seeds']} seed(s), bars from the lowest to the highest, nats a word on "
        f"{result['test_texts']} test texts. A triangle at the upper edge: the loss lies above it, or is no number."
    )
    return save_figure(figure, folder, "depth-loss", caption)


def _line(axes: Any, name: str, rows: Sequence[dict[str, Any]], top: float) -> None:
    """A wiring's losses; what does not fit under `top` is marked there."""
    fits = [all(loss is not None and loss < top for loss in row["losses"]) for row in rows]
    inside = [row for row, fit in zip(rows, fits, strict=True) if fit]
    outside = [row for row, fit in zip(rows, fits, strict=True) if not fit]
    means = [sum(row["losses"]) / len(row["losses"]) for row in inside]
    bars = [
        [mean - min(row["losses"]) for mean, row in zip(means, inside, strict=True)],
        [max(row["losses"]) - mean for mean, row in zip(means, inside, strict=True)],
    ]
    depths = [row["depth"] for row in inside]
    axes.errorbar(depths, means, bars, marker="o", markersize=4, capsize=2, color=COLORS[name], label=name)
    axes.plot([row["depth"] for row in outside], [top] * len(outside), "^", color=COLORS[name], clip_on=False)
