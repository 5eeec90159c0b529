"""CTranslate2's side of `translation_decoding.py`; runs in CTranslate2's own environment.

Builds a Transformer from the arrays that our network was saved as, so both sides decode with the same weights.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ctranslate2
import numpy
from conversation import serve
from ctranslate2.specs import Activation, TransformerSpec

RUN = tempfile.TemporaryDirectory(prefix="ctranslate2-")
TRANSLATORS: dict[str, ctranslate2.Translator] = {}
SOURCES: dict[str, list[list[str]]] = {}
SPECIAL = ["<blank>", "<s>", "</s>", "<unk>"]


def build(size: str, weights: str, layers: int, heads: int, threads: int, compute_types: list[str]) -> dict[str, Any]:
    """Convert `weights` (.npz: our parameters' names, `source` ids) and open one translator a compute type."""
    with numpy.load(weights, allow_pickle=False) as arrays:
        named = {name: arrays[name] for name in arrays}
    source = named.pop("source")
    tokens = SPECIAL + [f"t{number}" for number in range(len(SPECIAL), len(named["head.weight"]))]
    SOURCES[size] = [[tokens[number] for number in row] for row in source.tolist()]
    folder = Path(RUN.name) / size
    folder.mkdir()
    spec(named, layers, heads, tokens).save(str(folder))
    for kind in compute_types:
        TRANSLATORS[f"{size} {kind}"] = ctranslate2.Translator(str(folder), compute_type=kind, intra_threads=threads)
    return {"ctranslate2": ctranslate2.__version__, "python": sys.version.split()[0]}


def spec(named: dict[str, Any], layers: int, heads: int, tokens: list[str]) -> TransformerSpec:
    """A post-norm ReLU Transformer with our weights."""
    made = TransformerSpec.from_config((layers, layers), heads, pre_norm=False, activation=Activation.RELU)
    made.encoder.embeddings[0].weight = named["encoder.embedding.token.weight"]
    made.decoder.embeddings.weight = named["decoder.embedding.token.weight"]
    made.encoder.position_encodings.encodings = named["encoder.embedding.position"]
    made.decoder.position_encodings.encodings = named["decoder.embedding.position"]
    made.decoder.projection.weight = named["head.weight"]
    made.decoder.projection.bias = numpy.zeros(len(tokens), numpy.float32)
    for number, layer in enumerate(made.encoder.layer):
        block = f"encoder.blocks.{number}"
        self_attention(layer.self_attention, named, block)
        feed_forward(layer.ffn, named, block, "norm_2")
    for number, layer in enumerate(made.decoder.layer):
        block = f"decoder.blocks.{number}"
        self_attention(layer.self_attention, named, block)
        cross_attention(layer.attention, named, block)
        feed_forward(layer.ffn, named, block, "norm_3")
    made.register_source_vocabulary(tokens)
    made.register_target_vocabulary(tokens)
    made.validate()
    made.optimize()
    return made


def self_attention(layer: Any, named: dict[str, Any], block: str) -> None:
    attention = f"{block}.self_attention"
    linear(layer.linear[0], named, *(f"{attention}.to_{part}" for part in ("query", "key", "value")))
    linear(layer.linear[1], named, f"{attention}.to_output")
    norm(layer.layer_norm, named, f"{block}.norm_1")


def cross_attention(layer: Any, named: dict[str, Any], block: str) -> None:
    attention = f"{block}.cross_attention"
    linear(layer.linear[0], named, f"{attention}.to_query")
    linear(layer.linear[1], named, f"{attention}.to_key", f"{attention}.to_value")
    linear(layer.linear[2], named, f"{attention}.to_output")
    norm(layer.layer_norm, named, f"{block}.norm_2")


def feed_forward(layer: Any, named: dict[str, Any], block: str, norm_name: str) -> None:
    linear(layer.linear_0, named, f"{block}.feed_forward.up")
    linear(layer.linear_1, named, f"{block}.feed_forward.down")
    norm(layer.layer_norm, named, f"{block}.{norm_name}")


def linear(layer: Any, named: dict[str, Any], *names: str) -> None:
    """One linear layer, or several of ours stacked into one."""
    layer.weight = numpy.concatenate([named[f"{name}.weight"] for name in names])
    layer.bias = numpy.concatenate([named[f"{name}.bias"] for name in names])


def norm(layer: Any, named: dict[str, Any], name: str) -> None:
    layer.gamma, layer.beta = named[f"{name}.weight"], named[f"{name}.bias"]


def translate(size: str, compute_type: str, beam: int, length: int) -> dict[str, Any]:
    """Decode all sources to exactly `length` tokens; the seconds, and the best hypothesis of each source as ids."""
    translator, sources = TRANSLATORS[f"{size} {compute_type}"], SOURCES[size]
    begin = time.perf_counter()
    results = translator.translate_batch(
        sources,
        beam_size=beam,
        min_decoding_length=length,
        max_decoding_length=length,
        max_batch_size=len(sources),
    )
    seconds = time.perf_counter() - begin
    ids = [[identity(token) for token in result.hypotheses[0]] for result in results]
    return {"seconds": seconds, "ids": ids}


def identity(token: str) -> int:
    return SPECIAL.index(token) if token in SPECIAL else int(token[1:])


if __name__ == "__main__":
    serve({"build": build, "translate": translate})
