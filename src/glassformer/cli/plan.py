"""`glassformer plan`: how a training would be laid over many devices, computed before any is rented."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from glassformer.cli.options import JsonOption
from glassformer.cli.output import put, put_json, size
from glassformer.errors import InputError

if TYPE_CHECKING:
    from glassformer.planning.plans import Candidate, Plan

WIDTH = 26
_UNITS = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
BYTES = {"MB": 1e6, "GB": 1e9, "TB": 1e12}


@dataclass(frozen=True)
class Degrees:
    """Degrees that are given instead of chosen; their product with the others is --gpus."""

    data: int | None = None
    """Copies of the model, which read other rows."""
    shard: int | None = None
    """Like data, with parameters, gradients and optimizer cut among them (FSDP)."""
    tensor: int | None = None
    """Ranks that share each matrix."""
    pipeline: int | None = None
    """Stages, each with some of the layers."""
    context: int | None = None
    """Ranks that share the positions of a row."""


def plan(
    model: Annotated[str, Parameter(help="A published size, such as gpt3-175b, or a model's folder.")],
    *,
    gpus: Annotated[int, Parameter(help="How many devices.")],
    batch_tokens: Annotated[str, Parameter(help="Tokens of a batch, such as 3.2M or 524288; rounded to whole rows.")],
    machine: Annotated[str, Parameter(help="h100, a100, or cpu: this machine, as measured.")] = "h100",
    memory: Annotated[str | None, Parameter(help="Of a device, such as 80GB; else the machine's.")] = None,
    interconnect: Annotated[
        str | None,
        Parameter(
            help="Network between nodes: infiniband-ndr, ethernet-100g, …, or its rate a device: 50GB/s, 400Gb/s."
        ),
    ] = None,
    length: Annotated[int | None, Parameter(help="Tokens of a row; else all positions that the model has.")] = None,
    tokens: Annotated[str, Parameter(help="Tokens of the whole training.")] = "300B",
    precision: Annotated[Literal["bf16", "fp32"], Parameter(help="What products are computed in.")] = "bf16",
    parallel: Annotated[Degrees | None, Parameter(help="Degrees of the layout.")] = None,
    rows: Annotated[int | None, Parameter(help="Rows of a micro-batch; else chosen.")] = None,
    checkpointing: Annotated[
        bool | None, Parameter(help="Compute blocks again in the backward pass; else chosen.")
    ] = None,
    price: Annotated[float | None, Parameter(help="Of a device for an hour, in your currency; gives the cost.")] = None,
    json: JsonOption = False,
) -> None:
    """Find the quickest layout (data × shard × tensor × pipeline × context) that fits, its memory, traffic, time, cost.

    One block, the embedding and the head run forward and backward on tensors without numbers, as one rank of the
    planned world: what they hold, compute and send is counted, and nothing is computed. Times are limits: each
    operation at the full speed that the makers state. No training reaches them; the range that published ones reached
    is printed beside them.
    """
    from glassformer.cli.params import config_of
    from glassformer.planning.machines import machine as machine_of
    from glassformer.planning.plans import Wish
    from glassformer.planning.plans import plan as planned

    given = asdict(parallel or Degrees())
    if rows is not None and rows < 1:
        raise InputError(f"--rows must be at least 1, got {rows}.")
    if price is not None and price < 0:
        raise InputError(f"--price must not be negative, got {price}.")
    asked = amount(batch_tokens, _UNITS, "--batch-tokens", "3.2M or 524288")
    total = amount(tokens, _UNITS, "--tokens", "300B")
    room = None if memory is None else amount(memory, BYTES, "--memory", "80GB")
    config = config_of(model)
    wish = Wish(gpus, asked, length or config.max_length, total, precision, given, rows, checkpointing)
    found = planned(config, wish, machine_of(machine, room, interconnect))
    if json:
        put_json({"model": model, **record(found, price)})
        return
    for line in (*_head(model, found), *_memory(found), *_traffic(found), *_time(found, price), *_why(found)):
        put(line.rstrip())


def amount(text: str, units: dict[str, float], option: str, example: str) -> float:
    """`"3.2M"` → 3,200,000. `InputError` where it is no positive number with one of the units, or with none."""
    unit = next((unit for unit in units if text.upper().endswith(unit)), "")
    digits = text[: len(text) - len(unit)].replace(",", "").replace("_", "").strip()
    if not digits.replace(".", "", 1).isdigit() or float(digits) <= 0:
        raise InputError(f"{option} must be a positive number such as {example}, got '{text}'.")
    return float(digits) * units.get(unit, 1.0)


def _head(model: str, found: Plan) -> Iterable[str]:
    chosen, wish = found.chosen, found.wish
    yield f"{model} on {wish.gpus:,} × {found.machine.name}"
    yield ""
    yield f"{'layout':<{WIDTH}}{chosen.layout}"
    again = ", blocks computed again (checkpointing)" if chosen.schedule.checkpointing else ""
    yield (
        f"{'micro-batches':<{WIDTH}}{chosen.schedule.micro_batches} of {chosen.schedule.rows} × {wish.length:,} tokens "
        f"a replica{again}"
    )
    off = 100 * (found.batch_tokens / wish.batch_tokens - 1)
    note = f" (asked {wish.batch_tokens:,.0f}: {off:+.1f} %)" if found.batch_tokens != wish.batch_tokens else ""
    yield f"{'batch':<{WIDTH}}{found.batch_tokens:,} tokens{note}; {found.steps:,} steps read {wish.tokens:,.0f}"


def _memory(found: Plan) -> Iterable[str]:
    yield ""
    yield "memory of the fullest rank"
    needs = asdict(found.chosen.memory)
    total = needs.pop("total")
    for name, n_bytes in needs.items():
        yield f"  {name:<{WIDTH - 2}}{size(n_bytes):>12}"
    yield f"  {'at most together':<{WIDTH - 2}}{size(total):>12}  of {size(found.machine.usable)} usable"
    other = found.other_checkpointing
    if other is not None:
        how = "without" if found.chosen.schedule.checkpointing else "with"
        yield f"  {how + ' checkpointing':<{WIDTH - 2}}{size(other.total):>12}  activations {size(other.activations)}"


def _traffic(found: Plan) -> Iterable[str]:
    yield ""
    parts = found.chosen.time.communication
    yield "communication of a step, a rank" if parts else "communication: none"
    for part in parts:
        how = "beside computing" if part.overlapped else "waited for"
        yield (
            f"  {part.axis + ' ' + part.kind:<{WIDTH - 2}}{part.count:>7,} × {size(part.bytes / part.count):>9}"
            f"  sends {size(part.sent):>9}  {part.seconds:>8.3f} s  {how}"
        )


def _time(found: Plan, price: float | None) -> Iterable[str]:
    time, devices = found.chosen.time, found.wish.gpus
    yield ""
    yield "time of a step, at the machine's limits"
    for name, seconds in (
        ("products", time.products),
        ("reading and writing", time.moving),
        ("each operation's longer", time.computing),
        ("pipeline waits", time.bubble),
        ("communication waited for", time.waited),
        ("communication beside", time.overlapped),
        ("optimizer", time.update),
    ):
        yield f"  {name:<{WIDTH - 2}}{seconds:>10.3f} s"
    yield f"  {'step':<{WIDTH - 2}}{time.step:>10.3f} s  {100 * found.utilisation:.0f} % of the peak in model FLOPs"
    yield ""
    yield f"training of {found.model_flops:.3g} FLOPs"
    for how, seconds in _durations(found):
        hours = devices * seconds / 3600
        cost = f", cost {price * hours:,.0f}" if price is not None else ""
        watts = found.machine.watts
        power = f", {hours * watts / 1e6:,.1f} MWh" if watts else ""
        yield f"  {how:<{WIDTH - 2}}{seconds / 86400:>10.1f} days, {hours:,.0f} device hours{power}{cost}"


def _durations(found: Plan) -> list[tuple[str, float]]:
    rows = [("this code, at limits", found.seconds)]
    if found.machine.reached and found.wish.precision == "bf16":
        rows += [(f"at {100 * share:.0f} % (published)", found.seconds_at(share)) for share in found.machine.reached]
    return rows


def _why(found: Plan) -> Iterable[str]:
    yield ""
    yield "why this layout"
    for reason in found.reasons:
        yield f"  {reason}"
    for other in found.others:
        yield f"  {_short(other, found.wish.length)}"
    yield ""
    yield "assumed: " + "; ".join(found.machine.sources)


def _short(other: Candidate, length: int) -> str:
    again = ", checkpointing" if other.schedule.checkpointing else ""
    return f"next: {other.layout}{again}: {other.speed(length):,.0f} tokens/s, {size(other.memory.total)}"


def record(found: Plan, price: float | None) -> dict[str, Any]:
    """All that is known of a plan, as JSON values: bytes, seconds, tokens."""

    def of(candidate: Candidate) -> dict[str, Any]:
        time = asdict(candidate.time)
        return {
            "layout": asdict(candidate.layout),
            "schedule": asdict(candidate.schedule),
            "memory": asdict(candidate.memory),
            "communication": time.pop("communication"),
            "time": {**time, "step": candidate.time.step, "limit": candidate.time.limit},
            "tokens_per_second": candidate.speed(found.wish.length),
        }

    hours = found.wish.gpus * found.seconds / 3600
    return {
        **of(found.chosen),
        "batch_tokens": found.batch_tokens,
        "steps": found.steps,
        "flops": found.model_flops,
        "utilisation": found.utilisation,
        "seconds": {how: seconds for how, seconds in _durations(found)},
        "device_hours": hours,
        "cost": None if price is None else price * hours,
        "machine": asdict(found.machine),
        "reasons": list(found.reasons),
        "tried": found.tried,
        "fitting": found.fitting,
        "others": [of(other) for other in found.others],
    }
