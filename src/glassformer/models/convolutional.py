"""Convolutional sequence to sequence learning (Gehring et al. 2017): far places meet in high layers only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from glassformer.layers.convolution import GatedConvolution
from glassformer.layers.dropout import Dropout
from glassformer.layers.embedding import Embedding
from glassformer.layers.linear import Linear
from glassformer.layers.lookup import Lookup
from glassformer.layers.masks import padding_mask
from glassformer.layers.rows import KeysValues
from glassformer.layers.sites import Tap, Taps
from glassformer.layers.source import Source
from glassformer.models.config import ConvolutionalConfig
from glassformer.models.heads import Output, language_head
from glassformer.models.text_to_text import check_length, embeddings, last_of

HALF = math.sqrt(0.5)
"""What a sum of two is multiplied by, so that its variance stays that of each (section 3.5)."""


@dataclass
class ConvolutionalState:
    """All that decoding remembers: the source, the last kernel - 1 inputs of every layer, and every row's length."""

    source: Source
    recent: list[Float[Tensor, "B k D"]]
    lengths: Int[Tensor, B]

    def select(self, rows: Int[Tensor, B]) -> None:
        """Row i continues old row rows[i]; rows may repeat, as hypotheses of a beam do, or be left out."""
        self.source.select(rows)
        self.recent = [each[rows] for each in self.recent]
        self.lengths = self.lengths[rows]


class EncoderBlock(nn.Module):
    """x ← (x + GLU(convolution of x)) · √½."""

    def __init__(self, config: ConvolutionalConfig) -> None:
        super().__init__()
        self.reach = config.kernel // 2
        self.convolution = GatedConvolution(config.d_model, config.kernel)
        self.dropout = Dropout(config.dropout)
        self.taps = Taps("residual_pre", "residual_post")

    def forward(self, x: Float[Tensor, "B S D"], real: Float[Tensor, "B S 1"]) -> Float[Tensor, "B S D"]:
        """Padding is zero wherever a window reaches it, as what lies before and after the text is."""
        x = self.taps.residual_pre(x)
        seen = F.pad(self.dropout(x) * real, (0, 0, self.reach, self.reach))
        return self.taps.residual_post((x + self.convolution(seen)) * HALF)


class DecoderBlock(nn.Module):
    """The same with windows that end at their position, and an attention of its own (section 3.3).

    h = GLU(convolution of x); d = (W h + b + g) · √½ with g the position's embedding; c = √m · Σ softmax(d · z) (z + e)
    over the m positions of the source; x ← (x + (h + W c + b) · √½) · √½.
    """

    def __init__(self, config: ConvolutionalConfig) -> None:
        super().__init__()
        self.convolution = GatedConvolution(config.d_model, config.kernel)
        self.to_query = Linear(config.d_model, config.d_model)
        self.cross_attention = Lookup(config.d_model, "dot")
        self.to_output = Linear(config.d_model, config.d_model)
        self.dropout = Dropout(config.dropout)
        self.taps = Taps("residual_pre", "residual_mid", "residual_post")

    def forward(
        self,
        x: Float[Tensor, "B W D"],
        embedded: Float[Tensor, "B T D"],
        memory: KeysValues,
        mask: Bool[Tensor, "R 1 1 S"],
    ) -> Float[Tensor, "B T D"]:
        """One layer further for the last T positions of `x`, which has kernel - 1 more before them."""
        h = self.taps.residual_mid(self.convolution(self.dropout(x)))
        query = (self.to_query(h) + embedded) * HALF
        found = self.cross_attention(query, memory, mask) * self._scale(mask, len(x))
        h = (h + self.to_output(found)) * HALF
        return self.taps.residual_post((x[:, -h.shape[1] :] + h) * HALF)

    def _scale(self, mask: Tensor, rows: int) -> Float[Tensor, "B 1 1"]:
        """√m: a mean over m positions has 1/m of their variance."""
        return mask.sum(-1).sqrt()[:, 0].repeat_interleave(rows // len(mask), 0)[..., None]


class ConvolutionalEncoder(nn.Module):
    """Embeddings with learned positions, and blocks."""

    def __init__(self, config: ConvolutionalConfig, token: nn.Embedding) -> None:
        super().__init__()
        self.embedding = Embedding(token, _positions(config), scale=False, dropout=config.dropout)
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.n_encoder_layers))

    def forward(self, ids: Int[Tensor, "B S"], real: Bool[Tensor, "B S"]) -> KeysValues:
        """The last states z, and z + e, what is found at them, scaled to their variance."""
        embedded = x = self.embedding(ids)
        weight = real[..., None].to(x.dtype)
        for block in self.blocks:
            x = block(x, weight)
        return x, (x + embedded) * HALF


class ConvolutionalDecoder(nn.Module):
    """Embeddings with learned positions, and blocks that look only back and at the source."""

    def __init__(self, config: ConvolutionalConfig, token: nn.Embedding) -> None:
        super().__init__()
        self.embedding = Embedding(token, _positions(config), scale=False, dropout=config.dropout)
        blocks = [DecoderBlock(config) for _ in range(config.n_decoder_layers)]
        self.blocks: Sequence[DecoderBlock] = nn.ModuleList(blocks)  # type: ignore[assignment]

    def forward(
        self, ids: Int[Tensor, "B T"], lengths: Int[Tensor, B] | None, state: ConvolutionalState
    ) -> Float[Tensor, "B T D"]:
        """States of the new positions; `state` moves on by `lengths[b]` of them in row b (None: all)."""
        places = torch.arange(ids.shape[1], device=ids.device)
        embedded = x = self.embedding(ids, state.lengths[:, None] + places)
        recent = []
        for block, before, memory in zip(self.blocks, state.recent, state.source.memories, strict=True):
            seen = torch.cat((before.to(x.dtype), block.taps.residual_pre(x)), 1)
            recent.append(_last(seen, before.shape[1], lengths))
            x = block(seen, embedded, memory, state.source.mask)
        state.recent = recent
        state.lengths = state.lengths + (ids.shape[1] if lengths is None else lengths)
        return x


class Convolutional(nn.Module):
    """An encoder and a decoder of gated convolutions, with attention in every layer of the decoder.

    Seen from outside it is an `EncoderDecoder`: ids in, `Output` out, sources that end with eos and targets that begin
    with bos, both padded on the right; and the same seam for decoding. Of the paper's recipe, weight normalisation and
    the scaling of the encoder's gradients are left out: under Adam, which scales each weight's step by itself, it
    trains without them.
    """

    def __init__(self, config: ConvolutionalConfig) -> None:
        super().__init__()
        self.config = config
        source_token, token = embeddings(config)
        self.encoder = ConvolutionalEncoder(config, source_token)
        self.decoder = ConvolutionalDecoder(config, token)
        self.head = language_head(config, token)
        self.dropout = Dropout(config.dropout)
        self.logits = Tap()
        self._initialize()

    def forward(self, source: Int[Tensor, "B S"], target: Int[Tensor, "B T"]) -> Output:
        """Logits of the token after each target position, given the source and the target up to there."""
        hidden = self.hidden(source, target)
        return Output(self.logits(self.head(hidden)), hidden)

    def hidden(self, source: Int[Tensor, "B S"], target: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """The decoder's last states, which the head turns into logits."""
        check_length(target.shape[1], self.config)
        return self.dropout(self.decoder(target, None, self._open(source)))

    @torch.no_grad()
    def start(self, source: Int[Tensor, "R S"], capacity: int) -> ConvolutionalState:
        """Read the sources and open a decoding state with a row each, for up to `capacity` target positions.

        Decoding has no gradient.
        """
        check_length(capacity, self.config)
        return self._open(source)

    @torch.no_grad()
    def step(
        self, ids: Int[Tensor, "B T"], lengths: Int[Tensor, B] | None, state: ConvolutionalState
    ) -> Float[Tensor, "B V"]:
        """Logits after each row's last new id. Row b brings `lengths[b]` ≥ 1 new ids (None: all T of them)."""
        return self.logits(self.head(last_of(self.decoder(ids, lengths, state), lengths)))

    def _open(self, source: Tensor) -> ConvolutionalState:
        check_length(source.shape[1], self.config)
        config, real = self.config, source != self.config.pad_id
        encoded = self.encoder(source, real)
        memories = [block.cross_attention.keys_values(*encoded) for block in self.decoder.blocks]
        nothing = encoded[0].new_zeros(len(source), config.kernel - 1, config.d_model)
        lengths = torch.zeros(len(source), dtype=torch.long, device=source.device)
        return ConvolutionalState(Source(memories, padding_mask(real)), [nothing] * len(memories), lengths)

    def _initialize(self) -> None:
        """Weights that keep the variance: N(0, 4p/n) before a gate and N(0, p/n) elsewhere, where n inputs are kept
        with probability p; embeddings N(0, 0.1²), biases 0 (section 3.5)."""
        kept = 1 - self.config.dropout
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                gated = name.endswith("convolution.dense")
                nn.init.normal_(module.weight, std=((4 * kept if gated else 1) / module.in_features) ** 0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Embedding):
                nn.init.normal_(module.token.weight, std=0.1)
                if module.position is not None:
                    nn.init.normal_(module.position, std=0.1)


def _positions(config: ConvolutionalConfig) -> nn.Parameter:
    return nn.Parameter(torch.empty(config.max_length, config.d_model))


def _last(seen: Tensor, count: int, lengths: Tensor | None) -> Float[Tensor, "B k D"]:
    """The `count` positions that the next window will begin with: of row b those after `lengths[b]` new ones."""
    if lengths is None:
        return seen[:, seen.shape[1] - count :]
    index = lengths[:, None] + torch.arange(count, device=seen.device)
    return seen.gather(1, index[..., None].expand(-1, -1, seen.shape[2]))
