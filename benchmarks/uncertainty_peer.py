"""Scores of uncertainty beside lm-polygraph 0.7's own, on the same answers of the same weights, in one run.

    python benchmarks/uncertainty_peer.py --data-root DATA [--count 600] [--json]

SmolLM2-135M-Instruct, in fp32 and exported from its GGUF file, answers relation questions with three examples before
them. Our records of that generation are scored by us, and the same ids after the same prompts by lm-polygraph on
transformers: its maximum sequence probability, perplexity, mean token entropy and RAUQ, its prediction-rejection area
and scikit-learn's AUROC. Scores, AUROC and PRR must agree to 0.01.

Then on three quarters of the questions, by entity: our best score of one pass (the best on the other quarter) and
everything of one pass with the truth probe, learnt from other entities, each less lm-polygraph's best *here*.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from goals import ROOT, Goal
from gpt import NAME
from peer import Peer, peer_python

import glassformer as gf
from glassformer.errors import InputError
from glassformer.factuality.detection import auroc, prr, with_interval
from glassformer.studies.hallucination import signals
from glassformer.studies.hallucination.bench import Bench
from glassformer.studies.hallucination.detecting import best_of, paired, plain
from glassformer.studies.hallucination.signals import Answers, Column
from glassformer.studies.study import Setting

PAIRS = {
    "sequence probability": "MaximumSequenceProbability",
    "perplexity": "Perplexity",
    "mean entropy": "MeanTokenEntropy",
    "recurrent attention, writing": "RAUQ",
}
"""Our names and theirs. RAUQ is not among the three that the issue names: it shows that the attention is theirs."""

NAMED = ("MaximumSequenceProbability", "Perplexity", "MeanTokenEntropy")
WITHIN = Goal(0.01, 0.001, at_most=True)
"""The largest difference of any score, and of any AUROC and PRR."""
BEST, WITH_PROBE = Goal(0.0, 0.0), Goal(0.0, 0.05)
"""AUROC of our best score of one pass, and of ours with the probe, less their best."""


def asked(given: argparse.Namespace, out: Path) -> tuple[Bench, Answers]:
    """The model, and its answers with their labels."""
    beside = ROOT.parent / "shared" / "data"
    bench = Bench(NAME, gf.load(NAME), given.data_root or (beside if beside.is_dir() else None), out)
    setting = Setting("quick", given.threads, say=given.say)
    questions = bench.relation_questions(setting, given.count)
    asking = bench.asking(questions)
    return bench, Answers.split(bench.answered(questions, asking, setting), bench.seed)


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured, as plain values."""
    torch.set_num_threads(given.threads)
    python = peer_python("lm-polygraph", given.peer_python)
    with tempfile.TemporaryDirectory() as folder, Peer("lm_polygraph", python, given.threads) as peer:
        bench, answers = asked(given, given.out or Path(folder) / "study")
        bench.model.save_pretrained(folder)
        about = peer.ask("build", folder=folder, threads=given.threads)
        rows = tuple(range(len(answers.all)))
        records = answers.records(rows)
        given.say(f"lm-polygraph scores {len(rows)} answers")
        theirs = peer.ask("score", prompts=[one.prompt_ids for one in records], answers=[one.ids for one in records])
        wrong = answers.wrong(rows).astype(int).tolist()
        judged = peer.ask("judge", scores=theirs, wrong=wrong)
    told = signals.one_pass(answers)
    looked = signals.attention(answers, rows, bench.model, given.say)
    learnt, layer = signals.probes(answers, rows, bench.model, signals.layers_tried(bench.model), bench.seed, given.say)
    ours = [*told, *looked]
    combined = signals.together(answers, "ours with the probe", "", [*ours, learnt[0]], bench.seed)
    return {
        "work": f"{len(rows)} answers of {NAME}, fp32, {sum(wrong)} of them wrong",
        "tokens": sum(len(one.ids) for one in records),
        "peer": about,
        "rows": same(ours, theirs, judged, wrong),
        "against": against(answers, ours, [learnt[0], combined], theirs),
        "layer": layer,
    }


def same(
    ours: Sequence[Column], theirs: Mapping[str, list[float]], judged: Mapping[str, Any], wrong: Sequence[int]
) -> list[dict[str, Any]]:
    """For each of their scores the largest difference from ours, and AUROC and PRR as both compute them."""
    named, found = {one.name: one.values for one in ours}, []
    for name, own in PAIRS.items():
        added = 1.0 if own == "RAUQ" else 0.0  # theirs begins at 1
        largest = max(abs(a + added - b) for a, b in zip(named[name], theirs[own], strict=True))
        figures = {"auroc": auroc(named[name], wrong), "prr": prr(named[name], wrong)}
        apart = max(abs(value - judged[own][key]) for key, value in figures.items())
        row = {"score": name, "theirs": own, "largest_difference": largest, **figures}
        row |= {f"their_{key}": judged[own][key] for key in figures}
        found.append({**row, **_judged(WITHIN, max(largest, apart))})
    return found


def against(
    answers: Answers, ours: Sequence[Column], learnt: Sequence[Column], theirs: Mapping[str, list[float]]
) -> list[dict[str, Any]]:
    """Our best score of one pass and what is learnt, each with its AUROC and PRR, and less their best, on the test
    questions."""
    everything = range(len(answers.all))
    test = sorted(answers.test)
    wrong, entities = answers.wrong(test), answers.entities(test)
    peers = [Column(name, "one pass", "lm-polygraph", tuple(everything), tuple(theirs[name])) for name in NAMED]
    peer = max(peers, key=lambda one: auroc(one.at(test), wrong))
    best = best_of([one for one in ours if one.paper], answers, everything)
    found = []
    for column, goal in ((best, BEST), *((one, WITH_PROBE) for one in learnt)):
        values = column.at(test)
        figures = {name: plain(with_interval(metric, values, wrong, entities))
                   for name, metric in (("auroc", auroc), ("prr", prr))}  # fmt: skip
        difference = paired(values, peer.at(test), wrong, entities)
        found.append({"score": column.name, "theirs": peer.name, "n": len(test), **figures,
                      "difference": plain(difference), **_judged(goal, difference.value)})  # fmt: skip
    return found


def _judged(goal: Goal, value: float) -> dict[str, Any]:
    return {key: each for key, each in goal.judged({"median": value}).items() if key != "median"}


def lines(result: Mapping[str, Any]) -> list[str]:
    """The report for people."""
    versions = ", ".join(f"{name} {version}" for name, version in result["peer"].items())
    text = [f"{result['work']}, {result['tokens']} tokens; {versions}"]
    for row in result["rows"]:
        text.append(
            f"  {row['score']:<29} {row['theirs']:<27} AUROC {row['auroc']:.4f} (theirs {row['their_auroc']:.4f}), PRR "
            f"{row['prr']:.4f} (theirs {row['their_prr']:.4f}), scores within {row['largest_difference']:.1e}; "
            f"floor {row['floor']:g}: {row['reached']}"
        )
    for row in result["against"]:
        auc, ratio, less = ("{:.3f} ({:.3f} to {:.3f})".format(*row[key]) for key in ("auroc", "prr", "difference"))
        text.append(
            f"  {row['score']:<29} AUROC {auc}, PRR {ratio}, n = {row['n']}; less {row['theirs']}: {less}; "
            f"floor {row['floor']:g}, goal {row['goal']:g}: {row['reached']}"
        )
    return [*text, f"  the probe reads layer {result['layer']}, chosen on the other questions"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="holds relations/factual; ../shared/data where that is there")
    parser.add_argument("--count", type=int, default=600, help="how many questions")
    parser.add_argument("--out", type=Path, help="a study's folder: its answers are used again, and new ones kept")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--peer-python", help="one that has lm-polygraph; else its environment is made")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    given.say = (lambda line: None) if given.json else (lambda line: print(line, flush=True))
    try:
        result = compare(given)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    print(json.dumps(result, indent=2) if given.json else "\n".join(lines(result)))


if __name__ == "__main__":
    main()
