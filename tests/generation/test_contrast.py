"""Contrasting decoding against both papers' formulas, computed anew from whole passes for every token."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from generation.small_decoders import END, Row, byte_level, decoder
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from glassformer.errors import InputError
from glassformer.generation.compiled import Accelerated
from glassformer.generation.contrast import ContextAware, Contrast, Dola, contrasted, divergence
from glassformer.generation.engine import Engine, generate
from glassformer.generation.requests import Request
from glassformer.generation.sampling import Sampling, choose, generator_of
from glassformer.models.decoder import Decoder
from glassformer.tasks.generate import Options
from glassformer.tasks.model import Model
from glassformer.text.pipeline import TextPipeline

KINDS = [Sampling(), Sampling(0.9), Sampling(1.0, top_k=20, top_p=0.9), Sampling(repetition_penalty=1.3)]
LAYERS = 6


@cache
def network(rotary: bool = False) -> Decoder:
    """Six layers, whose early exits differ."""
    torch.manual_seed(2)
    made = Decoder(replace(decoder(rotary).config, n_decoder_layers=LAYERS))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(1.5)
        made.head.weight.normal_(std=0.6)
    return made.eval()


def ids_of(length: int, number: int) -> tuple[int, ...]:
    return tuple(torch.randint(1, 300, (length,), generator=generator_of(length, number)).tolist())


def asked(number: int, length: int, bare: int, contrast: Contrast, kind: int = 0, new: int = 8) -> Request:
    """A request; its prompt without the document is its end, behind another beginning."""
    ids = ids_of(length, number)
    without = (*ids_of(bare, number + 100)[1:], ids[-1]) if isinstance(contrast, ContextAware) else ()
    return Request(ids, new, KINDS[kind], seed=7, row=number, contrast=contrast, without=without)


# --- The formulas, by whole passes ------------------------------------------------------------------------------------


def last_logits(made: Decoder, ids: Sequence[int]) -> Tensor:
    logits: Tensor = made(torch.tensor([list(ids)])).logits
    return logits[0, -1]


def context_aware(made: Decoder, request: Request, alpha: float) -> Callable[[Sequence[int]], Tensor]:
    def logits(new: Sequence[int]) -> Tensor:
        given, without = last_logits(made, [*request.ids, *new]), last_logits(made, [*request.without, *new])
        return (1 + alpha) * given - alpha * without

    return logits


def early_exits(made: Decoder, ids: Sequence[int]) -> list[Tensor]:
    """q_0 … q_N of the last position: what the head says of the state after so many blocks."""
    x = made.stack.embedding(torch.tensor([list(ids)]))
    cos, sin = made.stack.cos, made.stack.sin
    rotation = None if cos is None or sin is None else (cos[: len(ids)], sin[: len(ids)])
    found = [x]
    for block in made.stack.blocks:
        found.append(block(found[-1], causal=True, rotation=rotation))
    norm = made.stack.final_norm
    assert norm is not None
    return [made.head(norm(each))[0, -1].double().softmax(-1) for each in found]


def dola(made: Decoder, request: Request, layers: Sequence[int], alpha: float) -> Callable[[Sequence[int]], Tensor]:
    def logits(new: Sequence[int]) -> Tensor:
        exits = early_exits(made, [*request.ids, *new])
        final = exits[-1]

        def distance(layer: int) -> float:
            middle = (final + exits[layer]) / 2
            return sum(float((p * (p / middle).log()).sum()) for p in (final, exits[layer])) / 2

        chosen = exits[max(layers, key=distance)]
        return torch.where(final >= alpha * final.max(), (final / chosen).log(), torch.tensor(-math.inf)).float()

    return logits


@torch.no_grad()
def recomputed(request: Request, logits: Callable[[Sequence[int]], Tensor]) -> tuple[list[int], list[float]]:
    row = Row(request.sampling, list(request.ids), generator_of(request.seed, request.row))
    new: list[int] = []
    logprobs: list[float] = []
    while len(new) < request.max_new_tokens and new[-1:] != [END]:
        given = logits(new)
        token = int(choose(given[None], [row]))
        row.ids = [*row.ids, token]
        new.append(token)
        logprobs.append(float(given.log_softmax(-1)[token]))
    return new, logprobs


def answers(contrast: Contrast, requests: Sequence[Request], **how: Any) -> list[tuple[int, ...]]:
    engine = Engine(network(), byte_level(), eos_ids=[END], contrast=contrast, **how)
    return [result.ids for result in generate(engine, requests)]


shapes = st.lists(
    st.tuples(st.integers(4, 24), st.integers(1, 4), st.integers(0, len(KINDS) - 1), st.sampled_from([0, 1, 3, 9])),
    min_size=1,
    max_size=5,
)


@settings(deadline=None, derandomize=True, max_examples=10)
@given(shapes, st.sampled_from([0.0, 0.5, 2.0]), st.integers(1, 5), st.sampled_from([1, 3, 512]), st.booleans())
def test_context_aware(
    shapes: list[tuple[int, int, int, int]], alpha: float, rows: int, chunk: int, rotary: bool
) -> None:
    contrast = ContextAware(None, alpha)
    requests = [asked(i, long, short, contrast, kind, new) for i, (long, short, kind, new) in enumerate(shapes)]
    engine = Engine(network(rotary), byte_level(), eos_ids=[END], rows=rows, chunk=chunk, contrast=contrast)
    for request, result in zip(requests, generate(engine, requests), strict=True):
        ids, logprobs = recomputed(request, context_aware(network(rotary), request, alpha))
        assert list(result.ids) == ids
        assert result.logprobs == pytest.approx(logprobs, abs=1e-3)


@settings(deadline=None, derandomize=True, max_examples=10)
@given(shapes, st.sampled_from([(0, 2, 4), (1,), (3, 5), "low", "high"]), st.integers(1, 5), st.booleans())
def test_dola(shapes: list[tuple[int, int, int, int]], layers: tuple[int, ...], rows: int, rotary: bool) -> None:
    contrast = Dola(layers, 0.1)
    numbers = {"low": (0, 2), "high": (3, 5)}.get(layers, layers)  # type: ignore[call-overload]
    requests = [asked(i, long, 1, contrast, kind, new) for i, (long, _, kind, new) in enumerate(shapes)]
    engine = Engine(network(rotary), byte_level(), eos_ids=[END], rows=rows, chunk=7, contrast=contrast)
    for request, result in zip(requests, generate(engine, requests), strict=True):
        ids, logprobs = recomputed(request, dola(network(rotary), request, numbers, 0.1))
        assert list(result.ids) == ids
        assert result.logprobs == pytest.approx(logprobs, abs=1e-3)


@pytest.mark.parametrize("contrast", [ContextAware(None, 0.0), Dola("high", 1.0)])
def test_strengths_that_are_plain_generation(contrast: Contrast) -> None:
    requests = [asked(i, 6 + i, 3, contrast) for i in range(4)]
    engine = Engine(network(), byte_level(), eos_ids=[END])
    plain = generate(engine, [replace(one, contrast=None, without=()) for one in requests])
    assert answers(contrast, requests) == [one.ids for one in plain]


@pytest.mark.parametrize("contrast", [ContextAware(None, 1.5), Dola((0, 2, 4))])
def test_contrasts_change_texts_and_neighbours_do_not(contrast: Contrast) -> None:
    requests = [asked(i, 5 + 3 * i, 2 + i, contrast, i % 4) for i in range(6)]
    together = answers(contrast, requests, rows=6)
    assert together == [answers(contrast, [one])[0] for one in requests] == answers(contrast, requests, rows=2)
    engine = Engine(network(), byte_level(), eos_ids=[END])
    plain = generate(engine, [replace(one, contrast=None, without=()) for one in requests])
    assert sum(ids != one.ids for ids, one in zip(together, plain, strict=True)) >= 3


def test_divergence_by_hand() -> None:
    one, other = torch.tensor([0.5, 0.5, 1e-30]), torch.tensor([1e-30, 0.5, 0.5])
    # half of each lies where the other is not: JSD = ½ log 2 (twice ½ · ½ log 2)
    assert float(divergence(one.log(), other.log())) == pytest.approx(math.log(2) / 2, abs=1e-6)
    assert float(divergence(one.log(), one.log())) == pytest.approx(0, abs=1e-6)


def test_candidates() -> None:
    assert Dola("low").candidates(30, tied=True) == (2, 4, 6, 8, 10, 12, 14)
    assert Dola("low").candidates(8, tied=False) == (0, 2)
    assert Dola("high").candidates(30, tied=True) == (15, 17, 19, 21, 23, 25, 27, 29)
    assert Dola([4, 1]).candidates(5, tied=True) == (1, 4)
    for wrong, message in ((Dola([5]), r"lie in \[0, 4\]; 5"), (Dola("low"), "no 'low' layers")):
        with pytest.raises(InputError, match=message):
            wrong.candidates(5 if wrong.layers == (5,) else 2, tied=True)


def wrong_settings() -> list[tuple[Callable[[], object], str]]:
    return [
        (lambda: ContextAware("x", -0.1), "'alpha' must be a number from 0"),
        (lambda: ContextAware("x", math.inf), "'alpha'"),
        (lambda: Dola("high", 1.1), r"'alpha' must be from 0"),
        (lambda: Dola("hihg"), "Did you mean 'high'|did you mean"),  # type: ignore[arg-type]
        (lambda: Dola(()), "at least one"),
        (lambda: Dola((1, 1)), "different whole numbers"),
        (lambda: Dola((-1,)), "whole numbers from 0"),
        (lambda: Options(contrast="dola"), "must be a ContextAware or a Dola"),  # type: ignore[arg-type]
        (lambda: Options(contrast=Dola(), beam=2), "a contrast"),
        (lambda: contrasted(object(), Dola()), "layers of a decoder; a object is none"),  # type: ignore[arg-type]
        (lambda: Engine(network(), contrast=Dola((6,))), r"lie in \[0, 5\]; 6"),
    ]


@pytest.mark.parametrize(("make", "message"), wrong_settings())
def test_settings_that_cannot_hold(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


ALWAYS = ContextAware(None, 0.5)


@pytest.mark.parametrize(
    ("engine", "request_", "message"),
    [
        (None, Request((5, 6), contrast=Dola()), "one engine has one"),
        (Dola(), Request((5, 6)), "one engine has one"),
        (Dola(), Request((5, 6), contrast=Dola("low")), "one engine has one"),
        (Dola(), Request((5, 6), contrast=Dola(), prompt_logprobs=True), "no 'prompt_logprobs'"),
        (ALWAYS, Request((5, 6), contrast=ALWAYS, without=(6,), states=True), "no 'states'"),
        (ALWAYS, Request((5, 6), contrast=ALWAYS), "needs the prompt without its document"),
        (ALWAYS, Request((5, 6), contrast=ALWAYS, without=(5,)), "same token"),
        (ALWAYS, Request((5, 6), contrast=ALWAYS, without=(4, 5, 6)), "must be the longer one"),
        (ALWAYS, Request((5, 6), contrast=ALWAYS, without=(300, 6)), "ids must lie in"),
    ],
)
def test_requests_that_cannot_hold(engine: Contrast | None, request_: Request, message: str) -> None:
    server = Engine(network(), byte_level(), contrast=engine)
    with pytest.raises(InputError, match=message):
        server.add(request_)
    assert not server.busy


def test_through_the_model_and_its_stream() -> None:
    model = Model(network(), byte_level(), TextPipeline(), "language-model")
    prompts, bare = ["blue shirt: a man in", "the road: two women"], [" in", " women"]
    contrast = ContextAware(bare, 1.0)
    found = model.generate(prompts, contrast=contrast, max_new_tokens=6)
    pairs = [
        (model.tokenizer.encode(text), model.tokenizer.encode(other)) for text, other in zip(prompts, bare, strict=True)
    ]
    for one, (ids, without) in zip(found, pairs, strict=True):
        request = Request(tuple(ids), 6, without=tuple(without))
        assert list(one.ids) == recomputed(request, context_aware(network(), request, 1.0))[0]
    pieces = list(model.stream(prompts[0], contrast=ContextAware(bare[0], 1.0), max_new_tokens=6))
    assert "".join(piece.text for piece in pieces) == found[0].text
    with pytest.raises(InputError, match="got 1 for 2"):
        model.generate(prompts, contrast=ContextAware(bare[0], 1.0))
    assert model.generate(prompts[0], contrast=Dola((1, 3)), max_new_tokens=3).ids


def test_compiled_networks_serve_both() -> None:
    """An accelerated network keeps its own steps for two prompts, and gives its decoder to DoLa."""
    fast = Accelerated(network(rotary=True))
    assert contrasted(fast, None) is fast
    assert contrasted(fast, ContextAware(None, 1.0)).network is fast  # type: ignore[attr-defined]
    assert contrasted(fast, Dola()).network is fast.network  # type: ignore[attr-defined]
