"""The learning rate against closed forms and torch's schedulers; how the number of batches a step grows."""

import math
from fractions import Fraction
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glassformer.training.schedules import Schedule, batches_at, learning_rate, paper_peak


@pytest.mark.parametrize("step", [1, 10, 3999, 4000, 4001, 100_000])
def test_inverse_sqrt_is_equation_3_of_the_paper(step: int) -> None:
    d_model, warmup = 512, 4000
    paper = d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)
    ours = learning_rate(step, schedule="inverse-sqrt", peak=paper_peak(d_model, warmup), warmup=warmup, steps=100_000)
    assert ours == pytest.approx(paper, rel=1e-12)


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_every_schedule_rises_linearly_to_its_peak_and_never_above(schedule: str) -> None:
    rates = [
        learning_rate(step, schedule=schedule, peak=0.5, warmup=10, steps=100)  # type: ignore[arg-type]
        for step in range(1, 101)
    ]
    assert rates[:10] == pytest.approx([0.05 * step for step in range(1, 11)])
    assert max(rates) == pytest.approx(0.5)
    assert all(rate > 0 for rate in rates)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_falling_schedules_end_near_zero_but_train_their_last_step(schedule: str) -> None:
    last = learning_rate(1000, schedule=schedule, peak=1.0, warmup=0, steps=1000)  # type: ignore[arg-type]
    assert 0 < last < 0.002


def test_no_warmup_starts_at_the_peak() -> None:
    assert learning_rate(1, schedule="constant", peak=0.3, warmup=0, steps=10) == 0.3
    assert learning_rate(1, schedule="inverse-sqrt", peak=0.3, warmup=0, steps=10) == 0.3


def rates(schedule: str, steps: int, **choices: Any) -> list[float]:
    """Of the steps 1 … `steps`, with a peak of 0.5."""
    every = {"schedule": schedule, "peak": 0.5, "steps": steps, **choices}
    return [learning_rate(step, **every) for step in range(1, steps + 1)]


@pytest.mark.parametrize("floor", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_falling_schedules_are_those_of_torch(warmup: int, floor: float) -> None:
    """From the peak at the end of the warm-up to the floor one step after the last."""
    steps = 40
    length = steps + 1 - warmup
    for schedule, kind, choices in (
        ("cosine", torch.optim.lr_scheduler.CosineAnnealingLR, {"T_max": length, "eta_min": 0.5 * floor}),
        ("linear", torch.optim.lr_scheduler.LinearLR, {"start_factor": 1, "end_factor": floor, "total_iters": length}),
    ):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
        theirs, expected = kind(optimizer, **choices), []
        for _ in range(length):
            expected.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            theirs.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * floor)
        found = rates(schedule, steps, warmup=warmup, floor=floor)
        assert found[max(0, warmup - 1) :] == pytest.approx(expected[warmup == 0 :], rel=1e-6), schedule


def test_half_way_down() -> None:
    for schedule in ("cosine", "linear"):
        middle = learning_rate(15, schedule=schedule, peak=2.0, warmup=10, steps=19, floor=0.5)  # type: ignore[arg-type]
        assert middle == pytest.approx(1.5)
    quarter = learning_rate(20, schedule="cosine", peak=2.0, warmup=10, steps=49)
    assert quarter == pytest.approx(1 + math.cos(math.pi / 4))


@pytest.mark.parametrize("floor", [0.0, 0.25])
@pytest.mark.parametrize("warmup", [0, 10])
def test_warmup_stable_decay_is_three_straight_lines(warmup: int, floor: float) -> None:
    """Up, along and, in the last 20 of 100 steps, down: 21 equal parts, of which the last is never trained."""
    found = rates("warmup-stable-decay", 100, warmup=warmup, floor=floor)
    assert found[:warmup] == pytest.approx([0.05 * step for step in range(1, warmup + 1)])
    assert found[warmup:80] == [0.5] * (80 - warmup)
    assert found[80:] == pytest.approx([0.5 * (floor + (1 - floor) * (21 - step) / 21) for step in range(1, 21)])


def test_the_cooldown_is_a_share_of_all_steps() -> None:
    choices: dict[str, Any] = {"warmup": 10, "floor": 0.1}
    assert rates("warmup-stable-decay", 100, cooldown=0.0, **choices)[9:] == [0.5] * 91
    assert rates("warmup-stable-decay", 100, cooldown=1.0, **choices) == rates("linear", 100, **choices)
    assert rates("warmup-stable-decay", 100, cooldown=0.95, **choices) == rates("linear", 100, **choices)
    found = rates("warmup-stable-decay", 30, cooldown=0.5, warmup=0)
    assert found[:15] == [0.5] * 15 and found[15] == pytest.approx(0.5 * 15 / 16)


@given(
    schedule=st.sampled_from(get_args(Schedule)),
    steps=st.integers(1, 60),
    warmup=st.integers(0, 80),
    cooldown=st.floats(0, 1),
    floor=st.floats(0, 1),
)
def test_any_schedule_rises_once_and_never_rises_again(
    schedule: str, steps: int, warmup: int, cooldown: float, floor: float
) -> None:
    found = rates(schedule, steps, warmup=warmup, cooldown=cooldown, floor=floor)
    rising, falling = found[: max(1, warmup)], found[max(0, warmup - 1) :]
    assert rising == sorted(rising) and falling == sorted(falling, reverse=True)
    assert min(found) > 0 and max(found) <= 0.5
    if schedule not in ("inverse-sqrt", "constant"):
        assert all(rate >= 0.5 * floor * (1 - 1e-12) for rate in falling)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "warmup-stable-decay"])
def test_after_the_last_step_the_rate_is_the_floors(schedule: str) -> None:
    """As where a run goes on for longer than was planned; the schedules without an end go on falling or staying."""
    every: dict[str, Any] = {"peak": 0.5, "warmup": 3, "steps": 20, "floor": 0.2}
    assert [learning_rate(step, schedule=schedule, **every) for step in (21, 22, 500)] == pytest.approx([0.1] * 3)
    assert learning_rate(500, schedule="constant", **every) == 0.5
    assert learning_rate(300, schedule="inverse-sqrt", **every) == pytest.approx(0.05)


def test_batches_grow_to_the_ramps_end() -> None:
    assert [batches_at(step, 8, 0) for step in (1, 2, 100)] == [8, 8, 8]
    assert [batches_at(step, 8, 1) for step in (1, 2, 100)] == [8, 8, 8]
    assert [batches_at(step, 4, 7) for step in range(1, 10)] == [1, 1, 2, 2, 3, 3, 4, 4, 4]
    assert [batches_at(step, 5, 3) for step in range(1, 5)] == [1, 3, 5, 5]
    assert [batches_at(step, 1, 50) for step in (1, 25, 60)] == [1, 1, 1]


@given(step=st.integers(1, 300), accumulate=st.integers(1, 64), ramp=st.integers(2, 200))
def test_batches_are_the_straight_line_rounded_down(step: int, accumulate: int, ramp: int) -> None:
    line = 1 + (accumulate - 1) * Fraction(min(step, ramp) - 1, ramp - 1)
    assert batches_at(step, accumulate, ramp) == math.floor(line)
