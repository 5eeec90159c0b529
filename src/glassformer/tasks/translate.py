"""The verb `translate`: text in another language, by beam search over an encoder-decoder."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch.nn.utils.rnn import pad_sequence

from glassformer.errors import InputError
from glassformer.generation.decoding import Decodable, beam_search
from glassformer.generation.search import Hypothesis
from glassformer.tasks.generate import Generation
from glassformer.tasks.splitting import parts

if TYPE_CHECKING:
    from glassformer.tasks.model import Model

BATCH_TOKENS = 2048

_EMPTY = Generation("", (), (), "stop", 0.0)


def translate(
    model: Model,
    lines: Sequence[str],
    *,
    tokenized: bool,
    long: Literal["error", "split"],
    batch_tokens: int,
    first_line: int,
    **settings: Any,
) -> list[Generation]:
    """The lines' translations, in order; see `Model.translate`."""
    if long not in ("error", "split"):
        raise InputError(f"'long' must be 'error' or 'split', got {long!r}.")
    prepared = [" ".join(line.split()) if tokenized else model.pipeline.prepare_source(line) for line in lines]
    pieces = _pieces(model, prepared, long == "split", first_line)
    found = search(model, [ids for line in pieces for ids in line], batch_tokens, settings)
    return [_result(model, [next(found) for _ in line], tokenized) for line in pieces]


def _pieces(model: Model, lines: list[str], split: bool, first_line: int) -> list[list[list[int]]]:
    """Each line as ids: none if it is empty, one list if it fits, more if it had to be split."""
    room = model.config.max_length - 1  # the encoder reads </s> too

    def fits(text: str) -> bool:
        return len(model.tokenizer.encode(text)) <= room

    pieces = [[ids] if ids else [] for ids in model.tokenizer.encode_all(lines)]
    for number, line in enumerate(pieces):
        if not line or len(line[0]) <= room:
            continue
        has = f"line {number + first_line} has {len(line[0])} tokens, the model has positions for {room}"
        if not split:
            raise InputError(f'{has}: shorten it, or have it translated in parts with long="split" (--long split).')
        pieces[number] = model.tokenizer.encode_all(parts(lines[number], fits))
        warnings.warn(f"{has}: translated in {len(pieces[number])} parts.", stacklevel=3)
    return pieces


def search(
    model: Model, sources: list[list[int]], batch_tokens: int, settings: dict[str, Any]
) -> Iterator[list[Hypothesis]]:
    """The hypotheses found for each source, in order; searched in batches of like length, the longest first."""
    network = cast(Decodable, model.network)
    found: dict[int, list[Hypothesis]] = {}
    for rows in batches([len(source) + 1 for source in sources], batch_tokens):
        ids = [torch.tensor([*sources[row], model.config.eos_id]) for row in rows]
        source = pad_sequence(ids, batch_first=True, padding_value=model.config.pad_id).to(model.device)
        found.update(zip(rows, beam_search(network, source, **settings), strict=True))
    return (found[row] for row in range(len(sources)))


def _result(model: Model, found: list[list[Hypothesis]], tokenized: bool) -> Generation:
    """One line's generation, of the hypotheses of its parts; the k-th best is made of the k-th best of each."""
    if not found:
        return _EMPTY
    best, *others = (generation_of(model, ranked, tokenized) for ranked in zip(*found, strict=False))
    return replace(best, alternatives=tuple(others))


def generation_of(model: Model, hypotheses: Iterable[Hypothesis], tokenized: bool) -> Generation:
    hypotheses = list(hypotheses)
    text = " ".join(filter(None, (model.tokenizer.decode(hypothesis.ids) for hypothesis in hypotheses)))
    return Generation(
        text if tokenized else model.pipeline.finish_target(text),
        tuple(i for hypothesis in hypotheses for i in hypothesis.ids),
        tuple(logprob for hypothesis in hypotheses for logprob in hypothesis.logprobs),
        "stop" if all(hypothesis.finished for hypothesis in hypotheses) else "length",
        sum(hypothesis.score for hypothesis in hypotheses),
    )


def lines_of(text: str | Sequence[str]) -> list[str]:
    lines = [text] if isinstance(text, str) else list(text)
    for number, line in enumerate(lines, 1):
        if not isinstance(line, str):
            raise InputError(f"a model translates a string or a list of strings; item {number} is {line!r}.")
    return lines


def batches(lengths: list[int], tokens: int) -> Iterator[list[int]]:
    """Rows of like length, the longest first, so that rows × longest is at most `tokens` (or the batch is one row)."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    while order:
        count = max(1, tokens // lengths[order[0]])
        yield order[:count]
        order = order[count:]
