"""Parts of a streamed answer, written without making objects of them: one is written a token."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

from glassformer.serving.api.generating import finish


def text_of(content: Any) -> str:
    """As JSON, without spaces."""
    return json.dumps(content, allow_nan=False, separators=(",", ":"))


class Chunks:
    """The parts of one answer: the same id, kind, time and model in each."""

    def __init__(self, kind: str, prefix: str, model: str, counted: bool) -> None:
        self.id, self.created = f"{prefix}-{secrets.token_hex(12)}", int(time.time())
        self.head = {"id": self.id, "object": kind, "created": self.created, "model": model}
        self._begin = f'data: {text_of(self.head)[:-1]},"choices":[{{"index":'
        self._end = '}],"usage":null}\n\n' if counted else "}]}\n\n"

    def chunk(self, index: int, said: str, logprobs: str, reason: str | None) -> bytes:
        """One part. `said` and `logprobs` are JSON: `"text":"…"` or `"delta":{…}`, and an object or null."""
        told, own = finish(reason)
        ending = "null" if told is None else f'"{told}"' if own is None else f'"{told}","stop_reason":"{own}"'
        return f'{self._begin}{index},{said},"logprobs":{logprobs},"finish_reason":{ending}{self._end}'.encode()

    def usage(self, usage: dict[str, object]) -> bytes:
        """The last part: it has no choices, and counts the tokens."""
        return f"data: {text_of({**self.head, 'choices': [], 'usage': usage})}\n\n".encode()


def choice(index: int, said: dict[str, Any], logprobs: Any, reason: str) -> dict[str, Any]:
    """One choice of an answer that is given whole."""
    told, own = finish(reason)
    found = {"index": index, **said, "logprobs": logprobs, "finish_reason": told}
    return found if own is None else {**found, "stop_reason": own}
