"""GET /v1/models and /health: what there is, and whether it answers."""

from __future__ import annotations

from fastapi import FastAPI, Response

from glassformer.serving.api.errors import json_response
from glassformer.serving.api.service import Service


def add_listing(app: FastAPI, service: Service) -> None:
    """The three endpoints."""

    @app.get("/v1/models", tags=["OpenAI"])
    async def models() -> Response:
        """The models, in the order in which they were named at the start."""
        return json_response({"object": "list", "data": [served.about() for served in service.all.values()]})

    @app.get("/v1/models/{name:path}", tags=["OpenAI"])
    async def model(name: str) -> Response:
        """One of them."""
        return json_response(service.of(name).about())

    @app.get("/health", tags=["server"])
    async def health() -> Response:
        """200 where the server answers, 503 where it is stopping or a model's thread has died. Needs no key."""
        if service.well:
            return json_response({"status": "ok"})
        return json_response({"status": "stopping" if service.stopping else "broken"}, 503)
