"""What a piece of a training step does, counted by operation: FLOPs, bytes moved, bytes held, collectives."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

KINDS = {
    "all_reduce": "all-reduce",
    "allreduce_": "all-reduce",
    "all_gather_into_tensor": "all-gather",
    "_allgather_base_": "all-gather",
    "reduce_scatter_tensor": "reduce-scatter",
    "_reduce_scatter_base_": "reduce-scatter",
}
"""Torch's names of collectives, of both its interfaces, and ours."""


@dataclass(frozen=True)
class Operation:
    """One operation of one rank: FLOPs, and bytes of what it reads and writes."""

    name: str
    flops: int
    moved: int


@dataclass(frozen=True)
class Collective:
    """One collective of one rank. `bytes` are those of its larger side: of the sum, of all that is gathered, or of all
    that is scattered."""

    kind: str
    bytes: int


class Watch(TorchDispatchMode):
    """Counts the operations inside, those on the local parts of distributed tensors too; tensors may be fake.

    `held` is the size of all storages that were made inside and are still alive, `peak` the most that it was, `casts`
    the part that is `weights` in the type that autocast gave them: kept for the backward pass, whatever the batch.
    The products of fused attention are counted in full, also where a mask leaves half of them out, as is usual.
    """

    def __init__(self, weights: Iterable[Tensor] = (), known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.collectives: list[Collective] = []
        self.held = self.peak = self.casts = 0
        self._weights = {_key(weight) for weight in weights}
        self._known = self._weights | {_key(tensor) for tensor in known}

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # comes back as operations on its local part
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        written = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        space, _, name = func._schema.name.partition("::")
        if name in KINDS and "c10d" in space:
            self.collectives.append(Collective(KINDS[name], max(map(_bytes, [*read, *written]))))
        elif space != "prim" and "c10d" not in space and space != "_dtensor" and not func.is_view:
            flops = _flops(func, args, kwargs, out)
            self.operations.append(Operation(name, flops, sum(map(_bytes, [*read, *written]))))
        cast = name == "_to_copy" and _key(read[0]) in self._weights
        for tensor in written:
            self._hold(tensor, cast)
        return out

    def _hold(self, tensor: Tensor, cast: bool) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.held += size
        self.casts += size if cast else 0
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._release, key, size, cast)

    def _release(self, key: int, size: int, cast: bool) -> None:
        self._known.discard(key)
        self.held -= size
        self.casts -= size if cast else 0


def _flops(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """By torch's own formulas; it has none for the fused attention of CPUs, which is like the other fused ones, nor for
    products that are added in place."""
    if func is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default:
        return int(sdpa_flop_count(*(x.shape for x in args[:3])))
    if func is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default:
        return int(sdpa_backward_flop_count(*(x.shape for x in args[:4])))
    packet = func._overloadpacket
    packet = torch.ops.aten.addmm if packet is torch.ops.aten.addmm_ else packet
    count: Callable[..., int] | None = flop_registry.get(packet)
    return 0 if count is None else int(count(*args, **kwargs, out_val=out))


def local(tensor: Tensor) -> Tensor:
    """The part of a distributed tensor that this rank has; any other tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _key(tensor: Tensor) -> int:
    return int(local(tensor).untyped_storage()._cdata)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
