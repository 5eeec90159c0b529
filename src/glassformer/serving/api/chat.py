"""POST /v1/chat/completions: the model's answer to a conversation, by its own chat template."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request, Response
from pydantic import Field

from glassformer.generation.constraints import JsonSchema
from glassformer.generation.requests import Event, Result
from glassformer.generation.requests import Request as Asked
from glassformer.serving.api.bodies import IN_MESSAGES, Body, Sampled
from glassformer.serving.api.chunks import Chunks, choice, text_of
from glassformer.serving.api.errors import ApiError, json_response
from glassformer.serving.api.generating import Wanted, cancel, collect, requests_of, submit, together, usage
from glassformer.serving.api.service import Served, Service
from glassformer.serving.api.streaming import EventStream
from glassformer.serving.api.work import unless_gone
from glassformer.serving.streams import Stream
from glassformer.tasks.chat import chat_ids

_LONG = 10_000


class TextPart(Body):
    """A part of a message. There are no others than text here."""

    type: Literal["text"]
    text: str


class Message(Body):
    """What somebody said."""

    neutral = IN_MESSAGES
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    def plain(self) -> dict[str, str]:
        """As chat templates know it: they were written before there were developers."""
        parts = self.content
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class Schema(Body):
    """A JSON schema under a name. It is always followed strictly."""

    name: Annotated[str, Field(max_length=200)] = "schema"
    description: str | None = None
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """Text, any JSON object, or JSON that follows a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None

    def schema_of(self) -> dict[str, Any] | None:
        """What the answer has to follow."""
        if (self.json_schema is None) == (self.type == "json_schema"):
            message = "'json_schema' goes with a 'response_format' of that type, which needs it."
            raise ApiError(400, message, param="response_format")
        if self.json_schema is not None:
            return self.json_schema.schema_
        return {"type": "object"} if self.type == "json_object" else None


class ChatBody(Sampled):
    """OpenAI's parameters, and those of `Sampled`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None

    def tokens(self, most: int) -> int:
        """How many tokens an answer may have; `most` unless it is said."""
        given = [each for each in (self.max_tokens, self.max_completion_tokens) if each is not None]
        return min(given, default=most)


@dataclass(frozen=True)
class Chatting:
    """One request: what was asked, and the answers that are generated for it."""

    body: ChatBody
    served: Served
    requests: list[Asked]
    streams: list[Stream]
    chunks: Chunks

    def logprobs(self, told: Result | Event, reason: str | None) -> dict[str, Any] | None:
        """Those of the answer's tokens; what ends it is none of them."""
        if not self.body.logprobs:
            return None
        ended = reason == "stop" and told.ids and told.ids[-1] in self.served.model.ends
        ids = told.ids[:-1] if ended else told.ids
        return {"content": self.served.spelled.chat(ids, told.logprobs, told.top_logprobs), "refusal": None}

    def usage(self, generated: int) -> dict[str, object]:
        """The tokens of all answers."""
        return usage(self.requests, len(self.requests), generated, self.streams[0].reused)


def add_chat(app: FastAPI, service: Service) -> None:
    """The endpoint."""

    @app.post("/v1/chat/completions", tags=["OpenAI"])
    async def chat_completions(http: Request, body: ChatBody) -> Response:
        """Answers to a conversation."""
        served = service.of(body.model)
        served.need("chat")
        work = await _begun(http, service, served, body)
        if body.stream:
            return EventStream(_parts(work))
        return await _whole(http, work)


async def _begun(http: Request, service: Service, served: Served, body: ChatBody) -> Chatting:
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "'top_logprobs' goes with 'logprobs': true only.", param="top_logprobs")
    messages = [message.plain() for message in body.messages]
    if sum(len(message["content"]) for message in messages) > _LONG:
        ids = await service.work.do(http, lambda: chat_ids(served.model, messages))
    else:
        ids = chat_ids(served.model, messages)
    most = max(min(service.limits.new_tokens, served.model.config.max_length - len(ids)), 0)
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    schema = await _schema(http, service, served, body)
    wanted = Wanted(body.tokens(most), body.n or 1, logprobs, schema=schema, context=False)
    requests = requests_of(service, served, body, [ids], wanted)
    counted = bool(body.stream_options and body.stream_options.include_usage)
    kind = "chat.completion.chunk" if body.stream else "chat.completion"
    chunks = Chunks(kind, "chatcmpl", served.name, counted)
    return Chatting(body, served, requests, submit(service, served, requests), chunks)


async def _schema(http: Request, service: Service, served: Served, body: ChatBody) -> JsonSchema | None:
    """The grammar of an answer. Making it may take a second: not in the event loop."""
    wanted = body.response_format.schema_of() if body.response_format else None
    if wanted is None:
        return None
    model = served.model
    return await service.work.do(http, lambda: JsonSchema(wanted, model.grammar_tokens, model.config.vocab_size))


async def _whole(http: Request, work: Chatting) -> Response:
    results = await unless_gone(http, asyncio.ensure_future(collect(work.streams)))
    choices = []
    for index, (result, reason) in enumerate(results):
        message = {"role": "assistant", "content": result.text, "refusal": None}
        choices.append(choice(index, {"message": message}, work.logprobs(result, reason), reason))
    generated = sum(len(result.ids) for result, _ in results)
    return json_response({**work.chunks.head, "choices": choices, "usage": work.usage(generated)})


async def _parts(work: Chatting) -> AsyncGenerator[bytes]:
    chunk = work.chunks.chunk
    generated = 0
    events = together(work.streams)
    try:
        for number in range(len(work.streams)):
            yield chunk(number, '"delta":{"role":"assistant","content":""}', "null", None)
        async for number, event in events:
            generated += len(event.ids)
            logprobs = work.logprobs(event, event.finish_reason)
            if event.text or (logprobs and logprobs["content"]):
                told = "null" if logprobs is None else text_of(logprobs)
                yield chunk(number, f'"delta":{{"content":{text_of(event.text)}}}', told, None)
            if event.finish_reason:
                yield chunk(number, '"delta":{}', "null", event.finish_reason)
        if work.body.stream_options and work.body.stream_options.include_usage:
            yield work.chunks.usage(work.usage(generated))
    finally:
        await events.aclose()
        cancel(work.streams)
