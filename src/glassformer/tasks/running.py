"""A network as it is to be run: fp32, or with smaller numbers."""

from __future__ import annotations

from torch import nn

from glassformer.errors import InputError, did_you_mean
from glassformer.layers.int8 import int8
from glassformer.layers.kernels import compiler
from glassformer.layers.quantized import quantized, unrounded
from glassformer.models.families import TextToText
from glassformer.tasks.precision import PRECISIONS


def keeps_stored(precision: str | None) -> bool:
    """Whether a model that is to run so is opened with weights of 4 and 8 bits as its file has them: in fp32 where
    kernels can be built for it."""
    return precision in ("int4", "stored") or (precision == "fp32" and compiler() is not None)


def at_precision(network: nn.Module, precision: str | None) -> nn.Module:
    """The network, opened as `keeps_stored` says, as it is to run; None leaves it as it is."""
    if precision is None:
        return network
    if precision not in PRECISIONS:
        hint = did_you_mean(str(precision), PRECISIONS)
        raise InputError(f"'precision' must be one of {', '.join(PRECISIONS)}, got {precision!r}.{hint}")
    if precision == "bf16":
        return network.bfloat16()
    if precision == "int8" and isinstance(network, TextToText):
        return int8(network)  # a beam brings many rows at a time: there rounding row by row is faster
    if precision == "fp32":
        return unrounded(network)
    if precision == "stored":
        return network
    return quantized(network, 4 if precision == "int4" else 8)
