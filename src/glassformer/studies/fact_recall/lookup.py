"""Stage 2: do feed-forwards turn the name into its attributes?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glassformer.interpret.controls import random_network, subject_tokens
from glassformer.interpret.probes import probe
from glassformer.studies.fact_recall.bench import Bench, Layers, thirds, windows
from glassformer.studies.fact_recall.concatenation import LAST, least
from glassformer.studies.fact_recall.drawing import Line, lines
from glassformer.studies.fact_recall.reading import bag_of, read
from glassformer.studies.fact_recall.stages import Stage, Work
from glassformer.studies.fact_recall.statistics import mean_interval, mean_shown, paired
from glassformer.studies.study import Picture, Result, Setting, Table
from glassformer.tasks.intervals import Interval

SUBLAYERS = ("feed_forward", "self_attention")
SHUFFLES = 5


def measure(work: Work, setting: Setting) -> Result:
    """Readings by layer with their controls; what it costs to take sub-layers away at the name, window by window."""
    bench = work.bench
    after = thirds(bench.depth)[1].stop
    work.say(setting, "a network with random weights")
    chance = random_bench(bench)
    readings = _readings(bench, chance, setting)
    tests = _beyond(bench, chance, after, setting)
    spans = windows(bench.depth, setting.pick(2, 3, 8))
    early = lookup_windows(spans, after)
    drops, noise = _drops(work, bench, spans, early, setting)
    inside = [spans.index(each) for each in early]
    tests.append(_compared("feed-forward over attention", drops, inside, drops["self_attention"], setting))
    tests.append(_compared("beyond noise", drops, inside, noise, setting))
    return {
        "n": len(bench.facts), "labels": bench.classes, "after": after, "readings": readings,
        "windows": [[each.first, each.stop] for each in spans], "inside": inside,
        "drops": drops, "noise": noise, "baseline": bench.baseline.tolist(), "tests": tests,
    }  # fmt: skip


def lookup_windows(spans: Sequence[Layers], after: int) -> list[Layers]:
    """The windows in which facts may be looked up: from the second on (the first feed-forward is a second embedding of
    the token more than anything else), within the first two thirds of the layers."""
    return [each for each in spans[1:] if each.stop <= after] or list(spans[1:2]) or list(spans[:1])


def random_bench(bench: Bench) -> Bench:
    """The same texts in the same network before any training."""
    network = random_network(bench.network, bench.seed)
    return Bench(replace(bench.model, network=network), bench.facts, bench.inputs, bench.seed)


def _readings(bench: Bench, chance: Bench, setting: Setting) -> dict[str, Any]:
    """`interpret.probes.probe` at some layers: accuracy, shuffled labels, bag of tokens, random weights."""
    step = max(1, bench.depth // setting.pick(2, 4, 10))
    places = sorted({*range(0, bench.depth + 1, step), bench.depth})
    states, blank = bench.streams(places, LAST), chance.streams(places, LAST)
    counts = min(bench.facts.classes.values())
    found = probe(
        states, bench.classes, groups=bench.facts.subjects, folds=min(5, counts), shuffles=SHUFFLES, seed=bench.seed,
        controls={"bag of tokens": bag_of(subject_tokens(bench.inputs)), "random weights": blank},
    ).report()  # fmt: skip
    each = [reading.score for reading in found.readings]
    beside = {
        name: [_score(reading.controls[name]) for reading in found.readings]
        for name in ("bag of tokens", "random weights")
    }
    shuffled = [sum(reading.shuffled) / len(reading.shuffled) for reading in found.readings]
    return {"places": places, "states": [_score(score) for score in each], "shuffled": shuffled, **beside}


def _score(score: Any) -> list[float]:
    return [score.balanced, score.balanced_interval.low, score.balanced_interval.high]


def _beyond(bench: Bench, chance: Bench, after: int, setting: Setting) -> list[dict[str, Any]]:
    """The probe of the states against those of tokens and of random weights, subject by subject."""
    labels = bench.classes
    states, blank, bag = bench.stream(after, LAST), chance.stream(after, LAST), bag_of(subject_tokens(bench.inputs))
    right = read(states, {"right": states}, labels, bench.seed)["right"]
    tests = []
    for name, other in (("beyond tokens", bag), ("beyond random weights", blank)):
        control = read(other, {"right": other}, labels, bench.seed)["right"]
        words = f"accuracy {mean_shown(right, labels)} against {mean_shown(control, labels)}"
        differences = [float(a) - float(b) for a, b in zip(right, control, strict=True)]
        tests.append(paired(name, differences, words, classes=labels, least=least(setting)))
    return tests


def _drops(
    work: Work, bench: Bench, spans: Sequence[Layers], early: Sequence[Layers], setting: Setting
) -> tuple[dict[str, list[list[float]]], list[list[float]]]:
    """By sub-layer and window, how far each fact's logit difference falls with the partner's outputs at the name; and
    with random changes of the same size to feed-forwards, in the `early` windows (elsewhere nothing)."""
    kept = bench.trace(*(f"{name}.output[*] @ subject" for name in SUBLAYERS))
    drops: dict[str, list[list[float]]] = {name: [] for name in SUBLAYERS}
    noise: list[list[float]] = []
    for layers in spans:
        work.say(setting, f"sub-layers at the name, {layers.name}")
        for name in SUBLAYERS:
            expression = f"{name}.output[{layers}] @ subject"
            values = bench.values(kept, expression)
            drops[name].append(_drop(bench, expression, values, layers))
            if name == "feed_forward":
                random = {site: _as_far(kept.values[f"{name}.output[*] @ subject", site], value, bench.seed + number)
                          for number, (site, value) in enumerate(values.items())}  # fmt: skip
                noise.append(_drop(bench, expression, random, layers) if layers in early else [])
    return drops, noise


def _drop(bench: Bench, expression: str, values: dict[str, Tensor], layers: Layers) -> list[float]:
    found: list[float] = (
        bench.baseline - bench.difference([bench.put(expression, values)], layers, "subject")
    ).tolist()
    return found


def _as_far(own: Tensor, other: Tensor, seed: int) -> Tensor:
    """From `own` as far as `other` is, position by position, in a random direction."""
    draw = torch.Generator(device=own.device).manual_seed(seed)
    direction = torch.randn(own.shape, generator=draw, device=own.device)
    return own + direction / direction.norm(dim=-1, keepdim=True) * (other - own).norm(dim=-1, keepdim=True)


def _compared(
    name: str,
    drops: dict[str, list[list[float]]],
    inside: Sequence[int],
    other: Sequence[Sequence[float]],
    setting: Setting,
) -> dict[str, Any]:
    """Feed-forwards against something else, each fact's mean over the windows."""
    first, second = (
        [sum(values) / len(inside) for values in zip(*(each[number] for number in inside), strict=True)]
        for each in (drops["feed_forward"], other)
    )
    words = f"logit difference falls by {mean_shown(first)} against {mean_shown(second)}"
    return paired(name, [a - b for a, b in zip(first, second, strict=True)], words, least=least(setting))


def draw(result: Result, folder: Path, name: str) -> Sequence[Picture]:
    """Accuracy by layer, and what windows cost."""
    readings, places = result["readings"], result["readings"]["places"]
    shown = [
        Line(key, places, [each[0] for each in readings[key]], [Interval(each[1], each[2]) for each in readings[key]])
        for key in ("states", "bag of tokens", "random weights")
    ]
    shown.append(Line(f"{SHUFFLES} shuffles of the labels", places, readings["shuffled"]))
    caption = (
        f"Class-balanced accuracy of probes at the last token of the name, by the number of layers passed; n = "
        f"{result['n']} names, {len(set(result['labels']))} answers, bands: 95 % intervals over names."
    )
    first = lines(folder, f"{name}_probes", shown, caption, ("layers passed", "accuracy"))
    ticks = [f"{first}–{stop - 1}" for first, stop in result["windows"]]
    costs = [_line(label, list(range(len(ticks))), result["drops"][key])
             for key, label in (("feed_forward", "feed-forward"), ("self_attention", "attention"))]  # fmt: skip
    inside = result["inside"]
    costs.append(_line("random change of like size", inside, [result["noise"][number] for number in inside]))
    caption = (
        "How far logit(answer) − logit(other answer) falls when the outputs of a sub-layer at all tokens of the name "
        f"are another subject's, in a window of layers; without edit it is {mean_shown(result['baseline'])}. n = "
        f"{result['n']} facts, bands: 95 % intervals over facts."
    )
    return [
        first,
        lines(folder, f"{name}_windows", costs, caption, ("layers", "fall of the logit difference"), ticks=ticks),
    ]


def _line(label: str, x: Sequence[float], rows: Sequence[Sequence[float]]) -> Line:
    found = [mean_interval(row) for row in rows]
    return Line(label, x, [value for value, _ in found], [around for _, around in found])


def tables(result: Result) -> Sequence[Table]:
    """Falls by window."""
    rows = tuple(
        (f"{first} to {stop - 1}", *(mean_shown(result["drops"][name][number]) for name in SUBLAYERS),
         mean_shown(result["noise"][number]) if result["noise"][number] else "")
        for number, (first, stop) in enumerate(result["windows"])
    )  # fmt: skip
    title = f"Fall of the logit difference [95 %], n = {result['n']} facts"
    return [Table(title, ("layers", "feed-forward", "attention", "random change of like size"), rows)]


STAGE = Stage(
    name="lookup",
    title="Fact lookup",
    question=(
        "Where does the attribute appear at the name, and which sub-layers bring it there: feed-forwards, which see "
        "one position, or attention?"
    ),
    method=(
        "Linear probes at the last token of the name by layer, held out by name, beside shuffled labels, a bag of the "
        "name's tokens, and the same network with random weights. Then the outputs of feed-forwards, or of attention, "
        "at all tokens of the name are replaced by those of another subject with another answer (aligned from the end "
        "of the name), in windows of layers; the metric is logit(own answer) − logit(the other's answer) at the end of "
        "the prompt. Control: changes of the same length in random directions. Tests are of windows from the second "
        "on within the first two thirds of the layers, all together, so that none is picked."
    ),
    measure=measure,
    draw=draw,
    tables=tables,
)
