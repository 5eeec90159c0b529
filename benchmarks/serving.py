"""Serving beside llama-server: 16 concurrent streams of SmolLM2-135M-Instruct over HTTP, the same load for both.

    python benchmarks/serving.py                 # tokens a second in all, time to first token, HTTP beside the engine
    python benchmarks/serving.py --rounds 1 --requests 1 --no-llama
    python benchmarks/serving.py --parts single  # HTTP beside the engine alone

Both servers run from the Q4_1 file, on --threads threads, and one is stopped while the other is asked. In a round, so
many clients each send --requests prompts of random ids one after another, no two alike, and read a stream of exactly
--tokens tokens each. Times are the client's: to the first event, and between events. The clients share the processor
with the server, on both sides alike. The second part is one stream: over HTTP, beside the same engine without it; the
server is a new one then, and no other program is loaded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import goals
import torch
from goals import Goal, compared, row_line
from gpt import NAME, Ours, arguments, random_ids, weights_file
from http_load import Seen, Server, ask, free_port, llama_command, load, our_command, quantile, resting, served
from machine import machine_limits
from peers.llama_cpp import programs
from rounds import machine_lines, rate, ratio, spread, take_turns

OURS, THEIRS = "ours", "llama-server"
TOKENS, FIRST, HTTP = goals.STREAMS, Goal(1.0, 0.5, at_most=True), Goal(1.05, 1.02, at_most=True)
Times = dict[str, dict[str, list[float]]]


def our_server(given: argparse.Namespace) -> AbstractContextManager[Server]:
    """Ours, as it is asked in both parts."""
    port = free_port()
    command = our_command(NAME, given.precision, given.streams, given.streams, port)
    return served(OURS, NAME, command, port, given.threads)


def servers(given: argparse.Namespace, stack: ExitStack) -> dict[str, Server]:
    """Ours, and llama-server unless it is left out."""
    found = {OURS: stack.enter_context(our_server(given))}
    if not given.no_llama:
        port, folder = free_port(), programs(given.llama_bin, given.threads)
        command = llama_command(folder, weights_file(), given.threads, given.streams, port)
        found[THEIRS] = stack.enter_context(served(THEIRS, NAME, command, port, given.threads))
    return found


def many(given: argparse.Namespace, found: Mapping[str, Server]) -> dict[str, Any]:
    """All streams at once, in turns; the first round does not count."""
    times: Times = {name: {"first p50": [], "first p99": [], "between p50": [], "between p99": []} for name in found}
    asked = dict.fromkeys(found, 0)

    def run(name: str) -> float:
        asked[name] += 1  # both get the same prompts in the same round
        shape = (given.streams, given.requests, given.prompt)
        with resting(server for other, server in found.items() if other != name):
            seconds, seen = asyncio.run(load(found[name], random_ids(shape, asked[name]), given.tokens))
        check(seen, given.streams * given.requests * given.tokens, name)
        for what, values in (("first", seen.first), ("between", seen.between)):
            times[name][f"{what} p50"].append(quantile(values, 0.5))
            times[name][f"{what} p99"].append(quantile(values, 0.99))
        return seconds

    seconds = take_turns({name: (lambda name=name: run(name)) for name in found}, given.rounds + 1)
    seconds = {name: values[1:] for name, values in seconds.items()}
    kept = {name: {what: values[1:] for what, values in own.items()} for name, own in times.items()}
    tokens = given.streams * given.requests * given.tokens
    rows = []
    if THEIRS in found:
        rows.append({**compared(seconds, OURS, THEIRS, TOKENS), "note": "tokens a second in all"})
        for what, values in kept[THEIRS].items():
            value = ratio(values, kept[OURS][what]).as_mapping()  # seconds: theirs below ours
            judged = FIRST.judged(value) if what.startswith("first") else value
            rows.append({"ours": OURS, "theirs": THEIRS, **judged, "note": f"seconds, {what}"})
    return {
        "tokens_per_second": {name: rate(values, tokens).as_mapping() for name, values in seconds.items()},
        "seconds": {name: {what: quantile(v, 0.5) for what, v in own.items()} for name, own in kept.items()},
        "rows": rows,
    }


def check(seen: Seen, tokens: int, name: str) -> None:
    if seen.tokens != tokens:
        raise RuntimeError(f"{name} wrote {seen.tokens} tokens, {tokens} were asked for.")


def single(given: argparse.Namespace, server: Server) -> dict[str, Any]:
    """One stream over HTTP beside the engine alone, in turns."""
    ours = Ours(given.precision)
    ours.ready()
    count = {"engine": 0, "HTTP": 0}

    def prompt(name: str) -> list[int]:
        count[name] += 1
        return list(random_ids((given.prompt,), 1000 + count[name]))

    def over_http() -> float:
        begin = time.perf_counter()
        asyncio.run(ask(server, prompt("HTTP"), given.single_tokens, Seen()))
        return time.perf_counter() - begin

    runs = {"engine": lambda: ours.steps(prompt("engine"), given.single_tokens)[0], "HTTP": over_http}
    seconds = {name: values[1:] for name, values in take_turns(runs, given.rounds + 1).items()}
    value = ratio(seconds["engine"], seconds["HTTP"]).as_mapping()
    return {"ours": "HTTP", "theirs": "the engine", **HTTP.judged(value), "note": "seconds, one stream"}


def lines(result: Mapping[str, Any]) -> list[str]:
    """The report for people."""
    text = machine_lines(result["machine"])
    text.append(f"{result['work']}; SmolLM2-135M-Instruct; median (lowest … highest) of {result['rounds']} rounds")
    for name, value in result["tokens_per_second"].items():
        text.append(f"  {name:<14} {spread(value, 1)} tokens a second")
        text.append("  " + " " * 15 + ", ".join(f"{what} {v:.3f} s" for what, v in result["seconds"][name].items()))
    return text + ["ratios, round by round:", *map(row_line, result["rows"])]


def parsed() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--streams", type=int, default=16, help="clients at once")
    parser.add_argument("--requests", type=int, default=3, help="that each client sends, one after another")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--single-tokens", type=int, default=128, help="tokens of the one stream")
    parser.add_argument("--precision", default="stored")
    parser.add_argument("--parts", nargs="+", choices=["many", "single"], default=["many", "single"])
    parser.add_argument("--no-llama", action="store_true", help="ours alone")
    return parser.parse_args()


def main() -> None:
    given = parsed()
    torch.set_num_threads(given.threads)
    for kind in ("one", "many", "prompt"):
        Ours(given.precision, kind).ready()  # compiled code is there before the server starts
    result: dict[str, Any] = {"tokens_per_second": {}, "seconds": {}, "rows": []}
    if "many" in given.parts:
        with ExitStack() as stack:
            result = many(given, servers(given, stack))
    if "single" in given.parts:
        with our_server(given) as server:
            result["rows"].append(single(given, server))
    work = (
        f"{given.streams} clients, {given.requests} requests each, {given.prompt} tokens read, {given.tokens} written"
    )
    result |= {"work": work, "rounds": given.rounds, "machine": machine_limits(given.threads)}
    print(json.dumps(result, indent=2) if given.json else "\n".join(lines(result)))


if __name__ == "__main__":
    sys.exit(main())
