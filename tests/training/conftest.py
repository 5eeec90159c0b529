"""Fixtures of the training tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # killed_runs.py, a program of its own, shares tiny_runs.py with us

from tiny_runs import write_corpus  # noqa: E402


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder with the corpus: the data root."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_corpus(folder)
    return folder
