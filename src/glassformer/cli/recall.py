"""`glassformer recall`: how a model recalls facts, as one report with verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from glassformer.errors import InputError

if TYPE_CHECKING:
    from glassformer.studies.running import Done

StudiedOption = Annotated[
    str | None,
    Parameter(help="The model to study: a run, a checkpoint, a folder, a GGUF file, or a known name. With --facts."),
]

FactsOption = Annotated[
    Path | None,
    Parameter(help="Facts of one kind: .jsonl, .tsv, or a .json of relations. At least two answers of 25 each."),
]

TrainOption = Annotated[
    Path | None,
    Parameter(help="Instead of a model: a recipe about people, which is trained first, or gone on with, or reused."),
]

TemplateOption = Annotated[
    str | None,
    Parameter(help='The prompt, with {subject} in it: "{subject} was created by". The file\'s own else.'),
]

ShotsOption = Annotated[
    int | None, Parameter(help="So many other facts before every prompt; one of each answer unless given.")
]

PeopleOption = Annotated[
    int | None, Parameter(help="With --train: so many people instead of all, and as many fewer steps.")
]

LimitOption = Annotated[
    int | None,
    Parameter(help="Study so many facts at most, as many of each answer; 120, with --train 300, unless given."),
]

QuickOption = Annotated[
    bool, Parameter(help="Minutes instead of half an hour: fewer facts asked, fewer layers.", negative="")
]


def recall(
    *,
    model: StudiedOption = None,
    facts: FactsOption = None,
    train: TrainOption = None,
    out: OutOption = Path("recall"),
    template: TemplateOption = None,
    shots: ShotsOption = None,
    relation: Annotated[str | None, Parameter(help="Only the facts of this relation.")] = None,
    people: PeopleOption = None,
    data_root: DataRootOption = None,
    limit: LimitOption = None,
    quick: QuickOption = False,
    seed: Annotated[int, Parameter(help="Draws facts, pairs and halves.")] = 0,
    threads: ThreadsOption = None,
    scale: ScaleOption = None,
    json: ClaimsOption = False,
) -> None:
    """Study how a model recalls facts: token concatenation, fact lookup, attribute extraction; and is it distributed?

    Every prediction is tested against a matched control, with intervals over subjects and one correction for all tests,
    and is supported, not supported, or not testable. Writes report.html, the same as report.md, its figures as PNG, and
    report.json. Each part is kept as soon as it is measured: what was interrupted goes on from there. Prints each
    stage's verdict and the page's path, or with --json each claim.
    """
    _check(model, facts, train, limit)
    setting = setting_of(scale, quick, threads, data_root)
    from glassformer.studies.fact_recall import ABOUT, TITLE
    from glassformer.studies.fact_recall.verdicts import judged

    if train is not None:
        from glassformer.studies.fact_recall.trained import study_trained

        done, notes = study_trained(train, setting, out, people=people, limit=limit or 300, seed=seed)
    else:
        from glassformer.studies.fact_recall.loaded import study_loaded

        assert model is not None and facts is not None
        asked: dict[str, Any] = {"template": template, "shots": shots, "relation": relation}
        done, notes = study_loaded(model, facts, setting, out, limit=limit or 120, seed=seed, **asked)
    done = judged(done)
    page = write_study(TITLE, ABOUT, done, setting, out, notes)
    if json:
        put_claims(done)
    else:
        _put_verdicts(done)
        put(str(page))


def _check(model: str | None, facts: Path | None, train: Path | None, limit: int | None) -> None:
    """What can be said before torch is imported."""
    if train is None and (model is None or facts is None):
        raise InputError("say what to study: --model NAME --facts FILE, or --train recipes/athletes-gpt.toml.")
    if train is not None and (model is not None or facts is not None):
        raise InputError("--train brings its own model and facts: leave --model and --facts out.")
    if limit is not None and limit < 2:
        raise InputError(f"--limit must be at least 2, got {limit}.")


def _put_verdicts(done: Sequence[Done]) -> None:
    """What each stage says as a whole: its first claim."""
    from glassformer.studies.sections import claims_of

    for each in done:
        for claim in claims_of(each)[:1]:
            put(f"{each.part.name}: {claim.verdict} ({claim.measured.rstrip('.')})")
