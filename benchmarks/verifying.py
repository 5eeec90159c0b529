"""Planted errors in hand-checked claims: how many `verify` finds, and how many true claims it doubts.

    python benchmarks/verifying.py [--part test] [--data-root DATA] [--cache FILE] [--json]
    python benchmarks/verifying.py --part development --fit [--cache FILE]

The claims are those of benchmarks/claims/claims.jsonl; the documents are the whole articles of the part, all of them
in one index. An error is found where `verify` does not support the statement: some value of it is contradicted or not
found. "The value alone" looks at the verdict of the planted value only. The peer looks for the
value's text in the article that the claim is about. `--fit` prints the weights of factuality/judging.py, from the
development part. With `--cache`, what the reader said is
kept, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from goals import ROOT, data_root

from glassformer.factuality import judging, verifying
from glassformer.factuality.documents import Documents
from glassformer.factuality.verifying import Verifier

CLAIMS = ROOT / "benchmarks" / "claims" / "claims.jsonl"
SQUAD = "squad_v1.1/dev-v1.1.rebuilt.json"
ALARMS = (0.02, 0.05, 0.10)
FACTS_AT_ONCE = 6
RESAMPLES = 2000
NOWHERE = -99.0

Claim = dict[str, Any]


def read_claims(part: str) -> list[Claim]:
    """The claims of a part."""
    lines = CLAIMS.read_text(encoding="utf-8").splitlines()
    return [claim for claim in map(json.loads, lines) if claim["part"] == part]


def articles(root: Path) -> dict[str, str]:
    """The text of every article."""
    data = json.loads((root / SQUAD).read_text(encoding="utf-8"))["data"]
    return {one["title"]: "\n\n".join(part["context"] for part in one["paragraphs"]) for one in data}


def judged(claims: Sequence[Claim], texts: Mapping[str, str], reader: str, cache: Path | None) -> list[list[Claim]]:
    """For each claim, what was seen of each of its values; see `judging.Judged`."""
    kept: dict[str, list[Claim]] = {}
    if cache is not None and cache.is_file():
        kept = {one["statement"]: one["values"] for one in map(json.loads, cache.read_text().splitlines())}
    todo = list(dict.fromkeys(claim["statement"] for claim in claims if claim["statement"] not in kept))
    if todo:
        titles = sorted({claim["article"] for claim in claims})
        verifier = Verifier(Documents.of_texts({title: texts[title] for title in titles}), reader)
        began = time.perf_counter()
        for place in range(0, len(todo), 3 * FACTS_AT_ONCE):
            part = todo[place : place + 3 * FACTS_AT_ONCE]
            for statement, own in zip(part, verifier.judge_all(part), strict=True):
                kept[statement] = [_record(one) for one in own]
                if cache is not None:
                    with cache.open("a", encoding="utf-8") as file:
                        file.write(json.dumps({"statement": statement, "values": kept[statement]}) + "\n")
            done = place + len(part)
            print(
                f"  {done} of {len(todo)} statements, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True
            )
    return [kept[claim["statement"]] for claim in claims]


def _record(one: judging.Judged) -> Claim:
    value, rival = one.claim.value, one.rival
    return {
        "text": value.text, "start": value.start, "end": value.end, "kind": value.kind, "features": one.features,
        "present": one.support is not None,
        "rival": rival.text if rival else None, "rival_score": rival.score if rival else judging.ABSENT,
    }  # fmt: skip


def score_of(value: Claim) -> float:
    """The score of a value by the weights in use; without an occurrence it cannot be supported."""
    if not value["present"]:
        return NOWHERE
    weights = judging.WEIGHTS
    return weights["bias"] + sum(weights[name] * number for name, number in value["features"].items())


def is_target(claim: Claim, value: Claim) -> bool:
    """Whether a value is the one that was planted, or in a true claim the answer."""
    return bool(value["start"] < claim["end"] and claim["start"] < value["end"])


def scores(claims: Sequence[Claim], found: Sequence[Sequence[Claim]], whole: bool) -> np.ndarray:
    """The least score of a claim's values, or that of the planted one; the least of all where nothing was seen."""
    return np.array(
        [
            min((score_of(value) for value in values if whole or is_target(claim, value)), default=NOWHERE)
            for claim, values in zip(claims, found, strict=True)
        ]
    )


def string_match(claims: Sequence[Claim], texts: Mapping[str, str]) -> np.ndarray:
    """The peer: 1 where the value's text stands in the article, else −1."""
    there = [
        claim["statement"][claim["start"] : claim["end"]].lower() in texts[claim["article"]].lower() for claim in claims
    ]
    return np.where(there, 1.0, -1.0)


def rates(claims: Sequence[Claim], values: np.ndarray, threshold: float) -> dict[str, Any]:
    """The share of each kind of claims that scores below the threshold, with its n and its interval by article."""
    labels = np.array([claim["label"] for claim in claims])
    titles = np.array([claim["article"] for claim in claims])
    result: dict[str, Any] = {"threshold": threshold}
    for label in ("true", "a", "b"):
        chosen = labels == label
        low, high = by_article(values[chosen] < threshold, titles[chosen])
        result[label] = {
            "share": float(np.mean(values[chosen] < threshold)), "n": int(chosen.sum()), "low": low, "high": high,
        }  # fmt: skip
    return result


def by_article(flags: np.ndarray, titles: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a share, by drawing whole articles."""
    names = sorted(set(titles))
    sums = np.array([[flags[titles == name].sum(), (titles == name).sum()] for name in names])
    drawn = np.random.default_rng(0).integers(0, len(names), (RESAMPLES, len(names)))
    totals = sums[drawn].sum(1)
    low, high = np.quantile(totals[:, 0] / totals[:, 1], [0.025, 0.975])
    return float(low), float(high)


def threshold_for(claims: Sequence[Claim], values: np.ndarray, alarms: float) -> float:
    """The greatest threshold at which at most a share of the true claims is doubted."""
    true = np.sort(values[[claim["label"] == "true" for claim in claims]])
    return float(true[int(alarms * len(true))])


def contradictions(claims: Sequence[Claim], found: Sequence[Sequence[Claim]]) -> dict[str, Any]:
    """Of the planted values that are not supported: how many are contradicted, and by the right value."""
    counts: Counter[str] = Counter()
    for claim, values in zip(claims, found, strict=True):
        for value in values:
            if claim["label"] != "true" and is_target(claim, value) and score_of(value) < verifying.SUPPORTED:
                counts["found"] += 1
                if value["rival_score"] >= verifying.CONTRADICTED:
                    counts["contradicted"] += 1
                    bare = claim["right"].lower().removeprefix("the ")
                    counts["by the right value"] += bare in value["rival"].lower() or value["rival"].lower() in bare
    return dict(counts)


def report(claims: Sequence[Claim], found: Sequence[Sequence[Claim]], texts: Mapping[str, str]) -> dict[str, Any]:
    """All figures."""
    whole, alone = scores(claims, found, True), scores(claims, found, False)
    match = string_match(claims, texts)
    result: dict[str, Any] = {
        "whole statement": rates(claims, whole, verifying.SUPPORTED),
        "the value alone": rates(claims, alone, verifying.SUPPORTED),
        "string match in the article": rates(claims, match, 0.0),
        "contradictions": contradictions(claims, found),
        "curve": {},
    }
    for name, values in (("whole statement", whole), ("the value alone", alone)):
        result["curve"][name] = [rates(claims, values, threshold_for(claims, values, alarms)) for alarms in ALARMS]
    kinds = defaultdict(list)
    for place, claim in enumerate(claims):
        kinds[claim["kind"]].append(place)
    result["by kind"] = {
        kind: rates([claims[place] for place in places], whole[places], verifying.SUPPORTED)
        for kind, places in sorted(kinds.items())
    }
    return result


def lines(result: Mapping[str, Any]) -> list[str]:
    """The report for people."""

    def row(name: str, one: Mapping[str, Any]) -> str:
        cells = [
            f"{label} {100 * one[key]['share']:.1f} % ({100 * one[key]['low']:.1f} to {100 * one[key]['high']:.1f}, "
            f"n = {one[key]['n']})"
            for label, key in (("false alarms", "true"), ("(a) found", "a"), ("(b) found", "b"))
        ]
        return f"  {name:<28} {'; '.join(cells)}"

    found = ["At the package's threshold, 95 % intervals by article:"]
    found += [row(name, result[name]) for name in ("whole statement", "the value alone", "string match in the article")]
    found += [row(kind, one) for kind, one in result["by kind"].items()]
    found.append("At the thresholds that these claims themselves give for 2, 5 and 10 % false alarms:")
    found += [row(name, one) for name, curve in result["curve"].items() for one in curve]
    found.append(f"Planted values not supported: {result['contradictions']}")
    return found


def fit(claims: Sequence[Claim], found: Sequence[Sequence[Claim]]) -> None:
    """Weights by logistic regression: all values of true claims against the planted ones. They are printed and used."""
    from sklearn.linear_model import LogisticRegression

    names = [name for name in judging.WEIGHTS if name != "bias"]
    rows, right = [], []
    for claim, values in zip(claims, found, strict=True):
        for value in values:
            if claim["label"] == "true" or is_target(claim, value):
                rows.append([value["features"][name] for name in names])
                right.append(claim["label"] == "true")
    model = LogisticRegression(max_iter=10_000).fit(np.array(rows), np.array(right))
    judging.WEIGHTS.update(
        {"bias": float(model.intercept_[0])} | dict(zip(names, map(float, model.coef_[0]), strict=True))
    )
    # The bias is moved so that the score 0 doubts as many true statements as are allowed.
    judging.WEIGHTS["bias"] -= threshold_for(claims, scores(claims, found, True), ALLOWED)
    print({name: round(value, 3) for name, value in judging.WEIGHTS.items()})


ALLOWED = 0.02
"""The share of the development part's true statements that may be doubted."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["development", "test"], default="test")
    parser.add_argument("--reader", default="squad-minilm")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    root = data_root(given.data_root)
    if root is None:
        raise SystemExit("error: no data; give --data-root (docs/data.md says where it is from).")
    if given.fit and given.part != "development":
        raise SystemExit("error: what is fitted is fitted on the development part; give --part development.")
    claims, texts = read_claims(given.part), articles(root)
    found = judged(claims, texts, given.reader, given.cache)
    if given.fit:
        fit(claims, found)
    result = {"part": given.part, "reader": given.reader, **report(claims, found, texts)}
    print(json.dumps(result, indent=2) if given.json else "\n".join(lines(result)))


if __name__ == "__main__":
    main()
