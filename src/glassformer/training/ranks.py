"""The processes of one training: which of them leads, what they tell each other, and how they end together.

They are started by torchrun, Slurm or whatever else sets RANK and WORLD_SIZE. What they tell each other beside tensors
is JSON. Numbers and words go by gloo on the CPU; gradients go where they lie, by gloo or nccl.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from threading import Thread
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from glassformer.errors import InputError

LIMIT = timedelta(minutes=30)
"""How long a process waits for the others. The first one may measure, decode samples and write meanwhile."""

MEETING = timedelta(minutes=10)
"""How long the processes look for each other."""

T = TypeVar("T")


class Followed(InputError):
    """An error that the first process reports: the others end with this one, and say nothing."""


@dataclass(frozen=True)
class Ranks:
    """This process among `size`. For one alone (`ALONE`) each method is what it means there, and nothing is sent.

    All processes must call the same methods in the same order. `share` is this one's place among those that have other
    rows or positions, and `counts` is False where another one has the same (`parallel.layouts.placed`).
    """

    rank: int = 0
    size: int = 1
    share: int = 0
    counts: bool = True

    @property
    def leads(self) -> bool:
        """Whether this is the first process: the one that writes and prints."""
        return self.rank == 0

    def total(self, sums: dict[str, float]) -> dict[str, float]:
        """Sums of which every process that `counts` has a part, added up in fp64. The names must be the same
        everywhere."""
        if self.size == 1:
            return sums
        totals = self._added([value if self.counts else 0.0 for value in sums.values()])
        return dict(zip(sums, totals, strict=True))

    def same(self, value: float) -> float:
        """The first process's value."""
        return value if self.size == 1 else self._added([value if self.leads else 0.0])[0]

    def any(self, flag: bool) -> bool:
        """Whether it holds for any process."""
        return flag if self.size == 1 else self._added([float(flag)])[0] > 0

    def _added(self, numbers: list[float]) -> list[float]:
        values = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(values)
        return [float(value) for value in values.tolist()]

    def first(self, work: Callable[[], T]) -> T:
        """What `work` gives to the first process, which alone does it. Must be a plain JSON value.

        Its `InputError` ends all of them.
        """
        if self.size == 1:
            return work()
        found, failed = _tried(work) if self.leads else (None, None)
        result, message = self.told([found, failed])[0]
        if message is not None:
            raise self.error(message)
        return result

    def together(self, work: Callable[[], T]) -> T:
        """What `work` gives here, when all have done it. An `InputError` of any process ends all of them."""
        if self.size == 1:
            return work()
        found, failed = _tried(work)
        for rank, message in enumerate(self.told(failed)):
            if message is not None:
                raise self.error(f"process {rank} of {self.size}: {message}" if rank else message)
        return found  # type: ignore[return-value]

    def agree(self, what: str, value: str) -> None:
        """`InputError` that names the first process whose value is not that of process 0."""
        values = self.told(value)
        for rank, other in enumerate(values):
            if other != values[0]:
                raise self.error(f"{what} of process {rank} of {self.size} differs from that of process 0.")

    def error(self, message: str) -> InputError:
        """An error that all processes raise at this point: only the first one's is reported."""
        return InputError(message) if self.leads else Followed(message)

    def told(self, value: Any) -> list[Any]:
        """What every process says here, by rank: JSON values."""
        if self.size == 1:
            return [value]
        said = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(said)]))
        sent = torch.zeros(int(max(lengths)), dtype=torch.uint8)
        sent[: len(said)] = said
        places = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(places, sent)
        return [json.loads(bytes(place[: int(n)].tolist())) for place, n in zip(places, lengths, strict=True)]


ALONE = Ranks()


@contextmanager
def processes() -> Iterator[Ranks]:
    """The processes that were started with this one, joined as long as the context lasts; `ALONE` where there are none.

    Raises `InputError` where they do not find each other, and where one of them ends or stays away for `LIMIT`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    own = not dist.is_initialized()
    ranks = _join() if own else _here()
    try:
        yield ranks
    except Followed:
        raise
    except InputError as error:  # one that the others do not know of
        if not ranks.leads:
            print(f"error: process {ranks.rank} of {ranks.size}: {error}", file=sys.stderr, flush=True)
        raise
    except RuntimeError as error:
        if not _lost(error):
            raise
        raise ranks.error(
            "Another process of this training ended or did not answer in time: what it said is above. "
            "The newest checkpoint is whole; go on by --resume, or start with --if-exists resume."
        ) from None
    finally:
        if own:
            dist.destroy_process_group()


def _join() -> Ranks:
    """Find the other processes."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    try:
        _meet()
    except (RuntimeError, ValueError, TimeoutError) as error:
        reason = " ".join(str(error).split()) or "nothing answers there as a training does"
        at = f"{os.environ.get('MASTER_ADDR', '?')}, port {os.environ.get('MASTER_PORT', '?')}"
        if "EADDRINUSE" in reason or "address already in use" in reason.lower():
            raise InputError(
                f"The processes cannot meet at {at}: the port is in use. Set another MASTER_PORT."
            ) from None
        raise InputError(
            f"Process {os.environ.get('RANK', '?')} of {os.environ['WORLD_SIZE']} does not find the others at {at} "
            f"({reason[:200]}). Start them by torchrun, which sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT."
        ) from None
    return _here()


def _here() -> Ranks:
    return Ranks(dist.get_rank(), dist.get_world_size(), dist.get_rank())


def _meet() -> None:
    """Join the group that the environment names.

    torchrun restarts processes with the same store, in which those that are gone still have their addresses: of several
    nodes it says nothing that all of them would agree on, but on one the number of restarts keeps these apart.
    """
    store, rank, size = _found()
    store.set_timeout(LIMIT)
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        count = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"restart {count}", store)  # type: ignore[attr-defined]
    dist.init_process_group(store=store, rank=rank, world_size=size, timeout=LIMIT)


def _found() -> tuple[Any, int, int]:
    """The store, this process's rank and their number, by `rendezvous`: which would wait for ever where another program
    has the port, takes the connection and says nothing. So it is asked in a thread that ends with the process."""
    found: Future[tuple[Any, int, int]] = Future()

    def look() -> None:
        try:
            found.set_result(next(iter(rendezvous("env://", timeout=MEETING))))
        except BaseException as error:
            found.set_exception(error)

    Thread(target=look, daemon=True).start()
    return found.result(MEETING.total_seconds() + 1)


def _tried(work: Callable[[], T]) -> tuple[T | None, str | None]:
    """What work gives, or what its `InputError` says."""
    try:
        return work(), None
    except InputError as error:
        return None, str(error)


def _lost(error: RuntimeError) -> bool:
    """Whether an error of torch says that another process is gone, or late."""
    text = str(error).lower()
    signs = ("connection closed", "connection reset", "broken pipe", "timed out", "timeout", "socket")
    return isinstance(error, dist.DistError) or any(sign in text for sign in signs)
