"""What of a network is trained, and how fast: low-rank layers, frozen parts, a learning rate for each layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassformer.errors import InputError, did_you_mean

if TYPE_CHECKING:  # a recipe is read without torch
    from torch import nn

    from glassformer.layers.low_rank import LowRank

DENSE = ("to_query", "to_key", "to_value", "to_output", "gate", "up", "down")
ALL_BUT_HEAD = "all-but-head"
TOP = ("head", "pooler")
"""What stands above the stack, by the first part of a parameter's name."""


@dataclass(frozen=True)
class Finetune:
    """[finetune]: what a training starts from, and what of it is trained.

    `model` is a run, a folder or a known name; without it a network begins with fresh weights. `lora` is the rank of
    low-rank layers (Hu et al. 2021), 0 for none; they are scaled by `lora_alpha` / `lora`, where 0 means 2 · `lora`,
    and stand beside the block's dense layers that `lora_layers` names (by default all that there are). `freeze` names
    what stays as it is: see `freeze` below. Each layer learns `layer_decay` times as fast as the one above it (Howard
    and Ruder 2018), and a freshly drawn head `head_rate` times as fast as the top of the rest. With `fresh` only shape
    and tokenizer come from the model, and all weights are drawn anew: what a comparison "from scratch" wants.
    """

    model: str = ""
    fresh: bool = False
    lora: int = 0
    lora_alpha: float = 0.0
    lora_dropout: float = 0.0
    lora_layers: tuple[str, ...] = DENSE
    freeze: tuple[str, ...] = ()
    layer_decay: float = 1.0
    head_rate: float = 1.0

    def __post_init__(self) -> None:
        for name in ("lora", "lora_alpha"):
            if getattr(self, name) < 0:
                raise InputError(f"'{name}' must be at least 0, got {getattr(self, name)}.")
        if not 0 <= self.lora_dropout < 1:
            raise InputError(f"'lora_dropout' must be in [0, 1), got {self.lora_dropout}.")
        if not 0 < self.layer_decay <= 1:
            raise InputError(f"'layer_decay' must be above 0 and at most 1, got {self.layer_decay}.")
        if self.head_rate <= 0:
            raise InputError(f"'head_rate' must be above 0, got {self.head_rate}.")
        if not self.lora_layers:
            raise InputError(f"'lora_layers' must name at least one of {', '.join(DENSE)}.")
        for name in self.lora_layers:
            if name not in DENSE:
                hint = did_you_mean(name, DENSE)
                raise InputError(f"'lora_layers' must be of {', '.join(DENSE)}, got {name!r}.{hint}")
        for pattern in self.freeze:
            _pieces(pattern)
        if self.fresh and (self.lora or not self.model):
            raise InputError("'fresh' draws all weights of a 'model' anew: name one, and train all of it (no 'lora').")
        if self.lora and not self.model:
            raise InputError("'lora' adapts what has been learnt: name the 'model' to start from.")

    @property
    def low_rank(self) -> LowRank | None:
        """What `add_low_rank` takes; None where no low-rank layers are asked for."""
        from glassformer.layers.low_rank import LowRank

        if not self.lora:
            return None
        return LowRank(self.lora, self.lora_alpha or 2.0 * self.lora, self.lora_dropout, self.lora_layers)


def freeze(network: nn.Module, patterns: Iterable[str]) -> int:
    """Take the gradients from all parameters that a pattern matches; how many numbers that are.

    A pattern is a part of a dotted name, and whatever lies below it: "embedding", "stack.blocks.0", "norm_1.weight".
    In it * stands for anything and ? for one character, and [2], [0:3] or [-2:] behind a name for layers, as in Python:
    "blocks[0:3]", "*.norm_*". "all-but-head" leaves what stands above the stack: the head and the pooler. A head that
    is the embedding has the names of both, and "all-but-head" counts it to the embedding.

    Raises `InputError` for a pattern that matches nothing, and where nothing would be left to train; then nothing has
    changed.
    """
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    chosen: set[nn.Parameter] = set()
    for pattern in patterns:
        matches = _matcher(pattern, network)
        if pattern == ALL_BUT_HEAD:
            found = {parameter for parameter, own in names.items() if own[0].partition(".")[0] not in TOP}
        else:
            found = {parameter for parameter, own in names.items() if any(map(matches, own))}
        if not found:
            raise InputError(_nothing(pattern, names.values(), network))
        chosen |= found
    if not any(parameter.requires_grad and parameter not in chosen for parameter in names):
        raise InputError(
            "'freeze' would leave nothing to train: it must leave at least one parameter. "
            "Freeze less; a head that shares its weights with the embedding is frozen with it."
        )
    for parameter in chosen:
        parameter.requires_grad_(False)
    return sum(parameter.numel() for parameter in chosen)


def _nothing(pattern: str, names: Iterable[list[str]], network: nn.Module) -> str:
    """What to say of a pattern that matches nothing."""
    paths = [name.split(".") for own in names for name in own]
    first, parts = pattern.partition("[")[0], dict.fromkeys(part for path in paths for part in path)
    whole = {".".join(path[:end]) for path in paths for end in range(1, len(path) + 1)}
    if any(map(_matcher(re.sub(r"\[.*?\]", "[:]", pattern), network), (".".join(path) for path in paths))):
        hint = " There are no such layers."
    else:
        hint = did_you_mean(pattern, sorted(whole)) or did_you_mean(first, parts)
    if not hint:
        words = [part for part in parts if not part.isdigit()]
        hint = f" Parts of names are {', '.join(words[:12])}{', …' if len(words) > 12 else ''}."
    return f"'freeze': '{pattern}' must match a parameter of the network, and matches none.{hint}"


def _pieces(pattern: str) -> tuple[list[str], list[slice]]:
    """The texts of a pattern, and the layers between them: "blocks[0:3].up" → ["blocks", ".up"], [slice(0, 3)]."""
    pieces = re.split(r"\[([^\]]*)\]", pattern)
    layers = []
    for piece in pieces[1::2]:
        parts = re.fullmatch(r"(-?\d+)?(?:(:)(-?\d+)?)?", piece)
        if not piece or parts is None:
            raise InputError(f"'freeze': [{piece}] in '{pattern}' must be a layer or a range of them, as [2] or [0:3].")
        start, colon, end = parts.groups()
        if colon:
            layers.append(slice(int(start) if start else None, int(end) if end else None))
        else:
            layers.append(slice(int(start), int(start) + 1 or None))
    if not pattern or not pieces[0] or "[" in "".join(pieces[::2]):
        raise InputError(f'\'freeze\' must hold names such as "embedding" or "blocks[0:3]", got {pattern!r}.')
    return pieces[::2], layers


def _matcher(pattern: str, network: nn.Module) -> Callable[[str], bool]:
    """Whether a parameter's name has what a pattern says as a part."""
    texts, layers = _pieces(pattern)
    known = {"*": ".*", "?": "."}
    wanted = ["".join(known.get(letter, re.escape(letter)) for letter in text) for text in texts]
    expression = re.compile(r"(?:.*\.)?" + r"\.(\d+)".join(wanted) + r"(?:\..*)?")

    def matches(name: str) -> bool:
        found = expression.fullmatch(name)
        if found is None:
            return False
        counts = [_children(network, name[: found.start(group) - 1]) for group in range(1, len(layers) + 1)]
        return all(
            int(number) in range(count)[chosen]
            for number, count, chosen in zip(found.groups(), counts, layers, strict=True)
        )

    return matches


def _children(network: nn.Module, path: str) -> int:
    """How many modules a list of them holds; 0 where there is no such list."""
    module = dict(network.named_modules()).get(path)
    return 0 if module is None else len(list(module.children()))


def learning_rate_factors(network: nn.Module, finetune: Finetune, fresh: Collection[str] = ()) -> dict[str, float]:
    """What to multiply the learning rate of every trained parameter with, by its name.

    1 for what stands above the blocks, `layer_decay`^(N - i) for block i of N (the first is 0), and
    `layer_decay`^(N + 1) for embeddings and relative positions; a tied head goes with its embedding. Parameters in
    `fresh` have `head_rate` times as much. An encoder and a decoder each count their own blocks.
    """
    factors = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            depth = finetune.layer_decay ** _below_top(network, name)
            factors[name] = depth * (finetune.head_rate if name in fresh else 1.0)
    return factors


def _below_top(network: nn.Module, name: str) -> int:
    """How many layers a parameter lies below the head."""
    if found := re.match(r"((?:.*\.)?blocks)\.(\d+)\.", name):
        return _children(network, found[1]) - int(found[2])
    if found := re.match(r"(.*\.)?(embedding|relative)\.", name):
        return _children(network, f"{found[1] or ''}blocks") + 1
    return 0
