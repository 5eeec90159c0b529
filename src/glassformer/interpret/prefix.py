"""Not computing twice what an edit cannot change: the blocks before it, and the positions before it.

A decoder is run once; later runs begin at the block and the position of their edit, and look back at keys and values of
the first one. Behind the block of the edit they go on packed (`packed.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glassformer.interpret.acting import Put, Window
from glassformer.interpret.inputs import Inputs, Rows
from glassformer.interpret.packed import Joining, Runs, last_states
from glassformer.interpret.running import Plan
from glassformer.layers.block import Stack
from glassformer.layers.masks import seen_mask
from glassformer.layers.rows import KeysValues
from glassformer.models.decoder import Decoder


@dataclass(frozen=True)
class Prefix:
    """What was seen when some texts were first run: what each block read, and the keys and values it had of it.

    `reads[l]` is what block l read, and `reads[-1]` what the last one gave, [b, T, D]; `ends` are the texts' last
    positions.
    """

    network: Decoder
    reads: Sequence[Float[Tensor, "b T D"]]
    memories: Sequence[KeysValues]
    ends: Int[Tensor, b]

    @classmethod
    def of(cls, network: Decoder, inputs: Inputs, rows: Rows) -> Prefix:
        """Run some of the texts."""
        stack, (ids,) = network.stack, inputs.arguments(rows)
        with torch.no_grad():
            x = stack.embedding(ids)
            reads, memories = [x], []
            for layer in range(len(stack.blocks)):
                kept = _Remember(None)
                remember = [kept] * len(stack.blocks)
                x = stack.onwards(x, layer, layer + 1, causal=True, remember=remember)
                memories.append(kept.all)
                reads.append(x)
        return cls(network, reads, memories, inputs.ends[rows])

    @property
    def logits(self) -> Float[Tensor, "b V"]:
        """What is said at the end of each text."""
        rows = torch.arange(len(self.ends), device=self.ends.device)
        with torch.no_grad():
            return self.say(self.reads[-1][rows, self.ends])

    def run(self, rows: Int[Tensor, e], plan: Plan, layer: int, begin: int) -> Float[Tensor, "e V"]:
        """The logits at the ends of texts `rows`, run by a plan that acts in block `layer` and later, at position
        `begin` and later."""
        ends = self.ends[rows]
        runs = Runs(rows, torch.full_like(ends, begin).minimum(ends), ends)
        behind = max([layer, *(number + 1 for number in _blocks_of(plan))])
        return self.say(self.last_states({behind: [self.blocks(runs, plan, layer, behind)]}))

    def blocks(self, runs: Runs, plan: Plan, first: int, behind: int) -> Joining:
        """Some runs from block `first` to before block `behind`, by a plan that acts there."""
        begin = int(runs.first.min())
        x = self._onwards(_from(plan, self.network, begin), runs.text, first, behind, begin)
        return Joining(runs, runs.picked(x, begin))

    def put(self, runs: Runs, put: Put, layer: int) -> Joining:
        """Some runs before block `layer`, where what it reads is put in place by `put`."""
        begin = int(runs.first.min())
        put.at.seen = begin
        return Joining(runs, runs.picked(put(self.reads[layer][runs.text, begin:]), begin))

    def last_states(self, joining: Mapping[int, Sequence[Joining]]) -> Float[Tensor, "E D"]:
        """What the last block gives at the ends of all runs (`packed.last_states`)."""
        return last_states(self.network.stack, self.memories, joining)

    def say(self, states: Float[Tensor, "e D"]) -> Float[Tensor, "e V"]:
        """The logits, of what the last block gives."""
        norm = self.network.stack.final_norm
        states = states if norm is None else norm(states)
        logits: Tensor = self.network.logits(self.network.head(states))
        return logits

    def _onwards(self, stack: Stack, rows: Tensor, first: int, behind: int, begin: int) -> Float[Tensor, "e t D"]:
        """The stream of some texts before block `behind`, at positions from `begin` on, computed from block `first`."""
        x = self.reads[first][rows, begin:]
        if first == behind:
            return x
        positions = torch.arange(begin, begin + x.shape[1], device=x.device)[None]
        remember = [_Remember(self._before(layer, rows, begin)) for layer in range(len(stack.blocks))]
        length = begin + x.shape[1]
        mask = seen_mask(positions, length)
        return stack.onwards(x, first, behind, mask, positions=positions, remember=remember, held=(length, 1))

    def _before(self, layer: int, rows: Tensor, begin: int) -> KeysValues:
        keys, values = self.memories[layer]
        return keys[rows, :, :begin], values[rows, :, :begin]


class _Remember:
    """Puts what was there before in front of new keys and values, and keeps them all."""

    def __init__(self, before: KeysValues | None) -> None:
        self.before = before
        self.all: KeysValues

    def __call__(self, new: KeysValues) -> KeysValues:
        self.all = new if self.before is None else _joined(self.before, new)
        return self.all


def _joined(before: KeysValues, new: KeysValues) -> KeysValues:
    if before[0].shape[2] == 0:
        return new
    return torch.cat((before[0], new[0]), 2), torch.cat((before[1], new[1]), 2)


def _from(plan: Plan, network: Decoder, begin: int) -> Stack:
    """The stack with a plan, which sees positions from `begin` on."""
    for window in _windows(plan):
        window.seen = begin
    stack: Stack = plan.on(network).stack
    return stack


def _windows(plan: Plan) -> list[Window]:
    """The windows of queries and positions; those of keys always begin at the text's beginning."""
    puts = [each for chain in plan.taps.values() for each in chain.functions if isinstance(each, Put)]
    return [put.at for put in puts] + [cut.at for cuts in plan.cuts.values() for cut in cuts.functions]


def _blocks_of(plan: Plan) -> list[int]:
    """The blocks in which a plan acts, by the layers of its sites."""
    return [int(name.rpartition("[")[2][:-1]) for name in (*plan.taps, *plan.cuts)]
