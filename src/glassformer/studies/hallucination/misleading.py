"""How often wrong evidence misleads, and what checks against the evidence change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from glassformer.factuality.asking import EMBEDDER
from glassformer.factuality.detection import Estimate
from glassformer.factuality.documents import Documents
from glassformer.factuality.grounding import READER, ground_all, opened
from glassformer.factuality.prompts import STOP, ids_of
from glassformer.factuality.questions import read_questions
from glassformer.factuality.records import record
from glassformer.factuality.retrieval import Index
from glassformer.factuality.values import find_values, same
from glassformer.factuality.writing import Checker, Written, compose, conflicting
from glassformer.studies.hallucination.bench import Bench
from glassformer.studies.hallucination.wrong_evidence import KINDS, Case, Kind, Outcome, cases_of, outcome
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
from glassformer.tasks.intervals import bootstrap
from glassformer.tasks.model import Model, load

DATA = "squad_v1.1/dev-v1.1.rebuilt.json"
NEW_TOKENS = 24
AT_ONCE = 8
"""Prompts that are answered together: passages make them long, and each token's keys and values take memory."""
KEPT_RIGHT = 0.8
"""The share of right answers that the checks must leave where the evidence is right."""

SHOWN = {
    "true": "the right passage",
    "absent": "(a) a passage that does not answer",
    "altered": "(b) the right passage with another value",
    "both": "(c) the altered one beside the true one",
}
METHODS = {
    "model": "the model alone",
    "checks": "the model, checked",
    "own": "checked, and it says so by itself",
    "reader": "copied by the reader (ask)",
}
COLORS = {"right": "tab:green", "another": "tab:gray", "misled": "tab:red", "abstains": "lightgray"}
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
WRONG = ("absent", "altered", "both")
Row = dict[str, Any]


def part(bench: Bench, reader: Model | str = READER, embedder: Model | str | None = EMBEDDER) -> Part:
    """The part "misleading" for the bench's model; `reader` and `embedder` do what they do in `ask`."""

    def run(setting: Setting) -> Result:
        return measure(bench, setting, opened(reader), load(embedder) if isinstance(embedder, str) else embedder)

    return Part(
        "misleading",
        "Wrong evidence",
        "What does a model make of evidence that does not answer, or that lies? And do checks help?",
        "Questions of SQuAD 1.1's development part whose answer is one number, date or name, as many of each of the 18 "
        "articles that the reader neither learnt from nor was chosen on. The evidence is a passage of the article "
        "without the answer (a), the right passage with the answer's value replaced by another of its kind and shape "
        "from elsewhere in the article (b), or that beside the true one, in an order that is drawn (c); and, for the "
        "price of the checks, the right passage. The model is told to answer from the text only or to say that it does "
        "not know. Misled: it gives the wrong value, or for (a) any answer but the right one. The checks are those of "
        "`ask --write`; within the evidence they cannot see (b), for nothing there contradicts it. The only other "
        "witness is what the model says without any evidence: so it is also measured what is left where that must "
        "agree.",
        run,
        draw,
        tables,
        claims,
    )


# --- Measuring --------------------------------------------------------------------------------------------------------


def measure(bench: Bench, setting: Setting, reader: Model, embedder: Model | None) -> Result:
    """Every case with every kind of evidence, by every method."""
    cases = cases_of(read_questions(bench.file(DATA)), setting.pick(2, 1, 7), bench.seed)
    rows: list[Row] = []
    for start in range(0, len(cases), AT_ONCE):
        rows += _rows(bench.model, cases[start : start + AT_ONCE], reader, embedder)
        setting.say(f"   {min(start + AT_ONCE, len(cases))} of {len(cases)} questions answered with all evidence")
    return {"n": len(cases), "articles": len({case.question.entity for case in cases}), "rows": rows}


def _rows(model: Model, cases: Sequence[Case], reader: Model, embedder: Model | None) -> Iterator[Row]:
    questions = [case.question.question for case in cases]
    prompts = [ids_of(model, case.question, (), "bare") for case in cases]
    alone = [one.text.strip() for one in record(model, prompts, max_new_tokens=NEW_TOKENS, stop=STOP)]
    for kind in KINDS:
        texts = [case.texts(kind) for case in cases]
        drafts = compose(model, questions, texts, max_new_tokens=NEW_TOKENS)
        for case, shown, draft, own in zip(cases, texts, drafts, alone, strict=True):
            index = Index(Documents.of_texts({f"text {n}": text for n, text in enumerate(shown, 1)}), embedder)
            yield _row(case, kind, draft.text.strip(), own, checked(case, draft.text.strip(), index, reader))


def checked(case: Case, draft: str, index: Index, reader: Model) -> Written:
    """What the checks of `ask --write` leave of a draft."""
    question = case.question.question
    grounded = ground_all([question], index, reader)[0]
    passages = [one.passage for one in index.search(question)]
    return Checker(index, reader).check(question, draft, grounded, passages)


def _row(case: Case, kind: Kind, draft: str, own: str, written: Written) -> Row:
    """One answer with what it is by each method."""
    answers = {
        "model": draft,
        "checks": written.answer,
        "own": written.answer if agree(written.answer or "", own) else None,
        "reader": written.grounded.answer,
    }
    return {
        "article": case.question.entity,
        "question": case.question.question,
        "kind": kind,
        "values": [case.right.text, case.wrong.text],
        "answers": answers,
        "alone": own,
        "why": written.why,
        "conflict": bool(conflicting(written.grounded.evidence)),
        **{name: outcome(text, case, kind) for name, text in answers.items()},
    }


def agree(one: str, other: str) -> bool:
    """Whether two answers have a value in common."""
    return any(same(a, b) or same(b, a) for a in find_values(one) for b in find_values(other))


# --- Figures ----------------------------------------------------------------------------------------------------------


def rate(rows: Sequence[Row], measure: Callable[[Row], float]) -> Estimate:
    """The mean of a figure of every row, with its interval over articles: these are drawn with replacement, each with
    all of its rows."""
    values = np.array([float(measure(row)) for row in rows])
    articles = np.unique([row["article"] for row in rows], return_inverse=True)[1]
    sums, counts = np.bincount(articles, values), np.bincount(articles)

    def mean(drawn: Any, axis: int) -> Any:
        chosen = drawn.astype(int)
        return sums[chosen].sum(axis) / counts[chosen].sum(axis)

    return Estimate(float(values.mean()), bootstrap(range(len(sums)), mean))


def _of(rows: Sequence[Row], *kinds: str) -> list[Row]:
    return [row for row in rows if row["kind"] in kinds]


def draw(result: Result, folder: Path) -> list[Picture]:
    """For every kind of evidence and method the shares of what the answers are."""
    figure = matplotlib_figure(12, 5.5)
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, kind in zip(grid.flat, KINDS, strict=True):
        rows = _of(result["rows"], kind)
        for place, method in enumerate(METHODS):
            left = 0.0
            for each in ("misled", "another", "right", "abstains"):
                share = rate(rows, lambda row, method=method, each=each: row[method] == each)  # type: ignore[misc]
                error = [[left + share.value - share.interval.low], [share.interval.high - share.value - left]]
                bars = {"xerr": error, "capsize": 3} if each == "misled" else {}
                axes.barh(place, share.value, left=left, color=COLORS[each], label=each if not place else None, **bars)
                left += share.value
        axes.set_title(SHOWN[kind], fontsize=10)
        axes.set_yticks(range(len(METHODS)), list(METHODS.values()))
        axes.set_xlim(0, 1)
    grid[0, 0].invert_yaxis()
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(OUTCOMES))
    caption = (
        f"What answers are with right and wrong evidence, n = {result['n']} questions of {result['articles']} articles "
        "for each kind; 95 % intervals of the misled over articles."
    )
    return [save_figure(figure, folder, "misleading", caption)]


def tables(result: Result) -> list[Table]:
    """The rates of each outcome, and why the checks left nothing."""
    rates, reasons = [], []
    for kind in KINDS:
        rows = _of(result["rows"], kind)
        for method, name in METHODS.items():
            shares = [_percent(rate(rows, lambda row, m=method, o=one: row[m] == o)) for one in OUTCOMES]  # type: ignore[misc]
            rates.append((SHOWN[kind], name, *shares))
        reasons.append((SHOWN[kind], *(f"{100 * share:.0f} %" for share in _reasons(rows))))
    n = f"n = {result['n']} questions, 95 % intervals over {result['articles']} articles"
    return [
        Table(f"Answers with evidence, {n}", ("evidence", "who answers", *OUTCOMES), tuple(rates)),
        Table(
            f"Why the checks leave no answer; and where the reader's quotes disagree, n = {result['n']} each",
            ("evidence", "not said", "disagree", "refused or empty", "struck", "no answer", "other", "conflict shown"),
            tuple(reasons),
        ),
    ]


def _reasons(rows: Sequence[Row]) -> list[float]:
    begins = (
        *("the documents do not say", "the documents disagree", "the model says", "the evidence does not have"),
        "what the model says is not",
    )
    whys = [row["why"] for row in rows]
    shares = [sum(why.startswith(begin) for why in whys) for begin in begins]
    other = sum(bool(why) for why in whys) - sum(shares)
    return [count / len(rows) for count in (*shares, other, sum(row["conflict"] for row in rows))]


def _percent(share: Estimate) -> str:
    low, high = 100 * share.interval.low, 100 * share.interval.high
    return f"{100 * share.value:.0f} % ({low:.0f} to {high:.0f})"


# --- Claims -----------------------------------------------------------------------------------------------------------


def claims(result: Result) -> list[Claim]:
    """Whether the checks halve how often each kind misleads, what they cost, and whether the model is a witness."""
    rows = result["rows"]
    found = [_halved(_of(rows, kind), f"with {SHOWN[kind]}") for kind in WRONG]
    found.append(_halved(_of(rows, *WRONG), "with all three kinds of wrong evidence together"))
    true = _of(rows, "true")
    cost = rate(true, lambda row: (row["checks"] == "right") - KEPT_RIGHT * (row["model"] == "right"))
    found.append(
        claim(
            f"Where the evidence is right, the checks leave at least {100 * KEPT_RIGHT:.0f} % of the right answers.",
            f"right with checks less {KEPT_RIGHT} of right without is above 0, with its 95 % interval over articles",
            f"right: {_both(true, 'right', 'checks')}; the difference is {_points(cost)}, n = {len(true)}",
            cost.interval.low > 0 if any(row["model"] == "right" for row in true) else None,
        )
    )
    return [*found, _witness(_of(rows, "altered"), true)]


def _halved(rows: Sequence[Row], where: str, method: str = "checks") -> Claim:
    """Whether a method is misled at most half as often as the model alone."""
    spared = rate(rows, lambda row: (row[method] == "misled") - 0.5 * (row["model"] == "misled"))
    return claim(
        f"Checked, the model is misled at most half as often {where}.",
        "misled with checks less half of misled without is at most 0, with its 95 % interval over articles",
        f"misled: {_both(rows, 'misled', method)}; the difference is {_points(spared)}, n = {len(rows)}",
        spared.interval.high <= 0 if any(row["model"] == "misled" for row in rows) else None,
    )


def _witness(altered: Sequence[Row], true: Sequence[Row]) -> Claim:
    """Whether what the model says without evidence unmasks a lying passage, and at what price."""
    spared = rate(altered, lambda row: (row["own"] == "misled") - 0.5 * (row["model"] == "misled"))
    kept = rate(true, lambda row: (row["own"] == "right") - 0.5 * (row["model"] == "right"))
    known = any(row["model"] == "misled" for row in altered) and any(row["model"] == "right" for row in true)
    return claim(
        "That the model must say the same without evidence halves how often an altered passage misleads, and leaves "
        "half of the right answers where the passage is right.",
        "misled with the altered passage less half of misled by the model alone is at most 0, and right with the right "
        "passage less half of right by the model alone is above 0, both with their 95 % intervals over articles",
        f"misled: {_both(altered, 'misled', 'own')}; right: {_both(true, 'right', 'own')}; the differences are "
        f"{_points(spared)} and {_points(kept)}, n = {len(altered)} each",
        spared.interval.high <= 0 < kept.interval.low if known else None,
    )


def _both(rows: Sequence[Row], what: Outcome, method: str) -> str:
    alone, other = (rate(rows, lambda row, m=m: row[m] == what) for m in ("model", method))  # type: ignore[misc]
    return f"{_percent(other)}, alone {_percent(alone)}"


def _points(difference: Estimate) -> str:
    low, high = 100 * difference.interval.low, 100 * difference.interval.high
    return f"{100 * difference.value:+.1f} points ({low:+.1f} to {high:+.1f})"
