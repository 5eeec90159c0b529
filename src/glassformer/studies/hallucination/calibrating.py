"""Whether a risk means what it says: of a hundred answers with a risk of 0.3, are thirty wrong?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glassformer.factuality.calibration import Labelled
from glassformer.factuality.detection import auroc, brier_skill, ece, reliability
from glassformer.factuality.labelling import labelled
from glassformer.studies.hallucination.bench import SHOTS, Bench
from glassformer.studies.hallucination.splits import QUICK_SHARE, SEEDS, Around, Split, around, only, shown, splits_of
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

NAME = "calibration"
SHARE = 0.5
"""Of the answers, in the test part of a split."""

BINS = 10
MSP = "sequence probability"
NONE = "no score"

Risks = NDArray[np.float64]

RAW, BASE, ONE, SCORES, RELATION, ANSWER, BLIND = WAYS = (
    "1 − p(answer), as it is",
    "always the share that was wrong",
    "p(answer), calibrated",
    "all one-pass scores",
    "all scores and the relation",
    "all scores, relation and answer (the default)",
    "relation and answer, no score",
)

ECE_FLOOR, ECE_GOAL = 0.05, 0.03
SKILL_FLOOR, SKILL_GOAL = 0.10, 0.20
LEAST = 1500
"""With fewer test answers the ECE of a perfect risk comes near to what is allowed."""


def part(bench: Bench) -> Part:
    """The part of the study."""
    return Part(
        name=NAME,
        title="A risk that means what it says",
        question=(
            "A model's own probability of its answer is no risk: it says how usual the words are. Fitted to answers "
            "that were labelled, does a risk hold for questions about other entities? What is it worth beyond saying "
            "the same for every answer?"
        ),
        method=(
            f"Short factual questions of {len(bench.relations)} relations are put behind {SHOTS} examples and answered "
            f"greedily; an answer is right if it is one of the known ones, after normalising. Five splits by entity "
            f"(seeds {SEEDS[0]} to {SEEDS[-1]}, which nothing was chosen on): one half, or a little more at the scale "
            "quick, fits (of it again half makes the risk, the rest is kept for thresholds), the other tests. "
            f"ECE is over {BINS} bins of as many answers each; beside it stands what it would be if the same risks "
            "were exact, for answers drawn from them (Bröcker & Smith 2007). Brier skill is what the Brier "
            "score is better than that of the constant share of wrong test answers. Means over the splits, intervals "
            "by drawing entities."
        ),
        run=lambda setting: _run(bench, setting),
        draw=_draw,
        tables=_tables,
        claims=_claims,
    )


def _run(bench: Bench, setting: Setting) -> Result:
    questions = bench.relation_questions(setting)
    answered = bench.answered(questions, bench.asking(questions), setting)
    return measured(labelled(answered), setting.pick(SHARE, QUICK_SHARE, SHARE), setting.say)


def measured(given: Labelled, share: float = SHARE, say: Callable[[str], None] = lambda line: None) -> Result:
    """All figures of the part, from answers that were labelled."""
    splits = splits_of(given, share)
    risks = {way: [risk_of(way, split) for split in splits] for way in WAYS}
    say("   fitted; drawing entities")
    return {
        "n": len(given),
        "entities": len(set(given.entities)),
        "wrong": float(np.mean(given.wrong)),
        "relations": dict(Counter(one.relation for one in given.questions)),
        "fitting": [len(split.fitting) for split in splits],
        "test": [len(split.test) for split in splits],
        "figures": {way: _figures(way, each, splits) for way, each in risks.items()},
        "against raw": _difference(ece, risks[RAW], risks[ANSWER], splits),
        "answer helps": _difference(brier_skill, risks[ANSWER], risks[SCORES], splits),
        "scores help": _difference(brier_skill, risks[ANSWER], risks[BLIND], splits),
        "bins": {way: [_bins(each, split) for each, split in zip(risks[way], splits, strict=True)] for way in DRAWN},
    }


def risk_of(way: str, split: Split) -> Risks:
    """The risk of every test answer, in one of the `WAYS`."""
    test = split.test
    if way == RAW:
        return -np.expm1(-np.asarray(test.scores[MSP], dtype=np.float64))
    if way == BASE:
        return np.full(len(test), np.mean(split.fitting.wrong))
    if way == ONE:
        return split.fit([MSP], "scores").probabilities(only(test, [MSP]))
    if way == BLIND:
        nothing = Split(split.seed, without_scores(split.fitting), without_scores(test), split.rows, split.entities)
        return nothing.fit().probabilities(nothing.test)
    features: Mapping[str, Any] = {SCORES: "scores", RELATION: "relation", ANSWER: "answer"}
    return split.fit(features=features[way]).probabilities(test)


def without_scores(given: Labelled) -> Labelled:
    """The labels with a score that is the same for all."""
    return Labelled(given.questions, {NONE: [0.0] * len(given)}, given.wrong, given.texts)


def _figures(way: str, risks: Sequence[Risks], splits: Sequence[Split]) -> dict[str, Around | float]:
    order = [auroc(each, split.wrong) for each, split in zip(risks, splits, strict=True)]
    return {
        "ece": around(lambda i, rows: ece(risks[i][rows], splits[i].wrong[rows], BINS), splits),
        "skill": around(lambda i, rows: brier_skill(risks[i][rows], splits[i].wrong[rows]), splits),
        "auroc": float(np.mean(order)),
        "perfect": float(np.mean([perfect(each) for each in risks])),
    }


def perfect(risks: Risks, draws: int = 100) -> float:
    """The mean ECE of these risks where every one is exactly right, whatever is drawn: what so few answers give."""
    draw = np.random.default_rng(0)
    return float(np.mean([ece(risks, (draw.random(len(risks)) < risks).astype(float), BINS) for _ in range(draws)]))


def _difference(
    metric: Callable[[Any, Any], float], more: Sequence[Risks], less: Sequence[Risks], splits: Sequence[Split]
) -> Around:
    def figure(i: int, rows: Any) -> float:
        wrong = splits[i].wrong[rows]
        return metric(more[i][rows], wrong) - metric(less[i][rows], wrong)

    return around(figure, splits)


DRAWN = {RAW: "C3", ONE: "C1", ANSWER: "C0"}


def _bins(risks: Risks, split: Split) -> list[list[float]]:
    return [[each.probability, each.share] for each in reliability(risks, split.wrong, BINS)]


# --- Showing ----------------------------------------------------------------------------------------------------------


def _draw(result: Result, folder: Path) -> Sequence[Picture]:
    figure = matplotlib_figure(6.2, 5.2)
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="what is said is what happens")
    for way, colour in DRAWN.items():
        bins = np.array(result["bins"][way])
        ax.plot(*bins.reshape(-1, 2).T, ".", color=colour, alpha=0.3, markersize=4)
        ax.plot(*bins.mean(0).T, marker="o", color=colour, label=way)
    ax.set(xlabel="risk that was stated", ylabel="share that was wrong", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    n = f"{min(result['test'])} to {max(result['test'])}"
    caption = (
        f"Stated risk and what happened, in {BINS} bins of as many test answers each (n = {n} a split, about entities "
        f"that nothing was fitted on). Small points: the {len(SEEDS)} splits; lines: their means."
    )
    return [save_figure(figure, folder, NAME, caption)]


def _tables(result: Result) -> Sequence[Table]:
    rows = tuple(
        (way, shown(each["ece"]), f"{each['perfect']:.3f}", shown(each["skill"]), f"{each['auroc']:.3f}")
        for way, each in result["figures"].items()
    )
    n = f"{result['n']} answers about {result['entities']} entities, {result['wrong']:.1%} of them wrong"
    columns = ("risk", f"ECE, {BINS} bins", "ECE if it were exact", "Brier skill", "AUROC")
    asked = tuple((name, str(count)) for name, count in result["relations"].items())
    sizes = f"fitted on {min(result['fitting'])} to {max(result['fitting'])}, tested on {_least(result)} or more"
    return [
        Table(f"Calibration: {n}; {sizes}; means of {len(SEEDS)} splits, 95 % intervals", columns, rows),
        Table("Questions", ("relation", "questions"), asked),
    ]


def _least(result: Result) -> int:
    return int(min(result["test"]))


def _claims(result: Result) -> Sequence[Claim]:
    own, raw = result["figures"][ANSWER], result["figures"][RAW]
    error, skill = own["ece"][0], own["skill"][0]
    kept = f"ECE {shown(own['ece'])}, Brier skill {shown(own['skill'])}, n = {_least(result)} test answers or more."
    enough = f"{LEAST} test answers or more"
    beyond = "The 95 % interval of the paired difference in Brier skill lies above 0."
    return [
        claim(
            "A calibrated risk means what it says for entities it has not seen, and says more than the base rate.",
            f"Mean ECE at most {ECE_FLOOR} and mean Brier skill at least {SKILL_FLOOR}; {enough}.",
            kept,
            error <= ECE_FLOOR and skill >= SKILL_FLOOR if _least(result) >= LEAST else None,
        ),
        claim(
            "It does so closely, and says much more.",
            f"Mean ECE at most {ECE_GOAL} and mean Brier skill at least {SKILL_GOAL}; {enough}.",
            kept,
            error <= ECE_GOAL and skill >= SKILL_GOAL if _least(result) >= LEAST else None,
        ),
        claim(
            "The probability of an answer is no risk as it is.",
            "The 95 % interval of its ECE less that of the calibrated risk lies above 0.",
            f"ECE {shown(raw['ece'])}, by {shown(result['against raw'])} greater; Brier skill {shown(raw['skill'])}.",
            result["against raw"][1] > 0,
        ),
        claim(
            "It helps to know what was asked and what was answered, beside how unsure the model was.",
            beyond,
            f"{shown(result['answer helps'])} over all scores alone.",
            result["answer helps"][1] > 0,
        ),
        claim(
            "How unsure the model was tells something that what was asked and answered does not.",
            beyond,
            f"{shown(result['scores help'])} over relation and answer without any score.",
            result["scores help"][1] > 0,
        ),
    ]
