"""The Transformer of "Attention Is All You Need" (Vaswani et al. 2017), figure 1."""

from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from glassformer.layers.cache import DecodingState, KeyValueCache
from glassformer.layers.masks import padding_mask
from glassformer.layers.ragged import OwnText, Packing
from glassformer.layers.sites import Tap
from glassformer.layers.source import Source
from glassformer.models.assembly import initialize, stack
from glassformer.models.config import Config
from glassformer.models.heads import Output, language_head
from glassformer.models.packing import packs


class EncoderDecoder(nn.Module):
    """An encoder that reads the source, a decoder that attends to it and writes the target.

    Embeddings of source and target and the head share one matrix (section 3.4) unless the config says otherwise.
    A plain module: ids in, `Output` out. Sources end with eos and targets begin with bos; both are padded on the right.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        token = nn.Embedding(config.vocab_size, config.d_model)
        source_size = config.source_vocab_size
        source_token = token if source_size is None else nn.Embedding(source_size, config.d_model)
        self.encoder = stack(config, config.n_encoder_layers, source_token)
        self.decoder = stack(config, config.n_decoder_layers, token, cross=True, causal=True)
        self.head = language_head(config, token)
        self.logits = Tap()
        initialize(self, config)

    def forward(self, source: Int[Tensor, "B S"], target: Int[Tensor, "B T"]) -> Output:
        """Logits of the token after each target position, given the source and the target up to there."""
        hidden = self.hidden(source, target)
        return Output(self.logits(self.head(hidden)), hidden)

    def hidden(self, source: Int[Tensor, "B S"], target: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """The decoder's last states, which the head turns into logits.

        Padding stands after every real position, so the causal mask already keeps it out of sight.
        """
        memories = self.decoder.memories(self.encode(source))
        return self._scaled(self.decoder(target, causal=True, memories=memories, memory_mask=self._mask(source)))

    def hidden_at(
        self, real: Bool[Tensor, "B T"], source: Int[Tensor, "B S"], target: Int[Tensor, "B T"]
    ) -> Float[Tensor, "N D"]:
        """`hidden` where it is `real`, the first places of each row; in training, nothing else is computed where the
        network `packs`."""
        if not packs(self):
            return self.hidden(source, target)[real]
        read, written = Packing.of(source != self.config.pad_id), Packing.of(real)
        encoded = self.encoder(read.pack(source), OwnText(read, read), positions=read.positions)
        hidden = self.decoder(
            written.pack(target),
            OwnText(written, written),
            causal=True,
            memories=self.decoder.memories(encoded),
            memory_mask=OwnText(written, read),
            positions=written.positions,
        )
        return self._scaled(hidden)[0]

    def encode(self, source: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """The encoder's last states; those at padding mean nothing and are masked wherever they are read."""
        return self.encoder(source, self._mask(source))

    @torch.no_grad()
    def start(self, source: Int[Tensor, "R S"], capacity: int) -> DecodingState:
        """Encode the sources and open a decoding state with a row each, for up to `capacity` target positions.

        Decoding has no gradient.
        """
        memories = self.decoder.memories(self.encode(source))
        like, n_layers = memories[0][0], len(memories)
        shape = (len(source), self.config.kv_heads, capacity, self.config.head_width)
        caches = [KeyValueCache(*shape, like) for _ in range(n_layers)]
        return DecodingState(Source(memories, self._mask(source)), caches)

    @torch.no_grad()
    def step(
        self, ids: Int[Tensor, "B T"], lengths: Int[Tensor, "B"] | None, state: DecodingState
    ) -> Float[Tensor, "B V"]:
        """Logits after each row's last new id. Row b brings `lengths[b]` ≥ 1 new ids (None: all T of them)."""
        place = state.advance(ids, lengths)
        hidden = self.decoder(
            ids,
            place.mask,
            memories=state.source.memories,
            memory_mask=state.source.mask,
            positions=place.positions,
            remember=[partial(cache.append, positions=place.write, end=state.end) for cache in state.caches],
            held=(state.end, state.width),
        )
        hidden = self._scaled(hidden)
        last = hidden[:, -1] if lengths is None else hidden[torch.arange(len(ids), device=ids.device), lengths - 1]
        return self.logits(self.head(last))

    def _scaled(self, hidden: Tensor) -> Tensor:
        return hidden * self.config.d_model**-0.5 if self.config.scale_head else hidden

    def _mask(self, source: Tensor) -> Tensor:
        return padding_mask(source != self.config.pad_id)
