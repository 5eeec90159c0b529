"""The mean of several checkpoints' weights (Vaswani et al. 2017, section 6.1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from glassformer.checkpoints.adapters import trained_names
from glassformer.checkpoints.native import read_weights, save
from glassformer.checkpoints.opening import open_model
from glassformer.checkpoints.tensors import fill_network
from glassformer.errors import InputError
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


def average(run: str | Path, last: int = 5, into: str | Path | None = None) -> Path:
    """Write the mean of a run's last `last` regular checkpoints to `into` (`RUN/average-K`) and return that folder.

    `InputError` where the run has fewer checkpoints than that.
    """
    opened = Run.open(run)
    found = opened.regular_checkpoints()
    if last < 1 or len(found) < last:
        there = ", ".join(map(str, found)) or "none"
        raise InputError(
            f"{run} has {len(found)} checkpoints to average ({there}), asked for {last}. "
            "Ask for fewer, or train with a larger 'training.keep'."
        )
    steps = list(found)[-last:]
    newest = open_model(found[steps[-1]], merge=False)
    tensors = mean_tensors([found[step] for step in steps])
    fill_network(newest.network, tensors, str(run), only=trained_names(newest.network))
    folder = Path(into) if into is not None else Path(run) / f"average-{last}"
    extra = {**newest.extra, "averaged_steps": steps}
    return save(
        folder,
        newest.network,
        newest.tokenizer,
        newest.pipeline,
        newest.task,
        extra=extra,
        adapter=newest.adapter,
    )
