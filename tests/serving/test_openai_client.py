"""The official `openai` client against the server: whole answers, streams, sync and async, and its errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from serving.api_server import Running, serving

openai = pytest.importorskip("openai", reason="the official client is not installed")

KEY = "a key"
ASKED: list[Any] = [{"role": "user", "content": "a man"}]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving(key=KEY) as one:
        yield one


@pytest.fixture(scope="module")
def client(running: Running) -> Any:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key=KEY, max_retries=0, timeout=60)


def test_models(client: Any) -> None:
    assert [model.id for model in client.models.list()][0] == "writer"
    assert client.models.retrieve("vectors").owned_by == "glassformer"


def test_completions(running: Running, client: Any) -> None:
    settings: dict[str, Any] = {"model": "writer", "max_tokens": 8, "seed": 2, "temperature": 0.7}
    whole = client.completions.create(prompt="a man", logprobs=1, **settings)
    parts = list(
        client.completions.create(prompt="a man", stream=True, stream_options={"include_usage": True}, **settings)
    )
    assert "".join(part.choices[0].text for part in parts if part.choices) == whole.choices[0].text
    assert parts[-1].usage.completion_tokens == whole.usage.completion_tokens == len(whole.choices[0].logprobs.tokens)
    assert [each.index for each in client.completions.create(prompt=[[70, 71], [72]], n=2, **settings).choices] == [
        *range(4)
    ]


def test_chats(running: Running, client: Any) -> None:
    settings: dict[str, Any] = {"model": "writer", "messages": ASKED, "max_completion_tokens": 8, "seed": 2}
    whole = client.chat.completions.create(logprobs=True, top_logprobs=2, **settings)
    assert whole.choices[0].message.role == "assistant"
    assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
    with client.chat.completions.create(stream=True, **settings) as stream:
        deltas = [part.choices[0].delta.content or "" for part in stream]
    assert "".join(deltas) == whole.choices[0].message.content


def test_the_clients_own_streaming_helper(client: Any) -> None:
    with client.chat.completions.stream(model="writer", messages=ASKED, max_tokens=5, seed=2) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        with pytest.raises(openai.LengthFinishReasonError) as cut:  # what it says of every answer that was cut off
            stream.get_final_completion()
    assert cut.value.completion.choices[0].message.content == text


def test_embeddings(running: Running, client: Any) -> None:
    found = client.embeddings.create(model="vectors", input=["a man", "the dog"])  # as base64, which it decodes
    wanted = running.service.models["vectors"].embed(["a man", "the dog"]).tolist()
    for one, row in zip(found.data, wanted, strict=True):
        assert one.embedding == pytest.approx(row, abs=1e-6)


def test_errors_are_its_own(running: Running, client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="nobody", prompt="a")
    assert missing.value.code == "model_not_found" and missing.value.param == "model"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.completions.create(model="writer", prompt="a", suffix="b")
    assert wrong.value.code == "unsupported_parameter" and wrong.value.param == "suffix"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{running.url}/v1", api_key="wrong", max_retries=0).models.list()


def test_many_at_once(running: Running) -> None:
    model = running.service.models["writer"]
    prompts = ["a man", "the road", "two women", "日本", "eat"] * 2
    wanted = [each.text for each in model.generate(prompts, max_new_tokens=10)]

    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key=KEY, max_retries=0) as client:

            async def ask(prompt: str) -> str:
                stream = await client.completions.create(
                    model="writer", prompt=prompt, max_tokens=10, temperature=0, stream=True
                )
                return "".join([part.choices[0].text async for part in stream])

            return await asyncio.gather(*map(ask, prompts))

    assert asyncio.run(ask_all()) == wanted
