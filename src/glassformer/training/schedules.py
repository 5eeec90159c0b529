"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["inverse-sqrt", "cosine", "linear", "constant"]


def learning_rate(step: int, *, schedule: Schedule, peak: float, warmup: int, steps: int) -> float:
    """The rate of step `step` (the first is 1); `peak` is reached at `warmup`, linearly from zero.

    After the warm-up: `inverse-sqrt` falls as step^-0.5, which is equation 3 of Vaswani et al. 2017,
    d_model^-0.5 · min(step^-0.5, step · warmup^-1.5), where peak = (d_model · warmup)^-0.5; `cosine` and `linear`
    fall to zero just after `steps`, the last step; `constant` stays.
    """
    if step < warmup:
        return peak * step / warmup
    if schedule == "inverse-sqrt":
        return peak * math.sqrt(max(warmup, 1) / step)
    if schedule == "constant":
        return peak
    done = min(1.0, (step - warmup) / max(1, steps + 1 - warmup))
    return peak * (1 - done) if schedule == "linear" else peak * (1 + math.cos(math.pi * done)) / 2


def paper_peak(d_model: int, warmup: int) -> float:
    """The peak of equation 3 of Vaswani et al. 2017: (d_model · warmup)^-0.5."""
    return (d_model * warmup) ** -0.5
