"""Run by test_two_processes.py: one of two processes of a training, and how many bytes it grew by or computed.

Usage: step_of_two.py WHAT LAYOUT LAYERS WIDTH VOCABULARY ROWS LENGTH MICRO_BATCHES, started by what sets RANK,
WORLD_SIZE, MASTER_ADDR and MASTER_PORT. LAYOUT is "data" or "shard", ROWS are those of one process. WHAT is "memory":
prints by how many bytes the process grew at most over what it held after a tiny training; or "flops": prints those of
one forward and backward pass.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from rss_of_step import gpt, product_flops, status
from torch.utils.flop_counter import FlopCounterMode

import glassformer as gf
from glassformer.tasks.objectives import causal_lm
from glassformer.text.examples import TextBatch
from glassformer.training.gradients import accumulate
from glassformer.training.parallel import Learner, applied, placed
from glassformer.training.ranks import Ranks, processes
from glassformer.training.recipes import Parallel


def learner_of(config: gf.Config, layout: str, ranks: Ranks) -> Learner:
    """A network as this process trains it with the other one, the numbers of which it never had whole if sharded."""
    if layout == "data":
        return applied(gf.Decoder(config).train(), causal_lm, Parallel(data=2), ranks, torch.device("cpu"))
    with torch.device("meta"):
        network = gf.Decoder(config).train()
    learner = applied(network, causal_lm, Parallel(shard=2), ranks, torch.device("cpu"))
    learner.network.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in learner.network.parameters():
            parameter.to_local().normal_(0.0, 0.02)  # type: ignore[operator]
    return learner


def batch_of(config: gf.Config, rows: int) -> TextBatch:
    ids = torch.randint(0, config.vocab_size, (rows, config.max_length))
    return TextBatch(ids, ids)


def gradients(learner: Learner, batches: list[Any], ranks: Ranks, step: int) -> None:
    options: dict[str, Any] = {"joined": learner.joined, "shares": learner.shares, "ranks": ranks}
    accumulate(learner.network, learner.objective, batches, seed=1, step=step, **options)


def steps(learner: Learner, batches: list[Any], ranks: Ranks, times: int) -> None:
    optimizer = torch.optim.AdamW(learner.network.parameters(), fused=True)
    for step in range(times):
        optimizer.zero_grad(set_to_none=True)
        gradients(learner, batches, ranks, step)
        optimizer.step()


def grown(config: gf.Config, layout: str, rows: int, micro_batches: int, ranks: Ranks) -> int:
    """Bytes by which two steps made this process larger."""
    tiny = gpt(1, 64, 100, config.max_length)
    steps(learner_of(tiny, layout, ranks), [batch_of(tiny, rows)], ranks, 2)
    idle = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    steps(learner_of(config, layout, ranks), [batch_of(config, rows)] * micro_batches, ranks, 2)
    return status("VmHWM") - idle


def computed(config: gf.Config, layout: str, rows: int, ranks: Ranks) -> int:
    """FLOPs of one micro-batch, as torch counts them."""
    learner = learner_of(config, layout, ranks)
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: product_flops}) as counter:
        gradients(learner, [batch_of(config, rows)], ranks, 0)
    return counter.get_total_flops()


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, layout = sys.argv[1:3]
    layers, width, vocabulary, rows, length, micro_batches = map(int, sys.argv[3:])
    with processes() as ranks:
        ranks = placed(ranks, Parallel(**{layout: 2}))
        config = gpt(layers, width, vocabulary, length)
        found = (
            grown(config, layout, rows, micro_batches, ranks)
            if what == "memory"
            else computed(config, layout, rows, ranks)
        )
        print(found)
