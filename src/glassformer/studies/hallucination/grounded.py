"""Grounding: what a reader copies from documents, when it refuses, and which planted errors a check against them finds.

The studied model takes no part in this: `ask` and `verify` let a small reader copy from documents, whatever model
writes. Retrieve-and-read after Chen et al. 2017, "Reading Wikipedia to Answer Open-Domain Questions"; refusals by a
threshold after Rajpurkar et al. 2018, "Know What You Don't Know", section 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glassformer.errors import InputError
from glassformer.factuality import verifying
from glassformer.factuality.grounding import READER, default_threshold, opened
from glassformer.studies.hallucination import planted, refusals
from glassformer.studies.hallucination.bench import Bench
from glassformer.studies.study import (
    Claim,
    Part,
    Picture,
    Result,
    Setting,
    Table,
    claim,
    matplotlib_figure,
    save_figure,
)

if TYPE_CHECKING:
    from glassformer.tasks.model import Model

EMBEDDER = "all-minilm-l6-v2"
SETS = {
    "own": "questions that seem answerable (SQuAD 2.0)",
    "easy": "another paragraph of the article (SQuAD 1.1)",
}
CHECKS = ("whole statement", "the value alone", "string match")
LABELS = {"true": "true statements doubted", "a": "(a) from elsewhere, found", "b": "(b) same article, found"}
ANSWERED = 50.0
"""F1 that answers must keep where refusals are to be worth anything."""
FOUND = {"a": 0.9, "b": 0.5}
DOUBTED = 0.1
"""The share of true statements that may be doubted."""


def part(bench: Bench, reader: Model | str = READER, embedder: Model | str | None = EMBEDDER) -> Part:
    """The part. Results do not depend on the studied model, but on `reader` and the `embedder` of the search."""
    return Part(
        name="grounding",
        title="Answers copied from documents, and statements held against them",
        question=(
            "A small reader copies answers from documents, and is to say so where they hold none. How often is that "
            "right, what does it cost in answers, and how many wrong values in statements does it find?"
        ),
        method=(
            "Reader: squad-minilm, at a threshold that was chosen on other articles; the studied model takes no part. "
            "(1) Questions with their paragraph, from articles that the reader never saw: SQuAD 2.0's, half of "
            "them without an answer there though they were written to seem to have one; and SQuAD 1.1's, each with its "
            "own paragraph, or with another of the same article. F1 of words where there is an answer (a refusal "
            "counts 0), and the share refused where there is none. Without refusals that share is 0. (2) `verify` on "
            "statements made from questions and answers (benchmarks/claims), true or with one wrong value: (a) from "
            "elsewhere or shifted, (b) of the same kind and from the same article; the documents are all articles "
            "together. An error is found where the statement is not supported. Beside it: whether the value's text "
            "stands in the article. Intervals: articles are drawn."
        ),
        run=lambda setting: measure(bench, setting, reader, embedder),
        draw=draw,
        tables=tables,
        claims=claims,
    )  # fmt: skip


def measure(bench: Bench, setting: Setting, reader: Model | str, embedder: Model | str | None) -> Result:
    """Refusals on both sets of questions, and planted errors; where the claims are missing, a word on that instead."""
    from glassformer.tasks.model import load

    model = opened(reader)
    search = load(embedder) if isinstance(embedder, str) else embedder
    sets = {name: _refusals(name, bench, setting, model, search) for name in SETS}
    try:
        errors = _planted(bench, setting, model)
    except InputError as error:
        errors = {"missing": str(error)}
    return {"sets": sets, "planted": errors}


def _refusals(name: str, bench: Bench, setting: Setting, reader: Model, embedder: Model | None) -> dict[str, Any]:
    questions = refusals.questions_of(name, bench.file)
    questions = refusals.spread(questions, setting.pick(24, 200, 1200))
    texts = refusals.texts_of(name, questions)
    rows = list(refusals.judged(name, questions, texts, reader, embedder, say=lambda line: setting.say(f"   {line}")))
    threshold = default_threshold(reader)
    return {
        "default": refusals.scored(rows, threshold),
        "no refusal": refusals.scored(rows, math.inf),
        "curve": refusals.curve(rows),
        "refused more": refusals.refused_more(rows, threshold),
    }


def _planted(bench: Bench, setting: Setting, reader: Model) -> dict[str, Any]:
    chosen = planted.some(planted.read_claims("test", planted.claims_file()), setting.pick(3, 25, 80))
    texts = planted.articles(bench.file(planted.SQUAD))
    seen = planted.seen_of(chosen, texts, reader, say=lambda line: setting.say(f"   planted errors: {line}"))
    whole, alone = (planted.scores(chosen, seen, one) for one in (True, False))
    match = planted.string_match(chosen, texts)
    values = dict(zip(CHECKS, (whole, alone, match), strict=True))
    return {
        "checks": {name: planted.rates(chosen, found, verifying.SUPPORTED) for name, found in values.items()},
        "more than string match": {label: planted.found_more(chosen, whole, match, label) for label in ("a", "b")},
    }


# --- What is shown ----------------------------------------------------------------------------------------------------


def draw(result: Result, folder: Path) -> Sequence[Picture]:
    """F1 against refusals, and what is found of planted errors."""
    pictures = [_draw_refusals(result["sets"], folder)]
    if "missing" not in result["planted"]:
        pictures.append(_draw_planted(result["planted"]["checks"], folder))
    return pictures


def _draw_refusals(sets: Mapping[str, Any], folder: Path) -> Picture:
    figure = matplotlib_figure(7, 4)
    axes = figure.subplots()
    for number, (name, found) in enumerate(sets.items()):
        points = [(0.0, found["no refusal"]["f1"]["value"]), *((one["refused"], one["f1"]) for one in found["curve"])]
        axes.plot(*zip(*points, strict=True), marker=".", color=f"C{number}", label=SETS[name])
        at = found["default"]
        bars = [[[at[key]["value"] - at[key]["interval"][0]], [at[key]["interval"][1] - at[key]["value"]]]
                for key in ("refused", "f1")]  # fmt: skip
        axes.errorbar(at["refused"]["value"], at["f1"]["value"], yerr=bars[1], xerr=bars[0], fmt="o",
                      color=f"C{number}", capsize=2)  # fmt: skip
    axes.set(xlabel="refused of what has no answer, in 100", ylabel="F1 of what has one", xlim=(-2, 100), ylim=(0, 100))
    axes.legend(fontsize=8, loc="lower left")
    counts = " and ".join(
        f"{found['default']['f1']['n']:,} with and {found['default']['refused']['n']:,} without an answer"
        for found in sets.values()
    )
    caption = (
        f"F1 where the paragraph holds the answer against refusals where it holds none, at all thresholds; the large "
        f"points are the reader's own, with 95 % intervals over articles. n = {counts}."
    )
    return save_figure(figure, folder, "grounding_refusals", caption)


def _draw_planted(checks: Mapping[str, Any], folder: Path) -> Picture:
    figure = matplotlib_figure(7, 3)
    axes = figure.subplots()
    for number, (name, found) in enumerate(checks.items()):
        shares = [100 * found[label]["share"] for label in LABELS]
        low = [max(0.0, share - 100 * found[label]["low"]) for share, label in zip(shares, LABELS, strict=True)]
        high = [max(0.0, 100 * found[label]["high"] - share) for share, label in zip(shares, LABELS, strict=True)]
        places = [place + 0.25 * (number - 1) for place in range(len(LABELS))]
        axes.barh(places, shares, 0.22, xerr=[low, high], error_kw={"lw": 1, "capsize": 2}, label=name)
    counts = checks[CHECKS[0]]
    axes.set_yticks(range(len(LABELS)), [f"{text}\nn = {counts[label]['n']}" for label, text in LABELS.items()])
    axes.invert_yaxis()
    axes.set(xlabel="%", xlim=(0, 100))
    axes.legend(fontsize=8)
    caption = (
        "Statements that `verify` does not support: of the true ones (false alarms), and of those with a planted "
        f"value. n = {', '.join(str(counts[label]['n']) for label in LABELS)}; bars: 95 % intervals over articles."
    )
    return save_figure(figure, folder, "grounding_planted", caption)


def tables(result: Result) -> Sequence[Table]:
    """Refusals, and planted errors where the claims were there."""
    rows = []
    for name, found in result["sets"].items():
        for how in ("default", "no refusal"):
            each = (_shown(found[how][key]) for key in ("f1", "refused", "silent"))
            rows.append((SETS[name], "own threshold" if how == "default" else how, *each))
    columns = ("questions", "threshold", "F1 with an answer", "refused without one", "refused with one")
    found_tables = [Table("Answers and refusals, in 100 (95 % over articles)", columns, tuple(rows))]
    errors = result["planted"]
    if "missing" in errors:
        return [*found_tables, Table("Planted errors", ("not measured",), ((errors["missing"],),))]
    cells = tuple((name, *(_shown_share(found[label]) for label in LABELS)) for name, found in errors["checks"].items())
    return [*found_tables, Table("Planted errors (95 % over articles)", ("check", *LABELS.values()), cells)]


def _shown(one: Mapping[str, Any]) -> str:
    low, high = one["interval"]
    return f"{one['value']:.1f} ({low:.1f} to {high:.1f}), n = {one['n']:,}"


def _shown_share(one: Mapping[str, Any]) -> str:
    return f"{100 * one['share']:.1f} % ({100 * one['low']:.1f} to {100 * one['high']:.1f}), n = {one['n']:,}"


def claims(result: Result) -> Sequence[Claim]:
    """The verdicts, by the rules alone."""
    own, easy = (result["sets"][name] for name in SETS)
    more, low, high = own["refused more"]
    f1, hard, light = own["default"]["f1"], own["default"]["refused"], easy["default"]["refused"]
    return [
        claim(
            "The reader tells questions without an answer from those with one, even where they seem to have one.",
            "SQuAD 2.0: more are refused without an answer than with one; the interval of the difference is above 0, "
            f"and the lower end of F1 where there is an answer is at least {ANSWERED:g}.",
            f"In 100, {more:.1f} ({low:.1f} to {high:.1f}) more are refused; F1 {_shown(f1)}.",
            low > 0 and f1["interval"][0] >= ANSWERED,
        ),
        claim(
            "A paragraph about something else is refused more often than one that seems to hold the answer.",
            "The lower end of refusals with another paragraph is above the upper end of those of SQuAD 2.0.",
            f"Refused: {_shown(light)}; SQuAD 2.0: {_shown(hard)}.",
            light["interval"][0] > hard["interval"][1],
        ),
        *_about_planted(result["planted"]),
    ]  # fmt: skip


def _about_planted(errors: Mapping[str, Any]) -> list[Claim]:
    found = []
    for label, what in (("a", "from elsewhere"), ("b", "from the same article")):
        text = f"A check against documents finds values that are wrong and {what}, and lets most true statements pass."
        rule = (
            f"The lower end of ({label}) found is at least {100 * FOUND[label]:g} %, the upper end of true statements "
            f"doubted at most {100 * DOUBTED:g} %, and more is found than by looking for the value's text in the "
            "article (interval of the difference above 0)."
        )
        if "missing" in errors:
            found.append(claim(text, rule, errors["missing"], None))
            continue
        check = errors["checks"][CHECKS[0]]
        more, low, high = (100 * value for value in errors["more than string match"][label])
        measured = (
            f"Found: {_shown_share(check[label])}; true statements doubted: {_shown_share(check['true'])}; "
            f"{more:.1f} ({low:.1f} to {high:.1f}) points more than by the text."
        )
        holds = check[label]["low"] >= FOUND[label] and check["true"]["high"] <= DOUBTED and low > 0
        found.append(claim(text, rule, measured, holds))
    return found
