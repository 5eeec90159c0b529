"""The one training loop: any network, any objective, exact to the bit when it is killed and resumed on a CPU."""

from __future__ import annotations

import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from glassformer.checkpoints.files import sync_folder
from glassformer.checkpoints.shards import FOLDER
from glassformer.errors import InputError
from glassformer.memory import return_free_memory
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.models.packing import packs
from glassformer.tasks.objectives import Loss
from glassformer.text.batches import Batches, Cursor
from glassformer.training.display import Display, duration
from glassformer.training.gradients import Objective, accumulate, clip_gradients
from glassformer.training.logs import Log
from glassformer.training.optimizers import build_optimizer, optimizer_tensors, set_learning_rate
from glassformer.training.parallel import Learner
from glassformer.training.parallel.checkpoints import write_shards
from glassformer.training.ranks import ALONE, Ranks
from glassformer.training.runs import Run
from glassformer.training.schedules import batches_at, learning_rate
from glassformer.training.snapshots import Progress, kept_tensors, read_divided, read_snapshot, write_snapshot
from glassformer.training.validation import Validation, means

WEIGHTS, MOMENTS = FOLDER, f"training/{FOLDER}"
PARTS = (WEIGHTS, MOMENTS)
"""The folders of a checkpoint in shards."""

ECHO = 2.0
"""Seconds within which a second signal is torchrun's, which passes on the Ctrl-C that the terminal has sent already."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C (or SIGTERM) during a training: the state is saved, the message says how to go on."""


class Trainer:
    """Trains a network on an objective (`learner`) over `batches`, writing into `run`.

    Every step is a function of (weights, optimizer, step number) and the recipe alone: batches come from
    (seed, epoch), dropout from (seed, step, micro-batch, rank). After a step, in this order: the metrics line, the
    evaluation, the checkpoint. `write_model` writes the checkpoint's model into a folder; where it is given the SHA-256
    of shards, the weights are there. Of several `ranks` all go the same way, and the first one writes, but for shards.
    """

    def __init__(
        self,
        learner: Learner,
        batches: Batches[Any],
        validation: Validation,
        run: Run,
        write_model: Callable[[Path, Mapping[str, str] | None], None],
        *,
        display: Display,
        factors: Mapping[str, float] | None = None,
        precision: str = "fp32",
        logs: tuple[Log, ...] = (),
        ranks: Ranks = ALONE,
    ) -> None:
        self.learner, self.network, self.batches, self.validation = learner, learner.network, batches, validation
        self.run, self.display, self.precision, self.logs = run, display, precision, logs
        self.settings, self.ranks = run.recipe.training, ranks
        self.progress = Progress(cursor={"epoch": 0, "index": 0})
        self.optimizer = build_optimizer(self.network, self.settings, factors)
        self.device = next(self.network.parameters()).device
        self._write_model = write_model
        self._stop: str | None = None
        self._asked = 0.0
        self._busy = self._busy_tokens = 0.0
        self._steps_here = 0

    def restore(self) -> bool:
        """Go back to the run's newest checkpoint; False where there is none and the training begins anew."""
        ranks, learner = self.ranks, self.learner
        ranks.first(self.run.clear_leftovers)
        newest = ranks.first(lambda: max(self.run.checkpoints(), default=0))
        if newest:
            folder = self.run.checkpoint(newest)
            if learner.divided:
                self.progress = read_divided(folder, learner, self.optimizer, ranks)
            else:
                self.progress = ranks.together(lambda: read_snapshot(folder, self.network, self.optimizer))
            ranks.first(self._prune)
        ranks.first(lambda: self.run.cut_metrics(self.progress.metrics_bytes))
        return bool(newest)

    @property
    def finished(self) -> bool:
        """Whether steps, patience or time are used up."""
        settings, progress = self.settings, self.progress
        out_of_time = 0 < settings.minutes * 60 <= progress.seconds
        return progress.step >= settings.steps or out_of_time or 0 < settings.patience <= progress.stale

    def fit(self) -> Progress:
        """Train until `finished`, leaving a checkpoint of the end.

        Raises `InputError` where the loss stops being finite or the disk is full (the last good checkpoint stays), and
        `Interrupted` after Ctrl-C, when the state has been saved.
        """
        cursor = self.batches.restore(self.progress.cursor)
        self.network.train()
        with self._signals():
            while not self.finished:
                began = time.perf_counter()
                self._step(cursor)
                self.progress.cursor = cursor.state()
                self._after_step(began)
                if self.ranks.any(self._stop is not None):
                    self._interrupt()
        self._checkpoint()
        return self.progress

    def _step(self, cursor: Cursor[Any]) -> None:
        settings, step = self.settings, self.progress.step + 1
        began = time.perf_counter()
        rate = learning_rate(
            step,
            schedule=settings.schedule,
            peak=settings.learning_rate,
            warmup=settings.warmup,
            steps=settings.steps,
            cooldown=settings.cooldown,
            floor=settings.floor,
        )
        set_learning_rate(self.optimizer, rate)
        count = batches_at(step, settings.accumulate, settings.batch_ramp)
        batches = [part.to(self.device) for _ in range(count) for part in self._parts(next(cursor))]
        self.optimizer.zero_grad(set_to_none=True)
        sums = accumulate(
            self.network,
            self.learner.objective,
            batches,
            seed=settings.seed,
            step=step,
            precision=self.precision,
            ranks=self.ranks,
            joined=self.learner.joined,
            shares=self.learner.shares,
            backwards=self.learner.backwards,
        )
        if not sums["count"]:
            raise self.ranks.error(self._nothing_to_learn(step))
        norm = clip_gradients(self.network, settings.clip, self.learner.norm)
        if not math.isfinite(sums["loss"]) or not math.isfinite(norm):
            raise self.ranks.error(self._not_finite(step, sums["loss"], norm))
        self.optimizer.step()
        self.progress.step = step
        tokens = int(self.ranks.total({"tokens": sum(batch.n_tokens for batch in batches)})["tokens"])
        self.progress.tokens += tokens
        self._busy += time.perf_counter() - began
        self._busy_tokens += tokens
        for name, value in {**sums, "norm": norm, "steps": 1.0}.items():
            self.progress.window[name] = self.progress.window.get(name, 0.0) + value

    def _parts(self, batch: Any) -> Any:
        """A batch in its parts; whole where the network leaves padding out by itself, and for several processes, which
        must run equally many."""
        return [batch] if self.ranks.size > 1 or self._packs() else batch.parts()

    def _packs(self) -> bool:
        return isinstance(self.network, EncoderDecoder) and packs(self.network)

    def _spent(self, began: float) -> float:
        """Add the time since `began`, the first process's for all, and begin anew."""
        seconds = self.progress.seconds + time.perf_counter() - began
        self.progress.seconds = self.ranks.same(seconds) if self.settings.minutes else seconds
        return time.perf_counter()

    def _after_step(self, began: float) -> None:
        settings, step = self.settings, self.progress.step
        began = self._spent(began)
        self._show()
        last = self.finished  # by steps or time; patience may run out in the evaluation
        if step % settings.log_every == 0 or last:
            self._log_window()
        best = False
        if step % settings.evaluate_every == 0 or last:
            best = self._evaluate()
        began = self._spent(began)
        if self.finished and self.progress.window:
            self._log_window()
        if best or step % settings.save_every == 0 or self.finished:
            self._checkpoint()
        self._spent(began)

    def _log_window(self) -> None:
        sums, steps = self.progress.window, self.progress.window["steps"]
        nll = {"nll": sums["nll"] / sums["count"]} if "nll" in sums else {}
        self._write(
            {
                "step": self.progress.step,
                "epoch": self.progress.cursor["epoch"],
                **means(sums),
                **nll,
                "learning_rate": self.optimizer.param_groups[0]["lr"],
                "gradient_norm": sums["norm"] / steps,
                "tokens": self.progress.tokens,
                "seconds": round(self.progress.seconds, 3),
                "tokens_per_second": round(self._busy_tokens / max(self._busy, 1e-9), 1),
            }
        )
        self.progress.window = {}
        self._busy = self._busy_tokens = 0.0
        return_free_memory()

    def _evaluate(self) -> bool:
        """Measure, write the line, show samples; whether this is the best so far."""
        step, began = self.progress.step, time.perf_counter()
        measured = self.validation.measure()
        value = measured[self.validation.metric]
        best = self.validation.better(value, self.progress.best_value)
        if best:
            self.progress.best_step, self.progress.best_value, self.progress.stale = step, value, 0
        else:
            self.progress.stale += 1
        seconds = self.progress.seconds + time.perf_counter() - began
        self._write({"step": step, **measured, "best_step": self.progress.best_step, "seconds": round(seconds, 3)})
        shown = " · ".join(f"{name} {value:.4g}" for name, value in measured.items())
        self.display.say(f"step {step}: {shown}{' (best so far)' if best else ''}")
        self._show_samples()
        return best

    def _show_samples(self) -> None:
        for source, reference, translation in self.validation.samples(self.settings.samples):
            self.display.say(f"  {source}\n    → {translation}\n    = {reference}")

    def _checkpoint(self) -> None:
        """Publish `checkpoints/step-N`, where it is not there, and remove what need not stay."""
        if self.ranks.first(lambda: self.progress.step in self.run.checkpoints()):
            return
        self.progress.metrics_bytes = self.ranks.first(self.run.metrics_bytes)
        moments = optimizer_tensors(self.optimizer, self.network)
        shards = self._write_shards(moments) if self.learner.divided else None

        def write(folder: Path) -> None:
            if shards is None:
                self._write_model(folder, None)
                write_snapshot(folder, moments, self.progress)
                return
            (folder / "training").mkdir()
            for name in PARTS:
                sync_folder(self._shards_folder() / name)
                os.rename(self._shards_folder() / name, folder / name)
            self._write_model(folder, {f"{FOLDER}/{name}": digest for name, digest in shards[WEIGHTS].items()})
            write_snapshot(folder, {}, self.progress, shards[MOMENTS])

        def publish() -> None:
            self.run.publish(self.progress.step, write)
            shutil.rmtree(self._shards_folder(), ignore_errors=True)
            self._prune()

        self.ranks.first(publish)

    def _shards_folder(self) -> Path:
        """Where all processes write before the first one publishes; what a kill leaves of it is cleared on resuming."""
        return self.run.folder / "checkpoints" / f".step-{self.progress.step}.shards"

    def _write_shards(self, moments: Mapping[str, Tensor]) -> dict[str, dict[str, str]]:
        """What every process has of weights and moments, written by all at once: SHA-256 by file."""
        folder = self._shards_folder()
        contents = {WEIGHTS: kept_tensors(self.network), MOMENTS: moments}
        try:
            return {part: write_shards(folder / part, contents[part], self.ranks) for part in PARTS}
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            message = self.run.not_written(f"the checkpoint of step {self.progress.step}", error)
            raise self.ranks.error(message) from None

    def _prune(self) -> None:
        keep = max(self.settings.keep, self.run.recipe.evaluation.average)
        self.run.prune(keep, self.progress.best_step)

    def _write(self, line: dict[str, Any]) -> None:
        self.ranks.first(lambda: self.run.append_metrics(line))
        for log in self.logs:
            log.write(line)

    def _show(self) -> None:
        progress, settings = self.progress, self.settings
        sums = progress.window
        left = progress.seconds / progress.step * (settings.steps - progress.step)
        if settings.minutes:
            left = min(left, settings.minutes * 60 - progress.seconds)
        parts = [
            f"epoch {progress.cursor['epoch'] + 1}",
            f"loss {sums['loss'] / sums['count']:.3f}",
            f"{self._busy_tokens / max(self._busy, 1e-9):,.0f} tokens/s",
            f"{duration(max(left, 0.0))} left",
        ]
        self.display.progress(progress.step, settings.steps, parts)
        self._steps_here += 1
        if self._steps_here == 20 and progress.step < settings.steps:
            self.display.say(f"  time     about {duration(max(left, 0.0))} more for {settings.steps:,} steps")

    def _nothing_to_learn(self, step: int) -> str:
        return (
            f"The batches of step {step} hold nothing to predict: all of it is padding. Check the data files and "
            "'training.batch_tokens'."
        )

    def _not_finite(self, step: int, loss: float, norm: float) -> str:
        what = f"loss became {loss}" if not math.isfinite(loss) else f"gradient's norm became {norm}"
        return (
            f"The {what} at step {step} (epoch {self.progress.cursor['epoch'] + 1}, batch "
            f"{self.progress.cursor['index'] + 1}); nothing of this step was kept and {self.run.last_good()}. "
            "Lower 'training.learning_rate', lengthen 'training.warmup', or set 'training.clip'."
        )

    def _interrupt(self) -> None:
        self._checkpoint()
        raise Interrupted(
            f"Stopped by {self._stop or 'a signal'} after step {self.progress.step}, saved. "
            f"Go on with: {self.run.resume_command()}"
        )

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first Ctrl-C (or SIGTERM) ends the step and saves; a second one ends at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            twice = self._stop is not None
            if twice and (self.ranks.size == 1 or time.monotonic() - self._asked > ECHO):
                raise KeyboardInterrupt
            if twice:
                return
            self._asked = time.monotonic()
            self._stop = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
            self.display.say("Stopping after this step; once more to stop at once.")

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                with suppress(TypeError):  # a handler not installed from Python cannot be put back
                    signal.signal(number, handler)


def compiled(objective: Objective, wanted: bool) -> Objective:
    """The objective with its forward pass compiled for any batch shape, or as it is.

    `InputError` on the first step where the compiler fails or is missing.
    """
    if not wanted:
        return objective
    from torch._dynamo.exc import TorchDynamoException

    fast: Objective = torch.compile(objective, dynamic=True)

    def guarded(network: Any, batch: Any) -> Loss:
        try:
            return fast(network, batch)
        except TorchDynamoException as error:
            reason = " ".join(str(error).split())[:200]
            message = f"The objective cannot be compiled here ({reason}); set 'training.compile' to false."
            raise InputError(message) from None

    return guarded
