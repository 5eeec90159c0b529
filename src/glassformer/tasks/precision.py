"""What a model may compute in when it runs; imports no torch, so that the command line can name it."""

from typing import Literal, get_args

Precision = Literal["fp32", "bf16", "int8", "int4", "stored"]
"""`stored`: weights as the file has them, in 4 or 8 bits or else in fp32, and inputs of the former rounded to 8 bits.
`fp32`: the same weights, and nothing rounded."""

PRECISIONS = get_args(Precision)
