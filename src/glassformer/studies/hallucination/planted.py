"""Planted errors: statements, true or with a wrong value, held against documents by `verify`.

A claim is a line of benchmarks/claims/claims.jsonl, as that folder's README says: a statement, the place [start, end)
of the value in question, and a label. `true`; `a`: the value is from elsewhere, or shifted; `b`: it is another value of
the same kind from the same article. The documents are the whole articles of the claims, all of them in one index. An
error is found where the statement is not supported.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glassformer.errors import InputError
from glassformer.factuality import judging, verifying
from glassformer.factuality.documents import Documents
from glassformer.factuality.grounding import READER
from glassformer.factuality.verifying import Verifier

if TYPE_CHECKING:
    from glassformer.tasks.model import Model

CLAIMS = Path("benchmarks/claims/claims.jsonl")
SQUAD = "squad_v1.1/dev-v1.1.rebuilt.json"
LABELS = ("true", "a", "b")
AT_ONCE = 18
"""Statements whose passages the reader takes together."""
RESAMPLES = 2000
NOWHERE = -99.0
"""The score of what cannot be supported."""

Claim = dict[str, Any]
Numbers = NDArray[np.float64]


class Seen(NamedTuple):
    """What was seen of a statement: a record of each value, and the share of its words that the quotes cover."""

    values: list[dict[str, Any]]
    covered: float


def claims_file() -> Path:
    """Where the claims lie: in the working folder, or beside the sources. `InputError` where they do not: they are no
    part of the installed package."""
    beside = Path(__file__).resolve().parents[4] / CLAIMS
    found = next((path for path in (CLAIMS, beside) if path.is_file()), None)
    if found is None:
        raise InputError(f"{CLAIMS} is missing; the claims come with the sources, not with the installed package.")
    return found


def read_claims(part: str, path: Path) -> list[Claim]:
    """The claims of a part, "development" or "test"."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [claim for claim in map(json.loads, lines) if claim["part"] == part]


def articles(path: Path) -> dict[str, str]:
    """The text of every article of a file of SQuAD's."""
    data = json.loads(path.read_text(encoding="utf-8"))["data"]
    return {one["title"]: "\n\n".join(part["context"] for part in one["paragraphs"]) for one in data}


def seen_of(
    claims: Sequence[Claim],
    texts: Mapping[str, str],
    reader: Model | str = READER,
    cache: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Seen]:
    """For each claim, what the articles of all `claims` say to its statement. With a `cache`, what was seen is kept in
    that file, and taken from there."""
    kept: dict[str, Seen] = {}
    if cache is not None and cache.is_file():
        records = map(json.loads, cache.read_text(encoding="utf-8").splitlines())
        kept = {one["statement"]: Seen(one["values"], one["covered"]) for one in records}
    todo = list(dict.fromkeys(claim["statement"] for claim in claims if claim["statement"] not in kept))
    if todo:
        titles = sorted({claim["article"] for claim in claims})
        verifier = Verifier(Documents.of_texts({title: texts[title] for title in titles}), reader)
        began = time.perf_counter()
        for place in range(0, len(todo), AT_ONCE):
            part = todo[place : place + AT_ONCE]
            for statement, own in zip(part, verifier.judge_all(part), strict=True):
                kept[statement] = Seen([_record(one) for one in own], verifier.covered(statement, own))
                if cache is not None:
                    with cache.open("a", encoding="utf-8") as file:
                        file.write(json.dumps({"statement": statement, **kept[statement]._asdict()}) + "\n")
            say(f"{place + len(part)} of {len(todo)} statements, {time.perf_counter() - began:.0f} s")
    return [kept[claim["statement"]] for claim in claims]


def _record(one: judging.Judged) -> dict[str, Any]:
    value, rival = one.claim.value, one.rival
    return {
        "text": value.text, "start": value.start, "end": value.end, "kind": value.kind, "features": one.features,
        "present": one.support is not None,
        "rival": rival.text if rival else None, "rival_score": rival.score if rival else judging.ABSENT,
    }  # fmt: skip


def score_of(value: Mapping[str, Any]) -> float:
    """The score of a value by the weights in use; without an occurrence it cannot be supported."""
    return judging.score_of(value["features"]) if value["present"] else NOWHERE


def is_target(claim: Claim, value: Mapping[str, Any]) -> bool:
    """Whether a value is the one that was planted, or in a true claim the answer."""
    return bool(value["start"] < claim["end"] and claim["start"] < value["end"])


def scores(claims: Sequence[Claim], seen: Sequence[Seen], whole: bool) -> Numbers:
    """The score of each claim: `whole`, the least of its statement's values, as `verify` decides; else that of the
    planted value. The least of all where nothing was seen."""
    found = []
    for claim, one in zip(claims, seen, strict=True):
        of_values = [score_of(value) for value in one.values if whole or is_target(claim, value)]
        covered = one.covered >= verifying.COVERED or not whole
        found.append(min(of_values, default=NOWHERE) if covered else NOWHERE)
    return np.array(found)


def string_match(claims: Sequence[Claim], texts: Mapping[str, str]) -> Numbers:
    """The peer: 1 where the value's text stands in the article that the claim is about, else −1."""
    there = [
        claim["statement"][claim["start"] : claim["end"]].lower() in texts[claim["article"]].lower() for claim in claims
    ]
    return np.where(there, 1.0, -1.0)


def rates(claims: Sequence[Claim], values: Numbers, threshold: float) -> dict[str, Any]:
    """The share of each label's claims that scores below the threshold, with its n and its interval by article."""
    labels = np.array([claim["label"] for claim in claims])
    titles = np.array([claim["article"] for claim in claims])
    result: dict[str, Any] = {"threshold": threshold}
    for label in LABELS:
        chosen = labels == label
        low, high = by_article(values[chosen] < threshold, titles[chosen])
        result[label] = {
            "share": float(np.mean(values[chosen] < threshold)), "n": int(chosen.sum()), "low": low, "high": high,
        }  # fmt: skip
    return result


def found_more(claims: Sequence[Claim], ours: Numbers, peer: Numbers, label: str) -> list[float]:
    """By how much more of a label's claims one finds than another does (scores under 0 are found), and the 95 %
    interval of that by article."""
    chosen = np.array([claim["label"] == label for claim in claims])
    titles = np.array([claim["article"] for claim in claims])
    difference = (ours < 0).astype(float) - (peer < 0).astype(float)
    return [float(difference[chosen].mean()), *by_article(difference[chosen], titles[chosen])]


def some(claims: Sequence[Claim], facts: int) -> list[Claim]:
    """The claims of at most so many questions, spread over all of them."""
    names = list(dict.fromkeys(claim["question_id"] for claim in claims))
    if facts < len(names):
        places = np.linspace(0, len(names) - 1, facts).round().astype(int).tolist()
        names = [names[place] for place in places]
    kept = set(names)
    return [claim for claim in claims if claim["question_id"] in kept]


def by_article(flags: NDArray[Any], titles: NDArray[Any]) -> tuple[float, float]:
    """The 95 % interval of a share, by drawing whole articles."""
    names = sorted(set(titles))
    sums = np.array([[flags[titles == name].sum(), (titles == name).sum()] for name in names])
    drawn = np.random.default_rng(0).integers(0, len(names), (RESAMPLES, len(names)))
    totals = sums[drawn].sum(1)
    low, high = np.quantile(totals[:, 0] / totals[:, 1], [0.025, 0.975])
    return float(low), float(high)
