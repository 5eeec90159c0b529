"""What can be done at once: measured at toy scale, the fitted laws against known answers, each claim both ways."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from glassformer.studies.architectures import parallelism
from glassformer.studies.architectures.measuring import FAMILIES, Timing, configs
from glassformer.studies.architectures.parallelism import fitting as parallelism_fitting
from glassformer.studies.architectures.parallelism import verdicts as parallelism_claims
from glassformer.studies.study import Setting

RECURRENT = ("LSTM", "LSTM without attention")


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return json.loads(json.dumps(parallelism.PART.run(Setting("toy")), allow_nan=False))


def test_the_part_draws_and_tells_what_it_measured(measured: dict[str, Any], tmp_path: Path) -> None:
    pictures = parallelism.PART.draw(measured, tmp_path)
    assert [picture.file for picture in pictures] == ["parallelism_rows.png", "parallelism_batches.png"]
    assert all((tmp_path / picture.file).read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert all("n = 3 repeats" in picture.caption and "seed" in picture.caption for picture in pictures)
    (table,) = parallelism.PART.tables(measured)
    assert [row[0] for row in table.rows] == list(FAMILIES)
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert [each.verdict for each in parallelism.PART.claims(measured)][-1] == "not testable here"


def test_all_shapes_have_as_many_words(measured: dict[str, Any]) -> None:
    assert {rows * length for rows, length in measured["shapes"]} == {measured["words"]}


def test_only_recurrence_waits_longer_in_longer_rows() -> None:
    families = configs(60_000, 64)
    assert {name: parallelism.chain(families[name], 10) for name in FAMILIES} == dict.fromkeys(
        FAMILIES, 4
    ) | dict.fromkeys(RECURRENT, 20)


def test_flops_grow_with_words_and_with_what_is_attended_to() -> None:
    families = configs(60_000, 64)
    for name, config in families.items():
        assert parallelism.flops(config, 6, 16) == 3 * parallelism.flops(config, 2, 16)
        longer = parallelism.flops(config, 1, 32) - parallelism.flops(config, 2, 16)
        assert longer == 0 if name == "LSTM without attention" else longer > 0


def test_one_two_four_threads_and_all() -> None:
    assert [parallelism._thread_counts(threads) for threads in (1, 2, 4, 6)] == [[], [1, 2], [1, 2, 4], [1, 2, 4, 6]]


def test_threads_are_as_many_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(parallelism, "_steps", lambda *_: {"LSTM": [[torch.get_num_threads()]]})
    found = parallelism._threads({}, [(1, 4)], Timing(2, 1), 4)
    assert torch.get_num_threads() == before
    assert [each["LSTM"] for each in found] == [[[1]], [[2]], [[4]]]


POINTS = [(1e9, 100.0, 4.0), (2e9, 100.0, 32.0), (4e9, 100.0, 64.0), (1e8, 10.0, 8.0), (3e9, 300.0, 8.0)]


@pytest.mark.parametrize(
    "fit", [(1e-10, 1e-3, 2e-3, 0.1), (1e-10, 0.0, 2e-3, 0.0), (0.0, 1e-3, 0.0, 0.0), (0.0, 0.0, 1e-3, 0.2)]
)
def test_work_and_waiting_are_found_again(fit: tuple[float, ...]) -> None:
    seconds = [sum(a * b for a, b in zip(fit, (*point, 1.0), strict=True)) for point in POINTS]
    assert parallelism_fitting.work_and_waiting(POINTS, seconds) == pytest.approx(fit, rel=1e-6, abs=1e-15)


def test_no_work_takes_less_than_no_time() -> None:
    seconds = [1.0, 0.9, 0.8, 1.0, 1.0]  # the more there is to do, the faster
    assert min(parallelism_fitting.work_and_waiting(POINTS, seconds)) >= 0


def test_shares_of_made_up_waiting_are_found_again() -> None:
    result = made_up()
    for name, work, wait in (("Transformer", 2e-4 * 1024, 1e-5 * 4), ("LSTM", 5e-5 * 1024, 1e-3 * 512)):
        found = parallelism_fitting.shares(result, name)[-1]
        assert found == pytest.approx([wait / (work + wait)] * 3, abs=1e-6)
        assert parallelism_fitting.fit_error(result, name) < 1e-6


def test_amdahl_finds_the_share_again() -> None:
    threads = [1, 2, 4]
    for share in (0.0, 0.3, 1.0):
        seconds = [5 * (share + (1 - share) / number) for number in threads]
        assert parallelism_fitting.amdahl(threads, seconds) == pytest.approx(share)
    assert parallelism_fitting.amdahl([1, 2], [1.0, 1.2]) == pytest.approx(1.4)


def made_up(waiting: dict[str, float] | None = None, factor: dict[str, float] | None = None) -> dict[str, Any]:
    """Results in which all claims hold: recurrence waits `waiting` seconds a step of the chain, threads help the rest.

    `factor` multiplies all times of a family.
    """
    shapes, batches, length = [[64, 16], [16, 64], [4, 256]], [1, 8, 64], 32
    waits, factors = {"LSTM": 1e-3} | (waiting or {}), factor or {}
    chains = {name: [2 * n if name in RECURRENT else 4 for _, n in shapes] for name in FAMILIES}
    at_batch = {name: 2 * length if name in RECURRENT else 4 for name in FAMILIES}
    work = {"LSTM": 5e-5}

    def times(name: str, words: float, chain: float, threads: int = 1) -> list[float]:
        time = work.get(name, 2e-4) * words / threads + waits.get(name, 1e-5) * chain
        return [factors.get(name, 1.0) * time * jitter for jitter in (1.0, 1.001, 0.999)]

    shape_seconds = {name: [times(name, 1024, each) for each in chains[name]] for name in FAMILIES}
    return {
        "threads": 2,
        "words": 1024,
        "shapes": shapes,
        "chains": chains,
        "flops": {name: [1e9] * 3 for name in FAMILIES},
        "shape_seconds": shape_seconds,
        "length": length,
        "batches": batches,
        "batch_chains": at_batch,
        "batch_flops": {name: [1e9 * rows * length / 1024 for rows in batches] for name in FAMILIES},
        "batch_seconds": {name: [times(name, rows * length, at_batch[name]) for rows in batches] for name in FAMILIES},
        "thread_counts": [1, 2],
        "thread_seconds": [
            {name: [times(name, 1024, chains[name][place], threads) for place in (0, -1)] for name in FAMILIES}
            for threads in (1, 2)
        ],
    }


def verdicts(result: dict[str, Any]) -> list[str]:
    return [each.verdict for each in parallelism_claims.claims(json.loads(json.dumps(result)))]


def test_every_claim_can_hold() -> None:
    assert verdicts(made_up()) == ["supported"] * 6


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"waiting": {"LSTM": 0.0}}, [0, 1, 2, 4, 5]),
        ({"waiting": {"Transformer": 1.0}}, [2, 4, 5]),
        ({"factor": {"LSTM": 10.0}}, [3]),
    ],
)
def test_each_claim_can_fail(change: dict[str, Any], failing: list[int]) -> None:
    assert [place for place, verdict in enumerate(verdicts(made_up(**change))) if verdict == "not supported"] == failing


def test_one_thread_says_nothing_about_threads(tmp_path: Path) -> None:
    result = made_up() | {"thread_counts": [], "thread_seconds": []}
    assert verdicts(result)[-1] == "not testable here"
    assert len(parallelism.PART.tables(result)) == 1 and len(parallelism.PART.tables(made_up())) == 2


def test_threads_are_drawn(tmp_path: Path) -> None:
    pictures = parallelism.PART.draw(made_up(), tmp_path)
    assert (tmp_path / pictures[-1].file).name == "parallelism_threads.png" and len(pictures) == 3
