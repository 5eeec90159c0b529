"""The service against single streams: whoever joins, leaves, is late or fails, everyone gets what they would alone."""

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from generation.small_decoders import END, byte_level, decoder
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.generation.constraints import JsonSchema
from glassformer.generation.engine import generate
from glassformer.generation.requests import Event, Request, Result, joined
from glassformer.generation.sampling import Sampling
from glassformer.models.config import Banded
from glassformer.serving import batching as batching_module
from glassformer.serving.batching import Batching, Closed, Full
from glassformer.serving.streams import Stream
from glassformer.tasks.model import Model
from glassformer.text.pipeline import TextPipeline

POSITIONS = 600
MODELS = ["learned", "rotary", "banded"]
KINDS = [Sampling(), Sampling(0.9, top_k=20), Sampling(repetition_penalty=1.4)]


@cache
def model(kind: str = "learned") -> Model:
    changes: dict[str, Any] = {"attention": Banded(width=8)} if kind == "banded" else {}
    network = decoder(kind == "rotary", max_length=POSITIONS, **changes)
    return Model(network, byte_level(), TextPipeline(), "generate", eos_ids=(END,))


def prompt(seed: int, length: int) -> tuple[int, ...]:
    return tuple(random.Random(seed).choices(range(1, 300), k=length))


def request(seed: int, length: int = 12, new: int = 10, **more: Any) -> Request:
    more = {"sampling": KINDS[seed % len(KINDS)], "seed": seed, "ignore_eos": True, **more}
    return Request(prompt(seed, length), new, **more)


@cache
def alone(asked: Request, kind: str = "learned") -> Result:
    """What an engine gives that never had another request."""
    return generate(model(kind).engine(rows=1), [asked])[0]


@contextmanager
def service(kind: str = "learned", **more: Any) -> Iterator[Batching]:
    batching = Batching(model(kind), **more)
    try:
        yield batching
    finally:
        batching.close(0)


def whole(stream: Stream) -> Result:
    return joined(list(stream.events()))


def same(found: Result, wanted: Result) -> None:
    assert (found.ids, found.text, found.finish_reason) == (wanted.ids, wanted.text, wanted.finish_reason)
    assert found.logprobs == pytest.approx(wanted.logprobs, abs=1e-4)


class Gate:
    """A logits function that holds the engine in its steps until it is opened, and counts how often it got there."""

    def __init__(self, free: int = 0) -> None:
        self.reached, self.opened, self.free = threading.Semaphore(0), threading.Event(), free

    def __call__(self, ids: Any, logits: torch.Tensor) -> torch.Tensor:
        self.reached.release()
        if self.free:
            self.free -= 1
        else:
            assert self.opened.wait(30)
        return logits


def held(gate: Gate, new: int = 4, seed: int = 99) -> Request:
    """A request whose step waits for the gate."""
    return request(seed, new=new, sampling=Sampling(functions=(gate,)))


# What is answered.


shapes = st.lists(
    st.tuples(st.integers(0, 9), st.integers(1, 100), st.integers(0, 12), st.sampled_from(["whole", "cancel", "drop"])),
    min_size=1,
    max_size=14,
)


@settings(deadline=None, derandomize=True, max_examples=10)
@given(
    shapes=shapes,
    streams=st.integers(1, 5),
    kind=st.sampled_from(MODELS),
    shared=st.booleans(),
)
def test_whoever_joins_and_leaves_everyone_gets_what_they_would_alone(
    shapes: list[tuple[int, int, int, str]], streams: int, kind: str, shared: bool
) -> None:
    begin = prompt(1000, 48) if shared else ()
    with service(kind, streams=streams) as batching, ThreadPoolExecutor(6) as pool:

        def ask(shape: tuple[int, int, int, str]) -> None:
            seed, length, new, way = shape
            asked = request(seed, length, new)
            asked = Request((*begin, *asked.ids), new, asked.sampling, seed=seed, ignore_eos=True)
            stream, events = batching.submit(asked), []
            for event in stream.events():
                events.append(event)
                if way != "whole" and len(events) == 3:
                    if way == "cancel":
                        stream.cancel()
                    break
            if way == "whole":
                same(joined(events), alone(asked, kind))
            else:
                got = tuple(id for event in events for id in event.ids)
                assert got == alone(asked, kind).ids[: len(got)]

        list(pool.map(ask, shapes))
    assert sum(batching.figures.outcomes.values()) == len(shapes)
    assert batching.figures.running == batching.figures.waiting == batching.figures.failures == 0


def test_coroutines_and_threads_are_served_side_by_side() -> None:
    asked = [request(seed, new=9) for seed in range(8)]

    async def one(batching: Batching, own: Request) -> Result:
        return joined([event async for event in batching.submit(own)])

    async def several(batching: Batching) -> list[Result]:
        return await asyncio.gather(*(one(batching, own) for own in asked))

    with service(streams=3) as batching, ThreadPoolExecutor(4) as pool:
        loops = [pool.submit(lambda: asyncio.run(several(batching))) for _ in range(2)]
        threads = [pool.submit(lambda own=own: whole(batching.submit(own))) for own in asked]
        for loop in loops:
            for found, own in zip(loop.result(), asked, strict=True):
                same(found, alone(own))
        for thread, own in zip(threads, asked, strict=True):
            same(thread.result(), alone(own))


def test_a_loop_is_called_once_a_step_for_all_of_its_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    new, count = 20, 6

    async def several(batching: Batching) -> int:
        loop, calls = asyncio.get_running_loop(), []
        before = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *given: (calls.append(1), before(*given))[1])
        gate = Gate(free=1)
        first = batching.submit(held(gate, new))
        await anext(first)
        rest = [batching.submit(request(seed, new=new)) for seed in range(count)]
        gate.opened.set()
        await asyncio.gather(*(_listened(stream) for stream in (first, *rest)))
        return len(calls)

    with service(streams=count + 1, prefix_bytes=0) as batching:
        calls = asyncio.run(several(batching))
        tokens = batching.figures.generated_tokens
    assert tokens == new * (count + 1)
    assert calls <= 2 * new < tokens / 2


@pytest.mark.parametrize(("together", "least", "most"), [(3600.0, 1, 3), (0.0, 29, 60)])
def test_fast_tokens_are_handed_over_together(
    monkeypatch: pytest.MonkeyPatch, together: float, least: int, most: int
) -> None:
    """One stream after its first token, then a whole one: a call for a first token and for each end, or for all."""
    monkeypatch.setattr(batching_module, "TOGETHER", together)
    calls: list[int] = []

    async def two(batching: Batching) -> list[list[Event]]:
        loop = asyncio.get_running_loop()
        before = loop.call_soon_threadsafe
        gate = Gate(free=1)
        first = batching.submit(held(gate, 30))
        begun = await anext(first)
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *given: (calls.append(1), before(*given))[1])
        gate.opened.set()
        rest = await _listened(first)
        return [[begun, *rest], await _listened(batching.submit(request(1, new=30)))]

    with service(streams=2, prefix_bytes=0) as batching:
        found = asyncio.run(two(batching))
    same(joined(found[1]), alone(request(1, new=30)))
    assert len(joined(found[0]).ids) == 30
    assert least <= len(calls) <= most


async def _listened(stream: Stream) -> list[Event]:
    return [event async for event in stream]


def test_what_a_request_asks_for_comes_through() -> None:
    schema = JsonSchema({"type": "object", "properties": {"a": {"type": "integer"}}}, model().grammar_tokens, 300)
    asked = [
        request(1, logprobs=3, prompt_logprobs=True),
        request(2, stop=("a", "e", "i", "o")),
        request(3, schema=schema, ignore_eos=False, new=30),
        request(4, new=0, prompt_logprobs=True),
        request(5, uncertainty=True),
    ]
    with service() as batching:
        streams = [batching.submit(one) for one in asked]
        for stream, one in zip(streams, asked, strict=True):
            found, wanted = whole(stream), alone(one)
            same(found, wanted)
            assert (found.prompt_logprobs is None) == (wanted.prompt_logprobs is None)
            if wanted.prompt_logprobs:
                assert found.prompt_logprobs[1:] == pytest.approx(wanted.prompt_logprobs[1:], abs=1e-4)
            assert len(found.top_logprobs) == len(wanted.top_logprobs)


def test_a_request_that_cannot_be_answered_is_refused_at_once() -> None:
    with service() as batching:
        for wrong in (Request(()), Request((1, 300)), Request((1,) * (POSITIONS + 1)), Request((1,), -1)):
            with pytest.raises(InputError):
                batching.submit(wrong)
        same(whole(batching.submit(request(1))), alone(request(1)))


# What was read before.


@pytest.mark.parametrize("kind", ["learned", "rotary"])
def test_what_a_prompt_begins_with_is_read_once(kind: str) -> None:
    begin = prompt(7, 60)
    asked = [Request((*begin, *prompt(seed, 9)), 8, ignore_eos=True) for seed in range(4)]
    with service(kind) as batching:
        reused = []
        for one in asked:
            stream = batching.submit(one)
            same(whole(stream), alone(one, kind))
            reused.append(stream.reused)
        figures = batching.figures
    assert reused == [0, 60, 60, 60]
    assert (figures.reused_tokens, figures.reused_requests, figures.prompt_tokens) == (180, 3, 4 * 69)
    assert figures.prefix_bytes > 0


def test_a_conversation_goes_on_from_all_that_was_said() -> None:
    with service() as batching:
        first = request(3, 40, 10, sampling=Sampling())
        answer = whole(batching.submit(first))
        second = Request((*first.ids, *answer.ids, *prompt(5, 6)), 8, ignore_eos=True)
        stream = batching.submit(second)
        same(whole(stream), alone(second))
        assert stream.reused == 40 + 10 - 1  # the last token was told, but never read


def test_requests_that_come_together_read_a_shared_beginning_once() -> None:
    begin = prompt(7, 90)
    asked = [Request((*begin, *prompt(seed, 5)), 6, ignore_eos=True) for seed in range(6)]
    with service(streams=8) as batching:
        gate = Gate()
        first = batching.submit(held(gate))
        assert gate.reached.acquire(timeout=30)
        streams = [batching.submit(one) for one in asked]  # all are there before the next step
        gate.opened.set()
        for stream, one in zip(streams, asked, strict=True):
            same(whole(stream), alone(one))
        whole(first)
        assert sorted(stream.reused for stream in streams) == [0, 90, 90, 90, 90, 90]


def test_a_banded_layer_is_not_asked_to_go_back_where_it_cannot() -> None:
    begin = prompt(7, 60)
    first = Request((*begin, *prompt(1, 9)), 8, ignore_eos=True)
    parted = Request((*begin, *prompt(2, 9)), 8, ignore_eos=True)
    with service("banded") as batching:
        answer = whole(batching.submit(first))
        same(answer, alone(first, "banded"))
        stream = batching.submit(parted)
        same(whole(stream), alone(parted, "banded"))
        assert stream.reused == 0
        longer = Request((*first.ids, *answer.ids, 5, 6), 8, ignore_eos=True)
        stream = batching.submit(longer)
        same(whole(stream), alone(longer, "banded"))
        assert stream.reused == 69 + 7


def test_without_room_nothing_is_kept() -> None:
    asked = request(3, 60)
    with service(prefix_bytes=0) as batching:
        for _ in range(2):
            stream = batching.submit(asked)
            same(whole(stream), alone(asked))
            assert stream.reused == 0
        assert batching.figures.prefix_bytes == 0


# Room and time.


def test_a_full_queue_says_when_to_come_back() -> None:
    gate = Gate()
    with service(streams=1, queue=2) as batching:
        first = batching.submit(held(gate))
        assert gate.reached.acquire(timeout=30)
        waiting = [batching.submit(request(seed)) for seed in range(2)]
        assert (batching.figures.running, batching.figures.waiting) == (1, 2)
        with pytest.raises(Full) as caught:
            batching.submit(request(5))
        assert 1 <= caught.value.retry_after <= 60
        gate.opened.set()
        for stream in (first, *waiting):
            whole(stream)
        same(whole(batching.submit(request(5))), alone(request(5)))
        assert batching.figures.refused == 1


@pytest.mark.parametrize("leave", [Stream.cancel, None], ids=["cancelled", "dropped"])
def test_who_leaves_frees_the_place_of_others(leave: Callable[[Stream], None] | None) -> None:
    gate = Gate(free=1)
    with service(streams=1, queue=1) as batching:
        endless = [batching.submit(held(gate, new=100))]
        next(endless[0].events())
        waiting = batching.submit(request(1))
        if leave:
            leave(endless[0])
            leave(endless[0])
        else:
            del endless[0]
        gate.opened.set()
        same(whole(waiting), alone(request(1)))
        assert batching.figures.outcomes == {"cancelled": 1, "length": 1}


def test_who_leaves_while_waiting_is_never_answered() -> None:
    gate = Gate()
    with service(streams=1) as batching:
        first = batching.submit(held(gate))
        assert gate.reached.acquire(timeout=30)
        waiting = batching.submit(request(1))
        waiting.cancel()
        gate.opened.set()
        whole(first)
        assert list(waiting.events()) == []
        assert batching.figures.generated_tokens == 4


def test_an_answer_ends_at_its_deadline_with_what_it_has() -> None:
    gate = Gate(free=2)
    with service(streams=1) as batching:
        late = batching.submit(held(gate, new=100), deadline=0.05)
        behind = batching.submit(request(1), deadline=0.05)
        threading.Timer(0.1, gate.opened.set).start()
        found = whole(late)
        assert found.finish_reason == "deadline"
        assert 0 < len(found.ids) < 100
        assert whole(behind).finish_reason == "deadline"
        same(whole(batching.submit(request(2), deadline=60)), alone(request(2)))


def test_closing_lets_answers_end() -> None:
    with service(streams=2) as batching:
        streams = [batching.submit(request(seed)) for seed in range(5)]
        batching.close()
        for seed, stream in enumerate(streams):
            same(whole(stream), alone(request(seed)))
        with pytest.raises(Closed):
            batching.submit(request(1))
        assert not batching.figures.alive


def test_closing_in_a_hurry_ends_them() -> None:
    gate = Gate(free=1)
    with service(streams=1) as batching:
        running, waiting = batching.submit(held(gate, new=100)), batching.submit(request(1))
        next(running.events())
        closing = threading.Thread(target=batching.close, args=(0,))
        closing.start()
        gate.opened.set()
        closing.join(30)
        assert [event.finish_reason for event in running.events()][-1] == "shutdown"
        assert [event.finish_reason for event in waiting.events()] == ["shutdown"]
        assert batching.figures.outcomes == {"shutdown": 2}


# What goes wrong.


class Broken(RuntimeError):
    pass


def _breaks(after: int) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    """A logits function that fails at the token after so many."""

    def function(ids: Any, logits: torch.Tensor) -> torch.Tensor:
        if len(ids) >= 12 + after:
            raise Broken("this row only")
        return logits

    return function


@pytest.mark.parametrize("after", [0, 3])
def test_what_goes_wrong_with_one_does_not_reach_others(after: int) -> None:
    wrong = request(8, sampling=Sampling(functions=(_breaks(after),)))
    with service(streams=6) as batching:
        others = [batching.submit(request(seed)) for seed in range(4)]
        bad = batching.submit(wrong)
        others += [batching.submit(request(seed)) for seed in range(4, 6)]
        got: list[int] = []
        with pytest.raises(Broken):
            for event in bad.events():
                got += event.ids
        assert tuple(got) == alone(request(8, new=after, sampling=Sampling())).ids
        for seed, stream in enumerate(others):
            same(whole(stream), alone(request(seed)))
        assert batching.figures.outcomes["error"] == 1
        assert batching.figures.alive


class Failing:
    """A network that fails at some of its steps, or at every one that has a token in it."""

    def __init__(self, network: Any, steps: frozenset[int] = frozenset(), token: int = -1) -> None:
        self.network, self.steps, self.token, self.taken = network, steps, token, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def step(self, ids: torch.Tensor, lengths: Any, state: Any) -> torch.Tensor:
        self.taken += 1
        logits = self.network.step(ids, lengths, state)
        if self.taken in self.steps or (ids == self.token).any():
            raise Broken("the network")
        return logits


@settings(deadline=None, derandomize=True, max_examples=6)
@given(steps=st.frozensets(st.integers(1, 10), min_size=1, max_size=5))
def test_a_step_that_fails_is_taken_again_from_the_ids(steps: frozenset[int]) -> None:
    asked = [request(seed, length=10 + 7 * seed) for seed in range(4)]
    with service(streams=4) as batching:
        failing = Failing(batching.model.running, steps)
        batching._engine.network = failing  # before it has been asked anything
        streams = [batching.submit(one) for one in asked]
        errors = 0
        for stream, one in zip(streams, asked, strict=True):
            try:
                same(whole(stream), alone(one))
            except Broken:  # while it was read alone
                errors += 1
        failures = len([step for step in steps if step <= failing.taken])
        assert errors <= failures == batching.figures.failures
        same(whole(batching.submit(request(9))), alone(request(9)))


def test_a_prompt_that_breaks_the_network_fails_alone() -> None:
    asked = [request(seed, sampling=Sampling(logit_bias={299: -1e9})) for seed in range(4)]
    asked = [one for one in asked if 299 not in one.ids]
    with service(streams=6) as batching:
        batching._engine.network = Failing(batching.model.running, token=299)
        streams = [batching.submit(one) for one in asked]
        bad = batching.submit(Request((*prompt(1, 11), 299), 5))
        with pytest.raises(Broken):
            whole(bad)
        for stream, one in zip(streams, asked, strict=True):
            same(whole(stream), alone(one))


def test_what_the_engine_does_not_catch_fails_all_that_runs_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    with service(streams=1) as batching:
        running, waiting = batching.submit(held(gate)), batching.submit(request(1))
        assert gate.reached.acquire(timeout=30)

        def broken() -> list[Event]:
            raise Broken("the engine")

        monkeypatch.setattr(batching._engine, "step", broken)
        gate.opened.set()
        with pytest.raises(Broken):
            whole(running)
        same(whole(waiting), alone(request(1)))
        assert batching.figures.alive
        assert batching.figures.failures == 1


# A long prompt.


def test_others_get_tokens_while_a_long_prompt_is_read() -> None:
    with service(streams=3) as batching:
        gate = Gate(free=1)
        running = batching.submit(held(gate, new=60))
        next(running.events())
        batching._engine._pace._speed = 0  # as on a slow machine: the least, 128 ids a step
        batching._engine._pace.saw = lambda ids, seconds: None
        long = batching.submit(request(5, 512, new=4))
        gate.opened.set()
        before = 0
        for event in running.events():
            before += len(event.ids)
            if long._answer.told.qsize():
                break
        assert before >= 4 - 1
        same(whole(long), alone(request(5, 512, new=4)))
