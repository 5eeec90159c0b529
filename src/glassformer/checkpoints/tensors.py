"""Named tensors in the safetensors format (https://github.com/huggingface/safetensors), and a network's own.

The writer is ours because it streams: nothing is held twice in memory, the SHA-256 comes with it, and a full disk is an
`OSError` like any other. Reading goes through the `safetensors` package.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a safetensors file, force it to the disk, and return its SHA-256."""
    return write_stream(path, _stream(tensors))


def _stream(tensors: Mapping[str, Tensor]) -> Iterator[Any]:
    header: dict[str, Any] = {}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for tensor in tensors.values():
        if tensor.numel():
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            yield flat.view(torch.uint8).numpy().data


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. `InputError` where it is missing, cut short or malformed."""
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: the file is missing.") from None
    except safetensors.SafetensorError as error:
        raise InputError(
            f"{path} is not a whole safetensors file ({error}): cut short or damaged. Use another copy."
        ) from None


def network_tensors(network: nn.Module) -> dict[str, Tensor]:
    """What a network must keep: parameters and persistent buffers by name, a tied tensor once, under its first name."""
    kept = network.state_dict(keep_vars=True)
    buffers = {name: buffer for name, buffer in network.named_buffers() if name in kept}
    return {name: tensor.detach() for name, tensor in [*network.named_parameters(), *buffers.items()]}


def fill_network(network: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy stored tensors into a network, converting to its own types.

    `InputError` for a tensor that is missing, does not belong to the network, or has another shape.
    """
    own = network_tensors(network)
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
