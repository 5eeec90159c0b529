"""`glassformer export`: a model as a folder that other libraries load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from glassformer.cli.options import stored_dtype
from glassformer.cli.output import put, say
from glassformer.errors import InputError


def export(
    model: Annotated[str, Parameter(help="The folder of a run or checkpoint, a GGUF file, or a known name.")],
    out: Annotated[Path, Parameter(help="The new folder.")],
    *,
    format: Annotated[
        Literal["hf", "native"],
        Parameter(help="hf: a folder of Hugging Face's transformers; native: a checkpoint, of an adapter just that."),
    ] = "hf",
    dtype: Annotated[
        Literal["fp32", "fp16", "bf16"] | None, Parameter(help="What the weights are stored as; else as they are.")
    ] = None,
) -> None:
    """Write a model as a folder that Hugging Face's transformers, and what reads its folders, can load.

    An adapter becomes a whole model; with --format native it stays one. The new folder is printed on standard output.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not overwritten; choose another folder.")
    if format == "native":
        put(str(_export_native(model, out, None if dtype is None else stored_dtype(dtype))))
        return
    import glassformer

    folder = glassformer.load(model).save_pretrained(out, dtype=None if dtype is None else stored_dtype(dtype))
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = settings.get("architectures", ["AutoModel"])[0]
    say(
        f"{name} in {folder}. Next, in Python: from transformers import AutoTokenizer, {name}; "
        f"{name}.from_pretrained({str(folder)!r}); AutoTokenizer.from_pretrained({str(folder)!r})"
    )
    put(str(folder))


def _export_native(model: str, out: Path, dtype: Any) -> Path:
    """The model as one checkpoint, without the rest of its run."""
    from glassformer.checkpoints.native import save
    from glassformer.checkpoints.opening import open_model

    held = open_model(model, merge=False)
    parts = (held.network, held.tokenizer, held.pipeline, held.task)
    return save(out, *parts, extra=held.extra, dtype=dtype, adapter=held.adapter)
