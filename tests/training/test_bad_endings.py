"""Trainings that cannot go on: the message says what and where, and the last good state stays."""

from __future__ import annotations

import errno
import functools
import math
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_recipe, write_corpus

import glassformer.checkpoints.native as native
from glassformer.checkpoints.native import INDEX, WEIGHTS, load
from glassformer.errors import InputError
from glassformer.training import gradients
from glassformer.training.display import Silent
from glassformer.training.experiment import resume, train
from glassformer.training.runs import METRICS, Run
from glassformer.training.trainer import Interrupted, Trainer


def begin(corpus: Path, run: Path, **training: object) -> None:
    train(tiny_recipe(**training), run=run, data_root=corpus, display=Silent())


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, name: str = "_step") -> None:
    """Ctrl-C, as the signal would leave it, when `step` is done."""
    original = getattr(Trainer, name)

    @functools.wraps(original)
    def wrapped(self: Trainer, *arguments: object) -> None:
        original(self, *arguments)
        if self.progress.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Trainer, name, wrapped)


def test_a_run_folder_that_exists_is_refused_and_untouched(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match=r"exists and is not overwritten.*--resume .*--run"):
        begin(corpus, run)
    assert [path.name for path in run.iterdir()] == ["precious.txt"]


def test_bad_data_leaves_no_run_folder(corpus: Path, tmp_path: Path) -> None:
    (corpus / "train.de").write_text("only one line\n")
    with pytest.raises(InputError, match="train"):
        begin(corpus, tmp_path / "runs" / "run")
    assert not (tmp_path / "runs").exists()


def test_a_sentence_longer_than_the_positions_is_named(corpus: Path, tmp_path: Path) -> None:
    for suffix in ("en", "de"):
        with open(corpus / f"train.{suffix}", "a") as file:
            file.write("one " * 80 + "\n")
    with pytest.raises(InputError, match="Pair 201 of the train data: its source has 80 tokens.* 64 positions"):
        begin(corpus, tmp_path / "run")


def test_nan_loss_stops_at_its_step_and_keeps_the_last_good_checkpoint(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, original = tmp_path / "run", Trainer._step

    def poison(self: Trainer, cursor: object) -> None:
        if self.progress.step == 7:
            next(self.network.parameters()).data[:] = math.nan
        original(self, cursor)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_step", poison)
    with pytest.raises(InputError, match=r"loss became nan at step 8.*last good checkpoint is .*step-6.*learning_rate"):
        begin(corpus, run)
    monkeypatch.undo()
    assert max(Run.open(run).checkpoints()) == 6
    assert all(torch.isfinite(p).all() for p in load(run / "checkpoints" / "step-6").network.parameters())
    begin(corpus, tmp_path / "healthy")
    resume(run, data_root=corpus, display=Silent())
    assert (run / WEIGHTS).read_bytes() == (tmp_path / "healthy" / WEIGHTS).read_bytes()


def test_ctrl_c_saves_and_says_how_to_go_on(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    before = signal.getsignal(signal.SIGINT)
    stop_at(monkeypatch, 4)
    with pytest.raises(Interrupted, match=f"after step 4, saved. Go on with: glassformer train --resume {run}"):
        begin(corpus, run)
    assert signal.getsignal(signal.SIGINT) is before
    assert max(Run.open(run).checkpoints()) == 4
    assert isinstance(Interrupted(""), KeyboardInterrupt)


@pytest.mark.parametrize("when", ["first", "later"])
def test_a_full_disk_while_saving_keeps_the_last_good_checkpoint(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    run, original, calls = tmp_path / "run", native.write_tensors, 0

    def full(path: Path, tensors: dict[str, torch.Tensor]) -> str:
        nonlocal calls
        calls += 1
        if calls == (1 if when == "first" else 3):
            original(path, dict(list(tensors.items())[:2]))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(path, tensors)

    monkeypatch.setattr(native, "write_tensors", full)
    there = "there is no checkpoint yet" if when == "first" else "the last good checkpoint is .*step-6"
    with pytest.raises(InputError, match=f"cannot be written .No space left on device.; {there}.*--resume"):
        begin(corpus, run)
    monkeypatch.undo()
    assert not list((run / "checkpoints").glob(".*"))
    begin(corpus, tmp_path / "healthy")
    resume(run, data_root=corpus, display=Silent())
    assert (run / WEIGHTS).read_bytes() == (tmp_path / "healthy" / WEIGHTS).read_bytes()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting needs root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk(corpus: Path, small_disk: Path) -> None:
    run = small_disk / "run"
    with pytest.raises(InputError, match="No space left on device"):
        begin(corpus, run, steps=300, checkpoint_every=3, keep=300)
    last = max(Run.open(run).checkpoints().values(), key=lambda path: int(path.name[5:]))
    load(last)
    assert not list((run / "checkpoints").glob(".*"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus and `run`, stopped after step 7."""
    folder = tmp_path_factory.mktemp("stopped")
    write_corpus(folder)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        stop_at(patch, 7)
        begin(folder, folder / "run")
    return folder


@pytest.mark.parametrize("name", ["model.safetensors", "training/optimizer.safetensors", "training/state.json", INDEX])
@pytest.mark.parametrize("harm", ["cut", "byte", "gone"])
def test_a_damaged_newest_checkpoint_is_named(stopped: Path, tmp_path: Path, name: str, harm: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped / "run", run)
    broken = run / "checkpoints" / "step-7" / name
    content = bytearray(broken.read_bytes())
    content[len(content) // 2] ^= 1
    if harm == "gone":
        broken.unlink()
    else:
        broken.write_bytes(content if harm == "byte" else content[:-10])
    with pytest.raises(InputError, match=r"step-7.*Remove .*step-7 to resume"):
        resume(run, data_root=stopped, display=Silent())


def test_without_its_newest_checkpoint_a_run_goes_on_from_the_one_before(stopped: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped / "run", run)
    shutil.rmtree(run / "checkpoints" / "step-7")
    resume(run, data_root=stopped, display=Silent())
    begin(stopped, tmp_path / "whole")
    assert (run / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_a_second_ctrl_c_ends_at_once_and_says_how_to_go_on(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(self: Trainer, cursor: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Trainer, "_step", twice)
    with pytest.raises(Interrupted, match="Stopped at once; there is no checkpoint yet. Go on with: .*--resume"):
        begin(corpus, tmp_path / "run")


def test_what_may_not_change_when_resuming_is_refused(stopped: Path, corpus: Path) -> None:
    run = stopped / "run"
    with pytest.raises(InputError, match="'training.seed' cannot change"):
        resume(run, data_root=corpus, display=Silent(), **{"training.seed": 3})
    for key, value in (("training.seed", 42), ("name", "tiny")):  # the same as before: nothing changes
        with pytest.raises(InputError, match="begun with other data"):
            resume(run, data_root=other_data(corpus), display=Silent(), **{key: value})


def other_data(corpus: Path) -> Path:
    """The corpus with another word in it."""
    lines = (corpus / "train.en").read_text().replace("one", "two")
    (corpus / "train.en").write_text(lines)
    return corpus


def test_resuming_where_there_is_no_run_names_those_there_are(corpus: Path, tmp_path: Path) -> None:
    begin(corpus, tmp_path / "there", steps=1)
    with pytest.raises(InputError, match=r"absent is no run.*Runs beside it: .*there"):
        resume(tmp_path / "absent")


def test_a_run_in_use_is_refused(corpus: Path, tmp_path: Path) -> None:
    begin(corpus, tmp_path / "run", steps=1)
    with Run.open(tmp_path / "run").alone(), pytest.raises(InputError, match="another process"):
        resume(tmp_path / "run", data_root=corpus, display=Silent())


def test_patience_and_minutes_end_a_training(corpus: Path, tmp_path: Path) -> None:
    begin(corpus, tmp_path / "patient", steps=100, evaluate_every=1, patience=2, learning_rate=1e-12, warmup=0)
    assert max(Run.open(tmp_path / "patient").checkpoints()) < 100
    begin(corpus, tmp_path / "short", steps=10_000, minutes=0.005)
    lines = Run.open(tmp_path / "short").metrics()
    assert lines[-1]["final"] and lines[-1]["step"] < 10_000
    assert (tmp_path / "short" / WEIGHTS).is_file() and (tmp_path / "short" / METRICS).is_file()


def test_a_loss_that_is_infinite_on_the_first_step_says_there_is_no_checkpoint(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "add_sums", lambda sums, loss: sums.update(loss=math.inf, count=1.0))
    with pytest.raises(InputError, match="loss became inf at step 1 .*there is no checkpoint yet"):
        begin(corpus, tmp_path / "run")


def test_a_compiler_that_fails_is_named(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def broken(objective: object, dynamic: bool) -> object:
        def fail(network: object, batch: object) -> None:
            raise TorchDynamoException("no C++ compiler")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(InputError, match="cannot be compiled here .no C.. compiler.; set 'training.compile' to false"):
        begin(corpus, tmp_path / "run", compile=True)
