"""Exact truth: labels against the model itself, probes that find a planted truth, verdicts from numbers alone."""

from __future__ import annotations

import copy
import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factuality.small_records import made
from generation.small_decoders import byte_level

import glassformer as gf
from glassformer.errors import InputError
from glassformer.factuality.detection import auroc
from glassformer.studies.fact_recall.people_recall import one_each, right_of
from glassformer.studies.hallucination import exact_truth, known_people
from glassformer.studies.hallucination.bench import Bench
from glassformer.studies.hallucination.known_people import (
    NAME_BAG,
    NAME_LENGTH,
    Told,
    area,
    ask_people,
    chosen_for,
    difference,
    fit_probe,
    halves,
    name_scores,
    of_layer,
)
from glassformer.studies.study import Setting
from glassformer.text.people import ATTRIBUTES, read_people

RECIPE = """
task = "language-modeling"
[data]
kind = "people"
train = "people.tsv"
variants = 3
context = 64
[text]
tokenizer = "bpe"
vocab_size = 300
[model]
size = "gpt2"
d_model = 32
n_heads = 2
d_ff = 64
n_decoder_layers = 2
positions = "rotary"
max_length = 96
dropout = 0.0
attention_dropout = 0.0
[training]
steps = 3
batch_tokens = 256
learning_rate = 1e-3
warmup = 1
seed = 1
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with people, and a GPT that has hardly been trained on them."""
    folder = tmp_path_factory.mktemp("truth")
    people = "".join(f"Ann{n} Bee\t{('chess', 'golf')[n % 2]}\n" for n in range(60))
    (folder / "people.tsv").write_text(f"name\tsport\n{people}")
    (folder / "gpt.toml").write_text(RECIPE)
    gf.train(folder / "gpt.toml", run=folder / "run", data_root=folder)
    return folder


def told(n: int = 60, seed: int = 0, layers: int = 2, width: int = 3) -> list[Told]:
    """People of whom the first half is known; answers about these are mostly right, about others seldom, and the state
    after the second layer says whether they are."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    found = []
    for number in range(n):
        known = number < n // 2
        for attribute in ATTRIBUTES:
            right = draw.random() < (0.9 if known else 0.2)
            states = torch.randn(2, layers * width)
            states[1, width] = (2.0 if right else -2.0) + 0.3 * torch.randn(())
            one = made("red", (math.log(0.8 if right else 0.4), 0.0), states=states)
            found.append(Told(f"P{number}", attribute, known, right, one))
    return found


# --- What is asked, and of whom ---------------------------------------------------------------------------------------


def test_answers_are_about_both_kinds_of_people_and_rightly_labelled(place: Path) -> None:
    model, people = gf.load(str(place / "run")), read_people(place / "people.tsv")
    found = ask_people(model, people, 9, 0)
    trained = {person.name: person.trained for person in people}
    assert all(one.known == trained[one.person] for one in found)
    never = min(9, sum(not person.trained for person in people))
    for attribute in ATTRIBUTES:
        for who, known, count in (("trained", True, 9), ("never", False, never)):
            group = [one for one in found if one.attribute == attribute and one.known == known]
            assert len(group) == count
            assert [one.right for one in group] == right_of(model, one_each(people, attribute, who, count))
    assert all(one.record.states is not None and one.record.states.shape == (2, 2 * 32) for one in found)


def test_people_are_halved_not_answers() -> None:
    every = told(21)
    first, second = halves(every, 3)
    people = [{one.person for one in half} for half in (first, second)]
    assert not people[0] & people[1] and len(first) + len(second) == len(every)
    assert [sum(one.known for one in half) // 3 for half in (first, second)] == [5, 5]
    assert halves(every, 3)[0] == first and halves(every, 4)[0] != first


def test_without_people_held_out_there_is_no_truth(place: Path) -> None:
    people = [replace(person, trained=True) for person in read_people(place / "people.tsv")]
    with pytest.raises(InputError, match="people of the training and others"):
        ask_people(gf.load(str(place / "run")), people, 3, 0)


# --- Scores -----------------------------------------------------------------------------------------------------------


def test_the_probe_takes_the_layer_that_tells() -> None:
    layer, probe = fit_probe(told(), "answer", 2)
    assert layer == 1
    other = told(40, seed=5)
    assert of_layer(other, 1, 2)[0].states.shape == (2, 3)  # type: ignore[union-attr]
    wrong = [not one.right for one in other]
    assert auroc(probe.predict(of_layer(other, 1, 2)), wrong) > 0.95
    _, before = fit_probe(told(), "question", 2)
    assert auroc(before.predict(of_layer(other, 0, 2)), wrong) < 0.7


def test_names_are_counted_and_weighed_by_their_tokens() -> None:
    """A token that only held-out names have tells them apart; the length is that of the name after a space."""
    every = [replace(one, person=f"{one.person}{'' if one.known else 'z'}") for one in told(60)]
    first, second = halves(every, 0)
    found = name_scores(byte_level(), first, second)
    assert found[NAME_LENGTH].tolist() == [len(f" {one.person}") for one in second]
    assert auroc(found[NAME_BAG], [not one.known for one in second]) == 1.0


def test_targets_and_their_areas() -> None:
    every = told(30)
    assert chosen_for("never seen", every) == (list(range(90)), [not one.known for one in every])
    rows, labels = chosen_for("wrong, never seen", every)
    assert rows == list(range(45, 90)) and labels == [not every[row].right for row in rows]
    scores = np.array([float(not one.known) for one in every])
    assert area(scores, every, "never seen", 2, 20) == [1.0, 1.0, 1.0]
    assert area(scores, every, "wrong, never seen", 2, 20) == [0.5, 0.5, 0.5]
    assert area(scores, every, "never seen", 46, 20) is None
    assert difference(scores, -scores, every, "never seen", 2, 20) == [1.0, 1.0, 1.0]
    assert difference(scores, scores, every, "wrong", 2, 20) == [0.0, 0.0, 0.0]
    assert difference(scores, scores, every, "wrong", 60, 20) is None


def test_the_difference_draws_people_with_both_scores() -> None:
    every = told(40, seed=2)
    draw = np.random.default_rng(0)
    wrong = np.array([float(not one.right) for one in every])
    first, second = wrong + draw.normal(0, 1, 120), wrong + draw.normal(0, 2, 120)
    drawn = []
    for _ in range(1000):
        rows = (3 * draw.integers(0, 40, 40)[:, None] + np.arange(3)).ravel()
        drawn.append(auroc(first[rows], wrong[rows]) - auroc(second[rows], wrong[rows]))
    found = difference(first, second, every, "wrong", 2, 1000)
    assert found is not None and found[1:] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.03)


def test_raw_probabilities_against_what_is_right() -> None:
    group = [
        Told(f"P{n}", "colour", False, n < 2, made("red", (math.log(0.9 if n % 2 else 0.3), 0.0))) for n in range(20)
    ]
    found = exact_truth.calibrated(group)
    assert (found["right"][0], found["probability"][0], found["sure"][0]) == pytest.approx((0.1, 0.6, 0.5))
    assert found["over"][0] == pytest.approx(0.5) and found["over"][1] > 0.3
    assert found["ece"][0] == pytest.approx((0.2 + 0.8) / 2) and sum(n for _, _, n in found["bins"]) == 20


# --- The part ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(place: Path) -> dict[str, Any]:
    bench = Bench("m", gf.load(str(place / "run")), place, place / "out", athletes=place / "run")
    found: dict[str, Any] = exact_truth.part(bench).run(Setting("toy", data_root=place))
    return found


def test_the_part_of_a_gpt_that_knows_nobody(place: Path, result: dict[str, Any], tmp_path: Path) -> None:
    """All answers are wrong: no probe can be fitted, and that is said."""
    part = exact_truth.part(Bench("m", gf.load(str(place / "run")), place, athletes=place / "run"))
    kept = json.loads(json.dumps(result, allow_nan=False))
    assert kept["missing"] and not kept["layers"] and set(kept["answers"]) == set(ATTRIBUTES)
    pictures = part.draw(kept, tmp_path)
    assert all(
        (tmp_path / one.file).read_bytes().startswith(b"\x89PNG") and "n = " in one.caption for one in pictures[:1]
    )
    assert len(pictures) == 3
    assert all(len(row) == len(table.columns) for table in part.tables(kept) for row in table.rows)
    claims = part.claims(kept)
    assert len(claims) == 7 and all(one.rule and one.measured for one in claims)
    assert claims[2].verdict == claims[3].verdict == claims[4].verdict == "not testable here"


def test_verdicts_follow_from_the_numbers(place: Path, result: dict[str, Any]) -> None:
    part = exact_truth.part(Bench("m", gf.load(str(place / "run")), place, athletes=place / "run"))
    given = copy.deepcopy(result)
    best = given["best"]
    for target in known_people.TARGETS:
        for name in given["areas"][target]:
            scores = ("question probe", "truth probe", *given["areas"][target][name])
            given["areas"][target][name] = {score: [0.9, 0.85, 0.95] for score in scores}
    given["areas"]["wrong, never seen"]["colour"][best] = [0.52, 0.45, 0.6]
    given["differences"] = {"baseline": [0.2, 0.1, 0.3], "truth probe": [0.02, -0.01, 0.05]}
    for kinds in given["answers"].values():
        kinds["never seen"]["over"], kinds["known"]["ece"] = [0.3, 0.2, 0.4], [0.02, 0.01, 0.04]
    assert [one.verdict == "supported" for one in part.claims(given)] == [True, True, False, True, True, True, True]
    given["areas"]["never seen"]["city"][best] = [0.85, 0.79, 0.9]
    given["areas"]["wrong, never seen"]["colour"][best] = [0.6, 0.51, 0.7]
    given["differences"] = {"baseline": [0.2, -0.1, 0.3], "truth probe": [0.05, 0.01, 0.09]}
    given["answers"]["city"]["never seen"]["over"] = [0.12, 0.09, 0.2]
    given["answers"]["sport"]["known"]["ece"] = [0.04, 0.03, 0.06]
    assert [one.verdict == "supported" for one in part.claims(given)] == [False, False, True, True, False, False, False]


def test_what_is_missing_is_named(place: Path, tmp_path: Path) -> None:
    model = gf.load(str(place / "run"))
    with pytest.raises(InputError, match=r"glassformer train recipes/athletes-gpt\.toml"):
        exact_truth.part(Bench("m", model, place)).run(Setting("toy"))
    with pytest.raises(InputError, match="people.tsv"):
        exact_truth.part(Bench("m", model, tmp_path, athletes=place / "run")).run(Setting("toy"))
