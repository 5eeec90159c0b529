"""One trainer for all tasks: each trains, says how good it is, and stopped on the way ends as if it never had been."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tiny_runs import assert_same, metrics, stopped_after
from tiny_tasks import FRESH, TASKS, TUNED, Trained

import glassformer as gf
from glassformer.checkpoints.native import read_index
from glassformer.training.display import Silent
from glassformer.training.experiment import resume
from glassformer.training.recipes import read_recipe, recipe_toml
from glassformer.training.runs import Run
from glassformer.training.sections import METRICS

TASK_OF = {name: FRESH[TUNED[name][1] if name in TUNED else name]["task"] for name in TASKS}
NAMES = {  # what a checkpoint says that it is for
    **{"language-modeling": "generation", "masked-language-modeling": "fill", "classification": "classification"},
    **{"question-answering": "spans", "summarization": "summarization"},
}


@pytest.mark.parametrize("name", TASKS)
def test_every_task_trains_and_measures_itself(trained: Trained, name: str) -> None:
    run, task = trained(name), TASK_OF[name]
    recipe = trained.recipe(name)
    lines = Run.open(run).metrics()
    logged, measured = ([line for line in lines if key in line] for key in ("loss", "valid_loss"))
    assert [line["step"] for line in logged] == [3, 6, 8] and [line["step"] for line in measured] == [4, 8, 8]
    assert all(math.isfinite(line["loss"]) and line["gradient_norm"] > 0 for line in logged)
    metric = f"valid_{recipe.evaluation.metric}"
    wanted = {"valid_loss", "valid_accuracy", metric}
    if recipe.evaluation.metric not in ("loss", "accuracy"):
        wanted |= {f"valid_{other}" for other in METRICS[task] if other != "accuracy" or task == "classification"}
    if task not in ("classification", "question-answering"):
        wanted.add("valid_perplexity")
    for line in measured:
        assert {key for key in line if key.startswith("valid_")} == wanted
    assert measured[-1]["final"] and read_index(run).task == NAMES[task]
    assert read_recipe(run / "recipe.toml") == recipe and recipe_toml(recipe) == (run / "recipe.toml").read_text()


VERBS = {
    "language-modeling": lambda model: model.generate("one two", max_new_tokens=3).text,
    "masked-language-modeling": lambda model: model.fill("one [MASK]")[0].text,
    "classification": lambda model: model.classify("one two").label,
    "question-answering": lambda model: model.answer("where ?", "bob lives in rome", threshold=math.inf).text,
    "summarization": lambda model: model.summarize("one two three", max_new_tokens=3).text,
}


@pytest.mark.parametrize("name", TASKS)
def test_a_run_is_a_model_with_the_verb_of_its_task(trained: Trained, name: str) -> None:
    for folder in (trained(name), trained(name) / "checkpoints" / "step-6"):
        assert isinstance(VERBS[TASK_OF[name]](gf.load(folder)), str)


@pytest.mark.parametrize("name", TASKS)
def test_stopped_and_resumed_is_bit_equal(trained: Trained, tmp_path: Path, name: str) -> None:
    """Ctrl-C at step 5, between two log lines, two checkpoints and two evaluations."""
    whole = trained(name)
    with stopped_after(5):
        trained.train(name, tmp_path / "run")
    assert max(Run.open(tmp_path / "run").checkpoints()) == 5
    resume(tmp_path / "run", data_root=trained.data, display=Silent())
    assert_same(whole, tmp_path / "run")


@pytest.mark.parametrize("name", ["labels-lora", "refusals", "summaries-frozen"])
def test_a_finished_run_resumed_is_finished_again_and_alike(trained: Trained, tmp_path: Path, name: str) -> None:
    run = trained.train(name, tmp_path / "run")
    resume(run, data_root=trained.data, display=Silent())
    assert_same(trained(name), run)


def test_what_trains_differs_from_what_it_began_with(trained: Trained) -> None:
    """Equal metrics would not show a training that does nothing."""
    for name in ("labels-lora", "documents-frozen", "characters"):
        losses = [line["valid_loss"] for line in metrics(trained(name)) if "valid_loss" in line]
        assert len(set(losses)) > 1, name
