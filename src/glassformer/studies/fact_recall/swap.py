"""The subspace swap: at the end of the text, another fact's output in the directions that answers are read from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from glassformer.interpret.discriminants import Space
from glassformer.layers.norm import LayerNorm
from glassformer.models.weights import Weights
from glassformer.studies.fact_recall.bench import Bench, Layers, halved
from glassformer.studies.fact_recall.concatenation import least
from glassformer.studies.fact_recall.predictions import FOLLOWED
from glassformer.studies.fact_recall.statistics import mean_interval, mean_shown, paired, untested
from glassformer.studies.study import Setting
from glassformer.tasks.intervals import wilson

Basis = Float[Tensor, "k D"]
"""Orthonormal rows."""


def measure_swap(bench: Bench, layers: Layers, setting: Setting) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How far logit(other answer) − logit(own answer) moves with each subspace swapped, and the two tests.

    Every output of attention at the end, in these layers, is held at its unedited value, but for the component in the
    subspace, which is the partner's: x + P (x' − x).
    """
    expression = f"self_attention.output[{layers}] @ end"
    kept = bench.trace(expression)
    own = kept.values
    first, second = halved(bench.classes, bench.seed)
    answers = answer_basis(bench)
    drawn = [random_basis(answers, bench.seed + number) for number in range(setting.pick(1, 2, 5))]

    def moved(basis: Basis | None) -> list[float]:
        values = {name: swapped(value, value[bench.partners], basis) for (_, name), value in own.items()}
        after = bench.difference([bench.put(expression, values)], layers, "end")
        found: list[float] = (bench.baseline - after).tolist()
        return found

    shifts = {"whole": moved(None), "answers": moved(answers)}
    probing = moved(probe_basis(sum(value[:, 0] for value in own.values()), bench.classes, first))
    rows = [moved(basis) for basis in drawn]
    shifts["random"] = [sum(each) / len(each) for each in zip(*rows, strict=True)]
    found: dict[str, Any] = {
        "dimensions": len(answers), "of": answers.shape[1], "shifts": shifts,
        "probe": [probing[row] for row in second], "flips": _flips(bench, shifts),
    }  # fmt: skip
    return found, _tests(shifts, setting)


def swapped(own: Tensor, other: Tensor, basis: Basis | None) -> Tensor:
    """`own` with the component of `other` in the subspace; all of `other` without a subspace."""
    return other if basis is None else own + (other - own) @ basis.T @ basis


def answer_basis(bench: Bench) -> Basis:
    """The space in which the logits of the answers differ: rows of the unembedding for the first tokens of all answers,
    with the final norm's gain, less their mean."""
    tokens = sorted(set(bench.answers.tolist()))
    rows = Weights(bench.network).W_U.detach().t()[tokens].double()
    norm = bench.network.stack.final_norm
    if norm is not None:
        rows = rows * norm.weight.detach().double()
        rows = rows - rows.mean(-1, keepdim=True) if isinstance(norm, LayerNorm) else rows
    return orthonormal(rows - rows.mean(0))


def probe_basis(states: Any, labels: Sequence[str], rows: Sequence[int]) -> Basis:
    """The space of the directions by which a linear probe tells the answers apart, fitted to these rows of states."""
    names = sorted(set(labels))
    truth = torch.tensor([names.index(labels[row]) for row in rows])
    weight, _ = Space(states[list(rows)].double().cpu()).reader(truth, len(names), 1.0)
    return orthonormal(weight - weight.mean(0))


def random_basis(like: Basis, seed: int) -> Basis:
    """A random subspace of as many dimensions."""
    draw = torch.Generator().manual_seed(seed)
    return orthonormal(torch.randn(like.shape, generator=draw, dtype=torch.float64))


def orthonormal(rows: Tensor) -> Basis:
    """Orthonormal rows that span the same space."""
    _, sizes, axes = torch.linalg.svd(rows.double(), full_matrices=False)
    return axes[sizes > 1e-6 * sizes.max()].float()


def _flips(bench: Bench, shifts: dict[str, list[float]]) -> dict[str, list[float]]:
    """The share of facts whose other answer then has the larger logit, with its interval."""
    found = {}
    for name, each in shifts.items():
        hits = sum(base - shift < 0 for base, shift in zip(bench.baseline.tolist(), each, strict=True))
        around = wilson(hits, len(each))
        found[name] = [hits / len(each), around.low, around.high]
    return found


def _tests(shifts: dict[str, list[float]], setting: Setting) -> list[dict[str, Any]]:
    whole, own, random = shifts["whole"], shifts["answers"], shifts["random"]
    if mean_interval(whole)[1].low <= 0:
        why = f"even the whole output of attention does not move the answer ({mean_shown(whole)})"
        return untested(["answer follows", "beyond random subspace"], why)
    moved = [a - FOLLOWED * b for a, b in zip(own, whole, strict=True)]
    beyond = [a - b for a, b in zip(own, random, strict=True)]
    words = f"the answer moves by {mean_shown(own)}, of {mean_shown(whole)} by the whole output"
    other = f"the answer moves by {mean_shown(own)} against {mean_shown(random)}"
    return [
        paired("answer follows", moved, words, least=least(setting)),
        paired("beyond random subspace", beyond, other, least=least(setting)),
    ]
