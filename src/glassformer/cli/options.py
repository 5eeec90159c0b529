"""Options that several verbs have."""

from typing import Annotated

from cyclopts import Parameter

from glassformer.tasks.precision import Precision

PrecisionOption = Annotated[
    Precision,
    Parameter(
        help="What the network computes in; int8 is faster for wide networks on a CPU, and writes a bit differently."
    ),
]
