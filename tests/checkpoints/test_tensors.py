"""Our safetensors writer against the `safetensors` package."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.checkpoints.files import sha256
from glassformer.checkpoints.tensors import read_tensors, write_tensors
from glassformer.errors import InputError

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int8, torch.uint8, torch.bool]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(0, 4), max_size=3), st.sampled_from(DTYPES), st.booleans()), max_size=6))
def test_any_tensors_written_are_read_by_the_package(
    tmp_path_factory: pytest.TempPathFactory, specs: list[tuple[list[int], torch.dtype, bool]]
) -> None:
    tensors = {}
    for number, (shape, dtype, transposed) in enumerate(specs):
        tensor = torch.randint(0, 2, shape).to(dtype)
        tensors[f"tensor.{number}"] = tensor.mT if transposed and tensor.ndim >= 2 else tensor
    path = tmp_path_factory.mktemp("tensors") / "x.safetensors"
    assert write_tensors(path, tensors) == sha256(path)
    theirs = safetensors.torch.load_file(path)
    assert theirs.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert theirs[name].dtype == tensor.dtype and torch.equal(theirs[name], tensor)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"not tensors at all")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        read_tensors(tmp_path / "x")
    with pytest.raises(InputError, match="missing"):
        read_tensors(tmp_path / "y")
