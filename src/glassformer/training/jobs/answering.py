"""Question answering: questions with contexts, the loss of both ends of the answer, exact match and F1."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

from torch import nn

from glassformer.errors import InputError, did_you_mean
from glassformer.models.config import Spans
from glassformer.models.encoder import Encoder
from glassformer.tasks.answer import MAX_TOKENS, answer, answers_of, best_refusal, evaluate_answers, refused, scored
from glassformer.tasks.model import Model
from glassformer.tasks.objectives import spans
from glassformer.text.batches import ExampleBatches
from glassformer.text.corpora import resolve
from glassformer.text.pipeline import TextPipeline
from glassformer.text.questions import Question, read_questions, split_titles
from glassformer.text.spans import SpanPieces
from glassformer.text.tokenizer import Tokenizer
from glassformer.training.gradients import Objective
from glassformer.training.jobs.classification import framed_config
from glassformer.training.jobs.job import (
    Given,
    Job,
    Prepared,
    Root,
    Sample,
    shortened,
    spread,
    train_tokenizer,
)
from glassformer.training.jobs.unanswerable import unanswerable
from glassformer.training.recipes import Data, Recipe

SPLITS = ("train", "valid", "test")


def split_questions(data: Data, split: str, root: Root = None) -> list[Question]:
    """The questions of "train", "valid" or "test": of the articles that the split's list of titles names, or where it
    has none, of those in no other split's list. `InputError` for a title that none of its files has."""
    titles = set(getattr(data, f"{split}_titles"))
    elsewhere = {title for other in SPLITS if other != split for title in getattr(data, f"{other}_titles")}
    if both := sorted(titles & elsewhere):
        raise InputError(f"the article '{both[0]}' must belong to one of train, valid and test, and is in two lists.")
    found: list[Question] = []
    known: set[str] = set()
    for path in data.paths(split):
        questions = read_questions(resolve(path, root), data.occurrence)
        there = {question.title for question in questions.items}
        inside, others = split_titles(questions, (titles or elsewhere) & there)
        found += (inside if titles else others).items
        known |= there
    if missing := titles - known:
        hint = did_you_mean(min(missing), known)
        raise InputError(f"'data.{split}_titles': no {split} file has an article '{min(missing)}'.{hint}")
    if not found:
        raise InputError(f"The {split} data have no question left: all their articles belong to other splits.")
    return found


def prepare(given: Given) -> Prepared:
    """Read train and valid, cut contexts into pieces. `InputError` for whatever is wrong with the files."""
    recipe = given.recipe
    data = recipe.data
    train, valid = (split_questions(data, split, given.root) for split in ("train", "valid"))
    if data.negatives:
        train = [*train, *unanswerable(train, data.negatives, recipe.training.seed, data.negative_kinds)]
    tokenizer = given.known_tokenizer() or train_tokenizer(
        recipe, [text for one in train for text in (one.question, one.context)], framed=True
    )
    pad_id = given.start.held.config.pad_id if given.start is not None else tokenizer.pad_id or 0
    pieces = [
        _pieces(given, tokenizer, split, questions, pad_id) for split, questions in (("train", train), ("valid", valid))
    ]
    settings = recipe.training
    held = max(settings.batch_tokens, recipe.evaluation.batch_tokens)
    none = sum(not one.answers for one in train)
    return Prepared(
        tokenizer=tokenizer,
        pipeline=given.pipeline(TextPipeline()),
        train=ExampleBatches(pieces[0], tokens=settings.batch_tokens, seed=settings.seed),
        valid=ExampleBatches(pieces[1], tokens=held),
        held=valid,
        counts=f"{len(train):,} questions to train ({none:,} without an answer) in {len(pieces[0].pieces):,} pieces, "
        f"{len(valid):,} to validate",
        fingerprint=_fingerprint(train, valid),
        head=Spans(),
        derived=framed_config(tokenizer),
    )


def _pieces(given: Given, tokenizer: Tokenizer, split: str, questions: list[Question], pad_id: int) -> SpanPieces:
    data = given.recipe.data
    answers = [one.answers[0] if one.answers else None for one in questions]
    try:
        return SpanPieces(
            tokenizer,
            [one.question for one in questions],
            [one.context for one in questions],
            [(found.start, found.start + len(found.text)) if found else None for found in answers],
            max_tokens=min(data.max_tokens or MAX_TOKENS, given.positions()),
            stride=data.stride,
            pad_id=pad_id,
        )
    except InputError as error:
        raise InputError(
            f"The {split} data: {error} In a recipe these are 'data.max_tokens' and 'data.stride'."
        ) from None


def _fingerprint(*splits: list[Question]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for one in (question for questions in splits for question in questions):
        digest.update(repr((one.question, one.context, one.answers)).encode())
    return digest.hexdigest()


def _objective(recipe: Recipe, network: nn.Module) -> Objective:
    return spans


def _settings(recipe: Recipe) -> dict[str, int]:
    return {"max_tokens": recipe.data.max_tokens, "stride": recipe.data.stride}


def _score(model: Model, prepared: Prepared, recipe: Recipe) -> dict[str, float]:
    questions = spread(prepared.held, recipe.evaluation.examples)
    found = answers_of(model, questions, threshold=float("inf"), **_settings(recipe))
    if not all(one.answers for one in questions):
        found = refused(found, best_refusal(found, questions).value)
    scores = scored(found, questions)
    return {name: float(scores[name]) for name in ("exact_match", "f1")}


def _settle(model: Model, prepared: Prepared, recipe: Recipe) -> None:
    """Where some held-out questions have no answer, the threshold of refusal that is best on them."""
    if all(one.answers for one in prepared.held):
        return
    found = answers_of(model, prepared.held, threshold=float("inf"), **_settings(recipe))
    best = best_refusal(found, prepared.held)
    network: Any = model.network
    network.config = dataclasses.replace(network.config, head=Spans(best.value))


def _samples(model: Model, prepared: Prepared, recipe: Recipe, count: int) -> list[Sample]:
    questions = spread(prepared.held, count)
    found = answer(model, [one.question for one in questions], [one.context for one in questions], **_settings(recipe))
    return [
        (
            shortened(one.question),
            one.answers[0].text if one.answers else "(no answer)",
            f"{best.text or '(no answer)'} ({best.score:+.1f})",
        )
        for one, best in zip(questions, found, strict=True)
    ]


def _evaluate(
    model: Model, recipe: Recipe, split: str, root: Root = None, *, threshold: float | None = None, **_: Any
) -> dict[str, Any]:
    questions = split_questions(recipe.data, split, root)
    return evaluate_answers(model, questions, threshold=threshold, **_settings(recipe))


JOB = Job("spans", (Encoder,), prepare, _objective, _score, _samples, _evaluate, _settle)
