"""Pictures and tables of what arrives from afar."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from glassformer.studies.architectures.distance.gradients import geometric_mean
from glassformer.studies.architectures.distance.verdicts import accuracies, judged
from glassformer.studies.architectures.families import COLORS
from glassformer.studies.architectures.tasks import N_PAIRS, N_SYMBOLS
from glassformer.studies.study import Picture, Result, Table, matplotlib_figure, save_figure

_LEAST = 1e-12
"""Gradients below are not drawn: they would flatten all others."""


def draw(result: Result, folder: Path) -> list[Picture]:
    """Accuracies, gradients of the loss, gradients inside the encoder."""
    return [_draw_accuracies(result, folder), _draw_gradients(result, folder), _draw_encoder(result, folder)]


def _draw_accuracies(result: Result, folder: Path) -> Picture:
    figure, budget, steps = matplotlib_figure(11, 4.4), result["budget"], result["budget"]["steps"]
    chances = {
        "copy": [(1 / N_SYMBOLS, "chance")],
        "recall": [(1 / N_SYMBOLS, "chance"), (1 / N_PAIRS, "values alone")],
    }
    for axes, task in zip(figure.subplots(1, 2, sharey=True), ("copy", "recall"), strict=True):
        for name, found in result["tasks"][task].items():
            for seed in found["accuracy"] if budget["seeds"] > 1 else ():
                axes.plot(budget["distances"], seed, color=COLORS[name], alpha=0.25, lw=0.8)
            mean = accuracies(result, task, name)
            axes.plot(budget["distances"], mean, _marks(name), color=COLORS[name], label=name, markersize=4)
        for level, text in chances[task]:
            axes.axhline(level, color="grey", ls=":", lw=1)
            axes.annotate(text, (0, level), xycoords=("axes fraction", "data"), ha="left", va="bottom", color="grey")
        _doubling(axes, budget["distances"], f"{task}: accuracy against distance")
        axes.set_ylim(-0.03, 1.03)
    figure.axes[0].set_ylabel("share of right answers")
    figure.axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    n = f"{judged(result, 'copy')} symbols (copy) and {judged(result, 'recall')} values (recall)"
    caption = (
        f"Accuracy at each distance (positions to the nearer end of the source) after {steps['copy']} steps (copy) and "
        f"{steps['recall']} (recall). n = {n} a point, {budget['seeds']} seed(s): thick the mean, thin each. Dotted: "
        "chance, and whoever remembers the values but not whose they are."
    )
    return save_figure(figure, folder, "distance_accuracy", caption)


def _draw_gradients(result: Result, folder: Path) -> Picture:
    figure = matplotlib_figure(11, 4.4)
    titles = {"initial": "Gradient at initialisation", "trained": "Gradient after training to copy"}
    for axes, (when, title) in zip(figure.subplots(1, 2, sharey=True), titles.items(), strict=True):
        _gradient_lines(axes, result, when, title)
    figure.axes[0].set_ylabel("‖gradient‖ relative to distance 0")
    figure.axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    caption = (
        "Norm of the gradient of a loss at the end, at embeddings so many positions before the end of the source, "
        f"relative to that at 0 (no unit). {_how(result)} Both axes are logarithmic: a straight fall to the right end "
        "is a power of the distance, a bend downwards an exponential."
    )
    return save_figure(figure, folder, "distance_gradients", caption)


def _draw_encoder(result: Result, folder: Path) -> Picture:
    figure = matplotlib_figure(7.5, 4.2)
    axes = figure.subplots()
    names = ("Transformer", "ConvS2S", "LSTM", "RNN")
    _gradient_lines(axes, result, "encoder", "Inside the encoder, at initialisation", names)
    axes.axvline(result["reach"], color=COLORS["ConvS2S"], ls=":", lw=1)
    axes.set_ylabel("‖gradient‖ relative to distance 0")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    caption = (
        "Norm of the gradient of the encoder's last state at words so many positions before it, relative to distance 0 "
        f"(no unit). {_how(result)} Dotted: the reach of ConvS2S's layers, beyond which its gradient is exactly 0 and "
        "cannot be drawn."
    )
    return save_figure(figure, folder, "distance_encoder", caption)


def _how(result: Result) -> str:
    return f"n = {result['gradient_rows']} sources, {result['budget']['seeds']} seed(s), geometric mean of the seeds."


def _gradient_lines(axes: Any, result: Result, when: str, title: str, names: tuple[str, ...] = tuple(COLORS)) -> None:
    gaps = result["gradients"]["distances"]
    for name in names:
        means = [geometric_mean(values) for values in zip(*result["gradients"][when][name], strict=True)]
        shown = [mean if mean > _LEAST else math.nan for mean in means]
        axes.plot(gaps, shown, _marks(name), color=COLORS[name], label=name, markersize=4)
    axes.set_xscale("symlog", base=2, linthresh=1)
    axes.set_yscale("log")
    _ticks(axes, gaps, title)


def _doubling(axes: Any, distances: list[int], title: str) -> None:
    axes.set_xscale("log", base=2)
    _ticks(axes, distances, title)


def _ticks(axes: Any, distances: list[int], title: str) -> None:
    axes.set_xticks(distances, [str(distance) for distance in distances])
    axes.minorticks_off()
    axes.set_xlabel("distance, positions")
    axes.set_title(title)
    axes.grid(alpha=0.3)


def _marks(name: str) -> str:
    return "s--" if name.endswith("without attention") else "o-"


def tables(result: Result) -> list[Table]:
    """Accuracy by distance of each task, then gradients at the greatest distance."""
    distances = result["budget"]["distances"]
    columns = ("family", "parameters", "learning rate", *(str(distance) for distance in distances))
    found = [
        Table(
            f"{task}: accuracy by distance, mean of {result['budget']['seeds']} seed(s)",
            columns,
            tuple(
                (
                    name,
                    f"{result['parameters'][name]:,}",
                    f"{each['rate']:g}",
                    *(f"{share:.2f}" for share in accuracies(result, task, name)),
                )
                for name, each in result["tasks"][task].items()
            ),
        )
        for task in result["tasks"]
    ]
    return [*found, _gradient_table(result)]


def _gradient_table(result: Result) -> Table:
    def shown(name: str) -> tuple[str, ...]:
        by_kind = (result["gradients"][when][name] for when in ("initial", "trained", "encoder"))
        return (name, *(f"{geometric_mean([seed[-1] for seed in seeds]):.2g}" for seeds in by_kind))

    farthest = result["gradients"]["distances"][-1]
    return Table(
        f"Gradient at distance {farthest}, relative to that at 0 (geometric mean of the seeds)",
        ("family", "of the loss, fresh", "of the loss, trained", "of the encoder's last state, fresh"),
        tuple(shown(name) for name in result["parameters"]),
    )
