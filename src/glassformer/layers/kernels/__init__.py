"""Our own kernels in C++, compiled on the user's machine when they are first wanted, and kept for the next time.

`library()` is None where there is no C++ compiler: callers then compute the same with torch, slower.
"""

from __future__ import annotations

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

from glassformer.settings import cache_folder

SOURCES = tuple(sorted(Path(__file__).parent.glob("*.cpp")))
FILES = (*sorted(Path(__file__).parent.glob("*.h")), *SOURCES)
"""All that the library is made of."""

FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-shared", "-fPIC", "-std=c++17")


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, built if need be (about two seconds, once a machine). None, with one warning, without a
    C++ compiler or where it fails."""
    path = _place()
    if path is None:
        warnings.warn(
            "there is no C++ compiler (g++ or clang++): nothing is compiled, and decoding is slower.", stacklevel=2
        )
        return None
    try:
        build()
        return _declared(ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL))  # code that torch compiles calls it by name
    except (OSError, subprocess.SubprocessError) as error:
        warnings.warn(
            f"the C++ kernels could not be built ({_reason(error)}): quantised products run slowly.", stacklevel=2
        )
        return None


def begin() -> None:
    """Start building in the background if need be, so that it is done when torch has been imported."""
    path = _place()
    if path is not None and not path.is_file() and path not in _building:
        _building[path] = _Build(path)


def build() -> None:
    """Build the library if it is not there yet; torch is not imported. What the compiler may raise."""
    begin()
    for path in list(_building):
        _building.pop(path).finish()


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


def _place() -> Path | None:
    """Where the library lies, or will: named after all that it is made of."""
    found = compiler()
    if found is None:
        return None
    parts = [source.read_bytes() for source in FILES]
    parts.append(" ".join((found, *FLAGS, str(_torch()), version("torch"))).encode())
    return cache_folder() / f"kernels-{hashlib.sha256(b''.join(parts)).hexdigest()[:12]}-{machine()}.so"


def _torch() -> Path:
    """The folder of torch, found without importing it."""
    spec = find_spec("torch")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


class _Build:
    """The compiler at work, beside what it is to make."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.folder = tempfile.TemporaryDirectory(dir=path.parent)
        self.made = Path(self.folder.name) / path.name
        headers, libraries = _torch() / "include", _torch() / "lib"
        together = Path(self.folder.name) / "kernels.cpp"  # headers are read once: half the time
        together.write_text("".join(f'#include "{source}"\n' for source in SOURCES))
        command = [str(compiler()), *FLAGS, f"-I{headers}", "-o", str(self.made), str(together)]
        command += [f"-L{libraries}", "-ltorch_cpu", f"-Wl,-rpath,{libraries}"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def finish(self) -> None:
        """Wait, and give the library its name: whoever looks sees a whole file or none."""
        with self.folder:
            _, complaint = self.process.communicate(timeout=300)
            if self.process.returncode:
                raise subprocess.CalledProcessError(self.process.returncode, "the compiler", stderr=complaint)
            os.replace(self.made, self.path)


_building: dict[Path, _Build] = {}


def _declared(built: ctypes.CDLL) -> ctypes.CDLL:
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    built.glassformer_product.argtypes = [number, pointer, pointer, pointer, size, size, size]
    built.glassformer_pack.argtypes = [number, pointer, pointer, size, size]
    built.glassformer_attend.argtypes = [number, ctypes.POINTER(pointer), *[size] * 6, ctypes.c_float]
    built.glassformer_attend_few.argtypes = [ctypes.POINTER(pointer), *[ctypes.POINTER(size)] * 2, ctypes.c_float]
    built.glassformer_dense.argtypes = [number, pointer, pointer, pointer, size, size, size]
    built.glassformer_round_rows.argtypes = [pointer, pointer, pointer, size, size, ctypes.c_float, ctypes.c_float]
    built.glassformer_scale_rows.argtypes = [pointer, pointer, pointer, size, size]
    built.glassformer_int8_pack.argtypes = [pointer, pointer, size, size]
    built.glassformer_int8_product.argtypes = [*[pointer] * 4, *[size] * 3, ctypes.c_float, ctypes.c_float]
    for name in (
        "product",
        "pack",
        "attend",
        "attend_few",
        "dense",
        "round_rows",
        "scale_rows",
        "int8_pack",
        "int8_product",
    ):
        getattr(built, f"glassformer_{name}").restype = None
    built.glassformer_int8_is_quick.argtypes, built.glassformer_int8_is_quick.restype = [], number
    return built


def _reason(error: Exception) -> str:
    output = getattr(error, "stderr", b"") or b""
    lines = output.decode(errors="replace").strip().splitlines()
    return next((line for line in lines if "error" in line), str(error))
