"""Run by test_parallel.py: trains in forked processes that find each other as those of torchrun do.

Usage: parallel_runs.py FOLDER JOBS. FOLDER gets the corpora of `tiny_tasks` and the runs. JOBS is a JSON list; each job
names a `task` of `tiny_tasks`, a `run`, how many `processes`, and `overrides` of the recipe. `resume` goes on with the
run, and `again` too, by the call that began it; `kill` ends process 1, or the only one, by SIGKILL after that step, and
`stop` only stops it; `limit` is how many seconds the others wait; `taken` takes the port that they would meet at, and
is how many seconds they look for each other; `data` are the data roots of the processes; files longer than `full` bytes
the disk refuses to process 1. Prints the exit statuses of each job's processes as JSON. Forking comes before any
arithmetic, so that torch is imported once for all of them.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
import torch.distributed.fsdp
import torch.distributed.tensor
from tiny_tasks import recipe_of, write_corpora

from glassformer.training import ranks
from glassformer.training.display import Silent
from glassformer.training.experiment import resume, train
from glassformer.training.trainer import Trainer


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def signal_after(step: int, number: int) -> None:
    """From here on, process 1 gets that signal after that step."""
    original = Trainer._after_step

    def killed(self: Trainer, began: float) -> None:
        original(self, began)
        if self.progress.step == step and self.ranks.rank == min(1, self.ranks.size - 1):
            os.kill(os.getpid(), number)

    Trainer._after_step = killed  # type: ignore[method-assign]


def work(folder: Path, job: dict[str, Any], rank: int) -> None:
    """What one process does."""
    torch.set_num_threads(1)
    for name, number in (("kill", signal.SIGKILL), ("stop", signal.SIGSTOP)):
        if name in job:
            signal_after(job[name], number)
    if "limit" in job:
        ranks.LIMIT = timedelta(seconds=job["limit"])
    if "taken" in job:
        ranks.MEETING = timedelta(seconds=job["taken"])
    if "full" in job and rank == 1:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["full"], job["full"]))
    root = Path(job["data"][rank]) if "data" in job else folder
    run, overrides = folder / job["run"], job.get("overrides", {})
    if job.get("resume"):
        resume(run, data_root=root, display=Silent(), **overrides)
    else:
        again = bool(job.get("again"))
        train(recipe_of(job["task"]), run=run, data_root=root, resume=again, display=Silent(), **overrides)


def started(folder: Path, job: dict[str, Any]) -> list[int]:
    """The exit statuses of a job's processes, negative where a signal ended them."""
    port = free_port()
    with socket.socket() as other:
        if "taken" in job:
            other.bind(("127.0.0.1", port))
            other.listen()
        return ended(folder, job, port)


def ended(folder: Path, job: dict[str, Any], port: int) -> list[int]:
    """The exit statuses of a job's processes, which meet at a port."""
    size, pids = job["processes"], []
    for rank in range(size):
        pid = os.fork()
        if pid == 0:
            if size > 1:
                place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
                os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
            try:
                work(folder, job, rank)
            except BaseException as error:
                print(f"{job['run']} {rank}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        pids.append(pid)
    first = os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1])
    if "stop" in job:
        os.kill(pids[1], signal.SIGKILL)
    return [first, *(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids[1:])]


def main(folder: Path, jobs: list[dict[str, Any]]) -> None:
    write_corpora(folder)
    print(json.dumps([started(folder, job) for job in jobs]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
