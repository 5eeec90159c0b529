"""Building a network whose parameters take no memory, and drawing their numbers later, one tensor at a time.

The numbers are those that building it plainly would have drawn: every filling of a parameter is written down with the
state of the random numbers before it, and done again when the parameter is wanted. So each process that has a share of
a tensor holds that whole tensor for a moment, never the whole network. Drawing takes its time twice: building must draw
all numbers once, as each tensor's begin where those of the tensor before end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode

from glassformer.training.parallel.learner import share_of

_COVERING = {"aten::normal_", "aten::uniform_", "aten::zero_", "aten::fill_"}


@dataclass(frozen=True)
class _Filling:
    """Something done in place to a parameter, or to the part of it that has this size, stride and offset."""

    operator: Any
    place: tuple[Any, Any, Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    state: Tensor | None


@dataclass
class _Record:
    """All that a parameter's numbers follow from: those it began with, where they were not covered, and what followed.

    Numbers that were never written, as of `torch.empty`, take no memory until then. `holder` is the parameter: while it
    is there, no other tensor can be mistaken for it.
    """

    holder: nn.Parameter
    start: Tensor | None
    shape: torch.Size
    dtype: torch.dtype
    fillings: list[_Filling] = field(default_factory=list)

    def add(self, filling: _Filling) -> None:
        size, _, _ = filling.place
        if filling.operator._schema.name in _COVERING and size == self.shape:
            self.start, self.fillings = None, []
        self.fillings.append(filling)

    def numbers(self) -> Tensor:
        """The parameter's value. Moves torch's random numbers."""
        whole = torch.empty(self.shape, dtype=self.dtype) if self.start is None else self.start.clone()
        for filling in self.fillings:
            if filling.state is not None:
                torch.set_rng_state(filling.state)
            filling.operator(whole.as_strided(*filling.place), *filling.arguments, **filling.options)
        return whole


class Draws(TorchDispatchMode):
    """The parameters that were registered in its context, which are on the meta device now, and their numbers.

    In the context, `draw` says whether the random numbers move on as they would have; without, a network can be looked
    at, but not filled.
    """

    def __init__(self, draw: bool = True) -> None:
        super().__init__()
        self.draw = draw
        self._records: dict[int, _Record] = {}
        self._named: dict[str, _Record] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        target = args[0] if args and isinstance(args[0], Tensor) and args[0].is_meta else None
        record = None if target is None else self._records.get(_key(target))
        alias = func._schema.arguments[0].alias_info if record is not None else None
        if target is None or record is None or alias is None or not alias.is_write:
            return func(*args, **kwargs)
        state = None
        if torch.Tag.nondeterministic_seeded in func.tags and self.draw:
            state = torch.get_rng_state()
            func(torch.empty_strided(target.size(), target.stride(), dtype=target.dtype), *args[1:], **kwargs)
        place = (target.size(), target.stride(), target.storage_offset())
        record.add(_Filling(func, place, args[1:], kwargs, state))
        return target

    def _registered(self, module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta:  # a tied one, which has a record
            return None
        empty = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
        self._records[_key(empty)] = _Record(empty, parameter.detach(), parameter.shape, parameter.dtype)
        return empty

    def names(self, network: nn.Module) -> None:
        """Remember the network's names, before its parameters become shares."""
        self._named = {name: self._records[_key(parameter)] for name, parameter in network.named_parameters()}

    def numbers(self, name: str) -> Tensor:
        """The parameter that had this name in the whole network, drawn."""
        return self._named[name].numbers()


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


@contextmanager
def unfilled(draw: bool = True) -> Iterator[Draws]:
    """A context in which networks are built without their parameters' numbers; buffers are as ever."""
    draws = Draws(draw)
    hook = register_module_parameter_registration_hook(draws._registered)  # type: ignore[arg-type]
    try:
        with draws:
            yield draws
    finally:
        hook.remove()


@torch.no_grad()
def fill(network: nn.Module, draws: Draws, device: torch.device) -> None:
    """Give every parameter of `network` memory on `device` and the numbers that it has in the whole network.

    The network may be one that was built `unfilled`, what shares of it a process has, or some of its modules.
    """
    give_memory(network, device)
    with torch.random.fork_rng(devices=[]):
        for name, parameter in network.named_parameters():
            parameter.copy_(share_of(draws.numbers(name), parameter))


@torch.no_grad()
def give_memory(network: nn.Module, device: torch.device) -> None:
    """Put on `device` all of a network whose parameters are on the meta device; their numbers are anything then.

    Tied parameters stay tied, which `nn.Module.to_empty` does not see to.
    """
    made: dict[int, nn.Parameter] = {}
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in made:
                    held = torch.empty_like(parameter, device=device) if parameter.is_meta else parameter.to(device)
                    made[id(parameter)] = nn.Parameter(held, parameter.requires_grad)
                module._parameters[name] = made[id(parameter)]
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.to(device)
