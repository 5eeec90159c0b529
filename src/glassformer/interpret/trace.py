"""Reading what passes the sites of a network: one forward pass, and only what was asked for is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from glassformer.errors import InputError
from glassformer.interpret.acting import AXIS, Keep
from glassformer.interpret.expressions import Expression, parse
from glassformer.interpret.inputs import Inputs, Spans, network_of, prepare
from glassformer.interpret.metrics import Metric, metric_of
from glassformer.interpret.running import Editing, Plan, ready, run
from glassformer.interpret.spans import Places
from glassformer.tasks.model import Model

BATCH = 32
"""Texts that are read together."""


@dataclass(frozen=True, eq=False)
class Trace:
    """What was kept. `trace["residual_post[6] @ subject.last"]` is a tensor with a row for each text.

    One position a text gives [n, D], k of them [n, k, D] (zeros where a text has fewer: see `mask`); sites of heads
    [n, H, d] or [n, H, k, d]; a pattern `@ a<-b` [n, H, q, k], without an axis whose span is one position. `grad` holds
    the gradients of a metric in the same way. Values are detached and lie where the network is.
    """

    model: Model | nn.Module
    inputs: Inputs
    kept: Mapping[str, Expression]
    values: Mapping[tuple[str, str], Tensor]
    grad: Trace | None = None

    @property
    def expressions(self) -> list[str]:
        """What was asked for, as it was written."""
        return list(self.kept)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(value.numel() * value.element_size() for value in self.values.values())

    def __getitem__(self, text: str) -> Tensor:
        expression = parse(text, network_of(self.model))
        if len(expression.names) > 1:
            raise InputError(f"'{text}' names {len(expression.names)} layers: take one, or stack(...) for all of them.")
        return self._squeezed(self._found(expression)[0], expression)

    def stack(self, text: str) -> Tensor:
        """All the layers that an expression names, [L, n, …]."""
        expression = parse(text, network_of(self.model))
        return torch.stack([self._squeezed(value, expression) for value in self._found(expression)])

    def mask(self, text: str) -> Tensor:
        """Which of the positions of an expression are real, [n, k]: a text may have fewer than another."""
        expression = parse(text, network_of(self.model))
        return self.inputs.places(expression.at, expression.side).real

    def whole(self, expression: Expression) -> dict[str, Tensor]:
        """For each site of an expression its values with all axes: [n, k, D], [n, H, k, d], [n, H, q, k] or [n, L]."""
        return dict(zip(expression.names, self._found(expression), strict=True))

    def _found(self, expression: Expression) -> list[Tensor]:
        for text, kept in self.kept.items():
            same = (kept.site, kept.at, kept.of) == (expression.site, expression.at, expression.of)
            within = set(expression.names) <= set(kept.names)
            heads = kept.heads is None or (expression.heads is not None and set(expression.heads) <= set(kept.heads))
            if same and within and heads:
                return [self._of_heads(self.values[text, name], kept, expression) for name in expression.names]
        kept_ones = ", ".join(f"'{text}'" for text in self.kept)
        raise InputError(f"'{expression.text}' was not kept; this trace holds {kept_ones}. Trace it as well.")

    def _of_heads(self, value: Tensor, kept: Expression, wanted: Expression) -> Tensor:
        if wanted.heads is None or wanted.heads == kept.heads:
            return value
        order = range(value.shape[1]) if kept.heads is None else kept.heads
        return value[:, [list(order).index(head) for head in wanted.heads]]

    def _squeezed(self, value: Tensor, expression: Expression) -> Tensor:
        """Without the axes of spans that are one position in every text by their form."""
        if expression.kind == "rows":
            return value
        if expression.of is not None and _single(expression.of):
            value = value.squeeze(3)
        return value.squeeze(AXIS[expression.kind]) if _single(expression.at) else value


@dataclass(frozen=True)
class Held:
    """What a trace would hold: for each expression and site the shape, and the bytes of all."""

    shapes: Mapping[tuple[str, str], tuple[int, ...]]
    nbytes: int

    def __str__(self) -> str:
        lines = [f"{name} ({text}): {'×'.join(map(str, shape))}" for (text, name), shape in self.shapes.items()]
        return "\n".join([*lines, f"{self.nbytes / 1e6:.1f} MB"])


def trace(
    model: Model | nn.Module,
    given: Any,
    *expressions: str,
    target: Any = None,
    spans: Spans | None = None,
    edits: Sequence[Editing] = (),
    grad: Metric | None = None,
    generate: int = 0,
    dry: bool = False,
    batch_size: int = BATCH,
    compiled: bool = False,
) -> Any:
    """Run texts, ids or facts once, and keep what the expressions name: a `Trace`.

    Encoder-decoders want a `target` as well; `spans` names characters of the texts. With `edits` the values are those
    of the edited run. `grad`, a metric (see `metrics`), adds its gradients at the same places as `.grad`. With
    `generate` the model first goes on by so many tokens, greedily; they are the span `generated`. `dry` says what would
    be held (`Held`) and computes next to nothing. `compiled` runs the plan through torch.compile, which pays where many
    texts of one length are traced in the same way.

    Raises `InputError` for expressions that the model or the texts do not have, and for sites that nothing passed.
    """
    network = network_of(model)
    parsed = {expression: parse(expression, network) for expression in expressions}
    if not parsed:
        raise InputError("say what to keep, for example 'residual_post[*] @ end'.")
    for setting, value, least in (("batch_size", batch_size, 1), ("generate", generate, 0)):
        if value < least:
            raise InputError(f"'{setting}' must be at least {least}, got {value}.")
    if compiled and grad is not None:
        raise InputError("gradients at sites are not there in compiled graphs: leave out 'compiled' or 'grad'.")
    inputs = prepare(model, given, target, spans)
    if generate:
        inputs = _generated(model, inputs, edits, generate)
    places = {text: _places(inputs, expression) for text, expression in parsed.items()}
    if dry:
        return _held(model, inputs, parsed, places)
    acting = [ready(edit, model, inputs) for edit in edits]
    collected = _Collected(parsed, places, grad is not None)
    metric = None if grad is None else metric_of(grad, model, inputs)
    for first in range(0, len(inputs), batch_size):
        rows = slice(first, min(first + batch_size, len(inputs)))
        keeps = collected.keeps()
        plan = Plan.of(acting, inputs, rows, keeps)
        if metric is None:
            run(network, inputs, rows, plan, compiled=compiled)
        else:
            with torch.enable_grad():
                score = metric(run(network, inputs, rows, plan, ends=True), rows)
            collected.gradients(score.sum(), keeps)
        collected.take(keeps, rows)
    gradients = None
    if grad is not None:
        gradients = Trace(model, inputs, parsed, collected.joined(collected.slopes))
    return Trace(model, inputs, parsed, collected.joined(collected.values), gradients)


Pair = tuple[Places, Places | None]


@dataclass
class _Collected:
    """The parts of a trace, batch by batch."""

    parsed: Mapping[str, Expression]
    places: Mapping[str, Pair]
    grad: bool
    values: dict[tuple[str, str], list[Tensor]] = field(default_factory=dict)
    slopes: dict[tuple[str, str], list[Tensor]] = field(default_factory=dict)
    latest: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    def keeps(self) -> dict[tuple[str, str], Keep]:
        return {
            (text, name): Keep(expression.kind, expression.heads, self.grad)
            for text, expression in self.parsed.items()
            for name in expression.names
        }

    def take(self, keeps: Mapping[tuple[str, str], Keep], rows: slice) -> None:
        for key, keep in keeps.items():
            axis = AXIS[keep.kind]
            value = keep.values[0] if len(keep.values) == 1 else torch.cat(keep.values, axis)
            self.values.setdefault(key, []).append(self._chosen(keep, value, key, rows))
            if self.grad:
                self.slopes.setdefault(key, []).append(self._chosen(keep, self.latest[key], key, rows))

    def gradients(self, score: Tensor, keeps: Mapping[tuple[str, str], Keep]) -> None:
        """d score / d value of every kept one; zeros where the score does not depend on it."""
        tensors = [value for keep in keeps.values() for value in keep.values]
        found = iter(torch.autograd.grad(score, tensors, allow_unused=True))
        for key, keep in keeps.items():
            parts = [torch.zeros_like(value) if (slope := next(found)) is None else slope for value in keep.values]
            self.latest[key] = torch.cat(parts, AXIS[keep.kind])

    def joined(self, parts: Mapping[tuple[str, str], list[Tensor]]) -> dict[tuple[str, str], Tensor]:
        return {key: torch.cat(values) for key, values in parts.items()}

    def _chosen(self, keep: Keep, value: Tensor, key: tuple[str, str], rows: slice) -> Tensor:
        at, of = self.places[key[0]]
        taken = keep.gathered(value.detach(), *_rows(at, of, rows, value, keep))
        return taken.clone() if taken is value else taken


def _rows(at: Places, of: Places | None, rows: slice, value: Tensor, keep: Keep) -> Pair:
    """The places of some rows. Positions that the batch does not have are padding: any index will do."""

    def cut(places: Places, length: int) -> Places:
        return Places(places.index[rows].clamp_max(length - 1), places.real[rows])

    if keep.kind == "rows":
        return at, None
    return cut(at, value.shape[AXIS[keep.kind]]), None if of is None else cut(of, value.shape[3])


def _places(inputs: Inputs, expression: Expression) -> Pair:
    at = inputs.places(expression.at, expression.side)
    if at.beyond and inputs.text.written is None and "generated" in expression.at:
        raise InputError(f"'{expression.text}': nothing was written; let the model go on first, with 'generate'.")
    return at, None if expression.of is None else inputs.places(expression.of, expression.key_side)


def _single(span: str) -> bool:
    """Whether a span is one position in every text, by its form."""
    if '"' in span or "+" in span:
        return False
    word = span.rpartition("]")[0].rpartition("[")[2] if span.endswith("]") else span
    try:
        int(word)
    except ValueError:
        return span == "end" or span.endswith((".first", ".last"))
    return True


def _generated(model: Any, inputs: Inputs, edits: Sequence[Editing], count: int) -> Inputs:
    """The texts with what the model goes on to say. From then on they are ids: words are found in the prompts alone."""
    from glassformer.interpret.generating import continued

    return continued(model, inputs, edits, count)


def _held(model: Any, inputs: Inputs, parsed: Mapping[str, Expression], places: Mapping[str, Pair]) -> Held:
    """The shapes, told by a run of one text of one token."""
    network = network_of(model)
    probe = prepare(network, [[1]], None if inputs.source is None else [[1]])
    keeps = {
        (text, name): Keep(expression.kind, expression.heads, False)
        for text, expression in parsed.items()
        for name in expression.names
    }
    run(network, probe, slice(0, 1), Plan.of([], probe, slice(0, 1), keeps))
    shapes, size = {}, 0
    for (text, name), keep in keeps.items():
        at, of = places[text]
        shape = [len(inputs), *keep.values[0].shape[1:]]
        if keep.kind != "rows":
            shape[AXIS[keep.kind]] = at.index.shape[1]
        if keep.heads is not None:
            shape[1] = len(keep.heads)
        if of is not None:
            shape[3] = of.index.shape[1]
        shapes[text, name] = tuple(shape)
        size += torch.Size(shape).numel() * keep.values[0].element_size()
    return Held(shapes, size)
