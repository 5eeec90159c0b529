"""Where a text ends before the model ends it: stop strings, found across the borders of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from glassformer.errors import InputError
from glassformer.text.streaming import TextStream
from glassformer.text.tokenizer import Tokenizer

FinishReason = Literal["stop", "length", "deadline", "shutdown"]
"""Why a text ended: the model or a stop string ended it, or it was cut off at the most tokens allowed. In a service its
time may be over as well, or the service may stop."""


def stop_strings(stop: str | Iterable[str]) -> tuple[str, ...]:
    """Stop strings as given to a verb, one or several. Raises `InputError` for one that is empty or no string."""
    strings = (stop,) if isinstance(stop, str) else tuple(stop)
    for string in strings:
        if not isinstance(string, str) or not string:
            raise InputError(f"'stop' must be strings of at least one character, got {string!r}.")
    return strings


class Reader:
    """The text of one row's ids as they come, up to the first stop string.

    What `push` and `finish` give, joined, is the text: whole characters, and nothing that could still become a stop
    string. `context` are ids before the text, such as the prompt's: a word that goes on from them keeps its space.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), context: Sequence[int] = ()) -> None:
        self.stopped = False
        self._stop = tuple(stop)
        self._held = ""
        self._stream = TextStream(tokenizer)
        if context and not self._stream.push(context[-1]):  # a special token, or one that is waiting for more
            self._stream = TextStream(tokenizer)

    def push(self, id: int) -> str:
        """Take the next id; return the text that is certain now and was not before."""
        return self._given(self._stream.push(id), last=False)

    def finish(self) -> str:
        """The rest of the text, once no id follows."""
        return self._given(self._stream.finish(), last=True)

    def _given(self, new: str, last: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + new
        found = [(place + len(string), place) for string in self._stop if (place := text.find(string)) >= 0]
        self.stopped = bool(found)
        # the one that is complete first, so that it does not matter how the text is cut into tokens
        end = min(found)[1] if found else len(text) if last else len(text) - self._possible(text)
        self._held = "" if found else text[end:]
        return text[:end]

    def _possible(self, text: str) -> int:
        """How many of the last characters may be the beginning of a stop string."""
        lengths = range(max(map(len, self._stop), default=1) - 1, 0, -1)
        starts = (n for n in lengths if n <= len(text) and any(string.startswith(text[-n:]) for string in self._stop))
        return next(starts, 0)
