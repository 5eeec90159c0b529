"""`glassformer average`: the mean of the last checkpoints of a run, or of several, as a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from glassformer.cli.output import put, say
from glassformer.errors import InputError


def average(
    *runs: Annotated[Path, Parameter(help="The folder of a run; or of several that began from one model.")],
    last: Annotated[int, Parameter(help="How many checkpoints of each, counted from the newest.")] = 5,
    out: Annotated[
        Path | None,
        Parameter(help="The new checkpoint's folder. Without it, RUN/average-K; of N runs, FIRST/average-K-of-N."),
    ] = None,
) -> None:
    """Average the weights of the last checkpoints of a run, or of several runs that began from one model.

    The folder of the new checkpoint is printed on standard output; translate and evaluate take it as a model.
    """
    if not runs:
        raise InputError("name a run: glassformer average runs/NAME --last 10")
    import glassformer

    folder = glassformer.average(runs, last=last, into=out)
    of = " and ".join(map(str, runs))
    say(f"The mean of the last {last} checkpoints of {of}. Next: glassformer evaluate {folder}")
    put(str(folder))
