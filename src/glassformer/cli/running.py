"""Loading a model to run it, and being quick about it."""

from __future__ import annotations

import gc
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING

from glassformer.tasks.precision import Precision

if TYPE_CHECKING:
    from glassformer.tasks.model import Model


def load_to_run(name: str, precision: Precision | None, many: bool = False, lean: bool = False) -> Model:
    """`glassformer.load`; what has to be compiled first is begun while torch is being imported: the kernels of a
    language model that writes, or those of `many` texts at once. See `importing` for `lean`."""
    from glassformer.layers import kernels

    kernels.begin("batches" if many else "generation")
    with importing(lean):
        import glassformer

        return glassformer.load(name, precision=precision)


@contextmanager
def importing(lean: bool = False) -> Iterator[None]:
    """No garbage is looked for while torch is imported, nor later among what came with it.

    Modules leave none, but each search walks through all that they hold: about a tenth of the time that `import torch`
    takes, and, when the process ends, half a second more. With `lean`, for a process that does nothing but run a model,
    torch leaves out what only tracing and compiling want, a seventh of its import or more: both fail in that process.
    And Python does not search for the modules of lines that nobody will see, another tenth.
    """
    first, was = "torch" not in sys.modules, gc.isenabled()
    gc.disable()
    # of other versions it is not known what their import wants
    without = first and lean and version("torch").startswith("2.13.")
    of_source = inspect.getmodule
    if without:
        sys.modules[_LEFT_OUT] = ModuleType(_LEFT_OUT)
        inspect.getmodule = _no_module
    try:
        yield
        if without:
            _complete()
        if first:
            gc.freeze()
    finally:
        inspect.getmodule = of_source
        if was:
            gc.enable()


_LEFT_OUT = "torch._meta_registrations"
"""Python's account, for some hundred operators, of what shapes they give. Only tracing asks for it."""


def _no_module(object: object, _filename: str | None = None) -> None:
    """In place of `inspect.getmodule`. torch notes at which line its operators are registered, and Python then resolves
    the file of each of a thousand modules, only to read the line itself, which is not kept."""


def _complete() -> None:
    """What running wants of all that is left out: `torch.Generator` becomes a class that can be used."""
    import torch
    from torch._opaque_base import OpaqueBaseMeta

    torch._C._set_generator_metaclass(OpaqueBaseMeta)  # type: ignore[attr-defined]
