"""Attribution patching against exact patching: how well do estimates from gradients order the places?

    python benchmarks/attribution_patching.py [--facts 24] [--data-root DATA] [--json]

SmolLM2-135M-Instruct (4-bit weights, run in fp32), facts of product → company that it knows, each patched from a fact
of another answer with as many tokens; logit difference of the two answers; its last 12 tokens, every layer.
Spearman's rank correlation is over the places whose exact effect is more than 1 % of the largest: of the mean over the
facts (the map that one looks at), and of every fact's own places together.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from goals import data_root
from machine import machine_limits
from rounds import machine_lines
from torch import Tensor

import glassformer as gf

SITES = ("self_attention.output", "feed_forward.output", "residual_post")
SPAN = "prompt[-12:]"
METHODS: tuple[Any, ...] = ("attribution", "midpoint")
SMALLEST = 0.01


def spearman(first: Tensor, second: Tensor) -> float:
    """Pearson's correlation of the ranks. Effects are real numbers: ties do not occur but by chance."""
    ranks = [numpy.argsort(numpy.argsort(values.numpy())) for values in (first, second)]
    return float(numpy.corrcoef(*ranks)[0, 1])


def agreement(exact: Tensor, estimated: Tensor) -> dict[str, Any]:
    """Over the places that matter."""
    large = exact.abs() > SMALLEST * exact[~exact.isnan()].abs().max()
    return {"spearman": round(spearman(exact[large], estimated[large]), 4), "places": int(large.sum())}


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured, as plain values."""
    torch.set_num_threads(given.threads)
    root = data_root(given.data_root)
    if root is None:
        raise SystemExit("error: no relations/factual; give --data-root (docs/data.md says where it comes from).")
    model = gf.load("smollm2-135m-instruct")
    file = root / "relations" / "factual" / "product_by_company.json"
    known = gf.facts(file, template="{subject} was created by", shots=4).known(model)[: given.facts]
    rows = []
    for site in SITES:
        over = f"{site}[*] @ {SPAN}"
        began = time.perf_counter()
        exact = gf.sweep(model, known, gf.patch, over=over)
        seconds = {"exact": round(time.perf_counter() - began, 1)}
        for method in METHODS:
            began = time.perf_counter()
            estimated = gf.sweep(model, known, gf.patch, over=over, method=method, recheck=0)
            seconds["estimated"] = round(time.perf_counter() - began, 1)
            assert estimated.estimates is not None
            rows.append(
                {
                    "site": site,
                    "method": method,
                    "facts": len(exact),
                    "of_the_mean": agreement(exact.mean(), estimated.mean(estimated=True)),
                    "of_each_fact": agreement(exact.changes, estimated.estimates),
                    "seconds": dict(seconds),
                }
            )
    return {"rows": rows, "span": SPAN, "machine": machine_limits(given.threads)}


def lines(result: Mapping[str, Any]) -> list[str]:
    """The report for people."""
    text = [*machine_lines(result["machine"]), f"Spearman's rank correlation, estimates and exact effects @ {SPAN}:"]
    for row in result["rows"]:
        mean, each, seconds = row["of_the_mean"], row["of_each_fact"], row["seconds"]
        text.append(
            f"  {row['site']:<24} {row['method']:<12} mean map {mean['spearman']:.3f} ({mean['places']} places), "
            f"each of {row['facts']} facts {each['spearman']:.3f} ({each['places']}); "
            f"exact {seconds['exact']} s, estimated {seconds['estimated']} s"
        )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=24)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--data-root", type=Path, help="holds relations/factual; ../shared/data where that is there")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result = compare(given)
    print(json.dumps(result, indent=2) if given.json else "\n".join(lines(result)))


if __name__ == "__main__":
    main()
