"""Sites: every quantity of the model passes a tap, an identity with a name, where it can be read or replaced.

Beside the taps every attention has `Edges`, where a plan may cut who looks at whom.

A tap that no plan names costs nothing. `planned` never touches the model it is given: it returns a shallow copy of the
module tree that shares every parameter and has taps of its own, so the same weights can train, serve and be looked
into at once. A site is written `[encoder.|decoder.]site[layer]`, for example `decoder.cross_attention.pattern[2]`.
"""

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor, nn

from glassformer.errors import InputError, did_you_mean

Network = TypeVar("Network", bound=nn.Module)


class Tap(nn.Module):
    """Identity. In a planned copy, `plan` sees the value and returns what flows on."""

    plan: Callable[[Tensor], Tensor] | None = None

    @property
    def active(self) -> bool:
        """Whether a plan names this tap; layers take a legible path where the fused one would skip the value."""
        return self.plan is not None

    def forward(self, value: Tensor) -> Tensor:
        return value if self.plan is None else self.plan(value)


class Edges(nn.Module):
    """Which query may look at which key, beside the mask. In a planned copy, `plan` is asked with the queries
    [B, H, Q, d] and the number of keys, and what it answers, [B, H or 1, Q, K], True = may attend, joins the mask."""

    plan: Callable[[Tensor, int], Tensor] | None = None

    @property
    def active(self) -> bool:
        """Whether a plan cuts edges here."""
        return self.plan is not None

    def forward(self, mask: Tensor | None, query: Tensor, keys: int) -> Tensor | None:
        if self.plan is None:
            return mask
        allowed = self.plan(query, keys)
        return allowed if mask is None else mask & allowed


class Taps(nn.Module):
    """The taps of one layer, by name: `Taps("query", "key")` has `.query` and `.key`."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        for name in names:
            self.add_module(name, Tap())

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Tap: ...


def sites(network: nn.Module) -> dict[str, Tap]:
    """Every site of the network with its tap, in module order."""
    return {_site_name(path): module for path, module in _places(network) if isinstance(module, Tap)}


def edges(network: nn.Module) -> dict[str, Edges]:
    """Where edges of attention can be cut, by the name of the attention: `self_attention[0]`, …"""
    return {_site_name(path): module for path, module in _places(network) if isinstance(module, Edges)}


def is_planned(network: nn.Module) -> bool:
    """Whether anything is planned in it already."""
    return any(module.active for _, module in _places(network))


def planned(
    network: Network,
    plan: Mapping[str, Callable[[Tensor], Tensor]],
    cuts: Mapping[str, Callable[[Tensor, int], Tensor]] | None = None,
) -> Network:
    """A copy of the network that shares its parameters and runs `plan`: site name → function on the value there.

    `cuts` are plans of `Edges`, by the name of their attention. Modules in which nothing is planned are shared as they
    are. Raises `InputError` for a site that the network does not have.
    """
    paths = {_site_name(path): path for path, _ in _places(network)}
    duplicate = _copied(network)
    for name, function in (*plan.items(), *(cuts or {}).items()):
        if name not in paths:
            raise InputError(f"the model has no site '{name}'.{did_you_mean(name, paths)}")
        _owned(duplicate, network, paths[name]).plan = function
    return duplicate


def replaced(network: Network, parts: Mapping[str, nn.Module]) -> Network:
    """A copy of the network that shares its parameters and has other modules at some paths (`stack.blocks.0`)."""
    duplicate = _copied(network)
    for path, module in parts.items():
        parent, _, name = path.rpartition(".")
        _owned(duplicate, network, parent)._modules[name] = module
    return duplicate


def record(network: Network, names: Iterable[str]) -> tuple[Network, dict[str, Tensor]]:
    """A planned copy that keeps the values at `names`; the dictionary fills, and is overwritten, at every forward."""
    values: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[Tensor], Tensor]:
        def function(value: Tensor) -> Tensor:
            values[name] = value.detach()
            return value

        return function

    return planned(network, {name: keep(name) for name in names}), values


def share(module: Network) -> Network:
    """A copy of the module tree that shares every parameter and buffer; only the containers are new."""
    duplicate = _copied(module)
    for name, child in module._modules.items():
        duplicate._modules[name] = None if child is None else share(child)
    return duplicate


def _copied(module: Network) -> Network:
    """A module of its own with the same parts."""
    duplicate = copy.copy(module)
    duplicate.__dict__ = {**module.__dict__, "_modules": dict(module._modules)}
    return duplicate


def _owned(duplicate: nn.Module, network: nn.Module, path: str) -> Any:
    """The module at `path` of a copy, which from there up to the root shares no module with the network any more."""
    here: Any = duplicate
    original: Any = network
    for name in path.split("."):
        original = original._modules[name]
        if here._modules[name] is original:
            here._modules[name] = _copied(original)
        here = here._modules[name]
    return here


def _places(module: nn.Module, path: str = "") -> "Iterator[tuple[str, Tap | Edges]]":
    """Every tap and all edges, with their paths; `named_modules` would take longer than a small model's step."""
    for name, child in module._modules.items():
        if isinstance(child, Tap | Edges):
            yield path + name, child
        elif child is not None and child._modules:
            yield from _places(child, f"{path}{name}.")


@cache
def _site_name(path: str) -> str:
    """`decoder.blocks.2.cross_attention.taps.pattern` → `decoder.cross_attention.pattern[2]`."""
    layer = re.search(r"\bblocks\.(\d+)\.", path)
    name = re.sub(r"\b(stack|blocks\.\d+|taps)\.|\.edges$", "", path)
    return f"{name}[{layer[1]}]" if layer else name
