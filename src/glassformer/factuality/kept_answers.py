"""Answers kept in a file as they come, so that asking goes on where it was interrupted."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glassformer.errors import InputError
from glassformer.factuality.records import Record

FORMAT = 1
_ROWS = ("logprobs", "entropies", "margins")


class KeptAnswers:
    """The records of a file of JSON Lines, one a line, each found by what it depends on: the prompt's ids, the hash of
    the `weights`, and the most tokens of an answer. States are not kept.

    A line that is damaged, as the last is where writing was cut off, counts as none. Raises `InputError` where the file
    cannot be written.
    """

    def __init__(self, path: Path, weights: str, max_new_tokens: int, stop: str) -> None:
        self.path, self._about = path, [FORMAT, weights, max_new_tokens, stop]
        self._found: dict[str, Mapping[str, Any]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = path.read_bytes().splitlines() if path.exists() else []
        except OSError as error:
            raise InputError(f"answers cannot be kept in {path}: {error.strerror}.") from None
        for line in lines:
            if (one := _read(line)) is not None:
                self._found[one["key"]] = one

    def get(self, prompt_ids: Sequence[int]) -> Record | None:
        """The record of the answer to this prompt, if it is there."""
        one = self._found.get(self._key(prompt_ids))
        if one is None:
            return None
        logprobs, entropies, margins = (tuple(one[name]) for name in _ROWS)
        return Record(tuple(prompt_ids), tuple(one["ids"]), one["text"], logprobs, entropies, margins)

    def add(self, records: Sequence[Record]) -> None:
        """Append them, on the disk when this returns."""
        lines = [{"key": self._key(one.prompt_ids), **_plain(one)} for one in records]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        try:
            with self.path.open("ab+") as file:
                if file.tell() and not _ends_a_line(self.path):
                    text = "\n" + text
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(f"answers cannot be kept in {self.path}: {error.strerror}.") from None
        self._found |= {line["key"]: line for line in lines}

    def _key(self, prompt_ids: Sequence[int]) -> str:
        return hashlib.blake2b(json.dumps([*self._about, *prompt_ids]).encode(), digest_size=12).hexdigest()


def _plain(one: Record) -> dict[str, Any]:
    return {"ids": list(one.ids), "text": one.text, **{name: list(getattr(one, name)) for name in _ROWS}}


def _read(line: bytes) -> Mapping[str, Any] | None:
    """What a line holds; None where it is not whole."""
    try:
        one = json.loads(line)
    except ValueError:
        return None
    if not isinstance(one, dict) or not isinstance(one.get("key"), str) or not isinstance(one.get("text"), str):
        return None
    rows = [one.get(name) for name in ("ids", *_ROWS)]
    whole = all(isinstance(row, list) and all(isinstance(value, int | float) for value in row) for row in rows)
    return one if whole and len({len(row) for row in rows if row is not None}) == 1 else None


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
