"""Patching the residual stream at every layer and position, beside TransformerLens, in one run.

    python benchmarks/patching.py [--rounds 5] [--json]

The model has the shape of GPT-2 small (12 layers, 768 wide) and random weights, the text 32 tokens; each of the 384
runs puts in what the residual stream before one layer had at one position in another, corrupted, text, and reads the
logits at the end. Both sides begin with the run of the corrupted text. All 384 × 50,257 logits are compared once.
Beside it: what a trace of one site takes against the plain forward pass of the same model.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import goals
import numpy
import torch
from goals import compared, row_line
from machine import machine_limits
from peer import Peer, peer_python
from rounds import machine_lines, spread, take_turns
from torch import Tensor

import glassformer as gf

LENGTH = 32
SITE = "residual_pre[*] @ *"
FORWARDS = 20
"""Forward passes in a round of the second comparison: one is too short to be timed alone."""


class Ours:
    """Our model of the peer's weights."""

    def __init__(self, folder: Path, clean: list[int], corrupted: list[int]) -> None:
        self.network = gf.load(folder).network.eval()
        self.clean, self.corrupted = [clean], [corrupted]
        self.seen: list[Tensor] = []

    def patch(self) -> float:
        begin = time.perf_counter()
        self._sweep(lambda logits, rows: logits[:, 0])
        return time.perf_counter() - begin

    def logits(self) -> Tensor:
        """All logits, [layers, positions, V]: the metric is the number under which each is kept."""
        self.seen = []

        def number(logits: Tensor, rows: Any) -> Tensor:
            first = sum(map(len, self.seen))
            self.seen.append(logits)
            return torch.arange(first, first + len(logits)).float()

        found = self._sweep(number).values[0, :, 0].long()
        return torch.cat(self.seen)[found]

    def _sweep(self, metric: Callable[[Tensor, Any], Tensor]) -> Any:
        return gf.sweep(self.network, self.clean, gf.patch, over=SITE, source=self.corrupted, metric=metric)

    def plain(self) -> float:
        ids = torch.tensor(self.clean).expand(8, -1)
        begin = time.perf_counter()
        with torch.no_grad():
            for _ in range(FORWARDS):
                self.network.hidden(ids)
        return time.perf_counter() - begin

    def traced(self) -> float:
        ids = torch.tensor(self.clean).expand(8, -1)
        begin = time.perf_counter()
        for _ in range(FORWARDS):
            gf.trace(self.network, ids, f"residual_post[{len(self.network.stack.blocks) // 2}] @ *")
        return time.perf_counter() - begin


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured, as plain values."""
    torch.set_num_threads(given.threads)
    generator = torch.Generator().manual_seed(0)
    clean, corrupted = torch.randint(10, 50_000, (2, LENGTH), generator=generator).tolist()
    python = peer_python("transformer-lens", given.peer_python)
    with tempfile.TemporaryDirectory() as place, Peer("transformer_lens", python, given.threads) as peer:
        about = peer.ask("build", folder=place, layers=given.layers, threads=given.threads)
        ours, file = Ours(Path(place), clean, corrupted), str(Path(place) / "logits.npy")
        texts = {"clean": clean, "corrupted": corrupted, "layers": given.layers}
        peer.ask("patch", **texts, out=file)
        difference = float((ours.logits() - torch.from_numpy(numpy.load(file))).abs().max())
        ours.traced(), ours.plain()
        seconds = take_turns(
            {"ours": ours.patch, "TransformerLens": lambda: float(peer.ask("patch", **texts, out="")["seconds"])},
            given.rounds,
        )
        sites = take_turns({"one site traced": ours.traced, "plain forward": ours.plain}, max(5, given.rounds))
    slower = compared(sites, "plain forward", "one site traced")
    return {
        "work": f"residual patching, {given.layers} layers × {LENGTH} positions, GPT-2 small with random weights",
        "transformer_lens": about,
        "largest_difference_of_logits": difference,
        "seconds": {name: spread_of(values) for name, values in {**seconds, **sites}.items()},
        "rows": [
            compared(seconds, "ours", "TransformerLens", goals.PATCHING),
            {**slower, **goals.ONE_SITE.judged({key: slower[key] for key in ("median", "low", "high")}),
             "ours": "time of one site traced", "theirs": "plain forward"},
        ],
        "rounds": given.rounds,
        "machine": machine_limits(given.threads),
    }  # fmt: skip


def spread_of(values: list[float]) -> dict[str, float]:
    """Median and range."""
    from rounds import Spread

    return Spread.of(values).as_mapping()


def lines(result: Mapping[str, Any]) -> list[str]:
    """The report for people."""
    text = [
        *machine_lines(result["machine"]),
        f"{result['work']}; TransformerLens {result['transformer_lens']['transformer_lens']}; median (lowest … highest)"
        f" of {result['rounds']} rounds; largest difference of all logits {result['largest_difference_of_logits']:.1e}",
    ]
    text += [f"  {name:<20} {spread(value, 2)} s" for name, value in result["seconds"].items()]
    return [*text, "ratios, round by round:", *map(row_line, result["rows"])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--peer-python", help="one that has transformer-lens; else its environment is made")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result = compare(given)
    print(json.dumps(result, indent=2) if given.json else "\n".join(lines(result)))


if __name__ == "__main__":
    main()
