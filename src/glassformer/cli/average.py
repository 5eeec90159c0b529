"""`glassformer average`: the mean of a run's last checkpoints, as a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from glassformer.cli.output import put, say
from glassformer.errors import InputError


def average(
    run: Annotated[Path, Parameter(help="The folder of a run.")],
    *,
    last: Annotated[int, Parameter(help="How many checkpoints, counted from the newest.")] = 5,
    out: Annotated[Path | None, Parameter(help="The new checkpoint's folder. Without it, RUN/average-K.")] = None,
) -> None:
    """Average the weights of a run's last checkpoints.

    The folder of the new checkpoint is printed on standard output; translate and evaluate take it as a model.
    """
    target = out if out is not None else run / f"average-{last}"
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists and is not overwritten; choose another folder with --out.")
    import glassformer

    folder = glassformer.average(run, last=last, into=target)
    say(f"The mean of the last {last} checkpoints of {run}. Next: glassformer evaluate {folder}")
    put(str(folder))
