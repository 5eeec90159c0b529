"""Reading GGUF, the single-file format of llama.cpp, versions 2 and 3 (ggml, docs/gguf.md and ggml-common.h).

The header is read by a small parser of our own: start-up time counts, and what comes from a file is checked against
the file's size before anything is made of it. Tensors stay in a memory map until they are asked for.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glassformer.checkpoints.tensors import looks_like, refuse_code
from glassformer.errors import InputError

# A tensor's kind by its number in the file: name, numbers in a block, bytes of a block (ggml.h, ggml-common.h).
_KINDS: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_BLOCKS = {"Q4_0": 18, "Q4_1": 20, "Q8_0": 34}
_BY_PACKAGE = ("Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")

# Metadata values by their number in the file.
_NUMBERS = dict(enumerate(["u1", "i1", "<u2", "<i2", "<u4", "<i4", "<f4", "u1"])) | {10: "<u8", 11: "<i8", 12: "<f8"}
_BOOL, _STRING, _ARRAY = 7, 8, 9
_DEPTH = 4  # arrays of arrays of arrays of arrays
_HEADER_LIMIT = 2**27  # bytes; the largest vocabularies in use need a tenth
_VALUES_LIMIT = 2**23  # metadata values in all; each takes up to 60 bytes of memory more than in the file
_CHUNK = 2**15  # blocks dequantised at a time: near the cache from step to step, yet few steps for the threads

_u32 = struct.Struct("<I")
_u64 = struct.Struct("<Q")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as it lies in a GGUF file. `shape` is torch's order: a weight is [out, in]. It keeps the map alive."""

    name: str
    kind: str
    shape: tuple[int, ...]
    _path: Path = field(repr=False)
    _map: mmap.mmap = field(repr=False, compare=False)
    _start: int = field(repr=False)
    _size: int = field(repr=False)

    def dense(self) -> Tensor:
        """The tensor as fp32, in memory of its own: bit for bit what ggml's reference dequantisation gives.

        F32, F16, BF16, Q4_0, Q4_1 and Q8_0 are computed here; Q5_0, Q5_1 and Q2_K ... Q6_K by the package `gguf`.
        `InputError` for any other kind, and where `gguf` is needed but not installed.
        """
        if self.kind in _PLAIN:
            return self._bytes().view(_PLAIN[self.kind]).to(torch.float32, copy=True).view(self.shape)
        if self.kind in _BLOCKS:
            blocks = self._bytes().view(-1, _BLOCKS[self.kind])
            dense = torch.empty(len(blocks), 32)
            for start in range(0, len(blocks), _CHUNK):
                _dequantise(self.kind, blocks[start : start + _CHUNK], dense[start : start + _CHUNK])
            return dense.view(self.shape)
        return self._dense_by_package()

    def blocks(self) -> Tensor:
        """The stored bytes, uint8 [..., in / 32, bytes of a block], without a copy: read them, do not write them.

        Blocks of 32 numbers, scales d and minima m as fp16, little-endian. In a nibble byte j the low half is number j,
        the high half number j + 16.
        - Q4_0, 18 bytes: d, 16 nibble bytes; a number is d (nibble - 8).
        - Q4_1, 20 bytes: d, m, 16 nibble bytes; a number is d nibble + m.
        - Q8_0, 34 bytes: d, 32 int8; a number is d int8.

        `InputError` for any other kind.
        """
        if self.kind not in _BLOCKS:
            raise InputError(
                f"{self._path}: blocks must be of the kind {', '.join(_BLOCKS)}; '{self.name}' is {self.kind}. "
                "Use dense()."
            )
        return self._bytes().view(*self.shape[:-1], self.shape[-1] // 32, _BLOCKS[self.kind])

    def _bytes(self) -> Tensor:
        return torch.frombuffer(self._map, dtype=torch.uint8, count=self._size, offset=self._start)

    def _dense_by_package(self) -> Tensor:
        if self.kind not in _BY_PACKAGE:
            raise InputError(
                f"{self._path}: '{self.name}' is {self.kind}; a tensor must be one of "
                f"{', '.join([*_PLAIN, *_BLOCKS, *_BY_PACKAGE])}. Use another quantisation of the model."
            )
        try:
            from gguf import GGMLQuantizationType
            from gguf.quants import dequantize
        except ImportError:
            raise InputError(
                f"{self._path}: '{self.name}' is {self.kind}, which needs the package gguf. "
                "Install it: pip install 'glassformer[gguf]'"
            ) from None
        rows = self._bytes().view(math.prod(self.shape[:-1]), -1).numpy()
        with np.errstate(all="ignore"):  # a scale may be NaN or infinite; its numbers are then, too
            dense = dequantize(rows, GGMLQuantizationType[self.kind])
        return torch.from_numpy(dense).view(self.shape)


@dataclass(frozen=True)
class GGUF:
    """A GGUF file: its metadata as plain Python values (lists for arrays) and its tensors by name, both in order."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]


def open_gguf(path: str | Path) -> GGUF:
    """Read the header of a GGUF file and map its tensors.

    The map is private: nothing reaches the file. While it is open the file must not be cut; replacing it is fine.

    Raises `InputError` for a file that is missing, unreadable, no GGUF, of another version or byte order, cut short or
    damaged: every count, length, type, name, offset and size is checked.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            start = file.read(8)
            _check_start(path, start)
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # read-only memory would make torch warn
    except FileNotFoundError:
        raise InputError(f"{path}: the file is missing.") from None
    except OSError as error:
        raise InputError(f"{path}: the file cannot be read ({error.strerror}). Give a GGUF file.") from None
    header = _Header(path, mapped)
    n_tensors, n_metadata = header.count("tensors", 24), header.count("metadata keys", 13)
    metadata: dict[str, Any] = {}
    for _ in range(n_metadata):
        key = header.text("a metadata key")
        if key in metadata:
            raise header.damaged(f"metadata keys must differ, {_short(key)} comes twice")
        metadata[key] = header.value(header.u32("a type"), _short(key))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1):
        raise header.damaged(f"'general.alignment' must be a power of two from 8, got {_short(alignment)}")
    return GGUF(path, metadata, header.tensors(n_tensors, alignment))


def _check_start(path: Path, start: bytes) -> None:
    """`InputError` where the first eight bytes are not those of GGUF version 2 or 3."""
    if start[:4] != b"GGUF":
        refuse_code(path)
        kind = looks_like(path)
        raise InputError(
            f"{path} is not a GGUF file: it must start with 'GGUF', "
            + (f"but looks like {kind}." if kind else f"got {start[:4]!r}.")
            + " Give a .gguf file."
        )
    if len(start) < 8:
        raise InputError(f"{path} ends after {len(start)} bytes: cut short or damaged. Use another copy.")
    version = _u32.unpack(start[4:])[0]
    if version & 0xFFFF == 0 and version:
        raise InputError(f"{path} is a big-endian GGUF file; it must be little-endian. Use another copy.")
    if version not in (2, 3):
        raise InputError(
            f"{path} is GGUF version {version}; it must be 2 or 3. "
            + ("Convert the model again with a current llama.cpp." if version == 1 else "Use another copy.")
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


class _Header:
    """A place in the header of a mapped file; every read moves it on, after checking that it stays inside."""

    def __init__(self, path: Path, mapped: mmap.mmap) -> None:
        self.path, self.map, self.at = path, mapped, 8
        self.end = min(len(mapped), _HEADER_LIMIT)
        self.values_left = _VALUES_LIMIT

    def damaged(self, what: str) -> InputError:
        return InputError(f"{self.path} is no whole GGUF file: {what}. It is cut short or damaged. Use another copy.")

    def take(self, size: int, what: str) -> int:
        """Where the next `size` bytes start, having passed them."""
        start = self.at
        if size > self.end - start:
            raise self.damaged(f"{what} must take {size} bytes, {self.end - start} are left at byte {start}")
        self.at = start + size
        return start

    def spend(self, count: int, size: int, what: str) -> None:
        """Check that `count` values of at least `size` bytes each can follow, and that memory can hold them."""
        if count * size > self.end - self.at:
            raise self.damaged(f"{what} must hold {count} values, {self.end - self.at} bytes are left")
        if count > self.values_left:
            raise self.damaged(f"the metadata must hold at most {_VALUES_LIMIT} values, {what} goes beyond")
        self.values_left -= count

    def u32(self, what: str) -> int:
        return _u32.unpack_from(self.map, self.take(4, what))[0]

    def u64(self, what: str) -> int:
        return _u64.unpack_from(self.map, self.take(8, what))[0]

    def count(self, what: str, size: int) -> int:
        """A number of things that take at least `size` bytes each."""
        count = self.u64(f"the number of {what}")
        self.spend(count, size, f"the list of {what}")
        return count

    def text(self, what: str) -> str:
        return self.texts(1, what)[0]

    def texts(self, count: int, what: str) -> list[str]:
        """`count` strings: a length of 8 bytes, then UTF-8. Vocabularies make this the loop that counts."""
        found: list[str] = []
        add, length, data, at, end = found.append, _u64.unpack_from, self.map, self.at, self.end
        for _ in range(count):
            begin = at + 8
            at = begin + length(data, at)[0] if begin <= end else end + 1
            if at > end:
                raise self.damaged(f"{what} must end before byte {end}")
            try:
                add(data[begin:at].decode())
            except UnicodeDecodeError:
                raise self.damaged(f"{what} must be UTF-8, got {_short(data[begin : min(at, begin + 30)])}") from None
        self.at = at
        return found

    def value(self, kind: int, what: str, depth: int = 0) -> Any:
        """One metadata value of the type numbered `kind`."""
        if kind == _ARRAY:
            return self.array(what, depth + 1)
        return self.texts(1, what)[0] if kind == _STRING else self.numbers(kind, 1, what)[0]

    def array(self, what: str, depth: int) -> list[Any]:
        if depth > _DEPTH:
            raise self.damaged(f"arrays must lie at most {_DEPTH} deep, {what} goes deeper")
        kind, count = self.u32(f"the type of {what}"), self.u64(f"the length of {what}")
        if kind == _ARRAY:
            self.spend(count, 12, what)
            return [self.array(what, depth + 1) for _ in range(count)]
        if kind == _STRING:
            self.spend(count, 8, what)
            return self.texts(count, what)
        self.spend(count, 1, what)
        return self.numbers(kind, count, what)

    def numbers(self, kind: int, count: int, what: str) -> list[Any]:
        if kind not in _NUMBERS:
            raise self.damaged(f"a type of metadata must be a number from 0 to 12, {what} has {kind}")
        dtype = np.dtype(_NUMBERS[kind])
        start = self.take(count * dtype.itemsize, what)
        found = np.frombuffer(self.map, dtype, count, start)
        if kind == _BOOL:
            if found.max(initial=0) > 1:
                raise self.damaged(f"a boolean must be 0 or 1, {what} holds {found.max()}")
            found = found.astype(bool)
        return found.tolist()

    def tensors(self, count: int, alignment: int) -> dict[str, StoredTensor]:
        """The list of tensors, each with its place in the data that follows the list."""
        entries: dict[str, tuple[str, tuple[int, ...], int, int]] = {}
        for _ in range(count):
            name = self.text("a tensor's name")
            if name in entries:
                raise self.damaged(f"tensors' names must differ, {_short(name)} comes twice")
            entries[name] = self.entry(_short(name))
        data = -(-self.at // alignment) * alignment
        found = {}
        previous, free = "", 0
        for name, (kind, shape, offset, size) in sorted(entries.items(), key=lambda entry: entry[1][2]):
            if offset % alignment:
                raise self.damaged(f"{_short(name)} must start at a multiple of {alignment}, got {offset}")
            if offset < free:
                raise self.damaged(f"tensors must not overlap, {_short(previous)} and {_short(name)} do")
            previous, free = name, offset + size
            if data + free > len(self.map):
                raise self.damaged(f"{_short(name)} must end at byte {data + free}, the file at {len(self.map)}")
            found[name] = StoredTensor(name, kind, shape, self.path, self.map, data + offset, size)
        return {name: found[name] for name in entries}

    def entry(self, name: str) -> tuple[str, tuple[int, ...], int, int]:
        """A tensor's kind, shape, offset and size in bytes."""
        n_dims = self.u32(f"the dimensions of {name}")
        if n_dims > 4:
            raise self.damaged(f"a tensor must have at most 4 dimensions, {name} has {n_dims}")
        shape = tuple(self.u64(f"the shape of {name}") for _ in range(n_dims))[::-1]
        number, offset = self.u32(f"the type of {name}"), self.u64(f"the offset of {name}")
        if number not in _KINDS:
            raise self.damaged(f"{name} has the type {number}, which is not known")
        kind, numbers, size = _KINDS[number]
        if any(not 0 < n < 2**63 for n in shape):
            raise self.damaged(f"dimensions must be from 1 to 2**63 - 1, {name} has {list(shape)}")
        if (shape[-1] if shape else 1) % numbers:
            raise self.damaged(f"a row of {kind} must be a multiple of {numbers} long, {name} has {list(shape)}")
        return kind, shape, offset, math.prod(shape) // numbers * size


def _dequantise(kind: str, blocks: Tensor, dense: Tensor) -> None:
    """Blocks of Q4_0, Q4_1 or Q8_0, uint8 [N, bytes], into `dense`, fp32 [N, 32]. Rounds where ggml does: d q, + m."""
    scale = blocks[:, :2].contiguous().view(torch.float16).float()
    if kind == "Q8_0":
        dense.copy_(blocks[:, 2:].view(torch.int8)).mul_(scale)
        return
    codes = blocks[:, -16:].contiguous()  # a copy costs less than working on scattered bytes twice
    low, high = dense[:, :16], dense[:, 16:]
    low.copy_(codes & 15)
    high.copy_(codes >> 4)
    if kind == "Q4_0":
        dense.sub_(8).mul_(scale)
    else:
        dense.mul_(scale).add_(blocks[:, 2:4].contiguous().view(torch.float16).float())
