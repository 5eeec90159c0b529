"""Spans: which positions of each text an expression means.

`*` all positions, `end` the last one, `3`, `-1`, `0:5` by number, `"some words"` the tokens of these words (their last
occurrence), `generated` what the model wrote itself, and names that the texts bring (`subject`, `prompt`): whole, or
`subject.first`, `subject.last`, `subject[1]`, `subject[:-1]` (and so of `generated`). Several are joined by `+`:
`subject + end`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from glassformer.errors import InputError, did_you_mean

Range = tuple[int, int]

_PART = re.compile(
    r'(?P<all>\*)|(?P<number>-?\d+)|(?P<range>-?\d*:-?\d*)|"(?P<words>[^"]+)"'
    r"|(?P<name>[a-z_]\w*)(?P<part>\.(?P<end>first|last)|\[(?P<index>-?\d+|-?\d*:-?\d*)\])?"
)


@dataclass(frozen=True)
class Places:
    """The positions of a span in every text: `index` [n, k], and which of them are `real` [n, k] (a text may have
    fewer). `beyond` says that what is written later belongs to it as well."""

    index: Int[Tensor, "n k"]
    real: Bool[Tensor, "n k"]
    beyond: bool = False

    @property
    def counts(self) -> Int[Tensor, n]:
        """How many positions each text has."""
        return self.real.sum(1)

    def slots(self, length: int) -> Int[Tensor, "n T"]:
        """The other way round: of each of `length` positions its number within the span, -1 where it is not in it."""
        rows, k = self.index.shape
        slots = self.index.new_full((rows, length + 1), -1)  # what is not real is written into the last column
        where = torch.where(self.real, self.index, length)
        slots.scatter_(1, where, torch.arange(k, device=slots.device).expand(rows, k))
        return slots[:, :length]


@dataclass(frozen=True)
class Texts:
    """One side of what a network reads: ids [n, T], padded on the right, and how to find spans in them.

    `spans` gives the tokens of each named span, one range [first, stop) a text; `texts` and `characters`, where they
    are known, the strings and the characters that each token stands for. What the model wrote begins at `written`.
    """

    ids: Int[Tensor, "n T"]
    lengths: Int[Tensor, n]
    spans: Mapping[str, Sequence[Range]]
    texts: Sequence[str] | None = None
    characters: Sequence[Sequence[Range]] | None = None
    written: Sequence[int] | None = None

    def places(self, span: str) -> Places:
        """The positions of `span`. Raises `InputError` where a text does not have it."""
        parts = re.split(r'\+(?=(?:[^"]*"[^"]*")*[^"]*$)', span)
        matches = [_PART.fullmatch(part.strip()) for part in parts]
        if not all(matches):
            raise InputError(
                f"'{span}' is no span: write *, end, a position, first:last, \"words\", or a name such as subject.last."
            )
        ends = (self.lengths if self.written is None else torch.tensor(self.written)).tolist()
        rows = []
        for row, length in enumerate(self.lengths.tolist()):
            found = [place for match in matches if match for place in self._of_row(match, row, length, ends[row])]
            rows.append(sorted(set(found)))
        beyond = any(match is not None and match[0] in ("*", "generated") for match in matches)
        return _padded(rows, beyond, self.ids.device)

    def _of_row(self, match: re.Match[str], row: int, length: int, end: int) -> list[int]:
        everything, shown = list(range(length)), match[0]
        if match["all"]:
            return everything
        if match[0] == "generated":
            return everything[end:]
        if match["name"] == "end":
            if match["part"]:
                raise InputError(f"'end' is one position; write it without '{match['part']}'.")
            return [end - 1]
        if match["number"] or match["range"]:
            found = _indexed(everything[:end], match["number"] or match["range"])
            return self._checked(found, row, f"{length} tokens, none of them is at {shown}")
        if match["name"] == "generated":
            whole = everything[end:]
        else:
            first, stop = self._words(match["words"], row) if match["words"] else self._named(match["name"], row)
            whole = everything[first:stop]
        index = {"first": "0", "last": "-1"}.get(match["end"], match["index"])
        found = whole if index is None else _indexed(whole, index)
        if index is None or (whole and ":" in index):
            return found  # a name of one token has nothing before its last: an empty span is no error
        return self._checked(found, row, f"{len(whole)} tokens in '{match['name']}', none of them is {shown}")

    def _named(self, name: str, row: int) -> Range:
        if name not in self.spans:
            known = [*self.spans, "end", "generated"]
            raise InputError(f"the texts have no span '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}.")
        return self.spans[name][row]

    def _words(self, words: str, row: int) -> Range:
        if self.texts is None or self.characters is None:
            raise InputError(f'"{words}": words can be found in texts, not in ids; say the position instead.')
        start = self.texts[row].rfind(words)
        if start < 0:
            raise InputError(f'text {row + 1} does not hold "{words}".')
        return tokens_of(self.characters[row], (start, start + len(words)))

    def _checked(self, found: list[int], row: int, problem: str) -> list[int]:
        if not found:
            raise InputError(f"text {row + 1} has {problem}.")
        return found


def tokens_of(characters: Sequence[Range], span: Range) -> Range:
    """The tokens [first, stop) that stand for any of the characters [start, end)."""
    inside = [i for i, (start, end) in enumerate(characters) if start < span[1] and end > span[0]]
    if not inside:
        raise InputError(f"no token stands for the characters {span[0]} to {span[1]}.")
    return inside[0], inside[-1] + 1


def _indexed(values: list[int], written: str) -> list[int]:
    if ":" in written:
        first, last = (int(part) if part else None for part in written.split(":"))
        return values[first:last]
    number = int(written)
    return [values[number]] if -len(values) <= number < len(values) else []


def _padded(rows: Sequence[Sequence[int]], beyond: bool, device: torch.device) -> Places:
    widest = max(1, *(len(row) for row in rows)) if rows else 1
    index = torch.tensor([[*row, *[0] * (widest - len(row))] for row in rows], dtype=torch.long, device=device)
    real = torch.tensor([[i < len(row) for i in range(widest)] for row in rows], device=device)
    return Places(index.reshape(len(rows), widest), real.reshape(len(rows), widest), beyond)
