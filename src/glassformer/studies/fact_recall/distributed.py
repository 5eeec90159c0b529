"""Stage 4: is recall distributed? From what was measured of neurons alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glassformer.studies.fact_recall.concatenation import least
from glassformer.studies.fact_recall.predictions import FEW_NEURONS, LARGEST, names_of
from glassformer.studies.fact_recall.shares import share_of
from glassformer.studies.fact_recall.stages import Stage, Work, earlier
from glassformer.studies.fact_recall.statistics import (
    Numbers,
    bootstrapped,
    interval,
    mean_interval,
    mean_shown,
    shown,
    untested,
    weighted_mean,
)
from glassformer.studies.study import Picture, Result, Setting, Table


def measure(work: Work, setting: Setting) -> Result:
    """The three tests, from each fact's falls."""
    found = earlier(work, "neurons")
    return {"n": found["n"], "total": found["total"], "tests": tests_of(found, least(setting))}


def tests_of(found: Result, few: int) -> list[dict[str, Any]]:
    """Of the best single neuron, of k50, and of k50 by other ablations."""
    curves, counts, single = found["curves"], found["counts"], found["single"]
    n = len(single["drops"])
    if why := _no_effect(curves):
        return untested(names_of("distributed"), why)
    alone, whole = (np.asarray(values, dtype=np.float64) for values in (single["drops"], curves["resample"][-1]))

    def share(weights: Numbers) -> Numbers:
        together = weighted_mean(weights, whole)
        return np.where(together > 0, weighted_mean(weights, alone) / np.where(together > 0, together, 1.0), 1.0)

    def k50(to: str, weights: Numbers) -> Numbers:
        return share_of(curves[to], counts, 0.5, weights)

    def spoken(statistic: Any) -> str:
        around = interval(statistic, n)
        return shown(*(100 * each for each in (float(statistic(np.ones((1, n)))[0]), *around))) + " %"

    words = f"layer {single['layer']}, neuron {single['neuron']}: {spoken(share)} of what all do"
    others = ("zero", "mean")
    said = ", ".join(f"{to} {spoken(lambda weights, to=to: k50(to, weights))}" for to in others)
    return [
        bootstrapped("no single neuron", lambda weights: LARGEST - share(weights), n, words, least=few),
        bootstrapped("many neurons", lambda weights: k50("resample", weights) - FEW_NEURONS, n,
                     f"k50 is {spoken(lambda weights: k50('resample', weights))} of {counts[-1]} neurons", least=few),
        bootstrapped("ablations agree",
                     lambda weights: np.minimum(*(k50(to, weights) for to in others)) - FEW_NEURONS, n,
                     f"k50: {said}", least=few),
    ]  # fmt: skip


def _no_effect(curves: dict[str, list[list[float]]]) -> str:
    for to in ("resample", "zero", "mean"):
        if mean_interval(curves[to][-1])[1].low <= 0:
            return f"taking all of the lookup's neurons away ({to}) costs nothing ({mean_shown(curves[to][-1])})"
    return ""


def _draw(result: Result, folder: Path, name: str) -> Sequence[Picture]:
    return []


def _tables(result: Result) -> Sequence[Table]:
    return []


STAGE = Stage(
    name="distributed",
    title="Distributed?",
    question="Is recall spread over many neurons, or is it the work of a few?",
    method=(
        f"From the part before. Recall is called distributed if no neuron does {100 * LARGEST:g} % of what all of the "
        f"lookup's neurons do, if half of it takes more than {100 * FEW_NEURONS:g} % of them, and if that is so "
        "however they are taken away. Bootstraps over the facts that the neurons were not ranked on."
    ),
    measure=measure,
    draw=_draw,
    tables=_tables,
)
