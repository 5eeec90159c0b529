"""Pictures of the pages under paper/, as SVG that goes into the page. Both functions print."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402

INK = "#808080"  # readable on white and on black
pyplot.rcParams.update(
    {
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
        "font.size": 9,
        "savefig.transparent": True,
        "svg.fonttype": "none",
        "svg.hashsalt": "pictures",
    }
)


def grid(
    values: Any, rows: Sequence[str] = (), columns: Sequence[str] = (), title: str = "", middle: bool = False
) -> None:
    """A matrix as shades, its rows and columns named; with `middle`, zero is white and signs have two colours."""
    figure, axes = pyplot.subplots(figsize=(6.4, 3.2))
    table = values.detach().float().numpy()
    bound = abs(table).max()
    options = {"cmap": "RdBu", "vmin": -bound, "vmax": bound} if middle else {"cmap": "viridis"}
    image = axes.imshow(table, aspect="auto" if not rows else "equal", interpolation="nearest", **options)
    if rows:
        axes.set_yticks(range(len(rows)), rows)
    if columns:
        axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axes.set_title(title)
    figure.colorbar(image, ax=axes)
    _print(figure)


def curves(lines: Mapping[str, tuple[Any, Any]], across: str, up: str, title: str = "") -> None:
    """Lines by name, each (x, y)."""
    figure, axes = pyplot.subplots(figsize=(6.4, 3.0))
    for name, (x, y) in lines.items():
        axes.plot(x, y, label=name)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_title(title)
    if len(lines) > 1:
        axes.legend(frameon=False)
    _print(figure)


def _print(figure: Any) -> None:
    figure.tight_layout()
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    svg = text.getvalue()
    print(svg[svg.index("<svg") :])
