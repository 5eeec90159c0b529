"""Scores of uncertainty beside lm-polygraph 0.7's own, on the same answers of the same weights, in one run.

    python benchmarks/uncertainty_peer.py [--questions FILE] [--count 100] [--json]

SmolLM2-135M-Instruct, in fp32 and exported from its GGUF file, answers questions with three examples before them; our
records of that generation are scored by us, and the same ids after the same prompts by lm-polygraph's maximum sequence
probability, perplexity and mean token entropy on transformers. The largest difference must not exceed 0.01.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from goals import Goal
from gpt import NAME
from peer import Peer, peer_python

import glassformer as gf
from glassformer.factuality.records import record
from glassformer.factuality.uncertainty import ONE_PASS

SHOTS = (
    "Q: What is the capital of France?\nA: Paris\n"
    "Q: Who wrote Hamlet?\nA: William Shakespeare\n"
    "Q: What is the largest planet?\nA: Jupiter\n"
)
SUBJECTS = ("Italy", "Peru", "Kenya", "Norway", "Japan", "Chad", "Nepal", "Cuba", "Laos", "Fiji")
FORMS = (
    "What is the capital of {}?",
    "Which language is spoken in {}?",
    "On which continent is {}?",
    "Who was the first president of {}?",
    "What is the currency of {}?",
)
PAIRS = {
    "sequence probability": "MaximumSequenceProbability",
    "perplexity": "Perplexity",
    "mean entropy": "MeanTokenEntropy",
}
"""Our names and theirs."""

WITHIN = Goal(0.01, 0.001, at_most=True)
"""The largest difference of any score."""


def questions_of(path: Path | None, count: int) -> list[str]:
    """The questions of a file, else fifty of our own."""
    if path is None:
        return [form.format(subject) for form in FORMS for subject in SUBJECTS][:count]
    from glassformer.factuality.questions import read_questions

    return [one.question for one in read_questions(path, limit=count)]


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured, as plain values."""
    torch.set_num_threads(given.threads)
    python = peer_python("lm-polygraph", given.peer_python)
    prompts = [f"{SHOTS}Q: {question}\nA:" for question in questions_of(given.questions, given.count)]
    with tempfile.TemporaryDirectory() as folder, Peer("lm_polygraph", python, given.threads) as peer:
        model = gf.load(NAME)
        model.save_pretrained(folder)
        about = peer.ask("build", folder=folder, threads=given.threads)
        records = record(model, prompts, max_new_tokens=given.tokens, stop="\n")
        asked = [list(one.prompt_ids) for one in records]
        theirs = peer.ask("score", prompts=asked, answers=[list(one.ids) for one in records])
    rows = []
    for name, own in PAIRS.items():
        values = [ONE_PASS[name].function(one) for one in records]
        pairs = list(zip(values, theirs[own], strict=True))
        largest = max(abs(a - b) for a, b in pairs)
        rows.append({"score": name, "theirs": own, "mean": sum(values) / len(values), "largest_difference": largest,
                     **{k: v for k, v in WITHIN.judged({"median": largest}).items() if k != "median"}})  # fmt: skip
    tokens = sum(len(one.ids) for one in records)
    return {"work": f"{len(records)} answers of {NAME}, fp32", "tokens": tokens, "peer": about, "rows": rows}


def lines(result: Mapping[str, Any]) -> list[str]:
    """The report for people."""
    versions = ", ".join(f"{name} {version}" for name, version in result["peer"].items())
    text = [f"{result['work']}, {result['tokens']} tokens; {versions}"]
    for row in result["rows"]:
        text.append(
            f"  {row['score']:<21} {row['theirs']:<27} mean {row['mean']:8.4f}, largest difference "
            f"{row['largest_difference']:.1e}; floor {row['floor']:g}: {row['reached']}"
        )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=Path, help="a file that `read_questions` reads; else fifty of our own")
    parser.add_argument("--count", type=int, default=100, help="the most questions")
    parser.add_argument("--tokens", type=int, default=24, help="the most tokens of an answer")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--peer-python", help="one that has lm-polygraph; else its environment is made")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result = compare(given)
    print(json.dumps(result, indent=2) if given.json else "\n".join(lines(result)))


if __name__ == "__main__":
    main()
