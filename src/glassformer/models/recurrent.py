"""Recurrence with attention (Bahdanau et al. 2015; Luong et al. 2015): what the Transformer replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glassformer.layers.dropout import Dropout
from glassformer.layers.embedding import Embedding
from glassformer.layers.linear import Linear
from glassformer.layers.lookup import Lookup
from glassformer.layers.masks import padding_mask
from glassformer.layers.recurrence import Carried, Recurrence, initialize_recurrence
from glassformer.layers.rows import KeysValues
from glassformer.layers.sites import Tap, Taps
from glassformer.layers.source import Source
from glassformer.models.config import RecurrentConfig
from glassformer.models.heads import Output, language_head
from glassformer.models.text_to_text import check_length, embeddings, last_of


@dataclass
class RecurrentState:
    """All that decoding remembers: the source, what each layer carries and, with input feeding, what was found last."""

    source: Source
    carried: list[Carried]
    found: Float[Tensor, "B D"]

    def select(self, rows: Int[Tensor, B]) -> None:
        """Row i continues old row rows[i]; rows may repeat, as hypotheses of a beam do, or be left out."""
        self.source.select(rows)
        self.carried = [each.select(rows) for each in self.carried]
        self.found = self.found[rows]


class RecurrentStack(nn.Module):
    """Embedding and layers of recurrence, dropout between them."""

    def __init__(self, config: RecurrentConfig, token: nn.Embedding, n_layers: int, d_in: int, both_ways: bool) -> None:
        super().__init__()
        self.embedding = Embedding(token, None, scale=False, dropout=config.dropout)
        widths = [d_in, *[config.d_model] * (n_layers - 1)]
        layers = [Recurrence(config.cell, width, config.d_model, both_ways) for width in widths]
        self.blocks: Sequence[Layer] = nn.ModuleList(map(Layer, layers))  # type: ignore[assignment]
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x: Float[Tensor, "B T i"],
        lengths: Int[Tensor, B] | None = None,
        before: Sequence[Carried] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], list[Carried]]:
        """States of the last layer, and what each layer carries on."""
        carried = []
        for number, block in enumerate(self.blocks):
            x = self.dropout(x) if number else x
            x, end = block.recurrence(x, lengths, None if before is None else before[number])
            carried.append(end)
        return x, carried


class Layer(nn.Module):
    """A layer in a stack, for its place in the sites' names: `encoder.recurrence.output[0]`."""

    def __init__(self, recurrence: Recurrence) -> None:
        super().__init__()
        self.recurrence = recurrence


class RecurrentDecoder(RecurrentStack):
    """A stack that begins with what the encoder ended with, and looks up the source with its last layer's states."""

    def __init__(self, config: RecurrentConfig, token: nn.Embedding) -> None:
        d_model = config.d_model
        super().__init__(config, token, config.n_decoder_layers, d_model * (1 + config.input_feeding), both_ways=False)
        parts = 2 if config.cell == "lstm" else 1
        self.bridge = Linear(d_model, d_model * parts * config.n_decoder_layers)
        self.cross_attention = None if config.attention == "none" else Lookup(d_model, config.attention)
        self.to_found = Linear(2 * d_model if self.cross_attention else d_model, d_model)
        self.taps = Taps("found")

    def begin(self, end: Float[Tensor, "B D"]) -> list[Carried]:
        """What every layer begins with: tanh(W h + b) of what the encoder ended with (Bahdanau et al. 2015, A.2.2)."""
        parts = torch.tanh(self.bridge(end)).chunk(len(self.blocks), -1)
        return [Carried(*part.split(end.shape[-1], -1)) for part in parts]  # an LSTM's part is state and cell

    def find(self, states: Float[Tensor, "B T D"], source: Source) -> Float[Tensor, "B T D"]:
        """tanh(W [c; h] + b): what was looked up beside the state that looked (Luong et al. 2015, equation 5)."""
        if self.cross_attention is not None:
            states = torch.cat((self.cross_attention(states, source.memories[0], source.mask), states), -1)
        return self.taps.found(torch.tanh(self.to_found(states)))


class Recurrent(nn.Module):
    """An encoder that reads the source from both ends, a decoder that writes the target, one state after another.

    Seen from outside it is an `EncoderDecoder`: ids in, `Output` out, sources that end with eos and targets that begin
    with bos, both padded on the right; and the same seam for decoding.
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        source_token, token = embeddings(config)
        self.encoder = RecurrentStack(config, source_token, config.n_encoder_layers, config.d_model, both_ways=True)
        self.decoder = RecurrentDecoder(config, token)
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
        return self.dropout(self._read(target, None, self._open(source)))

    @torch.no_grad()
    def start(self, source: Int[Tensor, "R S"], capacity: int) -> RecurrentState:
        """Read the sources and open a decoding state with a row each.

        A recurrence has no end, and needs no `capacity`. Decoding has no gradient.
        """
        return self._open(source)

    @torch.no_grad()
    def step(
        self, ids: Int[Tensor, "B T"], lengths: Int[Tensor, B] | None, state: RecurrentState
    ) -> Float[Tensor, "B V"]:
        """Logits after each row's last new id. Row b brings `lengths[b]` ≥ 1 new ids (None: all T of them)."""
        return self.logits(self.head(last_of(self._read(ids, lengths, state), lengths)))

    def _open(self, source: Tensor) -> RecurrentState:
        check_length(source.shape[1], self.config)
        real = source != self.config.pad_id
        lengths = real.sum(1).clamp_min(1)
        encoded, _ = self.encoder(self.encoder.embedding(source), lengths)
        memories: list[KeysValues] = []
        if self.decoder.cross_attention is not None:
            memories = [self.decoder.cross_attention.keys_values(encoded, encoded)]
        carried = self.decoder.begin(_ends(encoded, lengths))
        return RecurrentState(Source(memories, padding_mask(real)), carried, torch.zeros_like(carried[-1].state))

    def _read(self, ids: Tensor, lengths: Tensor | None, state: RecurrentState) -> Float[Tensor, "B T D"]:
        """What the decoder finds at each new position; the state moves on."""
        check_length(ids.shape[1], self.config)
        embedded = self.decoder.embedding(ids)
        if self.config.input_feeding:
            return self._feed(embedded, lengths, state)
        states, state.carried = self.decoder(embedded, lengths, state.carried)
        return self.decoder.find(states, state.source)

    def _feed(self, embedded: Tensor, lengths: Tensor | None, state: RecurrentState) -> Float[Tensor, "B T D"]:
        """The same, one position after another: each reads what the one before has found."""
        all_found = []
        for place in range(embedded.shape[1]):
            x = torch.cat((embedded[:, place], state.found), -1)[:, None]
            states, carried = self.decoder(x, None, state.carried)
            found = self.decoder.find(states, state.source)[:, 0]
            if lengths is not None:  # rows that brought fewer ids stay where they are
                here = (place < lengths)[:, None]
                found = torch.where(here, found, state.found)
                carried = [_where(here, new, old) for new, old in zip(carried, state.carried, strict=True)]
            state.found, state.carried = found, carried
            all_found.append(found)
        return torch.stack(all_found, 1)

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, Recurrence):
                initialize_recurrence(module)
        for module in self.modules():
            if isinstance(module, nn.Embedding):  # after the linear layers: a tied head keeps the embedding's scale
                nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)


def _ends(encoded: Float[Tensor, "B S D"], lengths: Int[Tensor, B]) -> Float[Tensor, "B D"]:
    """What both directions ended with: one at the last word, the other at the first."""
    half = encoded.shape[-1] // 2
    return torch.cat((last_of(encoded, lengths)[:, :half], encoded[:, 0, half:]), -1)


def _where(here: Tensor, new: Carried, old: Carried) -> Carried:
    cell = None if new.cell is None or old.cell is None else torch.where(here, new.cell, old.cell)
    return Carried(torch.where(here, new.state, old.state), cell)
