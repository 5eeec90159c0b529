"""The native checkpoint: a folder with `glassformer.json`, `model.safetensors` and `tokenizer.json`.

`glassformer.json` names the format, the family and its config, the task, the text pipeline and the SHA-256 of the other
files. Saving over an older checkpoint is safe at any moment: the new files are written beside the old ones as
`NAME.new`, then `glassformer.json` is replaced in one step, then the new files take their names; whoever reads looks
for each file under both names and takes the one whose SHA-256 is written down.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import glassformer
from glassformer.checkpoints.adapters import Adapter, adapter_tensors, assemble
from glassformer.checkpoints.families import family, family_of
from glassformer.checkpoints.files import (
    checksum,
    read_json,
    sha256,
    sync_folder,
    verify_checksum,
    write_json,
)
from glassformer.checkpoints.shards import FOLDER as SHARDS
from glassformer.checkpoints.shards import open_shards
from glassformer.checkpoints.tensors import (
    Stored,
    fill_network,
    network_tensors,
    read_tensors,
    write_tensors,
)
from glassformer.errors import InputError, did_you_mean
from glassformer.layers.int8 import Int8Linear
from glassformer.layers.low_rank import merge_low_rank
from glassformer.layers.quantized import BLOCK_BYTES, GROUP, QuantizedLinear, dequantize, quantized
from glassformer.settings import from_mapping, to_mapping
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

FORMAT = 5
"""The newest that is read. Written is what a checkpoint needs: 5 for special tokens of unusual names, 4 for shards, 3
for adapters, 2 for quantised weights, else 1."""
INDEX = "glassformer.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Loaded:
    """What a checkpoint folder held. `network` is in evaluation mode, its weights as fp32. `adapter` is what an adapter
    says of itself, where its low-rank layers were left beside their dense ones."""

    network: nn.Module
    tokenizer: Tokenizer
    pipeline: TextPipeline
    task: str
    config: Any
    extra: dict[str, Any] = field(default_factory=dict)
    adapter: Adapter | None = None


Opener = Callable[[str], Loaded]
"""Gives the model that a base's name means."""


@dataclass(frozen=True)
class _Index:
    """`glassformer.json`, key by key."""

    format: int
    family: str
    config: dict[str, Any]
    task: str
    text: dict[str, Any]
    files: dict[str, str]
    glassformer: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    checksum: str = ""
    precision: str = ""
    adapter: Adapter | None = None
    specials: dict[str, str] = field(default_factory=dict)


def save(
    folder: str | Path,
    network: nn.Module,
    tokenizer: Tokenizer,
    pipeline: TextPipeline,
    task: str,
    *,
    extra: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    blocks: Mapping[str, Tensor | Stored] | None = None,
    precision: str = "",
    adapter: Adapter | None = None,
    shards: Mapping[str, str] | None = None,
) -> Path:
    """Write a network with its text side to `folder`, which is made where needed.

    `dtype` stores the floating-point weights as that type (`torch.float16` halves the file). `blocks` are stored in
    place of the weights that they are named after, and `precision` says what they are; see `checkpoints.quantized`.
    `shards` are files of weights that are in the folder already, with their SHA-256: then no weights are written.
    With `adapter` only what was trained is written (`adapter_tensors`); all else, the tokenizer too, is that of the
    base, which is needed to load them. A checkpoint already in the folder stays whole until the new one is. `extra` is
    kept as it is, for people: plain JSON values.

    Raises `InputError` for a family that checkpoints do not know and for a quantised copy of a network, `OSError` where
    the disk does not take it.
    """
    folder = Path(folder)
    kind = family_of(network)
    refuse_quantized(network)
    config = to_mapping(network.config)
    if config.get("attention") == "dense":  # as it was written before there was another
        del config["attention"]
    kept = network_tensors(network) if adapter is None else adapter_tensors(network)
    if dtype is not None:
        kept = {name: t.to(dtype) if t.is_floating_point() else t for name, t in kept.items()}
    tensors: dict[str, Tensor | Stored] = {**kept, **(blocks or {})}
    folder.mkdir(parents=True, exist_ok=True)
    _settle(folder)
    try:
        files = dict(shards) if shards else {WEIGHTS: write_tensors(_new(folder, WEIGHTS), tensors)}
        if adapter is None:
            files[TOKENIZER] = _write_tokenizer(folder, tokenizer)
        specials = tokenizer.unusual_roles if adapter is None else {}
        content = {
            "format": 5 if specials else 4 if shards else 3 if adapter else 2 if precision else 1,
            "family": kind,
            "config": config,
            "task": task,
            "text": _without_defaults(pipeline),
            "glassformer": package_version(),
            "files": files,
            "extra": extra or {},
            **({"precision": precision} if precision else {}),
            **({"adapter": to_mapping(adapter)} if adapter else {}),
            **({"specials": specials} if specials else {}),
        }
        write_json(folder / INDEX, {**content, "checksum": checksum(content)})
    finally:
        _settle(folder)
    return folder


def refuse_quantized(network: nn.Module) -> None:
    """`InputError` for a network that has lost the numbers that a checkpoint would need."""
    if any(isinstance(module, Int8Linear | QuantizedLinear) for module in network.modules()):
        raise InputError(
            "a quantised model is for running only; load it without a precision to save it, or see quantize --help."
        )


def _without_defaults(pipeline: TextPipeline) -> dict[str, Any]:
    """The pipeline as it has always been written; what came later, where it says something."""
    content = to_mapping(pipeline)
    return {name: value for name, value in content.items() if value or name != "prompt"}


def load(folder: str | Path, *, stored: bool = False, base: Opener | None = None, merge: bool = True) -> Loaded:
    """Read the checkpoint in `folder`, onto the CPU. With `stored`, quantised weights stay so, for running only.

    An adapter needs `base`, which gives the model of its base's name; its low-rank layers are merged into their dense
    ones, unless it is to be trained further and `merge` is off.

    Raises `InputError` for a folder or file that is missing, a file cut short or changed by a byte, a key this version
    does not know, a newer format, tensors that do not fit the config, or a vocabulary that does not fit the network.
    """
    folder = Path(folder)
    index = read_index(folder)
    where = str(folder / INDEX)
    kind = family(index.family, where)
    config = from_mapping(kind.config, index.config, f"{where} [config]")
    pipeline = from_mapping(TextPipeline, index.text, f"{where} [text]")
    weights = _weights(folder, index)
    held = None if index.adapter is None else _base(index.adapter, folder, base)
    if held is None:
        tokenizer = Tokenizer.load(_verified(folder, TOKENIZER, index), specials=index.specials)
    else:
        tokenizer = held.tokenizer
    if tokenizer.vocab_size > config.vocab_size:  # embeddings may have rows to spare
        raise InputError(
            f"{folder}: the vocabulary does not fit the network: {TOKENIZER} has {tokenizer.vocab_size} tokens, "
            f"the config's 'vocab_size' is {config.vocab_size}. Both must come from the same training."
        )
    tensors = _read(weights)
    blocks = {name: t for name, t in tensors.items() if t.dtype == torch.uint8} if index.precision else {}
    tensors |= {name: _numbers(t, f"{weights[0]}: '{name}'", skip=stored) for name, t in blocks.items()}
    with torch.random.fork_rng(devices=[]):  # building draws initial weights; loading must not move the user's seed
        network = kind.network(config)
        if held is not None and index.adapter is not None:
            assemble(network, index.adapter, tensors, held.network, str(folder))
    if held is None:
        fill_network(network, tensors, str(weights[0]))
    elif merge:
        merge_low_rank(network)
        network.requires_grad_(True)
    if stored and blocks:
        network = quantized(network, None, blocks)
    adapter = None if merge else index.adapter
    return Loaded(network.eval(), tokenizer, pipeline, index.task, config, index.extra, adapter)


def _base(adapter: Adapter, folder: Path, opener: Opener | None) -> Loaded:
    if opener is None:
        raise InputError(f"{folder} is an adapter: it is loaded together with '{adapter.base}', by glassformer.load.")
    try:
        return opener(adapter.base)
    except InputError as error:
        raise InputError(f"{folder} adapts the model '{adapter.base}', which cannot be opened: {error}") from None


def _numbers(blocks: Tensor, where: str, skip: bool) -> Tensor:
    """The weight that blocks stand for; with `skip` one of that shape that takes no memory, as nobody will read it."""
    if blocks.ndim != 3 or blocks.shape[2] not in BLOCK_BYTES.values():
        raise InputError(f"{where} must hold blocks of 4 or 8 bits, got the shape {list(blocks.shape)}.")
    return torch.zeros(()).expand(len(blocks), blocks.shape[1] * GROUP) if skip else dequantize(blocks)


def read_weights(folder: str | Path) -> dict[str, Tensor]:
    """The tensors of the checkpoint in `folder` without its network; the errors of `load` for damaged files."""
    folder = Path(folder)
    return _read(_weights(folder, read_index(folder)))


def open_weights(folder: str | Path, *, verify: bool = True) -> dict[str, Stored]:
    """`read_weights`, each tensor read when it is asked for; without `verify`, files may have changed."""
    folder = Path(folder)
    if verify:
        return open_shards(_weights(folder, read_index(folder)))
    return open_shards([*weight_files(folder)])


def weight_files(folder: Path) -> dict[Path, str]:
    """The files that hold a checkpoint's weights, one or several of shards, with what their SHA-256 must be."""
    files = read_index(folder).files
    return {folder / name: files[name] for name in sorted(files) if name == WEIGHTS or name.startswith(f"{SHARDS}/")}


def _weights(folder: Path, index: _Index) -> list[Path]:
    """The files that hold a checkpoint's weights, verified."""
    shards = sorted(name for name in index.files if name.startswith(f"{SHARDS}/"))
    return [_verified(folder, name, index) for name in shards or [WEIGHTS]]


def _read(files: list[Path]) -> dict[str, Tensor]:
    return read_tensors(files[0]) if len(files) == 1 else {name: t.dense() for name, t in open_shards(files).items()}


def read_index(folder: Path) -> _Index:
    """`glassformer.json` of a folder, checked but for its config; the same errors as `load`."""
    path = folder / INDEX
    if not path.is_file():
        raise InputError(f"{folder} holds no checkpoint: there is no {INDEX} in it.")
    content = read_json(path)
    if isinstance(content.get("format"), int) and content["format"] > FORMAT:
        raise InputError(
            f"{path} has format {content['format']}; this version ({package_version()}) reads up to {FORMAT}. "
            "Upgrade glassformer."
        )
    verify_checksum(content, path)
    index = from_mapping(_Index, content, str(path))
    if index.format < 1:
        raise InputError(f"{path}: 'format' must be 1 or more, got {index.format}.")
    return index


def _verified(folder: Path, name: str, index: _Index) -> Path:
    if name not in index.files:
        raise InputError(f"{folder / INDEX}: 'files' must name {name}.")
    candidates = [path for path in (folder / name, _new(folder, name)) if path.is_file()]
    if not candidates:
        raise InputError(f"{folder / name}: the file is missing, but {INDEX} names it. Use another copy.")
    for path in candidates:
        if sha256(path) == index.files[name]:
            return path
    raise InputError(
        f"{folder / name} is cut short or changed: its SHA-256 is not the one in {INDEX}. Use another copy."
    )


def _new(folder: Path, name: str) -> Path:
    return folder / f"{name}.new"


def _write_tokenizer(folder: Path, tokenizer: Tokenizer) -> str:
    path = _new(folder, TOKENIZER)
    tokenizer.save(path)
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    return sha256(path)


def _settle(folder: Path) -> None:
    """Finish a save that was killed between its steps: a committed file takes its name, the rest is dropped."""
    pending = [name for name in (WEIGHTS, TOKENIZER) if _new(folder, name).is_file()]
    if not pending:
        return
    try:
        index = read_index(folder)
    except InputError:  # no index yet, or a damaged one: nothing pending can belong to it
        index = None
    for name in pending:
        if index is not None and index.files.get(name) == sha256(_new(folder, name)):
            os.replace(_new(folder, name), folder / name)
        else:
            _new(folder, name).unlink()
    sync_folder(folder)


def weights_folder() -> Path:
    """Where the models that come with the package lie."""
    return Path(__file__).resolve().parent.parent / "weights"


def shipped() -> list[str]:
    """Names of the models that come with the package."""
    folder = weights_folder()
    return sorted(path.parent.name for path in folder.glob(f"*/{INDEX}")) if folder.is_dir() else []


def find(name: str | Path) -> Path:
    """The folder of a model: a path to a checkpoint or a run, or the name of a model that comes with the package.

    A run folder is found at any time: the finished model, else its newest whole checkpoint.
    """
    folder = Path(name)
    if (folder / INDEX).is_file():
        return folder
    if (folder / "checkpoints").is_dir():
        return _newest(folder)
    if str(name) in shipped():
        return weights_folder() / str(name)
    if folder.is_dir():
        raise InputError(f"{folder} holds no checkpoint: there is neither {INDEX} nor checkpoints/ in it.")
    known = ", ".join(shipped()) or "none"
    raise InputError(
        f"No model '{name}': neither a folder nor a model of the package (known: {known})."
        f"{did_you_mean(str(name), shipped())}"
    )


def _newest(run: Path) -> Path:
    steps = {int(p.name[5:]): p for p in (run / "checkpoints").glob("step-*") if p.name[5:].isdigit()}
    whole = [step for step, path in steps.items() if (path / INDEX).is_file()]
    if not whole:
        raise InputError(f"{run} has no checkpoint yet: its training has not reached the first one.")
    return steps[max(whole)]


def package_version() -> str:
    """This package's version, "0" where it runs without being installed."""
    return str(glassformer.__version__)
