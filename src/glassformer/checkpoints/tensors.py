"""Named tensors in the safetensors format (https://github.com/huggingface/safetensors), and a network's own.

The writer is ours because it streams: nothing is held twice in memory, the SHA-256 comes with it, and a full disk is an
`OSError` like any other. Reading goes through the `safetensors` package.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from glassformer.checkpoints.files import write_stream
from glassformer.errors import InputError, did_you_mean

_names = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

_types = {name: dtype for dtype, name in _names.items()}

_SAFETENSORS = "a safetensors file"
_OBJECTS = "a file of Python objects, as torch.save writes"
_ARCHIVE = "a zip archive, as torch.save writes"
_signatures = {
    b"PK\x03\x04": _ARCHIVE,
    **{bytes([0x80, protocol]): _OBJECTS for protocol in range(2, 6)},
    b"GGUF": "a GGUF file",
    **dict.fromkeys((b"lmgg", b"fmgg", b"tjgg"), "a file of llama.cpp from before GGUF"),
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a file packed by gzip",
    b"version https://git-lfs": "a pointer of Git LFS instead of the file itself",
    b"<": "a web page",
    b"{": "a JSON file",
}


class Stored(Protocol):
    """A tensor on the disk: what it is, and its numbers when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def dense(self) -> Tensor:
        """The numbers, on the CPU."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor | Stored], metadata: Mapping[str, str] | None = None) -> str:
    """Write a safetensors file, force it to the disk, and return its SHA-256. `metadata` are texts of its header.

    What is stored elsewhere is read when its turn comes, so that one of these tensors is in memory at a time.
    """
    return write_stream(path, _stream(tensors, metadata or {}))


def _stream(tensors: Mapping[str, Tensor | Stored], metadata: Mapping[str, str]) -> Iterator[Any]:
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + math.prod(tensor.shape) * tensor.dtype.itemsize
        header[name] = {"dtype": _names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for tensor in tensors.values():
        if math.prod(tensor.shape):
            numbers = tensor if isinstance(tensor, Tensor) else tensor.dense()
            flat = numbers.detach().cpu().contiguous().reshape(-1)
            yield flat.view(torch.uint8).numpy().data


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    `InputError` where it is missing, unreadable, cut short, malformed, or a file of another format, which is named.
    """
    with _readable(path):
        return safetensors.torch.load_file(path)


@dataclass(frozen=True)
class LazyTensor:
    """A tensor of an open safetensors file, whose numbers are read when they are asked for."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    _path: Path = field(repr=False)
    _file: Any = field(repr=False, compare=False)

    def dense(self) -> Tensor:
        """The numbers, on the CPU; the errors of `read_tensors`."""
        with _readable(self._path):
            return self._file.get_tensor(self.name)


def open_tensors(path: Path) -> dict[str, LazyTensor]:
    """The tensors of a safetensors file by name, none of them read yet; the errors of `read_tensors`."""
    with _readable(path):
        file = safetensors.safe_open(path, framework="pt")
        names: list[str] = file.keys()
        pieces = {name: file.get_slice(name) for name in names}
        return {
            name: LazyTensor(name, tuple(piece.get_shape()), _types.get(piece.get_dtype(), torch.float32), path, file)
            for name, piece in pieces.items()
        }


def header_of(path: Path) -> dict[str, str]:
    """The texts in a safetensors file's header; the errors of `read_tensors`."""
    with _readable(path):
        return safetensors.safe_open(path, framework="pt").metadata() or {}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What goes wrong in reading a safetensors file, as an `InputError` that says what the file looks like."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: the file is missing.") from None
    except OSError as error:
        raise InputError(f"{path}: the file cannot be read ({error}). Give a safetensors file.") from None
    except (safetensors.SafetensorError, TypeError, ValueError, RuntimeError) as error:  # torch refuses some shapes
        refuse_code(path)
        kind = looks_like(path)
        if kind not in ("", _SAFETENSORS):
            raise InputError(
                f"{path} must be a safetensors file, but looks like {kind}. Give a .safetensors file."
            ) from None
        raise InputError(
            f"{path} is not a whole safetensors file ({error}): cut short or damaged. Use another copy."
        ) from None


def looks_like(path: Path) -> str:
    """What a file is by its first bytes, such as "a GGUF file"; the empty string where they say nothing."""
    try:
        with open(path, "rb") as file:
            start = file.read(32)
    except OSError:
        return ""
    if start[4:9] == b"\0\0\0\0{":  # first, as the length before it may look like another format's signature
        return _SAFETENSORS
    return next((kind for signature, kind in _signatures.items() if start.startswith(signature)), "")


def refuse_code(path: Path) -> None:
    """Refuse a file of Python objects: to read one can run whatever its maker wrote into it.

    `InputError` where the first bytes are those of such a file, or of the archive in which PyTorch puts it, and where
    they say nothing but the name ends as such files do: `.bin`, `.pt`, `.pth`, `.ckpt`.
    """
    kind = looks_like(path)
    if kind in (_OBJECTS, _ARCHIVE) or (not kind and path.suffix.lower() in (".bin", ".pt", ".pth", ".ckpt")):
        raise InputError(
            f"{path} looks like {kind or _OBJECTS}. Such a file can run code when it is read, so it is refused. "
            "Use the model's .safetensors file, or convert this one to safetensors where you trust its source."
        )


def network_tensors(network: nn.Module) -> dict[str, Tensor]:
    """What a network must keep: parameters and persistent buffers by name, a tied tensor once, under its first name."""
    kept = network.state_dict(keep_vars=True)
    buffers = {name: buffer for name, buffer in network.named_buffers() if name in kept}
    return {name: tensor.detach() for name, tensor in [*network.named_parameters(), *buffers.items()]}


def fill_network(
    network: nn.Module, tensors: Mapping[str, Tensor], where: str, only: Collection[str] | None = None
) -> None:
    """Copy stored tensors into a network, converting to its own types; with `only`, into its tensors of these names.

    `InputError` for a tensor that is missing, does not belong to the network, or has another shape.
    """
    own = network_tensors(network)
    if only is not None:
        own = {name: tensor for name, tensor in own.items() if name in only}
    missing = [name for name in own if name not in tensors]
    unknown = [name for name in tensors if name not in own]
    if missing:
        raise InputError(f"{where}: {len(missing)} of the network's tensors are missing, the first is '{missing[0]}'.")
    if unknown:
        hint = did_you_mean(unknown[0], own)
        raise InputError(
            f"{where}: {len(unknown)} tensors do not belong to the network, the first is '{unknown[0]}'.{hint}"
        )
    for name, tensor in own.items():
        if tensors[name].shape != tensor.shape:
            raise InputError(
                f"{where}: '{name}' must have the shape {list(tensor.shape)} by its config, "
                f"got {list(tensors[name].shape)}."
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
