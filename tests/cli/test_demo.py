"""`glassformer demo`: its counting here, the whole of it (minutes) among the slow tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import Glassformer

from glassformer.cli.demo import Score, free_folder
from glassformer.cli.output import percent


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
    done = glassformer("demo", "--json", "--out", tmp_path / "run", timeout=900)
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["exact_match"] >= 0.99
    assert len(record["languages"]) >= 40
    assert record["worst"]["exact_match"] >= 0.95, record["worst"]
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
