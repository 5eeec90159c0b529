"""GPT (Radford et al. 2018, 2019; Brown et al. 2020) and its heirs: a stack in which every position sees the past."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glassformer.errors import InputError
from glassformer.layers.rows import RowState, write_rows
from glassformer.layers.masks import seen_mask
from glassformer.layers.sites import Tap
from glassformer.models.assembly import initialize, stack
from glassformer.models.config import Config
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

    def hidden(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """The last states, which the head turns into logits."""
        return self.stack(ids, causal=True)

    @torch.no_grad()
    def start(self, rows: int, capacity: int) -> RowState:
        """An empty decoding state of `rows` texts of up to `capacity` positions each."""
        config = self.config
        if capacity > config.max_length:
            raise InputError(f"the model has {config.max_length} positions, {capacity} are needed: shorten the text.")
        like = self.stack.embedding.token.weight
        shape = (config.n_decoder_layers, rows, config.kv_heads, capacity, config.head_width)
        return RowState(like.new_zeros(shape), like.new_zeros(shape))

    @torch.no_grad()
    def step(self, ids: Int[Tensor, "B T"], lengths: Int[Tensor, "B"] | None, state: RowState) -> Float[Tensor, "B V"]:
        """Logits after each row's last new id. Row b brings `lengths[b]` ≥ 1 new ids (None: all T of them)."""
        last = torch.full((len(ids),), ids.shape[1], device=ids.device) if lengths is None else lengths
        positions, keys, values = state.advance(ids.shape[1], lengths)
        return self.run(ids, positions, last - 1, keys, values)

    @torch.no_grad()
    def read(
        self, ids: Int[Tensor, "B T"], lengths: Int[Tensor, "B"] | None, state: RowState
    ) -> Float[Tensor, "B T D"]:
        """Like `step`, but the states at all new positions: what the head would turn into their logits."""
        return self._read(ids, *state.advance(ids.shape[1], lengths))

    def run(
        self,
        ids: Int[Tensor, "B T"],
        positions: Int[Tensor, "B T"],
        last: Int[Tensor, "B"],
        keys: Float[Tensor, "N B G K d"],
        values: Float[Tensor, "N B G K d"],
    ) -> Float[Tensor, "B V"]:
        """`step` as a function of tensors alone, for a compiler: logits at index `last` of each row's new ids.

        The new keys and values are written into `keys` and `values` at `positions`.
        """
        hidden = self._read(ids, positions, keys, values)
        return self.logits(self.head(hidden[torch.arange(len(ids), device=ids.device), last]))

    def _read(self, ids: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        remember = [write_rows(keys[layer], values[layer], positions) for layer in range(len(keys))]
        mask, held = seen_mask(positions, keys.shape[3]), (keys.shape[3], 1)
        return self.stack(ids, mask, positions=positions, remember=remember, held=held)
