"""Closed forms against the networks themselves, in every family and choice; memory, caches and FLOPs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from glassformer.checkpoints.families import families, family_of
from glassformer.layers.linear import Linear
from glassformer.layers.quantized import quantized
from glassformer.models.config import (
    AnyConfig,
    Classification,
    Config,
    ConvolutionalConfig,
    Learned,
    MaskedLM,
    RecurrentConfig,
    Relative,
    Rotary,
    Sentence,
    Spans,
    Tagging,
)
from glassformer.models.counting import Count, count

BOTH = Config(vocab_size=40, d_model=16, n_heads=2, d_ff=24, n_encoder_layers=2, n_decoder_layers=3, max_length=32)
DECODER = replace(BOTH, n_encoder_layers=0)
ENCODER = replace(BOTH, n_decoder_layers=0, positions=Learned(), embedding_norm=True, n_segments=2)
CONFIGS = {
    "paper": BOTH,
    "untied, two vocabularies": replace(BOTH, tie_head=False, source_vocab_size=50, head_bias=True),
    "learned positions": replace(BOTH, positions=Learned(), norm_first=True),
    "T5": replace(BOTH, positions=Relative(8), norm="rms", bias=False, norm_first=True, gated=True, scale_head=True),
    "GPT": replace(DECODER, positions=Learned(), norm_first=True),
    "Llama": replace(DECODER, positions=Rotary(), n_kv_heads=1, norm="rms", bias=False, gated=True, norm_first=True),
    "wide heads, untied": replace(DECODER, d_head=6, n_heads=5, tie_head=False),
    "BERT": replace(ENCODER, head_bias=True, pooler=True),
    "masked words": replace(ENCODER, head=MaskedLM()),
    "labels": replace(ENCODER, head=Classification(("a", "b", "c")), pooler=True),
    "tags": replace(ENCODER, head=Tagging(("a", "b", "c")), n_segments=0),
    "spans": replace(ENCODER, head=Spans(), embedding_norm=False),
    "sentences": replace(ENCODER, head=Sentence(), norm="rms"),
}
RECURRENT = RecurrentConfig(vocab_size=40, d_model=16, n_decoder_layers=2)
CONVOLUTIONAL = ConvolutionalConfig(vocab_size=40, d_model=16, n_encoder_layers=2, n_decoder_layers=3)
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def network_of(config: AnyConfig) -> nn.Module:
    network: nn.Module = families[count(config).family].network(config)
    return network.eval()


def part_of(parameter: str, counted: Count) -> str:
    """`decoder.blocks.0.self_attention.to_query.bias` → `decoder.self_attention.query`."""
    name = re.sub(r"^stack\.|blocks\.\d+\.|to_|\.(weight|bias)$", "", parameter)
    name = re.sub(r"(^|\.)(norm_\d|final_norm|embedding\.norm)$", r"\1norms", name)
    name = {"pooler.dense": "pooler", "head.labels": "head"}.get(name, name.replace("relative", "relative_positions"))
    shared = name == "encoder.embedding.token" and counted.config.source_vocab_size is None
    return "embedding.token" if shared else name


@every_config
def test_every_part_counts_as_the_network_has_it(config: Config) -> None:
    counted, network = count(config), network_of(config)
    assert family_of(network) == counted.family
    found: Counter[str] = Counter()
    for name, parameter in network.named_parameters():
        found[part_of(name, counted)] += parameter.numel()
    assert {part.name: part.parameters for part in counted.parts if part.parameters} == dict(found)
    assert counted.total == sum(parameter.numel() for parameter in network.parameters())
    tables = [part for name, part in found.items() if re.search(r"embedding\.(token|position|segment)$", name)]
    assert counted.embeddings == sum(tables)


@every_config
def test_weights_are_those_of_the_dense_layers(config: Config) -> None:
    dense = [module for module in network_of(config).modules() if isinstance(module, Linear)]
    assert sum(part.weights for part in count(config).parts) == sum(layer.weight.numel() for layer in dense)


@pytest.mark.parametrize("name", ["GPT", "Llama", "wide heads, untied", "BERT", "spans"])
def test_flops_are_what_torch_counts(name: str) -> None:
    """Over a whole text, every token attends to as many positions as the text has."""
    config, length = CONFIGS[name], 7
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        network_of(replace(config, pooler=False))(torch.full((1, length), 5))
    flops = count(config).flops(length)
    assert list(flops) == ["token"]
    assert counter.get_total_flops() == length * flops["token"].forward
    assert flops["token"].training == 3 * flops["token"].forward


def test_flops_of_both_sides_are_what_torch_counts() -> None:
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        network_of(BOTH)(torch.full((1, 7), 5), torch.full((1, 7), 5))
    flops = count(BOTH).flops(7)
    assert counter.get_total_flops() == 7 * sum(side.forward for side in flops.values())
    assert set(flops) == {"source token", "target token"}


@pytest.mark.parametrize("name", ["GPT", "Llama"])
def test_the_cache_is_as_large_as_the_state(name: str) -> None:
    state = network_of(CONFIGS[name]).start(1, 20)
    held = sum(tensor.numel() * tensor.element_size() for tensor in (state.keys, state.values))
    counted = count(CONFIGS[name])
    assert 20 * counted.cache("fp32") == held
    assert 2 * counted.cache("bf16") == counted.cache("fp32") == counted.cache("int4")
    assert count(ENCODER).cache("fp32") == 0


def held(network: nn.Module) -> int:
    """Bytes of what a network keeps, a shared tensor once; tables that are computed are not counted."""
    kept = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    tables = {id(tensor) for name, tensor in network.named_buffers() if name.endswith((".cos", ".sin", ".position"))}
    return sum(tensor.numel() * tensor.element_size() for key, tensor in kept.items() if key not in tables)


# Sizes that need no rows of padding in a kernel's tiles.
WIDE = {
    "GPT": replace(CONFIGS["GPT"], d_model=64, d_ff=96, vocab_size=48),
    "Llama": replace(CONFIGS["Llama"], d_model=64, d_ff=96, vocab_size=48, tie_head=False),
    "some layers cannot be cut": replace(DECODER, d_model=64, d_ff=48, vocab_size=48),
    "paper": replace(BOTH, d_model=64, d_ff=96, vocab_size=48),
    "BERT": replace(CONFIGS["BERT"], d_model=64, d_ff=96, vocab_size=48),
}


@pytest.mark.parametrize("config", WIDE.values(), ids=WIDE.keys())
def test_memory_is_what_the_networks_hold(config: Config) -> None:
    counted, network = count(config), network_of(config)
    assert counted.memory("fp32") == held(network) == 2 * counted.memory("bf16")
    assert counted.memory("int8") == held(quantized(network, 8))
    assert counted.memory("int4") == held(quantized(network, 4))


def test_counting_needs_no_torch() -> None:
    code = (
        "import sys; from glassformer.models import counting, sizes;"
        "print(counting.count(sizes.sizes['gpt3-175b']).total); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "174604259328\n")


@pytest.mark.parametrize(
    "config",
    [
        RECURRENT,
        replace(RECURRENT, cell="rnn", attention="additive", input_feeding=True, n_encoder_layers=2),
        replace(RECURRENT, attention="none", tie_head=False, source_vocab_size=50, head_bias=True),
        CONVOLUTIONAL,
        replace(CONVOLUTIONAL, kernel=5, tie_head=False, source_vocab_size=50, n_encoder_layers=4),
    ],
)
def test_what_the_transformer_replaced(config: RecurrentConfig | ConvolutionalConfig) -> None:
    """Every parameter is in a part; FLOPs are those that torch counts, attention's included."""
    counted, network = count(config), network_of(config)
    assert counted.total == sum(parameter.numel() for parameter in network.parameters())
    assert counted.cache("fp32") == 0
    read = {"source token": 12, "target token": 9, "text": 1, "token": 0}
    # torch's counter does not see into the kernel of an LSTM
    opaque = isinstance(config, RecurrentConfig)
    seen = [part for part in counted.parts if not (opaque and "recurrence" in part.name)]
    looks = counted.attention["target token"] * 9 * 12
    expected = looks + sum(2 * part.weights * read[part.reader] for part in seen)
    with FlopCounterMode(display=False) as measured:
        network(torch.full((1, 12), 5), torch.full((1, 9), 6))
    inside = sum(2 * part.weights * read[part.reader] for part in counted.parts if part not in seen)
    assert measured.get_total_flops() in (expected, expected + inside)
