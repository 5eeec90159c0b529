"""Stage 1: are the parts of a name brought together at its last token, in early layers?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from glassformer.errors import InputError
from glassformer.interpret.edits import Knockout, Patch, knockout
from glassformer.interpret.expressions import parse
from glassformer.interpret.facts import Facts
from glassformer.studies.fact_recall.bench import ELSEWHERE, Bench, Layers, thirds, windows, with_elsewhere
from glassformer.studies.fact_recall.drawing import Band, bands
from glassformer.studies.fact_recall.predictions import DESTROYED, KEPT, SUBJECTS
from glassformer.studies.fact_recall.reading import read
from glassformer.studies.fact_recall.stages import Stage, Work
from glassformer.studies.fact_recall.statistics import mean_interval, mean_shown, paired, untested
from glassformer.studies.study import Picture, Result, Setting, Table

LAST, EARLIER = "subject.last", "subject[:-1]"

Rights = Mapping[str, Sequence[bool]]


def least(setting: Setting) -> int:
    """The fewest subjects of a test at this scale."""
    return setting.pick(4, 10, SUBJECTS)


def measure(work: Work, setting: Setting) -> Result:
    """What a probe reads at the last token of the name, with and without edges to its other tokens."""
    bench = _of_several_tokens(work.bench)
    early, late = thirds(bench.depth)
    work.say(setting, f"{len(bench.facts)} names of several tokens, read after {late.stop} of {bench.depth} layers")
    spans = windows(late.stop, setting.pick(2, 3, 6))
    prompted = _rights(bench, setting, early, late, spans)
    bare = _rights(_bare(bench), setting, early, late, [])
    labels = bench.classes
    tests = [_destroyed("early cut", prompted, "early", labels, setting)]
    tests.append(_kept(prompted, labels, setting))
    tests.append(_other_edges(bench, prompted, setting))
    tests.append(_destroyed("frozen attention", prompted, "frozen", labels, setting))
    tests.append(_destroyed("bare names", bare, "early", labels, setting))
    return {
        "n": len(labels), "labels": labels, "early": early.name, "late": late.name, "after": late.stop,
        "windows": [each.name for each in spans], "prompted": prompted, "bare": bare, "tests": tests,
    }  # fmt: skip


def _of_several_tokens(bench: Bench) -> Bench:
    """The facts whose subject has two tokens or more, with as many other positions before it where there are."""
    rows = (bench.inputs.places("subject", "text").counts > 1).nonzero()[:, 0].tolist()
    counts: dict[str, int] = {}
    for row in rows:
        counts[bench.classes[row]] = counts.get(bench.classes[row], 0) + 1
    if len(counts) < 2 or min(counts.values()) < 2:
        raise InputError("too few names have several tokens")
    chosen = bench if len(rows) == len(bench.facts) else bench.rows(rows)
    return replace(chosen, inputs=with_elsewhere(chosen.inputs, EARLIER, chosen.seed, only_before=True))


def _bare(bench: Bench) -> Bench:
    """The names alone."""
    facts = [replace(fact, prompt=fact.subject, start=0) for fact in bench.facts]
    return Bench.of(bench.model, Facts(tuple(facts)), bench.seed)


def _rights(
    bench: Bench, setting: Setting, early: Layers, late: Layers, spans: Sequence[Layers]
) -> dict[str, list[bool]]:
    """By what was done, whether the probe is right about each subject. The probe of the last token's own embedding is
    one of its own, and so is that which is fitted anew to states after the early cut."""
    after, clean = late.stop, bench.stream(late.stop, LAST)

    def cut(layers: Layers, src: str = EARLIER) -> Tensor:
        return bench.states([_cut(layers, src)], layers, LAST, after)

    states = {"clean": clean, "early": cut(early), "late": cut(late)}
    states |= {each.name: cut(each) for each in spans}
    if spans:
        states["elsewhere"] = cut(early, ELSEWHERE)
        states["frozen"] = bench.states(_frozen(bench, early, after), Layers(0, early.stop), LAST, after)
    found = read(clean, states, bench.classes, bench.seed)
    own = bench.stream(0, LAST)
    found |= read(own, {"own embedding": own}, bench.classes, bench.seed)
    found |= read(states["early"], {"fitted anew": states["early"]}, bench.classes, bench.seed)
    return found


def _cut(layers: Layers, src: str) -> Knockout:
    return knockout(f"self_attention[{layers}]", dst=LAST, src=src)


def _frozen(bench: Bench, early: Layers, after: int) -> list[Patch]:
    """All attention of the last token as it was, but for the early edges to the name's other tokens, which carry
    nothing. What it would take from elsewhere instead is not made up for: the rows then sum to less than 1."""
    expression = f"self_attention.pattern[0:{after}] @ {LAST}<-*"
    parsed = parse(expression, bench.network)
    patterns = bench.trace(expression).whole(parsed)
    cut = bench.inputs.places(EARLIER, "text").slots(next(iter(patterns.values())).shape[-1]) >= 0
    zeroed = parse(f"self_attention.pattern[{early}] @ {LAST}<-*", bench.network).names
    held = {name: p.masked_fill(cut[:, None, None], 0.0) if name in zeroed else p for name, p in patterns.items()}
    return [Patch(expression, held)]


def _destroyed(name: str, rights: Rights, cut: str, labels: Sequence[str], setting: Setting) -> dict[str, object]:
    """Whether the accuracy falls by `DESTROYED` of what is read beyond the last token's own embedding: the mean of
    clean − cut − DESTROYED · (clean − own)."""
    clean, own, after = (np.array(rights[each], dtype=float) for each in ("clean", "own embedding", cut))
    if why := _nothing_to_lose(clean - own, labels):
        return untested([name], why)[0]
    words = (
        f"accuracy {mean_shown(clean, labels)}, cut {mean_shown(after, labels)}; own embedding "
        f"{mean_shown(own, labels)}"
    )
    differences = clean - after - DESTROYED * (clean - own)
    return paired(name, differences.tolist(), words, classes=labels, least=least(setting))


def _kept(rights: Rights, labels: Sequence[str], setting: Setting) -> dict[str, object]:
    clean, own, after = (np.array(rights[each], dtype=float) for each in ("clean", "own embedding", "late"))
    if why := _nothing_to_lose(clean - own, labels):
        return untested(["late cut"], why)[0]
    words = f"accuracy {mean_shown(clean, labels)}, cut later {mean_shown(after, labels)}"
    differences = after - own - KEPT * (clean - own)
    return paired("late cut", differences.tolist(), words, classes=labels, least=least(setting))


def _nothing_to_lose(beyond: np.ndarray, labels: Sequence[str]) -> str:
    value, around = mean_interval(beyond.tolist(), labels)
    if around.low > 0:
        return ""
    return f"the probe reads no more than the last token's own embedding tells (difference {value:.2f})"


def _other_edges(bench: Bench, rights: Rights, setting: Setting) -> dict[str, object]:
    """The early cut against cutting as many other edges, where there are as many tokens before the name."""
    room = (bench.inputs.places(ELSEWHERE, "text").counts > 0).tolist()
    rows = [row for row, there in enumerate(room) if there]
    if len(rows) < least(setting):
        return untested(["other edges"], f"{len(rows)} names have as many tokens before them as they have themselves")[
            0
        ]
    labels = [bench.classes[row] for row in rows]
    other, own = ([float(rights[name][row]) for row in rows] for name in ("elsewhere", "early"))
    words = f"accuracy {mean_shown(other, labels)} without others, {mean_shown(own, labels)} without these"
    differences = [a - b for a, b in zip(other, own, strict=True)]
    return paired("other edges", differences, words, classes=labels, least=least(setting))


def draw(result: Result, folder: Path, name: str) -> Sequence[Picture]:
    """Accuracy after each cut."""
    rights, labels = result["prompted"], result["labels"]
    groups = {
        "in the prompt": [
            Band(_words(each, result), *mean_interval(rights[each], labels)) for each in ("clean", *result["windows"])
        ],
        "stages": [Band(_words(each, result), *mean_interval(rights[each], labels)) for each in _STAGES],
        "bare names": [
            Band(_words(each, result), *mean_interval(result["bare"][each], labels))
            for each in ("clean", "early", "late")
        ],
    }
    own = mean_interval(rights["own embedding"], labels)[0]
    caption = (
        f"Class-balanced accuracy of a probe at the last token of the name after {result['after']} layers, when edges "
        f"from there to the earlier tokens of the name are cut in some layers; n = {result['n']} names, bars: 95 % "
        "intervals over names. Dotted: chance; dashed: a probe of the last token's own embedding."
    )
    return [bands(folder, name, groups, caption, "accuracy", {":": 1 / len(set(labels)), "--": own})]


_STAGES = ("early", "late", "elsewhere", "frozen", "fitted anew")


def _words(key: str, result: Result) -> str:
    return {
        "early": f"cut in {result['early']}", "late": f"cut in {result['late']}",
        "elsewhere": f"other edges in {result['early']}", "frozen": "early cut, attention held",
        "fitted anew": "early cut, probe fitted anew", "own embedding": "own embedding", "clean": "nothing cut",
    }.get(key, f"cut in {key}")  # fmt: skip


def tables(result: Result) -> Sequence[Table]:
    """The same in numbers."""
    labels, bare = result["labels"], result["bare"]
    rows = tuple(
        (_words(key, result), mean_shown(right, labels), mean_shown(bare[key], labels) if key in bare else "")
        for key, right in result["prompted"].items()
    )
    title = f"Class-balanced accuracy [95 %], n = {result['n']} names, {len(set(labels))} answers"
    return [Table(title, ("what was done", "in the prompt", "bare name"), rows)]


STAGE = Stage(
    name="concatenation",
    title="Token concatenation",
    question=(
        "A name of several tokens is known as a whole only where its parts have met. Are they brought together at the "
        "last token, in early layers, so that cutting attention from there to the earlier tokens leaves a later layer "
        "without the attribute?"
    ),
    method=(
        "Names of two tokens or more. A linear probe (penalised discriminants; five folds, no name in two of them, the "
        "ridge chosen within the others) is fitted to unedited states at the last token of the name after two thirds "
        "of the layers, and reads held-out names from unedited states and after edges last token ← earlier tokens were "
        "cut through the mask, in the first third of the layers, in the second, and in each window. Controls: as many "
        "edges to other tokens before the name; the last token's attention held at its unedited pattern except for the "
        "cut edges (they carry nothing, the rest of the row stays as it was); the name alone without a prompt; a probe "
        "of the last token's own embedding, which no edge can change; a probe that is fitted anew to the cut states, "
        "which says whether the attribute is gone or only written otherwise. Accuracies are means over answers."
    ),
    measure=measure,
    draw=draw,
    tables=tables,
)
