"""`Config`: what every Transformer of this package is made of, in the field's own terms."""

from dataclasses import dataclass
from typing import Literal

from glassformer.errors import InputError


@dataclass(frozen=True)
class Sinusoidal:
    """Fixed sines and cosines of geometrically growing wavelength (Vaswani et al. 2017, section 3.5)."""


@dataclass(frozen=True)
class Learned:
    """One trained vector a position (Gehring et al. 2017; the alternative of Vaswani et al. 2017, table 3 row E)."""


@dataclass(frozen=True)
class Config:
    """Shape and choices of a Transformer; frozen, compared by value, saved with every checkpoint.

    Defaults are the base model of Vaswani et al. 2017, table 3. `d_head` is `d_model / n_heads` unless given.
    `source_vocab_size` is None where source and target share one vocabulary and one embedding (section 3.4);
    `tie_head` shares the target embedding with the output projection. `max_length` is the most positions a sequence
    may have. The three dropouts: on every sub-layer's output and on the embeddings (the paper's), on the attention
    pattern, and inside the feed-forward.
    """

    vocab_size: int
    source_vocab_size: int | None = None
    d_model: int = 512
    n_heads: int = 8
    d_head: int | None = None
    d_ff: int = 2048
    n_encoder_layers: int = 6
    n_decoder_layers: int = 6
    positions: Sinusoidal | Learned = Sinusoidal()
    max_length: int = 1024
    norm_first: bool = False
    norm_eps: float = 1e-5
    activation: Literal["relu", "gelu"] = "relu"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    tie_head: bool = True
    pad_id: int = 0
    bos_id: int = 1
    eos_id: int = 2

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "n_heads", "d_ff", "max_length"):
            if getattr(self, name) < 1:
                raise InputError(f"'{name}' must be at least 1, got {getattr(self, name)}.")
        for name in ("n_encoder_layers", "n_decoder_layers"):
            if getattr(self, name) < 0:
                raise InputError(f"'{name}' must not be negative, got {getattr(self, name)}.")
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"'{name}' must be in [0, 1), got {getattr(self, name)}.")
        if self.d_head is None and self.d_model % self.n_heads:
            raise InputError(
                f"'d_model' ({self.d_model}) must be a multiple of 'n_heads' ({self.n_heads}), or 'd_head' be given."
            )

    @property
    def head_width(self) -> int:
        """Width of one attention head: `d_head`, or `d_model / n_heads` where that is not given."""
        return self.d_head if self.d_head is not None else self.d_model // self.n_heads
