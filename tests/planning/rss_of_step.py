"""A child process: real training steps of a GPT on one thread, and by how much it grew. Prints bytes.

It first takes a step of a tiny network, so that libraries and their buffers are there already.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

import glassformer as gf
from glassformer.tasks.objectives import causal_lm
from glassformer.text.examples import TextBatch


def gpt(layers: int, width: int, vocabulary: int, length: int) -> gf.Config:
    """A GPT-3 of that shape, with heads of 64."""
    return replace(
        gf.sizes["gpt3-small"],
        d_model=width,
        n_heads=width // 64,
        d_head=None,
        d_ff=4 * width,
        n_decoder_layers=layers,
        vocab_size=vocabulary,
        max_length=length,
    )


def steps(config: gf.Config, rows: int, micro_batches: int, times: int) -> None:
    network = gf.Decoder(config).train()
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    ids = torch.randint(0, config.vocab_size, (rows, config.max_length))
    for _ in range(times):
        optimizer.zero_grad(set_to_none=True)
        for _ in range(micro_batches):
            causal_lm(network, TextBatch(ids, ids)).mean.backward()
        optimizer.step()


def product_flops(total: torch.Size, left: torch.Size, right: torch.Size, **_: object) -> int:
    """Of a product that is added in place, with which the head sums its gradient: torch has no formula of its own."""
    return 2 * left[0] * left[1] * right[1]


def status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


if __name__ == "__main__":
    torch.set_num_threads(1)
    layers, width, vocabulary, rows, length, micro_batches = map(int, sys.argv[1:])
    steps(gpt(1, 64, 100, length), rows, 1, 1)
    idle = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    steps(gpt(layers, width, vocabulary, length), rows, micro_batches, 2)
    print(status("VmHWM") - idle)
