"""Running a network by a plan: a copy that shares its weights, for some of the texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from glassformer.errors import InputError
from glassformer.interpret.acting import Chain, Cut, Cuts, Keep, Put
from glassformer.interpret.inputs import Inputs, Rows, network_of, prepare
from glassformer.layers.sites import planned
from glassformer.models.config import Classification, Sentence

Key = tuple[str, str]


class Acting(Protocol):
    """An edit that is ready for certain texts: its functions for some rows, by the name of their site or attention."""

    def taps(self, rows: Rows) -> Mapping[str, Callable[[Tensor], Tensor]]: ...
    def cuts(self, rows: Rows) -> Mapping[str, Cut]: ...


class Editing(Protocol):
    """An edit as the user says it (`interpret.edits`)."""

    def ready(self, model: Any, inputs: Inputs) -> Acting: ...
    def run(self, model: Any, text: Any, target: Any, edits: Any) -> Any: ...


def ready(edit: Editing, model: Any, inputs: Inputs) -> Acting:
    """The edit for these texts; whatever it needs of a run of its own (means, other texts' values) is computed."""
    if not hasattr(edit, "ready"):
        raise InputError(f"{edit!r} is no edit: make one by patch, ablate, knockout, steer or apply.")
    return edit.ready(model, inputs)


@dataclass(frozen=True)
class Plan:
    """What is to happen at which taps and edges, for one batch of texts."""

    taps: Mapping[str, Chain]
    cuts: Mapping[str, Cuts]
    keeps: Mapping[Key, Keep]

    @classmethod
    def of(cls, acting: Sequence[Acting], inputs: Inputs, rows: Rows, keeps: Mapping[Key, Keep] | None = None) -> Plan:
        """The edits in their order, and behind them what is kept: the values as edited."""
        taps: dict[str, list[Any]] = {}
        cuts: dict[str, list[Cut]] = {}
        for each in acting:
            for name, function in each.taps(rows).items():
                taps.setdefault(name, []).append(function)
            for name, cut in each.cuts(rows).items():
                cuts.setdefault(name, []).append(cut)
        for (_, name), keep in (keeps or {}).items():
            taps.setdefault(name, []).append(keep)
        chains = {name: Chain(functions) for name, functions in taps.items()}
        return cls(chains, {name: Cuts(functions) for name, functions in cuts.items()}, keeps or {})

    def rewind(self) -> None:
        """Count positions from 0 again: the texts are read once more."""
        windows = [put.at for put in self.puts] + [cut.at for cuts in self.cuts.values() for cut in cuts.functions]
        for window in windows:
            window.seen = 0

    @property
    def puts(self) -> list[Put]:
        """What puts values in place of others."""
        return [each for chain in self.taps.values() for each in chain.functions if isinstance(each, Put)]

    @property
    def reaches_head(self) -> bool:
        """Whether anything is planned behind the last states."""
        return any(name == "logits" or name.startswith("head.") for name in self.taps)

    def on(self, network: nn.Module) -> Any:
        """A copy of the network with this plan."""
        return planned(network, {**self.taps}, {**self.cuts})


def run(
    network: nn.Module, inputs: Inputs, rows: Rows, plan: Plan, *, ends: bool = False, compiled: bool = False
) -> Tensor:
    """Run some of the texts by a plan. Without `ends` the last states are returned, or all logits where the plan
    reaches them; with `ends` the logits [b, V] at the end of each text (of a classifier, those of its labels).

    Gradients are computed only where a caller has asked for them by `torch.enable_grad` and a site is kept for it.
    Raises `InputError` for a kept site that nothing passed.
    """
    grad = any(keep.grad for keep in plan.keeps.values())
    arguments = inputs.arguments(rows)
    with torch.set_grad_enabled(grad):
        copy = network if compiled else plan.on(network)  # a compiled plan has a copy of its own
        result = _compiled(network, plan, arguments) if compiled else last_states(copy, arguments, plan.reaches_head)
        if ends and not _whole_text(network):
            result = _at_ends(copy, result, inputs.ends[rows], plan.reaches_head)
    for (_, name), keep in plan.keeps.items():
        if not keep.values:
            raise InputError(f"nothing passed the site '{name}' in this run: the model does not compute it here.")
    return result


def run_edited(model: Any, text: Any, target: Any, edits: Sequence[Editing]) -> Any:
    """The network's `Output` for all texts at once, edited: what `model(text, edits=edits)` is. Gradients flow as torch
    is set to."""
    inputs = prepare(model, text, target)
    rows = slice(0, len(inputs))
    with torch.no_grad():
        acting = [ready(edit, model, inputs) for edit in edits]
    return Plan.of(acting, inputs, rows).on(network_of(model))(*inputs.arguments(rows))


def last_states(network: Any, arguments: tuple[Tensor, ...], logits: bool) -> Tensor:
    """The last states, or the logits where they are wanted or are of the whole text."""
    if logits or _whole_text(network):
        return network(*arguments).logits
    hidden: Tensor = network.hidden(*arguments)
    return hidden


def _compiled(network: nn.Module, plan: Plan, arguments: tuple[Tensor, ...]) -> Tensor:
    from glassformer.interpret.compiled import run_compiled

    return run_compiled(network, plan, arguments)


def _at_ends(copy: Any, result: Tensor, ends: Tensor, are_logits: bool) -> Tensor:
    last = result[torch.arange(len(ends), device=ends.device), ends]
    logits: Tensor = last if are_logits else copy.logits(copy.head(last))
    return logits


def _whole_text(network: nn.Module) -> bool:
    """Whether the logits are of the text, and not of its positions."""
    return isinstance(getattr(network.config, "head", None), Classification | Sentence)
