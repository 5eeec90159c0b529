"""Decoding by contrast: what a text says more of with its document than without it, or a last layer more of than an
early one. B rows, T new positions, D the width of the states, V words, N layers.

Both are networks for the engine: they give contrasted logits where the network inside gives its own. Everything after
that (filters, temperature, penalties) is as ever.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glassformer.errors import InputError, did_you_mean
from glassformer.generation.compiled import Accelerated
from glassformer.layers.rows import RowState
from glassformer.models.decoder import Decoder

if TYPE_CHECKING:
    from glassformer.generation.engine import Continuing


@dataclass(frozen=True)
class ContextAware:
    """Context-aware decoding (Shi et al. 2023, "Trusting Your Evidence", equation 3): the next token has the logits
    (1 + α) · those after the prompt − α · those after the same prompt without its document.

    `without` is that second prompt: one for each prompt of a call, as text or ids, in their order. It may not be longer
    than its prompt, and ends with the same token. `alpha` 0 is plain generation; the paper takes 0.5, and 1 where a
    document contradicts what the model has learnt. Every token costs two rows instead of one.

    Raises `InputError` for an `alpha` that is negative or not finite.
    """

    without: Any = field(repr=False, compare=False)
    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not _is_number(self.alpha) or not 0 <= self.alpha < math.inf:
            raise InputError(
                f"context-aware decoding: 'alpha' must be a number from 0 (plain generation), got {self.alpha!r}."
            )


@dataclass(frozen=True)
class Dola:
    """DoLa (Chuang et al. 2024, equations 3 to 5): the next token has the logits log q_N − log q_M where
    q_N ≥ α · max q_N, and minus infinity elsewhere.

    q_j is what the head says of the state after j blocks, through the final norm; q_N is the network's own. M is that
    of the `layers` whose q_j is farthest from q_N by the Jensen-Shannon divergence, at each token anew. `layers` are
    such numbers of blocks, from 0 (the embedding) to N − 1, or a half of the network as in the authors' code: "low",
    every second layer below N/2 (from 2 where the head is the embedding), or "high", every second one from N/2 on.
    `alpha` 1 leaves the most probable token only: plain greedy generation. Every layer costs one more product with the
    head, and compiled steps are not used.

    Raises `InputError` for an `alpha` outside of [0, 1], and for layers that are none.
    """

    layers: Literal["low", "high"] | Sequence[int] = "high"
    alpha: float = 0.1

    def __post_init__(self) -> None:
        if not _is_number(self.alpha) or not 0 <= self.alpha <= 1:
            raise InputError(
                f"DoLa: 'alpha' must be from 0 (all tokens) to 1 (the most probable one), got {self.alpha!r}."
            )
        if isinstance(self.layers, str):
            if self.layers not in ("low", "high"):
                hint = did_you_mean(self.layers, ("low", "high"))
                raise InputError(f"DoLa: 'layers' must be 'low', 'high' or numbers, got '{self.layers}'.{hint}")
            return
        layers = tuple(self.layers)
        right = all(isinstance(layer, int) and not isinstance(layer, bool) and layer >= 0 for layer in layers)
        if not layers or not right or len(set(layers)) < len(layers):
            raise InputError(f"DoLa: 'layers' must be different whole numbers from 0, at least one; got {layers!r}.")
        object.__setattr__(self, "layers", tuple(sorted(layers)))

    def candidates(self, count: int, tied: bool) -> tuple[int, ...]:
        """The layers among which M is chosen, in a network of `count` blocks; `tied`: its head is its embedding.
        `InputError` where there are none, or one is the last or beyond it."""
        if isinstance(self.layers, str):
            # a tied head reads the embedding of a token as that token: this says nothing of what comes next
            low = range(2 if tied else 0, count // 2, 2)
            chosen = tuple(low if self.layers == "low" else range(count // 2, count, 2))
            if not chosen:
                raise InputError(f"DoLa: with {count} blocks there are no '{self.layers}' layers; give their numbers.")
            return chosen
        if wrong := [layer for layer in self.layers if layer >= count]:
            raise InputError(
                f"DoLa: the model has {count} blocks, so 'layers' lie in [0, {count - 1}]; {wrong[0]} does not."
            )
        return tuple(self.layers)


Contrast = ContextAware | Dola


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def contrasted(network: Continuing, contrast: Contrast | None) -> Continuing:
    """The network whose logits are contrasted, with the engine's seam; without a contrast, the network itself.

    Raises `InputError` for DoLa with what has no such layers, and as `Dola.candidates`.
    """
    if contrast is None:
        return network
    if isinstance(contrast, ContextAware):
        return WithAndWithout(network, contrast.alpha)
    inside = network.network if isinstance(network, Accelerated) else network
    if not isinstance(inside, Decoder):
        raise InputError(f"DoLa reads the layers of a decoder; a {type(inside).__name__} is none.")
    layers = contrast.candidates(len(inside.stack.blocks), inside.config.tie_head)
    return EarlyAndLate(inside, layers, contrast.alpha)


class _Contrasted:
    """What both have in common: `read` gives the states that are contrasted side by side, `head` their contrast."""

    def __init__(self, network: Any) -> None:
        self.network, self.config = network, network.config

    @property
    def training(self) -> bool:
        return bool(self.network.training)

    def train(self, mode: bool = True) -> Any:
        return self.network.train(mode)

    def logits(self, value: Tensor) -> Tensor:
        return value

    def step(self, ids: Int[Tensor, "B T"], lengths: Int[Tensor, B] | None, state: Any) -> Float[Tensor, "B V"]:
        states = self.read(ids, lengths, state)
        last = states[:, -1] if lengths is None else states[torch.arange(len(ids), device=ids.device), lengths - 1]
        return self.head(last)

    def read(self, ids: Tensor, lengths: Tensor | None, state: Any) -> Tensor:
        raise NotImplementedError

    def head(self, states: Tensor) -> Tensor:
        raise NotImplementedError

    def _own(self, states: Tensor) -> Tensor:
        """The logits of the network inside."""
        logits: Tensor = self.network.logits(self.network.head(states))
        return logits.float()


@dataclass
class PairState:
    """A state whose row b are rows 2b (with the document) and 2b + 1 (without) of the network inside. Their lengths
    differ; a pair's own is that of the first, which is the longer."""

    rows: RowState

    @property
    def capacity(self) -> int:
        return self.rows.capacity

    def select(self, rows: Int[Tensor, B]) -> None:
        """See `RowState.select`."""
        self.rows.select(_pairs(rows))

    def put(self, rows: Int[Tensor, R], other: PairState) -> None:
        """See `RowState.put`."""
        self.rows.put(_pairs(rows), other.rows)

    def rewind(self, row: int, length: int) -> None:
        """Forget what came after the first `length` positions; the row without a document goes as many back."""
        back = self.rows.lengths[2 * row] - length
        self.rows.rewind(2 * row, length)
        self.rows.rewind(2 * row + 1, max(self.rows.lengths[2 * row + 1] - back, 0))

    def grow(self, capacity: int) -> None:
        """See `RowState.grow`."""
        self.rows.grow(capacity)


def _pairs(rows: Int[Tensor, B]) -> Int[Tensor, P]:
    return torch.stack((2 * rows, 2 * rows + 1), 1).flatten()


class WithAndWithout(_Contrasted):
    """A network for context-aware decoding: each row is two of the network inside, which get the same new ids."""

    def __init__(self, network: Any, alpha: float) -> None:
        super().__init__(network)
        self.alpha = alpha

    def check(self, ids: Sequence[int], without: Sequence[int]) -> None:
        """`InputError` for a second prompt that does not go with the first."""
        if not without:
            raise InputError("context-aware decoding needs the prompt without its document too: give it as 'without'.")
        if len(without) > len(ids):
            raise InputError(
                f"context-aware decoding: the prompt without its document has {len(without)} tokens, the one with it "
                f"only {len(ids)}: the first must be the longer one."
            )
        if ids[-1] != without[-1]:
            raise InputError(
                "context-aware decoding: both prompts must end with the same token, since the same text goes on from "
                "both; let the question stand after the document."
            )

    def start(self, rows: int, capacity: int) -> PairState:
        return PairState(self.network.start(2 * rows, capacity))

    def opened(self, ids: Sequence[int], without: Sequence[int], chunk: int) -> PairState:
        """The state of one row that has read all but the last id of both prompts, `chunk` ids at a time."""
        state = self.start(1, len(ids))
        device = state.rows.keys.device
        for row, known in enumerate((ids[:-1], without[:-1])):
            alone = self.network.start(1, max(len(known), 1))
            for first in range(0, len(known), chunk):
                self.network.read(torch.tensor([known[first : first + chunk]], device=device), None, alone)
            state.rows.put(torch.tensor([row], device=device), alone)
        return state

    def read(self, ids: Int[Tensor, "B T"], lengths: Int[Tensor, B] | None, state: PairState) -> Tensor:
        """The states of both, side by side: [B, T, 2 · D]."""
        twice = None if lengths is None else lengths.repeat_interleave(2)
        states: Tensor = self.network.read(ids.repeat_interleave(2, 0), twice, state.rows)
        return states.unflatten(0, (-1, 2)).transpose(1, 2).flatten(-2)

    def head(self, states: Float[Tensor, "*B E"]) -> Float[Tensor, "*B V"]:
        """(1 + α) · logits with − α · logits without."""
        given, without = states.chunk(2, -1)
        return (1 + self.alpha) * self._own(given) - self.alpha * self._own(without)


class EarlyAndLate(_Contrasted):
    """A decoder for DoLa: the states after some of its blocks are kept beside the last one."""

    def __init__(self, network: Decoder, layers: Sequence[int], alpha: float) -> None:
        super().__init__(network)
        self.layers, self.alpha = tuple(layers), alpha

    def start(self, rows: int, capacity: int) -> RowState:
        return self.network.start(rows, capacity)  # type: ignore[no-any-return]

    def read(self, ids: Int[Tensor, "B T"], lengths: Int[Tensor, B] | None, state: RowState) -> Tensor:
        """The states after each candidate layer and after the last one, all through the final norm, side by side."""
        stack, step = self.network.stack, state.advance(ids.shape[1], lengths)
        held = (ids.shape[1] if step.fresh else step.window, 1)
        memories = state.memories(step)
        x, begin, found = stack.embedding(ids, step.positions), 0, []
        for layer in (*self.layers, len(stack.blocks)):
            x = stack.onwards(
                x, begin, layer, causal=step.fresh, positions=step.positions, remember=memories, held=held
            )
            found.append(x if stack.final_norm is None else stack.final_norm(x))
            begin = layer
        return torch.cat(found, -1)

    def head(self, states: Float[Tensor, "*B E"]) -> Float[Tensor, "*B V"]:
        """log q_N − log q_M among the plausible tokens, else minus infinity."""
        *early, last = states.chunk(len(self.layers) + 1, -1)
        final = self._own(last).log_softmax(-1)
        chosen, farthest = torch.zeros_like(final), final.new_full(final.shape[:-1], -math.inf)
        for one in early:
            earlier = self._own(one).log_softmax(-1)
            far = divergence(final, earlier)
            chosen = torch.where((far > farthest)[..., None], earlier, chosen)
            farthest = farthest.maximum(far)
        # a bound that rounding cannot lift above the best token itself
        bound = final.amax(-1, keepdim=True) + (math.log(self.alpha) if self.alpha else -math.inf)
        return (final - chosen).masked_fill(final < bound, -math.inf)


def divergence(one: Float[Tensor, "*B V"], other: Float[Tensor, "*B V"]) -> Float[Tensor, "*B"]:
    """Jensen-Shannon: ½ KL(p ‖ m) + ½ KL(q ‖ m) with m = ½ (p + q), in nats, of log-probabilities."""
    middle = torch.logaddexp(one, other) - math.log(2)
    terms = one.exp() * (one - middle) + other.exp() * (other - middle)
    return terms.sum(-1) / 2
