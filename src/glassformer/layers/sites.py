"""Sites: every quantity of the model passes a tap, an identity with a name, where it can be read or replaced.

A tap that no plan names costs nothing. `planned` never touches the model it is given: it returns a shallow copy of the
module tree that shares every parameter and has taps of its own, so the same weights can train, serve and be looked
into at once. A site is written `[encoder.|decoder.]site[layer]`, for example `decoder.cross_attention.pattern[2]`.
"""

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

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
    return {_site_name(path): module for path, module in network.named_modules() if isinstance(module, Tap)}


def planned(network: Network, plan: Mapping[str, Callable[[Tensor], Tensor]]) -> Network:
    """A copy of the network that shares its parameters and runs `plan`: site name → function on the value there.

    Raises `InputError` for a site that the network does not have.
    """
    duplicate = share(network)
    known = sites(duplicate)
    for name, function in plan.items():
        if name not in known:
            raise InputError(f"the model has no site '{name}'.{did_you_mean(name, known)}")
        known[name].plan = function
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


def _site_name(path: str) -> str:
    """`decoder.blocks.2.cross_attention.taps.pattern` → `decoder.cross_attention.pattern[2]`."""
    layer = re.search(r"\bblocks\.(\d+)\.", path)
    name = re.sub(r"\b(stack|blocks\.\d+|taps)\.", "", path)
    return f"{name}[{layer[1]}]" if layer else name


def share(module: Network) -> Network:
    """A copy of the module tree that shares every parameter and buffer; only the containers are new."""
    duplicate = copy.copy(module)
    duplicate.__dict__ = {**module.__dict__, "_modules": {}}
    for name, child in module._modules.items():
        duplicate._modules[name] = None if child is None else share(child)
    return duplicate
