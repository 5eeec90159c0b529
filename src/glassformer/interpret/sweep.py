"""The same edit at many places, one at a time: layers × positions, or × heads, and what each does to a metric."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glassformer.errors import InputError
from glassformer.interpret.acting import Chain, Put, Window, chosen_heads
from glassformer.interpret.edits import Edit, Patch, ablate, apply, patch, steer
from glassformer.interpret.expressions import Expression, parse
from glassformer.interpret.inputs import Inputs, network_of, prepare, repeated
from glassformer.interpret.known_blocks import KnownBlocks
from glassformer.interpret.metrics import Metric, Scores, metric_of
from glassformer.interpret.packed import Joining, Runs
from glassformer.interpret.prefix import Prefix
from glassformer.interpret.running import Plan, run
from glassformer.interpret.spans import Places
from glassformer.interpret.swept import Sweep
from glassformer.interpret.trace import BATCH, Trace, trace
from glassformer.layers.sites import is_planned
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder
from glassformer.models.encoder_decoder import EncoderDecoder

Method = Literal["exact", "attribution", "midpoint"]

TOKENS = 2048
"""Edited texts are run together up to so many positions."""

BLOCK_TOKENS = 384
"""The same in the block of the edit, where the positions before it are computed as well for all but the earliest."""

EVERY = 5.0
"""Seconds from one line of progress to the next."""

SAID = 512
"""Logits are computed for so many runs at once: of a large vocabulary they take much memory."""


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
    say: Callable[[str], None] | None = None,
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

    `say` (`print`, say) gets a line of progress every few seconds while places are run exactly.
    """
    network = network_of(model)
    expression = parse(over, network)
    if edit is patch:
        inputs, made, others = _patching(model, given, target, source, expression)
    else:
        if source is not None or edit not in (ablate, steer, apply):
            raise InputError("a sweep is of patch (which has a 'source'), ablate, steer or apply.")
        inputs, made, others = prepare(model, given, target), edit(over, **settings), None
    work = _Work(model, network, inputs, expression, made, metric_of(metric, model, inputs, others), tokens, say)
    if method in ("attribution", "midpoint"):
        halfway = method == "midpoint"
        return work.estimated(recheck, str(metric) if isinstance(metric, str) else "metric", halfway)
    if method != "exact":
        raise InputError(f"'method' must be exact, attribution or midpoint, got {method!r}.")
    return work.exact(str(metric) if isinstance(metric, str) else "metric")


@dataclass
class _Progress:
    """How far a sweep is, told now and then."""

    say: Callable[[str], None] | None
    total: int
    done: int = 0
    told: float = field(default_factory=time.monotonic)

    def ran(self, count: int) -> None:
        """So many more runs."""
        self.done += count
        if self.say is not None and time.monotonic() - self.told >= EVERY:
            self.told = time.monotonic()
            self.say(f"{self.done:,} of {self.total:,} places")


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
    say: Callable[[str], None] | None
    acting: Any = field(init=False)
    places: Places = field(init=False)
    progress: _Progress = field(init=False)

    def __post_init__(self) -> None:
        self.acting = self.edit.ready(self.model, self.inputs)
        if self.expression.kind == "rows":
            raise InputError(f"'{self.expression.text}' has no positions to sweep over.")
        self.places = self.inputs.places(self.expression.at, self.expression.side)

    @property
    def heads(self) -> Sequence[int]:
        return self.expression.heads or (0,)

    def exact(self, metric: str) -> Sweep:
        shape = len(self.expression.names), len(self.heads), self.places.index.shape[1]
        values, baseline = self._measured(torch.ones(shape, dtype=torch.bool, device=self.places.index.device))
        return Sweep(self.expression, self.inputs, self.places, metric, baseline, values, None)

    def estimated(self, recheck: int, metric: str, halfway: bool) -> Sweep:
        estimates = self._estimates(halfway)
        size = estimates.abs().nan_to_num().mean(0)
        wanted = torch.zeros(size.numel(), dtype=torch.bool)
        wanted[size.flatten().topk(min(recheck, size.numel())).indices] = True
        values, baseline = self._measured(wanted.reshape(size.shape).to(self.places.index.device))
        return Sweep(self.expression, self.inputs, self.places, metric, baseline, values, estimates)

    def _measured(self, wanted: Bool[Tensor, "L H k"]) -> tuple[Float[Tensor, "n L H k"], Float[Tensor, n]]:
        """The metric after the edit at the `wanted` layers, heads and slots, NaN elsewhere; and without edit."""
        n = len(self.places.index)
        values, baseline = torch.full((n, *wanted.shape), torch.nan), torch.empty(n)
        self.progress = _Progress(self.say, int((self.places.real * wanted.sum((0, 1))).sum()))
        fast = isinstance(self.network, Decoder) and self.expression.layers is not None
        fast = fast and not self.network.training and not is_planned(self.network)
        for first in range(0, n, BATCH):
            rows = torch.arange(first, min(first + BATCH, n), device=self.places.index.device)
            with torch.no_grad():
                if fast:
                    self._packed(rows, wanted, values, baseline)
                else:
                    self._one_by_one(rows, wanted, values, baseline)
        return values, baseline

    def _one_by_one(self, rows: Tensor, wanted: Tensor, values: Tensor, baseline: Tensor) -> None:
        """Every run in all its positions; where a network has blocks, from the block of the edit on."""
        by_block = isinstance(self.network, Encoder | EncoderDecoder) and self.expression.layers is not None
        known = KnownBlocks(self.network, self.inputs, rows) if by_block else None
        nothing = Plan({}, {}, {})
        plain = known.plain if known else run(self.network, self.inputs, rows, nothing, ends=True)
        baseline[rows.cpu()] = self.scores(plain, rows).cpu()
        each = self._edited(rows, self.places.real[rows])
        together = max(1, min(self.tokens, BLOCK_TOKENS) // int(self.inputs.text.lengths[rows].max()))
        for layer, name in enumerate(self.expression.names):
            for chosen in _in_layer(each, layer, wanted).split(together):
                if not len(chosen):
                    continue  # nothing is wanted in this layer
                texts = rows[chosen[:, 0]]
                network = self._known(known, name, layer, chosen[:, 0])
                plan = Plan({name: Chain([self._put(name, texts, chosen)])}, {}, {})
                self._keep(values, run(network, self.inputs, texts, plan, ends=True), rows, chosen)

    def _known(self, known: KnownBlocks | None, name: str, layer: int, text: Tensor) -> Any:
        if known is None or self.expression.layers is None:
            return self.network
        return known.before(name, self.expression.layers[layer], text)

    def _packed(self, rows: Tensor, wanted: Tensor, values: Tensor, baseline: Tensor) -> None:
        """What an edit does not change is computed once, and the runs of all layers go on together behind it."""
        prefix = Prefix.of(self.network, self.inputs, rows)
        baseline[rows.cpu()] = self.scores(prefix.logits, rows).cpu()
        # what comes after the end changes nothing there
        real = self.places.real[rows] & wanted.any(0).any(0) & (self.places.index[rows] <= self.inputs.ends[rows, None])
        cells = int(wanted.any(-1).sum())
        for some in _up_to(self._edited(rows, real), self.tokens // max(1, cells), prefix.ends):
            begun = [
                (*self._begun(layer, chosen, rows, prefix), chosen)
                for layer in range(len(wanted))
                for chosen in _in_block(_in_layer(some, layer, wanted), min(self.tokens, BLOCK_TOKENS), prefix.ends)
            ]
            begun.sort(key=lambda each: each[0])
            joining: dict[int, list[Joining]] = {}
            for block, runs, _ in begun:
                joining.setdefault(block, []).append(runs)
            states = prefix.last_states(joining)
            everything = torch.cat([chosen for *_, chosen in begun])
            for said, chosen in zip(states.split(SAID), everything.split(SAID), strict=True):
                self._keep(values, prefix.say(said), rows, chosen)

    def _begun(self, layer: int, chosen: Tensor, rows: Tensor, prefix: Prefix) -> tuple[int, Joining]:
        """The block before which runs that are edited in a layer join the others, and what they bring."""
        assert self.expression.layers is not None
        block, name, text = self.expression.layers[layer], self.expression.names[layer], chosen[:, 0]
        runs = Runs(text, chosen[:, 2], prefix.ends[text])
        put = self._put(name, rows[text], chosen)
        if self.expression.site == "residual_pre":  # what a block reads, and nothing else
            return block, prefix.put(runs, put, block)
        if self.expression.site == "residual_post":
            return block + 1, prefix.put(runs, put, block + 1)
        return block + 1, prefix.blocks(runs, Plan({name: Chain([put])}, {}, {}), block, block + 1)

    def _edited(self, rows: Tensor, real: Tensor) -> Int[Tensor, "e 3"]:
        """Text, slot and position of everything that is real, in the order of positions."""
        text, slot = real.nonzero(as_tuple=True)
        position = self.places.index[rows][text, slot]
        order = position.argsort(stable=True)
        return torch.stack((text[order], slot[order], position[order]), 1)

    def _keep(self, values: Tensor, logits: Tensor, rows: Tensor, chosen: Int[Tensor, "e 5"]) -> None:
        """The metric of some runs, in its place."""
        text, slot, _, layer, head = chosen.cpu().unbind(1)
        values[rows.cpu()[text], layer, head, slot] = self.scores(logits, rows[chosen[:, 0]]).float().cpu()
        self.progress.ran(len(chosen))

    def _put(self, name: str, rows: Tensor, chosen: Int[Tensor, "e 5"]) -> Put:
        """The edit's function for these texts, at one slot and head of each."""
        slot, head = chosen[:, 1], chosen[:, 4]
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


def _in_layer(each: Int[Tensor, "e 3"], layer: int, wanted: Bool[Tensor, "L H k"]) -> Int[Tensor, "f 5"]:
    """Text, slot, position, layer and head: of everything what is wanted in a layer, in each of the heads."""
    heads = wanted.shape[1]
    head = torch.arange(heads, device=each.device).repeat(len(each))[:, None]
    found = torch.cat((each.repeat_interleave(heads, 0), torch.full_like(head, layer), head), 1)
    return found[wanted[layer, found[:, 4], found[:, 1]]]


def _up_to(each: Int[Tensor, "e 3"], count: int, ends: Int[Tensor, b]) -> Iterator[Int[Tensor, "e 3"]]:
    """Some at a time, with so many positions from their own to the end, or one."""
    total = (ends[each[:, 0]] - each[:, 2] + 1).cumsum(0)
    group = (total - 1) // max(1, count)
    yield from each.split(group.unique_consecutive(return_counts=True)[1].tolist())


def _in_block(each: Int[Tensor, "e 5"], count: int, ends: Int[Tensor, b]) -> Iterator[Int[Tensor, "e 5"]]:
    """Some at a time, with so many positions from the earliest to the last end, or one."""
    first, length = 0, int(ends.max()) + 1
    while first < len(each):
        size = max(1, count // max(1, length - int(each[first, 2])))
        yield each[first : first + size]
        first += size
