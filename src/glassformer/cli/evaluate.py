"""`glassformer evaluate`: scores of a model, each with what it was measured by."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from glassformer.cli.options import PrecisionOption
from glassformer.cli.output import put, put_json, say
from glassformer.errors import InputError

if TYPE_CHECKING:
    from glassformer.tasks.precision import Precision
    from glassformer.training.recipes import Data, Evaluation


def evaluate(
    model: Annotated[str, Parameter(help="The folder of a run or checkpoint, a GGUF file, or a known name.")],
    *,
    text: Annotated[
        Path | None,
        Parameter(
            allow_leading_hyphen=True,
            help="Measure the perplexity of this text file instead ('-' is standard input).",
        ),
    ] = None,
    context: Annotated[
        int | None, Parameter(help="With --text: tokens a window. Without it, the model's positions, at most 1024.")
    ] = None,
    stride: Annotated[
        int | None, Parameter(help="With --text: tokens from a window to the next. Without it, half of the context.")
    ] = None,
    split: Annotated[Literal["train", "valid", "test"], Parameter(help="Which of the recipe's data.")] = "test",
    data: Annotated[
        str | None, Parameter(help="Other data instead: a prefix P of two aligned files, a TSV or JSON Lines file.")
    ] = None,
    source: Annotated[str | None, Parameter(help="With --data: the source language, the ending of its file.")] = None,
    target: Annotated[str | None, Parameter(help="With --data: the target language, the ending of its file.")] = None,
    fields: Annotated[
        str | None, Parameter(help="With --data: the two columns or keys, as in 'en,de' or '1,2'.")
    ] = None,
    data_root: Annotated[
        Path | None, Parameter(help="Where the data lies. Without it, the run's own, GLASSFORMER_DATA, or data/.")
    ] = None,
    beam: Annotated[int | None, Parameter(help="Beam width. Without it, the recipe's.")] = None,
    length_penalty: Annotated[float | None, Parameter(help="Without it, the recipe's.")] = None,
    tokenized: Annotated[
        bool | None, Parameter(help="Whether the data are tokens already, scored as they are. Else as the recipe says.")
    ] = None,
    precision: PrecisionOption = None,
    json: Annotated[bool, Parameter(help="One JSON object on standard output.", negative="")] = False,
) -> None:
    """Score a model on the test data of its recipe, or on other files; with --text, measure a perplexity.

    BLEU comes with its sacreBLEU signature: scores of tokens (tok:none) and of text (tok:13a) cannot be compared.
    Neither can perplexities of other windows (context and stride), or of models with other tokenizers.
    """
    if text is not None:
        put_scores(_perplexity(model, text, context, stride, precision), json)
        return
    if context is not None or stride is not None:
        raise InputError("--context and --stride are the windows of a perplexity; give them with --text.")
    import glassformer
    from glassformer.checkpoints.native import find
    from glassformer.tasks.evaluation import evaluate as measure
    from glassformer.training.preparation import split_pairs

    folder = find(model)
    where, settings = _recipe(folder)
    if data is not None:
        where = _other_data(data, source, target, fields, folder)
    elif source is not None or target is not None or fields is not None:
        raise InputError("--source, --target and --fields describe other data; give them with --data.")
    if where is None:
        raise InputError(f"{folder} does not say which data it was trained on; name some with --data.")
    pairs = split_pairs(where, split, data_root or _data_root(folder))
    say(f"{len(pairs):,} pairs of {pairs.origin}")
    scores: dict[str, Any] = measure(
        glassformer.load(folder, precision=precision),
        pairs,
        tokenized=settings.tokenized if tokenized is None else tokenized,
        beam=settings.beam if beam is None else beam,
        length_penalty=settings.length_penalty if length_penalty is None else length_penalty,
    )
    put_scores(scores, json)


def put_scores(scores: dict[str, Any], json: bool) -> None:
    """A line a score, or all as one JSON object."""
    if json:
        put_json(scores)
        return
    width = max(16, *(len(name) + 2 for name in scores))
    for name, value in scores.items():
        put(f"{name:<{width}}{value:.4f}" if isinstance(value, float) else f"{name:<{width}}{value}")


def _perplexity(
    model: str, text: Path, context: int | None, stride: int | None, precision: Precision | None
) -> dict[str, Any]:
    """The perplexity of a text file, with the windows that it was measured in."""
    import glassformer

    content = _read_text(text)
    loaded = glassformer.load(model, precision=precision)
    began = time.perf_counter()
    found = loaded.perplexity(content, stride=stride, context=context)
    seconds = time.perf_counter() - began
    return {
        "perplexity": found.value,
        "context": found.context,
        "stride": found.stride,
        "n_tokens": found.n_tokens,
        "nll": found.nll,
        "bits_per_byte": found.nll / math.log(2) / len(content.encode()),
        "precision": precision or "fp32",
        "text": str(text),
        "seconds": round(seconds, 3),
        "tokens_per_second": round(found.n_tokens / seconds, 1),
    }


def _read_text(path: Path) -> str:
    """The text of a file, or of standard input; `InputError` where it is not UTF-8."""
    data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = "standard input" if str(path) == "-" else path
        raise InputError(f"{where}: the text must be UTF-8; byte {error.start} is not. Convert it.") from None


def _recipe(folder: Path) -> tuple[Data | None, Evaluation]:
    """The data and the settings of the recipe beside a model: its own, or that of the run it is a checkpoint of."""
    from glassformer.training.recipes import Evaluation, read_recipe
    from glassformer.training.runs import RECIPE

    for place in _places(folder):
        if (place / RECIPE).is_file():
            recipe = read_recipe(place / RECIPE)
            return recipe.data, recipe.evaluation
    return None, Evaluation()


def _data_root(folder: Path) -> str | None:
    """Where the run that a model belongs to read its data."""
    from glassformer.training.runs import ABOUT, RECIPE, Run

    for place in _places(folder):
        if (place / RECIPE).is_file() and (place / ABOUT).is_file():
            root = Run.open(place).about.get("data_root")
            return str(root) if root else None
    return None


def _places(folder: Path) -> list[Path]:
    """A model lies in its run's folder, in an average below it, or in `checkpoints/step-N`."""
    folder = folder.resolve()
    return [folder, folder.parent, folder.parent.parent]


def _other_data(data: str, source: str | None, target: str | None, fields: str | None, folder: Path) -> Data:
    from glassformer.checkpoints.native import read_index
    from glassformer.cli.train import columns
    from glassformer.training.recipes import Data

    text = read_index(folder).text
    named = Data(source=source or text.get("source", ""), target=target or text.get("target", ""))
    both = dataclasses.replace(named, train=data, valid=data, test=data)
    return dataclasses.replace(both, fields=columns(fields)) if fields is not None else both
