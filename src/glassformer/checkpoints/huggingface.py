"""Folders as Hugging Face's `transformers` and `sentence-transformers` keep models: read, and written for others.

`config.json` names the architecture, whose map (`maps/`) says what its settings and its tensors are of ours. Weights
are read from safetensors files alone, one tensor at a time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from glassformer.checkpoints import sentences
from glassformer.checkpoints.families import family_of
from glassformer.checkpoints.files import read_json, sync_folder, write_json
from glassformer.checkpoints.maps import MAPS
from glassformer.checkpoints.maps.apply import build, called, rules_for, to_theirs
from glassformer.checkpoints.maps.rules import Map
from glassformer.checkpoints.native import Loaded, refuse_quantized
from glassformer.checkpoints.tensors import LazyTensor, open_tensors, write_tensors
from glassformer.errors import InputError, did_you_mean
from glassformer.layers.int8 import Int8Linear
from glassformer.models.config import Classification, Config, Sentence, Spans, Tagging
from glassformer.settings import from_mapping, to_mapping
from glassformer.text.chat import read_chat_template
from glassformer.text.pipeline import TextPipeline
from glassformer.text.pretrained import read_tokenizer, tokenizer_files
from glassformer.text.tokenizer import Tokenizer

CONFIG = "config.json"
GENERATION = "generation_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TEXT = "text_pipeline"
"""A key of our own in config.json, for a text pipeline that theirs do not have; other readers pass over it."""

_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
_CODE = ("pytorch_model*.bin*", "*.pt", "*.pth", "*.ckpt*")
_OTHER = ("tf_model*.h5", "flax_model*.msgpack", "consolidated*.safetensors")


def read_folder(folder: str | Path) -> Loaded:
    """The model in a folder of `transformers` or `sentence-transformers`, its weights as fp32, on the CPU.

    Where the model stops at more tokens than one, `extra["eos_ids"]` lists them. Raises `InputError` for an unknown
    architecture, a setting that our parts do not have, tensors that do not fit, files that are missing or damaged, and
    for weights in a format that can run code.
    """
    folder = Path(folder)
    settings, eos_ids = _settings(folder)
    network = _read_network(folder, settings)
    config: Config = network.config  # type: ignore[assignment]
    tokenizer = read_tokenizer(folder, vocab_size=config.vocab_size)
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"{folder}: the tokenizer must fit the network: it has {tokenizer.vocab_size} tokens, the network "
            f"{config.vocab_size}. Both must come from the same model."
        )
    extra = {"eos_ids": eos_ids} if len(eos_ids) > 1 else {}
    return Loaded(network, tokenizer, _pipeline(folder, settings), task_of(config), config, extra)


def read_network(folder: str | Path) -> nn.Module:
    """The network alone of `read_folder`, from a folder that may have no tokenizer."""
    folder = Path(folder)
    return _read_network(folder, _settings(folder)[0])


def _read_network(folder: Path, settings: Mapping[str, Any]) -> nn.Module:
    where = str(folder / CONFIG)
    architecture = _map_of(settings.get("model_type"), where)
    try:
        if settings.get("quantization_config") is not None:
            raise InputError("'quantization_config' must be left out: quantised weights are read from GGUF files only.")
        config = architecture.read_config(settings)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    stored = open_weights(folder)
    if architecture.fit is not None:
        config = architecture.fit(config, set(stored))
    if isinstance(config.head, Sentence):
        config = sentences.read(folder, config)
    rules = rules_for(architecture.rules, config, stored, str(folder))
    tensors = called(stored, rules, architecture.prefix, architecture.ignored, architecture.renamed)
    return build(architecture.family, config, rules, tensors, str(folder))


def task_of(config: Config) -> str:
    """What a network of that config is for."""
    if config.n_decoder_layers:
        return "text-to-text" if config.n_encoder_layers else "generation"
    names = {Classification: "classification", Tagging: "tagging", Spans: "spans", Sentence: "embedding"}
    return names.get(type(config.head), "fill")


def _map_of(model_type: Any, where: str) -> Map:
    if not isinstance(model_type, str) or model_type not in MAPS:
        raise InputError(
            f"{where}: 'model_type' must be one of {', '.join(sorted(MAPS))}, got {model_type!r}."
            f"{did_you_mean(str(model_type), MAPS)} No other architecture is known."
        )
    return MAPS[model_type]


def _settings(folder: Path) -> tuple[dict[str, Any], list[int]]:
    """config.json, with the special ids of generation_config.json where that has them, and all ids that end a text."""
    settings = read_json(folder / CONFIG)
    generation = read_json(folder / GENERATION) if (folder / GENERATION).is_file() else {}
    for key in _IDS:
        if generation.get(key) is not None:
            settings[key] = generation[key]
    eos = settings.get("eos_token_id")
    eos_ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
    for key in _IDS:
        if isinstance(settings.get(key), list):
            settings[key] = settings[key][0] if settings[key] else None
    return settings, eos_ids


def _pipeline(folder: Path, settings: Mapping[str, Any]) -> TextPipeline:
    template = read_chat_template(folder)
    chat_template = "" if template is None else template.source
    if TEXT in settings:
        where = f"{folder / CONFIG}: '{TEXT}'"
        if not isinstance(settings[TEXT], dict):
            raise InputError(f"{where} must be an object, got {settings[TEXT]!r}.")
        return from_mapping(TextPipeline, settings[TEXT] | {"chat_template": chat_template}, where)
    return TextPipeline(unicode="none", lowercase=sentences.lowercase(folder), chat_template=chat_template)


def open_weights(folder: Path) -> dict[str, LazyTensor]:
    """The stored tensors of a folder by name, from one safetensors file or from the shards that an index lists."""
    if (folder / WEIGHTS).is_file():
        return open_tensors(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        return _open_shards(folder)
    for patterns, what in ((_CODE, "a format that can run code when it is read"), (_OTHER, "which is not read here")):
        other = sorted(path.name for pattern in patterns for path in folder.glob(pattern))
        if other:
            raise InputError(
                f"{folder} has its weights as {other[0]} only, {what}. They must be {WEIGHTS}: take the model's own, "
                "or, where you trust its source, convert it once with the package transformers: "
                "AutoModel.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)."
            )
    raise InputError(f"{folder} has no weights: there is neither {WEIGHTS} nor {INDEX} in it. Copy the model again.")


def _open_shards(folder: Path) -> dict[str, LazyTensor]:
    path = folder / INDEX
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(shard, str) for shard in places.values()):
        raise InputError(f"{path}: 'weight_map' must give each tensor's file by its name. Use another copy.")
    shards = {}
    for shard in sorted(set(places.values())):
        if Path(shard).name != shard or "\\" in shard or not shard.endswith(".safetensors"):
            raise InputError(f"{path}: a shard must be a .safetensors file in the same folder, got {shard!r}.")
        if not (folder / shard).is_file():
            raise InputError(f"{folder / shard}: the file is missing, but {INDEX} names it. Copy the model again.")
        shards[shard] = open_tensors(folder / shard)
    for name, shard in places.items():
        if name not in shards[shard]:
            raise InputError(f"{folder / shard} must hold '{name}' by {INDEX}, but does not. Copy the model again.")
    return {name: shards[shard][name] for name, shard in places.items()}


def write_folder(
    folder: str | Path,
    network: nn.Module,
    tokenizer: Tokenizer,
    pipeline: TextPipeline,
    dtype: torch.dtype | None = None,
    *,
    eos_ids: Sequence[int] = (),
) -> Path:
    """Write a model as a folder that `transformers` (and, with a sentence head, `sentence-transformers`) loads.

    `dtype` stores the weights as that type. `eos_ids` lists the tokens that end a text where there are several. The
    folder must be new or empty; it appears under its name when it is whole.

    Raises `InputError` where no known architecture holds such a network, naming the choice that is in the way, and
    `OSError` where the disk does not take it.
    """
    folder = Path(folder)
    refuse_quantized(network)
    architecture, settings = _architecture_for(network)
    config: Config = network.config  # type: ignore[assignment]
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(f"the tokenizer has {tokenizer.vocab_size} tokens, the network only {config.vocab_size}.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} must be new or an empty folder: choose another, or remove what is there.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(folder.name + ".partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        name = str(dtype or next(network.parameters()).dtype).removeprefix("torch.")
        settings = {"model_type": architecture.model_type, **settings, "torch_dtype": name}
        _write_settings(temporary, settings, pipeline, eos_ids)
        template = pipeline.chat_template or None
        tokenizer_files(tokenizer, temporary, chat_template=template, model_max_length=_reads(config))
        if isinstance(config.head, Sentence):
            sentences.write(temporary, config, pipeline)
        write_tensors(
            temporary / WEIGHTS, to_theirs(network, architecture.rules(config), dtype), metadata={"format": "pt"}
        )
        _settle(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


def _architecture_for(network: nn.Module) -> tuple[Map, dict[str, Any]]:
    """The first map that holds the network, and config.json as it writes it."""
    family = family_of(network)
    if any(isinstance(module, Int8Linear) for module in network.modules()):
        raise InputError("an int8 model is for running only; load it without a precision to save it.")
    if isinstance(network.config, Config) and network.config.banded_layers:
        raise InputError(
            "stock GPT-2 cannot express locally banded attention, nor can any other architecture of Hugging Face that "
            f"is known here: the network has {network.config.banded_layers} banded layers. Use --format native, or "
            'train with model.attention = "dense".'
        )
    reasons = []
    for architecture in MAPS.values():
        if architecture.family == family:
            try:
                settings = architecture.write_config(network.config)  # type: ignore[arg-type]
            except InputError as error:
                reasons.append(f"for {architecture.model_type}, {error}")
            else:
                return architecture, {key: value for key, value in settings.items() if value is not None}
    why = " ".join(reasons) or f"none of them is {family}. Use --format native."
    raise InputError(f"no known architecture of Hugging Face holds this network: {why}")


def _write_settings(folder: Path, settings: dict[str, Any], pipeline: TextPipeline, eos_ids: Sequence[int]) -> None:
    text = {key: value for key, value in to_mapping(pipeline).items() if key != "chat_template"}
    if pipeline != TextPipeline(unicode="none", chat_template=pipeline.chat_template):
        settings = {**settings, TEXT: text}
    write_json(folder / CONFIG, settings)
    ids = {key: settings[key] for key in _IDS if key in settings}
    if len(eos_ids) > 1:
        ids["eos_token_id"] = list(eos_ids)
    if "eos_token_id" in ids:
        write_json(folder / GENERATION, ids)


def _reads(config: Config) -> int:
    head = config.head
    return head.max_length or config.max_length if isinstance(head, Sentence) else config.max_length


def _settle(temporary: Path, folder: Path) -> None:
    """Force all files of `temporary` to the disk, then give it its name in one step."""
    for place, _, names in os.walk(temporary, topdown=False):
        for name in names:
            with open(Path(place) / name, "rb+") as file:
                os.fsync(file.fileno())
        sync_folder(Path(place))
    if folder.is_dir():
        folder.rmdir()  # empty; not every system renames over a folder
    os.replace(temporary, folder)
    sync_folder(folder.parent)
