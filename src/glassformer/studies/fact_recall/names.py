"""What a name alone tells of a sport: multinomial logistic regression on the bag of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glassformer.text.people import Person
from glassformer.text.tokenizer import Tokenizer

STRENGTHS = (1e-4, 1e-3, 1e-2)
"""The weights of the ridge that are tried, on a fifth of the people to fit to."""
STEPS = 60


def name_classifier(people: Sequence[Person], tokenizer: Tokenizer, most: int | None = None) -> dict[str, Any]:
    """Fitted to the trained people (`most` of them), whether it is right about each person who was never trained."""
    known, others = ([person for person in people if person.trained == trained] for trained in (True, False))
    if most is not None and most < len(known):
        known = Random("names").sample(known, most)
    names = sorted({person.values["sport"] for person in people})
    if not others or len(names) < 2:
        return {"right": [], "fitted_to": len(known), "strength": None}
    bags = _bags([person.name for person in known], [person.name for person in others], tokenizer)
    truth, wanted = (torch.tensor([names.index(each.values["sport"]) for each in group]) for group in (known, others))
    cut = max(1, len(known) // 5)

    def score(strength: float) -> float:
        fitted = fit(bags[0][cut:], truth[cut:], len(names), strength)
        return float((_guess(fitted, bags[0][:cut]) == truth[:cut]).float().mean())

    best = max(STRENGTHS, key=score)
    right = _guess(fit(bags[0], truth, len(names), best), bags[1]) == wanted
    return {"right": right.tolist(), "fitted_to": len(known), "strength": best}


def fit(
    x: Float[Tensor, "n W"], truth: Int[Tensor, n], n_classes: int, strength: float
) -> tuple[Float[Tensor, "C W"], Float[Tensor, C]]:
    """Weights and biases of the least mean cross-entropy + strength · Σ w², by L-BFGS."""
    weight = torch.zeros(n_classes, x.shape[1], requires_grad=True)
    bias = torch.zeros(n_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weight.T + bias, truth) + strength * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def _guess(fitted: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
    return (x @ fitted[0].T + fitted[1]).argmax(-1)


def _bags(known: Sequence[str], others: Sequence[str], tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Which tokens each name has, of those that occur among the known ones."""
    rows = [[set(tokenizer.encode(" " + name)) for name in names] for names in (known, others)]
    place = {token: number for number, token in enumerate(sorted(set().union(*rows[0])))}
    bags = []
    for names in rows:
        bag = torch.zeros(len(names), len(place))
        for number, tokens in enumerate(names):
            bag[number, [place[token] for token in tokens if token in place]] = 1
        bags.append(bag)
    return bags[0], bags[1]
