"""Requests that mean no good: none takes the server's time, breaks it, or gets more than it may."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from serving.api_server import Running, serving
from tasks.small_writers import reader, writer

from glassformer.errors import InputError
from glassformer.models.config import Classification, Sentence
from glassformer.serving.api import errors
from glassformer.serving.api.limits import Limits
from glassformer.serving.api.work import AT_ONCE

JSON = {"content-type": "application/json"}
PLAIN = {"model": "writer", "prompt": "a", "max_tokens": 1}
SAID = {"model": "writer", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving({"writer": writer(positions=600)}, Limits(new_tokens=64, body_seconds=1)) as one:
        yield one


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[httpx.Client]:
    with running.client() as one:
        yield one


def refused(answer: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text[:500]
    return dict(answer.json()["error"])


def raw(running: Running, data: bytes) -> bytes:
    """All that comes back on a connection that says this and then only listens."""
    port = int(running.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as own:
        own.sendall(data)
        return b"".join(iter(lambda: own.recv(65536), b""))


# --- Bodies -----------------------------------------------------------------------------------------------------------


def test_names_that_are_no_text_or_without_end(client: httpx.Client) -> None:
    half = json.dumps({**PLAIN, "\ud800": 1}).encode()
    assert refused(client.post("/v1/completions", content=half, headers=JSON))["param"] == "\\ud800"
    assert len(refused(client.post("/v1/completions", json={**PLAIN, "p" * 10**6: 1}))["param"]) == 100
    assert len(refused(client.post("/v1/completions", json={**PLAIN, "model": "m" * 10**6}), 404)["message"]) < 300


def test_only_the_beginning_of_a_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr(errors, "did_you_mean", lambda name, known: looked.append(name) or "")
    errors.unknown_name("model", "m" * 10**6, ["a"], param="model", code="x")
    assert len(looked[0]) == 100


@pytest.mark.parametrize("biases", [{"1_0": 1}, {" 5": 1}, {"５": 1}, {"-5": 1}, {"9" * 5000: 1}, {"": 1}])
def test_a_bias_is_of_an_id(client: httpx.Client, biases: dict[str, float]) -> None:
    assert refused(client.post("/v1/completions", json={**PLAIN, "logit_bias": biases}))["param"] == "logit_bias"


def test_there_are_not_too_many_of_anything(client: httpx.Client) -> None:
    many = {str(token): 0 for token in range(2000)}
    assert refused(client.post("/v1/completions", json={**PLAIN, "logit_bias": many}))["param"] == "logit_bias"
    assert refused(client.post("/v1/completions", json={**PLAIN, "prompt": [[70]] * 81}))["param"] == "n"
    assert refused(client.post("/v1/completions", json={**PLAIN, "prompt": [[10**9]] * 81}))["param"] == "n"  # first


@pytest.mark.parametrize(
    "options", [{"layer": "x"}, {"head": True}, {"site": 5}, {"layer": 10**30}, {"place": -1}, {"place": 99}, {"a": 1}]
)
def test_options_of_a_view_are_of_their_kinds(client: httpx.Client, options: dict[str, Any]) -> None:
    refused(client.post("/v1/trace", json={"model": "writer", "view": "walk", "text": "a man", "options": options}))


def test_a_view_takes_its_own_options_only(client: httpx.Client) -> None:
    body = {"model": "writer", "view": "attention", "text": "a man"}
    refused(client.post("/v1/trace", json={**body, "options": {"packed": "yes"}}))
    refused(client.post("/v1/trace", json={**body, "view": "lens", "options": {"packed": True}}))
    packed = client.post("/v1/trace", json={**body, "options": {"packed": True}})
    assert packed.status_code == 200 and "ten_thousandths" in packed.text


@pytest.mark.parametrize("depth", [100, 400, 900, 5000])
def test_json_may_be_deep(client: httpx.Client, depth: int) -> None:
    lists = b"[" * depth + b"]" * depth
    schema = b'{"properties":{"a":' * depth + b"{}" + b"}}" * depth
    begin = json.dumps(SAID).encode()[:-1]
    for own in (b'"tools":' + lists, b'"response_format":{"type":"json_schema","json_schema":{"schema":%s}}' % schema):
        answer = client.post("/v1/chat/completions", content=begin + b"," + own + b"}", headers=JSON)
        assert answer.status_code < 500 and (own[:4] != b'"too' or answer.status_code == 400)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "1" + "0" * 400, "1" + "0" * 5000])
def test_numbers_that_are_none(client: httpx.Client, number: str) -> None:
    for name in ("temperature", "seed", "max_tokens", "n"):
        body = json.dumps(PLAIN | {name: 0}).replace(f'"{name}": 0', f'"{name}": {number}')
        refused(client.post("/v1/completions", content=body, headers=JSON))


# --- Connections ------------------------------------------------------------------------------------------------------


def test_a_host_is_named_once(running: Running) -> None:
    for hosts, status in (([], 403), (["localhost"], 200), (["localhost", "evil"], 403), (["evil", "localhost"], 403)):
        lines = "".join(f"Host: {host}\r\n" for host in hosts)
        assert raw(running, f"GET /health HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode()).startswith(
            b"HTTP/1.1 %d" % status
        )


def test_a_connection_goes_on_after_an_error(running: Running) -> None:
    wrong = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: 2\r\n\r\n{}"
    right = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    told = raw(running, wrong % b"text/plain" + wrong % b"application/json" + right)
    assert [told.count(b"HTTP/1.1 %d" % status) for status in (415, 400, 200)] == [1, 1, 1]


def test_a_body_that_does_not_come_is_not_waited_for(running: Running) -> None:
    port = int(running.url.rpartition(":")[2])
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
    head += b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as own:
        own.sendall(head + b"{")
        told = b"".join(iter(lambda: own.recv(65536), b""))  # until the server ends it
    assert told.startswith(b"HTTP/1.1 408") and b"connection: close" in told.lower()


def test_paths_lead_nowhere_else(client: httpx.Client) -> None:
    for path in ("/main.js/", "/main.js%00", "/main.js%2f..%2fapp.py", "/docs"):
        answer = client.get(path)
        assert answer.status_code == 404 and "location" not in answer.headers
    assert client.head("/health").status_code == client.options("/v1/completions").status_code == 405


def test_a_key_may_have_any_characters() -> None:
    with serving({"vectors": reader(Sentence())}, key="schlüssel–ключ", hosts=None) as one, one.client() as client:
        for key, status in (("schlüssel–ключ", 200), ("schlüssel–ключи", 401), ("?", 401)):
            headers = [(b"authorization", f"Bearer {key}".encode())]
            assert client.get("/v1/models", headers=headers).status_code == status


# --- Long work --------------------------------------------------------------------------------------------------------


def test_many_texts_are_worked_on_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"a man {'rides ' * (place % 5)}" for place in range(AT_ONCE + 5)]
    models = {"vectors": reader(Sentence()), "labels": reader(Classification(("good", "bad")))}
    limits = Limits(workers=1, worker_queue=0)
    with serving(models, limits) as one, one.client() as client:
        found = client.post("/v1/embeddings", json={"model": "vectors", "input": texts}).json()
        for each, wanted in zip(found["data"], models["vectors"].embed(texts).tolist(), strict=True):
            assert each["embedding"] == pytest.approx(wanted, abs=1e-5)
        assert found["usage"]["prompt_tokens"] == sum(
            map(len, models["vectors"].tokenizer.encode_all(texts, frame=True))
        )
        labels = client.post("/v1/classify", json={"model": "labels", "text": texts}).json()["data"]
        assert [each["label"] for each in labels] == [each.label for each in models["labels"].classify(texts)]
        long = [*texts[:-1], "a " * 40]
        message = refused(client.post("/v1/classify", json={"model": "labels", "text": long}))["message"]
        assert f"line {len(long)} " in message

        begun: list[int] = []
        opened, embed = threading.Event(), models["vectors"].embed

        def held(self: Any, some: Any, **more: Any) -> Any:
            begun.append(len(some))
            assert opened.wait(30)
            return embed(some, **more)

        monkeypatch.setattr(type(models["vectors"]), "embed", held)
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/embeddings", json={"model": "vectors", "input": texts * 5}, timeout=0.3)
        opened.set()
        for _ in range(1000):
            if not one.service.work.running:
                break
            threading.Event().wait(0.01)
        assert one.service.work.running == 0
        assert begun == [AT_ONCE]  # and not all that was asked for


def test_long_work_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {"vectors": reader(Sentence())}
    clock = SimpleNamespace(monotonic=map(float, range(0, 10_000, 40)).__next__)
    with serving(models, Limits(seconds=50)) as one, one.client() as client:
        monkeypatch.setattr("glassformer.serving.api.work.time", clock)
        answer = client.post("/v1/embeddings", json={"model": "vectors", "input": ["a"] * 1000})
        monkeypatch.undo()
    assert refused(answer, 503)["code"] == "timeout"


def test_a_long_list_of_ids_is_joined_beside_the_loop(running: Running, client: httpx.Client) -> None:
    word = running.service.models["writer"].tokenizer.decode([72])
    assert client.post("/detokenize", json={"tokens": [72] * 30_000}).json()["prompt"] == word * 30_000


def test_limits_are_numbers() -> None:
    for wrong in ({"seconds": float("nan")}, {"seconds": float("inf")}, {"streams": 0}, {"queue": -1}):
        with pytest.raises(InputError, match=f"'{next(iter(wrong))}' must be a number from"):
            Limits(**wrong)


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1"])
def test_a_server_that_could_not_stop_is_not_started(seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from glassformer.cli.serve import serve

    monkeypatch.setattr("glassformer.cli.serve.load_to_run", None)  # nothing is loaded before
    with pytest.raises(InputError, match="--finish must be"):
        serve(model=("m",), port=0, finish=float(seconds))
