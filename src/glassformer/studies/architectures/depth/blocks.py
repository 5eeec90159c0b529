"""Blocks with something left out, in the package's own decoder: what a residual, a norm and a feed-forward are for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from glassformer.errors import InputError
from glassformer.layers.attention import Attention, Remember
from glassformer.layers.feed_forward import FeedForward
from glassformer.layers.norm import LayerNorm
from glassformer.layers.positions import Rotation
from glassformer.layers.rows import KeysValues
from glassformer.layers.sites import Taps
from glassformer.models.assembly import initialize
from glassformer.models.config import Config
from glassformer.models.decoder import Decoder
from glassformer.studies.architectures.families import WITHIN

HEADS = 2


@dataclass(frozen=True)
class Wiring:
    """What a block has around its attention. `norm` stands before a sub-layer, after it (with its residual), or not."""

    residual: bool = True
    norm: Literal["pre", "post", "none"] = "pre"
    feed_forward: bool = True


WIRINGS: dict[str, Wiring] = {
    "pre-norm": Wiring(),
    "post-norm": Wiring(norm="post"),
    "no norm": Wiring(norm="none"),
    "no residual": Wiring(residual=False),
    "no residual, no norm": Wiring(residual=False, norm="none"),
    "no feed-forward": Wiring(feed_forward=False),
    "attention alone": Wiring(residual=False, norm="none", feed_forward=False),
}
"""Every wiring by the name that it has in tables and figures."""

COLORS = {name: f"C{number}" for number, name in enumerate(WIRINGS)}


class AblatedBlock(nn.Module):
    """The package's `Block` without cross-attention, where a wiring can leave out residual, norm and feed-forward.

    With f a sub-layer: x + f(norm(x)) "pre", norm(x + f(x)) "post"; without a residual the "x +" is missing, without a
    norm, norm(x) = x. With nothing left out it is `Block`. Sites `residual_pre` and `residual_post` are what comes in
    and what goes out.
    """

    def __init__(self, attention: Attention, feed_forward: FeedForward | None, wiring: Wiring, d_model: int) -> None:
        super().__init__()
        self.wiring = wiring
        self.self_attention = attention
        self.feed_forward = feed_forward
        self.norm_1 = nn.Identity() if wiring.norm == "none" else LayerNorm(d_model)
        self.norm_2 = nn.Identity() if wiring.norm == "none" or feed_forward is None else LayerNorm(d_model)
        self.cross_attention: Attention | None = None  # as in `Block`: the stack asks for it
        self.taps = Taps("residual_pre", "residual_post")

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        memory: KeysValues | None = None,
        memory_mask: Tensor | None = None,
        remember: Remember | None = None,
        rotation: Rotation | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """One layer further: [B, T, D] → [B, T, D]; arguments as of `Block.forward`."""

        def attend(h: Tensor) -> Tensor:
            query, seen = self.self_attention.queries_keys_values(h, rotation)
            return self.self_attention(query, seen, mask, causal, bias, remember)

        x = self._around(self.norm_1, self.taps.residual_pre(x), attend)
        if self.feed_forward is not None:
            x = self._around(self.norm_2, x, self.feed_forward)
        return self.taps.residual_post(x)

    def _around(self, norm: nn.Module, x: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
        kept = x if self.wiring.residual else 0.0
        if self.wiring.norm == "post":
            return norm(kept + layer(x))
        return kept + layer(norm(x))


@dataclass(frozen=True)
class Shape:
    """Widths of a decoder of `n_layers`: of its stream, of a head and of the feed-forward (0 where there is none)."""

    n_layers: int
    d_model: int
    d_head: int
    d_ff: int


def sized(wiring: Wiring, n_layers: int, parameters: int, vocab_size: int) -> Shape:
    """The shape of so many blocks that has about so many parameters in all.

    Feed-forwards are about twice, heads together about once as wide as the stream; of the shapes that are near enough,
    the one that comes nearest to that. `InputError` where none is within 3 %.
    """
    near: list[tuple[float, Shape]] = []
    for d_model in range(2 * HEADS, max(parameters // vocab_size, 2 * HEADS), 2 * HEADS):
        shape = _filled(n_layers, d_model, wiring, parameters, vocab_size)
        if shape is None:
            break
        if abs(total(shape, wiring, vocab_size) / parameters - 1) <= WITHIN:
            ratio = shape.d_ff / (2 * d_model) if wiring.feed_forward else HEADS * shape.d_head / d_model
            near.append((max(ratio, 1 / ratio), shape))
    if not near:
        raise InputError(
            f"{n_layers} blocks cannot have {parameters:,} parameters within {WITHIN:.0%}: allow more, or fewer blocks."
        )
    return min(near, key=lambda each: each[0])[1]


def _filled(n_layers: int, d_model: int, wiring: Wiring, parameters: int, vocab_size: int) -> Shape | None:
    """The shape of this width whose feed-forward, or else heads, bring it nearest to so many parameters; None where the
    rest is too many already."""

    def of(width: int) -> Shape:
        if wiring.feed_forward:
            return Shape(n_layers, d_model, d_model // HEADS, width)
        return Shape(n_layers, d_model, width, 0)

    one, two = (total(of(width), wiring, vocab_size) for width in (1, 2))  # the number grows evenly with the width
    width = 1 + round((parameters - one) / (two - one))
    return of(width) if width >= 1 else None


def total(shape: Shape, wiring: Wiring, vocab_size: int) -> int:
    """Parameters of a decoder of this shape and wiring: a tied embedding, blocks, norms."""
    d_model, inner = shape.d_model, HEADS * shape.d_head
    block = 4 * d_model * inner + 3 * inner + d_model
    if wiring.feed_forward:
        block += 2 * d_model * shape.d_ff + shape.d_ff + d_model
    norms = 0 if wiring.norm == "none" else 1 + wiring.feed_forward
    final = 2 * d_model * (wiring.norm == "pre")
    return vocab_size * d_model + shape.n_layers * (block + norms * 2 * d_model) + final


def build(shape: Shape, wiring: Wiring, vocab_size: int, max_length: int) -> Decoder:
    """A fresh decoder of this shape and wiring: the package's own but for its blocks; no dropout."""
    config = Config(
        vocab_size=vocab_size,
        d_model=shape.d_model,
        n_heads=HEADS,
        d_head=shape.d_head,
        d_ff=max(1, shape.d_ff),
        n_encoder_layers=0,
        n_decoder_layers=shape.n_layers,
        max_length=max_length,
        norm_first=wiring.norm == "pre",
        dropout=0.0,
    )
    network = Decoder(config)
    blocks: Sequence[nn.Module] = [_block(shape, wiring) for _ in range(shape.n_layers)]
    network.stack.blocks = nn.ModuleList(blocks)  # type: ignore[assignment]
    initialize(network, config)
    return network


def _block(shape: Shape, wiring: Wiring) -> AblatedBlock:
    attention = Attention(shape.d_model, HEADS, shape.d_head)
    feed_forward = FeedForward(shape.d_model, shape.d_ff) if wiring.feed_forward else None
    return AblatedBlock(attention, feed_forward, wiring, shape.d_model)
