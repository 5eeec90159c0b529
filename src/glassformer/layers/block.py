"""The block that every Transformer of this package is built from, and the stack of them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glassformer.errors import InputError
from glassformer.layers.attention import Attention, Mask, Remember
from glassformer.layers.dropout import Dropout
from glassformer.layers.embedding import Embedding
from glassformer.layers.feed_forward import FeedForward
from glassformer.layers.kernels.ops import post_norm_rest
from glassformer.layers.norm import Norm
from glassformer.layers.positions import RelativeBias, Rotation
from glassformer.layers.ragged import OwnText
from glassformer.layers.rows import KeysValues
from glassformer.layers.sites import Taps


class Block(nn.Module):
    """Self-attention, optionally cross-attention (a second ear), feed-forward; each with residual and norm.

    Post-norm is the paper's x ← LayerNorm(x + Dropout(f(x))); pre-norm is x ← x + Dropout(f(LayerNorm(x))).
    The mask makes a block causal, not its class. `norm_1` goes with self-attention, the last one with the feed-forward.
    """

    norm_1: Norm
    norm_2: Norm
    norm_3: Norm

    def __init__(
        self,
        attention: Attention,
        feed_forward: FeedForward,
        norms: Sequence[Norm],
        cross_attention: Attention | None = None,
        norm_first: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        assert len(norms) == (2 if cross_attention is None else 3)
        self.norm_first = norm_first
        self.self_attention = attention
        self.cross_attention = cross_attention
        self.feed_forward = feed_forward
        for number, norm in enumerate(norms, 1):
            self.add_module(f"norm_{number}", norm)
        self.dropout = Dropout(dropout)
        self.joins_rest = False  # all that follows attention is one call, in a copy made for running
        self.taps = Taps("residual_pre", "residual_mid", "residual_post")

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        mask: Mask = None,
        causal: bool = False,
        memory: KeysValues | None = None,
        memory_mask: Mask = None,
        remember: Remember | None = None,
        rotation: Rotation | None = None,
        bias: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """One layer further. `memory` is what cross-attention looks up; `remember` adds new keys and values to a cache
        and returns all that self-attention may see; `rotation` and `bias` tell it where tokens stand."""

        if self.joins_rest and isinstance(mask, OwnText):  # no plan watches a network that reads such texts
            query, seen = self.self_attention.queries_keys_values(x, rotation)
            return self._rest(self.self_attention.mixed(query, seen, mask, causal), x)

        def attend(h: Tensor) -> Tensor:
            query, seen = self.self_attention.queries_keys_values(h, rotation)
            return self.self_attention(query, seen, mask, causal, bias, remember)

        x = self._residual(self.norm_1, self.taps.residual_pre(x), attend)
        if self.cross_attention is None:
            return self._feed(self.norm_2, x)
        listen = self.cross_attention
        assert memory is not None, "a block with cross-attention needs a memory"
        x = self._residual(self.norm_2, x, lambda h: listen(listen.queries(h), memory, memory_mask))
        return self._feed(self.norm_3, x)

    def _rest(self, mixed: Float[Tensor, "1 H N d"], x: Float[Tensor, "1 N D"]) -> Float[Tensor, "1 N D"]:
        """All that follows what the heads found, with the quantised layers of such a copy."""
        layers: Sequence[Any] = (self.self_attention.to_output, self.feed_forward.up, self.feed_forward.down)
        norms: Sequence[Any] = (self.norm_1, self.norm_2)
        return post_norm_rest(
            mixed[0].transpose(0, 1).flatten(1),
            x[0],
            [(layer.weight, layer.bias, layer.bits) for layer in layers],
            [(norm.weight, norm.bias, norm.eps) for norm in norms],
        )[None]

    def _feed(self, norm: nn.Module, x: Tensor) -> Tensor:
        return self.taps.residual_post(self._residual(norm, self.taps.residual_mid(x), self.feed_forward))

    def _residual(self, norm: nn.Module, x: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
        if self.norm_first:
            return x + self.dropout(layer(norm(x)))
        return norm(x + self.dropout(layer(x)))


class Stack(nn.Module):
    """Embedding, N blocks and, with pre-norm, a final norm: an encoder or a decoder, whichever its mask makes it.

    `rotation` is a table of all positions' angles, `relative` the bias that distances add to the scores; both serve all
    blocks alike.
    """

    cos: Tensor | None
    sin: Tensor | None

    def __init__(
        self,
        embedding: Embedding,
        blocks: list[Block],
        max_length: int,
        final_norm: Norm | None = None,
        rotation: Rotation | None = None,
        relative: RelativeBias | None = None,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.blocks: Sequence[Block] = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.max_length = max_length
        self.final_norm = final_norm
        for name, table in zip(("cos", "sin"), rotation or (None, None), strict=True):
            self.register_buffer(name, table, persistent=False)
        self.relative = relative

    def memories(self, encoded: Float[Tensor, "B S D"]) -> list[KeysValues]:
        """What each block's cross-attention may look up in an encoded source."""
        return [block.cross_attention.keys_values(encoded) for block in self.blocks if block.cross_attention]

    def forward(
        self,
        ids: Int[Tensor, "B T"],
        mask: Mask = None,
        causal: bool = False,
        memories: Sequence[KeysValues | None] | None = None,
        memory_mask: Mask = None,
        positions: Int[Tensor, "B T"] | None = None,
        remember: Sequence[Remember | None] | None = None,
        segments: Int[Tensor, "B T"] | None = None,
        held: tuple[int, int] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The residual stream after the last block; `memories` and `remember` hold one entry a block.

        `positions` are 0, 1, … unless given, and then `held` says how many positions the caches hold, and in how many
        slots each. Raises `InputError` for more positions than the stack has.
        """
        self._check(int(positions.max()) + 1 if isinstance(mask, OwnText) and positions is not None else ids.shape[1])
        x = self.embedding(ids, positions, segments)
        x = self.onwards(x, 0, len(self.blocks), mask, causal, memories, memory_mask, positions, remember, held)
        return x if self.final_norm is None else self.final_norm(x)

    def onwards(
        self,
        x: Float[Tensor, "B T D"],
        first: int,
        last: int,
        mask: Mask = None,
        causal: bool = False,
        memories: Sequence[KeysValues | None] | None = None,
        memory_mask: Mask = None,
        positions: Int[Tensor, "B T"] | None = None,
        remember: Sequence[Remember | None] | None = None,
        held: tuple[int, int] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """From what block `first` reads to what block `last` would read; everything else as of `forward`."""
        nothing: Sequence[None] = [None] * len(self.blocks)
        rotation, bias = self._rotation(x, positions), self._bias(x, positions, held)
        parts = list(zip(self.blocks, memories or nothing, remember or nothing, strict=True))
        for block, memory, keep in parts[first:last]:
            x = block(x, mask, causal, memory, memory_mask, keep, rotation, bias)
        return x

    def offers(
        self, x: Float[Tensor, "B T D"], layer: int, positions: Int[Tensor, "B T"] | None = None
    ) -> tuple[Float[Tensor, "B G T d"], Float[Tensor, "B G T d"]]:
        """Keys and values that a block's self-attention would have of `x`, which the block reads."""
        block = self.blocks[layer]
        _, keys_values = block.self_attention.queries_keys_values(
            block.norm_1(x) if block.norm_first else x, self._rotation(x, positions)
        )
        return keys_values

    def _check(self, length: int) -> None:
        if length > self.max_length:
            raise InputError(
                f"a sequence may have at most {self.max_length} positions, got {length}: "
                "shorten or split it, or use a model with a larger 'max_length'."
            )

    def _rotation(self, x: Tensor, positions: Tensor | None) -> Rotation | None:
        if self.cos is None or self.sin is None:
            return None
        where = slice(x.shape[1]) if positions is None else positions
        return self.cos[where], self.sin[where]

    def _bias(self, x: Tensor, positions: Tensor | None, held: tuple[int, int] | None) -> Tensor | None:
        if self.relative is None:
            return None
        if positions is None:
            positions = torch.arange(x.shape[1], device=x.device)[None]
        keys, slots = held or (x.shape[1], 1)
        if slots == 1:
            return self.relative(positions, keys)
        return self.relative(positions[:1], keys).repeat_interleave(slots, -1)  # all rows stand at one position
