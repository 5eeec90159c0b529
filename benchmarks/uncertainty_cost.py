"""What the one-pass scores of uncertainty cost: generation with them and without, in turns, in one run.

    python benchmarks/uncertainty_cost.py [--streams 16] [--precision stored] [--rounds 9] [--json]

SmolLM2-135M-Instruct goes on from a prompt of 32 tokens by 128, greedily. Plain is `Model.generate` as it is by
default, which tells the log-probability of each token. "scores" is `record` with every score of `ONE_PASS`: entropies
and margins come from the logits that are there. "scores and states" also keeps the states that a truth probe reads.
With --streams, so many prompts go on together.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from goals import Goal, compared, row_line
from gpt import NAME, random_ids
from machine import machine_limits
from rounds import Spread, machine_lines, spread, take_turns

import glassformer as gf
from glassformer.factuality.records import record
from glassformer.factuality.uncertainty import ONE_PASS

PROMPT = 32
COST = Goal(1.05, 1.02, at_most=True)
"""The time of generation with the scores, in times of plain generation."""


class Writer:
    """The model, its prompts, and what it wrote last."""

    def __init__(self, precision: str, streams: int, tokens: int) -> None:
        self.model = gf.load(NAME, precision=precision)  # type: ignore[arg-type]
        self.prompts, self.tokens = random_ids((streams, PROMPT)), tokens
        self.written: dict[str, list[tuple[int, ...]]] = {}
        if hasattr(self.model.running, "compile"):
            self.model.running.compile("one" if streams == 1 else "many", "prompt")

    def plain(self) -> float:
        return self._timed("plain", lambda: self.model.generate(self.prompts, **self._settings()))

    def scores(self) -> float:
        return self._timed("scores", lambda: self._records(None))

    def states(self) -> float:
        return self._timed("scores and states", lambda: self._records("ends"))

    def _records(self, keep: Any) -> Any:
        found = record(self.model, self.prompts, keep=keep, **self._settings())
        for one in found:
            for score in ONE_PASS.values():
                score.function(one)
        return found

    def _settings(self) -> dict[str, Any]:
        return {"max_new_tokens": self.tokens, "ignore_eos": True}

    def _timed(self, name: str, run: Callable[[], Any]) -> float:
        begin = time.perf_counter()
        found = run()
        seconds = time.perf_counter() - begin
        self.written[name] = [one.ids for one in found]
        return seconds


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured, as plain values."""
    torch.set_num_threads(given.threads)
    writer = Writer(given.precision, given.streams, given.tokens)
    competitors = {"plain": writer.plain, "scores": writer.scores, "scores and states": writer.states}
    for run in competitors.values():
        run()
    seconds = take_turns(competitors, given.rounds)
    rows = []
    for name in ("scores", "scores and states"):
        cost = compared(seconds, "plain", name)
        judged = COST.judged({key: cost[key] for key in ("median", "low", "high")})
        rows.append({**judged, "ours": f"time with {name}", "theirs": "plain"})
    return {
        "work": f"{given.streams} × {given.tokens} tokens, {NAME}, {given.precision}",
        "same_tokens": all(ids == writer.written["plain"] for ids in writer.written.values()),
        "seconds": {name: Spread.of(values).as_mapping() for name, values in seconds.items()},
        "rows": rows,
        "rounds": given.rounds,
        "machine": machine_limits(given.threads),
    }


def lines(result: Mapping[str, Any]) -> list[str]:
    """The report for people."""
    text = [
        *machine_lines(result["machine"]),
        f"{result['work']}; median (lowest … highest) of {result['rounds']} rounds; "
        f"{'the same' if result['same_tokens'] else 'DIFFERENT'} tokens",
    ]
    text += [f"  {name:<18} {spread(value, 3)} s" for name, value in result["seconds"].items()]
    return [*text, "ratios, round by round:", *map(row_line, result["rows"])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--precision", default="stored")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result = compare(given)
    print(json.dumps(result, indent=2) if given.json else "\n".join(lines(result)))


if __name__ == "__main__":
    main()
