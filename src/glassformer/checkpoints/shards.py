"""Tensors in shards: several safetensors files, each with pieces of the same tensors.

They are written by `torch.distributed.checkpoint` (`HuggingFaceStorageWriter` with `save_distributed`), a file a
process; the header's `DCP_SHARDING_INFO` says where in its tensor a piece begins. What reads them here holds one tensor
at a time. torch's own `consolidate_safetensors_files` is not used: it turns tensors without a dimension, such as an
optimizer's counters, into zeros.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from glassformer.checkpoints.tensors import LazyTensor, Stored, header_of, open_tensors, write_tensors
from glassformer.errors import InputError

INFO = "DCP_SHARDING_INFO"
FOLDER = "shards"


@dataclass(frozen=True)
class Piece:
    """A part of a tensor, and the place of its first number in that."""

    start: tuple[int, ...]
    stored: LazyTensor


@dataclass(frozen=True)
class ShardedTensor:
    """A tensor whose pieces lie in several files, read when it is asked for."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    pieces: tuple[Piece, ...]

    def dense(self) -> Tensor:
        """The numbers, on the CPU; the errors of `read_tensors`."""
        whole = torch.empty(self.shape, dtype=self.dtype)
        for piece in self.pieces:
            place = tuple(slice(s, s + n) for s, n in zip(piece.start, piece.stored.shape, strict=True))
            whole[place] = piece.stored.dense()
        return whole


def open_shards(paths: Sequence[Path]) -> dict[str, Stored]:
    """The tensors of all these files by name, none of them read yet.

    `InputError` where a file is missing or unreadable, and where a tensor lacks a piece, so that a file is missing.
    """
    found: dict[str, list[Piece]] = {}
    for path in paths:
        tensors = open_tensors(path)
        starts = json.loads(header_of(path).get(INFO, "{}"))
        for name, stored in tensors.items():
            start = starts.get(name, {}).get("saved_offsets", [0] * len(stored.shape))
            found.setdefault(name, []).append(Piece(tuple(start), stored))
    where = str(paths[0].parent) if paths else "a checkpoint"
    return {name: _joined(name, pieces, where) for name, pieces in found.items()}


def _joined(name: str, pieces: list[Piece], where: str) -> ShardedTensor:
    ends = [[s + n for s, n in zip(piece.start, piece.stored.shape, strict=True)] for piece in pieces]
    shape = tuple(map(max, zip(*ends, strict=True)))
    held = sum(math.prod(piece.stored.shape) for piece in {piece.start: piece for piece in pieces}.values())
    if held != math.prod(shape):
        raise InputError(
            f"{where}: '{name}' has {held:,} of {math.prod(shape):,} numbers: a file of shards is missing. "
            "Use another copy."
        )
    return ShardedTensor(name, shape, pieces[0].stored.dtype, tuple(pieces))


def consolidate(paths: Sequence[Path], into: Path) -> str:
    """Write the tensors of files of shards as one safetensors file, one at a time in memory; its SHA-256."""
    return write_tensors(into, open_shards(paths))


@dataclass(frozen=True)
class MeanTensor:
    """The mean of the same tensor of several checkpoints, summed in fp64, in fp32; of integers the last one."""

    parts: tuple[Stored, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """That of each."""
        return tuple(self.parts[-1].shape)

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point numbers are averaged, and given as fp32; others keep their type."""
        own = self.parts[-1].dtype
        return torch.float32 if own.is_floating_point and len(self.parts) > 1 else own

    def dense(self) -> Tensor:
        """The numbers, on the CPU."""
        if not self.dtype.is_floating_point or len(self.parts) == 1:
            return self.parts[-1].dense()
        total = self.parts[0].dense().double()
        for part in self.parts[1:]:
            total += part.dense()
        return (total / len(self.parts)).float()


def mean_of(checkpoints: Sequence[Mapping[str, Stored]]) -> dict[str, MeanTensor]:
    """The means of tensors by name, read when they are asked for."""
    return {name: MeanTensor(tuple(each[name] for each in checkpoints)) for name in checkpoints[-1]}
