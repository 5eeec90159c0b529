"""`glassformer finetune`: a recipe, a model to start from, and what of it is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import Glassformer, run_inside
from tiny_tasks import Trained

import glassformer as gf
from glassformer.checkpoints.native import read_index
from glassformer.training.recipes import read_recipe, recipe_toml


@pytest.fixture
def place(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with `labels.toml`, which names no model, `lora.toml`, which has low-rank layers, and
    `data/`."""
    trained("masked")
    plain = trained.recipe("labels-lora", training_steps=2, finetune_model="", finetune_lora=0)
    (tmp_path / "labels.toml").write_text(recipe_toml(plain), encoding="utf-8")
    lora = trained.recipe("labels-lora", training_steps=2, finetune_lora=3)
    (tmp_path / "lora.toml").write_text(recipe_toml(lora), encoding="utf-8")
    (tmp_path / "data").symlink_to(trained.data)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_model_is_trained_further_as_a_process(place: Path, trained: Trained, glassformer: Glassformer) -> None:
    done = glassformer("finetune", "labels.toml", "--model", trained("masked"), "--lora", "--name", "new", cwd=place)
    assert (done.code, done.out) == (0, ""), done.err
    run = place / "runs" / "new"
    assert read_recipe(run / "recipe.toml").finetune.lora == 8
    adapter = read_index(run).adapter
    assert adapter is not None and (adapter.base, adapter.rank, adapter.alpha) == (str(trained("masked")), 8, 4.0)
    assert "finetune labels.toml" in json.loads((run / "run.json").read_text())["command"]
    assert "of them trained" in done.err and gf.load(run).classify("one two").label in ("little", "much")
    again = glassformer("finetune", "labels.toml", "--model", trained("masked"), "--name", "new", cwd=place)
    assert again.code == 2 and "--resume runs/new" in again.err
    longer = glassformer("train", "--resume", "runs/new", "--training.steps", 3, cwd=place)
    assert longer.code == 0, longer.err
    assert read_index(run).extra["step"] == 3


@pytest.mark.parametrize(
    ("options", "rank"),
    [([], 3), (["--lora"], 3), (["--no-lora"], 0), (["--finetune.lora", "5"], 5), (["--lora", "--finetune.lora=5"], 5)],
)
def test_the_rank_is_the_recipes_unless_it_is_said(place: Path, options: list[str], rank: int) -> None:
    done = run_inside("finetune", "lora.toml", *options, "--run", "run")
    assert (done.code, done.out) == (0, ""), done.err
    recipe = read_recipe(place / "run" / "recipe.toml")
    assert recipe.finetune.lora == rank
    adapter = read_index(place / "run").adapter
    assert (adapter.rank if adapter is not None else 0) == rank


def test_parts_are_frozen_and_keys_are_overridden(place: Path, trained: Trained) -> None:
    freeze = ["--freeze", "embedding", "--freeze", "blocks[0]"]
    given = ["--model", trained("masked"), "--training.seed", "7", "--finetune.head_rate=2.0", "--run", "run"]
    done = run_inside("finetune", "labels.toml", *freeze, *given)
    assert (done.code, done.out) == (0, ""), done.err
    recipe = read_recipe(place / "run" / "recipe.toml")
    assert recipe.finetune.freeze == ("embedding", "blocks[0]") and recipe.finetune.head_rate == 2.0
    assert recipe.training.seed == 7 and read_index(place / "run").adapter is None
    before, after = (gf.load(folder).network.state_dict() for folder in (trained("masked"), place / "run"))
    same = {name: bool((before[name] == after[name]).all()) for name in before if name in after}
    assert same["stack.blocks.0.norm_1.weight"] and same["stack.embedding.token.weight"]
    assert not same["stack.blocks.1.norm_1.weight"]


@pytest.mark.parametrize(
    ("arguments", "hints"),
    [
        (["labels.toml"], ["--model all-minilm-l6-v2"]),
        (["labels.toml", "lora.toml"], ["takes one recipe", "labels.toml lora.toml"]),
        (["lora.toml", "--model", "x", "--finetune.model", "y"], ["--finetune.model says the same"]),
        (["lora.toml", "--no-lora", "--finetune.lora", "2"], ["--finetune.lora says the same"]),
        (["lora.toml", "--freeze", "head", "--finetune.freeze", '["head"]'], ["--finetune.freeze says the same"]),
        (["lora.toml", "--run", "a", "--name", "b"], ["--run and --name"]),
        (["lora.toml", "--model", "absent"], ["No model 'absent'"]),
        (["lora.toml", "--freeze", "blocks[9]"], ["There are no such layers"]),
        (["lora.toml", "--freeze", "*"], ["nothing to train"]),
        (["lora.toml", "--model.d_model", "32"], ["'d_model' comes from"]),
        (["lora.toml", "--model.dropout", "high"], ["'dropout' must be float"]),
        (["lora.toml", "--finetune.lroa", "3"], ["Did you mean 'lora'"]),
        (["lora.toml", "--finetune.lora_layers", '["gate"]'], ["no dense layer 'gate'"]),
        (["absent.toml", "--model", "x"], ["absent.toml"]),
        (["labels.toml", "--modle", "x"], ["Did you mean '--model'"]),
        (["lora.toml", "--data.labels", '{much = "m", litle = "l"}'], ["has the label 'little'"]),
        (["lora.toml", "--data-root", "elsewhere"], ["labels-train.tsv", "no such file"]),
    ],
)
def test_mistakes_are_one_line_and_make_no_run(place: Path, arguments: list[str], hints: list[str]) -> None:
    done = run_inside("finetune", *arguments)
    assert (done.code, done.out) == (2, "") and done.err.count("\n") == 1, done.err
    assert done.err.startswith("error: ") and all(hint in done.err for hint in hints), done.err
    assert not any(path.is_dir() and path.name != "data" for path in place.iterdir())


def test_a_base_of_another_family_is_said(place: Path, trained: Trained) -> None:
    done = run_inside("finetune", "lora.toml", "--model", trained("documents"), "--run", "run")
    assert done.code == 2 and "classification wants an encoder" in done.err and "is a decoder" in done.err
    assert not (place / "run").exists()
