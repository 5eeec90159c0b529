"""`Job`: a task as the trainer sees it, and what all tasks do with their data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import nn

from glassformer.models.config import Head
from glassformer.tasks.model import Model
from glassformer.text.batches import Batches
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer
from glassformer.text.wordpiece import train_wordpiece
from glassformer.training.gradients import Objective
from glassformer.training.recipes import Recipe
from glassformer.training.starting import Start

Root = str | Path | None
Sample = tuple[str, str, str]
"""What the model read, what is right, what it made of it."""

T = TypeVar("T")


@dataclass(frozen=True)
class Prepared:
    """The data of a training.

    `held` is the validation data as text, for the task's own metrics; `counts` says in words how much there is;
    `fingerprint` tells whether a resumed run still reads the same. `head` and `derived`: see `starting.build`.
    """

    tokenizer: Tokenizer
    pipeline: TextPipeline
    train: Batches[Any]
    valid: Batches[Any]
    held: Any
    counts: str
    fingerprint: str
    head: Head | None = None
    derived: dict[str, Any] = field(default_factory=dict)
    eos_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Given:
    """What a job prepares its data from. `tokenizer` is the run's own where it is resumed."""

    recipe: Recipe
    root: Root = None
    start: Start | None = None
    tokenizer: Tokenizer | None = None

    def known_tokenizer(self) -> Tokenizer | None:
        """The tokenizer of the model started from, or of the resumed run; None where it is to be trained."""
        return self.start.held.tokenizer if self.start is not None else self.tokenizer

    def pipeline(self, default: TextPipeline) -> TextPipeline:
        """The pipeline of the model started from, else `default`."""
        return self.start.held.pipeline if self.start is not None else default

    def positions(self) -> int:
        """The most tokens that the network will read."""
        if self.start is not None:
            return int(self.start.held.config.max_length)
        return self.recipe.network_config(vocab_size=100).max_length


@dataclass(frozen=True)
class Job:
    """A task as the trainer sees it.

    `name` is written into checkpoints; `families` are the classes of networks that can learn it. `prepare` reads the
    data; `objective` gives the loss of a network; `score` measures, beside the held-out loss, what `sections.METRICS`
    lists for the task, on `evaluation.examples` of the held-out data; `samples` shows a few; `settle` is done once with
    the finished model; `evaluate` is the verb for a split of the recipe's data, with settings of its own.
    """

    name: str
    families: tuple[type[nn.Module], ...]
    prepare: Callable[[Given], Prepared]
    objective: Callable[[Recipe, nn.Module], Objective]
    score: Callable[[Model, Prepared, Recipe], dict[str, float]]
    samples: Callable[[Model, Prepared, Recipe, int], list[Sample]]
    evaluate: Callable[..., dict[str, Any]]
    settle: Callable[[Model, Prepared, Recipe], None] = lambda model, prepared, recipe: None


def train_tokenizer(recipe: Recipe, texts: Iterable[str], framed: bool = False) -> Tokenizer:
    """The tokenizer that [text] describes, trained on texts; `framed` tasks take BERT's unless another is named."""
    text = recipe.text
    if text.tokenizer == "wordpiece" or framed:
        return train_wordpiece(texts, text.vocab_size, text.min_frequency, text.lowercase)
    return Tokenizer.train(texts, text.tokenizer, text.vocab_size, text.min_frequency)


def fingerprint(parts: Sequence[Sequence[Sequence[int]]]) -> str:
    """A short hash of encoded texts, their order and their borders."""
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        lengths = np.fromiter((len(text) for text in part), dtype=np.int64)
        digest.update(lengths.tobytes())
        digest.update(np.fromiter((i for text in part for i in text), dtype=np.int64).tobytes())
    return digest.hexdigest()


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` items at equal distances, all for 0."""
    if not 0 < count < len(items):
        return list(items)
    return [items[number * len(items) // count] for number in range(count)]


def shortened(text: str, length: int = 160) -> str:
    """A text on one line, its middle left out where it is long: for samples."""
    text = " ".join(text.split())
    half = (length - 3) // 2
    return text if len(text) <= length else f"{text[:half]} … {text[-half:]}"
