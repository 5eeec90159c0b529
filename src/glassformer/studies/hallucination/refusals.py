"""Questions that documents answer or do not: F1 where they do, and how often "they do not say" is right where not.

Sets of questions (`SETS`), none of which taught the reader `squad-minilm` anything:

`own`: SQuAD 2.0 (Rajpurkar et al. 2018), the articles that recipes/squad-refusal.toml holds out, each question with its
own paragraph. Those without an answer were written to look as if they had one. `article` and `all`: the same questions,
to be found in the whole article, or in all of these articles together. (A question without an answer in its paragraph
may have one elsewhere; it still counts as one that is to be refused.)

`easy`: SQuAD 1.1's development part without the articles that taught the reader to refuse, each question with its own
paragraph, and once more with another of the same article that holds none of its answers.

Thresholds are chosen on other articles ("valid"): of `own` on the three that chose the reader's checkpoint, of `easy`
on the thirty of SQuAD 1.1's training part that recipes/squad.toml holds out.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from glassformer.errors import InputError
from glassformer.factuality.documents import Documents
from glassformer.factuality.grounding import COUNT, ground_all
from glassformer.factuality.retrieval import Index
from glassformer.tasks.intervals import bootstrap
from glassformer.tasks.squad import f1
from glassformer.text.questions import Question, read_questions
from glassformer.training.jobs.unanswerable import unanswerable
from glassformer.training.recipes import read_recipe

if TYPE_CHECKING:
    from glassformer.tasks.model import Model

SETS = ("own", "easy", "article", "all")
ONE, ONE_HELD_OUT = "squad_v1.1/dev-v1.1.rebuilt.json", "squad_v1.1/train-v1.1.rebuilt.json"
TWO = "squad_v2.0_dev/dev-v2.0.rebuilt.json"
RECIPE, RECIPE_ONE = "recipes/squad-refusal.toml", "recipes/squad.toml"
SEED = 0
AT_ONCE = 100
LEVELS = (50, 55, 60, 65, 70, 75, 80, 85, 90, 95)
"""Refusals in 100 of what has no answer, at which F1 is looked at."""
NOWHERE = -99.0
TOLD = 200
"""Questions from one line of progress to the next."""

Find = Callable[[str], Path]
"""Where a data file lies."""


class Judged(NamedTuple):
    """A question, its best span (refused or not) and the span's score; `NOWHERE` where no passage was found."""

    question: Question
    answer: str
    score: float


def questions_of(name: str, find: Find, part: Literal["test", "valid"] = "test") -> list[Question]:
    """The questions of a set, those without answers to be refused. `part` "valid" are the articles that thresholds are
    chosen on."""
    data: Any = read_recipe(RECIPE).data
    if name != "easy":
        wanted = set(getattr(data, f"{part}_titles"))
        return [one for one in _read(find(TWO)) if one.title in wanted]
    if part == "test":
        seen = {*data.train_titles, *data.valid_titles}
        easy = [one for one in _read(find(ONE)) if one.title not in seen]
    else:
        wanted = set(read_recipe(RECIPE_ONE).data.valid_titles)
        easy = [one for one in _read(find(ONE_HELD_OUT)) if one.title in wanted]
    return easy + unanswerable(easy, 1.0, SEED)


def _read(path: Path) -> list[Question]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # answers that are not in their texts are left out, and counted elsewhere
        return list(read_questions(path).items)


def spread(questions: list[Question], limit: int) -> list[Question]:
    """At most `limit` questions, evenly over all of them; all where it is 0."""
    if not limit or limit >= len(questions):
        return questions
    return [questions[place] for place in np.linspace(0, len(questions) - 1, limit).round().astype(int).tolist()]


def texts_of(name: str, questions: Sequence[Question]) -> dict[str, dict[str, str]]:
    """By the key of a question's documents, their names and texts; see `key_of`."""
    found: dict[str, dict[str, dict[str, None]]] = {}
    for one in questions:
        found.setdefault(key_of(name, one), {}).setdefault(one.title, {}).setdefault(one.context)
    return {
        key: {title: "\n\n".join(contexts) for title, contexts in articles.items()} for key, articles in found.items()
    }


def key_of(name: str, question: Question) -> str:
    """What a question's documents are known by: its paragraph, its article, or nothing where all have the same."""
    return {"article": question.title, "all": ""}.get(name, question.context)


def judged(
    name: str,
    questions: Sequence[Question],
    texts: dict[str, dict[str, str]],
    reader: Model,
    embedder: Model | None = None,
    *,
    count: int = COUNT,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Judged]:
    """Each question with the best span of its documents, refused or not; questions of equal documents together."""
    groups: dict[str, list[Question]] = {}
    for one in questions:
        groups.setdefault(key_of(name, one), []).append(one)
    began, done = time.perf_counter(), 0
    for key, group in groups.items():
        index = Index(Documents.of_texts(texts[key]), embedder)
        for begin in range(0, len(group), AT_ONCE):
            part = group[begin : begin + AT_ONCE]
            asked = [one.question for one in part]
            for one, found in zip(part, ground_all(asked, index, reader, count=count, threshold=math.inf), strict=True):
                yield Judged(one, found.answer or "", max(found.score, NOWHERE))
            done += len(part)
            if done // TOLD > (done - len(part)) // TOLD:
                say(f"{name}: {done:,} of {len(questions):,} questions, {time.perf_counter() - began:.0f} s")


def scored(rows: Sequence[Judged], threshold: float) -> dict[str, Any]:
    """F1 of what has an answer (`f1`) and refusals of what has none (`refused`), where a score under −threshold is a
    refusal, and how often what has an answer is refused (`silent`); in 100, with intervals over articles.

    Raises `InputError` where all questions have an answer, or none has.
    """
    right = [one for one in rows if one.question.answers]
    wrong = [one for one in rows if not one.question.answers]
    if not right or not wrong:
        raise InputError(f"refusals need questions with and without answers, got {len(right)} and {len(wrong)}.")
    good = [
        f1(one.answer, [answer.text for answer in one.question.answers]) if -one.score <= threshold else 0.0
        for one in right
    ]
    return {
        "f1": share(good, [one.question.title for one in right]),
        "refused": share([float(-one.score > threshold) for one in wrong], [one.question.title for one in wrong]),
        "silent": share([float(-one.score > threshold) for one in right], [one.question.title for one in right]),
    }


def curve(rows: Sequence[Judged]) -> list[dict[str, float]]:
    """F1 at the thresholds that refuse `LEVELS` in 100 of what has no answer."""
    scores = [-one.score for one in rows if not one.question.answers]
    found = []
    for refused in LEVELS:
        threshold = float(np.quantile(scores, 1 - refused / 100, method="lower"))
        at = scored(rows, np.nextafter(threshold, -math.inf))
        found.append({"threshold": threshold, "f1": at["f1"]["value"], "refused": at["refused"]["value"]})
    return found


def refused_more(rows: Sequence[Judged], threshold: float) -> list[float]:
    """By how many in 100 more questions are refused that have no answer than that have one: the difference, and its
    95 % interval over articles."""
    titles = [one.question.title for one in rows]
    names = sorted(set(titles))
    sums = np.zeros((len(names), 2, 2))  # by article and whether there is an answer: refused, all
    for one in rows:
        sums[names.index(one.question.title), int(bool(one.question.answers))] += [-one.score > threshold, 1]

    def difference(drawn: Any, axis: int) -> Any:
        total = sums[drawn.astype(int)].sum(drawn.ndim - 1)  # over the articles drawn, the last axis of `drawn`
        shares = total[..., 0] / np.maximum(total[..., 1], 1)
        return 100 * (shares[..., 0] - shares[..., 1])

    interval = bootstrap(range(len(names)), difference)
    return [float(difference(np.arange(len(names)), 0)), interval.low, interval.high]


def share(values: Sequence[float], articles: Sequence[str]) -> dict[str, Any]:
    """The mean in 100 with its 95 % interval: articles are drawn, each with all of its questions."""
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
