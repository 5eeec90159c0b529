"""Metrics sent to TensorBoard or Weights & Biases beside metrics.jsonl."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol

from glassformer.errors import InputError, did_you_mean


class Log(Protocol):
    """Somewhere a metrics line goes."""

    def write(self, line: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class TensorBoard:
    """Scalars for `tensorboard --logdir RUN/tensorboard`."""

    def __init__(self, folder: Path) -> None:
        _package("tensorboard")
        self._writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(folder / "tensorboard"))

    def write(self, line: dict[str, Any]) -> None:
        """Every number of the line under its own name, at its step."""
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()


class WeightsAndBiases:
    """A run on wandb, named as the run folder; resumed under the same id."""

    def __init__(self, folder: Path) -> None:
        name = folder.resolve().name
        self._run = _package("wandb").init(project="glassformer", name=name, id=name, resume="allow", dir=str(folder))

    def write(self, line: dict[str, Any]) -> None:
        """The line as it is, at its step."""
        self._run.log(line, step=line["step"])

    def close(self) -> None:
        """Upload what is still in memory."""
        self._run.finish()


_kinds: dict[str, type[TensorBoard] | type[WeightsAndBiases]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def open_log(kind: str, folder: Path) -> Log:
    """The log called `kind`; `InputError` for another name or a package that is not installed."""
    if kind not in _kinds:
        raise InputError(f"--log must be one of {', '.join(_kinds)}, got {kind!r}.{did_you_mean(kind, _kinds)}")
    return _kinds[kind](folder)


def check_log(kind: str | None) -> None:
    """The errors of `open_log`, before anything is begun."""
    if kind is None:
        return
    if kind not in _kinds:
        raise InputError(f"--log must be one of {', '.join(_kinds)}, got {kind!r}.{did_you_mean(kind, _kinds)}")
    _package(kind)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(
            f"--log {name} needs the package '{name}', which is not installed: pip install 'glassformer[logging]'"
        ) from None
