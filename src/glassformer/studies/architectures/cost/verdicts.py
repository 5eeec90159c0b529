"""What the part about cost says, and how each of its claims is decided."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from glassformer.layers.attention import SHORT
from glassformer.studies.architectures.measuring import Spread, exponent, growth, ratios, spread
from glassformer.studies.study import Claim, Result, claim

LONG = 4
"""Sequences are long from so many times the width on: there n²d is four times nd²."""

LINEAR = (0.85, 1.15)
"""Exponents within are called proportional to length."""


def claims(result: Result) -> list[Claim]:
    """Time of steps and layers, then memory, then decoding."""
    return [
        _steps_grow(result),
        _layers_grow(result),
        _linear_layers(result),
        _short_steps(result),
        _short_layers(result),
        _fused_memory(result),
        _least_memory(result),
        _state(result),
        _fast_writer(result),
    ]


def exponents(result: Result, what: str) -> dict[str, Spread]:
    """The exponent of each family's, or layer's, time."""
    return {name: exponent(result["lengths"], each["seconds"]) for name, each in result[what].items()}


def _grows_faster(found: Mapping[str, Spread], longest: int, width: int, names: tuple[str, str]) -> bool | None:
    quick, slow = (found[name] for name in names)
    return quick.low > slow.high if longest >= LONG * width else None


def _exponent_list(found: Mapping[str, Spread]) -> str:
    return "; ".join(f"{name} {each.text()}" for name, each in found.items())


def _steps_grow(result: Result) -> Claim:
    found, longest = exponents(result, "steps"), result["lengths"][-1]
    names = ("Transformer", "LSTM")
    return claim(
        "At long lengths a training step of the Transformer grows faster with length than one of the LSTM.",
        f"The lowest of the Transformer's exponents lies above the highest of the LSTM's; the longest sequence has at "
        f"least {LONG} times as many words as the Transformer is wide.",
        f"Exponents up to {longest} words: {_exponent_list(found)} (range of {_repeats(result)} repeats).",
        _grows_faster(found, longest, result["widths"]["Transformer"], names),
    )


def _layers_grow(result: Result) -> Claim:
    found, longest = exponents(result, "layers"), result["lengths"][-1]
    return claim(
        "A layer of self-attention alone grows faster with length than a recurrent one of the same width: O(n²d) "
        "against O(nd²).",
        f"As above, for single layers; the longest sequence has at least {LONG} times as many places as the layers are "
        "wide.",
        f"Exponents up to {longest} places, width {result['layer_width']}: {_exponent_list(found)} "
        f"(range of {_repeats(result)} repeats).",
        _grows_faster(found, longest, result["layer_width"], ("self-attention", "recurrence")),
    )


def _linear_layers(result: Result) -> Claim:
    found = exponents(result, "layers")
    kinds = ("recurrence", "convolution")
    low, high = LINEAR
    return claim(
        "A recurrent layer and a convolution take time in proportion to length: O(nd²) and O(knd²).",
        f"The median exponent of both is between {low} and {high}; the longest sequence has at least {LONG} times as "
        "many places as the layers are wide.",
        "; ".join(f"{kind} {found[kind].text()}" for kind in kinds) + f" (range of {_repeats(result)} repeats).",
        all(low <= found[kind].median <= high for kind in kinds) if _long(result) else None,
    )


def _long(result: Result) -> bool:
    """Whether the longest sequence is long for a layer."""
    return bool(result["lengths"][-1] >= LONG * result["layer_width"])


def below(result: Result, what: str, names: tuple[str, str], width: int) -> tuple[list[int], Spread | None]:
    """Lengths below a width, and there the time of the first as a multiple of the second's: the geometric mean over
    these lengths, of each repeat."""
    lengths = [length for length in result["lengths"] if length < width]
    if not lengths:
        return [], None
    first, second = (result[what][name]["seconds"] for name in names)
    logs = [
        [math.log(ratio) for ratio in ratios(first[place], second[place])] for place in range(len(lengths))
    ]  # lengths grow, so those below are the first
    return lengths, spread([math.exp(sum(repeat) / len(lengths)) for repeat in zip(*logs, strict=True)])


def _short(result: Result, what: str, names: tuple[str, str], width: int, text: str) -> Claim:
    lengths, found = below(result, what, names, width)
    shown = ", ".join(map(str, lengths))
    return claim(
        text,
        f"Time of {names[0]} as a multiple of that of {names[1]}, the geometric mean over all lengths below the width, "
        "is below 1 in every repeat.",
        "No length was below the width."
        if found is None
        else f"{found.text()} times, at lengths {shown}; width {width} (range of {_repeats(result)} repeats).",
        None if found is None else found.high < 1,
    )


def _short_steps(result: Result) -> Claim:
    text = "For sentences shorter than it is wide, the Transformer's training step is faster than the LSTM's."
    return _short(result, "steps", ("Transformer", "LSTM"), result["widths"]["Transformer"], text)


def _short_layers(result: Result) -> Claim:
    text = "For sequences shorter than it is wide, a layer of self-attention is faster than a recurrent one."
    return _short(result, "layers", ("self-attention", "recurrence"), result["layer_width"], text)


def _fused_memory(result: Result) -> Claim:
    lengths = result["lengths"]
    kept = {name: growth(lengths, each["bytes"]) for name, each in result["steps"].items()}
    return claim(
        "With fused attention, which never stores a pattern, the memory of the Transformer's step grows only in "
        "proportion to length.",
        f"The exponent of its bytes over the longer half of the lengths is at most {LINEAR[1]}; these are longer than "
        f"{SHORT}, up to which plain products take the kernel's place.",
        "Exponents of bytes: " + "; ".join(f"{name} {each:.2f}" for name, each in kept.items()) + " (exact).",
        kept["Transformer"] <= LINEAR[1] if lengths[len(lengths) // 2] > SHORT else None,
    )


def _least_memory(result: Result) -> Claim:
    lengths = result["lengths"]
    lstm, transformer = (result["steps"][name]["bytes"] for name in ("LSTM", "Transformer"))
    shares = [mine / theirs for mine, theirs in zip(lstm, transformer, strict=True)]
    return claim(
        "A training step of the LSTM needs less memory than one of the Transformer, at every length.",
        "Its bytes kept for the backward pass are fewer at each length.",
        "LSTM's bytes as a multiple of the Transformer's: "
        + ", ".join(f"{share:.2f} at {length}" for length, share in zip(lengths, shares, strict=True)),
        all(share < 1 for share in shares),
    )


def _state(result: Result) -> Claim:
    lengths: Sequence[int] = result["decoding_lengths"]
    written = {name: each["written"] for name, each in result["decoding"].items()}
    grown = {name: each[-1] / each[0] for name, each in written.items()}
    longer = lengths[-1] / lengths[0]
    return claim(
        "What the LSTM remembers of the words it has written does not grow with their number; what the Transformer "
        "remembers grows in proportion.",
        "From the shortest to the longest, the LSTM's bytes stay the same, and the Transformer's grow at least 0.9 "
        "times as much as the length.",
        f"From {lengths[0]} to {lengths[-1]} words, {longer:.0f} times as many: "
        + "; ".join(f"{name} {_kib(each[0])} to {_kib(each[-1])}" for name, each in written.items())
        + " a row (exact).",
        grown["LSTM"] == 1 and grown["Transformer"] >= 0.9 * longer,
    )


def _fast_writer(result: Result) -> Claim:
    decoding, longest = result["decoding"], result["decoding_lengths"][-1]
    found = spread(ratios(decoding["Transformer"]["seconds"][-1], decoding["LSTM"]["seconds"][-1]))
    return claim(
        "The LSTM, of one layer, writes faster than the Transformer of two.",
        "The Transformer's time as a multiple of the LSTM's, for as many words as the longest text has, is above 1 in "
        "every repeat.",
        f"{found.text()} times, for {longest} words in {result['decoding_rows']} rows (range of {_repeats(result)} "
        "repeats).",
        found.low > 1,
    )


def _repeats(result: Result) -> int:
    any_row: list[Any] = next(iter(result["steps"].values()))["seconds"]
    return len(any_row[0])


def _kib(size: float) -> str:
    return f"{size / 1024:.1f} KiB"
