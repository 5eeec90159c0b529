"""What a network of a given `Config` is made of and what it costs: parameters by part, memory, FLOPs.

All in closed forms, from the config alone: nothing is built and torch is not imported.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from glassformer.models.config import (
    AnyConfig,
    Banded,
    Classification,
    Config,
    ConvolutionalConfig,
    Head,
    Learned,
    MaskedLM,
    RecurrentConfig,
    Relative,
    Sentence,
    Spans,
    Tagging,
)

Family = Literal["encoder", "decoder", "encoder-decoder", "recurrent", "convolutional"]
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
        packed = self.weights and self.width and self.width % _GROUP == 0
        if precision not in _GROUP_BYTES or not packed:
            return self.parameters * _NUMBER_BYTES[precision]
        in_block = any(kind in self.name for kind in ("attention.", "feed_forward.", "convolution"))
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
    """The parts of a network, and sums of them.

    `attention` has, for each reader, the FLOPs of its attention to one position; `cached` is how many numbers decoding
    keeps for a token of context. Of both, banded layers have the share `banded`, and for `band` positions at most.
    """

    config: AnyConfig
    family: Family
    parts: tuple[Part, ...]
    attention: dict[Reader, int]
    cached: int = 0
    banded: float = 0.0
    band: int = 0

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
        """Bytes of keys and values for each token of context while decoding; 0 where nothing grows with the text.

        A token of the source costs as much as one of the target. With int8 or int4 weights the cache is fp32.
        """
        return self.cached * _NUMBER_BYTES[precision]

    def cache_of(self, context: int, precision: str) -> int:
        """Bytes of keys and values for a whole context: of banded layers, those that a band is wide."""
        return self._attended(context, self.cache(precision))

    def _attended(self, context: int, each: int) -> int:
        """So much for each position of a context, banded layers' share for those in the band alone."""
        banded = round(each * self.banded)
        return context * (each - banded) + min(context, self.band) * banded

    def flops(self, context: int) -> dict[str, Flops]:
        """FLOPs of a token that attends to `context` positions (of the source too, in an encoder-decoder), by reader.

        What is computed once a text (a pooler, labels of a text) is left out.
        """
        return {
            reader: Flops(
                2 * sum(part.weights for part in self.parts if part.reader == reader), self._attended(context, each)
            )
            for reader, each in self.attention.items()
        }


def family(config: AnyConfig) -> Family:
    """Which family's network a config is for; of a `Config`, the one that has layers of those kinds."""
    if isinstance(config, RecurrentConfig):
        return "recurrent"
    if isinstance(config, ConvolutionalConfig):
        return "convolutional"
    if not config.n_encoder_layers:
        return "decoder"
    return "encoder-decoder" if config.n_decoder_layers else "encoder"


def count(config: AnyConfig) -> Count:
    """Count the network of the config's family, part by part."""
    if isinstance(config, RecurrentConfig):
        return _recurrent(config)
    if isinstance(config, ConvolutionalConfig):
        return _convolutional(config)
    kind, layer = family(config), 4 * config.n_heads * config.head_width
    encoder, decoder = config.n_encoder_layers * layer, config.n_decoder_layers * layer
    cached = 2 * config.n_decoder_layers * config.kv_heads * config.head_width
    if kind != "encoder-decoder":
        n_layers = config.n_encoder_layers or config.n_decoder_layers
        token = Part("embedding.token", config.vocab_size * config.d_model)
        head = _word_head(config, "token") if kind == "decoder" else _encoder_head(config)
        parts = (token, *_stack(config, "", n_layers, "token"), *head)
        share, band = config.banded_layers / n_layers, 0
        if isinstance(config.attention, Banded):
            band = config.attention.width
        return Count(config, kind, parts, {"token": encoder + decoder}, cached, share, band)
    parts = (
        *_tokens(config),
        *_stack(config, "encoder.", config.n_encoder_layers, "source token"),
        *_stack(config, "decoder.", config.n_decoder_layers, "target token", cross=True),
        *_word_head(config, "target token"),
    )
    return Count(config, kind, parts, {"source token": encoder, "target token": 2 * decoder}, cached)


def _tokens(config: AnyConfig) -> list[Part]:
    """The vectors of words: one table for both sides, or one for each."""
    rows, source, d_model = config.vocab_size, config.source_vocab_size, config.d_model
    if source is None:
        return [Part("embedding.token", rows * d_model)]
    return [Part("encoder.embedding.token", source * d_model), Part("decoder.embedding.token", rows * d_model)]


def _recurrent(config: RecurrentConfig) -> Count:
    """Two matrices a gate, for what comes in and for the state, each with a bias. Nothing grows with the text."""
    d_model, gates = config.d_model, 4 if config.cell == "lstm" else 1

    def layers(side: str, widths: list[int], reader: Reader, ways: int) -> list[Part]:
        rows = gates * d_model  # of all directions together
        incoming, state = rows * sum(widths), rows * (d_model // ways) * len(widths)
        biases = rows * len(widths)
        return [
            Part(f"{side}.recurrence.input", incoming + biases, incoming, reader),
            Part(f"{side}.recurrence.state", state + biases, state, reader),
        ]

    deeper = [d_model] * (config.n_decoder_layers - 1)
    begins = d_model * (2 if config.cell == "lstm" else 1) * config.n_decoder_layers
    looks = config.attention != "none"
    parts = [
        *_tokens(config),
        *layers("encoder", [d_model] * config.n_encoder_layers, "source token", 2),
        *layers("decoder", [d_model * (1 + config.input_feeding), *deeper], "target token", 1),
        _dense("decoder.bridge", d_model, begins, True, "text"),
        _dense("decoder.found", d_model * (1 + looks), d_model, True, "target token"),
    ]
    if looks:
        parts.append(_dense("decoder.cross_attention.query", d_model, d_model, False, "target token"))
    if config.attention == "additive":
        parts.append(_dense("decoder.cross_attention.key", d_model, d_model, False, "source token"))
        parts.append(Part("decoder.cross_attention.score", d_model))
    parts += _word_head(config, "target token")
    return Count(config, "recurrent", tuple(parts), {"source token": 0, "target token": 4 * d_model * looks})


def _convolutional(config: ConvolutionalConfig) -> Count:
    """A dense layer over each window, to twice the width; in the decoder also attention's two projections."""
    d_model = config.d_model

    def stack(side: str, n_layers: int, reader: Reader) -> list[Part]:
        positions = Part(f"{side}.embedding.position", config.max_length * d_model)
        return [positions, _dense(f"{side}.convolution", config.kernel * d_model, 2 * d_model, True, reader, n_layers)]

    n_layers = config.n_decoder_layers
    parts = (
        *_tokens(config),
        *stack("encoder", config.n_encoder_layers, "source token"),
        *stack("decoder", n_layers, "target token"),
        _dense("decoder.cross_attention.query", d_model, d_model, True, "target token", n_layers),
        _dense("decoder.cross_attention.output", d_model, d_model, True, "target token", n_layers),
        *_word_head(config, "target token"),
    )
    attention: dict[Reader, int] = {"source token": 0, "target token": 4 * d_model * n_layers}
    return Count(config, "convolutional", parts, attention)


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


def _word_head(config: AnyConfig, reader: Reader) -> list[Part]:
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
