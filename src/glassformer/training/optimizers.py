"""The optimizers of recipes, their state as named tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from glassformer.checkpoints.tensors import Stored
from glassformer.errors import InputError
from glassformer.training.muon import Muon
from glassformer.training.parallel.learner import Learner
from glassformer.training.precision import pick_precision
from glassformer.training.recipes import Training


def build_optimizer(
    network: nn.Module, settings: Training, factors: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """The optimizer of a recipe over a network's trained parameters, fused into one kernel where the device has it.

    `factors` multiply the learning rate, by the parameter's name; 1 where a name is not there. `weight_decay` falls on
    matrices alone, not on biases and gains (with "adam" it is the gradient's L2 term, with "adamw" decoupled:
    Loshchilov and Hutter 2019). "muon" is Muon on the matrices of dense layers between embeddings and head, its rate
    `muon_rate` times the others', and AdamW on the rest, low-rank matrices included. It computes in bf16 where the
    training does.

    Raises `InputError` where every parameter is frozen.
    """
    groups = _groups(network, settings, factors or {})
    if not any(groups.values()):
        raise InputError("there is nothing to train: every parameter is frozen. Freeze less ('finetune.freeze').")
    inner, others = groups["inner"], [*groups["matrices"], *groups["vectors"]]
    devices = {parameter.device for group in [*inner, *others] for parameter in group["params"]}
    fused = all(device.type in ("cpu", "cuda") for device in devices)
    if settings.optimizer == "muon":
        precision = pick_precision(settings.precision, min(devices, key=str))
        return Muon(
            inner,
            others,
            lr=settings.learning_rate,
            betas=settings.betas,
            eps=settings.eps,
            fused=fused,
            dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
        )
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(
        others,
        lr=settings.learning_rate,
        betas=(settings.betas[0], settings.betas[1]),
        eps=settings.eps,
        fused=fused,
    )


def _groups(network: nn.Module, settings: Training, factors: Mapping[str, float]) -> dict[str, list[dict[str, Any]]]:
    """Trained parameters by what is done to them, a group for each factor, the largest factor first."""
    inner = _inner_matrices(network) if settings.optimizer == "muon" else set()
    found: dict[str, dict[float, dict[str, Any]]] = {"inner": {}, "matrices": {}, "vectors": {}}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        kind = "inner" if parameter in inner else "matrices" if parameter.ndim >= 2 else "vectors"
        factor = factors.get(name, 1.0) * (settings.muon_rate if kind == "inner" else 1.0)
        group = {
            "params": [],
            "weight_decay": 0.0 if kind == "vectors" else settings.weight_decay,
            "factor": factor,
            "lr": settings.learning_rate * factor,
        }
        found[kind].setdefault(factor, group)["params"].append(parameter)
    return {kind: [found[kind][factor] for factor in sorted(found[kind], reverse=True)] for kind in found}


def _inner_matrices(network: nn.Module) -> set[Tensor]:
    """Weights of dense layers, without those of head and pooler and whatever shares an embedding."""
    outer = {module.weight for module in network.modules() if isinstance(module, nn.Embedding)}
    dense = {
        module.weight
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name.partition(".")[0] not in ("head", "pooler")
    }
    return dense - outer


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next step, for all parameters, times the factor of each group."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)


def optimizer_tensors(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """Everything the optimizer remembers, as `PARAMETER/FIELD`, e.g. `head.weight/exp_avg`; in an order that is the
    same after it was read back."""
    return {
        f"{name}/{key}": value
        for name, parameter in network.named_parameters()
        for key, value in sorted(optimizer.state.get(parameter, {}).items())
    }


def fill_optimizer(
    optimizer: torch.optim.Optimizer, network: nn.Module, tensors: Mapping[str, Tensor], where: str
) -> None:
    """Give an optimizer back what `optimizer_tensors` took.

    `InputError` where a tensor belongs to no parameter, or to one that is frozen.
    """
    for name, field, parameter in _owned(optimizer, network, network, tensors, where):
        optimizer.state[parameter][field] = tensors[f"{name}/{field}"].to(parameter.device)


def prepare_optimizer(
    optimizer: torch.optim.Optimizer, learner: Learner, stored: Mapping[str, Stored], where: str
) -> dict[str, Tensor]:
    """Make room in an optimizer for the `stored` tensors, as far as this process has their parameters, and return what
    is to be filled: shares where the parameters are shares. The errors of `fill_optimizer`."""
    found = {}
    for name, field, parameter in _owned(optimizer, learner.network, learner.whole, stored, where):
        tensor, device = stored[f"{name}/{field}"], parameter.device
        if tuple(tensor.shape) == tuple(parameter.shape):
            place = torch.zeros_like(parameter, dtype=tensor.dtype)
        else:  # a counter
            place = torch.zeros(tensor.shape, dtype=tensor.dtype, device=device)
        optimizer.state[parameter][field] = found[f"{name}/{field}"] = place
    return found


def _owned(
    optimizer: torch.optim.Optimizer, network: nn.Module, whole: nn.Module, keys: Iterable[str], where: str
) -> Iterator[tuple[str, str, nn.Parameter]]:
    """Name, field and parameter of the optimizer's tensors whose parameters are in `network`, a part of `whole`."""
    own, known = dict(network.named_parameters()), {name for name, _ in whole.named_parameters()}
    trained = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    for key in keys:
        name, _, field = key.rpartition("/")
        if name not in known:
            raise InputError(f"{where}: '{key}' belongs to no parameter of the network.")
        if name not in own:
            continue
        if own[name] not in trained:
            raise InputError(f"{where}: '{key}' belongs to a frozen parameter: it was trained when this was saved.")
        yield name, field, own[name]
