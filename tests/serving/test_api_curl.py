"""Each endpoint by `curl`, as a shell would ask it; and the server as a real process, from first line to end."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving.api_server import Running, serving
from tiny_models import save_decoder

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")

EXAMPLES: dict[str, dict[str, Any] | None] = {
    "/health": None,
    "/metrics": None,
    "/v1/models": None,
    "/v1/models/writer": None,
    "/tokenizer_info": None,
    "/openapi.json": None,
    "/": None,
    "/tokenize": {"prompt": "a man"},
    "/detokenize": {"tokens": [70, 71]},
    "/v1/completions": {"model": "writer", "prompt": "a man", "max_tokens": 4},
    "/v1/chat/completions": {"model": "writer", "messages": [{"role": "user", "content": "a"}], "max_tokens": 4},
    "/v1/embeddings": {"model": "vectors", "input": "a man"},
    "/v1/translate": {"model": "translator", "text": "a man in"},
    "/v1/classify": {"model": "labels", "text": "a man"},
    "/v1/fill": {"model": "fills", "text": "a [MASK]"},
    "/v1/ask": {"model": "writer", "question": "who?", "max_tokens": 3},
    "/v1/trace": {"model": "writer", "view": "tokens", "text": "a man"},
}


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving() as one:
        yield one


def curl(url: str, body: dict[str, Any] | None = None, *options: str) -> str:
    command = ["curl", "-sS", "--noproxy", "*", "--fail-with-body", "-m", "60", *options, url]
    if body is not None:
        command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_curl
@pytest.mark.parametrize("path", EXAMPLES)
def test_every_endpoint(running: Running, path: str) -> None:
    text = curl(running.url + path, EXAMPLES[path])
    assert text if path in ("/", "/metrics") else json.loads(text)


@needs_curl
def test_a_stream(running: Running) -> None:
    lines = curl(running.url + "/v1/completions", {**(EXAMPLES["/v1/completions"] or {}), "stream": True}, "-N")
    assert lines.startswith("data: {") and lines.endswith("data: [DONE]\n\n")


def test_every_endpoint_has_an_example(running: Running) -> None:
    with running.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) - {"/v1/models/{name}", "/v1/answer"} == set(EXAMPLES) - {
        "/",
        "/openapi.json",
        "/v1/models/writer",
    }


# --- A process --------------------------------------------------------------------------------------------------------


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "glassformer", "serve", *map(str, arguments)]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "GLASSFORMER_API_KEY"}
    return {**kept, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_says_when_it_is_ready_and_ends_in_good_order(tmp_path: Path, number: int) -> None:
    folder = save_decoder(tmp_path / "chat")
    arguments = command("--model", folder, "--port", 0, "--finish", 1, "--max-tokens", 4000)
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        try:
            assert process.stdout and process.stderr
            ready, _, _ = select.select([process.stdout], [], [], 120)
            line = process.stdout.readline() if ready else ""
            assert line.startswith("chat: http://127.0.0.1:"), line or process.stderr.read()
            url = line.split()[1]
            body = {"model": "chat", "prompt": "a man", "max_tokens": 3900, "stream": True, "ignore_eos": True}
            with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60, trust_env=False) as answer:
                lines = answer.iter_lines()
                next(lines)
                process.send_signal(number)
                rest = [each for each in lines if each]
            assert rest[-1] == "data: [DONE]"
            assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
            assert process.wait(60) == 0
            assert process.stderr.read() == "" and process.stdout.read() == ""
        finally:
            process.kill()


def refused(*arguments: object) -> str:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, env=environment())
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


@pytest.mark.slow
def test_what_cannot_be_served_is_said_in_a_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "cannot be used" in refused("--model", tmp_path, "--port", taken.getsockname()[1])
    told = refused("--model", tmp_path, "--host", "0.0.0.0")
    assert "--api-key" in told and "--insecure" in told
    assert "another name" in refused("--model", tmp_path, "--model", tmp_path)
    assert "'streams' must be" in refused("--model", tmp_path, "--streams", 0)
