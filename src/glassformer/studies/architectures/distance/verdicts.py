"""What the part about distance says, and how each of its claims is decided."""

from __future__ import annotations

from statistics import fmean

from glassformer.studies.architectures.distance.gradients import geometric_mean
from glassformer.studies.architectures.tasks import N_COPIED
from glassformer.studies.study import Claim, Result, claim
from glassformer.tasks.intervals import Interval, wilson

FAR = 32
"""Gradients say something about distance from so many positions on."""

VANISHED = 0.01
FLAT = 3.0
SHORTER = 10.0
DROP = 0.2
SAME = 0.1
LEARNED = 0.5
"""An accuracy from which on a family counts as having learned a task at a distance; chance is 1 / 8."""


def claims(result: Result) -> list[Claim]:
    """Gradients first, then what was learned."""
    return [
        _vanishes(result),
        _slower(result, "initial", "At initialisation"),
        _slower(result, "trained", "After training to copy"),
        _shorter(result),
        _flat(result),
        _reach(result),
        _falls(result),
        _repaired(result),
        _level(result, "ConvS2S", "ConvS2S copies across gaps that its encoder cannot see across as well as near by."),
        _level(result, "Transformer", "The Transformer copies from afar as well as from near by."),
        _no_worse(result, "LSTM"),
        _no_worse(result, "ConvS2S"),
    ]


def at_far_end(result: Result, when: str, name: str) -> float:
    """The gradient at the greatest distance relative to that at 0: geometric mean of the seeds."""
    return geometric_mean([seed[-1] for seed in result["gradients"][when][name]])


def accuracies(result: Result, task: str, name: str) -> list[float]:
    """Accuracy by distance, mean of the seeds."""
    by_seed = result["tasks"][task][name]["accuracy"]
    return [fmean(values) for values in zip(*by_seed, strict=True)]


def judged(result: Result, task: str) -> int:
    """How many tokens an accuracy is over, all seeds together."""
    budget = result["budget"]
    return budget["tested"] * budget["seeds"] * (N_COPIED if task == "copy" else 1)


def _farthest(result: Result) -> int:
    return result["gradients"]["distances"][-1]


def _far_enough(result: Result, holds: bool) -> bool | None:
    return holds if _farthest(result) >= FAR else None


def _gradients(result: Result, when: str, *names: str) -> str:
    listed = ", ".join(f"{name} {at_far_end(result, when, name):.2g}" for name in names)
    return (
        f"at distance {_farthest(result)}: {listed} of the gradient at 0 (n = {result['gradient_rows']} sources, "
        f"{result['budget']['seeds']} seed(s), geometric mean)"
    )


def _vanishes(result: Result) -> Claim:
    name = "RNN without attention"
    return claim(
        "The gradient of a fresh plain recurrent network without attention vanishes with distance.",
        f"At initialisation, at the greatest distance (at least {FAR}), it is below {VANISHED:.0%} of that at 0.",
        _gradients(result, "initial", name),
        _far_enough(result, at_far_end(result, "initial", name) < VANISHED),
    )


def _slower(result: Result, when: str, text: str) -> Claim:
    names = ("LSTM without attention", "RNN without attention")
    lstm, rnn = (at_far_end(result, when, name) for name in names)
    return claim(
        f"{text}, the gradient of an LSTM falls more slowly than that of a plain recurrent network (no attention).",
        f"At the greatest distance (at least {FAR}), relative to that at 0, the LSTM's is the larger.",
        _gradients(result, when, *names),
        _far_enough(result, lstm > rnn),
    )


def _shorter(result: Result) -> Claim:
    names = ("LSTM", "LSTM without attention", "RNN", "RNN without attention")
    found = {name: at_far_end(result, "initial", name) for name in names}
    holds = all(found[name] >= SHORTER * found[f"{name} without attention"] for name in ("LSTM", "RNN"))
    return claim(
        "Attention gives recurrent networks a short way: far words get a gradient that does not vanish.",
        f"At initialisation, at the greatest distance (at least {FAR}), LSTM and RNN with attention each have at least "
        f"{SHORTER:.0f} times the relative gradient of the same without.",
        _gradients(result, "initial", *names),
        _far_enough(result, holds),
    )


def _flat(result: Result) -> Claim:
    found = at_far_end(result, "initial", "Transformer")
    return claim(
        "The gradient of a fresh Transformer does not fall with distance.",
        f"At the greatest distance (at least {FAR}) it is within a factor of {FLAT:.0f} of that at 0.",
        _gradients(result, "initial", "Transformer"),
        _far_enough(result, 1 / FLAT <= found <= FLAT),
    )


def _reach(result: Result) -> Claim:
    reach, distances = result["reach"], result["gradients"]["distances"]
    by_seed = result["gradients"]["encoder"]["ConvS2S"]
    inside = [value for seed in by_seed for value, gap in zip(seed, distances, strict=True) if gap <= reach]
    outside = [value for seed in by_seed for value, gap in zip(seed, distances, strict=True) if gap > reach]
    return claim(
        f"Inside ConvS2S's encoder nothing passes between positions more than {reach} apart, its layers' reach.",
        "The gradient of the last state at words within reach is above 0, and beyond it exactly 0.",
        f"within reach at least {min(inside):.2g}, beyond it at most {max(outside):.2g} of that at distance 0 "
        f"(n = {result['gradient_rows']} sources, {result['budget']['seeds']} seed(s))",
        min(inside) > 0 and max(outside) == 0,
    )


def _measured(result: Result, task: str, *names: str) -> str:
    n, (near, *_, far) = judged(result, task), result["budget"]["distances"]
    listed = []
    for name in names:
        ends = [accuracies(result, task, name)[place] for place in (0, -1)]
        shown = [
            f"{share:.0%} [{interval.low:.0%}, {interval.high:.0%}]" for share, interval in _with_interval(ends, n)
        ]
        listed.append(f"{name} {shown[0]} at {near} and {shown[1]} at {far}")
    return f"{task}: {'; '.join(listed)} (n = {n} a distance, {result['budget']['seeds']} seed(s), 95 %)"


def _with_interval(ends: list[float], n: int) -> list[tuple[float, Interval]]:
    return [(share, wilson(round(share * n), n)) for share in ends]


def _falls(result: Result) -> Claim:
    name = "LSTM without attention"
    near, *_, far = accuracies(result, "copy", name)
    return claim(
        "Without attention, an LSTM copies worse from afar than from near by.",
        f"Accuracy at the greatest distance is at least {DROP:.0%} of all answers below that at the least; not "
        f"testable where the latter is below {LEARNED:.0%}.",
        _measured(result, "copy", name),
        near - far >= DROP if near >= LEARNED else None,
    )


def _repaired(result: Result) -> Claim:
    names = ("LSTM", "LSTM without attention")
    near, *_, far = accuracies(result, "copy", names[0])
    return claim(
        "Attention repairs it: with it, the LSTM copies from afar what the one without does not.",
        f"At the greatest distance its accuracy is higher by at least {DROP:.0%} of all answers; not testable where it "
        f"is below {LEARNED:.0%} at the least distance.",
        _measured(result, "copy", *names),
        far - accuracies(result, "copy", names[1])[-1] >= DROP if near >= LEARNED else None,
    )


def _level(result: Result, name: str, text: str) -> Claim:
    near, *_, far = accuracies(result, "copy", name)
    return claim(
        text,
        f"Accuracy at the greatest distance is at most {SAME:.0%} of all answers below that at the least; not testable "
        f"where the latter is below {LEARNED:.0%}.",
        _measured(result, "copy", name),
        near - far <= SAME if near >= LEARNED else None,
    )


def _no_worse(result: Result, name: str) -> Claim:
    found = [fmean(accuracies(result, "recall", each)) for each in (name, "Transformer")]
    listed = f"{name} {found[0]:.0%}, Transformer {found[1]:.0%}"
    budget = result["budget"]
    n = judged(result, "recall") * len(budget["distances"])
    return claim(
        f"In as many steps, {name} learns to recall at least as well as the Transformer.",
        f"Its accuracy, mean of all distances, is not below the Transformer's; not testable where neither reaches "
        f"{LEARNED:.0%}.",
        f"recall: {listed} (n = {n} each, {budget['seeds']} seed(s), {budget['steps']['recall']} steps)",
        found[0] >= found[1] if max(found) >= LEARNED else None,
    )
