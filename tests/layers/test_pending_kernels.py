"""While the C++ compiler is at work: the first word does not wait for it, the rest does, and its work is not lost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glassformer.layers import kernels

pytestmark = pytest.mark.skipif(kernels.library("generation") is None, reason="there is no C++ compiler")

COMPILER = """#!/bin/sh
while [ ! -e "$FOLDER/go" ]; do sleep 0.02; done
while [ "$1" != -o ]; do shift; done
cp "$FOLDER/$(basename "$2" | cut -d- -f1)" "$2"
"""
"""It waits until it is told to go on, and has compiled everything before."""

BEGIN = """
import os
from pathlib import Path
from glassformer.layers import kernels

def go():
    Path(os.environ["FOLDER"], "go").touch()

kernels.begin("generation")
"""

FIRST_WORD = """
import torch
from glassformer.generation.compiled import Accelerated
from glassformer.layers.quantized import QuantizedLinear, quantized, unrounded
from glassformer.models.decoder import Decoder
from glassformer.models.config import Config, Rotary

torch.manual_seed(0)
torch.set_num_threads(2)
shape = dict(n_encoder_layers=0, n_decoder_layers=2, positions=Rotary(), max_length=64, norm_first=True, dropout=0.0)
network = Decoder(Config(vocab_size=50, d_model=32, n_heads=4, d_ff=64, **shape)).eval().requires_grad_(False)
network = quantized(network, 4)
network = unrounded(network) if EXACT else network
running = Accelerated(network)
layers = [layer for layer in network.modules() if isinstance(layer, QuantizedLinear)]
ids = torch.arange(20)[None]

state = running.start(1, 64)
first = running.step(ids[:, :19], None, state)
assert kernels.pending("generation") and not any(layer.packed for layer in layers)
assert not any(code.ready() for code in running.codes["one"]), "compiled steps call the kernels"
go()
second = running.step(ids[:, 19:], None, state)
assert not kernels.pending("generation") and all(layer.packed for layer in layers)
assert torch.get_num_threads() == 2

state = running.start(1, 64)
for new, wanted in ((ids[:, :19], first), (ids[:, 19:], second)):
    assert (running.step(new, None, state) - wanted).norm() < 0.01 * wanted.norm()
"""

MISSED = """
assert kernels.pending("generation")
print("missed", flush=True)
"""

NOT_MISSED = """
print("not missed", flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The compiler, and what it gives."""
    (tmp_path / "c++").write_text(COMPILER)
    (tmp_path / "c++").chmod(0o755)
    for part in ("generation", "exact"):
        kernels.build(part)
        place = kernels._place(part)
        assert place is not None
        (tmp_path / part).symlink_to(place)
    return tmp_path


def started(folder: Path, script: str) -> subprocess.Popen[str]:
    """A process whose cache is empty."""
    own = {"CXX": str(folder / "c++"), "FOLDER": str(folder), "GLASSFORMER_CACHE": str(folder / "cache")}
    environment = {**os.environ, **own, "GLASSFORMER_COMPILE": "0"}
    return subprocess.Popen([sys.executable, "-c", BEGIN + script], env=environment, stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> int:
    with process:
        return process.wait(timeout=60)


def cached(folder: Path) -> list[str]:
    return [path.name.split("-")[0] for path in (folder / "cache").iterdir()]


@pytest.mark.parametrize("exact", [False, True], ids=["rounded", "fp32"])
def test_the_first_word_does_not_wait_and_the_second_does(folder: Path, exact: bool) -> None:
    assert ended(started(folder, FIRST_WORD.replace("EXACT", str(exact)))) == 0
    assert sorted(cached(folder)) == (["exact", "generation"] if exact else ["generation"])


def test_what_was_missed_is_there_the_next_time(folder: Path) -> None:
    process = started(folder, MISSED)
    assert process.stdout is not None and process.stdout.readline() == "missed\n"
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.3)
    (folder / "go").touch()
    assert ended(process) == 0 and cached(folder) == ["generation"]


def test_what_nobody_missed_is_not_waited_for(folder: Path) -> None:
    begun = time.monotonic()
    assert ended(started(folder, NOT_MISSED)) == 0 and time.monotonic() - begun < 30
    assert cached(folder) == []
