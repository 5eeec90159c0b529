"""The plan of a training: all layouts tried, the quickest that fits, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from glassformer.errors import InputError
from glassformer.models.config import AnyConfig, Config
from glassformer.models.counting import count, family
from glassformer.planning.layouts import BATCH_TOLERANCE, Layout, Schedule, fixed_degrees, legal_layouts, schedules
from glassformer.planning.machines import Machine
from glassformer.planning.memory import Memory, memory
from glassformer.planning.pieces import Precision
from glassformer.planning.roofline import Time, step_time
from glassformer.planning.work import NUMBER, Work

ALIKE = 1.01
"""Layouts within so much of the quickest are alike: the one that splits along fewer axes is taken, then the one that
needs least memory."""

MOST_GPUS = 1 << 16


@dataclass(frozen=True)
class Wish:
    """What is to be planned: a batch of about so many tokens a step, in rows of `length`, for `tokens` tokens in all;
    degrees, micro-batch and checkpointing where they are not to be chosen."""

    gpus: int
    batch_tokens: float
    length: int
    tokens: float
    precision: Precision
    degrees: Mapping[str, int | None]
    rows: int | None = None
    checkpointing: bool | None = None


@dataclass(frozen=True)
class Candidate:
    """A layout with its schedule, and what they need."""

    layout: Layout
    schedule: Schedule
    memory: Memory
    time: Time

    def batch_tokens(self, length: int) -> int:
        return self.layout.replicas * self.schedule.rows * self.schedule.micro_batches * length

    def speed(self, length: int) -> float:
        """Tokens a second of all devices together."""
        return self.batch_tokens(length) / self.time.step


@dataclass(frozen=True)
class Plan:
    """The layout chosen, what it was chosen from, and what it comes to."""

    config: Config
    wish: Wish
    machine: Machine
    chosen: Candidate
    others: tuple[Candidate, ...]
    tried: int
    fitting: int
    other_checkpointing: Memory | None = None
    """Of the same layout and micro-batch with checkpointing where it has none, and the other way round."""

    @property
    def batch_tokens(self) -> int:
        return self.chosen.batch_tokens(self.wish.length)

    @property
    def steps(self) -> int:
        """Steps to read all tokens."""
        return max(1, round(self.wish.tokens / self.batch_tokens))

    @property
    def model_flops(self) -> int:
        """FLOPs of training on all tokens, by the closed formula: three times those of a forward pass."""
        return self.flops_per_token * self.steps * self.batch_tokens

    @property
    def flops_per_token(self) -> int:
        return count(self.config).flops(self.wish.length)["token"].training

    @property
    def seconds(self) -> float:
        """Of the whole training, at the limits."""
        return self.steps * self.chosen.time.step

    @property
    def utilisation(self) -> float:
        """The model FLOPs of a step over what the devices could do in its time."""
        peak = self.wish.gpus * self.machine.flops[self.wish.precision]
        return self.flops_per_token * self.batch_tokens / (self.chosen.time.step * peak)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why this layout, in sentences."""
        return tuple(_reasons(self))

    def seconds_at(self, share: float) -> float:
        """Of the whole training, where the devices reach that share of their peak."""
        return self.model_flops / (self.wish.gpus * self.machine.flops[self.wish.precision] * share)


def plan(config: AnyConfig, wish: Wish, machine: Machine) -> Plan:
    """Try every layout and take the quickest that fits.

    Raises `InputError` for a network that is no decoder, for degrees and batches that cannot be, and where memory is
    too little: it then says what would fit.
    """
    decoder = check(config, wish)
    work = Work(decoder, wish.length, wish.precision, machine.device)
    found = list(candidates(work, wish, machine, wish.gpus))
    fitting = [candidate for candidate in found if candidate.memory.total <= machine.usable]
    if not fitting:
        raise InputError(_too_little(work, wish, machine, found))
    ranked = sorted(fitting, key=lambda candidate: candidate.speed(wish.length), reverse=True)
    best = ranked[0].speed(wish.length)
    alike = [candidate for candidate in ranked if candidate.speed(wish.length) * ALIKE >= best]
    chosen = min(alike, key=_plainness)
    other = replace(chosen.schedule, checkpointing=not chosen.schedule.checkpointing)
    counterpart = memory(work, chosen.layout, other)
    return Plan(decoder, wish, machine, chosen, _others(ranked, chosen), len(found), len(fitting), counterpart)


def check(config: AnyConfig, wish: Wish) -> Config:
    """The config, where it and the wish can be planned."""
    if not isinstance(config, Config) or family(config) != "decoder":
        raise InputError(f"only decoders (GPT, Llama) can be planned, this is of the family {family(config)}.")
    if wish.gpus < 1:
        raise InputError(f"--gpus must be at least 1, got {wish.gpus}.")
    if not 1 <= wish.length <= config.max_length:
        raise InputError(f"--length must be from 1 to the model's {config.max_length} positions, got {wish.length}.")
    if wish.batch_tokens < wish.length:
        raise InputError(
            f"--batch-tokens must be at least one row of {wish.length:,} tokens, got {wish.batch_tokens:,.0f}."
        )
    return config


def candidates(work: Work, wish: Wish, machine: Machine, gpus: int) -> Iterator[Candidate]:
    """Every legal layout with every schedule of the batch, and what they need. `InputError` where there is none."""
    fixed = fixed_degrees(wish.degrees, gpus)
    rows, some = wish.batch_tokens / wish.length, False
    layouts = legal_layouts(work.config, wish.length, gpus, fixed, machine.node)
    for layout in layouts:
        if layout.context > 1 and "context" not in fixed and wish.length // layout.context < 1024:
            continue  # keys and values would be sent for a handful of queries
        for schedule in schedules(layout, rows, wish.checkpointing, wish.rows):
            if some and _stream(work, layout, schedule) > machine.usable:
                continue  # what blocks read is too much alone; the first is kept, to say what is needed
            some = True
            needs = memory(work, layout, schedule)
            yield Candidate(layout, schedule, needs, step_time(work, layout, schedule, machine))
    if not some:
        fewest = min(layout.replicas for layout in layouts)
        nearest = max(1, round(rows / fewest)) * fewest * (wish.rows or 1)
        raise InputError(
            f"--batch-tokens {wish.batch_tokens:,.0f} is {rows:,.1f} rows of {wish.length:,} tokens, which cannot be "
            f"dealt to {fewest} or more replicas in whole rows, nor rounded by {100 * BATCH_TOLERANCE:.0f} % to such: "
            f"use {nearest * wish.length}, or other degrees."
        )


def _stream(work: Work, layout: Layout, schedule: Schedule) -> int:
    """Bytes of what all blocks of the first stage read, which is kept in any case."""
    in_flight = min(layout.pipeline, schedule.micro_batches)
    blocks = work.config.n_decoder_layers // layout.pipeline
    return NUMBER * work.config.d_model * work.tokens(layout, schedule) * blocks * in_flight


def _plainness(candidate: Candidate) -> tuple[int, bool, int]:
    layout = candidate.layout
    axes = sum(n > 1 for n in (layout.data, layout.shard, layout.tensor, layout.pipeline, layout.context))
    return axes, candidate.schedule.checkpointing, candidate.memory.total


def _others(ranked: list[Candidate], chosen: Candidate) -> tuple[Candidate, ...]:
    """The best candidates of other layouts, the quickest first, one for each set of axes that is split."""
    seen, others = {_axes(chosen)}, []
    for candidate in ranked:
        if _axes(candidate) not in seen:
            seen.add(_axes(candidate))
            others.append(candidate)
    return tuple(others[:4])


def _axes(candidate: Candidate) -> tuple[bool, ...]:
    layout = candidate.layout
    return tuple(n > 1 for n in (layout.data, layout.shard, layout.tensor, layout.pipeline, layout.context))


def _too_little(work: Work, wish: Wish, machine: Machine, found: list[Candidate]) -> str:
    """What is needed at least, and how many devices would do."""
    least = min(found, key=lambda candidate: candidate.memory.total)
    again = ", checkpointing" if least.schedule.checkpointing else ""
    enough = _enough(work, wish, machine)
    advice = (
        f"{enough} devices would do"
        if enough is not None
        else f"no number of them up to {MOST_GPUS} would do with this batch"
    )
    return (
        f"{machine.usable / 1e9:.1f} GB a device ({machine.memory / 1e9:g} less {machine.reserve / 1e9:g} for driver "
        f"and libraries) are too little on {wish.gpus}: the least is {least.memory.total / 1e9:.1f} GB "
        f"({least.layout}, micro-batches of {least.schedule.rows}{again}); {advice}, "
        f"or devices of {(least.memory.total + machine.reserve) / 1e9:.0f} GB."
    )


def _enough(work: Work, wish: Wish, machine: Machine) -> int | None:
    """The fewest devices, doubling them, on which some layout fits."""
    gpus = 2 * wish.gpus
    while gpus <= MOST_GPUS:
        try:
            needs = (candidate.memory.total for candidate in candidates(work, wish, machine, gpus))
            if any(need <= machine.usable for need in needs):
                return gpus
        except InputError:
            pass
        gpus *= 2
    return None


def _reasons(plan: Plan) -> Iterator[str]:
    time, schedule, room = plan.chosen.time, plan.chosen.schedule, plan.machine.usable
    yield (
        f"{plan.tried:,} layouts with their micro-batches were computed, {plan.fitting:,} fit; of the quickest (within "
        f"{100 * (ALIKE - 1):.0f} %) it splits along fewest axes and needs least memory"
    )
    yield {
        "products": "the time goes into matrix products: more devices or quicker ones help",
        "memory": "the time goes into reading and writing memory, more than into products",
        "communication": "the time goes into communication: a quicker network helps, or larger batches",
    }[time.limit]
    other = plan.other_checkpointing
    if schedule.checkpointing and other is not None and other.total > room:
        yield f"without checkpointing it would need {other.total / 1e9:.1f} GB a device, there are {room / 1e9:.1f}"
    if time.head > 0.1 * time.computing:
        yield (
            f"{100 * time.head / time.computing:.0f} % of the computing is the loss of the words, which is whole on "
            "every tensor rank"
        )
    if time.bubble:
        yield f"the pipeline's ranks wait for {100 * time.bubble / time.step:.0f} % of a step"
