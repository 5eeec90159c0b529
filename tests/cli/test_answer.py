"""`glassformer answer`: a question in, a line out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import Glassformer, run_inside
from tiny_tasks import Trained

import glassformer as gf

CONTEXT = "one two . ann lives in rome , and eats rice .\nseven\n"
QUESTIONS = ["where does ann live ?", "what does ann eat ?", "who ?"]
STDIN = "".join(f"{line}\n" for line in QUESTIONS).encode()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "context.txt").write_text(CONTEXT, encoding="utf-8")
    return tmp_path / "context.txt"


def test_a_line_for_each_question(trained: Trained, context: Path) -> None:
    run = trained("questions-lora")
    given = ["answer", "--model", run, "--context", context]
    done = run_inside(*given, stdin=STDIN)
    assert (done.code, done.err) == (0, "")
    wanted = gf.load(run).answer(QUESTIONS, CONTEXT)
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert len(rows) == len(QUESTIONS)
    for row, one in zip(rows, wanted, strict=True):
        start, end = map(int, row[1].split(":"))
        assert CONTEXT[start:end] == one.text and row[0] == " ".join(one.text.split())
        assert row[2] == f"{one.score:.2f}"
    assert run_inside(*given, *QUESTIONS).out == done.out
    piped = run_inside("answer", "--model", run, "--context", "-", *QUESTIONS, stdin=CONTEXT.encode())
    assert piped.out == done.out
    assert run_inside(*given).out == ""


def test_an_answer_of_two_lines_is_one_line(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("rome\nrice", encoding="utf-8")
    done = run_inside("answer", "--model", trained("questions"), "--context", tmp_path / "two.txt", *QUESTIONS)
    assert done.code == 0 and done.out.count("\n") == len(QUESTIONS)


def test_questions_are_refused_by_a_threshold(trained: Trained, context: Path) -> None:
    given = ["answer", "--model", trained("refusals"), "--context", context]
    none = run_inside(*given, "--threshold", "-1e9", *QUESTIONS)
    assert none.code == 0
    assert [line.split("\t")[:2] for line in none.out.splitlines()] == [["no answer", "-"]] * len(QUESTIONS)
    every = run_inside(*given, "--threshold", "inf", "--json", *QUESTIONS)
    records = [json.loads(line) for line in every.out.splitlines()]
    assert [record["question"] for record in records] == QUESTIONS
    assert all(record["answered"] and record["text"] == record["span"] for record in records)
    assert [line.split("\t")[2] for line in none.out.splitlines()] == [f"{record['score']:.2f}" for record in records]
    own = [json.loads(line)["answered"] for line in run_inside(*given, "--json", *QUESTIONS).out.splitlines()]
    assert own == [one.answered for one in gf.load(trained("refusals")).answer(QUESTIONS, CONTEXT)]


def test_a_context_longer_than_the_model_as_a_process(
    trained: Trained, tmp_path: Path, glassformer: Glassformer
) -> None:
    (tmp_path / "long.txt").write_text(CONTEXT * 20, encoding="utf-8")
    done = glassformer("answer", "--model", trained("questions-lora"), "--context", tmp_path / "long.txt", stdin=STDIN)
    assert (done.code, done.err) == (0, "") and done.out.count("\n") == len(QUESTIONS)


def test_lines_are_counted_over_all_that_comes(trained: Trained, context: Path) -> None:
    given = ["answer", "--model", trained("questions"), "--context", context]
    done = run_inside(*given, stdin=b"who ?\n" * 3 + b"one " * 60)  # what has no end of line comes later
    assert done.code == 2 and done.out.count("\n") == 3 and "question 4 has 60 tokens" in done.err


def test_mistakes(trained: Trained, context: Path, tmp_path: Path) -> None:
    run = trained("questions")
    (tmp_path / "empty.txt").write_bytes(b"\n")
    (tmp_path / "bad.txt").write_bytes(b"one\n\xff\n")
    (tmp_path / "zero.txt").write_text("\u200b", encoding="utf-8")
    for arguments, stdin, hints in (
        (["--model", run, "--context", "-"], STDIN, ["cannot be both"]),
        (["--model", run, "--context", "-", "who ?"], b"\xff", ["standard input", "UTF-8"]),
        (["--model", run, "--context", "-", "who ?"], b" \n", ["empty"]),
        (["--model", run, "--context", tmp_path / "absent.txt", "who ?"], b"", ["absent.txt", "no such file"]),
        (["--model", run, "--context", tmp_path / "empty.txt", "who ?"], b"", ["empty.txt"]),
        (["--model", run, "--context", tmp_path / "bad.txt", "who ?"], b"", ["bad.txt:2", "UTF-8"]),
        (["--model", run, "--context", tmp_path / "zero.txt", "who ?"], b"", ["no token"]),
        (["--model", run, "--context", context], b"who ?\n\n", ["question 2", "empty"]),
        (["--model", run, "--context", context], b"who ?\n" + b"one " * 60 + b"\n", ["question 2 has", "Shorten it"]),
        (["--model", run, "--context", context, "--threshold", "low", "who ?"], b"", ["--threshold"]),
        (["--model", trained("labels"), "--context", context, "who ?"], b"", ["head for spans", "(classify)"]),
        (["--model", "absent", "--context", context, "who ?"], b"", ["No model 'absent'"]),
    ):
        done = run_inside("answer", *arguments, stdin=stdin)
        assert (done.code, done.out) == (2, "") and done.err.count("\n") == 1, done.err
        assert done.err.startswith("error: ") and all(hint in done.err for hint in hints), done.err
