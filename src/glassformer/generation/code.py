"""Parts of a step, blocks and ends, as machine code: described, compiled in a process of its own, kept, loaded."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from glassformer.generation.ends import End, end_inputs, fresh_end
from glassformer.layers import kernels
from glassformer.layers.block import Block
from glassformer.layers.kernels.ops import SHIMS
from glassformer.layers.linear import FEW
from glassformer.layers.quantized import BLOCK_BYTES, GROUP, QuantizedEmbedding, QuantizedLinear
from glassformer.layers.rows import RowMemory, RowStep
from glassformer.models import assembly
from glassformer.models.config import Config, Dense, Rotary
from glassformer.settings import cache_folder, from_mapping, to_mapping

PACKAGE = Path(__file__).resolve().parent.parent
LIMIT = 600
"""Seconds that compiling may take; it takes about 20."""

Kind = Literal["one", "many", "prompt", "first", "last"]
"""Blocks for one new id of one row, or of many, or for a prompt of one row, or a chunk of it; all look into a cache.
And what is below and above them (`ends`), for one new id of one row."""

ENDS: tuple[End, ...] = ("first", "last")

SHORTEST = FEW + 1
"""Prompts of fewer ids run uncompiled: other ways of computing are best for them."""

_codes: dict[tuple[Any, ...], Code] = {}


class Code:
    """The compiled step of blocks (or ends) that are alike: `ready`, and then `run`. `Code.of` gives such the same."""

    def __init__(self, description: dict[str, Any], path: Path) -> None:
        self.description, self.path = description, path
        self._loader: Any = None
        self._process: subprocess.Popen[bytes] | None = None
        self._begun = False

    @classmethod
    def of(cls, config: Config, module: nn.Module, kind: Kind) -> Code:
        """The code for blocks, or ends, like this one."""
        layers, bare = _layers(module), _bare(config, kind in ENDS)
        key = (cache_folder(), bare, kind, json.dumps(layers))
        if key not in _codes:
            description = {"config": to_mapping(bare), "layers": layers, "kind": kind}
            _codes[key] = cls(description, cache_folder() / _name(description))
        return _codes[key]

    @staticmethod
    def weights(module: nn.Module) -> dict[str, Tensor]:
        """Its parameters and buffers by name, in a fixed order: what `run` takes after the activations."""
        return {**dict(module.named_parameters()), **dict(module.named_buffers())}

    def ready(self) -> bool:
        """Whether `run` can be called. The first time, compiling begins in the background if it has to."""
        if self._loader is not None:
            return True
        if kernels.pending("generation"):  # the code calls them
            return False
        if not self.path.is_file():
            self._begin()
            return False
        self._loader = _load(self.path)
        return True

    def run(self, inputs: list[Tensor]) -> list[Tensor]:
        """[x after the block], of [x, positions, keys, values, (cos, sin), *weights]; the caches are written. For ends
        see their `forward`."""
        outputs: list[Tensor] = self._loader(inputs)
        return outputs

    def wait(self) -> None:
        """Return when `ready`, or `RuntimeError` where compiling is not possible."""
        begin = time.monotonic()
        while not self.ready():
            if time.monotonic() - begin > LIMIT or not self._begun or self._failed():
                raise RuntimeError("the decoding step could not be compiled; it runs uncompiled.")
            time.sleep(0.1)

    def _failed(self) -> bool:
        return _failure(self.path).is_file() or (self._process is not None and self._process.poll() not in (None, 0))

    def _begin(self) -> None:
        """Start a process that compiles and outlives this one, once."""
        off = os.environ.get("GLASSFORMER_COMPILE") == "0" or _failure(self.path).is_file()
        if self._begun or off or kernels.library("generation") is None:
            return
        self._begun = True
        command = [sys.executable, "-m", "glassformer.generation.code", json.dumps(self.description), str(self.path)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        )


class Part(nn.Module):
    """A block's part in a step as a function of tensors alone, its weights among them: new ids of rows, which look
    into a cache."""

    def __init__(self, block: Block, rotary: bool) -> None:
        super().__init__()
        self.names = list(Code.weights(block))
        self.rotary = rotary
        self._block = [block]  # not a submodule: its weights are inputs

    def forward(self, x: Tensor, positions: Tensor, keys: Tensor, values: Tensor, *rest: Tensor) -> Tensor:
        """`rest` are cosines and sines, where positions are rotary, and the weights."""
        places, weights = (rest[:2], rest[2:]) if self.rotary else (None, rest)
        state = dict(zip(self.names, weights, strict=True))
        arguments = {"remember": RowMemory(keys, values, RowStep(positions, keys.shape[2])), "rotation": places}
        result: Tensor = torch.func.functional_call(self._block[0], state, (x,), arguments)
        return result


class EndPart(nn.Module):
    """An end's part in a step as a function of tensors alone: `inputs` of its own, then its weights."""

    def __init__(self, end: nn.Module, inputs: int) -> None:
        super().__init__()
        self.names, self.inputs = list(Code.weights(end)), inputs
        self._end = [end]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        state = dict(zip(self.names, tensors[self.inputs :], strict=True))
        result: tuple[Tensor, ...] = torch.func.functional_call(self._end[0], state, tensors[: self.inputs])
        return result


@functools.cache
def _bare(config: Config, end: bool = False) -> Config:
    """What of a config shapes a block, or an end, in a decoding step."""
    return replace(
        config,
        vocab_size=config.vocab_size if end else 1,
        n_encoder_layers=0,
        n_decoder_layers=1,
        max_length=config.max_length if end else 1,
        pad_id=0,
        bos_id=0,
        eos_id=0,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        head=None,
        init_std=None,
        attention=Dense(),  # a banded layer's step looks into its ring, as a dense one's into a cache
    )


def _layers(module: nn.Module) -> dict[str, Any]:
    """The quantised layers of a block or an end by name, and the number type of the others."""
    quantized: dict[str, Any] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, QuantizedLinear):
            quantized[name] = [layer.bits, layer.rounded, layer.in_features, layer.out_features, layer.bias is not None]
        if isinstance(layer, QuantizedEmbedding):
            quantized[name] = list(layer.weight.shape)
    dtype = next((parameter.dtype for parameter in module.parameters()), torch.float32)
    return {"dtype": str(dtype).removeprefix("torch."), "quantized": quantized}


def _rebuilt(config: Config, layers: dict[str, Any]) -> Block:
    """A block of that kind with weights that mean nothing."""
    block = assembly.block(config)
    _retype(block, layers)
    attention, feed_forward = block.self_attention, block.feed_forward
    if attention.to_all is not None:
        del attention.to_query, attention.to_key, attention.to_value
    if feed_forward.to_both is not None:
        del feed_forward.gate, feed_forward.up
    return block


def _rebuilt_end(config: Config, layers: dict[str, Any], which: End) -> nn.Module:
    """An end of that kind with weights that mean nothing."""
    end = fresh_end(config, which)
    _retype(end, layers)
    return end


def _retype(module: nn.Module, layers: dict[str, Any]) -> None:
    """Give a module the number types and the quantised layers of another, which `_layers` has described."""
    module.to(getattr(torch, layers["dtype"])).eval().requires_grad_(False)
    for name, shape in layers["quantized"].items():
        parent, _, own = name.rpartition(".")
        if len(shape) == 3:
            layer: nn.Module = QuantizedEmbedding(torch.zeros(shape, dtype=torch.uint8))
        else:
            bits, rounded, inputs, outputs, biased = shape
            blocks = torch.zeros(outputs, inputs // GROUP, BLOCK_BYTES[bits], dtype=torch.uint8)
            layer = QuantizedLinear([blocks], [torch.zeros(outputs)] if biased else [], rounded=rounded)
        setattr(module.get_submodule(parent), own, layer)


def _name(description: dict[str, Any]) -> str:
    """The file that holds the code: a hash of all that it depends on."""
    digest = hashlib.sha256(json.dumps([description, torch.__version__], sort_keys=True).encode())
    digest.update(_sources())
    return f"step-{digest.hexdigest()[:16]}-{kernels.machine()}.pt2"


@functools.cache
def _sources() -> bytes:
    """All of our own code that is traced."""
    paths = [*sorted((PACKAGE / "layers").glob("**/*.py")), *kernels.FILES, Path(__file__)]
    return b"".join(path.read_bytes() for path in paths)


def _load(path: Path) -> Any:
    kernels.library("generation")  # the code calls it
    loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", True, 1, -1)
    return loader.run


def compile_code(description: dict[str, Any], path: Path) -> None:
    """Trace and compile what the description says, and put it at `path` in one step."""
    config, kind = from_mapping(Config, description["config"], "config"), description["kind"]
    exported = (_end if kind in ENDS else _block)(config, description["layers"], kind)
    shims = {getattr(torch.ops.glassformer, name).default: [text] for name, text in SHIMS.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        package = str(Path(folder) / "step.pt2")
        options = {"aot_inductor.custom_ops_to_c_shims": shims, "aot_inductor.package_constants_in_so": False}
        torch._inductor.aoti_compile_and_package(exported, package_path=package, inductor_configs=options)
        os.replace(package, path)


def _block(config: Config, layers: dict[str, Any], kind: Kind) -> Any:
    """A block's part, traced."""
    block = _rebuilt(config, layers)
    part = Part(block, isinstance(config.positions, Rotary)).eval()
    example, dynamic = _example(config, block, kind), _dynamic(part, kind)
    return torch.export.export(part, example, dynamic_shapes=dynamic, strict=False)


def _end(config: Config, layers: dict[str, Any], kind: End) -> Any:
    """An end's part, traced."""
    end = _rebuilt_end(config, layers, kind)
    inputs = end_inputs(config, kind, getattr(torch, layers["dtype"]))
    part = EndPart(end, len(inputs)).eval()
    return torch.export.export(part, (*inputs, *Code.weights(end).values()), strict=False)


def _example(config: Config, block: Block, kind: Kind) -> tuple[Tensor, ...]:
    """Inputs to trace with. Each is a tensor of its own: torch.export takes one given twice for one input."""
    rows, width = 3 if kind == "many" else 1, 2 * SHORTEST if kind == "prompt" else 1
    dtype = block.norm_1.weight.dtype
    tensors = [torch.zeros(rows, width, config.d_model, dtype=dtype)]
    cache = (rows, config.kv_heads, 256, config.head_width)
    tensors += [torch.zeros(rows, width, dtype=torch.long), *(torch.zeros(cache, dtype=dtype) for _ in range(2))]
    if isinstance(config.positions, Rotary):
        tensors += [torch.zeros(rows, width, config.head_width // 2, dtype=dtype) for _ in range(2)]
    return (*tensors, *Code.weights(block).values())


def _dynamic(part: Part, kind: Kind) -> Any:
    """Rows (of many), the length of a prompt and the capacity of the cache may be any number; weights may not."""
    first: dict[int, Any] = {}
    if kind == "many":
        first = {0: torch.export.Dim("rows", min=2, max=FEW)}
    if kind == "prompt":
        first = {1: torch.export.Dim("width", min=SHORTEST, max=1 << 22)}
    rest = [dict(first) for _ in range(2 if part.rotary else 0)] + [{} for _ in part.names]
    rows = {axis: size for axis, size in first.items() if axis == 0}
    cache = {**rows, 2: torch.export.Dim("capacity", min=2, max=1 << 22)}
    return (first, dict(first), cache, dict(cache), tuple(rest))


def _failure(path: Path) -> Path:
    """Where it is written why code could not be compiled."""
    return path.with_suffix(".failed.txt")


def main() -> None:
    """`python -m glassformer.generation.code DESCRIPTION PATH`: what `Code` starts in the background."""
    description, path = json.loads(sys.argv[1]), Path(sys.argv[2])
    os.nice(5)
    try:
        with torch.no_grad():
            compile_code(description, path)
    except Exception:
        _failure(path).write_text(traceback.format_exc())  # so that it is not tried each time
        raise


if __name__ == "__main__":
    main()
