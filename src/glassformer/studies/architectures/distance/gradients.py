"""How much of a gradient arrives at a word, against how far it stands from the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from glassformer.layers.sites import planned, sites
from glassformer.studies.architectures.tasks import N_SYMBOLS, SYMBOL, copied
from glassformer.text.tokenizer import BOS

EMBEDDING = "encoder.embedding.token"
_LAST_STATES = ("encoder.residual_post", "encoder.recurrence.output")


def loss_gradients(network: nn.Module, distances: Sequence[int], rows: int, seed: int) -> list[float]:
    """‖d loss / d embedding‖ of the symbols to be copied, `distances` before the end, divided by that at the first.

    All sources are as long as twice the greatest distance and the symbols, so that the longer way round, from the
    source's beginning, is never shorter. The loss is that of a first token drawn at random: of the right one it would
    vanish where a task is solved. Norms are means over the symbols and `rows` sources.
    """
    longest = max(distances)
    batches = [copied(distance, rows, seed, before=2 * longest - distance) for distance in distances]
    source, needed = (torch.cat(parts) for parts in zip(*((each.source, each.needed) for each in batches), strict=True))
    random = torch.Generator().manual_seed(seed)
    wanted = SYMBOL + torch.randint(N_SYMBOLS, (len(source),), generator=random)
    kept: dict[str, Tensor] = {}
    watched = planned(network, {EMBEDDING: _keep(kept, EMBEDDING)})
    logits = watched(source, torch.full((len(source), 1), BOS)).logits[:, 0]
    # summed: each row's gradient is then its own, whatever stands beside it
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, wanted, reduction="sum"), kept[EMBEDDING])
    norms = _at(gradient, needed).norm(dim=-1).mean(1)
    return relative([float(norm) for norm in norms.view(len(distances), rows).mean(1)])


def encoder_gradients(network: nn.Module, distances: Sequence[int], rows: int, seed: int) -> list[float]:
    """The same inside the encoder alone: of a random projection of its last state, at words so far before it."""
    batch = copied(max(distances), rows, seed)
    states = [name for name in sites(network) if name.startswith(_LAST_STATES)][-1]
    kept: dict[str, Tensor] = {}
    watched = planned(network, {name: _keep(kept, name) for name in (EMBEDDING, states)})
    watched(batch.source, batch.target[:, :1])
    last = kept[states][:, -1]
    direction = torch.randn(last.shape, generator=torch.Generator().manual_seed(seed))
    (gradient,) = torch.autograd.grad((last * direction).sum(), kept[EMBEDDING])
    places = torch.tensor([batch.source.shape[1] - 1 - distance for distance in distances])
    return relative([float(norm) for norm in gradient[:, places].norm(dim=-1).mean(0)])


def relative(norms: Sequence[float]) -> list[float]:
    """Each divided by the first; zeros where that is zero."""
    return [norm / norms[0] if norms[0] else 0.0 for norm in norms]


def geometric_mean(values: Sequence[float]) -> float:
    """exp of the mean logarithm: 0 where a value is 0."""
    if min(values) <= 0:
        return 0.0
    return math.exp(sum(map(math.log, values)) / len(values))


def _keep(kept: dict[str, Tensor], name: str) -> Callable[[Tensor], Tensor]:
    def function(value: Tensor) -> Tensor:
        kept[name] = value
        return value

    return function


def _at(values: Float[Tensor, "B S D"], places: Int[Tensor, "B n"]) -> Float[Tensor, "B n D"]:
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[-1]))
