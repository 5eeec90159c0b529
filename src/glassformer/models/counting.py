"""What a network of a given `Config` is made of and what it costs: parameters by part, memory, FLOPs.

All in closed forms, from the config alone: nothing is built and torch is not imported.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from glassformer.models.config import (
    Classification,
    Config,
    Head,
    Learned,
    MaskedLM,
    Relative,
    Sentence,
    Spans,
    Tagging,
)

Family = Literal["encoder", "decoder", "encoder-decoder"]
Reader = Literal["token", "source token", "target token", "text"]
"""For each of what a part is computed: every token, those of one side, or once a text."""

PRECISIONS = ("fp32", "bf16", "int8", "int4")
_NUMBER_BYTES = {"fp32": 4, "bf16": 2, "int8": 4, "int4": 4}
# Weights are packed in groups of 32 with a scale each, and with 4 bits a minimum (as GGUF's Q8_0 and Q4_1).
_GROUP, _GROUP_BYTES = 32, {"int8": 34, "int4": 20}


@dataclass(frozen=True)
class Part:
    """Parameters of one kind in all layers together, named as sites are: `decoder.self_attention.query`.

    `weights` are those that multiply something once for each `reader`, `width` numbers into one; a tied head has
    weights and no parameters of its own.
    """

    name: str
    parameters: int
    weights: int = 0
    reader: Reader = "token"
    width: int = 0

    def memory(self, precision: str) -> int:
        """Bytes; see `Count.memory`."""
        if precision not in _GROUP_BYTES or not self.weights or self.width % _GROUP:
            return self.parameters * _NUMBER_BYTES[precision]
        in_block = "attention." in self.name or "feed_forward." in self.name
        rest = self.parameters - self.weights if self.parameters >= self.weights else self.parameters
        group = _GROUP_BYTES[precision if in_block else "int8"]
        return self.weights // _GROUP * group + rest * _NUMBER_BYTES[precision]


@dataclass(frozen=True)
class Flops:
    """Floating-point operations for one token (an addition or a multiplication each), forward.

    `weights` is two for each weight that multiplies it; `attention` is the two products QKᵀ and PV over the context,
    4 · context · heads · d a layer. Norms, activations and softmaxes are left out, as is usual.
    """

    weights: int
    attention: int

    @property
    def forward(self) -> int:
        return self.weights + self.attention

    @property
    def training(self) -> int:
        """Forward and backward: the gradient needs twice the forward's products (Kaplan et al. 2020, section 2.1)."""
        return 3 * self.forward


@dataclass(frozen=True)
class Count:
    """The parts of a network, and sums of them."""

    config: Config
    family: Family
    parts: tuple[Part, ...]

    @property
    def total(self) -> int:
        """Parameters of the network, a tied matrix once."""
        return sum(part.parameters for part in self.parts)

    @property
    def embeddings(self) -> int:
        """Parameters of the vectors that ids, positions and segments stand for."""
        return sum(part.parameters for part in self.parts if "embedding." in part.name)

    @property
    def tied(self) -> bool:
        """Whether the head multiplies by the token embedding instead of a matrix of its own."""
        return any(part.parameters < part.weights for part in self.parts)

    def memory(self, precision: str) -> int:
        """Bytes of the weights, as a model of that precision is held.

        In int8 and int4 dense layers are packed in groups of 32 (where their width can be cut so), with int4 those of
        the blocks in 4 bits and the others in 8; all else is fp32. A tied head is then held beside the embedding.
        """
        return sum(part.memory(precision) for part in self.parts)

    def cache(self, precision: str) -> int:
        """Bytes of keys and values for each token of context while decoding; 0 for an encoder.

        A token of the source costs as much as one of the target. With int8 or int4 weights the cache is fp32.
        """
        layers = self.config.n_decoder_layers
        return 2 * layers * self.config.kv_heads * self.config.head_width * _NUMBER_BYTES[precision]

    def flops(self, context: int) -> dict[str, Flops]:
        """FLOPs of a token that attends to `context` positions (of the source too, in an encoder-decoder), by reader.

        What is computed once a text (a pooler, labels of a text) is left out.
        """
        config = self.config
        layer = 4 * context * config.n_heads * config.head_width
        encoder, decoder = config.n_encoder_layers * layer, config.n_decoder_layers * layer
        attention = {"token": encoder + decoder, "source token": encoder, "target token": 2 * decoder}
        readers = ("source token", "target token") if self.family == "encoder-decoder" else ("token",)
        return {
            reader: Flops(2 * sum(part.weights for part in self.parts if part.reader == reader), attention[reader])
            for reader in readers
        }


def family(config: Config) -> Family:
    """Which family's network a config is for: the one that has layers of those kinds."""
    if not config.n_encoder_layers:
        return "decoder"
    return "encoder-decoder" if config.n_decoder_layers else "encoder"


def count(config: Config) -> Count:
    """Count the network of the config's family, part by part."""
    kind, rows, d_model = family(config), config.vocab_size, config.d_model
    if kind != "encoder-decoder":
        n_layers = config.n_encoder_layers or config.n_decoder_layers
        token = Part("embedding.token", rows * d_model)
        head = _word_head(config, "token") if kind == "decoder" else _encoder_head(config)
        return Count(config, kind, (token, *_stack(config, "", n_layers, "token"), *head))
    source = config.source_vocab_size
    tokens = [Part("embedding.token", rows * d_model)]
    if source is not None:
        tokens = [
            Part("encoder.embedding.token", source * d_model),
            Part("decoder.embedding.token", rows * d_model),
        ]
    parts = [
        *tokens,
        *_stack(config, "encoder.", config.n_encoder_layers, "source token"),
        *_stack(config, "decoder.", config.n_decoder_layers, "target token", cross=True),
        *_word_head(config, "target token"),
    ]
    return Count(config, kind, tuple(parts))


def _stack(config: Config, prefix: str, n_layers: int, reader: Reader, cross: bool = False) -> list[Part]:
    """Positions, segments, N blocks and their norms: all of a stack but its token vectors."""
    d_model, parts = config.d_model, []
    if isinstance(config.positions, Learned):
        parts.append(Part(f"{prefix}embedding.position", config.max_length * d_model))
    if config.n_segments:
        parts.append(Part(f"{prefix}embedding.segment", config.n_segments * d_model))
    if isinstance(config.positions, Relative):
        parts.append(Part(f"{prefix}relative_positions", config.positions.buckets * config.n_heads))
    parts += _attention(config, f"{prefix}self_attention", n_layers, reader, reader)
    if cross:
        parts += _attention(config, f"{prefix}cross_attention", n_layers, reader, "source token")
    for name in ("gate", "up", "down") if config.gated else ("up", "down"):
        shape = (config.d_ff, d_model) if name == "down" else (d_model, config.d_ff)
        parts.append(_dense(f"{prefix}feed_forward.{name}", *shape, config.bias, reader, n_layers))
    norms = n_layers * (3 if cross else 2) + config.norm_first + config.embedding_norm
    return [*parts, Part(f"{prefix}norms", norms * _norm(config))]


def _attention(config: Config, name: str, n_layers: int, reader: Reader, looked_up: Reader) -> list[Part]:
    """Four projections in each layer; keys and values are made for each token that is looked up."""
    queries, keys = config.n_heads * config.head_width, config.kv_heads * config.head_width
    shapes: list[tuple[str, int, int, Reader]] = [
        ("query", config.d_model, queries, reader),
        ("key", config.d_model, keys, looked_up),
        ("value", config.d_model, keys, looked_up),
        ("output", queries, config.d_model, reader),
    ]
    return [_dense(f"{name}.{part}", inner, outer, config.bias, who, n_layers) for part, inner, outer, who in shapes]


def _dense(name: str, inner: int, outer: int, bias: bool, reader: Reader, n_layers: int = 1) -> Part:
    return Part(name, n_layers * (inner + bias) * outer, n_layers * inner * outer, reader, inner)


def _norm(config: Config) -> int:
    return config.d_model * (1 if config.norm == "rms" else 2)


def _word_head(config: Config, reader: Reader) -> list[Part]:
    """States to words; a tied one has no matrix of its own."""
    weights = config.vocab_size * config.d_model
    own = (0 if config.tie_head else weights) + (config.vocab_size if config.head_bias else 0)
    return [Part("head", own, weights, reader, config.d_model)]


def _encoder_head(config: Config) -> list[Part]:
    """A pooler where there is one, and what stands in for the word head."""
    d_model, choice = config.d_model, config.head or MaskedLM()
    parts = [_dense("pooler", d_model, d_model, True, "text")] if config.pooler else []
    if isinstance(choice, MaskedLM):
        dense = _dense("head.dense", d_model, d_model, True, "token")
        words = replace(_word_head(config, "token")[0], name="head.words")
        return [*parts, dense, Part("head.norm", _norm(config)), words]
    if not isinstance(choice, Sentence):
        parts.append(
            _dense("head", d_model, _labels(choice), True, "text" if isinstance(choice, Classification) else "token")
        )
    return parts


def _labels(choice: Head) -> int:
    if isinstance(choice, Spans):
        return 2  # the first and the last token
    assert isinstance(choice, Classification | Tagging)
    return len(choice.labels)
