"""Clients of an OpenAI-compatible server, cheap enough to leave the processor to it, and servers as processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

START_SECONDS = 180
CONTEXT = 512  # positions for each of llama-server's streams


class Refused(RuntimeError):
    """The server answered with another status than 200."""

    def __init__(self, status: int, body: str, retry_after: float) -> None:
        super().__init__(f"status {status}: {body[:300]}")
        self.status, self.retry_after = status, retry_after


@dataclass(frozen=True)
class Server:
    """A server that is running."""

    name: str
    model: str
    port: int
    process: int

    def resident_mb(self) -> float:
        """The memory that its process holds."""
        for line in Path(f"/proc/{self.process}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError(f"{self.name} is gone.")


@contextmanager
def resting(servers: Iterable[Server]) -> Iterator[None]:
    """These servers do nothing at all until the block ends, not even wait."""
    held = [server.process for server in servers]
    try:
        for process in held:
            os.kill(process, signal.SIGSTOP)
        yield
    finally:
        for process in held:
            os.kill(process, signal.SIGCONT)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def our_command(model: str, precision: str, streams: int, queue: int, port: int) -> list[str]:
    words = [sys.executable, "-m", "glassformer", "serve", "--model", model, "--precision", precision]
    return [*words, "--port", str(port), "--streams", str(streams), "--queue", str(queue)]


def llama_command(folder: Path, model: Path, threads: int, streams: int, port: int) -> list[str]:
    words = [str(folder / "llama-server"), "-m", str(model), "-t", str(threads), "-np", str(streams), "-cb"]
    return [*words, "-c", str(streams * CONTEXT), "--host", "127.0.0.1", "--port", str(port)]


@contextmanager
def served(name: str, model: str, command: Sequence[str], port: int, threads: int) -> Iterator[Server]:
    """A server that answers, until the block ends; it is asked to stop as a person would ask it."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            _wait(process, port, name, log)
            yield Server(name, model, port, process.pid)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, name: str, log: Any) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    log.seek(0)
    raise RuntimeError(f"{name} did not start: {log.read()[-2000:]}")


async def stream(server: Server, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """The events of a streamed completion. The connection is cut where the caller leaves. Raises `Refused`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(_request(server, body))
        status, headers = await _head(reader)
        if status != 200:
            rest = (await reader.read()).decode(errors="replace")
            raise Refused(status, rest, float(headers.get("retry-after", 1)))
        async for line in _lines(reader, headers.get("transfer-encoding") == "chunked"):
            if line == b"data: [DONE]":
                return
            if line.startswith(b"data: "):
                yield json.loads(line[6:])
        raise RuntimeError(f"{server.name}: the stream ended without [DONE].")
    finally:
        writer.close()


def _request(server: Server, body: Mapping[str, Any]) -> bytes:
    content = json.dumps({"model": server.model, "stream": True, **body}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
    pairs = (line.partition(":") for line in lines if line)
    return int(status.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}


async def _lines(reader: asyncio.StreamReader, chunked: bool) -> AsyncIterator[bytes]:
    held = b""
    while True:
        if chunked:
            size = int(await reader.readline() or b"0", 16)
            part = (await reader.readexactly(size + 2))[:size]
        else:
            part = await reader.read(65536)
        if not part:
            return
        *whole, held = (held + part).split(b"\n")
        for line in whole:
            yield line.rstrip(b"\r")


@dataclass
class Seen:
    """What a client saw: seconds to the first event, between events, tokens that the server counted."""

    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    tokens: int = 0


class _Listener(asyncio.Protocol):
    """Asks, and hears every event as its bytes come: a fifth of what `stream` takes of the processor, which the server
    needs as well. `over` is done at the end of the answer."""

    def __init__(self, request: bytes, hear: Callable[[dict[str, Any]], None]) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request, self._hear, self._held = request, hear, b""

    def connection_made(self, transport: Any) -> None:
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:  # among them those between chunks, which say nothing
            if line.startswith(b"HTTP/1.1 ") and not line.startswith(b"HTTP/1.1 200"):
                self._fail(line.decode(errors="replace"))
            elif line.startswith(b"data: [DONE]") and not self.over.done():
                self.over.set_result(None)
            elif line.startswith(b"data: ") and not self.over.done():
                self._hear(json.loads(line[6:]))

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"the stream ended without [DONE]: {error}")

    def _fail(self, why: str) -> None:
        if not self.over.done():
            self.over.set_exception(RuntimeError(why))


async def ask(server: Server, ids: Sequence[int], new: int, seen: Seen) -> None:
    """One streamed completion of exactly `new` tokens."""
    body = {"prompt": list(ids), "max_tokens": new, "temperature": 0, "ignore_eos": True}
    last, count = time.perf_counter(), 0

    def hear(event: dict[str, Any]) -> None:
        nonlocal last, count
        now = time.perf_counter()
        if event.get("choices"):
            (seen.between if count else seen.first).append(now - last)
            last, count = now, count + 1
        if event.get("usage"):
            seen.tokens += int(event["usage"]["completion_tokens"])

    request = _request(server, {**body, "stream_options": {"include_usage": True}})
    loop = asyncio.get_running_loop()
    transport, listener = await loop.create_connection(lambda: _Listener(request, hear), "127.0.0.1", server.port)
    try:
        await listener.over
    finally:
        transport.close()


async def load(server: Server, prompts: Sequence[Sequence[Sequence[int]]], new: int) -> tuple[float, Seen]:
    """Clients side by side, each with its prompts one after another; the seconds until all have ended."""
    seen = Seen()

    async def client(own: Sequence[Sequence[int]]) -> None:
        for ids in own:
            await ask(server, ids, new, seen)

    begin = time.perf_counter()
    await asyncio.gather(*(client(own) for own in prompts))
    return time.perf_counter() - begin, seen


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
