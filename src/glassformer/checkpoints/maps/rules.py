"""What a map between Hugging Face's folders and our networks is made of. It is data, so it runs both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from glassformer.errors import InputError
from glassformer.models.config import Config

Value = TypeVar("Value")

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""Their names of activations, and ours."""


@dataclass(frozen=True)
class Rule:
    """One of their tensors and what it is of ours.

    Several of `ours` lie one after the other along the first axis of theirs (GPT-2's fused queries, keys and values).
    `transposed`: they store [in, out]. `skipped`: so many rows of theirs come first that nobody reads (BART's two
    unused positions); they are written as zeros. `optional`: what their folder may leave out (a tied head, a pooler);
    where it names a tensor of ours for the second time it must hold the same numbers, and is not written again.
    `repeated`: it is written again all the same. `as_row`: they store a vector as a matrix of one row.
    `paired_heads`: the rows of so many heads each hold coordinates i and i + d/2 next to each other (Llama in GGUF).
    """

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False
    skipped: int = 0
    optional: bool = False
    repeated: bool = False
    as_row: bool = False
    paired_heads: int = 0


@dataclass(frozen=True)
class Map:
    """One architecture of Hugging Face.

    `model_type` is config.json's. `read_config` takes config.json and gives our `Config` (`InputError` for a setting
    that our parts do not have), `write_config` is its inverse (`InputError` for a choice that the architecture does not
    have; dropouts that it does not have are left out) and names the class in "architectures"; what is None is not
    written. `rules` lists every tensor of a network with that config. `ignored`
    are patterns (regular expressions) of their tensors that hold nothing that the network needs, such as position ids.
    `prefix` stands before names where the class has a head and not where it is the bare stack; both are read.
    `renamed` are pairs of an older end of a name and today's. `fit` sees the names of the stored tensors and adapts
    what config.json does not say (whether there is a pooler).
    """

    model_type: str
    family: str
    read_config: Callable[[Mapping[str, Any]], Config]
    write_config: Callable[[Config], dict[str, Any]]
    rules: Callable[[Config], list[Rule]]
    ignored: tuple[str, ...] = ()
    prefix: str = ""
    renamed: tuple[tuple[str, str], ...] = ()
    fit: Callable[[Config, set[str]], Config] | None = None


def setting(settings: Mapping[str, Any], key: str, kind: type[Value], default: Value | None = None) -> Value:
    """The value of `key`, of that type; `default` where it is missing or null, and `InputError` where there is none."""
    value = settings.get(key)
    if value is None:
        if default is None:
            raise InputError(f"the key '{key}' is missing.")
        return default
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"'{key}' must be {_article(kind)}, got {value!r}.")
    return value


def only(settings: Mapping[str, Any], **allowed: tuple[Any, ...] | Any) -> None:
    """`InputError` for the first key that is there, not null, and none of its allowed values."""
    for key, values in allowed.items():
        values = values if isinstance(values, tuple) else (values,)
        value = settings.get(key)
        if value is not None and not any(type(value) is type(known) and value == known for known in values):
            known = " or ".join(repr(known) for known in values) or "left out"
            raise InputError(f"'{key}' must be {known}, got {value!r}: nothing else is supported.")


def activation(settings: Mapping[str, Any], key: str, default: str) -> Any:
    """Our name of the activation that `key` names in theirs."""
    name = setting(settings, key, str, default)
    if name not in ACTIVATIONS:
        raise InputError(f"'{key}' must be one of {', '.join(ACTIVATIONS)}, got {name!r}.")
    return ACTIVATIONS[name]


def initial_spread(settings: Mapping[str, Any]) -> float | None:
    """`init_std`: their `initializer_range`, None where it is not said."""
    return None if settings.get("initializer_range") is None else setting(settings, "initializer_range", float)


def fixed(config: Config, **choices: Any) -> None:
    """`InputError` for the first choice of our config that is not the one that the architecture has."""
    for name, value in choices.items():
        if getattr(config, name) != value:
            raise InputError(f"'{name}' must be {value!r}, got {getattr(config, name)!r}.")


def plain_heads(config: Config) -> None:
    """`InputError` unless heads divide the width, and each has keys and values of its own."""
    if config.head_width * config.n_heads != config.d_model:
        raise InputError(f"'d_head' must be 'd_model' / 'n_heads', got {config.head_width}.")
    if config.kv_heads != config.n_heads:
        raise InputError(f"'n_kv_heads' must be 'n_heads' ({config.n_heads}), got {config.kv_heads}.")


def _article(kind: type) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}.get(kind, kind.__name__)
