"""Weights of 4 and 8 bits: what is rounded, what is kept exactly, and the kernels against plain products."""

import copy
import ctypes
import itertools
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import contracts
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from glassformer.errors import InputError
from glassformer.layers import block, kernels, quantized
from glassformer.layers.kernels.ops import (
    attend_few,
    attend_rows,
    dense_linear,
    int8_linear,
    int8_pack,
    post_norm_rest,
    round_rows,
    scale_rows,
)
from glassformer.layers.linear import Linear
from glassformer.layers.masks import seen_mask
from glassformer.layers.quantized import (
    BLOCK_BYTES,
    Bits,
    QuantizedEmbedding,
    QuantizedLinear,
    as_blocks,
    dequantize,
    quantize,
)
from glassformer.layers.ragged import OwnText, Packing
from glassformer.layers.sites import planned
from glassformer.models.config import Config, Learned, Rotary
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder

needs_compiler = pytest.mark.skipif(kernels.library("generation") is None, reason="there is no C++ compiler")
both = pytest.mark.parametrize("bits", [4, 8])

SMALL = Config(
    vocab_size=50,
    d_model=32,
    n_heads=4,
    n_kv_heads=2,
    d_ff=64,
    n_encoder_layers=0,
    n_decoder_layers=2,
    positions=Rotary(),
    max_length=64,
    norm_first=True,
    norm="rms",
    gated=True,
    activation="silu",
    bias=False,
    dropout=0.0,
)


def weight(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.05


def distance(got: Tensor, wanted: Tensor) -> float:
    return float(((got - wanted).norm() / wanted.norm()).detach())


@both
def test_rounding_is_as_good_as_its_bits(bits: Bits) -> None:
    original = weight(24, 96)
    blocks = quantize(original, bits)
    assert blocks.shape == (24, 3, BLOCK_BYTES[bits]) and blocks.dtype == torch.uint8
    assert distance(dequantize(blocks), original) < {4: 0.08, 8: 0.006}[bits]


@both
def test_what_was_rounded_once_stays(bits: Bits) -> None:
    once = dequantize(quantize(weight(8, 64), bits))
    torch.testing.assert_close(dequantize(quantize(once, bits)), once, rtol=0, atol=2e-4)


@both
def test_zeros_and_constants_are_kept(bits: Bits) -> None:
    for value in (0.0, 0.25):
        blocks = quantize(torch.full((8, 32), value), bits)
        torch.testing.assert_close(dequantize(blocks), torch.full((8, 32), value), rtol=1e-3, atol=0)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_blocks_mean_what_they_mean_in_gguf(kind: str) -> None:
    gguf = pytest.importorskip("gguf", reason="needs the extra gguf")
    stored = gguf.quants.quantize(weight(16, 64).numpy(), getattr(gguf.GGMLQuantizationType, kind))
    wanted = gguf.quants.dequantize(stored, getattr(gguf.GGMLQuantizationType, kind))
    blocks = as_blocks(kind, torch.from_numpy(stored).view(16, 2, -1))
    assert torch.equal(dequantize(blocks), torch.from_numpy(wanted))


@needs_compiler
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 4), st.integers(1, 30), st.sampled_from([4, 8]), st.booleans())
def test_the_product_is_that_of_the_rounded_weight(
    rows: int, groups: int, outputs: int, bits: Bits, biased: bool
) -> None:
    blocks = quantize(weight(outputs, 32 * groups, seed=rows), bits)
    bias = torch.randn(outputs) if biased else None
    x = torch.randn(rows, 32 * groups, generator=torch.Generator().manual_seed(outputs))
    got = QuantizedLinear([blocks], [bias])(x)
    wanted = F.linear(x, dequantize(blocks))
    room = 0.01 * (x.norm(dim=1, keepdim=True) * dequantize(blocks).norm(dim=1)).clamp_min(1e-6)
    assert ((got - (0 if bias is None else bias) - wanted).abs() < room).all()


@needs_compiler
@settings(max_examples=60, deadline=None)
@given(st.integers(1, 31), st.integers(1, 5), st.integers(1, 140), st.sampled_from([4, 8]), st.booleans())
def test_the_product_with_inputs_as_they_are_is_that_of_fp32(
    rows: int, groups: int, outputs: int, bits: Bits, biased: bool
) -> None:
    blocks = quantize(weight(outputs, 32 * groups, seed=rows), bits)
    bias = torch.randn(outputs) if biased else None
    x = torch.randn(rows, 32 * groups, generator=torch.Generator().manual_seed(outputs))
    got = QuantizedLinear([blocks], [bias], rounded=False)(x)
    wanted = F.linear(x.double(), dequantize(blocks).double(), None if bias is None else bias.double())
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=3e-6)


@needs_compiler
@pytest.mark.parametrize("rounded", [True, False], ids=["rounded", "as they are"])
@both
def test_a_row_depends_on_itself_alone(bits: Bits, rounded: bool) -> None:
    """To the bit: in any company, at any place in it."""
    layer = QuantizedLinear([quantize(weight(200, 96), bits)], rounded=rounded)
    x = torch.randn(131, 96)
    together = layer(x)
    for rows in ([0], [130], [7, 3], list(range(60, 71)), list(range(12)), list(range(13)), list(range(130, -1, -1))):
        assert torch.equal(layer(x[rows]), together[rows])


@needs_compiler
@both
def test_inputs_of_any_size_and_none(bits: Bits) -> None:
    blocks = quantize(weight(8, 64), bits)
    for layer in (QuantizedLinear([blocks]), QuantizedLinear([blocks], rounded=False)):
        assert layer(torch.zeros(2, 3, 64)).equal(torch.zeros(2, 3, 8))
        for size in (1e-20, 1e20):
            x = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
            torch.testing.assert_close(layer(x * size) / size, layer(x), rtol=1e-4, atol=1e-5)


@both
def test_several_parts_are_one_layer(bits: Bits) -> None:
    parts = [quantize(weight(n, 64, seed=n), bits) for n in (8, 3, 5)]
    x = torch.randn(4, 64)
    apart = torch.cat([QuantizedLinear([part])(x) for part in parts], 1)
    assert torch.equal(QuantizedLinear(parts)(x), apart)


@needs_compiler
@pytest.mark.parametrize("rounded", [True, False], ids=["rounded", "as they are"])
@both
def test_the_same_is_computed_without_a_compiler(bits: Bits, rounded: bool) -> None:
    blocks = quantize(weight(12, 64), bits)
    kept, bias = blocks.clone(), torch.randn(12)
    x = torch.randn(2, 5, 64)
    x[1, 2, 32:] = 0
    with mock.patch.object(quantized, "library", return_value=None):
        layer = QuantizedLinear([blocks], [bias], rounded=rounded)
        plain = [layer(x, gelu=gelu) for gelu in (False, True)]
        assert not layer.packed
    held = layer.weight
    for gelu, wanted in zip((False, True), plain, strict=True):  # now there is one
        torch.testing.assert_close(layer(x, gelu=gelu), wanted)
    assert layer.packed and layer.weight is held, "compiled code holds the tensor"
    assert torch.equal(blocks, kept), "others may hold the blocks"


@needs_compiler
def test_a_kernel_that_cannot_be_built_is_said_where_it_is_wanted() -> None:
    layer = QuantizedLinear([quantize(weight(12, 64), 4)])
    built = kernels.library("generation")
    with mock.patch.object(quantized, "library", lambda part: None if part == "exact" else built):
        with pytest.raises(InputError, match="without a precision"):
            quantized.unrounded(layer)
        assert quantized.unrounded(Linear(4, 4)) is not None, "a network without such layers needs no kernel"
    assert layer.rounded


VARIANTS = {"plain": [], "AVX2": ["-march=x86-64-v3"]}
"""The paths of the kernels that this machine's own library may not take."""


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The same sources, compiled for a lesser machine."""
    if request.param == "AVX2" and "AVX2" not in torch.backends.cpu.get_cpu_capability().replace("AVX512", "AVX2"):
        pytest.skip("this machine has no AVX2")
    folder, made = Path(torch.__file__).parent, tmp_path_factory.mktemp("kernels") / "variant.so"
    together = made.with_suffix(".cpp")
    sources = [source for part in ("batches", "generation", "exact", "encoding") for source in kernels.SOURCES[part]]  # type: ignore[index]
    together.write_text("".join(f'#include "{source}"\n' for source in sources))
    command = [str(kernels.compiler()), "-O2", "-fopenmp", "-shared", "-fPIC", "-std=c++17", *VARIANTS[request.param]]
    # bound to its own functions: the machine's own library is global and has some of the same names, for wider vectors
    command += ["-Wl,-Bsymbolic", "-o", str(made), str(together), f"-L{folder / 'lib'}", "-ltorch_cpu"]
    subprocess.run([*command, f"-Wl,-rpath,{folder / 'lib'}"], check=True, capture_output=True)
    built = ctypes.CDLL(str(made))
    names: dict[kernels.Part, list[str]] = {
        "generation": ["product", "pack", "attend", "dense"],
        "exact": ["exact"],
        "batches": ["attend_few", "int8_product", "round_rows", "scale_rows", "ragged", "ragged_back"],
        "encoding": ["post_norm"],
    }
    for part, functions in names.items():
        for name in functions:
            own = getattr(kernels.library(part), f"glassformer_{name}")
            getattr(built, f"glassformer_{name}").argtypes = own.argtypes
    return built


@contextmanager
def compiled(built: ctypes.CDLL) -> Iterator[None]:
    """With these kernels. How weights lie in memory is theirs as well: layers are to be made in here."""
    with (
        mock.patch("glassformer.layers.kernels.ops.library", return_value=built),
        mock.patch.object(quantized, "library", return_value=built),
    ):
        yield


@needs_compiler
@both
def test_products_are_the_same_on_lesser_machines(variant: ctypes.CDLL, bits: Bits) -> None:
    def product(x: Tensor, rounded: bool) -> Tensor:
        return QuantizedLinear([quantize(weight(48, 96), bits)], rounded=rounded)(x)

    for rows, rounded in itertools.product((1, 2, 5, 27), (True, False)):
        x = torch.randn(rows, 96)
        own = product(x, rounded)
        with compiled(variant):
            torch.testing.assert_close(product(x, rounded), own, rtol=1e-4, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rows", [1, 2, 5, 27, 200])
def test_bias_and_gelu_come_with_the_product(variant: ctypes.CDLL, bits: Bits, rows: int) -> None:
    blocks, bias, x = quantize(weight(48, 96), bits), torch.randn(48), 3 * torch.randn(rows, 96)
    plain, layer = QuantizedLinear([blocks]), QuantizedLinear([blocks], [bias])
    wanted = plain(x) + bias
    assert torch.equal(layer(x), wanted)
    torch.testing.assert_close(layer(x, gelu=True), F.gelu(wanted), rtol=1e-5, atol=2e-6)
    assert torch.equal(layer(x, gelu=True)[:1], layer(x[:1], gelu=True)), "a row depends on itself alone"
    with compiled(variant):
        again = QuantizedLinear([blocks], [bias])(x, gelu=True)
        torch.testing.assert_close(again, F.gelu(wanted), rtol=1e-4, atol=1e-5)
    layer.rounded = False
    torch.testing.assert_close(layer(x, gelu=True), F.gelu(layer(x)))
    x[-1, 3] = float("nan")
    layer.rounded = True
    assert layer(x, gelu=True)[-1].isnan().any() == layer(x)[-1].isnan().any()


def rest_of_a_block(mixed: Tensor, x: Tensor, bits: Bits) -> tuple[Tensor, Tensor]:
    """All that follows attention in a post-norm block with weights of few bits: in one call, and layer by layer."""
    d, f, generator = x.shape[1], 160, torch.Generator().manual_seed(0)
    shapes = [(d, mixed.shape[1]), (f, d), (d, f)]
    out, up, down = (
        QuantizedLinear([quantize(weight(*shape, seed), bits)], [torch.randn(shape[0], generator=generator)])
        for seed, shape in enumerate(shapes)
    )
    norms = [(torch.randn(d, generator=generator), torch.randn(d, generator=generator), eps) for eps in (1e-5, 1e-2)]

    def norm(y: Tensor, i: int) -> Tensor:
        return F.layer_norm(y, (d,), *norms[i])

    assert all(layer.bias is not None for layer in (out, up, down))
    layers = [(layer.weight, layer.bias, layer.bits) for layer in (out, up, down)]
    h = norm(x + out(mixed), 0)
    return post_norm_rest(mixed, x, layers, norms), norm(h + down(up(h, gelu=True)), 1)  # type: ignore[arg-type]


@needs_compiler
@both
@pytest.mark.parametrize("rows", [1, 5, 16, 100, 331])
def test_the_rest_of_a_block_is_its_layers_one_after_the_other(variant: ctypes.CDLL, bits: Bits, rows: int) -> None:
    """But for numbers that lie between two whole ones and are rounded to the other."""
    generator = torch.Generator().manual_seed(rows)
    mixed, x = torch.randn(rows, 96, generator=generator), torch.randn(rows, 64, generator=generator)
    found, wanted = rest_of_a_block(mixed, x, bits)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.02)
    assert distance(found, wanted) < 1e-3
    for some in ([0], [rows - 1], list(range(rows // 2, rows))):
        assert torch.equal(rest_of_a_block(mixed[some], x[some], bits)[0], found[some]), "a row depends on itself alone"
    with compiled(variant):
        assert distance(rest_of_a_block(mixed, x, bits)[0], found) < 1e-3


@needs_compiler
def test_an_encoder_joins_what_follows_attention() -> None:
    """Where texts lie one behind the other; what is looked into, or not rounded, goes layer by layer."""
    torch.manual_seed(0)
    config = Config(60, None, 64, 4, None, 128, 2, 0, Learned(), 40, False, activation="gelu", dropout=0.0)
    network = contracts.drawn(Encoder(config)).eval()
    running = quantized.quantized(network, 8)
    blocks = list(running.stack.blocks)
    ids = contracts.random_ids(5, 30, config.vocab_size)
    real = torch.arange(30) < torch.tensor([[30], [1], [17], [8], [22]])
    with torch.inference_mode(), mock.patch.object(block, "post_norm_rest", wraps=post_norm_rest) as kernel:
        joined = running.states(ids, real)[real]
        assert kernel.call_count == len(blocks) == 2 and all(each.joins_rest for each in blocks)
        assert distance(running.hidden(ids, real=real)[real], joined) < 0.01 and kernel.call_count == 2
        assert distance(network.hidden(ids, real=real)[real], joined) < 0.03
        looked_into = planned(running, {"residual_mid[0]": lambda value: value})
        assert distance(looked_into.states(ids, real)[real], joined) < 0.01 and kernel.call_count == 2
        plain = quantized.unrounded(running).states(ids, real)[real]
        assert distance(plain, joined) < 0.03 and kernel.call_count == 2
    for other in (replace(config, norm_first=True), replace(config, activation="relu"), replace(config, d_ff=144)):
        built = quantized.quantized(contracts.drawn(Encoder(other)).eval(), 8)
        assert not any(each.joins_rest for each in built.stack.blocks)


@needs_compiler
@pytest.mark.parametrize("d_ff", [128, 144], ids=["all in few bits", "but for the last layer"])
def test_gated_gelu_stays_gated(d_ff: int) -> None:
    torch.manual_seed(0)
    config = Config(60, None, 64, 4, None, d_ff, 2, 0, Learned(), 40, False, activation="gelu", gated=True, dropout=0.0)
    network = contracts.drawn(Encoder(config)).eval()
    running = quantized.quantized(network, 8)
    ids = contracts.random_ids(3, 20, config.vocab_size)
    real = torch.arange(20) < torch.tensor([[20], [3], [9]])
    with torch.inference_mode():
        assert distance(running.states(ids, real)[real], network.hidden(ids, real=real)[real]) < 0.03
    assert not any(each.joins_rest or each.feed_forward.up_has_gelu for each in running.stack.blocks)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_attention_is_the_same_on_lesser_machines(variant: ctypes.CDLL, dtype: torch.dtype) -> None:
    for new in (1, 90):
        with mock.patch("glassformer.layers.kernels.ops.library", return_value=variant):
            attends_like_a_mask(2, (6, 2), new, 150, 20, dtype, seed=new)
            x, matrix = torch.randn(2, 70, dtype=dtype), torch.randn(5, 70, dtype=dtype)
            close(dense_linear(x, matrix), x.float() @ matrix.float().T)


@needs_compiler
def test_texts_behind_each_other_are_the_same_on_lesser_machines(variant: ctypes.CDLL) -> None:
    def found() -> list[Tensor]:
        query, key, value = (torch.randn(1, 4, 40, 20, generator=torch.Generator().manual_seed(i)) for i in range(3))
        texts = Packing.of(torch.arange(23) < torch.tensor([[17], [23]]))
        query, key, value = (x.requires_grad_() for x in (query, key[:, :2], value[:, :2]))
        mixed = OwnText(texts, texts).attend(query, key, value, True, 0.3)
        return [mixed, *torch.autograd.grad(mixed.square().sum(), (query, key, value))]

    own = found()
    with mock.patch("glassformer.layers.kernels.ops.library", return_value=variant):
        for theirs, mine in zip(found(), own, strict=True):
            torch.testing.assert_close(theirs, mine, rtol=1e-4, atol=1e-5)


@needs_compiler
def test_a_step_of_a_translation_is_the_same_on_lesser_machines(variant: ctypes.CDLL) -> None:
    """Attention of a few queries, and what stands around a product of 8-bit numbers."""
    query, keys, values = torch.randn(2, 4, 3, 72), torch.randn(2, 2, 21, 72), torch.randn(2, 2, 21, 72)
    mask = (torch.rand(2, 1, 3, 21) < 0.5).expand(2, 4, 3, 21)
    x, bias = torch.randn(5, 90), torch.randn(90)
    tiles, vectors = int8_pack(torch.randint(-127, 128, (20, 90), dtype=torch.int8)), torch.randn(3, 32)

    def step() -> tuple[Tensor, ...]:
        whole, largest = round_rows(x, 63, 64)
        product = int8_linear(x, tiles, vectors, 20, 63, 64)
        return attend_few(query, keys, values, mask, 0.3), whole, largest, scale_rows(x.clone(), largest, bias), product

    own = step()
    with mock.patch("glassformer.layers.kernels.ops.library", return_value=variant):
        found = step()
    torch.testing.assert_close(found[:-1], own[:-1])
    torch.testing.assert_close(found[-1], own[-1], rtol=1e-5, atol=0.5)  # of numbers of some 100,000


def close(found: Tensor, wanted: Tensor) -> None:
    """`wanted` is fp32; what is found may be rounded once to its own type."""
    step = 2**-8 if found.dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(found.float(), wanted, rtol=step, atol=step)


def attends_like_a_mask(
    rows: int, heads: tuple[int, int], new: int, capacity: int, width: int, dtype: torch.dtype, seed: int
) -> None:
    """New queries see the rows' caches, of unequal lengths, as attention under a mask does; the caches are written."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    n_heads, groups = heads
    lengths = torch.randint(0, capacity - new + 1, (rows,), generator=generator)
    positions = lengths[:, None] + torch.arange(new)
    query, key, value = draw(rows, n_heads, new, width), draw(rows, groups, new, width), draw(rows, groups, new, width)
    keys, values = draw(rows, groups, capacity, width), draw(rows, groups, capacity, width)
    index = positions[:, None, :, None].expand_as(key)
    wanted_keys, wanted_values = keys.scatter(2, index, key), values.scatter(2, index, value)
    shared = [x.float().repeat_interleave(n_heads // groups, 1) for x in (wanted_keys, wanted_values)]
    mask = seen_mask(positions, capacity)
    wanted = F.scaled_dot_product_attention(query.float(), *shared, attn_mask=mask, scale=0.3)
    close(attend_rows(query, key, value, keys, values, positions, 0.3), wanted)
    assert torch.equal(keys, wanted_keys) and torch.equal(values, wanted_values)


@needs_compiler
@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4),
    st.sampled_from([(4, 4), (6, 2), (3, 1)]),
    st.integers(1, 7) | st.integers(8, 160),  # one by one, and in blocks
    st.integers(0, 100),
    st.sampled_from([4, 8, 20, 64]),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(0, 9),
)
def test_attending_equals_a_mask_over_the_cache(
    rows: int, heads: tuple[int, int], new: int, room: int, width: int, dtype: torch.dtype, seed: int
) -> None:
    attends_like_a_mask(rows, heads, new, new + room, width, dtype, seed)


@needs_compiler
@pytest.mark.parametrize("new", [1, 30])
def test_what_is_no_number_stays_none(new: int) -> None:
    query, key = torch.randn(1, 2, new, 16), torch.randn(1, 2, new, 16)
    query[0, 1, -1, 3] = float("nan")
    cache = torch.zeros(2, 1, 2, 64, 16)
    found = attend_rows(query, key, key, *cache, torch.arange(new)[None], 0.3)
    assert found[0, 1, -1].isnan().all() and int(found.isnan().sum()) == 16


@needs_compiler
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 200), st.integers(1, 11), st.sampled_from([torch.float32, torch.bfloat16]))
def test_the_dense_kernel_is_a_product(rows: int, columns: int, outputs: int, dtype: torch.dtype) -> None:
    x, matrix = torch.randn(rows, columns, dtype=dtype), torch.randn(outputs, columns, dtype=dtype)
    found, wanted = dense_linear(x, matrix), x.float() @ matrix.float().T
    torch.testing.assert_close(found.float(), wanted, rtol=2**-7 if dtype == torch.bfloat16 else 1e-4, atol=1e-4)


@needs_compiler
def test_a_large_linear_layer_uses_it_for_a_row() -> None:
    layer, x = Linear(512, 256), torch.randn(1, 1, 512)
    wanted = F.linear(x, layer.weight, layer.bias)
    with torch.no_grad(), mock.patch("glassformer.layers.linear.dense_linear", wraps=dense_linear) as kernel:
        torch.testing.assert_close(layer(x), wanted, rtol=1e-4, atol=1e-4)
        layer(x.expand(1, 9, 512))
    assert kernel.call_count == 1


def test_token_vectors_are_looked_up() -> None:
    blocks = quantize(weight(50, 64), 8)
    ids = torch.tensor([[3, 0], [49, 3]])
    assert torch.equal(QuantizedEmbedding(blocks)(ids), dequantize(blocks)[ids])


@pytest.mark.parametrize(
    "config",
    [SMALL, Config(50, None, 32, 4, None, 64, 0, 2, Learned(), 64, True, dropout=0.0)],
    ids=["gated, shared keys", "plain, biases"],
)
def test_a_network_of_8_bits_says_almost_the_same(config: Config) -> None:
    torch.manual_seed(0)
    network = contracts.drawn(Decoder(config)).eval()
    running = quantized.quantized(network, 8)
    ids = contracts.random_ids(3, 9, config.vocab_size)
    assert distance(running(ids).logits, network(ids).logits) < 0.03
    assert any(isinstance(module, QuantizedLinear) for module in running.modules())
    assert not any(isinstance(module, QuantizedLinear) for module in network.modules()), "the original was touched"


def test_stored_blocks_are_used_as_they_are() -> None:
    torch.manual_seed(0)
    network = contracts.drawn(Decoder(SMALL)).eval()
    name = "stack.blocks.1.feed_forward.down.weight"
    stored = {name: quantize(torch.ones(32, 64), 4)}
    running = quantized.quantized(network, 4, stored)
    down = running.get_submodule("stack.blocks.1.feed_forward.down")
    torch.testing.assert_close(down(torch.ones(1, 64)), torch.full((1, 32), 64.0), rtol=1e-2, atol=0)


def test_with_stored_blocks_alone_the_rest_stays_as_it_is() -> None:
    """And can be rounded then: of parts with one input, as in the feed-forward, one may be stored and another not."""
    torch.manual_seed(0)
    network = contracts.drawn(Decoder(SMALL)).eval()
    weights = dict(network.named_parameters())
    names = [f"stack.blocks.0.{part}.weight" for part in ("feed_forward.up", "self_attention.to_output")]
    running = quantized.quantized(network, None, {name: quantize(weights[name], 4) for name in names})
    found = [name for name, module in running.named_modules() if isinstance(module, QuantizedLinear)]
    assert [f"{name}.weight" for name in sorted(found)] == sorted(names)
    assert torch.equal(running.get_submodule("head").weight, network.get_submodule("head").weight)
    further = quantized.quantized(running, 4)
    assert not any(isinstance(module, Linear) for module in further.modules())
    ids = contracts.random_ids(2, 7, SMALL.vocab_size)
    assert distance(further(ids).logits, quantized.quantized(network, 4)(ids).logits) < 1e-6


@needs_compiler
@both
def test_a_network_with_inputs_as_they_are_says_what_fp32_says(bits: Bits) -> None:
    torch.manual_seed(0)
    network = contracts.drawn(Decoder(SMALL)).eval()
    running = quantized.quantized(network, bits)
    rounded = {name: m for name, m in running.named_modules() if isinstance(m, QuantizedLinear)}
    again = copy.deepcopy(running)
    for name, module in rounded.items():
        plain = Linear(module.in_features, module.out_features, bias=False).requires_grad_(False)
        units = QuantizedLinear.forward  # by unit vectors: rounding inputs leaves those as they are
        plain.weight.copy_(units(module, torch.eye(module.in_features)).t())
        parent, _, own = name.rpartition(".")
        setattr(again.get_submodule(parent), own, plain)
    ids = contracts.random_ids(2, 9, SMALL.vocab_size)
    torch.testing.assert_close(quantized.unrounded(running)(ids).logits, again(ids).logits, rtol=1e-4, atol=1e-5)


def test_an_odd_width_stays_as_it_is() -> None:
    network = Decoder(Config(50, None, 24, 4, None, 64, 0, 1, Learned(), 64, True))
    running = quantized.quantized(network, 4)
    assert isinstance(running.get_submodule("stack.blocks.0.feed_forward.up"), Linear)  # reads 24 numbers
    assert isinstance(running.get_submodule("stack.blocks.0.feed_forward.down"), QuantizedLinear)  # reads 64


@needs_compiler
def test_a_quantised_decoder_writes_alike_in_any_batch() -> None:
    torch.manual_seed(0)
    running = quantized.quantized(contracts.drawn(Decoder(SMALL)).eval(), 4)
    contracts.check_rows_of_their_own_length(running, contracts.random_ids(3, 7, SMALL.vocab_size))
