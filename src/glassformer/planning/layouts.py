"""How a training may be laid over devices: five degrees whose product is the number of devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import prod

from glassformer.errors import InputError, did_you_mean
from glassformer.models.config import Config

AXES = ("pipeline", "data", "shard", "context", "tensor")
"""From the outermost to the innermost: neighbours in a node share a tensor group first."""

BATCH_TOLERANCE = 0.05
"""By so much a batch may be rounded to whole rows for every replica."""


@dataclass(frozen=True)
class Layout:
    """Degrees of parallelism: copies of the model that read other rows (`data`), the same with parameters, gradients
    and optimizer cut among them (`shard`, FSDP: Zhao et al. 2023), matrices cut (`tensor`, Shoeybi et al. 2019), layers
    in turn (`pipeline`, one micro-batch forward, one backward: Narayanan et al. 2021), positions cut (`context`)."""

    data: int = 1
    shard: int = 1
    tensor: int = 1
    pipeline: int = 1
    context: int = 1

    @property
    def world(self) -> int:
        return prod(asdict(self).values())

    @property
    def gathers_once(self) -> bool:
        """Whether a stage gathers its shards once a step, which its many micro-batches then share, and not block by
        block in each pass (`training/parallel/pipelining.py`)."""
        return self.shard > 1 and self.pipeline > 1

    @property
    def replicas(self) -> int:
        """How many groups of ranks read rows of their own."""
        return self.data * self.shard

    def inside(self, axis: str, node: int) -> bool:
        """Whether each group along an axis lies within one node of `node` devices."""
        inner = AXES[AXES.index(axis) :]
        return node % prod(getattr(self, name) for name in inner) == 0

    def __str__(self) -> str:
        used = [f"{name} {degree}" for name, degree in asdict(self).items() if degree > 1]
        return " × ".join(used) or "one device"


@dataclass(frozen=True)
class Schedule:
    """What a step does on a layout: `rows` a micro-batch, `micro_batches` for each replica in turn, and whether blocks
    are computed again in the backward pass instead of being kept (`checkpointing`, Chen et al. 2016)."""

    rows: int
    micro_batches: int
    checkpointing: bool


def fixed_degrees(given: Mapping[str, int | None], gpus: int) -> dict[str, int]:
    """The degrees that a user fixed. `InputError` for another name, or where no layout of `gpus` has them."""
    for name, degree in given.items():
        if name not in AXES:
            raise InputError(f"'{name}' is no degree of a layout.{did_you_mean(name, AXES)} Known: {', '.join(AXES)}.")
        if degree is not None and degree < 1:
            raise InputError(f"--parallel.{name} must be at least 1, got {degree}.")
    fixed = {name: degree for name, degree in given.items() if degree is not None}
    product, names = prod(fixed.values()), " × ".join(f"{name} {degree}" for name, degree in fixed.items())
    if gpus % product or (len(fixed) == len(AXES) and product != gpus):
        raise InputError(
            f"the degrees of a layout must multiply to the number of devices: {names} = {product}, --gpus is {gpus}. "
            f"Change one of them, or use --gpus {max(product, gpus - gpus % product)}."
        )
    return fixed


def objection(layout: Layout, config: Config, length: int) -> str | None:
    """Why a layout cannot run the model, None where it can."""
    for what, size in (
        ("heads", config.n_heads),
        ("heads of keys and values", config.kv_heads),
        ("feed-forward units", config.d_ff),
    ):
        if size % layout.tensor:
            return f"tensor {layout.tensor} does not divide the {size} {what}"
    if config.n_decoder_layers % layout.pipeline:
        return f"pipeline {layout.pipeline} does not divide the {config.n_decoder_layers} layers"
    if length % layout.context:
        return f"context {layout.context} does not divide the {length} positions"
    if layout.context > 1 and layout.pipeline > 1:
        return "context and pipeline do not go together"
    return None


def legal_layouts(config: Config, length: int, gpus: int, fixed: Mapping[str, int], node: int) -> list[Layout]:
    """All layouts of `gpus` devices that run the model and have the fixed degrees.

    Unless fixed, tensor groups stay within a node. `InputError` says why there is none.
    """
    every = [Layout(**degrees) for degrees in _degrees(gpus, AXES, fixed)]
    legal = [layout for layout in every if objection(layout, config, length) is None]
    near = [layout for layout in legal if "tensor" in fixed or layout.inside("tensor", node)]
    if near:
        return near
    reasons = sorted({objection(layout, config, length) or "" for layout in every} - {""}, key=len)
    raise InputError(f"no layout of {gpus} devices runs this model: {'; '.join(reasons[:3])}. Choose other degrees.")


def _degrees(gpus: int, axes: tuple[str, ...], fixed: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """All ways to write `gpus` as a product of degrees."""
    if not axes:
        if gpus == 1:
            yield {}
        return
    first, *rest = axes
    choices = [fixed[first]] if first in fixed else [n for n in range(1, gpus + 1) if gpus % n == 0]
    for degree in choices:
        if gpus % degree == 0:
            for others in _degrees(gpus // degree, tuple(rest), fixed):
                yield {first: degree, **others}


def schedules(layout: Layout, batch_rows: float, checkpointing: bool | None, rows: int | None = None) -> list[Schedule]:
    """The schedules of a batch of about `batch_rows` rows: the nearest whole number of them for each replica, cut into
    micro-batches of 1, 2, 4, … rows (or of `rows`). Empty where the nearest is off by more than `BATCH_TOLERANCE`."""
    each = max(1, round(batch_rows / layout.replicas))
    if abs(each * layout.replicas - batch_rows) > BATCH_TOLERANCE * batch_rows:
        return []
    sizes = [rows] if rows else [2**n for n in range(4)]
    again = [False, True] if checkpointing is None else [checkpointing]
    return [Schedule(size, each // size, kept) for size in sizes if each % size == 0 for kept in again]
