"""Summarization: documents with their summaries, for an encoder-decoder, or for a decoder that reads a prompt."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from glassformer.errors import InputError
from glassformer.models.decoder import Decoder
from glassformer.models.families import TEXT_TO_TEXT, network_class
from glassformer.tasks.model import Model
from glassformer.tasks.objectives import causal_lm, seq2seq
from glassformer.tasks.summarize import PROMPT, evaluate_summaries, new_tokens, prompts, within
from glassformer.text.batches import ExampleBatches
from glassformer.text.corpora import Pairs, read_pairs, resolve
from glassformer.text.examples import PromptedTexts
from glassformer.text.pairs import PairBatches
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import BOS, EOS, PAD, Tokenizer
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
from glassformer.training.jobs.language import NO_END
from glassformer.training.recipes import Data, Recipe

FIELDS = ["document", "summary"]
Ids = list[list[int]]


def split_summaries(data: Data, split: str, root: Root = None) -> Pairs:
    """The documents of a split and their summaries, the columns `fields` (by default "document" and "summary")."""
    path = resolve(data.path(split), root)
    if data.source and data.target and data.fields is None:
        return read_pairs(path, data.source, data.target)
    return read_pairs(path, "", "", fields=data.fields or FIELDS)


def prepare(given: Given) -> Prepared:
    """Read train and valid, encode both sides. `InputError` for whatever is wrong with the files, and documents that
    are too long (cut off with `data.truncate`)."""
    recipe = given.recipe
    pairs = {split: split_summaries(recipe.data, split, given.root) for split in ("train", "valid")}
    both = [*pairs["train"].source, *pairs["train"].target]
    pipeline = given.pipeline(TextPipeline(lowercase=recipe.text.lowercase))
    around = (recipe.data.prompt or PROMPT).split("{text}") if _is_decoder(given) else []
    texts = [*(pipeline.prepare_source(text) for text in both), *around]
    tokenizer = given.known_tokenizer() or train_tokenizer(recipe, texts)
    read = _for_decoder if _is_decoder(given) else _for_both
    train, valid, derived = read(given, tokenizer, pipeline, pairs)
    if _is_decoder(given):
        prompt = recipe.data.prompt or pipeline.prompt or PROMPT
        pipeline = dataclasses.replace(pipeline, prompt=prompt)
    return Prepared(
        tokenizer=tokenizer,
        pipeline=pipeline,
        train=train,
        valid=valid,
        held=pairs["valid"],
        counts=f"{len(pairs['train']):,} documents to train, {len(pairs['valid']):,} to validate",
        fingerprint=fingerprint([tokenizer.encode_all(side) for split in pairs.values() for side in _sides(split)]),
        derived=derived,
        eos_ids=given.start.model.eos_ids if given.start is not None else (),
    )


def _sides(pairs: Pairs) -> tuple[list[str], list[str]]:
    return pairs.source, pairs.target


def _is_decoder(given: Given) -> bool:
    config = given.start.held.config if given.start is not None else given.recipe.network_config(vocab_size=100)
    return network_class(config) is Decoder


def _for_decoder(
    given: Given, tokenizer: Tokenizer, pipeline: TextPipeline, pairs: dict[str, Pairs]
) -> tuple[ExampleBatches[Any], ExampleBatches[Any], dict[str, Any]]:
    """The prompt with the document, then the summary and the end of the text, which alone are learnt."""
    recipe, data = given.recipe, given.recipe.data
    eos = given.start.model.ends[0] if given.start is not None else tokenizer.eos_id
    if eos is None:
        raise InputError(NO_END)
    prompt = data.prompt or pipeline.prompt or PROMPT
    longest = min(data.max_tokens or given.positions(), given.positions())
    pad_id = given.start.held.config.pad_id if given.start is not None else tokenizer.pad_id or 0
    found = {}
    for split, both in pairs.items():
        answers = [[*tokenizer.encode(f" {text.strip()}"), eos] for text in both.target]
        room = min(longest - max(map(len, answers)), given.positions() - new_tokens(given.positions()))
        if room < 1:
            raise InputError(
                f"the longest summary of the {split} data leaves no room in {longest} tokens for a document."
            )
        ids = _named(split, functools.partial(prompts, tokenizer, prompt, both.source, room, data.truncate))
        found[split] = PromptedTexts(ids, answers, pad_id)
    settings = recipe.training
    held = max(settings.batch_tokens, recipe.evaluation.batch_tokens)
    train = ExampleBatches(found["train"], tokens=settings.batch_tokens, seed=settings.seed)
    own = {"pad_id": tokenizer.pad_id, "bos_id": tokenizer.eos_id, "eos_id": tokenizer.eos_id}
    return train, ExampleBatches(found["valid"], tokens=held), own


def _for_both(
    given: Given, tokenizer: Tokenizer, pipeline: TextPipeline, pairs: dict[str, Pairs]
) -> tuple[PairBatches, PairBatches, dict[str, Any]]:
    """Documents for the encoder, summaries for the decoder."""
    recipe, data = given.recipe, given.recipe.data
    positions = given.positions()
    longest = min(data.max_tokens or positions, positions)
    config = given.start.held.config if given.start is not None else None
    ends, pad_id = ((config.bos_id, config.eos_id), config.pad_id) if config is not None else ((BOS, EOS), PAD)
    settings = recipe.training
    found = {}
    for split, both in pairs.items():
        sources = tokenizer.encode_all([pipeline.prepare_source(text) for text in both.source])
        targets = tokenizer.encode_all([pipeline.prepare_target(text) for text in both.target])
        sources = _named(split, functools.partial(within, sources, longest - 1, data.truncate, 1))
        targets = _named(split, functools.partial(within, targets, positions - 1, data.truncate, 1))
        held = split == "valid"
        tokens = max(settings.batch_tokens, recipe.evaluation.batch_tokens) if held else settings.batch_tokens
        seed = 0 if held else settings.seed
        found[split] = PairBatches(sources, targets, tokens=tokens, seed=seed, ends=ends, pad_id=pad_id)
    return found["train"], found["valid"], {"pad_id": PAD, "bos_id": BOS, "eos_id": EOS}


def _named(split: str, cut: Callable[[], Ids]) -> Ids:
    """Texts cut to length; an error names the split."""
    try:
        return cut()
    except InputError as error:
        hint = " In a recipe that is 'data.truncate'." if "truncate" in str(error) else ""
        raise InputError(f"The {split} data: {error}{hint}") from None


def _objective(recipe: Recipe, network: nn.Module) -> Objective:
    objective: Any = causal_lm if isinstance(network, Decoder) else seq2seq
    return functools.partial(objective, label_smoothing=recipe.training.label_smoothing)


def _settings(recipe: Recipe) -> dict[str, Any]:
    return {"max_tokens": recipe.data.max_tokens, "truncate": recipe.data.truncate}


def _score(model: Model, prepared: Prepared, recipe: Recipe) -> dict[str, float]:
    texts, references = (spread(side, recipe.evaluation.examples) for side in _sides(prepared.held))
    scores = evaluate_summaries(model, texts, references, **_settings(recipe))
    return {name: float(scores[name]) for name in ("rouge1", "rouge2", "rougeL")}


def _samples(model: Model, prepared: Prepared, recipe: Recipe, count: int) -> list[Sample]:
    texts, references = (spread(side, count) for side in _sides(prepared.held))
    found: Any = model.summarize(texts, **_settings(recipe))
    return [(shortened(text), right, one.text) for text, right, one in zip(texts, references, found, strict=True)]


def _evaluate(
    model: Model,
    recipe: Recipe,
    split: str,
    root: Root = None,
    *,
    beam: int | None = None,
    length_penalty: float | None = None,
    truncate: bool = False,
    **_: Any,
) -> dict[str, Any]:
    pairs = split_summaries(recipe.data, split, root)
    settings = _settings(recipe)
    settings["truncate"] = settings["truncate"] or truncate
    return evaluate_summaries(
        model,
        pairs.source,
        pairs.target,
        beam=recipe.evaluation.beam if beam is None else beam,
        length_penalty=recipe.evaluation.length_penalty if length_penalty is None else length_penalty,
        **settings,
    )


JOB = Job("summarization", (*TEXT_TO_TEXT, Decoder), prepare, _objective, _score, _samples, _evaluate)
