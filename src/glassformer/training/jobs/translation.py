"""Translation: pairs of sentences, cross-entropy of the target, BLEU."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from torch import nn

from glassformer.errors import InputError
from glassformer.models.families import TEXT_TO_TEXT
from glassformer.tasks.evaluation import evaluate as evaluate_pairs
from glassformer.tasks.model import Model
from glassformer.tasks.objectives import seq2seq
from glassformer.text.corpora import Pairs, read_pairs, resolve
from glassformer.text.dates import Split, dates_corpus
from glassformer.text.pairs import PairBatches
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import BOS, EOS, PAD
from glassformer.training.gradients import Objective
from glassformer.training.jobs.job import Given, Job, Prepared, Root, Sample, fingerprint, spread, train_tokenizer
from glassformer.training.recipes import Data, Recipe


def split_pairs(data: Data, split: Split, data_root: str | Path | None = None) -> Pairs:
    """The pairs of "train", "valid" or "test". `InputError` where the recipe does not name such files."""
    if data.kind == "dates":
        return dates_corpus(split)
    path = data.path(split)
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


def prepare(given: Given) -> Prepared:
    """Read train and valid, train the tokenizer on both sides of train (unless there is one), encode.

    `InputError` for whatever is wrong with the files, and for sentences longer than the model's positions.
    """
    recipe = given.recipe
    splits: tuple[Split, ...] = ("train", "valid")
    pairs = {split: split_pairs(recipe.data, split, given.root) for split in splits}
    pipeline = given.pipeline(text_pipeline(recipe))
    texts = {split: _prepared_texts(both, pipeline, recipe.evaluation.tokenized) for split, both in pairs.items()}
    tokenizer = given.known_tokenizer() or train_tokenizer(recipe, [*texts["train"][0], *texts["train"][1]])
    ids = {split: tuple(tokenizer.encode_all(side) for side in both) for split, both in texts.items()}
    for split, sides in ids.items():
        _check_lengths(split, sides, given.positions())
    settings = recipe.training
    held = max(settings.batch_tokens, recipe.evaluation.batch_tokens)
    own = given.start.held.config if given.start is not None else None
    ends, pad_id = ((own.bos_id, own.eos_id), own.pad_id) if own else ((BOS, EOS), PAD)
    train = PairBatches(*ids["train"], tokens=settings.batch_tokens, seed=settings.seed, ends=ends, pad_id=pad_id)
    return Prepared(
        tokenizer=tokenizer,
        pipeline=pipeline,
        train=train,
        valid=PairBatches(*ids["valid"], tokens=held, seed=0, ends=ends, pad_id=pad_id),
        held=pairs["valid"],
        counts=f"{len(pairs['train']):,} pairs to train, {len(pairs['valid']):,} to validate",
        fingerprint=fingerprint([*ids["train"], *ids["valid"]]),
        derived={"pad_id": PAD, "bos_id": BOS, "eos_id": EOS},
    )


def _prepared_texts(pairs: Pairs, pipeline: TextPipeline, tokenized: bool) -> tuple[list[str], list[str]]:
    """Both sides through the pipeline; the files of a tokenized recipe hold what comes out of it already."""
    if tokenized:
        return [" ".join(text.split()) for text in pairs.source], [" ".join(text.split()) for text in pairs.target]
    source = [pipeline.prepare_source(text) for text in pairs.source]
    return source, [pipeline.prepare_target(text) for text in pairs.target]


def _check_lengths(split: str, sides: tuple[list[list[int]], ...], limit: int) -> None:
    for name, side in zip(("source", "target"), sides, strict=True):
        for line, sentence in enumerate(side, start=1):
            if len(sentence) + 1 > limit:
                raise InputError(
                    f"Pair {line} of the {split} data: its {name} has {len(sentence)} tokens, but the model has "
                    f"{limit} positions, one of them for the end. Shorten it or raise 'model.max_length'."
                )


def _objective(recipe: Recipe, network: nn.Module) -> Objective:
    settings = recipe.training
    return functools.partial(seq2seq, label_smoothing=settings.label_smoothing, consistency=settings.consistency)


def _score(model: Model, prepared: Prepared, recipe: Recipe) -> dict[str, float]:
    """BLEU and exact match of greedy translations."""
    pairs = Pairs(*_some(prepared.held, recipe.evaluation.examples), prepared.held.origin)
    scores = evaluate_pairs(model, pairs, tokenized=recipe.evaluation.tokenized, beam=1)
    return {name: float(scores[name]) for name in ("bleu", "exact_match")}


def _samples(model: Model, prepared: Prepared, recipe: Recipe, count: int) -> list[Sample]:
    sources, targets = _some(prepared.held, count)
    results = model.translate(sources, beam=1, tokenized=recipe.evaluation.tokenized)
    return [(source, target, r.text) for source, target, r in zip(sources, targets, results, strict=True)]


def _some(pairs: Pairs, count: int) -> tuple[list[str], list[str]]:
    rows = spread(range(len(pairs)), count)
    return [pairs.source[row] for row in rows], [pairs.target[row] for row in rows]


def _evaluate(
    model: Model,
    recipe: Recipe,
    split: Split,
    root: Root = None,
    *,
    tokenized: bool | None = None,
    beam: int | None = None,
    length_penalty: float | None = None,
    **_: Any,
) -> dict[str, Any]:
    settings = recipe.evaluation
    return evaluate_pairs(
        model,
        split_pairs(recipe.data, split, root),
        tokenized=settings.tokenized if tokenized is None else tokenized,
        beam=settings.beam if beam is None else beam,
        length_penalty=settings.length_penalty if length_penalty is None else length_penalty,
    )


JOB = Job("translation", TEXT_TO_TEXT, prepare, _objective, _score, _samples, _evaluate)
