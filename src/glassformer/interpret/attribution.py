"""Direct logit attribution: a logit as a sum of what each part of a network writes toward it (Elhage et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from glassformer.errors import InputError, did_you_mean
from glassformer.interpret.direct_paths import ATTENTIONS, By, Groups, Paths, check_linear, joined_groups
from glassformer.interpret.inputs import Inputs, network_of, prepare, repeated
from glassformer.interpret.tables import laid_out
from glassformer.interpret.words import Answers, first_tokens
from glassformer.tasks.intervals import bootstrap

NEURONS = 50
BATCH = 32
"""Texts that are read together."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """Each text's logit as a sum of `parts`; see `attribute`.

    `groups` holds the parts by where they come from, [n, …] in fp64: `embedding.token` [n], `self_attention` [n, L],
    by heads [n, L, H], by source tokens [n, L, H, K]. `logits` [n] are what the network itself computes.
    """

    by: By
    inputs: Inputs = field(repr=False)
    groups: Mapping[str, Tensor] = field(repr=False)
    logits: Float[Tensor, n] = field(repr=False)
    note: str
    neurons: tuple[tuple[int, int], ...] = ()
    """Layer and number of the neurons that have a part of their own."""

    @cached_property
    def names(self) -> list[str]:
        """The names of all parts: `embedding.token`, `self_attention[3].head[2]`, `self_attention[3].head[2]<-7` (from
        token 7), `feed_forward[3]`, `feed_forward[3].neuron[17]`, `final_norm.bias`."""
        return [name for key, value in self.groups.items() for name in self._named(key, value)]

    @cached_property
    def values(self) -> Float[Tensor, "n P"]:
        """The parts of each text, in the order of `names`."""
        return torch.cat([value.reshape(len(value), -1) for value in self.groups.values()], 1)

    @property
    def parts(self) -> dict[str, Float[Tensor, n]]:
        """Every part by its name."""
        return dict(zip(self.names, self.values.unbind(1), strict=True))

    def heads(self, attention: str | None = None, source: str | None = None) -> Float[Tensor, "n L H"]:
        """What each head writes toward the answer, [n, L, H]: of `attention` where there are two of them.

        With `source`, a span such as "subject", only what it brings from there; that wants source="token".
        """
        found = [key for key, value in self.groups.items() if _is_attention(key) and value.ndim > 2]
        if not found:
            raise InputError(f"these are parts by {self.by}: attribute by 'head' to see heads.")
        if attention is None and len(found) > 1:
            raise InputError(f"say which attention: {' or '.join(found)}.")
        if attention is not None and attention not in found:
            raise InputError(
                f"there is no attention '{attention}'.{did_you_mean(attention, found)} There are {', '.join(found)}."
            )
        key = attention or found[0]
        value = self.groups[key]
        if source is None:
            return value.sum(3) if value.ndim == 4 else value
        if value.ndim != 4:
            raise InputError("to know where heads take it from, attribute with source='token'.")
        places = self.inputs.places(source, "source" if "cross_attention" in key else "text")
        inside = places.slots(value.shape[3]) >= 0
        return (value * inside[:, None, None, :]).sum(3)

    def check(self, tolerance: float = 1e-3) -> Attribution:
        """That the parts of every text sum to its logit; the attribution itself, to go on with.

        Raises `InputError` with the largest gap where they do not by more than `tolerance`: the network then computed
        something else than these parts, as one in training with dropout does, or one that runs in whole numbers.
        """
        gaps = (self.values.sum(1) - self.logits).abs()
        row = int(gaps.argmax())
        if not float(gaps[row]) <= tolerance:
            raise InputError(
                f"the parts must sum to the logit: those of text {row + 1} miss it by {float(gaps[row]):.2g} "
                f"(tolerance {tolerance:g}). Attribute a network in fp32 and in evaluation mode."
            )
        return self

    def share(self, name: str) -> float:
        """What the parts whose names begin with `name` have in the logits, of all texts together: "feed_forward",
        "self_attention[3]". Parts may be negative, so that shares can exceed 1. All logits of words may be moved by the
        same number without any effect; shares of a "logit_diff" do not depend on that."""
        chosen = [number for number, known in enumerate(self.names) if known.startswith(name)]
        if not chosen:
            known = list(dict.fromkeys([*self.groups, *self.names]))
            raise InputError(f"no part's name begins with '{name}'.{did_you_mean(name, known)}")
        return float(self.values[:, chosen].sum() / self.values.sum())

    def heads_for(self, share: float = 0.8) -> int:
        """How many heads, the largest first, have `share` of all positive direct effects of heads (means over texts).
        0 where no head's effect is positive."""
        if not 0 < share <= 1:
            raise InputError(f"'share' must be above 0 and at most 1, got {share}.")
        effects = [self.heads(key).mean(0).flatten() for key, value in self.groups.items() if _heads_in(key, value)]
        if not effects:
            self.heads()  # says what is missing
        positive = torch.cat(effects).clamp_min(0).sort(descending=True).values.cumsum(0)
        if float(positive[-1]) == 0:
            return 0
        return int((positive < share * positive[-1] - 1e-12 * positive[-1]).sum()) + 1

    def top(self, k: int = 10) -> list[tuple[str, float]]:
        """The parts with the largest means over texts, of either sign, and these means."""
        means = self.values.mean(0)
        order = means.abs().argsort(descending=True, stable=True)[:k]
        return [(self.names[number], float(means[number])) for number in order.tolist()]

    def table(self, count: int = 20) -> str:
        """For `print`: the largest parts with their means over texts and 95 % intervals, and what is left."""
        several = len(self.logits) > 1
        rows = [["part", "mean", *(["95 %"] * several)]]
        places = {name: number for number, name in enumerate(self.names)}
        shown = 0.0
        for name, mean in self.top(count):
            shown += mean
            row = [name, f"{mean:+.3f}"]
            if several:
                interval = bootstrap(self.values[:, places[name]].tolist())
                row.append(f"[{interval.low:+.3f}, {interval.high:+.3f}]")
            rows.append(row)
        total = float(self.values.sum(1).mean())
        rest = len(self.names) - min(count, len(self.names))
        ends = [[f"{rest} others", f"{total - shown:+.3f}"]] * bool(rest) + [["sum", f"{total:+.3f}"]]
        rows += [row + [""] * several for row in ends]
        return f"{self.note}; n = {len(self.logits)}\n{laid_out(rows)}"

    def to_json(self) -> dict[str, Any]:
        """Names, and each part's mean over texts; the logits; what is frozen."""
        means = self.values.mean(0).tolist()
        return {"by": self.by, "note": self.note, "parts": dict(zip(self.names, means, strict=True)),
                "logits": self.logits.tolist()}  # fmt: skip

    def _named(self, key: str, value: Tensor) -> list[str]:
        if key.endswith("feed_forward.neuron"):
            base = key.removesuffix(".neuron")
            return [f"{base}[{layer}].neuron[{number}]" for layer, number in self.neurons]
        base, dot, end = key.partition(".rest") if key.endswith(".rest") else (key, "", "")
        if key.endswith(".bias") and value.ndim == 2:
            base, dot = key.removesuffix(".bias"), ".bias"
        names = [base]
        for axis, form in zip(value.shape[1:], ("[{}]", ".head[{}]", "<-{}"), strict=False):
            names = [name + form.format(number) for name in names for number in range(axis)]
        return [name + dot + end for name in names]


def attribute(
    model: Any,
    given: Any,
    by: By = "component",
    *,
    source: Literal["token"] | None = None,
    metric: Literal["logit", "logit_diff"] = "logit",
    answers: Answers | None = None,
    others: Answers | None = None,
    target: Any = None,
    neurons: int = NEURONS,
    batch_size: int = BATCH,
) -> Attribution:
    """The logit of the answer's first token at the end of each text, as a sum of what is written toward it there.

    `by` says what has a part of its own, beside token and position vectors, and biases outside of blocks:

    - "layer": each block as a whole;
    - "component": each attention and each feed-forward;
    - "head": each head, in place of its attention: Σₖ pattern(k) · value(k) Wₒ toward the logit; with source="token"
      each k apart. Heads that share keys and values are told apart by their patterns and their Wₒ;
    - "neuron": hidden unit i, hidden(i) · W_down(i), in place of its feed-forward: the `neurons` with the largest mean
      |part|, the others of a layer together as `feed_forward[layer].rest`.

    Only direct paths count: what a part does by way of later parts is theirs. Frozen at their values in this run are
    the scale of the final norm and attention patterns; LayerNorm's taking away of the mean is linear, and is applied to
    every part. In post-norm networks the scale of *every* norm behind a part is frozen, so that its part is what it
    adds through all of them; each norm's bias is a part. `note` says which norms these are.

    Metric "logit_diff" is the logit less that of `others`, by default the answers of the swapped facts. `answers` and
    `others` are words or token ids, one for each text or for all; facts bring their own. An encoder-decoder wants a
    `target`, at whose end it is; its parts are the decoder's, of self- and cross-attention. Raises `InputError` for
    masked language models, whose head is not linear, and networks without a residual stream. Source: Elhage et al.
    2021, "A Mathematical Framework for Transformer Circuits".
    """
    network = network_of(model)
    _check(by, source, metric, neurons, batch_size)
    check_linear(network)
    inputs = prepare(model, given, target)
    tokens = first_tokens(model, inputs, answers)
    against = _others(model, inputs, others) if metric == "logit_diff" else None
    paths = Paths(network, by, tokens=source == "token")
    found, logits = [], []
    for first in range(0, len(inputs), batch_size):
        rows = torch.arange(first, min(first + batch_size, len(inputs)), device=tokens.device)
        beside = None if against is None else against[rows]
        groups, values = paths.groups(model, repeated(inputs, rows), tokens[rows], beside)
        found.append(groups)
        logits.append(values)
    together = joined_groups(found)
    note = (
        f"direct effects on the {metric} at the end of each text; frozen: attention patterns, {', '.join(paths.frozen)}"
    )
    if by != "neuron":
        return Attribution(by, inputs, together, torch.cat(logits), note)
    together, kept = _with_neurons(together, f"{paths.prefix}feed_forward", neurons)
    return Attribution(by, inputs, together, torch.cat(logits), note, kept)


def _with_neurons(groups: Groups, key: str, count: int) -> tuple[Groups, tuple[tuple[int, int], ...]]:
    """The largest neurons apart, and what the others of each layer give together."""
    values = groups[key]
    order = values.abs().mean(0).flatten().argsort(descending=True, stable=True)[:count]
    layers, numbers = order // values.shape[2], order % values.shape[2]
    chosen = values[:, layers, numbers]
    rest = values.clone()
    rest[:, layers, numbers] = 0.0
    found: Groups = {}
    for name, value in groups.items():
        if name == key:
            found |= {f"{key}.neuron": chosen, f"{key}.rest": rest.sum(2)}
        else:
            found[name] = value
    return found, tuple(zip(layers.tolist(), numbers.tolist(), strict=True))


def _others(model: Any, inputs: Inputs, others: Answers | None) -> Tensor:
    if others is None:
        if not hasattr(inputs.given, "swapped"):
            raise InputError("'logit_diff' is against another answer: give 'others', or facts, which are swapped.")
        others = inputs.given.swapped().answers
    return first_tokens(model, inputs, others)


def _is_attention(key: str) -> bool:
    return key.rpartition(".")[2] in ATTENTIONS


def _heads_in(key: str, value: Tensor) -> bool:
    return _is_attention(key) and value.ndim > 2


def _check(by: str, source: str | None, metric: str, neurons: int, batch_size: int) -> None:
    if by not in get_args(By):
        raise InputError(f"'by' must be {', '.join(get_args(By))}, got {by!r}.{did_you_mean(str(by), get_args(By))}")
    if source not in (None, "token"):
        raise InputError(f"'source' must be 'token' or None, got {source!r}.")
    if source is not None and by != "head":
        raise InputError(f"source tokens are what heads look at: say by='head', got {by!r}.")
    if metric not in ("logit", "logit_diff"):
        hint = did_you_mean(str(metric), ("logit", "logit_diff"))
        raise InputError(f"only 'logit' and 'logit_diff' are sums over parts, got {metric!r}.{hint}")
    if neurons < 1 or batch_size < 1:
        raise InputError(f"'neurons' and 'batch_size' must be at least 1, got {neurons} and {batch_size}.")
