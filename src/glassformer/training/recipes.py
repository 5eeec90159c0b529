"""Recipes: whole experiments as TOML, read strictly and written back."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glassformer.errors import InputError, did_you_mean
from glassformer.models.config import AnyConfig, Config
from glassformer.models.sizes import sizes
from glassformer.settings import from_mapping, to_mapping
from glassformer.training.finetuning import Finetune
from glassformer.training.sections import Data as Data
from glassformer.training.sections import Evaluation as Evaluation
from glassformer.training.sections import Parallel as Parallel
from glassformer.training.sections import Task, check_consistency, check_kind, check_metric
from glassformer.training.sections import Text as Text
from glassformer.training.sections import Training as Training

# What [model] may still say where a training starts from a model, which brings all else.
ADJUSTABLE = ("dropout", "attention_dropout", "activation_dropout", "pooling")
_SIZES = {
    "language-modeling": "gpt2",
    "masked-language-modeling": "bert-base",
    "classification": "bert-base",
    "question-answering": "bert-base",
}
_FROM_TOKENIZER = ("vocab_size", "source_vocab_size", "pad_id", "bos_id", "eos_id")


@dataclass(frozen=True)
class Recipe:
    """A whole experiment. `model` is a size's name under "size" with any field of its config (`Config`,
    `RecurrentConfig`, `ConvolutionalConfig`) beside it; where
    `finetune.model` names a model to start from, only its dropouts and what labels are read off (`ADJUSTABLE`)
    may be given."""

    name: str = "translation"
    task: Task = "translation"
    data: Data = Data()
    text: Text = Text()
    model: dict[str, Any] = field(default_factory=dict)
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    finetune: Finetune = Finetune()
    parallel: Parallel = Parallel()

    def __post_init__(self) -> None:
        check_metric(self.task, self.evaluation.metric)
        check_kind(self.task, self.data.kind)
        check_consistency(self.task, self.training.consistency, self.parallel)
        if self.finetune.model:
            self._check_adjustments()
        else:
            self.network_config(vocab_size=100)

    def network_config(self, vocab_size: int, **derived: Any) -> AnyConfig:
        """The config of a network with fresh weights, for a vocabulary. `derived` are fields that the tokenizer and
        the task determine. `InputError` for an unknown size or field in `model`."""
        fields = dict(self.model)
        size = fields.pop("size", _SIZES.get(self.task, "transformer-base"))
        if size not in sizes:
            raise InputError(
                f"[model]: 'size' must be one of {', '.join(sorted(sizes))}, got {size!r}."
                f"{did_you_mean(str(size), sizes)}"
            )
        for name in _FROM_TOKENIZER:
            if name in fields:
                raise InputError(
                    f"[model]: '{name}' comes from the tokenizer; set 'text.vocab_size' to change the vocabulary."
                )
        kind = type(sizes[size])
        _known(fields, kind, "[model]")
        base = to_mapping(sizes[size])
        return from_mapping(kind, {**base, **fields, "vocab_size": vocab_size, **derived}, "[model]")

    def _check_adjustments(self) -> None:
        other = [name for name in self.model if name not in ADJUSTABLE]
        if other:
            raise InputError(
                f"[model]: '{other[0]}' comes from {self.finetune.model}, which the training starts from; only "
                f"{', '.join(ADJUSTABLE)} can be given."
            )


SECTIONS: dict[str, type] = {
    "data": Data,
    "text": Text,
    "training": Training,
    "evaluation": Evaluation,
    "finetune": Finetune,
    "parallel": Parallel,
}


def read_recipe(recipe: str | Path | Recipe, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe from a TOML file (or one already read), with overrides such as `{"training.steps": 100}`.

    An override given as text ("100", as a command line gives it) is read as TOML unless its key holds text. The name
    is the file's own unless the file says `name`. Raises `InputError` for a missing file, broken TOML (file and line),
    an unknown section or key, or a value of the wrong type.
    """
    if isinstance(recipe, Recipe):
        where, content = recipe.name, recipe_mapping(recipe)
    else:
        path = _find(Path(recipe))
        where, content = str(path), {"name": path.stem, **_read_toml(path)}
    for key, value in (overrides or {}).items():
        _override(content, key, value)
    _known(content, Recipe, where)
    values = {
        key: from_mapping(SECTIONS[key], section, f"{where} [{key}]") if key in SECTIONS else section
        for key, section in _sections(content, where).items()
    }
    return from_mapping(Recipe, values, where)


def recipe_mapping(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain nested values."""
    sections = {name: to_mapping(getattr(recipe, name)) for name in SECTIONS}
    return {"name": recipe.name, "task": recipe.task, **sections, "model": dict(recipe.model)}


def recipe_toml(recipe: Recipe) -> str:
    """A recipe as TOML text that `read_recipe` reads back to an equal one."""
    lines = [f"name = {_toml(recipe.name)}", f"task = {_toml(recipe.task)}"]
    for name, section in recipe_mapping(recipe).items():
        if isinstance(section, dict):
            lines += ["", f"[{name}]"]
            lines += [f"{key} = {_toml(value)}" for key, value in section.items() if value is not None]
    return "\n".join(lines) + "\n"


def _known(mapping: Mapping[str, Any], cls: type, where: str) -> None:
    fields = [item.name for item in dataclasses.fields(cls)]
    for key in mapping:
        if key not in fields:
            raise InputError(
                f"{where}: unknown key '{key}'.{did_you_mean(key, fields)} Known keys: {', '.join(sorted(fields))}."
            )


def _sections(content: dict[str, Any], where: str) -> dict[str, Any]:
    for key, section in content.items():
        if key in {*SECTIONS, "model"} and not isinstance(section, dict):
            raise InputError(f"{where}: '{key}' must be a section, [{key}], got {section!r}.")
    return content


def _find(path: Path) -> Path:
    """The file itself; where `recipes/NAME.toml` is not here, the package's own of that name."""
    if path.exists() or path.parent not in (Path("recipes"), Path(".")):
        return path
    package = Path(__file__).resolve().parent.parent
    own = [package / "recipes" / path.name, package.parent.parent / "recipes" / path.name]
    return next((candidate for candidate in own if candidate.is_file()), path)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no recipe {path}; the package's own are in recipes/.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; a recipe is a TOML file. To go on with a run, use --resume.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8; a recipe is a TOML text file.") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from None


def _override(content: dict[str, Any], key: str, value: Any) -> None:
    section, _, name = key.partition(".")
    if key in ("name", "task"):
        content[key] = value
        return
    known = [*SECTIONS, "model"]
    if section not in known or not name:
        keys = [f"{part}.{item.name}" for part, cls in SECTIONS.items() for item in dataclasses.fields(cls)]
        raise InputError(
            f"'{key}' is no key of a recipe; it must be SECTION.KEY with a section of {', '.join(known)}."
            f"{did_you_mean(key, keys)}"
        )
    hints = typing.get_type_hints(SECTIONS.get(section, Config))
    if isinstance(value, str) and hints.get(name) is not str:
        parsed = _parse(value)
        # where text is wanted as well ("12" may be a file), only a list or a table is meant as TOML
        text = str in typing.get_args(hints.get(name)) and not isinstance(parsed, list | dict)
        value = value if text else parsed
    content[section] = {**content.get(section, {}), name: value}


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_toml(item)}" for key, item in value.items() if item is not None) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    """A key as TOML writes it: bare where it may be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
