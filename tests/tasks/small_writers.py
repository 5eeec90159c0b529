"""Small models that go on from a prompt, embed or fill, with random weights and a byte-level or WordPiece tokenizer."""

from dataclasses import replace

import tokenizers
import torch
from generation.small_decoders import byte_level, decoder
from tokenizers import models, normalizers, pre_tokenizers, processors

from glassformer.models.config import Config, Head, Learned
from glassformer.models.encoder import Encoder
from glassformer.tasks.model import Model
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

TEMPLATE = (
    "{% for message in messages %}{{ message.role[0] }}:{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)
WORDS = ["a", "man", "rides", "the", "bike", "on", "road", "dog", "##s", "run", "two", "women", "eat"]


def writer(template: str = TEMPLATE, positions: int = 48) -> Model:
    network = decoder(max_length=positions)
    return Model(network, byte_level(), TextPipeline(unicode="none", chat_template=template), "generation")


def word_pieces() -> Tokenizer:
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = tokenizers.decoders.WordPiece()
    backend.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return Tokenizer(backend)


def reader(head: Head | None) -> Model:
    """An encoder with this head; it reads 16 tokens."""
    tokenizer = word_pieces()
    torch.manual_seed(0)
    config = Config(tokenizer.vocab_size, None, 16, 2, None, 24, 2, 0, Learned(), 16, dropout=0.0)
    network = Encoder(replace(config, head=head, eos_id=3, bos_id=2, pooler=False))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.4)
    return Model(network.eval(), tokenizer, TextPipeline(unicode="none"), "embedding")
