"""The files that `sentence-transformers` keeps beside an encoder: how its states become one vector for the text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from glassformer.checkpoints.files import read_json, write_json
from glassformer.checkpoints.maps.rules import setting
from glassformer.errors import InputError
from glassformer.models.config import Config, Sentence
from glassformer.text.pipeline import TextPipeline

_MODULES = "modules.json"
_READER = "sentence_bert_config.json"
_POOLINGS: dict[str, Literal["mean", "cls"]] = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


def read(folder: Path, config: Config) -> Config:
    """`config` with the sentence head that the folder describes; as it is where the folder describes none.

    Raises `InputError` for a module other than Transformer, Pooling (of mean or first token) and Normalize.
    """
    path = folder / _MODULES
    if not path.is_file():
        return config
    modules = _modules(path)
    kinds = [kind for kind, _ in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise InputError(f"{path} must list Transformer, Pooling and perhaps Normalize, got {', '.join(kinds)}.")
    place = modules[1][1]
    if Path(place).name != place or "\\" in place:
        raise InputError(f"{path}: a module must lie in a folder beside it, got {place!r}.")
    longest = _reader(folder).get("max_seq_length")
    if longest is not None:
        longest = setting({"max_seq_length": longest}, "max_seq_length", int)
        if longest < 1:
            raise InputError(f"{folder / _READER}: 'max_seq_length' must be at least 1, got {longest}.")
    short = longest is not None and longest < config.max_length
    pooling = _pooling(folder / place / "config.json")
    return replace(config, head=Sentence(pooling, len(kinds) == 3, longest if short else None))


def lowercase(folder: Path) -> bool:
    """Whether the folder says that text is lowercased before the tokenizer sees it."""
    return _reader(folder).get("do_lower_case") is True and (folder / _MODULES).is_file()


def _reader(folder: Path) -> dict[str, Any]:
    return read_json(folder / _READER) if (folder / _READER).is_file() else {}


def _modules(path: Path) -> list[tuple[str, str]]:
    """The last word of each module's type, and its folder."""
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
        return [(str(module["type"]).rsplit(".", 1)[-1], str(module["path"])) for module in modules]
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{path} must be a list of modules, each with a 'type' and a 'path'. Use another copy."
        ) from None


def _pooling(path: Path) -> Literal["mean", "cls"]:
    settings = read_json(path)
    named = settings.get("pooling_mode")
    if named in ("mean", "cls"):
        return named
    chosen = [key for key, value in settings.items() if key.startswith("pooling_mode") and value not in (False, None)]
    if len(chosen) != 1 or chosen[0] not in _POOLINGS:
        raise InputError(
            f"{path}: the pooling must be one of {', '.join(_POOLINGS)}, got {', '.join(chosen) or 'none'}."
        )
    return _POOLINGS[chosen[0]]


def write(folder: Path, config: Config, pipeline: TextPipeline) -> None:
    """What `read` reads, for the sentence head of `config`."""
    head = config.head
    assert isinstance(head, Sentence)
    kinds = {"Transformer": "", "Pooling": "1_Pooling"} | ({"Normalize": "2_Normalize"} if head.normalize else {})
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(kinds.items())
    ]
    write_json(folder / _MODULES, modules)
    (folder / "1_Pooling").mkdir()
    poolings = {key: pooling == head.pooling for key, pooling in _POOLINGS.items()}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": config.d_model, **poolings})
    write_json(
        folder / _READER,
        {"max_seq_length": head.max_length or config.max_length, "do_lower_case": pipeline.lowercase},
    )
