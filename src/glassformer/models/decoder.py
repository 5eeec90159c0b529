"""GPT (Radford et al. 2018, 2019; Brown et al. 2020) and its heirs: a stack in which every position sees the past."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glassformer.errors import InputError
from glassformer.layers.masks import document_mask
from glassformer.layers.ring import AnyState, BandedState
from glassformer.layers.rows import RowState
from glassformer.layers.sites import Tap, is_planned
from glassformer.models.assembly import initialize, stack
from glassformer.models.config import Banded, Config, Learned, Relative, Sinusoidal
from glassformer.models.heads import Output, language_head


class Decoder(nn.Module):
    """Token and position vectors, N causal blocks, a head that says the next word.

    A plain module: ids in, `Output` out. Sequences are padded on the right: no real position sees what comes after it,
    so padding needs no mask.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.n_encoder_layers or not config.n_decoder_layers:
            raise InputError("a Decoder has decoder layers only: set 'n_encoder_layers' to 0, 'n_decoder_layers' not.")
        if config.scale_head:
            raise InputError(
                "'scale_head' is for encoder-decoders (T5); a Decoder does not scale its states: leave it out."
            )
        self.config = config
        token = nn.Embedding(config.vocab_size, config.d_model)
        self.stack = stack(config, config.n_decoder_layers, token, causal=True)
        self.head = language_head(config, token)
        self.logits = Tap()
        initialize(self, config)

    def forward(self, ids: Int[Tensor, "B T"]) -> Output:
        """Logits of the token after each position, given the tokens up to there."""
        hidden = self.hidden(ids)
        return Output(self.logits(self.head(hidden)), hidden)

    def hidden(self, ids: Int[Tensor, "B T"], documents: Int[Tensor, "B T"] | None = None) -> Float[Tensor, "B T D"]:
        """The last states, which the head turns into logits.

        A row may hold several documents one after another: `documents` numbers them, growing from left to right. Each
        is then read as if it stood alone, from position 0 on.
        """
        if documents is None:
            return self.stack(ids, causal=True)
        absolute = isinstance(self.config.positions, Learned | Sinusoidal)  # other kinds know distances alone
        positions = document_places(documents) if absolute else None
        return self.stack(ids, document_mask(documents), causal=True, positions=positions)

    @torch.no_grad()
    def start(self, rows: int, capacity: int) -> AnyState:
        """An empty decoding state of `rows` texts of up to `capacity` positions each.

        Banded layers keep as many positions as their band is wide; but all, where a plan may ask for patterns of whole
        texts, or where distances are added to the scores.
        """
        config = self.config
        if capacity > config.max_length:
            raise InputError(f"the model has {config.max_length} positions, {capacity} are needed: shorten the text.")
        like = self.stack.blocks[0].norm_1.weight  # not of a dense layer, whose numbers may be quantised

        def full(layers: int, slots: int) -> tuple[Tensor, Tensor]:
            shape = (layers, rows, config.kv_heads, slots, config.head_width)
            return like.new_zeros(shape), like.new_zeros(shape)

        if not config.banded_layers or isinstance(config.positions, Relative) or is_planned(self):
            return RowState(*full(config.n_decoder_layers, capacity))
        assert isinstance(config.attention, Banded)
        bands, width = config.banded_layers, config.attention.width
        banded = [config.band(layer) is not None for layer in range(config.n_decoder_layers)]
        dense = RowState(*full(config.n_decoder_layers - bands, capacity))
        return BandedState(dense, *full(bands, min(width, capacity)), banded, width)

    @torch.no_grad()
    def step(self, ids: Int[Tensor, "B T"], lengths: Int[Tensor, "B"] | None, state: AnyState) -> Float[Tensor, "B V"]:
        """Logits after each row's last new id. Row b brings `lengths[b]` ≥ 1 new ids (None: all T of them)."""
        hidden = self.read(ids, lengths, state)
        last = hidden[:, -1] if lengths is None else hidden[torch.arange(len(ids), device=ids.device), lengths - 1]
        return self.logits(self.head(last))

    @torch.no_grad()
    def read(
        self, ids: Int[Tensor, "B T"], lengths: Int[Tensor, "B"] | None, state: AnyState
    ) -> Float[Tensor, "B T D"]:
        """Like `step`, but the states at all new positions: what the head would turn into their logits."""
        step = state.advance(ids.shape[1], lengths)
        held = (ids.shape[1] if step.fresh else step.window, 1)
        return self.stack(ids, causal=step.fresh, positions=step.positions, remember=state.memories(step), held=held)


def document_places(documents: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """How far each position is from the first of its document."""
    places = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    begins = documents.diff(prepend=documents[:, :1] - 1) != 0
    return places - torch.where(begins, places, 0).cummax(1).values
