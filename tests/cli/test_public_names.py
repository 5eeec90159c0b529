"""`import glassformer as gf`: the lines of the README, and that importing stays light."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import glassformer as gf


def test_every_public_name_is_there_and_listed() -> None:
    for name in gf.__all__:
        assert getattr(gf, name) is not None, name
    assert set(gf.__all__) <= set(dir(gf))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        gf.nonsense  # noqa: B018


def test_importing_does_not_import_torch() -> None:
    code = "import sys, glassformer as gf; gf.InputError, gf.__version__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_network_in_a_loop_of_ones_own() -> None:
    net = gf.EncoderDecoder(replace(gf.sizes["transformer-tiny"], vocab_size=50, dropout=0.0))
    batch = gf.PairBatches([[4, 5, 6], [7, 8]], [[9, 10], [11]], tokens=64, seed=0).batch([0, 1])
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    losses = []
    for _ in range(3):
        loss = gf.objectives.seq2seq(net, batch).mean
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_train_load_and_translate(place: Path, tmp_path: Path) -> None:
    trained = gf.train(place / "tiny.toml", run=tmp_path / "run", data_root=place / "data", **{"training.steps": 5})
    loaded = gf.load(tmp_path / "run")
    results = loaded.translate(["a dog runs .", ""], beam=3, n_best=2)
    assert [result.text for result in results] == [one.text for one in trained.translate(["a dog runs .", ""], beam=3)]
    assert len(results[0].alternatives) >= 1 and results[1].text == ""
    assert isinstance(loaded.translate("a dog runs ."), gf.Generation)
