"""The verb `generate`: texts that go on from prompts, whole or as a stream."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor

from glassformer.errors import InputError
from glassformer.generation.constraints import JsonSchema
from glassformer.generation.contrast import ContextAware, Contrast, Dola
from glassformer.generation.decoding import continue_by_beam
from glassformer.generation.engine import Engine
from glassformer.generation.engine import generate as answer
from glassformer.generation.requests import Request, Result
from glassformer.generation.sampling import LogitsFunction, Sampling
from glassformer.generation.search import Hypothesis
from glassformer.generation.stopping import FinishReason, Reader, stop_strings
from glassformer.tasks.inputs import Prompt, is_one, text_ids

if TYPE_CHECKING:
    from glassformer.tasks.model import Model

BATCH_POSITIONS = 16384
"""Unless 'batch_size' says otherwise, as many rows go together as have so many positions, and at most 64."""


@dataclass(frozen=True)
class Generation:
    """One result. `ids` are the tokens as generated and `logprobs` the log-probability of each.

    `finish_reason` is "stop" where the text was ended by the model itself (the last id is then its end-of-text token,
    `</s>`) or by a stop string, and "length" where it was cut off at the most tokens allowed. `score` ranks results of
    one input: the sum of `logprobs`, of a beam's hypotheses over the length penalty. `alternatives` are the next best
    results, the best first, if more than one was asked for.

    Where text goes on from a prompt: `text` is the continuation only, without a stop string (whose tokens `ids` holds);
    `prompt_ids` is what the model read; `prompt_logprobs`, if asked for, has for each of them its log-probability given
    those before it, None for the first; `top_logprobs`, if asked for, has the most probable tokens at each place of
    `ids`, as pairs of id and log-probability. `entropies` and `margins`, if asked for, say for each of `ids` how unsure
    the model was: −Σ p log p of what it expected there, and log p of its best token less that of its second. `states`
    [n, D], if asked for, are what each of `ids` was chosen from: the network's last states, which its head reads. That
    of the first id has seen the prompt alone, and none has seen the last id. All these are the model's own, in nats,
    before temperature, filters, biases and grammars; with a contrast, those of what is contrasted.
    """

    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    score: float
    alternatives: tuple[Generation, ...] = ()
    prompt_ids: tuple[int, ...] | None = None
    prompt_logprobs: tuple[float | None, ...] | None = None
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] | None = None
    entropies: tuple[float, ...] | None = None
    margins: tuple[float, ...] | None = None
    states: Tensor | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Piece:
    """What a stream gives at a time: new `ids` and the `text` that became certain, which may be none yet.

    The pieces' texts, joined, are the text that `generate` gives: each holds whole characters, and nothing that may
    still become a stop string. The last has a `finish_reason`.
    """

    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason | None = None
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] | None = None
    entropies: tuple[float, ...] | None = None
    margins: tuple[float, ...] | None = None
    states: Tensor | None = field(default=None, compare=False, repr=False)


class Settings(TypedDict, total=False):
    """The keyword arguments of `generate`, `stream`, `chat` and `say`; their meaning is that of `Options`."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int | None
    stop: str | Sequence[str]
    beam: int
    n_best: int
    length_penalty: float
    logprobs: int | None
    prompt_logprobs: bool
    logit_bias: Mapping[int, float] | None
    functions: Sequence[LogitsFunction]
    json_schema: str | Mapping[str, Any] | None
    truncate: bool
    ignore_eos: bool
    batch_size: int | None
    uncertainty: bool
    states: bool
    contrast: Contrast | None


@dataclass(frozen=True)
class Options:
    """How texts are generated.

    `max_new_tokens`: the most tokens of a continuation; it ends at the model's last position at the latest.
    `temperature` to `functions`: see `Sampling`; temperature 0, the default, takes the most probable token always.
    `seed` makes draws reproducible: text number i of a call draws from a source of chance of its own, made of the seed
    and i, whatever the batches; without one, it comes from torch's own generator.
    `stop`: the text ends before one of these strings. `ignore_eos`: the model's end of text does not end it.
    `beam` > 1 searches for the most probable text with so many hypotheses, ranked as `beam_search` does, with
    `length_penalty`; `n_best` of them are given.
    `logprobs`: None for none, 0 for the tokens chosen, k for the k most probable ones at each place as well;
    `prompt_logprobs`: those of the prompt's tokens too.
    `uncertainty`: the entropy and the margin at each place of the text; `states`: the states that it was chosen from.
    `json_schema` (an object, or JSON text): the text is JSON that follows it, unless it is cut off.
    `truncate`: of a prompt longer than the model's positions, read only the end, leaving room for `max_new_tokens` (for
    half of the positions at most), with a warning; without it, that is an `InputError`.
    `contrast`: `ContextAware` contrasts with the prompts without their documents, `Dola` with earlier layers.
    `batch_size`: the most texts that run together; by default, as many as `BATCH_POSITIONS` allows.

    Raises `InputError` for values that cannot hold.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: str | Sequence[str] = ()
    beam: int = 1
    n_best: int = 1
    length_penalty: float = 1.0
    logprobs: int | None = 0
    prompt_logprobs: bool = False
    logit_bias: Mapping[int, float] | None = None
    functions: Sequence[LogitsFunction] = ()
    json_schema: str | Mapping[str, Any] | None = None
    truncate: bool = False
    ignore_eos: bool = False
    batch_size: int | None = None
    uncertainty: bool = False
    states: bool = False
    contrast: Contrast | None = None
    sampling: Sampling = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", stop_strings(self.stop))
        filters = (self.temperature, self.top_k, self.top_p, self.min_p, self.repetition_penalty)
        object.__setattr__(self, "sampling", Sampling(*filters, self.logit_bias or {}, tuple(self.functions)))
        for name, least in (("max_new_tokens", 0), ("beam", 1), ("n_best", 1), ("batch_size", 1), ("seed", 0)):
            value = getattr(self, name)
            optional = value is None and name in ("batch_size", "seed")
            if not optional and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise InputError(f"'{name}' must be a whole number from {least}, got {value!r}.")
        if self.n_best > self.beam:
            raise InputError(
                f"'n_best' must be from 1 to the beam ({self.beam}), got {self.n_best}: give a wider beam; for several "
                "samples give the prompt several times."
            )
        if self.beam > 1:
            self._check_beam()
        if not isinstance(self.contrast, ContextAware | Dola | None):
            raise InputError(f"'contrast' must be a ContextAware or a Dola, got {self.contrast!r}.")

    def _check_beam(self) -> None:
        same = self.sampling.plain and not self.stop and self.json_schema is None and self.contrast is None
        if not same or self.logprobs or self.prompt_logprobs or self.uncertainty or self.states:
            raise InputError(
                "a beam looks for the most probable text: it goes with temperature 0 only, and without stop strings, "
                "penalties, biases, functions, a JSON schema, a contrast, 'logprobs' above 0, 'prompt_logprobs', "
                "'uncertainty' and 'states'."
            )


def generate(model: Model, prompts: Sequence[Prompt], options: Options, context: bool = True) -> list[Generation]:
    """One continuation of each prompt, in order."""
    ids = prompt_ids(model, prompts, options)
    if not ids:
        return []
    if options.beam > 1:
        return _by_beam(model, ids, options, context)
    requests = make_requests(model, ids, options, context)
    rows = min(options.batch_size or default_rows(model, ids, options), len(ids))
    results = answer(model.engine(rows=rows, contrast=options.contrast), requests)
    return [_generation(prompt, result, options) for prompt, result in zip(ids, results, strict=True)]


def stream(model: Model, prompt: Prompt, options: Options, context: bool = True) -> Iterator[Piece]:
    """The continuation of one prompt, piece by piece; what is wrong with the request is raised at once."""
    if options.beam > 1:
        raise InputError("a beam knows its text at the end only: stream with beam=1, or use generate.")
    ids = prompt_ids(model, [prompt], options)
    engine = model.engine(rows=1, contrast=options.contrast)
    engine.add(make_requests(model, ids, options, context)[0])
    return pieces(engine, options)


def pieces(engine: Engine, options: Options) -> Iterator[Piece]:
    """What an engine with one request gives, as pieces."""
    while engine.busy:
        for event in engine.step():
            top = event.top_logprobs if options.logprobs else None
            entropies, margins = (event.entropies, event.margins) if options.uncertainty else (None, None)
            reason = event.finish_reason
            yield Piece(event.text, event.ids, event.logprobs, reason, top, entropies, margins, event.states)


def make_requests(model: Model, ids: list[list[int]], options: Options, context: bool = True) -> list[Request]:
    """A request for each prompt."""
    seed = int(torch.randint(2**62, ())) if options.seed is None else options.seed
    schema = None
    if options.json_schema is not None:
        schema = JsonSchema(options.json_schema, model.grammar_tokens, model.config.vocab_size)
    return [
        Request(
            tuple(prompt),
            options.max_new_tokens,
            options.sampling,
            tuple(options.stop),
            seed,
            row,
            options.logprobs,
            options.prompt_logprobs,
            options.ignore_eos,
            schema,
            context,
            options.uncertainty,
            options.states,
            options.contrast,
            without,
        )
        for row, (prompt, without) in enumerate(zip(ids, _without(model, len(ids), options), strict=True))
    ]


def _without(model: Model, count: int, options: Options) -> list[tuple[int, ...]]:
    """The ids of the prompts without their documents; empty ones where nothing is contrasted with them."""
    if not isinstance(options.contrast, ContextAware):
        return [()] * count
    given = options.contrast.without
    prompts = [given] if is_one(given) else given
    if len(prompts) != count:
        raise InputError(
            f"context-aware decoding: every prompt needs its own without the document, got {len(prompts)} for {count}."
        )
    return [tuple(ids) for ids in prompt_ids(model, prompts, options)]


def default_rows(model: Model, ids: list[list[int]], options: Options) -> int:
    """How many rows go together: their keys and values are most of what generating needs beside the weights."""
    positions = min(max(map(len, ids)) + options.max_new_tokens, model.config.max_length)
    return max(1, min(64, BATCH_POSITIONS // positions))


def prompt_ids(model: Model, prompts: Sequence[Prompt], options: Options) -> list[list[int]]:
    """The ids that the model reads; an empty prompt is what the model's texts begin with."""
    positions = model.running.config.max_length
    found = text_ids(model, prompts)
    return [_fitting(ids or [first_id(model)], number, positions, options) for number, ids in enumerate(found, 1)]


def first_id(model: Model) -> int:
    """What a text begins with where there is no prompt."""
    tokenizer = model.tokenizer
    if tokenizer.bos_id is not None:
        return tokenizer.bos_id
    if tokenizer.eos_id is not None and tokenizer.tokens([tokenizer.eos_id]) == ["<|endoftext|>"]:
        return tokenizer.eos_id  # GPT-2 and its heirs: it stands between texts
    raise InputError("the prompt is empty, and this model has no token that begins a text: give at least one token.")


def _fitting(ids: list[int], number: int, positions: int, options: Options) -> list[int]:
    if len(ids) <= positions:
        return ids
    has = f"prompt {number} has {len(ids)} tokens, the model reads at most {positions}"
    if not options.truncate:
        raise InputError(f"{has}: shorten it, or keep only its end with truncate=True.")
    kept = positions - min(options.max_new_tokens, positions // 2)
    warnings.warn(f"{has}: only the last {kept} are read.", stacklevel=5)
    return ids[-kept:]


def _generation(prompt: list[int], result: Result, options: Options) -> Generation:
    return Generation(
        result.text,
        result.ids,
        result.logprobs,
        result.finish_reason,
        sum(result.logprobs),
        prompt_ids=tuple(prompt),
        prompt_logprobs=result.prompt_logprobs,
        top_logprobs=result.top_logprobs if options.logprobs else None,
        entropies=result.entropies if options.uncertainty else None,
        margins=result.margins if options.uncertainty else None,
        states=result.states,
    )


def _by_beam(model: Model, ids: list[list[int]], options: Options, context: bool) -> list[Generation]:
    rows = options.batch_size or max(1, default_rows(model, ids, options) // options.beam)
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    found: dict[int, list[Hypothesis]] = {}
    for start in range(0, len(order), rows):
        part = order[start : start + rows]
        hypotheses = continue_by_beam(
            model.running,
            [ids[i] for i in part],
            max_new_tokens=options.max_new_tokens,
            eos_ids=() if options.ignore_eos else model.ends,
            beam=options.beam,
            n_best=options.n_best,
            length_penalty=options.length_penalty,
            device=model.device,
        )
        found.update(zip(part, hypotheses, strict=True))
    return [_best(model, prompt, found[i], context) for i, prompt in enumerate(ids)]


def _best(model: Model, prompt: list[int], hypotheses: list[Hypothesis], context: bool) -> Generation:
    best, *others = (
        Generation(
            _text(model, prompt if context else (), one.ids[:-1] if one.finished else one.ids),
            one.ids,
            one.logprobs,
            "stop" if one.finished else "length",
            one.score,
            prompt_ids=tuple(prompt),
        )
        for one in hypotheses
    )
    return replace(best, alternatives=tuple(others))


def _text(model: Model, prompt: Sequence[int], ids: Sequence[int]) -> str:
    reader = Reader(model.tokenizer, context=prompt)
    return "".join([*map(reader.push, ids), reader.finish()])
