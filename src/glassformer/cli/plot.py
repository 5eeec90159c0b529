"""`glassformer plot`: the curves of runs beside each other, from their metrics.jsonl."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from glassformer.cli.output import put
from glassformer.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Lines = list[dict[str, Any]]

_SCORES = {"valid_bleu": "BLEU on the validation data", "valid_exact_match": "exact match on the validation data"}


def plot(
    *runs: Annotated[Path, Parameter(help="Folders of runs.")],
    out: Annotated[Path, Parameter(help="The picture to write, a PNG, PDF or SVG file.")] = Path("plot.png"),
) -> None:
    """Draw the losses and the scores of runs beside each other.

    Training loss (thin) and validation loss by step, and the score where the runs measure one. The picture's path is
    printed on standard output.
    """
    if not runs:
        raise InputError("plot needs at least one run, as in: glassformer plot runs/dates")
    if out.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise InputError(f"--out must end in .png, .pdf or .svg, got {out}.")
    from glassformer.training.runs import Run

    curves = {_label(run, runs): Run.open(run).metrics() for run in runs}
    for label, lines in curves.items():
        if not lines:
            raise InputError(f"{label} has no metrics yet: its training has not written the first line.")
    _draw(curves, out)
    put(str(out))


def _label(run: Path, runs: tuple[Path, ...]) -> str:
    """The folder's name, or its path where two runs have the same name."""
    name = run.resolve().name
    return name if [other.resolve().name for other in runs].count(name) == 1 else str(run)


def _draw(curves: dict[str, Lines], out: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("plot needs matplotlib, which is not installed: pip install 'glassformer[plots]'") from None
    scores = [name for name in _SCORES if any(name in line for lines in curves.values() for line in lines)]
    figure = Figure(figsize=(6.0 * (1 + len(scores)), 4.2), layout="constrained")
    axes = figure.subplots(1, 1 + len(scores), squeeze=False)[0]
    for number, (label, lines) in enumerate(curves.items()):
        _draw_losses(axes[0], label, lines, f"C{number % 10}")
        for ax, score in zip(axes[1:], scores, strict=True):
            _draw_score(ax, score, label, lines, f"C{number % 10}")
    _finish(axes[0], "loss, nats a token (thin: training, thick: validation)")
    for ax, score in zip(axes[1:], scores, strict=True):
        _finish(ax, _SCORES[score])
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)


def _draw_losses(ax: Axes, label: str, lines: Lines, color: str) -> None:
    for name, width in (("loss", 0.8), ("valid_loss", 2.0)):
        steps, values = _curve(lines, name)
        shown = label if name == "valid_loss" or not _curve(lines, "valid_loss")[0] else None
        ax.plot(steps, values, color=color, linewidth=width, label=shown)


def _draw_score(ax: Axes, score: str, label: str, lines: Lines, color: str) -> None:
    steps, values = _curve(lines, score)
    ax.plot(steps, values, color=color, linewidth=2.0, marker="o", markersize=3, label=label)
    for line in lines:
        if line.get("final") and score in line:
            ax.plot(line["step"], line[score], color=color, marker="*", markersize=11)


def _curve(lines: Lines, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one field; the finished model's line stands apart from the curve."""
    found = [line for line in lines if name in line and not line.get("final")]
    return [line["step"] for line in found], [line[name] for line in found]


def _finish(ax: Axes, title: str) -> None:
    ax.set_title(title, fontsize=10)
    ax.set_xlabel("step")
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
