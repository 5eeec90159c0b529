"""Compiled steps give what uncompiled ones give; and what is not compiled stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import contracts
import pytest
import torch

from glassformer.generation import code, compiled
from glassformer.generation.code import ENDS, Code, EndPart, Part
from glassformer.generation.compiled import Accelerated, accelerated
from glassformer.generation.ends import end_of
from glassformer.layers import kernels
from glassformer.layers.quantized import quantized, unrounded
from glassformer.layers.sites import planned
from glassformer.models.config import Banded, Config, Learned, Relative, Rotary
from glassformer.models.decoder import Decoder

LLAMA = Config(
    vocab_size=60,
    d_model=64,
    n_heads=4,
    n_kv_heads=2,
    d_ff=96,
    n_encoder_layers=0,
    n_decoder_layers=3,
    positions=Rotary(),
    max_length=400,
    norm_first=True,
    norm="rms",
    gated=True,
    activation="silu",
    bias=False,
    dropout=0.0,
)
GPT2 = replace(
    LLAMA, n_kv_heads=None, positions=Learned(), norm="layer", gated=False, activation="gelu_tanh", bias=True
)
BANDED = replace(GPT2, attention=Banded(24))
ROUNDED = {"rtol": 0.0, "atol": 0.1}  # a hair's breadth decides how an input of a quantised layer is rounded


def network_of(config: Config, bits: int | None = None, rounded: bool = True) -> Decoder:
    torch.manual_seed(0)
    network = contracts.drawn(Decoder(config)).eval().requires_grad_(False)
    network = network if bits is None else quantized(network, bits)  # type: ignore[arg-type]
    return network if rounded else unrounded(network)


def test_small_watched_or_other_networks_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of(LLAMA)
    assert accelerated(network) is network, "too small to be worth it"
    monkeypatch.setattr(compiled, "SMALL", 1)
    assert isinstance(accelerated(network), Accelerated)
    watched = planned(network, {"residual_post[1]": lambda value: value})
    assert accelerated(watched) is watched
    relative = network_of(replace(LLAMA, positions=Relative()))
    assert accelerated(relative) is relative, "its bias is no input of compiled blocks"


@pytest.mark.parametrize("bits", [None, 4, 8])
@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["Llama", "GPT-2"])
def test_a_block_can_be_made_again_from_its_description(config: Config, bits: int | None) -> None:
    block = network_of(config, bits).stack.blocks[0]
    description = Code.of(config, block, "one").description
    again = code._rebuilt(code._bare(config), description["layers"])
    own, other = Code.weights(block), Code.weights(again)
    assert list(own) == list(other)
    assert [(t.shape, t.dtype) for t in own.values()] == [(t.shape, t.dtype) for t in other.values()]


@pytest.mark.parametrize("bits", [None, 4, 8])
@pytest.mark.parametrize("which", ENDS)
@pytest.mark.parametrize("config", [LLAMA, replace(GPT2, head_bias=True)], ids=["Llama", "GPT-2"])
def test_an_end_can_be_made_again_from_its_description(config: Config, which: str, bits: int | None) -> None:
    end = end_of(network_of(config, bits), which)  # type: ignore[arg-type]
    description = Code.of(config, end, which).description  # type: ignore[arg-type]
    again = code._rebuilt_end(code._bare(config, True), description["layers"], which)  # type: ignore[arg-type]
    own, other = Code.weights(end), Code.weights(again)
    assert list(own) == list(other)
    assert [(t.shape, t.dtype) for t in own.values()] == [(t.shape, t.dtype) for t in other.values()]


@pytest.mark.skipif(kernels.library("generation") is None, reason="there is no C++ compiler")
@pytest.mark.parametrize(("kind", "count"), [("one", 7), ("many", 0)])
def test_large_weights_are_read_by_our_own_kernel(kind: code.Kind, count: int) -> None:
    """All seven products of a block that is traced for one row, none where it is for many."""
    config = replace(LLAMA, d_model=256, n_heads=4, n_kv_heads=None, d_ff=512)
    block = Decoder(config).eval().requires_grad_(False).stack.blocks[0]
    with torch.no_grad():
        traced = code._block(code._bare(config), Code.of(config, block, kind).description["layers"], kind)
    targets = [str(node.target) for node in traced.graph.nodes]
    assert targets.count("glassformer.dense_linear.default") == count


def test_blocks_that_are_alike_share_their_code() -> None:
    network = network_of(LLAMA)
    codes = {Code.of(LLAMA, block, "one") for block in network.stack.blocks}
    larger = replace(LLAMA, n_decoder_layers=9, vocab_size=7, max_length=10)
    assert {Code.of(larger, network.stack.blocks[0], "one")} == codes
    assert {Code.of(replace(LLAMA, attention=Banded(8)), network.stack.blocks[0], "one")} == codes
    assert Code.of(LLAMA, network.stack.blocks[0], "many") not in codes
    assert Code.of(LLAMA, network_of(LLAMA, 8).stack.blocks[0], "one") not in codes


def test_bands_run_the_code_of_dense_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of one id by what the code of a full cache is given: positions, keys and values; a prompt uncompiled."""
    network, calls = network_of(BANDED), []

    def run(code: Code, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        if (kind := code.description["kind"]) in ENDS:
            return list(EndPart(end_of(network, kind), {"first": 2, "last": 1}[kind])(*inputs))
        x, positions, keys, values, *weights = inputs
        layer = len(calls) % 3
        calls.append(keys.shape[2])
        part = Part(network.stack.blocks[layer], False)
        return [part(x, positions, keys, values, *weights)]

    monkeypatch.setattr(Code, "ready", lambda code: True)
    monkeypatch.setattr(Code, "run", run)
    fast = Accelerated(network)
    ids = contracts.random_ids(1, 90, BANDED.vocab_size)
    whole, state = network(ids).logits, fast.start(1, 100)
    torch.testing.assert_close(fast.step(ids[:, :20], None, state), whole[:, 19], rtol=1e-3, atol=1e-4)
    assert not calls
    for place in range(20, 90):
        logits = fast.step(ids[:, place : place + 1], None, state)
        torch.testing.assert_close(logits, whole[:, place], rtol=1e-3, atol=1e-4)
    assert calls == [100, 24, 100] * 70


def test_without_code_everything_runs_uncompiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GLASSFORMER_CACHE", str(tmp_path))
    monkeypatch.setattr(kernels, "library", lambda *_: None)
    network = network_of(LLAMA)
    fast = Accelerated(network)
    ids = contracts.random_ids(2, 5, LLAMA.vocab_size)
    states = [network.start(2, 8), fast.start(2, 8)]
    assert torch.equal(network.step(ids, None, states[0]), fast.step(ids, None, states[1]))
    assert not list(tmp_path.iterdir()), "nothing was compiled"
    with pytest.raises(RuntimeError, match="uncompiled"):
        fast.compile("one")


@pytest.mark.slow
@pytest.mark.skipif(kernels.library("generation") is None, reason="there is no C++ compiler")
@pytest.mark.parametrize(
    ("configs", "bits", "rounded"),
    [((LLAMA,), 4, True), ((LLAMA,), 4, False), ((GPT2, BANDED), None, True)],
    ids=["int4", "int4 in fp32", "fp32"],
)
def test_compiled_equals_uncompiled(
    configs: tuple[Config, ...], bits: int | None, rounded: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Prompts of any length, one row and many of unequal length, caches of any capacity: by the same codes of blocks
    and ends, which a banded network has in common with a dense one."""
    monkeypatch.setenv("GLASSFORMER_COMPILE", "1")
    monkeypatch.setenv("GLASSFORMER_CACHE", str(tmp_path))
    tolerance = {"rtol": 1e-3, "atol": 1e-4} if bits is None or not rounded else ROUNDED
    for config in configs:
        network = network_of(config, bits, rounded)
        fast = Accelerated(network)
        fast.compile()
        with monkeypatch.context() as patch:
            if config is not BANDED:
                patch.setattr(Decoder, "read", None)  # falling back is an error
            steps_agree(network, fast, tolerance)
    assert len(list(tmp_path.glob("*.pt2"))) == 5


def steps_agree(network: Decoder, fast: Accelerated, tolerance: dict[str, float]) -> None:
    vocabulary = network.config.vocab_size
    for rows, width, capacity in ((1, 100, 130), (1, 257, 300)):
        ids = contracts.random_ids(rows, width + 20, vocabulary, seed=width)
        whole = network(ids).logits
        state = fast.start(rows, capacity)
        torch.testing.assert_close(fast.step(ids[:, :width], None, state), whole[:, width - 1], **tolerance)
        for place in range(width, width + 20):
            logits = fast.step(ids[:, place : place + 1], None, state)
            torch.testing.assert_close(logits, whole[:, place], **tolerance)
    for rows, capacity in ((2, 33), (17, 64)):
        ids = contracts.random_ids(rows, 12, vocabulary, seed=rows)
        whole, state = network(ids).logits, fast.start(rows, capacity)
        for place in range(12):
            logits = fast.step(ids[:, place : place + 1], None, state)
            torch.testing.assert_close(logits, whole[:, place], **tolerance)
