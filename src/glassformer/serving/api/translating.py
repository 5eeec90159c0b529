"""POST /v1/translate: texts in another language, by beam search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request, Response
from pydantic import Field

from glassformer.serving.api.bodies import Body
from glassformer.serving.api.errors import json_response
from glassformer.serving.api.service import Service
from glassformer.tasks.generate import Generation


class TranslateBody(Body):
    """As `Model.translate`: `beam` hypotheses, of which `n_best` are given; `long` texts are an error, or split."""

    model: str
    text: str | Annotated[list[str], Field(min_length=1, max_length=1000)]
    beam: Annotated[int, Field(ge=1, le=32)] = 5
    n_best: Annotated[int, Field(ge=1, le=32)] = 1
    length_penalty: Annotated[float, Field(ge=0, le=10)] = 1.0
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    long: Literal["error", "split"] = "error"


def add_translating(app: FastAPI, service: Service) -> None:
    """The endpoint."""

    @app.post("/v1/translate", tags=["Glassformer"])
    async def translate(http: Request, body: TranslateBody) -> Response:
        """The translations in order, each with its score, log-probabilities and alternatives."""
        served = service.of(body.model)
        model = served.need("translate")
        texts = [body.text] if isinstance(body.text, str) else body.text

        def work(some: Sequence[str], first_line: int) -> list[Generation]:
            return model.translate(
                some,
                beam=body.beam,
                n_best=body.n_best,
                length_penalty=body.length_penalty,
                max_length=body.max_tokens,
                long=body.long,
                first_line=first_line,
            )

        found = await service.work.parts(http, work, texts, service.limits.seconds)
        data = [{"index": index, **_told(one)} for index, one in enumerate(found)]
        return json_response({"object": "list", "data": data, "model": served.name})


def _told(one: Generation) -> dict[str, Any]:
    own = {"text": one.text, "score": one.score, "finish_reason": one.finish_reason, "logprobs": list(one.logprobs)}
    others = [{"text": each.text, "score": each.score} for each in one.alternatives]
    return {**own, "alternatives": others}
