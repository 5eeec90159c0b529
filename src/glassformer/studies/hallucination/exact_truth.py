"""Exact truth: a GPT that was trained on people, asked about them and about people it never read of. Who is known is
known exactly: does the model's uncertainty tell the two apart, and do its probabilities?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glassformer.errors import InputError
from glassformer.factuality.detection import ece, reliability, with_interval
from glassformer.factuality.uncertainty import ONE_PASS
from glassformer.studies.fact_recall.drawing import Band, bands
from glassformer.studies.fact_recall.statistics import mean_interval, shown
from glassformer.studies.hallucination.bench import Bench
from glassformer.studies.hallucination.known_people import (
    BASELINES,
    PROBE,
    QUESTION,
    TARGETS,
    Scored,
    Told,
    area,
    ask_people,
    difference,
    halves,
    plain,
    score_all,
)
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
from glassformer.tasks.intervals import Interval
from glassformer.tasks.model import load
from glassformer.text.people import ATTRIBUTES
from glassformer.training.jobs.language import people_of
from glassformer.training.runs import Run

RECIPE = "glassformer train recipes/athletes-gpt.toml"
ALL = "together"
CLEAR = 0.8
"""An AUROC above this is called a clear sign."""
OVER, CALIBRATED = 0.1, 0.05
MADE_UP = ("colour", "city")
BINS = 10

Around = list[float] | None


def part(bench: Bench) -> Part:
    """The part of the study."""
    return Part(
        name="truth",
        title="Where the truth is exact",
        question=(
            "Elsewhere nobody can say what a model has read. Here a small GPT was trained on people of a list, and "
            "others were held out. It answers about both with the same ease. Does it tell, by any sign, whom it knows? "
            "And how sure is it of what it makes up?"
        ),
        method=(
            "The GPT of recipes/athletes-gpt.toml completes sentences about a person's sport, favourite colour and "
            "city, in wordings held out of its training, greedily. Colours (10) and cities (100) were drawn by a hash: "
            "of people who were held out nobody can know them, and who is right is so by chance; this is counted as "
            "“never seen” all the same. Sports (3) are real, and names tell something of them. Half of the people (of "
            "each kind) serve to choose the best score and layers, and to fit probes; all figures of scores are of the "
            "other half, with 95 % intervals over people. AUROC 0.5 is chance. The truth probe reads the state after "
            "the answer, fitted to right and wrong answers; the question probe reads the state before it. Who is held "
            "out was drawn by a hash of the name, but the tokenizer was made of the training's names: so two baselines "
            "see the name alone, how many tokens it has and which ones."
        ),
        run=lambda setting: _run(bench, setting),
        draw=_draw,
        tables=_tables,
        claims=_claims,
    )


# --- Measuring --------------------------------------------------------------------------------------------------------


def _run(bench: Bench, setting: Setting) -> Result:
    if bench.athletes is None:
        raise InputError(f"exact truth needs the GPT that was trained on people: {RECIPE}, then --athletes RUN.")
    recipe = Run.open(bench.athletes).recipe
    if recipe.data.kind != "people":
        raise InputError(f"{bench.athletes} was not trained on people: give the run of {RECIPE}.")
    model, people = load(str(bench.athletes)), people_of(recipe.data, bench.data_root)
    told = ask_people(
        model, people, setting.pick(40, 300, 1000), bench.seed, say=lambda line: setting.say(f"   {line}")
    )
    first, second = halves(told, bench.seed)
    setting.say("   scores and probes")
    scored = score_all(model, first, second)
    setting.say("   intervals")
    return {
        "people": {name: len({one.person for one in second if one.known == known}) for name, known in KINDS.items()},
        "answers": answers_of(told),
        **figures(scored, second, setting.pick(2, 10, 10), setting.pick(50, 200, 500)),
    }


KINDS = {"known": True, "never seen": False}


def answers_of(told: Sequence[Told]) -> dict[str, Any]:
    """Of each attribute and kind of people: the share of right answers, what probability the model gives its answers,
    and how these agree. Everybody counts, for nothing was fitted."""
    found: dict[str, Any] = {}
    for attribute in ATTRIBUTES:
        for kind, known in KINDS.items():
            group = [one for one in told if one.attribute == attribute and one.known == known]
            found.setdefault(attribute, {})[kind] = calibrated(group)
    return found


def calibrated(group: Sequence[Told]) -> dict[str, Any]:
    """The raw probability of the answers (the product of their tokens') against whether they are right; one answer a
    person. `over` is the mean probability less the share of right ones."""
    probabilities = [math.exp(-ONE_PASS["sequence probability"].function(one.record)) for one in group]
    right = [float(one.right) for one in group]
    over = [p - r for p, r in zip(probabilities, right, strict=True)]
    return {
        "n": len(group),
        "right": _mean(right),
        "probability": _mean(probabilities),
        "over": _mean(over),
        "sure": _mean([float(p > 0.5) for p in probabilities]),
        "ece": plain(with_interval(ece, probabilities, right)),
        "bins": [[each.probability, each.share, each.n] for each in reliability(probabilities, right, BINS)],
    }


def _mean(values: Sequence[float]) -> list[float]:
    value, around = mean_interval(values)
    return [value, around.low, around.high]


def figures(scored: Scored, told: Sequence[Told], least: int, resamples: int) -> dict[str, Any]:
    """AUROC of every score for every target, each attribute apart and all together; the differences that the claims are
    about; and the values of the best score, to be drawn."""
    rows = {name: [row for row, one in enumerate(told) if name in (one.attribute, ALL)] for name in ATTRIBUTES}
    rows[ALL] = list(range(len(told)))
    areas: dict[str, Any] = {}
    for target in TARGETS:
        for name, chosen in rows.items():
            part = [told[row] for row in chosen]
            areas.setdefault(target, {})[name] = {
                score: area(values[chosen], part, target, least, resamples) for score, values in scored.scores.items()
            }
    best = scored.scores[scored.best]
    plainest = _plainest(areas["never seen"][ALL])
    differences = {"baseline": difference(best, scored.scores[plainest], told, "never seen", least, resamples)}
    for name, target in ((PROBE, "wrong"), (QUESTION, "never seen")):
        if name in scored.scores:
            other = best if name == PROBE else scored.scores[plainest]
            differences[name] = difference(scored.scores[name], other, told, target, least, resamples)  # type: ignore[arg-type]
    return {
        "best": scored.best,
        "plainest": plainest,
        "layers": dict(scored.layers),
        "missing": scored.missing,
        "areas": areas,
        "differences": differences,
        "values": {
            name: {
                kind: [round(float(best[row]), 4) for row in rows[name] if told[row].known == known]
                for kind, known in KINDS.items()
            }
            for name in ATTRIBUTES
        },
    }


def _plainest(areas: Mapping[str, Around]) -> str:
    """The baseline that tells most on the very answers that are reported: the hardest to beat."""
    found = {name: around for name, around in areas.items() if name in BASELINES and around is not None}
    return max(found, key=lambda name: found[name][0], default=BASELINES[0])


# --- Showing ----------------------------------------------------------------------------------------------------------


def _tables(result: Result) -> list[Table]:
    tables = []
    people = " and ".join(f"{count} {kind}" for kind, count in result["people"].items())
    for target, about in TARGETS.items():
        found = result["areas"][target]
        rows = [
            (_named(result, score), *(_shown(found[name][score]) for name in found))
            for score in found[ALL]
            if any(found[name][score] for name in found)
        ]
        if rows:
            tables.append(Table(f"AUROC [95 %]: {about}; {people} people", ("score", *found), tuple(rows)))
    return [_answers_table(result), *tables]


def _named(result: Result, score: str) -> str:
    notes = [f"layer {result['layers'][score]}"] if score in result["layers"] else []
    notes += ["baseline"] if score in (*BASELINES, QUESTION) else []
    notes += ["chosen"] if score == result["best"] else []
    return f"{score} ({', '.join(notes)})" if notes else score


def _shown(around: Around) -> str:
    return "" if around is None else shown(*around)


def _answers_table(result: Result) -> Table:
    rows = [
        (
            attribute,
            kind,
            str(each["n"]),
            *(_shown([100 * value for value in each[key]]) for key in ("right", "probability", "sure")),
            _shown(each["ece"]),
        )
        for attribute, kinds in result["answers"].items()
        for kind, each in kinds.items()
    ]
    columns = ("attribute", "people", "n", "right, %", "mean probability, %", "probability above 0.5, %", "ECE")
    return Table("Answers, and how probable the model finds them [95 %]", columns, tuple(rows))


COLOURS = {"known": "C0", "never seen": "C3"}


def _draw(result: Result, folder: Path) -> list[Picture]:
    return [_distributions(result, folder), _areas(result, folder), _reliability(result, folder)]


def _distributions(result: Result, folder: Path) -> Picture:
    """The best score of known and of never-seen people, an attribute a panel."""
    figure = matplotlib_figure(9, 3.2)
    for axes, (name, kinds) in zip(figure.subplots(1, len(ATTRIBUTES)), result["values"].items(), strict=True):
        every = sorted(value for values in kinds.values() for value in values)
        span = (every[0], every[-1])
        for kind, values in kinds.items():
            shares = [1 / len(values)] * len(values)
            axes.hist(values, bins=30, range=span, weights=shares, color=COLOURS[kind], alpha=0.6, label=kind)
        found = result["areas"]["never seen"][name][result["best"]]
        axes.set_title(f"{name}: AUROC {_shown(found)}", fontsize=9)
        axes.set_xlabel(f"{result['best']} (less sure →)", fontsize=8)
        axes.tick_params(labelsize=8)
    axes.legend(fontsize=8)
    figure.supylabel("share of the people", fontsize=9)
    counts = ", ".join(f"n = {count} {kind}" for kind, count in result["people"].items())
    caption = f"How unsure the GPT is about people of its training and about people it never read of ({counts})."
    return save_figure(figure, folder, "truth_distributions", caption)


def _areas(result: Result, folder: Path) -> Picture:
    groups = {
        target: [
            Band(score, around[0], Interval(*around[1:]))
            for score, around in result["areas"][target][ALL].items()
            if around
        ]
        for target in ("never seen", "wrong")
    }
    caption = (
        "AUROC of every score, all attributes together, with 95 % intervals over people: never-seen people against "
        f"known ones, and wrong answers against right ones; {_people(result)} people. Dashed: chance."
    )
    return bands(folder, "truth_scores", groups, caption, "AUROC", {"--": 0.5})


def _reliability(result: Result, folder: Path) -> Picture:
    """The share of right answers over the probability that the model gave them."""
    figure = matplotlib_figure(9, 3.4)
    for axes, (name, kinds) in zip(figure.subplots(1, len(ATTRIBUTES)), result["answers"].items(), strict=True):
        axes.plot([0, 1], [0, 1], "--", color="0.6", lw=0.8)
        for kind, each in kinds.items():
            x, y, _ = zip(*each["bins"], strict=True)
            axes.plot(x, y, "o-", ms=4, lw=1, color=COLOURS[kind], label=f"{kind} (n = {each['n']})")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("probability of the answer", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=7)
    figure.supylabel("share of right answers", fontsize=9)
    caption = (
        f"What the GPT's raw probabilities are worth: {BINS} groups of as many answers each. On the dashed line they "
        "would mean what they say; below it the model is too sure."
    )
    return save_figure(figure, folder, "truth_reliability", caption)


# --- Claims -----------------------------------------------------------------------------------------------------------


def _claims(result: Result) -> list[Claim]:
    best = result["best"]
    return [
        _clear(result, f"A one-pass score tells whom the GPT knows from whom it never read of ({best}).", best),
        _beyond(
            result, "It tells more than the answer's length and the name do.", "baseline", "never seen",
            (best, result["plainest"]),
        ),
        _beyond(
            result, "A truth probe tells wrong answers better than the best one-pass score.", PROBE, "wrong",
            (PROBE, best),
        ),
        _clear(result, "It shows already before the answer, in what the model has read of the question.", QUESTION),
        _by_chance(result),
        _too_sure(result),
        _means_it(result),
    ]  # fmt: skip


def _clear(result: Result, text: str, score: str) -> Claim:
    rule = f"AUROC for never-seen against known people: the 95 % interval lies above {CLEAR} for each attribute."
    found = {name: result["areas"]["never seen"][name].get(score) for name in ATTRIBUTES}
    if None in found.values():
        return claim(text, rule, f"Not testable: {result['missing'] or 'too few answers'}", None)
    said = "; ".join(f"{name} {_shown(around)}" for name, around in found.items())
    return claim(text, rule, f"{said} ({_people(result)}).", all(around[1] > CLEAR for around in found.values()))


def _beyond(result: Result, text: str, key: str, target: str, pair: tuple[str, str]) -> Claim:
    rule = f"AUROC, all attributes together ({TARGETS[target]}): the 95 % interval of the difference lies above 0."  # type: ignore[index]
    found = result["differences"].get(key)
    if found is None:
        return claim(text, rule, f"Not testable: {result['missing'] or 'too few answers'}", None)
    first, second = (f"{name} {_shown(result['areas'][target][ALL][name])}" for name in pair)
    measured = f"{first} against {second}, difference {shown(*found, digits=3)} ({_people(result)})."
    return claim(text, rule, measured, found[1] > 0)


def _by_chance(result: Result) -> Claim:
    best = result["best"]
    found = result["areas"]["wrong, never seen"]["colour"][best]
    return claim(
        "What is right by luck cannot be told: which colours of never-seen people are right, the score does not know.",
        f"The 95 % interval of the AUROC of the chosen score ({best}) holds 0.5.",
        f"{_shown(found)} ({result['people']['never seen']} people)." if found else "Not testable: too few answers.",
        None if found is None else found[1] <= 0.5 <= found[2],
    )


def _too_sure(result: Result) -> Claim:
    found = {name: result["answers"][name]["never seen"] for name in MADE_UP}
    said = "; ".join(
        f"{name}: {100 * each['probability'][0]:.0f} % mean probability, {100 * each['right'][0]:.1f} % right, "
        f"difference {_shown(each['over'])}, n = {each['n']}"
        for name, each in found.items()
    )
    return claim(
        "It is too sure of what it makes up: colours and cities of people whom it never read of.",
        f"Mean probability less share of right answers: the 95 % interval lies above {OVER} for both.",
        f"{said}.",
        all(each["over"][1] > OVER for each in found.values()),
    )


def _means_it(result: Result) -> Claim:
    found = {name: kinds["known"] for name, kinds in result["answers"].items()}
    said = "; ".join(f"{name} {_shown(each['ece'])}, n = {each['n']}" for name, each in found.items())
    return claim(
        "About people whom it knows its raw probabilities mean what they say.",
        f"ECE in {BINS} bins of equal mass: the 95 % interval lies below {CALIBRATED} for each attribute.",
        f"{said}.",
        all(each["ece"][2] < CALIBRATED for each in found.values()),
    )


def _people(result: Result) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in result["people"].items())
