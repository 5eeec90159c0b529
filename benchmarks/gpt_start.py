"""From the start of a process to its first token: `glassformer generate` beside llama.cpp's `llama-completion`.

    python benchmarks/gpt_start.py [--json] [--precisions stored fp32]

A prompt of 32 tokens, one new token; the clock runs from spawning the process to the first byte on its standard output.
Ours runs twice a round: with an empty cache folder, where the kernels have to be compiled first, and with the cache
that an earlier run has left. The system has read all files before on both sides.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import goals
from gpt import NAME, arguments, llama_kinds
from machine import machine_limits
from peers.llama_cpp import KINDS, seconds_to_first_byte
from rounds import Spread, machine_lines, spread, take_turns

import glassformer

TEXT = (
    "Once upon a time there was a small village between two high mountains, where a clockmaker lived who could hear "
    "what every clock was thinking, and one morning all of them were silent at once, so he took"
)
PROMPT_TOKENS = 32


def prompt() -> str:
    """The beginning of `TEXT` that is 32 tokens."""
    tokenizer = glassformer.load(NAME, precision="stored").tokenizer
    text = tokenizer.decode(tokenizer.encode(TEXT)[:PROMPT_TOKENS])
    assert len(tokenizer.encode(text)) == PROMPT_TOKENS
    return text


def ours(text: str, precision: str, threads: int, cache: Path | None) -> float:
    """Seconds of our command; without `cache`, in a folder that is new and empty."""
    command = [sys.executable, "-m", "glassformer", "generate", "--model", NAME, "--precision", precision]
    command += ["--max-new-tokens", "1", text]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's Python keeps what it has compiled
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as empty:
        environment["GLASSFORMER_CACHE"] = str(cache or empty)
        return seconds_to_first_byte(command, environment)


def compare(given: Any) -> dict[str, Any]:
    text = prompt()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        competitors: dict[str, Callable[[], float]] = {}
        for precision in given.precisions:
            run = functools.partial(ours, text, precision, given.threads)
            competitors[f"ours {precision}, empty cache"] = functools.partial(run, None)
            competitors[f"ours {precision}, after"] = functools.partial(run, Path(folder))
        for name, llama in llama_kinds(given.llama_bin, given.threads, given.kinds).items():
            competitors[name] = functools.partial(llama.first_byte, text)
        print("warming up", file=sys.stderr, flush=True)
        take_turns(competitors, 1)
        seconds = take_turns(competitors, given.rounds)
    return {
        "work": "process start to first token",
        "prompt_tokens": PROMPT_TOKENS,
        "seconds": {name: judged(name, Spread.of(values).as_mapping()) for name, values in seconds.items()},
        "rounds": given.rounds,
        "machine": machine_limits(given.threads),
    }


def judged(name: str, value: Mapping[str, float]) -> dict[str, Any]:
    """Ours beside what the issue asks of it."""
    if not name.startswith("ours"):
        return dict(value)
    return (goals.START_EMPTY if name.endswith("empty cache") else goals.START_AFTER).judged(value)


def lines(result: Mapping[str, Any]) -> list[str]:
    """The report for people."""
    text = machine_lines(result["machine"])
    text.append(
        f"{result['work']}, a prompt of {result['prompt_tokens']} tokens; SmolLM2-135M-Instruct; seconds, median "
        f"(lowest … highest) of {result['rounds']} rounds:"
    )
    for name, value in result["seconds"].items():
        marks = (
            f"; floor ≤ {value['floor']:g} s, goal {value['goal']:g} s: {value['reached']}" if "floor" in value else ""
        )
        text.append(f"  {name:<26} {spread(value, 2)}{marks}")
    return text


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--precisions", nargs="+", default=["stored", "fp32"], help="ours; stored is the command's own")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS[:1]), help="llama.cpp's")
    given = parser.parse_args()
    result = compare(given)
    print(json.dumps(result, indent=2) if given.json else "\n".join(lines(result)))


if __name__ == "__main__":
    main()
