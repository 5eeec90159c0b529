"""`glassformer embed` and `fill`."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
from processes import Finished, run_inside

import glassformer as gf

LINES = ["a dog runs", "", "a man reads a book", "zwei männer"]
STDIN = "".join(f"{line}\n" for line in LINES).encode()


def array(done: Finished) -> np.ndarray:
    assert done.code == 0, done.err
    return np.load(io.BytesIO(done.out.encode(errors="surrogateescape")), allow_pickle=False)


def test_a_row_for_each_line(tiny_embed: Path, tmp_path: Path) -> None:
    vectors = array(run_inside("embed", "--model", tiny_embed, stdin=STDIN))
    assert (vectors.dtype, vectors.shape) == (np.dtype("float32"), (4, 32))
    np.testing.assert_allclose(vectors, gf.load(tiny_embed).embed(LINES).numpy(), atol=1e-6)
    np.testing.assert_array_equal(array(run_inside("embed", "--model", tiny_embed, *LINES)), vectors)
    out = tmp_path / "new" / "vectors.npy"
    done = run_inside("embed", "--model", tiny_embed, "--out", out, stdin=STDIN)
    assert (done.code, done.out) == (0, "") and str(out) in done.err
    np.testing.assert_array_equal(np.load(out), vectors)


def test_no_lines_are_an_array_without_rows(tiny_embed: Path) -> None:
    assert array(run_inside("embed", "--model", tiny_embed)).shape == (0, 32)


def test_json_has_a_line_for_each_line(tiny_embed: Path) -> None:
    done = run_inside("embed", "--model", tiny_embed, "--json", stdin=STDIN)
    rows = [json.loads(line) for line in done.out.splitlines()]
    np.testing.assert_allclose(rows, array(run_inside("embed", "--model", tiny_embed, stdin=STDIN)), atol=1e-6)


def test_a_long_line_is_refused_by_its_number_or_cut_off(tiny_embed: Path) -> None:
    stdin = b"a dog\n" + b"book " * 100 + b"\n"
    done = run_inside("embed", "--model", tiny_embed, stdin=stdin)
    assert (done.code, done.out) == (2, "") and "2" in done.err and "64" in done.err
    assert array(run_inside("embed", "--model", tiny_embed, "--truncate", stdin=stdin)).shape == (2, 32)


def test_other_mistakes(tiny_embed: Path, tiny_decoder: Path) -> None:
    both = run_inside("embed", "--model", tiny_embed, "--json", "--out", "x.npy", "a dog")
    assert both.code == 2 and "--out" in both.err
    other = run_inside("embed", "--model", tiny_decoder, "a dog")
    assert (other.code, other.out) == (2, "") and other.err.count("\n") == 1


def test_vectors_are_not_written_to_a_terminal(tiny_embed: Path) -> None:
    screen, end = pty.openpty()
    command = [sys.executable, "-m", "glassformer", "embed", "--model", str(tiny_embed), "a dog"]
    done = subprocess.run(command, stdout=end, stderr=subprocess.PIPE, timeout=120)
    os.close(end)
    os.close(screen)
    assert done.returncode == 2 and b"terminal" in done.stderr and b"--out" in done.stderr
