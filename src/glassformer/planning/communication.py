"""What a rank sends in a step: collectives counted, and their bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from glassformer.planning.layouts import Layout, Schedule
from glassformer.planning.machines import Machine
from glassformer.planning.watch import Collective
from glassformer.planning.work import NUMBER, Stage, Work


@dataclass(frozen=True)
class Traffic:
    """Collectives of one kind along one axis in a step, of one rank.

    `bytes` are those of their larger side together, `sent` those that the rank sends by a ring; `seconds` is what these
    take on the slowest link of the group. `overlapped` says that others' computing can go on meanwhile.
    """

    axis: str
    kind: str
    count: int
    bytes: int
    sent: float
    seconds: float
    overlapped: bool


def traffic(work: Work, stage: Stage, layout: Layout, schedule: Schedule, machine: Machine) -> list[Traffic]:
    """All of a step, of a rank of one stage; latencies are left out."""
    parts = [
        *_tensor(work, stage, layout, schedule),
        *_shard(work, stage, layout, schedule),
        *_data(work, stage, layout, schedule),
        *_context(work, stage, layout, schedule),
        *_pipeline(work, stage, layout, schedule),
    ]
    return [_timed(part, layout, machine) for part in parts if part.count and part.bytes]


def sent(kind: str, size: float, group: int) -> float:
    """Bytes that each of `group` ranks sends by a ring: (n - 1) / n of the whole to gather or to scatter, twice that to
    reduce and hand out the sum (Patarasuk and Yuan 2009)."""
    if kind == "send":
        return size
    return (2 if kind == "all-reduce" else 1) * size * (group - 1) / group


def _timed(part: Traffic, layout: Layout, machine: Machine) -> Traffic:
    axis, group = part.axis, getattr(layout, part.axis, 2)
    if axis == "gradients":  # over copies, and over ranks with other positions of the same rows
        axis, group = "data" if layout.data > 1 else "context", layout.data * layout.context
    if axis == "tied":  # the first stage and the last
        axis = "pipeline"
    rate = machine.inside if layout.inside(axis, machine.node) else machine.between
    wire = sent(part.kind, part.bytes, group)
    return Traffic(part.axis, part.kind, part.count, part.bytes, wire, wire / rate, part.overlapped)


def _part(axis: str, kind: str, count: int, size: int, overlapped: bool) -> Traffic:
    return Traffic(axis, kind, count, count * size, count * size, 0.0, overlapped)


def _tensor(work: Work, stage: Stage, layout: Layout, schedule: Schedule) -> Iterable[Traffic]:
    """As counted in a block, whose products wait for them; once more forward where it is computed again."""
    block, times = work.block(layout, schedule), stage.blocks * schedule.micro_batches
    ways: list[tuple[tuple[Collective, ...], int]] = [
        (block.collectives_forward, times * (2 if schedule.checkpointing else 1)),
        (block.collectives_backward, times),
    ]
    for kind in sorted({found.kind for way, _ in ways for found in way}):
        some = [(found.bytes, n) for way, n in ways for found in way if found.kind == kind]
        count, total = sum(n for _, n in some), sum(size * n for size, n in some)
        yield Traffic("tensor", kind, count, total, total, 0.0, overlapped=False)


def _shard(work: Work, stage: Stage, layout: Layout, schedule: Schedule) -> Iterable[Traffic]:
    """FSDP: a block's weights are gathered for each pass of each micro-batch, its gradients scattered after it; the
    ends are one group more, gathered once a micro-batch. A stage of a pipeline does each once a step."""
    if layout.shard == 1:
        return
    block, once = work.block(layout, schedule).parameters, layout.gathers_once
    ends, times = work.parameters(stage, layout, schedule) - stage.blocks * block, 1 if once else schedule.micro_batches
    yield _part("shard", "all-gather", (1 if once else 2) * stage.blocks * times, block * work.bytes, True)
    yield _part("shard", "reduce-scatter", stage.blocks * times, block * NUMBER, True)
    if ends:
        yield _part("shard", "all-gather", times, ends * work.bytes, True)
        yield _part("shard", "reduce-scatter", times, ends * NUMBER, True)


def _data(work: Work, stage: Stage, layout: Layout, schedule: Schedule) -> Iterable[Traffic]:
    """The gradients that a rank has are summed once a step, over copies of it and ranks with other positions."""
    if layout.data * layout.context > 1:
        share = work.parameters(stage, layout, schedule) // layout.shard
        yield _part("gradients", "all-reduce", 1, share * NUMBER, True)


def _context(work: Work, stage: Stage, layout: Layout, schedule: Schedule) -> Iterable[Traffic]:
    """Keys and values of all positions are gathered in each block and pass, their gradients scattered."""
    if layout.context == 1:
        return
    width = 2 * work.config.kv_heads * work.config.head_width // layout.tensor
    numbers, times = schedule.rows * work.length * width, stage.blocks * schedule.micro_batches
    passes = 3 if schedule.checkpointing else 2
    yield _part("context", "all-gather", passes * times, numbers * work.bytes, False)
    yield _part("context", "reduce-scatter", times, numbers * NUMBER, False)


def _pipeline(work: Work, stage: Stage, layout: Layout, schedule: Schedule) -> Iterable[Traffic]:
    """The fp32 stream goes on to the next stage, its gradient back to the one before."""
    neighbours = (not stage.first) + (not stage.last)
    size = work.tokens(layout, schedule) * work.config.d_model * NUMBER
    if neighbours:
        yield _part("pipeline", "send", neighbours * schedule.micro_batches, size, False)
        if work.config.tie_head and (stage.first or stage.last):  # both ends have the matrix, and sum its gradients
            yield _part("tied", "all-reduce", 1, work.config.vocab_size * work.config.d_model * NUMBER, True)
