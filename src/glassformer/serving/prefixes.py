"""What earlier texts began with: their keys and values are kept, so that a text that begins alike is not read anew."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]

LEAST = 32
"""Fewer ids than this are read anew: that is as quick."""

MOST_TEXTS = 1000
"""More are not kept, however small: all of them are looked through for each request."""


def as_ids(ids: Sequence[int]) -> Ids:
    """Ids, to be compared quickly."""
    return np.asarray(ids, dtype=np.int64)


def common(one: Ids, other: Ids) -> int:
    """With how many ids both begin."""
    length = min(len(one), len(other))
    differ = one[:length] != other[:length]
    first = int(differ.argmax()) if length else 0
    return first if length and differ[first] else length


@dataclass(frozen=True, eq=False)
class _Kept:
    ids: Ids
    state: Any


class Prefixes:
    """States of one row each that have read a text, at most `most` bytes of them and `MOST_TEXTS`; those used least
    lately go first.

    A state that cannot go back to where two texts part, as banded layers may not, serves whole texts only.
    """

    def __init__(self, most: int) -> None:
        self.most, self.nbytes = most, 0
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._number = 0

    def keep(self, ids: Sequence[int], state: Callable[[], Any]) -> None:
        """Keep what has been read, unless it is kept already or too large. `state` is called where it is wanted."""
        if len(ids) < LEAST or self.most <= 0:
            return
        new = as_ids(ids)
        for name, kept in list(self._kept.items()):
            shared = common(kept.ids, new)
            if shared == len(new) and (shared == len(kept.ids) or kept.state.can_rewind(0, shared)):
                self._kept.move_to_end(name)
                return
        read = state()
        if read.nbytes > self.most:
            return
        for name, kept in list(self._kept.items()):
            if common(kept.ids, new) == len(kept.ids) and read.can_rewind(0, len(kept.ids)):
                self._drop(name)
        self._kept[self._number] = _Kept(new, read)
        self._number += 1
        self.nbytes += read.nbytes
        while self.nbytes > self.most or len(self._kept) > MOST_TEXTS:
            self._drop(next(iter(self._kept)))

    def find(self, ids: Ids) -> tuple[int, Callable[[], Any]]:
        """The longest beginning of `ids` that has been read, at most all but the last; what gives a copy of its state.

        0 where there is none of at least `LEAST` ids.
        """
        best, found = 0, None
        for name, kept in self._kept.items():
            shared = min(common(kept.ids, ids), len(ids) - 1)
            if shared > best and kept.state.can_rewind(0, shared):
                best, found = shared, name
        if found is None or best < LEAST:
            return 0, lambda: None
        self._kept.move_to_end(found)
        state = self._kept[found].state
        return best, lambda: state.row(0, best)

    def _drop(self, name: int) -> None:
        self.nbytes -= self._kept.pop(name).state.nbytes
