"""`glassformer compare` as a process: the whole report at toy size, its parts kept, bad input refused in a sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from processes import Glassformer

PARTS = ["translation", "cost", "distance", "parallelism", "order", "heads", "scaling", "depth", "memory"]
VERDICTS = {"supported", "not supported", "not testable here"}


@pytest.mark.slow
def test_the_whole_report(glassformer: Glassformer, tmp_path: Path) -> None:
    """Without a finished translator the first part says what to train; all others are measured."""
    done = glassformer("compare", "--scale", "toy", "--threads", 1, "--out", "report", "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    claims = [json.loads(line) for line in done.out.splitlines()]
    assert {claim["part"] for claim in claims} == set(PARTS[1:])
    assert {claim["verdict"] for claim in claims} <= VERDICTS
    page = (tmp_path / "report" / "report.html").read_text()
    assert "train recipes/multi30k-en-de-transformer.toml" in page and not re.search(r"https?://|<script", page)
    for source in re.findall(r'src="([^"]+)"', page):
        assert (tmp_path / "report" / source).read_bytes().startswith(b"\x89PNG")
    shown = (tmp_path / "report" / "report.md").read_text()
    images = re.findall(r"\]\((figures/[^)]+)\)", shown)
    assert sorted(images) == sorted(re.findall(r'src="([^"]+)"', page))
    assert len(re.findall(r"^\| \[\d\]\(#", shown, re.MULTILINE)) == len(claims)
    numbers = json.loads((tmp_path / "report" / "report.json").read_text())
    assert list(numbers["parts"]) == PARTS and numbers["measured"]["threads"] == "1"
    begun = (tmp_path / "report" / "parts" / "cost.json").read_bytes()
    again = glassformer("compare", "--scale", "toy", "--threads", 1, "--out", "report", cwd=tmp_path)
    assert again.code == 0 and again.out.strip() == "report/report.html"
    assert again.err.count("measured before") == len(PARTS) - 1
    assert (tmp_path / "report" / "parts" / "cost.json").read_bytes() == begun


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "costs"), "there is no part 'costs'. Did you mean 'cost'?"),
        (("--threads", "0"), "--threads must be at least 1, got 0"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], message: str, glassformer: Glassformer, tmp_path: Path) -> None:
    done = glassformer("compare", *arguments, cwd=tmp_path)
    assert done.code == 2 and message in done.err and "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


def test_a_damaged_part_is_named(glassformer: Glassformer, tmp_path: Path) -> None:
    (tmp_path / "report" / "parts").mkdir(parents=True)
    (tmp_path / "report" / "parts" / "memory.json").write_text('{"key": ')
    done = glassformer("compare", "--scale", "toy", "--only", "memory", "--out", "report", cwd=tmp_path)
    assert done.code == 2 and "memory.json" in done.err and "damaged" in done.err


@pytest.mark.slow
def test_quick(glassformer: Glassformer, tmp_path: Path) -> None:
    done = glassformer("compare", "--quick", "--threads", 1, "--out", "report", "--json", cwd=tmp_path, timeout=1500)
    assert done.code == 0, done.err
    claims = [json.loads(line) for line in done.out.splitlines()]
    assert {claim["part"] for claim in claims} == set(PARTS[1:])
