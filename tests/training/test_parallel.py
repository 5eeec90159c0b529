"""Several processes take the steps of one, end together, and are resumed in any number."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parallel_runs import free_port
from tiny_runs import metrics
from tiny_tasks import recipe_of, write_corpora

from glassformer.checkpoints.native import load, read_weights
from glassformer.errors import InputError
from glassformer.text.batches import ExampleBatches
from glassformer.text.examples import LabelledTexts
from glassformer.training.parallel import check_layout, refitted
from glassformer.training.parallel.dealing import Borrowed, Dealt
from glassformer.training.ranks import processes
from glassformer.training.recipes import Parallel, read_recipe, recipe_toml

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "GLASSFORMER_COMPILE": "0"}
EVEN = {"model.dropout": 0.0, "model.attention_dropout": 0.0, "training.log_every": 1, "training.samples": 0}
LONG = {**EVEN, "training.steps": 50, "training.evaluate_every": 25, "training.checkpoint_every": 10}
BRIEF = {**EVEN, "training.steps": 12, "training.evaluate_every": 6, "training.checkpoint_every": 6}


def run_jobs(folder: Path, jobs: list[dict[str, Any]], timeout: float = 600) -> tuple[list[list[int]], str]:
    """The exit statuses of every job's processes, and what they said."""
    script = Path(__file__).parent / "parallel_runs.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder), json.dumps(jobs)],
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def reported(said: str, run: str) -> str:
    """The error of a run's first process, wherever it stands: what torch itself writes may be on the same line."""
    return said.partition(f"{run} 0: InputError: ")[2].partition("\n")[0]


def assert_like(run: Path, other: Path, tolerance: float = 1e-4) -> None:
    """The same lines of metrics.jsonl: whole numbers and words exactly, the others within the tolerance."""
    lines, others = metrics(run), metrics(other)
    assert [line["step"] for line in lines] == [line["step"] for line in others]
    for line, theirs in zip(lines, others, strict=True):
        assert line.keys() == theirs.keys()
        for key, value in line.items():
            exact = not isinstance(value, float) or "perplexity" in key  # e to the loss, which is compared itself
            same = theirs[key] == value if exact and "perplexity" not in key else True
            close = exact or abs(theirs[key] - value) <= tolerance  # type: ignore[operator]
            assert same and close, f"step {line['step']}: {key} {value} and {theirs[key]}"


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    """With rows that do not divide, a stop in between, and a finished folder as of one process."""
    short = {**EVEN, "training.steps": 6, "training.evaluate_every": 6, "training.checkpoint_every": 3}
    jobs = [
        {"task": "labels", "run": "one", "processes": 1, "overrides": short},
        {"task": "labels", "run": "two", "processes": 2, "overrides": {**short, "parallel.data": 2}, "kill": 4},
        {"task": "labels", "run": "two", "processes": 2, "resume": True},
    ]
    statuses, said = run_jobs(tmp_path, jobs, timeout=300)
    assert statuses[0] == [0] and statuses[1][1] == -signal.SIGKILL and statuses[2] == [0, 0], said
    assert "did not answer in time" in said
    assert_like(tmp_path / "one", tmp_path / "two")
    one, two = (read_weights(tmp_path / name) for name in ("one", "two"))
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one) and one.keys() == two.keys()
    assert load(tmp_path / "two").task == "classification"


# --- rows and layouts, without processes ------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 5), st.integers(0, 3))
def test_every_row_of_a_batch_is_dealt_once(lengths: list[int], shares: int, epoch: int) -> None:
    texts = [[number + 1] * length for number, length in enumerate(lengths)]
    batches = ExampleBatches(LabelledTexts(texts, list(range(len(texts)))), tokens=20, seed=3)
    dealt = [Dealt(batches, share, shares) for share in range(shares)]
    for rows in batches.epoch(epoch):
        parts = [each.batch(rows, epoch) for each in dealt]
        own = [part.labels.tolist() for part in parts if not isinstance(part, Borrowed)]
        assert sorted(sum(own, [])) == sorted(rows.tolist())
        assert sum(part.n_tokens for part in parts) == batches.batch(rows, epoch).n_tokens
    assert len({len(list(each.once())) for each in dealt}) == 1
    cursors = [each.restore({"epoch": epoch, "index": 0}) for each in dealt]
    for _ in range(len(batches.epoch(epoch)) + 1):
        assert len({str(cursor.state()) for cursor in cursors}) == 1
        for cursor in cursors:
            next(cursor)


def test_a_process_without_a_row_counts_nothing() -> None:
    batches = ExampleBatches(LabelledTexts([[1, 2]], [0]), tokens=8)
    idle = Dealt(batches, 1, 2).batch(np.array([0]))
    assert (
        isinstance(idle, Borrowed) and idle.n_tokens == 0 and idle.to("cpu").parts()[0].batch.ids.tolist() == [[1, 2]]
    )


@pytest.mark.parametrize(
    ("sizes", "processes", "message"),
    [
        (
            {"data": 2},
            1,
            r"ask for 2 \(data 2\), there is one; start it as torchrun --nproc-per-node 2 -m glassformer",
        ),
        ({}, 2, "ask for 1, there are 2; set --parallel.data 2, or start it without torchrun"),
        ({"data": 2, "shard": 2}, 2, r"ask for 4 \(data 2 × shard 2\), there are 2"),
        ({"tensor": 2, "context": 2}, 2, r"ask for 4 \(tensor 2 × context 2\), there are 2"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(sizes: dict[str, int], processes: int, message: str) -> None:
    recipe = recipe_of("characters", **{f"parallel_{name}": size for name, size in sizes.items()})
    with pytest.raises(InputError, match=message):
        check_layout(recipe, processes)


def test_muon_is_not_sharded() -> None:
    with pytest.raises(InputError, match="Muon needs whole matrices"):
        check_layout(recipe_of("documents", parallel_shard=2), 2)


def test_sizes_of_a_layout_are_at_least_one_and_kept_in_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'shard' must be at least 1, got 0"):
        Parallel(shard=0)
    recipe = recipe_of("characters", parallel_data=2, parallel_shard=3)
    (tmp_path / "recipe.toml").write_text(recipe_toml(recipe))
    assert read_recipe(tmp_path / "recipe.toml") == recipe and recipe.parallel.processes == 6


@pytest.mark.parametrize(
    ("before", "size", "after"),
    [
        (Parallel(), 4, Parallel(data=4)),
        (Parallel(data=2), 1, Parallel()),
        (Parallel(shard=2), 4, Parallel(shard=4)),
        (Parallel(data=2, shard=2), 4, Parallel(data=2, shard=2)),
        (Parallel(data=2, shard=2), 2, Parallel(shard=2)),
        (Parallel(data=2, tensor=2), 8, Parallel(data=4, tensor=2)),
        (Parallel(tensor=2), 1, Parallel()),
        (Parallel(pipeline=2, shard=2), 1, Parallel()),
        (Parallel(data=2, context=2), 2, Parallel(context=2)),
    ],
)
def test_a_layout_is_fitted_to_another_number_of_processes(before: Parallel, size: int, after: Parallel) -> None:
    assert refitted(before, size) == after


def test_a_layout_whose_other_sizes_do_not_divide_is_refused() -> None:
    said = r"3 processes cannot be dealt to tensor 2: .* a multiple of 2, .* --parallel.tensor 1 --parallel.data 3\."
    with pytest.raises(InputError, match=said):
        refitted(Parallel(tensor=2), 3)


def test_a_port_in_use_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": taken.getsockname()[1]}
        for name, value in place.items():
            monkeypatch.setenv(name, str(value))
        with pytest.raises(InputError, match="the port is in use. Set another MASTER_PORT"), processes():
            pass


# --- as slow as they are many -----------------------------------------------------------------------------------------

LAYOUTS = [{"parallel.data": 2}, {"parallel.shard": 2}, {"parallel.data": 2, "parallel.shard": 2}]


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("task", ["characters", "documents", "masked", "labels", "questions", "summaries", "prompts"])
def test_layouts_have_the_losses_of_one_process(tmp_path: Path, task: str) -> None:
    length = LONG if task in ("characters", "summaries") else BRIEF
    same = {**length, "training.optimizer": "adamw"}
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
@pytest.mark.parametrize("layout", [{"parallel.data": 2}, {"parallel.shard": 2}])
def test_killed_on_two_and_resumed_on_one_two_and_four(tmp_path: Path, layout: dict[str, int]) -> None:
    same = {**LONG, "training.accumulate": 2}
    killed = {"task": "characters", "run": "killed", "processes": 2, "overrides": {**same, **layout}, "kill": 23}
    whole = {"task": "characters", "run": "one", "processes": 1, "overrides": same}
    statuses, said = run_jobs(tmp_path, [whole, killed])
    assert statuses[0] == [0] and statuses[1][1] == -signal.SIGKILL, said
    for size in (1, 2, 4):
        shutil.copytree(tmp_path / "killed", tmp_path / f"on-{size}")
    jobs = [{"task": "characters", "run": f"on-{size}", "processes": size, "resume": True} for size in (1, 2, 4)]
    statuses, said = run_jobs(tmp_path, jobs)
    assert not any(map(any, statuses)), said
    for size in (1, 2, 4):
        assert_like(tmp_path / "one", tmp_path / f"on-{size}")
        assert read_recipe(tmp_path / f"on-{size}" / "recipe.toml").parallel.processes == size


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_process_that_cannot_see_the_data_or_the_others_or_stays_away_ends_all(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    other = write_corpora(tmp_path / "other")
    (other / "text-train.txt").write_text("nine ten\n" * 40)
    two = {"task": "characters", "processes": 2, "overrides": {**LONG, "parallel.data": 2}}
    jobs = [
        {**two, "run": "unseen", "data": [str(tmp_path), str(tmp_path / "empty")]},
        {**two, "run": "differs", "data": [str(tmp_path), str(other)]},
        {**two, "run": "late", "stop": 7, "limit": 5},
        {**two, "run": "met", "taken": 3},
    ]
    began = time.monotonic()
    statuses, said = run_jobs(tmp_path, jobs, timeout=300)
    assert statuses[:2] == [[1, 1], [1, 1]] and statuses[2][0] == 1 and time.monotonic() - began < 200
    first = {run: reported(said, run) for run in ("unseen", "differs", "late")}
    assert "process 1 of 2: " in first["unseen"] and "text-train.txt" in first["unseen"]
    assert "The data of process 1 of 2 differs from that of process 0" in first["differs"]
    assert "did not answer in time" in first["late"]
    assert statuses[3] == [1, 1] and "the port is in use. Set another MASTER_PORT" in said
    assert "met 1: InputError: Process 1 of 2 does not find the others" in said
    assert not (tmp_path / "unseen").exists() and (tmp_path / "late" / "recipe.toml").exists()


# --- the command line under torchrun ----------------------------------------------------------------------------------


def torchrun(folder: Path, size: int, *arguments: str, restarts: int = 0) -> subprocess.Popen[str]:
    """`torchrun … -m glassformer train …` in a folder."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={size}", f"--max-restarts={restarts}"]
    place = ["--master-addr=127.0.0.1", f"--master-port={free_port()}", "-m", "glassformer", "train", *arguments]
    pipe = subprocess.PIPE
    environment = {**os.environ, **ENVIRONMENT}
    return subprocess.Popen([*command, *place], cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def written(folder: Path, name: str, **overrides: Any) -> str:
    """A recipe's file in a folder that has its data."""
    write_corpora(folder / "data")
    recipe = read_recipe(recipe_of("characters"), {**LONG, **overrides})
    (folder / f"{name}.toml").write_text(recipe_toml(recipe))
    return f"{name}.toml"


@pytest.mark.slow
@pytest.mark.multiprocess
def test_torchrun_says_one_sentence_about_a_wrong_layout(tmp_path: Path) -> None:
    recipe = written(tmp_path, "wrong")
    process = torchrun(tmp_path, 2, recipe, "--parallel.data", "3")
    _, said = process.communicate(timeout=200)
    assert process.returncode != 0
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "ask for 3 (data 3), there are 2" in errors[0]
    assert "glassformer/training" not in said  # the only traceback is torchrun's own, about its workers' exit status
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds a worker by its environment in /proc")
def test_torchrun_restarts_a_killed_worker_and_the_run_goes_on(tmp_path: Path) -> None:
    recipe = written(tmp_path, "tiny", **{"training.steps": 200})
    process = torchrun(
        tmp_path, 2, recipe, "--parallel.data", "2", "--name", "tiny", "--if-exists", "resume", restarts=1
    )
    log = tmp_path / "runs" / "tiny" / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not (log.exists() and len(log.read_text().splitlines()) > 30):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    os.kill(worker_of(process.pid, rank=1), signal.SIGKILL)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "Going on with runs/tiny" in said
    whole = {**LONG, "training.steps": 200}
    run_jobs(tmp_path, [{"task": "characters", "run": "one", "processes": 1, "overrides": whole}])
    assert_like(tmp_path / "one", tmp_path / "runs" / "tiny")


def worker_of(parent: int, rank: int) -> int:
    """The process id of torchrun's worker of that rank."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes().split(b"\0")
            status = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(status[1]) == parent and f"RANK={rank}".encode() in environment:
            return int(path.name)
    raise AssertionError("there is no such worker")
