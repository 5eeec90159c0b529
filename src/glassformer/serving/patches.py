"""Patching the residual stream of one text with that of another, at every layer and position, one at a time.

What a row of the result needs is computed from its layer on: the layers before it are the same in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from glassformer.layers.sites import planned, share
from glassformer.serving.readings import observe

BATCH_TOKENS = 2048

Read = Callable[[nn.Module, tuple[Tensor, ...]], Float[Tensor, "B V"]]
"""Runs a network and gives the logits of the place where the answer stands."""


@dataclass(frozen=True)
class Patching:
    """What patching found. `effects` [rows, T]: how far the metric went from `start` (the text as it is) to `end` (the
    other text), 0 to 1, below and above where it went back or beyond. `answers`: the metric is the logit of the second
    minus that of the first."""

    effects: Float[Tensor, "L T"]
    start: float
    end: float
    answers: tuple[int, int]


def stream_sites(n_layers: int, prefix: str = "") -> list[str]:
    """The sites of the residual stream: what enters the first block, then what leaves each."""
    return [f"{prefix}residual_pre[0]", *(f"{prefix}residual_post[{layer}]" for layer in range(n_layers))]


def patch_everywhere(
    network: nn.Module,
    stack: str,
    inputs: tuple[Tensor, ...],
    others: tuple[Tensor, ...],
    read: Read,
    answers: tuple[int, int] | None = None,
) -> Patching | None:
    """Patch the stream of `network`'s part `stack` in the run of `inputs` with that in the run of `others`, [1, T]
    each; the first of them are the ids that the part reads.

    Unless `answers` are given, they are the most probable answers of the two runs; if that is the same, the second is
    the one that becomes more probable by most. None where the other run answers no differently at all.
    """
    n_layers = len(getattr(network, stack).blocks)
    names = stream_sites(n_layers, "" if stack == "stack" else f"{stack}.")
    clean, other = (observe(network, names, each) for each in (inputs, others))
    network = share(network).eval()
    with torch.no_grad():
        before, after = (read(network, each)[0].float() for each in (inputs, others))
        first, second = answers or _answers(before, after)
        start, end = (float(each[second] - each[first]) for each in (before, after))
        if abs(end - start) < 1e-4:
            return None
        moved = torch.full((len(names), inputs[0].shape[1]), start)
        for row, name in enumerate(names):
            for places, rows in _patched(clean[name], other[name]):
                logits = read(_from(network, stack, row, rows), _repeated(inputs, len(rows))).float()
                moved[row, places] = (logits[:, second] - logits[:, first]).cpu()
    return Patching((moved - start) / (end - start), start, end, (first, second))


def _answers(before: Float[Tensor, V], after: Float[Tensor, V]) -> tuple[int, int]:
    first, second = int(before.argmax()), int(after.argmax())
    if first == second:
        rise = after.softmax(-1) - before.softmax(-1)
        rise[first] = float("-inf")
        second = int(rise.argmax())
    return first, second


def _patched(
    clean: Float[Tensor, "1 T D"], other: Float[Tensor, "1 T D"]
) -> Iterator[tuple[Tensor, Float[Tensor, "B T D"]]]:
    """Batches of streams in which one position is the other text's, and which; those alike in both are left out."""
    differ = (clean != other).any(-1)[0].nonzero()[:, 0]
    for places in differ.split(max(1, BATCH_TOKENS // clean.shape[1])):
        rows = clean.repeat(len(places), 1, 1)
        each = torch.arange(len(places), device=rows.device)
        rows[each, places] = other[0, places]
        yield places.cpu(), rows


def _from(network: nn.Module, stack: str, row: int, stream: Float[Tensor, "B T D"]) -> nn.Module:
    """A copy that shares all parameters and has the blocks from this row's on, where the stream is `stream`."""
    copy = share(network)
    part = getattr(copy, stack)
    part.blocks = nn.ModuleList(list(part.blocks)[max(row - 1, 0) :])
    site = "residual_post[0]" if row else "residual_pre[0]"
    return planned(copy, {site if stack == "stack" else f"{stack}.{site}": lambda value: stream})


def _repeated(inputs: tuple[Tensor, ...], times: int) -> tuple[Tensor, ...]:
    return tuple(each.expand(times, -1) for each in inputs)
