"""`Config`: what every Transformer of this package is made of, in the field's own terms; and its predecessors'."""

from dataclasses import dataclass
from typing import Literal

from glassformer.errors import InputError


@dataclass(frozen=True)
class Sinusoidal:
    """Fixed sines and cosines of geometrically growing wavelength (Vaswani et al. 2017, section 3.5).

    The paper's vector has a sine and a cosine in turn; with `halves` all sines come first (as in Marian).
    """

    halves: bool = False


@dataclass(frozen=True)
class Learned:
    """One trained vector a position (Gehring et al. 2017; the alternative of Vaswani et al. 2017, table 3 row E)."""


@dataclass(frozen=True)
class Rotary:
    """Queries and keys are turned by an angle that grows with the position (RoFormer, Su et al. 2021).

    Coordinates i and i + d/2 of a head turn together, by position · base^(-2i/d).
    """

    base: float = 10000.0


@dataclass(frozen=True)
class Relative:
    """A trained number for each head and each distance, added to the scores (T5, Raffel et al. 2020, section 2.1).

    Distances share a bucket the more the farther they are; from `max_distance` on, all share one.
    """

    buckets: int = 32
    max_distance: int = 128

    def __post_init__(self) -> None:
        if self.buckets < 4:
            raise InputError(f"relative positions need at least 4 buckets, got {self.buckets}.")
        if self.max_distance <= self.buckets // 2:
            raise InputError(
                f"'max_distance' must be more than half of the {self.buckets} buckets, which are for single distances, "
                f"got {self.max_distance}."
            )


@dataclass(frozen=True)
class Dense:
    """In every layer a query may attend to all keys that it may see."""


@dataclass(frozen=True)
class Banded:
    """In each `every`-th layer (2: the second, fourth, …) a query sees the newest `width` keys only, its own included.

    The "alternating dense and locally banded sparse attention patterns" of Brown et al. 2020, section 2.1, for layers
    that look back. The paper gives no width: it says "similar to the Sparse Transformer", whose own (Child et al. 2019,
    section 7) is 128 for texts of 12,288 bytes. 256 is our reading, an eighth of GPT-3's 2,048 positions; so is that
    the first layer is dense.
    """

    width: int = 256
    every: int = 2

    def __post_init__(self) -> None:
        for name in ("width", "every"):
            if getattr(self, name) < 1:
                raise InputError(f"banded attention: '{name}' must be at least 1, got {getattr(self, name)}.")


@dataclass(frozen=True)
class MaskedLM:
    """The word at each position: dense, activation, norm, then the (tied) embedding as output (BERT)."""


@dataclass(frozen=True)
class Classification:
    """One of `labels` for the whole text, read off the pooler's output, or without one what that would read."""

    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        _at_least_one(self.labels)


@dataclass(frozen=True)
class Tagging:
    """One of `labels` for every token."""

    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        _at_least_one(self.labels)


@dataclass(frozen=True)
class Spans:
    """A score for every token to be the first, and the last, of an answer.

    The first token of the text stands for "no answer here". With a `threshold`, a question is refused where that scores
    higher than the best span by more than it; without one, the best span is the answer.
    """

    threshold: float | None = None


@dataclass(frozen=True)
class Sentence:
    """One vector for the whole text: the mean of its tokens' states, or the first's; of length 1 if `normalize`.

    `max_length` is the most tokens that the model was tuned to read, where that is less than its positions.
    """

    pooling: Literal["mean", "cls"] = "mean"
    normalize: bool = True
    max_length: int | None = None


Positions = Sinusoidal | Learned | Rotary | Relative
Pattern = Dense | Banded
Head = MaskedLM | Classification | Tagging | Spans | Sentence


@dataclass(frozen=True)
class Config:
    """Shape and choices of a Transformer; frozen, compared by value, saved with every checkpoint.

    Defaults are the base model of Vaswani et al. 2017, table 3. `d_head` is `d_model / n_heads` unless given, and
    `n_kv_heads` `n_heads`: fewer share keys and values among n_heads / n_kv_heads heads each (Ainslie et al. 2023).
    `source_vocab_size` is None where source and target share one vocabulary and one embedding (section 3.4);
    `tie_head` shares the target embedding with the output projection. `max_length` is the most positions a sequence
    may have. `attention` says what layers look at: all, or in some a band. The three dropouts: on every sub-layer's
    output and on the embeddings (the paper's), on the attention pattern, and inside the feed-forward.

    What later families changed: `norm` "rms" (Zhang & Sennrich 2019); `gated` feed-forwards, activation(x V) · x W
    (Shazeer 2020); no `bias` in dense layers; `scale_embedding` off (embeddings are not multiplied by √D);
    `scale_scores` off (QKᵀ is not divided by √d) and `scale_head` (states are divided by √D before a tied head), as in
    T5; `embedding_norm` and `n_segments` (BERT); `pooler`, a dense layer with tanh on the first state (BERT),
    or with `pooling` "mean" on the mean of all that are no padding, as labels without a pooler are read off too;
    `head_bias`, a number for each word of the vocabulary. `head` replaces the family's own output; `init_std` is the
    spread of fresh weights (see `assembly.initialize`).
    """

    vocab_size: int
    source_vocab_size: int | None = None
    d_model: int = 512
    n_heads: int = 8
    d_head: int | None = None
    d_ff: int = 2048
    n_encoder_layers: int = 6
    n_decoder_layers: int = 6
    positions: Positions = Sinusoidal()
    max_length: int = 1024
    norm_first: bool = False
    norm_eps: float = 1e-5
    activation: Literal["relu", "relu_squared", "gelu", "gelu_tanh", "silu"] = "relu"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    tie_head: bool = True
    pad_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    n_kv_heads: int | None = None
    norm: Literal["layer", "rms"] = "layer"
    gated: bool = False
    bias: bool = True
    scale_embedding: bool = True
    scale_scores: bool = True
    scale_head: bool = False
    embedding_norm: bool = False
    n_segments: int = 0
    pooler: bool = False
    pooling: Literal["first", "mean"] = "first"
    head_bias: bool = False
    head: Head | None = None
    init_std: float | None = None
    attention: Pattern = Dense()

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "n_heads", "d_ff", "max_length"):
            if getattr(self, name) < 1:
                raise InputError(f"'{name}' must be at least 1, got {getattr(self, name)}.")
        for name in ("n_encoder_layers", "n_decoder_layers", "n_segments"):
            if getattr(self, name) < 0:
                raise InputError(f"'{name}' must not be negative, got {getattr(self, name)}.")
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"'{name}' must be in [0, 1), got {getattr(self, name)}.")
        if self.d_head is None and self.d_model % self.n_heads:
            raise InputError(
                f"'d_model' ({self.d_model}) must be a multiple of 'n_heads' ({self.n_heads}), or 'd_head' be given."
            )
        if self.n_kv_heads is not None and (self.n_kv_heads < 1 or self.n_heads % self.n_kv_heads):
            raise InputError(f"'n_kv_heads' ({self.n_kv_heads}) must divide 'n_heads' ({self.n_heads}).")
        if isinstance(self.positions, Rotary) and self.head_width % 2:
            raise InputError(f"rotary positions turn pairs: the width of a head must be even, got {self.head_width}.")
        if isinstance(self.attention, Banded) and self.n_encoder_layers:
            raise InputError("banded attention looks back only: it is for networks without encoder layers.")

    def band(self, layer: int) -> int | None:
        """How many keys a query of that layer sees, the newest; None where it sees all."""
        pattern = self.attention
        return pattern.width if isinstance(pattern, Banded) and (layer + 1) % pattern.every == 0 else None

    @property
    def banded_layers(self) -> int:
        """How many layers have a band."""
        return sum(self.band(layer) is not None for layer in range(self.n_decoder_layers))

    @property
    def shape(self) -> str:
        """The network in a few words."""
        layers = "+".join(str(count) for count in (self.n_encoder_layers, self.n_decoder_layers) if count)
        shared = "" if self.kv_heads == self.n_heads else f" ({self.kv_heads} of keys and values)"
        bands = ""
        if isinstance(self.attention, Banded):
            bands = f", {self.banded_layers} of them with bands of {self.attention.width}"
        return f"{layers} layers of {self.d_model}{bands}, {self.n_heads} heads of {self.head_width}{shared}"

    @property
    def head_width(self) -> int:
        """Width of one attention head: `d_head`, or `d_model / n_heads` where that is not given."""
        return self.d_head if self.d_head is not None else self.d_model // self.n_heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values: `n_kv_heads`, or `n_heads` where that is not given."""
        return self.n_kv_heads if self.n_kv_heads is not None else self.n_heads


@dataclass(frozen=True)
class TextToTextConfig:
    """The choices that `RecurrentConfig` and `ConvolutionalConfig` have in common; meanings as in `Config`.

    The same width D serves embeddings and states. `dropout` is the only one.
    """

    vocab_size: int
    source_vocab_size: int | None = None
    d_model: int = 512
    n_encoder_layers: int = 1
    n_decoder_layers: int = 1
    max_length: int = 1024
    dropout: float = 0.1
    tie_head: bool = True
    head_bias: bool = False
    pad_id: int = 0
    bos_id: int = 1
    eos_id: int = 2

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "n_encoder_layers", "n_decoder_layers", "max_length"):
            if getattr(self, name) < 1:
                raise InputError(f"'{name}' must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"'dropout' must be in [0, 1), got {self.dropout}.")


@dataclass(frozen=True)
class RecurrentConfig(TextToTextConfig):
    """Shape and choices of a `Recurrent` network; frozen, compared by value, saved with every checkpoint.

    `attention` says how a target position scores the source's (see `Lookup`); "none" leaves the decoder with the
    encoder's last state alone, as in Sutskever et al. 2014. `input_feeding` gives each step what the last one found
    (Luong et al. 2015, section 3.3), so that training too has to go step by step. `dropout` is applied to embeddings,
    to what one layer hands to the next, and to what the head reads.
    """

    cell: Literal["lstm", "rnn"] = "lstm"
    attention: Literal["additive", "multiplicative", "none"] = "multiplicative"
    input_feeding: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d_model % 2:
            raise InputError(f"'d_model' must be even: the encoder reads both ways, half each, got {self.d_model}.")

    @property
    def shape(self) -> str:
        """The network in a few words."""
        kind = {"lstm": "LSTM", "rnn": "plain recurrent"}[self.cell]
        return f"{self.n_encoder_layers}+{self.n_decoder_layers} {kind} layers of {self.d_model}"


@dataclass(frozen=True)
class ConvolutionalConfig(TextToTextConfig):
    """Shape and choices of a `Convolutional` network; frozen, compared by value, saved with every checkpoint.

    A position of the encoder sees `kernel` positions around it in the first layer and kernel - 1 more in each further
    one; one of the decoder as many before it. `dropout` is applied to embeddings, to what each convolution reads, and
    to what the head reads.
    """

    kernel: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise InputError(f"'kernel' must be odd: as many positions before as after, got {self.kernel}.")

    @property
    def shape(self) -> str:
        """The network in a few words."""
        layers = f"{self.n_encoder_layers}+{self.n_decoder_layers} convolutions of {self.d_model}"
        return f"{layers}, {self.kernel} positions wide"


AnyConfig = Config | RecurrentConfig | ConvolutionalConfig


def _at_least_one(labels: tuple[str, ...]) -> None:
    if not labels:
        raise InputError("'labels' must name at least one label.")
