"""Trainings that start from a model, in every layout: what is frozen, what is low-rank, and rates of layers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from test_parallel import BRIEF, assert_like, run_jobs

import glassformer as gf
from glassformer.checkpoints.native import read_weights

LAYOUTS = [{"parallel.data": 2}, {"parallel.shard": 2}, {"parallel.pipeline": 2}]


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_layouts_have_the_losses_and_weights_of_one_process(tmp_path: Path) -> None:
    same = {**BRIEF, "training.steps": 8, "training.evaluate_every": 4, "training.optimizer": "adamw"}
    jobs: list[dict[str, Any]] = []
    for task in ("documents", "masked"):
        jobs.append({"task": task, "run": task, "processes": 1, "overrides": {**same, "training.steps": 4}})
    cases = [("documents-lora", "documents", 3), ("labels-head", "masked", 2), ("questions-frozen", "masked", 2)]
    for task, base, count in cases:
        changes = {**same, "finetune.model": str(tmp_path / base)}
        if task == "documents-lora":
            changes["finetune.lora_dropout"] = 0.0
        for number, layout in enumerate([{}, *LAYOUTS[:count]]):
            run = {"task": task, "run": f"{task}-{number}", "processes": 2 if layout else 1}
            jobs.append({**run, "overrides": {**changes, **layout}})
    statuses, said = run_jobs(tmp_path, jobs)
    assert not any(map(any, statuses)), said
    for task, _, count in cases:
        one = tmp_path / f"{task}-0"
        for number in range(1, count + 1):
            other = tmp_path / f"{task}-{number}"
            assert_like(one, other)
            gf.load(other)
            if task == "questions-frozen":  # what is added to all places alike a softmax over these does not see
                continue
            wanted, found = read_weights(one), read_weights(other)
            assert wanted.keys() == found.keys()
            assert all(
                torch.allclose(x, found[name], atol=1e-4) for name, x in wanted.items() if "to_key.bias" not in name
            )
