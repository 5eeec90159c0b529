"""Small checkpoints: the trained tensors alone, and the name of the model that they belong to (Hu et al. 2021)."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glassformer.checkpoints.tensors import fill_network, network_tensors
from glassformer.errors import InputError
from glassformer.layers.low_rank import LowRank, add_low_rank, has_low_rank
from glassformer.models.encoder import Encoder


@dataclass(frozen=True)
class Adapter:
    """What a small checkpoint says of itself: which model it was trained on, by name and by the hash of its weights,
    and its low-rank layers. See `layers.low_rank.LowRank`."""

    base: str
    weights: str
    rank: int
    alpha: float
    layers: tuple[str, ...]
    dropout: float = 0.0

    @property
    def low_rank(self) -> LowRank:
        """What `add_low_rank` takes."""
        return LowRank(self.rank, self.alpha, self.dropout, self.layers)


def weights_hash(network: nn.Module) -> str:
    """A short hash of all weights by name: equal for equal models, whatever file they came from."""
    digest = hashlib.blake2b(digest_size=12)
    for name, tensor in sorted(network_tensors(network).items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def copy_fitting(network: nn.Module, base: nn.Module, but: tuple[str, ...] = ()) -> list[str]:
    """Copy into a network all tensors that another has by the same name and shape, but for those whose names begin
    with `but`; the names of the rest."""
    theirs = {name: tensor for name, tensor in network_tensors(base).items() if not name.startswith(but)}
    fresh = []
    with torch.no_grad():
        for name, tensor in network_tensors(network).items():
            if name in theirs and theirs[name].shape == tensor.shape:
                tensor.copy_(theirs[name])
            else:
                fresh.append(name)
    return fresh


def adapter_tensors(network: nn.Module) -> dict[str, Tensor]:
    """What a small checkpoint holds: whatever is trained, and low-rank layers, an encoder's head and its pooler also
    where they are frozen, as they may be others than the base's."""
    own = ("head.", "pooler.") if isinstance(network, Encoder) else ()
    return {
        name: parameter.detach()
        for name, parameter in network.named_parameters()
        if parameter.requires_grad or name.endswith((".lora_a", ".lora_b")) or name.startswith(own)
    }


def trained_names(network: nn.Module) -> set[str] | None:
    """What a checkpoint of this network holds: `adapter_tensors` where it has low-rank layers, else all (None)."""
    return set(adapter_tensors(network)) if has_low_rank(network) else None


def assemble(network: nn.Module, adapter: Adapter, tensors: Mapping[str, Tensor], base: nn.Module, where: str) -> None:
    """Make a fresh `network` of the adapted config what was trained: the base's weights, low-rank layers, the rest.

    A base with other weights than those trained on is used with a warning. Raises `InputError` where it does not have
    what the small checkpoint leaves out.
    """
    fresh = copy_fitting(network, base)
    missing = [name for name in fresh if name not in tensors]
    if missing:
        raise InputError(
            f"{where} was trained on '{adapter.base}', but the model of that name does not fit: it has no "
            f"'{missing[0]}' of the same shape ({len(missing)} in all). Give the model that it was trained on."
        )
    if weights_hash(base) != adapter.weights:
        warnings.warn(
            f"{where} was trained on '{adapter.base}' with other weights than those found under that name: its "
            "results may differ.",
            stacklevel=2,
        )
    add_low_rank(network, adapter.low_rank)
    fill_network(network, tensors, where, only=tensors.keys())
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in tensors)
