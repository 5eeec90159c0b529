"""The study of a model that is there already."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from glassformer.errors import InputError
from glassformer.interpret.facts import Fact
from glassformer.layers.quantized import QuantizedLinear
from glassformer.models.decoder import Decoder
from glassformer.studies.fact_recall import study
from glassformer.studies.fact_recall.gate import thresholds
from glassformer.studies.fact_recall.predictions import IN_CLASS
from glassformer.studies.fact_recall.questions import asked_of, opposites
from glassformer.studies.fact_recall.stages import Material
from glassformer.studies.running import Done
from glassformer.studies.study import Setting
from glassformer.tasks.model import Model

Notes = list[tuple[str, str]]


def study_loaded(
    name: str,
    path: Path,
    setting: Setting,
    out: Path,
    *,
    template: str | None = None,
    shots: int | None = None,
    relation: str | None = None,
    limit: int = 120,
    seed: int = 0,
) -> tuple[list[Done], Notes]:
    """Ask a model the facts of a file, and study how it recalls those that it knows; what to note about it.

    Raises `InputError` for a model that is no decoder, and for files and facts as `questions.asked_of`.
    """
    asked = asked_of(path, template, shots, seed, relation, setting.pick(thresholds(setting)[1], IN_CLASS, IN_CLASS))
    stored, model = _bits(name), Model.load(name)
    if not isinstance(model.network, Decoder):
        raise InputError(f"{name}: recall is studied in decoders; this model is {model.purpose}.")
    given = {"model": name, "weights": digest(model), "facts": digest_of(asked), "limit": limit, "seed": seed}
    material = Material(model, asked, opposites(), limit, seed)
    done = study(material, replace(setting, given=given), out)
    left_out = ", ".join(f"{count} {why}" for why, count in asked.dropped.items())
    notes = [
        ("model", f"{name}{stored}"),
        ("facts", f"{path.name}: {len(asked)} of {len(asked.classes)} answers, {len(asked.shots)} shots"),
        ("left out", left_out or "nothing"),
        ("limit and seed", f"{limit} facts, seed {seed}"),
    ]
    return done, notes


def digest(model: Model) -> str:
    """A hash of all weights, so that results are not taken for those of another model of the same name."""
    found = hashlib.blake2b(digest_size=8)
    for tensor in model.network.state_dict().values():
        found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def digest_of(facts: Sequence[Fact]) -> str:
    """A hash of what is asked."""
    found = hashlib.blake2b(digest_size=8)
    for fact in facts:
        found.update(f"{fact.prompt}\0{fact.start}\0{fact.answer}\0".encode())
    return found.hexdigest()


def _bits(name: str) -> str:
    """What must be said of a model whose file stores its weights in fewer bits."""
    network: Any = Model.load(name, precision="stored").network
    bits = {module.bits for module in network.modules() if isinstance(module, QuantizedLinear)}
    if not bits:
        return ""
    words = " and ".join(str(each) for each in sorted(bits))
    return f" (weights stored in {words} bits, computed in fp32: what is found is found of the rounded model)"
