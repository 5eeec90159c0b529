"""The service in trouble: who leaves or is late at a bad time, what breaks where nothing should, and what is kept."""

from __future__ import annotations

import gc
import random
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from serving.test_batching import (
    MODELS,
    POSITIONS,
    Broken,
    Gate,
    alone,
    held,
    model,
    prompt,
    request,
    same,
    service,
    whole,
)
from torch.utils._python_dispatch import TorchDispatchMode

from glassformer.generation.constraints import JsonSchema
from glassformer.generation.requests import Request
from glassformer.generation.sampling import Sampling
from glassformer.serving.batching import Batching
from glassformer.serving.prefixes import LEAST, MOST_TEXTS, Prefixes, as_ids
from glassformer.serving.streams import Stream


def slowly(batching: Batching) -> None:
    """Prompts are read as on a slow machine, while others run: the least, 128 ids a step."""
    batching._engine._pace._speed = 0
    batching._engine._pace.saw = lambda ids, seconds: None


class Turns:
    """A logits function that waits until it is let on, step by step."""

    def __init__(self) -> None:
        self.reached, self.allowed = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, ids: Any, logits: torch.Tensor) -> torch.Tensor:
        self.reached.release()
        assert self.allowed.acquire(timeout=30)
        return logits

    def one(self) -> None:
        """Let the step on that has got here, and wait for the next."""
        self.allowed.release()
        assert self.reached.acquire(timeout=30)


def reading(batching: Batching, turns: Turns) -> tuple[Stream, Stream]:
    """One that runs and waits for its turn, and one of whose long prompt a quarter has been read."""
    running = batching.submit(request(99, new=20, sampling=Sampling(functions=(turns,))))
    assert turns.reached.acquire(timeout=30)
    slowly(batching)
    long = batching.submit(request(5, 512, new=4))
    turns.one()  # it is let in
    turns.one()  # and its first 128 ids are read
    [group] = batching._engine._joining
    assert group.rows[0].read == 128 and not long._answer.spoke
    return running, long


# --- Who leaves, and who is late --------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["cancel", "deadline", "close"])
def test_whose_prompt_is_being_read_may_go(way: str) -> None:
    turns = Turns()
    with service(streams=3) as batching:
        running, long = reading(batching, turns)
        if way == "cancel":
            long.cancel()
        elif way == "deadline":
            long._answer.late = 0.0
        closing = threading.Thread(target=batching.close, args=(0.0,)) if way == "close" else None
        if closing:
            closing.start()
            while batching._closing is None:
                threading.Event().wait(0.001)
        turns.allowed.release(100)
        wanted = {"cancel": [], "deadline": ["deadline"], "close": ["shutdown"]}[way]
        assert [event.finish_reason for event in long.events()] == wanted
        if closing:
            assert [event.finish_reason for event in running.events()][-1] == "shutdown"
            closing.join(30)
            assert not batching.figures.alive
            return
        same(whole(running), alone(request(99, new=20, sampling=Sampling())))
        assert not batching._engine._joining and batching.figures.running == 0
        same(whole(batching.submit(request(5, 512, new=4))), alone(request(5, 512, new=4)))


def test_late_while_waiting_for_the_beginning_that_another_reads() -> None:
    turns = Turns()
    with service(streams=4) as batching:
        running, long = reading(batching, turns)
        alike = batching.submit(Request(long.request.ids[:400], 4, ignore_eos=True))
        turns.one()
        assert list(batching._waiting) == [alike._answer]  # though there are places
        alike._answer.late = 0.0
        turns.allowed.release(100)
        assert [event.finish_reason for event in alike.events()] == ["deadline"]
        same(whole(long), alone(long.request))
        whole(running)


# --- What breaks ------------------------------------------------------------------------------------------------------


def test_no_room_to_keep_what_was_read_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Prefixes, ids: Any, state: Any) -> None:
        raise MemoryError("no room to keep it")

    monkeypatch.setattr(Prefixes, "keep", full)
    gate = Gate(free=1)
    with service(streams=2) as batching:
        leaving = batching.submit(held(gate, new=50))
        next(leaving.events())
        leaving.cancel()  # its row is kept, or is not
        gate.opened.set()
        for seed in range(3):
            same(whole(batching.submit(request(seed, 40))), alone(request(seed, 40)))
        assert batching.figures.failures >= 4 and batching.figures.alive
        assert "error" not in batching.figures.outcomes


def test_no_room_for_a_copy_of_what_was_read_is_one_s_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Prefixes, ids: Any) -> tuple[int, Any]:
        if len(ids) == 41:
            raise MemoryError("no room for a copy")
        return 0, lambda: None

    monkeypatch.setattr(Prefixes, "find", full)
    with service(streams=2) as batching:
        streams = [batching.submit(request(seed, 40 + (seed == 1))) for seed in range(4)]
        with pytest.raises(MemoryError):
            whole(streams.pop(1))
        for seed, stream in zip((0, 2, 3), streams, strict=True):
            same(whole(stream), alone(request(seed, 40)))
        assert batching.figures.outcomes == {"error": 1, "length": 3}


def test_what_breaks_between_steps_is_told_and_the_thread_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    with service(streams=1) as batching:
        running, waiting = batching.submit(held(gate)), batching.submit(request(1))
        assert gate.reached.acquire(timeout=30)
        monkeypatch.setattr(batching._engine, "cancel", _broken)
        running.cancel()
        gate.opened.set()
        with pytest.raises(Broken):
            whole(running)
        same(whole(waiting), alone(request(1)))
        assert batching.figures.alive and batching.figures.running == 0


def _broken(name: int) -> None:
    raise Broken("cancel")


# --- What is kept -----------------------------------------------------------------------------------------------------


class State:
    """So many bytes that can go back to any place, or to none."""

    def __init__(self, ids: list[int], nbytes: int, rewinds: bool = True) -> None:
        self.ids, self.nbytes, self.rewinds = ids, nbytes, rewinds

    def can_rewind(self, row: int, length: int) -> bool:
        return self.rewinds or length == len(self.ids)

    def row(self, row: int, length: int) -> list[int]:
        return self.ids[:length]


@pytest.mark.parametrize("rewinds", [True, False])
def test_what_is_kept_is_bounded_and_found_as_if_looked_for_in_all(rewinds: bool) -> None:
    chance, prefixes = random.Random(0), Prefixes(40_000)
    kept: list[list[int]] = []  # the least lately used first
    for _ in range(400):
        own = [chance.randrange(3) for _ in range(chance.randrange(20, 50))]
        ids = (chance.choice(kept)[: chance.randrange(20, 60)] if kept and chance.random() < 0.7 else []) + own
        count, state = prefixes.find(as_ids(ids))
        usable = [_shared(each, ids) for each in kept if rewinds or _shared(each, ids) == len(each)]
        best = max((min(each, len(ids) - 1) for each in usable if rewinds or each < len(ids)), default=0)
        assert count == (best if best >= LEAST else 0)
        assert not count or state() == ids[:count]
        prefixes.keep(ids, lambda ids=ids: State(ids, 100 * len(ids), rewinds))
        kept = [list(each.ids) for each in prefixes._kept.values()]
        assert prefixes.nbytes == sum(100 * len(each) for each in kept) <= 40_000
    assert len(kept) > 3


def _shared(one: list[int], other: list[int]) -> int:
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return count


def test_texts_without_end_are_not_looked_through() -> None:
    prefixes = Prefixes(10**12)
    for number in range(MOST_TEXTS + 10):
        prefixes.keep([number, *range(LEAST)], lambda: State([], 1))
    assert len(prefixes._kept) == MOST_TEXTS == prefixes.nbytes
    assert prefixes.find(as_ids([9, *range(LEAST), 5]))[0] == 0
    assert prefixes.find(as_ids([10, *range(LEAST), 5]))[0] == LEAST + 1


@pytest.mark.parametrize("kind", MODELS)
def test_requests_of_all_lengths_that_begin_alike_with_little_room_to_keep(kind: str) -> None:
    """Copies of rows of another capacity, kept and let go all the time."""
    chance = random.Random(3)
    begins = [prompt(seed, length) for seed, length in ((1, 40), (2, 90), (3, 200))]
    asked = []
    for seed in range(30):
        ids = (*chance.choice(begins), *prompt(100 + seed, chance.randrange(1, 120)))
        asked.append(Request(ids, chance.randrange(1, POSITIONS - len(ids)) % 25 + 1, seed=seed, ignore_eos=True))
    with service(kind, streams=4, prefix_bytes=300_000) as batching, ThreadPoolExecutor(6) as pool:
        for one, found in zip(asked, pool.map(lambda one: whole(batching.submit(one)), asked), strict=True):
            same(found, alone(one, kind))
        figures = batching.figures
    assert figures.prefix_bytes <= 300_000 and figures.failures == 0
    assert figures.reused_requests > 3 or kind == "banded"


def test_a_schema_is_followed_behind_what_was_read_before() -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}
    begin = prompt(7, 60)
    asked = [
        Request(
            (*begin, *prompt(seed, 4)),
            40,
            seed=seed,
            schema=JsonSchema(schema, model().grammar_tokens, 300),
            context=False,
        )
        for seed in range(4)
    ]
    with service() as batching:
        reused = []
        for one in asked:
            stream = batching.submit(one)
            same(whole(stream), alone(one))
            reused.append(stream.reused)
    assert reused == [0, 60, 60, 60]


def test_thousands_of_requests_leave_nothing_behind() -> None:
    def some(first: int, count: int) -> None:
        streams = [batching.submit(Request((1 + seed % 250, 2), 2, seed=seed)) for seed in range(first, first + count)]
        for stream in streams:
            list(stream.events())

    with service(streams=8, queue=100) as batching:
        for first in range(0, 500, 50):
            some(first, 50)
        tracemalloc.start()
        try:
            some(500, 50)
            gc.collect()  # tests before this one may have put it off
            before = tracemalloc.get_traced_memory()[0]
            for first in range(550, 2550, 50):
                some(first, 50)
            gc.collect()
            after = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert sum(batching.figures.outcomes.values()) == 2550
    assert after - before < 20 * 2000  # bytes: less than a small object a request


# --- The thread that answers is the only one that computes ------------------------------------------------------------


class Seen(TorchDispatchMode):
    """Notes what is computed by the thread that it is entered in."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def test_who_asks_computes_nothing() -> None:
    """A thread that stays and once computed on several cores makes every later step several times as slow."""
    with Seen() as seen, service(streams=2) as batching:
        asked = [request(seed, 40, new=5) for seed in range(4)]
        found = [whole(stream) for stream in [batching.submit(each) for each in asked]]
    assert not seen.found
    for result, each in zip(found, asked, strict=True):
        same(result, alone(each))
