"""The optimizers of recipes, their state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from glassformer.errors import InputError
from glassformer.training.muon import Muon
from glassformer.training.recipes import Training


def build_optimizer(network: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """The optimizer of a recipe over a network's parameters, fused into one kernel where the device has it.

    `weight_decay` falls on matrices alone, not on biases and gains (with "adam" it is the gradient's L2 term, with
    "adamw" decoupled: Loshchilov and Hutter 2019). "muon" is Muon on the matrices of dense layers between embeddings
    and head, and AdamW on the rest.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
    vectors = [parameter for parameter in parameters if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    if settings.optimizer == "muon":
        inner = _inner_matrices(network)
        groups[0]["params"] = [parameter for parameter in matrices if parameter not in inner]
        return Muon(
            [parameter for parameter in matrices if parameter in inner],
            [group for group in groups if group["params"]],
            lr=settings.learning_rate,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            fused=fused,
        )
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=(settings.betas[0], settings.betas[1]),
        eps=settings.eps,
        fused=fused,
    )


def _inner_matrices(network: nn.Module) -> set[Tensor]:
    """Weights of dense layers, without the head and whatever shares an embedding."""
    outer = {module.weight for module in network.modules() if isinstance(module, nn.Embedding)}
    dense = (module for name, module in network.named_modules() if name != "head" and isinstance(module, nn.Linear))
    return {module.weight for module in dense} - outer


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next step, for all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_tensors(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """Everything the optimizer remembers, as `PARAMETER/FIELD`, e.g. `head.weight/exp_avg`."""
    return {
        f"{name}/{key}": value
        for name, parameter in network.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def fill_optimizer(
    optimizer: torch.optim.Optimizer, network: nn.Module, tensors: Mapping[str, Tensor], where: str
) -> None:
    """Give an optimizer back what `optimizer_tensors` took. `InputError` where a tensor belongs to no parameter."""
    parameters = dict(network.named_parameters())
    for key, tensor in tensors.items():
        name, _, field = key.rpartition("/")
        if name not in parameters:
            raise InputError(f"{where}: '{key}' belongs to no parameter of the network.")
        device = parameters[name].device
        optimizer.state[parameters[name]][field] = tensor.to(device)
