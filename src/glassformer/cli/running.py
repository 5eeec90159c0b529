"""Loading a model to run it, and being quick about it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from glassformer.tasks.precision import Precision

if TYPE_CHECKING:
    from glassformer.tasks.model import Model


def load_to_run(name: str, precision: Precision | None, many: bool = False) -> Model:
    """`glassformer.load`; what has to be compiled first is begun while torch is being imported: the kernels of a
    language model that writes, or those of `many` texts at once."""
    from glassformer.layers import kernels

    kernels.begin("batches" if many else "generation")
    if precision == "fp32" and not many:
        kernels.begin("exact")
    with importing():
        import glassformer

        return glassformer.load(name, precision=precision)


@contextmanager
def importing() -> Iterator[None]:
    """No garbage is looked for while torch is imported, nor later among what came with it.

    Modules leave none, but each search walks through all that they hold: about a tenth of the time that `import torch`
    takes, and, when the process ends, half a second more.
    """
    first, was = "torch" not in sys.modules, gc.isenabled()
    gc.disable()
    try:
        yield
        if first:
            gc.freeze()
    finally:
        if was:
            gc.enable()
