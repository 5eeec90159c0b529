"""The view "walk": the six steps of attention (Vaswani et al. 2017, section 3.2) with a text's own numbers.

`"walk"` has `attentions`, all that the model has, each with its `site`, its `title` in words, and how many `layers` and
`heads`; and `walks`, of one head each: the one that was asked for, or, where none was, head 0 of the first and of the
last layer of every attention. A walk has

    site, title, layer, head: which head    sides [2]: of the queries and of the keys, "text" or "target"
    queries [Q], keys [K]: tokens           cross: whether it looks at a source
    place: the query to begin with          width: d, how many numbers a query, a key or a value has
    shown [c]: the few of them that a page shows first
    query [Q][d], key, value [K][d]: step 1, the first `MOST` numbers of each (all of them, in Transformers)
    lengths: of each query, key and value, as `query` [Q], `key` and `value` [K]
    scoring: "dot", or "additive" with `score_weights` [d], for older networks
    dots [Q][K]: step 2                     scale: what they are multiplied by in step 3
    bias [Q][K]: relative positions, added in step 3; only where the model has them
    scores [Q][K]: step 4, before the softmax: null where a query may not look
    pattern [Q][K]: step 4, after it; a row may end early, the rest is 0
    mixed [Q][d]: step 5
    joined: step 6, only of attention with several heads: the first c' numbers of what leaves it, as `output` [Q][c'],
        its parts `heads` [H][Q][c'] and `bias` [c'], `weights` [c'][d] of this head, and lengths of whole vectors,
        `output_length` [Q] and `head_lengths` [H][Q]
    joins: the same step in words
    turned: only with rotary positions: `query` [Q][c], `key` [K][c], the shown numbers before they were turned, and
        `angles` [T][c / 2], by which each pair of them was
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from glassformer.errors import InputError, did_you_mean
from glassformer.interpret.trace import Trace
from glassformer.layers.attention import Attention
from glassformer.layers.lookup import Lookup
from glassformer.layers.sites import sites
from glassformer.serving.documents import TITLES, Document, headed, rounded, shortened
from glassformer.serving.readings import Reading, Spelling, reading, seen
from glassformer.tasks.model import Model

FEW = 8
"""So many numbers of a vector are shown at first."""
MOST = 128
"""So many numbers of a vector does a document have at most: enough for any head of a usual Transformer."""


@dataclass(frozen=True)
class _Place:
    """An attention of a network: its site, its modules by layer, and what its layers' names end with."""

    site: str
    modules: tuple[Any, ...]
    numbered: bool

    @property
    def cross(self) -> bool:
        return self.site.endswith("cross_attention")

    @property
    def heads(self) -> int:
        first = self.modules[0]
        return first.n_heads if isinstance(first, Attention) else 1

    def named(self, part: str, layer: int) -> str:
        """The name of a site of one layer, such as "self_attention.query[3]"."""
        return f"{self.site}.{part}[{layer}]" if self.numbered else f"{self.site}.{part}"


def walk_document(
    model: Model,
    text: str,
    target: str | None = None,
    *,
    layer: int | None = None,
    head: int | None = None,
    site: str | None = None,
    place: int | None = None,
) -> Document:
    """The steps of attention, in the head of the layer asked for (0 unless said) or, where nothing is, of a few.

    `site` names the attention, such as "decoder.cross_attention": by default the first one. `place` is the query to
    begin with, by default the last. `target` is what an encoder-decoder is to write, by default its own (greedy
    search). Raises `InputError` for a site, layer, head or place that there is not, and as `readings.reading`.
    """
    places = _places(model.network)
    if not places:
        missing = "this model was made without attention: its states alone carry what was read."
        return headed(model, text, {"view": "walk", "missing": missing})
    given = reading(model, text, target)
    asked = not (layer is None and head is None and site is None)
    chosen = [_asked(places, site, layer or 0, head or 0)] if asked else _few(places)
    made = [_Walk(model, given, *one).document(place) for one in chosen]
    every = [
        {"site": one.site, "title": TITLES[one.site], "layers": len(one.modules), "heads": one.heads} for one in places
    ]
    return headed(model, text, {"view": "walk", "attentions": every, "walks": made})


def _places(network: nn.Module) -> list[_Place]:
    """Every attention of a network, in the order of its modules."""
    found: dict[str, list[str]] = {}
    for name in sites(network):
        match = re.fullmatch(r"(.*attention)\.pattern(?:\[(\d+)\])?", name)
        if match:
            found.setdefault(match[1], []).append(match[2])
    modules = {path: each for path, each in network.named_modules() if isinstance(each, Attention | Lookup)}
    kinds: dict[str, list[nn.Module]] = {}
    for path, each in modules.items():
        kinds.setdefault(re.sub(r"\b(stack|blocks\.\d+)\.", "", path), []).append(each)
    return [_Place(site, tuple(kinds[site]), layers[0] is not None) for site, layers in found.items()]


def _asked(places: list[_Place], site: str | None, layer: int, head: int) -> tuple[_Place, int, int]:
    names = [each.site for each in places]
    if site is not None and site not in names:
        raise InputError(f"this model has no attention '{site}'; it has {', '.join(names)}.{did_you_mean(site, names)}")
    one = places[0] if site is None else places[names.index(site)]
    for name, value, count in (("layer", layer, len(one.modules)), ("head", head, one.heads)):
        if not 0 <= value < count:
            raise InputError(f"{one.site} has {count} {name}s, from 0 to {count - 1}: there is no {name} {value}.")
    return one, layer, head


def _few(places: list[_Place]) -> list[tuple[_Place, int, int]]:
    """The first and the last layer of each."""
    return [(one, layer, 0) for one in places for layer in sorted({0, len(one.modules) - 1})]


@dataclass(frozen=True)
class _Walk:
    """One head of one layer, and a text."""

    model: Model
    given: Reading
    where: _Place
    layer: int
    head: int

    def document(self, place: int | None) -> Document:
        sides = self._sides()
        spelled = Spelling(self.model.tokenizer)
        queries, keys = (spelled(self._ids(side, first)) for side, first in zip(sides, (True, False), strict=True))
        begin = len(queries) - 1 if place is None else place
        if not 0 <= begin < len(queries):
            raise InputError(f"there are {len(queries)} tokens, from 0 to {len(queries) - 1}: there is no {begin}.")
        site = self.where.site
        about: Document = {"site": site, "title": TITLES[site], "layer": self.layer, "head": self.head}
        about |= {"cross": self.where.cross, "sides": sides, "queries": queries, "keys": keys, "place": begin}
        return about | self._numbers()

    def _sides(self) -> list[str]:
        if self.where.cross:
            return ["target", "text"]
        return ["target"] * 2 if self.where.site.startswith("decoder.") else ["text"] * 2

    def _ids(self, side: str, query: bool) -> tuple[int, ...]:
        """As in the attention's view: in cross-attention queries are the tokens that are being written."""
        if side == "text":
            return self.given.ids
        return self.given.written if self.where.cross and query else self.given.read

    def _numbers(self) -> Document:
        module = self.where.modules[self.layer]
        parts = ["query", "key", "value", "scores", "pattern", "mixed"]
        parts += ["head_output", "output"] if isinstance(module, Attention) else []
        relative = self._relative()
        names = [self.where.named(part, self.layer) for part in parts]
        kept = seen(self.model.network, self.given, *names, *([relative] if relative else []))
        query, key, value, scores, pattern, mixed = (self._of_head(kept, name) for name in names[:6])
        bias = self._of_head(kept, relative) if relative else None
        shown = self._shown(query.shape[-1])
        return {
            "width": query.shape[-1],
            "shown": shown,
            "query": rounded(query[:, :MOST]),
            "key": rounded(key[:, :MOST]),
            "value": rounded(value[:, :MOST]),
            "lengths": {
                name: rounded(x.norm(dim=-1)) for name, x in (("query", query), ("key", key), ("value", value))
            },
            **_dots(module, query, key),
            **({} if bias is None else {"bias": rounded(bias)}),
            "scores": [[None if number == -torch.inf else number for number in row] for row in rounded(scores)],
            "pattern": [shortened(row) for row in rounded(pattern)],
            "mixed": rounded(mixed[:, :MOST]),
            **self._joined(module, kept, names),
            **self._turned(query, key, shown),
        }

    def _of_head(self, kept: Trace, name: str) -> Tensor:
        """[T, d] or [Q, K] of the head; several heads may share keys and values."""
        values = kept[name][0].detach().double().cpu()
        return values[self.head * len(values) // self.where.heads]

    def _relative(self) -> str | None:
        """The name of the site where relative positions are added to this attention's scores."""
        name = self.where.site.replace("self_attention", "relative.bias")
        return name if not self.where.cross and name in sites(self.model.network) else None

    def _rotation(self) -> tuple[Tensor, Tensor] | None:
        if self.where.cross or not isinstance(self.where.modules[0], Attention):
            return None
        network: Any = self.model.network
        stack = network.get_submodule(self.where.site.rpartition(".")[0] or "stack")
        return None if stack.cos is None else (stack.cos.double().cpu(), stack.sin.double().cpu())

    def _shown(self, width: int) -> list[int]:
        """The first numbers; where positions turn pairs of them, the first pairs."""
        if self._rotation() is None:
            return list(range(min(FEW, width)))
        return [number for pair in range(min(FEW, width) // 2) for number in (pair, pair + width // 2)]

    def _turned(self, query: Tensor, key: Tensor, shown: list[int]) -> Document:
        rotation = self._rotation()
        if rotation is None:
            return {}
        cos, sin = (part[: len(query)] for part in rotation)
        before = {}
        for name, x in (("query", query), ("key", key)):
            first, second = x.chunk(2, -1)
            back = torch.cat((first * cos + second * sin, second * cos - first * sin), -1)
            before[name] = rounded(back[:, shown])
        angles = torch.atan2(sin, cos)[:, shown[::2]]
        return {"turned": {**before, "angles": rounded(angles)}}

    def _joined(self, module: nn.Module, kept: Trace, names: list[str]) -> Document:
        if not isinstance(module, Attention):
            return {"joins": _OLDER[type(self.model.network).__name__]}
        heads, output = (kept[name][0].detach().double().cpu() for name in names[6:])
        projection: Any = module.to_output
        own = slice(self.head * module.d_head, (self.head + 1) * module.d_head)
        weights = projection.effective_weight()[:FEW, own].detach().double().cpu()
        count = weights.shape[0]
        bias = torch.zeros(count) if projection.bias is None else projection.bias[:count].detach().double().cpu()
        found = {
            "output": rounded(output[:, :count]),
            "heads": rounded(heads[..., :count]),
            "bias": rounded(bias),
            "weights": rounded(weights[:, :MOST]),
            "output_length": rounded(output.norm(dim=-1)),
            "head_lengths": rounded(heads.norm(dim=-1)),
        }
        return {"joined": found, "joins": _JOINS}


_JOINS = (
    "Each head's sum is multiplied by its own columns of Wᴼ; the results of all heads, and the bias where there is "
    "one, are added up."
)
_OLDER = {
    "Recurrent": "There is one head only: what was found stands beside the state that looked, and tanh(W [c; h] + b) "
    "of both is what the head for words reads (Luong et al. 2015, equation 5).",
    "Convolutional": "There is one head only: what was found is multiplied by √m, for m source tokens, and by W, and "
    "added to the state that looked (Gehring et al. 2017, section 3.3).",
}


def _dots(module: nn.Module, query: Tensor, key: Tensor) -> Document:
    """Step 2, and what step 3 multiplies by."""
    if isinstance(module, Lookup) and module.to_score is not None:
        weights = module.to_score.weight.detach().double().cpu()[0]
        values = torch.tanh(query[:, None] + key) @ weights
        return {"scoring": "additive", "score_weights": rounded(weights[:MOST]), "dots": rounded(values), "scale": 1.0}
    plain = isinstance(module, Lookup) or module.scale is not None
    scale = 1.0 if plain else query.shape[-1] ** -0.5
    return {"scoring": "dot", "dots": rounded(query @ key.T), "scale": scale}
