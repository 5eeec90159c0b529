"""Records made by hand, for scores that need no model."""

import torch
from torch import Tensor

from glassformer.factuality.records import Record
from glassformer.factuality.sampled import Samples


def made(
    text: str = "an answer",
    logprobs: tuple[float, ...] = (-0.5, -1.5, -0.25),
    entropies: tuple[float, ...] = (2.0, 0.5, 1.0),
    margins: tuple[float, ...] = (0.25, 3.0, 1.0),
    ids: tuple[int, ...] | None = None,
    states: Tensor | None = None,
) -> Record:
    own = tuple(range(len(logprobs))) if ids is None else ids
    return Record((1, 2), own, text, logprobs, entropies, margins, states)


def samples(
    texts: list[str], probabilities: list[float], answer: str = "Paris", vectors: Tensor | None = None
) -> Samples:
    """Answers of one token each, of these probabilities; equal texts have equal ids."""
    logs = torch.tensor(probabilities, dtype=torch.float64).log().tolist()
    others = [made(text, (log,), (0.0,), (0.0,), (texts.index(text),)) for text, log in zip(texts, logs, strict=True)]
    return Samples(made(answer), tuple(others), vectors)
