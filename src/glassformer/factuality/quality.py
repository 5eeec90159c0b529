"""How good a calibration is, measured on the labels that it was not fitted to; numbers and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glassformer.errors import InputError
from glassformer.factuality.calibration import Calibration, Labelled, held_rows
from glassformer.factuality.detection import (
    Estimate,
    auroc,
    brier_skill,
    ece,
    prr,
    reliability,
    risk_coverage,
    with_interval,
)
from glassformer.factuality.thresholds import Limit
from glassformer.interpret.tables import laid_out

MAX_ERRORS = (0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Quality:
    """Figures of the held-out answers, n of them, about `entities` entities: all intervals are over entities.

    `accuracy` is the model's. `auroc`, `prr`, `ece` and `brier_skill` are those of the risk (see `detection`). `scores`
    has the AUROC of every single score, `limits` for each error rate the threshold that keeps it, None where it is out
    of reach.
    """

    n: int
    entities: int
    accuracy: Estimate
    auroc: Estimate
    prr: Estimate
    ece: Estimate
    brier_skill: Estimate
    scores: Mapping[str, float]
    limits: Mapping[float, Limit | None]
    confidence: float

    def table(self) -> str:
        """The figures as lines of text."""
        rows = [("held-out questions", f"{self.n}", "95 % interval")]
        for name in ("accuracy", "auroc", "prr", "ece", "brier_skill"):
            one: Estimate = getattr(self, name)
            title = {"auroc": "AUROC", "prr": "PRR", "ece": "ECE", "brier_skill": "Brier skill"}.get(name, name)
            rows.append((title, f"{one.value:.3f}", f"{one.interval.low:.3f} to {one.interval.high:.3f}"))
        for error, limit in self.limits.items():
            reach = (
                "unreachable" if limit is None else f"{limit.coverage:.1%} answered, {limit.error:.1%} of them wrong"
            )
            rows.append((f"at most {error:.0%} wrong", reach, f"with {self.confidence:.0%} confidence"))
        return laid_out(rows)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        limits = {f"{error:g}": limit and asdict(limit) for error, limit in self.limits.items()}
        return {**asdict(self), "limits": limits}


def quality(
    calibration: Calibration,
    labelled: Labelled,
    *,
    confidence: float = 0.95,
    bins: int = 10,
    resamples: int = 1000,
) -> Quality:
    """Measure a calibration on those of the labels, from which it was made, that it was not fitted to."""
    held = labelled.take(held_rows(labelled, calibration.seed))
    risk, wrong = calibration.probabilities(held), np.asarray(held.wrong, dtype=np.float64)
    order = calibration.all_combined(held)

    def estimate(metric: Any, values: Any) -> Estimate:
        return with_interval(metric, values, wrong, held.entities, resamples=resamples, seed=calibration.seed)

    return Quality(
        len(held),
        len(set(held.entities)),
        estimate(lambda values, happened: 1 - float(happened.mean()), risk),
        estimate(auroc, order),
        estimate(prr, order),
        estimate(lambda values, happened: ece(values, happened, bins), risk),
        estimate(brier_skill, risk),
        {name: auroc(held.scores[name], wrong) for name in calibration.names},
        {error: calibration.threshold(error, confidence) for error in MAX_ERRORS},
        confidence,
    )


def draw(calibration: Calibration, labelled: Labelled, folder: Path, stem: str) -> list[Path]:
    """Two pictures of the held-out answers, `stem`-reliability.png and `stem`-coverage.png; their paths.

    Raises `InputError` where matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("pictures need matplotlib, which is not installed: pip install 'glassformer[plots]'") from None
    held = labelled.take(held_rows(labelled, calibration.seed))
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}-reliability.png", folder / f"{stem}-coverage.png"]
    for path, paint in zip(paths, (_reliability, _coverage), strict=True):
        figure = Figure(figsize=(4.8, 4.2), layout="constrained")
        paint(figure.subplots(), calibration, held)
        figure.savefig(path, dpi=150)
    return paths


def _reliability(ax: Any, calibration: Calibration, held: Labelled) -> None:
    bins = reliability(calibration.probabilities(held), np.asarray(held.wrong, dtype=np.float64))
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="what it says is what happens")
    ax.plot([each.probability for each in bins], [each.share for each in bins], marker="o", label="held-out answers")
    _finish(ax, f"{len(held)} answers in {len(bins)} bins of as many", "risk that was stated", "share that was wrong")


def _coverage(ax: Any, calibration: Calibration, held: Labelled) -> None:
    curve = risk_coverage(calibration.all_combined(held), np.asarray(held.wrong, dtype=np.float64))
    ax.plot(curve.coverage, curve.risk, label="least uncertain first")
    ax.axhline(curve.risk[-1], color="0.6", linewidth=1, label="at random")
    ax.set_ylim(0, 1)
    _finish(ax, f"{len(held)} held-out answers", "share of questions answered", "share of the answers that is wrong")


def _finish(ax: Any, title: str, x: str, y: str) -> None:
    ax.set_title(title, fontsize=10)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
