"""Rules at work: a network filled from stored tensors, and a network's tensors under the names of others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from glassformer.checkpoints.families import families
from glassformer.checkpoints.maps.rules import Rule
from glassformer.checkpoints.tensors import network_tensors
from glassformer.errors import InputError
from glassformer.models.config import Config

SHOWN = 10
"""So many of the tensors that do not fit are named in an error."""

_LONGEST = 2**20  # positions; tables of them are computed before any tensor could contradict

Item = TypeVar("Item")


class Stored(Protocol):
    """A tensor that lies in a file: its shape is known, its numbers are read when asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def dense(self) -> Tensor: ...


def rules_for(
    read: Callable[[Config], list[Rule]], config: Config, stored: Mapping[str, Stored], where: str
) -> list[Rule]:
    """The rules of a network with that config; `InputError` for a size that the stored tensors cannot bear out."""
    layers = config.n_encoder_layers + config.n_decoder_layers
    if layers > len(stored) or config.max_length > _LONGEST:
        raise InputError(
            f"{where}: the configuration must fit the {len(stored)} stored tensors and have at most {_LONGEST} "
            f"positions, got {layers} layers and {config.max_length} positions. Use another copy."
        )
    return read(config)


def build(family: str, config: Config, rules: Sequence[Rule], stored: Mapping[str, Stored], where: str) -> nn.Module:
    """The network of that config with all its tensors read from `stored`, in evaluation mode.

    Raises `InputError` for tensors that do not fit, naming them.
    """
    network = outline(family, config, where)
    fill(network, rules, stored, match(network, rules, stored, where), where)
    return network.eval()


def outline(family: str, config: Config, where: str) -> nn.Module:
    """A network whose weights were not given numbers yet: memory that is only promised, until it is written to.

    Raises `InputError` for sizes that no memory can hold.
    """
    make: Callable[[Any], nn.Module] = families[family].network
    try:
        with _Undrawn():
            return make(config)
    except (RuntimeError, MemoryError, OverflowError, TypeError) as error:  # what torch raises depends on the size
        reason = str(error).splitlines()[0]
        raise InputError(f"{where}: no memory holds a network of this configuration ({reason}).") from None


def match(network: nn.Module, rules: Sequence[Rule], stored: Mapping[str, Stored], where: str) -> set[str]:
    """The names of `rules` that are stored, all others being optional.

    Raises `InputError` naming the tensors that are missing, that no rule knows, or that have another shape.
    """
    own = dict(network.state_dict(keep_vars=True))
    expected = {rule.theirs: _shape(rule, own) for rule in rules}
    found = {rule.theirs for rule in rules if rule.theirs in stored}
    told = {id(own[name]) for rule in rules if rule.theirs in found or not rule.optional for name in rule.ours}
    missing = [
        rule.theirs
        for rule in rules
        if rule.theirs not in found and (not rule.optional or any(id(own[name]) not in told for name in rule.ours))
    ]
    wrong = [name for name in expected if name in found and tuple(stored[name].shape) != expected[name]]
    extra = [name for name in stored if name not in expected]
    problems = [
        *_listed("missing", [f"{name} {list(expected[name])}" for name in missing]),
        *_listed("not part of such a network", [f"{name} {list(stored[name].shape)}" for name in extra]),
        *_listed(
            "of the wrong shape",
            [f"{name} must be {list(expected[name])}, is {list(stored[name].shape)}" for name in wrong],
        ),
    ]
    if problems:
        raise InputError(f"{where}: the tensors do not fit the configuration. {' '.join(problems)} Use another copy.")
    covered = {id(own[name]) for rule in rules for name in rule.ours}
    assert all(id(own[name]) in covered for name in network_tensors(network)), "a map must have a rule for each tensor"
    return found


def fill(network: nn.Module, rules: Sequence[Rule], stored: Mapping[str, Stored], names: set[str], where: str) -> None:
    """Read every stored tensor of `names` into the network; the errors of `build` for tied ones that differ."""
    own = network.state_dict(keep_vars=True)
    filled: set[int] = set()
    for rule in rules:
        if rule.theirs not in names:
            continue
        parts = to_ours(rule, stored[rule.theirs].dense(), [own[name].shape[0] for name in rule.ours])
        for name, part in zip(rule.ours, parts, strict=True):
            target = own[name].detach()
            if id(own[name]) not in filled:
                target.copy_(part)
                filled.add(id(own[name]))
            elif not torch.equal(target, part.to(target.dtype)):
                raise InputError(
                    f"{where}: '{rule.theirs}' must hold the same numbers as the tensor that it is tied to, but holds "
                    "others. If the model is meant to be untied, its configuration must say so."
                )


def to_ours(rule: Rule, tensor: Tensor, rows: Sequence[int]) -> list[Tensor]:
    """Their tensor cut into ours, which have so many rows (a trailing axis of blocks may follow)."""
    tensor = tensor[0] if rule.as_row else tensor.t() if rule.transposed else tensor
    if rule.paired_heads:
        tensor = tensor[paired_rows(len(tensor), rule.paired_heads)]
    return list(tensor[rule.skipped :].split(list(rows)))


def paired_rows(rows: int, heads: int) -> Tensor:
    """Where our rows lie in theirs, when each head's coordinates i and i + d/2 lie next to each other there."""
    return torch.arange(rows).view(heads, -1, 2).transpose(1, 2).flatten()


def to_theirs(network: nn.Module, rules: Iterable[Rule], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """A network's tensors under the names of `rules`, as `dtype` where given; what is tied once."""
    own = network.state_dict(keep_vars=True)
    written: set[int] = set()
    tensors = {}
    for rule in rules:
        parts = [own[name] for name in rule.ours]
        if rule.optional and not rule.repeated and all(id(part) in written for part in parts):
            continue
        written.update(id(part) for part in parts)
        assert not rule.paired_heads, "only read, never written"
        tensor = parts[0].detach() if len(parts) == 1 else torch.cat([part.detach() for part in parts])
        if rule.skipped:
            tensor = torch.cat((tensor.new_zeros(rule.skipped, *tensor.shape[1:]), tensor))
        if rule.as_row:
            tensor = tensor[None]
        tensors[rule.theirs] = (tensor.t() if rule.transposed else tensor).to(dtype or tensor.dtype)
    return tensors


def called(
    stored: Mapping[str, Item],
    rules: Iterable[Rule],
    prefix: str = "",
    ignored: Sequence[str] = (),
    renamed: Sequence[tuple[str, str]] = (),
) -> dict[str, Item]:
    """Stored tensors by the names that rules use: with or without `prefix`, older ends of names brought up to date, and
    what no rule names and a pattern of `ignored` matches left out."""
    wanted = {rule.theirs for rule in rules}
    result = {}
    for name, item in stored.items():
        for old, new in renamed:
            name = name.removesuffix(old) + new if name.endswith(old) else name
        bare = name.removeprefix(prefix)
        name = next((known for known in (name, prefix + name, bare) if known in wanted), name)
        if name in wanted or not any(re.fullmatch(pattern, name) for pattern in ignored):
            result[name] = item
    return result


def _shape(rule: Rule, own: Mapping[str, Tensor]) -> tuple[int, ...]:
    shapes = [own[name].shape for name in rule.ours]
    shape = (rule.skipped + sum(shape[0] for shape in shapes), *shapes[0][1:])
    if rule.as_row:
        return (1, *shape)
    return shape[::-1] if rule.transposed else shape


def _listed(what: str, names: list[str]) -> list[str]:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{len(names)} {what}: {', '.join(names[:SHOWN])}{more}."] if names else []


class _Undrawn(TorchFunctionMode):
    """What fills a tensor with random numbers leaves it as it is: all are about to be read, drawing takes longer."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.uniform_, Tensor.normal_) or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return torch.empty(*args, **kwargs) if func is torch.randn else func(*args, **kwargs)
