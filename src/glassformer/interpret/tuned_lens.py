"""The tuned lens: before the head reads a layer, what later layers usually do is done (Belrose et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from glassformer.checkpoints.files import read_json, write_bytes, write_json
from glassformer.errors import InputError
from glassformer.interpret.expressions import numbers
from glassformer.interpret.inputs import network_of
from glassformer.interpret.tables import laid_out
from glassformer.interpret.trace import trace
from glassformer.interpret.words import say, word_stack
from glassformer.layers.int8 import Int8Linear
from glassformer.layers.quantized import QuantizedLinear

FORMAT = 1
HELD_OUT = 0.2
"""The share of texts that no translator learns from."""

BATCH = 128
"""Positions a step."""


@dataclass(frozen=True)
class Fit:
    """How far each layer is from the model's own distribution, KL(model ‖ lens) in nats a token, on texts that the
    translators have not seen: `plain` of the logit lens, `tuned` of this one. Counts are positions."""

    layers: tuple[int, ...]
    plain: tuple[float, ...]
    tuned: tuple[float, ...]
    trained: int
    held_out: int
    steps: int
    seed: int

    def to_json(self) -> dict[str, Any]:
        """All numbers, by the names of the fields."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [["layer", "logit lens", "tuned lens"]]
        for layer, plain, tuned in zip(self.layers, self.plain, self.tuned, strict=True):
            rows.append([str(layer), f"{plain:.4f}", f"{tuned:.4f}"])
        about = (
            f"KL(model ‖ lens), nats a token, on {self.held_out} positions of other texts than the {self.trained} that "
            f"the translators learned from; {self.steps} steps, seed {self.seed}"
        )
        return f"{about}\n{laid_out(rows)}"


@dataclass(frozen=True, eq=False)
class TunedLens:
    """For each layer of `site` a translator h → W h + b: `weights` [L, D, D], `biases` [L, D]. See `tuned_lens`."""

    site: str
    layers: tuple[int, ...]
    weights: Float[Tensor, "L D D"] = field(repr=False)
    biases: Float[Tensor, "L D"] = field(repr=False)
    fit: Fit = field(repr=False)

    def report(self) -> Fit:
        """How well it fits texts that it has not seen, beside the plain lens; print it."""
        return self.fit

    def translate(self, place: str, states: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """W h + b of the layer that `place` names: `residual_post[3]`."""
        names = [f"{self.site}[{layer}]" for layer in self.layers]
        if place not in names:
            raise InputError(f"this tuned lens has no translator for '{place}'; it has {', '.join(names)}.")
        number = names.index(place)
        return states @ self.weights[number].to(states).T + self.biases[number].to(states)

    def check(self, network: Any, site: str, layers: Sequence[int]) -> None:
        """`InputError` where it is of another width than the network, or lacks one of the layers."""
        width = network.config.d_model
        if self.biases.shape[1] != width:
            raise InputError(f"the tuned lens is for states of width {self.biases.shape[1]}, the model's have {width}.")
        for layer in layers:
            self.translate(f"{site}[{layer}]", self.biases[:0])

    def save(self, path: str | Path) -> Path:
        """Write `path`.safetensors and `path`.json; the path of the latter."""
        tensors, about = _paths(path)
        write_bytes(tensors, save({"weights": self.weights.cpu().contiguous(), "biases": self.biases.cpu()}))
        write_json(about, {"format": FORMAT, "site": self.site, "layers": list(self.layers), "fit": self.fit.to_json()})
        return about

    @classmethod
    def load(cls, path: str | Path) -> TunedLens:
        """What `save` wrote. Raises `InputError` for files that are missing, damaged or newer."""
        tensors, about = _paths(path)
        content = read_json(about)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(f"{about} is no tuned lens of format {FORMAT}.")
        try:
            held = load_file(tensors)
            fit: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in content["fit"].items()
            }
            lens = cls(content["site"], tuple(content["layers"]), held["weights"], held["biases"], Fit(**fit))
            count, width = lens.biases.shape
            fits = lens.weights.shape == (count, width, width) and count == len(lens.layers)
        except (KeyError, TypeError, ValueError, AttributeError, OSError, SafetensorError) as error:
            raise InputError(f"the tuned lens {about} is damaged: {error!r}.") from None
        if not fits:
            raise InputError(f"the tuned lens {about} is damaged: {tensors.name} is for other layers.")
        return lens


def tuned_lens(
    model: Any,
    texts: Any,
    layers: int | str | Sequence[int] = "*",
    *,
    target: Any = None,
    steps: int = 250,
    batch: int = BATCH,
    rate: float = 1e-3,
    seed: int = 0,
) -> TunedLens:
    """Train a translator h → h + A h + b for each layer, so that the head says of it what the model says in the end.

    Minimises KL(model ‖ lens) (Belrose et al. 2023) over `batch` positions a step, drawn by `seed` from all positions
    of the texts, by Adam with a `rate` that falls to zero; A and b begin as zeros, which is the logit lens. They are
    learned in units of each feature's spread, so that a few features of great size do not decide the steps. A fifth of
    the texts is held out for `report()`. Equal arguments give equal translators on one machine. A step of one layer
    costs about four times what the head costs over `batch` positions: with a wide vocabulary, name few `layers`.

    `layers` are written as in expressions ("0:4", "*"); the last one needs no translator, and keeps the identity. An
    encoder-decoder wants a `target` for each text. Raises `InputError` for fewer than two texts, a model without a head
    of words, and one that runs in whole numbers, which have no gradient.
    """
    network = network_of(model)
    stack, prefix = word_stack(network)
    _check(network, steps, batch, rate)
    written = layers if isinstance(layers, str) else ",".join(str(each) for each in _several(layers))
    chosen = numbers("layers", written, len(stack.blocks), "layers")
    site, last = f"{prefix}residual_post", len(stack.blocks) - 1
    kept = trace(model, texts, f"{site}[{','.join(map(str, sorted({*chosen, last})))}] @ *", target=target)
    learned, held = _split(len(kept.inputs), kept.mask(f"{site}[{last}] @ *"), seed)
    final = kept[f"{site}[{last}] @ *"]
    weights, biases, plain, tuned = [], [], [], []
    for layer in chosen:
        states = kept[f"{site}[{layer}] @ *"]
        width = states.shape[-1]
        weight, bias = torch.eye(width).to(states), states.new_zeros(width)
        if layer != last:
            weight, bias = _fitted(network, states[learned], final[learned], steps, batch, rate, seed)
        weights.append(weight)
        biases.append(bias)
        plain.append(_divergence(network, states[held], final[held]))
        tuned.append(_divergence(network, states[held] @ weight.T + bias, final[held]))
    fit = Fit(chosen, tuple(plain), tuple(tuned), int(learned.sum()), int(held.sum()), steps, seed)
    return TunedLens(site, chosen, torch.stack(weights), torch.stack(biases), fit)


def _fitted(
    network: nn.Module, states: Tensor, final: Tensor, steps: int, batch: int, rate: float, seed: int
) -> tuple[Tensor, Tensor]:
    """W and b of one layer. Each layer sees the same draws, whichever others are trained."""
    draw = torch.Generator().manual_seed(seed)
    mean, spread = states.mean(0), states.std(0, correction=0)
    spread = spread.clamp_min(1e-6 * float(spread.max()) + 1e-12)
    width = len(mean)
    turn = torch.zeros(width, width, dtype=states.dtype, device=states.device, requires_grad=True)
    shift = torch.zeros(width, dtype=states.dtype, device=states.device, requires_grad=True)
    optimizer = torch.optim.Adam([turn, shift], lr=rate)
    for step in range(steps):
        rows = torch.randint(len(states), (batch,), generator=draw).to(states.device)
        with torch.no_grad():
            wanted = say(network, final[rows]).float().log_softmax(-1)
        with torch.enable_grad():
            x = states[rows]
            moved = x + spread * (((x - mean) / spread) @ turn.T + shift)
            found = say(network, moved).float().log_softmax(-1)
            loss = nn.functional.kl_div(found, wanted, log_target=True, reduction="batchmean")
            turn.grad, shift.grad = torch.autograd.grad(loss, [turn, shift])
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        optimizer.step()
    scaled = spread[:, None] * turn.detach() / spread
    return torch.eye(width).to(states) + scaled, spread * shift.detach() - scaled @ mean


@torch.no_grad()
def _divergence(network: nn.Module, states: Tensor, final: Tensor) -> float:
    """The mean of KL(model ‖ lens) over positions, in nats."""
    total = 0.0
    for first in range(0, len(states), BATCH):
        rows = slice(first, first + BATCH)
        wanted, found = (say(network, each[rows]).float().log_softmax(-1) for each in (final, states))
        total += float(nn.functional.kl_div(found, wanted, log_target=True, reduction="sum"))
    return total / len(states)


def _split(count: int, real: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The positions [n, p] of texts to learn from, and of those that are held out."""
    if count < 2:
        raise InputError(f"a tuned lens needs two texts at least, as some are held out; got {count}.")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    away = torch.zeros(count, dtype=torch.bool)
    away[order[: max(1, round(HELD_OUT * count))]] = True
    away = away.to(real.device)[:, None]
    return real & ~away, real & away


def _several(layers: int | Sequence[int]) -> Sequence[int]:
    return [layers] if isinstance(layers, int) else layers


def _check(network: Any, steps: int, batch: int, rate: float) -> None:
    if steps < 1 or batch < 1 or rate <= 0:
        raise InputError(f"'steps' and 'batch' must be at least 1, 'rate' above 0; got {steps}, {batch} and {rate}.")
    if any(isinstance(module, QuantizedLinear | Int8Linear) for module in network.head.modules()):
        raise InputError("a tuned lens learns through the head, which has few bits here: load it without a precision.")


def _paths(path: str | Path) -> tuple[Path, Path]:
    path = Path(path)
    stem = path.with_suffix("") if path.suffix in (".json", ".safetensors") else path
    return stem.with_name(f"{stem.name}.safetensors"), stem.with_name(f"{stem.name}.json")
