"""`glassformer classify`: a line in, a line out."""

from __future__ import annotations

import json

import pytest
from processes import Glassformer, run_inside
from tiny_tasks import Trained

import glassformer as gf

LINES = ["one two", "", "ten nine nine", "seven"]
STDIN = "".join(f"{line}\n" for line in LINES).encode()


def test_a_line_for_each_line(trained: Trained) -> None:
    run = trained("labels-lora")
    done = run_inside("classify", "--model", run, stdin=STDIN)
    assert (done.code, done.err) == (0, "")
    rows = [line.split("\t") for line in done.out.splitlines()]
    wanted = gf.load(run).classify(LINES)
    assert [row[0] for row in rows] == [one.label for one in wanted]
    assert [row[1] for row in rows] == [f"{one.probability:.4f}" for one in wanted]
    assert run_inside("classify", "--model", run, *LINES).out == done.out
    assert run_inside("classify", "--model", run, stdin=STDIN[:-1]).out == done.out
    assert run_inside("classify", "--model", run).out == ""


def test_json_has_all_probabilities(trained: Trained) -> None:
    done = run_inside("classify", "--model", trained("labels"), "--json", stdin=STDIN)
    records = [json.loads(line) for line in done.out.splitlines()]
    assert len(records) == len(LINES)
    for record in records:
        assert list(record["probabilities"]) == ["little", "much"]
        assert record["probability"] == max(record["probabilities"].values())
        assert sum(record["probabilities"].values()) == pytest.approx(1)


def test_as_a_process_and_in_int8(trained: Trained, glassformer: Glassformer) -> None:
    done = glassformer("classify", "--model", trained("labels-lora"), stdin=STDIN)
    assert (done.code, done.err) == (0, "") and done.out.count("\n") == len(LINES)
    small = run_inside("classify", "--model", trained("labels-lora"), "--precision", "int8", stdin=STDIN)
    assert small.code == 0 and small.out.count("\n") == len(LINES)


def test_mistakes(trained: Trained) -> None:
    run = trained("labels")
    long = b"one\n" * 3 + b"one " * 60 + b"\n"
    for arguments, stdin, hints in (
        (["--model", run], long, ["line 4 has 62 tokens", "at most 48"]),
        (["--model", run], long[:-1], ["line 4 has 62 tokens"]),  # what has no end of line comes later
        (["--model", run], b"one\n\xff\n", ["standard input:2"]),
        (["--model", trained("questions"), "one"], b"", ["head for labels", "(answer)"]),
        (["--model", trained("documents"), "one"], b"", ["is a decoder"]),
        (["--model", "absent", "one"], b"", ["No model 'absent'"]),
        (["--model", run, "--precision", "int9", "one"], b"", ["int9"]),
    ):
        done = run_inside("classify", *arguments, stdin=stdin)
        assert done.code == 2 and done.err.count("\n") == 1 and done.err.startswith("error: "), done.err
        assert all(hint in done.err for hint in hints), done.err
    cut = run_inside("classify", "--model", run, "--truncate", stdin=long)
    assert cut.code == 0 and cut.out.count("\n") == 4
