"""Fixtures of the training tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # killed_runs.py, a program of its own, shares what is tiny with us

from tiny_runs import write_corpus  # noqa: E402
from tiny_tasks import Trained  # noqa: E402


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder with the corpus: the data root."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_corpus(folder)
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Finished runs of all tasks, by their names, each trained when it is first asked for; not to be changed."""
    return Trained(tmp_path_factory.mktemp("trained"))
