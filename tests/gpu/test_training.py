"""Every task trains on a GPU: with the losses of the CPU, resumed to the bit, and compiled in bf16."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_runs import assert_same, stopped_after
from tiny_tasks import TASKS, TUNED, Trained

from glassformer.training.display import Silent
from glassformer.training.experiment import resume
from glassformer.training.runs import Run

ON_GPU = {"training_device": "cuda", "training_compile": False}


def losses(run: Path) -> list[float]:
    return [line[key] for line in Run.open(run).metrics() for key in ("loss", "valid_loss") if key in line]


def without_dropout(name: str) -> dict[str, object]:
    one = name.endswith(("-lstm", "-convs2s"))
    changes = {"model_dropout": 0.0} if one else {"model_dropout": 0.0, "model_attention_dropout": 0.0}
    return {**changes, **({"finetune_lora_dropout": 0.0} if name in TUNED and name.endswith("-lora") else {})}


@pytest.mark.parametrize("name", TASKS)
def test_losses_equal_those_of_the_cpu(trained: Trained, tmp_path: Path, name: str, device: object) -> None:
    plain = without_dropout(name)
    here = trained.train(name, tmp_path / "cpu", **plain)
    there = trained.train(name, tmp_path / "gpu", **plain, **ON_GPU)
    assert losses(there) == pytest.approx(losses(here), rel=1e-2)


@pytest.mark.parametrize("name", TASKS)
def test_stopped_and_resumed_is_bit_equal(trained: Trained, tmp_path: Path, name: str, device: object) -> None:
    whole = trained.train(name, tmp_path / "whole", **ON_GPU)
    with stopped_after(5):
        trained.train(name, tmp_path / "run", **ON_GPU)
    resume(tmp_path / "run", data_root=trained.data, display=Silent())
    assert_same(whole, tmp_path / "run")


@pytest.mark.parametrize("name", ["documents", "masked", "summaries"])
def test_compiled_in_bf16_has_nearly_the_same_losses(
    trained: Trained, tmp_path: Path, name: str, device: object
) -> None:
    plain = without_dropout(name)
    here = trained.train(name, tmp_path / "cpu", **plain)
    auto = {"training_device": "auto", "training_precision": "auto", "training_compile": "auto"}
    there = trained.train(name, tmp_path / "gpu", **plain, **auto)
    assert losses(there) == pytest.approx(losses(here), rel=0.05)
