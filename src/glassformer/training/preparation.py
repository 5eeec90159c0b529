"""From a recipe's [data] and [text] to what a training reads: pairs, tokenizer, batches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glassformer.errors import InputError
from glassformer.text.corpora import Pairs, read_pairs, resolve
from glassformer.text.dates import Split, dates_corpus
from glassformer.text.pairs import PairBatches
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer
from glassformer.training.recipes import Data, Recipe


@dataclass(frozen=True)
class Prepared:
    """The data of a training. `fingerprint` tells whether a resumed run still reads the same."""

    tokenizer: Tokenizer
    pipeline: TextPipeline
    train: PairBatches
    valid: PairBatches
    valid_pairs: Pairs
    fingerprint: str


def split_pairs(data: Data, split: Split, data_root: str | Path | None = None) -> Pairs:
    """The pairs of "train", "valid" or "test". `InputError` where the recipe does not name such files."""
    if data.kind == "dates":
        return dates_corpus(split)
    path = getattr(data, split, "")
    if not path:
        raise InputError(f"The recipe names no {split} data: set 'data.{split}' (--data.{split} P).")
    if not (data.source and data.target) and data.fields is None:
        raise InputError(
            "'data.source' and 'data.target' must name the two languages (P.en and P.de are 'en' and 'de'), "
            "or 'data.fields' the two columns."
        )
    return read_pairs(resolve(path, data_root), data.source, data.target, fields=data.fields)


def text_pipeline(recipe: Recipe) -> TextPipeline:
    """What happens to text on the way in and out, stored with the model."""
    return TextPipeline(
        source=recipe.data.source,
        target=recipe.data.target,
        lowercase=recipe.text.lowercase,
        moses=recipe.text.moses,
    )


def prepare(recipe: Recipe, data_root: str | Path | None = None, tokenizer: Tokenizer | None = None) -> Prepared:
    """Read train and valid, train the tokenizer on both sides of train (unless one is given), encode.

    `InputError` for whatever is wrong with the files, and for sentences longer than the model's positions.
    """
    splits: tuple[Split, ...] = ("train", "valid")
    pairs = {split: split_pairs(recipe.data, split, data_root) for split in splits}
    pipeline = text_pipeline(recipe)
    texts = {split: _prepared_texts(both, pipeline, recipe.evaluation.tokenized) for split, both in pairs.items()}
    if tokenizer is None:
        tokenizer = Tokenizer.train(
            [*texts["train"][0], *texts["train"][1]],
            kind=recipe.text.tokenizer,
            vocab_size=recipe.text.vocab_size,
            min_frequency=recipe.text.min_frequency,
        )
    ids = {split: tuple(tokenizer.encode_all(side) for side in both) for split, both in texts.items()}
    limit = recipe.network_config(tokenizer.vocab_size).max_length
    for split, sides in ids.items():
        _check_lengths(split, sides, limit)
    settings = recipe.training
    return Prepared(
        tokenizer=tokenizer,
        pipeline=pipeline,
        train=PairBatches(*ids["train"], tokens=settings.batch_tokens, seed=settings.seed),
        valid=PairBatches(*ids["valid"], tokens=max(settings.batch_tokens, recipe.evaluation.batch_tokens), seed=0),
        valid_pairs=pairs["valid"],
        fingerprint=fingerprint([*ids["train"], *ids["valid"]]),
    )


def _prepared_texts(pairs: Pairs, pipeline: TextPipeline, tokenized: bool) -> tuple[list[str], list[str]]:
    """Both sides through the pipeline; the files of a tokenized recipe hold what comes out of it already."""
    if tokenized:
        return [" ".join(text.split()) for text in pairs.source], [" ".join(text.split()) for text in pairs.target]
    source = [pipeline.prepare_source(text) for text in pairs.source]
    return source, [pipeline.prepare_target(text) for text in pairs.target]


def fingerprint(sides: Sequence[Sequence[Sequence[int]]]) -> str:
    """A short hash of encoded sentences, their order and their borders."""
    digest = hashlib.blake2b(digest_size=12)
    for side in sides:
        lengths = np.fromiter((len(sentence) for sentence in side), dtype=np.int64)
        digest.update(lengths.tobytes())
        digest.update(np.fromiter((i for sentence in side for i in sentence), dtype=np.int64).tobytes())
    return digest.hexdigest()


def _check_lengths(split: str, sides: tuple[list[list[int]], ...], limit: int) -> None:
    for name, side in zip(("source", "target"), sides, strict=True):
        for line, sentence in enumerate(side, start=1):
            if len(sentence) + 1 > limit:
                raise InputError(
                    f"Pair {line} of the {split} data: its {name} has {len(sentence)} tokens, but the model has "
                    f"{limit} positions, one of them for the end. Shorten it or raise 'model.max_length'."
                )
