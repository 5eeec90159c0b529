"""How many neurons a lookup takes: ranked on one half of the facts, taken away on the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from glassformer.interpret.acting import Cut, Put, Window, payload
from glassformer.interpret.expressions import parse
from glassformer.interpret.inputs import Rows
from glassformer.models.weights import weight_of
from glassformer.studies.fact_recall.bench import Bench, Layers, halved
from glassformer.studies.fact_recall.concatenation import least
from glassformer.studies.fact_recall.drawing import Line, lines
from glassformer.studies.fact_recall.shares import share_interval
from glassformer.studies.fact_recall.stages import Stage, Work, earlier
from glassformer.studies.fact_recall.statistics import mean_interval, mean_shown, paired, shown, unpaired, untested
from glassformer.studies.study import Picture, Result, Setting, Table

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
"""The shares of the lookup's neurons that are taken away."""

MATCHED_UP_TO = 0.3
"""Larger sets have no others of like norm beside them."""

ABLATIONS = ("resample", "zero", "mean")
BINS = 50
UNRELATED = 8
"""The fewest unrelated facts to compare with."""


@dataclass(frozen=True, eq=False)
class Neurons:
    """The hidden units of some layers' feed-forwards at the names, for one half of the facts: what they are, what they
    would be without the fact, and how to take a set of them away. A set is a mask [L, F]."""

    bench: Bench
    layers: Layers
    values: Mapping[str, Mapping[str, Tensor]]

    @classmethod
    def of(cls, bench: Bench, layers: Layers, ablations: Sequence[str] = ABLATIONS) -> Neurons:
        """What replaces them, by ablation and site."""
        expression = _expression(layers)
        kept = bench.trace(expression)
        return cls(bench, layers, {to: bench.values(kept, expression, to) for to in ablations})

    def drop(self, chosen: Bool[Tensor, "L F"], to: str = "resample") -> list[float]:
        """How far each fact's logit difference falls without these neurons."""
        edit = _Taken(self.bench, self.layers, self.values[to], chosen)
        found: list[float] = (self.bench.baseline - self.bench.difference([edit], self.layers, "subject")).tolist()
        return found


@dataclass(frozen=True, eq=False)
class _Taken:
    """An edit that is ready: other values for some hidden units at the names."""

    bench: Bench
    layers: Layers
    values: Mapping[str, Tensor]
    chosen: Bool[Tensor, "L F"]

    def taps(self, rows: Rows) -> Mapping[str, Put]:
        """Of the layers in which any is chosen."""
        names = parse(_expression(self.layers), self.bench.network).names
        picked = zip(names, self.chosen, strict=True)
        return {name: self._put(name, mask, rows) for name, mask in picked if bool(mask.any())}

    def cuts(self, rows: Rows) -> Mapping[str, Cut]:
        """None."""
        return {}

    def _put(self, name: str, mask: Tensor, rows: Rows) -> Put:
        inputs = self.bench.inputs
        window = Window(inputs.places("subject", "text"), rows, inputs.text.ids.shape[1])
        other = payload(self.values[name][rows], "stream", None)

        def new(value: Tensor, slots: Tensor) -> Tensor:
            return torch.where(mask, other(value, slots), value)

        return Put("stream", new, window, None, None)


def measure(work: Work, setting: Setting) -> Result:
    """Rank on the first half of the facts, then take away on the second."""
    found = earlier(work, "lookup")
    first, second = halved(work.bench.classes, work.material.seed)
    layers = lookup_layers(found, first)
    one, other = work.bench.rows(first), work.bench.rows(second)
    work.say(setting, f"ranking neurons of {layers.name} on {len(first)} facts, tested on {len(second)}")
    scores, norms = _ranked(one, layers)
    neurons = Neurons.of(other, layers)
    curves = _curves(work, neurons, scores, norms, setting)
    counts = _counts(scores["resample"].numel(), setting)
    k = {to: {level: share_interval(curves[to], counts, float(level)) for level in ("0.5", "0.9")} for to in ABLATIONS}
    most = {to: share_interval(curves[to], counts, 0.5, of_most=True) for to in ABLATIONS}
    size = max(1, round(k["resample"]["0.5"][0] * counts[-1]))
    half, tests = _tested(work, neurons, scores["resample"], norms, size, setting)
    return {
        "n": len(second), "ranked_on": len(first), "layers": [layers.first, layers.stop], "total": counts[-1],
        "counts": counts, "curves": curves, "k": k, "k50 of most": most,
        "baseline": other.baseline.tolist(), "half": half,
        "single": _single(one, other, neurons, scores["resample"], setting), "tests": tests,
    }  # fmt: skip


def lookup_layers(found: Result, rows: Sequence[int]) -> Layers:
    """The two neighbouring windows, of those where facts may be looked up, whose feed-forwards cost most."""
    drops, spans, inside = found["drops"]["feed_forward"], found["windows"], found["inside"]
    means = {number: float(np.mean([drops[number][row] for row in rows])) for number in inside}
    pairs = [(a, b) for a, b in zip(inside, inside[1:], strict=False)] or [(inside[0], inside[0])]
    best = max(pairs, key=lambda pair: sum(means[number] for number in set(pair)))
    return Layers(spans[best[0]][0], spans[best[1]][1])


def _expression(layers: Layers) -> str:
    return f"feed_forward.hidden[{layers}] @ subject"


def _ranked(bench: Bench, layers: Layers) -> tuple[dict[str, Tensor], Float[Tensor, "L F"]]:
    """By ablation, what each neuron is estimated to give: (value − replacement) · gradient of the logit difference, at
    all tokens of the name, mean over facts. And its norm: by how much resampling it moves the stream."""
    expression = _expression(layers)
    kept = bench.trace(expression, grad=True)
    assert kept.grad is not None
    own, slopes = (each.whole(parse(expression, bench.network)) for each in (kept, kept.grad))
    scores: dict[str, Tensor] = {}
    for to in ABLATIONS:
        replaced = bench.values(kept, expression, "mean" if to == "resample" else to)
        each = [((own[name] - replaced[name]) * slopes[name]).sum(1).mean(0) for name in own]
        scores[to] = torch.stack(each).cpu()
    partners = bench.values(kept, expression)
    norms = []
    for layer, name in zip(range(layers.first, layers.stop), own, strict=True):
        written = weight_of(bench.network.stack.blocks[layer].feed_forward, "down").norm(dim=0)
        norms.append((own[name] - partners[name]).abs().sum(1).mean(0) * written)
    return scores, torch.stack(norms).detach().cpu()


def _counts(total: int, setting: Setting) -> list[int]:
    """How many neurons the sets have; the last has all."""
    shares = setting.pick((0.05, 0.2, 0.5, 1.0), (0.005, 0.02, 0.1, 0.3, 1.0), SHARES)
    return sorted({max(1, round(share * total)) for share in shares})


def _curves(
    work: Work, neurons: Neurons, scores: Mapping[str, Tensor], norms: Tensor, setting: Setting
) -> dict[str, list[list[float]]]:
    """By kind of set, and its size, each fact's fall. Random and norm-matched sets are means over several draws."""
    counts, draws = _counts(norms.numel(), setting), setting.pick(1, 1, 3)
    largest = scores["resample"].flatten().argsort(descending=True)
    curves: dict[str, list[list[float]]] = {}
    for to in ABLATIONS:
        work.say(setting, f"sets of {counts[0]} to {counts[-1]} neurons, {to}")
        order = scores[to].flatten().argsort(descending=True)
        curves[to] = [neurons.drop(_mask(order[:count], norms), to) for count in counts]
    work.say(setting, "sets at random, and of like norm")
    small = [count for count in counts if count <= MATCHED_UP_TO * counts[-1]]

    def mean_of(pick: Callable[[int, int], Tensor]) -> list[list[float]]:
        return [_mean([neurons.drop(_mask(pick(count, seed), norms)) for seed in range(draws)]) for count in small]

    curves["random"] = mean_of(lambda count, seed: _shuffled(norms.numel(), seed)[:count])
    curves["like norm"] = mean_of(lambda count, seed: like_norm(largest[:count], norms, seed))
    return curves


def _tested(
    work: Work, neurons: Neurons, scores: Tensor, norms: Tensor, size: int, setting: Setting
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The set that makes up k50: against others of like norm, and in unrelated facts."""
    best = scores.flatten().argsort(descending=True)[:size]
    own = neurons.drop(_mask(best, norms))
    matched = [neurons.drop(_mask(like_norm(best, norms, 10 + seed), norms)) for seed in range(setting.pick(1, 1, 3))]
    other = _mean(matched)
    words = f"{size} neurons: the logit difference falls by {mean_shown(own)} against {mean_shown(other)}"
    if size > MATCHED_UP_TO * norms.numel():
        tests = untested(["ranked neurons"], f"k50 is {size} of {norms.numel()} neurons: there are no others like them")
    else:
        tests = [
            paired("ranked neurons", [a - b for a, b in zip(own, other, strict=True)], words, least=least(setting))
        ]
    unrelated, test = _unrelated(work, neurons, _mask(best, norms), own)
    return {"size": size, "own": own, "like norm": other, "unrelated": unrelated}, [*tests, test]


def _unrelated(
    work: Work, neurons: Neurons, chosen: Tensor, own: Sequence[float]
) -> tuple[list[float], dict[str, Any]]:
    """The same neurons in facts of another kind: shares of the logit difference, fact by fact."""
    given = work.material.unrelated
    known = given.known(work.material.model) if len(given) else given
    counts = known.classes
    if len(known) < UNRELATED or len(counts) < 2:
        return [], untested(
            ["specific"], f"the model knows {len(known)} of the unrelated facts, {UNRELATED} are needed"
        )[0]
    bench = Bench.of(work.material.model, known, work.material.seed)
    fall = Neurons.of(bench, neurons.layers, ("resample",)).drop(chosen)
    whole, base = float(bench.baseline.mean()), float(neurons.bench.baseline.mean())
    if min(whole, base) <= 0:
        return fall, untested(["specific"], "the logit difference is not above 0 without any edit")[0]
    here, there = [value / base for value in own], [value / whole for value in fall]
    words = f"share of the logit difference: {mean_shown(here)} against {mean_shown(there)} (n = {len(there)})"
    return there, unpaired("specific", here, there, words, least=UNRELATED)


def _single(one: Bench, other: Bench, neurons: Neurons, scores: Tensor, setting: Setting) -> dict[str, Any]:
    """The neuron that alone does most: the best by estimate, tried one by one on the first half, and on the second."""
    candidates = scores.flatten().argsort(descending=True)[: setting.pick(2, 5, 20)]
    here = Neurons.of(one, neurons.layers, ("resample",))
    falls = [float(np.mean(here.drop(_mask(number[None], scores)))) for number in candidates]
    best = candidates[int(np.argmax(falls))]
    layer, unit = divmod(int(best), scores.shape[1])
    return {"layer": neurons.layers.first + layer, "neuron": unit, "drops": neurons.drop(_mask(best[None], scores))}


def like_norm(chosen: Tensor, norms: Tensor, seed: int) -> Tensor:
    """As many neurons that are not chosen, of the same norms: from each of `BINS` bins of equal size, as many as are
    chosen there; where a bin has too few, the rest from its neighbours."""
    flat, draw = norms.flatten(), torch.Generator().manual_seed(seed)
    order = flat.argsort()
    taken = torch.zeros(len(flat), dtype=torch.bool)
    taken[chosen] = True
    found: list[int] = []
    short = 0
    for part in order.chunk(BINS):
        rest = part[~taken[part]]
        wanted = int(taken[part].sum()) + short
        picked = rest[torch.randperm(len(rest), generator=draw)[:wanted]]
        short = wanted - len(picked)
        found += picked.tolist()
    left = [number for number in order.tolist() if not taken[number] and number not in set(found)]
    return torch.tensor(found + left[len(left) - short :] if short else found, dtype=torch.long)


def _mask(numbers: Tensor, like: Tensor) -> Bool[Tensor, "L F"]:
    found = torch.zeros(like.numel(), dtype=torch.bool)
    found[numbers] = True
    return found.reshape(like.shape)


def _shuffled(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _mean(rows: Sequence[Sequence[float]]) -> list[float]:
    found: list[float] = np.mean(rows, axis=0).tolist()
    return found


def draw(result: Result, folder: Path, name: str) -> Sequence[Picture]:
    """The share of the effect against the share of the neurons."""
    whole = float(np.mean(result["curves"]["resample"][-1]))
    drawn = []
    for kind, rows in result["curves"].items():
        each = [mean_interval(row) for row in rows]
        x = [count / result["total"] for count in result["counts"][: len(rows)]]
        drawn.append(Line(_KINDS[kind], x, [value for value, _ in each], [around for _, around in each]))
    first, stop = result["layers"]
    caption = (
        f"How far the logit difference falls when a share of the {result['total']} hidden neurons of layers {first} to "
        f"{stop - 1} is taken away at the name. Ranked on {result['ranked_on']} facts, measured on n = {result['n']} "
        "others; bands: 95 % intervals over facts. Dashed: half of what all do; dotted: what all do (resampled)."
    )
    axes = ("share of the lookup's neurons", "fall of the logit difference")
    return [lines(folder, name, drawn, caption, axes, log=True, levels={"--": whole / 2, ":": whole})]


_KINDS = {
    "resample": "ranked, resampled", "zero": "ranked, zeros", "mean": "ranked, means",
    "random": "at random, resampled", "like norm": "like norm, resampled",
}  # fmt: skip


def tables(result: Result) -> Sequence[Table]:
    """k50 and k90, and falls by size of set."""
    rows = []
    for to, levels in result["k"].items():
        found = (levels["0.5"], levels["0.9"], result["k50 of most"][to])
        cells = [shown(*(100 * each for each in one)) for one in found]
        rows.append((_KINDS[to], *cells, mean_shown(result["curves"][to][-1])))
    title = f"Smallest share of {result['total']} neurons, % [95 %], n = {result['n']} facts"
    sizes = tuple(
        (str(count), *(mean_shown(curve[place]) if place < len(curve) else "" for curve in result["curves"].values()))
        for place, count in enumerate(result["counts"])
    )
    single = result["single"]
    one = (
        f"layer {single['layer']}, neuron {single['neuron']}: {mean_shown(single['drops'], digits=3)} of "
        f"{mean_shown(result['curves']['resample'][-1])}"
    )
    return [
        Table(title, ("", "k50", "k90", "k50 of the largest fall of any set", "fall without any of them"), tuple(rows)),
        Table("The best single neuron", ("where, and how far the logit difference falls without it",), ((one,),)),
        Table("Fall of the logit difference [95 %]", ("neurons", *(_KINDS[kind] for kind in result["curves"])), sizes),
    ]


STAGE = Stage(
    name="neurons",
    title="How many neurons it takes",
    question="Is a fact in one neuron, in a few, or in many?",
    method=(
        "The lookup's layers are the two neighbouring windows whose feed-forwards cost the first half of the facts "
        "most. Their hidden neurons at the name are ranked on that half, by (value − mean) · gradient of the logit "
        "difference, and sets of the best are taken away on the other half: resampled from a subject with another "
        "answer, set to zero, set to the mean, each by a ranking of its own. k50 and k90 are the smallest shares of "
        "all these neurons whose loss is 50 and 90 % of the loss of all (between two measured sizes on a line over the "
        "logarithm of the share). Some neurons work against the others, so that a set may cost more than all do; "
        "beside k50 stands the share that costs half of the largest fall of any set. Controls: as many at random, as "
        "many others of like norm (what resampling a neuron moves in the stream), the same neurons in unrelated facts. "
        "The best single neuron is chosen on the first half among the best by estimate."
    ),
    measure=measure,
    draw=draw,
    tables=tables,
)
