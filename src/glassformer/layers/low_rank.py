"""Low-rank adaptation: frozen dense layers, each with a thin trained product beside it (LoRA, Hu et al. 2021)."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from glassformer.errors import InputError, did_you_mean
from glassformer.layers.block import Block
from glassformer.layers.dropout import Dropout
from glassformer.layers.linear import Linear

DENSE = ("to_query", "to_key", "to_value", "to_output", "gate", "up", "down")
"""The dense layers of a block, by their last names."""


@dataclass(frozen=True)
class LowRank:
    """Which dense layers of the blocks are adapted, and how: see `LowRankLinear`. `layers` are names of `DENSE`."""

    rank: int
    alpha: float
    dropout: float = 0.0
    layers: tuple[str, ...] = DENSE

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise InputError(
                "low-rank adaptation needs 'rank' ≥ 1, 'alpha' > 0 and 'dropout' in [0, 1), "
                f"got {self.rank}, {self.alpha} and {self.dropout}."
            )
        if not self.layers:
            raise InputError(f"'layers' must name at least one dense layer of {', '.join(DENSE)}.")
        for name in self.layers:
            if name not in DENSE:
                raise InputError(
                    f"'{name}' is no dense layer of a block.{did_you_mean(name, DENSE)} Known: {', '.join(DENSE)}."
                )


class LowRankLinear(Linear):
    """x Wᵀ + b + (α / r) · Dropout(x) Aᵀ Bᵀ with W and b frozen, A [r, in] and B [out, r] trained (Hu et al. 2021).

    W and b are those of `linear`, under the same names. B begins as zeros, so that nothing changes at first. A is drawn
    uniformly from ±1/√in by torch's global generator, as the weight of a dense layer is; the paper has a Gaussian.

    For the backward pass W, A, B, x and the thin x Aᵀ are kept, no second output: the sum is formed inside the last
    product, which under autocast also spares it one rounding to bf16. A and B are fp32 whatever W is.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight.requires_grad_(False), linear.bias
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self.scale = alpha / rank
        a = nn.init.kaiming_uniform_(torch.empty(rank, self.in_features), a=math.sqrt(5))  # on the CPU: equal anywhere
        self.lora_a = nn.Parameter(a.to(self.weight.device))
        self.lora_b = nn.Parameter(torch.zeros(self.out_features, rank, device=self.weight.device))
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "*B i"]) -> Float[Tensor, "*B o"]:
        if torch.is_autocast_enabled(x.device.type):  # once, instead of in each of the two products that read x
            x = x.to(torch.get_autocast_dtype(x.device.type))
        base = super().forward(x).reshape(-1, self.out_features)
        thin = F.linear(self.dropout(x).reshape(-1, self.in_features), self.lora_a.to(x.dtype))
        y = torch.addmm(base, thin, self.lora_b.to(x.dtype).t(), alpha=self.scale)
        return y.reshape(*x.shape[:-1], self.out_features)

    def effective_weight(self) -> Float[Tensor, "o i"]:
        """W + (α / r) B A in W's own dtype, the sum formed in at least fp32."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        with torch.autocast(self.weight.device.type, enabled=False):  # which would form the product in bf16
            update = self.lora_b.to(dtype) @ self.lora_a.to(dtype)
            return torch.add(self.weight.to(dtype), update, alpha=self.scale).to(self.weight.dtype)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.lora_a.shape[0]}, scale={self.scale:g}"


def add_low_rank(network: nn.Module, choice: LowRank, train: Collection[str] = ()) -> list[str]:
    """Replace the chosen dense layers inside a network's blocks, in place; the names of what is still trained.

    Everything else is frozen but for the parameters that `train` names or leads to, as "head" leads to
    `head.labels.weight`. A head that is the embedding goes by the embedding's name, so "head" leaves it frozen. Layers
    of `DENSE` that a network lacks are passed over if all of `DENSE` are asked for.

    Raises `InputError` where the network has none of the layers, lacks one that was chosen, or is adapted already.
    """
    found = _dense_layers(network, choice)
    network.requires_grad_(False)
    for parent, name, layer in found:
        setattr(parent, name, LowRankLinear(layer, choice.rank, choice.alpha, choice.dropout).train(layer.training))
    for name, parameter in network.named_parameters():
        if any(f"{name}.".startswith(f"{prefix}.") for prefix in train):
            parameter.requires_grad_(True)
    return list(low_rank_tensors(network))


def _dense_layers(network: nn.Module, choice: LowRank) -> list[tuple[nn.Module, str, Linear]]:
    """Parent, name and layer of every chosen one, in the order of modules."""
    if has_low_rank(network):
        raise InputError("the network has low-rank layers already: merge them (merge_low_rank) before adding others.")
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    if not blocks:
        raise InputError("low-rank layers go into the blocks of a Transformer; this network has none: train all of it.")
    dense = [
        (parent, name, child)
        for block in blocks
        for parent in block.modules()
        for name, child in parent.named_children()
        if isinstance(child, Linear)
    ]
    there = dict.fromkeys(name for _, name, _ in dense)
    missing = [name for name in choice.layers if name not in there]
    if len(missing) == len(choice.layers) or (missing and set(choice.layers) != set(DENSE)):
        raise InputError(
            f"the network's blocks have no dense layer '{missing[0]}'; they have {', '.join(there) or 'none'}."
        )
    return [layer for layer in dense if layer[1] in choice.layers]


def merge_low_rank(network: nn.Module) -> int:
    """Make every low-rank layer a plain `Linear` of its `effective_weight`, in place, and say how many there were.

    The weights are new tensors: `merge_low_rank(share(network))` leaves the network itself as it is. What is frozen
    stays frozen.
    """
    count = 0
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, LowRankLinear):
                plain = Linear(child.in_features, child.out_features, child.bias is not None, device="meta")
                plain.weight = nn.Parameter(child.effective_weight().detach(), requires_grad=False)
                plain.bias = child.bias
                setattr(module, name, plain.train(child.training))
                count += 1
    return count


def has_low_rank(network: nn.Module) -> bool:
    """Whether a network has layers that `merge_low_rank` would make plain."""
    return any(isinstance(module, LowRankLinear) for module in network.modules())


def low_rank_tensors(network: nn.Module) -> dict[str, Tensor]:
    """The trained tensors by name: all that a small checkpoint needs beside the model that was begun from."""
    return {name: parameter.detach() for name, parameter in network.named_parameters() if parameter.requires_grad}
