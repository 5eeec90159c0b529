"""The same edit at many places, one at a time: layers × positions, or × heads, and what each does to a metric."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glassformer.errors import InputError
from glassformer.interpret.acting import Chain, Put, Window, chosen_heads
from glassformer.interpret.edits import Edit, Patch, ablate, apply, patch, steer
from glassformer.interpret.expressions import Expression, parse
from glassformer.interpret.inputs import Inputs, network_of, prepare, repeated
from glassformer.interpret.metrics import Metric, Scores, metric_of
from glassformer.interpret.prefix import Prefix
from glassformer.interpret.running import Plan, run
from glassformer.interpret.spans import Places
from glassformer.interpret.swept import Sweep
from glassformer.interpret.trace import BATCH, Trace, trace
from glassformer.models.decoder import Decoder

Method = Literal["exact", "attribution", "midpoint"]

TOKENS = 384
"""Edited texts are run together up to so many positions. More waste more on positions before their edit; fewer leave
products of matrices too small to be quick."""


def sweep(
    model: Any,
    given: Any,
    edit: Callable[..., Edit],
    *,
    over: str,
    metric: Metric = "logit_diff",
    source: Any = None,
    target: Any = None,
    method: Method = "exact",
    recheck: int = 10,
    tokens: int = TOKENS,
    **settings: Any,
) -> Sweep:
    """Make the edit (`gf.patch`, `gf.ablate`, `gf.steer` or `gf.apply`, with its `settings`) at every place of `over`
    by itself: every layer and position, and every head where the expression names `.head[…]`.

    Patches come from `source`, a trace or texts: by default the swapped facts, of which only pairs of equal length are
    taken where positions are patched one by one (`Sweep.rows`). The metric is of the text's end.

    "exact" runs the model for each place; the blocks and positions before it are computed once, and many places are run
    together. "attribution" estimates all places from one forward and one backward pass, (new − old) · gradient
    (attribution patching, Nanda 2023), and runs the `recheck` largest exactly. "midpoint" takes the gradient of each
    layer where all its places are halfway to their new values, a forward and a backward pass a layer: right to the
    second order, it follows the exact effects far better, and is quicker than they are where a layer has many places.
    """
    network = network_of(model)
    expression = parse(over, network)
    if edit is patch:
        inputs, made, others = _patching(model, given, target, source, expression)
    else:
        if source is not None or edit not in (ablate, steer, apply):
            raise InputError("a sweep is of patch (which has a 'source'), ablate, steer or apply.")
        inputs, made, others = prepare(model, given, target), edit(over, **settings), None
    work = _Work(model, network, inputs, expression, made, metric_of(metric, model, inputs, others), tokens)
    if method in ("attribution", "midpoint"):
        halfway = method == "midpoint"
        return work.estimated(recheck, str(metric) if isinstance(metric, str) else "metric", halfway)
    if method != "exact":
        raise InputError(f"'method' must be exact, attribution or midpoint, got {method!r}.")
    return work.exact(str(metric) if isinstance(metric, str) else "metric")


Cells = Sequence[tuple[int, int]]
"""Places beside the position: indices into the layers, and into the heads (0 where there are none)."""


@dataclass
class _Work:
    """One sweep: everything that its runs have in common."""

    model: Any
    network: Any
    inputs: Inputs
    expression: Expression
    edit: Edit
    scores: Scores
    tokens: int
    acting: Any = field(init=False)
    places: Places = field(init=False)

    def __post_init__(self) -> None:
        self.acting = self.edit.ready(self.model, self.inputs)
        if self.expression.kind == "rows":
            raise InputError(f"'{self.expression.text}' has no positions to sweep over.")
        self.places = self.inputs.places(self.expression.at, self.expression.side)

    @property
    def heads(self) -> Sequence[int]:
        return self.expression.heads or (0,)

    @property
    def cells(self) -> Cells:
        return [(layer, head) for layer in range(len(self.expression.names)) for head in range(len(self.heads))]

    def exact(self, metric: str) -> Sweep:
        values, baseline = self._measured(self.cells, torch.ones_like(self.places.real))
        return Sweep(self.expression, self.inputs, self.places, metric, baseline, values, None)

    def estimated(self, recheck: int, metric: str, halfway: bool) -> Sweep:
        estimates = self._estimates(halfway)
        size = estimates.abs().nan_to_num().mean(0)
        values, baseline = None, None
        best = size.flatten().topk(min(recheck, size.numel())).indices
        layers, heads, slots = (index.tolist() for index in torch.unravel_index(best, size.shape))
        for layer, head, slot in zip(layers, heads, slots, strict=True):
            wanted = torch.zeros_like(self.places.real)
            wanted[:, slot] = True
            found, baseline = self._measured([(layer, head)], wanted)
            values = found if values is None else torch.where(found.isnan(), values, found)
        if values is None or baseline is None:  # nothing is rechecked
            values, baseline = torch.full_like(estimates, torch.nan), self._measured([], self.places.real)[1]
        return Sweep(self.expression, self.inputs, self.places, metric, baseline, values, estimates)

    def _measured(self, cells: Cells, wanted: Tensor) -> tuple[Float[Tensor, "n L H k"], Float[Tensor, n]]:
        """The metric after the edit at some cells and the `wanted` slots [n, k], NaN elsewhere; and without edit."""
        n, k = self.places.index.shape
        values = torch.full((n, len(self.expression.names), len(self.heads), k), torch.nan)
        baseline = torch.empty(n)
        fast = isinstance(self.network, Decoder) and self.expression.layers is not None
        for first in range(0, n, BATCH):
            rows = torch.arange(first, min(first + BATCH, n), device=self.places.index.device)
            prefix = Prefix.of(self.network, self.inputs, rows) if fast else None
            with torch.no_grad():
                baseline[rows.cpu()] = self._plain(rows, prefix).cpu()
                for layer, group in _by_layer(cells):
                    for chosen in self._variants(rows, group, wanted, prefix):
                        self._run(layer, chosen, rows, prefix, values)
        return values, baseline

    def _plain(self, rows: Tensor, prefix: Prefix | None) -> Tensor:
        if prefix is not None:
            return self.scores(prefix.logits, rows)
        return self.scores(run(self.network, self.inputs, rows, Plan({}, {}, {}), ends=True), rows)

    def _variants(
        self, rows: Tensor, heads: Sequence[int], wanted: Tensor, prefix: Prefix | None
    ) -> Iterator[Int[Tensor, "e 4"]]:
        """What is run together: text, slot, head and position, in the order of positions."""
        real = (self.places.real & wanted)[rows]
        if self.expression.side == "text":  # what comes after the end changes nothing there
            real = real & ((self.places.index[rows] <= self.inputs.ends[rows, None]) | (prefix is None))
        text, slot = real.nonzero(as_tuple=True)
        position = self.places.index[rows][text, slot]
        order = position.argsort(stable=True)
        each = torch.stack((text[order], slot[order], position[order]), 1)
        head = torch.tensor(heads, device=each.device).repeat(len(each))
        everything = torch.cat((each.repeat_interleave(len(heads), 0), head[:, None]), 1)
        length = int(self.inputs.text.lengths[rows].max())
        first = 0
        while first < len(everything):
            begin = int(everything[first, 2]) if prefix is not None else 0
            count = max(1, self.tokens // max(1, length - begin))
            yield everything[first : first + count]
            first += count

    def _run(self, layer: int, chosen: Tensor, rows: Tensor, prefix: Prefix | None, values: Tensor) -> None:
        text, slot, position, head = chosen.unbind(1)
        name = self.expression.names[layer]
        put = self._put(name, rows[text], slot, head)
        if prefix is None:
            logits = run(self.network, self.inputs, rows[text], Plan({name: Chain([put])}, {}, {}), ends=True)
        else:
            assert self.expression.layers is not None
            block, begin = self.expression.layers[layer], int(position[0])
            if self.expression.site in ("residual_pre", "residual_post"):  # what a block reads, and nothing else
                logits = prefix.put(text, put, block + (self.expression.site == "residual_post"), begin)
            else:
                logits = prefix.run(text, Plan({name: Chain([put])}, {}, {}), block, begin)
        found = self.scores(logits, rows[text]).float().cpu()
        values[rows[text].cpu(), layer, head.cpu(), slot.cpu()] = found

    def _put(self, name: str, rows: Tensor, slot: Tensor, head: Tensor) -> Put:
        """The edit's function for these texts, at one slot and head of each."""
        put: Put = self.acting.taps(rows)[name]
        put.at.slots = torch.where(put.at.slots == slot[:, None], put.at.slots, -1)
        if self.expression.heads is not None:
            chosen = torch.tensor(self.heads, device=head.device)[head]
            put.heads = torch.nn.functional.one_hot(chosen, self._all_heads).bool()
        return put

    @property
    def _all_heads(self) -> int:
        """How many heads the site has, of which the expression may name some."""
        config = self.network.config
        if not hasattr(config, "n_heads"):
            return 1
        count: int = config.kv_heads if self.expression.site.endswith((".key", ".value")) else config.n_heads
        return count

    def _estimates(self, halfway: bool) -> Float[Tensor, "n L H k"]:
        """(new − old) · gradient, summed over a position's numbers; of a pattern, over its keys."""
        kept = trace(self.model, self.inputs, self.expression.text, grad=self.scores)
        old, slopes = (each.whole(self.expression) for each in (kept, kept.grad))
        found = []
        for name in self.expression.names:
            change = self._change(name, old[name])
            slope = self._slope_halfway(name, old[name] + change / 2) if halfway else slopes[name]
            product = (change * slope).sum(-1)
            found.append(product if self.expression.kind != "stream" else product[:, None])
        result = torch.stack(found, 1)
        if self.expression.heads is None and result.shape[2] > 1:
            result = result.sum(2, keepdim=True)
        return result.masked_fill(~self.places.real[:, None, None], torch.nan).float().cpu()

    def _change(self, name: str, old: Tensor) -> Tensor:
        """What the edit puts at a site, less what was there, at all slots."""
        n, k = self.places.index.shape
        slots = torch.arange(k, device=self.places.index.device).expand(n, k)
        new, heads = self.acting.new(name, slice(0, n), self._keys()), self.expression.heads
        if heads is None:
            return new(old, slots).to(old.dtype) - old
        return new(chosen_heads(old, heads, self._all_heads), slots)[:, list(heads)].to(old.dtype) - old

    def _slope_halfway(self, name: str, half: Tensor) -> Tensor:
        """The gradient at one site, where it has the values `half` in all its places."""
        expression = self.expression
        place = expression.at if expression.of is None else f"{expression.at}<-{expression.of}"
        heads = "" if expression.heads is None else f".head[{','.join(map(str, expression.heads))}]"
        text = f"{name}{heads} @ {place}"
        found = trace(self.model, self.inputs, text, grad=self.scores, edits=[Patch(text, {name: half})])
        slope: Tensor = found.grad.whole(parse(text, self.network))[name]
        return slope

    def _keys(self) -> Window | None:
        """Where the keys of a pattern are, of which a trace keeps those of the span alone, one after another."""
        if self.expression.of is None:
            return None
        real = self.inputs.places(self.expression.of, self.expression.key_side).real
        index = torch.arange(real.shape[1], device=real.device).expand_as(real)
        return Window(Places(index, real), slice(0, len(real)), real.shape[1])


def _patching(
    model: Any, given: Any, target: Any, source: Any, expression: Expression
) -> tuple[Inputs, Edit, list[str] | None]:
    """The texts that can be patched, the patch, and the answers of the texts that it comes from."""
    inputs = prepare(model, given, target)
    if isinstance(source, Trace):
        return inputs, patch(expression.text, source), None
    others = None
    if source is None:
        if not hasattr(inputs.given, "swapped"):
            raise InputError("say the 'source' to patch from: a trace, or texts; only facts bring swapped ones.")
        source = inputs.given.swapped(tokenizer=model.tokenizer)
        others = source.answers
    from_texts = prepare(model, source, target)
    if len(from_texts) != len(inputs):
        raise InputError(f"{len(inputs)} texts are patched from {len(from_texts)}; give one for each.")
    alike = _alike(inputs, from_texts, expression)
    if not alike.all() and others is not None:
        if not alike.any():
            raise InputError("no fact has as many tokens as the one it is swapped with: sweep over subject.last, say.")
        rows = alike.nonzero()[:, 0]
        facts = inputs.given.take(rows.tolist())
        inputs, others = prepare(model, facts), [others[row] for row in rows.tolist()]
        from_texts = repeated(from_texts, rows)
    return inputs, patch(expression.text, trace(model, from_texts, expression.text)), others


def _alike(here: Inputs, there: Inputs, expression: Expression) -> Tensor:
    """Which pairs have equally many positions there, and keys."""
    old, new = (each.places(expression.at, expression.side).counts for each in (here, there))
    alike = old == new
    if expression.of is not None:
        old, new = (each.places(expression.of, expression.key_side).counts for each in (here, there))
        alike = alike & (old == new)
    return alike


def _by_layer(cells: Cells) -> list[tuple[int, list[int]]]:
    layers: dict[int, list[int]] = {}
    for layer, head in cells:
        layers.setdefault(layer, []).append(head)
    return list(layers.items())
