"""`glassformer calibrate`: from how unsure a model is to how often it is wrong, by questions with known answers."""

from __future__ import annotations

import json as json_lines
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from glassformer.cli.options import JsonOption, ModelOption, RunPrecisionOption
from glassformer.cli.output import put, put_json, say
from glassformer.cli.running import load_to_run
from glassformer.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from glassformer.factuality.calibration import Asking, Calibration, Labelled
    from glassformer.factuality.labelling import Answered
    from glassformer.factuality.questions import Question

METHODS = ("isotonic", "platt")
FEATURES = ("scores", "relation", "answer")

QuestionsOption = Annotated[
    tuple[Path, ...],
    Parameter(
        help="Questions with answers: .jsonl ({id, question, answers, context, entity, relation}), .tsv, TruthfulQA's "
        ".csv, or the .json of SQuAD, relations or known facts; several files are put together.",
        consume_multiple=True,
        negative="",
    ),
]

StyleOption = Annotated[
    str | None,
    Parameter(help="bare, may-abstain, few-shot or with-evidence; few-shot where there are shots, else bare."),
]


def calibrate(
    *,
    model: ModelOption,
    questions: QuestionsOption,
    out: Annotated[Path, Parameter(help="The file to write, for --risk of other verbs; pictures go beside it.")],
    shots: Annotated[int, Parameter(help="So many other questions with their answers before every question.")] = 0,
    style: StyleOption = None,
    score: Annotated[
        str | None, Parameter(help="Use this one score, such as 'perplexity'; all that one pass gives, combined, else.")
    ] = None,
    features: Annotated[
        str | None,
        Parameter(
            help="What else a risk is made of: scores (nothing), relation (what is asked), answer (that, and what is "
            "answered; the default, with --score none)."
        ),
    ] = None,
    method: Annotated[str, Parameter(help="The curve from score to risk: isotonic or platt.")] = "isotonic",
    max_new_tokens: Annotated[int, Parameter(help="The most tokens of an answer.")] = 12,
    seed: Annotated[int, Parameter(help="Draws questions, shots and the halves that fit and that test.")] = 0,
    limit: Annotated[int | None, Parameter(help="Ask so many of the questions, drawn by the seed.")] = None,
    audit: Annotated[
        int, Parameter(help="Write so many answers with their labels beside the file, as JSON lines, to be judged.")
    ] = 0,
    precision: RunPrecisionOption = "stored",
    json: JsonOption = False,
) -> None:
    """Ask a model questions with known answers, and learn how often it is wrong where it is how unsure.

    At least 300 questions. Half of them, by entity, fit; the other half tests: the figures are of these alone, with
    95 % intervals over entities. Writes one file, which holds for this model asked in this way, and two pictures
    (reliability, and risk by coverage) where matplotlib is installed. Answers are kept beside the file as they come, in
    NAME-answers.jsonl: what was interrupted goes on from there, and other figures of the same answers cost no asking.
    """
    _check(out, shots, limit, audit, max_new_tokens)
    method, features = _one_of("method", method, METHODS), _one_of("features", features or _usual(score), FEATURES)
    asked = _questions(questions, limit, seed)
    from glassformer.factuality import labelling
    from glassformer.factuality.calibration import Asking, fit, identity
    from glassformer.factuality.prompts import check_style

    names = (score,) if score else ()
    labelling.check_names(names)
    chosen = check_style(style or ("few-shot" if shots else "bare"))
    asking = labelling.asking_of(asked, Asking(chosen, shots, seed, max_new_tokens))
    loaded = load_to_run(model, precision)
    kept = out.with_name(f"{out.stem}-answers.jsonl")
    answered = labelling.answer_all(loaded, asked, asking, kept=kept, say=say)
    labelled = labelling.labelled(answered, names)
    settings: dict[str, Any] = {"method": method, "features": features, "seed": seed}
    found = fit(labelled, model, identity(loaded), asking, **settings)
    found.save(out)
    paths = [out, kept, *_audit(answered, audit, seed, out), *_pictures(found, labelled, out)]
    _report(found, labelled, paths, json)


def _check(out: Path, shots: int, limit: int | None, audit: int, max_new_tokens: int) -> None:
    """What can be said before torch is imported."""
    if out.is_dir():
        raise InputError(f"--out must be a file, {out} is a folder: name the file in it, such as {out / 'risk.json'}.")
    for name, value, least in (("shots", shots, 0), ("audit", audit, 0), ("max-new-tokens", max_new_tokens, 1)):
        if value < least:
            raise InputError(f"--{name} must be at least {least}, got {value}.")
    if limit is not None and limit < 1:
        raise InputError(f"--limit must be at least 1, got {limit}.")


def _usual(score: str | None) -> str:
    return "answer" if score is None else "scores"


def _one_of(name: str, given: str, known: Sequence[str]) -> str:
    if given not in known:
        raise InputError(f"--{name} must be {' or '.join(known)}, got '{given}'.{did_you_mean(given, known)}")
    return given


def _questions(paths: Sequence[Path], limit: int | None, seed: int) -> list[Question]:
    """The questions of all files, or as many as wanted of them, in their order. Too few are refused before the model
    is asked anything."""
    from glassformer.factuality.calibration import check_count
    from glassformer.factuality.questions import read_questions

    if not paths:
        raise InputError("give questions with their answers: --questions FILE.jsonl")
    found: dict[str, Question] = {}
    for path in paths:
        for one in read_questions(path):
            if one.id in found:
                raise InputError(f"{path}: the id '{one.id}' is in another file too; every question needs its own.")
            found[one.id] = one
    asked = list(found.values())
    if limit is not None and limit < len(asked):
        rows = sorted(random.Random(f"questions {seed}").sample(range(len(asked)), limit))
        asked = [asked[row] for row in rows]
    check_count(len(asked))
    return asked


def _audit(answered: Sequence[Answered], count: int, seed: int, out: Path) -> list[Path]:
    from glassformer.checkpoints.files import write_bytes
    from glassformer.factuality.labelling import audit_rows

    if not count:
        return []
    path = out.with_name(f"{out.stem}-audit.jsonl")
    lines = (json_lines.dumps(row, ensure_ascii=False) + "\n" for row in audit_rows(answered, count, seed))
    write_bytes(path, "".join(lines).encode())
    return [path]


def _pictures(found: Calibration, labelled: Labelled, out: Path) -> list[Path]:
    from glassformer.factuality.quality import draw

    try:
        return draw(found, labelled, out.parent, out.stem)
    except InputError as error:
        say(f"No pictures: {error}")
        return []


def _report(found: Calibration, labelled: Labelled, paths: Sequence[Path], as_json: bool) -> None:
    from glassformer.factuality.quality import quality

    measured = quality(found, labelled)
    if as_json:
        about = {
            "model": found.model,
            "n": found.n,
            "scores": list(found.names),
            "features": found.features,
            "files": list(map(str, paths)),
        }
        put_json({**about, "asked": _asked(found.asking), "held_out": measured.to_json()})
        return
    put(measured.table())
    for path in paths:
        put(str(path))


def _asked(asking: Asking) -> dict[str, Any]:
    return {name: getattr(asking, name) for name in ("style", "count", "seed", "max_new_tokens")}
