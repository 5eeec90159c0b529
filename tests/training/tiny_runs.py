"""A corpus and a recipe small enough to train within a test: sentences of a few words, to be written backwards."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from glassformer.checkpoints.native import INDEX, WEIGHTS
from glassformer.training.recipes import Data, Evaluation, Recipe, Text, Training
from glassformer.training.runs import METRICS
from glassformer.training.trainer import Interrupted, Trainer

TIMES = {"seconds", "tokens_per_second"}
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def write_corpus(folder: Path, n_train: int = 200, n_valid: int = 16) -> None:
    """`train.en`, `train.de`, `valid.en`, `valid.de` in `folder`."""
    generator = random.Random(1)
    for split, count in (("train", n_train), ("valid", n_valid)):
        sentences = [[generator.choice(WORDS) for _ in range(generator.randint(2, 8))] for _ in range(count)]
        for suffix, step in (("en", 1), ("de", -1)):
            lines = [" ".join(sentence[::step]) for sentence in sentences]
            (folder / f"{split}.{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")


def tiny_recipe(**training: object) -> Recipe:
    """A recipe over that corpus; keywords change [training]."""
    settings: dict[str, object] = {
        "steps": 12,
        "batch_tokens": 96,
        "learning_rate": 1e-2,
        "warmup": 4,
        "evaluate_every": 6,
        "checkpoint_every": 3,
        "log_every": 2,
        "keep": 3,
        "samples": 1,
        "precision": "fp32",
        "device": "cpu",
        "clip": 1.0,
    }
    return Recipe(
        name="tiny",
        data=Data(train="train", valid="valid", test="valid", source="en", target="de"),
        text=Text(tokenizer="word", vocab_size=100, min_frequency=1),
        model={
            "size": "transformer-tiny",
            "d_model": 16,
            "n_heads": 2,
            "d_ff": 32,
            "n_encoder_layers": 1,
            "n_decoder_layers": 1,
            "max_length": 64,
            "dropout": 0.2,
        },
        training=Training(**{**settings, **training}),  # type: ignore[arg-type]
        evaluation=Evaluation(average=2, tokenized=True),
    )


def metrics(run: Path) -> list[dict[str, object]]:
    """The lines of metrics.jsonl without the times."""
    lines = (run / METRICS).read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]


def assert_same(run: Path, other: Path) -> None:
    """Equal metrics, checkpoints, optimizers, and finished models with what is said of them."""
    assert metrics(run) == metrics(other)
    files = [sorted(path.relative_to(folder) for path in folder.rglob("*.safetensors")) for folder in (run, other)]
    assert files[0] == files[1] and Path(WEIGHTS) in files[0]
    for path in [*files[0], Path(INDEX)]:
        assert (run / path).read_bytes() == (other / path).read_bytes(), path


@contextmanager
def stopped_after(step: int) -> Iterator[None]:
    """A training within is interrupted after so many steps, as by Ctrl-C, and must be. Its folder stays as it is."""
    whole = Trainer._step

    def stop(self: Trainer, cursor: Any) -> None:
        whole(self, cursor)
        if self.progress.step == step:
            self._stop = "Ctrl-C"

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted, match=f"after step {step}.*--resume "):
        patch.setattr(Trainer, "_step", stop)
        yield
