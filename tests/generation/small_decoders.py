"""Small decoders with random weights and a byte-level tokenizer: outputs differ, and change as they go on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch import Tensor

from glassformer.generation.sampling import Sampling, generator_of
from glassformer.models.config import Config, Learned, Rotary
from glassformer.models.decoder import Decoder
from glassformer.text.tokenizer import Tokenizer

TEXT = 'a man in blue shirt rides the bike on the road, while two women eat über naïve 日本語 {"a": 1}.'
END = 0
POSITIONS = 48


@cache
def byte_level() -> Tokenizer:
    """Byte-level BPE as in GPT-2, trained on one line; `<|endoftext|>` is id 0."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([TEXT] * 3, trainer)
    return Tokenizer(backend)


@cache
def decoder(rotary: bool = False, vocab_size: int = 300, **changes: Any) -> Decoder:
    """Two layers of width 32; rotary positions with shared keys, or learned ones."""
    torch.manual_seed(1)
    shape = {"d_model": 32, "n_heads": 4, "d_ff": 48, "max_length": POSITIONS, **changes}
    config = Config(
        vocab_size,
        n_encoder_layers=0,
        n_decoder_layers=2,
        positions=Rotary() if rotary else Learned(),
        n_kv_heads=2 if rotary else None,
        norm_first=True,
        tie_head=False,
        dropout=0.0,
        pad_id=END,
        bos_id=END,
        eos_id=END,
        **shape,
    )
    network = Decoder(config)
    with torch.no_grad():
        network.head.weight.normal_(std=0.6)
        if not rotary:
            network.stack.embedding.position.normal_(std=0.5)
    return network.eval()


@dataclass
class Row:
    """What choosing a token depends on, beside the logits."""

    sampling: Sampling
    ids: Sequence[int] = (1, 2)
    generator: torch.Generator = field(default_factory=lambda: generator_of(0))
    mask: Tensor | None = None

    def allowed(self) -> Tensor | None:
        return self.mask
