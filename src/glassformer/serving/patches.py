"""Patching one text with what happens in another: the stream, attention or feed-forwards, one place at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from glassformer.interpret.edits import patch
from glassformer.interpret.expressions import parse
from glassformer.interpret.inputs import Inputs, Rows
from glassformer.interpret.running import Plan, run
from glassformer.interpret.sweep import sweep
from glassformer.layers.sites import share
from glassformer.models.decoder import Decoder
from glassformer.serving.progress import Progress


@dataclass(frozen=True)
class Patched:
    """One part of every layer, patched. `effects` [rows, T]: how far the metric went from that of the text as it is to
    that of the other, 0 to 1, below and above where it went back or beyond; the rows are `sites`."""

    part: str
    sites: list[str]
    effects: Float[Tensor, "L T"]


@dataclass(frozen=True)
class Patching:
    """What patching found: `parts`, the residual stream first, and the metric in the text as it is (`start`) and in the
    other (`end`). `answers`: the metric is the logit of the second minus that of the first."""

    parts: list[Patched]
    start: float
    end: float
    answers: tuple[int, int]


@dataclass(frozen=True)
class _AnsweredAt(Inputs):
    place: int | Int[Tensor, n]

    @property
    def ends(self) -> Int[Tensor, n]:
        return torch.zeros_like(self.text.lengths) + self.place


def answered_at(inputs: Inputs, place: int | Int[Tensor, n]) -> Inputs:
    """The same texts, whose answer is read at `place` (one for all or one each), a mask's, and not at their end."""
    return _AnsweredAt(inputs.text, inputs.source, inputs.given, place)


def stream_sites(n_layers: int, prefix: str) -> list[str]:
    """The sites of the residual stream: what enters the first block, then what leaves each."""
    return [f"{prefix}residual_pre[0]", *(f"{prefix}residual_post[{layer}]" for layer in range(n_layers))]


PARTS = {
    "residual": ("residual_pre[0]", "residual_post[*]"),
    "attention": ("self_attention.output[*]",),
    "mlp": ("feed_forward.output[*]",),
}
"""What is patched, one after the other: the stream after each block, or what one half of each block adds to it."""


def patch_everywhere(
    network: Any,
    prefix: str,
    inputs: Inputs,
    others: Inputs,
    answers: tuple[int, int] | None = None,
    progress: Progress = Progress(),  # noqa: B008 - it is frozen
) -> Patching | None:
    """Patch the stack whose sites begin with `prefix` in the run of `inputs` with what it has in the run of `others`:
    one text each, of as many tokens.

    Unless `answers` are given, they are the most probable answers of the two runs; if that is the same, the second is
    the one that becomes more probable by most. None where the other run answers no differently at all. Raises
    `progress.Stopped` soon after it is asked to.
    """
    network = share(network).eval()
    before, after = (_said(network, each) for each in (inputs, others))
    first, second = answers or _answers(before, after)
    start, end = (float(each[second] - each[first]) for each in (before, after))
    if abs(end - start) < 1e-4:
        return None
    begin = _alike(inputs, others) if isinstance(network, Decoder) else 0
    places = [(part, f"{prefix}{site} @ {begin}:") for part, sites in PARTS.items() for site in sites]
    runs = [len(parse(place, network).names) for _, place in places]
    done = 0
    found: dict[str, tuple[list[str], list[Tensor]]] = {part: ([], []) for part in PARTS}
    for (part, place), count in zip(places, runs, strict=True):
        metric = _Metric(first, second, progress, done / sum(runs), count / sum(runs), count * _width(inputs, begin))
        swept = sweep(network, inputs, patch, over=place, source=others, metric=metric)
        found[part][0].extend(swept.expression.names)
        found[part][1].append(F.pad((swept.values[0, :, 0] - start) / (end - start), (begin, 0)))
        done += count
    parts = [Patched(part, names, torch.cat(effects)) for part, (names, effects) in found.items()]
    return Patching(parts, start, end, (first, second))


def _width(inputs: Inputs, begin: int) -> int:
    return int(inputs.text.lengths[0]) - begin


@dataclass
class _Metric:
    """The logit of the second answer minus that of the first. A sweep asks for it after every few runs, so that here is
    where progress is told and a stop is heeded."""

    first: int
    second: int
    progress: Progress
    begin: float
    share: float
    total: int
    done: int = 0

    def __call__(self, logits: Float[Tensor, "b V"], rows: Rows) -> Float[Tensor, b]:
        self.progress.at(self.begin + self.share * min(self.done / self.total, 1.0))
        self.done += len(logits)
        return logits[:, self.second].float() - logits[:, self.first].float()


def _said(network: Any, inputs: Inputs) -> Float[Tensor, V]:
    """The logits of the answer."""
    return run(network, inputs, slice(0, 1), Plan({}, {}, {}), ends=True)[0].float()


def _alike(inputs: Inputs, others: Inputs) -> int:
    """With how many equal tokens both texts begin: in a causal network their states are equal, too."""
    return int((inputs.text.ids != others.text.ids)[0].int().argmax())


def _answers(before: Float[Tensor, V], after: Float[Tensor, V]) -> tuple[int, int]:
    first, second = int(before.argmax()), int(after.argmax())
    if first == second:
        rise = after.softmax(-1) - before.softmax(-1)
        rise[first] = float("-inf")
        second = int(rise.argmax())
    return first, second
