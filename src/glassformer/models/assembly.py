"""From a `Config` to parts: what every family's constructor does alike, and how fresh weights are drawn."""

from torch import nn

from glassformer.layers.attention import Attention
from glassformer.layers.block import Block, Stack
from glassformer.layers.embedding import Embedding
from glassformer.layers.feed_forward import FeedForward
from glassformer.layers.norm import LayerNorm
from glassformer.models.config import Config, Learned


def stack(config: Config, n_layers: int, token: nn.Embedding, cross: bool = False) -> Stack:
    """`n_layers` blocks of the configured kind above an embedding; `cross` gives each block its second ear."""
    embedding = Embedding(token, config.max_length, isinstance(config.positions, Learned), config.dropout)
    final_norm = LayerNorm(config.d_model, config.norm_eps) if config.norm_first else None
    return Stack(embedding, [block(config, cross) for _ in range(n_layers)], final_norm)


def block(config: Config, cross: bool = False) -> Block:
    """One block of the configured kind."""

    def attention() -> Attention:
        return Attention(config.d_model, config.n_heads, config.head_width, config.attention_dropout)

    return Block(
        attention(),
        FeedForward(config.d_model, config.d_ff, config.activation, config.activation_dropout),
        [LayerNorm(config.d_model, config.norm_eps) for _ in range(3 if cross else 2)],
        attention() if cross else None,
        config.norm_first,
        config.dropout,
    )


def initialize(network: nn.Module) -> None:
    """Xavier-uniform matrices, zero biases, embeddings N(0, 1/D) so that √D · E has unit variance.

    With N(0, 1) instead, the same small model learns several times more slowly.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, nn.Embedding):  # after the linear layers: a tied head keeps the embedding's scale
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
