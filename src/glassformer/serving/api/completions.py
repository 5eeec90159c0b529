"""POST /v1/completions: texts that go on from prompts, whole or as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from pydantic import Field

from glassformer.generation.requests import Event, Result
from glassformer.generation.requests import Request as Asked
from glassformer.serving.api.bodies import Sampled
from glassformer.serving.api.chunks import Chunks, choice, text_of
from glassformer.serving.api.errors import ApiError, json_response
from glassformer.serving.api.generating import (
    Wanted,
    cancel,
    check_count,
    collect,
    requests_of,
    submit,
    together,
    usage,
)
from glassformer.serving.api.service import Served, Service
from glassformer.serving.api.spelling import Telling
from glassformer.serving.api.streaming import EventStream
from glassformer.serving.api.work import unless_gone
from glassformer.serving.streams import Stream
from glassformer.tasks.generate import first_id
from glassformer.tasks.inputs import text_ids

_LONG = 20_000
"""Characters of prompts that are cut into tokens within the event loop: about 5 ms."""


class CompletionBody(Sampled):
    """OpenAI's parameters, and those of `Sampled`. A text's special tokens are read as plain text, as `generate` does;
    ids may be any."""

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: Annotated[int, Field(ge=0)] | None = 16
    best_of: Annotated[int, Field(ge=1, le=128)] | None = None
    echo: bool | None = False
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


@dataclass(frozen=True)
class Completing:
    """One request: what was asked, and the texts that are generated for it. Text number i belongs to prompt number
    i // `each`; `prompts` are there to be echoed only."""

    body: CompletionBody
    served: Served
    prompts: list[str]
    requests: list[Asked]
    streams: list[Stream]
    chunks: Chunks
    each: int

    def prompt(self, number: int) -> str:
        """The prompt of a text, as text."""
        return self.prompts[number // self.each]

    def said(self, number: int, told: Result | Event, telling: Telling, first: bool) -> tuple[str, Any]:
        """The text and the log-probabilities of what came, with those of the prompt before the first, if asked for."""
        text, prompt = told.text, self.requests[number].ids
        echoed = bool(self.body.echo) and first
        if echoed:
            text = self.prompt(number) + text
        if self.body.logprobs is None:
            return text, None
        if not echoed:
            if first:
                telling.skip(prompt)
            return text, telling.tell(told.ids, told.logprobs, told.top_logprobs)
        count = len(told.ids)
        tops = [*told.prompt_top_logprobs, *(told.top_logprobs or ((),) * count)]
        return text, telling.tell(
            (*prompt, *told.ids), (*(told.prompt_logprobs or ()), *told.logprobs), tops if self.body.logprobs else ()
        )

    def usage(self, generated: int) -> dict[str, object]:
        """The tokens of all texts."""
        reused = sum(stream.reused for stream in self.streams[:: self.each])
        return usage(self.requests, self.each, generated, reused)


def add_completions(app: FastAPI, service: Service) -> None:
    """The endpoint."""

    @app.post("/v1/completions", tags=["OpenAI"])
    async def completions(http: Request, body: CompletionBody) -> Response:
        """Texts that go on from prompts: strings, or token ids."""
        served = service.of(body.model)
        served.need("completions")
        work = await _begun(http, service, served, body)
        if body.stream:
            return EventStream(_parts(work))
        return await _whole(http, work)


async def _begun(http: Request, service: Service, served: Served, body: CompletionBody) -> Completing:
    count, best_of = body.n or 1, body.best_of or body.n or 1
    if best_of < count or (best_of > count and body.stream):
        message = "'best_of' must be at least 'n', and goes with 'stream': false only where it is more."
        raise ApiError(400, message, param="best_of", code="invalid_value")
    logprobs = body.logprobs if body.logprobs is not None or best_of == count else 0
    wanted = Wanted(
        16 if body.max_tokens is None else body.max_tokens,
        best_of,
        logprobs,
        prompt_logprobs=bool(body.echo) and body.logprobs is not None,
    )
    given: list[Any] = [body.prompt] if isinstance(body.prompt, str) or _ids(body.prompt) else list(body.prompt)
    check_count(service, len(given) * best_of)
    if sum(map(len, given)) > _LONG:
        ids = await service.work.do(http, lambda: _prompt_ids(served, given))
    else:
        ids = _prompt_ids(served, given)
    requests = requests_of(service, served, body, ids, wanted)
    decode = served.model.tokenizer.decode
    prompts = [one if isinstance(one, str) else decode(one, skip_specials=False) for one in given if body.echo]
    counted = bool(body.stream_options and body.stream_options.include_usage)
    chunks = Chunks("text_completion", "cmpl", served.name, counted)
    return Completing(body, served, prompts, requests, submit(service, served, requests), chunks, best_of)


def _ids(prompt: Sequence[Any]) -> bool:
    """Whether a prompt is one list of ids."""
    return bool(prompt) and isinstance(prompt[0], int)


def _prompt_ids(served: Served, given: Sequence[Any]) -> list[list[int]]:
    if not given:
        raise ApiError(400, "'prompt' must have at least one prompt.", param="prompt", code="invalid_value")
    vocabulary = served.model.config.vocab_size
    for one in given:
        if not isinstance(one, str) and not all(0 <= i < vocabulary for i in one):
            message = f"ids must lie in [0, {vocabulary}), the model's vocabulary."
            raise ApiError(400, message, param="prompt", code="invalid_value")
    return [ids or [first_id(served.model)] for ids in text_ids(served.model, given)]


async def _whole(http: Request, work: Completing) -> Response:
    results = await unless_gone(http, asyncio.ensure_future(collect(work.streams)))
    choices: list[dict[str, Any]] = []
    for start in range(0, len(results), work.each):
        numbers = range(start, start + work.each)
        best = sorted(numbers, key=lambda number: -_likelihood(results[number][0]))
        for number in sorted(best[: work.body.n or 1]) if work.each > (work.body.n or 1) else numbers:
            result, reason = results[number]
            text, logprobs = work.said(number, result, Telling(work.served.spelled), first=True)
            choices.append(choice(len(choices), {"text": text}, logprobs, reason))
    generated = sum(len(result.ids) for result, _ in results)
    return json_response({**work.chunks.head, "choices": choices, "usage": work.usage(generated)})


def _likelihood(result: Result) -> float:
    """The mean log-probability of a text's tokens: what `best_of` goes by."""
    return sum(result.logprobs) / max(len(result.logprobs), 1)


async def _parts(work: Completing) -> AsyncGenerator[bytes]:
    tellings: dict[int, Telling] = {}
    generated = 0
    events = together(work.streams)
    try:
        async for number, event in events:
            first = number not in tellings
            if first:
                tellings[number] = Telling(work.served.spelled)
            generated += len(event.ids)
            text, logprobs = work.said(number, event, tellings[number], first)
            if text or logprobs or event.finish_reason:
                told = "null" if logprobs is None else text_of(logprobs)
                yield work.chunks.chunk(number, f'"text":{text_of(text)}', told, event.finish_reason)
        if work.body.stream_options and work.body.stream_options.include_usage:
            yield work.chunks.usage(work.usage(generated))
    finally:
        await events.aclose()
        cancel(work.streams)
