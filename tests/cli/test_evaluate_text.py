"""`glassformer evaluate --text`: perplexity with the windows that it was measured in."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from processes import SENTENCES, run_inside

import glassformer as gf

TEXT = "\n".join(sentence for pair in SENTENCES for sentence in pair) + "\n"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "text.txt"


def test_perplexity_is_the_models_with_its_windows(tiny_decoder: Path, text: Path) -> None:
    done = run_inside("evaluate", "--model", tiny_decoder, "--text", text, "--context", 32, "--stride", 8, "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    wanted = gf.load(tiny_decoder).perplexity(TEXT, context=32, stride=8)
    assert found["perplexity"] == pytest.approx(wanted.value)
    assert (found["context"], found["stride"], found["n_tokens"]) == (32, 8, wanted.n_tokens)
    assert found["nll"] == pytest.approx(wanted.nll)
    assert found["bits_per_byte"] == pytest.approx(wanted.nll / math.log(2) / len(TEXT.encode()))
    assert found["precision"] == "fp32" and found["tokens_per_second"] > 0


def test_the_table_states_the_windows(tiny_decoder: Path, text: Path) -> None:
    table = run_inside("evaluate", tiny_decoder, "--text", text).out
    rows = dict(line.split(maxsplit=1) for line in table.splitlines())
    assert (rows["context"], rows["stride"]) == ("1024", "512")
    assert float(rows["perplexity"]) > 1
    piped = run_inside("evaluate", tiny_decoder, "--text", "-", stdin=TEXT.encode())
    assert piped.out.splitlines()[0].split() == ["perplexity", rows["perplexity"]]


def test_mistakes(tiny_decoder: Path, tiny_fill: Path, text: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"a\xff")
    (tmp_path / "empty.txt").write_bytes(b"")
    for arguments, hint in (
        ([tiny_decoder, "--text", tmp_path / "missing.txt"], "missing.txt"),
        ([tiny_decoder, "--text", tmp_path / "bad.txt"], "UTF-8"),
        ([tiny_decoder, "--text", tmp_path / "empty.txt"], "at least 2 tokens"),
        ([tiny_decoder, "--text", text, "--context", 9999], "4096"),
        ([tiny_decoder, "--stride", 8], "--text"),
        ([tiny_fill, "--text", text], "fill"),
    ):
        done = run_inside("evaluate", *arguments)
        assert (done.code, done.out) == (2, "") and done.err.count("\n") == 1
        assert hint in done.err
