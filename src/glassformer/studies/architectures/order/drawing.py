"""Pictures and tables of what a Transformer knows of order."""

from __future__ import annotations

from pathlib import Path

from glassformer.studies.architectures.order.table import table
from glassformer.studies.architectures.order.training import mean_accuracy
from glassformer.studies.architectures.order.verdicts import CHANCE, interval
from glassformer.studies.study import Picture, Result, Table, matplotlib_figure, save_figure


def draw(result: Result, folder: Path) -> list[Picture]:
    """The table of sines, its dot products, accuracies by kind of positions."""
    return [_draw_table(result, folder), _draw_dots(result, folder), _draw_accuracies(result, folder)]


def _draw_table(result: Result, folder: Path) -> Picture:
    width, length = result["table"]["width"], result["table"]["length"]
    figure = matplotlib_figure(9, 4.2)
    axes = figure.subplots()
    image = axes.imshow(table(length, width).numpy(), aspect="auto", cmap="RdBu", vmin=-1, vmax=1, origin="lower")
    axes.set_xlabel("coordinate (a sine and a cosine in turn)")
    axes.set_ylabel("position")
    axes.set_title("Sinusoidal positions: one row a position")
    figure.colorbar(image, ax=axes, label="value")
    caption = (
        f"The table that is added to the embeddings, n = {length} positions of width {width}; it is computed, without "
        "a seed, and has no unit. Wavelengths grow from 2π positions at the left to 10000 · 2π at the right."
    )
    return save_figure(figure, folder, "order_table", caption)


def _draw_dots(result: Result, folder: Path) -> Picture:
    figure = matplotlib_figure(8, 4.2)
    axes = figure.subplots()
    for number, (start, values) in enumerate(result["table"]["dot_products"].items()):
        axes.plot(values, color=f"C{number}", lw=4.5 - 1.5 * number, label=f"from position {start}")
    axes.set_xlabel("distance k, positions")
    axes.set_ylabel("PE(p) · PE(p + k) / (D / 2)")
    axes.set_title("Dot products of the table's rows: the same from every position")
    axes.grid(alpha=0.3)
    axes.legend()
    caption = (
        f"Dot products of rows k positions apart, from several positions p, relative to that of a row with itself (no "
        f"unit). n = {result['table']['length']} positions of width {result['table']['width']}, computed without a "
        "seed. The lines lie on each other: thinner ones were drawn later."
    )
    return save_figure(figure, folder, "order_dot_products", caption)


def _draw_accuracies(result: Result, folder: Path) -> Picture:
    budget, kinds = result["budget"], result["kinds"]
    figure = matplotlib_figure(7, 4.2)
    axes = figure.subplots()
    for place, (name, found) in enumerate(kinds.items()):
        mean, between = mean_accuracy(found), interval(result, name)
        axes.bar(place, mean, color="C7" if name == "none" else "C0", alpha=0.5)
        spread = [[max(mean - between.low, 0.0)], [max(between.high - mean, 0.0)]]
        axes.errorbar(place, mean, yerr=spread, color="black", capsize=4)
        axes.plot([place] * len(found["accuracy"]), found["accuracy"], "ko", markersize=3)
    axes.axhline(CHANCE, color="grey", ls=":")
    axes.annotate("words alone: 1/3", (1, CHANCE), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    axes.set_xticks(range(len(kinds)), list(kinds))
    axes.set_ylim(0, 1.03)
    axes.set_ylabel("share of right answers")
    axes.set_xlabel("positions")
    axes.set_title("Who hit whom with what?")
    caption = (
        f"Right answers about sentences with combinations of words that were never trained, after {budget['steps']} "
        f"steps. n = {budget['tested']} sentences, {budget['seeds']} seed(s): bars are means, dots single seeds, lines "
        "95 % intervals (Wilson)."
    )
    return save_figure(figure, folder, "order_accuracy", caption)


def tables(result: Result) -> list[Table]:
    """Accuracy, and how much an answer changes when words change places."""
    rows = tuple(
        (
            name,
            f"{result['parameters'][name]:,}",
            f"{found['rate']:g}",
            f"{mean_accuracy(found):.1%}",
            f"{max(found['change_fresh']):.1g}",
            f"{max(found['change_trained']):.1g}",
        )
        for name, found in result["kinds"].items()
    )
    columns = (
        "positions",
        "parameters",
        "learning rate",
        "right answers",
        "largest change of a logit when words are shuffled, fresh (standard deviations)",
        "trained",
    )
    return [Table("Positions, and none", columns, rows)]
