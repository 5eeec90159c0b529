"""`Config`: what every Transformer of this package is made of, in the field's own terms."""

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
class MaskedLM:
    """The word at each position: dense, activation, norm, then the (tied) embedding as output (BERT)."""


@dataclass(frozen=True)
class Classification:
    """One of `labels` for the whole text, read off the pooler's output."""

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
Head = MaskedLM | Classification | Tagging | Spans | Sentence


@dataclass(frozen=True)
class Config:
    """Shape and choices of a Transformer; frozen, compared by value, saved with every checkpoint.

    Defaults are the base model of Vaswani et al. 2017, table 3. `d_head` is `d_model / n_heads` unless given, and
    `n_kv_heads` `n_heads`: fewer share keys and values among n_heads / n_kv_heads heads each (Ainslie et al. 2023).
    `source_vocab_size` is None where source and target share one vocabulary and one embedding (section 3.4);
    `tie_head` shares the target embedding with the output projection. `max_length` is the most positions a sequence
    may have. The three dropouts: on every sub-layer's output and on the embeddings (the paper's), on the attention
    pattern, and inside the feed-forward.

    What later families changed: `norm` "rms" (Zhang & Sennrich 2019); `gated` feed-forwards, activation(x V) · x W
    (Shazeer 2020); no `bias` in dense layers; `scale_embedding` off (embeddings are not multiplied by √D);
    `scale_scores` off (QKᵀ is not divided by √d) and `scale_head` (states are divided by √D before a tied head), as in
    T5; `embedding_norm` and `n_segments` (BERT); `pooler`, a dense layer with tanh on the first state (BERT);
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
    activation: Literal["relu", "gelu", "gelu_tanh", "silu"] = "relu"
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
    head_bias: bool = False
    head: Head | None = None
    init_std: float | None = None

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

    @property
    def head_width(self) -> int:
        """Width of one attention head: `d_head`, or `d_model / n_heads` where that is not given."""
        return self.d_head if self.d_head is not None else self.d_model // self.n_heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values: `n_kv_heads`, or `n_heads` where that is not given."""
        return self.n_kv_heads if self.n_kv_heads is not None else self.n_heads


def _at_least_one(labels: tuple[str, ...]) -> None:
    if not labels:
        raise InputError("'labels' must name at least one label.")
