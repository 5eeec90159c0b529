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
    place too. `prompt_logprobs` asks for those of the prompt. `uncertainty` asks for the entropy and the margin at
    every place (`sampling.Spread`), `states` for what each token was chosen from: the network's last
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
    `states` is [1, D] in fp32, on the CPU.
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


class Row:
    """A request that is being answered; what `choose` has to know of it."""

    def __init__(self, name: int, request: Request, tokenizer: Tokenizer | None) -> None:
        self.name, self.request, self.sampling = name, request, request.sampling
        self.ids = list(request.ids)
        self.generator = generator_of(request.seed, request.row)
        self.place = request.schema.start() if request.schema else None
        context = request.ids if request.context else ()
        self.reader = Reader(tokenizer, request.stop, context) if tokenizer else None
        self.prompt_logprobs: list[float | None] | None = [None] if request.prompt_logprobs else None
        self.over = False

    def allowed(self) -> Tensor | None:
        return self.place.allowed() if self.place else None

    @property
    def new(self) -> int:
        """Tokens generated so far."""
        return len(self.ids) - len(self.request.ids)

    def told(self) -> tuple[float | None, ...] | None:
        """The prompt's log-probabilities, the first time that they are asked for."""
        told, self.prompt_logprobs = self.prompt_logprobs, None
        return None if told is None else tuple(told)


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
    )
