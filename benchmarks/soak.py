"""A server under twice the load that it can carry, with clients that go away, for as long as one likes.

    python benchmarks/soak.py --minutes 30

Before, each prompt is asked alone: its answer is the reference. Then twice as many clients as the server has streams
ask for answers at random, and some leave in the middle. Every answer, and every part of one, has to be its reference;
where the reference's two most probable tokens are as good as equal (--tie), the two may part, since sums of other
shapes round otherwise, and that is counted. The memory of the server must be flat: the last fifth of the time beside
the second. The verdict is JSON; the exit code is 1 where it is not "passed".
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from gpt import NAME, random_ids
from http_load import Refused, Server, free_port, our_command, served, stream

FLAT = 0.05
SAMPLE_SECONDS = 2.0


@dataclass(frozen=True)
class Reference:
    """A prompt, its answer's tokens as text, and by how much each was more probable than the next best."""

    ids: list[int]
    tokens: list[str]
    margins: list[float]


@dataclass
class Soak:
    """What happened. `wrong` has a few answers that were not their references."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[dict[str, Any]] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


async def answer(server: Server, ids: list[int], new: int, most: int | None = None) -> tuple[list[str], list[float]]:
    """The tokens of an answer and their margins; the first `most` alone, then the connection is cut."""
    tokens: list[str] = []
    margins: list[float] = []
    events = stream(server, {"prompt": ids, "max_tokens": new, "temperature": 0, "logprobs": 2})
    try:
        async for event in events:
            for choice in event.get("choices", ()):
                if told := choice.get("logprobs"):
                    tokens += told["tokens"]
                    for best in told["top_logprobs"]:
                        first, second = sorted(best.values(), reverse=True)[:2]
                        margins.append(first - second)
            if most is not None and len(tokens) >= most:
                return tokens[:most], margins[:most]
    finally:
        await events.aclose()
    return tokens, margins


def prompts(number: int, seed: int) -> list[list[int]]:
    """Prompts of many lengths; every second one begins as others do."""
    chance = random.Random(seed)
    begin = list(random_ids((96,), seed))
    made = []
    for each in range(number):
        own = list(random_ids((chance.choice((4, 16, 50, 150)),), seed + 1 + each))
        made.append([*begin, *own] if each % 2 else own)
    return made


def judge(soak: Soak, reference: Reference, tokens: list[str], whole: bool, tie: float) -> None:
    """Whether an answer, or its beginning, is its reference."""
    pairs = zip(tokens, reference.tokens, strict=False)
    parted = next((place for place, (own, wanted) in enumerate(pairs) if own != wanted), None)
    if parted is not None and reference.margins[parted] <= tie:
        soak.counts["parted_at_a_tie"] += 1
    elif parted is not None or (whole and len(tokens) != len(reference.tokens)):
        soak.counts["wrong"] += 1
        if len(soak.wrong) < 5:
            margin = None if parted is None else round(reference.margins[parted], 4)
            texts = {"got": "".join(tokens), "wanted": "".join(reference.tokens)}
            soak.wrong.append({"place": parted, "margin": margin, **texts})
    else:
        soak.counts["right" if whole else "right_until_left"] += 1


async def client(server: Server, given: argparse.Namespace, soak: Soak, known: list[Reference], number: int) -> None:
    chance, end = random.Random(f"{given.seed} {number}"), soak_end(given)
    while time.monotonic() < end:
        reference = chance.choice(known)
        most = chance.randint(1, given.tokens) if chance.random() < given.leaving else None
        try:
            tokens, _ = await answer(server, reference.ids, given.tokens, most)
        except Refused as refused:
            soak.counts[f"status_{refused.status}"] += 1
            await asyncio.sleep(min(refused.retry_after, 2.0) if refused.status == 429 else 0.1)
            continue
        except (OSError, RuntimeError, asyncio.IncompleteReadError) as error:
            soak.counts["lost"] += 1
            soak.wrong.append({"error": repr(error)[:300]})
            continue
        judge(soak, reference, tokens, most is None, given.tie)


def soak_end(given: argparse.Namespace) -> float:
    return float(given.begin + 60 * given.minutes)


async def watch(server: Server, given: argparse.Namespace, soak: Soak) -> None:
    """The server's memory, from time to time."""
    while time.monotonic() < soak_end(given):
        soak.memory.append(server.resident_mb())
        await asyncio.sleep(SAMPLE_SECONDS)


async def run(server: Server, given: argparse.Namespace) -> Soak:
    known = []
    for ids in prompts(given.prompts, given.seed):
        known.append(Reference(ids, *await answer(server, ids, given.tokens)))
    print(f"{len(known)} references; soaking for {given.minutes} min", file=sys.stderr, flush=True)
    soak, given.begin = Soak(), time.monotonic()
    clients = [client(server, given, soak, known, number) for number in range(2 * given.streams)]
    await asyncio.gather(watch(server, given, soak), *clients)
    return soak


def verdict(soak: Soak, given: argparse.Namespace) -> dict[str, Any]:
    """What came of it, and whether that is good."""
    fifth = max(len(soak.memory) // 5, 1)
    early, late = median(soak.memory[fifth : 2 * fifth] or soak.memory), median(soak.memory[-fifth:])
    growth = late / early - 1
    allowed = {"right", "right_until_left", "parted_at_a_tie", "status_429"}
    bad = sum(count for name, count in soak.counts.items() if name not in allowed)
    passed = not bad and soak.counts["right"] > 0 and growth <= FLAT
    return {
        "verdict": "passed" if passed else "failed",
        "minutes": given.minutes,
        "streams": given.streams,
        "clients": 2 * given.streams,
        "answers": dict(sorted(soak.counts.items())),
        "memory_mb": {"early": round(early, 1), "late": round(late, 1), "growth": round(growth, 4), "most": FLAT},
        "wrong": soak.wrong[:5],
    }


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--model", default=NAME)
    parser.add_argument("--precision", default="fp32", help="in few bits answers differ a little by the shape of sums")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--queue", type=int, default=8, help="fewer than clients wait, so that some are refused")
    parser.add_argument("--tokens", type=int, default=48, help="of an answer")
    parser.add_argument("--prompts", type=int, default=24, help="different ones")
    parser.add_argument("--leaving", type=float, default=0.3, help="share of answers that are left in the middle")
    parser.add_argument(
        "--tie", type=float, default=0.001, help="a lead of so little (in nats) is as good as none; 0.3 for stored"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> int:
    given, port = parsed(), free_port()
    command = our_command(given.model, given.precision, given.streams, given.queue, port)
    with served("ours", given.model, command, port, given.threads) as server:
        found = verdict(asyncio.run(run(server, given)), given)
    print(json.dumps(found, indent=2))
    return 0 if found["verdict"] == "passed" else 1


if __name__ == "__main__":
    sys.exit(main())
