"""The study of a GPT of one's own: trained on people by a recipe, or gone on with, or taken as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from glassformer.errors import InputError
from glassformer.interpret.people_facts import people_facts
from glassformer.studies.fact_recall import study
from glassformer.studies.fact_recall.loaded import Notes, digest
from glassformer.studies.fact_recall.people_recall import CONTROL, MAIN, Trained, one_each, part
from glassformer.studies.fact_recall.stages import Material
from glassformer.studies.running import Done, run_parts
from glassformer.studies.study import Setting
from glassformer.tasks.model import Model
from glassformer.training.experiment import train
from glassformer.training.jobs.language import people_of
from glassformer.training.recipes import Recipe, read_recipe
from glassformer.training.runs import Run

STUDIED = ("sport", "colour")
"""The attributes whose recall is taken apart: a real one, and one that no name tells. A hundred cities have too few
people each for a probe."""
UNRELATED = 60

LEAST_STEPS, FEW_MORE = 200, 1.3
"""With fewer people the steps are fewer in proportion, but for so many times more: small corpora need it."""


def study_trained(
    recipe: Path,
    setting: Setting,
    out: Path,
    *,
    people: int | None = None,
    limit: int = 300,
    seed: int = 0,
) -> tuple[list[Done], Notes]:
    """Train the recipe and its control (the same name with "-single" behind it, if it is there), ask both, and take
    apart how the first recalls sports and colours.

    A run in runs/ that is finished is taken as it is; one that was interrupted is gone on with. With `people` the run
    is that of so many people, in a folder of its own. Raises `InputError` for a recipe that is not about people.
    """
    read = read_recipe(recipe)
    if read.data.kind != "people":
        raise InputError(f"{recipe}: 'recall' trains recipes about people, whose data has kind = \"people\".")
    single = recipe.with_name(f"{recipe.stem}-single{recipe.suffix}")
    given = {MAIN: recipe, **({CONTROL: single} if single.is_file() else {})}
    models = {name: _model(path, setting, people) for name, path in given.items()}
    told = people_of(_changed(read, people), setting.data_root)
    trained = Trained(models, told, seed)
    weights = {name: digest(model) for name, model in models.items()}
    setting = replace(setting, given={"weights": weights, "limit": limit, "seed": seed})
    done = run_parts([part(trained)], setting, out)
    for attribute in STUDIED:
        done += study(_material(trained, attribute, setting, limit), setting, out, len(done) + 1)
    control = single.name if CONTROL in models else "none: there is no recipe of that name"
    notes = [
        ("model", f"trained by {recipe.name}" + (f" on {people} people" if people else "")),
        ("control", control),
        ("people", f"{sum(each.trained for each in told)} trained, {sum(not each.trained for each in told)} never"),
        ("limit and seed", f"{limit} facts of each attribute, seed {seed}"),
    ]
    return done, notes


def _changed(recipe: Recipe, people: int | None) -> Any:
    return recipe.data if people is None else replace(recipe.data, people=people)


def _model(path: Path, setting: Setting, people: int | None) -> Model:
    """The finished model of a recipe: found, gone on with, or trained."""
    recipe = read_recipe(path)
    overrides = _overrides(recipe, people, setting)
    folder = Path("runs") / (recipe.name if people is None else f"{recipe.name}-{people}")
    if (folder / "glassformer.json").is_file():
        found = Run.open(folder).recipe.data
        wanted = _changed(recipe, people)
        if found != wanted:
            raise InputError(f"{folder} was trained on other data than {path} names: move it away, or give --people.")
        setting.say(f"{path.name}: trained before, in {folder}")
        return Model.load(folder)
    setting.say(f"{path.name}: {'going on with' if folder.exists() else 'training in'} {folder}")
    return train(path, run=folder, data_root=setting.data_root, resume=True, **overrides)


def _overrides(recipe: Recipe, people: int | None, setting: Setting) -> Mapping[str, Any]:
    if people is None:
        return {}
    whole = len(people_of(replace(recipe.data, people=0), setting.data_root))
    steps = round(recipe.training.steps * min(1.0, FEW_MORE * people / whole))
    return {"data.people": people, "training.steps": min(recipe.training.steps, max(LEAST_STEPS, steps))}


def _material(trained: Trained, attribute: str, setting: Setting, limit: int) -> Material:
    """One attribute of the trained people, in held-out wordings; where they live is the unrelated fact."""
    count = setting.pick(40, 300, 1500)
    asked = one_each(trained.people, attribute, "trained", count, trained.seed)
    unrelated = people_facts(trained.people, "city", wording=0)[-UNRELATED:]
    return Material(trained.models[MAIN], asked, unrelated, limit, trained.seed, attribute)
