"""What the number of heads costs: memory and time of one attention layer of fixed width, fused and legible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glassformer.layers.attention import SHORT, Attention
from glassformer.layers.sites import planned
from glassformer.studies.architectures.cost.drawing import MEBI, doubling_axes, spread_line
from glassformer.studies.architectures.measuring import ratios, rounds, saved_bytes, spread, timing
from glassformer.studies.study import (
    Claim,
    Part,
    Picture,
    Result,
    Setting,
    Table,
    claim,
    matplotlib_figure,
    save_figure,
)

PATHS = {"fused": "C0", "legible": "C6"}
"""The two ways to compute attention, with their colors."""

ROWS = 2

LINEAR_WITHIN = 0.05
"""Bytes are linear in the number of heads if a line through the fewest and the most meets the others so closely."""

SAME = 1.1
"""Numbers of which the greater is at most so many times the other are called the same."""


def run(setting: Setting) -> Result:
    """Bytes that a layer keeps for the backward pass, and its time forward and backward, for each number of heads."""
    width, length = setting.pick(32, 128, 128), setting.pick(96, 384, 1024)
    heads = setting.pick([1, 2, 4], [1, 2, 4, 8, 16], [1, 2, 4, 8, 16])
    assert length > SHORT, "shorter sequences do not take the fused kernel"
    x, gradient = torch.randn(ROWS, length, width, requires_grad=True), torch.randn(ROWS, length, width)
    found: dict[str, Any] = {path: {"bytes": [], "seconds": []} for path in PATHS}
    for count in heads:
        layers = both_paths(Attention(width, count, width // count))
        seconds = rounds({path: _both_ways(layer, x, gradient) for path, layer in layers.items()}, timing(setting))
        for path, layer in layers.items():
            found[path]["bytes"].append(saved_bytes(layer, partial(attend, layer, x)))
            found[path]["seconds"].append(seconds[path])
    shape = {"width": width, "length": length, "rows": ROWS, "threads": torch.get_num_threads()}
    return {"heads": heads, **shape, "paths": found}


def both_paths(layer: Attention) -> dict[str, Attention]:
    """The layer as it is, and a copy with the same parameters whose pattern is looked at, and therefore computed."""
    return {"fused": layer, "legible": planned(layer, {"pattern": lambda pattern: pattern})}


def attend(layer: Attention, x: Tensor) -> Tensor:
    """Self-attention of every place to every place."""
    return layer(*layer.queries_keys_values(x))


def _both_ways(layer: Attention, x: Tensor, gradient: Tensor) -> Callable[[], None]:
    return lambda: attend(layer, x).backward(gradient)


def _extra(result: Result) -> list[float]:
    """What the legible path keeps beyond the fused one, bytes a head and pair of places, for each number of heads."""
    pairs = result["rows"] * result["length"] ** 2
    fused, legible = (result["paths"][path]["bytes"] for path in ("fused", "legible"))
    return [(more - less) / (pairs * count) for count, less, more in zip(result["heads"], fused, legible, strict=True)]


def draw(result: Result, folder: Path) -> Sequence[Picture]:
    """Memory and time against the number of heads."""
    heads = result["heads"]
    figure = matplotlib_figure(10, 4.2)
    left, right = figure.subplots(1, 2)
    for path, found in result["paths"].items():
        left.plot(heads, [size / MEBI for size in found["bytes"]], "o-", color=PATHS[path], label=path, markersize=4)
        spread_line(right, heads, [[second * 1e3 for second in each] for each in found["seconds"]], path, PATHS[path])
    doubling_axes(left, heads, "Kept for the backward pass", "heads", "MiB")
    doubling_axes(right, heads, "Time, forward and backward", "heads", "ms")
    caption = (
        f"One layer of self-attention, {result['width']} wide however many heads share it, on {result['rows']} rows of "
        f"{result['length']} places: memory (MiB, exact) and time (ms) against heads. n = {_repeats(result)} repeats "
        f"(median, band: their range), one seed, {result['threads']} thread(s). Legible: the pattern is computed, so "
        "that it can be seen; fused: it never exists as a whole. All axes are logarithmic."
    )
    return [save_figure(figure, folder, "memory_heads", caption)]


def _repeats(result: Result) -> int:
    return len(result["paths"]["fused"]["seconds"][0])


def tables(result: Result) -> Sequence[Table]:
    """The same in numbers."""
    fused, legible = (result["paths"][path] for path in ("fused", "legible"))
    rows = tuple(
        (
            str(count),
            f"{fused['bytes'][place] / MEBI:.2f}",
            f"{legible['bytes'][place] / MEBI:.2f}",
            f"{extra:.2f}",
            spread(fused["seconds"][place]).text(1, 1e3),
            spread(legible["seconds"][place]).text(1, 1e3),
        )
        for place, (count, extra) in enumerate(zip(result["heads"], _extra(result), strict=True))
    )
    more = "legible minus fused, bytes a head and pair of places"
    columns = ("heads", "fused, MiB", "legible, MiB", more, "fused, ms", "legible, ms")
    title = f"One attention layer, {result['width']} wide, {result['rows']} rows of {result['length']} places"
    return [Table(title, columns, rows)]


def claims(result: Result) -> Sequence[Claim]:
    """Memory of both paths, then their time."""
    return [_legible_memory(result), _fused_memory(result), _fused_time(result), _faster(result)]


def _legible_memory(result: Result) -> Claim:
    heads, sizes = result["heads"], result["paths"]["legible"]["bytes"]
    each = (sizes[-1] - sizes[0]) / (heads[-1] - heads[0])
    line = [sizes[0] + each * (count - heads[0]) for count in heads]
    off = max(abs(size / expected - 1) for size, expected in zip(sizes, line, strict=True))
    grown = sizes[-1] / sizes[0]
    return claim(
        "Where the pattern can be seen, memory grows in proportion to the number of heads: each has n² numbers.",
        f"A line through the fewest and the most heads meets the others within {LINEAR_WITHIN:.0%}, and the most need "
        "at least half as many times the memory as they are times the heads.",
        f"{heads[0]} to {heads[-1]} heads: {grown:.2f} times the bytes, {each / MEBI:.2f} MiB a head; others at most "
        f"{off:.1%} off the line (exact).",
        off <= LINEAR_WITHIN and grown >= heads[-1] / heads[0] / 2,
    )


def _fused_memory(result: Result) -> Claim:
    heads, sizes = result["heads"], result["paths"]["fused"]["bytes"]
    grown = max(sizes) / min(sizes)
    return claim(
        "Fused attention needs the same memory for any number of heads.",
        f"The most bytes are at most {SAME} times the fewest.",
        f"{heads[0]} to {heads[-1]} heads: {min(sizes) / MEBI:.2f} to {max(sizes) / MEBI:.2f} MiB, {grown:.3f} times "
        "(exact).",
        grown <= SAME,
    )


def _fused_time(result: Result) -> Claim:
    heads, seconds = result["heads"], result["paths"]["fused"]["seconds"]
    found = spread(ratios(seconds[-1], seconds[0]))
    return claim(
        "Fused attention takes the same time for any number of heads: together, their products have the same size.",
        f"The most heads take at most {SAME} times as long as one, in the median of the repeats.",
        f"{heads[-1]} heads: {found.text()} times the time of {heads[0]} (range of {_repeats(result)} repeats).",
        found.median <= SAME,
    )


def _faster(result: Result) -> Claim:
    heads, paths = result["heads"], result["paths"]
    found = [
        spread(ratios(legible, fused))
        for legible, fused in zip(paths["legible"]["seconds"], paths["fused"]["seconds"], strict=True)
    ]
    return claim(
        "Fused attention is also faster than legible attention, at every number of heads.",
        "The legible path's time as a multiple of the fused one's is above 1 in every repeat.",
        "; ".join(f"{each.text()} times at {count}" for count, each in zip(heads, found, strict=True))
        + f" (range of {_repeats(result)} repeats).",
        all(each.low > 1 for each in found),
    )


PART = Part(
    name="memory",
    title="What heads cost",
    question=(
        "More heads share the same width: they add no parameters and no products. But each has a pattern of its own, a "
        "number for each pair of places. What does it cost to keep them, and what if they are never kept?"
    ),
    method=(
        "One layer of self-attention with the gradient of its input, without mask, at a length for which the fused "
        f"kernel is used (more than {SHORT} places), {ROWS} rows. Legible is the same layer with a plan on its "
        "pattern. Memory is exact: all tensors that autograd saves for the backward pass "
        "(torch.autograd.graph.saved_tensors_hooks), those that share memory once, without parameters; what a "
        "kernel needs only while it runs is not in it. Times are of forward and backward, the two paths in turn; "
        "median and range of 3 (toy) or 5 repeats after one for warming up, brief ones the fastest of three calls, "
        "one seed."
    ),
    run=run,
    draw=draw,
    tables=tables,
    claims=claims,
)
