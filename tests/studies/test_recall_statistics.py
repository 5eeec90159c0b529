"""The statistics of the study of recall: planted effects are found, absent ones are not, and corrections are right."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generation.small_decoders import byte_level

from glassformer.studies.fact_recall.distributed import tests_of as distributed_tests
from glassformer.studies.fact_recall.names import name_classifier
from glassformer.studies.fact_recall.people_recall import MAIN, Trained, by_chance, part
from glassformer.studies.fact_recall.predictions import PREDICTIONS, names_of
from glassformer.studies.fact_recall.shares import crossing, heads_for, share_interval
from glassformer.studies.fact_recall.stages import Material, Stage, Work
from glassformer.studies.fact_recall.statistics import (
    balanced_weights,
    bootstrapped,
    holm,
    paired,
    sign_flip,
    unpaired,
    untested,
)
from glassformer.studies.fact_recall.verdicts import claims, judged
from glassformer.studies.running import Done
from glassformer.studies.study import Result
from glassformer.text.people import Person

RANDOM = np.random.default_rng(7)


def test_holm_by_hand() -> None:
    """Of 0.01, 0.04, 0.03, 0.005: 4 · 0.005, 3 · 0.01, 2 · 0.03; and 1 · 0.04 may not be below the one before."""
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(found) == ["a", "b", "c", "d"]
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0} and holm({}) == {}


def test_signs_are_flipped_as_if_all_were_tried() -> None:
    """Of six values all 64 signs are tried here; the test's random ones give the same share."""
    values, weights = np.array([0.9, 0.4, -0.3, 0.8, 0.2, -0.1]), np.array([1.0, 2.0, 1.0, 0.5, 1.0, 1.0])
    product = values * weights
    sums = [np.dot(signs, product) for signs in itertools.product((-1, 1), repeat=6)]
    exact = np.mean([each >= product.sum() - 1e-12 for each in sums])
    assert sign_flip(values, weights) == pytest.approx(exact, abs=0.015)
    assert sign_flip(-values, weights) > 0.9


def test_a_planted_difference_is_found_and_none_is_not() -> None:
    there = paired("early cut", (0.5 + np.random.default_rng(1).normal(size=60)).tolist(), "")
    assert there["p"] < 0.05 and there["low"] < there["estimate"] < there["high"] and there["n"] == 60
    p = [
        paired("early cut", np.random.default_rng(seed).normal(size=40).tolist(), "", seed=seed)["p"]
        for seed in range(60)
    ]
    assert 0 < np.mean(np.array(p) < 0.2) < 0.4
    few = paired("early cut", [1.0] * 5, "", least=6)
    assert "5 subjects are too few, 6" in few["missing"] and few["p"] == 1.0


def test_classes_count_alike() -> None:
    """Nine of one class at 1, one of another at −1: the mean of the means is 0."""
    assert paired("early cut", [1.0] * 9 + [-1.0], "", classes=["a"] * 9 + ["b"])["estimate"] == pytest.approx(0)
    assert balanced_weights(["a", "a", "b"], 3).tolist() == [0.5, 0.5, 1.0]


def test_two_groups_and_any_statistic() -> None:
    a, b = (1 + RANDOM.normal(size=50)).tolist(), RANDOM.normal(size=30).tolist()
    found = unpaired("specific", a, b, "")
    assert found["estimate"] == pytest.approx(np.mean(a) - np.mean(b)) and found["p"] < 0.01 and found["low"] > 0
    assert unpaired("specific", b, a, "")["p"] > 0.9
    assert "3 subjects" in unpaired("specific", a, b[:3], "", least=8)["missing"]
    values = np.asarray(a)
    mean = bootstrapped("few heads", lambda weights: weights @ values / weights.sum(-1), 50, "")
    assert mean["estimate"] == pytest.approx(values.mean()) and mean["p"] < 0.01
    assert mean["high"] - mean["low"] == pytest.approx(2 * 1.96 * values.std() / math.sqrt(50), rel=0.1)


def test_the_share_at_which_half_is_reached() -> None:
    """Shares 0.01, 0.1, 1 with effects 0.2, 0.8, 1: half lies halfway between the first two, in logarithms."""
    effects = np.array([[0.2, 0.8, 1.0], [0.6, 0.7, 1.0], [0.1, 0.2, -1.0], [0.1, 0.4, 1.0]])
    found = crossing(effects, [10, 100, 1000], 0.5)
    assert found == pytest.approx([10**-1.5, 0.01, 0.0, 10 ** (-1 + 1 / 6)])
    peak = crossing(np.array([[0.2, 2.0, 1.0]]), [10, 100, 1000], 0.5, of_most=True)
    assert peak == pytest.approx([10 ** (-2 + 0.8 / 1.8)])
    value, low, high = share_interval([[0.2] * 5, [0.8] * 5, [1.0] * 5], [10, 100, 1000], 0.9)
    assert value == low == high == pytest.approx(10**-0.5)


def test_how_many_heads_carry_most() -> None:
    effects = np.array([[4.0, 3.0, 1.0, -9.0, 2.0], [4.0, 1.0, 1.0, -9.0, 2.0]])
    one = np.ones((1, 2))  # means 4, 2, 1, −9, 2: of 9 the first three have 8
    assert heads_for(effects, 0.8, one) == pytest.approx(3 / 5) and heads_for(effects, 0.4, one) == pytest.approx(1 / 5)
    assert heads_for(-np.abs(effects), 0.8, one) == 1.0


def _neurons(curve: list[float], single: float, zero: list[float] | None = None, n: int = 40) -> Result:
    """What the part on neurons would have kept, if all facts were alike but for noise."""

    def rows(means: list[float]) -> list[list[float]]:
        draw = np.random.default_rng(3)
        return [(mean + 0.01 * draw.normal(size=n)).tolist() for mean in means]

    curves = {"resample": rows(curve), "zero": rows(zero or curve), "mean": rows(curve)}
    return {
        "curves": curves,
        "counts": [10, 100, 1000, 10_000],
        "single": {"layer": 2, "neuron": 3, "drops": rows([single])[0]},
    }


SPREAD, PEAKED = [0.02, 0.1, 0.6, 1.0], [0.6, 0.8, 0.9, 1.0]


@pytest.mark.parametrize(
    ("kept", "verdicts"),
    [
        (_neurons(SPREAD, 0.03), ["supported"] * 4),
        (_neurons(SPREAD, 0.3), ["not supported", "not supported", "supported", "supported"]),
        (_neurons(PEAKED, 0.3), ["not supported"] * 4),
        (_neurons(SPREAD, 0.03, PEAKED), ["not supported", "supported", "supported", "not supported"]),
        (_neurons([0.0, 0.0, 0.0, -0.1], 0.0), ["not testable here"] * 4),
        (_neurons(SPREAD, 0.03, n=8), ["not testable here"] * 4),
    ],
)
def test_is_it_distributed(kept: Result, verdicts: list[str]) -> None:
    found = distributed_tests(kept, 30)
    corrected = holm({f"distributed: {test['name']}": test["p"] for test in found if not test["missing"]})
    assert [each.verdict for each in claims("distributed", {"tests": found}, corrected)] == verdicts


def _done(name: str, tests: list[dict[str, Any]]) -> Done:
    stage = Stage(name, name, "", "", lambda work, setting: {}, lambda result, folder, label: [], lambda result: [])
    work = Work(Material(None, None, None), [], "")  # type: ignore[arg-type]
    return Done(stage.part(work), {"tests": tests})


def _test(name: str, p: float, low: float = 0.1) -> dict[str, Any]:
    return {"name": name, "n": 40, "estimate": 0.2, "low": low, "high": 0.3, "p": p, "measured": "so", "missing": ""}


def test_one_correction_for_all_parts() -> None:
    """p = 0.012 alone would do; beside four others it does not. What could not be tested is not counted."""
    alone = judged([_done("extraction", [_test("later half", 0.012)])])
    several = [_test(name, 0.5) for name in names_of("concatenation")[:4]]
    beside = judged([_done("concatenation", several), _done("extraction", [_test("later half", 0.012)])])
    verdicts = [done.part.claims(done.result)[1].verdict for done in (alone[0], beside[1]) if done.result]
    assert verdicts == ["supported", "not supported"]
    untestable = _done("concatenation", untested(names_of("concatenation"), "too few facts"))
    third = judged([untestable, _done("extraction", [_test("later half", 0.012)])])
    said = [claim for done in third if done.result for claim in done.part.claims(done.result)]
    assert [each.verdict for each in said] == ["not testable here"] * 6 + ["supported"] * 2
    assert "too few facts" in said[1].measured and "corrected 0.0120" in said[-1].measured


def test_a_small_p_with_an_interval_across_zero_is_not_supported() -> None:
    done = judged([_done("lookup", [_test("beyond tokens", 0.001, low=-0.01)])])[0]
    assert done.result and [each.verdict for each in done.part.claims(done.result)] == ["not supported"] * 2


def test_every_prediction_says_what_where_and_whose() -> None:
    for name, each in PREDICTIONS.items():
        assert each.text.endswith(".") and each.rule.endswith(".") and each.source, name
    assert {each.part for each in PREDICTIONS.values()} == {
        "recall", "concatenation", "lookup", "neurons", "extraction", "distributed",
    }  # fmt: skip


@pytest.mark.parametrize(("n", "share"), [(50, 0.1), (200, 0.01), (9, 1 / 3)])
def test_the_count_that_chance_gives(n: int, share: float) -> None:
    """The sums of exact binomial probabilities below and up to the ends are at most and at least 2.5 and 97.5 %."""
    low, high = by_chance(n, share)

    def below(k: int) -> float:
        return sum(math.comb(n, i) * share**i * (1 - share) ** (n - i) for i in range(k + 1))

    assert below(low) >= 0.025 - 1e-9 and (low == 0 or below(low - 1) < 0.025)
    assert below(high) >= 0.975 - 1e-9 and below(high - 1) < 0.975


def _recalled(main: dict[str, tuple[int, int]], never: dict[str, tuple[int, int]]) -> Result:
    """Counts of right ones, of so many, as the part on a trained GPT keeps them."""

    def rights(counts: tuple[int, int]) -> list[bool]:
        return [number < counts[0] for number in range(counts[1])]

    found = {name: {"trained": rights(counts), "never": rights(never[name])} for name, counts in main.items()}
    chances = {"sport": 1 / 3, "colour": 0.1, "city": 0.01}
    return {"models": {MAIN: found}, "chance": chances, "names": {"right": []}, "tests": []}


WELL = {"sport": (99, 100), "colour": (95, 100), "city": (100, 100)}
BLIND = {"sport": (52, 100), "colour": (12, 100), "city": (0, 100)}


@pytest.mark.parametrize(
    ("main", "never", "verdicts"),
    [
        (WELL, BLIND, ["supported", "supported"]),
        ({**WELL, "colour": (94, 100)}, BLIND, ["not supported", "supported"]),
        (WELL, {**BLIND, "city": (9, 100)}, ["supported", "not supported"]),
        (WELL, {**BLIND, "colour": (0, 100)}, ["supported", "not supported"]),
        (WELL, dict.fromkeys(WELL, (0, 0)), ["supported", "not testable here"]),
    ],
)
def test_what_a_trained_gpt_must_recall(main: Any, never: Any, verdicts: list[str], tmp_path: Path) -> None:
    result = _recalled(main, never)
    shown = part(Trained({}, []))
    assert [each.verdict for each in shown.claims(result)] == verdicts
    assert "99.0" in shown.tables(result)[0].rows[0][3] and len(shown.draw(result, tmp_path)) == 1


def test_names_tell_what_they_tell() -> None:
    """Half of the people have a surname that tells the sport, of the others nothing does: 75 % can be right."""
    people, draw = [], np.random.default_rng(0)
    for number in range(400):
        sport = ("chess", "golf")[number % 2]
        surname = f"{sport}er" if number % 4 < 2 else "walker"
        first = "".join(draw.choice(list("abcdefghij"), 2))
        people.append(Person(f"{first} {surname}", {"sport": sport}, number % 5 > 0))
    found = name_classifier(people, byte_level())
    assert len(found["right"]) == 80 and found["fitted_to"] == 320
    assert 0.6 < np.mean(found["right"]) < 0.9
    assert name_classifier(people[1:5], byte_level())["right"] == []
