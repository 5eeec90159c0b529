"""Order: the table's laws, sentences that differ in order alone, what an encoder without positions cannot tell."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from glassformer.studies.architectures import order, tasks
from glassformer.studies.architectures.order import table as order_table
from glassformer.studies.architectures.order import training as order_training
from glassformer.studies.architectures.order import verdicts as order_claims
from glassformer.studies.study import Setting


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return json.loads(json.dumps(order.PART.run(Setting("toy")), allow_nan=False))


def test_the_part_draws_and_tells_what_it_measured(measured: dict[str, Any], tmp_path: Path) -> None:
    pictures = order.PART.draw(measured, tmp_path)
    assert [picture.file for picture in pictures] == ["order_table.png", "order_dot_products.png", "order_accuracy.png"]
    assert all((tmp_path / picture.file).read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert all("n = " in picture.caption and "seed" in picture.caption for picture in pictures)
    (table,) = order.PART.tables(measured)
    assert [row[0] for row in table.rows] == ["none", "sinusoidal", "learned", "rotary"]
    assert all(len(row) == len(table.columns) for row in table.rows)
    claims = order.PART.claims(measured)
    assert len(claims) == 8 and all(each.measured and each.rule for each in claims)


def test_without_positions_no_order_of_words_changes_an_answer(measured: dict[str, Any]) -> None:
    kinds = measured["kinds"]
    assert max(kinds["none"]["change_fresh"] + kinds["none"]["change_trained"]) < 1e-5
    for name in ("sinusoidal", "learned", "rotary"):
        assert min(kinds[name]["change_fresh"] + kinds[name]["change_trained"]) > 0.01


def test_a_plan_takes_positions_away_while_training_too() -> None:
    network = order_training.encoder_of("none", 16, 1)
    batch = tasks.sentences(20, 0)
    network.train()
    once, again = network(batch.ids).logits, network(order_training.shuffled(batch.ids)).logits
    assert torch.allclose(once, again, atol=1e-5)
    assert once.requires_grad


def test_the_tables_products_are_sums_of_cosines() -> None:
    products = order_table.dot_products(4, 40)
    assert list(products) == ["0", "10"]
    expected = [(math.cos(k) + math.cos(k / 100)) / 2 for k in range(21)]
    assert products["0"] == pytest.approx(expected, abs=1e-6)
    assert products["10"] == pytest.approx(expected, abs=1e-6)
    assert order_table.neighbours(4, 40) == 3  # cos k rises again after π


def test_turning_a_row_by_k_gives_the_one_k_further() -> None:
    errors = order_table.largest_errors(16, 30)
    assert errors["dot_error"] < 1e-6 and errors["turn_error"] < 1e-6
    rows = order_table.table(30, 16)
    assert (order_table.turned(rows[:25], 4) - rows[5:]).abs().max() > 0.1


def test_sentences_ask_about_words_in_their_places() -> None:
    batch = tasks.sentences(200, 7)
    places = {"who": 0, "whom": 2, "what": 5}
    lengths = set()
    for ids, label in zip(batch.ids.tolist(), batch.labels.tolist(), strict=True):
        question, *words = [tasks.WORDS[number] for number in ids if number]
        lengths.add(len(words))
        words = words[-6:]  # without the adverb
        assert words[3:5] == ["with", "a"] and len({words[place] for place in places.values()}) == 3
        assert words[places[question]] == tasks.FILLERS[label]
    assert lengths == {6, 7} and batch.ids.shape[1] == tasks.LENGTH


def test_held_out_combinations_are_never_trained() -> None:
    def combinations(held_out: bool) -> set[frozenset[int]]:
        first, last = tasks.WORDS.index(tasks.FILLERS[0]), len(tasks.WORDS)
        ids = tasks.sentences(1500, 1, held_out).ids.tolist()
        return {frozenset(number for number in row if first <= number < last) for row in ids}

    kept, trained = combinations(True), combinations(False)
    assert not kept & trained
    assert len(kept) == 24 and len(trained) == 96  # of 10 · 9 · 8 / 6


def made_up() -> dict[str, Any]:
    def kind(accuracy: float, change: float) -> dict[str, Any]:
        return {"rate": 0.001, "accuracy": [accuracy], "change_fresh": [change], "change_trained": [change]}

    return {
        "table": {"width": 8, "length": 256, "near": 120, "dot_error": 1e-8, "turn_error": 1e-7},
        "budget": {"tested": 100, "seeds": 1},
        "kinds": {
            "none": kind(0.33, 1e-7),
            "sinusoidal": kind(0.99, 1.0),
            "learned": kind(0.97, 1.0),
            "rotary": kind(0.95, 1.0),
        },
    }


def changed(path: str, value: Any) -> dict[str, Any]:
    result = made_up()
    *way, last = path.split(".")
    inner = result
    for step in way:
        inner = inner[step]
    inner[last] = value
    return result


@pytest.mark.parametrize(
    ("words", "no", "untestable"),
    [
        ("distance alone", ("table.dot_error", 1e-3), None),
        ("one linear map", ("table.turn_error", 1e-3), None),
        ("The nearer", ("table.near", 40), ("table.length", 64)),
        ("same for every order", ("kinds.none.change_trained", [0.1]), None),
        ("With any kind", ("kinds.rotary.change_fresh", [1e-7]), None),
        ("nobody can tell", ("kinds.none.accuracy", [0.6]), None),
        ("it is learned", ("kinds.rotary.accuracy", [0.5]), None),
        ("Learned vectors do as well", ("kinds.learned.accuracy", [0.5]), None),
    ],
)
def test_claims(words: str, no: tuple[str, Any], untestable: tuple[str, Any] | None) -> None:
    def verdict(result: dict[str, Any]) -> str:
        (found,) = (each.verdict for each in order_claims.claims(result) if words in each.text)
        return found

    assert verdict(made_up()) == "supported"
    assert verdict(changed(*no)) == "not supported"
    if untestable is not None:
        assert verdict(changed(*untestable)) == "not testable here"


def test_where_nothing_was_learned_nothing_is_said_about_chance_or_kinds() -> None:
    result = made_up()
    for kind in result["kinds"].values():
        kind["accuracy"] = [0.3]
    verdicts = {each.text: each.verdict for each in order_claims.claims(result)}
    untested = [text for text, verdict in verdicts.items() if verdict == "not testable here"]
    assert [text.split(",")[0] for text in untested] == [
        "Without positions",
        "Learned vectors do as well as sines (the paper's table 3",
    ]
