"""The HTTP API: each endpoint gives what the Python API gives, and what it does not do it says, in OpenAI's words."""

from __future__ import annotations

import base64
import logging
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from serving.api_server import POSITIONS, Running, serving

from glassformer.generation.requests import Request
from glassformer.models.config import Sentence
from glassformer.serving.api.limits import Limits

SECRET = "the prompt that nobody else may see"


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving(limits=Limits(new_tokens=64, body_bytes=20_000)) as one:
        yield one


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[httpx.Client]:
    with running.client() as one:
        yield one


def posted(client: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def error(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    told = answer.json()["error"]
    assert set(told) == {"message", "type", "param", "code"}
    return dict(told)


# --- Completions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["a man in", ["a man in", "the road"], [70, 71, 72], [[70, 71], [5]]])
def test_completions_are_what_generate_gives(running: Running, client: httpx.Client, prompt: Any) -> None:
    model = running.service.models["writer"]
    found = posted(client, "/v1/completions", model="writer", prompt=prompt, max_tokens=9, temperature=0)
    one = isinstance(prompt, str) or isinstance(prompt[0], int)
    wanted = model.generate([prompt] if one else prompt, max_new_tokens=9)
    assert [each["text"] for each in found["choices"]] == [each.text for each in wanted]
    assert [each["finish_reason"] for each in found["choices"]] == [each.finish_reason for each in wanted]
    assert [each["index"] for each in found["choices"]] == list(range(len(wanted)))
    assert found["usage"]["prompt_tokens"] == sum(len(each.prompt_ids or ()) for each in wanted)
    assert found["usage"]["completion_tokens"] == sum(len(each.ids) for each in wanted)


def test_sampling_is_that_of_the_same_seed(running: Running, client: httpx.Client) -> None:
    model = running.service.models["writer"]
    settings: dict[str, Any] = {"temperature": 0.9, "top_p": 0.8, "seed": 7, "stop": ["e"]}
    found = posted(client, "/v1/completions", model="writer", prompt="a man", n=3, max_tokens=12, **settings)
    wanted = model.generate(["a man"] * 3, max_new_tokens=12, **settings)
    assert [each["text"] for each in found["choices"]] == [each.text for each in wanted]
    assert len({each["text"] for each in found["choices"]}) > 1
    best = posted(client, "/v1/completions", model="writer", prompt="a man", best_of=3, max_tokens=12, **settings)
    likely = max(wanted, key=lambda each: sum(each.logprobs) / len(each.logprobs))
    assert [each["text"] for each in best["choices"]] == [likely.text]


def test_biases_and_penalties(running: Running, client: httpx.Client) -> None:
    plain = {"model": "writer", "prompt": [70], "max_tokens": 8, "temperature": 0}
    found = posted(client, "/v1/completions", **plain, logit_bias={"72": 100}, logprobs=0)
    assert found["choices"][0]["text"] == running.service.models["writer"].tokenizer.decode([72] * 8)
    biased = posted(client, "/v1/completions", **plain, logit_bias={"72": 50, "73": 49}, presence_penalty=2, logprobs=0)
    tokens = biased["choices"][0]["logprobs"]["tokens"]
    assert tokens[0] != tokens[1]  # the first is worth 2 less once it was there, and 1 more than the second


def test_echo_tells_the_prompts_log_probabilities(running: Running, client: httpx.Client) -> None:
    model = running.service.models["writer"]
    text = "a man rides"
    for most in (0, 1):
        body = {"prompt": text, "echo": True, "logprobs": 2, "max_tokens": most, "temperature": 0}
        choice = posted(client, "/v1/completions", model="writer", **body)["choices"][0]
        told = choice["logprobs"]
        ids = model.tokenizer.encode(text) + list(model.generate(text, max_new_tokens=most).ids)
        logits = model(ids).logits[0].detach().float().log_softmax(-1)
        wanted = [float(logits[place, token]) for place, token in enumerate(ids[1:])]
        assert told["token_logprobs"][0] is None and told["top_logprobs"][0] is None
        assert told["token_logprobs"][1:] == pytest.approx(wanted, abs=1e-4)
        assert [max(top.values()) for top in told["top_logprobs"][1:]] == pytest.approx(
            [float(logits[place].max()) for place in range(len(ids) - 1)], abs=1e-4
        )
        assert choice["text"].startswith(text) and len(told["tokens"]) == len(ids)
        starts = told["text_offset"]
        parts = [choice["text"][start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
        assert [part for part, token in zip(parts, told["tokens"], strict=True) if not token.startswith("bytes:")] == [
            token for token in told["tokens"] if not token.startswith("bytes:")
        ]


def test_a_chat_is_what_chat_gives(running: Running, client: httpx.Client) -> None:
    model = running.service.models["writer"]
    messages = [{"role": "system", "content": "be"}, {"role": "user", "content": "a man"}]
    body = {"model": "writer", "messages": messages, "temperature": 0, "max_tokens": 6}
    wanted = model.chat(messages, max_new_tokens=6)
    parts = [
        messages[0],
        {"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "man"}]},
    ]
    for form in (body, {**body, "max_tokens": None, "max_completion_tokens": 6}, {**body, "messages": parts}):
        found = posted(client, "/v1/chat/completions", **form, logprobs=True, top_logprobs=2)
        choice = found["choices"][0]
        assert choice["message"] == {"role": "assistant", "content": wanted.text, "refusal": None}
        assert [each["logprob"] for each in choice["logprobs"]["content"]] == pytest.approx(wanted.logprobs, abs=1e-4)
        assert (
            b"".join(bytes(each["bytes"]) for each in choice["logprobs"]["content"]).decode(errors="replace")
            == wanted.text
        )
        assert all(len(each["top_logprobs"]) == 2 for each in choice["logprobs"]["content"])


def test_an_answer_is_sent_back_as_it_came(client: httpx.Client) -> None:
    asked = {"model": "writer", "messages": [{"role": "user", "content": "a"}], "max_tokens": 3, "temperature": 0}
    said = posted(client, "/v1/chat/completions", **asked)["choices"][0]["message"]
    more = {**said, "annotations": [], "tool_calls": None, "audio": None, "function_call": None}
    found = [
        posted(client, "/v1/chat/completions", **{**asked, "messages": [*asked["messages"], one, *asked["messages"]]})
        for one in (said, more, {"role": "assistant", "content": said["content"]})
    ]
    assert len({each["choices"][0]["message"]["content"] for each in found}) == 1
    for wrong in ({"refusal": "no"}, {"tool_calls": [{"id": "a"}]}, {"name": "bob"}):
        body = {**asked, "messages": [{"role": "assistant", "content": "a", **wrong}]}
        assert error(client.post("/v1/chat/completions", json=body), 400)["param"] in wrong


def test_a_format_and_its_schema_belong_together(client: httpx.Client) -> None:
    asked = {"model": "writer", "messages": [{"role": "user", "content": "a"}], "max_tokens": 3}
    for wrong in ({"type": "json_schema"}, {"type": "text", "json_schema": {"name": "a", "schema": {}}}):
        told = error(client.post("/v1/chat/completions", json={**asked, "response_format": wrong}), 400)
        assert told["param"] == "response_format"


def test_a_response_format_is_followed(client: httpx.Client) -> None:
    pytest.importorskip("llguidance", reason="JSON schemas need llguidance (the extra 'schema')")
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x", "y"]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "one", "schema": schema, "strict": True}}
    body = {"model": "writer", "messages": [{"role": "user", "content": "a"}], "max_tokens": 60, "seed": 3}
    text = posted(client, "/v1/chat/completions", **body, response_format=form)["choices"][0]["message"]["content"]
    assert text.replace(" ", "").replace("\n", "") in ('{"a":"x"}', '{"a":"y"}')
    broken = {"type": "json_schema", "json_schema": {"name": "one", "schema": {"type": 7}}}
    assert (
        "schema" in error(client.post("/v1/chat/completions", json={**body, "response_format": broken}), 400)["message"]
    )


# --- What is no generation --------------------------------------------------------------------------------------------


def test_embeddings(running: Running, client: httpx.Client) -> None:
    texts = ["a man rides", "the dog"]
    wanted = running.service.models["vectors"].embed(texts)
    plain = posted(client, "/v1/embeddings", model="vectors", input=texts)
    coded = posted(client, "/v1/embeddings", model="vectors", input=texts, encoding_format="base64", dimensions=16)
    for row, one, other in zip(wanted.tolist(), plain["data"], coded["data"], strict=True):
        assert one["embedding"] == pytest.approx(row, abs=1e-6)
        raw = base64.b64decode(other["embedding"])
        assert struct.unpack(f"<{len(row)}f", raw) == pytest.approx(row, abs=1e-6)
    wrong = client.post("/v1/embeddings", json={"model": "vectors", "input": "a", "dimensions": 8})
    assert error(wrong, 400)["param"] == "dimensions"


def test_embeddings_of_ids(client: httpx.Client) -> None:
    texts = ["a man rides", "the dog"]
    rows = [posted(client, "/tokenize", model="vectors", prompt=text)["tokens"] for text in texts]
    plain = posted(client, "/v1/embeddings", model="vectors", input=texts)
    for given, wanted in ((rows, plain["data"]), (rows[0], plain["data"][:1])):
        found = posted(client, "/v1/embeddings", model="vectors", input=given)
        for one, other in zip(found["data"], wanted, strict=True):
            assert one["embedding"] == pytest.approx(other["embedding"], abs=1e-6)
        assert found["usage"]["prompt_tokens"] == sum(map(len, rows[: len(wanted)]))
    assert plain["usage"]["prompt_tokens"] == sum(map(len, rows))
    for wrong in ([], [[]], [rows[0], "a"], [10**6], [-1], [True], [1.5], [rows[0] * 9]):
        error(client.post("/v1/embeddings", json={"model": "vectors", "input": wrong}), 400)


def test_our_own_endpoints(running: Running, client: httpx.Client) -> None:
    models = running.service.models
    found = posted(client, "/v1/translate", model="translator", text=["a man in"], beam=3, n_best=2)["data"][0]
    wanted = models["translator"].translate("a man in", beam=3, n_best=2)
    assert (found["text"], found["score"]) == (wanted.text, pytest.approx(wanted.score))
    assert [each["text"] for each in found["alternatives"]] == [each.text for each in wanted.alternatives]
    label = posted(client, "/v1/classify", model="labels", text="a man")["data"][0]
    assert label["label"] == models["labels"].classify("a man").label
    fill = posted(client, "/v1/fill", model="fills", text="a [MASK] rides", top=2)["data"][0]["fills"]
    assert [each["token"] for each in fill] == [each.token for each in models["fills"].fill("a [MASK] rides", top=2)]
    asked = posted(client, "/v1/ask", model="writer", question="who rides?", max_tokens=4)
    assert len(asked["tokens"]) <= 4 and asked["risk"] is None and asked["evidence"] == []


def test_tokens(running: Running, client: httpx.Client) -> None:
    tokenizer = running.service.models["writer"].tokenizer
    text = "a man<|endoftext|> über"
    found = posted(client, "/tokenize", prompt=text, return_token_strs=True)
    assert found["tokens"] == tokenizer.encode(text, read_specials=True)
    assert found["token_strs"] == tokenizer.tokens(found["tokens"])
    assert posted(client, "/detokenize", tokens=found["tokens"]) == {"prompt": text}
    about = client.get("/tokenizer_info").json()
    assert posted(client, "/tokenize", prompt=about["eos_token"])["tokens"] == [0]
    error(client.post("/detokenize", json={"tokens": [10**6]}), 400)
    error(client.get("/tokenizer_info", params={"model": "nobody"}), 404)


def test_a_trace_is_the_documents_view(running: Running, client: httpx.Client) -> None:
    from glassformer.serving.views import make_view

    model = running.service.models["writer"]
    for view, other in (("tokens", None), ("lens", None), ("patching", "a fog in blue")):
        wanted = make_view(model, view, "a dog in blue", patch_from=other, name="writer")
        body = {"model": "writer", "view": view, "text": "a dog in blue", "patch_from": other}
        assert posted(client, "/v1/trace", **body) == wanted
    assert error(client.post("/v1/trace", json={"model": "writer", "view": "lens", "text": ""}), 400)
    assert (
        error(client.post("/v1/trace", json={"model": "writer", "view": "nothing", "text": "a"}), 400)["param"]
        == "view"
    )


def test_models_health_and_metrics(client: httpx.Client) -> None:
    listed = client.get("/v1/models").json()["data"]
    assert [one["id"] for one in listed] == ["writer", "vectors", "fills", "labels", "translator"]
    assert listed[0]["can"] == ["completions", "chat", "ask"] and listed[0]["positions"] == POSITIONS
    assert client.get("/v1/models/fills").json() == listed[2]
    assert error(client.get("/v1/models/fill"), 404)["code"] == "model_not_found"
    assert client.get("/health").json() == {"status": "ok"}
    posted(client, "/v1/completions", model="writer", prompt="a", max_tokens=3, ignore_eos=True)
    lines = client.get("/metrics").text.splitlines()
    counted = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
    assert counted['glassformer_generated_tokens_total{model="writer"}'] >= 3
    assert counted['glassformer_running{model="writer"}'] == 0
    assert counted['glassformer_requests_total{model="writer",outcome="length"}'] >= 1
    buckets = [value for name, value in counted.items() if name.startswith("glassformer_whole_seconds_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == counted['glassformer_whole_seconds_count{model="writer"}']


# --- What is refused --------------------------------------------------------------------------------------------------

PLAIN = {"model": "writer", "prompt": "a", "max_tokens": 1}
SAID = {"model": "writer", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"suffix": "b"}, "suffix"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"n": 0}, "n"),
        ({"n": 100}, "n"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"logprobs": 21}, "logprobs"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": [1] * (POSITIONS + 1)}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"max_tokens": 65}, "max_tokens"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"temperatur": 1}, "temperatur"),
        ({"model": "vectors"}, "model"),
    ],
)
def test_what_a_completion_cannot_have(client: httpx.Client, changes: dict[str, Any], param: str) -> None:
    told = error(client.post("/v1/completions", json={**PLAIN, **changes}), 400)
    assert told["param"] == param and told["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"store": True}, "store"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"audio": {"voice": "a"}}, "audio"),
    ],
)
def test_what_a_chat_cannot_have(client: httpx.Client, changes: dict[str, Any], param: str) -> None:
    assert error(client.post("/v1/chat/completions", json={**SAID, **changes}), 400)["param"] == param


def test_parameters_that_ask_for_nothing_are_taken(client: httpx.Client) -> None:
    posted(client, "/v1/completions", **PLAIN, suffix=None, user="u", presence_penalty=0, logit_bias={}, best_of=1)
    neutral = {"store": False, "tools": [], "tool_choice": "none", "modalities": ["text"], "metadata": {"a": "b"}}
    posted(client, "/v1/chat/completions", **SAID, **neutral, service_tier="auto", response_format={"type": "text"})


def test_bodies_that_are_none(client: httpx.Client) -> None:
    json = {"content-type": "application/json"}
    for body in (b"", b"{", b"[]", b"\xff", b"[" * 5000):
        error(client.post("/v1/completions", content=body, headers=json), 400)
    error(client.post("/v1/completions", content=b"{}", headers={"content-type": "text/plain"}), 415)
    error(client.post("/v1/completions", content=b"{}"), 415)
    assert error(client.post("/v1/completions", json={"prompt": "a" * 30_000}), 413)["code"] == "request_too_large"
    parts = iter([b"a" * 15_000, b"a" * 15_000])
    error(client.post("/v1/completions", content=parts, headers=json), 413)
    error(client.get("/v1/completions"), 405)
    error(client.get("/v1/nothing"), 404)
    error(client.get("/../../pyproject.toml"), 404)
    error(client.post("/v1/completions", json={**PLAIN, "model": "nobody"}), 404)
    error(client.post("/v1/completions", content=b'{"model": "\\ud800", "prompt": "a"}', headers=json), 404)
    error(client.post("/v1/completions", content=b'{"model": "writer", "prompt": "\\ud800"}', headers=json), 400)
    assert error(client.post("/v1/ask", json={"question": "a", "grounded": True}), 400)["param"] == "grounded"
    assert error(client.post("/v1/ask", json={"question": "a", "max_error": 0.1}), 400)["param"] == "max_error"


# --- Safety -----------------------------------------------------------------------------------------------------------


def test_another_host_is_refused(running: Running, client: httpx.Client) -> None:
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""):
        assert error(client.get("/health", headers={"host": host}), 403)["code"] == "wrong_host"
    for host in ("localhost", "LOCALHOST:99", "[::1]:8000", "127.0.0.1"):
        assert client.get("/health", headers={"host": host}).status_code == 200
    answer = client.get("/v1/models", headers={"origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_key() -> None:
    from serving.api_server import reader

    with serving({"vectors": reader(Sentence())}, key="right", hosts=None) as one, one.client() as client:
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "right"},
            {"authorization": "Bearer r\xe9"},
        ):
            answer = client.get("/v1/models", headers=[(k.encode(), v.encode("latin-1")) for k, v in headers.items()])
            assert error(answer, 401)["code"] == "invalid_api_key" and answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/v1/models", headers={"authorization": "Bearer right"}).status_code == 200
        assert client.get("/health").status_code == client.get("/").status_code == 200
        for path in ("/metrics", "/openapi.json", "/tokenizer_info"):
            error(client.get(path), 401)


def test_the_page(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html") and "<!doctype html>" in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert client.get("/main.js").headers["content-type"].startswith("text/javascript")
    for path in ("/__init__.py", "/..%2f__init__.py", "/page/main.js", "/app.py"):
        assert client.get(path).status_code == 404


def test_what_goes_wrong_inside_is_told_to_nobody(
    running: Running, client: httpx.Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(request: Request, deadline: float | None = None) -> None:
        raise RuntimeError(f"{SECRET} in /home/someone")

    batching = running.service.all["writer"].batching
    assert batching is not None
    monkeypatch.setattr(batching, "submit", breaks)
    with caplog.at_level(logging.DEBUG):
        answer = client.post("/v1/completions", json={**PLAIN, "prompt": SECRET})
    told = error(answer, 500)
    assert told["type"] == "server_error"
    number = told["message"].split()[-1].rstrip(".")
    assert number in caplog.text and "RuntimeError" in caplog.text
    for text in (answer.text, caplog.text):
        assert SECRET not in text and "/home/" not in text and "Traceback" not in text
