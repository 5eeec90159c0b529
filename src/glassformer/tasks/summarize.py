"""The verb `summarize`: a short text for a long one, by an encoder-decoder, or by a decoder that reads a prompt."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from glassformer.errors import InputError
from glassformer.models.decoder import Decoder
from glassformer.models.families import TextToText
from glassformer.tasks import rouge
from glassformer.tasks.generate import Generation, Options
from glassformer.tasks.generate import generate as go_on
from glassformer.tasks.intervals import bootstrap
from glassformer.tasks.translate import BATCH_TOKENS, generation_of, lines_of, search
from glassformer.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from glassformer.tasks.model import Model

PROMPT = "{text}\n\nSummary:"
MAX_NEW_TOKENS = 64


def summarize(
    model: Model,
    texts: Sequence[str],
    *,
    beam: int = 1,
    length_penalty: float = 1.0,
    max_new_tokens: int | None = None,
    max_tokens: int = 0,
    truncate: bool = False,
    first_line: int = 1,
) -> list[Generation]:
    """See `Model.summarize`."""
    texts = lines_of(texts)
    most = new_tokens(model.config.max_length) if max_new_tokens is None else max_new_tokens
    for number, text in enumerate(texts, first_line):
        if not text.strip():
            raise InputError(f"text {number} is empty: there is nothing to summarize.")
    if isinstance(model.network, Decoder):
        room = min(max_tokens or model.config.max_length, model.config.max_length - most)
        ids = prompts(model.tokenizer, model.pipeline.prompt or PROMPT, texts, room, truncate, first_line)
        options = Options(max_new_tokens=most, beam=beam, length_penalty=length_penalty, logprobs=0)
        return [replace(found, text=" ".join(found.text.split())) for found in go_on(model, ids, options)]
    if not isinstance(model.network, TextToText):
        raise InputError(f"'summarize' wants an encoder-decoder or a decoder; this model is {model.purpose}.")
    longest = min(max_tokens or model.config.max_length, model.config.max_length)
    prepared = [model.pipeline.prepare_source(text) for text in texts]
    sources = within(model.tokenizer.encode_all(prepared), longest - 1, truncate, first_line)
    settings = {"beam": beam, "n_best": 1, "length_penalty": length_penalty, "max_length": most}
    found = search(model, sources, max(BATCH_TOKENS, longest), settings)
    return [generation_of(model, hypotheses[:1], False) for hypotheses in found]


def new_tokens(positions: int) -> int:
    """The most tokens of a summary unless a number is given: 64, or half of the positions where that is less."""
    return max(1, min(MAX_NEW_TOKENS, positions // 2))


def prompts(
    tokenizer: Tokenizer, prompt: str, texts: Sequence[str], room: int, truncate: bool = False, first_line: int = 1
) -> list[list[int]]:
    """The ids of each text within a prompt that holds {text}: the text alone is cut off at its end where both together
    are more than `room`, if `truncate` allows it. What stands around the text is tokenised by itself, after whatever
    the tokenizer begins texts with."""
    before, _, after = prompt.partition("{text}")
    opening = tokenizer.encode(before, frame=True)
    if tokenizer.eos_id is not None and len(opening) > 1 and opening[-1] == tokenizer.eos_id:
        opening = opening[:-1]
    closing = tokenizer.encode(after) if after else []
    left = room - len(opening) - len(closing)
    if left < 1:
        raise InputError(
            f"the prompt alone has {room - left} tokens and leaves no room for a text in {room}: shorten it."
        )
    found = within(tokenizer.encode_all(list(texts)), left, truncate, first_line)
    return [[*opening, *ids, *closing] for ids in found]


def within(ids: list[list[int]], room: int, truncate: bool, first_line: int) -> list[list[int]]:
    """Texts of at most `room` tokens. `InputError` that names a longer one, unless `truncate` cuts it off."""
    for number, text in enumerate(ids, first_line):
        if len(text) > room and not truncate:
            raise InputError(
                f"text {number} has {len(text)} tokens, and there is room for {room}: shorten it, or read its "
                "beginning only (truncate=True, --truncate)."
            )
    return [text[:room] for text in ids]


def evaluate_summaries(
    model: Model, texts: Sequence[str], references: Sequence[str], **settings: Any
) -> dict[str, Any]:
    """Summarize `texts` and compare with their `references` by ROUGE (Lin 2004; with the stemmer).

    Gives `rouge1`, `rouge2` and `rougeL` (mean F of the texts, 0 to 100), each with its 95 % interval (bootstrap over
    texts), the number of texts `n`, how many summaries were `cut_off` at the most tokens allowed, and the `seconds`
    taken. `settings` are those of `summarize`.
    """
    began = time.perf_counter()
    results = summarize(model, texts, **settings)
    seconds = time.perf_counter() - began
    pairs = zip((result.text for result in results), references, strict=True)
    scores = [rouge.rouge_scores(hypothesis, reference) for hypothesis, reference in pairs]
    found: dict[str, Any] = {}
    for name in rouge.NAMES:
        values = [100 * score[name].f1 for score in scores]
        interval = bootstrap(values)
        found[name] = sum(values) / len(values)
        found[f"{name}_interval"] = [interval.low, interval.high]
    cut_off = sum(result.finish_reason == "length" for result in results)
    return {**found, "n": len(texts), "cut_off": cut_off, "seconds": seconds}
