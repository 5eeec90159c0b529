"""Masked language modeling: pieces of documents with hidden tokens, cross-entropy of these (Devlin et al. 2019)."""

from __future__ import annotations

import functools
import math
import time
from typing import Any

import numpy as np
import torch
from torch import nn

from glassformer.errors import InputError
from glassformer.generation.decoding import evaluation
from glassformer.models.config import MaskedLM
from glassformer.models.encoder import Encoder
from glassformer.tasks.intervals import bootstrap
from glassformer.tasks.model import Model
from glassformer.tasks.objectives import masked_lm
from glassformer.text.batches import ExampleBatches
from glassformer.text.examples import MaskedWindows, Masking
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer
from glassformer.training.gradients import Objective
from glassformer.training.jobs.classification import framed_config
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
from glassformer.training.jobs.language import context_of, split_documents
from glassformer.training.recipes import Recipe

SHOWN = 24
"""Tokens of a sample."""

SAMPLED = 8
"""Pieces of text that an interval takes as one observation."""


def prepare(given: Given) -> Prepared:
    """Read train and valid, train the tokenizer on train (unless there is one), cut into pieces, each with its frame.

    `InputError` for whatever is wrong with the files, and a tokenizer without a mask.
    """
    recipe = given.recipe
    documents = {split: split_documents(recipe.data, split, given.root) for split in ("train", "valid")}
    tokenizer = given.known_tokenizer() or train_tokenizer(recipe, documents["train"], framed=True)
    context = context_of(given)
    settings = recipe.training
    ids = {split: tokenizer.encode_all(texts) for split, texts in documents.items()}
    pad_id = given.start.held.config.pad_id if given.start is not None else tokenizer.pad_id or 0
    train = masked(tokenizer, ids["train"], context, pad_id, seed=settings.seed)
    valid = masked(tokenizer, ids["valid"], context, pad_id, every=True)
    held = max(settings.batch_tokens, recipe.evaluation.batch_tokens)
    counts = [sum(map(len, ids[split])) for split in ("train", "valid")]
    return Prepared(
        tokenizer=tokenizer,
        pipeline=given.pipeline(TextPipeline()),
        train=ExampleBatches(train, tokens=settings.batch_tokens, seed=settings.seed),
        valid=ExampleBatches(valid, tokens=held),
        held=documents["valid"],
        counts=f"{counts[0]:,} tokens in {len(ids['train']):,} documents to train, {counts[1]:,} in "
        f"{len(ids['valid']):,} to validate, pieces of up to {context}",
        fingerprint=fingerprint([ids["train"], ids["valid"]]),
        head=MaskedLM(),
        derived=framed_config(tokenizer),
    )


def masked(
    tokenizer: Tokenizer, ids: list[list[int]], context: int, pad_id: int, seed: int = 0, every: bool = False
) -> MaskedWindows:
    """Encoded documents with hidden tokens, in the tokenizer's frame. `InputError` for one without a mask."""
    if tokenizer.mask_id is None:
        raise InputError("this tokenizer has no mask token: 'text.tokenizer' must be wordpiece.")
    framed = tokenizer.frame([tokenizer.mask_id])
    place = framed.index(tokenizer.mask_id)
    masking = Masking(tokenizer.mask_id, tokenizer.vocab_size, tuple(sorted(tokenizer.special_ids)))
    before, after = framed[:place], framed[place + 1 :]
    return MaskedWindows(ids, context, masking, before=before, after=after, pad_id=pad_id, seed=seed, every=every)


def _objective(recipe: Recipe, network: nn.Module) -> Objective:
    return masked_lm


def _score(model: Model, prepared: Prepared, recipe: Recipe) -> dict[str, float]:
    return {}


def _samples(model: Model, prepared: Prepared, recipe: Recipe, count: int) -> list[Sample]:
    """What the model puts for a word in the middle of held-out texts."""
    samples = []
    for text in spread(prepared.held, count):
        ids = model.tokenizer.encode(text[:400])[:SHOWN]
        if not ids:
            continue
        place = len(ids) // 2
        mask = model.tokenizer.mask_id
        shown = [*ids[:place], mask if mask is not None else ids[place], *ids[place + 1 :]]
        framed = torch.tensor([model.tokenizer.frame(shown)], device=model.device)
        with torch.no_grad(), evaluation(model.network):
            logits = model.network(framed).logits[0, framed[0].tolist().index(shown[place])]
        best = model.tokenizer.tokens(logits.topk(3).indices.tolist())
        text = model.tokenizer.decode(shown, skip_specials=False)
        samples.append((shortened(text), model.tokenizer.tokens([ids[place]])[0], ", ".join(best)))
    return samples


def _evaluate(model: Model, recipe: Recipe, split: str, root: Root = None, **_: Any) -> dict[str, Any]:
    """Loss, perplexity and accuracy at masks that are the same for every model with this tokenizer.

    The 95 % interval of the loss is a bootstrap over batches of `SAMPLED` pieces, where there are several.
    """
    began = time.perf_counter()
    ids = model.tokenizer.encode_all(split_documents(recipe.data, split, root))
    context = min(recipe.data.context, model.config.max_length)
    pieces = masked(model.tokenizer, ids, context, model.config.pad_id, every=True)
    sums = []
    with torch.inference_mode(), evaluation(model.network):
        for batch in ExampleBatches(pieces, tokens=SAMPLED * context).once():
            found = masked_lm(model.network, batch.to(model.device))  # type: ignore[arg-type]
            sums.append((float(found.total), found.count, int(found.parts["correct"])))
    nll, count, correct = (np.array(part) for part in zip(*sums, strict=True))
    intervals = {}
    if len(sums) > 1:
        interval = bootstrap(range(len(sums)), functools.partial(_ratio, nll, count))
        intervals["loss_interval"] = [interval.low, interval.high]
    return {
        "loss": float(nll.sum() / count.sum()),
        **intervals,
        "perplexity": math.exp(nll.sum() / count.sum()),
        "accuracy": float(correct.sum() / count.sum()),
        "n": int(count.sum()),
        "seconds": time.perf_counter() - began,
    }


def _ratio(total: Any, count: Any, rows: Any, axis: int) -> Any:
    rows = rows.astype(np.int64)
    return total[rows].sum(axis) / count[rows].sum(axis)


JOB = Job("fill", (Encoder,), prepare, _objective, _score, _samples, _evaluate)
