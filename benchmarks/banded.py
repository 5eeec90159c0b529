"""Locally banded attention alone, without projections, beside PyTorch's causal attention over all keys; in one run.

    python benchmarks/banded.py [--length 8192] [--width 256] [--heads 12] [--d-head 64] [--rounds 5] [--json]

Both sides go forward and backward on the same queries, keys and values of one row, fp32, laid out as projections give
them, in turns. Peak memory is that of a process of its own for each length: how far its resident size grew over what it
was before queries, keys and values were drawn. The caches are those of the state that a network opens for decoding.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from goals import BANDED, BANDED_MEMORY, compared, row_line
from machine import machine_limits
from rounds import machine_lines, take_turns
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from glassformer.layers.banded import banded_attention
from glassformer.layers.ring import BandedState
from glassformer.models.config import Banded
from glassformer.models.decoder import Decoder
from glassformer.models.sizes import sizes

OURS, THEIRS = "banded", "scaled_dot_product_attention(is_causal=True)"


def drawn(length: int, given: argparse.Namespace) -> tuple[list[Tensor], Tensor]:
    """Queries, keys and values, and the gradient of what is found."""
    torch.manual_seed(0)
    parts = torch.randn(3, 1, length, given.heads, given.d_head)
    return [part.transpose(1, 2).requires_grad_() for part in parts], torch.randn_like(parts[0]).transpose(1, 2)


def seconds_of(attend: Callable[..., Tensor], inputs: list[Tensor], gradient: Tensor) -> float:
    """Of once forward and backward."""
    begin = time.perf_counter()
    torch.autograd.grad(attend(*inputs), inputs, gradient)
    return time.perf_counter() - begin


def peak_of(length: int, given: argparse.Namespace) -> int:
    """Bytes by which this process grows for once forward and backward, with its inputs and gradients."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return banded_attention(query, key, value, given.width)

    seconds_of(attend, *drawn(2 * given.width, given))  # what is loaded and kept at the first call does not count
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far, which loading had, is forgotten
    seconds_of(attend, *drawn(length, given))
    return _resident("VmHWM") - before


def _resident(name: str) -> int:
    """Bytes of this process in memory, now (VmRSS) or at most (VmHWM); Linux says."""
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith(name))


def peak_elsewhere(length: int, given: argparse.Namespace) -> int:
    """`peak_of` in a process of its own."""
    shape = ["--width", str(given.width), "--heads", str(given.heads), "--d-head", str(given.d_head)]
    command = [sys.executable, __file__, "--peak", str(length), "--threads", str(given.threads), *shape]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def caches(given: argparse.Namespace) -> dict[str, float]:
    """Bytes a layer keeps of a text of that length: a dense one, a banded one."""
    small = replace(sizes["gpt3-small"], vocab_size=8, n_decoder_layers=2, max_length=given.length)  # type: ignore[type-var]
    config = replace(small, n_heads=given.heads, d_head=given.d_head, attention=Banded(given.width))  # type: ignore[call-arg]
    state = Decoder(config).start(1, given.length)  # type: ignore[arg-type]
    assert isinstance(state, BandedState)
    dense, banded = (held.keys.nbytes + held.values.nbytes for held in (state.full, state))
    return {
        "dense_bytes": dense,
        "banded_bytes": banded,
        "share": banded / dense,
        "width/length": given.width / given.length,
    }


def measure(given: argparse.Namespace) -> dict[str, Any]:
    inputs, gradient = drawn(given.length, given)
    calls: dict[str, Callable[..., Tensor]] = {
        OURS: lambda *x: banded_attention(*x, given.width),
        THEIRS: lambda *x: scaled_dot_product_attention(*x, is_causal=True),
    }
    runs = {name: (lambda attend=attend: seconds_of(attend, inputs, gradient)) for name, attend in calls.items()}
    print("warming up", file=sys.stderr, flush=True)
    take_turns(runs, 1)
    seconds = take_turns(runs, given.rounds)
    peaks = {length: peak_elsewhere(length, given) for length in (given.length, 2 * given.length)}
    growth = peaks[2 * given.length] / peaks[given.length]
    return {
        "work": f"{given.heads} heads × {given.d_head}, width {given.width}, length {given.length}, forward + backward",
        "seconds": seconds,
        "rows": [compared(seconds, OURS, THEIRS, BANDED)],
        "peak_bytes": peaks,
        "peak_growth": BANDED_MEMORY.judged({"median": growth, "low": growth, "high": growth}),
        "caches": caches(given),
        "rounds": given.rounds,
        "machine": machine_limits(given.threads),
    }


def lines(result: Mapping[str, Any]) -> list[str]:
    """The report for people."""
    cache, growth = result["caches"], result["peak_growth"]
    peaks = ", ".join(f"{size / 2**20:,.0f} MiB at {length}" for length, size in result["peak_bytes"].items())
    return [
        *machine_lines(result["machine"]),
        f"{result['work']}; median (lowest … highest) of {result['rounds']} rounds",
        *map(row_line, result["rows"]),
        f"  peak memory: {peaks}; {growth['median']:.2f}×, at most {growth['floor']:g}×: {growth['reached']}",
        f"  a layer's cache: dense {cache['dense_bytes']:,} bytes, banded {cache['banded_bytes']:,}: "
        f"{cache['share']:.4f} of it (width / length {cache['width/length']:.4f})",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=8192, help="memory is measured at twice as many positions too")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--d-head", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak", type=int, help="print the bytes that so many positions take, and nothing else")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.peak:
        print(peak_of(given.peak, given))
        return
    result = measure(given)
    print(json.dumps(result, indent=2) if given.json else "\n".join(lines(result)))


if __name__ == "__main__":
    main()
