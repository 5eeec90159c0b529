"""`glassformer recall`: how a model recalls facts, as one report with verdicts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from glassformer.cli.output import put, put_json, say
from glassformer.errors import InputError

if TYPE_CHECKING:
    from glassformer.studies.running import Done
    from glassformer.studies.study import Setting


def recall(
    *,
    model: Annotated[
        str | None,
        Parameter(
            help="The model to study: a run, a checkpoint, a folder, a GGUF file, or a known name. With --facts."
        ),
    ] = None,
    facts: Annotated[
        Path | None,
        Parameter(help="Facts of one kind: .jsonl, .tsv, or a .json of relations. At least two answers of 25 each."),
    ] = None,
    train: Annotated[
        Path | None,
        Parameter(
            help="Instead of a model: a recipe about people, which is trained first, or gone on with, or reused."
        ),
    ] = None,
    out: Annotated[Path, Parameter(help="The report's folder. What is measured there already is kept.")] = Path(
        "recall"
    ),
    template: Annotated[
        str | None,
        Parameter(help='The prompt, with {subject} in it: "{subject} was created by". The file\'s own else.'),
    ] = None,
    shots: Annotated[
        int | None, Parameter(help="So many other facts before every prompt; one of each answer unless given.")
    ] = None,
    relation: Annotated[str | None, Parameter(help="Only the facts of this relation.")] = None,
    people: Annotated[
        int | None, Parameter(help="With --train: so many people instead of all, and as many fewer steps.")
    ] = None,
    data_root: Annotated[
        Path | None, Parameter(help="Where the data lies. Without it, the folder in GLASSFORMER_DATA, else data/.")
    ] = None,
    limit: Annotated[
        int | None,
        Parameter(help="Study so many facts at most, as many of each answer; 120, with --train 300, unless given."),
    ] = None,
    quick: Annotated[
        bool, Parameter(help="Minutes instead of half an hour: fewer facts asked, fewer layers.", negative="")
    ] = False,
    seed: Annotated[int, Parameter(help="Draws facts, pairs and halves.")] = 0,
    threads: Annotated[int | None, Parameter(help="How many threads to use; all cores unless given.")] = None,
    scale: Annotated[
        Literal["toy", "quick", "full"] | None, Parameter(help="The size by name; 'toy' is for tests.", show=False)
    ] = None,
    json: Annotated[bool, Parameter(help="The claims as JSON lines on standard output.", negative="")] = False,
) -> None:
    """Study how a model recalls facts: token concatenation, fact lookup, attribute extraction; and is it distributed?

    Every prediction is tested against a matched control, with intervals over subjects and one correction for all tests,
    and is supported, not supported, or not testable. Writes report.html, its figures as PNG, and report.json. Each part
    is kept as soon as it is measured: what was interrupted goes on from there. Prints the verdict of each stage and the
    page's path, or with --json each claim.
    """
    _check(model, facts, train, limit, threads)
    from glassformer.studies.study import Setting, matplotlib_figure

    matplotlib_figure(1, 1)  # missing? say so before half an hour of measuring
    size = scale or ("quick" if quick else "full")
    setting = Setting(size, threads or os.cpu_count() or 1, data_root=data_root, say=say)
    if train is not None:
        from glassformer.studies.fact_recall.trained import study_trained

        done, notes = study_trained(train, setting, out, people=people, limit=limit or 300, seed=seed)
    else:
        from glassformer.studies.fact_recall.loaded import study_loaded

        assert model is not None and facts is not None
        asked: dict[str, Any] = {"template": template, "shots": shots, "relation": relation}
        done, notes = study_loaded(model, facts, setting, out, limit=limit or 120, seed=seed, **asked)
    _report(done, setting, out, notes, json)


def _check(model: str | None, facts: Path | None, train: Path | None, limit: int | None, threads: int | None) -> None:
    """What can be said before torch is imported."""
    if train is None and (model is None or facts is None):
        raise InputError("say what to study: --model NAME --facts FILE, or --train recipes/athletes-gpt.toml.")
    if train is not None and (model is not None or facts is not None):
        raise InputError("--train brings its own model and facts: leave --model and --facts out.")
    if limit is not None and limit < 2:
        raise InputError(f"--limit must be at least 2, got {limit}.")
    if threads is not None and threads < 1:
        raise InputError(f"--threads must be at least 1, got {threads}.")


def _report(done: list[Done], setting: Setting, out: Path, notes: list[tuple[str, str]], json: bool) -> None:
    """Write the report, and say what it finds and where it is."""
    from glassformer.studies.fact_recall import ABOUT, TITLE
    from glassformer.studies.fact_recall.verdicts import judged
    from glassformer.studies.report import claims_of, write_report
    from glassformer.training.machine import processor

    done = judged(done)
    measured = [
        *notes,
        ("scale", setting.scale),
        ("machine", processor()),
        ("threads", str(setting.threads)),
        ("time", f"{sum(each.seconds for each in done) / 60:.1f} min"),
    ]
    page = write_report(TITLE, ABOUT, done, out, measured)
    for each in done:
        for number, claim in enumerate(claims_of(each)):
            if json:
                record = {"claim": claim.text, "measured": claim.measured, "verdict": claim.verdict}
                put_json({"part": each.part.name, **record})
            elif number == 0:
                put(f"{each.part.name}: {claim.verdict} ({claim.measured.rstrip('.')})")
    if not json:
        put(str(page))
