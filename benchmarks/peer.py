"""A peer library in a process and an environment of its own, asked over pipes and idle while it is not asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).resolve().parent
SETTLE_SECONDS = 0.5  # thread pools spin for a while after their last work; the other side starts when they sleep


def peer_python(name: str, given: str | None) -> str:
    """The interpreter that has the peer: the one given, else `.venv-peers/NAME`, made from `peers/NAME.txt` once."""
    if given:
        return given
    folder = HERE.parent / ".venv-peers" / name
    python = folder / "bin" / "python"
    done = folder / "installed.txt"
    requirements = HERE / "peers" / f"{name}.txt"
    if not done.exists() or done.read_text() != requirements.read_text():
        print(f"installing {name} in {folder}, once", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True, stdout=sys.stderr)
        done.write_text(requirements.read_text())
    return str(python)


class Peer:
    """`with Peer("joeynmt", python, threads) as peer: peer.ask("describe")`."""

    def __init__(self, name: str, python: str, threads: int) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (closed at exit)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
        environment.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            [python, str(HERE / "peers" / f"{name}_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )

    def ask(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for the answer. `RuntimeError` with the peer's last words where it died."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"ask": name, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._log.seek(0)
            raise RuntimeError(f"{self.name} ended at '{name}':\n{self._log.read()[-3000:]}")
        time.sleep(SETTLE_SECONDS)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
