"""The bench of a study: texts of facts, read once, and run on from the layer and the position of an edit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glassformer.errors import InputError
from glassformer.interpret.edits import Edit, Patch
from glassformer.interpret.expressions import parse
from glassformer.interpret.facts import Facts
from glassformer.interpret.gate import answer_ids
from glassformer.interpret.inputs import Inputs, prepare
from glassformer.interpret.packed import Runs
from glassformer.interpret.prefix import Prefix
from glassformer.interpret.references import aligned, mean_of
from glassformer.interpret.running import Acting, Plan
from glassformer.interpret.spans import Places
from glassformer.interpret.trace import Trace, trace
from glassformer.tasks.model import Model

BATCH = 16
"""Texts that are run together. All begin where the first of them is edited, so that small batches save more."""

KEPT_BYTES = 2_000_000_000
"""So much of what was seen before an edit is kept at most; the rest is computed each time."""

ELSEWHERE = "elsewhere[:-1]"
"""The span of a control's positions; it may be empty, which a whole span may not, so that one too many is named."""


@dataclass(frozen=True)
class Layers:
    """Neighbouring layers, `first` to the one before `stop`."""

    first: int
    stop: int

    def __str__(self) -> str:
        return f"{self.first}:{self.stop}"

    @property
    def name(self) -> str:
        """How people read it: "layers 0 to 2"."""
        return f"layer {self.first}" if self.stop == self.first + 1 else f"layers {self.first} to {self.stop - 1}"


def windows(depth: int, count: int) -> list[Layers]:
    """All layers in `count` neighbouring windows of as equal width as can be, or in one for each layer."""
    count = min(count, depth)
    ends = [round(depth * number / count) for number in range(count + 1)]
    return [Layers(first, stop) for first, stop in zip(ends, ends[1:], strict=False)]


def thirds(depth: int) -> tuple[Layers, Layers]:
    """The first and the second third of the layers, of equal width. `InputError` for a network of one layer."""
    if depth < 2:
        raise InputError("a network of one layer has no early and late layers")
    width = max(1, round(depth / 3))
    return Layers(0, width), Layers(width, 2 * width)


def halves(depth: int) -> tuple[Layers, Layers]:
    """The first and the second half of the layers, of equal width (a middle layer belongs to none)."""
    if depth < 2:
        raise InputError("a network of one layer has no halves")
    return Layers(0, depth // 2), Layers(depth - depth // 2, depth)


@dataclass(frozen=True, eq=False)
class Bench:
    """Facts of one relation with a decoder. Facts are compared with `partners`: others, with another answer.

    All results have a row for each fact. `inputs` may be other texts of the same subjects (bare names).
    """

    model: Model
    facts: Facts
    inputs: Inputs
    seed: int = 0
    seen: dict[int, Prefix] = field(default_factory=dict)
    """Of some batches, what was seen of them before any edit."""

    @classmethod
    def of(cls, model: Model, facts: Facts, seed: int = 0) -> Bench:
        """The facts with their prompts."""
        return cls(model, facts, with_elsewhere(prepare(model, facts), "subject", seed), seed)

    def rows(self, chosen: Sequence[int]) -> Bench:
        """A part of the facts, which are then partners among themselves."""
        return Bench.of(self.model, self.facts.take(chosen), self.seed)

    @property
    def network(self) -> Any:
        """The decoder."""
        return self.model.network

    @property
    def depth(self) -> int:
        """How many layers it has."""
        return int(self.network.config.n_decoder_layers)

    @property
    def classes(self) -> list[str]:
        """The right answer of each fact."""
        return self.facts.labels

    @cached_property
    def partners(self) -> Int[Tensor, n]:
        """For each fact the row of another with another answer, and as many tokens in its subject where that can be."""
        row_of = {fact: row for row, fact in enumerate(self.facts)}
        swapped = self.facts.swapped(self.seed, tokenizer=self.model.tokenizer)
        return torch.tensor([row_of[fact] for fact in swapped])

    @cached_property
    def answers(self) -> Int[Tensor, n]:
        """The token that each right answer begins with."""
        return torch.tensor(answer_ids(self.model, self.facts), device=self.model.device)

    @cached_property
    def order(self) -> tuple[Int[Tensor, b], ...]:
        """The rows of each batch: texts of like places of the subject's end."""
        return self.inputs.places("subject.last", "text").index[:, 0].argsort(stable=True).split(BATCH)

    def batches(self) -> Iterator[tuple[Int[Tensor, b], Prefix]]:
        """The rows of each batch, and what is seen of them without any edit: kept for the next time where it fits."""
        for number, rows in enumerate(self.order):
            prefix = self.seen.get(number) or Prefix.of(self.network, self.inputs, rows)
            if number not in self.seen and sum(map(_bytes, self.seen.values())) < KEPT_BYTES:
                self.seen[number] = prefix
            yield rows, prefix

    @cached_property
    def baseline(self) -> Float[Tensor, n]:
        """The logit difference without any edit."""
        return self._gathered([self._difference(prefix.logits, rows) for rows, prefix in self.batches()])

    @cached_property
    def right(self) -> Tensor:
        """Whether the likeliest token is the answer's, without any edit."""
        return self._gathered([prefix.logits.argmax(-1) == self.answers[rows] for rows, prefix in self.batches()])

    def stream(self, after: int, at: str) -> Float[Tensor, "n D"]:
        """The stream after so many layers (0: the embedding) at the one position `at`, without any edit."""
        return self.streams([after], at)[0]

    def streams(self, after: Sequence[int], at: str) -> Float[Tensor, "L n D"]:
        """`stream` after each of several numbers of layers."""
        places, found = self.inputs.places(at, "text").index[:, 0], []
        for rows, prefix in self.batches():
            here = torch.arange(len(rows)), places[rows]
            found.append(torch.stack([prefix.reads[each][here] for each in after], 1))
        return self._gathered(found).transpose(0, 1)

    def difference(self, edits: Sequence[Edit | Acting], layers: Layers, at: str) -> Float[Tensor, n]:
        """logit(answer) − logit(partner's answer) at the end, with edits in these layers and later, at `at` and later
        (what is before that is not run again)."""
        return self._gathered(self._run(edits, layers.first, at, self._difference))

    def states(self, edits: Sequence[Edit | Acting], layers: Layers, at: str, after: int) -> Float[Tensor, "n D"]:
        """The stream after `after` layers at the one position `at`, with edits in `layers` and later, before that."""
        places, found = self.inputs.places(at, "text").index[:, 0], []
        acting = self._ready(edits)
        for rows, prefix in self.batches():
            here = places[rows]
            runs = Runs(torch.arange(len(rows)), torch.full_like(here, int(here.min())), here)
            with torch.no_grad():
                ran = prefix.blocks(runs, Plan.of(acting, self.inputs, rows), layers.first, after)
            found.append(ran.states[runs.ends])
        return self._gathered(found)

    def trace(self, *expressions: str, grad: bool = False) -> Trace:
        """What passes without edits; with `grad` the gradients of the logit difference beside it."""
        metric = self._difference if grad else None
        kept: Trace = trace(self.model, self.inputs, *expressions, grad=metric, batch_size=BATCH)
        return kept

    def values(self, kept: Trace, expression: str, to: str = "resample") -> dict[str, Tensor]:
        """What an ablation puts there, by site: the partner's values (aligned from the span's end), the mean of all, or
        zeros."""
        parsed = parse(expression, self.network)
        here = self.inputs.places(parsed.at, parsed.side), None
        found = {}
        for name, value in kept.whole(parsed).items():
            if to == "resample":
                found[name] = aligned(value, here, here, self.partners, parsed.kind)
            else:
                found[name] = mean_of(value, here, here, parsed.kind) if to == "mean" else torch.zeros_like(value)
        return found

    def put(self, expression: str, values: Mapping[str, Tensor]) -> Patch:
        """The edit that puts values at sites."""
        return Patch(expression, values)

    def _run(
        self, edits: Sequence[Edit | Acting], layer: int, at: str, scores: Callable[[Tensor, Tensor], Tensor]
    ) -> list[Tensor]:
        places: Places = self.inputs.places(at, "text")
        acting, found = self._ready(edits), []
        for rows, prefix in self.batches():
            real = places.real[rows]
            begin = int(places.index[rows][real].min()) if bool(real.any()) else int(self.inputs.ends[rows].min())
            with torch.no_grad():
                logits = prefix.run(torch.arange(len(rows)), Plan.of(acting, self.inputs, rows), layer, begin)
            found.append(scores(logits, rows))
        return found

    def _ready(self, edits: Sequence[Any]) -> list[Acting]:
        return [edit.ready(self.model, self.inputs) if hasattr(edit, "ready") else edit for edit in edits]

    def _difference(self, logits: Tensor, rows: Any) -> Tensor:
        own, other = self.answers[rows], self.answers[self.partners[rows]]
        return logits.gather(1, own[:, None])[:, 0] - logits.gather(1, other[:, None])[:, 0]

    def _gathered(self, parts: Sequence[Tensor]) -> Tensor:
        """Rows in the order of the facts again."""
        order = torch.cat(self.order)
        joined = torch.cat(list(parts))
        found = torch.empty_like(joined)
        found[order] = joined
        return found


def with_elsewhere(inputs: Inputs, span: str, seed: int, only_before: bool = False) -> Inputs:
    """The texts with a span `elsewhere`: for each as many neighbouring positions as `span` has, outside of it and
    before the end (`only_before`: before the span), by the seed. Where there is no room it is empty (`ELSEWHERE`)."""
    places = inputs.places(span, "text")
    draw = torch.Generator().manual_seed(seed)
    ranges = []
    for row, (index, real) in enumerate(zip(places.index, places.real, strict=True)):
        own = set(index[real].tolist())
        count, end = len(own), int(inputs.ends[row])
        stop = min(own, default=0) if only_before else end
        room = [first for first in range(stop - count + 1) if own.isdisjoint(range(first, first + count))]
        first = room[int(torch.randint(len(room), (1,), generator=draw))] if room else 0
        ranges.append((first, first + (count if room else 0) + 1))
    text = inputs.text
    return replace(inputs, text=replace(text, spans={**text.spans, ELSEWHERE.partition("[")[0]: ranges}))


def _bytes(prefix: Prefix) -> int:
    tensors = [*prefix.reads, *(each for pair in prefix.memories for each in pair)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def halved(labels: Sequence[str], seed: int) -> tuple[list[int], list[int]]:
    """Two halves of the rows with like counts of each label, in the order of the rows."""
    draw = torch.Generator().manual_seed(seed)
    first: list[int] = []
    odd = 0
    for label in sorted(set(labels)):
        rows = [row for row, own in enumerate(labels) if own == label]
        order = torch.randperm(len(rows), generator=draw).tolist()
        first += [rows[place] for place in order[: (len(rows) + odd) // 2]]
        odd = (odd + len(rows)) % 2  # of two rows too many one goes to each half
    chosen = set(first)
    return sorted(first), [row for row in range(len(labels)) if row not in chosen]
