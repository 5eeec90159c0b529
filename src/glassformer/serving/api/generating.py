"""From a body to requests, and from the streams of their events to one answer."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glassformer.generation.constraints import JsonSchema
from glassformer.generation.requests import Event, Request, Result, joined
from glassformer.generation.sampling import LogitsFunction, Sampling
from glassformer.serving.api.bodies import Sampled
from glassformer.serving.api.errors import ApiError
from glassformer.serving.api.service import Served, Service
from glassformer.serving.streams import Stream


@dataclass(frozen=True)
class Penalty:
    """OpenAI's penalties: a token that was generated c > 0 times loses `presence` + c · `frequency` of its logit.
    The first `prompt` ids do not count."""

    prompt: int
    presence: float
    frequency: float

    def __call__(self, ids: Sequence[int], logits: Tensor) -> Tensor:
        if len(ids) > self.prompt:
            tokens, counts = torch.tensor(ids[self.prompt :], device=logits.device).unique(return_counts=True)
            logits[tokens] -= self.presence + self.frequency * counts
        return logits


def sampling(body: Sampled, prompt: int) -> Sampling:
    """How the tokens of a text are chosen; `prompt` is the length of its prompt."""
    presence, frequency = body.presence_penalty or 0.0, body.frequency_penalty or 0.0
    functions: tuple[LogitsFunction, ...] = (Penalty(prompt, presence, frequency),) if presence or frequency else ()
    return Sampling(
        temperature=1.0 if body.temperature is None else body.temperature,
        top_k=body.top_k,
        top_p=1.0 if body.top_p is None else max(body.top_p, 1e-12),  # 0 means the best token
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        logit_bias=_biases(body),
        functions=functions,
    )


def _biases(body: Sampled) -> dict[int, float]:
    biases = body.logit_bias or {}
    if not all(token.isascii() and token.isdigit() and len(token) < 10 for token in biases):
        message = "'logit_bias' maps token ids, written as strings, to numbers."
        raise ApiError(400, message, param="logit_bias", code="invalid_value")
    return {int(token): bias for token, bias in biases.items()}


@dataclass(frozen=True)
class Wanted:
    """What is to be generated after each prompt, `count` times."""

    new_tokens: int
    count: int = 1
    logprobs: int | None = None
    prompt_logprobs: bool = False
    schema: JsonSchema | None = None
    context: bool = True


def requests_of(
    service: Service, served: Served, body: Sampled, prompts: Sequence[Sequence[int]], wanted: Wanted
) -> list[Request]:
    """A request for each text: prompt number p gives the texts from p · count on. A 400 for what is too much."""
    limits = service.limits
    positions = served.model.config.max_length
    longest = min(limits.prompt_tokens or positions, positions)
    check_count(service, len(prompts) * wanted.count)
    if wanted.new_tokens > limits.new_tokens:
        message = f"'max_tokens' may be {limits.new_tokens} at most on this server."
        raise ApiError(400, message, param="max_tokens", code="invalid_value")
    for ids in prompts:
        if len(ids) > longest:
            message = f"the prompt has {len(ids)} tokens, and may have {longest} at most: shorten it."
            raise ApiError(400, message, param="prompt", code="context_length_exceeded")
    seed = secrets.randbits(62) if body.seed is None else body.seed
    return [
        Request(
            tuple(ids),
            wanted.new_tokens,
            sampling(body, len(ids)),
            tuple(body.stop),
            seed,
            number * wanted.count + again,
            wanted.logprobs,
            wanted.prompt_logprobs,
            body.ignore_eos,
            wanted.schema,
            wanted.context,
        )
        for number, ids in enumerate(prompts)
        for again in range(wanted.count)
    ]


def check_count(service: Service, texts: int) -> None:
    """A 400 for more texts than could ever have room."""
    limits = service.limits
    if texts > (most := min(limits.texts, limits.streams + limits.queue)):
        raise ApiError(400, f"a request may ask for {most} texts at most, prompts times 'n'.", param="n")


def submit(service: Service, served: Served, requests: Sequence[Request]) -> list[Stream]:
    """A stream for each request, or for none of them."""
    assert served.batching is not None
    streams: list[Stream] = []
    try:
        for request in requests:
            streams.append(served.batching.submit(request, deadline=service.limits.seconds))
    except BaseException:
        cancel(streams)
        raise
    return streams


def cancel(streams: Sequence[Stream]) -> None:
    """Free the places of all."""
    for stream in streams:
        stream.cancel()


async def collect(streams: Sequence[Stream]) -> list[tuple[Result, str]]:
    """All of each text, with the reason for which it ended."""
    found = []
    try:
        for stream in streams:
            events = [event async for event in stream]
            found.append((joined(events), str(events[-1].finish_reason)))
    finally:
        cancel(streams)
    return found


async def together(streams: Sequence[Stream]) -> AsyncGenerator[tuple[int, Event]]:
    """The events of all streams as they come, each with the number of its stream."""
    try:
        if len(streams) == 1:
            async for event in streams[0]:
                yield 0, event
            return
        told: asyncio.Queue[tuple[int, Event | BaseException | None]] = asyncio.Queue()
        listeners = [asyncio.ensure_future(_listen(number, stream, told)) for number, stream in enumerate(streams)]
        try:
            left = len(streams)
            while left:
                number, one = await told.get()
                if isinstance(one, BaseException):
                    raise one
                if one is None:
                    left -= 1
                else:
                    yield number, one
        finally:
            for listener in listeners:
                listener.cancel()
    finally:
        cancel(streams)


async def _listen(number: int, stream: Stream, told: asyncio.Queue[tuple[int, Event | BaseException | None]]) -> None:
    try:
        async for event in stream:
            told.put_nowait((number, event))
        told.put_nowait((number, None))
    except Exception as error:
        told.put_nowait((number, error))


def finish(reason: str | None) -> tuple[str | None, str | None]:
    """OpenAI's `finish_reason`, and ours where that has no word for it ("deadline", "shutdown")."""
    if reason in (None, "stop", "length"):
        return reason, None
    return "length", reason


def usage(requests: Sequence[Request], per_prompt: int, generated: int, reused: int) -> dict[str, object]:
    """How many tokens a request took; each prompt counts once, however many texts it has."""
    prompt = sum(len(request.ids) for request in requests[::per_prompt])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": min(reused, prompt)},
    }
