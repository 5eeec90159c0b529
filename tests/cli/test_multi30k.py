"""The README's way through Multi30k, on the real files, with a few steps instead of thousands."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from processes import Glassformer

SHARED = Path(os.environ.get("GLASSFORMER_SHARED", Path(__file__).parents[3] / "shared"))
DATA = SHARED / "data"
RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="needs Multi30k (docs/data.md), found through GLASSFORMER_SHARED")
@pytest.mark.parametrize(("recipe", "signature"), [("multi30k-en-de", "tok:13a"), ("multi30k-en-de-tok", "tok:none")])
def test_train_resume_evaluate_average_plot(
    recipe: str, signature: str, glassformer: Glassformer, tmp_path: Path
) -> None:
    every = ("--training.evaluate_every", 20, "--training.checkpoint_every", 10)
    few = (*every, "--training.batch_tokens", 1024, "--evaluation.average", 2)
    given = ("train", RECIPES / f"{recipe}.toml", "--data-root", DATA, "--name", "few", "--training.steps", 20, *few)
    done = glassformer(*given, cwd=tmp_path)
    assert done.code == 0, done.err
    done = glassformer("train", "--resume", "runs/few", "--training.steps", 30, cwd=tmp_path)
    assert done.code == 0, done.err
    done = glassformer("evaluate", "runs/few", "--split", "test", "--beam", 1, "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    scores = json.loads(done.out)
    assert scores["n"] == 1000 and signature in scores["bleu_signature"]
    assert {"bleu", "chrf", "seconds"} <= set(scores)
    assert glassformer("average", "runs/few", "--last", 2, cwd=tmp_path).code == 0
    assert glassformer("plot", "runs/few", "--out", "few.png", cwd=tmp_path).code == 0
    assert (tmp_path / "few.png").read_bytes().startswith(b"\x89PNG")
