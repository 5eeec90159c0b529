"""Options that several verbs have."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from glassformer.errors import InputError
from glassformer.tasks.precision import Precision

EncodingOption = Annotated[
    str | None,
    Parameter(help="What the documents are written in, such as latin-1 or koi8-r; told by their bytes unless given."),
]

PrecisionOption = Annotated[
    Precision | None,
    Parameter(
        help="What the network computes in, fp32 unless given; int8 is faster for wide networks on a CPU, and writes a "
        "bit differently; int4 needs the least memory."
    ),
]

RunPrecisionOption = Annotated[
    Precision,
    Parameter(
        help="What the network computes in. As the file stores it, unless given: weights of 4 or 8 bits where it has "
        "such, else fp32."
    ),
]

ModelOption = Annotated[
    str,
    Parameter(help="The folder of a run, a checkpoint or a Hugging Face model, a GGUF file, or a known name."),
]

JsonOption = Annotated[bool, Parameter(help="One JSON object on standard output.", negative="")]


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. Without any of these, the most probable one is."""

    temperature: Annotated[float, Parameter(help="0 takes the most probable token; 1 draws as the model says.")] = 0.0
    top_k: Annotated[int, Parameter(help="Draw among so many of the most probable tokens; 0 is all.")] = 0
    top_p: Annotated[float, Parameter(help="Draw among the most probable tokens that make up this share.")] = 1.0
    min_p: Annotated[float, Parameter(help="Drop tokens below this share of the most probable one.")] = 0.0
    repetition_penalty: Annotated[float, Parameter(help="Above 1 makes tokens that were there already rarer.")] = 1.0
    seed: Annotated[int | None, Parameter(help="Makes what is drawn reproducible.")] = None
    stop: Annotated[
        tuple[str, ...],
        Parameter(
            help="End before this string; may be given several times. A newline is $'\\n' in most shells.",
            show_default=False,
        ),
    ] = ()

    def settings(self) -> dict[str, Any]:
        """The same as keyword arguments of `Model.generate`."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


SamplingOptions = Annotated[Sampling, Parameter(name="*")]


def stored_dtype(name: str) -> Any:
    """`"fp16"` → `torch.float16`."""
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[name]


def check_words(texts: Sequence[str], what: str) -> None:
    """`InputError` for a file among questions or statements: a shell that makes several names of --documents *.txt
    leaves all but the first to them."""
    for text in texts:
        if len(text) < 256 and Path(text).exists():
            raise InputError(
                f"'{text}' is taken for a {what}, and there is a file of this name: give --documents before every one "
                "of them, or the folder. If it is meant, pipe it in."
            )
