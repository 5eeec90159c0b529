"""`glassformer translate`, `evaluate` and `models`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import SENTENCES, Glassformer, run_inside

from glassformer.cli.translate import CHUNK_BYTES, read_chunks
from glassformer.errors import InputError

SOURCES = [source for source, _ in SENTENCES]
TARGETS = [target for _, target in SENTENCES]


@pytest.fixture
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> Glassformer:
    """The command line in this process, in the folder of the run."""
    monkeypatch.chdir(place)
    return run_inside


def chunks(data: bytes) -> list[tuple[int, list[str]]]:
    return list(read_chunks(io.BufferedReader(io.BytesIO(data))))


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\n\nb", ["a", "", "b"]),
        (b"\xef\xbb\xbfa\r\nb\r\n", ["a", "b"]),
        ("a\u2028b\x0cc\n".encode(), ["a\u2028b\x0cc"]),
    ],
)
def test_lines_end_at_newlines_and_only_there(data: bytes, lines: list[str]) -> None:
    assert [line for _, chunk in chunks(data) for line in chunk] == lines


def test_chunks_know_the_number_of_their_first_line_and_split_no_character() -> None:
    lines = [f"{i} ä€" for i in range(CHUNK_BYTES // 4)]
    got = chunks("\n".join(lines).encode())
    assert len(got) > 1
    assert [line for _, chunk in got for line in chunk] == lines
    for first, chunk in got:
        assert chunk[0] == lines[first - 1]


def test_what_stands_before_an_undecodable_line_is_given_out() -> None:
    reader = read_chunks(io.BufferedReader(io.BytesIO(b"good\nalso\n\xff\nlate\n")))
    assert next(reader) == (1, ["good", "also"])
    with pytest.raises(InputError, match="standard input:3: the byte 0xff"):
        next(reader)


def test_n_lines_in_are_n_lines_out(place: Path, glassformer: Glassformer) -> None:
    lines = [SOURCES[0], "", *SOURCES[1:], "   ", SOURCES[0]]
    done = glassformer("translate", "--model", "runs/tiny", stdin="\n".join(lines).encode(), cwd=place)
    assert done.code == 0, done.err
    out = done.out.split("\n")[:-1]
    assert len(out) == len(lines)
    assert out == [TARGETS[0], "", *TARGETS[1:], "", TARGETS[0]]
    assert done.err == ""


def test_arguments_and_standard_input_agree(place: Path, glassformer: Glassformer) -> None:
    given = glassformer("translate", "--model", "runs/tiny", *SOURCES, cwd=place)
    piped = glassformer("translate", "--model", "runs/tiny", stdin="\n".join(SOURCES).encode(), cwd=place)
    assert given == piped and given.code == 0
    assert given.out.splitlines() == TARGETS


def test_small_weights_translate_alike_and_draw(place: Path, glassformer: Glassformer, tmp_path: Path) -> None:
    picture, options = tmp_path / "int8.png", ["translate", "--model", "runs/tiny", "--precision"]
    done = glassformer(*options, "int8", SOURCES[0], "--attention", picture, cwd=place)
    assert (done.code, done.out) == (0, TARGETS[0] + "\n"), done.err
    assert picture.read_bytes().startswith(b"\x89PNG")
    refused = glassformer(*options, "int9", SOURCES[0], cwd=place)
    assert refused.code == 2 and "int9" in refused.err


def test_n_best_and_json(inside: Glassformer) -> None:
    options = ["translate", "--model", "runs/tiny", "--beam", 3, "--n-best", 3]
    plain = inside(*options, *SOURCES[:2])
    rows = [line.split(" ||| ") for line in plain.out.splitlines()]
    assert [row[0] for row in rows] == ["1"] * 3 + ["2"] * 3
    records = [json.loads(line) for line in inside(*options, "--json", *SOURCES[:2]).out.splitlines()]
    assert [record["source"] for record in records] == SOURCES[:2]
    for record, first in zip(records, (0, 3), strict=True):
        best = [record, *record["alternatives"]]
        assert [one["text"] for one in best] == [row[1] for row in rows[first : first + 3]]
        assert sorted((one["score"] for one in best), reverse=True) == [one["score"] for one in best]


def test_a_line_too_long_is_refused_by_its_number_or_split(inside: Glassformer) -> None:
    text = "\n".join([SOURCES[0]] * 3 + ["a dog runs . " * 20]).encode()
    refused = inside("translate", "--model", "runs/tiny", stdin=text)
    assert refused.code == 2 and refused.err.count("\n") == 1
    assert "line 4" in refused.err.lower() and "31" in refused.err
    split = inside("translate", "--model", "runs/tiny", "--long", "split", stdin=text)
    assert split.code == 0 and split.out.count("\n") == 4
    assert "warning: " in split.err


def test_a_slow_writer_gets_each_line_at_once(place: Path) -> None:
    command = [sys.executable, "-m", "glassformer", "translate", "--model", "runs/tiny", "--beam", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=place, env=environment
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        for _ in range(2):
            process.stdin.write(b"a dog runs .\n")
            process.stdin.flush()
            assert process.stdout.readline().endswith(b"\n")
        process.stdin.close()
        assert process.wait(60) == 0


def test_attention_is_drawn_for_one_line(place: Path, glassformer: Glassformer, tmp_path: Path) -> None:
    picture = tmp_path / "attention.png"
    done = glassformer("translate", "--model", "runs/tiny", SOURCES[0], "--attention", picture, cwd=place)
    assert done.code == 0, done.err
    assert picture.read_bytes().startswith(b"\x89PNG")
    several = glassformer("translate", "--model", "runs/tiny", *SOURCES, "--attention", picture, cwd=place)
    assert several.code == 2 and "--attention" in several.err


def test_a_checkpoint_with_a_changed_byte_is_refused(inside: Glassformer, tmp_path: Path) -> None:
    done = inside("average", "runs/tiny", "--last", 1, "--out", tmp_path / "copy")
    assert done.code == 0, done.err
    weights = tmp_path / "copy" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    done = inside("translate", "--model", tmp_path / "copy", "a dog")
    assert (done.code, done.out) == (2, "")
    assert "model.safetensors" in done.err and done.err.count("\n") == 1


def test_evaluate_gives_scores_with_their_signature(inside: Glassformer) -> None:
    done = inside("evaluate", "runs/tiny", "--split", "test", "--json")
    assert done.code == 0, done.err
    scores = json.loads(done.out)
    assert {"bleu", "bleu_signature", "chrf", "n", "seconds"} <= scores.keys()
    assert scores["n"] == len(SENTENCES)
    assert "tok:13a" in scores["bleu_signature"]
    assert scores["bleu"] > 90
    tokens = inside("evaluate", "runs/tiny", "--tokenized", "--json")
    assert "tok:none" in json.loads(tokens.out)["bleu_signature"]
    table = inside("evaluate", "runs/tiny")
    assert any(line.startswith("bleu_signature") for line in table.out.splitlines())


def test_evaluate_on_other_files_counts_every_line(inside: Glassformer, tmp_path: Path) -> None:
    (tmp_path / "own.xx").write_text("a dog runs .\na woman reads .\n", encoding="utf-8")
    (tmp_path / "own.yy").write_text("ein hund rennt .\neine frau liest .\n", encoding="utf-8")
    given = ["evaluate", "runs/tiny", "--data", tmp_path / "own", "--source", "xx", "--target", "yy", "--json"]
    done = inside(*given)
    assert done.code == 0, done.err
    assert json.loads(done.out)["n"] == 2
    (tmp_path / "own.yy").write_text("ein hund rennt .\n", encoding="utf-8")
    unequal = inside(*given)
    assert unequal.code == 2 and "own.xx:2" in unequal.err


def test_models_lists_the_runs(inside: Glassformer) -> None:
    table = inside("models")
    assert table.code == 0
    assert any(line.startswith("runs/tiny ") and "en → de" in line for line in table.out.splitlines())
    records = [json.loads(line) for line in inside("models", "--json").out.splitlines()]
    assert "runs/tiny" in [record["model"] for record in records]
