"""What the verbs that measure a study share: their options, its setting, and how its report is written and told."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from glassformer.cli.output import put_json, say
from glassformer.errors import InputError
from glassformer.studies.study import Scale, Setting, matplotlib_figure

if TYPE_CHECKING:
    from glassformer.studies.running import Done

OutOption = Annotated[Path, Parameter(help="The report's folder. What is measured there already is kept.")]

DataRootOption = Annotated[
    Path | None, Parameter(help="Where the data lies. Without it, the folder in GLASSFORMER_DATA, else data/.")
]

ThreadsOption = Annotated[int | None, Parameter(help="How many threads to use; all cores unless given.")]

ScaleOption = Annotated[Scale | None, Parameter(help="The size by name; 'toy' is for tests.", show=False)]

ClaimsOption = Annotated[bool, Parameter(help="The claims as JSON lines on standard output.", negative="")]


def setting_of(
    scale: Scale | None,
    quick: bool,
    threads: int | None,
    data_root: Path | None,
    runs: tuple[Path, ...] = (),
    train: bool = False,
) -> Setting:
    """What a study is measured with. `InputError` for threads that are none, and where matplotlib is missing: before
    the measuring, not after an hour of it."""
    if threads is not None and threads < 1:
        raise InputError(f"--threads must be at least 1, got {threads}.")
    matplotlib_figure(1, 1)
    size = scale or ("quick" if quick else "full")
    return Setting(size, threads or os.cpu_count() or 1, runs, data_root, train, say)


def write_study(
    title: str, about: str, done: Sequence[Done], setting: Setting, out: Path, notes: Sequence[tuple[str, str]] = ()
) -> Path:
    """Write the report, with the scale, the machine and the time behind the study's own notes; the path of the page."""
    from glassformer.studies.report import write_report
    from glassformer.training.machine import processor

    measured = [
        *notes,
        ("scale", setting.scale),
        ("machine", processor()),
        ("threads", str(setting.threads)),
        ("time", f"{sum(each.seconds for each in done) / 60:.1f} min"),
    ]
    return write_report(title, about, done, out, measured)


def put_claims(done: Sequence[Done]) -> None:
    """Each claim with its verdict, as a JSON line."""
    from glassformer.studies.sections import claims_of

    for each in done:
        for claim in claims_of(each):
            record = {"claim": claim.text, "measured": claim.measured, "verdict": claim.verdict}
            put_json({"part": each.part.name, **record})
