"""From a `Config` to parts: what every family's constructor does alike, and how fresh weights are drawn."""

import torch
from torch import Tensor, nn

from glassformer.layers.attention import Attention
from glassformer.layers.block import Block, Stack
from glassformer.layers.embedding import Embedding
from glassformer.layers.feed_forward import FeedForward
from glassformer.layers.norm import LayerNorm, Norm, RMSNorm
from glassformer.layers.positions import RelativeBias, rotary, sinusoidal
from glassformer.models.config import Config, Learned, Relative, Rotary, Sinusoidal


def stack(config: Config, n_layers: int, token: nn.Embedding, cross: bool = False, causal: bool = False) -> Stack:
    """`n_layers` blocks of the configured kind above an embedding; `cross` gives each block its second ear.

    `causal` says that positions will only look back, which relative positions have to know.
    """
    embedding = Embedding(
        token,
        _position_table(config),
        config.n_segments,
        norm(config) if config.embedding_norm else None,
        config.scale_embedding,
        config.dropout,
    )
    places, relative, rotation = config.positions, None, None
    if isinstance(places, Relative):
        relative = RelativeBias(config.n_heads, places.buckets, places.max_distance, both_ways=not causal)
    if isinstance(places, Rotary):
        rotation = rotary(config.max_length, config.head_width, places.base)
    blocks = [block(config, cross, config.band(layer)) for layer in range(n_layers)]
    final_norm = norm(config) if config.norm_first else None
    return Stack(embedding, blocks, config.max_length, final_norm, rotation, relative)


def block(config: Config, cross: bool = False, band: int | None = None) -> Block:
    """One block of the configured kind, its self-attention with a band where one is given (see `Config.band`)."""

    def attention(band: int | None) -> Attention:
        return Attention(
            config.d_model,
            config.n_heads,
            config.head_width,
            config.attention_dropout,
            config.kv_heads,
            config.bias,
            config.scale_scores,
            band,
        )

    return Block(
        attention(band),
        FeedForward(
            config.d_model, config.d_ff, config.activation, config.activation_dropout, config.gated, config.bias
        ),
        [norm(config) for _ in range(3 if cross else 2)],
        attention(None) if cross else None,
        config.norm_first,
        config.dropout,
    )


def norm(config: Config) -> Norm:
    """One norm of the configured kind."""
    return (RMSNorm if config.norm == "rms" else LayerNorm)(config.d_model, config.norm_eps)


def _position_table(config: Config) -> Tensor | nn.Parameter | None:
    """One vector a position, trained or fixed; None where positions enter in the attention."""
    if isinstance(config.positions, Learned):
        return nn.Parameter(torch.randn(config.max_length, config.d_model) * config.d_model**-0.5)
    if isinstance(config.positions, Sinusoidal):
        return sinusoidal(config.max_length, config.d_model, config.positions.halves)
    return None


def initialize(network: nn.Module, config: Config) -> None:
    """Fresh weights, biases zero.

    Without `init_std`: Xavier-uniform matrices, embeddings N(0, 1/D) so that √D · E has unit variance; with N(0, 1)
    instead, the same small model learns several times more slowly. With it, all are N(0, init_std²), and what writes
    into the residual stream is scaled by 1/√(2N) for N layers, as in GPT-2 (Radford et al. 2019, section 2.3).
    """
    std = config.init_std
    for module in network.modules():
        if isinstance(module, nn.Linear):
            if std is None:
                nn.init.xavier_uniform_(module.weight)
            else:
                nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if std is not None:
        depth = max(config.n_encoder_layers, config.n_decoder_layers, 1)
        for name, parameter in network.named_parameters():
            if name.endswith(("to_output.weight", "down.weight")):
                nn.init.normal_(parameter, std=std * (2 * depth) ** -0.5)
            elif name.endswith("embedding.position"):
                nn.init.normal_(parameter, std=std)
    for module in network.modules():
        if isinstance(module, nn.Embedding):  # after the linear layers: a tied head keeps the embedding's scale
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5 if std is None else std)
