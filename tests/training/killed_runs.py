"""Run by test_resume.py: trains in forked children, kills them with SIGKILL, resumes them, prints what came out.

Usage: killed_runs.py FOLDER TASK MODE COUNT SEED. The task is "translation", whose corpus is in the folder, or one of
`tiny_tasks.TASKS`, whose corpora and base are made here. Mode "time" kills at random moments, "write" at the n-th call
of a function that writes, renames or syncs. The last child is left to end. Forking comes before any arithmetic, so the
children's thread pools are their own, and torch is imported once for all of them.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo  # the optimizers load it when first built: once here instead of once a child
from tiny_runs import tiny_recipe
from tiny_tasks import TUNED, recipe_of, write_corpora

from glassformer.training.display import Silent
from glassformer.training.experiment import resume, train
from glassformer.training.recipes import Recipe
from glassformer.training.runs import RECIPE

KILLABLE = [(os, "replace"), (os, "rename"), (os, "fsync"), (shutil, "rmtree"), (os, "write"), (os, "open")]


def work(folder: Path, run: Path, recipe: Recipe) -> None:
    """Begin the run, or go on with it."""
    torch.set_num_threads(1)
    if (run / RECIPE).is_file():
        resume(run, data_root=folder, display=Silent())
    else:
        train(recipe, run=run, data_root=folder, display=Silent())


def kill_at_call(number: int) -> None:
    """From here on, the `number`-th call of a killable function kills this process, before or after its effect."""
    calls = 0

    def wrap(function: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object, **keywords: object) -> object:
            nonlocal calls
            calls += 1
            if calls == number and number % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **keywords)
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    for module, name in KILLABLE:
        setattr(module, name, wrap(getattr(module, name)))


def child(folder: Path, run: Path, recipe: Recipe, call: int | None = None, after: float | None = None) -> int:
    """Train in a child, killed at a call or after a time; its exit status, negative the signal."""
    pid = os.fork()
    if pid == 0:
        try:
            if call is not None:
                kill_at_call(call)
            work(folder, run, recipe)
        except BaseException as error:
            print(f"child failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if after is not None:
        time.sleep(after)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def recipe_for(folder: Path, task: str) -> Recipe:
    """The recipe of a task; what it reads and starts from is there then."""
    if task == "translation":
        return tiny_recipe()
    write_corpora(folder)
    if task in TUNED:
        base = TUNED[task][0]
        assert child(folder, folder / "bases" / base, recipe_of(base)) == 0
    return recipe_of(task, folder / "bases")


def main(folder: Path, task: str, mode: str, count: int, seed: int) -> None:
    generator = random.Random(seed)
    recipe = recipe_for(folder, task)
    began = time.monotonic()
    assert child(folder, folder / "whole", recipe) == 0
    whole = time.monotonic() - began
    killed = 0
    for _ in range(count):
        if mode == "time":
            status = child(folder, folder / "killed", recipe, after=generator.uniform(0, whole))
        else:
            status = child(folder, folder / "killed", recipe, call=generator.randint(1, 60))
        assert status in (0, -signal.SIGKILL), status
        killed += status != 0
    assert child(folder, folder / "killed", recipe) == 0
    print(killed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
