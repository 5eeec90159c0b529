"""The run folder: everything about one training, written so that killing it at any moment loses nothing that was there.

- `recipe.toml`: the recipe with its overrides; `glassformer train runs/NAME/recipe.toml` repeats the run
- `run.json`: command, versions, git commit, device, data root, fingerprint of the data
- `tokenizer.json`: trained before the first step
- `metrics.jsonl`: a line every `log_every` steps and one an evaluation
- `checkpoints/step-N`: native checkpoints; the newest two also hold `training/`, what resuming needs
- `glassformer.json`, `model.safetensors`: the finished model; the folder is itself a checkpoint then
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glassformer.checkpoints.files import read_json, sync_folder, write_bytes, write_json
from glassformer.checkpoints.native import INDEX, WEIGHTS
from glassformer.errors import InputError
from glassformer.text.tokenizer import Tokenizer
from glassformer.training.recipes import Recipe, read_recipe, recipe_toml

RECIPE, ABOUT, TOKENIZER, METRICS = "recipe.toml", "run.json", "tokenizer.json", "metrics.jsonl"


class Run:
    """An existing run folder; `Run.create` makes a new one, `Run.open` finds one again."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder = folder
        self.recipe = recipe

    @classmethod
    def create(cls, folder: str | Path, recipe: Recipe, tokenizer: Tokenizer, about: dict[str, Any]) -> Run:
        """A new run folder with its recipe, tokenizer and `about` in it; it appears whole or not at all.

        `InputError` where the folder exists.
        """
        folder = Path(folder)
        refuse_existing(folder)
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
        try:
            (temporary / "checkpoints").mkdir(parents=True)
            write_bytes(temporary / RECIPE, recipe_toml(recipe).encode())
            specials = tokenizer.unusual_roles
            write_json(temporary / ABOUT, {**about, **({"specials": specials} if specials else {})})
            tokenizer.save(temporary / TOKENIZER)
            (temporary / METRICS).touch()
            os.rename(temporary, folder)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            refuse_existing(folder)
            raise InputError(f"The run folder {folder} cannot be made: {error.strerror}.") from None
        return cls(folder, recipe)

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """The run in `folder`; `InputError` where there is none. What a kill left half written is removed."""
        folder = Path(folder)
        if not (folder / RECIPE).is_file():
            known = sorted(str(path.parent) for path in folder.parent.glob(f"*/{RECIPE}"))
            raise InputError(f"{folder} is no run: it has no {RECIPE}. Runs beside it: {', '.join(known) or 'none'}.")
        return cls(folder, read_recipe(folder / RECIPE))

    @property
    def about(self) -> dict[str, Any]:
        """What `run.json` says of how the run was started."""
        return read_json(self.folder / ABOUT)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer trained when the run began."""
        return Tokenizer.load(self.folder / TOKENIZER, specials=self.about.get("specials"))

    def rewrite_recipe(self, recipe: Recipe) -> None:
        """Store a recipe with other overrides, such as more steps."""
        write_bytes(self.folder / RECIPE, recipe_toml(recipe).encode())
        self.recipe = recipe

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the run: a second process that wants to train in the same folder meanwhile gets an `InputError`."""
        if os.name == "nt":
            yield
            return
        import fcntl

        with open(self.folder / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"{self.folder} is being trained by another process; wait for it or stop it first."
                ) from None
            yield

    # --- metrics -----------------------------------------------------------------------------------------------------

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl. `InputError` where the disk does not take it."""
        try:
            with open(self.folder / METRICS, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise InputError(self.not_written(METRICS, error)) from None

    def metrics_bytes(self) -> int:
        """Length of metrics.jsonl, forced to the disk: a checkpoint remembers it."""
        path = self.folder / METRICS
        if not path.is_file():
            return 0
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
            return file.seek(0, os.SEEK_END)

    def cut_metrics(self, length: int) -> None:
        """Drop the lines after a checkpoint: the resumed run writes them again."""
        path = self.folder / METRICS
        if path.is_file():
            write_bytes(path, path.read_bytes()[:length])

    def metrics(self) -> list[dict[str, Any]]:
        """The whole lines of metrics.jsonl."""
        text = (self.folder / METRICS).read_text(encoding="utf-8") if (self.folder / METRICS).is_file() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def checkpoints(self) -> dict[int, Path]:
        """The checkpoints by step, oldest first."""
        paths = (self.folder / "checkpoints").glob("step-*")
        return dict(sorted((int(path.name[5:]), path) for path in paths if path.name[5:].isdigit()))

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.folder / "checkpoints" / f"step-{step}"

    def regular_checkpoints(self) -> dict[int, Path]:
        """Those at multiples of `checkpoint_every`, and the newest: the ones that averaging takes.

        Others exist where a better model was found, or where Ctrl-C stopped; the average must not depend on these.
        """
        found = self.checkpoints()
        every, newest = self.recipe.training.save_every, max(found, default=0)
        return {step: path for step, path in found.items() if step % every == 0 or step == newest}

    def publish(self, step: int, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a folder, then make it `checkpoints/step-N` in one step.

        `InputError` where the disk does not take it; the checkpoints that were there stay.
        """
        final = self.checkpoint(step)
        temporary = final.with_name(f".step-{step}.partial")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            write(temporary)
            sync_folder(temporary)
            os.rename(temporary, final)
            sync_folder(final.parent)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise InputError(self.not_written(f"the checkpoint of step {step}", error)) from None
        return final

    def prune(self, keep: int, best: int | None) -> None:
        """Remove all but the last `keep` regular checkpoints, the best and the newest two."""
        found = self.checkpoints()
        kept = {*list(self.regular_checkpoints())[-keep:], *list(found)[-2:], best}
        for step, path in found.items():
            if step not in kept:
                remove(path)
            elif step not in list(found)[-2:] and (path / "training").is_dir():
                remove(path / "training")

    def clear_leftovers(self) -> None:
        """Remove what a killed process left half written or half removed."""
        for path in [*(self.folder / "checkpoints").glob(".*"), *(self.folder / "checkpoints").glob("*/.*")]:
            shutil.rmtree(path, ignore_errors=True)

    def reopen_model(self) -> None:
        """Take back the finished model: the training goes on, and until it ends the newest checkpoint is the model."""
        for name in (INDEX, WEIGHTS):
            (self.folder / name).unlink(missing_ok=True)

    def last_good(self) -> str:
        """For messages: which checkpoint there is to fall back on."""
        steps = self.checkpoints()
        return f"the last good checkpoint is {steps[max(steps)]}" if steps else "there is no checkpoint yet"

    def resume_command(self) -> str:
        """What to type to go on."""
        return f"glassformer train --resume {self.folder}"

    def not_written(self, what: str, error: OSError) -> str:
        """For messages: what the disk did not take, why, and how to go on."""
        reason = error.strerror or str(error)
        return (
            f"{self.folder}: {what} cannot be written ({reason}); {self.last_good()}. "
            f"Make room, then go on with: {self.resume_command()}"
        )


def refuse_existing(folder: Path) -> None:
    """`InputError` where there is already something at a new run's place."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"The run folder {folder} exists and is not overwritten: go on with it by --resume {folder}, "
            "or choose another name with --run."
        )


def remove(folder: Path) -> None:
    """Remove a folder so that a kill on the way never leaves a part of it under its name."""
    hidden = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    os.rename(folder, hidden)
    shutil.rmtree(hidden, ignore_errors=True)
