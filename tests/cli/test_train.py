"""`glassformer train`, `plot` and `average` on a corpus of five sentences."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import Glassformer

from glassformer.cli.train import columns, split_overrides
from glassformer.errors import InputError
from glassformer.training.recipes import read_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


def test_overrides_stand_anywhere_and_in_three_forms() -> None:
    plain, overrides = split_overrides(
        ["--training.steps", "5", "a.toml", "--model.dropout=0.5", "--evaluation.tokenized", "--training.clip", "-1"]
    )
    assert plain == ["a.toml"]
    assert overrides == {
        "training.steps": "5",
        "model.dropout": "0.5",
        "evaluation.tokenized": "true",
        "training.clip": "-1",
    }


def test_columns_are_names_or_numbers() -> None:
    assert columns("en, de") == ["en", "de"]
    assert columns("1,2") == [1, 2]
    assert split_overrides(["--data.fields", "1,2"])[1] == {"data.fields": [1, 2]}
    assert split_overrides(["--data.fields", '["a", "b"]'])[1] == {"data.fields": '["a", "b"]'}


def test_an_option_without_a_section_is_refused() -> None:
    with pytest.raises(InputError, match=r"--steps.*--training\.steps"):
        split_overrides(["--steps", "5"])


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_is_read(path: Path) -> None:
    assert read_recipe(path).name == path.stem


def test_a_run_has_all_that_tells_about_it(place: Path) -> None:
    run = place / "runs" / "tiny"
    assert {"recipe.toml", "run.json", "tokenizer.json", "metrics.jsonl", "glassformer.json", "model.safetensors"} <= {
        path.name for path in run.iterdir()
    }
    assert "train tiny.toml" in json.loads((run / "run.json").read_text())["command"]


def test_an_existing_run_is_not_overwritten(place: Path, glassformer: Glassformer) -> None:
    before = (place / "runs" / "tiny" / "metrics.jsonl").read_bytes()
    done = glassformer("train", "tiny.toml", cwd=place)
    assert (done.code, done.out) == (2, "")
    assert "runs/tiny" in done.err and "--resume" in done.err
    assert (place / "runs" / "tiny" / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "hints"),
    [
        (["--training.stpes", "5"], ["stpes", "Did you mean 'steps'"]),
        (["--training.steps", "many"], ["steps", "many"]),
        (["--data.train", "nowhere"], ["nowhere.en", "--data-root", "docs/data.md"]),
    ],
)
def test_a_wrong_recipe_makes_no_run(
    place: Path, glassformer: Glassformer, arguments: list[str], hints: list[str]
) -> None:
    done = glassformer("train", "tiny.toml", "--name", "wrong", *arguments, cwd=place)
    assert done.code == 2 and done.err.count("\n") == 1
    assert all(hint in done.err for hint in hints), done.err
    assert not (place / "runs" / "wrong").exists()


@pytest.mark.slow
def test_own_files_as_columns(place: Path, glassformer: Glassformer, tmp_path: Path) -> None:
    table = tmp_path / "pairs.tsv"
    table.write_text("id\ten\tde\n" + "".join(f"{i}\ta dog {i}\tein hund {i}\n" for i in range(9)), encoding="utf-8")
    given = ["--data.train", table, "--data.valid", table, "--data.test", table, "--data.fields", "en,de"]
    small = ["--training.steps", "2", "--text.vocab_size", "60", "--model.d_model", "16", "--evaluation.metric", "loss"]
    layers = ["--model.n_encoder_layers", "1", "--model.n_decoder_layers", "1", "--evaluation.average", "1"]
    recipe = RECIPES / "translation.toml"
    done = glassformer("train", recipe, *given, *small, *layers, "--run", tmp_path / "run", cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "run" / "glassformer.json").is_file()


@pytest.mark.slow
def test_a_run_goes_on_where_ctrl_c_stopped_it(place: Path, glassformer: Glassformer) -> None:
    run = place / "runs" / "long"
    command = [sys.executable, "-m", "glassformer", "train", "tiny.toml", "--name", "long"]
    values = {"steps": 100000, "evaluate_every": 100000, "checkpoint_every": 0, "log_every": 1}
    settings = [text for key, value in values.items() for text in (f"--training.{key}", str(value))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, *settings], cwd=place, stderr=subprocess.PIPE, text=True, env=environment)
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.is_file() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err and "glassformer train --resume runs/long" in err
    stopped = max(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))

    done = glassformer("train", "--resume", "runs/long", "--training.steps", stopped + 2, cwd=place)
    assert done.code == 0, done.err
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps[0] == 1 and steps[-1] == stopped + 2


def test_plot_draws_runs_beside_each_other(place: Path, glassformer: Glassformer, tmp_path: Path) -> None:
    picture = tmp_path / "new" / "curves.png"
    done = glassformer("plot", "runs/tiny", "runs/tiny", "--out", picture, cwd=place)
    assert (done.code, done.out) == (0, f"{picture}\n")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_plot_refuses_what_is_no_run(place: Path, glassformer: Glassformer) -> None:
    done = glassformer("plot", "data", "--out", "curves.png", cwd=place)
    assert done.code == 2 and "data is no run" in done.err
    assert not (place / "curves.png").exists()


@pytest.mark.slow
def test_average_makes_a_model(place: Path, glassformer: Glassformer, tmp_path: Path) -> None:
    target = tmp_path / "mean"
    done = glassformer("average", "runs/tiny", "--last", 2, "--out", target, cwd=place)
    assert (done.code, done.out) == (0, f"{target}\n")
    translated = glassformer("translate", "--model", target, "a dog runs .", cwd=place)
    assert (translated.code, translated.out) == (0, "ein hund rennt .\n")
    again = glassformer("average", "runs/tiny", "--last", 2, "--out", target, cwd=place)
    assert again.code == 2 and "not overwritten" in again.err


def test_average_says_how_many_there_are(place: Path, glassformer: Glassformer, tmp_path: Path) -> None:
    done = glassformer("average", "runs/tiny", "--last", 50, "--out", tmp_path / "mean", cwd=place)
    assert done.code == 2 and "50" in done.err
    assert not (tmp_path / "mean").exists()
