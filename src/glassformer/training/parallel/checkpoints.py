"""What several processes have trained in parts: written by all of them at once, read again by any number.

`torch.distributed.checkpoint` does both, in safetensors files with a piece of a tensor in each (`checkpoints.shards`):
a process writes what it has, once where several have the same, and reads the slices that it needs, whatever the layout
was when they were written. Its default format is not used: reading that runs what is in the file.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from glassformer.checkpoints.files import sha256
from glassformer.checkpoints.tensors import Stored
from glassformer.errors import InputError
from glassformer.training.parallel.drawing import give_memory
from glassformer.training.parallel.learner import Learner
from glassformer.training.ranks import Ranks


def write_shards(folder: Path, tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, str]:
    """Write to `folder` what every process has of `tensors`, and return the SHA-256 of all files by name.

    All processes must call it. `OSError` in all of them where the disk of one does not take it. Each holds its share
    two times more while it writes.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    try:
        save({**tensors}, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as error:
        raise _failure(error) from None
    own = sorted(folder.glob(f"shard-{ranks.rank + 1:05}-*.safetensors"))
    said = ranks.told({path.name: sha256(path) for path in own})
    return {name: digest for part in said for name, digest in part.items()}


def _failure(error: Any) -> BaseException:
    """The disk's error, of the first process that has one; else what torch said."""
    for rank, (cause, _) in sorted(error.failures.items()):
        if isinstance(cause, OSError):
            return OSError(cause.errno or 0, f"process {rank}: {cause.strerror or cause}")
        if "No space left" in str(cause):
            return OSError(0, f"process {rank}: No space left on device")
    return error  # type: ignore[no-any-return]


def read_shards(folder: Path, stored: Mapping[str, Stored], tensors: Mapping[str, Tensor]) -> None:
    """Fill `tensors` from the safetensors files in `folder`, whose content is `stored`: this process's slices alone.

    `InputError` where one is missing or has another shape.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    for name, tensor in tensors.items():
        if name not in stored:
            raise InputError(f"{folder}: the tensor '{name}' is missing.")
        if tuple(stored[name].shape) != tuple(tensor.shape):
            shapes = f"{list(tensor.shape)} by the network's config, got {list(stored[name].shape)}"
            raise InputError(f"{folder}: '{name}' must have the shape {shapes}.")
    if not tensors:
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # each process reads on its own
        wanted = {name: tensor.detach() for name, tensor in tensors.items()}
        load(wanted, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)


def verify_in_turns(files: Sequence[tuple[Path, str]], ranks: Ranks) -> None:
    """Check the SHA-256 of files, each in one of the processes; `InputError` in all where one differs."""

    def check() -> None:
        for path, digest in files[ranks.rank :: ranks.size]:
            if not path.is_file() or sha256(path) != digest:
                raise InputError(f"{path} is missing, cut short or changed: its SHA-256 is not the one written down.")

    ranks.together(check)


@torch.no_grad()
def gathered(learner: Learner, ranks: Ranks) -> nn.Module | None:
    """The whole network in the first process, in evaluation mode on the device of the training; None in the others.

    For what runs it in one process: decoding for BLEU, ROUGE and samples. All processes must call it. The first one
    holds the network then, the others one tensor at a time.
    """
    own: dict[str, Any] = dict(learner.network.named_parameters())
    holders = ranks.told(sorted(own))
    device = next(iter(own.values())).device
    network = copy.deepcopy(learner.whole) if ranks.leads else learner.whole
    if ranks.leads:
        give_memory(network, device)
    for name, parameter in network.named_parameters():
        source = next(rank for rank, names in enumerate(holders) if name in names)
        full = _full(own[name].detach()) if name in own else torch.empty(parameter.shape, dtype=parameter.dtype)
        if source and ranks.rank == source:
            dist.send(full.cpu().contiguous(), 0)
        if source and ranks.leads:
            full = torch.empty(parameter.shape, dtype=parameter.dtype)
            dist.recv(full, source)
        if ranks.leads:
            parameter.copy_(full)
    return network if ranks.leads else None


def _full(tensor: Any) -> Tensor:
    """A tensor of which this process has a share, whole. All that have shares must call it."""
    whole: Tensor = getattr(tensor, "full_tensor", lambda: tensor)()
    return whole
