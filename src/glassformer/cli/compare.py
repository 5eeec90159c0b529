"""`glassformer compare`: what the Transformer replaced, beside it, as one report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from glassformer.cli.output import put, put_json, say
from glassformer.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from glassformer.studies.running import Done
    from glassformer.studies.study import Part, Setting


def compare(
    *,
    quick: Annotated[
        bool, Parameter(help="Minutes instead of an hour: smaller networks, fewer seeds.", negative="")
    ] = False,
    out: Annotated[Path, Parameter(help="The report's folder. What is measured there already is kept.")] = Path(
        "compare"
    ),
    runs: Annotated[
        tuple[Path, ...],
        Parameter(
            help="Folders of finished translators, one a family, for BLEU. Without them, the recipes' runs in runs/.",
            consume_multiple=True,
            negative="",
            show_default=False,
        ),
    ] = (),
    train: Annotated[bool, Parameter(help="Train the translators that are missing.", negative="")] = False,
    only: Annotated[
        tuple[str, ...],
        Parameter(
            help="Measure these parts alone: translation, cost, distance, …",
            consume_multiple=True,
            negative="",
            show_default=False,
        ),
    ] = (),
    data_root: Annotated[
        Path | None, Parameter(help="Where the data lies. Without it, the folder in GLASSFORMER_DATA, else data/.")
    ] = None,
    threads: Annotated[int | None, Parameter(help="How many threads to use; all cores unless given.")] = None,
    scale: Annotated[
        Literal["toy", "quick", "full"] | None, Parameter(help="The size by name; 'toy' is for tests.", show=False)
    ] = None,
    json: Annotated[bool, Parameter(help="The claims as JSON lines on standard output.", negative="")] = False,
) -> None:
    """Compare recurrence, convolution and attention at equal size: quality, cost, memory, distance, order, depth.

    Writes report.html, which opens from the file system, its figures as PNG, and report.json with every number. Each
    part is kept as soon as it is measured: what was interrupted goes on from there. The page's path is printed on
    standard output, or with --json each claim with its verdict.
    """
    if threads is not None and threads < 1:
        raise InputError(f"--threads must be at least 1, got {threads}.")
    from glassformer.studies.running import run_parts
    from glassformer.studies.study import Setting, matplotlib_figure

    matplotlib_figure(1, 1)  # missing? say so before an hour of measuring
    size = scale or ("quick" if quick else "full")
    setting = Setting(size, threads or os.cpu_count() or 1, tuple(runs), data_root, train, say)
    _report(run_parts(_chosen(only), setting, out), setting, out, json)


def _chosen(only: tuple[str, ...]) -> list[Part]:
    """The parts of those names in the report's order, all of them where there are none."""
    from glassformer.studies.architectures import parts

    known = {part.name: part for part in parts()}
    for name in only:
        if name not in known:
            raise InputError(
                f"--only: there is no part '{name}'.{did_you_mean(name, known)} Parts: {', '.join(known)}."
            )
    return [known[name] for name in known if not only or name in only]


def _report(done: list[Done], setting: Setting, out: Path, json: bool) -> None:
    """Write the report, and say where it is, or what it claims."""
    from glassformer.studies.architectures import ABOUT, TITLE
    from glassformer.studies.report import claims_of, write_report
    from glassformer.training.machine import processor

    notes = [
        ("scale", setting.scale),
        ("machine", processor()),
        ("threads", str(setting.threads)),
        ("time", f"{sum(each.seconds for each in done) / 60:.1f} min"),
    ]
    page = write_report(TITLE, ABOUT, done, out, notes)
    if not json:
        put(str(page))
        return
    for each in done:
        for claim in claims_of(each):
            record = {"claim": claim.text, "measured": claim.measured, "verdict": claim.verdict}
            put_json({"part": each.part.name, **record})
