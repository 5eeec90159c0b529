"""The mean of several checkpoints' weights (Vaswani et al. 2017, section 6.1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glassformer.checkpoints.adapters import trained_names
from glassformer.checkpoints.native import Loaded, read_weights, save
from glassformer.checkpoints.opening import open_model
from glassformer.checkpoints.tensors import fill_network
from glassformer.errors import InputError
from glassformer.settings import to_mapping
from glassformer.training.recipes import ADJUSTABLE
from glassformer.training.runs import Run


def mean_tensors(folders: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of the checkpoints' tensors, summed in fp64, in fp32; what does not vary (integers) is the last's."""
    total: dict[str, Tensor] = {}
    for folder in folders:
        for name, tensor in read_weights(folder).items():
            if not tensor.is_floating_point():
                total[name] = tensor
            elif name in total:
                total[name] += tensor
            else:
                total[name] = tensor.double()
    return {name: (t / len(folders)).float() if t.dtype == torch.float64 else t for name, t in total.items()}


def average(run: str | Path | Sequence[str | Path], last: int = 5, into: str | Path | None = None) -> Path:
    """Write the mean of a run's last `last` regular checkpoints to `into` (`RUN/average-K`) and return that folder.

    Of several runs the last ones of each make one mean, a model soup (Wortsman et al. 2022). That is of use where all
    began from one trained model: weights that were drawn apart have no meaning in common. The folder is then
    `FIRST/average-K-of-N`, the recipe and all else but the weights those of the first run.

    `InputError` where a run has fewer checkpoints than that, where the folder exists and is not empty, and for runs of
    unlike networks or vocabularies.
    """
    runs = [run] if isinstance(run, str | Path) else list(run)
    if not runs:
        raise InputError("there is nothing to average: name at least one run.")
    name = f"average-{last}" if len(runs) == 1 else f"average-{last}-of-{len(runs)}"
    folder = Path(into) if into is not None else Path(runs[0]) / name
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not overwritten; choose another folder ('into', --out).")
    found = [_newest(one, last) for one in runs]
    models = [open_model(checkpoints[-1], merge=False) for checkpoints in found]
    first = models[0]
    for one, other in zip(runs[1:], models[1:], strict=True):
        if _shape(other) != _shape(first) or other.tokenizer != first.tokenizer or other.adapter != first.adapter:
            raise InputError(f"{one} has another network or vocabulary than {runs[0]}: their mean would mean nothing.")
    tensors = mean_tensors([folder for checkpoints in found for folder in checkpoints])
    fill_network(first.network, tensors, ", ".join(map(str, runs)), only=trained_names(first.network))
    extra = {**first.extra, "averaged_steps": [int(one.name.rpartition("-")[2]) for one in found[0]]}
    if len(runs) > 1:
        extra["averaged_runs"] = [Path(one).name for one in runs]
    return save(folder, first.network, first.tokenizer, first.pipeline, first.task, extra=extra, adapter=first.adapter)


def _newest(run: str | Path, last: int) -> list[Path]:
    """A run's last regular checkpoints, in their order."""
    found = Run.open(run).regular_checkpoints()
    if last < 1 or len(found) < last:
        there = ", ".join(map(str, found)) or "none"
        raise InputError(
            f"{run} has {len(found)} checkpoints to average ({there}), asked for {last}. "
            "Ask for fewer, or train with a larger 'training.keep'."
        )
    return list(found.values())[-last:]


def _shape(model: Loaded) -> dict[str, Any]:
    """What must be alike: the config, but for what a training may choose for itself."""
    return {name: value for name, value in to_mapping(model.config).items() if name not in ADJUSTABLE}
