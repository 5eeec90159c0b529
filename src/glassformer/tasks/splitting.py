"""Long text in parts that a model can read, cut where a reader would pause."""

from __future__ import annotations

import re
from collections.abc import Callable

from glassformer.errors import InputError

# The best places first: after a sentence, after a clause, between words.
_PAUSES = tuple(re.compile(p) for p in (r"(?<=[.!?…。！？؟।])\s+", r"(?<=[,;:،、，；：])\s+", r"\s+"))


def parts(text: str, fits: Callable[[str], bool]) -> list[str]:
    """`text` in the order it was written, in parts that each fit: halved at the best pause until they do.

    Where there is no white space, it is cut between characters. Raises `InputError` if not even one character fits.
    """
    if fits(text):
        return [text]
    if len(text) < 2:
        raise InputError(f"not even the single character {text!r} fits into the model's positions.")
    before, after = _halves(text)
    return parts(before, fits) + parts(after, fits)


def _halves(text: str) -> tuple[str, str]:
    middle = len(text) / 2
    for pause in _PAUSES:
        found = [match for match in pause.finditer(text) if match.start() > 0 and match.end() < len(text)]
        if found:
            nearest = min(found, key=lambda match: abs(match.start() - middle))
            return text[: nearest.start()], text[nearest.end() :]
    return text[: len(text) // 2], text[len(text) // 2 :]
