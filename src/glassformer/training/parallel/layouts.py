"""How the work falls into processes: what a layout must hold to, and what becomes of it on another number of them."""

from __future__ import annotations

import dataclasses

from glassformer.errors import InputError
from glassformer.training.recipes import Parallel, Recipe


def check_layout(recipe: Recipe, size: int) -> None:
    """`InputError` where the recipe's layout does not fit `size` processes, or asks for what is not there."""
    wanted = recipe.parallel
    missing = [name for name in ("tensor", "pipeline", "context") if getattr(wanted, name) > 1]
    if missing:
        raise InputError(f"'parallel.{missing[0]}' is not there yet: use 'parallel.data' and 'parallel.shard'.")
    if wanted.processes != size:
        asked = f"they ask for {wanted.processes}" + (f" ({wanted})" if str(wanted) else "")
        here = f"there are {size}" if size > 1 else "there is one"
        start = f"start it as torchrun --nproc-per-node {wanted.processes} -m glassformer train …"
        start = start if wanted.processes > 1 else "start it without torchrun"
        what = start if size == 1 else f"set --parallel.data {size}, or {start}"
        raise InputError(f"The sizes of [parallel] must multiply to the number of processes: {asked}, {here}; {what}.")
    if wanted.shard > 1 and recipe.training.optimizer == "muon":
        raise InputError("Muon needs whole matrices: use 'parallel.data' in place of 'parallel.shard', or adamw.")


def refitted(parallel: Parallel, size: int) -> Parallel:
    """The layout for another number of processes: `shard` takes them where it was used, else `data`.

    `InputError` where the other sizes do not divide their number.
    """
    if parallel.processes == size:
        return parallel
    fixed = parallel.tensor * parallel.pipeline * parallel.context
    if size % fixed:
        raise InputError(f"{size} processes cannot be dealt to {parallel}: their number must be a multiple of {fixed}.")
    free = "shard" if parallel.shard > 1 else "data"
    return dataclasses.replace(parallel, **{"data": 1, "shard": 1, free: size // fixed})
