"""Several scores as one, by a logistic regression with a penalty on its weights.

le Cessie & van Houwelingen 1992, "Ridge Estimators in Logistic Regression".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from glassformer.errors import InputError, did_you_mean

PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0)
FOLDS = 5
_RARE = 10  # a tag with fewer labels has no offset of its own

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Combination:
    """The log-odds that an answer is wrong: bias + Σ weightᵢ · (scoreᵢ − meanᵢ) / scaleᵢ + Σ offsets of its tags.

    A tag says what an answer has in common with others, such as the question's relation. `offsets` has those that at
    least ten answers had in fitting; another counts nothing. `penalty` is λ in the minimised Σ log loss + λ/2 · (Σ
    weight² + Σ offset²), chosen by cross-validation; the bias is free of it.
    """

    names: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    penalty: float
    offsets: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, values: Mapping[str, float], tags: Sequence[str] = ()) -> float:
        """Of one answer. Raises `InputError` where a score is missing."""
        if missing := [name for name in self.names if name not in values]:
            raise InputError(f"the score '{missing[0]}' is missing.{did_you_mean(missing[0], values)}")
        row = np.array([[values[name] for name in self.names]])
        return float(self.of_all(row, [tags])[0])

    def of_all(self, matrix: Array, tags: Sequence[Sequence[str]]) -> Array:
        """Of many: `matrix` [n, k] has the scores in the order of `names`, `tags` what each answer is tagged with."""
        offsets = np.array([sum(self.offsets.get(tag, 0.0) for tag in own) for own in tags])
        standard = (matrix - np.array(self.means)) / np.array(self.scales)
        return standard @ np.array(self.weights) + self.bias + offsets


def combine(
    names: Sequence[str], matrix: Array, tags: Sequence[Sequence[str]], wrong: Array, folds: NDArray[np.int_]
) -> tuple[Combination, Array]:
    """The combination of these scores that tells `wrong` (0 or 1) best, and the log-odds of every answer from a
    combination that was fitted without its fold: what a curve may be fitted on.

    `matrix` [n, k] and `tags` have a row an answer. `folds` says to which of `FOLDS` parts each belongs; answers
    about one entity belong to the same. The penalty is that of `PENALTIES` with the least log loss out of fold.
    """
    out_of_fold = {penalty: np.empty(len(wrong)) for penalty in PENALTIES}
    for fold in np.unique(folds):
        inside, outside = folds != fold, folds == fold
        own = [each for each, kept in zip(tags, inside, strict=True) if kept]
        theirs = [each for each, kept in zip(tags, outside, strict=True) if kept]
        for penalty, found in out_of_fold.items():
            fitted = _fitted(names, matrix[inside], own, wrong[inside], penalty)
            found[outside] = fitted.of_all(matrix[outside], theirs)
    losses = {penalty: _log_loss(found, wrong) for penalty, found in out_of_fold.items()}
    best = min(losses, key=lambda penalty: losses[penalty])
    return _fitted(names, matrix, tags, wrong, best), out_of_fold[best]


def _fitted(
    names: Sequence[str], matrix: Array, tags: Sequence[Sequence[str]], wrong: Array, penalty: float
) -> Combination:
    means = matrix.mean(0)
    scales = matrix.std(0)
    scales = np.where(scales > 0, scales, 1.0)  # a score that is always the same says nothing
    counts = Counter(tag for own in tags for tag in own)
    known = [tag for tag in sorted(counts) if counts[tag] >= _RARE]
    hot = np.array([[float(tag in own) for tag in known] for own in tags]).reshape(len(tags), len(known))
    weights, bias = ridge_logistic(np.hstack([(matrix - means) / scales, hot]), wrong, penalty)
    k = len(names)
    return Combination(
        tuple(names),
        tuple(means.tolist()),
        tuple(scales.tolist()),
        tuple(weights[:k].tolist()),
        bias,
        penalty,
        dict(zip(known, weights[k:].tolist(), strict=True)),
    )


def ridge_logistic(features: Array, happened: Array, penalty: float) -> tuple[Array, float]:
    """Weights [k] and bias that minimise Σ log(1 + e^z) − y z + penalty/2 · |weights|², z = features · weights + bias.

    Newton's method, with halved steps where a full one does not go down; the minimum is unique for a positive penalty
    and labels of both kinds. `happened` may hold values between 0 and 1.
    """
    x = np.hstack([features, np.ones((len(features), 1))])
    ridge = np.full(x.shape[1], penalty)
    ridge[-1] = 0.0
    w = np.zeros(x.shape[1])
    loss = _objective(x, happened, w, ridge)
    for _ in range(100):
        p = sigmoid(x @ w)
        slope = x.T @ (p - happened) + ridge * w
        curvature = (x * (p * (1 - p))[:, None]).T @ x + np.diag(ridge)
        step = np.linalg.solve(curvature + 1e-12 * np.eye(len(w)), slope)
        size = 1.0
        while (new := _objective(x, happened, w - size * step, ridge)) > loss and size > 1e-6:
            size /= 2
        w, done, loss = w - size * step, loss - new < 1e-10 * max(1.0, loss), new
        if done:
            break
    return w[:-1], float(w[-1])


def sigmoid(z: Array) -> Array:
    """1 / (1 + e^−z), without overflow."""
    return np.exp(-np.logaddexp(0, -z))


def _objective(x: Array, happened: Array, w: Array, ridge: Array) -> float:
    z = x @ w
    return float((np.logaddexp(0, z) - happened * z).sum() + (ridge * w * w).sum() / 2)


def _log_loss(z: Array, wrong: Array) -> float:
    return float((np.logaddexp(0, z) - wrong * z).mean())
