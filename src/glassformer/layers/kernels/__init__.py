"""Our own kernels in C++, compiled on the user's machine when they are first wanted, and kept for the next time.

There are four libraries, so that the first words of a language model wait for its own kernels alone. `library(part)`
is None where there is no C++ compiler: callers then compute the same with torch, slower. A command that writes asks for
its kernels while torch is being imported (`begin`), and its first word is computed so as well, if they are not there by
then (`pending`).
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from glassformer.settings import cache_folder

Part = Literal["generation", "exact", "batches", "encoding"]
"""Kernels of a language model that writes, its products in fp32 with weights of few bits, kernels of many texts at
once (translating, training), and those of an encoder with weights of few bits."""

FOLDER = Path(__file__).parent
SOURCES: dict[Part, tuple[Path, ...]] = {
    "generation": tuple(FOLDER / f"{name}.cpp" for name in ("attention", "dense", "quantized")),
    "exact": (FOLDER / "exact.cpp",),
    "batches": tuple(FOLDER / f"{name}.cpp" for name in ("few", "int8", "ragged")),
    "encoding": (FOLDER / "post_norm.cpp",),
}
HEADERS = tuple(sorted(FOLDER.glob("*.h")))
FILES = (*HEADERS, *(source for sources in SOURCES.values() for source in sources))
"""All that the libraries are made of."""

FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-shared", "-fPIC", "-std=c++17")


@functools.cache
def library(part: Part) -> ctypes.CDLL | None:
    """The compiled kernels, built if need be (a few seconds, once a machine). None, with one warning, without a C++
    compiler or where it fails."""
    path = _place(part)
    if path is None:
        _warn_once()
        return None
    try:
        build(part)
        # code that torch compiles calls kernels by name
        return _declared(ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL), part)
    except (OSError, subprocess.SubprocessError) as error:
        warnings.warn(
            f"the C++ kernels could not be built ({_reason(error)}): decoding and training are slower.", stacklevel=2
        )
        return None


def begin(part: Part) -> None:
    """Start building in the background if need be, so that it is done when torch has been imported."""
    path = _place(part)
    if path is not None and not path.is_file() and path not in _building:
        _building[path] = _Build(path, part)


def pending(part: Part) -> bool:
    """Whether the compiler is still at work on a library that was begun: what can be computed without it need not wait.
    A library that was missed so is kept for the next time, even if this process ends before."""
    at_work = [build for build in list(_building.values()) if build.part == part and build.process.poll() is None]
    for build in at_work:
        build.missed = True
    return bool(at_work)


def at_hand(part: Part) -> bool:
    """Whether a library can be used now: it is there, and not `pending`."""
    return not pending(part) and library(part) is not None


def settle() -> None:
    """Wait until no library is `pending`."""
    for build in list(_building.values()):
        library(build.part)


def build(part: Part) -> None:
    """Build a library if it is not there yet; torch is not imported. What the compiler may raise."""
    begin(part)
    path = _place(part)
    if path in _building:
        _building.pop(path).finish()


@functools.cache
def _warn_once() -> None:
    warnings.warn(
        "there is no C++ compiler (g++ or clang++): nothing is compiled; decoding and training are slower.",
        stacklevel=3,
    )


@functools.cache
def compiler() -> str | None:
    """The C++ compiler: CXX, g++ or clang++, whichever is there first."""
    candidates = [os.environ.get("CXX"), "g++", "clang++"]
    return next((found for name in candidates if name and (found := shutil.which(name))), None)


@functools.cache
def machine() -> str:
    """What code for this very processor depends on, as a short text: a cache may be shared between machines."""
    flags = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(f"{platform.machine()} {platform.system()} {flags}".encode()).hexdigest()[:12]


def _place(part: Part) -> Path | None:
    """Where a library lies, or will: named after all that it is made of."""
    found = compiler()
    if found is None:
        return None
    parts = [source.read_bytes() for source in (*HEADERS, *SOURCES[part])]
    parts.append(" ".join((found, *FLAGS, str(_torch()), version("torch"))).encode())
    return cache_folder() / f"{part}-{hashlib.sha256(b''.join(parts)).hexdigest()[:12]}-{machine()}.so"


def _torch() -> Path:
    """The folder of torch, found without importing it."""
    spec = find_spec("torch")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


class _Build:
    """The compiler at work, beside what it is to make."""

    def __init__(self, path: Path, part: Part) -> None:
        self.path, self.part, self.missed = path, part, False
        path.parent.mkdir(parents=True, exist_ok=True)
        self.folder = tempfile.TemporaryDirectory(dir=path.parent)
        self.made = Path(self.folder.name) / path.name
        libraries = _torch() / "lib"
        together = Path(self.folder.name) / "kernels.cpp"  # headers are read once
        together.write_text("".join(f'#include "{source}"\n' for source in SOURCES[part]))
        command = [str(compiler()), *FLAGS, "-o", str(self.made), str(together)]
        command += [f"-L{libraries}", "-ltorch_cpu", f"-Wl,-rpath,{libraries}"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        atexit.register(self._leave)  # after the folder's own, which is then called later

    def finish(self) -> None:
        """Wait, and give the library its name: whoever looks sees a whole file or none."""
        atexit.unregister(self._leave)
        with self.folder:
            _, complaint = self.process.communicate(timeout=300)
            if self.process.returncode:
                raise subprocess.CalledProcessError(self.process.returncode, "the compiler", stderr=complaint)
            os.replace(self.made, self.path)

    def _leave(self) -> None:
        """At the end of the process: keep what was missed, or is done; nobody has asked for the rest."""
        if not self.missed and self.process.poll() is None:
            self.process.kill()
        with contextlib.suppress(OSError, subprocess.SubprocessError, KeyboardInterrupt):
            self.finish()


_building: dict[Path, _Build] = {}


def _declared(built: ctypes.CDLL, part: Part) -> ctypes.CDLL:
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    pointers, sizes, real = ctypes.POINTER(pointer), ctypes.POINTER(size), ctypes.c_float
    reals = ctypes.POINTER(real)
    arguments: dict[Part, dict[str, list[Any]]] = {
        "generation": {
            "product": [number, pointer, pointer, pointer, size, size, size, pointer, number],
            "pack": [number, pointer, pointer, size, size],
            "attend": [number, pointers, *[size] * 6, real],
            "dense": [number, pointer, pointer, pointer, size, size, size],
        },
        "exact": {"exact": [number, pointer, pointer, pointer, size, size, size]},
        "batches": {
            "attend_few": [pointers, sizes, sizes, real],
            "round_rows": [pointer, pointer, pointer, size, size, real, real],
            "scale_rows": [pointer, pointer, pointer, size, size],
            "int8_pack": [pointer, pointer, size, size],
            "int8_product": [*[pointer] * 4, *[size] * 3, real, real],
            "ragged": [pointers, sizes, sizes, real],
            "ragged_back": [pointers, sizes, sizes, real],
        },
        "encoding": {"post_norm": [pointers, sizes, reals]},
    }
    for name, types in arguments[part].items():
        function = getattr(built, f"glassformer_{name}")
        function.argtypes, function.restype = types, None
    if part == "batches":
        built.glassformer_int8_is_quick.argtypes, built.glassformer_int8_is_quick.restype = [], number
    return built


def _reason(error: Exception) -> str:
    output = getattr(error, "stderr", b"") or b""
    lines = output.decode(errors="replace").strip().splitlines()
    return next((line for line in lines if "error" in line), str(error))
