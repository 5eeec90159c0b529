"""The verb `classify`: the label of a text, from an encoder with a head for labels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from glassformer.errors import InputError
from glassformer.generation.decoding import evaluation
from glassformer.models.config import Classification
from glassformer.tasks import metrics
from glassformer.tasks.inputs import framed_ids
from glassformer.tasks.intervals import wilson
from glassformer.tasks.translate import batches, lines_of

if TYPE_CHECKING:
    from glassformer.tasks.model import Model

BATCH_TOKENS = 1024


@dataclass(frozen=True)
class Label:
    """The most probable label of a text, its probability, and those of all labels, in the model's order."""

    label: str
    probability: float
    probabilities: dict[str, float]


def classify(
    model: Model, texts: str | Sequence[str], batch_tokens: int, truncate: bool, first_line: int
) -> list[Label]:
    """See `Model.classify`."""
    names = labels_of(model)
    lines = lines_of(texts)
    ids = framed_ids(
        model.tokenizer, model.pipeline, lines, model.config.max_length, truncate=truncate, first_line=first_line
    )
    found: dict[int, Label] = {}
    with torch.inference_mode(), evaluation(model.network):
        for rows in batches([len(row) for row in ids], batch_tokens):
            for row, probabilities in zip(rows, _probabilities(model, [ids[row] for row in rows]), strict=True):
                best = max(range(len(names)), key=probabilities.__getitem__)
                found[row] = Label(names[best], probabilities[best], dict(zip(names, probabilities, strict=True)))
    return [found[row] for row in range(len(lines))]


def labels_of(model: Model) -> tuple[str, ...]:
    """The labels that a model knows. `InputError` for one with another head."""
    head = getattr(model.config, "head", None)
    if not isinstance(head, Classification):
        raise InputError(f"'classify' wants a model with a head for labels; this one is {model.purpose}.")
    return head.labels


def _probabilities(model: Model, ids: list[list[int]]) -> list[list[float]]:
    rows = [torch.tensor(row) for row in ids]
    padded: Tensor = pad_sequence(rows, batch_first=True, padding_value=model.config.pad_id).to(model.device)
    found: list[list[float]] = model.network(padded).logits.float().softmax(-1).tolist()
    return found


def evaluate_labels(
    model: Model, texts: Sequence[str], labels: Sequence[str], *, truncate: bool = False, batch_tokens: int = 4096
) -> dict[str, Any]:
    """Classify `texts` and compare with their `labels`.

    Gives `accuracy` with its 95 % interval (Wilson's) and `macro_f1`, each from 0 to 1, the number of texts `n` and the
    `seconds` taken. Raises `InputError` for a label that the model does not know.
    """
    known = labels_of(model)
    for number, label in enumerate(labels, 1):
        if label not in known:
            raise InputError(f"text {number} has the label '{label}', and the model knows {', '.join(known)} only.")
    began = time.perf_counter()
    predicted = [one.label for one in classify(model, texts, batch_tokens, truncate, 1)]
    seconds = time.perf_counter() - began
    accuracy = metrics.accuracy(predicted, labels)
    interval = wilson(round(accuracy * len(labels)), len(labels))
    return {
        "accuracy": accuracy,
        "accuracy_interval": [interval.low, interval.high],
        "macro_f1": metrics.macro_f1(predicted, labels),
        "n": len(labels),
        "seconds": seconds,
    }
