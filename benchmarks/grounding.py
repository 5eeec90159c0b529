"""Answers on the ground of documents: F1 where they hold the answer, and how often "they do not say" is right.

    python benchmarks/grounding.py [--settings own easy article all] [--limit N] [--json] [--data-root DATA]

The settings are the sets of questions of studies/hallucination/refusals.py: `own` (SQuAD 2.0's held-out articles, each
question with its own paragraph), `easy` (SQuAD 1.1, with and without the right paragraph), `article` and `all` (those
of `own`, to be found in more text).

Without refusals it would be 0 in 100 that are refused; how F1 and refusals go against each other is shown beside it.
Intervals are 95 %, by bootstrap over articles. `--limit` takes so many questions, spread over all of them. The
numbers do not depend on the machine's speed.

`--part valid` asks the articles that thresholds are chosen on, that of `ground` too: three of SQuAD 2.0 (`own`) and
thirty of SQuAD 1.1's training part (`easy`). With `--choose` it says at which threshold the least that any of the four
figures of `own` and `easy` lies above its floor is the most. The thirty have one reference a question, the test has
several: their F1 is raised first, by as much as several references raise that of `own`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from goals import data_root

from glassformer.factuality.grounding import COUNT, READER, default_threshold, opened
from glassformer.studies.hallucination.refusals import (
    SETS,
    Judged,
    curve,
    judged,
    questions_of,
    scored,
    spread,
    texts_of,
)
from glassformer.tasks.model import load

ASKED = {"own": ((55, 55), (65, 65)), "easy": ((65, 75), (75, 85))}
"""The issue's floor and goal: F1 where there is an answer, and refusals in 100 where there is none."""


THRESHOLDS = [step / 10 for step in range(151)]


def chosen(rows: Mapping[str, Sequence[Judged]]) -> dict[str, float]:
    """The threshold at which the least that a figure of these settings lies above its floor is the most: a mistake of
    the choice costs each of them alike. `margin` is that least; F1 by one reference counts `several` times as much."""
    times = {name: several_references(rows["own"]) if has_one_reference(some) else 1.0 for name, some in rows.items()}

    def margin(threshold: float) -> float:
        found = {name: scored(some, threshold) for name, some in rows.items()}
        above = []
        for name in rows:
            f1_floor, refused_floor = ASKED[name][0]
            above += [
                times[name] * found[name]["f1"]["value"] - f1_floor,
                found[name]["refused"]["value"] - refused_floor,
            ]
        return float(min(above))

    best = max(THRESHOLDS, key=margin)
    return {"threshold": best, "margin": margin(best), "several": max(times.values())}


def has_one_reference(rows: Sequence[Judged]) -> bool:
    return all(len(one.question.answers) <= 1 for one in rows)


def several_references(rows: Sequence[Judged]) -> float:
    """How many times as high F1 is by all references as by the first alone, where nothing is refused."""
    first = [one._replace(question=dataclasses.replace(one.question, answers=one.question.answers[:1])) for one in rows]
    by_all, by_first = (scored(some, math.inf)["f1"]["value"] for some in (rows, first))
    return float(by_all / by_first)


def measured(setting: str, given: argparse.Namespace, root: Path) -> tuple[dict[str, Any], list[Judged]]:
    """One setting: at the default threshold, without refusals, and between them; and the questions with their spans."""
    questions = questions_of(setting, root.joinpath, given.part)
    texts = texts_of(setting, questions)
    questions = spread(questions, given.limit)
    reader, embedder = opened(given.reader), load(given.embedder) if given.embedder else None
    rows = list(judged(setting, questions, texts, reader, embedder, count=given.count, say=told))
    result: dict[str, Any] = {
        "default": scored(rows, default_threshold(reader)),
        "no refusal": scored(rows, math.inf),
        "curve": curve(rows),
    }
    if setting in ASKED:
        result["asked"] = {"floor": ASKED[setting][0], "goal": ASKED[setting][1]}
    if given.scores:
        kept = [
            {"id": one.question.id, "title": one.question.title, "score": one.score, "answer": one.answer}
            for one in rows
        ]
        given.scores.mkdir(parents=True, exist_ok=True)
        (given.scores / f"{setting}.json").write_text(json.dumps(kept))
    return result, rows


def told(line: str) -> None:
    """A line of progress, beside the report."""
    print(f"  {line}", file=sys.stderr, flush=True)


def lines(result: dict[str, Any]) -> list[str]:
    """The report for people."""

    def written(value: dict[str, Any]) -> str:
        low, high = value["interval"]
        return f"{value['value']:.1f} ({low:.1f} … {high:.1f}, n = {value['n']:,})"

    report = ["F1 where there is an answer / refused in 100 where there is none (95 % over articles)"]
    for setting, found in result.items():
        for name in ("default", "no refusal"):
            row = found[name]
            report.append(f"  {setting:<8} {name:<11} {written(row['f1'])} / {written(row['refused'])}")
        points = "  ".join(
            f"{one['f1']:.1f} / {one['refused']:.0f} ({one['threshold']:+.1f})" for one in found["curve"]
        )
        report.append(f"  {setting:<8} at other thresholds: {points}")
        if "asked" in found:
            floor, goal = (f"{a} / {b}" for a, b in (found["asked"]["floor"], found["asked"]["goal"]))
            report.append(f"  {setting:<8} asked for: floor {floor}, goal {goal}")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--part", choices=["test", "valid"], default="test")
    parser.add_argument("--choose", action="store_true", help="say which threshold serves `own` and `easy` alike")
    parser.add_argument("--limit", type=int, default=0, help="questions of each setting; 0 is all")
    parser.add_argument("--count", type=int, default=COUNT, help="passages that are read for a question")
    parser.add_argument("--reader", default=READER)
    parser.add_argument("--embedder", default="all-minilm-l6-v2", help="'' searches by words alone")
    parser.add_argument("--scores", type=Path, metavar="DIR", help="keep each question's best span and score there")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.choose and not ASKED.keys() <= {*given.settings}:
        parser.error("--choose weighs own and easy against each other: --settings own easy")
    root = data_root(given.data_root)
    if root is None:
        raise SystemExit("error: no data; give --data-root (docs/data.md says where it is from).")
    found = {setting: measured(setting, given, root) for setting in given.settings}
    result = {setting: value for setting, (value, _) in found.items()}
    choice = chosen({name: rows for name, (_, rows) in found.items() if name in ASKED}) if given.choose else None
    if given.json:
        print(json.dumps({**result, "chosen": choice} if choice else result, indent=2))
        return
    print("\n".join(lines(result)))
    if choice:
        least = f"every figure {choice['margin']:+.1f} or more above its floor"
        print(
            f"  chosen: threshold {choice['threshold']:.1f}, {least} (one reference's F1 times {choice['several']:.3f})"
        )


if __name__ == "__main__":
    main()
