"""Classification: texts with a label each, cross-entropy of the label, accuracy."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from glassformer.errors import InputError, did_you_mean
from glassformer.models.config import Classification
from glassformer.models.encoder import Encoder
from glassformer.tasks.classify import evaluate_labels
from glassformer.tasks.inputs import framed_ids
from glassformer.tasks.model import Model
from glassformer.tasks.objectives import classification
from glassformer.text.batches import ExampleBatches
from glassformer.text.columns import read_columns
from glassformer.text.corpora import resolve
from glassformer.text.examples import LabelledTexts
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer
from glassformer.training.gradients import Objective
from glassformer.training.jobs.job import (
    Given,
    Job,
    Prepared,
    Root,
    Sample,
    fingerprint,
    shortened,
    spread,
    train_tokenizer,
)
from glassformer.training.recipes import Data, Recipe

FIELDS = ["text", "label"]
Labelled = tuple[list[str], list[str]]
"""Texts, and the label of each as the data write it."""


def read_labelled(data: Data, split: str, root: Root = None) -> Labelled:
    """The texts of a split and their labels, by the names that `data.labels` gives them.

    `InputError` for a column that is missing, and a label that `data.labels` does not name.
    """
    fields: list[Any] = list(data.fields or FIELDS)
    if len(fields) != 2:
        raise InputError(f"'data.fields' must name two columns, the text and its label; got {fields}.")
    texts: list[str] = []
    labels: list[str] = []
    for path in data.paths(split):
        where = resolve(path, root)
        found, written = read_columns(where, fields, as_text=True)
        texts += found
        labels += [_named(data, label, f"{where}: text {number}") for number, label in enumerate(written, 1)]
    return texts, labels


def _named(data: Data, label: str, where: str) -> str:
    if not data.labels:
        return label
    if label not in data.labels:
        hint = did_you_mean(label, data.labels)
        raise InputError(f"{where} has the label '{label}', and 'data.labels' names {', '.join(data.labels)}.{hint}")
    return data.labels[label]


def prepare(given: Given) -> Prepared:
    """Read train and valid; the labels are those that `data.labels` names, else those of train in their order.

    `InputError` for whatever is wrong with the files, labels that training does not have, and texts that are too long.
    """
    recipe = given.recipe
    splits = {split: read_labelled(recipe.data, split, given.root) for split in ("train", "valid")}
    names = tuple(dict.fromkeys(recipe.data.labels.values())) or tuple(sorted(set(splits["train"][1])))
    if len(names) < 2:
        raise InputError(f"classification needs at least 2 labels, and the training data have {len(names)}: {names}.")
    tokenizer = given.known_tokenizer() or train_tokenizer(recipe, splits["train"][0], framed=True)
    pipeline = given.pipeline(TextPipeline())
    examples = {}
    encoded = []
    for split, (texts, labels) in splits.items():
        ids = _ids(given, tokenizer, pipeline, split, texts)
        numbers = _numbers(split, labels, names)
        examples[split] = LabelledTexts(ids, numbers, _pad(given, tokenizer))
        encoded += [ids, [[number] for number in numbers]]
    settings = recipe.training
    held = max(settings.batch_tokens, recipe.evaluation.batch_tokens)
    return Prepared(
        tokenizer=tokenizer,
        pipeline=pipeline,
        train=ExampleBatches(examples["train"], tokens=settings.batch_tokens, seed=settings.seed),
        valid=ExampleBatches(examples["valid"], tokens=held),
        held=splits["valid"],
        counts=f"{len(splits['train'][0]):,} texts to train, {len(splits['valid'][0]):,} to validate; "
        f"labels {', '.join(names)}",
        fingerprint=fingerprint(encoded),
        head=Classification(names),
        derived=framed_config(tokenizer),
    )


def framed_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """The special ids of an encoder's config, of the tokenizer trained for it."""
    return {"pad_id": tokenizer.pad_id, "bos_id": tokenizer.cls_id, "eos_id": tokenizer.sep_id}


def _pad(given: Given, tokenizer: Tokenizer) -> int:
    return given.start.held.config.pad_id if given.start is not None else tokenizer.pad_id or 0


def _ids(given: Given, tokenizer: Tokenizer, pipeline: TextPipeline, split: str, texts: list[str]) -> list[list[int]]:
    data = given.recipe.data
    longest = min(data.max_tokens or given.positions(), given.positions())
    try:
        return framed_ids(tokenizer, pipeline, texts, longest, truncate=data.truncate)
    except InputError as error:
        hint = " In a recipe that is 'data.truncate'." if "truncate" in str(error) else ""
        raise InputError(f"The {split} data: {error}{hint}") from None


def _numbers(split: str, labels: list[str], names: tuple[str, ...]) -> list[int]:
    numbers = {name: number for number, name in enumerate(names)}
    for place, label in enumerate(labels, 1):
        if label not in numbers:
            raise InputError(
                f"Text {place} of the {split} data has the label '{label}', which training never has; its labels are "
                f"{', '.join(names)}."
            )
    return [numbers[label] for label in labels]


def _objective(recipe: Recipe, network: nn.Module) -> Objective:
    settings = recipe.training
    return functools.partial(classification, label_smoothing=settings.label_smoothing, consistency=settings.consistency)


def _score(model: Model, prepared: Prepared, recipe: Recipe) -> dict[str, float]:
    texts, labels = (spread(side, recipe.evaluation.examples) for side in prepared.held)
    scores = evaluate_labels(model, texts, labels, truncate=recipe.data.truncate)
    return {name: float(scores[name]) for name in ("accuracy", "macro_f1")}


def _samples(model: Model, prepared: Prepared, recipe: Recipe, count: int) -> list[Sample]:
    texts, labels = (spread(side, count) for side in prepared.held)
    found = model.classify(texts, truncate=recipe.data.truncate)
    return [
        (shortened(text), label, f"{one.label} ({one.probability:.2f})")
        for text, label, one in zip(texts, labels, found, strict=True)
    ]


def _evaluate(
    model: Model, recipe: Recipe, split: str, root: Root = None, *, truncate: bool = False, **_: Any
) -> dict[str, Any]:
    texts, labels = read_labelled(recipe.data, split, root)
    return evaluate_labels(model, texts, labels, truncate=truncate or recipe.data.truncate)


JOB = Job("classification", (Encoder,), prepare, _objective, _score, _samples, _evaluate)
