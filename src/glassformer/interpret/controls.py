"""What a probe's reading is held against: what the words alone tell, and what the network tells without training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from glassformer.interpret.inputs import Inputs, network_of
from glassformer.interpret.trace import Trace, trace
from glassformer.models.families import network_class
from glassformer.tasks.model import Model

WORDS = 1000
"""The most words or tokens that a bag has: those of most groups."""


def controls_of(kept: Trace, at: str) -> Mapping[str, Any]:
    """For the states of facts that a trace kept at one expression: the tokens of each subject, and the same states (of
    the texts as they are) in the same network with random weights. Nothing where the texts have no subjects."""
    if "subject" not in kept.inputs.text.spans:
        return {}
    network = random_network(network_of(kept.model), 0)
    blank = replace(kept.model, network=network) if isinstance(kept.model, Model) else network
    return {"bag of tokens": subject_tokens(kept.inputs), "random weights": trace(blank, kept.inputs, at)}


def random_network(network: Any, seed: int) -> nn.Module:
    """A network of the same config before any training; the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: nn.Module = network_class(network.config)(network.config)
    return made.to(next(network.parameters()).device).eval()


def subject_tokens(inputs: Inputs) -> list[list[int]]:
    """The ids of each subject's tokens."""
    places = inputs.places("subject", "text")
    ids: Tensor = inputs.text.ids.gather(1, places.index)
    return [row[real].tolist() for row, real in zip(ids, places.real, strict=True)]


def bag(rows: Sequence[Sequence[Hashable]], members: NDArray[np.int64]) -> Float[Tensor, "1 n W"]:
    """How often each row has each of the words that are in two groups at least, at most `WORDS` of them."""
    pairs = {(word, int(group)) for row, group in zip(rows, members, strict=False) for word in row}
    spread = Counter(word for word, _ in pairs)
    words = sorted((word for word in spread if spread[word] > 1), key=lambda word: (-spread[word], str(word)))[:WORDS]
    place = {word: index for index, word in enumerate(words)}
    counts = torch.zeros(1, len(rows), max(1, len(words)), dtype=torch.float64)
    for number, row in enumerate(rows):
        for word in row:
            if word in place:
                counts[0, number, place[word]] += 1
    return counts
