"""Texts with the same beginning, which is read once: examples before a question, or a system's message."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import takewhile
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from glassformer.errors import InputError
from glassformer.generation.decoding import evaluation


def beginning_of(texts: Sequence[Sequence[int]]) -> list[int]:
    """The ids with which all of the texts begin, and after which each has at least one more."""
    if not texts:
        return []
    columns = zip(*(text[:-1] for text in texts), strict=False)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]


class AfterBeginning:
    """A network that has read the beginning of every text: it has the seam of the engine for what follows.

    What it says of the ids `text[len(beginning):]` is what `network` says of the whole text, up to rounding: the keys
    and values of the beginning are computed once and copied to each row. Raises `InputError` where the beginning is
    empty or leaves no position for more.
    """

    def __init__(self, network: Any, beginning: Sequence[int], device: torch.device | str = "cpu") -> None:
        room = network.config.max_length - len(beginning)
        if not beginning or room < 1:
            raise InputError(
                f"a beginning has from 1 to {network.config.max_length - 1} ids, one less than the model's positions; "
                f"got {len(beginning)}."
            )
        self.network, self.held, self.device = network, len(beginning), device
        self.config = SimpleNamespace(max_length=room, vocab_size=network.config.vocab_size)
        with torch.inference_mode(), evaluation(network):
            self._read = network.start(1, self.held)
            network.read(torch.tensor([list(beginning)], device=device), None, self._read)

    @property
    def training(self) -> bool:
        """The network's mode."""
        return bool(self.network.training)

    def train(self, mode: bool = True) -> Any:
        """Set the network's mode."""
        return self.network.train(mode)

    def head(self, hidden: Tensor) -> Any:
        """The network's own."""
        return self.network.head(hidden)

    def logits(self, value: Any) -> Any:
        """The network's own."""
        return self.network.logits(value)

    def start(self, rows: int, capacity: int) -> _After:
        """A state of `rows` texts that have read the beginning, with room for `capacity` positions after it."""
        state, read = self.network.start(rows, self.held + capacity), deepcopy(self._read)
        every = torch.arange(rows, device=self.device)
        read.select(torch.zeros_like(every))
        state.put(every, read)
        return _After(state, self.held)

    def step(self, ids: Tensor, lengths: Tensor | None, state: _After) -> Any:
        """As the network's."""
        return self.network.step(ids, lengths, state.whole)

    def read(self, ids: Tensor, lengths: Tensor | None, state: _After) -> Any:
        """As the network's."""
        return self.network.read(ids, lengths, state.whole)


@dataclass
class _After:
    """The state of whole texts, whose positions are counted from the end of the beginning, `held`."""

    whole: Any
    held: int

    @property
    def capacity(self) -> int:
        return int(self.whole.capacity) - self.held

    def select(self, rows: Tensor) -> None:
        self.whole.select(rows)

    def put(self, rows: Tensor, other: _After) -> None:
        self.whole.put(rows, other.whole)

    def rewind(self, row: int, length: int) -> None:
        self.whole.rewind(row, self.held + length)

    def grow(self, capacity: int) -> None:
        self.whole.grow(self.held + capacity)
