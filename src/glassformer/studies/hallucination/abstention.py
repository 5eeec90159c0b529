"""How much can still be answered where only so many answers may be wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glassformer.factuality.calibration import LEAST_LABELS, Calibration, Labelled
from glassformer.factuality.detection import risk_coverage
from glassformer.factuality.labelling import labelled
from glassformer.studies.hallucination.bench import SHOTS, Bench
from glassformer.studies.hallucination.splits import QUICK_SHARE, SEEDS, Split, around, fitted, percents, splits_of
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

NAME = "abstention"
SHARE = 0.57
"""Of the answers, in the test part of a split: 2,000 of 3,500."""

MAX_ERRORS = (0.05, 0.1, 0.2)
ASKED = 0.1
FLOOR, GOAL = 0.04, 0.12
"""Coverages at `ASKED`."""

LEAST = 2000
"""With fewer test questions these coverages are not judged."""

MSP = "sequence probability"
RISK, SCORES, PROBABILITY = RULES = ("the risk (the default)", "all one-pass scores", "probability of the answer")

ZERO, ZERO_SHARE = 700, 0.5
"""So many questions without examples, of which half test."""

Scores = NDArray[np.float64]
CURVE = np.arange(1, 101) / 100


def part(bench: Bench) -> Part:
    """The part of the study."""
    return Part(
        name=NAME,
        title="Abstaining at a chosen error rate",
        question=(
            "Who may be wrong in one answer of ten only must leave questions unanswered. How many, if a threshold is "
            "found on labelled answers and held to for new ones? Is the error then what was asked for, and does the "
            "risk leave more to answer than the model's own probability of its answer?"
        ),
        method=(
            f"The answers of the part on calibration. In five splits by entity (seeds {SEEDS[0]} to {SEEDS[-1]}) "
            f"{SHARE:.0%} of them test ({QUICK_SHARE:.0%} at the scale quick). On the others a threshold is found "
            "that keeps the share of wrong answers "
            "below the largest error allowed with 95 % confidence: one half fits the risk and orders the candidates, "
            "the other tests them (Learn then Test). Where no candidate passes, nothing is answered: out of reach. "
            "The threshold for the probability of the answer is found in the same way. Transfer: a threshold found "
            "on all relations but one, for that one (its entities may be in other relations too). Without examples: "
            "the questions drawn by the seed, put bare, and an answer counts as right if the known one is in it."
        ),
        run=lambda setting: _run(bench, setting),
        draw=_draw,
        tables=_tables,
        claims=_claims,
    )


def _run(bench: Bench, setting: Setting) -> Result:
    questions = bench.relation_questions(setting)
    given = labelled(bench.answered(questions, bench.asking(questions), setting))
    result = measured(given, setting.pick(SHARE, QUICK_SHARE, SHARE), setting.say)
    count = setting.pick(0, 0, ZERO)
    if not count:
        return result | {"zero": None}
    setting.say(f"   {count} of the questions without examples")
    some = random.Random(f"zero {bench.seed}").sample(questions, min(count, len(questions)))
    bare = labelled(bench.answered(some, bench.asking(some, 0), setting))
    return result | {"zero": _plain(bare, splits_of(bare, ZERO_SHARE))}


def measured(given: Labelled, share: float = SHARE, say: Callable[[str], None] = lambda line: None) -> Result:
    """All figures but those without examples, from answers that were labelled."""
    splits = splits_of(given, share)
    found = _plain(given, splits)
    say("   thresholds found; leaving out each relation")
    return found | {"transfer": {rule: _transfer(given, rule) for rule in RULES}}


def calibrated(given: Labelled, rule: str, seed: int) -> Calibration:
    """A calibration by one of the `RULES`."""
    names = (MSP,) if rule == PROBABILITY else ()
    return fitted(given, names, "answer" if rule == RISK else "scores", seed)


def _plain(given: Labelled, splits: Sequence[Split]) -> Result:
    rules, orders = {}, {}
    for rule in RULES:
        found = [calibrated(split.fitting, rule, split.seed) for split in splits]
        orders[rule] = [one.all_combined(split.test) for one, split in zip(found, splits, strict=True)]
        rules[rule] = {
            error: [answered(one, scores, error) for one, scores in zip(found, orders[rule], strict=True)]
            for error in MAX_ERRORS
        }
    return {
        "n": len(given),
        "wrong": float(np.mean(given.wrong)),
        "relations": sorted({one.relation for one in given.questions}),
        "fitting": [len(split.fitting) for split in splits],
        "test": [len(split.test) for split in splits],
        "kept": {rule: {str(e): _kept(own, splits, e) for e, own in each.items()} for rule, each in rules.items()},
        "more": _more(rules[RISK][ASKED], rules[PROBABILITY][ASKED], splits),
        "curves": {rule: _curve(each, splits) for rule, each in orders.items()},
    }


def answered(found: Calibration, scores: Scores, allowed: float) -> NDArray[np.bool_]:
    """Which answers of these combined scores are given where so many may be wrong: none where that is out of reach."""
    limit = found.threshold(allowed)
    return np.zeros(len(scores), bool) if limit is None else scores <= limit.score


def _kept(answers: Sequence[NDArray[np.bool_]], splits: Sequence[Split], allowed: float) -> Result:
    """Coverage and error of the test answers that are given, in the mean of the splits; the error of those splits where
    any is given."""

    def error(i: int, rows: Any) -> float:
        given = rows[answers[i][rows]]
        return float(splits[i].wrong[given].mean()) if len(given) else float("nan")

    pairs = zip(answers, splits, strict=True)
    errors = [float(split.wrong[each].mean()) if each.any() else None for each, split in pairs]
    reached = [each for each in errors if each is not None]
    return {
        "coverage": around(lambda i, rows: float(answers[i][rows].mean()), splits),
        "error": around(error, splits) if reached else None,
        "reached": len(reached),
        "above": sum(each > allowed for each in reached),
        "coverages": [float(each.mean()) for each in answers],
        "errors": errors,
    }


def _more(some: Sequence[NDArray[np.bool_]], others: Sequence[NDArray[np.bool_]], splits: Sequence[Split]) -> Any:
    return around(lambda i, rows: float(some[i][rows].mean() - others[i][rows].mean()), splits)


def _curve(orders: Sequence[Scores], splits: Sequence[Split]) -> list[float]:
    """The share of wrong answers at each coverage of `CURVE`, in the mean of the splits."""
    curves = [risk_coverage(order, split.wrong) for order, split in zip(orders, splits, strict=True)]
    return [float(each) for each in np.mean([np.interp(CURVE, one.coverage, one.risk) for one in curves], axis=0)]


def _transfer(given: Labelled, rule: str) -> Mapping[str, Mapping[str, list[int]]]:
    """For each error allowed and each relation: its questions, those answered at the threshold of all others, and the
    wrong ones of these. A relation without which too few answers are left to fit is not in it."""
    names = [one.relation for one in given.questions]
    found: dict[str, dict[str, list[int]]] = {str(error): {} for error in MAX_ERRORS}
    for name in sorted(set(names)):
        others = given.take([row for row, each in enumerate(names) if each != name])
        own = given.take([row for row, each in enumerate(names) if each == name])
        if len(others) < LEAST_LABELS:
            continue
        calibration = calibrated(others, rule, SEEDS[0])
        scores, wrong = calibration.all_combined(own), np.asarray(own.wrong)
        for error in MAX_ERRORS:
            kept = answered(calibration, scores, error)
            found[str(error)][name] = [len(own), int(kept.sum()), int(wrong[kept].sum())]
    return found


# --- Showing ----------------------------------------------------------------------------------------------------------


def _draw(result: Result, folder: Path) -> Sequence[Picture]:
    figure = matplotlib_figure(6.6, 4.6)
    ax = figure.subplots()
    for rule, curve in result["curves"].items():
        ax.plot(100 * CURVE, [100 * each for each in curve], label=rule)
    ax.axhline(100 * result["wrong"], color="0.6", linewidth=1, label="answering at random")
    for error in MAX_ERRORS:
        ax.axhline(100 * error, color="0.8", linewidth=0.8, linestyle=":")
        for rule, colour in zip(RULES, ("C0", "C1", "C2"), strict=True):
            kept = result["kept"][rule][str(error)]
            if kept["error"]:
                ax.plot(100 * kept["coverage"][0], 100 * kept["error"][0], "o", color=colour, markersize=5)
    ax.set(xlabel="questions answered, %", ylabel="answers that are wrong, %", xlim=(0, 100), ylim=(0, None))
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    caption = (
        f"Wrong answers among those given, the least risky first (means of {len(SEEDS)} splits, n = "
        f"{_least(result)} test questions or more each). Points: thresholds found for 5, 10 and 20 % (dotted); one "
        "lies off its curve where some splits are out of reach, and answer nothing."
    )
    return [save_figure(figure, folder, NAME, caption)]


def _least(result: Result) -> int:
    return int(min(result["test"]))


def _tables(result: Result) -> Sequence[Table]:
    title = (
        f"{SHOTS} examples: {result['n']} answers, {result['wrong']:.1%} of them wrong; {_least(result)} test or "
        f"more, thresholds from {min(result['fitting'])} or more; means of {len(SEEDS)} splits"
    )
    tables = [_kept_table(title, result), *_transfer_tables(result)]
    if zero := result["zero"]:
        title = f"No examples: {zero['n']} answers, {zero['wrong']:.1%} of them wrong; {_least(zero)} test or more"
        tables.append(_kept_table(title, zero))
    relations = "; ".join(result["relations"])
    return [*tables, Table("Relations", ("asked", ""), ((relations, ""),))]


def _kept_table(title: str, result: Result) -> Table:
    rows = []
    for rule in RULES:
        for error in MAX_ERRORS:
            kept = result["kept"][rule][str(error)]
            wrong = percents(kept["error"]) if kept["error"] else "out of reach"
            splits = f"{kept['reached']} of {len(SEEDS)}"
            rows.append((rule, f"{error:.0%}", percents(kept["coverage"]), wrong, splits, str(kept["above"])))
    columns = ("by", "error allowed", "answered", "of these wrong", "splits reached", "splits above")
    return Table(title, columns, tuple(rows))


def _transfer_tables(result: Result) -> Sequence[Table]:
    tables = []
    for rule, errors in result["transfer"].items():
        rows = []
        for name in errors[str(ASKED)]:
            cells = [_cell(*errors[str(error)][name]) for error in MAX_ERRORS]
            rows.append((name, str(errors[str(ASKED)][name][0]), *cells))
        pooled = [_pooled(errors[str(error)]) for error in MAX_ERRORS]
        rows.append(("all", str(pooled[0][0]), *(_cell(*each) for each in pooled)))
        columns = ("relation left out", "questions", *(f"at most {error:.0%} wrong" for error in MAX_ERRORS))
        tables.append(Table(f"A threshold of the other relations, by {rule}: wrong of answered", columns, tuple(rows)))
    return tables


def _cell(asked: int, kept: int, wrong: int) -> str:
    return f"{wrong} of {kept} ({wrong / kept:.1%})" if kept else "none answered"


def _pooled(relations: Mapping[str, Sequence[int]]) -> tuple[int, int, int]:
    asked, kept, wrong = np.sum([*relations.values(), [0, 0, 0]], axis=0).tolist()
    return asked, kept, wrong


def _claims(result: Result) -> Sequence[Claim]:
    own, other = result["kept"][RISK], result["kept"][PROBABILITY][str(ASKED)]
    return [
        *(_reaches(own[str(ASKED)], least, _least(result)) for least in (FLOOR, GOAL)),
        claim(
            "The error is kept, whichever is asked for.",
            "At each error allowed that any split reaches, the mean error over splits is at most that.",
            "; ".join(f"{error:.0%}: {_said(own[str(error)])}" for error in MAX_ERRORS),
            all(not own[str(error)]["error"] or own[str(error)]["error"][0] <= error for error in MAX_ERRORS),
        ),
        claim(
            f"At {ASKED:.0%} errors the risk leaves more to answer than the model's own probability of its answer.",
            "The 95 % interval of the paired difference in coverage lies above 0.",
            f"{percents(result['more'])} more; by the probability: {_said(other)}.",
            result["more"][1] > 0,
        ),
        _transferred(result),
        _zero(result["zero"]),
    ]


def _said(kept: Result) -> str:
    if not kept["error"]:
        return "out of reach"
    return (
        f"{percents(kept['error'])} wrong of {percents(kept['coverage'])} answered ({kept['reached']} of {len(SEEDS)} "
        f"splits reach it, in {kept['above']} the error is greater)"
    )


def _reaches(kept: Result, least: float, n: int) -> Claim:
    return claim(
        f"With at most {ASKED:.0%} of the answers wrong, {least:.0%} of the questions or more can be answered.",
        f"Mean error over splits at most {ASKED} at a mean coverage of at least {least} (0 in splits out of reach); "
        f"{LEAST} test questions or more.",
        f"{_said(kept)}, n = {n} test questions or more in each split.",
        None if n < LEAST else bool(kept["error"]) and kept["error"][0] <= ASKED and kept["coverage"][0] >= least,
    )


def _transferred(result: Result) -> Claim:
    asked, kept, wrong = _pooled(result["transfer"][RISK][str(ASKED)])
    return claim(
        "A threshold holds for a relation that it was not found on.",
        f"Of the answers given in all relations, each at the threshold of the others, at most {ASKED:.0%} are wrong.",
        f"{_cell(asked, kept, wrong)} wrong, of {asked} questions.",
        wrong <= ASKED * kept if kept else None,
    )


def _zero(zero: Result | None) -> Claim:
    kept = zero and zero["kept"][RISK][str(ASKED)]
    return claim(
        f"Without examples an error of {ASKED:.0%} is out of reach.",
        "No split has a threshold that passes.",
        f"{_said(kept)}; {zero['wrong']:.1%} of {zero['n']} answers are wrong." if zero and kept else "Not asked.",
        not kept["reached"] if kept else None,
    )
