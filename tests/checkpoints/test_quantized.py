"""Checkpoints of 4 and 8 bits: smaller, exact where the source was, and read as they are or as fp32."""

from __future__ import annotations

from pathlib import Path

import contracts
import pytest
import torch

from glassformer.checkpoints import native
from glassformer.checkpoints.opening import open_model
from glassformer.checkpoints.quantized import save_quantized
from glassformer.errors import InputError
from glassformer.layers.kernels import library
from glassformer.layers.quantized import QuantizedLinear, dequantize, quantize, quantized
from glassformer.models.config import Config, Rotary
from glassformer.models.decoder import Decoder
from glassformer.tasks.model import Model
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["a man rides a bike on the road"] * 3, "character", 40)
CONFIG = Config(
    vocab_size=TOKENIZER.vocab_size,
    d_model=64,
    n_heads=4,
    n_kv_heads=2,
    d_ff=96,
    n_encoder_layers=0,
    n_decoder_layers=2,
    positions=Rotary(),
    max_length=64,
    norm_first=True,
    norm="rms",
    gated=True,
    activation="silu",
    bias=False,
    scale_embedding=False,
    dropout=0.0,
)
IDS = contracts.random_ids(2, 9, CONFIG.vocab_size)


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = contracts.drawn(Decoder(CONFIG)).eval()
    return native.save(tmp_path / "dense", network, TOKENIZER, TextPipeline(unicode="none"), "generation")


@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_a_quantised_checkpoint_is_read_both_ways(dense: Path, tmp_path: Path, precision: str) -> None:
    small = save_quantized(dense, tmp_path / "small", precision)
    assert (small / native.WEIGHTS).stat().st_size < (dense / native.WEIGHTS).stat().st_size * 0.5
    running, numbers = open_model(small, stored=True), open_model(small)
    assert any(isinstance(module, QuantizedLinear) for module in running.network.modules())
    assert not any(isinstance(module, QuantizedLinear) for module in numbers.network.modules())
    with torch.no_grad():
        wanted, got = numbers.network(IDS).logits, running.network(IDS).logits
        assert (got - wanted).norm() / wanted.norm() < 0.03, "only the inputs are rounded further"
    original = open_model(dense).network.state_dict()["stack.blocks.0.feed_forward.down.weight"]
    kept = numbers.network.state_dict()["stack.blocks.0.feed_forward.down.weight"]
    assert torch.equal(kept, dequantize(quantize(original, 4 if precision == "int4" else 8)))


@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_fp32_computes_with_what_is_stored(dense: Path, tmp_path: Path, precision: str) -> None:
    """Small in memory where there is a compiler, and in any case the logits of fp32 weights."""
    small = save_quantized(dense, tmp_path / "small", precision)
    model = Model.load(small, precision="fp32")
    few = [module for module in model.network.modules() if isinstance(module, QuantizedLinear)]
    assert bool(few) == (library("generation") is not None) and not any(module.rounded for module in few)
    with torch.no_grad():
        wanted, got = Model.load(small).network(IDS).logits, model.network(IDS).logits
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_fp32_of_a_model_without_such_weights_builds_nothing(dense: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    monkeypatch.setattr("glassformer.layers.quantized.library", built.append)
    network = Model.load(dense, precision="fp32").network
    assert not built and not any(isinstance(module, QuantizedLinear) for module in network.modules())


def test_the_verbs_take_it(dense: Path, tmp_path: Path) -> None:
    small = save_quantized(dense, tmp_path / "small", "int8")
    for precision in ("stored", "fp32", "int8", "int4", None):
        generation = Model.load(small, precision=precision).generate("a man", max_new_tokens=4, ignore_eos=True)
        assert len(generation.ids) == 4


def test_what_is_quantised_is_not_saved_as_if_it_were_not(dense: Path, tmp_path: Path) -> None:
    small = save_quantized(dense, tmp_path / "small", "int4")
    models = [Model.load(dense, precision="int4"), Model.load(small, precision="stored")]
    if library("generation") is not None:
        models.append(Model.load(small, precision="fp32"))
    for model in models:
        for save in (model.save, model.save_pretrained):
            with pytest.raises(InputError, match="running only; load it without a precision"):
                save(tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_an_unknown_precision_is_refused(dense: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="int4, int8, got 'int3'"):
        save_quantized(dense, tmp_path / "small", "int3")


def test_older_checkpoints_say_format_1(dense: Path, tmp_path: Path) -> None:
    assert native.read_index(dense).format == 1
    assert native.read_index(save_quantized(dense, tmp_path / "small", "int8")).format == 2


def test_blocks_of_no_known_size_are_refused(dense: Path, tmp_path: Path) -> None:
    held = open_model(dense)
    blocks = {"head.weight": torch.zeros(CONFIG.vocab_size, 2, 7, dtype=torch.uint8)}
    arguments = (held.network, held.tokenizer, held.pipeline, held.task)
    folder = native.save(tmp_path / "odd", *arguments, blocks=blocks, precision="int4")
    with pytest.raises(InputError, match="blocks of 4 or 8 bits"):
        native.load(folder)


def test_a_copy_for_running_is_told_apart(dense: Path) -> None:
    network = open_model(dense).network
    assert isinstance(quantized(network, 4), Decoder)
