"""POST /v1/embeddings: one vector a text."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request, Response
from pydantic import Field
from torch import Tensor

from glassformer.serving.api.bodies import Body
from glassformer.serving.api.errors import ApiError, json_response
from glassformer.serving.api.service import Service
from glassformer.tasks.model import Model


class EmbeddingBody(Body):
    """`input` is text: ids are refused. Vectors are as long as the model makes them."""

    model: str
    input: str | Annotated[list[str], Field(min_length=1, max_length=2048)]
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
        texts = [body.input] if isinstance(body.input, str) else body.input
        vectors, tokens = await service.work.do(http, lambda: _vectors(model, texts))
        data = [
            {"object": "embedding", "index": index, "embedding": _encoded(vector, body.encoding_format)}
            for index, vector in enumerate(vectors)
        ]
        used = {"prompt_tokens": tokens, "total_tokens": tokens}
        return json_response({"object": "list", "data": data, "model": served.name, "usage": used})


def _vectors(model: Model, texts: list[str]) -> tuple[Tensor, int]:
    """The vectors, and how many tokens were read for them."""
    vectors = model.embed(texts)
    return vectors, sum(map(len, model.tokenizer.encode_all(texts, frame=True)))


def _encoded(vector: Tensor, form: str | None) -> Any:
    if form != "base64":
        return vector.tolist()
    return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()
