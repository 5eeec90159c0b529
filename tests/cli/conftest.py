"""Fixtures of the tests of the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from processes import RECIPE, SENTENCES, Glassformer, run_glassformer

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from tiny_tasks import Trained  # noqa: E402


@pytest.fixture(scope="session")
def glassformer() -> Glassformer:
    """Runs the command line."""
    return run_glassformer


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with `data/train.en` and so on, `tiny.toml`, and a finished run in `runs/tiny`."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "data").mkdir()
    for split, pairs in (("train", SENTENCES * 4), ("valid", SENTENCES)):
        for side, language in enumerate(("en", "de")):
            text = "".join(f"{pair[side]}\n" for pair in pairs)
            (folder / "data" / f"{split}.{language}").write_text(text, encoding="utf-8")
    (folder / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    done = run_glassformer("train", "tiny.toml", cwd=folder)
    assert done.code == 0, done.err
    assert done.out == ""
    return folder


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a decoder with random weights that generates and chats."""
    from tiny_models import save_decoder

    return save_decoder(tmp_path_factory.mktemp("tiny") / "decoder")


@pytest.fixture(scope="session")
def tiny_fill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an encoder with random weights that fills masks."""
    from tiny_models import save_encoder

    from glassformer.models.config import MaskedLM

    return save_encoder(tmp_path_factory.mktemp("tiny") / "fill", MaskedLM())


@pytest.fixture(scope="session")
def tiny_embed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an encoder with random weights that makes vectors."""
    from tiny_models import save_encoder

    from glassformer.models.config import Sentence

    return save_encoder(tmp_path_factory.mktemp("tiny") / "embed", Sentence())


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Finished runs of all tasks, by their names, each trained when it is first asked for; not to be changed."""
    return Trained(tmp_path_factory.mktemp("trained"))
