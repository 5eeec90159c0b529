"""The learning rate, and how many batches make a step, as pure functions of the step."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["inverse-sqrt", "cosine", "linear", "constant", "warmup-stable-decay"]


def learning_rate(
    step: int,
    *,
    schedule: Schedule,
    peak: float,
    warmup: int,
    steps: int,
    cooldown: float = 0.2,
    floor: float = 0.0,
) -> float:
    """The rate of step `step` (the first is 1); `peak` is reached at `warmup`, linearly from zero.

    After the warm-up: `inverse-sqrt` falls as step^-0.5, which is equation 3 of Vaswani et al. 2017,
    d_model^-0.5 · min(step^-0.5, step · warmup^-1.5), where peak = (d_model · warmup)^-0.5; `constant` stays; `cosine`
    and `linear` fall to `floor` · peak just after `steps`, the last step; `warmup-stable-decay` stays, and falls
    linearly to that in the last `cooldown` (a share of all steps; Hu et al. 2024, Hägele et al. 2024).
    """
    if step < warmup:
        return peak * step / warmup
    if schedule == "inverse-sqrt":
        return peak * math.sqrt(max(warmup, 1) / step)
    if schedule == "constant":
        return peak
    start = warmup
    if schedule == "warmup-stable-decay":
        start = max(warmup, steps - round(cooldown * steps))
    done = min(1.0, max(0, step - start) / max(1, steps + 1 - start))
    left = (1 + math.cos(math.pi * done)) / 2 if schedule == "cosine" else 1 - done
    return peak * (floor + (1 - floor) * left)


def paper_peak(d_model: int, warmup: int) -> float:
    """The peak of equation 3 of Vaswani et al. 2017: (d_model · warmup)^-0.5."""
    return (d_model * warmup) ** -0.5


def batches_at(step: int, accumulate: int, ramp: int) -> int:
    """How many micro-batches step `step` (the first is 1) takes: one at first, `accumulate` from step `ramp` on.

    Between them it grows linearly, rounded down; without a ramp (0) it is always `accumulate`.
    """
    if step >= ramp:
        return accumulate
    return 1 + (accumulate - 1) * (step - 1) // (ramp - 1)
