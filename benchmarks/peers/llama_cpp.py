"""llama.cpp by its own programs, built once with native flags from the sources that llama-cpp-python carries."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parent.parent.parent / ".venv-peers" / "llama-cpp"
SOURCE = "llama-cpp-python==0.3.36"
PROGRAMS = ("llama-bench", "llama-batched-bench", "llama-quantize", "llama-completion", "llama-server")
FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DBUILD_SHARED_LIBS=OFF",
    # GCC 12 takes the stores before `ldtilecfg` for dead, and prompts end in a crash on processors with AMX
    "-DCMAKE_CXX_FLAGS=-fno-dse -fno-tree-dse",
)
KINDS = ("Q4_1", "Q4_0", "Q8_0", "BF16")
"""What llama.cpp may store the same values in; the file comes as the first."""


def programs(given: Path | None, threads: int) -> Path:
    """The folder of llama.cpp's programs: the one given, else built under `.venv-peers/llama-cpp`, once for its flags
    (minutes)."""
    folder = given or HOME / "build" / "bin"
    missing = [name for name in PROGRAMS if not (folder / name).is_file()]
    stamp, built_with = HOME / "build" / "flags.txt", "\n".join(FLAGS)
    if not given and not (stamp.is_file() and stamp.read_text() == built_with):
        missing = list(PROGRAMS)
    if missing and given:
        raise SystemExit(f"error: --llama-bin {given} lacks {', '.join(missing)}.")
    if missing:
        print(f"building llama.cpp from {SOURCE} in {HOME}, once", file=sys.stderr, flush=True)
        _build(_sources(), threads)
        stamp.write_text(built_with)
    return folder


def _sources() -> Path:
    """The folder of llama.cpp's sources, fetched from PyPI unless they are here."""
    HOME.mkdir(parents=True, exist_ok=True)
    # only this package as sources: what its own build needs may come as wheels
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
    if not (archives := list(HOME.glob("llama_cpp_python-*.tar.gz"))):
        subprocess.run([*download, "--dest", str(HOME), SOURCE], check=True, stdout=sys.stderr)
        archives = list(HOME.glob("llama_cpp_python-*.tar.gz"))
    folder = HOME / archives[0].name.removesuffix(".tar.gz")
    if not folder.is_dir():
        with tarfile.open(archives[0]) as archive:
            archive.extractall(HOME, filter="data")
    return folder / "vendor" / "llama.cpp"


def _build(sources: Path, threads: int) -> None:
    cmake, build = _cmake(), str(HOME / "build")
    subprocess.run([cmake, "-S", str(sources), "-B", build, *FLAGS], check=True, stdout=sys.stderr)
    command = [cmake, "--build", build, f"-j{threads}", "--target", *PROGRAMS]
    subprocess.run(command, check=True, stdout=sys.stderr)


def _cmake() -> str:
    """The system's cmake, else one from PyPI."""
    if found := shutil.which("cmake"):
        return found
    folder = HOME / "cmake"
    if not (folder / "bin" / "cmake").exists():
        venv.create(folder, with_pip=True, clear=True)
        install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "cmake"]
        subprocess.run(install, check=True, stdout=sys.stderr)
    return str(folder / "bin" / "cmake")


@dataclass(frozen=True)
class LlamaCpp:
    """llama.cpp's programs on one file of weights; each call is a process of its own, which loads and warms up first.

    Its programs' own clocks are read: what a call returns does not contain loading.
    """

    folder: Path
    model: Path
    threads: int

    def steps(self, count: int) -> float:
        """Seconds for `count` steps of one token each, from an empty context, without sampling."""
        return bench_seconds(self._bench("-p", "0", "-n", str(count)))

    def prompt(self, length: int) -> float:
        """Seconds to read a prompt."""
        return bench_seconds(self._bench("-p", str(length), "-n", "0"))

    def streams(self, count: int, prompt: int, new: int) -> tuple[float, float]:
        """Seconds to read `count` prompts, and seconds for `new` steps of all streams together."""
        room = str(count * (prompt + new))
        numbers = ["-npp", str(prompt), "-ntg", str(new), "-npl", str(count), "-c", room]
        return batched_seconds(self._run("llama-batched-bench", *numbers, "--output-format", "jsonl"))

    def first_byte(self, prompt: str) -> float:
        """Seconds from the start of a process that goes on from `prompt` to its first byte."""
        flags = ["--no-display-prompt", "-no-cnv", "--no-warmup", "--temp", "0", "-n", "1"]
        command = [self.folder / "llama-completion", "-m", self.model, "-t", str(self.threads), *flags, "-p", prompt]
        return seconds_to_first_byte([str(part) for part in command])

    def stored_as(self, kind: str, folder: Path) -> LlamaCpp:
        """The same with the values stored in another way, in a file that is made once."""
        path = folder / f"{self.model.stem.removesuffix('.Q4_1')}.{kind}.gguf"
        if kind not in self.model.name and not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            command = [self.folder / "llama-quantize", "--allow-requantize", self.model, part, kind, str(self.threads)]
            subprocess.run([str(word) for word in command], check=True, capture_output=True)
            part.rename(path)
        return self if kind in self.model.name else LlamaCpp(self.folder, path, self.threads)

    def _bench(self, *numbers: str) -> str:
        return self._run("llama-bench", *numbers, "-r", "1", "-o", "json")

    def _run(self, program: str, *words: str) -> str:
        command = [str(self.folder / program), "-m", str(self.model), "-t", str(self.threads), *words]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{program} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        return done.stdout


def bench_seconds(output: str) -> float:
    """The seconds of the one run that `llama-bench -o json` tells of."""
    (run,) = json.loads(output)
    return float(run["samples_ns"][0]) / 1e9


def batched_seconds(output: str) -> tuple[float, float]:
    """The seconds for prompts and for generation that `llama-batched-bench --output-format jsonl` tells of."""
    (line,) = [line for line in output.splitlines() if line.startswith("{")]
    run: dict[str, Any] = json.loads(line)
    return float(run["t_pp"]), float(run["t_tg"])


def seconds_to_first_byte(command: list[str], environment: dict[str, str] | None = None) -> float:
    """Seconds from spawning a process to its first byte on standard output; it is then left to end."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    assert process.stdout is not None
    first = process.stdout.read(1)
    seconds = time.perf_counter() - begin
    process.stdout.read()
    if process.wait() or not first:
        raise RuntimeError(f"{command[0]} wrote nothing, or ended with {process.returncode}.")
    return seconds
