"""Tokens as OpenAI's API tells them: as text, or as bytes where a token is a part of a character."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from glassformer.text.streaming import token_bytes
from glassformer.text.tokenizer import Tokenizer

Top = Sequence[tuple[int, float]]


class Spelled:
    """A tokenizer's tokens, each looked up once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, tuple[bytes, str]] = {}

    def __call__(self, id: int) -> tuple[bytes, str]:
        """The token's bytes, and the same as text: `"bytes:\\xe2\\x82"` where they are no whole characters."""
        if id not in self._known:
            raw = token_bytes(self._tokenizer, id)
            try:
                text = raw.decode()
            except UnicodeDecodeError:
                text = "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
            self._known[id] = raw, text
        return self._known[id]

    def chat(self, ids: Sequence[int], logprobs: Sequence[float], tops: Sequence[Top]) -> list[dict[str, Any]]:
        """The `content` of a chat's log-probabilities."""
        found = []
        for place, (id, logprob) in enumerate(zip(ids, logprobs, strict=False)):
            top = tops[place] if place < len(tops) else ()
            found.append({**self._chat(id, logprob), "top_logprobs": [self._chat(*each) for each in top]})
        return found

    def _chat(self, id: int, logprob: float) -> dict[str, Any]:
        raw, text = self(id)
        return {"token": text, "logprob": _finite(logprob), "bytes": list(raw)}


class Telling:
    """The log-probabilities of one completion as they come; `text_offset` counts characters from the prompt's start."""

    def __init__(self, spelled: Spelled) -> None:
        self._spelled = spelled
        self._offset = 0
        self._reading = codecs.getincrementaldecoder("utf-8")("replace")

    def skip(self, ids: Sequence[int]) -> None:
        """Go past tokens that are not told, such as the prompt's."""
        for id in ids:
            self._offset += len(self._reading.decode(self._spelled(id)[0]))

    def tell(self, ids: Sequence[int], logprobs: Sequence[float | None], tops: Sequence[Top]) -> dict[str, Any]:
        """The `logprobs` of the next tokens. Of two tokens that are written alike the more probable one is told."""
        offsets = []
        for id in ids:
            offsets.append(self._offset)
            self.skip([id])
        told: list[dict[str, float] | None] = []
        for id, logprob, top in zip(ids, logprobs, tops, strict=False):
            best: dict[str, float] = {}
            for other, value in [*top, *([] if logprob is None else [(id, logprob)])]:
                best.setdefault(self._spelled(other)[1], _finite(value))
            told.append(best if logprob is not None else None)
        return {
            "tokens": [self._spelled(id)[1] for id in ids],
            "token_logprobs": [None if value is None else _finite(value) for value in logprobs],
            "top_logprobs": told if any(tops) else None,
            "text_offset": offsets,
        }


def _finite(logprob: float) -> float:
    return max(logprob, -9999.0)  # JSON has no infinity; OpenAI writes this number
