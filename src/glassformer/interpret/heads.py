"""What attention heads look at: tags such as "induction", and statistics of their patterns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glassformer.errors import InputError, did_you_mean
from glassformer.interpret.expressions import Expression, parse
from glassformer.interpret.inputs import Inputs, network_of, prepare, repeated
from glassformer.interpret.spans import Places
from glassformer.interpret.tables import laid_out
from glassformer.interpret.trace import Trace, trace
from glassformer.layers.sites import edges
from glassformer.models.decoder import Decoder
from glassformer.models.families import TEXT_TO_TEXT
from glassformer.tasks.model import Model

THRESHOLD = 0.4
"""A head is tagged with what takes more of its attention than this."""

REPEATED, ROWS = 24, 8
"""So many random tokens stand twice in each of so many texts."""

BATCH = 8
"""Texts whose patterns are held together."""

GIVEN = ("previous token", "current token", "first token")
DRAWN = ("duplicate token", "induction")


@dataclass(frozen=True, eq=False)
class HeadTags:
    """How much of its attention each head gives to certain tokens: `scores` by name, each [L, H]. See `head_tags`."""

    attention: str
    scores: dict[str, Float[Tensor, "L H"]]
    threshold: float

    @property
    def tags(self) -> dict[tuple[int, int], list[str]]:
        """For (layer, head) the names whose score exceeds the threshold, the highest first; only heads with any."""
        found: dict[tuple[int, int], list[str]] = {}
        layers, heads = next(iter(self.scores.values())).shape
        for place in product(range(layers), range(heads)):
            own = {name: float(score[place]) for name, score in self.scores.items()}
            above = [name for name in sorted(own, key=lambda name: -own[name]) if own[name] > self.threshold]
            if above:
                found[place] = above
        return found

    def heads(self, tag: str) -> list[tuple[int, int]]:
        """(layer, head) of those with this tag, the highest score first."""
        if tag not in self.scores:
            raise InputError(f"there is no tag '{tag}'.{did_you_mean(tag, self.scores)} {', '.join(self.scores)}.")
        tagged = [place for place, names in self.tags.items() if tag in names]
        return sorted(tagged, key=lambda place: -float(self.scores[tag][place]))

    def table(self, count: int = 20) -> str:
        """For `print`: the heads with tags, at most `count` of them, those with the highest scores."""
        tags = self.tags
        order = sorted(tags, key=lambda place: -float(self.scores[tags[place][0]][place]))[:count]
        rows = [["head", *self.scores, "tags"]]
        for layer, head in order:
            cells = [f"{float(score[layer, head]):.2f}" for score in self.scores.values()]
            rows.append([f"{self.attention}[{layer}].head[{head}]", *cells, ", ".join(tags[layer, head])])
        layers, heads = next(iter(self.scores.values())).shape
        about = (
            f"{len(tags)} of {layers * heads} heads give more than {self.threshold:g} of their attention to one kind"
        )
        return f"{about}\n{laid_out(rows)}"

    def to_json(self) -> dict[str, Any]:
        """Scores, tags and the threshold."""
        tags = [{"layer": layer, "head": head, "tags": names} for (layer, head), names in self.tags.items()]
        scores = {name: score.tolist() for name, score in self.scores.items()}
        return {"attention": self.attention, "threshold": self.threshold, "scores": scores, "tags": tags}


@dataclass(frozen=True, eq=False)
class AttentionStatistics:
    """Of each head, means over all queries: `entropy` of its pattern in nats, `distance` between query and key in
    positions, and `largest`, its largest weight; each [L, H]. See `attention_statistics`."""

    attention: str
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    entropy: Float[Tensor, "L H"]
    distance: Float[Tensor, "L H"] | None
    largest: Float[Tensor, "L H"]
    queries: int

    def table(self) -> str:
        """For `print`, a line a head."""
        rows = [["head", "entropy", "distance", "largest"]]
        for i, layer in enumerate(self.layers):
            for j, head in enumerate(self.heads):
                distance = "–" if self.distance is None else f"{float(self.distance[i, j]):.1f}"
                cells = [f"{float(self.entropy[i, j]):.2f}", distance, f"{float(self.largest[i, j]):.2f}"]
                rows.append([f"{self.attention}[{layer}].head[{head}]", *cells])
        return f"means over {self.queries} queries; entropy in nats, distance in positions\n{laid_out(rows)}"

    def to_json(self) -> dict[str, Any]:
        """All numbers, by the names of the fields."""
        distance = None if self.distance is None else self.distance.tolist()
        return {"attention": self.attention, "layers": list(self.layers), "heads": list(self.heads),
                "entropy": self.entropy.tolist(), "distance": distance, "largest": self.largest.tolist(),
                "queries": self.queries}  # fmt: skip


def head_tags(
    model: Any,
    texts: Any = None,
    *,
    target: Any = None,
    attention: str | None = None,
    threshold: float = THRESHOLD,
    seed: int = 0,
) -> HeadTags:
    """Which heads look at the token before, at themselves, at the first token, at earlier equals, at what came after.

    A score is the mean over queries of the attention that they give to such keys:

    - "previous token", "current token", "first token": the key before, the query itself, key 0; queries from position 2
      on, for which these three differ. Measured on `texts`; without, on the random ones.
    - "duplicate token": earlier keys with the query's token. "induction": keys *after* an earlier token that equals the
      query's. Always measured on random tokens of the vocabulary that stand twice, drawn by `seed`, where neither
      meaning nor frequency helps; queries are those whose token stood before (Olsson et al. 2022, "In-context Learning
      and Induction Heads").

    A head may have several tags or none. `attention` says which one, where an encoder-decoder has several; by default
    the decoder's self-attention. Raises `InputError` for networks without self-attention.
    """
    if not 0 <= threshold < 1:
        raise InputError(f"'threshold' must be from 0 to below 1, got {threshold}.")
    attention = _attention(network_of(model), attention, ["self_attention"])
    drawn = _repeated(model, seed)
    scores = _scores(model, drawn if texts is None else prepare(model, texts, target), attention, GIVEN)
    return HeadTags(attention, scores | _scores(model, drawn, attention, DRAWN), threshold)


def attention_statistics(
    given: Any, texts: Any = None, *, target: Any = None, attention: str | None = None
) -> AttentionStatistics:
    """How sharp and how far heads look: of a model in `texts`, or of a trace that kept `pattern[…] @ span<-*`.

    Means over all queries of the span, all of them alike; those that may look nowhere do not count. The first query of
    a causal network sees itself alone, so that texts of few tokens have low entropies. Cross-attention has no distance:
    positions of two texts are not on one line. `attention` says which one where there are several. Raises `InputError`
    for a trace without such a pattern.
    """
    if isinstance(given, Trace):
        expression = _kept(given, attention)
        sums = [_sums(given, expression)]
    else:
        if texts is None:
            raise InputError("statistics of a model's attention want texts: attention_statistics(model, texts).")
        attention = _attention(network_of(given), attention, ["self_attention", "cross_attention"])
        expression = parse(f"{attention}.pattern[*] @ *<-*", network_of(given))
        inputs = prepare(given, texts, target)
        sums = [_sums(kept, expression) for kept in _patterns(given, inputs, attention)]
    count = sum(number for _, number in sums)
    entropy, distance, largest = torch.stack([each for each, _ in sums]).sum(0) / count
    site = expression.site.removesuffix(".pattern")
    heads = expression.heads or tuple(range(entropy.shape[1]))
    far = None if "cross_attention" in site else distance
    return AttentionStatistics(site, expression.layers or (0,), heads, entropy, far, largest, count)


def _sums(kept: Trace, expression: Expression) -> tuple[Float[Tensor, "3 L H"], int]:
    """Of all queries the sums of entropy, distance and largest weight, and how many queries these are."""
    at = kept.inputs.places(expression.at, expression.side)
    keys = kept.inputs.places(expression.of or "*", expression.key_side).index
    away = (at.index[:, None, :, None] - keys[:, None, None, :]).abs().double()
    found, count = [], 0
    for pattern in kept.whole(expression).values():
        pattern = pattern.double()
        counted = at.real[:, None, :] & (pattern.sum(-1) > 0)
        entropy = -torch.special.xlogy(pattern, pattern).sum(-1)
        each = torch.stack((entropy, (pattern * away).sum(-1), pattern.amax(-1)))
        found.append((each * counted).sum((1, 3)))
        count = int(counted[:, 0].sum())
    if not count:
        raise InputError(f"no query of '{expression.text}' looks anywhere.")
    return torch.stack(found, 1), count


def _scores(model: Any, inputs: Inputs, attention: str, names: tuple[str, ...]) -> dict[str, Float[Tensor, "L H"]]:
    totals: dict[str, Tensor | float] = dict.fromkeys(names, 0.0)
    counts = dict.fromkeys(names, 0)
    for kept in _patterns(model, inputs, attention):
        expression = next(iter(kept.kept.values()))
        texts = kept.inputs.source if expression.side == "source" else kept.inputs.text
        assert texts is not None
        places = texts.places("*")
        wide = places.index.shape[1]
        wanted = {name: _keys(name, texts.ids[:, :wide], places) for name in names}
        for name, keys in wanted.items():
            counts[name] += int(keys.any(-1).sum())
            sums = [(pattern * keys[:, None]).sum((0, 2, 3)) for pattern in kept.whole(expression).values()]
            totals[name] = totals[name] + torch.stack(sums).double()
    for name, count in counts.items():
        if not count:
            raise InputError(f"the texts are too short for '{name}': give texts of three tokens at least.")
    return {name: torch.as_tensor(totals[name]) / counts[name] for name in names}


def _keys(name: str, ids: Int[Tensor, "n T"], places: Places) -> Bool[Tensor, "n T T"]:
    """For each query the keys that count."""
    place = torch.arange(ids.shape[1], device=ids.device)
    query, key = place[:, None], place[None]
    real = places.real[:, :, None] & places.real[:, None, :]
    if name in GIVEN:
        chosen = {"previous token": key == query - 1, "current token": key == query, "first token": key == 0}[name]
        return real & chosen & (query >= 2)
    same = ids[:, :, None] == ids[:, None, :]
    if name == "duplicate token":
        return real & same & (key < query)
    after = torch.zeros_like(same)
    after[:, :, 1:] = same[:, :, :-1]  # the key before this one has the query's token
    return real & after & (key - 1 < query)


def _patterns(model: Any, inputs: Inputs, attention: str) -> Iterator[Trace]:
    """Traces of the whole pattern, some texts at a time."""
    for first in range(0, len(inputs), BATCH):
        rows = torch.arange(first, min(first + BATCH, len(inputs)), device=inputs.text.ids.device)
        yield trace(model, repeated(inputs, rows), f"{attention}.pattern[*] @ *<-*")


def _kept(given: Trace, attention: str | None) -> Expression:
    fit = [
        kept
        for kept in given.kept.values()
        if kept.site.endswith("attention.pattern")
        and kept.of == "*"
        and attention in (None, kept.site[: -len(".pattern")])
    ]
    if len(fit) != 1:
        found = ", ".join(f"'{kept.text}'" for kept in fit) or "none"
        raise InputError(
            "statistics want a pattern over all keys, such as 'self_attention.pattern[*] @ *<-*'; of what is traced, "
            f"{found} fit: keep one, or say which 'attention'."
        )
    return fit[0]


def _attention(network: Any, attention: str | None, kinds: list[str]) -> str:
    known = list(dict.fromkeys(name.partition("[")[0] for name in edges(network)))
    known = [name for name in known if name.rpartition(".")[2] in kinds and f"{name}[0]" in edges(network)]
    if not known:
        raise InputError(f"the model, a {type(network).__name__}, has no {' or '.join(kinds)} in layers with heads.")
    if attention is None:
        own = [name for name in known if name.endswith("self_attention")]
        return own[-1]
    if attention not in known:
        raise InputError(f"the model has no '{attention}'.{did_you_mean(attention, known)} It has {', '.join(known)}.")
    return attention


def _repeated(model: Any, seed: int) -> Inputs:
    """Texts of random tokens that stand twice, in the model's frame."""
    network = network_of(model)
    config = network.config
    pair = isinstance(network, TEXT_TO_TEXT)
    before, after = ([], []) if pair else _frame(model)
    length = min(REPEATED, (config.max_length - 1 - len(before) - len(after)) // 2)
    draw = torch.Generator().manual_seed(seed)
    size = min(config.vocab_size, getattr(config, "source_vocab_size", None) or config.vocab_size)
    rows = []
    for _ in range(ROWS):
        tokens = _words(model, torch.randperm(size, generator=draw).tolist(), length)
        rows.append([*before, *tokens, *tokens, *after])
    if len(rows[0]) < 6:
        raise InputError("the model reads too few tokens, or has too few, for texts that say everything twice.")
    if not pair:
        return prepare(model, rows)
    return prepare(model, [[*row, config.eos_id] for row in rows], [[config.bos_id, *row] for row in rows])


def _words(model: Any, order: list[int], count: int) -> list[int]:
    """The first `count` ids that stand for text, and for nothing special."""
    config = network_of(model).config
    special = {config.pad_id, config.bos_id, config.eos_id}
    found: list[int] = []
    for number in order:
        if len(found) == count:
            break
        if number in special or (isinstance(model, Model) and not _is_text(model, number)):
            continue
        found.append(number)
    return found


def _is_text(model: Model, number: int) -> bool:
    return number < model.tokenizer.vocab_size and bool(model.tokenizer.decode([number]).strip())


def _frame(model: Any) -> tuple[list[int], list[int]]:
    """What a model's texts begin and end with, as it reads them."""
    if not isinstance(model, Model):
        return [], []
    plain, framed = model.tokenizer.encode("a"), model.tokenizer.encode("a", frame=True)
    if isinstance(model.network, Decoder) and len(framed) > 1 and framed[-1] in model.ends:
        framed = framed[:-1]
    begin = next((i for i in range(len(framed)) if framed[i : i + len(plain)] == plain), 0)
    return framed[:begin], framed[begin + len(plain) :]
