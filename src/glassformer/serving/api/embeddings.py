"""POST /v1/embeddings: one vector a text."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from fastapi import FastAPI, Request, Response
from pydantic import Field
from torch import Tensor

from glassformer.serving.api.bodies import Body
from glassformer.serving.api.errors import ApiError, json_response
from glassformer.serving.api.service import Service
from glassformer.tasks.embed import read_ids
from glassformer.tasks.inputs import Prompt, is_one
from glassformer.tasks.model import Model

_T = TypeVar("_T")
_Several = Annotated[list[_T], Field(min_length=1, max_length=2048)]
_Ids = Annotated[list[int], Field(min_length=1, max_length=100_000)]


class EmbeddingBody(Body):
    """`input` is text, or ids as /tokenize gives them, which are read as they are, with no frame around them.
    Vectors are as long as the model makes them."""

    model: str
    input: str | _Several[str] | _Ids | _Several[_Ids]
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None


def add_embeddings(app: FastAPI, service: Service) -> None:
    """The endpoint."""

    @app.post("/v1/embeddings", tags=["OpenAI"])
    async def embeddings(http: Request, body: EmbeddingBody) -> Response:
        """One vector a text, as numbers or as the base64 of little-endian 32-bit floats."""
        served = service.of(body.model)
        model = served.need("embeddings")
        if body.dimensions not in (None, model.config.d_model):
            message = f"'dimensions' must be {model.config.d_model} for this model, or left out."
            raise ApiError(400, message, param="dimensions", code="invalid_value")
        texts: list[Any] = [body.input] if is_one(body.input) else list(body.input)

        def work(some: Sequence[Prompt], first_line: int) -> list[tuple[Tensor, int]]:
            return _vectors(model, some, first_line)

        found = await service.work.parts(http, work, texts, service.limits.seconds)
        data = [
            {"object": "embedding", "index": index, "embedding": _encoded(vector, body.encoding_format)}
            for index, (vector, _) in enumerate(found)
        ]
        tokens = sum(count for _, count in found)
        used = {"prompt_tokens": tokens, "total_tokens": tokens}
        return json_response({"object": "list", "data": data, "model": served.name, "usage": used})


def _vectors(model: Model, texts: Sequence[Prompt], first_line: int) -> list[tuple[Tensor, int]]:
    """The vectors, and how many tokens were read for each."""
    ids = read_ids(model, texts, first_line=first_line)
    return list(zip(model.embed(ids, first_line=first_line), map(len, ids), strict=True))


def _encoded(vector: Tensor, form: str | None) -> Any:
    if form != "base64":
        return vector.tolist()
    return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()
