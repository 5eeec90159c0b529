"""Context parallelism: the positions of every row are dealt to the processes, which look at each other's keys.

A process has a run of positions from end to end. In each self-attention the keys and values of all are gathered, and
its queries look at those up to their own position (Grattafiori et al. 2024, "The Llama 3 Herd of Models", section
3.3.2; they deal two runs to each process, to make the work even). Torch's ring attention
(`torch.distributed.tensor.experimental.context_parallel`) takes the place of fused kernels for GPUs only, and knows
neither documents in a row nor bands; gathering serves all of these, anywhere.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glassformer.layers.masks import document_mask
from glassformer.layers.rows import KeysValues
from glassformer.models.config import Learned, Sinusoidal
from glassformer.models.decoder import Decoder, document_places
from glassformer.tasks.objectives import Loss
from glassformer.text.examples import IGNORE, TextBatch
from glassformer.training.gradients import Objective


def across(objective: Objective, mesh: Any) -> Objective:
    """An objective whose network has the states of this process's positions alone, for batches of `own_targets`."""

    def own(network: Any, batch: Any) -> Loss:
        return objective(Across(network, mesh), batch)

    return own


def own_targets(batch: TextBatch, place: int, places: int) -> TextBatch:
    """The batch as process `place` of `places` has it: all ids, and the targets [B, ⌈T / places⌉] of its positions.

    Where T does not divide, the last ones have nothing to predict. Tokens are counted once over all processes.
    """
    length = batch.ids.shape[1]
    where = _positions(length, place, places)
    target = batch.target[:, where.clamp(max=length - 1)].masked_fill(where >= length, IGNORE)
    tokens = batch.n_tokens // places + (place < batch.n_tokens % places)
    return replace(batch, target=target, n_tokens=tokens, full=batch.full and int(where[-1]) < length)


class Across:
    """A decoder as one process of a context group runs it. All of them must run it together."""

    def __init__(self, network: Decoder, mesh: Any) -> None:
        self.network, self.mesh = network, mesh

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def hidden(self, ids: Int[Tensor, "B T"], documents: Int[Tensor, "B T"] | None = None) -> Float[Tensor, "B t D"]:
        """`Decoder.hidden` at this process's positions. What is beyond T is nobody's past, and seen by no position."""
        stack, last = self.network.stack, ids.shape[1] - 1
        own = _positions(ids.shape[1], self.mesh.get_local_rank(), self.mesh.size(), ids.device)
        end = int(own[-1]) + 1
        where = own.clamp(max=last)
        positions, mask = where[None], None
        if documents is not None:
            seen = torch.arange(end, device=ids.device).clamp(max=last)
            mask = document_mask(documents[:, where], documents[:, seen])
            if isinstance(self.network.config.positions, Learned | Sinusoidal):
                positions = document_places(documents)[:, where]
        past = partial(_past, mesh=self.mesh, end=end)
        remember = [past] * len(stack.blocks)
        hidden: Tensor = stack(ids[:, where], mask, causal=True, positions=positions, remember=remember, held=(end, 1))
        return hidden


def _positions(length: int, place: int, places: int, device: Any = None) -> Int[Tensor, "t"]:
    """The positions of a process; all have as many, so that some may be beyond the length."""
    each = -(-length // places)
    return torch.arange(place * each, (place + 1) * each, device=device)


def _past(keys_values: KeysValues, mesh: Any, end: int) -> KeysValues:
    """Keys and values of positions 0 … end - 1, of which each process brings its own. Their gradients go back to it."""
    from torch.distributed.tensor import DTensor, Partial, Shard

    own = DTensor.from_local(torch.stack(keys_values), mesh, [Shard(3)], run_check=False)
    key, value = own.full_tensor(grad_placements=[Partial()])[..., :end, :]
    return key, value
