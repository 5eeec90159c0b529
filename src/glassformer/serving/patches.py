"""Patching the residual stream of one text with that of another, at every layer and position, one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from glassformer.interpret.edits import patch
from glassformer.interpret.inputs import Inputs, Rows
from glassformer.interpret.running import Plan, run
from glassformer.interpret.sweep import sweep
from glassformer.layers.sites import share
from glassformer.models.decoder import Decoder


@dataclass(frozen=True)
class Patching:
    """What patching found. `effects` [rows, T]: how far the metric went from `start` (the text as it is) to `end` (the
    other text), 0 to 1, below and above where it went back or beyond; the rows are `sites`. `answers`: the metric is
    the logit of the second minus that of the first."""

    sites: list[str]
    effects: Float[Tensor, "L T"]
    start: float
    end: float
    answers: tuple[int, int]


@dataclass(frozen=True)
class _AnsweredAt(Inputs):
    place: int

    @property
    def ends(self) -> Int[Tensor, n]:
        return torch.full_like(self.text.lengths, self.place)


def answered_at(inputs: Inputs, place: int) -> Inputs:
    """The same texts, whose answer is read at `place`, a mask's, and not at their end."""
    return _AnsweredAt(inputs.text, inputs.source, inputs.given, place)


def stream_sites(n_layers: int, prefix: str) -> list[str]:
    """The sites of the residual stream: what enters the first block, then what leaves each."""
    return [f"{prefix}residual_pre[0]", *(f"{prefix}residual_post[{layer}]" for layer in range(n_layers))]


def patch_everywhere(
    network: Any, prefix: str, inputs: Inputs, others: Inputs, answers: tuple[int, int] | None = None
) -> Patching | None:
    """Patch the stream whose sites begin with `prefix` in the run of `inputs` with that in the run of `others`: one
    text each, of as many tokens.

    Unless `answers` are given, they are the most probable answers of the two runs; if that is the same, the second is
    the one that becomes more probable by most. None where the other run answers no differently at all.
    """
    network = share(network).eval()
    before, after = (_said(network, each) for each in (inputs, others))
    first, second = answers or _answers(before, after)
    start, end = (float(each[second] - each[first]) for each in (before, after))
    if abs(end - start) < 1e-4:
        return None

    def metric(logits: Float[Tensor, "b V"], rows: Rows) -> Float[Tensor, b]:
        return logits[:, second].float() - logits[:, first].float()

    begin = _alike(inputs, others) if isinstance(network, Decoder) else 0
    places = [f"{prefix}{site} @ {begin}:" for site in ("residual_pre[0]", "residual_post[*]")]
    swept = [sweep(network, inputs, patch, over=place, source=others, metric=metric) for place in places]
    moved = torch.cat([each.values[0, :, 0] for each in swept])
    effects = F.pad((moved - start) / (end - start), (begin, 0))
    return Patching([name for each in swept for name in each.expression.names], effects, start, end, (first, second))


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
