"""Language modeling from token shards: nothing is tokenised, and nothing is read but what a batch needs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from glassformer.errors import InputError
from glassformer.text.batches import Batches, ExampleBatches
from glassformer.text.corpora import resolve
from glassformer.text.documents import parse_part
from glassformer.text.examples import Windows
from glassformer.text.pipeline import TextPipeline
from glassformer.text.shards import TokenShards, is_shards, joined, open_shards, tokenizer_hash
from glassformer.text.tokenizer import Tokenizer
from glassformer.text.window_batches import WindowBatches
from glassformer.training.jobs.job import Given, Prepared, Root, fingerprint
from glassformer.training.recipes import Data

HELD, HELD_TOKENS = 64, 128  # documents that samples may be taken from, and the tokens that are shown of each


def shards_of(data: Data, split: str, root: Root = None) -> TokenShards | None:
    """The token shards that a split names; None where it names none. `InputError` for shards and text in one list, and
    for what `open_shards` refuses."""
    named = [parse_part(given) for given in data.paths(split)] if data.kind == "pairs" else []
    places = [(resolve(path, root), part) for path, part in named]
    kinds = [is_shards(path) for path, _ in places]
    if not any(kinds):
        return None
    if not all(kinds):
        text = places[kinds.index(False)][0]
        raise InputError(f"'data.{split}' names token shards and {text}, which is none: all must be shards, or none.")
    return joined([open_shards(path, part) for path, part in places])


def prepare_shards(given: Given, shards: TokenShards, held_out: TokenShards | Sequence[str], context: int) -> Prepared:
    """What `language.prepare` gives, from shards. `held_out`, to validate on, may be documents as text.

    Raises `InputError` where the shards' tokenizer, or what they have around documents, is not the model's, and where
    those to validate on have another one than those to train on.
    """
    _check_tokenizer(given, shards)
    recipe, header = given.recipe, shards.header
    tokenizer, settings = shards.tokenizer, recipe.training
    pad_id = _pad_id(given, tokenizer, header.after[0])
    held_tokens = max(settings.batch_tokens, recipe.evaluation.batch_tokens)
    valid: Batches[Any]
    if isinstance(held_out, TokenShards):
        joined([shards, held_out])  # refuses other tokenizers
        windows = Windows(held_out, context, pad_id=pad_id, every=True)
        valid, told, texts = WindowBatches(windows, tokens=held_tokens), held_out.fingerprint, held_out.n_documents
        held = [tokenizer.decode(ids) for ids in held_out.beginnings(min(HELD, texts), HELD_TOKENS)]
    else:
        ids = tokenizer.encode_all(held_out)
        windows = Windows(ids, context, before=header.before, after=header.after, pad_id=pad_id, every=True)
        valid, told, texts = ExampleBatches(windows, tokens=held_tokens), fingerprint([ids]), len(ids)
        held = list(held_out)
    train = Windows(shards, context, pad_id=pad_id, seed=settings.seed)
    counts = (f"{len(shards):,} tokens in {shards.n_documents:,} documents to train", f"{len(windows.text):,} in")
    return Prepared(
        tokenizer=tokenizer,
        pipeline=given.pipeline(TextPipeline()),
        train=WindowBatches(train, tokens=settings.batch_tokens, seed=settings.seed),
        valid=valid,
        held=held,
        counts=f"{counts[0]}, {counts[1]} {texts:,} to validate, windows of {context}",
        fingerprint=hashlib.blake2b(f"{shards.fingerprint} {told}".encode(), digest_size=12).hexdigest(),
        derived={"pad_id": pad_id, "bos_id": header.before[0], "eos_id": header.after[0]},
        eos_ids=given.start.model.eos_ids if given.start is not None else (),
    )


def _check_tokenizer(given: Given, shards: TokenShards) -> None:
    """`InputError` unless the shards are what the model, or the resumed run, reads."""
    known, header = given.known_tokenizer(), shards.header
    name = given.start.name if given.start is not None else "the run"
    again = f"Make shards with glassformer tokenize --tokenizer {name}." if given.start is not None else ""
    if known is not None and tokenizer_hash(known) != header.tokenizer:
        raise InputError(f"{shards.where} was made with another tokenizer than that of {name}. {again}".rstrip())
    if given.start is not None:
        config = given.start.held.config
        if (header.before, header.after) != ((config.bos_id,), (config.eos_id,)):
            raise InputError(
                f"{shards.where} has the ids {list(header.before)} and {list(header.after)} around documents, {name} "
                f"wants {config.bos_id} and {config.eos_id}. {again}"
            )
    if not header.before or not header.after:
        raise InputError(f"{shards.where} has nothing between documents; a model learns from it where a text ends.")


def _pad_id(given: Given, tokenizer: Tokenizer, eos_id: int) -> int:
    """The id of padding; where the vocabulary has none, the end of a text, as in GPT-2."""
    if given.start is not None:
        return given.start.held.config.pad_id
    return eos_id if tokenizer.pad_id is None else tokenizer.pad_id
