"""BERT (Devlin et al. 2019): a stack in which every position sees every other."""

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from glassformer.errors import InputError
from glassformer.layers.masks import padding_mask
from glassformer.layers.ragged import OwnText, Packing
from glassformer.layers.sites import Tap
from glassformer.models.assembly import initialize, stack
from glassformer.models.config import Classification, Config
from glassformer.models.heads import Output, Pooler, SentenceHead, encoder_head, mean_state
from glassformer.models.packing import packs_texts


class Encoder(nn.Module):
    """Token, segment and position vectors, N blocks, a head for words, labels, spans or sentences (`Config.head`).

    A plain module: ids in, `Output` out. Sequences are padded on the right with `pad_id`; what is padding is seen by
    nobody, and what a network says there means nothing.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.n_decoder_layers or not config.n_encoder_layers:
            raise InputError("an Encoder has encoder layers only: set 'n_decoder_layers' to 0, 'n_encoder_layers' not.")
        self.config = config
        token = nn.Embedding(config.vocab_size, config.d_model)
        self.stack = stack(config, config.n_encoder_layers, token)
        self.pooler = Pooler(config.d_model) if config.pooler else None
        self.head = encoder_head(config, token)
        self.logits = Tap()
        initialize(self, config)

    def forward(
        self,
        ids: Int[Tensor, "B T"],
        segments: Int[Tensor, "B T"] | None = None,
        real: Bool[Tensor, "B T"] | None = None,
    ) -> Output:
        """What the head says of each text. `segments` are 0 unless given; `real` is where there is no padding, by
        default wherever the id is another than `pad_id`."""
        if real is None:
            real = ids != self.config.pad_id
        hidden = self.hidden(ids, segments, real)
        return Output(self.logits(self._read(hidden, real)), hidden)

    def hidden(
        self,
        ids: Int[Tensor, "B T"],
        segments: Int[Tensor, "B T"] | None = None,
        real: Bool[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The last states, which the head reads; arguments as of `forward`."""
        if real is None:
            real = ids != self.config.pad_id
        return self.stack(ids, padding_mask(real), segments=segments)

    def states(self, ids: Int[Tensor, "B T"], real: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """`hidden`, which means nothing at padding; of several texts nothing is computed there, where the network
        `packs_texts`: zeros stand there then."""
        if len(ids) == 1 or not packs_texts(self):
            return self.hidden(ids, real=real)
        texts = Packing.of(real)
        found = self.stack(texts.pack(ids), OwnText(texts, texts), positions=texts.positions)[0]
        hidden = found.new_zeros(real.numel(), found.shape[-1])
        return hidden.index_copy(0, texts.places, found).unflatten(0, real.shape)

    def _read(self, hidden: Tensor, real: Tensor) -> Tensor:
        if isinstance(self.head, SentenceHead):
            return self.head(hidden, real)
        if isinstance(self.config.head, Classification):
            text = mean_state(hidden, real) if self.config.pooling == "mean" else hidden[:, 0]
            return self.head(text if self.pooler is None else self.pooler(text))
        return self.head(hidden)
