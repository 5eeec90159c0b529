"""A linear probe for truth: whether an answer is right, read off the hidden states that wrote it.

Logistic regression with a ridge on states of right and wrong answers: Azaria & Mitchell 2023, "The Internal State of an
LLM Knows When It's Lying"; linear as in Marks & Tegmark 2024, "The Geometry of Truth".
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from glassformer.checkpoints.files import read_json, write_bytes, write_json
from glassformer.errors import InputError, did_you_mean
from glassformer.factuality.records import Record
from glassformer.factuality.uncertainty import Score
from glassformer.interpret.discriminants import Space

STRENGTHS = (10.0, 1.0, 0.1, 0.01, 0.001)
"""The ridges λ that are tried, against a mean loss and in units of a feature's variance; from the strongest on."""

FOLDS = 5
FORMAT = 1

Part = Literal["answer", "question", "both"]
"""What a probe reads: the state that has read the answer, that which has read the question alone, or both."""

_PAPER = "Azaria & Mitchell 2023, The Internal State of an LLM Knows When It's Lying"


@dataclass(frozen=True, eq=False)
class TruthProbe:
    """Reads x · `weight` + `bias`, the log-odds of being wrong, off the states x of a record.

    `held_out` are the scores of the records that it was fitted to, each by a probe which had seen none of its entity:
    of these a figure may be made, of `predict` on the same records not. `model` and `site` say whose states they were.
    """

    part: Part
    weight: Float[Tensor, D] = field(repr=False)
    bias: float
    strength: float
    held_out: tuple[float, ...] = field(repr=False)
    n: int
    n_wrong: int
    n_entities: int
    model: str = ""
    site: str = ""

    def predict(self, records: Sequence[Record]) -> list[float]:
        """The log-odds of being wrong, one a record: higher = more uncertain."""
        rows = features(records, self.part)
        if rows.shape[1] != len(self.weight):
            raise InputError(f"the probe reads {len(self.weight)} numbers a record, these have {rows.shape[1]}.")
        found: list[float] = (rows @ self.weight + self.bias).tolist()
        return found

    @property
    def score(self) -> Score:
        """The probe as a score beside the others. One that reads the question only is a baseline."""
        name = {"answer": "truth probe", "question": "question probe", "both": "truth probe, both"}[self.part]
        return Score(name, lambda one: self.predict([one])[0], "" if self.part == "question" else _PAPER, "one pass")

    def check(self, model: str, site: str) -> None:
        """`InputError` where the probe was fitted to states of another model or site."""
        for what, own, given in (("model", self.model, model), ("site", self.site, site)):
            if own != given:
                raise InputError(f"the probe is for states of the {what} '{own}', not of '{given}': fit another.")

    def save(self, path: str | Path) -> Path:
        """Write `path`.safetensors and `path`.json; the path of the latter."""
        tensors, about = _paths(path)
        held = {"weight": self.weight.contiguous(), "held_out": torch.tensor(self.held_out, dtype=torch.float64)}
        write_bytes(tensors, save(held))
        names = ("part", "bias", "strength", "n", "n_wrong", "n_entities", "model", "site")
        write_json(about, {"format": FORMAT, **{name: getattr(self, name) for name in names}})
        return about

    @classmethod
    def load(cls, path: str | Path) -> TruthProbe:
        """What `save` wrote. Raises `InputError` for files that are missing, damaged or newer."""
        tensors, about = _paths(path)
        content: Mapping[str, Any] = read_json(about)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(f"{about} is no truth probe of format {FORMAT}.")
        fields = {name: value for name, value in content.items() if name != "format"}
        try:
            held = load_file(tensors)
            probe = cls(weight=held["weight"], held_out=tuple(held["held_out"].tolist()), **fields)
            whole = probe.weight.ndim == 1 and len(probe.held_out) == probe.n and probe.part in get_args(Part)
            float(probe.bias)
        except (KeyError, TypeError, ValueError, AttributeError, OSError, SafetensorError) as error:
            raise InputError(f"the truth probe {about} is damaged: {error!r}.") from None
        if not whole:
            raise InputError(f"the truth probe {about} is damaged: {tensors.name} does not fit it.")
        return probe


def fit(
    records: Sequence[Record],
    right: Sequence[bool],
    entities: Sequence[Hashable],
    *,
    part: Part = "answer",
    strengths: Sequence[float] = STRENGTHS,
    folds: int = FOLDS,
    seed: int = 0,
    model: str = "",
    site: str = "",
) -> TruthProbe:
    """A probe of records with states, which answers were `right`, and what each is about (`entities`).

    It minimises the mean of log(1 + exp(∓(x · w + b))) + λ/2 |w|², x standardised. λ is chosen of `strengths` by the
    loss on entities that are held out, in `folds` parts, none of which shares an entity with another; for the scores
    `held_out` it is chosen anew for each part, among the others. `part` "question" gives the baseline: how well the
    question alone tells which answers will be wrong.

    Raises `InputError` for lengths that differ, records without states, fewer entities than folds, fewer than 3 folds,
    and answers that are all right or all wrong.
    """
    rows = features(records, part)
    truth = _truth(rows, right, entities)
    parts = folds_of(entities, folds, seed)
    _check_parts(truth, parts)
    strengths = sorted(strengths, reverse=True)
    held_out, losses = _held_out(rows, truth, parts, strengths)
    strength = strengths[int(losses.argmin())]
    space = Space(rows)
    fits = fit_logistic(space.rows, truth, [s for s in strengths if s >= strength])
    weight = space.axes @ fits[-1][0] * space.scale
    bias = float(fits[-1][1] - weight @ space.mean)
    counts = {"n": len(truth), "n_wrong": int(truth.sum()), "n_entities": len(set(entities))}
    return TruthProbe(part, weight, bias, strength, tuple(held_out.tolist()), **counts, model=model, site=site)


def features(records: Sequence[Record], part: Part) -> Float[Tensor, "n D"]:
    """What a probe reads of each record, in fp64."""
    if part not in get_args(Part):
        raise InputError(f"'part' must be one of {', '.join(get_args(Part))}.{did_you_mean(part, get_args(Part))}")
    if not records:
        raise InputError("a probe needs records: there are none.")
    if any(one.states is None for one in records):
        raise InputError("a probe reads hidden states: make the records with keep='ends', or `read_again`.")
    both = torch.stack([one.states[[0, -1]] for one in records if one.states is not None]).double()
    return both.flatten(1) if part == "both" else both[:, 0 if part == "question" else 1]


def folds_of(entities: Sequence[Hashable], folds: int, seed: int) -> Int[Tensor, n]:
    """The fold of each row: entities in random order, each to the fold that has the fewest rows."""
    rows: dict[Hashable, list[int]] = {}
    for place, entity in enumerate(entities):
        rows.setdefault(entity, []).append(place)
    if folds < 3 or len(rows) < folds:
        raise InputError(
            f"there must be 3 folds or more, and an entity for each: got {folds} and {len(rows)} entities."
        )
    groups = list(rows.values())
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed)).tolist()
    found = torch.zeros(len(entities), dtype=torch.long)
    held = [0] * folds
    for group in order:
        fold = held.index(min(held))
        found[groups[group]] = fold
        held[fold] += len(groups[group])
    return found


def fit_logistic(
    rows: Float[Tensor, "n D"], truth: Float[Tensor, n], strengths: Sequence[float]
) -> list[tuple[Float[Tensor, D], Float[Tensor, ""]]]:
    """w and b for each λ of `strengths`, from the strongest on, each search starting where the one before ended.

    They minimise the mean cross-entropy of σ(rows · w + b) with `truth` in {0, 1}, + λ/2 |w|². By L-BFGS in fp64.
    """
    weight, bias = torch.zeros(rows.shape[1], dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    found = []
    for strength in strengths:
        # about equally curved along every axis, where the rows' columns are not correlated: then few steps are enough
        scale = (rows.var(0, correction=0) / 4 + strength).rsqrt()
        turned, bias = _minimum(rows * scale, truth, strength / 2 * scale.square(), weight / scale, bias)
        weight = turned * scale
        found.append((weight, bias))
    return found


def _minimum(rows: Tensor, truth: Tensor, penalty: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Where mean cross-entropy + Σ penalty w² is least, looked for from a weight and bias on."""
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    search = torch.optim.LBFGS([weight, bias], max_iter=200, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        value = binary_cross_entropy_with_logits(rows @ weight + bias, truth) + penalty @ weight.square()
        value.backward()
        return value

    with torch.enable_grad():
        search.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def _held_out(
    rows: Tensor, truth: Tensor, parts: Tensor, strengths: Sequence[float]
) -> tuple[Float[Tensor, n], Float[Tensor, S]]:
    """Each row's score by a probe that has not seen its fold, λ chosen without it; and the held-out loss of every λ."""

    def predicted(left: Bool[Tensor, n]) -> Float[Tensor, "S m"]:
        space = Space(rows[~left])
        turned = space.turned(rows[left])
        return torch.stack([turned @ w + b for w, b in fit_logistic(space.rows, truth[~left], strengths)])

    folds = int(parts.max()) + 1
    inner = torch.zeros(folds, len(strengths), dtype=torch.float64)
    # what has seen neither of two folds helps to choose λ for each by its loss on the other
    for first, second in combinations(range(folds), 2):
        left = (parts == first) | (parts == second)
        found, where = predicted(left), parts[left]
        for fold, other in ((first, where == second), (second, where == first)):
            inner[fold] += _losses(found[:, other], truth[left][other])
    result, losses = torch.zeros_like(truth), torch.zeros(len(strengths), dtype=torch.float64)
    for fold in range(folds):
        left = parts == fold
        found = predicted(left)
        result[left] = found[int(inner[fold].argmin())]
        losses += _losses(found, truth[left])
    return result, losses


def _losses(scores: Float[Tensor, "S m"], truth: Float[Tensor, m]) -> Float[Tensor, S]:
    return binary_cross_entropy_with_logits(scores, truth.expand_as(scores), reduction="none").sum(-1)


def _truth(rows: Tensor, right: Sequence[bool], entities: Sequence[Hashable]) -> Float[Tensor, n]:
    """1 for a wrong answer."""
    if not len(rows) == len(right) == len(entities):
        raise InputError(
            f"every record needs its label and its entity, got {len(rows)}, {len(right)} and {len(entities)}."
        )
    if not torch.isfinite(rows).all():
        raise InputError("a probe reads finite numbers; the states have NaN or infinity among them.")
    return torch.tensor([not one for one in right], dtype=torch.float64)


def _check_parts(truth: Tensor, parts: Tensor) -> None:
    """Any two folds left out, right and wrong answers must remain."""
    for first, second in combinations(range(int(parts.max()) + 1), 2):
        kept = truth[(parts != first) & (parts != second)]
        if not 0 < int(kept.sum()) < len(kept):
            raise InputError(
                f"a probe tells right answers from wrong ones, and of {len(truth)} only {int(truth.sum())} are wrong: "
                "there must be both in every part."
            )


def _paths(path: str | Path) -> tuple[Path, Path]:
    path = Path(path)
    path = path.with_suffix("") if path.suffix in (".json", ".safetensors") else path
    return path.with_name(path.name + ".safetensors"), path.with_name(path.name + ".json")
