"""The verbs `score` and `perplexity`: how probable a decoder finds a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence

from glassformer.errors import InputError
from glassformer.generation.decoding import evaluation
from glassformer.generation.joining import token_logprobs
from glassformer.tasks.inputs import is_one, text_ids
from glassformer.tasks.translate import batches

if TYPE_CHECKING:
    from glassformer.tasks.model import Model

BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Score:
    """`logprobs[i]` is the natural logarithm of p(ids[i] | the ids before it); `total` is their sum.

    The first is None unless the model's texts begin with a token of their own (`<s>`), which is not among `ids`: no
    model says how probable a first token is given nothing. `perplexity` is exp(-total / how many were scored), NaN
    where none was.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float | None, ...]
    total: float
    perplexity: float


@dataclass(frozen=True)
class Perplexity:
    """`value` = exp(`nll` / `n_tokens`): `nll` is the summed negative log-probability (in nats) of the tokens scored.

    `context` and `stride` are those of the windows: only with the same ones can two values be compared, and only of
    models with the same tokenizer.
    """

    value: float
    n_tokens: int
    nll: float
    context: int
    stride: int


def score(model: Model, texts: Sequence[Any], batch_tokens: int) -> list[Score]:
    """The scores of texts, in order. Raises `InputError` for a text longer than the model's positions."""
    model.running  # noqa: B018 - only a decoder says how probable a text is
    rows = _rows(model, texts)
    longest = model.config.max_length
    for number, (ids, _) in enumerate(rows, 1):
        if len(ids) > longest:
            raise InputError(
                f"text {number} has {len(ids)} tokens, the model reads at most {longest}: use perplexity, whose "
                "windows slide over a long text."
            )
    found = _logprobs(model, [ids for ids, _ in rows], [1] * len(rows), batch_tokens)
    return [_score(ids, framed, logprobs) for (ids, framed), logprobs in zip(rows, found, strict=True)]


def perplexity(model: Model, text: Any, stride: int | None, context: int | None, batch_tokens: int) -> Perplexity:
    """The perplexity of one long text, in windows of `context` tokens, each `stride` tokens after the one before.

    Every token but the first is scored once, in the first window that holds it, so that it sees at least
    `context` - `stride` tokens before it (or all that there are). By default `context` is the model's positions, at
    most 1024, and `stride` half of it. Raises `InputError` for a text of fewer than 2 tokens.
    """
    model.running  # noqa: B018
    if not is_one(text):
        raise InputError("perplexity is of one text: give a string or the ids of one.")
    ids = text_ids(model, [text])[0]
    context = min(model.config.max_length, 1024) if context is None else context
    if not 2 <= context <= model.config.max_length:
        raise InputError(f"'context' must be from 2 to the model's {model.config.max_length} positions, got {context}.")
    stride = context // 2 if stride is None else stride
    if not 1 <= stride < context:
        raise InputError(f"'stride' must be from 1 to less than the context ({context}), got {stride}.")
    if len(ids) < 2:
        raise InputError(f"perplexity needs a text of at least 2 tokens, got {len(ids)}.")
    ends = [*range(context, len(ids), stride), len(ids)]
    begins = [stride * number for number in range(len(ends))]
    scored = [1, *(last - begin for last, begin in zip(ends, begins[1:], strict=False))]
    windows = [ids[begin:end] for begin, end in zip(begins, ends, strict=True)]
    logprobs = [one for window in _logprobs(model, windows, scored, batch_tokens) for one in window]
    nll = -math.fsum(logprobs)
    return Perplexity(math.exp(nll / len(logprobs)), len(logprobs), nll, context, stride)


def _rows(model: Model, texts: Sequence[Any]) -> list[tuple[list[int], bool]]:
    """Each text's ids, and whether the first is one that the model's texts begin with and the text did not bring."""
    begins = model.tokenizer.bos_id
    found = zip(texts, text_ids(model, texts), strict=True)
    return [(ids, isinstance(text, str) and ids[:1] == [begins]) for text, ids in found]


def _score(ids: list[int], framed: bool, logprobs: list[float]) -> Score:
    total = math.fsum(logprobs)
    mean = -total / len(logprobs) if logprobs else math.nan
    own = tuple(ids[1:] if framed else ids)
    first = () if framed or not own else (None,)
    return Score(own, (*first, *logprobs), total, math.exp(mean))


def _logprobs(model: Model, rows: list[list[int]], starts: list[int], batch_tokens: int) -> list[list[float]]:
    """log p of each row's ids from its `starts` on (at least 1), given those before them; rows of like length go
    through the network together."""
    if batch_tokens < 1:
        raise InputError(f"'batch_tokens' must be at least 1, got {batch_tokens}.")
    network: Any = model.network
    found: dict[int, list[float]] = {place: [] for place in range(len(rows))}
    places = [place for place, (row, start) in enumerate(zip(rows, starts, strict=True)) if len(row) > start > 0]
    with torch.inference_mode(), evaluation(network):
        for batch in batches([len(rows[place]) for place in places], batch_tokens):
            own = [places[index] for index in batch]
            ids = pad_sequence([torch.tensor(rows[place]) for place in own], batch_first=True).to(model.device)
            hidden = network.hidden(ids)
            for index, place in enumerate(own):
                start, end = starts[place], len(rows[place])
                found[place] = token_logprobs(network, hidden[index, start - 1 : end - 1], rows[place][start:])
    return [found[place] for place in range(len(rows))]
