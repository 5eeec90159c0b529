"""`glassformer demo`: its counting here, the whole of it (minutes) among the slow tests."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from processes import Glassformer

import glassformer as gf
from glassformer.cli.demo import Score, free_folder, measure
from glassformer.cli.output import percent
from glassformer.text.dates import dates_corpus


def test_percent_rounds_down_so_that_only_all_is_100() -> None:
    assert percent(1.0) == "100.0 %"
    assert percent(1999 / 2000) == "99.9 %"
    assert percent(0.996) == "99.6 %"
    assert percent(0.29) == "29.0 %"


def test_the_worst_language_stands_first() -> None:
    score = Score({"Thai": 1, "Dutch": 3, "Greek": 2}, {"Thai": 2, "Dutch": 3, "Greek": 3}, 1.0)
    assert list(score.by_language) == ["Thai", "Greek", "Dutch"]
    assert score.share == 6 / 8


@pytest.mark.slow
def test_the_demo_reaches_its_floor(glassformer: Glassformer, tmp_path: Path) -> None:
    """The run of `make demo`, where `.ci/run` names the one that it has just made; else one that is trained here."""
    run = Path(os.environ.get("GLASSFORMER_DEMO", tmp_path / "run"))
    if "GLASSFORMER_DEMO" not in os.environ:
        done = glassformer("demo", "--out", run, timeout=900)
        assert done.code == 0, done.err
    score, _ = measure(gf.load(run), dates_corpus("test"))
    assert score.share >= 0.99
    assert len(score.by_language) >= 40
    assert min(score.by_language.values()) >= 0.95, score.by_language
    assert (run / "alignment.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_record_says_what_the_demo_found(glassformer: Glassformer, tmp_path: Path) -> None:
    done = glassformer("demo", "--steps", 1, "--json", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["n"] == len(dates_corpus("test").source) and record["run"] == str(tmp_path / "run")
    assert record["worst"]["exact_match"] == min(record["languages"].values()) <= record["exact_match"] < 0.99
    assert Path(record["alignment"]).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_demo_tells_its_result_and_what_to_do_next(glassformer: Glassformer, tmp_path: Path) -> None:
    done = glassformer("demo", "--steps", 20, cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1].startswith("exact match ") and "(n = " in done.out
    assert "glassformer translate --model runs/demo" in done.err
    assert "recipes/translation.toml" in done.err and "multi30k-en-de" in done.err
    assert (tmp_path / "runs" / "demo" / "alignment.png").is_file()


def test_a_second_demo_takes_another_folder(tmp_path: Path) -> None:
    assert free_folder(tmp_path / "demo") == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").mkdir()
    assert free_folder(tmp_path / "demo") == tmp_path / "demo-3"
