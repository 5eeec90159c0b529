"""Streams of the HTTP API: the same as the whole answers, and over when the client, the queue or the server says so."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from serving.api_server import Running, serving
from tasks.small_writers import writer

from glassformer.serving.api.limits import Limits
from glassformer.serving.batching import Batching

LONG = {"model": "writer", "prompt": "a man", "max_tokens": 3000, "ignore_eos": True}


@pytest.fixture
def running() -> Iterator[Running]:
    limits = Limits(streams=2, queue=1)
    with serving({"writer": writer(positions=4000)}, limits) as one:
        yield one


def events(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    """The events of a stream, which must end with [DONE]."""
    lines = (line for line in answer.iter_lines() if line)
    for line in lines:
        assert line.startswith("data: ")
        if line == "data: [DONE]":
            assert not list(lines)
            return
        yield json.loads(line.removeprefix("data: "))
    raise AssertionError("the stream has no [DONE]")


def batching(running: Running) -> Batching:
    found = running.service.all["writer"].batching
    assert found is not None
    return found


def until(server: Running, **wanted: int) -> None:
    """Wait until the service counts so many."""
    for _ in range(2000):
        figures = batching(server).figures
        if all(getattr(figures, name) == value for name, value in wanted.items()):
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"{batching(server).figures} never came to {wanted}")


def test_a_stream_is_the_whole_answer_in_parts(running: Running) -> None:
    body = {"model": "writer", "prompt": "a man", "max_tokens": 20, "n": 2, "seed": 5, "logprobs": 1, "echo": True}
    streaming = {**body, "stream": True, "stream_options": {"include_usage": True}}
    with running.client() as client:
        whole = client.post("/v1/completions", json=body).json()
        with client.stream("POST", "/v1/completions", json=streaming) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            *parts, last = events(answer)
    assert last["choices"] == [] and all(part["usage"] is None for part in parts)
    assert {**last["usage"], "prompt_tokens_details": 0} == {**whole["usage"], "prompt_tokens_details": 0}
    for index, wanted in enumerate(whole["choices"]):
        own = [part["choices"][0] for part in parts if part["choices"][0]["index"] == index]
        assert "".join(part["text"] for part in own) == wanted["text"]
        assert [part["finish_reason"] for part in own][-1] == wanted["finish_reason"]
        for name, values in wanted["logprobs"].items():
            joined = [value for part in own for value in part["logprobs"][name]]
            if name == "token_logprobs":
                assert joined[1:] == pytest.approx(values[1:], abs=1e-4)
            elif name != "top_logprobs":
                assert joined == values


def test_a_chat_streams_its_role_first(running: Running) -> None:
    body = {"model": "writer", "messages": [{"role": "user", "content": "a"}], "max_tokens": 9, "seed": 1}
    with running.client() as client:
        wanted = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
        with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
            deltas = [part["choices"][0]["delta"] for part in events(answer)]
    assert deltas[0] == {"role": "assistant", "content": ""} and deltas[-1] == {}
    assert "".join(delta.get("content", "") for delta in deltas) == wanted


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_place(running: Running, stream: bool) -> None:
    with running.client() as client:
        if stream:
            with client.stream("POST", "/v1/completions", json={**LONG, "stream": True}) as answer:
                assert next(answer.iter_lines()).startswith("data: ")
                until(running, running=1)
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/completions", json=LONG, timeout=0.3)
    until(running, running=0, waiting=0)
    assert batching(running).figures.outcomes["cancelled"] == 1
    assert batching(running).figures.generated_tokens < 3000


def test_a_full_queue_says_when_to_come_again(running: Running) -> None:
    with running.client() as client, ThreadPoolExecutor(3) as pool:
        stop = threading.Event()

        def hold() -> int:
            with client.stream("POST", "/v1/completions", json={**LONG, "stream": True}) as answer:
                for _ in answer.iter_lines():
                    if stop.is_set():
                        break
                return answer.status_code

        held = [pool.submit(hold) for _ in range(3)]
        until(running, running=2, waiting=1)
        refused = client.post("/v1/completions", json={**LONG, "max_tokens": 1})
        two = client.post("/v1/completions", json={**LONG, "max_tokens": 1, "n": 4})
        stop.set()
        batching(running).close(0)  # the one that waits has no first line to stop at
        assert [each.result(60) for each in held] == [200] * 3
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert two.status_code == 400  # it could never have room


def test_a_stop_ends_streams_properly(running: Running) -> None:
    with running.client() as client:
        with client.stream("POST", "/v1/completions", json={**LONG, "stream": True}) as answer:
            lines = events(answer)
            next(lines)
            stopping = threading.Thread(target=running.service.close, args=(0.1,))
            stopping.start()
            *_, last = lines
        stopping.join(30)
        assert last["choices"][0]["finish_reason"] == "length" and last["choices"][0]["stop_reason"] == "shutdown"
        answer = client.post("/v1/completions", json={"model": "writer", "prompt": "a"})
        assert answer.status_code == 503 and answer.headers["retry-after"]
        assert client.get("/health").status_code == 503


def test_a_deadline_ends_an_answer() -> None:
    with serving({"writer": writer(positions=4000)}, Limits(seconds=1)) as one, one.client() as client:
        choice = client.post("/v1/completions", json=LONG).json()["choices"][0]
    assert choice["finish_reason"] == "length" and choice["stop_reason"] == "deadline"


# --- Views ------------------------------------------------------------------------------------------------------------


def test_a_trace_tells_its_progress(running: Running) -> None:
    from glassformer.serving.views import make_view

    texts = ("a dog in blue", "a fog in blue")
    body = {"model": "writer", "view": "patching", "text": texts[0], "patch_from": texts[1], "stream": True}
    with running.client() as client, client.stream("POST", "/v1/trace", json=body) as answer:
        *shares, last = events(answer)
    told = [share["progress"] for share in shares]
    assert told == sorted(told) and told[0] == 0 and told[-1] == 1 and len(told) > 3
    model = running.service.models["writer"]
    assert last["document"] == make_view(model, "patching", texts[0], patch_from=texts[1], name="writer")


def test_an_error_within_a_trace_is_its_last_event(running: Running) -> None:
    body = {"model": "writer", "view": "patching", "text": "a man", "patch_from": "a man in blue", "stream": True}
    with running.client() as client, client.stream("POST", "/v1/trace", json=body) as answer:
        *_, last = events(answer)
    assert last["error"]["type"] == "invalid_request_error" and "tokens" in last["error"]["message"]


def test_a_client_that_goes_away_stops_the_work(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    from glassformer.serving.api import tracing

    told = threading.Event()

    def endless(*_: Any, on_progress: Any, stopped: Any, **__: Any) -> dict[str, Any]:
        on_progress(0.0)
        while not stopped():
            threading.Event().wait(0.01)
        told.set()
        raise tracing.Stopped

    monkeypatch.setattr(tracing, "make_view", endless)
    body = {"model": "writer", "view": "lens", "text": "a man", "stream": True}
    with running.client() as client, client.stream("POST", "/v1/trace", json=body) as answer:
        assert next(answer.iter_lines()) == 'data: {"progress":0.0}'
    assert told.wait(30)
    for _ in range(2000):
        if not running.service.work.running:
            break
        threading.Event().wait(0.01)
    assert running.service.work.running == 0
