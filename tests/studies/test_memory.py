"""What heads cost: measured at toy scale, both paths against each other, each claim both ways."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from glassformer.layers.attention import Attention
from glassformer.studies.architectures import memory
from glassformer.studies.study import Setting


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return json.loads(json.dumps(memory.PART.run(Setting("toy")), allow_nan=False))


def test_the_part_draws_and_tells_what_it_measured(measured: dict[str, Any], tmp_path: Path) -> None:
    (picture,) = memory.PART.draw(measured, tmp_path)
    assert (tmp_path / picture.file).read_bytes().startswith(b"\x89PNG")
    assert "n = 3 repeats" in picture.caption and "seed" in picture.caption
    (table,) = memory.PART.tables(measured)
    assert len(table.rows) == len(measured["heads"]) and all(len(row) == len(table.columns) for row in table.rows)
    assert len(memory.PART.claims(measured)) == 4


def test_memory_is_what_the_paths_promise(measured: dict[str, Any]) -> None:
    legible, fused, _, _ = memory.PART.claims(measured)
    assert legible.verdict == fused.verdict == "supported"
    sizes = measured["paths"]["legible"]["bytes"]
    pattern = 4 * measured["rows"] * measured["length"] ** 2
    assert sizes[2] - sizes[1] >= 2 * pattern  # two heads more keep at least their patterns


def test_both_paths_find_the_same_with_the_same_parameters() -> None:
    layers = memory.both_paths(Attention(16, 4, 4))
    x = torch.randn(2, 70, 16)
    torch.testing.assert_close(memory.attend(layers["fused"], x), memory.attend(layers["legible"], x))
    assert layers["fused"].taps is not layers["legible"].taps
    assert layers["fused"].to_query.weight is layers["legible"].to_query.weight


def made_up(**change: Any) -> dict[str, Any]:
    """Results in which all claims hold; `change` gives a path other bytes or seconds."""
    paths = {
        "fused": {"bytes": [100, 101, 102], "seconds": [[1.0, 1.1], [1.0, 1.1], [1.05, 1.1]]},
        "legible": {"bytes": [110, 210, 410], "seconds": [[2.0, 2.1], [3.0, 3.1], [4.0, 4.1]]},
    }
    for key, value in change.items():
        path, what = key.split("_")
        paths[path][what] = value
    return {"heads": [1, 2, 4], "width": 8, "length": 10, "rows": 1, "threads": 1, "paths": paths}


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({}, []),
        ({"legible_bytes": [100, 300, 410]}, [0]),  # not on a line
        ({"legible_bytes": [300, 310, 330]}, [0]),  # hardly any growth
        ({"fused_bytes": [100, 101, 120]}, [1]),
        ({"fused_seconds": [[1.0, 1.1], [1.0, 1.1], [1.3, 1.4]]}, [2]),
        ({"legible_seconds": [[0.9, 2.1], [3.0, 3.1], [4.0, 4.1]]}, [3]),
    ],
)
def test_each_claim_can_hold_and_fail(change: dict[str, Any], failing: list[int]) -> None:
    found = [each.verdict for each in memory.PART.claims(made_up(**change))]
    assert found == ["not supported" if place in failing else "supported" for place in range(4)]
