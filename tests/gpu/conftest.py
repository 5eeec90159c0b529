"""Tests that need a GPU are skipped where there is none. By hand: `pytest tests/gpu`."""

import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "training"))  # what is tiny there is tiny here

from tiny_tasks import Trained  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="no GPU here"))


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU, multiplying fp32 as fp32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Runs of all tasks, trained on the CPU when first asked for, and their data."""
    return Trained(tmp_path_factory.mktemp("trained"))
