"""What is asked of an engine and what comes back: requests, the rows that answer them, events and results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from glassformer.generation.constraints import JsonSchema
from glassformer.generation.contrast import Contrast
from glassformer.generation.sampling import Sampling, generator_of
from glassformer.generation.stopping import FinishReason, Reader
from glassformer.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Request:
    """One text to be continued: at least one id, and how.

    `logprobs`: None for no log-probabilities, 0 for those of the tokens chosen, k for the k most probable at every
    place too. `prompt_logprobs` asks for those of the prompt, in the same way. `uncertainty` asks for the entropy and
    the margin at every place (`sampling.Spread`), `states` for what each token was chosen from: the network's last
    state, which its head reads. `stop` ends the text before one of these strings.
    `seed` and `row` name the row's own source of chance. `context`: whether the text's first token may be read as
    going on from the prompt's last (and keeps its space). `contrast` is that of the engine; for context-aware decoding
    `without` is the prompt without its document.
    """

    ids: tuple[int, ...]
    max_new_tokens: int = 128
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    seed: int = 0
    row: int = 0
    logprobs: int | None = 0
    prompt_logprobs: bool = False
    ignore_eos: bool = False
    schema: JsonSchema | None = None
    context: bool = True
    uncertainty: bool = False
    states: bool = False
    contrast: Contrast | None = None
    without: tuple[int, ...] = ()


@dataclass(frozen=True)
class Event:
    """What one step gave one request: a new id with its text, or its end.

    `text` is what became certain: see `Reader`. `prompt_logprobs` come once, with the first event, if asked for.
    `prompt_top_logprobs` with them where `logprobs` is above 0: the most probable ids in the place of each id of the
    prompt, the best first; none in the place of the first. `states` is [1, D] in fp32, on the CPU. `error` ends a
    request that could not be answered further, in a service.
    """

    request: int
    ids: tuple[int, ...]
    text: str = ""
    logprobs: tuple[float, ...] = ()
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()
    finish_reason: FinishReason | None = None
    prompt_logprobs: tuple[float | None, ...] | None = None
    entropies: tuple[float, ...] = ()
    margins: tuple[float, ...] = ()
    states: Tensor | None = field(default=None, compare=False, repr=False)
    prompt_top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()
    error: Exception | None = field(default=None, compare=False)


class Row:
    """A request that is being answered; what `choose` has to know of it.

    While its prompt is being read, `read` of its ids have been; `state` is that of one row which has read them, until
    the row has a place among others.
    """

    def __init__(self, name: int, request: Request, tokenizer: Tokenizer | None) -> None:
        self.name, self.request, self.sampling = name, request, request.sampling
        self.ids = list(request.ids)
        self.generator = generator_of(request.seed, request.row)
        self.place = request.schema.start() if request.schema else None
        context = request.ids if request.context else ()
        self.reader = Reader(tokenizer, request.stop, context) if tokenizer else None
        self.prompt_logprobs: list[float | None] | None = [None] if request.prompt_logprobs else None
        self.prompt_top_logprobs: list[tuple[tuple[int, float], ...]] = [()]
        self.over = False
        self.read = 0
        self.state: Any = None

    def anew(self) -> Row:
        """The row itself, as if none of its ids had been read; those that it wrote stay."""
        self.read, self.state = 0, None
        if self.prompt_logprobs is not None:
            self.prompt_logprobs, self.prompt_top_logprobs = [None], [()]
        return self

    @property
    def left(self) -> int:
        """Ids that are still to be read."""
        return len(self.ids) - self.read

    def allowed(self) -> Tensor | None:
        return self.place.allowed() if self.place else None

    @property
    def new(self) -> int:
        """Tokens generated so far."""
        return len(self.ids) - len(self.request.ids)

    def told(self) -> dict[str, Any]:
        """What an event says of the prompt: its log-probabilities, the first time that they are asked for."""
        told, self.prompt_logprobs = self.prompt_logprobs, None
        if told is None:
            return {}
        top = tuple(self.prompt_top_logprobs) if self.request.logprobs else ()
        return {"prompt_logprobs": tuple(told), "prompt_top_logprobs": top}


@dataclass(frozen=True)
class Result:
    """All events of a request, joined; `states` [n, D] has a row for each of the n ids."""

    ids: tuple[int, ...]
    text: str
    logprobs: tuple[float, ...]
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...]
    finish_reason: FinishReason
    prompt_logprobs: tuple[float | None, ...] | None
    entropies: tuple[float, ...] = ()
    margins: tuple[float, ...] = ()
    states: Tensor | None = field(default=None, compare=False, repr=False)
    prompt_top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()


def joined(events: Sequence[Event]) -> Result:
    """One request's events as one result."""
    told = [event.prompt_logprobs for event in events if event.prompt_logprobs is not None]
    states = [event.states for event in events if event.states is not None]

    def every(name: str) -> Iterator[Any]:
        return (value for event in events for value in getattr(event, name))

    return Result(
        tuple(every("ids")),
        "".join(every("text")),
        tuple(every("logprobs")),
        tuple(every("top_logprobs")),
        events[-1].finish_reason or "length",
        told[0] if told else None,
        tuple(every("entropies")),
        tuple(every("margins")),
        torch.cat(states) if states else None,
        tuple(every("prompt_top_logprobs")),
    )
