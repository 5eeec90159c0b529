"""What the part about parallelism says, and how each of its claims is decided."""

from __future__ import annotations

from collections.abc import Callable

from glassformer.studies.architectures.measuring import Spread, ratios, spread
from glassformer.studies.architectures.parallelism.fitting import (
    batch_gain,
    serial_share,
    shares,
    slow_down,
    speed_up,
)
from glassformer.studies.study import Claim, Result, claim

SHOWN = ("Transformer", "ConvS2S", "LSTM", "LSTM without attention")


def claims(result: Result) -> list[Claim]:
    """Rows and length, then batches, then threads."""
    return [
        _long_rows(result, "Transformer"),
        _long_rows(result, "ConvS2S"),
        _share(result),
        _short_rows(result),
        _batches(result),
        _threads(result),
    ]


def _listed(measure: Callable[[Result, str], Spread], result: Result) -> str:
    return "; ".join(f"{name} {measure(result, name).text()}" for name in SHOWN)


def _repeats(result: Result) -> str:
    return f"range of {len(result['shape_seconds']['LSTM'][0])} repeats"


def _shapes(result: Result) -> str:
    (many, short), (few, long) = result["shapes"][0], result["shapes"][-1]
    return f"{few} × {long} instead of {many} × {short} words"


def _long_rows(result: Result, name: str) -> Claim:
    return claim(
        f"As many words in fewer and longer rows slow the LSTM down more than {_article(name)}.",
        f"Time of the longest rows as a multiple of that of the shortest: the LSTM's lowest is above the highest of "
        f"{_article(name)}.",
        f"{_shapes(result)}: {_listed(slow_down, result)} times the time ({_repeats(result)}).",
        slow_down(result, "LSTM").low > slow_down(result, name).high,
    )


def _article(name: str) -> str:
    return f"the {name}" if name == "Transformer" else name


def _share(result: Result) -> Claim:
    def last(result: Result, name: str) -> Spread:
        return shares(result, name)[-1]

    return claim(
        "In the longest rows, more of the LSTM's step is waiting for something before it than of the Transformer's.",
        "Sequential share of the fitted time: the LSTM's lowest is at least twice the Transformer's highest.",
        f"{_shapes(result)}: {_listed(last, result)} of the step ({_repeats(result)}).",
        last(result, "LSTM").low >= 2 * last(result, "Transformer").high,
    )


def _short_rows(result: Result) -> Claim:
    seconds, (rows, length) = result["shape_seconds"], result["shapes"][0]
    found = spread(ratios(seconds["LSTM"][0], seconds["Transformer"][0]))
    return claim(
        "In many short rows, where the LSTM too has much to do at once, it trains as fast as the Transformer.",
        "Its time as a multiple of the Transformer's is at most 1 in every repeat.",
        f"{rows} × {length} words: {found.text()} times ({_repeats(result)}).",
        found.high <= 1,
    )


def _batches(result: Result) -> Claim:
    return claim(
        "The LSTM gains more words a second from a larger batch than the Transformer, which has many words to do at "
        "once in a single row.",
        "Words a second of the largest batch as a multiple of those of a single row: the LSTM's lowest is above the "
        "Transformer's highest.",
        f"{result['batches'][-1]} rows instead of {result['batches'][0]}, of {result['length']} words: "
        f"{_listed(batch_gain, result)} times ({_repeats(result)}).",
        batch_gain(result, "LSTM").low > batch_gain(result, "Transformer").high,
    )


def _threads(result: Result) -> Claim:
    text = "In few long rows, more threads speed the Transformer up more than the LSTM."
    rule = "Speed-up of all threads against one: the Transformer's lowest is above the LSTM's highest."
    if not result["thread_counts"]:
        return claim(text, rule, "There was one thread.", None)
    speeds = _listed(lambda result, name: speed_up(result, name, -1), result)
    stuck = _listed(lambda result, name: serial_share(result, name, -1), result)
    few, length = result["shapes"][-1]
    return claim(
        text,
        rule,
        f"{few} × {length} words, {result['thread_counts'][-1]} threads: {speeds} times; Amdahl's share that they do "
        f"not help: {stuck} ({_repeats(result)}).",
        speed_up(result, "Transformer", -1).low > speed_up(result, "LSTM", -1).high,
    )
