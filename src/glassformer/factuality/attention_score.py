"""Uncertainty from attention: an answer is less sure where its tokens look less at the token before them.

RAUQ: Vazhentsev et al. 2025, "Uncertainty-Aware Attention Heads: Efficient Unsupervised Uncertainty Quantification for
LLMs". Nothing is fitted. The attention is of the pass that wrote the answer; here it is read by another one over prompt
and answer, since the engine does not keep it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from glassformer.errors import InputError
from glassformer.factuality.records import Record
from glassformer.factuality.uncertainty import Score, table_of
from glassformer.generation.decoding import evaluation
from glassformer.layers.sites import planned
from glassformer.models.decoder import Decoder
from glassformer.tasks.model import Model

ALPHA = 0.2
"""α, the weight of a token's own probability: the value of the authors' code for models that were not instructed."""

PATTERN_BYTES = 64 * 2**20
"""At most so much attention of one layer is held at a time, if more than one text is read together."""

_SITE = "self_attention.pattern"


@dataclass(frozen=True, eq=False)
class Attended:
    """A `record` of n ids, and how much each but its first looks at the one before, in some layers, [L, H, n − 1].

    `reading` is the attention of token i itself to token i − 1. `writing` is that of the place which token i was chosen
    from, where token i − 1 stands: the attention of token i − 1 to itself.
    """

    record: Record
    reading: Float[Tensor, "L H m"]
    writing: Float[Tensor, "L H m"]


def attended(model: Model, records: Sequence[Record], layers: Sequence[int] | None = None) -> list[Attended]:
    """The attention of each record's answer, by a pass over its prompt and itself; one `Attended` a record, in order.

    `layers` are the middle ones unless given (`middle_layers`). Texts of like length are read together, and of each
    layer's patterns only what is asked for is kept. Raises `InputError` for a model that is no decoder, and for records
    without ids.
    """
    network = model.network
    if not isinstance(network, Decoder):
        raise InputError("attention to the token before is read of decoders; this model is none.")
    if any(not one.ids or not one.prompt_ids for one in records):
        raise InputError("a record needs a token of its prompt and one of its answer at least.")
    wanted = list(middle_layers(model.config.n_decoder_layers) if layers is None else layers)
    found: dict[int, Attended] = {}
    for batch in _batches([len(one.prompt_ids) + len(one.ids) for one in records], network.config.n_heads):
        read = _read(model, [records[place] for place in batch], wanted)
        found.update(zip(batch, read, strict=True))
    return [found[place] for place in range(len(records))]


def middle_layers(count: int) -> range:
    """The layers, from 0 on, of the middle third: from ⌊L/3⌋ to ⌈2L/3⌉, both included, as in the authors' code."""
    return range(count // 3, min(count, math.ceil(count / 3 * 2) + 1))


def recurrent_attention(logprobs: Sequence[float], attention: Float[Tensor, "L H m"], alpha: float = ALPHA) -> float:
    """The greatest over layers of −(1/n) Σ log cᵢ, with c₁ = p₁ and cᵢ = α pᵢ + (1 − α) aᵢ cᵢ₋₁.

    p is a token's probability, aᵢ [L, H, n − 1] how much it looks at the one before; of each layer that head counts
    which looks there most, on average over this answer. Higher = more uncertain, in nats, at least 0. With α = 1 it is
    `uncertainty.perplexity`. lm-polygraph 0.7 adds 1 to it.
    """
    if not logprobs or attention.shape[2] != len(logprobs) - 1:
        raise InputError(f"n tokens have n − 1 attentions, got {len(logprobs)} and {attention.shape[2]}.")
    if not 0 < alpha <= 1:
        raise InputError(f"'alpha' must be above 0, and at most 1, got {alpha}.")
    weights = attention.double()
    heads = weights.mean(2).argmax(1) if weights.shape[2] else weights.new_zeros(len(weights), dtype=torch.long)
    looked = ((1 - alpha) * weights[torch.arange(len(weights)), heads]).log()
    confidence = weights.new_full((len(weights),), logprobs[0])
    total = confidence.clone()
    for place, logprob in enumerate(logprobs[1:]):
        own = weights.new_tensor(logprob + math.log(alpha))
        confidence = torch.logaddexp(own, looked[:, place] + confidence)
        total = total + confidence
    return float((-total / len(logprobs)).max())


def _batches(lengths: Sequence[int], heads: int) -> Iterable[list[int]]:
    """Numbers of texts of like length, so many that their patterns in one layer take at most `PATTERN_BYTES`."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * heads * lengths[place] ** 2 * 4 > PATTERN_BYTES:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _read(model: Model, records: Sequence[Record], layers: Sequence[int]) -> list[Attended]:
    """Those of one batch."""
    kept: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def reader(layer: int) -> Callable[[Tensor], Tensor]:
        def read(pattern: Tensor) -> Tensor:
            kept[layer] = [_diagonals(pattern[row], one) for row, one in enumerate(records)]
            return pattern

        return read

    rows = [torch.tensor([*one.prompt_ids, *one.ids]) for one in records]
    ids = pad_sequence(rows, batch_first=True).to(model.device)
    plan = {f"{_SITE}[{layer}]": reader(layer) for layer in layers}
    with torch.no_grad(), evaluation(model.network):
        planned(model.network, plan).hidden(ids)  # type: ignore[operator]
    found = []
    for row, one in enumerate(records):
        reading, writing = (torch.stack([kept[layer][row][which] for layer in layers]) for which in (0, 1))
        found.append(Attended(one, reading, writing))
    return found


def _diagonals(pattern: Float[Tensor, "H T T"], record: Record) -> tuple[Tensor, Tensor]:
    """`reading` and `writing` of one layer, [H, n − 1] each."""
    begin, m = len(record.prompt_ids), len(record.ids) - 1
    places = torch.arange(begin, begin + m, device=pattern.device)
    pair = pattern[:, places + 1, places], pattern[:, places, places]
    return pair[0].float().cpu(), pair[1].float().cpu()


_PAPER = "Vazhentsev et al. 2025, Uncertainty-Aware Attention Heads (RAUQ)"


def _reading(one: Attended) -> float:
    return recurrent_attention(one.record.logprobs, one.reading)


def _writing(one: Attended) -> float:
    return recurrent_attention(one.record.logprobs, one.writing)


ATTENTION: Mapping[str, Score] = table_of(
    Score("recurrent attention", _reading, _PAPER, "one pass"),
    Score("recurrent attention, writing", _writing, _PAPER, "one pass"),
)
"""Functions of `Attended`: the paper's equation as it is written, and as lm-polygraph 0.7 reads it off a generation."""
