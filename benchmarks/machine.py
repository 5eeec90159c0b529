"""What this machine can do at most: matrix products in fp32 and bf16, and reading memory.

python benchmarks/machine.py [--threads 2] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch


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


def main() -> None:
    from rounds import machine_lines

    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments.add_argument("--json", action="store_true")
    given = arguments.parse_args()
    limits = machine_limits(given.threads)
    print(json.dumps(limits) if given.json else "\n".join(machine_lines(limits)))


if __name__ == "__main__":
    main()
