"""The verb `embed`: one vector a text, from an encoder with a sentence head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from glassformer.errors import InputError
from glassformer.generation.decoding import evaluation
from glassformer.memory import large_buffers
from glassformer.models.config import Classification, MaskedLM, Sentence, Spans, Tagging
from glassformer.models.heads import SentenceHead
from glassformer.tasks.inputs import Prompt, as_ids, framed_ids, is_one
from glassformer.tasks.translate import batches

if TYPE_CHECKING:
    from glassformer.tasks.model import Model

BATCH_TOKENS = 2048  # fewer wait longer for Python, more do not stay in the processor's cache

_PURPOSES: dict[type, str] = {
    Sentence: "an encoder of sentences: it turns text into vectors (embed)",
    MaskedLM: "an encoder that fills masks (fill)",
    Classification: "an encoder that gives a text one of its labels (classify)",
    Tagging: "an encoder that labels tokens (call it for its logits)",
    Spans: "an encoder that finds answers in a text (answer)",
}


def purpose(head: Any) -> str:
    """What an encoder with this head is and can do; without one, it fills masks."""
    return _PURPOSES[MaskedLM if head is None else type(head)]


def embed(
    model: Model,
    texts: Prompt | Sequence[Prompt],
    batch_tokens: int,
    truncate: bool,
    normalize: bool | None,
    first_line: int,
) -> Tensor:
    """See `Model.embed`."""
    head = getattr(model.config, "head", None)
    if not isinstance(head, Sentence):
        raise InputError(f"'embed' wants a model with a sentence head; this one is {model.purpose}.")
    if batch_tokens < 1:
        raise InputError(f"'batch_tokens' must be at least 1, got {batch_tokens}.")
    one = is_one(texts)
    every: list[Any] = [texts] if one else list(texts)
    ids = read_ids(model, every, truncate, first_line)
    wanted = head.normalize if normalize is None else normalize
    pool = SentenceHead(replace(head, normalize=wanted))
    vectors = torch.empty(len(ids), model.config.d_model)
    every_batch = list(batches([len(row) for row in ids], batch_tokens))
    with torch.inference_mode(), evaluation(model.network), large_buffers(len(every_batch) > 1):
        for rows in every_batch:
            vectors[rows] = _vectors(model, [ids[row] for row in rows], pool).float().cpu()
    return vectors[0] if one else vectors


def _vectors(model: Model, ids: list[list[int]], pool: SentenceHead) -> Tensor:
    lengths = torch.tensor([len(row) for row in ids])
    real = torch.arange(int(lengths.max())) < lengths[:, None]
    every = torch.tensor([i for row in ids for i in row])
    padded = torch.full(real.shape, model.config.pad_id).masked_scatter_(real, every)
    padded, real = padded.to(model.device), real.to(model.device)
    network: Any = model.network
    return pool(network.states(padded, real), real)


def read_ids(model: Model, texts: Sequence[Prompt], truncate: bool = False, first_line: int = 1) -> list[list[int]]:
    """What the model reads of each text, and no more than it was tuned to read: strings with their frame, or ids as
    they are. `InputError`s as `Model.embed` raises them."""
    longest = model.config.head.max_length or model.config.max_length
    strings = [text for text in texts if isinstance(text, str)]
    if len(strings) == len(texts):
        return framed_ids(model.tokenizer, model.pipeline, strings, longest, truncate=truncate, first_line=first_line)
    found = [
        _checked(model, text, longest, truncate, line)
        for line, text in enumerate(texts, first_line)
        if not isinstance(text, str)
    ]
    if strings:
        raise InputError("texts must be strings, or all of them lists of ids: make the strings ids first.")
    return found


def _checked(model: Model, text: Any, longest: int, truncate: bool, line: int) -> list[int]:
    """Ids that the model can read; the first of them where `truncate` allows it."""
    if not isinstance(text, Sequence | Tensor):
        raise InputError(f"a model embeds strings, or lists of ids; line {line} is {text!r}.")
    ids, vocabulary = as_ids(text, line), model.config.vocab_size
    if not ids or not all(0 <= i < vocabulary for i in ids):
        raise InputError(f"line {line} must have at least one id, all of them in [0, {vocabulary}), the vocabulary.")
    if len(ids) > longest and not truncate:
        raise InputError(f"line {line} has {len(ids)} ids, the model reads at most {longest}: leave some out.")
    return ids[:longest]
