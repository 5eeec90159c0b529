"""From all tests of a study to its verdicts: one correction for all of them, then each prediction's rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from glassformer.studies.fact_recall.predictions import PREDICTIONS
from glassformer.studies.fact_recall.statistics import ALPHA, holm
from glassformer.studies.running import Done
from glassformer.studies.study import Claim, Result, Verdict, claim

RULE = f"p < {ALPHA} (corrected by Holm for all tests of the study), and the 95 % interval lies above 0."


def judged(done: Sequence[Done]) -> list[Done]:
    """The parts of a study with the claims of their tests, corrected for the number of all that could be made."""
    found = {
        f"{each.part.name}: {test['name']}": float(test["p"])
        for each in done
        if each.result is not None
        for test in each.result.get("tests", [])
        if not test["missing"]
    }
    corrected = holm(found)
    return [_with(each, corrected) for each in done]


def _with(done: Done, corrected: Mapping[str, float]) -> Done:
    """The part with the claims of its tests behind its own."""
    if done.result is None or "tests" not in done.result:
        return done
    own, name = done.part.claims, done.part.name

    def both(result: Result) -> list[Claim]:
        return [*own(result), *claims(name, result, corrected)]

    return Done(replace(done.part, claims=both), done.result, done.seconds, done.missing)


def claims(part: str, result: Result, corrected: Mapping[str, float]) -> list[Claim]:
    """The stage as a whole, then each of its predictions."""
    each = [_claim(test, corrected.get(f"{part}: {test['name']}")) for test in result["tests"]]
    titles = {PREDICTIONS[test["name"]].part for test in result["tests"]} & set(_WHOLE)
    return [*(_whole(title, each) for title in titles), *each]


def _whole(title: str, each: Sequence[Claim]) -> Claim:
    holds = {"supported": True, "not supported": False, "not testable here": None}[together(each)]
    counted = ", ".join(
        f"{sum(one.verdict == verdict for one in each)} {verdict}"
        for verdict in ("supported", "not supported", "not testable here")
        if any(one.verdict == verdict for one in each)
    )
    return claim(_WHOLE[title], "All predictions of this part are supported.", f"{counted}.", holds)


def together(each: Sequence[Claim]) -> Verdict:
    """Supported if all are; not supported if one is not; else not testable."""
    verdicts = {one.verdict for one in each}
    if "not supported" in verdicts:
        return "not supported"
    return "supported" if verdicts == {"supported"} else "not testable here"


def _claim(test: Mapping[str, object], p: float | None) -> Claim:
    prediction = PREDICTIONS[str(test["name"])]
    text = f"{prediction.text} ({prediction.source})"
    if test["missing"] or p is None:
        return claim(text, prediction.rule, f"Not testable: {test['missing']}.", None)
    low, high = float(str(test["low"])), float(str(test["high"]))
    measured = (
        f"{test['measured']}; statistic {float(str(test['estimate'])):.3f} [{low:.3f}, {high:.3f}], n = {test['n']}, "
        f"p = {float(str(test['p'])):.4f}, corrected {p:.4f}."
    )
    return claim(text, prediction.rule, measured, p < ALPHA and low > 0)


_WHOLE = {
    "concatenation": "Early layers gather the parts of a name at its last token.",
    "lookup": "Feed-forwards turn the name into its attributes.",
    "neurons": "Neurons that serve these facts can be told from others.",
    "extraction": "Attention heads carry the asked attribute from the name to the end.",
    "distributed": "Recall is distributed, not the work of a few neurons.",
}
