"""Recipes: read strictly, overridden by typed keys, written back."""

from pathlib import Path

import pytest
from tiny_runs import tiny_recipe

from glassformer.errors import InputError
from glassformer.models.config import Learned
from glassformer.training.recipes import Recipe, read_recipe, recipe_toml


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_written_as_toml_reads_back_equal(tmp_path: Path) -> None:
    recipe = tiny_recipe(minutes=1.5, compile=False)
    assert read_recipe(write(tmp_path / "any.toml", recipe_toml(recipe))) == recipe


def test_choices_of_the_model_survive_the_way_through_toml(tmp_path: Path) -> None:
    recipe = Recipe(model={"size": "transformer-tiny", "positions": "learned", "norm_eps": 1e-6})
    again = read_recipe(write(tmp_path / "any.toml", recipe_toml(recipe)))
    assert again.network_config(50).positions == Learned()
    assert again.network_config(50).norm_eps == 1e-6
    assert again.network_config(50).vocab_size == 50


def test_the_name_is_the_files_own(tmp_path: Path) -> None:
    assert read_recipe(write(tmp_path / "mine.toml", "[training]\nsteps = 3\n")).name == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nstepz = 3\n", r"bad.toml \[training\]: unknown key 'stepz'. Did you mean 'steps'"),
        ("[trainning]\nsteps = 3\n", "unknown key 'trainning'. Did you mean 'training'"),
        ("[training]\nsteps = 'many'\n", "'steps' must be int, got 'many'"),
        ("[training]\nsteps = 0\n", "'steps' must be at least 1"),
        ("[training]\nbetas = [0.9, 1.0]\n", "'betas' in"),
        ("[training]\nlabel_smoothing = 1.5\n", "'label_smoothing' must be in"),
        ("[training]\nconsistency = -1.0\n", "'consistency' must be at least 0"),
        ("[training]\nconsistency = 1.0\n[parallel]\nshard = 2\n", "goes with 'parallel.data' alone"),
        ("task = 'language-modeling'\n[training]\nconsistency = 1.0\n", "is for translation and classification"),
        ("[model]\nsize = 'transformer-tny'\n", "Did you mean 'transformer-tiny'"),
        ("[model]\nd_modle = 3\n", "unknown key 'd_modle'. Did you mean 'd_model'"),
        ("[model]\nvocab_size = 3\n", "comes from the tokenizer"),
        ("[model]\nd_model = 30\nn_heads = 4\n", "must be a multiple of 'n_heads'"),
        ("training = 3\n", r"'training' must be a section"),
        ("[training\n", "bad.toml is not valid TOML: .*line 1"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_recipe(write(tmp_path / "bad.toml", text))


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "recipes").glob("*.toml")), ids=lambda p: p.stem)
def test_the_packages_own_recipes_read_and_are_found_from_anywhere(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_recipe(f"recipes/{path.name}") == read_recipe(path)


def test_a_missing_recipe_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no recipe .*absent.toml"):
        read_recipe(tmp_path / "absent.toml")
    with pytest.raises(InputError, match="is a folder"):
        read_recipe(tmp_path)


def test_overrides_are_typed_whether_given_as_values_or_as_text() -> None:
    overrides = {
        "training.steps": "7",
        "training.learning_rate": "1e-4",
        "training.compile": "false",
        "training.betas": "[0.9, 0.95]",
        "data.train": "12",
        "data.fields": '["en", "de"]',
        "data.labels": '{0 = "bad", "1 a" = "good"}',
        "data.train_titles": '["One", "Two"]',
        "finetune.lora_layers": '["up", "down"]',
        "model.dropout": "0.3",
        "model.positions": "learned",
        "training.seed": 3,
        "name": "other",
    }
    recipe = read_recipe(tiny_recipe(), overrides)
    assert recipe.name == "other"
    assert (recipe.training.steps, recipe.training.learning_rate, recipe.training.seed) == (7, 1e-4, 3)
    assert recipe.training.compile is False
    assert recipe.training.betas == (0.9, 0.95)
    assert recipe.data.train == "12"
    assert recipe.data.fields == ["en", "de"] and recipe.data.labels == {"0": "bad", "1 a": "good"}
    assert recipe.data.train_titles == ["One", "Two"] and recipe.finetune.lora_layers == ("up", "down")
    assert read_recipe(recipe, {"data.train": '["12", "13"]'}).data.train == ["12", "13"]
    assert recipe.network_config(9).dropout == 0.3
    assert recipe.network_config(9).positions == Learned()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("training.stepz", 3, "Did you mean 'steps'"),
        ("trainin.steps", 3, "Did you mean 'training.steps'"),
        ("steps", 3, "must be SECTION.KEY"),
        ("training.steps", "x", "'steps' must be int, got 'x'"),
        ("model.dropout", "2.0", "'dropout' must be in"),
    ],
)
def test_a_wrong_override_is_named(key: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_recipe(tiny_recipe(), {key: value})
