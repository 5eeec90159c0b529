"""Pictures and tables of what can be done at once."""

from __future__ import annotations

from pathlib import Path

from glassformer.studies.architectures.cost.drawing import doubling_axes, spread_line
from glassformer.studies.architectures.families import COLORS
from glassformer.studies.architectures.measuring import spread
from glassformer.studies.architectures.parallelism.fitting import (
    fit_error,
    serial_share,
    shares,
    slow_down,
    speed_up,
    thread_seconds,
)
from glassformer.studies.study import Picture, Result, Table, matplotlib_figure, save_figure


def draw(result: Result, folder: Path) -> list[Picture]:
    """Rows against length, batches, and threads where there are several."""
    pictures = [_draw_shapes(result, folder), _draw_batches(result, folder)]
    return [*pictures, _draw_threads(result, folder)] if result["thread_counts"] else pictures


def _how(result: Result) -> str:
    return (
        f"n = {len(result['shape_seconds']['LSTM'][0])} repeats (median, band: their range), one seed, "
        f"{result['threads']} thread(s)"
    )


def _draw_shapes(result: Result, folder: Path) -> Picture:
    lengths = [length for _, length in result["shapes"]]
    figure = matplotlib_figure(10, 4.2)
    left, right = figure.subplots(1, 2)
    for name, rows in result["shape_seconds"].items():
        spread_line(left, lengths, [[second * 1e3 for second in row] for row in rows], name, COLORS[name])
        found = shares(result, name)
        right.plot(lengths, [each.median for each in found], "o-", color=COLORS[name], label=name, markersize=4)
        right.fill_between(
            lengths, [each.low for each in found], [each.high for each in found], color=COLORS[name], alpha=0.2, lw=0
        )
    place = f"words a row (rows × length = {result['words']})"
    doubling_axes(left, lengths, "As many words, longer rows", place, "ms a step")
    doubling_axes(right, lengths, "Share of the step that is waiting", place, "share, fitted", log_y=False)
    right.set_ylim(-0.02, 1.02)
    caption = (
        f"Time (ms) of a training step of {result['words']} words in and out, in ever fewer and longer rows, and the "
        f"share of it that is fitted as waiting. {_how(result)}. Attention also has more to compute in longer rows."
    )
    return save_figure(figure, folder, "parallelism_rows", caption)


def _draw_batches(result: Result, folder: Path) -> Picture:
    batches, length = result["batches"], result["length"]
    figure = matplotlib_figure(6.5, 4.2)
    axes = figure.subplots()
    for name, seconds in result["batch_seconds"].items():
        rates = [[rows * length / second for second in row] for rows, row in zip(batches, seconds, strict=True)]
        spread_line(axes, batches, rates, name, COLORS[name])
    doubling_axes(axes, batches, "Larger batches", f"rows of {length} words", "words a second")
    caption = f"Words a second in training against rows in a batch, each {length} words in and out. {_how(result)}."
    return save_figure(figure, folder, "parallelism_batches", caption)


def _draw_threads(result: Result, folder: Path) -> Picture:
    counts, ends = result["thread_counts"], ((0, result["shapes"][0]), (-1, result["shapes"][-1]))
    figure = matplotlib_figure(10, 4.2)
    for axes, (place, (rows, length)) in zip(figure.subplots(1, 2, sharey=True), ends, strict=True):
        for name in result["shape_seconds"]:
            times = thread_seconds(result, name, place)
            speeds = [[one / second for one, second in zip(times[0], row, strict=True)] for row in times]
            spread_line(axes, counts, speeds, name, COLORS[name])
        axes.plot(counts, counts, ":", color="gray", label="nothing has to wait")
        doubling_axes(axes, counts, f"{rows} rows of {length} words", "threads", "times as fast", log_y=False)
    caption = f"Speed-up of a training step by threads, in many short rows and in few long ones. {_how(result)}."
    return save_figure(figure, folder, "parallelism_threads", caption)


def tables(result: Result) -> list[Table]:
    """Rows against length; threads where there are several."""
    found = [_shape_table(result)]
    return [*found, _thread_table(result)] if result["thread_counts"] else found


def _shape_table(result: Result) -> Table:
    ends = " / ".join(f"{rows} × {length}" for rows, length in (result["shapes"][0], result["shapes"][-1]))
    rows = []
    for name, seconds in result["shape_seconds"].items():
        times = [spread(seconds[place]).median for place in (0, -1)]
        speeds = [result["flops"][name][place] / time / 1e9 for place, time in zip((0, -1), times, strict=True)]
        rows.append(
            (
                name,
                " / ".join(str(result["chains"][name][place]) for place in (0, -1)),
                " / ".join(f"{time * 1e3:.1f}" for time in times),
                slow_down(result, name).text(),
                " / ".join(f"{speed:.1f}" for speed in speeds),
                " / ".join(shares(result, name)[place].text() for place in (0, -1)),
                f"{fit_error(result, name):.0%}",
            )
        )
    columns = (
        "network",
        "steps that wait",
        "ms",
        "times slower",
        "GFLOP a second",
        "sequential share of the time",
        "fit misses by",
    )
    return Table(f"{result['words']} words a step, as {ends}", columns, tuple(rows))


def _thread_table(result: Result) -> Table:
    ends = [f"{rows} × {length}" for rows, length in (result["shapes"][0], result["shapes"][-1])]
    rows = tuple(
        (name, *(what(result, name, place).text() for place in (0, -1) for what in (speed_up, serial_share)))
        for name in result["shape_seconds"]
    )
    columns = [f"{end}: {what}" for end in ends for what in ("times as fast", "share that threads do not help")]
    return Table(f"{result['thread_counts'][-1]} threads instead of 1", ("network", *columns), rows)
