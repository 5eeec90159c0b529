"""A network with its norms folded into the dense layers after them: easier to read, the same distribution of words."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from glassformer.errors import InputError
from glassformer.layers.block import Block, Stack
from glassformer.layers.int8 import Int8Linear
from glassformer.layers.linear import Linear
from glassformer.layers.low_rank import has_low_rank
from glassformer.layers.norm import LayerNorm, Norm
from glassformer.layers.quantized import QuantizedEmbedding, QuantizedLinear
from glassformer.layers.sites import Network
from glassformer.models.config import Classification, Config
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.models.heads import LabelHead, WordHead


@torch.no_grad()
def folded(network: Network, *, centre: bool = True) -> Network:
    """A copy in which norms have weight 1 and bias 0, and each position's logits of words have mean 0.

    What a norm multiplies and adds, h = n(x) · g + b, goes into each dense layer that reads it:
    W h + c = (W diag(g)) n(x) + (W b + c). The unembedding is centred: the mean of its rows, which adds the same number
    to all logits, is taken away. So logits are those of the original less a constant a position, and every softmax
    over words is the same; attention patterns and what heads and feed-forwards write are, too.

    With `centre`, what writes into a stream that only LayerNorms read (token, position and segment vectors, output and
    down projections) is centred over D as well: such norms take the mean away anyhow, and then are linear in what is
    written but for their `scale`. States then differ from the original's by their mean. Sines stay as they are.

    The copy is of the same class, with the same sites, for looking into: a dropout before the head would act
    differently in training. A tied head gets a matrix of its own. Its config says so, and that there are biases where
    there were none: `tie_head`, `bias`, `head_bias`. A norm of embeddings stays as it is, since what it gives is the
    residual stream itself, and so does the last norm of an encoder whose head has no dense layer (`Sentence`).

    Raises `InputError` for post-norm networks, for families without such norms, and for quantised or low-rank layers.
    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", on "Handling Layer Normalization".
    """
    _check(network)
    duplicate: Any = copy.deepcopy(network)
    _free_head(duplicate)
    for stack in _stacks(duplicate):
        for block in stack.blocks:
            _fold_block(block)
    for norm, readers, scale in _last_norms(duplicate):
        _fold(norm, readers, scale)
    if (words := _words(duplicate)) is not None:
        _subtract_mean(words.weight, 0)
        if words.bias is not None:
            _subtract_mean(words.bias, 0)
    if centre and duplicate.config.norm == "layer":
        for stack in _stacks(duplicate):
            _centre_writes(stack)
    duplicate.config = _config_of(duplicate)
    return duplicate


def _check(network: nn.Module) -> None:
    if not isinstance(network, Decoder | Encoder | EncoderDecoder):
        raise InputError(
            f"only norms of Transformers are folded; this network is a {type(network).__name__} and has none."
        )
    if not network.config.norm_first:
        raise InputError(
            "norms cannot be folded into a post-norm network (norm_first=False, as in BERT and the Transformer of "
            "2017): what a norm gives is the residual stream itself, which goes on to the next sum, and not only what "
            "dense layers read. Look into it as it is."
        )
    if has_low_rank(network):
        raise InputError(
            "norms are folded into plain dense layers, and this network has low-rank ones: merge them first "
            "(glassformer.layers.low_rank.merge_low_rank, or load the adapter with merge=True)."
        )
    if any(isinstance(module, QuantizedLinear | QuantizedEmbedding | Int8Linear) for module in network.modules()):
        raise InputError(
            "norms are folded into plain dense layers, and this network has 4 or 8 bits: load it plainly "
            "(gf.load(name), without 'precision') and fold that."
        )


def _stacks(network: Any) -> list[Stack]:
    return [module for module in network.children() if isinstance(module, Stack)]


def _words(network: Any) -> Linear | None:
    """The unembedding, where the network says words."""
    head = network.head.words if isinstance(network.head, WordHead) else network.head
    return head if isinstance(head, Linear) else None


def _free_head(network: Any) -> None:
    """Give a tied head a matrix of its own."""
    words = _words(network)
    if words is not None and any(words.weight is stack.embedding.token.weight for stack in _stacks(network)):
        words.weight = nn.Parameter(words.weight.detach().clone(), words.weight.requires_grad)


def _fold_block(block: Block) -> None:
    attention, feed_forward = block.self_attention, block.feed_forward
    _fold(block.norm_1, [attention.to_query, attention.to_key, attention.to_value])
    fed = [layer for layer in (feed_forward.gate, feed_forward.up) if layer is not None]
    if block.cross_attention is None:
        _fold(block.norm_2, fed)
    else:  # its keys and values read the encoder's last norm
        _fold(block.norm_2, [block.cross_attention.to_query])
        _fold(block.norm_3, fed)
    if isinstance(block.norm_1, LayerNorm):  # a config has biases in all dense layers of blocks, or in none
        written = [each.to_output for each in (attention, block.cross_attention) if each is not None]
        for layer in (*written, feed_forward.down):
            _bias(layer)


def _last_norms(network: Any) -> list[tuple[Norm, Sequence[Linear], float]]:
    """Norms outside of blocks, what reads them, and by what their output is multiplied on the way."""
    found: list[tuple[Norm | None, Sequence[Linear], float]] = []
    head = network.head
    if isinstance(network, EncoderDecoder):
        listening = [block.cross_attention for block in network.decoder.blocks if block.cross_attention is not None]
        found.append((network.encoder.final_norm, [y for x in listening for y in (x.to_key, x.to_value)], 1.0))
        scale = network.config.d_model**-0.5 if network.config.scale_head else 1.0
        found.append((network.decoder.final_norm, [head], scale))
    elif isinstance(network, Decoder):
        found.append((network.stack.final_norm, [head], 1.0))
    elif isinstance(head, WordHead | LabelHead):
        readers = [] if network.pooler is None else [network.pooler.dense]
        if isinstance(head, WordHead):
            readers.append(head.dense)
            found.append((head.norm, [head.words], 1.0))
        elif not (readers and isinstance(network.config.head, Classification)):  # which reads the pooler instead
            readers.append(head.labels)
        found.append((network.stack.final_norm, readers, 1.0))
    return [(norm, readers, scale) for norm, readers, scale in found if norm is not None]


def _fold(norm: Norm, readers: Sequence[Linear], scale: float = 1.0) -> None:
    """Move a norm's weight and bias into the layers that read scale · norm(x); sums are formed in fp64."""
    gain = norm.weight.double()
    for layer in readers:
        weight = layer.weight.double()
        if isinstance(norm, LayerNorm):
            bias = _bias(layer)
            bias.copy_(bias.double() + weight @ norm.bias.double() * scale)
        layer.weight.copy_(weight * gain)
    norm.weight.fill_(1.0)
    if isinstance(norm, LayerNorm):
        norm.bias.zero_()


def _bias(layer: Linear) -> Tensor:
    """The layer's bias; zeros where it had none, which it then has."""
    if layer.bias is None:
        zeros = layer.weight.new_zeros(layer.out_features)
        layer.bias = nn.Parameter(zeros, layer.weight.requires_grad)
    return layer.bias


def _centre_writes(stack: Stack) -> None:
    """Take the mean over D away from all that writes into the residual stream."""
    embedding = stack.embedding
    segments = None if embedding.segment is None else embedding.segment.weight
    for table in (embedding.token.weight, embedding.position, segments):
        if isinstance(table, nn.Parameter):  # sines are not stored with a network
            _subtract_mean(table, 1)
    for block in stack.blocks:
        attentions = [each for each in (block.self_attention, block.cross_attention) if each is not None]
        for layer in (*(each.to_output for each in attentions), block.feed_forward.down):
            _subtract_mean(layer.weight, 0)
            if layer.bias is not None:
                _subtract_mean(layer.bias, 0)


def _subtract_mean(values: Tensor, axis: int) -> None:
    values.copy_(values.double() - values.double().mean(axis, keepdim=True))


def _config_of(network: Any) -> Config:
    """The config with which a new network has the same tensors."""
    config, words = network.config, _words(network)
    layered = config.norm == "layer"
    return replace(
        config,
        bias=config.bias or layered,
        tie_head=config.tie_head and words is None,
        head_bias=config.head_bias or (words is not None and words.bias is not None),
    )
