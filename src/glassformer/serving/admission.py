"""Whether a text may join those that run: the keys and values of all of them have to fit into memory.

All rows of a decoding state have room for as many positions as the longest text needs, so one long text makes every row
longer: n texts take n times what the longest takes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from glassformer.errors import InputError
from glassformer.generation.requests import Request
from glassformer.serving.threads import in_a_thread

STEP = 64
"""An engine's states have room for multiples of so many positions."""

SHARE = 3
"""One in so many bytes that are free is for keys and values: while a state grows, its old self is still there, and what
a prompt has been read into lies beside both."""

_UNKNOWN = 4 * 2**30
"""Bytes that are taken to be free where no system says it."""


@dataclass(frozen=True)
class Admission:
    """Which requests a network may answer together: those whose keys and values take `most` bytes or less. A text that
    is asked for alone and could never fit is refused by `check`; others wait as long as `fits` says no."""

    network: Any
    most: int

    def positions(self, request: Request) -> int:
        """The room that a text needs: its prompt and all that may follow, in whole steps, up to the model's end."""
        steps = -(-(len(request.ids) + request.max_new_tokens) // STEP)
        return min(steps * STEP, self.network.config.max_length)

    def nbytes(self, rows: int, positions: int) -> int:
        """Bytes of a state of so many rows and positions. Banded layers hold no more than their band."""
        per_position, bands, width = self._layer
        layers = self.network.config.n_decoder_layers
        return rows * per_position * ((layers - bands) * positions + bands * min(width, positions))

    def check(self, request: Request) -> None:
        """`InputError` for a text that would not fit if it were alone."""
        need = self.nbytes(1, self.positions(request))
        if need > self.most:
            raise InputError(
                f"this text takes {need / 1e6:,.1f} MB of keys and values ({len(request.ids)} tokens of a prompt and "
                f"{request.max_new_tokens} to follow), and there are {self.most / 1e6:,.1f} MB for all texts: shorten "
                "the prompt, ask for fewer tokens, or have the server started with more --memory."
            )

    def fits(self, running: Iterable[Request], new: Request, *, rows: int = 0, positions: int = 0) -> bool:
        """Whether a new text may join those that run. `rows` and `positions` are those of the state as it is: places
        of texts that have ended stay for a while, and the room of a long one."""
        texts = [*running, new]
        if len(texts) == 1:
            return True
        longest = max(map(self.positions, texts))
        return self.nbytes(max(len(texts), rows), max(longest, positions)) <= self.most

    @cached_property
    def _layer(self) -> tuple[int, int, int]:
        """Bytes of one position of one layer and row; how many layers are banded in the network's states, and how wide
        their band is."""
        config = self.network.config
        state = in_a_thread(lambda: self.network.start(1, min(STEP, config.max_length)))  # whoever asks will stay
        bands, width = (config.banded_layers, config.attention.width) if hasattr(state, "banded") else (0, 0)
        held = (config.n_decoder_layers - bands) * state.capacity + bands * min(width, state.capacity)
        return -(-state.nbytes // held), bands, width


def memory_share(among: int, device: torch.device | str = "cpu") -> int:
    """Bytes for the keys and values of each of `among` models: together a third of what is free on the device now."""
    return max(free_bytes(device) // SHARE // max(among, 1), 1)


def free_bytes(device: torch.device | str = "cpu") -> int:
    """Bytes that may still be taken: of a GPU, or of this machine, or of the container that this process runs in."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [_available(Path("/proc/meminfo")), _container(Path("/sys/fs/cgroup"))]
    known = [each for each in found if each is not None]
    if known:
        return max(min(known), 0)
    names = ("SC_PAGE_SIZE", "SC_PHYS_PAGES")
    if not all(name in getattr(os, "sysconf_names", {}) for name in names):
        return _UNKNOWN
    page, pages = map(os.sysconf, names)
    return page * pages // 2


def _available(path: Path) -> int | None:
    """What Linux says could be given to programs without swapping."""
    for name, value, *_ in _words(path):
        if name == "MemAvailable:":
            return int(value) * 1024
    return None


def _container(folder: Path) -> int | None:
    """What a container's limit leaves; files that were read may be forgotten."""
    limit, used = _words(folder / "memory.max"), _words(folder / "memory.current")
    if not limit or not used or not limit[0][0].isdigit():
        return None
    files = [int(line[1]) for line in _words(folder / "memory.stat") if line[0] == "inactive_file"]
    return int(limit[0][0]) - int(used[0][0]) + sum(files)


def _words(path: Path) -> Sequence[list[str]]:
    try:
        return [line.split() for line in path.read_text(encoding="ascii").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError):
        return []
