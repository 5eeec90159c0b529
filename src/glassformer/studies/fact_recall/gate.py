"""Which facts the model knows, and which of them are studied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from glassformer.errors import InputError
from glassformer.interpret.gate import Gate, answer_ids, measure, next_tokens
from glassformer.studies.fact_recall.predictions import CLASSES, IN_CLASS, KNOWN
from glassformer.studies.fact_recall.stages import Material
from glassformer.studies.study import Claim, Part, Picture, Result, Setting, Table, claim

NAME = "gate"

QUICK = 2
"""At the scale `quick` at most so many times the limit of facts are asked."""


def part(material: Material) -> Part:
    """The first part of a study."""
    label = material.label
    return Part(
        name=material.prefix + NAME,
        title=f"{label.capitalize()}: what the model knows" if label else "What the model knows",
        question=(
            "Only what a model knows can be seen being recalled. And it must know it by the name: not guess the most "
            "frequent answer, nor say the same of names that nobody has."
        ),
        method=(
            "A fact is known if, after its prompt, the first token of the right answer is the likeliest of all. "
            f"Answers with fewer than {IN_CLASS} known facts are left out, with all their facts. Of the others all "
            "facts are asked, and the same prompts about made-up names of the same shape. The gate is passed if the "
            "mean over answers of the shares known is, by the low end of its 95 % interval, above the share of the "
            "most frequent answer and above what made-up names get. Facts whose answer, or its stem, is in the name "
            "are left out. Of the known facts, one a subject, as many of each answer are drawn as the limit allows."
        ),
        run=lambda setting: _run(material, setting),
        draw=_draw,
        tables=_tables,
        claims=_claims,
    )


def _run(material: Material, setting: Setting) -> Result:
    asked, least = _asked(material, setting), thresholds(setting)
    setting.say(f"   asking {len(asked)} facts, then those of answers known often, and made-up names")
    try:
        rows = _often_known(material, asked, least[1])
        known, gate = measure(material.model, material.asked.take(rows)) if rows else ([], None)
    except InputError as error:
        return {"missing": str(error), "rows": [], "n": len(asked)}
    if gate is None:
        return {"missing": f"no answer has {least[1]} known facts", "rows": [], "n": len(asked)}
    chosen, why = choose(material, [rows[row] for row in known], gate, least)
    setting.say(f"   {len(known)} of {gate.n} known" + (f": not testable, {why}" if why else f", {len(chosen)} taken"))
    classes = Counter(material.asked[row].answer for row in chosen)
    return {
        "n": len(asked), "known": len(known), "gate": _plain(gate), "text": str(gate), "passed": gate.passed,
        "rows": chosen, "classes": dict(classes), "missing": why, "example": material.asked[asked[0]].prompt,
    }  # fmt: skip


def _often_known(material: Material, asked: Sequence[int], least: int) -> list[int]:
    """The facts, known or not, of those answers that have at least so many known facts."""
    facts = material.asked.take(asked)
    pairs = zip(next_tokens(material.model, facts.prompts), answer_ids(material.model, facts), strict=True)
    known = Counter(fact.answer for fact, (token, right) in zip(facts, pairs, strict=True) if token == right)
    return [row for row in asked if known[material.asked[row].answer] >= least]


def _plain(gate: Gate) -> dict[str, Any]:
    """The gate as plain values."""
    numbers = asdict(gate)
    for name in ("interval", "balanced_interval", "made_up_interval"):
        numbers[name] = list(numbers[name].values())
    return numbers


def thresholds(setting: Setting) -> tuple[int, int]:
    """How many facts must be known, and of a class; fewer where a study only shows that it runs."""
    return setting.pick((8, 3), (24, 8), (KNOWN, IN_CLASS))


def choose(material: Material, known: Sequence[int], gate: Gate, least: tuple[int, int]) -> tuple[list[int], str]:
    """The facts to study, of those known: one a subject, of classes of at least so many, as many of each as the limit
    allows. Or none, and why it cannot be tested."""
    facts = material.asked
    single = list({facts[row].subject: row for row in reversed(known)}.values())[::-1]
    counts = Counter(facts[row].answer for row in single)
    classes = sorted(name for name, count in counts.items() if count >= least[1])
    if len(single) < least[0]:
        return [], f"the model knows {len(single)} of these facts, {least[0]} are needed"
    if len(classes) < CLASSES:
        return [], f"{len(classes)} answers have {least[1]} known facts or more, {CLASSES} are needed"
    if not gate.passed:
        return [], "the gate is not passed: guessing, or made-up names, come too near to what the model knows"
    each = max(1, material.limit // len(classes))
    draw = Random(f"study {material.seed}")
    chosen: list[int] = []
    for name in classes:
        rows = [row for row in single if facts[row].answer == name]
        chosen += draw.sample(rows, min(each, len(rows)))
    return sorted(chosen), ""


def _asked(material: Material, setting: Setting) -> list[int]:
    """All facts; at smaller scales some of them, drawn by the seed."""
    count = len(material.asked)
    most = setting.pick(count, min(count, QUICK * material.limit), count)
    return sorted(Random(f"asked {material.seed}").sample(range(count), most))


def _draw(result: Result, folder: Path) -> Sequence[Picture]:
    return []


def _tables(result: Result) -> Sequence[Table]:
    if "gate" not in result:
        return []
    studied = result["classes"]
    rows = tuple(
        (name, str(asked), str(known), str(studied.get(name, 0)))
        for name, (known, asked) in sorted(result["gate"]["classes"].items(), key=lambda each: -each[1][0])
    )
    said = tuple((line, "") for line in (f"An example: {result['example']!r}", *result["text"].splitlines()))
    return [
        Table("The gate", ("what", ""), said),
        Table("Facts by their answers", ("answer", "asked", "known", "studied"), rows),
    ]


def _claims(result: Result) -> Sequence[Claim]:
    return [
        claim(
            "The model knows enough facts of this kind, by their names, to be studied.",
            f"At least {KNOWN} facts known, {CLASSES} answers with {IN_CLASS} of them, and the gate is passed (fewer "
            "at smaller scales).",
            result["missing"] or f"{result['known']} of {result['n']} known; {len(result['rows'])} are studied.",
            not result["missing"] or None,
        )
    ]
