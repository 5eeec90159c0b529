"""Splits of labelled answers by entity, and figures that are means over them, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glassformer.errors import InputError
from glassformer.factuality.calibration import LEAST_LABELS, Asking, Calibration, Features, Labelled, fit
from glassformer.factuality.questions import split_by_entity

SEEDS = (200, 201, 202, 203, 204)
"""Of the splits. Whatever was tried while the package was made used other ones, so that nothing was chosen on these."""

QUICK_SHARE = 0.45
"""Of the answers, in the test part where there are 600 only: the others are just enough to fit a risk."""

RESAMPLES = 400

Rows = NDArray[np.intp]
Around = list[float]
"""A figure with the ends of its 95 % interval."""


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled answers that fit and others that test; no entity has answers in both. `rows` are the numbers of the
    test answers among all, `entities` says of each which entity it is about, by number."""

    seed: int
    fitting: Labelled
    test: Labelled
    rows: list[int]
    entities: Rows

    @property
    def wrong(self) -> NDArray[np.float64]:
        """1 for each test answer that is wrong, else 0."""
        return np.asarray(self.test.wrong, dtype=np.float64)

    def fit(self, names: Sequence[str] = (), features: Features = "answer") -> Calibration:
        """A calibration from the fitting part; see `fitted`."""
        return fitted(self.fitting, names, features, self.seed)


def splits_of(labelled: Labelled, share: float) -> list[Split]:
    """Five splits by entity in which `share` of the answers tests. `InputError` where too few are left to fit."""
    place = np.unique(np.array(labelled.entities, dtype=str), return_inverse=True)[1]
    found = []
    for seed in SEEDS:
        own, test = split_by_entity(labelled.questions, (1 - share, share), seed)
        if len(own) < LEAST_LABELS:
            raise InputError(
                f"{len(labelled)} answers leave {len(own)} to fit a risk, it needs {LEAST_LABELS}: take the scale "
                "quick or full."
            )
        found.append(Split(seed, labelled.take(own), labelled.take(test), test, place[test]))
    return found


def fitted(
    labelled: Labelled, names: Sequence[str] = (), features: Features = "answer", seed: int = SEEDS[0]
) -> Calibration:
    """A calibration from answers, of these scores alone, or of all."""
    own = only(labelled, names) if names else labelled
    return fit(own, "", "", Asking(), features=features, seed=seed)


def only(labelled: Labelled, names: Sequence[str]) -> Labelled:
    """The labels with these scores alone."""
    scores = {name: labelled.scores[name] for name in names}
    return Labelled(labelled.questions, scores, labelled.wrong, labelled.texts)


def around(figure: Callable[[int, Rows], float], splits: Sequence[Split], resamples: int = RESAMPLES) -> Around:
    """The mean over the splits of a figure, with its 95 % bootstrap interval over entities (Efron 1979).

    `figure(i, rows)` is that of the test answers `rows` of split i; one that is nan there is left out of the mean. In a
    resample entities are drawn from all with replacement, and each split has those of its test answers whose entity was
    drawn, as often as it was. Percentiles are moved by the bias of the resamples, their mean less the figure: an ECE
    grows with the noise of being drawn. What was fitted stays as it is: the chance of fitting is not in the intervals.
    """
    count = 1 + max(int(split.entities.max()) for split in splits)
    draw = np.random.default_rng(0)
    ones = np.ones(count, dtype=np.intp)
    drawn = (np.bincount(draw.integers(0, count, count), minlength=count) for _ in range(resamples))
    value, *values = (_mean(figure, splits, counts) for counts in (ones, *drawn))
    if np.isnan(value) or np.isnan(values).all():
        return [value, value, value]
    low, high = np.nanquantile(values, [0.025, 0.975]) - (np.nanmean(values) - value)
    return [value, float(low), float(high)]


def _mean(figure: Callable[[int, Rows], float], splits: Sequence[Split], counts: Rows) -> float:
    rows = [np.repeat(np.arange(len(split.rows)), counts[split.entities]) for split in splits]
    found = np.array([figure(number, each) for number, each in enumerate(rows)], dtype=np.float64)
    return float(found[~np.isnan(found)].mean()) if not np.isnan(found).all() else float("nan")


def shown(figure: Sequence[float], digits: int = 3) -> str:
    """`0.123 [0.100, 0.140]`."""
    value, low, high = (f"{each:.{digits}f}" for each in figure)
    return f"{value} [{low}, {high}]"


def percents(figure: Sequence[float]) -> str:
    """`12.3 % [10.0, 14.0]`."""
    value, low, high = (f"{100 * each:.1f}" for each in figure)
    return f"{value} % [{low}, {high}]"
