"""`glassformer machine`: what this machine can do at most."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from glassformer.cli.options import JsonOption
from glassformer.cli.output import put, put_json, say


def machine(
    *,
    threads: Annotated[
        int | None, Parameter(help="So many threads; as many as a training would use, unless given.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Measure the fastest matrix products in fp32 and bf16, and how fast memory is read. Let nothing else run.

    The result is kept, so that trainings can say which share of it they used.
    """
    import torch

    from glassformer.training.machine import machine_limits, remember

    limits = machine_limits(threads or torch.get_num_threads())
    path = remember(limits)
    if json:
        put_json(limits)
    else:
        put(f"processor  {limits['processor']}, {limits['threads']} threads, torch {limits['torch']}")
        put(f"fp32       {limits['fp32_gflops']:,.0f} GFLOP/s")
        put(f"bf16       {limits['bf16_gflops']:,.0f} GFLOP/s")
        put(f"memory     {limits['read_gb_per_s']:.1f} GB/s read")
    say(f"Kept in {path}; trainings compare themselves with it.")
