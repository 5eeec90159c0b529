"""Decoding with compiled code: one block of a network, its weights as inputs, compiled once for all its layers.

In a step of one new id a row, Python and small operators cost more than the products do. `accelerated` gives a network
with the same seam whose steps run blocks that Inductor compiled ahead of time, in another process. The code is kept in
the cache folder under a name made of all that it depends on, so it is compiled once a machine; until it is there, and
where there is no C++ compiler, everything runs uncompiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glassformer.generation.code import ENDS, SHORTEST, Code, Kind
from glassformer.generation.ends import End, end_of
from glassformer.layers import kernels
from glassformer.layers.linear import FEW
from glassformer.layers.low_rank import has_low_rank
from glassformer.layers.ring import AnyState, BandedState
from glassformer.layers.rows import RowMemory
from glassformer.layers.sites import is_planned
from glassformer.models.decoder import Decoder

SMALL = 5_000_000
"""Networks of fewer numbers are not worth the compiling."""


def accelerated(network: nn.Module) -> Any:
    """The network itself, or one with the same seam that decodes by compiled code as soon as that is ready.

    Only a `Decoder` itself, on a CPU, whose taps are at rest and which has neither relative positions nor low-rank
    layers, is accelerated.
    """
    if type(network) is not Decoder or is_planned(network):
        return network
    if network.stack.relative is not None or has_low_rank(network):  # no inputs of compiled blocks
        return network
    tensors = [*network.parameters(), *network.buffers()]
    if tensors[0].device.type != "cpu" or sum(tensor.numel() for tensor in tensors) < SMALL:
        return network
    return Accelerated(network)


class Accelerated:
    """A decoder whose steps of one id a row run compiled blocks; everything else is the network's own."""

    def __init__(self, network: Decoder) -> None:
        self.network = network
        self.config = network.config
        blocks = network.stack.blocks
        self.weights = [list(Code.weights(block).values()) for block in blocks]
        self._done: set[Kind] = set()
        kinds: tuple[Kind, ...] = ("one", "many", "prompt")
        self.codes = {kind: [Code.of(network.config, block, kind) for block in blocks] for kind in kinds}
        ends = {which: end_of(network, which) for which in ENDS}
        self.codes |= {which: [Code.of(network.config, end, which)] for which, end in ends.items()}
        self.end_weights = {which: list(Code.weights(end).values()) for which, end in ends.items()}

    @property
    def training(self) -> bool:
        return self.network.training

    def train(self, mode: bool = True) -> Any:
        return self.network.train(mode)

    def start(self, rows: int, capacity: int) -> AnyState:
        return self.network.start(rows, capacity)

    def logits(self, value: Tensor) -> Tensor:
        return self.network.logits(value)

    def head(self, hidden: Tensor) -> Tensor:
        return self.network.head(hidden)

    def compile(self, *kinds: Kind) -> None:
        """Wait until the code is there: for one row (and for what is below and above its blocks), for many, for
        prompts; for all, if none is named."""
        wanted = {*kinds, *(ENDS if "one" in kinds else ())} if kinds else set(self.codes)
        codes = {code for kind in wanted for code in self.codes[kind]}
        kernels.settle()
        for code in codes:
            code.ready()  # the first question starts the compiler: let them run side by side
        for code in codes:
            code.wait()

    @torch.no_grad()
    def step(self, ids: Int[Tensor, "B T"], lengths: Int[Tensor, B] | None, state: AnyState) -> Float[Tensor, "B V"]:
        if ids.shape[1] == 1:  # after a first word, written without kernels that were not there yet
            kernels.settle()
        if self._kind(ids) == "one" and self._ready("one") and self._ready("last"):
            logits: Tensor = self._end("last", [self._blocks("one", ids, lengths, state)])[0]
            return logits
        with _beside_the_compiler():
            hidden = self.read(ids, lengths, state)
            last = hidden[:, -1] if lengths is None else hidden[torch.arange(len(ids), device=ids.device), lengths - 1]
            return self.network.head(last)

    @torch.no_grad()
    def read(self, ids: Int[Tensor, "B T"], lengths: Int[Tensor, B] | None, state: AnyState) -> Float[Tensor, "B T D"]:
        kind, final_norm = self._kind(ids), self.network.stack.final_norm
        if kind == "prompt" and isinstance(state, BandedState):  # a ring takes several ids in an order of its own
            kind = None
        if kind is None or not self._ready(kind):
            return self.network.read(ids, lengths, state)
        x = self._blocks(kind, ids, lengths, state)
        return x if final_norm is None else final_norm(x)

    def _ready(self, kind: Kind) -> bool:
        if kind not in self._done and all(code.ready() for code in self.codes[kind]):
            self._done.add(kind)
        return kind in self._done

    def _end(self, which: End, inputs: list[Tensor]) -> list[Tensor]:
        return self.codes[which][0].run([*inputs, *self.end_weights[which]])

    def _blocks(self, kind: Kind, ids: Tensor, lengths: Tensor | None, state: AnyState) -> Tensor:
        """The residual stream above all blocks."""
        step, stack = state.advance(ids.shape[1], lengths), self.network.stack
        if kind == "one" and self._ready("last") and self._ready("first"):  # so one compiler at a time works beside us
            x, *places = self._end("first", [ids, step.positions])
        else:
            x, tables = stack.embedding(ids, step.positions), (stack.cos, stack.sin)
            places = [table[step.positions] for table in tables if table is not None]
        for code, weights, memory in zip(self.codes[kind], self.weights, state.memories(step), strict=True):
            assert isinstance(memory, RowMemory)
            (x,) = code.run([x, memory.step.positions, memory.keys, memory.values, *places, *weights])
        return x

    def _kind(self, ids: Int[Tensor, "B T"]) -> Kind | None:
        """What kind of step this is, None for one that has no code."""
        rows, width = ids.shape
        if width == 1:
            return "one" if rows == 1 else "many" if rows <= FEW else None
        return "prompt" if rows == 1 and width >= SHORTEST else None


@contextmanager
def _beside_the_compiler() -> Iterator[None]:
    """One thread less while kernels are `pending`: with one for each core a first prompt took up to four times as long,
    it seems since threads wait for each other, and the compiler has one of the cores."""
    threads = torch.get_num_threads()
    fewer = threads > 1 and kernels.pending("generation")
    if fewer:
        torch.set_num_threads(threads - 1)
    try:
        yield
    finally:
        if fewer:
            torch.set_num_threads(threads)
