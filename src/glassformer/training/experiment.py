"""`train` and `resume`: from a recipe to a finished `Model` in a run folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from glassformer.errors import InputError, did_you_mean
from glassformer.memory import keep_large_buffers
from glassformer.models.config import Config
from glassformer.tasks.model import Model
from glassformer.training.display import Display, Silent
from glassformer.training.finishing import as_it_is, extra_of, finish, finish_divided, write_model
from glassformer.training.jobs import Prepared, job_of
from glassformer.training.jobs.job import Given
from glassformer.training.logs import Log, check_log, open_log
from glassformer.training.origins import origin
from glassformer.training.parallel import Learner, applied, check_layout, check_network, dealt, placed, refitted
from glassformer.training.parallel.checkpoints import gathered
from glassformer.training.parallel.drawing import Draws, fill, unfilled
from glassformer.training.plan import plan
from glassformer.training.precision import pick_compile, pick_device, pick_precision
from glassformer.training.ranks import Ranks, processes
from glassformer.training.recipes import SECTIONS, Recipe, read_recipe, recipe_mapping
from glassformer.training.recomputing import recompute_blocks
from glassformer.training.runs import Run, refuse_existing
from glassformer.training.starting import Built, Start, build, check_family, open_start
from glassformer.training.trainer import Interrupted, Trainer, compiled
from glassformer.training.validation import Validation

LAYOUT = tuple(f"parallel.{item.name}" for item in dataclasses.fields(SECTIONS["parallel"]))
CHANGEABLE = (
    *("training.steps", "training.minutes", "training.patience", "training.keep", "evaluation.average"),
    *LAYOUT,
)


@dataclass(frozen=True)
class Means:
    """What a run computes with; decided once, so that a resumed run does not decide otherwise."""

    device: str
    precision: str
    compile: bool
    threads: int
    torch: str


def train(
    recipe: str | Path | Recipe,
    *,
    run: str | Path | None = None,
    data_root: str | Path | None = None,
    resume: bool = False,
    log: str | None = None,
    display: Display | None = None,
    **overrides: Any,
) -> Model:
    """Train as `recipe` says, in the folder `run` (`runs/NAME-OF-RECIPE` unless given), and return the finished model.

    Overrides are a recipe's keys: `train("recipes/dates.toml", **{"training.steps": 100})`. With `resume`, a run that
    exists is gone on with; without, it is an `InputError`. `log` is "tensorboard" or "wandb".

    Where this process is one of several (`torchrun`), it trains together with them as [parallel] says; all of them see
    the run's folder, and all return the model; without its numbers where no process has them all: load the folder then.

    Raises `InputError` for everything a user can put right, `Interrupted` (a `KeyboardInterrupt`) after Ctrl-C.
    """
    check_log(log)
    with processes() as ranks:
        display = _shown(display, ranks)
        read = ranks.together(lambda: read_recipe(recipe, overrides))
        folder = Path(run) if run is not None else Path("runs") / read.name
        if resume and ranks.first(folder.exists):
            kept = {key: value for key, value in overrides.items() if key not in LAYOUT}
            if read.parallel.processes == ranks.size:  # else the number of processes has changed meanwhile
                kept |= {f"parallel.{name}": value for name, value in dataclasses.asdict(read.parallel).items()}
            return _go_on(folder, data_root, log, display, kept, ranks)
        means, start, prepared = ranks.together(lambda: _prepared(read, folder, data_root, ranks))
        ranks.agree("The data", prepared.fingerprint)
        about = {**origin(data_root), "means": dataclasses.asdict(means), "data": prepared.fingerprint}
        if start is not None:
            about |= {"base": start.base, "base_weights": start.weights}
        ranks.first(lambda: _done(Run.create(folder, read, prepared.tokenizer, about)))
        made = Run(folder, read)
        with _held(made, ranks):
            return _train(made, prepared, start, means, log, display, ranks)


def resume(
    run: str | Path,
    *,
    data_root: str | Path | None = None,
    log: str | None = None,
    display: Display | None = None,
    **overrides: Any,
) -> Model:
    """Go on with a run that was stopped or killed, as if it never had been; a finished one is finished again.

    Overrides may only lengthen or end it: `training.steps`, `minutes`, `patience`, `keep`, `evaluation.average`.
    Raises `InputError` where there is no run, its data changed, or its newest checkpoint is damaged.
    """
    check_log(log)
    with processes() as ranks:
        return _go_on(Path(run), data_root, log, _shown(display, ranks), overrides, ranks)


def _go_on(
    folder: Path,
    data_root: str | Path | None,
    log: str | None,
    display: Display,
    overrides: Mapping[str, Any],
    ranks: Ranks,
) -> Model:
    run = ranks.together(lambda: Run.open(folder))
    with _held(run, ranks):
        wanted = ranks.together(lambda: _changed(run, overrides, ranks.size))
        ranks.first(lambda: _change(run, wanted))
        run.recipe = wanted
        means = Means(**run.about["means"])
        _warn_of_changes(means, display)
        start, prepared = ranks.together(lambda: _prepared_again(run, data_root))
        return _train(run, prepared, start, means, log, display, ranks)


def _prepared(
    recipe: Recipe, folder: Path, data_root: str | Path | None, ranks: Ranks
) -> tuple[Means, Start | None, Prepared]:
    """All that can be wrong with a new training is wrong here, before there is a run of it."""
    refuse_existing(folder)
    check_layout(recipe, ranks.size)
    means = _means(recipe)
    start = open_start(recipe.finetune)
    check_family(recipe, start, job_of(recipe.task).families)  # before the data, whose errors would not say it
    prepared = job_of(recipe.task).prepare(Given(recipe, data_root, start))
    _check(recipe, prepared, start)
    return means, start, prepared


def _prepared_again(run: Run, data_root: str | Path | None) -> tuple[Start | None, Prepared]:
    """What the run began with, or an `InputError`."""
    about = run.about
    root = data_root if data_root is not None else about.get("data_root")
    start = open_start(run.recipe.finetune)
    if start is not None and start.weights != about.get("base_weights"):
        raise InputError(
            f"{run.folder} was begun from '{run.recipe.finetune.model}', whose weights are others now. "
            "Give it the same model back, or begin a new run."
        )
    prepared = job_of(run.recipe.task).prepare(Given(run.recipe, root, start, run.tokenizer()))
    if prepared.fingerprint != about["data"]:
        raise InputError(
            f"{run.folder} was begun with other data: what is read now differs. "
            "Give the same files (--data-root), or begin a new run."
        )
    return start, prepared


@contextmanager
def _held(run: Run, ranks: Ranks) -> Iterator[None]:
    """`Run.alone` for all processes: the first one holds the run."""
    with ExitStack() as stack:
        ranks.first(lambda: stack.enter_context(run.alone()))
        yield


def _shown(display: Display | None, ranks: Ranks) -> Display:
    return (display or Display()) if ranks.leads else Silent()


def _done(_: object) -> None:
    """Nothing, where a result is of no use to the other processes."""


def _check(recipe: Recipe, prepared: Prepared, start: Start | None) -> None:
    """What is wrong with the network, before there is a run of it. Building draws weights, and leaves the user's source
    of chance alone."""
    with torch.random.fork_rng(devices=[]), unfilled(draw=False) if _fresh(recipe, start) else nullcontext():
        check_network(_build(recipe, prepared, start).network, recipe.parallel)


def _build(recipe: Recipe, prepared: Prepared, start: Start | None) -> Built:
    families = job_of(recipe.task).families
    return build(recipe, prepared.tokenizer, start, families, prepared.head, prepared.derived)


def _fresh(recipe: Recipe, start: Start | None) -> bool:
    """Whether it is a Transformer that starts from nothing: it can be built without its numbers."""
    return start is None and isinstance(recipe.network_config(vocab_size=100), Config)


def _changed(run: Run, overrides: Mapping[str, Any], size: int) -> Recipe:
    """The run's recipe with overrides, its layout for so many processes unless they say one."""
    wanted = read_recipe(run.recipe, overrides)
    if not any(key in LAYOUT for key in overrides):
        wanted = dataclasses.replace(wanted, parallel=refitted(wanted.parallel, size))
    check_layout(wanted, size)
    before, after = recipe_mapping(run.recipe), recipe_mapping(wanted)
    for key in overrides:
        section, _, name = key.partition(".")
        unchanged = before[section][name] == after[section][name] if name else before[key] == after[key]
        if key not in CHANGEABLE and not unchanged:
            raise InputError(
                f"'{key}' cannot change when a run is resumed, only {', '.join(CHANGEABLE)} can."
                f"{did_you_mean(key, CHANGEABLE)} Begin a new run for anything else."
            )
    return wanted


def _change(run: Run, wanted: Recipe) -> None:
    if wanted != run.recipe:
        run.rewrite_recipe(wanted)


@dataclass(frozen=True)
class Assembled:
    """A run's parts, put together: what trains, and what its model is made of."""

    trainer: Trainer
    model: Model
    built: Built
    validation: Validation
    """Of the whole network, in this process; that of `trainer` may be divided among several."""


def _train(
    run: Run, prepared: Prepared, start: Start | None, means: Means, log: str | None, display: Display, ranks: Ranks
) -> Model:
    ranks = placed(ranks, run.recipe.parallel)
    keep_large_buffers()
    with ExitStack() as stack:
        logs = (stack.enter_context(closing(open_log(log, run.folder))),) if log and ranks.leads else ()
        parts = _assembled(run, prepared, start, means, logs, display, ranks)
        trainer = parts.trainer
        resumed = trainer.restore()
        display.say(f"{'Going on with' if resumed else 'Training'} {run.folder}")
        step = trainer.progress.step
        display.table(plan(run.recipe, trainer.learner.whole, prepared, step, means.device, means.precision))
        if not trainer.finished:
            ranks.first(run.reopen_model)
        return _to_the_end(parts, run, display, ranks)


def _to_the_end(parts: Assembled, run: Run, display: Display, ranks: Ranks) -> Model:
    """Trained and finished: the model, in all processes."""
    trainer, model, built = parts.trainer, parts.model, parts.built
    try:
        trainer.fit()
        if trainer.learner.divided:
            return finish_divided(trainer, trainer.validation, model, built, run, display)
        finished: list[Model] = []
        ranks.first(lambda: finished.append(finish(trainer, parts.validation, model, built, run, display)))
        return ranks.together(lambda: finished[0] if finished else Model.load(run.folder))
    except KeyboardInterrupt as error:
        if isinstance(error, Interrupted):
            raise
        message = f"Stopped at once; {run.last_good()}. Go on with: {run.resume_command()}"
        raise Interrupted(message) from None


def _assembled(
    run: Run,
    prepared: Prepared,
    start: Start | None,
    means: Means,
    logs: tuple[Log, ...],
    display: Display,
    ranks: Ranks,
) -> Assembled:
    """From the recipe's numbers to a trainer that could begin; its first weights depend on the seed alone."""
    recipe, job = run.recipe, job_of(run.recipe.task)
    torch.manual_seed(recipe.training.seed)
    built, draws = _build_to_train(recipe, prepared, start)
    network = built.network
    if recipe.training.recompute:
        recompute_blocks(network)
    objective = job.objective(recipe, network)
    fast = compiled(objective, means.compile and recipe.parallel.whole)
    learner = applied(network, fast, recipe.parallel, ranks, torch.device(means.device), means.precision)
    if draws is not None:
        fill(learner.network, draws, torch.device(means.device))
    model = Model(learner.whole, prepared.tokenizer, prepared.pipeline, job.name, prepared.eos_ids)
    validation = Validation(
        network, lambda: _as_trained(model, learner, ranks), objective, job, prepared, recipe, precision=means.precision
    )
    together = validation if ranks.size == 1 else _divided(validation, learner, ranks)
    trainer = Trainer(
        learner,
        dealt(prepared.train, recipe.parallel, ranks),
        together,
        run,
        lambda folder, shards: write_model(folder, model, built, extra_of(run, trainer), shards=shards),
        display=display,
        factors=built.factors,
        precision=means.precision,
        logs=logs,
        ranks=ranks,
    )
    return Assembled(trainer, model, built, validation)


def _build_to_train(recipe: Recipe, prepared: Prepared, start: Start | None) -> tuple[Built, Draws | None]:
    """The network; where it will be divided, without numbers if it is a fresh Transformer: these are drawn later."""
    layout = recipe.parallel
    if layout.shard * layout.tensor == 1 or not _fresh(recipe, start):
        return _build(recipe, prepared, start), None
    with unfilled() as draws:
        built = _build(recipe, prepared, start)
    draws.names(built.network)
    return built, draws


def _as_trained(model: Model, learner: Learner, ranks: Ranks) -> Model:
    """The model as it is now; of a divided network gathered in the first process, and without numbers elsewhere."""
    if not learner.divided:
        return as_it_is(model)
    network = gathered(learner, ranks)
    return model if network is None else as_it_is(dataclasses.replace(model, network=network))


def _divided(validation: Validation, learner: Learner, ranks: Ranks) -> Validation:
    """The validation that several processes do together, each its rows, on what they train."""
    held = dealt(validation.prepared.valid, validation.recipe.parallel, ranks)
    return dataclasses.replace(
        validation,
        network=learner.network,
        objective=learner.objective,
        prepared=dataclasses.replace(validation.prepared, valid=held),
        ranks=ranks,
    )


def _means(recipe: Recipe) -> Means:
    settings = recipe.training
    device = pick_device(settings.device)
    return Means(
        device=str(device),
        precision=pick_precision(settings.precision, device),
        compile=pick_compile(settings.compile, device),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )


def _warn_of_changes(means: Means, display: Display) -> None:
    pick_device(means.device)
    for name, now in (("threads", torch.get_num_threads()), ("torch", torch.__version__)):
        if getattr(means, name) != now:
            display.say(
                f"Note: the run began with {name} {getattr(means, name)}, now it is {now}: "
                "the result may differ in the last bits from that of a run that never stopped."
            )
