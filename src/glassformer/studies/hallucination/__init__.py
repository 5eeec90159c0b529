"""When a language model says what is not so: what detects it, what prompting and grounding change, and what does not
help, for one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from glassformer.errors import InputError, did_you_mean
from glassformer.studies.hallucination.bench import Bench
from glassformer.studies.running import Done, run_parts
from glassformer.studies.study import Part, Setting

TITLE = "When a model says what is not so"

ABOUT = """A language model goes on, fluently, whether it knows the answer or not. Here one model is asked questions
with known answers, and it is measured what tells its wrong answers from its right ones; whether a risk can be made of
that which means what it says; how much can still be answered where only so many errors are allowed; what the wording of
the prompt changes, and what evidence does, right or wrong; and whether checks against documents help.

Each part ends with claims: a sentence that could be wrong, the rule that decides it, what was measured, and the
verdict, which follows from the rule alone. Intervals are 95 %, over entities: what is asked about."""

NAMES = ("detection", "calibration", "abstention", "prompting", "misleading", "grounding", "decoding", "truth")
"""The parts in the order of the report."""


def parts(bench: Bench) -> tuple[Part, ...]:
    """All parts for one model, in the order of the report."""
    from glassformer.studies.hallucination import (
        abstention,
        calibrating,
        decoding,
        detecting,
        exact_truth,
        grounded,
        misleading,
        prompting,
    )

    modules = (detecting, calibrating, abstention, prompting, misleading, grounded, decoding, exact_truth)
    return tuple(module.part(bench) for module in modules)


def check_names(only: Sequence[str]) -> None:
    """`InputError` for a part that is none, with the nearest name."""
    for name in only:
        if name not in NAMES:
            raise InputError(
                f"--only: there is no part '{name}'.{did_you_mean(name, NAMES)} Parts: {', '.join(NAMES)}."
            )


def study(bench: Bench, setting: Setting, out: Path, only: Sequence[str] = ()) -> list[Done]:
    """Measure the parts, or those of these names, each kept in `out` as soon as it is there."""
    check_names(only)
    chosen = [part for part in parts(bench) if not only or part.name in only]
    return run_parts(chosen, replace(setting, given=bench.given()), out)
