"""`glassformer import`: a model from elsewhere, as a checkpoint folder of our own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from glassformer.cli.options import stored_dtype
from glassformer.cli.output import put, say, size
from glassformer.errors import InputError

if TYPE_CHECKING:
    from glassformer.tasks.model import Model


def import_(
    source: Annotated[str, Parameter(help="A Hugging Face folder, a GGUF file, or a known name.")],
    out: Annotated[Path, Parameter(help="The new checkpoint's folder.")],
    *,
    dtype: Annotated[Literal["fp32", "fp16", "bf16"], Parameter(help="What the weights are stored as.")] = "fp32",
    overwrite: Annotated[
        bool, Parameter(help="Replace the checkpoint that is in the folder already.", negative="")
    ] = False,
) -> None:
    """Bring a model in from a Hugging Face folder or a GGUF file.

    The folder of the new checkpoint is printed on standard output; every verb takes it as a model.
    """
    check_target(out, overwrite)
    import glassformer

    model = glassformer.load(source)
    folder = model.save(out, dtype=stored_dtype(dtype))
    count = sum(parameter.numel() for parameter in model.network.parameters())
    held = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    say(f"{count:,} parameters, {size(held)} in {dtype}. Next: {_next(model, folder)}")
    put(str(folder))


def check_target(out: Path, overwrite: bool) -> None:
    """`InputError` unless `out` is new, empty, or a checkpoint of ours that may be overwritten."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    from glassformer.checkpoints.native import INDEX
    from glassformer.training.runs import RECIPE

    ours = out.is_dir() and (out / INDEX).is_file()
    if ours and ((out / "checkpoints").exists() or (out / RECIPE).exists()):
        raise InputError(f"{out} is the folder of a run, which is never overwritten; choose another folder.")
    if not ours:
        raise InputError(f"{out} must be a new or an empty folder, and there is something else in it; choose another.")
    if not overwrite:
        raise InputError(f"{out} holds a checkpoint already; choose another folder, or replace it with --overwrite.")


def _next(model: Model, folder: Path) -> str:
    """The command that shows what the model can do."""
    if model.pipeline.chat_template:
        return f"glassformer chat --model {folder}"
    examples = {
        "generation": f'glassformer generate --model {folder} "Once upon a time"',
        "fill": f'glassformer fill --model {folder} "The capital of France is [MASK]."',
        "embedding": f"glassformer embed --model {folder} < lines.txt > vectors.npy",
    }
    return examples.get(model.task, f"glassformer params {folder}")
