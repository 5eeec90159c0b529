"""Answers on the ground of documents: F1 where they hold the answer, and how often "they do not say" is right.

    python benchmarks/grounding.py [--settings own easy article all] [--limit N] [--json] [--data-root DATA]

`own`: SQuAD 2.0, the 18 articles that recipes/squad-refusal.toml holds out, each question with its own paragraph;
`article` and `all`: the same questions, to be found in the whole article, or in all 18 together. (A question without an
answer in its paragraph may have one elsewhere; it still counts as one that is to be refused.)
`easy`: SQuAD 1.1's development part without the 17 articles that taught the reader to refuse, each question with its
own paragraph, and once more with another of the same article that holds none of its answers.

Without refusals it would be 0 in 100 that are refused; how F1 and refusals go against each other is shown beside it.
Intervals are 95 %, by bootstrap over articles. `--limit` takes so many questions, spread over all of them. `--part
valid` asks the three articles of recipes/squad-refusal.toml that thresholds are chosen on, that of `ground` too. The
numbers do not depend on the machine's speed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from goals import ROOT, data_root

from glassformer.factuality.documents import Documents
from glassformer.factuality.grounding import COUNT, READER, Grounded, default_threshold, ground_all, opened
from glassformer.factuality.retrieval import Index
from glassformer.tasks.intervals import bootstrap
from glassformer.tasks.model import Model, load
from glassformer.tasks.squad import f1
from glassformer.text.questions import Question, read_questions
from glassformer.training.jobs.answering import unanswerable
from glassformer.training.recipes import read_recipe

SETTINGS = ("own", "easy", "article", "all")
ASKED = {"own": ((55, 55), (65, 65)), "easy": ((65, 75), (75, 85))}
"""The issue's floor and goal: F1 where there is an answer, and refusals in 100 where there is none."""
LEVELS = (50, 55, 60, 65, 70, 75, 80, 85, 90, 95)
SEED = 0


class Judged(NamedTuple):
    """A question, its best span (refused or not) and the span's score."""

    question: Question
    answer: str
    score: float


def questions_of(setting: str, part: str, root: Path) -> list[Question]:
    """The questions of a setting; those without answers are to be refused."""
    data = read_recipe(ROOT / "recipes" / "squad-refusal.toml").data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # answers that are not in their texts are left out, and counted elsewhere
        if setting != "easy":
            items = read_questions(root / "squad_v2.0_dev" / "dev-v2.0.rebuilt.json").items
            return [one for one in items if one.title in getattr(data, f"{part}_titles")]
        items = read_questions(root / "squad_v1.1" / "dev-v1.1.rebuilt.json").items
    seen = {*data.train_titles, *data.valid_titles}
    unseen = [one for one in items if (one.title not in seen if part == "test" else one.title in data.valid_titles)]
    return unseen + unanswerable(unseen, 1.0, SEED)


def texts_of(setting: str, questions: Sequence[Question]) -> dict[str, dict[str, str]]:
    """By the key of a question's documents, their names and texts; see `key_of`."""
    found: dict[str, dict[str, dict[str, None]]] = {}
    for one in questions:
        found.setdefault(key_of(setting, one), {}).setdefault(one.title, {}).setdefault(one.context)
    return {
        key: {title: "\n\n".join(contexts) for title, contexts in articles.items()} for key, articles in found.items()
    }


def key_of(setting: str, question: Question) -> str:
    """What a question's documents are known by: its paragraph, its article, or nothing where all have the same."""
    return {"article": question.title, "all": ""}.get(setting, question.context)


def judged(
    setting: str, questions: Sequence[Question], texts: dict[str, dict[str, str]], given: argparse.Namespace
) -> Iterator[Judged]:
    """Each question with the best span of its documents."""
    reader = opened(given.reader)
    embedder = load(given.embedder) if given.embedder else None
    groups: dict[str, list[Question]] = {}
    for one in questions:
        groups.setdefault(key_of(setting, one), []).append(one)
    began, done = time.perf_counter(), 0
    for key, group in groups.items():
        index = Index(Documents.of_texts(texts[key]), embedder)
        for begin in range(0, len(group), 100):
            part = group[begin : begin + 100]
            for one, found in zip(part, grounded(part, index, reader, given.count), strict=True):
                yield Judged(one, found.answer or "", found.score)
            done += len(part)
            if done // 200 > (done - len(part)) // 200:
                seconds = time.perf_counter() - began
                print(f"  {setting}: {done} of {len(questions)}, {seconds:.0f} s", file=sys.stderr, flush=True)


def grounded(questions: Sequence[Question], index: Index, reader: Model, count: int) -> list[Grounded]:
    """The best spans, none refused."""
    return ground_all([one.question for one in questions], index, reader, count=count, threshold=math.inf)


def share(values: Sequence[float], articles: Sequence[str]) -> dict[str, Any]:
    """The mean in 100 with its interval: articles are drawn, each with all of its questions."""
    names = sorted(set(articles))
    rows = np.array([names.index(one) for one in articles])
    sums, counts = np.bincount(rows, values), np.bincount(rows)

    def mean(drawn: Any, axis: int) -> Any:
        of = drawn.astype(int)
        return 100 * sums[of].sum(axis) / counts[of].sum(axis)

    interval = bootstrap(range(len(names)), mean)
    return {
        "value": 100 * float(np.mean(values)),
        "interval": [interval.low, interval.high],
        "n": len(values),
        "articles": len(names),
    }


def scored(rows: Sequence[Judged], threshold: float) -> dict[str, Any]:
    """F1 of what has an answer and refusals of what has none, where a score under −threshold is a refusal."""
    right = [one for one in rows if one.question.answers]
    wrong = [one for one in rows if not one.question.answers]
    scores = [
        f1(one.answer, [answer.text for answer in one.question.answers]) if -one.score <= threshold else 0.0
        for one in right
    ]
    return {
        "f1": share(scores, [one.question.title for one in right]),
        "refused": share([float(-one.score > threshold) for one in wrong], [one.question.title for one in wrong]),
    }


def curve(rows: Sequence[Judged]) -> list[dict[str, float]]:
    """F1 at thresholds that refuse so many in 100 of what has no answer."""
    scores = [-one.score for one in rows if not one.question.answers]
    found = []
    for refused in LEVELS:
        threshold = float(np.quantile(scores, 1 - refused / 100, method="lower"))
        at = scored(rows, np.nextafter(threshold, -math.inf))
        found.append({"threshold": threshold, "f1": at["f1"]["value"], "refused": at["refused"]["value"]})
    return found


def measured(setting: str, given: argparse.Namespace, root: Path) -> dict[str, Any]:
    """One setting: at the default threshold, without refusals, and between them."""
    questions = questions_of(setting, given.part, root)
    texts = texts_of(setting, questions)
    if given.limit and given.limit < len(questions):
        places = np.linspace(0, len(questions) - 1, given.limit).round().astype(int)
        questions = [questions[place] for place in places]
    rows = list(judged(setting, questions, texts, given))
    result: dict[str, Any] = {
        "default": scored(rows, default_threshold(opened(given.reader))),
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
    return result


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
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--part", choices=["test", "valid"], default="test")
    parser.add_argument("--limit", type=int, default=0, help="questions of each setting; 0 is all")
    parser.add_argument("--count", type=int, default=COUNT, help="passages that are read for a question")
    parser.add_argument("--reader", default=READER)
    parser.add_argument("--embedder", default="all-minilm-l6-v2", help="'' searches by words alone")
    parser.add_argument("--scores", type=Path, metavar="DIR", help="keep each question's best span and score there")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    root = data_root(given.data_root)
    if root is None:
        raise SystemExit("error: no data; give --data-root (docs/data.md says where it is from).")
    result = {setting: measured(setting, given, root) for setting in given.settings}
    print(json.dumps(result, indent=2) if given.json else "\n".join(lines(result)))


if __name__ == "__main__":
    main()
