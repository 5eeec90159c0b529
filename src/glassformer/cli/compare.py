"""`glassformer compare`: what the Transformer replaced, beside it, as one report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from glassformer.cli.output import put
from glassformer.cli.studies import (
    ClaimsOption,
    DataRootOption,
    OutOption,
    ScaleOption,
    ThreadsOption,
    put_claims,
    setting_of,
    write_study,
)
from glassformer.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from glassformer.studies.study import Part


def compare(
    *,
    quick: Annotated[
        bool, Parameter(help="Minutes instead of an hour: smaller networks, fewer seeds.", negative="")
    ] = False,
    out: OutOption = Path("compare"),
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
    data_root: DataRootOption = None,
    threads: ThreadsOption = None,
    scale: ScaleOption = None,
    json: ClaimsOption = False,
) -> None:
    """Compare recurrence, convolution and attention at equal size: quality, cost, memory, distance, order, depth.

    Writes report.html, which opens from the file system, the same as report.md, its figures as PNG, and report.json
    with every number. Each part is kept as soon as it is measured: what was interrupted goes on from there. The page's
    path is printed on standard output, or with --json each claim with its verdict.
    """
    setting = setting_of(scale, quick, threads, data_root, tuple(runs), train)
    from glassformer.studies.architectures import ABOUT, TITLE
    from glassformer.studies.running import run_parts

    done = run_parts(_chosen(only), setting, out)
    page = write_study(TITLE, ABOUT, done, setting, out)
    if json:
        put_claims(done)
    else:
        put(str(page))


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
