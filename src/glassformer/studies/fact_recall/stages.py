"""A stage of recall as a part of the study: what it is given, and what it says where it cannot be tested."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from glassformer.errors import InputError
from glassformer.interpret.facts import Facts
from glassformer.studies.fact_recall.bench import Bench
from glassformer.studies.fact_recall.predictions import names_of
from glassformer.studies.fact_recall.statistics import untested
from glassformer.studies.study import Part, Picture, Result, Setting, Table
from glassformer.tasks.model import Model


@dataclass(frozen=True, eq=False)
class Material:
    """What is studied: a model, the facts that it is asked, and facts of another kind to compare with.

    Not more than `limit` facts are taken, as many of each answer. `label` tells several studies in one report apart: it
    begins the names and titles of their parts.
    """

    model: Model
    asked: Facts
    unrelated: Facts
    limit: int = 120
    seed: int = 0
    label: str = ""

    @property
    def prefix(self) -> str:
        """What the names of parts begin with."""
        return f"{self.label}-" if self.label else ""


@dataclass(eq=False)
class Work:
    """What the stages of one study have in common: its material, the facts that the gate let through (`rows` of those
    asked) or why there are none, and what the earlier parts measured."""

    material: Material
    rows: Sequence[int]
    missing: str
    results: dict[str, Result] = field(default_factory=dict)

    @cached_property
    def bench(self) -> Bench:
        """The chosen facts with the model."""
        return Bench.of(self.material.model, self.material.asked.take(self.rows), self.material.seed)

    def say(self, setting: Setting, what: str) -> None:
        """A line of progress."""
        setting.say(f"   {what}")


Measure = Callable[[Work, Setting], Result]


@dataclass(frozen=True)
class Stage:
    """A part without its material. Results hold `tests`, one for each prediction of the stage (`statistics.Test`)."""

    name: str
    title: str
    question: str
    method: str
    measure: Measure
    draw: Callable[[Result, Path, str], Sequence[Picture]]
    tables: Callable[[Result], Sequence[Table]]
    version: int = 1

    def part(self, work: Work) -> Part:
        """The stage for this material. Its claims need all tests of the study: see `verdicts.judged`."""
        label = work.material.label
        return Part(
            name=work.material.prefix + self.name,
            title=f"{label.capitalize()}: {self.title[0].lower()}{self.title[1:]}" if label else self.title,
            question=self.question,
            method=self.method,
            run=lambda setting: self._run(work, setting),
            draw=lambda result, folder: self._drawn(result, folder, work.material.prefix + self.name),
            tables=lambda result: [] if _missing(result) else self.tables(result),
            claims=lambda result: [],
            version=self.version,
        )

    def _run(self, work: Work, setting: Setting) -> Result:
        """What was measured; where the facts are too few or too alike, tests that say so."""
        if work.missing:
            return {"missing": work.missing, "tests": untested(names_of(self.name), work.missing)}
        try:
            return self.measure(work, setting)
        except InputError as error:
            return {"missing": str(error), "tests": untested(names_of(self.name), str(error))}

    def _drawn(self, result: Result, folder: Path, name: str) -> Sequence[Picture]:
        return [] if _missing(result) else self.draw(result, folder, name.replace("-", "_"))


def earlier(work: Work, name: str) -> Result:
    """What an earlier stage measured. `InputError` where it could not."""
    result: Mapping[str, object] = work.results.get(work.material.prefix + name, {"missing": "it was not measured"})
    if result.get("missing"):
        raise InputError(f"the part '{name}' was not measured: {result['missing']}")
    return dict(result)


def _missing(result: Result) -> bool:
    return bool(result.get("missing"))
