"""Language modeling: documents one after another in windows, cross-entropy of the next token, perplexity."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from glassformer.errors import InputError
from glassformer.models.decoder import Decoder
from glassformer.tasks.intervals import bootstrap
from glassformer.tasks.model import Model
from glassformer.tasks.objectives import causal_lm
from glassformer.text.batches import ExampleBatches
from glassformer.text.columns import has_columns
from glassformer.text.corpora import resolve
from glassformer.text.documents import parse_part, read_documents
from glassformer.text.examples import Windows
from glassformer.text.people import Person, people_documents, read_people
from glassformer.text.pipeline import TextPipeline
from glassformer.text.shards import is_shards
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
from glassformer.training.jobs.sharded import prepare_shards, shards_of
from glassformer.training.recipes import Data, Recipe

NO_END = "this tokenizer has no token that ends a text: 'text.tokenizer' must be bpe, word or character."
SHARDS_ARE_FOR = "language models train from them, and validate on them where they train from them; give text here"
PROMPT_TOKENS, SAMPLE_TOKENS = 16, 48


def split_documents(data: Data, split: str, root: Root = None) -> list[str]:
    """The documents of a split, of all its files. See `Data` and `text.documents.read_documents`."""
    if data.kind == "people":
        return people_documents(people_of(data, root), split, data.variants, data.people_seed)
    files = [parse_part(given) for given in data.paths(split)]
    mixed = not all(has_columns(path) for path, _ in files)
    found = []
    for path, part in files:
        place = resolve(path, root)
        if is_shards(place):
            raise InputError(f"{place} is a folder of token shards: {SHARDS_ARE_FOR}.")
        rows = mixed and has_columns(path)  # then `documents` speaks of the other files
        found += read_documents(place, "file" if rows else data.documents, data.column, part=part)
    return found


def people_of(data: Data, root: Root = None) -> list[Person]:
    """The people that a recipe with `kind = "people"` tells of: all splits are made of the one file `train`."""
    return read_people(resolve(data.path("train"), root), data.people, data.people_seed)


def prepare(given: Given) -> Prepared:
    """Read train and valid, train the tokenizer on train (unless there is one), cut into windows. Token shards are not
    read: see `sharded.prepare_shards`.

    Every document stands between two end-of-text tokens. `InputError` for whatever is wrong with the files.
    """
    recipe = given.recipe
    shards = shards_of(recipe.data, "train", given.root)
    if shards is not None:
        held_out = shards_of(recipe.data, "valid", given.root) or split_documents(recipe.data, "valid", given.root)
        return prepare_shards(given, shards, held_out, context_of(given))
    documents = {split: split_documents(recipe.data, split, given.root) for split in ("train", "valid")}
    tokenizer = given.known_tokenizer() or train_tokenizer(recipe, documents["train"])
    context = context_of(given)
    before, after, pad_id = _frame(given, tokenizer)
    ids = {split: tokenizer.encode_all(texts) for split, texts in documents.items()}
    settings = recipe.training
    frame: dict[str, Any] = {"before": before, "after": after, "pad_id": pad_id}
    train = Windows(ids["train"], context, seed=settings.seed, **frame)
    valid = Windows(ids["valid"], context, every=True, **frame)
    held = max(settings.batch_tokens, recipe.evaluation.batch_tokens)
    counts = [sum(map(len, ids[split])) for split in ("train", "valid")]
    return Prepared(
        tokenizer=tokenizer,
        pipeline=given.pipeline(TextPipeline()),
        train=ExampleBatches(train, tokens=settings.batch_tokens, seed=settings.seed),
        valid=ExampleBatches(valid, tokens=held),
        held=documents["valid"],
        counts=f"{counts[0]:,} tokens in {len(ids['train']):,} documents to train, {counts[1]:,} in "
        f"{len(ids['valid']):,} to validate, windows of {context}",
        fingerprint=fingerprint([ids["train"], ids["valid"]]),
        derived={"pad_id": tokenizer.pad_id, "bos_id": tokenizer.eos_id, "eos_id": tokenizer.eos_id},
        eos_ids=given.start.model.eos_ids if given.start is not None else (),
    )


def context_of(given: Given) -> int:
    """`data.context`. `InputError` where the model does not have so many positions, or a batch so many tokens."""
    context, most = given.recipe.data.context, given.positions()
    if context > most:
        raise InputError(f"'data.context' must be at most the model's {most} positions, got {context}.")
    if context > given.recipe.training.batch_tokens:
        raise InputError(f"'training.batch_tokens' must hold a window of {context} tokens ('data.context').")
    return context


def _frame(given: Given, tokenizer: Tokenizer) -> tuple[list[int], list[int], int]:
    """What stands before and after a document, and the id of padding. In a vocabulary of our own, as in GPT-2, one
    token does both."""
    if given.start is None:
        if tokenizer.eos_id is None:
            raise InputError(NO_END)
        return [tokenizer.eos_id], [tokenizer.eos_id], tokenizer.pad_id or 0
    config = given.start.held.config
    return [config.bos_id], [config.eos_id], config.pad_id


def _objective(recipe: Recipe, network: nn.Module) -> Objective:
    return functools.partial(causal_lm, label_smoothing=recipe.training.label_smoothing)


def _score(model: Model, prepared: Prepared, recipe: Recipe) -> dict[str, float]:
    return {}


def _samples(model: Model, prepared: Prepared, recipe: Recipe, count: int) -> list[Sample]:
    """How beginnings of held-out documents go on."""
    documents = spread(prepared.held, count)
    starts = [model.tokenizer.encode(text[:400])[: PROMPT_TOKENS + SAMPLE_TOKENS] for text in documents]
    prompts = [ids[:PROMPT_TOKENS] for ids in starts]
    found = model.generate(prompts, max_new_tokens=min(SAMPLE_TOKENS, model.config.max_length - PROMPT_TOKENS))
    return [
        (
            shortened(model.tokenizer.decode(prompt)),
            shortened(model.tokenizer.decode(ids[len(prompt) :])),
            shortened(one.text),
        )
        for prompt, ids, one in zip(prompts, starts, found, strict=True)
    ]


def evaluate_documents(
    model: Model, documents: Sequence[str], context: int | None = None, stride: int | None = None
) -> dict[str, Any]:
    """How probable a model finds documents: `loss` in nats a token, `perplexity`, `bits_per_byte`.

    Each document is read in windows of `context` tokens, `stride` from one to the next (see `tasks.score.perplexity`),
    and every token is scored once, the first given what the model's texts begin with. The 95 % interval of the loss is
    a bootstrap over documents, where there are several.
    """
    began = time.perf_counter()
    first = [] if model.tokenizer.encode("a", frame=True)[:1] == [model.config.bos_id] else [model.config.bos_id]
    found = []
    for text in documents:
        ids = [*first, *model.tokenizer.encode(text, frame=not first)]
        if len(ids) > 1:
            found.append(model.perplexity(ids, context=_fitting(model, context, len(ids)), stride=stride))
    if not found:
        raise InputError("there is no document of at least 2 tokens to measure.")
    nll, count = math.fsum(one.nll for one in found), sum(one.n_tokens for one in found)
    result: dict[str, Any] = {"loss": nll / count, "perplexity": math.exp(nll / count)}
    if len(found) > 1:
        interval = bootstrap(range(len(found)), functools.partial(_ratio, found))
        result["loss_interval"] = [interval.low, interval.high]
    n_bytes = sum(len(text.encode()) for text in documents)
    return {
        **result,
        "bits_per_byte": nll / math.log(2) / n_bytes,
        "n": count,
        "n_documents": len(found),
        "context": max(one.context for one in found),
        "stride": max(one.stride for one in found),
        "seconds": time.perf_counter() - began,
    }


def _fitting(model: Model, context: int | None, length: int) -> int:
    wanted = min(context or model.config.max_length, model.config.max_length)
    return max(2, min(wanted, length))


def _ratio(found: Sequence[Any], rows: Any, axis: int) -> Any:
    """Mean loss of resampled documents, each weighted by its tokens."""
    rows = rows.astype(np.int64)
    nll, count = (np.array([getattr(one, name) for one in found]) for name in ("nll", "n_tokens"))
    return nll[rows].sum(axis) / count[rows].sum(axis)


def _evaluate(
    model: Model,
    recipe: Recipe,
    split: str,
    root: Root = None,
    *,
    context: int | None = None,
    stride: int | None = None,
    **_: Any,
) -> dict[str, Any]:
    documents = split_documents(recipe.data, split, root)
    return evaluate_documents(model, documents, context or recipe.data.context, stride)


JOB = Job("generation", (Decoder,), prepare, _objective, _score, _samples, _evaluate)
