"""A folder written in format 1 loads for ever, and means what it meant."""

import json
from pathlib import Path

import torch

from glassformer.checkpoints.native import load

HERE = Path(__file__).parent


def test_a_folder_of_format_1_still_loads() -> None:
    loaded = load(HERE / "format1")
    source, target = torch.tensor([[4, 5, 6, 2], [7, 2, 0, 0]]), torch.tensor([[1, 8, 9], [1, 5, 0]])
    with torch.no_grad():
        logits = loaded.network(source, target).logits
    expected = torch.tensor(json.loads((HERE / "format1_logits.json").read_text()))
    real = target != 0  # what stands at padding means nothing
    torch.testing.assert_close(logits[real], expected[real], rtol=1e-4, atol=1e-5)
    assert loaded.task == "translation" and loaded.extra == {"step": 1}
    assert loaded.pipeline.source == "en" and loaded.pipeline.lowercase
    assert loaded.tokenizer.encode("a b") == [4, 5]


def test_the_fixture_itself_is_unchanged() -> None:
    assert json.loads((HERE / "format1" / "glassformer.json").read_text())["format"] == 1
    assert sum(path.stat().st_size for path in (HERE / "format1").iterdir()) < 60_000
