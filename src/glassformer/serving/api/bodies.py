"""What requests may hold. A parameter that is not known, or is known and not supported, is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from glassformer.errors import did_you_mean

_NOTHING: tuple[Any, ...] = (None, "", [], {}, False)

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "suffix": _NOTHING,
    "store": _NOTHING,
    "tools": _NOTHING,
    "functions": _NOTHING,
    "tool_choice": (None, "none", "auto"),
    "function_call": (None, "none", "auto"),
    "parallel_tool_calls": (None, True, False),
    "modalities": (None, ["text"]),
    "audio": _NOTHING,
    "prediction": _NOTHING,
    "reasoning_effort": (None, "none"),
    "service_tier": (None, "auto", "default"),
    "verbosity": (None, "medium"),
    "web_search_options": _NOTHING,
}
"""Parameters of OpenAI that are not supported, with the values that ask for nothing."""

IN_MESSAGES: dict[str, tuple[Any, ...]] = dict.fromkeys(
    ("refusal", "annotations", "audio", "function_call", "tool_calls"), _NOTHING
)
"""What answers may have beside their text: clients send them back with the next question."""

HINTS = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"})
"""Parameters of OpenAI that say who asks, or for what: no answer depends on them."""


class Body(BaseModel):
    """An object with known keys only, and values of the right type only. Of keys in `neutral` the values that ask for
    nothing pass, and all of those in `hints`."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    hints: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="wrap")
    @classmethod
    def _known(cls, values: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        if isinstance(values, dict):
            values = {name: value for name, value in values.items() if not cls._passed_over(name, value)}
        return handler(values)

    @classmethod
    def _passed_over(cls, name: Any, value: Any) -> bool:
        """Whether a parameter asks for nothing. Raises where it asks for what is not done here."""
        known = [field.alias or name for name, field in cls.model_fields.items()]
        if name in known:
            return False
        if name in cls.hints:
            return True
        if name in cls.neutral:
            if any(value is each or (value == each and type(value) is type(each)) for each in cls.neutral[name]):
                return True
            text = f"'{name}' is not supported here; leave it out."
            raise PydanticCustomError("unsupported", "{text}", {"text": text, "param": name})
        name = str(name)[:100].encode("ascii", "backslashreplace").decode()  # half of a surrogate pair is no text
        text = f"unknown parameter '{name}'.{did_you_mean(name, known)}"
        raise PydanticCustomError("unknown", "{text}", {"text": text, "param": name})


class StreamOptions(Body):
    """`include_usage`: the last chunk but `[DONE]` counts the tokens."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # padding against listeners on the way; nothing is padded here

    @model_validator(mode="after")
    def _plain(self) -> StreamOptions:
        if self.include_obfuscation:
            text = "'include_obfuscation' is not supported here; leave it out."
            raise PydanticCustomError("unsupported", "{text}", {"text": text, "param": "stream_options"})
        return self


def _stop(value: Any) -> Any:
    """One string or several, as a list; None is none."""
    return [] if value is None else [value] if isinstance(value, str) else value


_AS_SENT: Any = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}]}

Stop = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=1000)]],
    Field(max_length=16),
    BeforeValidator(_stop),
    WithJsonSchema(_AS_SENT, mode="validation"),
]


class Sampled(Body):
    """What completions and chats have in common. OpenAI's parameters first, then what other servers have as well."""

    neutral = NEUTRAL
    hints = HINTS
    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] | None = 1.0
    top_p: Annotated[float, Field(ge=0, le=1)] | None = 1.0
    n: Annotated[int, Field(ge=1, le=128)] | None = 1
    stop: Stop = []  # noqa: RUF012 - pydantic copies it
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = 0.0
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1024)] | None = None
    top_k: Annotated[int, Field(ge=0)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] = 1.0
    ignore_eos: bool = False

    @model_validator(mode="after")
    def _whole(self) -> Sampled:
        if self.stream_options is not None and not self.stream:
            text = "'stream_options' goes with 'stream': true only."
            raise PydanticCustomError("unsupported", "{text}", {"text": text, "param": "stream_options"})
        return self
