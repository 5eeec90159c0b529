"""Positions dealt to processes: the same network, the same steps, and one sentence where it cannot be."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_parallel import BRIEF, LONG, assert_like, run_jobs
from test_tensor_parallel import compare_cut_networks

from glassformer.errors import InputError
from glassformer.models.config import Config, RecurrentConfig
from glassformer.models.families import network_class
from glassformer.text.batches import ExampleBatches
from glassformer.text.examples import IGNORE, TextBatch, Windows
from glassformer.training.parallel import check_network, dealt
from glassformer.training.parallel.context import own_targets
from glassformer.training.parallel.dealing import Borrowed
from glassformer.training.ranks import Ranks
from glassformer.training.recipes import Parallel

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.mark.slow
def test_decoders_of_every_kind_are_those_of_one_process() -> None:
    """Every kind of positions, bands, packed documents, lengths that do not divide, nothing to predict in one half."""
    found = compare_cut_networks("context")
    assert len(found) == 30
    for name, row in found.items():
        assert row["train"] < 1e-6 and row["evaluate"] < 1e-6 and row["gradients"] < 1e-4, (name, row)


# --- positions and layouts, without processes -------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 20), st.integers(1, 5), st.booleans())
def test_every_target_is_dealt_once(rows: int, length: int, places: int, full: bool) -> None:
    target = torch.arange(rows * length).reshape(rows, length)
    batch = TextBatch(target + 1, target, None, rows * length - 1, full)
    parts = [own_targets(batch, place, places) for place in range(places)]
    assert len({part.target.shape for part in parts}) == 1
    together = torch.cat([part.target for part in parts], 1)
    assert together[:, :length].equal(target) and (together[:, length:] == IGNORE).all()
    assert sum(part.n_tokens for part in parts) == batch.n_tokens
    for part in parts:
        assert part.ids is batch.ids and part.full == (full and bool((part.target != IGNORE).all()))


def test_rows_and_positions_are_dealt_together() -> None:
    """To data 2 × shard 1 × context 3 × tensor 2."""
    documents = [list(range(100 * number, 100 * number + 30)) for number in range(1, 4)]
    batches = ExampleBatches(Windows(documents, 9), tokens=27)
    layout = Parallel(data=2, context=3, tensor=2)
    for rows in batches.epoch(0):
        whole = batches.batch(rows)
        parts = [dealt(batches, layout, Ranks(rank, 12)).batch(rows) for rank in range(12)]
        assert all(torch.equal(one.target, other.target) for one, other in zip(parts[::2], parts[1::2], strict=True))
        own = [part for part in parts[::2] if not isinstance(part, Borrowed)]
        found = torch.cat([part.target.flatten() for part in own]).sort().values
        assert found.equal(whole.target.flatten().sort().values)
        assert sum(part.n_tokens for part in parts[::2]) == whole.n_tokens


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (Config(vocab_size=9, d_model=8, n_heads=2, n_decoder_layers=0), "an encoder"),
        (Config(vocab_size=9, d_model=8, n_heads=2), "of another family"),
        (RecurrentConfig(vocab_size=9, d_model=8), "of another family"),
    ],
)
def test_other_families_than_decoders_are_refused(config: Any, what: str) -> None:
    with pytest.raises(InputError, match=f"such as GPT and Llama, and this network is {what}: use 'parallel.data'"):
        check_network(network_class(config)(config), Parallel(context=2))


# --- as slow as they are many -----------------------------------------------------------------------------------------

CONTEXT: dict[str, Any] = {"parallel.context": 2}
LAYOUTS = [CONTEXT, {**CONTEXT, "parallel.data": 2}, {**CONTEXT, "parallel.shard": 2}]


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("task", ["characters", "documents", "prompts"])
def test_layouts_have_the_losses_of_one_process(tmp_path: Path, task: str) -> None:
    length = LONG if task == "characters" else BRIEF
    same = {**length, "training.optimizer": "adamw", "training.accumulate": 2}
    jobs = [{"task": task, "run": "one", "processes": 1, "overrides": same}]
    for number, layout in enumerate(LAYOUTS):
        size = int(np.prod(list(layout.values())))
        jobs.append({"task": task, "run": str(number), "processes": size, "overrides": {**same, **layout}})
    statuses, said = run_jobs(tmp_path, jobs)
    assert not any(map(any, statuses)), said
    for number in range(len(LAYOUTS)):
        assert_like(tmp_path / "one", tmp_path / str(number))


@pytest.mark.slow
@pytest.mark.multiprocess
def test_positions_that_do_not_divide_and_muon(tmp_path: Path) -> None:
    """Windows of 13 over 2 processes, one of which predicts less; Muon has whole matrices."""
    same = {**BRIEF, "data.context": 13, "training.optimizer": "muon", "training.recompute": True}
    jobs = [
        {"task": "characters", "run": "one", "processes": 1, "overrides": same},
        {"task": "characters", "run": "two", "processes": 2, "overrides": {**same, **CONTEXT}},
    ]
    statuses, said = run_jobs(tmp_path, jobs)
    assert not any(map(any, statuses)), said
    assert_like(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.multiprocess
def test_killed_on_two_and_resumed_on_one_and_the_other_way_round(tmp_path: Path) -> None:
    whole = {"task": "characters", "run": "one", "processes": 1, "overrides": LONG}
    killed = {"task": "characters", "run": "cut", "processes": 2, "overrides": {**LONG, **CONTEXT}, "kill": 23}
    half = {"task": "characters", "run": "half", "processes": 1, "overrides": {**LONG, "training.steps": 25}}
    statuses, said = run_jobs(tmp_path, [whole, killed, half])
    assert statuses[0] == [0] and statuses[1][1] == -signal.SIGKILL and statuses[2] == [0], said
    shutil.copytree(tmp_path / "cut", tmp_path / "cut-again")
    more = {**CONTEXT, "training.steps": 50}
    jobs = [
        {"task": "characters", "run": "cut", "processes": 1, "resume": True},
        {"task": "characters", "run": "cut-again", "processes": 2, "resume": True},
        {"task": "characters", "run": "half", "processes": 2, "resume": True, "overrides": more},
    ]
    statuses, said = run_jobs(tmp_path, jobs)
    assert not any(map(any, statuses)), said
    for run in ("cut", "cut-again"):
        assert_like(tmp_path / "one", tmp_path / run)
    last = [json.loads((tmp_path / run / "metrics.jsonl").read_text().splitlines()[-1]) for run in ("one", "half")]
    assert abs(last[0]["valid_loss"] - last[1]["valid_loss"]) < 1e-4
