"""Plans through torch.compile: one compiled copy for each structure of a plan, which later texts use again.

Dynamo gives a function 8 recompilations and then silently runs it uncompiled; all copies of a network share their code,
so the ninth plan would get none. Each copy is therefore compiled in isolation, and a bounded number of them is kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from glassformer.interpret.acting import Chain, Cuts, Keep, Put
from glassformer.interpret.edits import Apply
from glassformer.interpret.running import Plan, last_states
from glassformer.layers.sites import edges, sites

KEPT = 16
"""So many compiled copies of a network are kept; the one that was not used for longest goes first."""


@dataclass
class Compiled:
    """A planned copy and its compiled function. One caller at a time sets its plan and runs it."""

    copy: nn.Module
    function: Callable[..., Tensor]
    lock: threading.Lock = field(default_factory=threading.Lock)


_cache: WeakKeyDictionary[nn.Module, OrderedDict[Any, Compiled]] = WeakKeyDictionary()
_changing = threading.Lock()


def run_compiled(network: nn.Module, plan: Plan, arguments: tuple[Tensor, ...]) -> Tensor:
    """The last states, or all logits where the plan reaches them, by a compiled copy of the network."""
    compiled = _compiled(network, plan, torch.is_grad_enabled())
    with compiled.lock:
        taps, cuts = sites(compiled.copy), edges(compiled.copy)
        for name, chain in plan.taps.items():
            taps[name].plan = chain
        for name, cut in plan.cuts.items():
            cuts[name].plan = cut
        return compiled.function(*arguments)


def _compiled(network: nn.Module, plan: Plan, grad: bool) -> Compiled:
    key = (network.training, plan.reaches_head, grad, *_structure(plan))
    with _changing:
        kept = _cache.setdefault(network, OrderedDict())
        if key not in kept:
            kept[key] = _compile(plan.on(network), plan.reaches_head)
            while len(kept) > KEPT:
                kept.popitem(last=False)
        kept.move_to_end(key)
        return kept[key]


def _compile(copy: Any, logits: bool) -> Compiled:
    def function(*arguments: Tensor) -> Tensor:
        return last_states(copy, arguments, logits)

    options: dict[str, Any] = {"fullgraph": True, "isolate_recompiles": True}
    return Compiled(copy, torch.compile(function, **options))


def _structure(plan: Plan) -> tuple[Any, ...]:
    """What of a plan is in the code of its graph; the rest is tensors."""
    taps = tuple((name, tuple(map(_part, chain.functions))) for name, chain in sorted(plan.taps.items()))
    return taps, tuple((name, _cut(cut)) for name, cut in sorted(plan.cuts.items()))


def _cut(cuts: Cuts) -> tuple[Any, ...]:
    return tuple(None if each.heads is None else tuple(each.heads) for each in cuts.functions)


def _part(function: Any) -> tuple[Any, ...]:
    if isinstance(function, Keep):
        return "keep", function.grad
    if isinstance(function, Put):
        heads = None if function.heads is None else tuple(function.heads)
        return "put", function.kind, heads, function.of is None, function.new.__code__, _applied(function.new)
    assert not isinstance(function, Chain)
    return (function,)


def _applied(new: Any) -> tuple[Any, ...]:
    """The functions of a user's that `new` calls: others are other code."""
    cells = [cell.cell_contents for cell in new.__closure__ or ()]
    return tuple(cell.function for cell in cells if isinstance(cell, Apply))
