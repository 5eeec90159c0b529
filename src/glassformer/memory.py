"""How the C library deals with large buffers that are freed."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Iterator
from typing import Any


def keep_large_buffers() -> None:
    """Ask glibc to keep large freed buffers instead of handing them back to the system.

    Every step of a training, and every batch that is embedded, allocates the same big buffers (the logits above
    all); by default each is mapped and unmapped anew, and the page faults cost more than the arithmetic on small
    models. It holds for the process, and does nothing where the C library is another one.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    libc = _glibc()
    if libc is not None:
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, 2**31 - 1)


@contextlib.contextmanager
def large_buffers(kept: bool = True) -> Iterator[None]:
    """Keep them inside, where they are to be `kept`, and give them back at the end."""
    if not kept:
        yield
        return
    keep_large_buffers()
    try:
        yield
    finally:
        return_free_memory()


def return_free_memory() -> None:
    """Give back what `keep_large_buffers` kept: batches of ever other shapes leave holes that add up to gigabytes."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> Any:
    """The C library, None where it is another one."""
    if platform.libc_ver()[0] != "glibc":
        return None
    with contextlib.suppress(OSError):
        return ctypes.CDLL("libc.so.6")
    return None
