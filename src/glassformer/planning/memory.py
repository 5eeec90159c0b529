"""Bytes that a rank holds during a training step, by part."""

from __future__ import annotations

from dataclasses import dataclass

from glassformer.planning.layouts import Layout, Schedule
from glassformer.planning.work import NUMBER, Stage, Work, stages


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank. `parameters`, `gradients` and `optimizer` (Adam's two moments) are fp32, its share of them;
    `copies` are weights in the type of the products, and those gathered from others; `activations` is the most that a
    step adds for its tokens. `total` is the most that all are together, which may be less than their sum: without
    accumulation, gradients appear while activations go."""

    parameters: int
    copies: int
    gradients: int
    optimizer: int
    activations: int
    total: int


def memory(work: Work, layout: Layout, schedule: Schedule) -> Memory:
    """Of the rank that needs most."""
    return max((stage_memory(work, stage, layout, schedule) for stage in stages(work.config, layout)), key=_total)


def _total(found: Memory) -> int:
    return found.total


def stage_memory(work: Work, stage: Stage, layout: Layout, schedule: Schedule) -> Memory:
    """Of a rank of one stage.

    A stage keeps the activations of min(pipeline - number, micro-batches) micro-batches at once (one forward, one
    backward). With checkpointing a block keeps its input, and what it computes again is there for one block alone.
    """
    numbers = work.parameters(stage, layout, schedule)
    own = -(-NUMBER * numbers // layout.shard)
    gradients = NUMBER * numbers if layout.gathers_once else own  # whole until the last micro-batch has been
    copies = _copies(work, stage, layout, schedule)
    kept, working, fresh = _activations(work, stage, layout, schedule)
    if schedule.micro_batches > 1 or layout.gathers_once:
        step = gradients + kept + working
    else:
        step = _without_accumulation(gradients, kept, working, fresh, stage.blocks)
    return Memory(own, copies, gradients, 2 * own, kept + working, own + copies + 2 * own + step)


def _without_accumulation(gradients: int, kept: int, working: int, fresh: int, blocks: int) -> int:
    """The most that gradients and activations are together, when gradients begin at nothing.

    Both change linearly from block to block of the backward pass, so it is at its begin or at its end: all activations
    and what the head or the last block holds, or all gradients and one block's activations.
    """
    return max(kept + max(working, fresh), gradients + kept // max(1, blocks), gradients)


def _copies(work: Work, stage: Stage, layout: Layout, schedule: Schedule) -> int:
    """Weights beside the optimizer's own: those of all blocks, cast once a step; or, sharded, two gathered blocks (one
    computes, one arrives; all of a stage), the gathered ends, and gradients laid out to be scattered."""
    block = work.block(layout, schedule)
    if layout.shard == 1:
        return stage.blocks * block.cast
    numbers = work.parameters(stage, layout, schedule)
    ends = numbers - stage.blocks * block.parameters
    if layout.gathers_once:
        return work.bytes * numbers + NUMBER * max(block.parameters, ends)
    gathered = min(2, stage.blocks) * block.parameters + ends
    return work.bytes * gathered + NUMBER * max(block.parameters, ends)


def _activations(work: Work, stage: Stage, layout: Layout, schedule: Schedule) -> tuple[int, int, int]:
    """Bytes kept for the backward pass, the most held beyond these with gradients there, and with none there.

    The head's and a block's work never meet. Sharded gradients are made anew for each micro-batch.
    """
    block, (embedding, head) = work.block(layout, schedule), work.ends(layout, schedule)
    in_flight = min(layout.pipeline - stage.number, schedule.micro_batches)
    stream = work.tokens(layout, schedule) * work.config.d_model * NUMBER
    each = stream if schedule.checkpointing else block.kept
    kept = in_flight * (stage.blocks * each + (embedding.kept if stage.first else stream))
    once_more = block.kept if schedule.checkpointing else 0
    seen = _gathered_keys(work, layout, schedule)
    sharded = layout.shard > 1
    in_block = once_more + seen + (block.backward_peak if sharded else block.adding_peak)
    in_head = head.kept + max(head.forward_peak, head.backward_peak) if stage.last else 0
    in_embedding = (embedding.backward_peak if sharded else embedding.adding_peak) if stage.first else 0
    first_time = once_more + seen + block.backward_peak
    if stage.last and not sharded:  # where it is, `_copies` has the head's gradient
        first_time += NUMBER * head.parameters
    # the embedding's gradient is made when nothing else is kept
    working = max(in_block, in_head, in_embedding - in_flight * stage.blocks * each)
    return kept, working, max(first_time, in_head)


def _gathered_keys(work: Work, layout: Layout, schedule: Schedule) -> int:
    """Keys and values of all positions, where these are cut."""
    if layout.context == 1:
        return 0
    width = 2 * work.config.kv_heads * work.config.head_width // layout.tensor
    return schedule.rows * work.length * width * work.bytes
