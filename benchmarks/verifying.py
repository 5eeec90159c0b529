"""Planted errors in hand-checked claims: how many `verify` finds, and how many true claims it doubts.

    python benchmarks/verifying.py [--part test] [--data-root DATA] [--cache FILE] [--json]
    python benchmarks/verifying.py --part development --fit [--cache FILE]

The claims are those of benchmarks/claims/claims.jsonl; the documents are the whole articles of the part, all of them
in one index. An error is found where `verify` does not support the statement: some value of it is contradicted or not
found, or the quotes are not about its words. "The value alone" looks at the verdict of the planted value only. The peer
looks for the value's text in the article that the claim is about. `--fit` prints the weights of factuality/judging.py,
from the development part. With `--cache`, what the reader said is kept, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from goals import data_root

from glassformer.factuality import judging, verifying
from glassformer.studies.hallucination.planted import (
    SQUAD,
    Claim,
    Numbers,
    Seen,
    articles,
    claims_file,
    is_target,
    rates,
    read_claims,
    score_of,
    scores,
    seen_of,
    string_match,
)

ALARMS = (0.02, 0.05, 0.10)
ALLOWED = 0.01
"""The share of the development part's true statements that may be doubted, by weights of the other articles."""


def threshold_for(claims: Sequence[Claim], values: Numbers, alarms: float) -> float:
    """The greatest threshold at which at most a share of the true claims is doubted."""
    true = np.sort(values[[claim["label"] == "true" for claim in claims]])
    return float(true[int(alarms * len(true))])


def contradictions(claims: Sequence[Claim], found: Sequence[Seen]) -> dict[str, Any]:
    """Of the planted values that are not supported: how many are contradicted, and by the right value."""
    counts: Counter[str] = Counter()
    for claim, values in zip(claims, found, strict=True):
        for value in values.values:
            if claim["label"] != "true" and is_target(claim, value) and score_of(value) < verifying.SUPPORTED:
                counts["found"] += 1
                if value["rival_score"] >= verifying.CONTRADICTED:
                    counts["contradicted"] += 1
                    bare = claim["right"].lower().removeprefix("the ")
                    counts["by the right value"] += bare in value["rival"].lower() or value["rival"].lower() in bare
    return dict(counts)


def report(claims: Sequence[Claim], found: Sequence[Seen], texts: Mapping[str, str]) -> dict[str, Any]:
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


def fit(claims: Sequence[Claim], found: Sequence[Seen]) -> None:
    """Weights by logistic regression: all values of true claims against the planted ones. They are printed and used.

    The bias is moved so that the score 0 doubts as many true statements as are allowed, where each article's are judged
    by weights from the others.
    """
    titles = np.array([claim["article"] for claim in claims])
    left_out = np.zeros(len(claims))
    for title in sorted(set(titles)):
        own = np.flatnonzero(titles == title)
        others = np.flatnonzero(titles != title)
        judging.WEIGHTS.update(weights_of([claims[row] for row in others], [found[row] for row in others]))
        left_out[own] = scores([claims[row] for row in own], [found[row] for row in own], True)
    judging.WEIGHTS.update(weights_of(claims, found))
    judging.WEIGHTS["bias"] -= threshold_for(claims, left_out, ALLOWED)
    print({name: round(value, 3) for name, value in judging.WEIGHTS.items()})


def weights_of(claims: Sequence[Claim], found: Sequence[Seen]) -> dict[str, float]:
    """The log-odds that a value is right."""
    from sklearn.linear_model import LogisticRegression

    names = [name for name in judging.WEIGHTS if name != "bias"]
    rows, right = [], []
    for claim, seen in zip(claims, found, strict=True):
        for value in seen.values:
            if claim["label"] == "true" or is_target(claim, value):
                rows.append([value["features"][name] for name in names])
                right.append(claim["label"] == "true")
    model = LogisticRegression(max_iter=10_000).fit(np.array(rows), np.array(right))
    return {"bias": float(model.intercept_[0])} | dict(zip(names, map(float, model.coef_[0]), strict=True))


def told(line: str) -> None:
    """A line of progress, beside the report."""
    print(f"  {line}", file=sys.stderr, flush=True)


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
    claims, texts = read_claims(given.part, claims_file()), articles(root / SQUAD)
    found = seen_of(
        claims, texts, given.reader, given.cache, lambda line: print(f"  {line}", file=sys.stderr, flush=True)
    )
    if given.fit:
        fit(claims, found)
    result = {"part": given.part, "reader": given.reader, **report(claims, found, texts)}
    print(json.dumps(result, indent=2) if given.json else "\n".join(lines(result)))


if __name__ == "__main__":
    main()
