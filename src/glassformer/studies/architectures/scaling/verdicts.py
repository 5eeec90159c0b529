"""What the part about scaling says, and how each of its claims is decided."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from glassformer.studies.architectures.scaling.softmax import chance_loss
from glassformer.studies.study import Claim, Result, claim

VARIANCE = 0.05
SHARP = 0.2
STEADY_ENTROPY = 0.1
SHRUNK = 10.0
STEADY = 2.0
BETTER = 0.95
"""Losses below so much of another one are lower."""

LEARNED = 0.9
"""A loss below so much of log 3 says that something of the order was learned."""


def claims(result: Result) -> list[Claim]:
    """Random queries and keys first, then training."""
    return [
        _variance(result),
        _sharp(result),
        _steady(result),
        _shrinks(
            result, "at_scores", "median", "For most queries, the softmax without scaling lets little gradient by."
        ),
        _shrinks(result, "at_scores", "mean", "So it is on average over queries, too."),
        _shrinks(
            result, "at_query", "median", "The gradient at the query, which grows with unscaled keys, shrinks too."
        ),
        _steady_gradient(result),
        _lower_loss(result),
        _sharper_patterns(result),
        _matters_more(result),
    ]


def _n(result: Result) -> str:
    return f"n = {result['queries']} queries of {result['keys']} keys, one seed"


def _ends(result: Result) -> tuple[int, int]:
    return result["widths"][0], result["widths"][-1]


def gradients(result: Result, name: str, where: str, kind: str) -> list[float]:
    """By width: "scaled" or "unscaled", "at_scores" or "at_query", "mean" or "median"."""
    return [result["softmax"][str(width)][name][where][kind] for width in result["widths"]]


def entropies(result: Result, name: str) -> list[float]:
    """By width, relative to log n."""
    return [result["softmax"][str(width)][name]["entropy"] for width in result["widths"]]


def _variance(result: Result) -> Claim:
    ratios = [result["softmax"][str(width)]["variance"] for width in result["widths"]]
    first, last = _ends(result)
    return claim(
        "The product of a query and a key of unit variance has variance d_k (the paper's footnote 4).",
        f"At each width the measured variance is within {VARIANCE:.0%} of d_k.",
        f"{min(ratios):.3f} to {max(ratios):.3f} of d_k for d_k = {first} to {last} ({_n(result)})",
        max(abs(ratio - 1) for ratio in ratios) <= VARIANCE,
    )


def _sharp(result: Result) -> Claim:
    found, (first, last) = entropies(result, "unscaled"), _ends(result)
    return claim(
        "Without scaling, wide heads give nearly all weight to one word.",
        f"At d_k = {last} the mean entropy is below {SHARP:g} of log n.",
        f"{found[0]:.2f} at d_k = {first}, {found[-1]:.2f} at {last} ({_n(result)})",
        found[-1] < SHARP,
    )


def _steady(result: Result) -> Claim:
    found = entropies(result, "scaled")
    return claim(
        "With scaling, the softmax is as even at any width.",
        f"At each width the mean entropy is within {STEADY_ENTROPY:.0%} of that at the least width.",
        f"{min(found):.3f} to {max(found):.3f} of log n ({_n(result)})",
        max(abs(value / found[0] - 1) for value in found) <= STEADY_ENTROPY,
    )


def _shrinks(result: Result, where: str, kind: str, text: str) -> Claim:
    found, (first, last) = gradients(result, "unscaled", where, kind), _ends(result)
    place = {"at_scores": "the scores", "at_query": "the query"}[where]
    return claim(
        text,
        f"The {kind} norm of the gradient at {place} is at least {SHRUNK:.0f} times smaller at d_k = {last} than at "
        f"{first}.",
        f"{found[0]:.3g} at d_k = {first}, {found[-1]:.3g} at {last}; scaled "
        f"{gradients(result, 'scaled', where, kind)[-1]:.3g} there ({_n(result)})",
        found[-1] * SHRUNK <= found[0],
    )


def _steady_gradient(result: Result) -> Claim:
    found = gradients(result, "scaled", "at_scores", "median")
    return claim(
        "With scaling, as much gradient passes the softmax at any width.",
        f"The median norm at the scores stays within a factor of {STEADY:.0f} over all widths.",
        f"{min(found):.3g} to {max(found):.3g} ({_n(result)})",
        max(found) <= STEADY * min(found),
    )


def trained(result: Result, width: int, name: str, what: str) -> float:
    """A mean of the seeds: what = "loss", "entropy" or "fresh_entropy"."""
    found: dict[str, Any] = result["training"][str(width)][name]
    return fmean(found[what])


def _trained_ends(result: Result) -> tuple[int, int]:
    return result["budget"]["widths"][0], result["budget"]["widths"][-1]


def _both(result: Result, width: int, what: str) -> str:
    pair = (f"{name} {trained(result, width, name, what):.3f}" for name in ("scaled", "unscaled"))
    return f"d_k = {width}: {', '.join(pair)}"


def _training_n(result: Result) -> str:
    budget = result["budget"]
    return f"{budget['steps']} steps, n = {budget['tested']} sentences, {budget['seeds']} seed(s)"


def _testable(result: Result, *widths: int) -> bool:
    best = [min(trained(result, width, name, "loss") for name in ("scaled", "unscaled")) for width in widths]
    return max(best) < LEARNED * chance_loss()


def _lower_loss(result: Result) -> Claim:
    _, last = _trained_ends(result)
    scaled, unscaled = (trained(result, last, name, "loss") for name in ("scaled", "unscaled"))
    return claim(
        "A network with a wide head reaches a lower loss in as many steps with the scaling.",
        f"At d_k = {last} the held-out loss with it is below {BETTER:.0%} of that without; not testable where neither "
        f"is below {LEARNED:.0%} of log 3, the loss of who knows the words but not their order.",
        f"nats an answer at {_both(result, last, 'loss')} ({_training_n(result)})",
        scaled < BETTER * unscaled if _testable(result, last) else None,
    )


def _sharper_patterns(result: Result) -> Claim:
    _, last = _trained_ends(result)
    scaled, unscaled = (trained(result, last, name, "entropy") for name in ("scaled", "unscaled"))
    return claim(
        "Without scaling, a wide head's patterns are still sharper when training ends.",
        f"At d_k = {last} the mean entropy without it is below {BETTER:.0%} of that with it; not testable as above.",
        f"relative to log n, fresh at {_both(result, last, 'fresh_entropy')}; trained at "
        f"{_both(result, last, 'entropy')} ({_training_n(result)})",
        unscaled < BETTER * scaled if _testable(result, last) else None,
    )


def _matters_more(result: Result) -> Claim:
    first, last = _trained_ends(result)
    gains = [trained(result, d, "unscaled", "loss") / trained(result, d, "scaled", "loss") for d in (first, last)]
    return claim(
        "The scaling matters more to wide heads than to narrow ones.",
        f"Loss without it over loss with it is larger at d_k = {last} than at {first}; not testable as above.",
        f"{gains[0]:.2f} at d_k = {first}, {gains[1]:.2f} at {last} ({_training_n(result)})",
        gains[1] > gains[0] if _testable(result, first, last) else None,
    )
