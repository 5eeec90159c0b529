"""POST /v1/ask: an answer with what it is worth: how sure the model is, or quotes from the server's documents."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Request, Response
from pydantic import Field

from glassformer.factuality.asking import MAX_NEW_TOKENS, Reply, ask
from glassformer.factuality.calibration import Calibration
from glassformer.serving.api.bodies import Body
from glassformer.serving.api.errors import ApiError, json_response
from glassformer.serving.api.service import Grounds, Served, Service


class AskBody(Body):
    """`grounded` (as soon as the server has documents) answers by their words alone; `write` has the model compose the
    answer from them, and strikes what they do not have. `max_error` goes with an answer of the model's own: none is
    given where the risk of being wrong is too high for that share of errors. `max_tokens` is 48 unless it is said; it
    goes with what is written, and not with a calibration, which has its own."""

    model: str | None = None
    question: Annotated[str, Field(min_length=1, max_length=4000)]
    grounded: bool | None = None
    write: bool = False
    max_error: Annotated[float, Field(gt=0, lt=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None


def add_asking(app: FastAPI, service: Service) -> None:
    """The endpoint."""

    @app.post("/v1/ask", tags=["Glassformer"])
    async def asked(http: Request, body: AskBody) -> Response:
        """The answer, or none and why; with each token's probability, the risk, evidence and its place."""
        served = service.of(body.model)
        grounded = service.grounds.documents is not None if body.grounded is None else body.grounded
        if not grounded or body.write:
            served.need("ask")
        own = service.grounds.risk if service.grounds.calibrated == served.name and not grounded else None
        _check(service, body, grounded, own)
        tokens = min(MAX_NEW_TOKENS, service.limits.new_tokens) if body.max_tokens is None else body.max_tokens
        reply = await service.work.do(http, lambda: _reply(service.grounds, served, body, grounded, own, tokens))
        return json_response({"object": "answer", "model": served.name, **reply.to_json()})


def _check(service: Service, body: AskBody, grounded: bool, own: Calibration | None) -> None:
    if grounded and service.grounds.documents is None:
        message = "this server was started without documents (--documents)."
        raise ApiError(400, message, param="grounded", code="unsupported_parameter")
    if body.write and not grounded:
        raise ApiError(400, "'write' composes an answer from documents: it goes with 'grounded'.", param="write")
    if body.max_error is not None and own is None:
        calibrated = service.grounds.calibrated
        no_risk = f"only '{calibrated}' has a calibration" if calibrated else "this server has no --risk"
        why = "it is of a model's own answers: 'grounded' must be false" if grounded else no_risk
        raise ApiError(400, f"'max_error' cannot be kept: {why}.", param="max_error", code="unsupported_parameter")
    if body.max_tokens is None:
        return
    if own is not None or (grounded and not body.write):
        why = "answers are as long as in the calibration" if own else "an answer is copied, not written"
        raise ApiError(400, f"'max_tokens' has no use: {why}.", param="max_tokens", code="unsupported_parameter")
    if body.max_tokens > service.limits.new_tokens:
        raise ApiError(400, f"'max_tokens' may be {service.limits.new_tokens} at most.", param="max_tokens")


def _reply(
    grounds: Grounds, served: Served, body: AskBody, grounded: bool, own: Calibration | None, tokens: int
) -> Reply:
    if grounded:
        assert grounds.reader is not None
        return ask(
            served.model,
            body.question,
            documents=grounds.documents,
            reader=grounds.reader,
            write=body.write,
            max_new_tokens=tokens,
        )
    return ask(served.model, body.question, risk=own, max_error=body.max_error, max_new_tokens=tokens)
