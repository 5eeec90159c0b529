"""`glassformer compare`: what the Transformer replaced, beside it, as one report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from glassformer.cli.output import put, put_json, say
from glassformer.errors import InputError, did_you_mean


def compare(
    *,
    quick: Annotated[bool, Parameter(help="Minutes instead of an hour: smaller networks, fewer seeds.")] = False,
    out: Annotated[Path, Parameter(help="The report's folder. What is measured there already is kept.")] = Path(
        "compare"
    ),
    runs: Annotated[
        tuple[Path, ...],
        Parameter(
            help="Folders of finished translators, one a family, for BLEU. Without them, the recipes' runs in runs/.",
            consume_multiple=True,
        ),
    ] = (),
    train: Annotated[bool, Parameter(help="Train the translators that are missing.", negative="")] = False,
    only: Annotated[
        tuple[str, ...],
        Parameter(help="Measure these parts alone: translation, cost, distance, …", consume_multiple=True),
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
    from glassformer.studies.architectures import ABOUT, TITLE, parts
    from glassformer.studies.report import claims_of, write_report
    from glassformer.studies.running import run_parts
    from glassformer.studies.study import Setting, matplotlib_figure
    from glassformer.training.machine import processor

    matplotlib_figure(1, 1)  # missing? say so before an hour of measuring
    known = {part.name: part for part in parts()}
    for name in only:
        if name not in known:
            raise InputError(
                f"--only: there is no part '{name}'.{did_you_mean(name, known)} Parts: {', '.join(known)}."
            )
    chosen = [known[name] for name in known if not only or name in only]
    size = scale or ("quick" if quick else "full")
    setting = Setting(size, threads or os.cpu_count() or 1, tuple(runs), data_root, train, say)
    done = run_parts(chosen, setting, out)
    notes = [
        ("scale", size),
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
            put_json(
                {"part": each.part.name, "claim": claim.text, "measured": claim.measured, "verdict": claim.verdict}
            )
