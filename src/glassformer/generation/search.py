"""The state of a beam search between two steps of the network, as tensors over [sources, hypotheses].

R is the number of sources still searched, W the hypotheses living for each (1 before the first step, then the beam),
C the candidates for the next step, L the most tokens of an output.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from glassformer.errors import InputError
from glassformer.generation.candidates import next_tokens

_LEAVING = 8  # sources that are done leave when they are one in so many: leaving copies what cross-attention looks up


@dataclass(frozen=True)
class Hypothesis:
    """One output. `ids` end with `</s>` if `finished`, else they were cut off; `logprobs` has each one's log p.

    `score` is the sum of `logprobs` over the length penalty.
    """

    ids: tuple[int, ...]
    score: float
    logprobs: tuple[float, ...]
    finished: bool


@dataclass(frozen=True)
class _Candidates:
    """Each source's best continuations, the best first: of which hypothesis, by which token, and how probable."""

    parents: Int[Tensor, "R C"]
    tokens: Int[Tensor, "R C"]
    logprobs: Float[Tensor, "R C"]
    totals: Float[Tensor, "R C"]


class _Pool:
    """Hypotheses that can no longer grow, at most 2 × beam for each source."""

    def __init__(self, n_sources: int, beam: int, longest: int, device: torch.device) -> None:
        shape = (n_sources, 2 * beam)
        self.counts = torch.zeros(n_sources, dtype=torch.long, device=device)
        self.scores = torch.full(shape, float("-inf"), device=device)
        self.lengths = torch.zeros(shape, dtype=torch.long, device=device)
        self.finished = torch.zeros(shape, dtype=torch.bool, device=device)
        self.tokens = torch.zeros((*shape, longest), dtype=torch.long, device=device)
        self.logprobs = torch.zeros((*shape, longest), device=device)

    def keep(self, sources: Int[Tensor, "R"]) -> None:
        for name, value in vars(self).items():
            setattr(self, name, value[sources])

    def hypotheses(self, source: int, n_best: int) -> list[Hypothesis]:
        """A source's best: finished before cut off, then by score."""
        count = int(self.counts[source])
        scores, finished = self.scores[source, :count].tolist(), self.finished[source, :count].tolist()
        order = sorted(range(count), key=lambda i: (not finished[i], -scores[i]))[:n_best]
        lengths = self.lengths[source].tolist()
        return [
            Hypothesis(
                tuple(self.tokens[source, i, : lengths[i]].tolist()),
                scores[i],
                tuple(self.logprobs[source, i, : lengths[i]].tolist()),
                finished[i],
            )
            for i in order
        ]


class Search:
    """Hypotheses of all sources: `advance` takes the logits of the next token and says which rows go on."""

    def __init__(
        self,
        limits: Int[Tensor, "R"],
        beam: int,
        n_best: int,
        length_penalty: float,
        min_length: int,
        eos_ids: Sequence[int],
        never: Sequence[int] = (),
    ) -> None:
        device, n_sources, longest = limits.device, len(limits), int(limits.max())
        self.beam, self.n_best, self.length_penalty, self.min_length = beam, n_best, length_penalty, min_length
        self.eos_ids, self.never = tuple(sorted(set(eos_ids))), tuple(never)
        self.ends = torch.tensor(self.eos_ids, dtype=torch.long, device=device)
        self.limits = limits
        self.length = 0
        self.places = torch.arange(n_sources, device=device)  # of the sources still searched, in the caller's order
        self.active = torch.ones(n_sources, dtype=torch.bool, device=device)
        self.tokens = torch.zeros((n_sources, 1, longest), dtype=torch.long, device=device)
        self.logprobs = torch.zeros((n_sources, 1, longest), device=device)
        self.totals = torch.zeros((n_sources, 1), device=device)
        self.pool = _Pool(n_sources, beam, longest, device)
        self.found: dict[int, list[Hypothesis]] = {}
        self.moved = False  # whether the last step put hypotheses into other rows

    @property
    def idle(self) -> list[int]:
        """Rows of sources that are done and have not left yet: what becomes of them does not matter."""
        return (~self.active).repeat_interleave(self.totals.shape[1]).nonzero()[:, 0].tolist()

    @property
    def last(self) -> Int[Tensor, "B 1"]:
        """The newest token of every living hypothesis, to be fed to the network."""
        return self.tokens[:, :, self.length - 1].reshape(-1, 1)

    def results(self) -> list[list[Hypothesis]]:
        """Each source's best hypotheses, in the caller's order, once `advance` has given None."""
        return [self.found[place] for place in sorted(self.found)]

    def advance(self, logits: Float[Tensor, "B V"]) -> Int[Tensor, "B"] | None:
        """One token further: the rows that the new rows continue, or None when every source is done."""
        candidates = self._candidates(logits)
        self.length += 1
        ending = torch.isin(candidates.tokens, self.ends)
        self._finish(candidates, ending)
        before = self.totals.numel()
        rows = self._extend(candidates, ending)
        self.active &= ~self._done()
        left = len(self.active) - int(self.active.sum())
        if left == len(self.active):
            self._collect(torch.arange(left, device=rows.device))
            return None
        if left * _LEAVING >= len(self.active):
            rows = self._leave(rows)
        here = torch.arange(before, device=rows.device)
        self.moved = len(rows) != before or not torch.equal(rows, here)
        return rows

    def _candidates(self, logits: Float[Tensor, "B V"]) -> _Candidates:
        """The 2 × beam best: even if `beam` of them end here, `beam` are left to go on. A beam of 1 needs but one.

        With E tokens that end a text, up to E × beam may."""
        ends = len(self.eos_ids)
        wanted = (1 + ends) * self.beam if self.beam > 1 else 1
        early = self.eos_ids if self.length < self.min_length else ()
        # among a hypothesis' candidates at most E end, so beam + E of each are enough
        logprobs, tokens = next_tokens(logits, min(wanted, self.beam + ends), (*self.never, *early))
        n_sources, each = len(self.totals), logprobs.shape[1]
        totals = (self.totals.view(-1, 1) + logprobs).view(n_sources, -1)
        best = totals.topk(min(wanted, totals.shape[1]))
        if bool(best.values[:, 0].isnan().any()):
            raise InputError(
                "the network's outputs are not numbers (NaN): its weights are broken; load or train others."
            )
        index = best.indices
        return _Candidates(
            index // each,
            tokens.view(n_sources, -1).gather(1, index),
            logprobs.view(n_sources, -1).gather(1, index),
            best.values,
        )

    def _finish(self, candidates: _Candidates, ending: Bool[Tensor, "R C"]) -> None:
        """Put into the pool what ends here, by `</s>` or by its limit, while among the `beam` best."""
        at_limit = self.limits <= self.length
        over = (ending | at_limit[:, None]) & self.active[:, None] & (candidates.totals > float("-inf"))
        over = over[:, : self.beam]
        if not bool(over.any()):
            return
        source, rank = over.nonzero(as_tuple=True)
        slot = (self.pool.counts[:, None] + over.cumsum(1) - 1)[source, rank]
        parent = candidates.parents[source, rank]
        pool, t = self.pool, self.length - 1
        pool.scores[source, slot] = candidates.totals[source, rank] / self._penalty(self.length)
        pool.lengths[source, slot] = self.length
        pool.finished[source, slot] = ending[source, rank]
        pool.tokens[source, slot, :t] = self.tokens[source, parent, :t]
        pool.logprobs[source, slot, :t] = self.logprobs[source, parent, :t]
        pool.tokens[source, slot, t] = candidates.tokens[source, rank]
        pool.logprobs[source, slot, t] = candidates.logprobs[source, rank]
        pool.counts += over.sum(1)

    def _extend(self, candidates: _Candidates, ending: Bool[Tensor, "R C"]) -> Int[Tensor, "B"]:
        """The `beam` best candidates that do not end here live on; gives the row that each continues."""
        n_sources, width, t = *self.totals.shape, self.length - 1
        n_candidates = ending.shape[1]
        order = torch.arange(n_candidates, device=ending.device) + n_candidates * ending
        chosen = order.topk(min(self.beam, n_candidates), largest=False).indices
        chosen = F.pad(chosen, (0, self.beam - chosen.shape[1]))  # a tiny vocabulary may give fewer than `beam`
        totals = candidates.totals.masked_fill(ending, float("-inf")).gather(1, chosen)
        totals[:, n_candidates:] = float("-inf")
        self.totals = totals
        parents = candidates.parents.gather(1, chosen)
        rows = (parents + width * torch.arange(n_sources, device=parents.device)[:, None]).flatten()
        self.tokens = self.tokens.flatten(0, 1)[rows].view(n_sources, self.beam, -1)
        self.logprobs = self.logprobs.flatten(0, 1)[rows].view(n_sources, self.beam, -1)
        self.tokens[:, :, t] = candidates.tokens.gather(1, chosen)
        self.logprobs[:, :, t] = candidates.logprobs.gather(1, chosen)
        return rows

    def _done(self) -> Bool[Tensor, "R"]:
        """Sources with enough finished, at their limit, or where no living hypothesis can come among the n best."""
        done = (self.pool.counts >= self.beam) | (self.limits <= self.length)
        # the most a hypothesis can get: it ends without further loss, at the length where the penalty helps most
        length = self.limits if self.length_penalty > 0 else torch.full_like(self.limits, self.length + 1)
        hope = self.totals[:, 0] / self._penalty(length)
        return done | (self.pool.scores.topk(self.n_best).values[:, -1] >= hope)

    def _penalty(self, length: Any) -> Any:
        return ((5 + length) / 6) ** self.length_penalty

    def _leave(self, rows: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        """Collect the sources that are done and go on without them."""
        self._collect((~self.active).nonzero()[:, 0])
        staying = self.active.nonzero()[:, 0]
        for name in ("places", "limits", "active", "tokens", "logprobs", "totals"):
            setattr(self, name, getattr(self, name)[staying])
        self.pool.keep(staying)
        return rows.view(-1, self.beam)[staying].flatten()

    def _collect(self, sources: Int[Tensor, "R"]) -> None:
        for source, place in zip(sources.tolist(), self.places[sources].tolist(), strict=True):
            self.found[place] = self.pool.hypotheses(source, self.n_best)
