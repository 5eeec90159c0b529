"""The one grammar for places in a network: `[encoder.|decoder.]site[layers][.head[heads]] @ span[<-span]`.

`residual_post[6] @ subject.last` is the residual stream after block 6 at the last token of the subject;
`decoder.cross_attention.pattern[2].head[0:4] @ end<-*` what four heads of the last target token see of the source.
Layers and heads are `3`, `-1`, `0:4`, `1,5`, `*` or `:` (all). Without `@` all positions are meant.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from glassformer.errors import InputError, did_you_mean
from glassformer.layers.sites import edges, sites
from glassformer.models.config import Classification, Sentence

Kind = Literal["stream", "heads", "pattern", "rows"]
"""How the values of a site lie: [B, T, D], [B, H, T, d], [B, H, Q, K], or one for each text [B, L]."""

Side = Literal["text", "source"]
"""Which text a position counts in: the `source` of an encoder-decoder, or the `text` that every network reads."""

_FORM = re.compile(
    r"\s*(?P<site>[a-z_][a-z_0-9.]*?)\s*(?:\[(?P<layers>[^\]]*)\])?\s*(?:\.head\[(?P<heads>[^\]]*)\])?\s*"
    r"(?:@\s*(?P<spans>.*\S))?\s*"
)
_HEADS = ("query", "key", "value", "mixed", "head_output")
_PATTERN = ("scores", "pattern", "bias")
_EXAMPLE = "an example is 'residual_post[6] @ subject.last'"


@dataclass(frozen=True)
class Expression:
    """A parsed expression that a network has: sites of the same kind in several layers, heads, and where to look."""

    text: str
    site: str
    layers: tuple[int, ...] | None
    heads: tuple[int, ...] | None
    kind: Kind
    at: str
    of: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the sites (`layers.sites.sites`), one a layer."""
        return (self.site,) if self.layers is None else tuple(f"{self.site}[{layer}]" for layer in self.layers)

    @property
    def side(self) -> Side:
        """The text in which `at` counts."""
        return _side(self.site, keys=self.site.endswith(("cross_attention.key", "cross_attention.value")))

    @property
    def key_side(self) -> Side:
        """The text in which `of`, the keys of a pattern, counts."""
        return _side(self.site, keys="cross_attention" in self.site)


def parse(text: str, network: nn.Module) -> Expression:
    """The expression, checked against the network before anything is computed.

    Raises `InputError` for a form that is none, and for sites, layers and heads that the network does not have.
    """
    site, layers, heads, spans = _split(text)
    known = _layers_of(sites(network))
    if site not in known:
        raise InputError(f"'{text}': the model has no site '{site}'.{did_you_mean(site, known)}")
    kind = _kind(site, network)
    at, of = _spans(text, spans, kind)
    return Expression(
        text.strip(), site, _layers(text, site, layers, known[site]), _heads(text, site, heads, kind, network),
        kind, at, of,
    )  # fmt: skip


def parse_attention(text: str, network: nn.Module) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    """The names of attentions whose edges can be cut (`layers.sites.edges`), and of which heads: `self_attention[0:3]`,
    `decoder.cross_attention[*].head[2]`."""
    site, layers, heads, spans = _split(text)
    known = _layers_of(edges(network))
    if spans is not None:
        raise InputError(f"'{text}': where edges are cut is said by 'dst' and 'src', not behind '@'.")
    if site not in known:
        what = f"no attention '{site}'" if known else "no attention"
        raise InputError(f"'{text}': the model has {what}.{did_you_mean(site, known)}")
    chosen = _layers(text, site, layers, known[site])
    names = (site,) if chosen is None else tuple(f"{site}[{layer}]" for layer in chosen)
    return names, _heads(text, site + ".pattern", heads, "pattern", network)


def numbers(text: str, written: str, count: int, what: str) -> tuple[int, ...]:
    """`3`, `-1`, `0:4`, `::2`, `1,5`, `*` or `:` as indices of `count` things."""
    found: list[int] = []
    for part in written.replace("*", ":").split(","):
        try:
            if ":" in part:
                pieces = [int(piece) if piece.strip() else None for piece in part.split(":")]
                chosen = list(range(count))[slice(*pieces)]
            else:
                chosen = [range(count)[int(part)]]
        except IndexError:
            raise InputError(f"'{text}': there are {count} {what}, numbered from 0; got {part.strip()}.") from None
        except (ValueError, TypeError):
            raise InputError(f"'{text}': '{written}' does not name {what}; write 3, 0:4, 1,5 or *.") from None
        found += [each for each in chosen if each not in found]
    if not found:
        raise InputError(f"'{text}': '{written}' names none of the {count} {what}.")
    return tuple(found)


def _split(text: str) -> tuple[str, str | None, str | None, str | None]:
    match = _FORM.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InputError(f"{text!r} is no expression for a site: {_EXAMPLE}.")
    return match["site"], match["layers"], match["heads"], match["spans"]


def _layers_of(names: Collection[str]) -> dict[str, int | None]:
    """Every site without its layer, and how many layers have it (None: it stands outside of layers)."""
    found: dict[str, int | None] = {}
    for name in names:
        base, bracket, _ = name.partition("[")
        found[base] = (found.get(base) or 0) + 1 if bracket else None
    return found


def _layers(text: str, site: str, written: str | None, count: int | None) -> tuple[int, ...] | None:
    if count is None:
        if written is not None:
            raise InputError(f"'{text}': '{site}' does not stand in layers; write it without [{written}].")
        return None
    if written is None:
        raise InputError(f"'{text}': say the layers of '{site}', of {count}: '{site}[0]', '{site}[*]'.")
    return numbers(text, written, count, "layers")


def _heads(text: str, site: str, written: str | None, kind: Kind, network: nn.Module) -> tuple[int, ...] | None:
    if written is None:
        return None
    if kind not in ("heads", "pattern"):
        raise InputError(f"'{text}': '{site}' has no heads; heads are of {', '.join(_HEADS)}, scores and pattern.")
    config: Any = network.config
    shared = site.endswith((".key", ".value"))
    count = (config.kv_heads if shared else config.n_heads) if hasattr(config, "n_heads") else 1
    return numbers(text, written, count, "heads of keys and values" if shared else "heads")


def _kind(site: str, network: nn.Module) -> Kind:
    last = site.rpartition(".")[2]
    if last in _HEADS and "attention" in site:
        return "heads"
    if last in _PATTERN and ("attention" in site or "relative" in site):
        return "pattern"
    if site == "logits" and isinstance(getattr(network.config, "head", None), Classification | Sentence):
        return "rows"
    return "stream"


def _spans(text: str, written: str | None, kind: Kind) -> tuple[str, str | None]:
    """What stands before and after `<-`, outside of quotes."""
    parts = re.split(r'<-(?=(?:[^"]*"[^"]*")*[^"]*$)', written or "*")
    if len(parts) > 2 or not all(part.strip() for part in parts):
        raise InputError(f"'{text}': write one span, or two as 'to<-from'.")
    if len(parts) == 2 and kind != "pattern":
        raise InputError(f"'{text}': only scores and patterns have a '<-'; others are read at one span.")
    if kind == "rows" and parts[0].strip() not in ("*", "end"):
        raise InputError(f"'{text}': this model has one row of logits for a text; leave the span out.")
    at = parts[0].strip()
    return at, (parts[1].strip() if len(parts) == 2 else "*") if kind == "pattern" else None


def _side(site: str, keys: bool) -> Side:
    return "source" if site.startswith("encoder.") or keys else "text"
