"""Recipes: whole experiments as TOML, read strictly and written back."""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from glassformer.errors import InputError, did_you_mean
from glassformer.models.config import Config
from glassformer.models.sizes import sizes
from glassformer.settings import from_mapping, to_mapping
from glassformer.training.schedules import Schedule


def _at_least(least: int, name: str, value: float) -> None:
    if value < least:
        raise InputError(f"'{name}' must be at least {least}, got {value}.")


@dataclass(frozen=True)
class Data:
    """[data]: where the pairs are.

    `train`, `valid` and `test` are prefixes (`P` with `source = "en"`, `target = "de"` reads `P.en` and `P.de`, aligned
    by line), or TSV / JSON Lines files with `fields` naming their two columns; relative to the data root.
    `kind = "dates"` is the corpus that comes with the package and needs no files.
    """

    kind: Literal["pairs", "dates"] = "pairs"
    train: str = ""
    valid: str = ""
    test: str = ""
    source: str = ""
    target: str = ""
    fields: list[str] | list[int] | None = None


@dataclass(frozen=True)
class Text:
    """[text]: from text to ids. `lowercase` and `moses` are the pipeline stored with the model."""

    tokenizer: Literal["bpe", "word", "character"] = "bpe"
    vocab_size: int = 8000
    min_frequency: int = 2
    lowercase: bool = False
    moses: bool = False


@dataclass(frozen=True)
class Training:
    """[training]: the loop.

    A step takes `accumulate` batches of at most `batch_tokens` tokens each (rows × longest sentence, padding
    included). `learning_rate` is the peak, reached after `warmup` steps. `evaluate_every`, `checkpoint_every` and
    `log_every` count steps; `checkpoint_every` 0 means as `evaluate_every`. `patience` ends the training after that
    many evaluations without a better one, 0 never; `minutes` ends it after that time, 0 never. `keep` checkpoints
    stay (at least those that are averaged), and the best one. `samples` translations are shown at each evaluation.
    `precision`, `compile` and `device` "auto" follow the rules in `training/precision.py`. A resumed run is equal to
    the bit on a CPU without `compile`: compiled kernels may depend on the first batch that a process saw.
    """

    steps: int = 8000
    batch_tokens: int = 4096
    accumulate: int = 1
    optimizer: Literal["adam", "adamw", "muon"] = "adam"
    learning_rate: float = 1e-3
    warmup: int = 2000
    schedule: Schedule = "inverse-sqrt"
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-9
    weight_decay: float = 0.0
    clip: float = 0.0
    label_smoothing: float = 0.1
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Literal["auto"] | bool = "auto"
    device: str = "auto"
    seed: int = 42
    patience: int = 0
    minutes: float = 0.0
    evaluate_every: int = 500
    checkpoint_every: int = 0
    keep: int = 5
    log_every: int = 50
    samples: int = 3

    def __post_init__(self) -> None:
        for name in ("steps", "batch_tokens", "accumulate", "evaluate_every", "keep", "log_every"):
            _at_least(1, name, getattr(self, name))
        for name in ("warmup", "weight_decay", "clip", "patience", "minutes", "checkpoint_every", "samples", "seed"):
            _at_least(0, name, getattr(self, name))
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"'label_smoothing' must be in [0, 1), got {self.label_smoothing}.")
        if self.learning_rate <= 0 or self.eps <= 0 or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError("'learning_rate' and 'eps' must be above 0 and 'betas' in [0, 1).")

    @property
    def save_every(self) -> int:
        """Steps from one regular checkpoint to the next."""
        return self.checkpoint_every or self.evaluate_every


@dataclass(frozen=True)
class Evaluation:
    """[evaluation]: how the model is judged, during training by `metric` and greedily, afterwards with `beam`.

    `tokenized` says that the data files hold tokens already, as the pipeline of [text] makes them: training reads them
    as they are, and the tokens themselves are scored (sacreBLEU `tok:none`). `average` is how many of the last
    checkpoints the finished model is the mean of; 1 takes the best checkpoint by `metric`.
    """

    metric: Literal["loss", "bleu", "exact_match"] = "loss"
    beam: int = 5
    length_penalty: float = 1.0
    tokenized: bool = False
    batch_tokens: int = 8192
    average: int = 1

    def __post_init__(self) -> None:
        for name in ("beam", "batch_tokens", "average"):
            _at_least(1, name, getattr(self, name))


@dataclass(frozen=True)
class Recipe:
    """A whole experiment. `model` is a size's name under "size" with any field of `Config` beside it."""

    name: str = "translation"
    data: Data = Data()
    text: Text = Text()
    model: dict[str, Any] = field(default_factory=dict)
    training: Training = Training()
    evaluation: Evaluation = Evaluation()

    def __post_init__(self) -> None:
        self.network_config(vocab_size=100)

    def network_config(self, vocab_size: int) -> Config:
        """The network's `Config` for a vocabulary. `InputError` for an unknown size or field in `model`."""
        fields = dict(self.model)
        size = fields.pop("size", "transformer-base")
        if size not in sizes:
            raise InputError(
                f"[model]: 'size' must be one of {', '.join(sorted(sizes))}, got {size!r}."
                f"{did_you_mean(str(size), sizes)}"
            )
        derived = {"vocab_size", "source_vocab_size", "pad_id", "bos_id", "eos_id"} & set(fields)
        if derived:
            raise InputError(
                f"[model]: '{min(derived)}' comes from the tokenizer; set 'text.vocab_size' to change the vocabulary."
            )
        _known(fields, Config, "[model]")
        return from_mapping(Config, {**to_mapping(sizes[size]), **fields, "vocab_size": vocab_size}, "[model]")


SECTIONS: dict[str, type] = {"data": Data, "text": Text, "training": Training, "evaluation": Evaluation}


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
    return {"name": recipe.name, **sections, "model": dict(recipe.model)}


def recipe_toml(recipe: Recipe) -> str:
    """A recipe as TOML text that `read_recipe` reads back to an equal one."""
    lines = [f"name = {_toml(recipe.name)}"]
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
    if not name and key == "name":
        content["name"] = value
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
        value = _parse(value)
    content[section] = {**content.get(section, {}), name: value}


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items() if item is not None) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
