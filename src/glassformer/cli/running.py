"""Loading a model to run it, as fast as it can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassformer.tasks.precision import Precision

if TYPE_CHECKING:
    from glassformer.tasks.model import Model


def load_to_run(name: str, precision: Precision | None) -> Model:
    """`glassformer.load`; what has to be compiled first is begun while torch is being imported."""
    from glassformer.layers import kernels

    kernels.begin()
    import glassformer

    return glassformer.load(name, precision=precision)
