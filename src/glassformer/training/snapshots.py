"""What a training must remember to go on as if it had never stopped: `training/` inside a checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glassformer.checkpoints.adapters import trained_names
from glassformer.checkpoints.files import checksum, read_json, sha256, verify_checksum, write_json
from glassformer.checkpoints.native import read_weights
from glassformer.checkpoints.tensors import fill_network, read_tensors, write_tensors
from glassformer.errors import InputError
from glassformer.settings import from_mapping
from glassformer.training.optimizers import fill_optimizer

STATE, OPTIMIZER, FORMAT = "state.json", "optimizer.safetensors", 1


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
    checksum: str = ""


def write_snapshot(folder: Path, moments: Mapping[str, Tensor], progress: Progress) -> None:
    """Write `training/` into a checkpoint's folder: `optimizer_tensors`, progress, torch's own random state."""
    folder = folder / "training"
    folder.mkdir(exist_ok=True)
    digest = write_tensors(folder / OPTIMIZER, moments)
    content = {
        "format": FORMAT,
        "progress": dataclasses.asdict(progress),
        "random": torch.get_rng_state().tolist(),
        "optimizer": digest,
    }
    write_json(folder / STATE, {**content, "checksum": checksum(content)})


def read_snapshot(
    folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, trained: nn.Module | None = None
) -> Progress:
    """Bring network, optimizer and torch's random state back to a checkpoint, and say where the training was.

    `trained` is the network whose parameters the optimizer has, where that is a sharded one beside `network`.

    `InputError` where anything is missing, cut short or changed; removing that checkpoint falls back on the one before.
    """
    try:
        state = _read_state(folder)
        moments = folder / "training" / OPTIMIZER
        if not moments.is_file() or sha256(moments) != state.optimizer:
            raise InputError(f"{moments} is missing, cut short or changed: its SHA-256 is not the one in {STATE}.")
        fill_network(network, read_weights(folder), str(folder), only=trained_names(network))
        fill_optimizer(optimizer, trained or network, read_tensors(moments), str(moments))
    except InputError as error:
        raise InputError(f"{error} Remove {folder} to resume from the checkpoint before it.") from None
    torch.set_rng_state(torch.tensor(state.random, dtype=torch.uint8))
    return from_mapping(Progress, state.progress, f"{folder / 'training' / STATE} [progress]")


def _read_state(folder: Path) -> _State:
    path = folder / "training" / STATE
    content = read_json(path)
    verify_checksum(content, path)
    if isinstance(content.get("format"), int) and content["format"] > FORMAT:
        raise InputError(f"{path} has format {content['format']}; this version reads up to {FORMAT}.")
    return from_mapping(_State, content, str(path))
