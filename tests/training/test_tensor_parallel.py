"""Blocks cut over processes: the same network, the same steps, and one sentence where it cannot be."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_parallel import BRIEF, ENVIRONMENT, LONG, assert_like, run_jobs
from tiny_tasks import recipe_of

from glassformer.errors import InputError
from glassformer.layers.low_rank import LowRank, add_low_rank
from glassformer.models.config import Config, RecurrentConfig
from glassformer.models.families import network_class
from glassformer.training.parallel import check_layout, check_network, placed
from glassformer.training.ranks import Ranks
from glassformer.training.recipes import Parallel

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
GPT = Config(vocab_size=11, d_model=24, n_heads=6, d_ff=36, n_encoder_layers=0, n_decoder_layers=1, max_length=8)


def compare_cut_networks(how: str) -> dict[str, dict[str, float]]:
    """What cut_networks.py prints."""
    script = Path(__file__).parent / "cut_networks.py"
    done = subprocess.run(
        [sys.executable, str(script), how],
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_cut_networks_of_every_kind_are_the_whole_ones() -> None:
    """Fewer key-value heads, gated, banded, relative positions, an encoder, cross-attention: losses and gradients."""
    found = compare_cut_networks("tensor")
    assert {"llama", "banded-llama", "bert", "encoder-decoder", "t5"} <= found.keys()
    for name, row in found.items():
        assert row["train"] < 1e-6 and row["evaluate"] < 1e-6 and row["gradients"] < 1e-4, (name, row)
        assert row["share"] == 0.5, name


# --- layouts, without processes ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(*[st.integers(1, 3)] * 5)
def test_what_each_process_works_on_counts_once(
    pipeline: int, data: int, shard: int, context: int, tensor: int
) -> None:
    layout = Parallel(data=data, shard=shard, tensor=tensor, pipeline=pipeline, context=context)
    ranks = [placed(Ranks(rank, layout.processes), layout) for rank in range(layout.processes)]
    places = np.arange(layout.processes).reshape(pipeline, data * shard * context, tensor)
    for rank in ranks:
        stage, share, part = (int(i[0]) for i in np.where(places == rank.rank))
        assert rank.share == share and rank.counts == (part == 0 and stage == pipeline - 1)
    assert sorted(rank.share for rank in ranks if rank.counts) == list(range(data * shard * context))


@pytest.mark.parametrize(
    ("config", "size", "message"),
    [
        (GPT, 4, r"must divide .* \(n_heads 6, n_kv_heads 6, d_ff 36\), got 4: it can be 1 or 2 or 3 or 6\."),
        (replace(GPT, n_kv_heads=2), 3, r"n_kv_heads 2, d_ff 36\), got 3: it can be 1 or 2\."),
        (replace(GPT, d_ff=35), 2, r"d_ff 35\), got 2: it can be 1\."),
        (RecurrentConfig(vocab_size=11, d_model=8), 2, "cuts the blocks of Transformers, and this network has none"),
    ],
)
def test_a_network_that_does_not_divide_is_refused(config: Any, size: int, message: str) -> None:
    network = network_class(config)(config)
    check_network(network, Parallel(data=size))
    with pytest.raises(InputError, match=message):
        check_network(network, Parallel(tensor=size))


def test_networks_that_divide_are_not_refused() -> None:
    for size in (1, 2, 3, 6):
        check_network(network_class(GPT)(GPT), Parallel(tensor=size))


def test_low_rank_layers_are_not_cut() -> None:
    network = network_class(GPT)(GPT)
    add_low_rank(network, LowRank(2, 4.0))
    with pytest.raises(InputError, match=r"cannot cut low-rank layers \('finetune.lora'\): use 'parallel.data'"):
        check_network(network, Parallel(tensor=2))


def test_muon_does_not_have_parts_of_matrices() -> None:
    with pytest.raises(InputError, match=r"'parallel.data' in place of 'parallel.tensor', or adamw"):
        check_layout(recipe_of("documents", parallel_tensor=2), 2)


# --- as slow as they are many -----------------------------------------------------------------------------------------

TENSOR: dict[str, Any] = {"parallel.tensor": 2}
LAYOUTS = [TENSOR, {**TENSOR, "parallel.data": 2}, {**TENSOR, "parallel.shard": 2}, {**TENSOR, "parallel.context": 2}]


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("task", "layouts"),
    [("characters", LAYOUTS[:1]), ("documents", LAYOUTS[1:]), ("masked", LAYOUTS[:2]), ("summaries", LAYOUTS[:3])],
)
def test_layouts_have_the_losses_of_one_process(tmp_path: Path, task: str, layouts: list[dict[str, int]]) -> None:
    same = {**(LONG if task == "characters" else BRIEF), "training.optimizer": "adamw"}
    jobs = [{"task": task, "run": "one", "processes": 1, "overrides": same}]
    for number, layout in enumerate(layouts):
        size = int(np.prod(list(layout.values())))
        jobs.append({"task": task, "run": str(number), "processes": size, "overrides": {**same, **layout}})
    statuses, said = run_jobs(tmp_path, jobs)
    assert not any(map(any, statuses)), said
    for number in range(len(layouts)):
        assert_like(tmp_path / "one", tmp_path / str(number))


@pytest.mark.slow
@pytest.mark.multiprocess
def test_what_flows_between_blocks_is_dropped_alike_everywhere(tmp_path: Path) -> None:
    """So that two processes with the same rows go the way of one, with recomputed blocks too."""
    same = {**LONG, "model.dropout": 0.2, "training.recompute": True}
    jobs = [
        {"task": "characters", "run": "one", "processes": 1, "overrides": same},
        {"task": "characters", "run": "two", "processes": 2, "overrides": {**same, **TENSOR}},
    ]
    statuses, said = run_jobs(tmp_path, jobs)
    assert not any(map(any, statuses)), said
    assert_like(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.multiprocess
def test_killed_on_two_and_resumed_on_one_and_the_other_way_round(tmp_path: Path) -> None:
    whole = {"task": "characters", "run": "one", "processes": 1, "overrides": LONG}
    killed = {"task": "characters", "run": "cut", "processes": 2, "overrides": {**LONG, **TENSOR}, "kill": 23}
    half = {"task": "characters", "run": "half", "processes": 1, "overrides": {**LONG, "training.steps": 25}}
    statuses, said = run_jobs(tmp_path, [whole, killed, half])
    assert statuses[0] == [0] and statuses[1][1] == -signal.SIGKILL and statuses[2] == [0], said
    shutil.copytree(tmp_path / "cut", tmp_path / "cut-again")
    jobs = [
        {"task": "characters", "run": "cut", "processes": 1, "resume": True},
        {"task": "characters", "run": "cut-again", "processes": 2, "resume": True},
        {
            "task": "characters",
            "run": "half",
            "processes": 2,
            "resume": True,
            "overrides": {**TENSOR, "training.steps": 50},
        },
    ]
    statuses, said = run_jobs(tmp_path, jobs)
    assert not any(map(any, statuses)), said
    for run in ("cut", "cut-again"):
        assert_like(tmp_path / "one", tmp_path / run)
    last = [json.loads((tmp_path / run / "metrics.jsonl").read_text().splitlines()[-1]) for run in ("one", "half")]
    assert abs(last[0]["valid_loss"] - last[1]["valid_loss"]) < 1e-4


@pytest.mark.slow
@pytest.mark.multiprocess
def test_one_command_goes_on_with_more_processes_and_with_as_many_as_before(tmp_path: Path) -> None:
    same = {**BRIEF, "training.checkpoint_every": 2}
    cut = {"task": "characters", "run": "cut", "overrides": {**same, **TENSOR}, "again": True}
    jobs = [
        {"task": "characters", "run": "one", "processes": 1, "overrides": same},
        {**cut, "processes": 2, "kill": 3},
        {**cut, "processes": 4, "kill": 7},
        {**cut, "processes": 2},
    ]
    statuses, said = run_jobs(tmp_path, jobs)
    assert statuses[0] == [0] and statuses[3] == [0, 0], said
    assert statuses[1][1] == statuses[2][1] == -signal.SIGKILL, said
    assert_like(tmp_path / "one", tmp_path / "cut")


@pytest.mark.slow
@pytest.mark.multiprocess
def test_all_processes_end_where_a_network_does_not_divide(tmp_path: Path) -> None:
    three = {**LONG, "parallel.tensor": 3}
    labels = {**LONG, "parallel.context": 2}
    stages = {**LONG, "parallel.pipeline": 3}
    jobs = [
        {"task": "characters", "run": "heads", "processes": 3, "overrides": three},
        {"task": "labels", "run": "encoder", "processes": 2, "overrides": labels},
        {"task": "characters", "run": "layers", "processes": 3, "overrides": stages},
    ]
    statuses, said = run_jobs(tmp_path, jobs, timeout=200)
    assert statuses == [[1, 1, 1], [1, 1], [1, 1, 1]]
    assert "heads 0: InputError: 'parallel.tensor' must divide" in said and "heads 1: Followed" in said
    assert "encoder 0: InputError: 'parallel.context' deals out the positions of decoders" in said
    assert "layers 0: InputError: 'parallel.pipeline' must divide the network's 2 layers, got 3" in said
    assert not any((tmp_path / run).exists() for run in ("heads", "encoder", "layers"))
