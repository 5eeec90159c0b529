"""A network's matrices by layer and head, in the terms of Elhage et al. 2021: `weights.W_Q[3, 0]`, `OV`, `QK`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from glassformer.errors import InputError, did_you_mean
from glassformer.layers.attention import Attention
from glassformer.layers.block import Block, Stack
from glassformer.layers.int8 import Int8Linear
from glassformer.layers.quantized import QuantizedEmbedding, QuantizedLinear
from glassformer.models.heads import WordHead

Index = int | slice


@dataclass(frozen=True)
class Heads:
    """`[layer, head]`: a matrix of one head, such as [d_model, d_head]; negative numbers count from the end.

    Slices stack what they name in front of it, as copies: `W_Q[2:4, 0]` is [2, D, d] and `W_Q[2:4, :]` [2, H, D, d];
    `W_Q[3]` is `W_Q[3, :]`. Raises `InputError` for a layer or head that does not exist.
    """

    name: str
    n_layers: int
    n_heads: int
    of: Callable[[int, int | list[int]], Tensor]
    """A layer's matrix of one head, or of several one after another."""

    def __getitem__(self, index: Index | tuple[Index, Index]) -> Tensor:
        layer, head = index if isinstance(index, tuple) else (index, slice(None))
        layers, heads = _chosen(layer, self.n_layers, "layer"), _chosen(head, self.n_heads, "head")
        return _stacked(layers, lambda number: self.of(number, heads))

    def __repr__(self) -> str:
        return f"{self.name}[layer, head] of {self.n_layers} layers with {self.n_heads} heads"


@dataclass(frozen=True)
class Layers:
    """`[layer]`: a matrix or a bias of one layer. A slice stacks them, as a copy. Errors as of `Heads`."""

    name: str
    n_layers: int
    of_layer: Callable[[int], Tensor]

    def __getitem__(self, layer: Index) -> Tensor:
        return _stacked(_chosen(layer, self.n_layers, "layer"), self.of_layer)

    def __repr__(self) -> str:
        return f"{self.name}[layer] of {self.n_layers} layers"


class Weights:
    """The matrices of a Transformer, so turned that rows go through them from the left: x @ W.

    By layer and head, see `Heads`; D = d_model, d = d_head, F = d_ff, x is what the layer reads (after a norm, where
    the norm comes first) and z the mixed values of a head:

    - `W_Q`, `W_K`, `W_V` [D, d] and `b_Q`, `b_K`, `b_V` [d]: query = x @ W_Q + b_Q. Heads are those of the queries:
      where several share keys and values, each gives the shared ones.
    - `W_O` [d, D]: a head writes z @ W_O.
    - `OV` = W_V @ W_O [D, D]: what is read at a position, and how it is written where that is attended to.
    - `QK` = W_Q @ W_Kᵀ [D, D]: the score of y at x is x @ QK @ y. This leaves out the biases, the division by √d, and
      where x and y stand: rotary positions turn queries and keys between the two factors, so that it is exact at
      distance 0 alone, and relative ones add a number.

    By layer, see `Layers`: `W_in` [D, F] (up), `W_gate` [D, F], `W_out` [F, D] (down), `b_in`, `b_gate` [F], `b_out`
    [D], `b_O` [D]. Of the whole: `W_E` [V, D], token vectors as stored, before any √D (`scale_embedding`); `W_pos`
    [positions, D]; `W_U` [D, V] and `b_U` [V].

    All but `OV` and `QK` are views without gradient: what is changed in them in place is changed in the network.
    Exceptions are layers with low-rank matrices, which give the sum that acts, and quantised ones, which give the fp32
    matrix that their whole numbers stand for: these are computed each time, and changing them changes nothing.

    An encoder-decoder has attention in three places: `weights.of("decoder.cross_attention").W_Q[0, 0]`, see `places`.
    Raises `InputError` for a network without attention heads, and for what a network does not have.
    """

    def __init__(self, network: nn.Module, place: str = "") -> None:
        self._network, self._place = network, place
        self._stacks = {name: module for name, module in network.named_children() if isinstance(module, Stack)}
        if not self._stacks:
            layers = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Embedding)]
            raise InputError(
                "weights by layer and head are those of Transformers; this network is a "
                f"{type(network).__name__} with {', '.join(layers)}: take them by these names, from the network."
            )
        if place and place not in self.places:
            known = self.places
            raise InputError(f"the model has no place '{place}'.{did_you_mean(place, known)} It has {_listed(known)}.")

    @property
    def places(self) -> tuple[str, ...]:
        """What `of` takes: an encoder-decoder has `encoder`, `decoder`, and the attentions in them."""
        found: list[str] = []
        for name, stack in self._stacks.items():
            prefix = "" if name == "stack" else f"{name}."
            found += [name] if prefix else []
            found += [prefix + own for own in _attentions(stack)]
        return tuple(found)

    def of(self, place: str) -> Weights:
        """The weights in one of the `places`."""
        return Weights(self._network, place)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked by copy and the like, also before there is anything to look into
            raise AttributeError(name)
        if name in _PROJECTIONS:
            return self._heads(name)
        if name in ("OV", "QK"):
            return self._products(name)
        if name in _LAYERS:
            return self._layers(name)
        if name in _WHOLE:
            return self._whole(name)
        known = (*_PROJECTIONS, "OV", "QK", *_LAYERS, *_WHOLE)
        alike = [each for each in known if each.lower() == name.lower()] or known
        raise InputError(f"there are no weights '{name}'.{did_you_mean(name, alike)} There are {_listed(known)}.")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *_PROJECTIONS, "OV", "QK", *_LAYERS, *_WHOLE]

    def __repr__(self) -> str:
        config: Any = self._network.config
        return f"Weights({config.shape}{f'; {self._place}' if self._place else ''})"

    def _heads(self, name: str) -> Heads:
        attentions = self._attentions(name)
        if name.startswith("b_"):
            self._check_bias(name, [bias_of(each, _PROJECTIONS[name]) for each in attentions])
        return Heads(
            name, len(attentions), attentions[0].n_heads, lambda layer, heads: _split(attentions[layer], name, heads)
        )

    def _products(self, name: str) -> Heads:
        attentions = self._attentions(name)

        def of(layer: int, heads: int | list[int]) -> Tensor:
            first, second = ("W_V", "W_O") if name == "OV" else ("W_Q", "W_K")
            left, right = (_split(attentions[layer], each, heads) for each in (first, second))
            return left @ (right if name == "OV" else right.transpose(-2, -1))

        return Heads(name, len(attentions), attentions[0].n_heads, of)

    def _layers(self, name: str) -> Layers:
        part, layer = _LAYERS[name]
        modules = self._attentions(name) if part == "attention" else [each.feed_forward for each in self._blocks(name)]
        if layer == "gate" and not any(getattr(modules[0], each, None) is not None for each in ("gate", "to_both")):
            raise InputError(f"the model has no '{name}': its feed-forwards are not gated; they have W_in and W_out.")
        if name.startswith("b_"):
            biases = [bias for each in modules if (bias := bias_of(each, layer)) is not None]
            self._check_bias(name, biases if len(biases) == len(modules) else [None])
            return Layers(name, len(modules), lambda number: biases[number].detach())
        return Layers(name, len(modules), lambda number: weight_of(modules[number], layer).t())

    def _whole(self, name: str) -> Tensor:
        if name in ("W_U", "b_U"):
            return self._unembedding(name)
        tables = {id(stack.embedding.token): stack.embedding for stack in self._within().values()}
        if len(tables) > 1 or (name == "W_pos" and len(self._within()) > 1):
            raise InputError(f"the model has '{name}' in several places: say which, as in {self._example(name)}.")
        embedding = next(iter(tables.values()))
        if name == "W_pos":
            if embedding.position is None:
                raise InputError("the model has no 'W_pos': its positions enter in the attention.")
            return embedding.position.detach()
        if isinstance(embedding.token, QuantizedEmbedding):
            return embedding.token(torch.arange(len(embedding.token.weight), device=embedding.token.weight.device))
        return embedding.token.weight.detach()

    def _unembedding(self, name: str) -> Tensor:
        head: Any = self._network.head
        words = head.words if isinstance(head, WordHead) else head
        if isinstance(words, nn.Linear | QuantizedLinear | Int8Linear):
            if name == "W_U":
                return _matrix(words).t()
            bias: Any = words.bias
            self._check_bias(name, [bias])
            return bias.detach()
        raise InputError(f"the model has no '{name}': its head is a {type(head).__name__}, which says no words.")

    def _within(self) -> dict[str, Stack]:
        """The stacks that the place leaves to choose from."""
        first = self._place.split(".")[0]
        return {first: self._stacks[first]} if first in self._stacks else self._stacks

    def _blocks(self, name: str) -> list[Block]:
        stacks = list(self._within().values())
        if len(stacks) > 1:
            raise InputError(f"the model has '{name}' in several places: say which, as in {self._example(name)}.")
        return list(stacks[0].blocks)

    def _attentions(self, name: str) -> list[Attention]:
        found = [(stack, own) for stack in self._within().values() for own in _attentions(stack)]
        chosen = self._place.split(".")[-1]
        found = [each for each in found if each[1] == chosen] if chosen.endswith("_attention") else found
        if len(found) > 1:
            raise InputError(f"the model has '{name}' in several places: say which, as in {self._example(name)}.")
        stack, own = found[0]
        return [getattr(block, own) for block in stack.blocks]

    def _example(self, name: str) -> str:
        whole = name in _WHOLE or _LAYERS.get(name, ("",))[0] == "feed_forward"
        places = [each for each in self.places if ("attention" not in each) == whole and each.startswith(self._place)]
        return f"weights.of('{places[-1]}').{name}, with one of {', '.join(places)}"

    def _check_bias(self, name: str, biases: Sequence[Tensor | None]) -> None:
        if any(bias is None for bias in biases):
            raise InputError(f"the model has no '{name}': this layer has no bias, which is to say zeros.")


_PROJECTIONS = {
    "W_Q": "to_query",
    "W_K": "to_key",
    "W_V": "to_value",
    "W_O": "to_output",
    "b_Q": "to_query",
    "b_K": "to_key",
    "b_V": "to_value",
}
_LAYERS = {
    "W_in": ("feed_forward", "up"),
    "W_gate": ("feed_forward", "gate"),
    "W_out": ("feed_forward", "down"),
    "b_in": ("feed_forward", "up"),
    "b_gate": ("feed_forward", "gate"),
    "b_out": ("feed_forward", "down"),
    "b_O": ("attention", "to_output"),
}
_WHOLE = ("W_E", "W_pos", "W_U", "b_U")


def weight_of(module: nn.Module, layer: str) -> Tensor:
    """The matrix [out, in] of the dense layer `layer` of an `Attention` or a `FeedForward`, also where a copy made for
    running has several layers in one product: a view without gradient, or computed, as `Weights` says."""
    whole, rows = _place_of(module, layer)
    weight = _matrix(whole)
    return weight if rows is None else weight[rows]


def bias_of(module: nn.Module, layer: str) -> Tensor | None:
    """The bias that goes with `weight_of`, where there is one."""
    whole, rows = _place_of(module, layer)
    return whole.bias if whole.bias is None or rows is None else whole.bias[rows]


def _place_of(module: Any, layer: str) -> tuple[Any, slice | None]:
    """The dense layer, or the one that it has become a part of, and which rows of that it is."""
    if getattr(module, layer, None) is not None:
        return getattr(module, layer), None
    if isinstance(module, Attention):
        whole, names = module.to_all, ["to_query", "to_key", "to_value"]
        sizes = [heads * module.d_head for heads in (module.n_heads, module.n_kv_heads, module.n_kv_heads)]
    else:
        whole, names = module.to_both, ["gate", "up"]
        sizes = [whole.out_features // 2] * 2
    first = sum(sizes[: names.index(layer)])
    return whole, slice(first, first + sizes[names.index(layer)])


@torch.no_grad()
def _matrix(layer: Any) -> Tensor:
    """The matrix [out, in] that a dense layer multiplies by; of a quantised one, what it makes of the identity.

    That is exact: a row with a single 1 in it is rounded to whole numbers without an error.
    """
    effective = getattr(layer, "effective_weight", None)
    return (layer.weight if effective is None else effective()).detach()


def _split(attention: Attention, name: str, heads: int | list[int]) -> Tensor:
    """A projection of query heads, [D, d] each ([d, D] of the output, [d] of biases): of one a view."""
    layer = _PROJECTIONS[name]
    if layer in ("to_key", "to_value"):
        shared = attention.n_heads // attention.n_kv_heads
        heads = heads // shared if isinstance(heads, int) else [each // shared for each in heads]
    if name.startswith("b_"):
        bias = bias_of(attention, layer)
        assert bias is not None
        return bias.detach().unflatten(0, (-1, attention.d_head))[heads]
    weight = weight_of(attention, layer)
    if layer == "to_output":
        return weight.unflatten(1, (-1, attention.d_head)).permute(1, 2, 0)[heads]
    return weight.unflatten(0, (-1, attention.d_head)).transpose(1, 2)[heads]


def _attentions(stack: Stack) -> list[str]:
    crossed = stack.blocks[0].cross_attention is not None
    return ["self_attention", "cross_attention"] if crossed else ["self_attention"]


def _chosen(index: Index, count: int, what: str) -> int | list[int]:
    if isinstance(index, slice):
        chosen = list(range(count)[index])
        if not chosen:
            raise InputError(f"the {what}s {index.start}:{index.stop} are none of the {count} that there are.")
        return chosen
    try:
        number = operator.index(index)
    except TypeError:
        raise InputError(f"a {what} must be a whole number or a slice, got {index!r}.") from None
    if not -count <= number < count:
        raise InputError(f"there is no {what} {number}: the {what}s are 0 to {count - 1}.")
    return number % count


def _stacked(chosen: int | list[int], of_one: Callable[[int], Tensor]) -> Tensor:
    return of_one(chosen) if isinstance(chosen, int) else torch.stack([of_one(each) for each in chosen])


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)
