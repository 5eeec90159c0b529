"""Checkpoints whose weights have 4 or 8 bits: smaller on disk, and read as they are."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from glassformer.checkpoints import native
from glassformer.checkpoints.gguf import quantized_blocks
from glassformer.checkpoints.opening import open_model
from glassformer.errors import InputError
from glassformer.layers.block import Block
from glassformer.layers.linear import Linear
from glassformer.layers.quantized import BLOCK_BYTES, GROUP, Bits, as_blocks, quantize

BITS: dict[str, Bits] = {"int4": 4, "int8": 8}


def save_quantized(name: str | Path, folder: str | Path, precision: str) -> Path:
    """Write the model that `name` means to `folder` with weights of 4 or 8 bits ("int4", "int8").

    What a GGUF file stores in as many bits is kept exactly. The head and the token vectors get 8 bits in both. Raises
    `InputError` for another precision and for a family that cannot run so.
    """
    if precision not in BITS:
        raise InputError(f"'precision' must be one of {', '.join(BITS)}, got '{precision}'.")
    held = open_model(name)
    known = quantized_blocks(held.extra["gguf"]) if "gguf" in held.extra else {}
    bits = BITS[precision]
    given = {at: part for at, (kind, blocks) in known.items() if _has(part := as_blocks(kind, blocks), bits)}
    extra = {key: value for key, value in held.extra.items() if key != "gguf"}
    blocks = {**_made(held.network, bits, given), **given}
    return native.save(
        folder, held.network, held.tokenizer, held.pipeline, held.task, extra=extra, blocks=blocks, precision=precision
    )


def _has(blocks: Tensor, bits: Bits) -> bool:
    """Whether blocks have so many bits, or are 8-bit ones of a model that is otherwise in 4."""
    return blocks.shape[-1] in (BLOCK_BYTES[bits], BLOCK_BYTES[8])


def _made(network: nn.Module, bits: Bits, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Blocks for all dense layers and token vectors that are not given: `bits` in blocks, 8 elsewhere."""
    inside = {id(part) for block in network.modules() if isinstance(block, Block) for part in block.modules()}
    first = dict(network.named_parameters())  # a tied weight under its first name
    made = {}
    for path, module in network.named_modules():
        name = f"{path}.weight"
        if isinstance(module, Linear | nn.Embedding) and name in first and name not in given:
            weight = module.weight
            if weight.shape[1] % GROUP == 0:
                made[name] = quantize(weight, bits if id(module) in inside else 8)
    return made
