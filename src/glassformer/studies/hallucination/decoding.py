"""Does decoding by contrast help: DoLa without documents, context-aware decoding with them?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glassformer.studies.fact_recall.drawing import Band, bands
from glassformer.studies.hallucination.bench import Bench
from glassformer.studies.hallucination.contrasting import context_aware, relations, truthful
from glassformer.studies.study import Claim, Part, Picture, Result, Setting, Table, claim
from glassformer.tasks.intervals import Interval

TRIALS: Mapping[str, tuple[str, str, str]] = {
    "relations": ("DoLa", "right answers to 3-shot questions of relations", "entities"),
    "truthful": ("DoLa", "TruthfulQA: the true answer more probable than a false one", "questions"),
    "right": ("context-aware", "right answers with the evidence", "articles"),
    "planted": ("context-aware", "the planted value answered, with evidence that says it", "articles"),
}
"""Each comparison: the method, what is counted, and over what its interval is."""


METHOD = """The same questions, greedily, plain and with the contrast; every difference is paired. A quarter of the
questions, of other entities or articles, chooses the setting; the rest is reported. DoLa: candidate layers (the lower
or the upper half, every second layer) and threshold (α = 0.1, as in the paper, or 0.5), on 3-shot questions of
relations; and TruthfulQA's best answer against its first incorrect one by their log-probability (there with α = 0: a
given answer may hold tokens that are not plausible). Context-aware: a strength of 0.5 or 1, by right and altered
evidence together; questions of SQuAD 1.1's development part about passages of at most 600 characters, once as they are
and once with another value of the same kind from the article in place of the answer; the prompt is that of "with
evidence", against the bare question. Four comparisons at 95 %: of ten such studies of methods that do nothing, one
would still find help somewhere."""


def part(bench: Bench) -> Part:
    """The part of the report for one model."""
    return Part(
        name="decoding",
        title="Decoding that is said to help",
        question=(
            "Two ways of choosing the next token are said to make a model more truthful without any training. DoLa "
            "(Chuang et al. 2024) takes what the last layer says more of than an earlier one, since facts are said to "
            "be added late. Context-aware decoding (Shi et al. 2023) takes what the model says more of with a document "
            "than without it, so that the document weighs more than what was learnt. Do they help a model of this size?"
        ),
        method=METHOD,
        run=lambda setting: run(bench, setting),
        draw=draw,
        tables=tables,
        claims=claims,
    )


def run(bench: Bench, setting: Setting) -> Result:
    """All four comparisons."""
    return {
        "relations": relations(bench, setting),
        "truthful": truthful(bench, setting),
        **context_aware(bench, setting),
    }


def draw(result: Result, folder: Path) -> Sequence[Picture]:
    """The differences with their intervals."""
    groups: dict[str, list[Band]] = {}
    for name, (method, what, _) in TRIALS.items():
        one = result[name]
        interval = Interval(100 * one["low"], 100 * one["high"])
        groups.setdefault(method, []).append(Band(f"{what}\n(n = {one['n']})", 100 * one["difference"], interval))
    caption = "What each contrast changes against plain greedy decoding, in points, with 95 % intervals of the pairs."
    return [bands(folder, "decoding", groups, caption, "difference in points")]


def tables(result: Result) -> Sequence[Table]:
    """All that was compared, and what was tried where settings were chosen."""
    rows = tuple(_row(result[name], *described) for name, described in TRIALS.items())
    compared = Table(
        "Plain and contrasted, on questions that chose nothing",
        ("method", "counted", "chosen", "n", "plain", "contrasted", "difference", "gained / lost"),
        rows,
    )
    margins = result["truthful"]["margins"]
    sums = Table(
        "TruthfulQA: log p of the true answer less that of the false one, in nats",
        ("n", "plain", "DoLa", "difference"),
        ((str(margins["n"]), f"{margins['plain']:.2f}", f"{margins['other']:.2f}", _interval(margins, 1, "nats")),),
    )
    tried = Table(
        "What was tried where settings were chosen",
        ("method", "counted", "n", "share right by setting"),
        tuple(_tried(result[name], *described[:2]) for name, described in TRIALS.items()),
    )
    return [compared, sums, tried]


def claims(result: Result) -> Sequence[Claim]:
    """One for each comparison."""
    found = []
    for name, (method, what, over) in TRIALS.items():
        one = result[name]
        rule = f"The 95 % interval of the paired difference, over {over}, lies above 0."
        text = {
            "relations": "DoLa makes short factual answers right more often.",
            "truthful": "DoLa makes the true answers of TruthfulQA win more often.",
            "right": "Context-aware decoding finds the answer in a document more often.",
            "planted": "Context-aware decoding follows a document that contradicts what is true more often.",
        }[name]
        harm = " It does harm." if one["high"] < 0 else ""
        measured = f"{method} ({one['chosen']}), {what}: {_interval(one)}, n = {one['n']}.{harm}"
        found.append(claim(text, rule, measured, one["low"] > 0))
    return found


def _row(one: Mapping[str, Any], method: str, what: str, over: str) -> tuple[str, ...]:
    n = f"{one['n']} ({one['groups']} {over})"
    shares = (f"{100 * one['plain']:.1f} %", f"{100 * one['other']:.1f} %")
    return (method, what, str(one["chosen"]), n, *shares, _interval(one), f"{one['gained']} / {one['lost']}")


def _tried(one: Mapping[str, Any], method: str, what: str) -> tuple[str, ...]:
    shares = ", ".join(f"{name}: {100 * share:.1f} %" for name, share in one["tried"].items())
    return method, what, str(one["chosen_on"]), shares


def _interval(one: Mapping[str, Any], scale: float = 100, unit: str = "points") -> str:
    difference, low, high = (scale * one[key] for key in ("difference", "low", "high"))
    return f"{difference:+.1f} {unit} [{low:+.1f}, {high:+.1f}]"
