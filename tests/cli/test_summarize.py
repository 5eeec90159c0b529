"""`glassformer summarize`: a document in, a line out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import Glassformer, run_inside
from tiny_tasks import Trained

import glassformer as gf

DOCUMENTS = ["one two three four", "seven seven eight", "ten"]
STDIN = "".join(f"{line}\n" for line in DOCUMENTS).encode()
RUNS = ["summaries-lora", "prompts-lora"]


@pytest.mark.parametrize("name", RUNS)
def test_a_line_for_each_document(trained: Trained, tmp_path: Path, name: str) -> None:
    run = trained(name)
    given = ["summarize", "--model", run, "--max-new-tokens", 6]
    lines = run_inside(*given, "--lines", stdin=STDIN)
    assert (lines.code, lines.err) == (0, "")
    wanted = [" ".join(one.text.split()) for one in gf.load(run).summarize(DOCUMENTS, max_new_tokens=6)]
    assert lines.out.split("\n") == [*wanted, ""]
    files = []
    for number, document in enumerate(DOCUMENTS):
        files.append(tmp_path / f"{number}.txt")
        files[-1].write_text(document, encoding="utf-8")
    assert run_inside(*given, *files).out == lines.out
    assert run_inside(*given, stdin=DOCUMENTS[0].encode()).out == wanted[0] + "\n"


def test_standard_input_is_one_document(trained: Trained) -> None:
    given = ["summarize", "--model", trained("prompts"), "--max-new-tokens", 4, "--json"]
    done = run_inside(*given, stdin=STDIN)
    [record] = [json.loads(line) for line in done.out.splitlines()]
    wanted = gf.load(trained("prompts")).summarize(STDIN.decode().rstrip("\n"), max_new_tokens=4)
    assert record == {"summary": wanted.text, "finish_reason": wanted.finish_reason}


def test_a_beam_and_a_process(trained: Trained, glassformer: Glassformer) -> None:
    run = trained("summaries-lora")
    done = glassformer("summarize", "--model", run, "--lines", "--beam", 3, stdin=STDIN)
    assert (done.code, done.err) == (0, "")
    assert done.out.split("\n")[:-1] == [one.text for one in gf.load(run).summarize(DOCUMENTS, beam=3)]


@pytest.mark.parametrize("name", RUNS)
def test_mistakes(trained: Trained, tmp_path: Path, name: str) -> None:
    run = trained(name)
    (tmp_path / "empty.txt").write_bytes(b"")
    long = b"one\n" + b"one two " * 90 + b"\n"
    for arguments, stdin, hints in (
        (["--lines"], long, ["text 2 has", "--truncate"]),
        (["--lines"], b"one\n\n", ["text 2 is empty"]),
        (["--lines"], b"one\n\xff\n", ["standard input:2"]),
        ([], b"", ["text 1 is empty"]),
        ([], b"one\n\xff\n", ["standard input:2", "UTF-8"]),
        ([tmp_path / "absent.txt"], b"", ["absent.txt", "no such file"]),
        ([tmp_path / "empty.txt"], b"", ["empty.txt"]),
        (["--lines", tmp_path / "empty.txt"], b"", ["--lines is about standard input"]),
        (["--beam", 0], b"one\n", ["'beam'"]),
        (["--max-new-tokens", "few"], b"one\n", ["--max-new-tokens"]),
    ):
        done = run_inside("summarize", "--model", run, *arguments, stdin=stdin)
        assert done.code == 2 and done.err.count("\n") == 1 and done.err.startswith("error: "), (arguments, done.err)
        assert all(hint in done.err for hint in hints), done.err
    cut = run_inside("summarize", "--model", run, "--lines", "--truncate", stdin=long)
    assert cut.code == 0 and cut.out.count("\n") == 2
    other = run_inside("summarize", "--model", trained("labels"), stdin=b"one")
    assert other.code == 2 and "(classify)" in other.err
