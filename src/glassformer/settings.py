"""Settings as frozen dataclasses, read strictly from mappings (TOML, JSON) and written back.

A field may hold a *choice*: a small frozen dataclass picked by name, such as `Sinusoidal() | Learned()`. It is written
as its name alone (`positions = "sinusoidal"`) or, with values of its own, `positions = {kind = "rotary", base = 5e5}`.
"""

import dataclasses
import os
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from glassformer.errors import InputError, did_you_mean

T = TypeVar("T")


def from_mapping(cls: type[T], mapping: Mapping[str, Any], where: str) -> T:
    """Build the dataclass `cls` from `mapping`; `where` names the source in errors, e.g. `"dates.toml [model]"`.

    Raises `InputError` for a key that `cls` does not have, a missing key without default, or a value of the wrong type.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in mapping:
        if key not in fields:
            raise InputError(
                f"{where}: unknown key '{key}'.{did_you_mean(key, fields)} Known keys: {', '.join(sorted(fields))}."
            )
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in mapping:
            raise InputError(f"{where}: the key '{name}' is missing; it has no default.")
    values = {key: _convert(hints[key], value, f"{where}: '{key}'") for key, value in mapping.items()}
    try:
        return cls(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def to_mapping(settings: Any) -> dict[str, Any]:
    """The inverse of `from_mapping`: plain values only, ready for JSON or TOML. `None` is kept."""
    hints = typing.get_type_hints(type(settings))
    return {
        field.name: _plain(hints[field.name], getattr(settings, field.name))
        for field in dataclasses.fields(settings)
        if field.init
    }


def cache_folder() -> Path:
    """Where what is expensive to make is kept between runs: GLASSFORMER_CACHE, else the user's cache folder."""
    given = os.environ.get("GLASSFORMER_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "glassformer"


def choice_name(cls: type) -> str:
    """`PiecewiseLinear` → `"piecewise-linear"`: how a choice is written in a file."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _choices(hint: Any) -> dict[str, type]:
    """The dataclasses among the options of a type, by name; empty when there are none."""
    classes = [option for option in _options(hint) if isinstance(option, type) and dataclasses.is_dataclass(option)]
    return {choice_name(option): option for option in classes}


def _plain(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = to_mapping(value)
        if len(_choices(hint)) < 2:
            return inner
        name = choice_name(type(value))
        fields = [field for field in dataclasses.fields(value) if field.init]
        usual = all(getattr(value, field.name) == field.default for field in fields)
        return name if usual else {"kind": name, **inner}
    return list(value) if isinstance(value, tuple) else value


def _convert(hint: Any, value: Any, where: str) -> Any:
    choices = _choices(hint)
    if choices and value is not None:
        return _choose(choices, value, where)
    for option in _options(hint):
        fits, converted = _fit(option, value)
        if fits:
            return converted
    raise InputError(f"{where} must be {_describe(hint)}, got {value!r}.")


def _choose(choices: dict[str, type], value: Any, where: str) -> Any:
    if isinstance(value, tuple(choices.values())):
        return value
    if len(choices) == 1 and isinstance(value, Mapping) and "kind" not in value:
        return from_mapping(next(iter(choices.values())), value, where)
    rest = dict(value) if isinstance(value, Mapping) else {"kind": value}
    kind = rest.pop("kind", None)
    if kind not in choices:
        raise InputError(
            f"{where} must be one of {', '.join(sorted(choices))}, got {kind!r}.{did_you_mean(str(kind), choices)}"
        )
    return from_mapping(choices[kind], rest, where)


def _fit(option: Any, value: Any) -> tuple[bool, Any]:
    """Whether `value` is of type `option`, and the value as that type (an int where a float is wanted becomes one)."""
    if option is Any:
        return True, value
    if option is type(None):
        return value is None, None
    origin = get_origin(option)
    if origin is Literal:
        return value in get_args(option), value
    if origin in (tuple, list):
        return _fit_sequence(option, value)
    if option is float and isinstance(value, int | float) and not isinstance(value, bool):
        return True, float(value)
    if option is int and isinstance(value, bool):
        return False, value
    return isinstance(value, origin or option), value


def _fit_sequence(option: Any, value: Any) -> tuple[bool, Any]:
    if not isinstance(value, list | tuple):
        return False, value
    arguments = get_args(option)
    open_ended = get_origin(option) is list or (len(arguments) == 2 and arguments[1] is Ellipsis)
    if not open_ended and len(arguments) != len(value):
        return False, value
    items = [_fit(arguments[0] if open_ended else arguments[i], item) for i, item in enumerate(value)]
    container = get_origin(option)
    return all(fits for fits, _ in items), container(item for _, item in items)


def _describe(hint: Any) -> str:
    names = []
    for option in _options(hint):
        if get_origin(option) is Literal:
            names.append("one of " + ", ".join(repr(value) for value in get_args(option)))
        elif get_origin(option) is list and get_origin(get_args(option)[0]) is Literal:
            names.append(f"a list, each {_describe(get_args(option)[0])}")
        else:
            names.append("nothing" if option is type(None) else getattr(option, "__name__", str(option)))
    return " or ".join(names)
