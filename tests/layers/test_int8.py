"""Dense layers and whole networks with 8-bit weights."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import glassformer as gf
from glassformer.errors import InputError
from glassformer.generation.decoding import greedy
from glassformer.layers.int8 import LEVELS, ZERO, Int8Linear, _round, int8
from glassformer.layers.kernels import library
from glassformer.layers.kernels.ops import int8_linear, int8_pack, round_rows, scale_rows
from glassformer.layers.linear import Linear
from tests.contracts import pad, random_ids


def network(seed: int = 0, norm_first: bool = True) -> gf.EncoderDecoder:
    torch.manual_seed(seed)
    config = gf.Config(vocab_size=50, d_model=32, n_heads=4, d_ff=64, norm_first=norm_first, dropout=0.0)
    return gf.EncoderDecoder(config).eval()


@pytest.fixture(params=["ours", "oneDNN's"])
def product(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both products, whichever is the quicker one here."""
    own = request.param == "ours"
    if own and library("batches") is None:
        pytest.skip("there is no C++ compiler")
    monkeypatch.setattr("glassformer.layers.int8.own_is_quick", lambda: own)


both_products = pytest.mark.usefixtures("product")


@both_products
@pytest.mark.parametrize("shape", [(1, 16), (5, 16), (2, 3, 16), (0, 16)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_product_is_that_of_the_dense_layer_but_for_rounding(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(16, 40, bias=bias), torch.randn(shape)
    exact, rounded = linear(x), Int8Linear(linear)(x)
    assert rounded.shape == exact.shape
    assert (rounded - exact).norm() <= 0.03 * exact.norm()


@both_products
def test_whole_numbers_within_the_levels_are_exact() -> None:
    """All-extreme inputs too: two of their products must fit into the 16 bits that AVX2 adds them in."""
    torch.manual_seed(0)
    linear = nn.Linear(64, 8, bias=False)
    linear.weight.data = torch.randint(-127, 128, (8, 64)).float()
    linear.weight.data[:, 0] = 127
    x = torch.randint(-63, 64, (6, 64)).float()
    x[:, 0], x[0], x[1] = 63, 63, -63
    linear.weight.data[0] = 127
    torch.testing.assert_close(Int8Linear(linear)(x), linear(x), rtol=1e-5, atol=1e-2)


@both_products
def test_a_row_does_not_depend_on_its_neighbours() -> None:
    torch.manual_seed(0)
    layer, x = Int8Linear(nn.Linear(16, 24)), torch.randn(7, 16)
    x[3] *= 1000
    x[4] = 0
    assert torch.equal(layer(x), torch.cat([layer(row[None]) for row in x]))


@both_products
def test_layers_with_one_input_become_one() -> None:
    layers, x = [nn.Linear(8, 4) for _ in range(3)], torch.randn(5, 8)
    torch.testing.assert_close(Int8Linear(*layers)(x), torch.cat([Int8Linear(one)(x) for one in layers], -1))


@both_products
@pytest.mark.parametrize("norm_first", [True, False])
def test_a_network_says_almost_the_same_and_stays_as_it_was(norm_first: bool) -> None:
    whole = network(norm_first=norm_first)
    source, target = random_ids(4, 9, 50), random_ids(4, 7, 50, seed=1)
    before = whole(source, target).logits
    small = int8(whole)
    assert not any(isinstance(module, Linear) for module in small.modules())
    assert torch.equal(whole(source, target).logits, before)
    after = small(source, target).logits
    assert (after - before).norm() < 0.1 * before.norm()
    padded = small(pad(source, 3), pad(target, 2)).logits[:, :7]
    assert (padded - after).norm() < 0.05 * after.norm()


def test_it_decodes() -> None:
    found = greedy(int8(network()), random_ids(3, 6, 50), max_length=5, min_length=5)
    assert [len(one.ids) for one in found] == [5, 5, 5]


@both_products
def test_a_site_is_seen_in_a_copy_with_small_weights() -> None:
    from glassformer.layers.sites import record

    watched, values = record(int8(network()), ["decoder.self_attention.query[1]"])
    watched(random_ids(2, 5, 50), random_ids(2, 4, 50))
    assert values["decoder.self_attention.query[1]"].shape == (2, 4, 4, 8)


def test_loading_and_saving(tmp_path: Path) -> None:
    tokenizer = gf.Tokenizer.train(["a b c d e"] * 3, kind="word", vocab_size=20)
    torch.manual_seed(0)
    config = gf.Config(vocab_size=tokenizer.vocab_size, d_model=32, n_heads=4, d_ff=64, max_length=20)
    gf.Model(gf.EncoderDecoder(config).eval(), tokenizer, gf.TextPipeline()).save(tmp_path / "model")
    small = gf.load(tmp_path / "model", precision="int8")
    assert small.translate(["a b c"], max_length=4)[0].ids
    assert gf.load(tmp_path / "model", precision="bf16").network.head.weight.dtype == torch.bfloat16
    with pytest.raises(InputError, match="for running only"):
        small.save(tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(InputError, match="'precision' must be one of fp32, bf16, int8.*Did you mean 'int8'"):
        gf.load(tmp_path / "model", precision="int9")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="CPU only"):
        int8(gf.EncoderDecoder(config).to("meta"))


def test_a_torch_without_the_product_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(torch.ops.onednn, "qlinear_prepack", missing)
    monkeypatch.setattr("glassformer.layers.int8.own_is_quick", lambda: False)
    with pytest.raises(InputError, match="no kernel.*use fp32"):
        int8(network())


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9),
    width=st.integers(1, 80),
    scale=st.sampled_from([0.0, 1e-20, 1.0, 1e20]),
    seed=st.integers(0, 99),
)
def test_the_kernels_round_and_scale_as_torch_does(rows: int, width: int, scale: float, seed: int) -> None:
    if library("batches") is None:
        pytest.skip("there is no C++ compiler")
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=generator) * scale
    (whole, largest), (torchs, wanted) = round_rows(x, LEVELS, ZERO), _round(x)
    assert torch.equal(largest, wanted)
    # a product that ends between two whole numbers may be rounded to either
    assert (whole.int() - torchs.int()).abs().max() <= 1 and (whole != torchs).float().mean() < 0.05
    assert whole.min() >= ZERO - LEVELS and whole.max() <= ZERO + LEVELS
    y, bias = torch.randn(rows, width, generator=generator), torch.randn(width, generator=generator)
    torch.testing.assert_close(scale_rows(y.clone(), largest, bias), y * largest + bias)
    torch.testing.assert_close(scale_rows(y.clone(), largest, None), y * largest)


@both_products
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 63, 69])
def test_what_is_no_number_stays_none(odd: float, place: int) -> None:
    """Broken weights must not be answered with numbers; other rows are as they were."""
    layer, x = Int8Linear(nn.Linear(70, 24)), torch.randn(3, 70)
    whole = layer(x)
    x[1, place] = odd
    broken = layer(x)
    assert broken[1].isnan().all() and torch.equal(broken[::2], whole[::2])


def test_it_is_the_same_where_there_is_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(64, 24), torch.randn(2, 7, 64)
    quick = Int8Linear(linear)(x)
    monkeypatch.setattr("glassformer.layers.int8.library", lambda *_: None)
    torch.testing.assert_close(Int8Linear(linear)(x), quick, rtol=0.0, atol=0.03)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 20) | st.integers(90, 200),  # more than one band of them
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_our_product_is_exact_in_whole_numbers(rows: int, inputs: int, outputs: int, seed: int) -> None:
    if library("batches") is None:
        pytest.skip("there is no C++ compiler")
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, inputs, generator=generator)
    whole = torch.randint(-127, 128, (outputs, inputs), generator=generator, dtype=torch.int8)
    tiles, vectors = int8_pack(whole), torch.zeros(3, -(-outputs // 16) * 16)
    vectors[:, :outputs] = torch.randn(3, outputs, generator=generator)
    scale, offset, bias = vectors[:, :outputs]
    rounded, largest = round_rows(x, LEVELS, ZERO)
    dots = rounded.long() @ whole.long().t()
    wanted = (dots * scale.double() + offset.double()) * largest.double() + bias.double()
    found = int8_linear(x, tiles, vectors, outputs, LEVELS, ZERO)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-2)
    assert torch.equal(int8_linear(x[-1:], tiles, vectors, outputs, LEVELS, ZERO), found[-1:])
