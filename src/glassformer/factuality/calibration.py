"""From scores of uncertainty to the risk of being wrong, learnt from answers that were labelled.

A score says which of two answers is less sure; only a calibration, for one model and one way of asking, says how often
answers of that score are wrong. It is fitted on one part of the labels and tested on another, of other entities.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from glassformer.checkpoints.adapters import weights_hash
from glassformer.checkpoints.files import checksum, read_json, verify_checksum, write_json
from glassformer.errors import InputError, did_you_mean
from glassformer.factuality.combining import FOLDS, Array, Combination, combine
from glassformer.factuality.curves import Curve, Method, curve_of, fit_curve
from glassformer.factuality.prompts import Style
from glassformer.factuality.questions import Question, split_by_entity
from glassformer.factuality.thresholds import Limit, find_limit
from glassformer.layers.quantized import QuantizedEmbedding, QuantizedLinear
from glassformer.tasks.model import Model
from glassformer.tasks.squad import normalized

_QUANTIZED = (QuantizedEmbedding, QuantizedLinear)

LEAST_LABELS = 300
FORMAT = 1
PARTS = (0.5, 0.5)
"""The shares of the labels that fit and that test."""

Features = Literal["scores", "relation", "answer"]
"""What a risk is made of: scores alone; also of the question's relation; also of which answer it is, where that was
given often in the relation. Who says "Antarctica" to questions about a continent may be right more often than who says
"Asia", whatever the scores: that is learnt from labels about other entities."""


@dataclass(frozen=True)
class Asking:
    """How the questions were put: the style of `prompts`, how many of the `shots` stand before each and by which seed
    they are chosen, and how many tokens an answer may have. A risk holds for questions put like this. Of each relation
    some are among the shots even where none are shown: they tell what a new question asks for."""

    style: Style = "few-shot"
    count: int = 0
    seed: int = 0
    max_new_tokens: int = 12
    shots: tuple[Question, ...] = ()


@dataclass(frozen=True)
class Labelled:
    """Answered questions: `scores` has for each name a number an answer, higher = more uncertain; `wrong` is their
    labels, and `texts` what was answered, where that is to count."""

    questions: Sequence[Question]
    scores: Mapping[str, Sequence[float]]
    wrong: Sequence[bool]
    texts: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.scores:
            raise InputError("a calibration needs at least one score.")
        if not len(self.texts):
            object.__setattr__(self, "texts", [""] * len(self.questions))
        for name, column in (*self.scores.items(), ("labels", self.wrong), ("texts", self.texts)):
            if len(column) != len(self.questions):
                raise InputError(f"'{name}' must have a value a question, {len(self.questions)}, got {len(column)}.")

    def __len__(self) -> int:
        return len(self.questions)

    def take(self, rows: Sequence[int]) -> Labelled:
        """Those of these numbers, in this order."""
        columns = {name: [column[row] for row in rows] for name, column in self.scores.items()}
        wrong, texts = [self.wrong[row] for row in rows], [self.texts[row] for row in rows]
        return Labelled([self.questions[row] for row in rows], columns, wrong, texts)

    def matrix(self, names: Sequence[str]) -> Array:
        """[n, k], the scores in the order of the names."""
        return np.array([self.scores[name] for name in names], dtype=np.float64).T

    def tags(self, features: Features) -> list[tuple[str, ...]]:
        """The tags of each answer; see `tags_of`."""
        pairs = zip(self.questions, self.texts, strict=True)
        return [tags_of(question.relation, text, features) for question, text in pairs]

    @property
    def entities(self) -> list[str]:
        """The entity of each question, as `split_by_entity` tells them apart."""
        return [question.entity.casefold() for question in self.questions]


def tags_of(relation: str, text: str, features: Features) -> tuple[str, ...]:
    """What an answer has in common with others beside its scores: its question's relation, and what it says there."""
    if features == "scores":
        return ()
    told = () if features == "relation" else (f"{relation} → {normalized(text)}",)
    return (relation, *told) if relation else told


@dataclass(frozen=True)
class Tested:
    """Scores (the log-odds of a combination, or the score itself) with whether the answers were wrong."""

    scores: tuple[float, ...]
    wrong: tuple[bool, ...]


@dataclass(frozen=True)
class Calibration:
    """The risk that a model's answer is wrong, from its scores; `fit` makes one.

    `model` and `weights` are the model's name and the hash of its weights, `n` how many labels there were, `fitted` and
    `held` the parts that fitted and that tested, which share no entity. With several scores `combination` makes one
    number of them, with what else `features` says; with one score alone it is None.
    """

    model: str
    weights: str
    asking: Asking
    names: tuple[str, ...]
    features: Features
    combination: Combination | None
    curve: Curve
    seed: int
    n: int
    fitted: Tested = field(repr=False)
    held: Tested = field(repr=False)

    def probability(self, score: float | Mapping[str, float], relation: str = "", text: str = "") -> float:
        """The risk: the probability that an answer with these scores is wrong. A number is enough where there is one
        score only. `relation` is the question's, where it is known, and `text` the answer's; an unknown one counts as
        the average."""
        return float(self.curve(self.combined(score, relation, text)))

    def combined(self, score: float | Mapping[str, float], relation: str = "", text: str = "") -> float:
        """The one number by which answers are ordered: the higher, the riskier. Raises `InputError` where scores are
        missing."""
        if self.combination is not None:
            if not isinstance(score, Mapping):
                raise InputError(f"this calibration combines {', '.join(self.names)}: give all of them by name.")
            return self.combination(score, tags_of(relation, text, self.features))
        if not isinstance(score, Mapping):
            return float(score)
        if self.names[0] not in score:
            raise InputError(f"the score '{self.names[0]}' is missing.{did_you_mean(self.names[0], score)}")
        return float(score[self.names[0]])

    def probabilities(self, labelled: Labelled) -> Array:
        """The risk of every answer, [n]."""
        return self.curve(self.all_combined(labelled))

    def all_combined(self, labelled: Labelled) -> Array:
        """`combined` of every answer, [n]."""
        matrix = labelled.matrix(self.names)
        if self.combination is None:
            return matrix[:, 0]
        return self.combination.of_all(matrix, labelled.tags(self.features))

    def threshold(self, max_error: float, confidence: float = 0.95) -> Limit | None:
        """At which combined score to abstain so that, with this confidence, at most `max_error` of the answers given
        are wrong; None where that cannot be reached. See `thresholds.find_limit`."""
        fitted, held = self.fitted, self.held
        return find_limit((fitted.scores, fitted.wrong), (held.scores, held.wrong), max_error, confidence)

    def save(self, path: str | Path) -> Path:
        """Write one JSON file, which `load` reads back."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, **asdict(self), "curve": self.curve.to_json()}
        write_json(path, {**content, "checksum": checksum(_plain(content))})
        return path


def fit(
    labelled: Labelled,
    model: str,
    weights: str,
    asking: Asking,
    *,
    method: Method = "isotonic",
    features: Features = "answer",
    seed: int = 0,
) -> Calibration:
    """A calibration from labelled answers of the model named `model`, whose weights have the hash `weights`.

    Half of the labels, by entity, fit: several scores are combined with the `features` (`combining.combine`), and the
    curve goes through combinations that were each fitted without the answer's entity. The other half is kept for tests
    and thresholds: of it alone a figure may be made.

    Raises `InputError` for fewer than 300 labels, labels of one kind only in either half, scores that are not finite.
    """
    _check(labelled)
    rows, held_rows = split_by_entity(labelled.questions, PARTS, seed)
    own, held = labelled.take(rows), labelled.take(held_rows)
    for part in (own, held):
        if len(set(part.wrong)) < 2:
            raise InputError("a calibration needs right and wrong answers; in one half of these all are of one kind.")
    names, wrong = tuple(labelled.scores), np.asarray(own.wrong, dtype=np.float64)
    combination, scores = None, own.matrix(names)[:, 0]
    if len(names) > 1 or features != "scores":
        combination, scores = combine(names, own.matrix(names), own.tags(features), wrong, _folds(own, seed))
    curve = fit_curve(method, scores, wrong)
    fitted = Tested(tuple(scores.tolist()), tuple(map(bool, own.wrong)))
    found = Calibration(
        model, weights, asking, names, features, combination, curve, seed, len(labelled), fitted, Tested((), ())
    )
    tested = Tested(tuple(found.all_combined(held).tolist()), tuple(map(bool, held.wrong)))
    return Calibration(**{**vars(found), "held": tested})


def held_rows(labelled: Labelled, seed: int) -> list[int]:
    """The numbers of the answers that `fit` with this seed keeps for tests, in the order of `held`."""
    return split_by_entity(labelled.questions, PARTS, seed)[1]


def load(path: str | Path, model: Model, name: str = "this model") -> Calibration:
    """The calibration in a file, for the model `model`, called `name` in errors.

    Raises `InputError` for a file that is missing, damaged or newer, and for a calibration of another model (by the
    hash of its weights: another precision is another model too), with both names.
    """
    found = read(path)
    own = identity(model)
    if found.weights != own:
        raise InputError(
            f"{path} is a calibration of '{found.model}' (weights {found.weights}), not of '{name}' (weights {own}): "
            "its risks would be wrong. Make one: glassformer calibrate --model … --questions … --out …"
        )
    return found


def identity(model: Model) -> str:
    """What tells a model from others, wherever its files lie: the hash of its weights, as it computes with them.

    Weights of 4 or 8 bits count as they lie in memory, which depends on whether there is a C++ compiler: with one, and
    without, such a model computes a little differently.
    """
    found = weights_hash(model.network)
    small = [(name, each) for name, each in model.network.named_modules() if isinstance(each, _QUANTIZED)]
    if not small:
        return found
    digest = hashlib.blake2b(found.encode(), digest_size=12)
    for name, module in small:
        how = "" if getattr(module, "rounded", True) else " inputs as they are"
        digest.update(f"{name} {tuple(module.weight.shape)}{how}".encode())
        digest.update(module.weight.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def read(path: str | Path) -> Calibration:
    """The calibration in a file, whichever model it is of. Raises `InputError` as `load` for the file itself."""
    path = Path(path)
    content = read_json(path)
    if content.get("format") != FORMAT or "curve" not in content:
        raise InputError(f"{path} is no calibration of format {FORMAT}, which 'glassformer calibrate' writes.")
    verify_checksum(content, path)
    try:
        return _read(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: the calibration is damaged ({error}). Use another copy.") from None


def _read(content: Mapping[str, Any]) -> Calibration:
    asking = dict(content["asking"])
    asking["shots"] = tuple(Question(**one) for one in asking["shots"])
    combination = content["combination"]
    if combination is not None:
        lists = ("names", "means", "scales", "weights")
        combination = Combination(**{**combination, **{name: tuple(combination[name]) for name in lists}})
    parts = {
        name: Tested(tuple(map(float, content[name]["scores"])), tuple(map(bool, content[name]["wrong"])))
        for name in ("fitted", "held")
    }
    return Calibration(
        model=str(content["model"]),
        weights=str(content["weights"]),
        asking=Asking(**asking),
        names=tuple(content["names"]),
        features=_features(content["features"]),
        combination=combination,
        curve=curve_of(content["curve"]),
        seed=int(content["seed"]),
        n=int(content["n"]),
        **parts,
    )


def _features(name: Any) -> Features:
    for known in get_args(Features):
        if name == known:
            return known
    raise ValueError(f"'features' is {name!r}")


def _plain(content: Any) -> Any:
    """With lists for tuples, as JSON gives them back."""
    if isinstance(content, Mapping):
        return {key: _plain(value) for key, value in content.items()}
    return [_plain(value) for value in content] if isinstance(content, list | tuple) else content


def _folds(labelled: Labelled, seed: int) -> Any:
    folds = np.empty(len(labelled), dtype=int)
    for number, rows in enumerate(split_by_entity(labelled.questions, [1.0] * FOLDS, seed)):
        folds[rows] = number
    return folds


def check_count(n: int) -> None:
    """`InputError` for too few labels, before or after the model was asked."""
    if n < LEAST_LABELS:
        raise InputError(
            f"a calibration needs at least {LEAST_LABELS} labelled answers, got {n}: with fewer its risks would say "
            "little. Give more questions."
        )


def _check(labelled: Labelled) -> None:
    check_count(len(labelled))
    for name, column in labelled.scores.items():
        if not np.isfinite(np.asarray(column, dtype=np.float64)).all():
            raise InputError(f"the score '{name}' must be a finite number for every answer.")
