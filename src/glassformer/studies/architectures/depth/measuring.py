"""What is measured of deep and shallow decoders: gradients and ranks before training, and the loss after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from glassformer.layers.sites import record
from glassformer.models.decoder import Decoder
from glassformer.studies.architectures.depth.blocks import WIRINGS, Shape, Wiring, build, sized
from glassformer.studies.fitting import fit
from glassformer.tasks.objectives import IGNORE, causal_lm
from glassformer.text.examples import TextBatch

WORDS = 8
"""Words of the made-up language."""

LENGTH = 25
"""Words of a text, the first one given."""

HABIT = 0.8
"""How often the usual word follows; otherwise each of the words is as likely."""

ROWS = 16

JUDGED = 256
"""Texts on which a loss is measured."""


class Language:
    """A made-up language: two words before decide which one usually comes next, by a table drawn from `seed`.

    A network has to fetch both words and then to look the pair up: neither alone says anything.
    """

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.usual = torch.randint(WORDS, (WORDS, WORDS), generator=generator)

    def texts(self, rows: int, seed: int) -> Tensor:
        """So many texts [rows, LENGTH]."""
        generator = torch.Generator().manual_seed(seed)
        found = torch.randint(WORDS, (rows, LENGTH), generator=generator)
        habit = torch.rand(rows, LENGTH, generator=generator) < HABIT
        for place in range(2, LENGTH):
            usual = self.usual[found[:, place - 2], found[:, place - 1]]
            found[:, place] = torch.where(habit[:, place], usual, found[:, place])
        return found

    def batch(self, rows: int, seed: int) -> TextBatch:
        """So many texts, each word to be predicted but the first two."""
        texts = self.texts(rows, seed)
        target = texts[:, 1:].clone()
        target[:, 0] = IGNORE
        return TextBatch(texts[:, :-1], target, n_tokens=rows * (LENGTH - 2))


def entropy() -> float:
    """Nats a word that nobody can do without: what a network would lose that knew the table."""
    rest = (1 - HABIT) / WORDS
    return -(HABIT + rest) * math.log(HABIT + rest) - (WORDS - 1) * rest * math.log(rest)


def gradients(wiring: Wiring, shape: Shape, seed: int) -> list[float]:
    """Norm of the loss's gradient over each block's parameters, first block first, in a fresh network."""
    torch.manual_seed(seed)
    network = build(shape, wiring, WORDS, LENGTH)
    causal_lm(network, Language().batch(ROWS, seed)).mean.backward()
    blocks = network.stack.blocks
    return [
        float(torch.nn.utils.get_total_norm([p.grad for p in block.parameters() if p.grad is not None]))
        for block in blocks
    ]


def ranks(wiring: Wiring, shape: Shape, seed: int) -> list[float]:
    """How much of the states is not the same at all positions, ‖X − 1x̄ᵀ‖ / ‖X‖ (Frobenius), after 0, 1, … blocks.

    0 is rank 1: all positions have become one vector. Every position sees every other, as in Dong et al. 2021; fresh
    weights, double precision.
    """
    torch.manual_seed(seed)
    network = build(shape, wiring, WORDS, LENGTH).double()
    names = ["residual_pre[0]", *(f"residual_post[{number}]" for number in range(shape.n_layers))]
    watched, values = record(network, names)
    with torch.no_grad():
        watched.stack(Language().texts(ROWS, seed))
    return [_not_common(values[name]) for name in names]


def _not_common(states: Tensor) -> float:
    """The mean over texts of ‖X − 1x̄ᵀ‖ / ‖X‖, for states [B, T, D]."""
    apart = states - states.mean(1, keepdim=True)
    return float((apart.flatten(1).norm(dim=1) / states.flatten(1).norm(dim=1).clamp_min(1e-300)).mean())


def at_start(depth: int, parameters: int, seeds: int) -> dict[str, Any]:
    """`gradients` and `ranks` of every wiring in networks of `depth` blocks: for each seed a list over the blocks."""
    found: dict[str, Any] = {}
    for name, wiring in WIRINGS.items():
        shape = sized(wiring, depth, parameters, WORDS)
        found[name] = {
            "gradients": [gradients(wiring, shape, seed) for seed in range(1, seeds + 1)],
            "ranks": [ranks(wiring, shape, seed) for seed in range(1, seeds + 1)],
        }
    return found


def trained(name: str, depth: int, parameters: int, steps: int, rates: Sequence[float], seeds: int) -> dict[str, Any]:
    """Train a wiring at a depth: the rate is that of the lowest loss on held-out texts with seed 1, then other seeds.

    `losses` are on test texts, a number a seed, nats a word; None where a training has ended in no number.
    """
    wiring = WIRINGS[name]
    shape = sized(wiring, depth, parameters, WORDS)
    tried = {rate: _train(wiring, shape, rate, steps, 1) for rate in rates}
    best = min(tried, key=lambda rate: math.inf if tried[rate][0] is None else tried[rate][0])
    others = [_train(wiring, shape, best, steps, seed)[1] for seed in range(2, seeds + 1)]
    network = build(shape, wiring, WORDS, LENGTH)
    return {
        "wiring": name,
        "depth": depth,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "d_model": shape.d_model,
        "rate": best,
        "held_out": {f"{rate:g}": tried[rate][0] for rate in rates},
        "losses": [tried[best][1], *others],
    }


def _train(wiring: Wiring, shape: Shape, rate: float, steps: int, seed: int) -> tuple[Any, Any]:
    """The losses on held-out and on test texts after a training; the same texts for every wiring and depth."""
    torch.manual_seed(seed)
    network, language = build(shape, wiring, WORDS, LENGTH), Language()
    batch_at = partial(_batch_at, language, seed)
    fit(network, causal_lm, batch_at, steps=steps, rate=rate, seed=seed, warmup=steps // 10)
    return tuple(_loss(network, language.batch(JUDGED, number)) for number in (1, 2))  # type: ignore[return-value]


def _batch_at(language: Language, seed: int, step: int) -> TextBatch:
    return language.batch(ROWS, 1000 + 1_000_000 * seed + step)  # never one of the texts that are judged


def _loss(network: Decoder, batch: TextBatch) -> float | None:
    with torch.no_grad():
        loss = float(causal_lm(network, batch).mean)
    return loss if math.isfinite(loss) else None
