"""The application: all endpoints behind one guard."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

import glassformer
from glassformer.serving.api.asking import add_asking
from glassformer.serving.api.chat import add_chat
from glassformer.serving.api.completions import add_completions
from glassformer.serving.api.embeddings import add_embeddings
from glassformer.serving.api.errors import add_handlers
from glassformer.serving.api.guard import LOCAL_HOSTS, Guard, Rules
from glassformer.serving.api.listing import add_listing
from glassformer.serving.api.metrics import add_metrics
from glassformer.serving.api.pages import add_pages, page_files
from glassformer.serving.api.reading import add_reading
from glassformer.serving.api.service import Service
from glassformer.serving.api.tokenizing import add_tokenizing
from glassformer.serving.api.tracing import add_tracing
from glassformer.serving.api.translating import add_translating

_ERROR = {
    "type": "object",
    "required": ["message", "type", "param", "code"],
    "properties": {
        "message": {"type": "string"},
        "type": {"type": "string"},
        "param": {"type": ["string", "null"]},
        "code": {"type": ["string", "null"]},
    },
}
_SCHEMA = {"type": "object", "required": ["error"], "properties": {"error": _ERROR}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {"description": "An error", "content": {"application/json": {"schema": _SCHEMA}}}
}


def make_app(
    service: Service, *, key: str | None = None, hosts: tuple[str, ...] | None = LOCAL_HOSTS, page: bool = True
) -> FastAPI:
    """The ASGI application of a service; it does not close the service.

    With a `key` every request but those for the page and /health must bring it; `hosts` are the names that may stand
    in a request's Host header (None: any).
    """
    app = FastAPI(
        title="Glassformer",
        summary="An OpenAI-compatible server that shows the inside of its models.",
        version=str(glassformer.__version__),
        docs_url=None,  # FastAPI's pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        responses=_RESPONSES,
    )
    for add in (
        add_completions,
        add_chat,
        add_embeddings,
        add_translating,
        add_asking,
        add_reading,
        add_tracing,
        add_tokenizing,
        add_listing,
        add_metrics,
    ):
        add(app, service)
    pages = page_files() if page else {}
    add_pages(app, pages)
    add_handlers(app)
    limits = service.limits
    rules = Rules(key, hosts, frozenset(pages), limits.body_bytes, limits.body_seconds)
    app.add_middleware(Guard, rules=rules)
    _leave_out_422(app)
    return app


def _leave_out_422(app: FastAPI) -> None:
    """FastAPI's document tells of an answer that is never given here."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
