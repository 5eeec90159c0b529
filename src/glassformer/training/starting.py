"""What a training starts from: fresh weights, or a model that has learnt before and gets the head of its new task."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import nn

from glassformer.checkpoints.adapters import Adapter, copy_fitting, weights_hash
from glassformer.checkpoints.native import Loaded
from glassformer.checkpoints.opening import open_model
from glassformer.errors import InputError
from glassformer.layers.low_rank import add_low_rank, has_low_rank, merge_low_rank
from glassformer.models.config import AnyConfig, Classification, Config, Head, MaskedLM
from glassformer.models.convolutional import Convolutional
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.models.families import network_class
from glassformer.models.recurrent import Recurrent
from glassformer.settings import from_mapping, to_mapping
from glassformer.tasks.model import Model
from glassformer.text.tokenizer import Tokenizer
from glassformer.training.finetuning import Finetune, freeze, learning_rate_factors
from glassformer.training.recipes import Recipe


@dataclass(frozen=True)
class Start:
    """A model to start from. `base` and `weights` name it as an adapter's base: for a model that is an adapter itself
    and is trained further as such, these are its own base's."""

    held: Loaded
    name: str
    base: str
    weights: str

    @property
    def model(self) -> Model:
        """The model, to be asked what it is."""
        eos_ids = tuple(self.held.extra.get("eos_ids", ()))
        return Model(self.held.network, self.held.tokenizer, self.held.pipeline, self.held.task, eos_ids)


@dataclass(frozen=True)
class Built:
    """A network ready to be trained. `factors` multiply the learning rate of its parameters by name; `adapter` is what
    its small checkpoints say of themselves, None where checkpoints are whole."""

    network: nn.Module
    factors: dict[str, float]
    adapter: Adapter | None = None


def open_start(finetune: Finetune) -> Start | None:
    """The model that `finetune.model` names; None where there is none. The errors of `open_model`."""
    if not finetune.model:
        return None
    held = open_model(finetune.model, merge=False)
    adapter, wanted = held.adapter, finetune.low_rank
    if adapter is not None:
        if wanted is not None and dataclasses.replace(adapter.low_rank, dropout=wanted.dropout) == wanted:
            return Start(held, finetune.model, adapter.base, adapter.weights)
        merge_low_rank(held.network)
        held.network.requires_grad_(True)
    return Start(held, finetune.model, finetune.model, weights_hash(held.network))


def build(
    recipe: Recipe,
    tokenizer: Tokenizer,
    start: Start | None,
    families: tuple[type[nn.Module], ...],
    head: Head | None = None,
    derived: dict[str, Any] | None = None,
) -> Built:
    """The network of a recipe: drawn afresh by torch's generator, then filled from `start` where that has the same.

    `families` are the classes that the task can train, `head` is what stands above an encoder, and `derived` are fields
    of a fresh network's config that follow from the tokenizer. Raises `InputError` for a model of another family, a
    vocabulary that is larger than the embedding, and for what `add_low_rank` and `freeze` refuse.
    """
    finetune = recipe.finetune
    check_family(recipe, start, families)
    if start is None:
        config = _headed(recipe.network_config(tokenizer.vocab_size, **(derived or {})), head)
    else:
        config = _headed(start.held.config, head)
        config = from_mapping(type(config), {**to_mapping(config), **recipe.model}, "[model]")
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"the vocabulary has {tokenizer.vocab_size} tokens, more than the {config.vocab_size} of the embedding: "
            "tokenizer and model must belong together."
        )
    network = network_class(config)(config)
    fresh: set[str] = set()
    adapter = None
    if start is not None and not finetune.fresh:
        adapter = _adapt(network, start, finetune)
        another = not _same_head(getattr(config, "head", None), getattr(start.held.config, "head", None))
        fresh = set(copy_fitting(network, start.held.network, but=("head.",) if another else ()))
    if finetune.freeze:
        freeze(network, finetune.freeze)
    head_only = {name for name in fresh if "lora_" not in name}
    return Built(network, learning_rate_factors(network, finetune, head_only), adapter)


_NAMES: dict[type[nn.Module], str] = {
    Encoder: "an encoder",
    Decoder: "a decoder",
    EncoderDecoder: "an encoder-decoder",
    Recurrent: "a recurrent encoder-decoder",
    Convolutional: "a convolutional encoder-decoder",
}


def check_family(recipe: Recipe, start: Start | None, families: tuple[type[nn.Module], ...]) -> None:
    """`InputError` where neither the model started from nor the one that [model] describes is of these families."""
    kind = network_class(recipe.network_config(vocab_size=100) if start is None else start.held.config)
    if not issubclass(kind, families):
        wanted = " or ".join(_NAMES[family] for family in families if family in (Encoder, Decoder, EncoderDecoder))
        came = f"[model] describes {_NAMES[kind]}" if start is None else f"{start.name} is {start.model.purpose}"
        raise InputError(f"{recipe.task} wants {wanted}; {came}.")


def _headed(config: AnyConfig, head: Head | None) -> AnyConfig:
    """The config with another head, and what belongs to that in BERT: a pooler below labels of texts, biases of
    words."""
    if head is None or not isinstance(config, Config):
        return config
    pooler, bias = isinstance(head, Classification), isinstance(head, MaskedLM)
    return dataclasses.replace(config, head=head, pooler=pooler, head_bias=bias)


def _same_head(head: Head | None, other: Head | None) -> bool:
    """Whether two heads mean the same, so that what one has learnt is of use to the other: not so with other labels."""
    return type(head) is type(other) and getattr(head, "labels", None) == getattr(other, "labels", None)


def _adapt(network: nn.Module, start: Start, finetune: Finetune) -> Adapter | None:
    """Low-rank layers where the recipe asks for them. Head and pooler of an encoder are trained beside them."""
    choice = finetune.low_rank
    if choice is None:
        return None
    add_low_rank(network, choice, train=("head", "pooler") if isinstance(network, Encoder) else ())
    assert has_low_rank(network)
    return Adapter(start.base, start.weights, choice.rank, choice.alpha, choice.layers, choice.dropout)
