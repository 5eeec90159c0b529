"""The logit lens: what the head would say of the residual stream after each layer (nostalgebraist 2020)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glassformer.errors import InputError
from glassformer.interpret.inputs import network_of
from glassformer.interpret.tables import laid_out
from glassformer.interpret.trace import Trace
from glassformer.interpret.tuned_lens import TunedLens
from glassformer.interpret.words import Answers, first_tokens, say, shown, word_stack

STREAMS = ("residual_pre", "residual_mid", "residual_post")
TOGETHER = 512
"""States that the head reads together: with 50,000 words their logits are 100 MB."""


@dataclass(frozen=True, eq=False)
class Top:
    """The likeliest tokens of each state, best first: `ids` and `probabilities` [L, n, k], or [L, n, positions, k]."""

    model: Any = field(repr=False)
    ids: Int[Tensor, "L n *p k"]
    probabilities: Float[Tensor, "L n *p k"]

    @property
    def tokens(self) -> list[Any]:
        """The tokens as people read them, in nested lists of the same shape."""

        def read(ids: list[Any]) -> list[Any]:
            return [read(each) if isinstance(each, list) else shown(self.model, each) for each in ids]

        return read(self.ids.tolist())


@dataclass(frozen=True, eq=False)
class Lens:
    """The states of a trace, read by the head; see `lens`.

    `states` are [L, n, D] of L places, or [L, n, p, D] where the span has p positions; `real` [n, p] says which of
    these a text has, and what is said of the others means nothing. Nothing is computed before it is asked for, and then
    for a few states at a time: only `logits` holds a whole vocabulary for each of them.
    """

    trace: Trace = field(repr=False)
    places: tuple[str, ...]
    states: Float[Tensor, "L n *p D"] = field(repr=False)
    real: Bool[Tensor, "n p"] = field(repr=False)
    tuned: TunedLens | None = field(default=None, repr=False)

    @property
    def logits(self) -> Float[Tensor, "L n *p V"]:
        """The logits of all words. Of the last layer they are the model's own."""
        return self._said(lambda logits, rows: logits)

    def top(self, k: int = 5) -> Top:
        """The `k` likeliest tokens of each state."""
        size = network_of(self.trace.model).config.vocab_size
        if not 1 <= k <= size:
            raise InputError(f"'k' must be from 1 to {size}, got {k}.")

        def best(logits: Tensor, rows: slice) -> Tensor:
            found = logits.softmax(-1).topk(k)
            return torch.stack((found.indices.double(), found.values.double()), -1)  # ids are exact in fp64

        both = self._said(best)
        return Top(self.trace.model, both[..., 0].long(), both[..., 1].float())

    def rank(self, answers: Answers | None = None) -> Int[Tensor, "L n *p"]:
        """How many tokens are likelier than the first one of each text's answer: 0 is best.

        `answers` are words or token ids, one for each text or one for all; facts bring their own. See `first_tokens`.
        """
        ids = self._answers(answers)

        def rank_of(logits: Tensor, rows: slice) -> Tensor:
            return (logits > logits.gather(1, ids[rows, None])).sum(1)

        return self._said(rank_of)

    def probability(self, answers: Answers | None = None) -> Float[Tensor, "L n *p"]:
        """The probability of the first token of each text's answer; `answers` as of `rank`."""
        ids = self._answers(answers)
        return self._said(lambda logits, rows: logits.softmax(-1).gather(1, ids[rows, None])[:, 0])

    def entropy(self) -> Float[Tensor, "L n *p"]:
        """−Σ p ln p over the vocabulary, in nats."""

        def entropy_of(logits: Tensor, rows: slice) -> Tensor:
            logs = logits.log_softmax(-1)
            return -(logs.exp() * logs).sum(-1)

        return self._said(entropy_of)

    def table(self, answers: Answers | None = None, *, texts: int = 4) -> str:
        """For `print`, a line a layer. With `answers` how these do over all texts; without, what is likeliest in the
        first `texts` texts, or at the positions of the first text."""
        return self._of_answers(answers) if answers is not None else self._of_texts(texts)

    def _of_answers(self, answers: Answers) -> str:
        real = self.real if self.states.ndim == 4 else self.real[:, 0]
        columns = [each[:, real].double() for each in (self.rank(answers), self.probability(answers), self.entropy())]
        rows = [["layer", "median rank", "first", "mean probability", "mean entropy"]]
        for place, rank, probability, entropy in zip(self.places, *columns, strict=True):
            share = (rank == 0).double().mean()
            rows.append(
                [place, f"{rank.quantile(0.5):g}", f"{share:.3f}", f"{probability.mean():.4f}", f"{entropy.mean():.2f}"]
            )
        return laid_out(rows)

    def _of_texts(self, texts: int) -> str:
        best = self.top(1)
        if self.states.ndim == 4:
            names = [f"position {number}" for number in range(int(self.real[0].sum()))]
            chosen = (slice(None), 0, slice(len(names)), 0)
        else:
            names = [f"text {number}" for number in range(1, min(texts, len(self.real)) + 1)]
            chosen = (slice(None), slice(len(names)), 0)  # type: ignore[assignment]
        ids, shares = best.ids[chosen].tolist(), best.probabilities[chosen].tolist()
        rows = [["layer", *names]]
        for place, tokens, probabilities in zip(self.places, ids, shares, strict=True):
            cells = zip(tokens, probabilities, strict=True)
            rows.append([place, *(f"{shown(self.trace.model, token)} {share:.2f}" for token, share in cells)])
        return laid_out(rows)

    def _answers(self, answers: Answers | None) -> Int[Tensor, n * p]:
        """The answer's token of every state of a layer, its positions side by side."""
        ids = first_tokens(self.trace.model, self.trace.inputs, answers).to(self.states.device)
        return ids if self.states.ndim == 3 else ids.repeat_interleave(self.states.shape[2])

    @torch.no_grad()
    def _said(self, function: Callable[[Tensor, slice], Tensor]) -> Tensor:
        """`function` of the logits [b, V] of some states of a layer (and which these are) for all states."""
        network, layers = network_of(self.trace.model), []
        for place, states in zip(self.places, self.states, strict=True):
            rows, found = states.flatten(0, -2), []
            for first in range(0, len(rows), TOGETHER):
                some = rows[first : first + TOGETHER]
                if self.tuned is not None:
                    some = self.tuned.translate(place, some)
                found.append(function(say(network, some).float(), slice(first, first + len(some))))
            together = torch.cat(found)
            layers.append(together.reshape(*states.shape[:-1], *together.shape[1:]))
        return torch.stack(layers)


def lens(trace: Trace, *, tuned: TunedLens | None = None, at: str | None = None) -> Lens:
    """Read the residual stream of a trace as if each of its layers were the last one.

    h → head(norm(h)) with the final norm, or head(h) in post-norm networks, which end with none; of a masked language
    model the head is the whole of dense, activation, norm and words. `trace` holds `residual_post[…] @ span` (or
    `residual_pre`, `residual_mid`) of the stack that ends in words; `at` says which expression if it holds several.
    With `tuned` each layer's translator comes first: h → head(norm(W h + b)), see `tuned_lens`.

    Early layers write in directions that only later ones turn into words: what the plain lens says of them may be far
    from what the model "thinks" (Belrose et al. 2023). Raises `InputError` for a model without a head of words, and for
    a trace without such states. Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
    """
    network = network_of(trace.model)
    stack, prefix = word_stack(network)
    text = _expression(trace, prefix, at)
    kept = trace.kept[text]
    if tuned is not None:
        tuned.check(network, kept.site, kept.layers or ())
    states = trace.stack(text)
    return Lens(trace, kept.names, states, trace.mask(text), tuned)


def _expression(trace: Trace, prefix: str, at: str | None) -> str:
    sites = [prefix + name for name in STREAMS]
    fit = [text for text, kept in trace.kept.items() if kept.site in sites]
    if at is not None and at in fit:
        return at
    if at is None and len(fit) == 1:
        return fit[0]
    wanted = f"a lens reads the residual stream, such as '{prefix}residual_post[*] @ end'"
    if at is not None:
        raise InputError(f"{wanted}; the trace has no '{at}' of that kind. It holds {_listed(list(trace.kept))}.")
    if not fit:
        raise InputError(f"{wanted}; the trace holds {_listed(list(trace.kept))}: trace it as well.")
    raise InputError(f"{wanted}; of what is traced, {_listed(fit)} fit: say which by 'at'.")


def _listed(texts: list[str]) -> str:
    return ", ".join(f"'{text}'" for text in texts)
