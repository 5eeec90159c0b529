"""What this machine can do at most, measured once and remembered; and how much of that a training used."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from glassformer.checkpoints.files import write_json
from glassformer.models.config import AnyConfig, Config, MaskedLM
from glassformer.models.counting import count
from glassformer.settings import cache_folder

MASKED = 0.15
"""The share of tokens for which the head of a masked language model is computed."""


def machine_limits(threads: int) -> dict[str, Any]:
    """Best of several tries each: GFLOP/s of a square product, GB/s of summing 256 MB."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        memory = torch.ones(64 * 2**20)
        return {
            "processor": processor(),
            "threads": threads,
            "torch": torch.__version__,
            "fp32_gflops": gflops(torch.float32),
            "bf16_gflops": gflops(torch.bfloat16),
            "read_gb_per_s": memory.numel() * 4 / fastest(memory.sum) / 1e9,
        }
    finally:
        torch.set_num_threads(before)


def gflops(dtype: torch.dtype) -> float:
    """Best speed of a square product. Sizes grow while a product takes a moment: bf16 may be emulated, and slow."""
    best, size, seconds = 0.0, 256, 0.0
    while size <= 2048 and seconds < 0.1:
        left, right = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
        seconds = fastest(partial(torch.mm, left, right))
        best, size = max(best, 2 * size**3 / seconds / 1e9), size * 2
    return best


def fastest(run: Callable[[], Any], tries: int = 7) -> float:
    """Seconds of the fastest of several runs, after one that does not count."""
    run()
    seconds = []
    for _ in range(tries):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def processor() -> str:
    """The processor's name where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def remember(limits: dict[str, Any]) -> Path:
    """Keep the limits in the cache folder, for trainings to compare themselves with."""
    path = _kept()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, limits)
    return path


def known_limits(threads: int) -> dict[str, Any] | None:
    """The limits measured on this machine with as many threads; None where they were not."""
    try:
        found = json.loads(_kept().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = isinstance(found, dict) and (found.get("processor"), found.get("threads")) == (processor(), threads)
    return found if same else None


def _kept() -> Path:
    return cache_folder() / f"machine-{os.uname().nodename if hasattr(os, 'uname') else platform.node()}.json"


def training_flops(config: AnyConfig, context: float, trained: float = 1.0) -> float | None:
    """Floating-point operations of training on one token: those of its products, forward and backward.

    Forward: 2 for each weight that multiplies it and 4 · `context` · d_model a layer for attention (see
    `models.counting`); backward: as many for the gradient of what came in, and as many for that of the weights, of
    which the share `trained` is computed. For a GPT that is 6 N + 12 L D T. The words of a masked language model are
    counted for the masked tokens alone. None for what reads one text and writes another: both have tokens of their own.
    """
    if not isinstance(config, Config) or (config.n_encoder_layers and config.n_decoder_layers):
        return None
    counted = count(config)
    flops = counted.flops(1)["token"]
    weights = float(flops.weights)
    if config.n_encoder_layers and isinstance(config.head, MaskedLM | None):
        head = sum(part.weights for part in counted.parts if part.name.startswith("head.") and part.reader == "token")
        weights -= 2 * head * (1 - MASKED)
    attention = flops.attention * context
    return weights * (2 + trained) + 3 * attention


def share_of_limit(flops: float | None, tokens_per_second: float, precision: str, threads: int) -> float | None:
    """The model FLOPs utilisation (Chowdhery et al. 2022) of this machine's measured limit in this precision; None
    where either is unknown."""
    limits = known_limits(threads)
    if flops is None or limits is None:
        return None
    limit = limits.get(f"{precision}_gflops")
    return flops * tokens_per_second / (1e9 * limit) if isinstance(limit, float) and limit > 0 else None
