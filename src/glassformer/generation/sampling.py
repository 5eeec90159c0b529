"""How the next token is chosen: the most probable one, or one drawn after filters. B rows, V words.

The filters come in Hugging Face's order: bias, repetition penalty, functions of one's own, a grammar's mask,
temperature, top-k, top-p, min-p.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from glassformer.errors import InputError
from glassformer.generation.candidates import best, largest

LogitsFunction = Callable[[Sequence[int], Tensor], Tensor]
"""From the ids so far (the prompt's too) and the logits [V] of the next one to other logits [V]."""

_BELOW_1 = 1 - 1e-12

# For top-p so many of the most probable tokens are looked at, the more only where the fewer were not enough.
_WIDTHS = (32, 512, 4096)

_BLOCK = 256  # probabilities are summed in blocks first: one of them is enough to find the token drawn

_ROWS = 64  # entropies of so many rows at a time, where rows run side by side

_LEAST = -1e30

_NOT_NUMBERS = "the network's outputs are not numbers (NaN): its weights are broken; load or train others."


@dataclass(frozen=True)
class Sampling:
    """How a row's next token is chosen.

    `temperature` 0 takes the most probable token; otherwise logits are divided by it and a token is drawn. Before
    that, `logit_bias` adds a number to the logits of the tokens named (minus infinity forbids), `repetition_penalty`
    divides the positive logits of tokens that have occurred, in the prompt too, and multiplies the negative ones
    (CTRL, Keskar et al. 2019), and `functions` change them at will, in their order. After it, `top_k` keeps the k most
    probable tokens (0: all), `top_p` the most probable ones until their probability reaches p (Holtzman et al. 2020),
    `min_p` those at least `min_p` times as probable as the best (Nguyen et al. 2024).

    Raises `InputError` for numbers outside of their range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    functions: tuple[LogitsFunction, ...] = ()

    def __post_init__(self) -> None:
        _number("temperature", self.temperature, "0 (the most probable token) or more", 0, math.inf)
        _number("top_p", self.top_p, "above 0 and at most 1 (1: all tokens)", math.ulp(0), 1)
        _number("min_p", self.min_p, "from 0 (all tokens) to 1", 0, 1)
        _number("repetition_penalty", self.repetition_penalty, "above 0 (1: no penalty)", math.ulp(0), math.inf)
        if not isinstance(self.top_k, int) or isinstance(self.top_k, bool) or self.top_k < 0:
            raise InputError(f"'top_k' must be a whole number from 0 (all tokens), got {self.top_k!r}.")
        object.__setattr__(self, "functions", tuple(self.functions))
        object.__setattr__(self, "logit_bias", dict(self.logit_bias or {}))
        for token, bias in self.logit_bias.items():
            if not isinstance(token, int) or not isinstance(bias, int | float) or math.isnan(bias) or bias == math.inf:
                raise InputError(f"'logit_bias' must map ids to numbers, got {token!r}: {bias!r}.")

    @property
    def plain(self) -> bool:
        """Whether nothing but the most probable token is wanted."""
        return not (self.temperature or self.changes_logits)  # filters never remove the best

    @property
    def changes_logits(self) -> bool:
        """Whether anything comes before the temperature."""
        return bool(self.logit_bias or self.functions or self.repetition_penalty != 1)

    def check(self, vocab_size: int) -> None:
        """`InputError` for a bias on a token that the vocabulary does not have."""
        for token in self.logit_bias:
            if not 0 <= token < vocab_size:
                raise InputError(f"'logit_bias' names the id {token}; ids lie in [0, {vocab_size}).")


def _number(name: str, value: float, wanted: str, least: float, most: float) -> None:
    right = isinstance(value, int | float) and not isinstance(value, bool)
    if not right or not least <= value <= most or value == math.inf:
        raise InputError(f"'{name}' must be {wanted}, got {value!r}.")


class Drawing(Protocol):
    """What choosing a row's next token depends on, beside the logits."""

    @property
    def sampling(self) -> Sampling: ...
    @property
    def ids(self) -> Sequence[int]: ...  # so far, the prompt's too
    @property
    def generator(self) -> torch.Generator: ...  # on the CPU, the row's own
    def allowed(self) -> Tensor | None: ...  # [V], where a grammar allows a token


def generator_of(seed: int, row: int = 0) -> torch.Generator:
    """A source of chance of its own for row `row` of a call: what it draws does not depend on other rows."""
    digest = hashlib.sha256(f"{seed} {row}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def choose(logits: Float[Tensor, "B V"], rows: Sequence[Drawing]) -> Int[Tensor, "B"]:
    """The next token of every row. What a row gets depends on its own logits, ids and generator only.

    Raises `InputError` where logits are not numbers, or the filters leave no token.
    """
    masks = [row.allowed() for row in rows]
    if all(row.sampling.plain for row in rows) and all(mask is None for mask in masks):
        values, tokens = best(logits)
        _check_numbers(values)
        return tokens
    groups: dict[Sampling, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(row.sampling, []).append(place)
    tokens = torch.empty(len(rows), dtype=torch.long, device=logits.device)
    for sampling, places in groups.items():
        own = logits if len(places) == len(rows) else logits[places]
        tokens[places] = _chosen(own, sampling, [rows[i] for i in places], [masks[i] for i in places])
    return tokens


def _chosen(
    logits: Float[Tensor, "B V"], sampling: Sampling, rows: Sequence[Drawing], masks: Sequence[Tensor | None]
) -> Int[Tensor, "B"]:
    """The next tokens of rows that are sampled alike."""
    changed = sampling.changes_logits or any(mask is not None for mask in masks)
    scores = (
        adjusted(logits.to(torch.float32, copy=True), sampling, [r.ids for r in rows]) if changed else logits.float()
    )
    for row, mask in zip(scores, masks, strict=True):
        if mask is not None:
            row.masked_fill_(~mask.to(row.device), -math.inf)
    top, tokens = best(scores)
    _check_numbers(top)
    if bool((top == -math.inf).any()):
        raise InputError("no token is left: the biases, functions or grammar forbid all; loosen them.")
    if not sampling.temperature:
        return tokens
    # one number a row, whatever the vocabulary: cheap, and the same on every device
    chance = [torch.rand((), dtype=torch.float64, generator=row.generator) for row in rows]
    # the best is taken off first: a tiny temperature must not overflow
    values, ids = candidates((scores - top[:, None]).div_(sampling.temperature), sampling)
    index = draw(values, torch.stack(chance).to(values.device))
    return index if ids is None else ids.gather(1, index[:, None])[:, 0]


def _check_numbers(values: Tensor) -> None:
    if bool(values.isnan().any()):
        raise InputError(_NOT_NUMBERS)


def adjusted(scores: Float[Tensor, "B V"], sampling: Sampling, ids: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
    """What comes before the temperature: bias, repetition penalty, functions. `scores` may be written to."""
    if sampling.logit_bias:
        tokens = torch.tensor(list(sampling.logit_bias), device=scores.device)
        scores[:, tokens] += torch.tensor(list(sampling.logit_bias.values()), dtype=scores.dtype, device=scores.device)
    if sampling.repetition_penalty != 1:
        for row, seen in zip(scores, ids, strict=True):
            tokens = torch.tensor(seen, device=scores.device)
            held = row[tokens]
            penalty = sampling.repetition_penalty
            row[tokens] = torch.where(held < 0, held * penalty, held / penalty)
    for function in sampling.functions:
        for row, seen in zip(scores, ids, strict=True):
            changed = function(tuple(seen), row.clone())
            if not isinstance(changed, Tensor) or changed.shape != row.shape:
                came = list(changed.shape) if isinstance(changed, Tensor) else changed
                raise InputError(f"a logits function must return a tensor of shape {list(row.shape)}, got {came!r}.")
            row.copy_(changed)
    return scores


def candidates(
    scores: Float[Tensor, "B V"], sampling: Sampling
) -> tuple[Float[Tensor, "B k"], Int[Tensor, "B k"] | None]:
    """The tokens that top-k, top-p and min-p leave: scores, minus infinity where removed, and ids (None: 0 … V - 1).

    Only as much of the vocabulary is sorted as is needed. Of tokens that are equally probable top-k and top-p keep as
    many as they need.
    """
    values, ids = scores, None
    if 0 < sampling.top_k < scores.shape[1]:
        values, ids = largest(scores, sampling.top_k)
    if sampling.top_p < 1:
        total = values.logsumexp(-1, keepdim=True)
        if ids is None:
            values, ids = _most_probable(scores, total, sampling.top_p)
        probabilities = (values - total).exp()
        before = probabilities.cumsum(-1) - probabilities
        removed = before >= sampling.top_p
        removed[:, 0] = False
        values = values.masked_fill(removed, -math.inf)
    if sampling.min_p > 0:
        border = values.amax(-1, keepdim=True) + math.log(sampling.min_p)
        values = values.masked_fill(values < border, -math.inf)
    return values, ids


def _most_probable(
    scores: Float[Tensor, "B V"], total: Float[Tensor, "B 1"], mass: float
) -> tuple[Float[Tensor, "B k"], Int[Tensor, "B k"]]:
    """Each row's most probable tokens in order, at least until their probability reaches `mass`; the rest of a row is
    minus infinity. `total` is the logarithm of the summed exponentials."""
    size = scores.shape[1]
    rows = torch.arange(len(scores), device=scores.device)
    values, ids = scores.new_empty(len(scores), 0), rows.new_empty(len(scores), 0)
    for width in (*(width for width in _WIDTHS if 4 * width < size), size):
        best, places = largest(scores[rows], width)
        values = pad(values, (0, width - values.shape[1]), value=-math.inf)
        ids = pad(ids, (0, width - ids.shape[1]))
        values[rows], ids[rows] = best, places
        held = (best.logsumexp(-1) - total[rows, 0]).exp()
        rows = rows[held < mass + 1e-4]
        if not len(rows):
            break
    return values, ids


def draw(values: Float[Tensor, "B k"], chance: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
    """An index of each row, with probability softmax(values), as `chance` in [0, 1) falls among their sums."""
    weights = (values - values.amax(-1, keepdim=True)).exp_()
    blocks = pad(weights, (0, -weights.shape[1] % _BLOCK)).unflatten(1, (-1, _BLOCK))
    sums = blocks.sum(-1).double().cumsum(-1)
    # a point on the very end, where rounding may put it, would fall behind the last token that is possible
    point = chance.double()[:, None].clamp_max(_BELOW_1) * sums[:, -1:]
    block = torch.searchsorted(sums, point, right=True)
    before = pad(sums, (1, 0)).gather(1, block)
    share = ((point - before) / (sums.gather(1, block) - before)).clamp(0, _BELOW_1)
    inside = blocks[torch.arange(len(values), device=values.device), block[:, 0]].double().cumsum(-1)
    return (block * _BLOCK + torch.searchsorted(inside, share * inside[:, -1:], right=True))[:, 0]


def log_probabilities(
    logits: Float[Tensor, "B V"], tokens: Int[Tensor, "B"], count: int = 0, total: Float[Tensor, "B"] | None = None
) -> tuple[list[float], list[tuple[tuple[int, float], ...]]]:
    """The log-probability of each row's token, and the `count` most probable tokens with theirs.

    They are the model's own: before temperature, filters, biases and grammars. `total` is log Σ exp of each row's
    logits, where that is known.
    """
    logits = logits.float()
    if total is None and not count:  # quicker on a CPU than the sum alone
        own = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0].tolist()
    else:
        total = logits.logsumexp(-1) if total is None else total
        own = (logits.gather(1, tokens[:, None])[:, 0] - total).tolist()
    if any(map(math.isnan, own)):
        raise InputError(_NOT_NUMBERS)
    if total is None or not count:
        return own, [() for _ in own]
    values, ids = largest(logits, min(count, logits.shape[1]))
    rows = zip(ids.tolist(), (values - total[:, None]).tolist(), strict=True)
    return own, [tuple(zip(*row, strict=True)) for row in rows]


@dataclass(frozen=True)
class Spread:
    """How unsure a model is of the next token, for each row, in nats, of the model's own distribution p.

    `entropies`: −Σ p log p. `margins`: log p of the best token less that of the second. `total`: log Σ exp of the
    logits, which log-probabilities need as well.
    """

    entropies: list[float]
    margins: list[float]
    total: Float[Tensor, "B"]

    @classmethod
    def of(cls, logits: Float[Tensor, "B V"]) -> "Spread":
        """That of the softmax of each row."""
        # a row by itself stays in a core's cache from one pass over it to the next
        at_once = 1 if logits.device.type == "cpu" else _ROWS
        found = torch.cat([_spread(block.float()) for block in logits.split(at_once)], 1)
        entropies, margins, _ = found.tolist()
        if any(map(math.isnan, entropies)):  # a logit is minus infinity, and 0 · ∞ no number
            entropies = _spread(logits.float().clamp_min(_LEAST))[0].tolist()
        return cls(entropies, margins, found[2])


def _spread(logits: Float[Tensor, "B V"]) -> Float[Tensor, "3 B"]:
    """log Σ exp x − Σ p x for x the logits less their best, which needs no logarithm of p; margin; log Σ exp."""
    top, place = (found[:, None] for found in best(logits))
    x = logits - top
    weights = x.exp()
    total = weights.sum(-1)
    log_total = total.log()
    entropy = log_total - torch.linalg.vecdot(weights, x) / total
    second = x.scatter_(1, place, -math.inf).amax(-1)
    return torch.stack((entropy, -second, log_total + top[:, 0]))
