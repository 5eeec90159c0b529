"""Token shards: what is written is what windows of the same documents in memory are, and damage is said."""

import json
import os
import random
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.text import shard_writing
from glassformer.text.examples import Windows
from glassformer.text.shard_writing import Framed, Fresh, framed, write_shards
from glassformer.text.shards import HEADER, joined, open_shards
from glassformer.text.tokenizer import Tokenizer
from glassformer.text.window_batches import WindowBatches

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
TOKENIZER = Tokenizer.train(WORDS, "word", 50, 1)


def texts(seed, count, longest=15):
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, longest))) for _ in range(count)]


def written(folder, documents, tokenizer=None, **how):
    write_shards(lambda: iter(documents), folder, tokenizer or framed(TOKENIZER), **how)
    return open_shards(folder)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 25), st.integers(1, 60), st.integers(2, 9), st.booleans(), st.integers(0, 5), st.data())
def test_windows_are_those_of_the_same_documents_in_memory(
    tmp_path_factory, count, shard_tokens, context, every, epoch, data
):
    """The class that holds everything in memory is the oracle: ids, targets, borders of documents."""
    folder = tmp_path_factory.mktemp("shards") / "a"
    documents = texts(count, count)
    shards = written(folder, documents, shard_tokens=shard_tokens)
    low = data.draw(st.integers(0, count - 1))
    high = data.draw(st.integers(low + 1, count))
    if (low, high) != (0, count):
        shards = open_shards(folder, (low / count + 1e-9, min(1.0, high / count + 1e-9)))
        documents = documents[low:high]
    ids = TOKENIZER.encode_all(documents)
    eos = [TOKENIZER.eos_id]
    assert len(shards) == sum(len(one) + 2 for one in ids) and shards.n_documents == len(documents)
    if len(shards) < context + 1:
        return
    how = {"pad_id": 0, "seed": 3, "every": every}
    mine, wanted = Windows(shards, context, **how), Windows(ids, context, before=eos, after=eos, **how)
    rows = np.random.default_rng(0).permutation(len(wanted.lengths(epoch)))
    assert mine.count(epoch) == len(rows) and np.array_equal(mine.lengths(epoch), wanted.lengths(epoch))
    for part in np.array_split(rows, max(1, len(rows) // 4)):
        got, right = mine.batch(part, epoch), wanted.batch(part, epoch)
        assert torch.equal(got.ids, right.ids) and torch.equal(got.target, right.target)
        assert (got.documents is None) == (right.documents is None)
        assert got.documents is None or torch.equal(got.documents, right.documents)
        assert (got.n_tokens, got.full) == (right.n_tokens, right.full)
    starts = shards.beginnings(len(documents), 4)
    assert starts == [one[:4] for one in ids]


def test_several_folders_are_read_one_after_another(tmp_path):
    first, second = texts(1, 9), texts(2, 7)
    both = joined([written(tmp_path / "a", first, shard_tokens=30), written(tmp_path / "b", second)])
    whole = written(tmp_path / "c", first + second)
    places = np.arange(len(whole))
    assert np.array_equal(both.ids(places), whole.ids(places))
    assert np.array_equal(both.documents(places), whole.documents(places))
    assert both.fingerprint != whole.fingerprint != open_shards(tmp_path / "c", (0.0, 0.5)).fingerprint


def test_the_order_of_an_epoch_has_every_window_once(tmp_path):
    shards = written(tmp_path / "a", texts(1, 60), shard_tokens=100)
    batches = WindowBatches(Windows(shards, 8, seed=1), tokens=40, seed=1)
    orders = []
    for epoch in (0, 1, 2):
        plan = batches.epoch(epoch)
        rows = np.concatenate(list(plan))
        assert sorted(rows.tolist()) == list(range(batches.windows.count(epoch)))
        assert all(len(part) == 5 for part in plan[:-1]) and len(plan) == len(list(plan))
        orders.append(rows.tolist())
    assert orders[0] != orders[1] != orders[2] and orders[0] != sorted(orders[0])
    held = WindowBatches(Windows(shards, 8, every=True), tokens=40)
    assert sum(batch.n_tokens for batch in held.once()) == len(shards) - 1 and held.padding() == 0
    with pytest.raises(IndexError):
        batches.epoch(0)[len(batches.epoch(0))]
    with pytest.raises(InputError, match="must hold a window of 8"):
        WindowBatches(Windows(shards, 8), tokens=7)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("after", [1, 4, 7])
def test_a_kill_changes_nothing(tmp_path, monkeypatch, after, fresh):
    """What was begun goes on behind its last whole shard, and ends with the same files; a trained tokenizer is kept."""
    documents = texts(5, 200)
    tokenizer = Fresh("word", 50, 1, sample=500) if fresh else framed(TOKENIZER)
    written(tmp_path / "whole", documents, tokenizer, shard_tokens=150)
    keep, calls = shard_writing._Draft._keep, []

    def killed(self):
        keep(self)
        calls.append(len(self.files))
        if len(calls) == after:
            (self.folder / f"{len(self.files):05d}.ids").write_bytes(b"half a shard")
            raise KeyboardInterrupt

    monkeypatch.setattr(shard_writing._Draft, "_keep", killed)
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path / "part", documents, tokenizer, shard_tokens=150)
    monkeypatch.undo()
    assert not (tmp_path / "part").exists()
    encoded = []
    original = Tokenizer.encode_all
    monkeypatch.setattr(Tokenizer, "encode_all", lambda self, held: encoded.extend(held) or original(self, held))
    written(tmp_path / "part", documents, tokenizer, shard_tokens=150)
    assert files(tmp_path / "part") == files(tmp_path / "whole")
    assert len(encoded) < len(documents) if after > 1 else encoded == documents
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part", "whole"]


def test_what_was_begun_otherwise_is_not_gone_on_with(tmp_path, monkeypatch):
    def full(self, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shard_writing._Draft, "_shard", full)
    with pytest.raises(InputError, match=r"cannot be written: No space left.*stays in .*\.a\.partial; the same"):
        written(tmp_path / "a", texts(1, 5), asked={"text": ["x"]})
    monkeypatch.undo()
    for how in ({"asked": {"text": ["y"]}}, {"asked": {"text": ["x"]}, "shard_tokens": 7}):
        with pytest.raises(InputError, match=r"\.a\.partial was begun with another '(text|shard_tokens)'"):
            written(tmp_path / "a", texts(1, 5), **how)
    with pytest.raises(InputError, match="another 'tokenizer'"):
        written(tmp_path / "a", texts(1, 5), Fresh("word", 50, 1), asked={"text": ["x"]})
    assert written(tmp_path / "a", texts(1, 5), asked={"text": ["x"]}).n_documents == 5
    with pytest.raises(InputError, match="exists and is not overwritten"):
        written(tmp_path / "a", texts(1, 5))


@pytest.mark.skipif(os.name == "nt", reason="no locks of this kind there")
def test_one_writer_at_a_time(tmp_path):
    def documents():
        with pytest.raises(InputError, match="is being written by another process"):
            written(tmp_path / "a", ["one"])
        yield "one two"

    write_shards(documents, tmp_path / "a", framed(TOKENIZER))
    assert open_shards(tmp_path / "a").n_documents == 1


def test_ids_beyond_16_bits(tmp_path):
    """uint32 where the vocabulary asks for it, and the ids come back whole."""
    many = Tokenizer.train([" ".join(f"w{number}" for number in range(66_000))], "word", 70_000, 1)
    assert many.vocab_size > 2**16
    document = " ".join(many.tokens([66_001, 7, 65_999]))
    shards = written(tmp_path / "a", [document], framed(many))
    assert shards.header.dtype == "uint32"
    ids = many.encode(document)
    assert ids == [66_001, 7, 65_999] and shards.ids(np.arange(1, 4)).tolist() == ids
    assert written(tmp_path / "b", ["one"]).header.dtype == "uint16"


def test_opening_reads_no_shard(tmp_path, monkeypatch):
    """Only the header, whatever the size: mapping a file counts as reading it here."""
    shards = written(tmp_path / "a", texts(1, 50), shard_tokens=50)
    assert len(shards.pieces) > 5
    opened, original = [], np.memmap
    monkeypatch.setattr(np, "memmap", lambda path, *how: opened.append(path.name) or original(path, *how))
    again = open_shards(tmp_path / "a")
    batches = WindowBatches(Windows(again, 8, seed=1), tokens=8, seed=1)
    batches.restore({"epoch": 3, "index": 2})
    assert not opened and again.fingerprint == shards.fingerprint
    batches.batch(np.array([0]), 0)  # one window at the beginning: of one shard, or two
    assert {name.split(".")[0] for name in opened} <= {"00000", "00001"}


DAMAGE = {
    "no header": (lambda folder: (folder / HEADER).unlink(), "holds no token shards.*glassformer tokenize"),
    "cut header": (lambda folder: (folder / HEADER).write_text("{"), "shards.json is damaged"),
    "list": (lambda folder: (folder / HEADER).write_text("[]"), "must have 'format' 1, got None"),
    "newer": (lambda folder: edit(folder, format=2), "must have 'format' 1, got 2: it may be of a newer"),
    "no frame": (lambda folder: edit(folder, before=None), "it lacks what a header"),
    "other kind": (lambda folder: edit(folder, dtype="float16"), "it lacks what a header"),
    "elsewhere": (lambda folder: edit(folder, name="../00000"), "it lacks what a header"),
    "no shard": (lambda folder: (folder / "00000.ids").unlink(), r"00000\.ids cannot be read: No such file"),
    "cut shard": (lambda folder: os.truncate(folder / "00000.ids", 6), r"00000\.ids must have \d+ bytes and has 6"),
    "cut starts": (lambda folder: os.truncate(folder / "00000.starts", 8), r"00000\.starts must have 40 .* has 8"),
}


def edit(folder, **values):
    content = json.loads((folder / HEADER).read_text())
    place = content["files"][0] if "name" in values else content
    place.update(values)
    (folder / HEADER).write_text(json.dumps(content))


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_sentence(tmp_path, name):
    damage, message = DAMAGE[name]
    written(tmp_path / "a", texts(1, 5))
    damage(tmp_path / "a")
    with pytest.raises(InputError, match=message):
        open_shards(tmp_path / "a")


def test_a_bit_is_found_by_verify_alone(tmp_path):
    shards = written(tmp_path / "a", texts(1, 5))
    shards.verify()
    path = tmp_path / "a" / "00000.ids"
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"00000\.ids is damaged: its SHA-256"):
        open_shards(tmp_path / "a").verify()


def test_another_tokenizer_is_refused(tmp_path):
    shards = written(tmp_path / "a", texts(1, 5))
    other = written(tmp_path / "b", texts(1, 5), Fresh("character", 50, 1))
    with pytest.raises(InputError, match="were made with different tokenizers.*--tokenizer"):
        joined([shards, other])
    framed_otherwise = Framed(TOKENIZER, (1,), (2,))
    with pytest.raises(InputError, match="different tokenizers"):
        joined([shards, written(tmp_path / "c", texts(1, 5), framed_otherwise)])
    shutil.copy(tmp_path / "b" / "tokenizer.json", tmp_path / "a")
    with pytest.raises(InputError, match="is not the tokenizer that these shards were made with"):
        assert open_shards(tmp_path / "a").tokenizer


def test_a_share_without_a_document_is_refused(tmp_path):
    written(tmp_path / "a", ["one"])
    with pytest.raises(InputError, match="holds none"):
        open_shards(tmp_path / "a", (0.0, 0.5))


def test_progress_is_told(tmp_path):
    told = []
    written(tmp_path / "a", texts(1, 50), shard_tokens=100, on_progress=lambda *counts: told.append(counts))
    assert told == sorted(told) and len(told) >= 3 and told[0][1] >= 100
