"""Random orders of very many things, of which no list is kept."""

from __future__ import annotations

from typing import Any

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.int64]]

ROUNDS = 6


class Order:
    """A random order of the numbers below `size`, in constant memory: `order(places)` is what stands at these places.

    A Feistel network (Luby and Rackoff 1988) permutes the least power of 4 that is not below `size`; what comes out too
    large goes through it again, which ends since the first number was small enough (Black and Rogaway 2002, "cycle
    walking"), after fewer than 4 rounds on average. The same `key` gives the same order, on every machine.
    """

    def __init__(self, size: int, key: tuple[int, ...]) -> None:
        assert size >= 1
        self.size = size
        self._half = np.uint64((max(size - 1, 1).bit_length() + 1) // 2)
        self._mask = np.uint64((1 << int(self._half)) - 1)
        self._keys = np.random.default_rng(list(key)).integers(0, 2**64, size=ROUNDS, dtype=np.uint64)

    def __call__(self, places: Numbers) -> Numbers:
        """What stands at `places`, each in [0, size)."""
        found = self._permuted(places.astype(np.uint64))
        while (beyond := found >= self.size).any():
            found[beyond] = self._permuted(found[beyond])
        return found.astype(np.int64)

    def _permuted(self, numbers: Any) -> Any:
        left, right = numbers >> self._half, numbers & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right + key) & self._mask)
        return (left << self._half) | right


def _mixed(numbers: Any) -> Any:
    """The finish of SplitMix64 (Steele, Lea, Flood 2014): every bit in changes about half of the bits out."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
