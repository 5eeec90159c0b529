"""What an edit does to a metric: its mean over the texts, with an interval and beside matched random controls."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from glassformer.errors import InputError
from glassformer.interpret.edits import Edit, Knockout, Patch
from glassformer.interpret.expressions import Side, parse, parse_attention
from glassformer.interpret.inputs import Inputs, network_of, prepare
from glassformer.interpret.metrics import Metric, metric_of
from glassformer.interpret.running import Plan, ready, run
from glassformer.interpret.spans import Places, Range, Texts
from glassformer.interpret.trace import BATCH, Trace, trace
from glassformer.models.encoder import Encoder
from glassformer.tasks.intervals import Interval, bootstrap

CONTROL = "control"
"""The span of a control's positions."""


@dataclass(frozen=True)
class Effect:
    """The metric of each text without the edit (`baseline`) and with it (`edited`), and with each of the `controls`:
    the same edit where it should not matter as much, drawn at random. `control` says what these are."""

    metric: str
    baseline: tuple[float, ...]
    edited: tuple[float, ...]
    controls: tuple[tuple[float, ...], ...]
    control: str

    @property
    def changes(self) -> list[float]:
        """Of each text, with the edit less without it."""
        return [new - old for new, old in zip(self.edited, self.baseline, strict=True)]

    @property
    def control_changes(self) -> list[float]:
        """Of each text, the mean over the controls."""
        columns = zip(*self.controls, strict=True)
        return [sum(column) / len(column) - old for column, old in zip(columns, self.baseline, strict=True)]

    @property
    def mean(self) -> float:
        """The mean change."""
        return sum(self.changes) / len(self.changes)

    @property
    def interval(self) -> Interval:
        """95 %, by bootstrap over the texts."""
        return bootstrap(self.changes)

    @property
    def beyond_control(self) -> tuple[float, Interval] | None:
        """How much more the edit does than its controls: the mean of the paired differences and its interval."""
        if not self.controls:
            return None
        found = [own - other for own, other in zip(self.changes, self.control_changes, strict=True)]
        return sum(found) / len(found), bootstrap(found)

    def table(self) -> str:
        """All of it as text."""
        n = len(self.baseline)
        lines = [
            f"{self.metric} without the edit: {sum(self.baseline) / n:.4f} (n = {n})",
            _line("change by the edit", self.mean, self.interval),
        ]
        if self.beyond_control is not None:
            others = self.control_changes
            lines.append(_line(f"change by {self.control}", sum(others) / n, bootstrap(others)))
            lines.append(_line("beyond the control", *self.beyond_control))
        else:
            lines.append(f"no control: {self.control}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        beyond = self.beyond_control
        return {
            "metric": self.metric,
            "n": len(self.baseline),
            "baseline": sum(self.baseline) / len(self.baseline),
            "change": self.mean,
            "interval": [self.interval.low, self.interval.high],
            "control": self.control,
            "control_change": sum(self.control_changes) / len(self.baseline) if self.controls else None,
            "beyond_control": None if beyond is None else [beyond[0], beyond[1].low, beyond[1].high],
        }


def effect(
    model: Any,
    given: Any,
    edits: Edit | Sequence[Edit],
    *,
    metric: Metric = "logit_diff",
    target: Any = None,
    controls: int = 5,
    seed: int = 0,
    batch_size: int = BATCH,
) -> Effect:
    """What the edits, made together, do to a metric of the texts' ends (`metrics.NAMES`, or a function of the logits).

    Controls are matched: as many other heads of the same layers where an edit names heads; else the same edit at as
    many neighbouring positions elsewhere before the end of the text, outside of its own span, drawn anew for each text
    and each of the `controls`. Of cut edges the keys are drawn, among those that the last of the queries sees; the
    queries stay.
    """
    chosen = list(edits) if isinstance(edits, Sequence) else [edits]
    inputs, network = prepare(model, given, target), network_of(model)
    if not chosen:
        raise InputError("give at least one edit.")
    scores = metric_of(metric, model, inputs)

    def measured(now: Sequence[Edit], texts: Inputs) -> tuple[float, ...]:
        acting = [ready(edit, model, texts) for edit in now]
        found: list[float] = []
        for first in range(0, len(texts), batch_size):
            rows = slice(first, min(first + batch_size, len(texts)))
            with torch.no_grad():
                logits = run(network, texts, rows, Plan.of(acting, texts, rows), ends=True)
                found += scores(logits, rows).tolist()
        return tuple(found)

    draw, found, why = random.Random(f"controls {seed}"), [], "none asked for"
    for _ in range(controls):
        try:
            found.append(measured(*_controls(chosen, model, inputs, draw)))
            why = "other heads" if _names_heads(chosen, network) else "the same at other positions"
        except InputError as error:
            found, why = [], str(error)
            break
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", "metric")
    return Effect(name, measured([], inputs), measured(chosen, inputs), tuple(found), why)


def _line(what: str, mean: float, interval: Interval) -> str:
    return f"{what}: {mean:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"


def _names_heads(edits: Sequence[Edit], network: Any) -> bool:
    return any(_heads(edit, network) is not None for edit in edits)


def _heads(edit: Edit, network: Any) -> tuple[int, ...] | None:
    if isinstance(edit, Knockout):
        return parse_attention(edit.attention, network)[1]
    return parse(edit.site, network).heads


def _controls(edits: Sequence[Edit], model: Any, inputs: Inputs, draw: random.Random) -> tuple[list[Edit], Inputs]:
    """The edits elsewhere, and the texts with the spans that these name."""
    network, made = network_of(model), []
    for number, edit in enumerate(edits):
        heads = _heads(edit, network)
        if heads is not None:
            made.append(_other_heads(edit, heads, network.config, draw))
            continue
        name = f"{CONTROL}_{'abcdefghijklmnopqrstuvwxyz'[number % 26]}"
        edit, inputs = _other_places(edit, model, inputs, name, draw)
        made.append(edit)
    return made, inputs


def _other_heads(edit: Edit, heads: Sequence[int], config: Any, draw: random.Random) -> Edit:
    text = edit.attention if isinstance(edit, Knockout) else edit.site
    site = text.partition("@")[0]
    count = config.kv_heads if ".key" in site or ".value" in site else config.n_heads
    rest = [head for head in range(count) if head not in heads]
    if len(rest) < len(heads):
        raise InputError(f"there are no {len(heads)} other heads to compare with.")
    others = ",".join(map(str, sorted(draw.sample(rest, len(heads)))))
    before, _, after = text.partition(".head[")
    moved = f"{before}.head[{others}]{after.partition(']')[2]}"
    return replace(edit, attention=moved) if isinstance(edit, Knockout) else replace(edit, site=moved)


def _other_places(edit: Edit, model: Any, inputs: Inputs, name: str, draw: random.Random) -> tuple[Edit, Inputs]:
    """The edit at a random range of each text, of as many positions as its own span has."""
    network = network_of(model)
    if isinstance(edit, Knockout):
        encoder, cross = edit.attention.startswith("encoder."), "cross_attention" in edit.attention
        side: Side = "source" if encoder or cross else "text"
        ends = None
        if side == "text" and not isinstance(network, Encoder):  # keys after the query are not seen anyway
            queries = inputs.places(edit.dst, "text")
            ends = queries.index.masked_fill(~queries.real, 0).amax(1)
        return replace(edit, src=name), _with_span(inputs, side, inputs.places(edit.src, side), name, draw, ends)
    expression = parse(edit.site, network)
    own = inputs.places(expression.at, expression.side)
    spanned = _with_span(inputs, expression.side, own, name, draw)
    site = f"{edit.site.partition('@')[0].strip()} @ {name}"
    if expression.of is not None:
        site += f"<-{expression.of}"
    if isinstance(edit, Patch):
        return _patched(edit, site, spanned, expression.side, name), spanned
    return replace(edit, site=site), spanned


def _patched(edit: Patch, site: str, here: Inputs, side: Side, name: str) -> Patch:
    """A patch from the same positions of its source's texts."""
    if not isinstance(edit.source, Trace):
        raise InputError("given values have no others at other positions.")
    there = edit.source.inputs
    texts, own = (each.source if side == "source" else each.text for each in (there, here))
    assert texts is not None and own is not None
    if not torch.equal(texts.lengths, own.lengths):
        raise InputError("the texts that it is patched from have other lengths.")
    moved = _replaced(there, side, replace(texts, spans={**texts.spans, name: own.spans[name]}))
    return Patch(site, trace(edit.source.model, moved, site))


def _with_span(
    inputs: Inputs, side: Side, own: Places, name: str, draw: random.Random, ends: Tensor | None = None
) -> Inputs:
    """The texts with a span of positions before `ends` (the last one of each text), as many as `own` has."""
    texts = inputs.source if side == "source" else inputs.text
    assert texts is not None
    last = texts.lengths - 1 if ends is None else ends
    ranges = [
        _elsewhere(set(index[real].tolist()), int(end), row, draw)
        for row, (index, real, end) in enumerate(zip(own.index, own.real, last, strict=True))
    ]
    return _replaced(inputs, side, replace(texts, spans={**texts.spans, name: ranges}))


def _replaced(inputs: Inputs, side: Side, texts: Texts) -> Inputs:
    return replace(inputs, source=texts) if side == "source" else replace(inputs, text=texts)


def _elsewhere(own: set[int], end: int, row: int, draw: random.Random) -> Range:
    """As many neighbouring positions before the end, none of them its own."""
    count = len(own)
    if not count:
        return 0, 0
    fits = [first for first in range(end - count + 1) if own.isdisjoint(range(first, first + count))]
    if not fits:
        raise InputError(f"text {row + 1} has no {count} neighbouring positions elsewhere before its end.")
    first = draw.choice(fits)
    return first, first + count
