"""Which device, number format and compiler a training uses: plain rules, each with its reason."""

from __future__ import annotations

import contextlib

import torch

from glassformer.errors import InputError


def pick_device(wanted: str) -> torch.device:
    """For "auto" the GPU where there is one; else what is named, `InputError` where torch cannot use it."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"'training.device' {wanted!r} cannot be used here ({reason}). Use \"auto\".") from None
    return device


def pick_precision(wanted: str, device: torch.device) -> str:
    """For "auto" bf16 only where the device multiplies it in hardware: elsewhere it is emulated, several times slower.

    Weights, gradients and the optimizer stay fp32 in either case (autocast).
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "fp32"


def cpu_has_bf16() -> bool:
    """Whether this CPU has AVX-512 or AMX instructions for bf16."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def pick_compile(wanted: bool | str, device: torch.device) -> bool:
    """For "auto" on a GPU only.

    On two CPU cores it gained a tenth at most, which a training of minutes does not pay back, and it needs a compiler.
    """
    return device.type == "cuda" if wanted == "auto" else wanted is True


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """The context in which the forward pass runs."""
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()
