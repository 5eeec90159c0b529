"""A real shell, in which `glassformer` is answered by the test's own process: what a page says, typed as it stands.

Python and torch are imported once and not for each command. In the folder `bin` lies a program of that name which hands
its arguments, its folder and its standard input to `Shell`, and gives back what the verb wrote.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from processes import run_inside

CLIENT = """#!{python} -SE
import base64, json, os, socket, sys
one = socket.socket(socket.AF_UNIX)
one.connect(os.environ["GLASSFORMER_SHELL"])
stdin = base64.b64encode(sys.stdin.buffer.read()).decode()
one.sendall(json.dumps([sys.argv[1:], os.getcwd(), stdin]).encode() + b"\\n")
code, out, err = json.loads(one.makefile("rb").read())
sys.stdout.buffer.write(base64.b64decode(out))
sys.stdout.flush()
sys.stderr.write(err)
sys.exit(code)
"""


@dataclass(frozen=True)
class Typed:
    """What a command left."""

    code: int
    out: str
    err: str


class Shell:
    """Bash in a folder, with `glassformer` as its verbs are; to be used in a `with`."""

    def __init__(self, place: Path, seconds: float = 240) -> None:
        self.place, self.seconds = place, seconds
        self._home = Path(tempfile.mkdtemp(prefix="gf"))  # a socket's name is short
        client = self._home / "glassformer"
        client.write_text(CLIENT.format(python=sys.executable), encoding="utf-8")
        client.chmod(0o755)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self._home / "s"))
        self._listening.listen(4)
        path = os.pathsep.join((str(self._home), str(Path(sys.executable).parent), os.environ["PATH"]))
        self._environment = {**os.environ, "PATH": path, "GLASSFORMER_SHELL": str(self._home / "s"), "COLUMNS": "100"}

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listening.close()
        shutil.rmtree(self._home)

    def run(self, command: str) -> Typed:
        """Type a command, and wait for its end."""
        end = time.monotonic() + self.seconds
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            words = ["bash", "-euo", "pipefail", "-c", command]
            places: dict[str, Any] = {"cwd": self.place, "env": self._environment, "stdin": subprocess.DEVNULL}
            process = subprocess.Popen(words, stdout=out, stderr=err, **places)
            try:
                while process.poll() is None and time.monotonic() < end:
                    if select.select([self._listening], [], [], 0.02)[0]:
                        self._answer()
                code = process.wait(1)
            finally:
                process.kill()
            told = []
            for file in (out, err):
                file.seek(0)
                told.append(file.read().decode(errors="replace"))
        return Typed(code, *told)

    def _answer(self) -> None:
        one, _ = self._listening.accept()
        with one:
            arguments, folder, stdin = json.loads(one.makefile("rb").readline())
            before = Path.cwd()
            os.chdir(folder)
            try:
                done = run_inside(*arguments, stdin=base64.b64decode(stdin))
            finally:
                os.chdir(before)
            out = base64.b64encode(done.out.encode(errors="surrogateescape")).decode()
            one.sendall(json.dumps([done.code, out, done.err]).encode())
