"""Models with random weights and a byte-level tokenizer of their own, small enough to be made for a test."""

from __future__ import annotations

from pathlib import Path

import tokenizers
import torch
from processes import SENTENCES
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from glassformer.models.config import Config, Learned, MaskedLM, Rotary, Sentence
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder
from glassformer.tasks.model import Model
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>"
CHAT_TOKENS = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
WORD_TOKENS = ["[PAD]", "[CLS]", "[SEP]", "[MASK]"]


def byte_level(specials: list[str], frame: bool = False) -> Tokenizer:
    """A tokenizer of all bytes and a few merges; `frame` puts [CLS] and [SEP] around a text."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([sentence for pair in SENTENCES for sentence in pair], trainer)
    if frame:
        ends = [(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
        backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends)
    return Tokenizer(backend, specials={"eos": specials[0]} if not frame else {})


def save_decoder(folder: Path) -> Path:
    """A decoder that chats, and never ends a text by itself."""
    tokenizer = byte_level(CHAT_TOKENS)
    end = tokenizer.id_of("<|end|>")
    assert end is not None
    config = Config(
        vocab_size=tokenizer.vocab_size,
        d_model=32,
        n_heads=2,
        n_kv_heads=1,
        d_ff=64,
        n_encoder_layers=0,
        n_decoder_layers=2,
        positions=Rotary(),
        max_length=4096,
        norm_first=True,
        dropout=0.0,
        tie_head=False,
        head_bias=True,
        init_std=0.3,
        pad_id=end,
        bos_id=end,
        eos_id=end,
    )
    torch.manual_seed(0)
    network = Decoder(config).eval()
    with torch.no_grad():
        network.head.bias[sorted(tokenizer.special_ids)] = -1e4
    pipeline = TextPipeline(unicode="none", chat_template=TEMPLATE)
    return Model(network, tokenizer, pipeline, "generation").save(folder)


def save_encoder(folder: Path, head: MaskedLM | Sentence) -> Path:
    """An encoder that fills masks or makes vectors, of texts of up to 64 tokens."""
    tokenizer = byte_level(WORD_TOKENS, frame=True)
    config = Config(
        vocab_size=tokenizer.vocab_size,
        d_model=32,
        n_heads=2,
        d_ff=64,
        n_encoder_layers=2,
        n_decoder_layers=0,
        positions=Learned(),
        max_length=64,
        dropout=0.0,
        scale_embedding=False,
        embedding_norm=True,
        n_segments=2,
        head_bias=isinstance(head, MaskedLM),
        head=head,
        init_std=0.3,
    )
    torch.manual_seed(0)
    task = "fill" if isinstance(head, MaskedLM) else "embedding"
    return Model(Encoder(config).eval(), tokenizer, TextPipeline(unicode="none"), task).save(folder)
