"""`glassformer finetune`: train a recipe from a model that has learnt before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from glassformer.cli.train import split_overrides
from glassformer.errors import InputError

LORA = 8
"""The rank of low-rank layers where --lora says none."""
_OPTIONS = ("--model", "--lora", "--no-lora", "--freeze", "--data-root", "--run", "--name", "--log", "--help")


def finetune(
    *recipe: Annotated[
        str,
        Parameter(
            allow_leading_hyphen=True,
            help="A TOML file; after it any of its keys with another value: --training.steps 500 --finetune.lora 16.",
        ),
    ],
    model: Annotated[
        str | None, Parameter(help="What to start from: a run, a model's folder, or a known name. Else the recipe's.")
    ] = None,
    lora: Annotated[
        bool | None,
        Parameter(
            help=f"Train low-rank layers (of the recipe's rank, else {LORA}) and the head, and save these alone; "
            "--no-lora trains all weights where the recipe has low-rank layers."
        ),
    ] = None,
    freeze: Annotated[
        tuple[str, ...],
        Parameter(
            help="Leave these parameters as they are: 'embedding', 'blocks[0:3]', 'all-but-head'. May be repeated."
        ),
    ] = (),
    data_root: Annotated[
        Path | None,
        Parameter(help="Where the recipe's data lies. Without it, the folder in GLASSFORMER_DATA, else data/."),
    ] = None,
    run: Annotated[Path | None, Parameter(help="The run's folder. Without it, runs/ and the recipe's name.")] = None,
    name: Annotated[str | None, Parameter(help="The same, by name: the folder is runs/NAME.")] = None,
    log: Annotated[
        Literal["tensorboard", "wandb"] | None, Parameter(help="Send the metrics there too (extra 'logging').")
    ] = None,
) -> None:
    """Train a model further, with the head and on the data of a recipe.

    It is the training of glassformer train, with a [finetune] section; a run is gone on with by its --resume.
    """
    recipes, overrides = split_overrides(recipe, _OPTIONS)
    if run is not None and name is not None:
        raise InputError("--run and --name both name the run's folder; give one of them.")
    if len(recipes) != 1:
        came = f"got {' '.join(recipes)}" if recipes else "got none"
        raise InputError(f"finetune takes one recipe, such as recipes/sst2.toml; {came}.")
    import glassformer
    from glassformer.training.recipes import read_recipe

    overrides |= chosen(model, lora, freeze, overrides)
    read = read_recipe(recipes[0], overrides)
    if not read.finetune.model:
        raise InputError("what shall the training start from? Name it: --model all-minilm-l6-v2, or a run's folder.")
    if lora and not read.finetune.lora:
        read = read_recipe(read, {"finetune.lora": LORA})
    folder = Path("runs") / name if name is not None else run
    glassformer.train(read, run=folder, data_root=data_root, log=log)


def chosen(model: str | None, lora: bool | None, freeze: tuple[str, ...], overrides: dict[str, Any]) -> dict[str, Any]:
    """The options as keys of a recipe. `InputError` where a key is given as well."""
    found: dict[str, Any] = {}
    if model is not None:
        found["finetune.model"] = model
    if lora is False:
        found["finetune.lora"] = 0
    if freeze:
        found["finetune.freeze"] = list(freeze)
    both = found.keys() & overrides.keys()
    if both:
        raise InputError(f"--{min(both)} says the same as another option; give one of them.")
    return found
