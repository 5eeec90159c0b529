"""Language models from token shards: the same windows on any number of processes, after any stop."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_parallel import assert_like, run_jobs
from tiny_runs import assert_same, metrics, stopped_after
from tiny_tasks import Trained, recipe_of

import glassformer as gf
from glassformer.checkpoints.native import read_weights
from glassformer.errors import InputError
from glassformer.text.document_streams import stream_documents
from glassformer.text.examples import Windows
from glassformer.text.shard_writing import Fresh, framed, write_shards
from glassformer.text.shards import open_shards
from glassformer.text.tokenizer import Tokenizer
from glassformer.text.window_batches import WindowBatches
from glassformer.training.display import Silent
from glassformer.training.experiment import resume, train
from glassformer.training.jobs import job_of
from glassformer.training.jobs.job import Given
from glassformer.training.parallel.dealing import Borrowed, Dealt
from glassformer.training.recipes import Recipe

FILES = {"data.train": "shards/train", "data.valid": "shards/valid"}
EVEN = {"model.dropout": 0.0, "model.attention_dropout": 0.0, "training.log_every": 1, "training.samples": 0}


def shard_corpus(root: Path, tokenizer: Fresh | None = None, into: str = "shards") -> None:
    """The documents of `tiny_tasks` as shards, small ones, beside them."""
    for split in ("train", "valid"):
        use: Any = tokenizer or Fresh("bpe", 60, 1)
        if split == "valid":
            use = framed(open_shards(root / into / "train").tokenizer)
        source = root / f"text-{split}.txt"
        write_shards(
            lambda source=source: stream_documents(source, "blank-line"),  # type: ignore[misc]
            root / into / split,
            use,
            shard_tokens=120,
        )


@pytest.fixture(scope="session")
def sharded(trained: Trained) -> Trained:
    """Finished runs, with their corpora as shards too."""
    if not (trained.data / "shards").exists():
        shard_corpus(trained.data)
        shard_corpus(trained.data, Fresh("character", 60, 1), "letters")
    return trained


def sharded_recipe(**overrides: Any) -> Recipe:
    names = {key.replace(".", "_", 1): value for key, value in {**FILES, **overrides}.items()}
    return recipe_of("documents", **names)


def prepared(root: Path, recipe: Recipe) -> Any:
    return job_of(recipe.task).prepare(Given(recipe, root))


# --- batches ----------------------------------------------------------------------------------------------------------


def seen(batch: Any) -> Counter[tuple[int, ...]]:
    """The windows of a batch: what they hold and predict."""
    if isinstance(batch, Borrowed):
        return Counter()
    return Counter(tuple(row) for row in torch.cat([batch.ids, batch.target], dim=1).tolist())


@pytest.mark.parametrize("every", [1, 3])
def test_no_window_is_lost_or_repeated_on_one_two_and_four(sharded: Trained, every: int) -> None:
    """A training that saves its cursor after every so many batches, is killed at random and goes on with another number
    of processes, each of which brings its own rows."""
    shards = open_shards(sharded.data / "shards/train")
    batches = WindowBatches(Windows(shards, 12, seed=4), tokens=90, seed=4)
    epochs = [[seen(batches.batch(rows, epoch)) for rows in batches.epoch(epoch)] for epoch in range(12)]
    random, saved = np.random.default_rng(0), {"epoch": 0, "index": 0}
    kept: list[Counter[tuple[int, ...]]] = []  # the batches that a saved cursor has behind it
    for shares in (1, 2, 4, 2, 1, 4, 2, 4, 1, 2, 4):
        cursors = [Dealt(batches, share, shares).restore(saved) for share in range(shares)]
        done: list[Counter[tuple[int, ...]]] = []
        for number in range(int(random.integers(1, 8))):
            done.append(sum((seen(next(cursor)) for cursor in cursors), Counter()))
            if (number + 1) % every == 0:
                [state] = {json.dumps(cursor.state()) for cursor in cursors}
                saved, kept, done = json.loads(state), kept + done, []
        # what was done after the last save is lost with the kill
    whole = [batch for epoch in epochs for batch in epoch]
    assert 3 * len(epochs[0]) < len(kept) <= len(whole) and kept == whole[: len(kept)]
    assert sum(epochs[0], Counter()).total() == batches.windows.count(0)


def test_a_share_reads_its_own_rows_alone(sharded: Trained) -> None:
    shards = open_shards(sharded.data / "shards/train")
    batches = WindowBatches(Windows(shards, 12, seed=4), tokens=96, seed=4)
    read: list[set[int]] = []
    for share in range(4):
        places: set[int] = set()
        shards.ids = lambda asked, places=places: (  # type: ignore[method-assign, misc]
            places.update(asked.ravel().tolist()) or type(shards).ids(shards, asked)
        )
        dealt = Dealt(batches, share, 4)
        for rows in dealt.epoch(0):
            dealt.batch(rows, 0)
        read.append(places)
    for one in range(4):  # neighbouring windows share the token that one predicts and the other begins with
        for other in range(one):
            assert len(read[one] & read[other]) <= batches.windows.count(0)
        assert len(read[one]) < 0.5 * len(shards)


def test_preparing_maps_no_file(sharded: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples' beginnings apart, which are of those to validate on."""
    opened: list[Path] = []
    original = np.memmap
    monkeypatch.setattr(np, "memmap", lambda path, *how: opened.append(path) or original(path, *how))
    found = prepared(sharded.data, sharded_recipe())
    assert {path.parent.name for path in opened} == {"valid"}
    assert "372 tokens in 40 documents to train" in found.counts and len(found.train.epoch(0)) == 4


# --- trainings --------------------------------------------------------------------------------------------------------


def begun(sharded: Trained, run: Path, **overrides: Any) -> Path:
    train(sharded_recipe(**overrides), run=run, data_root=sharded.data, display=Silent())
    return run


def test_a_run_is_a_model_and_validates_alike_on_text(sharded: Trained, tmp_path: Path) -> None:
    """Shards and text to validate on are the same documents: the same losses and samples."""
    one = begun(sharded, tmp_path / "one")
    other = begun(sharded, tmp_path / "other", **{"data.valid": "text-valid.txt"})
    assert_like(one, other, 1e-5)
    losses = [line["valid_loss"] for line in metrics(one) if "valid_loss" in line]
    assert losses[-1] < math.log(52) - 0.3  # the vocabulary has 52 tokens
    model = gf.load(one)
    assert model.tokenizer == open_shards(sharded.data / "shards/train").tokenizer
    assert isinstance(model.generate("one two", max_new_tokens=3).text, str)


def test_a_share_of_shards_and_several_folders(sharded: Trained) -> None:
    halves = ["shards/train[0:0.5]", "shards/train[0.5:1]"]
    whole = prepared(sharded.data, sharded_recipe())
    both = prepared(sharded.data, sharded_recipe(**{"data.train": halves}))
    first = prepared(sharded.data, sharded_recipe(**{"data.train": halves[0]}))
    assert "in 40 documents" in both.counts and "in 20 documents" in first.counts
    assert len({whole.fingerprint, both.fingerprint, first.fingerprint}) == 3
    for rows in whole.train.epoch(1):
        one, other = whole.train.batch(rows, 1), both.train.batch(rows, 1)
        assert torch.equal(one.ids, other.ids) and torch.equal(one.target, other.target)


def test_stopped_and_resumed_is_bit_equal(sharded: Trained, tmp_path: Path) -> None:
    whole = begun(sharded, tmp_path / "whole")
    with stopped_after(5):
        begun(sharded, tmp_path / "run")
    resume(tmp_path / "run", data_root=sharded.data, display=Silent())
    assert_same(whole, tmp_path / "run")


def test_other_shards_are_noticed_on_resuming(sharded: Trained, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(sharded.data, root)
    begun(sharded, tmp_path / "run")
    shutil.rmtree(root / "shards/train")
    tokenizer = framed(open_shards(root / "shards/valid").tokenizer)
    write_shards(lambda: ["one two three four five"] * 20, root / "shards/train", tokenizer)
    with pytest.raises(InputError, match="begun with other data"):
        resume(tmp_path / "run", data_root=root, display=Silent())


def test_training_further_wants_the_tokenizer_of_the_model(sharded: Trained, tmp_path: Path) -> None:
    base = sharded("documents")
    further = recipe_of("documents-lora", sharded.runs, data_train="shards/train", data_valid="shards/valid")
    with pytest.raises(InputError, match=r"letters/train was made with another tokenizer than that of .*--tokenizer"):
        train(recipe_of("documents-lora", sharded.runs, **letters()), data_root=sharded.data, display=Silent())
    train(further, run=tmp_path / "run", data_root=sharded.data, display=Silent())  # trained on the same documents
    assert gf.load(tmp_path / "run").tokenizer == gf.load(base).tokenizer


def letters() -> dict[str, str]:
    return {"data_train": "letters/train", "data_valid": "letters/valid"}


REFUSED = {
    "two kinds": ({"data.train": ["shards/train", "text-train.txt"]}, "token shards and .*text-train.txt, which is"),
    "text to train on": ({"data.train": "text-train.txt"}, "is a folder of token shards: language models train from"),
    "others to validate on": ({"data.valid": "letters/valid"}, "were made with different tokenizers"),
    "nothing there": ({"data.train": "shards/trian"}, "shards/trian: there is no such file"),
    "no shards": ({"data.train": "shards"}, "shards: cannot be read"),
    "too short": ({"data.train": "shards/train[0:0.03]", "data.context": 90}, "fewer than a window needs"),
    "a long window": ({"data.context": 97}, "'data.context' must be at most"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_one_sentence(sharded: Trained, name: str) -> None:
    overrides, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        prepared(sharded.data, sharded_recipe(**overrides))


def test_other_tasks_read_text(sharded: Trained) -> None:
    masked = recipe_of("masked", data_train="shards/train", data_valid="shards/valid")
    with pytest.raises(InputError, match="token shards: language models train from them"):
        prepared(sharded.data, masked)
    with pytest.raises(InputError, match="give text here"):
        job_of("language-modeling").evaluate(gf.load(sharded("documents")), sharded_recipe(), "valid", sharded.data)


# --- several processes ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_on_two_and_resumed_on_one_two_and_four(sharded: Trained, tmp_path: Path) -> None:
    shutil.copytree(sharded.data, tmp_path, dirs_exist_ok=True)
    settings = {**FILES, **EVEN, "training.steps": 30, "training.evaluate_every": 15, "training.checkpoint_every": 5}
    jobs: list[dict[str, Any]] = [{"task": "documents", "run": "one", "processes": 1, "overrides": settings}]
    for size in (1, 2, 4):
        two = {**settings, "parallel.data": 2}
        jobs.append({"task": "documents", "run": f"to{size}", "processes": 2, "overrides": two, "kill": 12})
        jobs.append({"task": "documents", "run": f"to{size}", "processes": size, "resume": True})
    statuses, said = run_jobs(tmp_path, jobs)
    for number, size in enumerate((1, 2, 4)):
        assert statuses[1 + 2 * number][1] == -signal.SIGKILL, said
        assert statuses[2 + 2 * number] == [0] * size, said
        assert_like(tmp_path / "one", tmp_path / f"to{size}")
        one, other = (read_weights(tmp_path / name) for name in ("one", f"to{size}"))
        assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("missing", ["shards/train", "shards/train/00001.ids"])
def test_a_process_that_cannot_see_the_shards_ends_all(sharded: Trained, tmp_path: Path, missing: str) -> None:
    roots = [tmp_path / "seen", tmp_path / "unseen"]
    for root in roots:
        shutil.copytree(sharded.data, root)
    path = roots[1] / missing
    path.unlink() if path.is_file() else shutil.rmtree(path)
    job = {"task": "documents", "run": "run", "processes": 2, "overrides": {**FILES, "parallel.data": 2}}
    statuses, said = run_jobs(tmp_path, [{**job, "data": list(map(str, roots))}])
    assert statuses == [[1, 1]] and not (tmp_path / "run").exists()
    assert f"run 0: InputError: process 1 of 2: {path}" in said and "Traceback" not in said


def test_a_tokenizer_without_an_end_is_refused() -> None:
    import tokenizers

    with pytest.raises(InputError, match="no token that ends a text"):
        framed(Tokenizer(tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))))
