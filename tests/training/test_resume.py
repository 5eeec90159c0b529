"""A run that is killed at any moment and resumed ends as the run that never was: bit for bit, all but the times."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import assert_same, metrics, stopped_after, tiny_recipe

from glassformer.checkpoints.native import INDEX, WEIGHTS, find, load
from glassformer.training.display import Silent
from glassformer.training.experiment import resume, train
from glassformer.training.runs import Run


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("task", "mode", "count"),
    [
        ("translation", "time", 2),
        pytest.param("translation", "write", 4, marks=pytest.mark.slow),
        pytest.param("labels-lora", "time", 2, marks=pytest.mark.slow),
    ],
)
def test_killed_at_random_and_resumed_is_bit_equal(corpus: Path, task: str, mode: str, count: int) -> None:
    seed = random.randrange(10**6)
    script = Path(__file__).parent / "killed_runs.py"
    done = subprocess.run(
        [sys.executable, str(script), str(corpus), task, mode, str(count), str(seed)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        timeout=500,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    assert mode == "time" or int(done.stdout) > 0, f"seed {seed}: nothing was killed"
    assert_same(corpus / "whole", corpus / "killed")
    assert not list((corpus / "killed" / "checkpoints").glob(".*")), f"seed {seed}: leftovers"


def test_stopped_between_log_lines_and_resumed_is_bit_equal(corpus: Path, tmp_path: Path) -> None:
    """Ctrl-C at step 5, in the middle of a window of two: the window's sums are in the checkpoint."""
    recipe = tiny_recipe()
    train(recipe, run=tmp_path / "whole", data_root=corpus, display=Silent())
    with stopped_after(5):
        train(recipe, run=tmp_path / "stopped", data_root=corpus, display=Silent())
    assert list(Run.open(tmp_path / "stopped").checkpoints()) == [3, 5]
    resume(tmp_path / "stopped", data_root=corpus, display=Silent())
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "stopped")
    assert (tmp_path / "whole" / WEIGHTS).read_bytes() == (tmp_path / "stopped" / WEIGHTS).read_bytes()


def test_a_finished_run_resumed_is_the_same_and_can_be_lengthened(corpus: Path, tmp_path: Path) -> None:
    short, long = tmp_path / "short", tmp_path / "long"
    train(tiny_recipe(schedule="constant"), run=short, data_root=corpus, display=Silent())
    before, lines = (short / WEIGHTS).read_bytes(), metrics(short)
    resume(short, data_root=corpus, display=Silent())
    assert (short / WEIGHTS).read_bytes() == before and metrics(short) == lines
    resume(short, data_root=corpus, display=Silent(), **{"training.steps": 18})
    train(tiny_recipe(schedule="constant", steps=18), run=long, data_root=corpus, display=Silent())
    assert (short / WEIGHTS).read_bytes() == (long / WEIGHTS).read_bytes()


def test_a_run_folder_is_a_checkpoint_during_and_after_training(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny_recipe(), run=run, data_root=corpus, display=Silent())
    assert find(run) == run and load(run).extra["checkpoints"] == [9, 12]
    (run / INDEX).unlink()
    assert find(run) == run / "checkpoints" / "step-12"


def test_two_runs_of_one_seed_are_equal_and_of_two_are_not(corpus: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(tiny_recipe(seed=seed), run=tmp_path / name, data_root=corpus, display=Silent())
    assert_same(tmp_path / "a", tmp_path / "b")
    assert metrics(tmp_path / "a") != metrics(tmp_path / "c")
