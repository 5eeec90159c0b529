"""How long a step takes at least: every operation at the machine's limit (Williams et al. 2009, the roofline model)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from glassformer.planning.communication import Traffic, traffic
from glassformer.planning.layouts import Layout, Schedule
from glassformer.planning.machines import Machine
from glassformer.planning.pieces import Run
from glassformer.planning.watch import Operation
from glassformer.planning.work import NUMBER, Stage, Work, stages

UPDATE = 8 * NUMBER
"""Bytes that Adam moves for a parameter: it reads weight, gradient (twice, to clip) and moments, writes three."""


@dataclass(frozen=True)
class Time:
    """Seconds of a step at the limits of the machine.

    `products` is what FLOPs alone take and `moving` what reading and writing memory alone takes; an operation takes the
    longer of its two, all of them `computing`, of which the loss of the words takes `head`. Operations are as they run
    uncompiled, none fused with another. `bubble` is what the pipeline's ranks wait. Communication is `waited` for or
    `overlapped` with computing, so `step` = max(computing + bubble, overlapped) + waited + update.
    """

    products: float
    moving: float
    computing: float
    head: float
    bubble: float
    waited: float
    overlapped: float
    update: float
    communication: tuple[Traffic, ...] = field(default=(), repr=False)

    @property
    def step(self) -> float:
        return max(self.computing + self.bubble, self.overlapped) + self.waited + self.update

    @property
    def limit(self) -> str:
        """What takes longest: "products", "memory" or "communication"."""
        beside = max(0.0, self.overlapped - self.computing - self.bubble)
        if self.waited + beside > self.computing / 2 and self.waited + self.overlapped > self.computing:
            return "communication"
        return "products" if self.products >= self.moving else "memory"


def step_time(work: Work, layout: Layout, schedule: Schedule, machine: Machine) -> Time:
    """Of the slowest stage, for which the others wait."""
    return max(
        (_stage_time(work, stage, layout, schedule, machine) for stage in stages(work.config, layout)),
        key=lambda time: time.step,
    )


def _stage_time(work: Work, stage: Stage, layout: Layout, schedule: Schedule, machine: Machine) -> Time:
    block, (embedding, head) = work.block(layout, schedule), work.ends(layout, schedule)
    peak, bandwidth = machine.flops[work.precision], machine.bandwidth

    def micro_batch(flops: float | None, moved: float | None) -> float:
        forward, backward = _seconds(block, flops, moved)
        again = forward if schedule.checkpointing else 0.0
        ends = stage.first * sum(_seconds(embedding, flops, moved)) + stage.last * sum(_seconds(head, flops, moved))
        return stage.blocks * (forward + backward + again) + ends

    times, both = schedule.micro_batches, micro_batch(peak, bandwidth)
    found = traffic(work, stage, layout, schedule, machine)
    waited = sum(part.seconds for part in found if not part.overlapped)
    return Time(
        products=times * micro_batch(peak, None),
        moving=times * micro_batch(None, bandwidth),
        computing=times * both,
        head=times * stage.last * sum(_seconds(head, peak, bandwidth)),
        bubble=(layout.pipeline - 1) * (both + waited / times),
        waited=waited,
        overlapped=sum(part.seconds for part in found if part.overlapped),
        update=UPDATE * work.parameters(stage, layout, schedule) / layout.shard / bandwidth,
        communication=tuple(found),
    )


@lru_cache(maxsize=256)
def _seconds(run: Run, flops: float | None, moved: float | None) -> tuple[float, float]:
    """Forward and backward: sums over operations of the longer of their times; None leaves one of the limits out."""

    def all_of(operations: tuple[Operation, ...]) -> float:
        return sum(
            max(
                0.0 if flops is None else operation.flops / flops,
                0.0 if moved is None else operation.moved / moved,
            )
            for operation in operations
        )

    return all_of(run.forward), all_of(run.backward)
