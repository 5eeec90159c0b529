"""POST /v1/classify, /v1/answer and /v1/fill: what encoders say of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from pydantic import Field

from glassformer.serving.api.bodies import Body
from glassformer.serving.api.errors import json_response
from glassformer.serving.api.service import Service
from glassformer.tasks.classify import Label

Texts = str | Annotated[list[str], Field(min_length=1, max_length=1000)]


class ClassifyBody(Body):
    """Texts; with `truncate` only the beginning of one that is too long is read."""

    model: str
    text: Texts
    truncate: bool = False


class AnswerBody(Body):
    """A question, and the text that answers it or does not."""

    model: str
    question: Annotated[str, Field(min_length=1)]
    context: Annotated[str, Field(min_length=1)]


class FillBody(Body):
    """A text with the model's mask in it, once or more often."""

    model: str
    text: str
    top: Annotated[int, Field(ge=1, le=100)] = 5


def add_reading(app: FastAPI, service: Service) -> None:
    """The three endpoints."""

    @app.post("/v1/classify", tags=["Glassformer"])
    async def classify(http: Request, body: ClassifyBody) -> Response:
        """The most probable label of each text, and the probabilities of all."""
        model = service.of(body.model).need("classify")
        texts = [body.text] if isinstance(body.text, str) else body.text

        def work(some: Sequence[str], first_line: int) -> list[Label]:
            return model.classify(some, truncate=body.truncate, first_line=first_line)

        found = await service.work.parts(http, work, texts, service.limits.seconds)
        return _list(body.model, [asdict(one) for one in found])

    @app.post("/v1/answer", tags=["Glassformer"])
    async def answer(http: Request, body: AnswerBody) -> Response:
        """The span of the context that answers the question, or none."""
        model = service.of(body.model).need("answer")
        found = await service.work.do(http, lambda: model.answer(body.question, body.context))
        return _list(body.model, [asdict(found)])

    @app.post("/v1/fill", tags=["Glassformer"])
    async def fill(http: Request, body: FillBody) -> Response:
        """The most probable words for each mask, the best first."""
        model = service.of(body.model).need("fill")
        found: Any = await service.work.do(http, lambda: model.fill(body.text, top=body.top))
        masks = found if found and isinstance(found[0], list) else [found]
        return _list(body.model, [{"fills": [asdict(one) for one in mask]} for mask in masks])


def _list(name: str, found: list[dict[str, Any]]) -> Response:
    data = [{"index": index, **one} for index, one in enumerate(found)]
    return json_response({"object": "list", "data": data, "model": name})
