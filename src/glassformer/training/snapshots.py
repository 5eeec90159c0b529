"""What a training must remember to go on as if it had never stopped: `training/` inside a checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glassformer.checkpoints.adapters import adapter_tensors, trained_names
from glassformer.checkpoints.files import checksum, read_json, verify_checksum, write_json
from glassformer.checkpoints.native import open_weights, read_weights, weight_files
from glassformer.checkpoints.shards import FOLDER as SHARDS
from glassformer.checkpoints.shards import open_shards
from glassformer.checkpoints.tensors import Stored, fill_network, network_tensors, write_tensors
from glassformer.errors import InputError
from glassformer.layers.low_rank import has_low_rank
from glassformer.settings import from_mapping
from glassformer.training.optimizers import fill_optimizer, prepare_optimizer
from glassformer.training.parallel.checkpoints import read_shards, verify_in_turns
from glassformer.training.parallel.learner import Learner
from glassformer.training.ranks import ALONE, Ranks

STATE, OPTIMIZER, FORMAT = "state.json", "optimizer.safetensors", 2


@dataclass
class Progress:
    """Where a training is. `window` holds the sums since the last metrics line; `cursor` names the next batch."""

    step: int = 0
    cursor: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    seconds: float = 0.0
    window: dict[str, float] = field(default_factory=dict)
    best_step: int | None = None
    best_value: float | None = None
    stale: int = 0
    metrics_bytes: int = 0


@dataclass(frozen=True)
class _State:
    format: int
    progress: dict[str, Any]
    random: list[int]
    optimizer: str
    shards: dict[str, str] = field(default_factory=dict)
    checksum: str = ""


def write_snapshot(
    folder: Path, moments: Mapping[str, Tensor], progress: Progress, shards: Mapping[str, str] | None = None
) -> None:
    """Write `training/` into a checkpoint's folder: `optimizer_tensors`, progress, torch's own random state.

    `shards` are files of moments that are in `training/shards` already, with their SHA-256; then no others are written.
    """
    folder = folder / "training"
    folder.mkdir(exist_ok=True)
    digest = "" if shards else write_tensors(folder / OPTIMIZER, moments)
    content = {
        "format": FORMAT if shards else 1,
        "progress": dataclasses.asdict(progress),
        "random": torch.get_rng_state().tolist(),
        "optimizer": digest,
        **({"shards": dict(shards)} if shards else {}),
    }
    write_json(folder / STATE, {**content, "checksum": checksum(content)})


def read_snapshot(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Bring network, optimizer and torch's random state back to a checkpoint, and say where the training was.

    `InputError` where anything is missing, cut short or changed; removing that checkpoint falls back on the one before.
    """
    with _or_the_one_before(folder):
        state = _read_state(folder)
        verify_in_turns(_moment_files(folder, state), ALONE)
        fill_network(network, read_weights(folder), str(folder), only=trained_names(network))
        moments = {name: tensor.dense() for name, tensor in _open_moments(folder, state).items()}
        fill_optimizer(optimizer, network, moments, str(folder / "training"))
    return _begun_again(folder, state)


def read_divided(folder: Path, learner: Learner, optimizer: torch.optim.Optimizer, ranks: Ranks) -> Progress:
    """`read_snapshot` of what each of several processes has a part of: it reads that part. All must call it."""

    def read() -> None:
        weights = kept_tensors(learner.network)
        read_shards(place, open_weights(folder, verify=False), weights)
        moments = _open_moments(folder, state)
        read_shards(files[-1][0].parent, moments, prepare_optimizer(optimizer, learner, moments, str(folder)))

    with _or_the_one_before(folder):
        state = ranks.together(lambda: _read_state(folder))
        weights = ranks.together(lambda: weight_files(folder))
        files = [*weights.items(), *_moment_files(folder, state)]
        verify_in_turns(files, ranks)
        place = files[0][0].parent
        ranks.together(read)
    return _begun_again(folder, state)


def kept_tensors(network: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint of this network holds: of one with low-rank layers only what is trained."""
    return adapter_tensors(network) if has_low_rank(network) else network_tensors(network)


@contextmanager
def _or_the_one_before(folder: Path) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise type(error)(f"{error} Remove {folder} to resume from the checkpoint before it.") from None


def _moment_files(folder: Path, state: _State) -> list[tuple[Path, str]]:
    """The files of the optimizer's tensors, with what their SHA-256 must be."""
    training = folder / "training"
    if state.shards:
        return [(training / SHARDS / name, digest) for name, digest in state.shards.items()]
    return [(training / OPTIMIZER, state.optimizer)]


def _open_moments(folder: Path, state: _State) -> dict[str, Stored]:
    files = [path for path, _ in _moment_files(folder, state)]
    return open_shards(files)


def _begun_again(folder: Path, state: _State) -> Progress:
    torch.set_rng_state(torch.tensor(state.random, dtype=torch.uint8))
    return from_mapping(Progress, state.progress, f"{folder / 'training' / STATE} [progress]")


def _read_state(folder: Path) -> _State:
    path = folder / "training" / STATE
    content = read_json(path)
    verify_checksum(content, path)
    if isinstance(content.get("format"), int) and content["format"] > FORMAT:
        raise InputError(f"{path} has format {content['format']}; this version reads up to {FORMAT}.")
    return from_mapping(_State, content, str(path))
