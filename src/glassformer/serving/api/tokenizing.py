"""/tokenizer_info, /tokenize and /detokenize: tokens, as vLLM's server tells them and lm-eval asks for them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from pydantic import Field

from glassformer.serving.api.bodies import Body
from glassformer.serving.api.errors import ApiError, json_response
from glassformer.serving.api.service import Served, Service

_LONG = 20_000
"""Characters or ids that are cut or joined within the event loop: a few ms."""


class TokenizeBody(Body):
    """`add_special_tokens` puts what frames the model's texts around this one. Special tokens that the text spells are
    read as such. Without `model` the first one is meant."""

    model: str | None = None
    prompt: str
    add_special_tokens: bool = True
    return_token_strs: bool = False


class DetokenizeBody(Body):
    """The text of ids, special tokens too."""

    model: str | None = None
    tokens: Annotated[list[int], Field(max_length=1_000_000)]


def add_tokenizing(app: FastAPI, service: Service) -> None:
    """The three endpoints."""

    @app.get("/tokenizer_info", tags=["tokens"])
    async def tokenizer_info(model: str | None = None) -> Response:
        """The special tokens, the chat template and the kind of a model's tokenizer."""
        return json_response(_about(service.of(model)))

    @app.post("/tokenize", tags=["tokens"])
    async def tokenize(http: Request, body: TokenizeBody) -> Response:
        """The ids of a text."""
        served = service.of(body.model)
        tokenizer, framed = served.model.tokenizer, body.add_special_tokens

        def encode() -> list[int]:
            return tokenizer.encode(body.prompt, frame=framed, read_specials=True)

        ids = await service.work.do(http, encode) if len(body.prompt) > _LONG else encode()
        found = {"count": len(ids), "max_model_len": served.model.config.max_length, "tokens": ids}
        return json_response({**found, "token_strs": tokenizer.tokens(ids) if body.return_token_strs else None})

    @app.post("/detokenize", tags=["tokens"])
    async def detokenize(http: Request, body: DetokenizeBody) -> Response:
        """The text of ids."""
        tokenizer = service.of(body.model).model.tokenizer

        def decode() -> str:
            return tokenizer.decode(body.tokens, skip_specials=False)

        if not all(0 <= i < tokenizer.vocab_size for i in body.tokens):
            message = f"'tokens' must lie in [0, {tokenizer.vocab_size}), the vocabulary."
            raise ApiError(400, message, param="tokens", code="invalid_value")
        return json_response({"prompt": await service.work.do(http, decode) if len(body.tokens) > _LONG else decode()})


def _about(served: Served) -> dict[str, Any]:
    tokenizer = served.model.tokenizer
    tokens: dict[str, str | None] = {f"{role}_token": None for role in ("bos", "eos", "pad", "unk")}
    tokens |= {f"{role}_token": token for role, token in tokenizer.specials.items()}
    if tokens["eos_token"] is None and served.model.ends:
        tokens["eos_token"] = tokenizer.tokens([served.model.ends[0]])[0]
    return {
        "model": served.name,
        "tokenizer_class": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "model_max_length": served.model.config.max_length,
        **tokens,
        "chat_template": served.model.pipeline.chat_template or None,
    }
