"""Threads that compute one thing and end."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def in_a_thread(function: Callable[[], T]) -> T:
    """What it gives, computed in a thread that ends with it; waits for that.

    A thread that has computed keeps a team of OpenMP threads for as long as it lives. When there are more of these than
    cores, those of every team sleep between two loops; decoding has many short ones, and took five times as long. So
    the thread that generates should be the only one that stays.
    """
    with ThreadPoolExecutor(1) as one:
        return one.submit(function).result()
