"""Pictures and tables of softmax and training with and without the division by √d_k."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from glassformer.studies.architectures.scaling.softmax import chance_loss
from glassformer.studies.architectures.scaling.verdicts import entropies, gradients, trained
from glassformer.studies.study import Picture, Result, Table, matplotlib_figure, save_figure

LOOKS = {"scaled": ("C0", "with scaling"), "unscaled": ("C3", "without")}
"""Color and label of each choice in all figures."""


def draw(result: Result, folder: Path) -> list[Picture]:
    """The softmax of random products, then training."""
    return [_draw_softmax(result, folder), _draw_training(result, folder), _draw_losses(result, folder)]


def _draw_softmax(result: Result, folder: Path) -> Picture:
    figure, widths = matplotlib_figure(13, 4.2), result["widths"]
    entropy, at_scores, at_query = figure.subplots(1, 3)
    for name, (color, label) in LOOKS.items():
        entropy.plot(widths, entropies(result, name), "o-", color=color, label=label)
        for axes, where in ((at_scores, "at_scores"), (at_query, "at_query")):
            axes.plot(widths, gradients(result, name, where, "median"), "o-", color=color, label=f"{label}, median")
            axes.plot(widths, gradients(result, name, where, "mean"), "s--", color=color, label=f"{label}, mean")
            axes.set_yscale("log")
    for axes, title, unit in (
        (entropy, "Entropy of the softmax", "relative to log n"),
        (at_scores, "Gradient at the scores", "‖gradient‖ of a query"),
        (at_query, "Gradient at the query", "‖gradient‖ of a query"),
    ):
        _doubling(axes, widths, title, unit)
    entropy.set_ylim(0, 1)
    caption = (
        "Left: mean entropy of softmax(q · k) relative to log n (no unit). Middle and right: norm of the gradient that "
        "a gradient of variance 1 at each weight becomes at the scores and at the query (no unit, logarithmic). n = "
        f"{result['queries']} queries of {result['keys']} keys, all coordinates N(0, 1), one seed."
    )
    return save_figure(figure, folder, "scaling_softmax", caption)


def _draw_training(result: Result, folder: Path) -> Picture:
    figure, widths = matplotlib_figure(10, 4.2), result["budget"]["widths"]
    left, right = figure.subplots(1, 2)
    for name, (color, label) in LOOKS.items():
        left.plot(widths, [trained(result, d, name, "loss") for d in widths], "o-", color=color, label=label)
        right.plot(widths, [trained(result, d, name, "entropy") for d in widths], "o-", color=color, label=label)
        fresh = [trained(result, d, name, "fresh_entropy") for d in widths]
        right.plot(widths, fresh, "s:", color=color, alpha=0.6, label=f"{label}, fresh")
        for width in widths:
            found = result["training"][str(width)][name]
            left.plot([width] * len(found["loss"]), found["loss"], ".", color=color, markersize=4)
            right.plot([width] * len(found["entropy"]), found["entropy"], ".", color=color, markersize=4)
    left.axhline(chance_loss(), color="grey", ls=":")
    left.annotate("words alone: log 3", (1, chance_loss()), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    left.set_yscale("log")
    right.set_ylim(0, 1)
    _doubling(left, widths, "Held-out loss after as many steps", "nats an answer")
    _doubling(right, widths, "Entropy of the trained patterns", "relative to log n")
    return save_figure(figure, folder, "scaling_training", f"{_how(result)} Lines are means of the seeds, dots each.")


def _how(result: Result) -> str:
    budget = result["budget"]
    return (
        f"Encoders of width {budget['d_model']} with one head of width d_k answer questions about word order: held-out "
        f"loss (nats an answer) and entropy of the patterns (no unit) after {budget['steps']} steps. n = "
        f"{budget['tested']} sentences, {budget['seeds']} seed(s)."
    )


def _draw_losses(result: Result, folder: Path) -> Picture:
    budget = result["budget"]
    ends = (budget["widths"][0], budget["widths"][-1])
    figure = matplotlib_figure(10, 4)
    for axes, width in zip(figure.subplots(1, 2, sharey=True), ends, strict=True):
        for name, (color, label) in LOOKS.items():
            losses = _smooth(np.mean(result["training"][str(width)][name]["losses"], axis=0))
            axes.plot(losses, color=color, label=label)
        axes.set_title(f"A head of width {width}")
        axes.set_xlabel("step")
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("training loss, nats an answer")
    figure.axes[0].legend()
    caption = (
        f"Training loss, mean of ten steps and of {budget['seeds']} seed(s), n = {budget['rows']} sentences a step "
        "(nats an answer, logarithmic), each at the rate that did best on held-out sentences."
    )
    return save_figure(figure, folder, "scaling_losses", caption)


def _smooth(losses: Any) -> list[float]:
    """The mean of ten steps at each."""
    return [float(np.mean(losses[max(0, step - 9) : step + 1])) for step in range(len(losses))]


def _doubling(axes: Any, widths: list[int], title: str, unit: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(widths, [str(width) for width in widths])
    axes.minorticks_off()
    axes.set_xlabel("width of a head, d_k")
    axes.set_ylabel(unit)
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()


def tables(result: Result) -> list[Table]:
    """Random products by width, then training by width."""
    return [_softmax_table(result), _training_table(result)]


def _softmax_table(result: Result) -> Table:
    def row(width: int) -> tuple[str, ...]:
        found = result["softmax"][str(width)]
        numbers = [
            f"{found[name]['entropy']:.3f} / {found[name]['at_scores']['median']:.2g} / "
            f"{found[name]['at_scores']['mean']:.2g}"
            for name in LOOKS
        ]
        return (str(width), f"{found['variance'] * width:.1f}", *numbers)

    columns = ("d_k", "variance of q · k", *(label for _, label in LOOKS.values()))
    title = "Random queries and keys: entropy relative to log n / gradient at the scores, median / mean"
    return Table(title, columns, tuple(row(width) for width in result["widths"]))


def _training_table(result: Result) -> Table:
    rows = tuple(
        (
            str(width),
            label,
            f"{result['training'][str(width)][name]['rate']:g}",
            f"{trained(result, width, name, 'loss'):.3f}",
            f"{trained(result, width, name, 'fresh_entropy'):.2f}",
            f"{trained(result, width, name, 'entropy'):.2f}",
        )
        for width in result["budget"]["widths"]
        for name, (_, label) in LOOKS.items()
    )
    columns = ("d_k", "scores", "learning rate", "held-out loss, nats", "entropy, fresh", "entropy, trained")
    return Table(f"Training: means of {result['budget']['seeds']} seed(s)", columns, rows)
