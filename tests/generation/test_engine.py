"""The engine against a network that reads everything anew; rows that join, leave and are cut change nothing."""

import math

import pytest
import torch
from generation.small_decoders import END, POSITIONS, Row, byte_level, decoder
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.generation.engine import Engine, Service, generate
from glassformer.generation.joining import Pace
from glassformer.generation.requests import Event, Request, joined
from glassformer.generation.sampling import Sampling, choose, generator_of
from glassformer.models.decoder import Decoder

KINDS = [
    Sampling(),
    Sampling(0.9),
    Sampling(1.0, top_k=20, top_p=0.9),
    Sampling(1.2, min_p=0.05, repetition_penalty=1.2, logit_bias={5: 3.0}),
    Sampling(repetition_penalty=1.5),
]


@torch.no_grad()
def recomputed(network: Decoder, request: Request) -> tuple[list[int], list[float]]:
    """The request's ids and log-probabilities, the whole text read anew for each."""

    row, logprobs = Row(request.sampling, list(request.ids), generator_of(request.seed, request.row)), []
    while len(logprobs) < request.max_new_tokens and len(row.ids) < network.config.max_length:
        logits = network(torch.tensor([row.ids])).logits[:, -1]
        token = int(choose(logits, [row]))
        row.ids = [*row.ids, token]
        logprobs.append(float(logits.log_softmax(-1)[0, token]))
        if token == END and not request.ignore_eos:
            break
    return list(row.ids[len(request.ids) :]), logprobs


def request(length: int, number: int = 0, kind: int = 0, max_new_tokens: int = 8) -> Request:
    ids = torch.randint(1, 300, (length,), generator=generator_of(length, number)).tolist()
    return Request(tuple(ids), max_new_tokens, KINDS[kind], seed=7, row=number)


def engine(rotary: bool = False, **settings: int) -> Engine:
    return Engine(decoder(rotary), byte_level(), eos_ids=[END], **settings)


requests = st.lists(
    st.tuples(st.integers(1, POSITIONS), st.integers(0, len(KINDS) - 1), st.sampled_from([0, 1, 3, 12, 60])),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(shapes=requests, rows=st.integers(1, 6), chunk=st.sampled_from([1, 3, 16, 512]), rotary=st.booleans())
def test_neighbours_and_cuts_change_nothing(
    shapes: list[tuple[int, int, int]], rows: int, chunk: int, rotary: bool
) -> None:
    asked = [request(length, i, kind, new) for i, (length, kind, new) in enumerate(shapes)]
    results = generate(engine(rotary, rows=rows, chunk=chunk), asked)
    for one, result in zip(asked, results, strict=True):
        ids, logprobs = recomputed(decoder(rotary), one)
        assert list(result.ids) == ids
        assert result.logprobs == pytest.approx(logprobs, abs=1e-4)
        assert result.finish_reason == ("stop" if ids[-1:] == [END] else "length")


@settings(deadline=None, derandomize=True, max_examples=12)
@given(shapes=requests, waits=st.lists(st.integers(0, 5), min_size=6, max_size=6), rows=st.integers(1, 4))
def test_rows_join_and_leave_at_any_time(shapes: list[tuple[int, int, int]], waits: list[int], rows: int) -> None:
    asked = [request(length, i, kind, new) for i, (length, kind, new) in enumerate(shapes)]
    server, events = engine(rows=rows, chunk=5), {}
    for one, wait in zip(asked, waits, strict=False):
        events[server.add(one)] = []
        for _ in range(wait):
            for event in server.step():
                events[event.request].append(event)
    while server.busy:
        for event in server.step():
            events[event.request].append(event)
    for one, told in zip(asked, events.values(), strict=True):
        assert list(joined(told).ids) == recomputed(decoder(), one)[0]
        assert [event.finish_reason for event in told[:-1]] == [None] * (len(told) - 1)
    assert server.step() == []


def test_a_request_can_be_cancelled_wherever_it_is() -> None:
    server = engine(rows=2, chunk=4)
    names = [server.add(request(20, i, max_new_tokens=10)) for i in range(5)]
    server.cancel(names[4])  # waiting
    server.step()
    server.cancel(names[0])  # its prompt is being read
    events: list[Event] = []
    for _ in range(8):
        events += server.step()
    assert {event.request for event in events} == {names[1]}
    server.cancel(names[1])  # running
    while server.busy:
        events += server.step()
    assert joined([event for event in events if event.request == names[3]]).ids
    assert {event.request for event in events} == {names[1], names[2], names[3]}


def test_rows_that_ended_stay_until_they_are_half() -> None:
    server, sizes = engine(rows=4), []
    for number, new in enumerate((2, 4, 12, 12)):
        server.add(request(5, number, max_new_tokens=new))
    while server.busy:
        server.step()
        sizes.append(server.state.keys.shape[1])
    assert sizes == [4, 4, 4, 4, *[2] * 8]


@pytest.mark.parametrize("chunk", [3, 512])
def test_log_probabilities_of_the_prompt(chunk: int) -> None:
    asked = [
        Request(request(length, length).ids, new, prompt_logprobs=True, logprobs=2)
        for length, new in ((9, 2), (4, 0), (1, 3), (POSITIONS, 5))
    ]
    for one, result in zip(asked, generate(engine(chunk=chunk), asked), strict=True):
        wanted = decoder()(torch.tensor([one.ids])).logits[0].detach().log_softmax(-1)
        assert result.prompt_logprobs is not None and result.prompt_logprobs[0] is None
        expected = [float(wanted[i, token]) for i, token in enumerate(one.ids[1:])]
        assert result.prompt_logprobs[1:] == pytest.approx(expected, abs=1e-4)
        assert [pairs[0][0] for pairs in result.top_logprobs] == list(result.ids)
        assert len(result.ids) == min(one.max_new_tokens, POSITIONS - len(one.ids))


def test_without_log_probabilities() -> None:
    with_them, without = generate(engine(), [Request((5, 6), 4), Request((5, 6), 4, logprobs=None)])
    assert without.ids == with_them.ids and without.logprobs == () and len(with_them.logprobs) == 4


def test_ends_of_a_text() -> None:
    plain = generate(engine(), [Request((5, 6), 12)])[0]
    third = plain.ids[2]
    ended = generate(Engine(decoder(), byte_level(), eos_ids=[299, third]), [Request((5, 6), 12)])[0]
    assert ended.ids == plain.ids[: plain.ids.index(third) + 1] and ended.finish_reason == "stop"
    assert ended.text == byte_level().decode(ended.ids[:-1])
    on = generate(Engine(decoder(), byte_level(), eos_ids=[third]), [Request((5, 6), 12, ignore_eos=True)])[0]
    assert on == plain
    full = generate(engine(), [Request((5,) * POSITIONS, 12), Request((5,) * (POSITIONS - 2), 12)])
    assert [len(one.ids) for one in full] == [0, 2] and {one.finish_reason for one in full} == {"length"}


def test_a_stop_string_ends_the_text_before_it() -> None:
    plain = generate(engine(), [Request((5, 6), 12)])[0]
    stop = plain.text[3:6]
    stopped = generate(engine(), [Request((5, 6), 12, stop=(stop,))])[0]
    assert stopped.text == plain.text[: plain.text.index(stop)] and stopped.finish_reason == "stop"
    assert plain.ids[: len(stopped.ids)] == stopped.ids


def test_training_mode_is_left_as_it_was() -> None:
    network = decoder()
    network.train()
    try:
        first = generate(engine(), [Request((5, 6), 4)])
        assert network.training
    finally:
        network.eval()
    assert generate(engine(), [Request((5, 6), 4)]) == first


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Request(()), "at least one id"),
        (Request((5,) * (POSITIONS + 1)), f"has {POSITIONS + 1} tokens, the model reads at most {POSITIONS}"),
        (Request((300,)), r"ids must lie in \[0, 300\)"),
        (Request((-1,)), r"ids must lie in \[0, 300\)"),
        (Request((5,), -1), "'max_new_tokens' must be a whole number"),
        (Request((5,), 1.5), "'max_new_tokens'"),  # type: ignore[arg-type]
        (Request((5,), logprobs=-1), "'logprobs'"),
        (Request((5,), sampling=Sampling(logit_bias={300: 1.0})), "'logit_bias' names the id 300"),
    ],
)
def test_what_cannot_be_asked(wrong: Request, message: str) -> None:
    server = engine()
    with pytest.raises(InputError, match=message):
        server.add(wrong)
    assert not server.busy


def test_an_engine_without_tokenizer_gives_ids() -> None:
    server = Engine(decoder(), eos_ids=[END])
    with pytest.raises(InputError, match="stop strings need"):
        server.add(Request((5,), stop=("x",)))
    result = generate(server, [Request((5, 6), 4)])[0]
    assert result.text == "" and len(result.ids) == 4
    with pytest.raises(InputError, match="'rows' and 'chunk'"):
        Engine(decoder(), rows=0)


def test_broken_weights_are_an_error() -> None:
    network = decoder(d_ff=40)
    with torch.no_grad():
        network.head.weight[3] = math.nan
    with pytest.raises(InputError, match="not numbers"):
        generate(Engine(network), [Request((5, 6), 4)])


# How long rows that run are held up.


def test_the_more_wait_the_more_is_read_at_once() -> None:
    pace = Pace(0.1)
    pace._speed = 2000.0
    assert pace.ids == pace.patient(16, 0) == 200
    assert pace.patient(16, 4) == 400
    assert pace.patient(8, 8) == pace.patient(1, 15) == pace.patient(0, 1) == 1000
    pace._speed = 0.0
    assert pace.patient(1, 15) == pace.ids == 128, "never less than is worth a step"


@pytest.mark.parametrize(("speed", "steps"), [(1500, 1), (600, 2)])
def test_prompts_that_end_with_it_are_read_at_once_where_many_wait(speed: float, steps: int) -> None:
    """One runs and 13 of 40 ids wait: five pauses have room for all, or for 7; then for 6 beside 8 there are four."""
    found = engine(rows=16, service=Service())
    assert found._pace is not None
    found._pace.pause, found._pace._speed = 0.1, speed
    found._pace.saw = lambda ids, seconds: None  # type: ignore[method-assign]
    found.add(request(5, max_new_tokens=20))
    found.step()
    asked = [request(40, number) for number in range(1, 14)]
    names = [found.add(each) for each in asked]
    told: list[Event] = []
    taken = 0
    while not {event.request for event in told} >= set(names):
        told += found.step()
        taken += 1
    assert taken == steps
    while found.busy:
        told += found.step()
    for name, each in zip(names, asked, strict=True):
        own = joined([event for event in told if event.request == name])
        assert list(own.ids) == recomputed(found.network, each)[0]
