"""Labelled answers without a model: two scores that tell something, one that tells nothing, two relations."""

import numpy as np

from glassformer.factuality.calibration import Labelled
from glassformer.factuality.questions import Question


def labels(n=400, seed=0, per_entity=1, answers=("x",)):
    """The risk is logistic in `first` + `second`, and greater in the relation "hard"."""
    random = np.random.default_rng(seed)
    first, second, noise = random.normal(size=(3, n))
    hard = random.random(n) < 0.5
    odds = first + second + np.where(hard, 1.5, -1.5)
    wrong = random.random(n) < 1 / (1 + np.exp(-odds))
    questions = [
        Question(f"q{i}", f"What is {i}?", answers, entity=f"E{i // per_entity}", relation="hard" if h else "easy")
        for i, h in enumerate(hard)
    ]
    scores = {"first": first.tolist(), "second": second.tolist(), "noise": noise.tolist()}
    return Labelled(questions, scores, wrong.tolist())
