"""What heads look at: how widely, how far, and how often at the word that a relation names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from glassformer.studies.architectures.heads.words import RELATIONS, TRANSLATION, Labelled, Seen, Watched, over_words

OFFSETS = tuple(range(-8, 9))
"""The fixed offsets among which the rival of heads is chosen: "always the word so many places on"."""


def observe(watched: Watched, sentences: Sequence[Labelled]) -> dict[str, dict[str, Any]]:
    """For each kind of attention: `habits` of its heads and, where they are labelled, `relations` (see `score`)."""
    gathered: dict[str, _Gathered] = {}
    for number, sentence in enumerate(sentences):
        for kind, seen in watched.read(sentence).items():
            gathered.setdefault(kind, _Gathered()).add(kind, seen, sentence, number % 2)
    return {kind: each.result() for kind, each in gathered.items()}


@dataclass
class _Gathered:
    """What is kept of one kind of attention, sentence after sentence."""

    entropy: list[Tensor] = field(default_factory=list)
    distance: list[Tensor] = field(default_factory=list)
    heads: dict[str, list[Tensor]] = field(default_factory=dict)
    offsets: dict[str, list[Tensor]] = field(default_factory=dict)
    halves: dict[str, list[int]] = field(default_factory=dict)

    def add(self, kind: str, seen: Seen, sentence: Labelled, half: int) -> None:
        entropy, distance = habits(seen.pattern, seen.causal)
        self.entropy.append(entropy)
        self.distance.append(distance)
        if kind == "decoder":
            return
        names = (TRANSLATION,) if kind == "cross-attention" else RELATIONS
        within = kind != "cross-attention"
        pattern = over_words(seen.pattern.flatten(0, 1), seen.queries, seen.keys)
        for name in names:
            for first, second in sentence.pairs.get(name, ()):
                self.heads.setdefault(name, []).append(
                    looked_at(pattern[:, first], first if within else None) == second
                )
                self.offsets.setdefault(name, []).append(torch.tensor([first + each == second for each in OFFSETS]))
                self.halves.setdefault(name, []).append(half)

    def result(self) -> dict[str, Any]:
        entropy, distance = torch.cat(self.entropy, -1).mean(-1), torch.cat(self.distance, -1).mean(-1)
        relations = {
            name: score(torch.stack(self.heads[name]), torch.stack(self.offsets[name]), self.halves[name], len(entropy))
            for name in self.heads
        }
        return {
            "habits": {"entropy": entropy.tolist(), "distance": distance.tolist()},
            "sentences": len(self.entropy),
            "relations": relations,
        }


def habits(pattern: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """Of patterns [L, H, Q, K], for each query that has a choice: entropy as a share of what it would be if all that
    can be seen had equal weight, and the mean distance in tokens Σ p |q - k|; each [L, H, queries]."""
    queries, keys = pattern.shape[-2:]
    places = torch.arange(queries)
    visible = places + 1 if causal else torch.full((queries,), keys)
    entropy = torch.special.entr(pattern).sum(-1)
    away = (places[:, None] - torch.arange(keys)).abs().to(pattern.dtype)
    choice = visible > 1
    return (entropy / visible.log().clamp_min(1e-9))[..., choice], (pattern * away).sum(-1)[..., choice]


def looked_at(rows: Tensor, itself: int | None) -> Tensor:
    """The word with the most attention in each row [H, V]; never the word itself, where that is among them."""
    if itself is not None:
        rows = rows.clone()
        rows[:, itself] = -1
    return rows.argmax(-1)


def score(heads: Tensor, offsets: Tensor, halves: Sequence[int], layers: int) -> dict[str, Any]:
    """How often the best head is right, and the best fixed offset, each chosen on the other half of the sentences.

    `heads` [n, L · H] and `offsets` [n, O] say who is right about each instance. `both`, `head_only`, `offset_only` and
    `neither` count instances, `chosen` are the two heads (layer and head from 1) and offsets, `shares` [L][H] how often
    each head is right in all (its best is flattered).
    """
    half = torch.tensor(list(halves))
    right, rival = torch.zeros(len(half), dtype=torch.bool), torch.zeros(len(half), dtype=torch.bool)
    chosen_heads, chosen_offsets, per_layer = [], [], heads.shape[1] // layers
    for this in (0, 1):
        there, here = half != this, half == this
        head = int(heads[there].float().sum(0).argmax())
        offset = int(offsets[there].float().sum(0).argmax())
        right[here], rival[here] = heads[here, head], offsets[here, offset]
        chosen_heads.append([head // per_layer + 1, head % per_layer + 1])
        chosen_offsets.append(OFFSETS[offset])
    return {
        "n": len(half),
        "both": int((right & rival).sum()),
        "head_only": int((right & ~rival).sum()),
        "offset_only": int((~right & rival).sum()),
        "neither": int((~right & ~rival).sum()),
        "chosen": {"heads": chosen_heads, "offsets": chosen_offsets},
        "shares": heads.float().mean(0).view(layers, per_layer).tolist(),
    }
