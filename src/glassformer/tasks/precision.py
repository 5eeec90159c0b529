"""What a model may compute in when it runs; imports no torch, so that the command line can name it."""

from typing import Literal, get_args

Precision = Literal["fp32", "bf16", "int8"]
PRECISIONS = get_args(Precision)
