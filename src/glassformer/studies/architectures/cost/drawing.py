"""Pictures and tables of what length costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glassformer.studies.architectures.cost.verdicts import exponents
from glassformer.studies.architectures.families import COLORS
from glassformer.studies.architectures.measuring import Repeats, growth, spread
from glassformer.studies.study import Picture, Result, Table, matplotlib_figure, save_figure

LAYER_COLORS = {
    "self-attention": COLORS["Transformer"],
    "convolution": COLORS["ConvS2S"],
    "recurrence": COLORS["LSTM"],
}

PAPER = {
    "self-attention": ("O(n² d)", "O(1)", "O(1)"),
    "recurrence": ("O(n d²)", "O(n)", "O(n)"),
    "convolution": ("O(k n d²)", "O(1)", "O(n/k), dilated O(log_k n)"),
}
"""Table 1 of Vaswani et al. 2017: complexity of a layer, sequential operations, longest path between two places (of
convolutions stacked as they are; with growing gaps it is the logarithm)."""

MEBI = 2**20


def draw(result: Result, folder: Path) -> list[Picture]:
    """Steps, single layers and decoding, each against length."""
    return [_draw_steps(result, folder), _draw_layers(result, folder), _draw_decoding(result, folder)]


def spread_line(axes: Any, x: Sequence[float], repeats: Sequence[Repeats], label: str, color: str) -> None:
    """A line of medians, with a band from the lowest to the highest repeat."""
    spreads = [spread(each) for each in repeats]
    axes.plot(x, [each.median for each in spreads], "o-", color=color, label=label, markersize=4)
    axes.fill_between(x, [each.low for each in spreads], [each.high for each in spreads], color=color, alpha=0.2, lw=0)


def doubling_axes(axes: Any, x: Sequence[float], title: str, x_label: str, y_label: str, log_y: bool = True) -> None:
    """Logarithmic axes whose ticks are the measured places, and a legend."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(x), [f"{value:g}" for value in x])
    if log_y:
        axes.set_yscale("log")
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")


def _time_and_memory(lengths: Sequence[int], found: Mapping[str, Any], colors: Mapping[str, str], place: str) -> Any:
    figure = matplotlib_figure(10, 4.2)
    left, right = figure.subplots(1, 2)
    for name, each in found.items():
        spread_line(left, lengths, each["seconds"], name, colors[name])
        right.plot(lengths, [size / MEBI for size in each["bytes"]], "o-", color=colors[name], label=name, markersize=4)
    doubling_axes(left, lengths, "Time, forward and backward", place, "seconds")
    doubling_axes(right, lengths, "Kept for the backward pass", place, "MiB")
    return figure


def _draw_steps(result: Result, folder: Path) -> Picture:
    lengths, steps = result["lengths"], result["steps"]
    figure = _time_and_memory(lengths, steps, COLORS, "words a sequence (in, and out)")
    widths = ", ".join(f"{name} {width}" for name, width in result["widths"].items())
    caption = (
        f"Time (s) and memory (MiB) of a training step against length. n = {_count(steps)} repeats (median, "
        f"band: their range), one seed, {result['rows']} rows, {result['threads']} thread(s); widths: {widths}. "
        "Both axes are logarithmic: a steeper line grows with a higher power of length. The memory is exact."
    )
    return save_figure(figure, folder, "cost_steps", caption)


def _draw_layers(result: Result, folder: Path) -> Picture:
    lengths, layers = result["lengths"], result["layers"]
    figure = _time_and_memory(lengths, layers, LAYER_COLORS, "places")
    caption = (
        f"The same for one layer of each kind, all {result['layer_width']} wide: time (s) and memory (MiB), n = "
        f"{_count(layers)} repeats (median, band: their range), one seed, {result['rows']} rows, {result['threads']} "
        "thread(s). Up to 64 places attention is computed by plain products, beyond by a fused kernel."
    )
    return save_figure(figure, folder, "cost_layers", caption)


def _draw_decoding(result: Result, folder: Path) -> Picture:
    lengths, decoding = result["decoding_lengths"], result["decoding"]
    figure = matplotlib_figure(10, 4.2)
    left, right = figure.subplots(1, 2)
    for name, each in decoding.items():
        rates = [
            [result["decoding_rows"] * length / second for second in repeats]
            for length, repeats in zip(lengths, each["seconds"], strict=True)
        ]
        spread_line(left, lengths, rates, name, COLORS[name])
        right.plot(
            lengths, [size / 1024 for size in each["written"]], "o-", color=COLORS[name], label=name, markersize=4
        )
    doubling_axes(left, lengths, "Speed of writing so many", "words written", "words a second")
    doubling_axes(right, lengths, "Memory of what was written", "words written", "KiB a row")
    caption = (
        f"Decoding: words a second on the way to a length, and KiB that the state holds of what was written. n = "
        f"{_count(decoding)} repeats (median, band: their range), one seed, {result['decoding_rows']} rows behind "
        f"sources of {result['source']} words, {result['threads']} thread(s). The memory is exact."
    )
    return save_figure(figure, folder, "cost_decoding", caption)


def _count(found: Mapping[str, Any]) -> int:
    return len(next(iter(found.values()))["seconds"][0])


def tables(result: Result) -> list[Table]:
    """Table 1 of the paper beside the measured exponents; the networks; decoding."""
    return [_paper_table(result), _step_table(result), _decoding_table(result)]


def _paper_table(result: Result) -> Table:
    lengths, layers, found = result["lengths"], result["layers"], exponents(result, "layers")
    rows = tuple(
        (
            name,
            *PAPER[name],
            found[name].text(),
            f"{growth(lengths, each['bytes']):.2f}",
            " / ".join(f"{spread(each['seconds'][place]).median * 1e3:.2f}" for place in (0, -1)),
        )
        for name, each in layers.items()
    )
    columns = ("layer", "complexity", "sequential operations", "longest path")
    ends = f"ms at {lengths[0]} / {lengths[-1]}"
    return Table(
        f"Table 1 of Vaswani et al. 2017, and what was measured of single layers (d = {result['layer_width']}, k = 3)",
        (*columns, "measured exponent of time", "of memory", ends),
        rows,
    )


def _step_table(result: Result) -> Table:
    lengths, steps, found = result["lengths"], result["steps"], exponents(result, "steps")
    half = lengths[len(lengths) // 2]
    rows = tuple(
        (
            name,
            f"{result['parameters'][name]:,}",
            str(result["widths"][name]),
            " / ".join(f"{spread(each['seconds'][place]).median * 1e3:.1f}" for place in (0, -1)),
            found[name].text(),
            " / ".join(f"{each['bytes'][place] / MEBI:.1f}" for place in (0, -1)),
            f"{growth(lengths, each['bytes']):.2f}",
        )
        for name, each in steps.items()
    )
    ends = f"{lengths[0]} / {lengths[-1]} words"
    return Table(
        f"Training steps; exponents from {half} to {lengths[-1]} words",
        ("network", "parameters", "width", f"ms at {ends}", "exponent of time", f"MiB at {ends}", "of memory"),
        rows,
    )


def _decoding_table(result: Result) -> Table:
    lengths, decoding = result["decoding_lengths"], result["decoding"]
    rows = tuple(
        (
            name,
            " / ".join(f"{spread(each['seconds'][place]).median / lengths[place] * 1e3:.2f}" for place in (0, -1)),
            " / ".join(f"{each['written'][place] / 1024:.1f}" for place in (0, -1)),
            " / ".join(f"{each['read'][place] / 1024:.1f}" for place in (0, -1)),
        )
        for name, each in decoding.items()
    )
    ends = f"{lengths[0]} / {lengths[-1]} words"
    return Table(
        f"Decoding, {result['decoding_rows']} rows: time a step, and what the state holds for a row",
        ("network", f"ms a step, mean over {ends}", f"KiB of {ends} written", f"KiB of a source of {ends}"),
        rows,
    )
