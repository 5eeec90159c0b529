"""Errors as OpenAI's clients expect them: `{"error": {"message", "type", "param", "code"}}` with the right status."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from glassformer.errors import InputError, did_you_mean
from glassformer.serving.batching import Closed, Full

_LONGEST = 1000
"""Characters of a message: what a client sent may be in it, and that can be long."""

_LONGEST_NAME = 100
"""Characters of a name that nothing has: what it might have meant is looked for."""

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """What a client is told instead of an answer; `param` names the parameter that was wrong."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message[:_LONGEST], param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The error as an object."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """The error as an answer."""
        return json_response(self.body(), self.status, self.headers)


class Gone(Exception):  # noqa: N818 - nobody is left to be told
    """The client went away."""


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON in ASCII, so that whatever characters a client sends can be told back to it."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Response(text, status, dict(headers or {}), "application/json")


def as_api_error(error: Exception) -> ApiError | None:
    """What a client is told of an exception; None for one that is our own fault."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, InputError):
        return ApiError(400, " ".join(str(error).split()))
    if isinstance(error, Full):
        return busy(error.retry_after)
    if isinstance(error, Closed):
        return ApiError(503, "the server is stopping.", code="stopping", headers={"Retry-After": "30"})
    return None


def busy(seconds: float) -> ApiError:
    """Too many requests are waiting; `seconds` until another try is worth it."""
    wait = str(max(1, math.ceil(seconds)))
    message = f"too many requests are waiting; try again in {wait} s."
    return ApiError(429, message, code="rate_limit_exceeded", headers={"Retry-After": wait})


def too_long(seconds: float) -> ApiError:
    """An answer took more time than it may have."""
    return ApiError(503, f"this took longer than {seconds:g} s.", code="timeout")


def add_handlers(app: FastAPI) -> None:
    """Have what endpoints raise answered as errors. What is left is the guard's."""

    async def known(http: Request, error: Exception) -> Response:
        told = as_api_error(error)
        assert told is not None
        return told.response()

    async def gone(http: Request, error: Exception) -> Response:
        return Response(status_code=499)

    async def invalid(http: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return invalid_body(error.errors()).response()

    async def other(http: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            return ApiError(404, "there is no such endpoint; /openapi.json lists them.", code="unknown_url").response()
        message = "the body must be JSON." if error.status_code == 400 else str(error.detail).lower()
        return ApiError(error.status_code, message, headers=error.headers).response()

    for kind in (ApiError, InputError, Full, Closed):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(Gone, gone)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, other)


def invalid_body(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """What was wrong with a body first; the values that were sent are not told."""
    first = errors[0]
    place = [str(part) for part in first["loc"][1:]]
    kind, context = str(first["type"]), first.get("ctx") or {}
    param = str(context.get("param") or (place[0] if place else "")) or None
    if kind == "json_invalid":
        return ApiError(400, "the body must be JSON.")
    if kind == "missing":
        return ApiError(400, f"'{param or 'body'}' is missing.", param=param, code="missing_required_parameter")
    if kind == "extra_forbidden":
        return ApiError(400, f"unknown parameter '{'.'.join(place)}'.", param=param, code="unknown_parameter")
    if kind in ("unsupported", "unknown"):
        return ApiError(400, str(first["msg"]), param=param, code=f"{kind}_parameter")
    of_same = {str(each["msg"]) for each in errors if list(each["loc"][1:2]) == list(first["loc"][1:2])}
    message = f"'{param or 'body'}': {'; or: '.join(sorted(of_same))}."
    return ApiError(400, message, param=param, code="invalid_value")


def unknown_name(what: str, name: str, known: Sequence[str], *, param: str, code: str) -> ApiError:
    """There is nothing of this name here."""
    name = name[:_LONGEST_NAME]
    message = f"no {what} is called '{name}' here.{did_you_mean(name, known)} There are: {', '.join(known)}."
    return ApiError(404, message, param=param, code=code)
