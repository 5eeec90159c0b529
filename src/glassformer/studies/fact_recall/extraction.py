"""Stage 3: do attention heads carry the asked attribute to the end of the text?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glassformer.interpret.attribution import attribute
from glassformer.interpret.edits import knockout
from glassformer.studies.fact_recall.bench import BATCH, ELSEWHERE, Bench, Layers, halves, windows
from glassformer.studies.fact_recall.concatenation import least
from glassformer.studies.fact_recall.drawing import Band, Line, bands, lines
from glassformer.studies.fact_recall.predictions import CARRIED, EXTRACTED, FEW_HEADS
from glassformer.studies.fact_recall.shares import heads_for
from glassformer.studies.fact_recall.stages import Stage, Work
from glassformer.studies.fact_recall.statistics import (
    bootstrapped,
    interval,
    mean_interval,
    mean_shown,
    paired,
    shown,
    untested,
)
from glassformer.studies.fact_recall.swap import measure_swap
from glassformer.studies.study import Picture, Result, Setting, Table

TOP = 10
"""So many heads are listed."""


def measure(work: Work, setting: Setting) -> Result:
    """Cuts end ← subject, the direct effects of heads, and the subspace swap."""
    bench = work.bench
    first, second = halves(bench.depth)
    spans = windows(bench.depth, setting.pick(2, 3, 8))
    work.say(setting, "cutting end ← subject")
    falls = {each.name: _fall(bench, each) for each in spans}
    parts = {"first": _fall(bench, first), "second": _fall(bench, second), "all": _fall(bench, Layers(0, bench.depth))}
    parts["elsewhere"] = _fall(bench, second, ELSEWHERE)
    work.say(setting, "direct effects of heads")
    effects = head_effects(bench)
    work.say(setting, "swapping subspaces")
    swap, of_swap = measure_swap(bench, second, setting)
    return {
        "n": len(bench.facts), "baseline": bench.baseline.tolist(), "windows": falls, "parts": parts,
        "first": first.name, "second": second.name, "heads": _about_heads(bench, effects), "swap": swap,
        "tests": [*_cut_tests(bench, parts, setting), _few_heads(effects, setting), *of_swap],
    }  # fmt: skip


def _fall(bench: Bench, layers: Layers, src: str = "subject") -> list[float]:
    """How far each fact's logit difference falls without edges end ← src in these layers."""
    cut = knockout(f"self_attention[{layers}]", dst="end", src=src)
    found: list[float] = (bench.baseline - bench.difference([cut], layers, "end")).tolist()
    return found


def _cut_tests(bench: Bench, parts: dict[str, list[float]], setting: Setting) -> list[dict[str, Any]]:
    first, second, whole = (parts[name] for name in ("first", "second", "all"))
    few, words = least(setting), f"falls by {mean_shown(second)} in the second half"
    tests = [
        paired("later half", [a - b for a, b in zip(second, first, strict=True)],
               f"{words}, {mean_shown(first)} in the first", least=few)
    ]  # fmt: skip
    counts = bench.inputs.places(ELSEWHERE, "text").counts
    rows = (counts > 0).nonzero()[:, 0].tolist()
    if len(rows) < few:
        tests += untested(["other sources"], f"{len(rows)} prompts have as many other tokens as the name has")
    else:
        pairs = [(second[row], parts["elsewhere"][row]) for row in rows]
        own, other = ([pair[side] for pair in pairs] for side in (0, 1))
        said = f"falls by {mean_shown(own)}, by {mean_shown(other)} without the others"
        tests.append(paired("other sources", [a - b for a, b in pairs], said, least=few))
    if mean_interval(whole)[1].low <= 0:
        return [*tests, *untested(["most of it"], f"cutting in all layers costs nothing ({mean_shown(whole)})")]
    differences = [a - EXTRACTED * b for a, b in zip(second, whole, strict=True)]
    return [*tests, paired("most of it", differences, f"{words}, {mean_shown(whole)} in all layers", least=few)]


def head_effects(bench: Bench) -> np.ndarray:
    """What each head writes at the end toward logit(answer) − logit(partner's answer), directly: [n, L, H]."""
    others = [bench.classes[row] for row in bench.partners.tolist()]
    found = attribute(bench.model, bench.facts, "head", metric="logit_diff", others=others, batch_size=BATCH)
    effects: np.ndarray = found.heads().cpu().numpy()
    return effects


def _flat(effects: np.ndarray) -> np.ndarray:
    return effects.reshape(len(effects), -1)


def _about_heads(bench: Bench, effects: np.ndarray) -> dict[str, Any]:
    """The share of heads that carries `CARRIED` with its interval; the same with random signs of the facts' effects,
    which is what noise alone gives; and the largest heads."""
    flat = _flat(effects)
    signs = np.random.default_rng(bench.seed).choice([-1.0, 1.0], (len(flat), 1))
    one = np.ones((1, len(flat)))
    means = flat.mean(0)
    order = np.argsort(-means)[:TOP]
    largest = [
        [f"self_attention[{place // effects.shape[2]}].head[{place % effects.shape[2]}]", float(means[place])]
        for place in order.tolist()
    ]
    around = interval(lambda weights: heads_for(flat, CARRIED, weights), len(flat), bench.seed)
    summed = np.cumsum(-np.sort(-np.maximum(means, 0)))
    return {
        "total": flat.shape[1], "share": float(heads_for(flat, CARRIED, one)[0]), "interval": list(around),
        "by chance": float(heads_for(flat * signs, CARRIED, one)[0]), "largest": largest,
        "carried": (summed / max(float(summed[-1]), 1e-12)).tolist(),
    }  # fmt: skip


def _few_heads(effects: np.ndarray, setting: Setting) -> dict[str, Any]:
    flat = _flat(effects)

    def statistic(weights: np.ndarray) -> np.ndarray:
        return FEW_HEADS - heads_for(flat, CARRIED, weights)

    low, high = interval(lambda weights: heads_for(flat, CARRIED, weights), len(flat))
    share = float(heads_for(flat, CARRIED, np.ones((1, len(flat))))[0])
    words = f"{shown(100 * share, 100 * low, 100 * high, digits=1)} % of {flat.shape[1]} heads"
    return bootstrapped("few heads", statistic, len(flat), words, least=least(setting))


def draw(result: Result, folder: Path, name: str) -> Sequence[Picture]:
    """Cuts by window, heads, and swaps."""
    ticks = [key.removeprefix("layers ").removeprefix("layer ").replace(" to ", "–") for key in result["windows"]]
    each = [mean_interval(falls) for falls in result["windows"].values()]
    line = Line("end ← subject cut", range(len(ticks)), [value for value, _ in each], [around for _, around in each])
    base = mean_interval(result["baseline"])[0]
    caption = (
        f"How far logit(answer) − logit(other answer) falls without edges from the end to the subject in a window of "
        f"layers; without a cut it is {base:.2f}. n = {result['n']} facts, band: 95 % interval over facts."
    )
    axes = ("layers", "fall of the logit difference")
    cuts = lines(folder, f"{name}_cuts", [line], caption, axes, ticks=ticks)
    heads = result["heads"]
    carried = Line("heads, the largest first", [(place + 1) / heads["total"] for place in range(heads["total"])],
                   heads["carried"])  # fmt: skip
    caption = (
        f"What share of the positive direct effects the largest heads carry, of {heads['total']} heads; n = "
        f"{result['n']} facts, means over facts. Dashed: {100 * CARRIED:g} %."
    )
    few = lines(folder, f"{name}_heads", [carried], caption, ("share of heads", "share of the effect"),
                levels={"--": CARRIED})  # fmt: skip
    return [cuts, few, _draw_swap(result, folder, name)]


def _draw_swap(result: Result, folder: Path, name: str) -> Picture:
    swap = result["swap"]
    words = {"whole": "whole output", "answers": "directions of the answers", "random": "random directions"}
    moved = [Band(words[key], *mean_interval(shifts)) for key, shifts in swap["shifts"].items()]
    moved.append(Band("directions of a probe", *mean_interval(swap["probe"])))
    caption = (
        "How far logit(other answer) − logit(own answer) moves when attention's outputs at the end, in "
        f"{result['second']}, are another fact's in {swap['dimensions']} of {swap['of']} dimensions (or in all). "
        f"n = {result['n']} facts (probe: the {len(swap['probe'])} that it was not fitted to); bars: 95 % intervals."
    )
    return bands(folder, f"{name}_swap", {"swapped": moved}, caption, "logits")


def tables(result: Result) -> Sequence[Table]:
    """Cuts, heads, swaps."""
    parts, heads, swap = result["parts"], result["heads"], result["swap"]
    names = {"first": result["first"], "second": result["second"], "all": "all layers",
             "elsewhere": f"as many others, {result['second']}"}  # fmt: skip
    cuts = tuple((names[key], mean_shown(falls)) for key, falls in parts.items())
    by_window = tuple((key, mean_shown(falls)) for key, falls in result["windows"].items())
    share = shown(*(100 * each for each in (heads["share"], *heads["interval"])), digits=1)
    about = (
        (f"heads for {100 * CARRIED:g} % of the positive direct effects, % of {heads['total']}", share),
        ("the same with random signs", f"{100 * heads['by chance']:.1f}"),
        *((name, f"{value:+.3f}") for name, value in heads["largest"]),
    )
    flips = tuple(
        (key, mean_shown(swap["shifts"][key]), shown(*(100 * each for each in swap["flips"][key]), digits=0))
        for key in swap["shifts"]
    )
    return [
        Table(
            f"Fall of the logit difference without end ← subject [95 %], n = {result['n']}", ("", ""), cuts + by_window
        ),
        Table("Direct effects of heads on the logit difference", ("", ""), about),
        Table("The swap", ("what of the output", "the answer moves by [95 %]", "other answer ahead, % [95 %]"), flips),
    ]


STAGE = Stage(
    name="extraction",
    title="Attribute extraction",
    question=(
        "The answer is said at the end of the prompt. Do attention heads in upper layers bring the asked attribute "
        "there from the name, how many of them, and in which directions?"
    ),
    method=(
        "Edges end ← all tokens of the name are cut through the mask, in windows of layers, in each half of the "
        "layers, and in all; the metric is logit(own answer) − logit(answer of a paired fact). Control: as many other "
        "neighbouring tokens. Heads: direct logit attribution of the same difference (exact sums, the scale of the "
        f"final norm frozen); how many heads, the largest first, have {100 * CARRIED:g} % of all positive mean "
        "effects, beside what is left with random signs. Swap: attention's outputs at the end, in the second half of "
        "the layers, are held, but for their component in the space spanned by the answers' unembedding directions "
        "(with the final norm's gain, less their mean), which is the paired fact's. Controls: the whole output, random "
        "spaces of as many dimensions; beside them the directions of a probe of the output, on facts that it was not "
        "fitted to."
    ),
    measure=measure,
    draw=draw,
    tables=tables,
)
