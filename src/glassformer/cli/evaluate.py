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
from glassformer.cli.output import put, put_json
from glassformer.errors import InputError

if TYPE_CHECKING:
    from glassformer.tasks.model import Model
    from glassformer.tasks.precision import Precision
    from glassformer.training.recipes import Recipe


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
        int | None, Parameter(help="Tokens a window of a perplexity. Else the recipe's, or at most 1024.")
    ] = None,
    stride: Annotated[
        int | None, Parameter(help="Tokens from a window to the next. Without it, half of the context.")
    ] = None,
    split: Annotated[Literal["train", "valid", "test"], Parameter(help="Which of the recipe's data.")] = "test",
    data: Annotated[
        str | None, Parameter(help="Other data instead: a file, or a prefix P of two aligned files.")
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
    threshold: Annotated[float | None, Parameter(help="Of refusing a question. Without it, the model's own.")] = None,
    truncate: Annotated[
        bool, Parameter(help="Read only the beginning of a text that is too long, instead of refusing.", negative="")
    ] = False,
    precision: PrecisionOption = None,
    json: Annotated[bool, Parameter(help="One JSON object on standard output.", negative="")] = False,
) -> None:
    """Score a model on the test data of its recipe, or on other files; with --text, measure a perplexity.

    What is measured depends on the task: BLEU, accuracy, exact match and F1, ROUGE, or a perplexity, with the number of
    examples and, but for BLEU, 95 % confidence intervals. BLEU comes with its sacreBLEU signature: scores of tokens
    (tok:none) and of text (tok:13a) cannot be compared. Neither can perplexities of other windows (context and stride),
    or of models with other tokenizers.
    """
    if text is not None:
        put_scores(_perplexity(model, text, context, stride, precision), json)
        return
    import glassformer
    from glassformer.training.jobs import job_of

    if data is None and (source is not None or target is not None or fields is not None):
        raise InputError("--source, --target and --fields describe other data; give them with --data.")
    folder = _folder(model)
    recipe = _recipe(folder)
    if recipe is None and data is None:
        glassformer.load(model, precision=precision)  # where that is no model at all, this says so
        raise InputError(f"{model} does not say which data it was trained on; name some with --data, or with --text.")
    loaded = glassformer.load(model if folder is None else folder, precision=precision)
    if data is not None:
        recipe = _other_data(loaded, recipe, data, source, target, fields)
    assert recipe is not None
    if (context or stride) and recipe.task != "language-modeling":
        raise InputError("--context and --stride are the windows of a perplexity; give them with --text.")
    scores = job_of(recipe.task).evaluate(
        loaded,
        recipe,
        split,
        data_root or _data_root(folder),
        context=context,
        stride=stride,
        beam=beam,
        length_penalty=length_penalty,
        tokenized=tokenized,
        threshold=threshold,
        truncate=truncate,
    )
    put_scores(scores, json)


def put_scores(scores: dict[str, Any], json: bool) -> None:
    """A line a score, or all as one JSON object."""
    if json:
        put_json(scores)
        return
    width = max(16, *(len(name) + 2 for name in scores))
    for name, value in scores.items():
        if isinstance(value, list):
            value = f"{value[0]:.4f} to {value[1]:.4f}"
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


def _folder(model: str) -> Path | None:
    """Where a native checkpoint or a run of that name lies; None for models of other kinds."""
    from glassformer.checkpoints.native import INDEX, find, shipped

    path = Path(model)
    native = (path / INDEX).is_file() or (path / "checkpoints").is_dir() or model in shipped()
    return find(model) if native else None


def _recipe(folder: Path | None) -> Recipe | None:
    """The recipe beside a model: its own, or that of the run it is a checkpoint of."""
    from glassformer.training.recipes import read_recipe
    from glassformer.training.runs import RECIPE

    for place in _places(folder):
        if (place / RECIPE).is_file():
            return read_recipe(place / RECIPE)
    return None


def _data_root(folder: Path | None) -> str | None:
    """Where the run that a model belongs to read its data."""
    from glassformer.training.runs import ABOUT, RECIPE, Run

    for place in _places(folder):
        if (place / RECIPE).is_file() and (place / ABOUT).is_file():
            root = Run.open(place).about.get("data_root")
            return str(root) if root else None
    return None


def _places(folder: Path | None) -> list[Path]:
    """A model lies in its run's folder, in an average below it, or in `checkpoints/step-N`."""
    if folder is None:
        return []
    folder = folder.resolve()
    return [folder, folder.parent, folder.parent.parent]


# What a model that brings no recipe is evaluated as.
_TASKS = {
    "translation": "translation",
    "text-to-text": "translation",
    "generation": "language-modeling",
    "fill": "masked-language-modeling",
    "classification": "classification",
    "spans": "question-answering",
    "summarization": "summarization",
}


def _other_data(
    model: Model, recipe: Recipe | None, data: str, source: str | None, target: str | None, fields: str | None
) -> Recipe:
    """The model's recipe (or one of its task), with all splits on other data."""
    from glassformer.cli.train import columns
    from glassformer.training.recipes import Data, Recipe

    if recipe is None:
        if model.task not in _TASKS:
            raise InputError(f"there is nothing to evaluate: this model is {model.purpose}.")
        named = Data(source=model.pipeline.source, target=model.pipeline.target)
        recipe = Recipe(task=_TASKS[model.task], data=named)  # type: ignore[arg-type]
    changes: dict[str, Any] = {"kind": "pairs", "train": data, "valid": data, "test": data}
    changes |= {f"{split}_titles": [] for split in ("train", "valid", "test")}
    changes["fields"] = None if fields is None else columns(fields)
    if recipe.task in ("classification", "summarization") and fields is None and not (source or target):
        changes["fields"] = recipe.data.fields
    changes |= {"source": source or recipe.data.source, "target": target or recipe.data.target}
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, **changes))
