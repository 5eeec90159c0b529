"""What an encoding of the library `tokenizers` tells beside its ids: the characters of each token, and the frame."""

from __future__ import annotations

import unicodedata
from typing import Any

SPACE = "▁"  # how SentencePiece and our own BPE write the space before a word

# What stands before, between and after texts, as ids with their segments; and the segment of each text.
Frame = tuple[list[list[tuple[int, int]]], list[int]]


def ranges_of(text: str, encoding: Any) -> list[tuple[int, int]]:
    """The characters of `text` that each token of its unframed encoding stands for: see `Tokenizer.encode_spans`."""
    ranges: list[tuple[int, int]] = []
    reached = 0
    for token, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True):
        if start == end and text[reached:start].isspace():
            start = reached  # a byte-level post-processor cuts white space off, even if that is all there is
        piece = text[start:end]
        reached = max(reached, end)
        if token == SPACE and piece != SPACE and not piece.isspace():
            end = start
        elif piece.strip():
            start, end = start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
        ranges.append((start, end))
    limits = [*(start for start, _ in ranges), len(text)][1:]
    for place, ((start, end), limit) in enumerate(zip(ranges, limits, strict=True)):
        while start < end < limit and unicodedata.combining(text[end]):
            end += 1
        ranges[place] = start, end
    return ranges


def frame_of(encoding: Any, texts: int) -> Frame | None:
    """What is put around as many texts, read from the framed encoding of any; None where that is nothing."""
    around: list[list[tuple[int, int]]] = [[]]
    segments: list[int] = []
    before = None
    for i, segment, sequence in zip(encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True):
        if sequence is None:
            around[-1].append((i, segment))
        elif sequence != before:
            around.append([])
            segments.append(segment)
        before = sequence
    return (around, segments) if any(around) and len(segments) == texts else None
