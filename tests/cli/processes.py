"""The command line as a real process, and a corpus and a recipe that are tiny."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

SENTENCES = [
    ("a man rides a bike .", "ein mann fährt rad ."),
    ("a woman reads .", "eine frau liest ."),
    ("a dog runs .", "ein hund rennt ."),
    ("two men read a book .", "zwei männer lesen ein buch ."),
    ("a dog reads a book .", "ein hund liest ein buch ."),
]

RECIPE = """
[data]
train = "train"
valid = "valid"
test = "valid"
source = "en"
target = "de"

[text]
tokenizer = "word"
vocab_size = 100
min_frequency = 1

[model]
size = "transformer-tiny"
d_model = 32
n_heads = 2
d_ff = 64
dropout = 0.0
n_encoder_layers = 1
n_decoder_layers = 1
max_length = 32

[training]
steps = 90
batch_tokens = 96
learning_rate = 1e-2
warmup = 10
evaluate_every = 45
checkpoint_every = 30
log_every = 10
keep = 3
samples = 1
precision = "fp32"
device = "cpu"

[evaluation]
metric = "bleu"
beam = 2
"""


@dataclass(frozen=True)
class Finished:
    """What a process left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


Glassformer = Callable[..., Finished]


def run_glassformer(*arguments: object, stdin: bytes = b"", cwd: Path | None = None, timeout: float = 300) -> Finished:
    """`glassformer ARGUMENTS`, with one thread; a traceback on stderr fails the test at once."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    environment.pop("GLASSFORMER_DATA", None)
    command = [sys.executable, "-m", "glassformer", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, cwd=cwd, env=environment, timeout=timeout)
    finished = Finished(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in finished.err, finished.err
    return finished


def run_inside(*arguments: object, stdin: bytes = b"") -> Finished:
    """The same within this process, for what needs no process of its own: quicker by the time it takes to start one."""
    from glassformer.cli.main import main

    outs = io.BytesIO(), io.BytesIO()
    out, err = (io.TextIOWrapper(stream, "utf-8", write_through=True) for stream in outs)
    before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin)), "utf-8")  # type: ignore
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main([*map(str, arguments)])
    finally:
        sys.stdin = before
    return Finished(code, *(stream.getvalue().decode(errors="surrogateescape") for stream in outs))
