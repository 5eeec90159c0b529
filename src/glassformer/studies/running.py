"""Running a study part by part: what is done already is not done again, and a part that cannot run says why."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from glassformer.checkpoints.files import read_json, write_json
from glassformer.errors import InputError
from glassformer.studies.study import Part, Result, Setting


@dataclass(frozen=True)
class Done:
    """A part with what it measured; without a result, `missing` says why there is none."""

    part: Part
    result: Result | None
    seconds: float = 0.0
    missing: str = ""


def run_parts(parts: Sequence[Part], setting: Setting, out: Path, first: int = 1) -> list[Done]:
    """Run the parts in their order; each result is kept in `out`/parts as soon as it is there.

    A result of the same part, scale, threads, runs and all else that was given is taken from there. `first` is the
    number of the first part. Random numbers and the number of threads are those that the caller has again afterwards.
    """
    (out / "parts").mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(setting.threads)
    try:
        return [
            _run(part, setting, out / "parts" / f"{part.name}.json", number) for number, part in enumerate(parts, first)
        ]
    finally:
        torch.set_num_threads(threads)


def _run(part: Part, setting: Setting, kept: Path, number: int) -> Done:
    key = _key(part, setting)
    if kept.is_file():
        content = read_json(kept)
        if content.get("key") == key:
            setting.say(f"{number}. {part.title}: measured before, in {content['seconds']:.0f} s")
            return Done(part, content["result"], content["seconds"])
    setting.say(f"{number}. {part.title} …")
    began = time.perf_counter()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            result = part.run(setting)
    except InputError as error:
        setting.say(f"{number}. {part.title}: not measured. {error}")
        return Done(part, None, missing=str(error))
    seconds = time.perf_counter() - began
    write_json(kept, {"key": key, "seconds": seconds, "result": result})
    setting.say(f"{number}. {part.title}: {seconds:.0f} s")
    return Done(part, result, seconds)


def _key(part: Part, setting: Setting) -> dict[str, Any]:
    """What a kept result must agree in to be used again."""
    return {
        "part": part.name,
        "version": part.version,
        "scale": setting.scale,
        "threads": setting.threads,
        "runs": sorted(str(run) for run in setting.runs),
        **({"given": dict(setting.given)} if setting.given else {}),
    }
