"""`glassformer tokenize`: text to shards to a model, as a real process; and what it says when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import run_glassformer

import glassformer as gf
from glassformer.text.shards import open_shards

RECIPE = """task = "language-modeling"
[data]
train = "shards/train"
valid = "shards/valid"
context = 12
[model]
size = "gpt2"
n_decoder_layers = 1
d_model = 16
n_heads = 2
d_ff = 32
max_length = 64
[training]
steps = 4
batch_tokens = 48
samples = 0
evaluate_every = 4
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenize")
    lines = [f"one two {word} four five" for word in ("three", "six", "seven", "eight")] * 20
    (folder / "train.jsonl").write_text("".join(json.dumps({"body": line}) + "\n" for line in lines))
    (folder / "valid.txt").write_text("\n".join(lines[:4]) + "\n")
    (folder / "mine.toml").write_text(RECIPE)
    return folder


@pytest.mark.slow
def test_from_text_to_a_model(place: Path) -> None:
    words = ("tokenize", "train.jsonl", "--column", "body", "--tokenizer", "word", "--vocab-size", "40")
    done = run_glassformer(*words, "--shard-tokens", "100", "--out", "data/shards/train", cwd=place)
    assert (done.code, done.out) == (0, "data/shards/train\n"), done.err
    assert "560 tokens in 80 documents, 6 shards of uint16" in done.err and "train RECIPE --data.train" in done.err
    words = ("tokenize", "valid.txt", "--documents", "line", "--tokenizer", "data/shards/train")
    done = run_glassformer(*words, "--out", "data/shards/valid", "--json", cwd=place)
    told = {"folder": "data/shards/valid", "tokens": 28, "documents": 4, "shards": 1}
    assert json.loads(done.out) == told, done.err
    done = run_glassformer("train", "mine.toml", cwd=place)
    assert done.code == 0 and "560 tokens in 80 documents to train, 28 in 4 to validate" in done.err, done.err
    done = run_glassformer("tokenize", "--verify", "data/shards/train", cwd=place)
    assert (done.code, done.out) == (0, "data/shards/train\n") and "are as they were written" in done.err
    done = run_glassformer("tokenize", "valid.txt", "--tokenizer", "runs/mine", "--out", "again", cwd=place)
    one, other = open_shards(place / "again").header, open_shards(place / "data/shards/train").header
    assert (one.tokenizer, one.before, one.after) == (other.tokenizer, other.before, other.after), done.err


def test_the_tokenizer_of_a_model_brings_its_frame(place: Path, tiny_decoder: Path, tmp_path: Path) -> None:
    done = run_glassformer(
        "tokenize", "valid.txt", "--tokenizer", str(tiny_decoder), "--out", str(tmp_path / "a"), cwd=place
    )
    assert done.code == 0, done.err
    header, config = open_shards(tmp_path / "a").header, gf.load(tiny_decoder).config
    assert header.before == (config.bos_id,) and header.after == (config.eos_id,)


WRONG = {
    "nothing": ((), "tokenize needs text"),
    "no folder": (("valid.txt",), "tokenize needs --out FOLDER"),
    "no tokenizer": (("valid.txt", "--out", "x"), "tokenize needs --tokenizer"),
    "no text": (("none.txt", "--out", "x", "--tokenizer", "bpe"), "none.txt: there is no such file"),
    "no model": (("valid.txt", "--out", "x", "--tokenizer", "bpee"), "No model 'bpee'"),
    "no column": (("train.jsonl", "--out", "x", "--tokenizer", "word"), "train.jsonl:1: there is no key 'text'"),
    "rows are documents": (
        ("train.jsonl", "--documents", "line", "--out", "x", "--tokenizer", "word"),
        "each row is a document",
    ),
    "a count": (("valid.txt", "--out", "x", "--tokenizer", "bpe", "--shard-tokens", "0"), "--shard-tokens must be"),
    "no shards": (("--verify", "."), "holds no token shards"),
    "there already": (("valid.txt", "--out", "mine.toml", "--tokenizer", "word"), "exists and is not overwritten"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_line(place: Path, name: str) -> None:
    words, message = WRONG[name]
    done = run_glassformer("tokenize", *words, cwd=place)
    assert done.code == 2 and not done.out and message in done.err and done.err.count("\n") == 1, done.err
    assert not (place / "x").exists()
