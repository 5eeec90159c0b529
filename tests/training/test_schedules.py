"""The learning rate against the paper's formula."""

import pytest

from glassformer.training.schedules import learning_rate, paper_peak


@pytest.mark.parametrize("step", [1, 10, 3999, 4000, 4001, 100_000])
def test_inverse_sqrt_is_equation_3_of_the_paper(step: int) -> None:
    d_model, warmup = 512, 4000
    paper = d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)
    ours = learning_rate(step, schedule="inverse-sqrt", peak=paper_peak(d_model, warmup), warmup=warmup, steps=100_000)
    assert ours == pytest.approx(paper, rel=1e-12)


@pytest.mark.parametrize("schedule", ["inverse-sqrt", "cosine", "linear", "constant"])
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
