"""`glassformer train`: a recipe with overrides, or a run to go on with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from glassformer.errors import InputError, did_you_mean

# Under torchrun, which takes "--run" and "--log" for beginnings of its own options, these two have another name.
_RUN, _LOG = ("--run", "--run-folder"), ("--log", "--log-to")
_OPTIONS = ("--data-root", *_RUN, "--name", "--resume", "--if-exists", *_LOG, "--help")


def train(
    *recipe: Annotated[
        str,
        Parameter(
            allow_leading_hyphen=True,
            help="A TOML file; after it any of its keys with another value: --training.steps 500 --model.dropout 0.2.",
        ),
    ],
    data_root: Annotated[
        Path | None,
        Parameter(help="Where the recipe's data lies. Without it, the folder in GLASSFORMER_DATA, else data/."),
    ] = None,
    run: Annotated[
        Path | None, Parameter(name=_RUN, help="The run's folder. Without it, runs/ and the recipe's name.")
    ] = None,
    name: Annotated[str | None, Parameter(help="The same, by name: the folder is runs/NAME.")] = None,
    resume: Annotated[Path | None, Parameter(help="Go on with this run instead of beginning one.")] = None,
    if_exists: Annotated[
        Literal["refuse", "resume"],
        Parameter(help="What to do where the run is there already: with resume, a restarted job goes on by itself."),
    ] = "refuse",
    log: Annotated[
        Literal["tensorboard", "wandb"] | None,
        Parameter(name=_LOG, help="Send the metrics there too (extra 'logging')."),
    ] = None,
) -> None:
    """Train a model as a recipe says, or go on with a run.

    The run's folder holds all about it: recipe, command, versions, metrics.jsonl, tokenizer, checkpoints, and in the
    end the model. Ctrl-C saves, and says how to go on. An existing run is never overwritten.

    Several processes train together where torchrun starts them, on GPUs or on the CPU:
    torchrun --nproc-per-node 2 -m glassformer train RECIPE --parallel.data 2
    Write --run-folder and --log-to there: torchrun takes --run and --log for its own.
    """
    recipes, overrides = split_overrides(recipe)
    if run is not None and name is not None:
        raise InputError("--run and --name both name the run's folder; give one of them.")
    if resume is not None:
        if recipes or run is not None or name is not None:
            raise InputError(f"--resume {resume} goes on with that run: give no recipe, --run or --name beside it.")
    elif len(recipes) != 1:
        came = f"got {' '.join(recipes)}" if recipes else "got none"
        raise InputError(f"train takes one recipe, such as recipes/dates.toml, or --resume RUN; {came}.")
    import glassformer

    if resume is not None:
        glassformer.resume(resume, data_root=data_root, log=log, **overrides)
    else:
        folder = Path("runs") / name if name is not None else run
        again = if_exists == "resume"
        glassformer.train(recipes[0], run=folder, data_root=data_root, resume=again, log=log, **overrides)


def split_overrides(tokens: Sequence[str], options: Sequence[str] = _OPTIONS) -> tuple[list[str], dict[str, Any]]:
    """The tokens that are no option, and `--section.key value`, `--section.key=value` or `--section.key` (true).

    Raises `InputError` for an option without a dot: no recipe has such a key, but one of the verb's `options` may have
    been meant.
    """
    plain: list[str] = []
    overrides: dict[str, Any] = {}
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--"):
            plain.append(token)
            continue
        key, equals, value = token[2:].partition("=")
        if "." not in key:
            raise InputError(
                f"unknown option '--{key}'.{did_you_mean(f'--{key}', options)} "
                "Keys of the recipe are written with their section, as in --training.steps 500."
            )
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        bracketed = value.startswith("[")  # a TOML list, which the recipe's reader takes apart
        overrides[key] = columns(value) if key == "data.fields" and not bracketed else value
    return plain, overrides


def columns(value: str) -> list[int] | list[str]:
    """`"en,de"` → `["en", "de"]` and `"1,2"` → `[1, 2]`."""
    names = [name.strip() for name in value.split(",")]
    return [int(name) for name in names] if all(name.isdecimal() for name in names) else names
