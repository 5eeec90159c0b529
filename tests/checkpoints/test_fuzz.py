"""Damaged and hostile files: each loads or is an `InputError`, at once and in little memory, never anything else."""

from __future__ import annotations

import json
import random
import struct
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from glassformer.checkpoints.gguf_file import open_gguf
from glassformer.checkpoints.tensors import looks_like, read_tensors, refuse_code
from glassformer.errors import InputError

U8, BOOL, STRING, ARRAY, U32 = 0, 7, 8, 9, 4
F32, Q4_0, Q8_0 = 0, 2, 8


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def text(value: bytes, length: int | None = None) -> bytes:
    return u64(len(value) if length is None else length) + value


def entry(name: bytes, shape: list[int], kind: int = F32, offset: int = 0, n_dims: int | None = None) -> bytes:
    dims = b"".join(u64(n) for n in reversed(shape))
    return text(name) + u32(len(shape) if n_dims is None else n_dims) + dims + u32(kind) + u64(offset)


def gguf(
    metadata: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: int = 64,
    n_metadata: int | None = None,
    n_tensors: int | None = None,
) -> bytes:
    """A GGUF file put together by hand; the counts may lie."""
    header = b"GGUF" + u32(3) + u64(len(tensors) if n_tensors is None else n_tensors)
    header += u64(len(metadata) if n_metadata is None else n_metadata) + b"".join([*metadata, *tensors])
    return header + bytes(-len(header) % 32) + bytes(data)


def array(kind: int, count: int, content: bytes = b"") -> bytes:
    return u32(kind) + u64(count) + content


def key(name: bytes, kind: int, content: bytes) -> bytes:
    return text(name) + u32(kind) + content


VALID_GGUF = gguf(
    [
        key(b"general.alignment", U32, u32(32)),
        key(b"name", STRING, text("Grüße".encode())),
        key(b"yes", BOOL, b"\1"),
        key(b"tokens", ARRAY, array(STRING, 3, text(b"a") + text(b"") + text(b"bc"))),
        key(b"nested", ARRAY, array(ARRAY, 2, array(U8, 2, b"\1\2") + array(U8, 0))),
    ],
    [entry(b"w", [2, 32], Q4_0), entry(b"norm", [3], F32, 64), entry(b"v", [32], Q8_0, 96)],
    data=160,
)


def safe(header: Any, data: int = 8, length: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return u64(len(encoded) if length is None else length) + encoded + bytes(data)


def row(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


VALID_SAFE = safe(
    {
        "__metadata__": {"format": "pt"},
        "a": row(),
        "b": row(dtype="BF16", shape=[2, 3], data_offsets=[8, 20]),
        "c": row(dtype="BOOL", shape=[4], data_offsets=[20, 24]),
    },
    24,
)


def use_gguf(path: Path) -> int:
    """Open a file and ask everything of it; how many tensors gave their numbers."""
    file, given = open_gguf(path), 0
    for tensor in file.tensors.values():
        for ask in (tensor.dense, tensor.blocks):
            try:
                given += ask().numel() >= 0
            except InputError:
                continue
    return given


def use_safe(path: Path) -> int:
    return sum(tensor.numel() >= 0 and tensor.clone().shape == tensor.shape for tensor in read_tensors(path).values())


FORMATS = {"gguf": (VALID_GGUF, use_gguf), "safetensors": (VALID_SAFE, use_safe)}


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """No more than 1 GiB of address space beyond what the process has: a length believed would need much more."""
    statm = Path("/proc/self/statm")
    if not statm.is_file():  # not Linux: tracemalloc, below, still watches what Python and numpy take
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def refused(path: Path, content: bytes, use: Callable[[Path], int]) -> str:
    """The message where a file is refused, the empty string where it loads; any other exception comes through."""
    path.unlink(missing_ok=True)  # a file that is mapped must not be cut
    path.write_bytes(content)
    try:
        use(path)
    except InputError as error:
        assert str(path) in str(error)
        return str(error)
    return ""


@pytest.mark.parametrize("name", FORMATS)
def test_every_truncation_is_refused(tmp_path: Path, name: str) -> None:
    content, use = FORMATS[name]
    assert refused(tmp_path / "x", content, use) == ""
    padding = 30 if name == "gguf" else 0  # behind the last tensor nothing is needed
    for length in range(len(content) - padding):
        message = refused(tmp_path / "x", content[:length], use)
        assert message, length
        assert length < 8 or ("cut short or damaged" in message and "Use another copy." in message), message


@pytest.mark.parametrize("name", FORMATS)
def test_random_damage_to_the_header_loads_or_is_refused(tmp_path: Path, name: str) -> None:
    content, use = FORMATS[name]
    draw = random.Random(7)
    header = len(content) - (160 if name == "gguf" else 24)
    outcomes = set()
    for _ in range(1500):
        damaged = bytearray(content)
        for _ in range(draw.randint(1, 3)):
            damaged[draw.randrange(header)] = draw.choice((draw.randrange(256), 0, 255, *b'0123456789[]{}",:-'))
        outcomes.add(bool(refused(tmp_path / "x", bytes(damaged), use)))
    assert outcomes == {True, False}


@pytest.mark.parametrize("name", FORMATS)
def test_huge_numbers_anywhere_in_the_header(tmp_path: Path, name: str) -> None:
    content, use = FORMATS[name]
    for at in range(8 if name == "gguf" else 0, len(content) - 8):
        for number in (2**63, 2**64 - 1, 2**62, 2**40, 2**32 - 1):
            refused(tmp_path / "x", content[:at] + u64(number) + content[at + 8 :], use)


def test_random_bytes_behind_the_signature(tmp_path: Path) -> None:
    draw = random.Random(3)
    for _ in range(300):
        junk = draw.randbytes(draw.randrange(200))
        assert refused(tmp_path / "x", b"GGUF" + u32(3) + junk, use_gguf)
        assert refused(tmp_path / "x", u64(len(junk)) + junk, use_safe)


def deep(levels: int) -> bytes:
    return b"".join(array(ARRAY, 1) for _ in range(levels)) + array(U8, 1, b"\1")


EVIL_GGUF = {
    "metadata count": (gguf(n_metadata=2**63), "the list of metadata keys must hold"),
    "tensor count": (gguf(n_tensors=2**64 - 1), "the list of tensors must hold"),
    "key length": (gguf([text(b"k", 2**63)]), "must end before byte"),
    "text length": (gguf([key(b"k", STRING, u64(2**63))]), "'k' must end before byte"),
    "array length": (gguf([key(b"k", ARRAY, array(U8, 2**63))]), "'k' must hold"),
    "array of wide numbers": (gguf([key(b"k", ARRAY, array(12, 60))]), "must take 480 bytes"),
    "array of texts": (gguf([key(b"k", ARRAY, array(STRING, 2**40))]), "'k' must hold"),
    "array of arrays": (gguf([key(b"k", ARRAY, array(ARRAY, 2**60))]), "'k' must hold"),
    "deep": (gguf([key(b"k", ARRAY, deep(5))]), "at most 4 deep"),
    "very deep": (gguf([key(b"k", ARRAY, deep(10**5))]), "at most 4 deep"),
    "type": (gguf([key(b"k", 13, b"")]), "a number from 0 to 12, 'k' has 13"),
    "type in array": (gguf([key(b"k", ARRAY, array(2**31, 1))]), "a number from 0 to 12"),
    "type of no values": (gguf([key(b"k", ARRAY, array(99, 0))]), "a number from 0 to 12"),
    "boolean": (gguf([key(b"k", BOOL, b"\2")]), "0 or 1"),
    "key twice": (gguf([key(b"k", U8, b"\1")] * 2), "'k' comes twice"),
    "key not UTF-8": (gguf([key(b"k\xff", U8, b"\1")]), "UTF-8"),
    "text not UTF-8": (gguf([key(b"k", ARRAY, array(STRING, 1, text(b"\xc3")))]), "'k' must be UTF-8"),
    "alignment 0": (gguf([key(b"general.alignment", U32, u32(0))]), "power of two from 8"),
    "alignment 24": (gguf([key(b"general.alignment", U32, u32(24))]), "power of two from 8"),
    "alignment 4": (gguf([key(b"general.alignment", U32, u32(4))]), "power of two from 8"),
    "alignment text": (gguf([key(b"general.alignment", STRING, text(b"32"))]), "power of two from 8"),
    "alignment true": (gguf([key(b"general.alignment", BOOL, b"\1")]), "power of two from 8"),
    "alignment huge": (gguf([key(b"general.alignment", 10, u64(2**63))], [entry(b"w", [1])]), "must end at byte"),
    "name not UTF-8": (gguf([], [entry(b"\x80", [2])]), "UTF-8"),
    "name twice": (gguf([], [entry(b"w", [2]), entry(b"w", [2], offset=32)]), "'w' comes twice"),
    "five dimensions": (gguf([], [entry(b"w", [1] * 5)]), "at most 4 dimensions"),
    "dimension count": (gguf([], [entry(b"w", [1], n_dims=2**32 - 1)]), "at most 4 dimensions"),
    "dimension 0": (gguf([], [entry(b"w", [0, 2**62])]), "from 1"),
    "dimension negative": (gguf([], [entry(b"w", [2**64 - 1])]), "from 1"),
    "product overflows": (gguf([], [entry(b"w", [2**33, 2**31])]), "must end at byte"),
    "product overflows to 0": (gguf([], [entry(b"w", [2**62, 4])]), "must end at byte"),
    "kind": (gguf([], [entry(b"w", [2], kind=4)]), "type 4, which is not known"),
    "row of no whole blocks": (gguf([], [entry(b"w", [32, 33], kind=Q4_0)]), "multiple of 32"),
    "scalar of blocks": (gguf([], [entry(b"w", [], kind=Q4_0)]), "multiple of 32"),
    "offset outside": (gguf([], [entry(b"w", [2], offset=64)]), "must end at byte"),
    "offset far outside": (gguf([], [entry(b"w", [2], offset=2**64 - 32)]), "must end at byte"),
    "offset between": (gguf([], [entry(b"w", [2], offset=4)]), "a multiple of 32, got 4"),
    "end outside": (gguf([], [entry(b"w", [17])]), "must end at byte"),
    "overlap": (gguf([], [entry(b"w", [16]), entry(b"v", [2], offset=32)]), "'w' and 'v' do"),
    "the same place": (gguf([], [entry(b"w", [2]), entry(b"v", [2])]), "must not overlap"),
}


@pytest.mark.parametrize("case", EVIL_GGUF)
def test_evil_gguf_is_refused(tmp_path: Path, case: str) -> None:
    content, expected = EVIL_GGUF[case]
    tracemalloc.start()
    try:
        message = refused(tmp_path / "x.gguf", content, use_gguf)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert expected in message and message.endswith("It is cut short or damaged. Use another copy.")
    assert peak < 2**20 + 4 * len(content) and len(message) < 500


def test_good_gguf_made_by_hand_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(VALID_GGUF)
    file = open_gguf(tmp_path / "x")
    expected = {"name": "Grüße", "yes": True, "tokens": ["a", "", "bc"], "nested": [[1, 2], []]}
    assert file.metadata == {"general.alignment": 32, **expected}
    assert {name: tensor.shape for name, tensor in file.tensors.items()} == {"w": (2, 32), "norm": (3,), "v": (32,)}
    (tmp_path / "y").write_bytes(gguf([], [entry(b"s", []), entry(b"last", [16], offset=32)], data=96))
    assert open_gguf(tmp_path / "y").tensors["s"].dense().shape == ()
    (tmp_path / "z").write_bytes(gguf(data=0))
    assert open_gguf(tmp_path / "z").tensors == {}


def test_metadata_of_too_many_values_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glassformer.checkpoints.gguf_file._VALUES_LIMIT", 1000)
    many = key(b"k", ARRAY, array(ARRAY, 20, array(U8, 60, bytes(60)) * 20))
    assert "at most 1000 values, 'k' goes beyond" in refused(tmp_path / "x", gguf([many]), use_gguf)
    monkeypatch.setattr("glassformer.checkpoints.gguf_file._HEADER_LIMIT", 1000)
    long = key(b"k", STRING, text(bytes(1000)))
    assert "before byte 1000" in refused(tmp_path / "x", gguf([long]), use_gguf)


EVIL_SAFE = {
    "length": safe({"a": row()}, length=2**63),
    "length of all bits": safe({"a": row()}, length=2**64 - 1),
    "length beyond the end": safe({"a": row()}, length=99_000_000),
    "no JSON": safe(b"{'a': 1}"),
    "JSON cut": safe(b'{"a":{"dtype":"F32"'),
    "a list": safe([]),
    "deep list": safe(b"[" * 10**5),
    "deep object": safe(b'{"a":' * 10**5),
    "not UTF-8": safe(b'{"\xff":' + json.dumps(row()).encode() + b"}"),
    "dtype": safe({"a": row(dtype="F31")}),
    "shape negative": safe({"a": row(shape=[-2])}),
    "shape of words": safe({"a": row(shape=["2"])}),
    "shape overflows": safe({"a": row(shape=[2**62, 4])}),
    "shape beyond torch": safe({"a": row(shape=[2**63 + 5, 0], data_offsets=[0, 0])}, 0),
    "offsets outside": safe({"a": row(data_offsets=[8, 16])}),
    "offsets huge": safe({"a": row(data_offsets=[2**63, 2**63 + 8])}),
    "offsets reversed": safe({"a": row(data_offsets=[8, 0])}),
    "offsets negative": safe({"a": row(data_offsets=[-8, 0])}),
    "overlap": safe({"a": row(), "b": row()}),
    "a hole": safe({"a": row(data_offsets=[8, 16])}, 16),
    "a tail": safe({"a": row()}, 9),
    "metadata": safe({"__metadata__": {"a": 5}, "a": row()}),
}


@pytest.mark.parametrize("case", EVIL_SAFE)
def test_evil_safetensors_are_refused(tmp_path: Path, case: str) -> None:
    message = refused(tmp_path / "x.safetensors", EVIL_SAFE[case], use_safe)
    assert "is not a whole safetensors file" in message and message.endswith("Use another copy.")


def test_other_formats_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    torch.save({"w": torch.zeros(2)}, path)
    for content in (path.read_bytes(), b"\x80\x04}\x94."):
        assert "can run code when it is read" in refused(path, content, read_count)
    for content, kind in [
        (VALID_GGUF, "a GGUF file"),
        (b"\x1f\x8b\x08", "a file packed by gzip"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a pointer of Git LFS"),
        (b'{"a": 1}', "a JSON file"),
    ]:
        assert f"must be a safetensors file, but looks like {kind}" in refused(path, content, read_count)
    with pytest.raises(InputError, match="cannot be read|not a whole"):
        read_tensors(tmp_path)


def read_count(path: Path) -> int:
    return len(read_tensors(path))


def test_files_of_python_objects_are_refused_by_content_and_by_name(tmp_path: Path) -> None:
    for suffix in (".bin", ".pt", ".pth", ".ckpt", ".PT"):
        path = tmp_path / f"pytorch_model{suffix}"
        path.write_bytes(b"whatever")
        with pytest.raises(InputError, match=r"can run code when it is read.*convert this one to safetensors"):
            refuse_code(path)
        path.write_bytes(VALID_SAFE)  # its content is beyond doubt
        refuse_code(path)
    refuse_code(tmp_path / "missing.safetensors")


@pytest.mark.parametrize("length", [0x280, 0x7B, 0x3C, 0x8B1F, 0x4B50])
def test_a_header_whose_length_looks_like_another_format(tmp_path: Path, length: int) -> None:
    header = json.dumps({"a": row()}).encode()
    path = tmp_path / "x.bin"
    path.write_bytes(safe(header.ljust(max(length, 60)), length=None))
    assert looks_like(path) == "a safetensors file"
    refuse_code(path)
    assert read_tensors(path)["a"].shape == (2,)
