"""`glassformer quantize`: a model with smaller weights, as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from glassformer.cli.import_ import check_target
from glassformer.cli.output import put, say, size


def quantize(
    model: Annotated[str, Parameter(help="The folder of a run or checkpoint, a GGUF file, or a known name.")],
    out: Annotated[Path, Parameter(help="The new folder.")],
    *,
    precision: Annotated[
        Literal["int8", "int4"], Parameter(help="Bits of a dense layer's weights, in groups of 32 with a scale each.")
    ],
    overwrite: Annotated[
        bool, Parameter(help="Replace the checkpoint that is in the folder already.", negative="")
    ] = False,
) -> None:
    """Store a model with weights of 8 or 4 bits, to be run and no longer trained.

    The new folder is printed on standard output; it is opened without quantising again.
    """
    check_target(out, overwrite)
    from glassformer.checkpoints.quantized import save_quantized

    folder = save_quantized(model, out, precision)
    after = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    before = _before(model)
    share = f", {after / before:.0%} of {size(before)} in fp32" if before else ""
    say(f'{size(after)}{share}. Next: glassformer generate --model {folder} "Once upon a time"')
    put(str(folder))


def _before(model: str) -> int:
    """Bytes of the model's weights in fp32."""
    from glassformer.cli.params import config_of
    from glassformer.models.counting import count

    return count(config_of(model)).memory("fp32")
