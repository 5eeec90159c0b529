"""What the part about order says, and how each of its claims is decided."""

from __future__ import annotations

from glassformer.studies.architectures.order.training import mean_accuracy
from glassformer.studies.study import Claim, Result, claim
from glassformer.tasks.intervals import Interval, wilson

EXACT = 1e-5
"""Rounding of single precision is below; a difference that means something is far above."""

CHANCE = 1 / 3
ABOVE = 0.05
"""So far above chance is beyond what chance does."""

LEARNED = 0.9
SAME = 0.05
FALLS = 100


def claims(result: Result) -> list[Claim]:
    """The table first, then what is learned with and without it."""
    return [
        _distance_alone(result),
        _linear(result),
        _monotone(result),
        _invariant(result),
        _sensitive(result),
        _chance(result),
        _learned(result),
        _alike(result),
    ]


def _size(result: Result) -> str:
    return f"{result['table']['length']} positions of width {result['table']['width']}"


def _distance_alone(result: Result) -> Claim:
    error = result["table"]["dot_error"]
    return claim(
        "The dot product of two rows of the sinusoidal table depends on their distance alone.",
        f"The largest difference from Σ cos(k ω), relative to D / 2, is below {EXACT:g}.",
        f"{error:.2g} (all pairs of {_size(result)})",
        error < EXACT,
    )


def _linear(result: Result) -> Claim:
    error = result["table"]["turn_error"]
    return claim(
        "A step of k positions is one linear map of the rows, wherever it begins (the paper's reason for sines).",
        f"The largest difference between a row, turned by k, and the one k further is below {EXACT:g} "
        "(for four k: 1, 7, half the table, all of it). Single-precision sines are exact to about 1e-7.",
        f"{error:.2g} ({_size(result)})",
        error < EXACT,
    )


def _monotone(result: Result) -> Claim:
    near, length = result["table"]["near"], result["table"]["length"]
    return claim(
        "The nearer two positions, the more alike are their rows.",
        f"The dot product only falls with distance, up to {FALLS}; not testable in a table of less than twice that.",
        f"it falls up to distance {near} and then rises for the first time, or not at all up to {length // 2} "
        f"({_size(result)})",
        near >= FALLS if length >= 2 * FALLS else None,
    )


def _changes(result: Result, name: str) -> tuple[list[float], str]:
    found = result["kinds"][name]
    both = [*found["change_fresh"], *found["change_trained"]]
    return both, f"{name} {min(both):.1g} to {max(both):.1g}"


def _n(result: Result) -> str:
    budget = result["budget"]
    return f"n = {budget['tested']} sentences, {budget['seeds']} seed(s)"


def _invariant(result: Result) -> Claim:
    found, shown = _changes(result, "none")
    return claim(
        "Without positions, what an encoder says is the same for every order of the words.",
        f"No logit changes by {EXACT:g} of the logits' standard deviation or more when all words after the question "
        "are shuffled, neither fresh nor trained.",
        f"{shown} of the standard deviation ({_n(result)})",
        max(found) < EXACT,
    )


def _sensitive(result: Result) -> Claim:
    found = {name: _changes(result, name) for name in result["kinds"] if name != "none"}
    return claim(
        "With any kind of positions it is not.",
        f"In each network, fresh or trained, some logit changes by at least {1000 * EXACT:g} standard deviations.",
        f"{'; '.join(shown for _, shown in found.values())} ({_n(result)})",
        min(min(values) for values, _ in found.values()) >= 1000 * EXACT,
    )


def interval(result: Result, name: str) -> Interval:
    """Of the accuracy, all seeds together."""
    n = result["budget"]["tested"] * result["budget"]["seeds"]
    return wilson(round(mean_accuracy(result["kinds"][name]) * n), n)


def _shown(result: Result, *names: str) -> str:
    listed = []
    for name in names:
        between, share = interval(result, name), mean_accuracy(result["kinds"][name])
        listed.append(f"{name} {share:.1%} [{between.low:.1%}, {between.high:.1%}]")
    return f"{', '.join(listed)} ({_n(result)}, 95 %)"


def _chance(result: Result) -> Claim:
    best = max(mean_accuracy(found) for found in result["kinds"].values())
    return claim(
        "Without positions, nobody can tell who hit whom with what: no better than a guess among the three words.",
        f"Accuracy is below {CHANCE + ABOVE:.1%} (a third, and {ABOVE:.0%}); not testable where no kind of positions "
        f"reaches {LEARNED:.0%}, since training was then too short for any.",
        _shown(result, *result["kinds"]),
        mean_accuracy(result["kinds"]["none"]) < CHANCE + ABOVE if best >= LEARNED else None,
    )


def _learned(result: Result) -> Claim:
    names = ("sinusoidal", "learned", "rotary")
    return claim(
        "With each kind of positions it is learned, for words in combinations that were never trained.",
        f"Accuracy is at least {LEARNED:.0%} with each.",
        _shown(result, *names),
        min(mean_accuracy(result["kinds"][name]) for name in names) >= LEARNED,
    )


def _alike(result: Result) -> Claim:
    names = ("sinusoidal", "learned")
    first, second = (mean_accuracy(result["kinds"][name]) for name in names)
    return claim(
        "Learned vectors do as well as sines (the paper's table 3, row E).",
        f"Their accuracies differ by at most {SAME:.0%} of all answers; not testable where neither reaches "
        f"{LEARNED:.0%}.",
        _shown(result, *names),
        abs(first - second) <= SAME if max(first, second) >= LEARNED else None,
    )
