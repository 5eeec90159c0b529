"""Edits: what is to be other than it is, as data. They combine in a list, are saved, and never touch the model.

edits = [gf.knockout("self_attention[0:3]", dst="subject.last", src="subject[:-1]"),
         gf.ablate("feed_forward.output[2:8] @ subject.last", to="resample")]
model(facts, edits=edits).logits
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from glassformer.errors import InputError, did_you_mean
from glassformer.interpret.acting import AXIS, Cut, Put, Window, chosen_heads, payload
from glassformer.interpret.expressions import Expression, parse, parse_attention
from glassformer.interpret.inputs import Inputs, Rows, network_of
from glassformer.interpret.references import aligned, mean_of, others
from glassformer.interpret.running import run_edited
from glassformer.interpret.spans import Places
from glassformer.interpret.trace import Trace, trace

To = Literal["zero", "mean", "resample"]


@dataclass(frozen=True)
class _Puts:
    """Ready: at some sites a function of the value. `new` makes it for a site and some rows; it is `lasting` if it
    knows what to put at positions that are written later, too."""

    inputs: Inputs
    expression: Expression
    new: Callable[[str, Rows, Window | None], Callable[[Tensor, Tensor], Tensor]]
    lasting: bool = True

    def taps(self, rows: Rows) -> Mapping[str, Put]:
        return {name: self._put(name, rows) for name in self.expression.names}

    def cuts(self, rows: Rows) -> Mapping[str, Cut]:
        return {}

    def _put(self, name: str, rows: Rows) -> Put:
        expression = self.expression
        at = _window(self.inputs, expression.at, expression.side, rows, self.lasting)
        of = None if expression.of is None else _window(self.inputs, expression.of, expression.key_side, rows)
        return Put(expression.kind, self.new(name, rows, of), at, of, expression.heads)


@dataclass(frozen=True)
class _Cuts:
    """Ready: edges that are cut in some attentions."""

    inputs: Inputs
    names: tuple[str, ...]
    heads: tuple[int, ...] | None
    dst: str
    src: str

    def taps(self, rows: Rows) -> Mapping[str, Put]:
        return {}

    def cuts(self, rows: Rows) -> Mapping[str, Cut]:
        return {name: self._cut(name, rows) for name in self.names}

    def _cut(self, name: str, rows: Rows) -> Cut:
        encoder, cross = name.startswith("encoder."), "cross_attention" in name
        at = _window(self.inputs, self.dst, "source" if encoder else "text", rows)
        return Cut(at, _window(self.inputs, self.src, "source" if encoder or cross else "text", rows), self.heads)


@dataclass(frozen=True, eq=False)
class Patch:
    """See `patch`."""

    site: str
    source: Trace | Tensor | Mapping[str, Tensor]

    run = staticmethod(run_edited)

    def ready(self, model: Any, inputs: Inputs) -> _Puts:
        expression = parse(self.site, network_of(model))
        values = self.values(expression)
        if isinstance(self.source, Trace):
            _check_counts(self.source.inputs, inputs, expression)
        else:
            _check_shape(next(iter(values.values())), inputs, expression)

        def new(name: str, rows: Rows, of: Window | None) -> Callable[[Tensor, Tensor], Tensor]:
            value = values[name]
            return _put_payload(value if len(value) == 1 else value[rows], expression, of)

        same = isinstance(self.source, Tensor) and all(
            value.shape[AXIS[expression.kind]] == 1 for value in values.values()
        )
        return _Puts(inputs, expression, new, lasting=same)

    def values(self, expression: Expression) -> dict[str, Tensor]:
        """For each site what is put there, with all axes."""
        if isinstance(self.source, Trace):
            return self.source.whole(expression)
        if isinstance(self.source, Tensor):
            return {name: _full(self.source, expression) for name in expression.names}
        return dict(self.source)


@dataclass(frozen=True, eq=False)
class Ablate:
    """See `ablate`."""

    site: str
    to: To
    reference: Any = None
    seed: int = 0

    run = staticmethod(run_edited)

    def ready(self, model: Any, inputs: Inputs) -> _Puts:
        expression = parse(self.site, network_of(model))
        if self.to == "zero":
            return _Puts(inputs, expression, lambda name, rows, of: lambda value, slots: torch.zeros_like(value))
        source = self._source(model, inputs)
        values = source.whole(expression)
        here, there = (_places(each, expression) for each in (inputs, source.inputs))
        if self.to == "mean":
            ready = {name: mean_of(value, there, here, expression.kind) for name, value in values.items()}
        else:
            rows_of = others(len(inputs), len(source.inputs), self.seed, same=self.reference is None)
            ready = {name: aligned(value, there, here, rows_of, expression.kind) for name, value in values.items()}

        def new(name: str, rows: Rows, of: Window | None) -> Callable[[Tensor, Tensor], Tensor]:
            return _put_payload(ready[name][rows], expression, of)

        return _Puts(inputs, expression, new, lasting=False)

    def _source(self, model: Any, inputs: Inputs) -> Trace:
        """The texts that the mean is of, or that are drawn from; of an encoder-decoder, sources and targets."""
        if self.reference is None:
            source: Trace = trace(model, inputs, self.site)
        elif inputs.source is None:
            source = trace(model, self.reference, self.site)
        else:
            sources, targets = self.reference
            source = trace(model, sources, self.site, target=targets)
        return source


@dataclass(frozen=True, eq=False)
class Steer:
    """See `steer`."""

    site: str
    vector: Tensor
    scale: float = 1.0

    run = staticmethod(run_edited)

    def ready(self, model: Any, inputs: Inputs) -> _Puts:
        expression = parse(self.site, network_of(model))
        vector = self.vector.to(inputs.text.ids.device) * self.scale

        def steered(value: Tensor, slots: Tensor) -> Tensor:
            _check_width(vector, value, self.site)
            return value + vector.to(value.dtype)

        return _Puts(inputs, expression, lambda name, rows, of: steered)


@dataclass(frozen=True, eq=False)
class Apply:
    """See `apply`."""

    site: str
    function: Callable[[Tensor], Tensor]

    run = staticmethod(run_edited)

    def ready(self, model: Any, inputs: Inputs) -> _Puts:
        expression = parse(self.site, network_of(model))

        def changed(value: Tensor, slots: Tensor) -> Tensor:
            result = self.function(value)
            if not isinstance(result, Tensor) or result.shape != value.shape:
                what = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
                raise InputError(f"'{self.site}': the function must keep the shape {tuple(value.shape)}, got {what}.")
            return result

        return _Puts(inputs, expression, lambda name, rows, of: changed)


@dataclass(frozen=True)
class Knockout:
    """See `knockout`."""

    attention: str
    dst: str = field(kw_only=True)
    src: str = field(kw_only=True)

    run = staticmethod(run_edited)

    def ready(self, model: Any, inputs: Inputs) -> _Cuts:
        names, heads = parse_attention(self.attention, network_of(model))
        return _Cuts(inputs, names, heads, self.dst, self.src)


Edit = Patch | Ablate | Steer | Apply | Knockout


def patch(site: str, source: Trace | Tensor) -> Patch:
    """At `site` put what passes there in another run, or given values.

    `source` is a `Trace` of as many texts that kept this site, text i for text i; their spans must have equally many
    positions (`InputError` names the text where not). Or a tensor: [D] for all, [n, D] or [n, H, d] for one position
    each, or [n, k, D] and [n, H, k, d] with all axes.
    """
    if not isinstance(source, Trace | Tensor):
        raise InputError(f"'source' must be a trace or a tensor, got {type(source).__name__}.")
    return Patch(site, source)


def ablate(site: str, to: To, reference: Any = None, seed: int = 0) -> Ablate:
    """At `site` put nothing of use. What that is changes the answer, so it must be said:

    "zero"; "mean", of the `reference` texts, position by position, counted from the end of the span; "resample", the
    value in another of them, drawn by `seed` (never the text itself). The reference is all the texts unless given.
    """
    if to not in get_args(To):
        raise InputError(f"'to' must be zero, mean or resample, got {to!r}.{did_you_mean(str(to), get_args(To))}")
    return Ablate(site, to, reference, seed)


def knockout(attention: str, *, dst: str, src: str) -> Knockout:
    """Cut the edges of an attention by which positions `dst` see positions `src`: `self_attention[0:3]`, also with
    `.head[…]`. The rest of the pattern is made of what is left; who may look nowhere finds zeros. Attention stays
    fused (Geva et al. 2023)."""
    return Knockout(attention, dst=dst, src=src)


def steer(site: str, vector: Tensor, scale: float = 1.0) -> Steer:
    """Add `scale` · `vector` [D] at `site` (Turner et al. 2023)."""
    if not isinstance(vector, Tensor):
        raise InputError(f"'vector' must be a tensor, got {type(vector).__name__}.")
    if vector.ndim != 1:
        raise InputError(f"'vector' must have one axis, of the site's numbers, got {tuple(vector.shape)}.")
    return Steer(site, vector, scale)


def apply(site: str, function: Callable[[Tensor], Tensor]) -> Apply:
    """At `site` put `function(value)`, which is given the whole value and must keep its shape."""
    if not callable(function):
        raise InputError(f"'function' must be a function of a tensor, got {type(function).__name__}.")
    return Apply(site, function)


def _window(inputs: Inputs, span: str, side: Any, rows: Rows, lasting: bool = True) -> Window:
    texts = inputs.source if side == "source" else inputs.text
    length = 0 if texts is None else texts.ids.shape[1]
    return Window(inputs.places(span, side), rows, length, lasting)


def _places(inputs: Inputs, expression: Expression) -> tuple[Places, Places | None]:
    at = inputs.places(expression.at, expression.side)
    return at, None if expression.of is None else inputs.places(expression.of, expression.key_side)


def _put_payload(values: Tensor, expression: Expression, of: Window | None) -> Callable[[Tensor, Tensor], Tensor]:
    """`payload`, laid out over all heads as soon as it is seen how many there are."""

    def new(value: Tensor, slots: Tensor) -> Tensor:
        if expression.kind != "pattern":
            _check_width(values, value, expression.text)
        whole = values
        if expression.kind in ("heads", "pattern"):
            whole = chosen_heads(values, expression.heads, value.shape[1])
            if whole.shape[1] not in (1, value.shape[1]):
                raise InputError(f"'{expression.text}': there are {value.shape[1]} heads, got {whole.shape[1]}.")
        return payload(whole.to(value.dtype), expression.kind, of)(value, slots)

    return new


def _full(value: Tensor, expression: Expression) -> Tensor:
    """A given tensor with all axes: [D] → [1, 1, D], [n, D] → [n, 1, D]; for heads [d] → [1, 1, 1, d] and so on."""
    axes = {"stream": 3, "heads": 4, "pattern": 4, "rows": 2}[expression.kind]
    if value.ndim not in (1, axes - 1, axes):
        raise InputError(f"'{expression.text}': values there have {axes} axes, got {tuple(value.shape)}.")
    if value.ndim == axes - 1 and axes > 2:
        return value.unsqueeze(2 if axes == 4 else 1)
    while value.ndim < axes:
        value = value[None]
    return value


def _check_shape(value: Tensor, inputs: Inputs, expression: Expression) -> None:
    """Given values must be for all the texts, heads and positions alike, or for each of them."""
    at, of = _places(inputs, expression)
    wanted = {"texts": (0, len(inputs))}
    if expression.kind != "rows":
        wanted["positions"] = (AXIS[expression.kind], at.index.shape[1])
    if of is not None:
        wanted["keys"] = (3, of.index.shape[1])
    if expression.heads is not None:
        wanted["heads"] = (1, len(expression.heads))
    for what, (axis, count) in wanted.items():
        if value.shape[axis] not in (1, count):
            raise InputError(f"'{expression.text}': there are {count} {what} and values for {value.shape[axis]}.")


def _check_width(values: Tensor, value: Tensor, site: str) -> None:
    if values.shape[-1] != value.shape[-1]:
        raise InputError(f"'{site}': there are {value.shape[-1]} numbers at a position, got {values.shape[-1]}.")


def _check_counts(there: Inputs, here: Inputs, expression: Expression) -> None:
    """Patching puts position for position: both texts must have as many."""
    if len(there) != len(here):
        raise InputError(f"'{expression.text}': {len(here)} texts are patched from {len(there)}; give one for each.")
    for old, new in zip(_places(here, expression), _places(there, expression), strict=True):
        if old is None or new is None or torch.equal(old.counts, new.counts):
            continue
        row = int((old.counts != new.counts).nonzero()[0])
        raise InputError(
            f"'{expression.text}': text {row + 1} has {int(old.counts[row])} positions there, what it is patched from "
            f"{int(new.counts[row])}: choose texts of equal length, or a span such as subject.last."
        )
