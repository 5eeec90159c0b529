"""What a run folder holds: recipe, command, versions, metrics, the right checkpoints; averages of them."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import tokenizers
import torch
from tiny_runs import tiny_recipe

from glassformer.checkpoints.native import load, save
from glassformer.checkpoints.tensors import network_tensors, read_tensors
from glassformer.errors import InputError
from glassformer.text.tokenizer import Tokenizer
from glassformer.training.averaging import average
from glassformer.training.display import Display, Silent, duration, size
from glassformer.training.experiment import train
from glassformer.training.logs import check_log
from glassformer.training.precision import cpu_has_bf16, pick_compile, pick_device, pick_precision
from glassformer.training.recipes import read_recipe
from glassformer.training.runs import Run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of twelve steps that was let to its end, and what it said in `said.txt`."""
    from tiny_runs import write_corpus

    folder = tmp_path_factory.mktemp("finished")
    write_corpus(folder)
    said = io.StringIO()
    train(tiny_recipe(), run=folder / "run", data_root=folder, display=Display(said, every=0.0))
    (folder / "said.txt").write_text(said.getvalue())
    return folder / "run"


def test_a_run_says_how_it_was_made(finished: Path) -> None:
    about = json.loads((finished / "run.json").read_text())
    assert {"command", "versions", "git_commit", "started", "means", "data"} <= about.keys()
    assert about["versions"]["torch"] == torch.__version__
    assert read_recipe(finished / "recipe.toml") == tiny_recipe()
    assert (finished / "tokenizer.json").is_file()


def test_a_run_keeps_special_tokens_of_unusual_names(tmp_path: Path) -> None:
    usual = Tokenizer.train(["a b c"], kind="word", vocab_size=9, min_frequency=1)
    named = Tokenizer(tokenizers.Tokenizer.from_str(usual._backend.to_str()), specials={"eos": "c"})
    for name, one in (("usual", usual), ("named", named)):
        Run.create(tmp_path / name, tiny_recipe(), one, {"command": "train"})
        assert Run.open(tmp_path / name).tokenizer().specials == one.specials


def test_metrics_have_a_line_every_log_every_steps_and_one_an_evaluation(finished: Path) -> None:
    lines = Run.open(finished).metrics()
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6, 8, 10, 12]
    assert [line["step"] for line in lines if "valid_loss" in line] == [6, 12, 12]
    assert lines[-1]["final"] is True
    logged = [line for line in lines if "loss" in line]
    assert logged[-1]["tokens"] > logged[0]["tokens"] > 0
    assert all(line["nll"] <= line["loss"] * 1.5 and 0 <= line["accuracy"] <= 1 for line in logged)
    assert logged[-1]["loss"] < logged[0]["loss"]


def test_the_regular_checkpoints_stay_as_many_as_are_kept(finished: Path) -> None:
    found = Run.open(finished).checkpoints()
    assert list(found) == [6, 9, 12]
    assert [step for step, path in found.items() if (path / "training").is_dir()] == [9, 12]


def test_the_finished_model_is_the_mean_of_the_last_checkpoints(finished: Path) -> None:
    parts = [read_tensors(finished / "checkpoints" / f"step-{step}" / "model.safetensors") for step in (9, 12)]
    for name, tensor in network_tensors(load(finished).network).items():
        mean = (parts[0][name].double() + parts[1][name].double()) / 2
        assert torch.equal(tensor, mean.float()), name
        assert name.endswith("bias") or not torch.equal(parts[0][name], parts[1][name])


def test_average_writes_a_checkpoint_of_its_own(finished: Path, tmp_path: Path) -> None:
    folder = average(finished, last=3, into=tmp_path / "mean")
    parts = [read_tensors(finished / "checkpoints" / f"step-{step}" / "model.safetensors") for step in (6, 9, 12)]
    for name, tensor in network_tensors(load(folder).network).items():
        torch.testing.assert_close(tensor, sum(part[name] for part in parts) / 3, rtol=1e-5, atol=1e-7)
    assert load(folder).extra["averaged_steps"] == [6, 9, 12]
    with pytest.raises(InputError, match=r"has 3 checkpoints to average \(6, 9, 12\), asked for 4"):
        average(finished, last=4)


def test_several_runs_make_one_mean(finished: Path, tmp_path: Path) -> None:
    """Of runs that may differ in what a training chooses for itself, and in nothing else."""
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    moved = other / "checkpoints" / "step-12"
    held = load(moved)
    with torch.no_grad():
        for parameter in held.network.parameters():
            parameter += 1.0
    shutil.rmtree(moved)
    held.network.config = dataclasses.replace(held.network.config, dropout=0.5)
    save(moved, held.network, held.tokenizer, held.pipeline, held.task, extra={**held.extra})
    folder = average([finished, other], last=1, into=tmp_path / "soup")
    before = network_tensors(load(finished / "checkpoints" / "step-12").network)
    for name, tensor in network_tensors(load(folder).network).items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, before[name] + 0.5, rtol=1e-5, atol=1e-6)
    assert load(folder).extra["averaged_runs"] == [finished.name, "other"]
    held.network.config = dataclasses.replace(held.network.config, norm_eps=0.1)
    shutil.rmtree(moved)
    save(moved, held.network, held.tokenizer, held.pipeline, held.task, extra={**held.extra})
    with pytest.raises(InputError, match="other has another network or vocabulary"):
        average([finished, other], last=1, into=tmp_path / "none")
    with pytest.raises(InputError, match="nothing to average"):
        average([])


def test_the_plan_comes_first_and_progress_and_samples_follow(finished: Path) -> None:
    said = (finished.parent / "said.txt").read_text()
    plan, _, rest = said.partition("step 1/12")
    for word in ("parameters", "padding", "memory", "200 pairs to train, 16 to validate", "12 (", "fp32 on cpu"):
        assert word in plan, word
    assert "tokens/s" in rest and " left" in rest and "valid_loss" in rest and "    → " in rest
    ending = rest[rest.index("\nFinished: ") :].splitlines()
    assert any(line.startswith("  memory ") for line in ending) and "step " not in "\n".join(ending[2:])


def test_plain_progress_lines_come_at_most_so_often() -> None:
    said = io.StringIO()
    display = Display(said, every=1000.0)
    display._last = -1e9
    for step in range(5):
        display.progress(step, 5, ["loss 1"])
    assert said.getvalue() == "step 0/5 · loss 1\n"


def test_durations_and_sizes_are_for_people() -> None:
    assert [duration(s) for s in (4.4, 95, 7260)] == ["4 s", "1 min 35 s", "2 h 1 min"]
    assert [size(n) for n in (1200, 3.4e6, 2.5e9)] == ["1 kB", "3.4 MB", "2.5 GB"]


def test_a_log_that_is_not_installed_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"needs the package 'wandb'.*pip install 'glassformer\[logging\]'"):
        check_log("wandb")
    with pytest.raises(InputError, match="Did you mean 'wandb'"):
        check_log("wanbd")


def test_metrics_go_to_other_logs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    from tiny_runs import write_corpus

    written: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            self.folder = folder

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def close(self) -> None:
            written.append(("closed", 0.0, 0))

    monkeypatch.setitem(sys.modules, "tensorboard", types.ModuleType("tensorboard"))
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    write_corpus(tmp_path)
    train(tiny_recipe(steps=2), run=tmp_path / "run", data_root=tmp_path, log="tensorboard", display=Silent())
    names = {name for name, _, step in written if step == 2}
    assert {"loss", "learning_rate", "valid_loss"} <= names and written[-1][0] == "closed"


def test_precision_and_compile_follow_plain_rules() -> None:
    cpu = torch.device("cpu")
    assert pick_precision("auto", cpu) == ("bf16" if cpu_has_bf16() else "fp32")
    assert pick_precision("bf16", cpu) == "bf16"
    assert pick_compile("auto", cpu) is False and pick_compile(True, cpu) is True
    assert pick_compile("auto", torch.device("cuda")) is True
    with pytest.raises(InputError, match="'training.device' 'gpu' cannot be used"):
        pick_device("gpu")


def test_two_trainings_in_bf16_run(tmp_path: Path) -> None:
    from tiny_runs import write_corpus

    write_corpus(tmp_path)
    recipe = tiny_recipe(steps=3, precision="bf16", accumulate=2)
    model = train(recipe, run=tmp_path / "run", data_root=tmp_path, display=Silent())
    assert next(model.network.parameters()).dtype == torch.float32


def test_the_best_checkpoint_is_the_model_when_nothing_is_averaged(tmp_path: Path) -> None:
    from tiny_runs import write_corpus

    write_corpus(tmp_path)
    recipe = read_recipe(tiny_recipe(evaluate_every=2, steps=16, learning_rate=0.3), {"evaluation.average": 1})
    train(recipe, run=tmp_path / "run", data_root=tmp_path, display=Silent())
    lines = [line for line in Run.open(tmp_path / "run").metrics() if "valid_loss" in line]
    best = min(lines[:-1], key=lambda line: line["valid_loss"])
    assert lines[-1]["checkpoints"] == [best["step"]]
    assert lines[-1]["valid_loss"] == best["valid_loss"]
