"""Long distances: the made-up tasks and gradients against known answers, each claim both ways."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from glassformer.errors import InputError
from glassformer.models.config import ConvolutionalConfig, RecurrentConfig
from glassformer.studies.architectures import distance, tasks
from glassformer.studies.architectures.distance import gradients as distance_gradients
from glassformer.studies.architectures.distance import training as distance_training
from glassformer.studies.architectures.distance import verdicts as distance_claims
from glassformer.studies.architectures.families import COLORS
from glassformer.studies.study import Setting


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return json.loads(json.dumps(distance.PART.run(Setting("toy")), allow_nan=False))


def test_the_part_draws_and_tells_what_it_measured(measured: dict[str, Any], tmp_path: Path) -> None:
    pictures = distance.PART.draw(measured, tmp_path)
    assert [picture.file for picture in pictures] == [
        "distance_accuracy.png",
        "distance_gradients.png",
        "distance_encoder.png",
    ]
    assert all((tmp_path / picture.file).read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert all("n = " in picture.caption and "seed" in picture.caption for picture in pictures)
    for table in distance.PART.tables(measured):
        assert [row[0] for row in table.rows] == list(COLORS)
        assert all(len(row) == len(table.columns) for row in table.rows)
    verdicts = {each.text: each.verdict for each in distance.PART.claims(measured)}
    assert len(verdicts) == 12 and all(each.measured and each.rule for each in distance.PART.claims(measured))
    assert [verdict for text, verdict in verdicts.items() if "ConvS2S's encoder" in text] == ["supported"]
    assert sum(verdict == "not testable here" for verdict in verdicts.values()) >= 5  # gradients so near by say nothing


def test_copies_stand_as_far_from_both_ends_as_they_should() -> None:
    batch = tasks.copied(5, 40, seed=3)
    assert batch.source.shape == (40, 5 + tasks.N_COPIED + 5 + 1)
    assert torch.equal(batch.source.gather(1, batch.needed), batch.target[:, 1:-1])
    assert (batch.source[:, -1] == 2).all() and (batch.target[:, 0] == 1).all() and (batch.target[:, -1] == 2).all()
    distractors = torch.cat((batch.source[:, :5], batch.source[:, 5 + tasks.N_COPIED : -1]), 1)
    assert distractors.min() >= tasks.NOISE and distractors.max() < tasks.VOCABULARY
    assert batch.target[:, 1:][:, batch.judged].shape == (40, tasks.N_COPIED)
    assert tasks.copied(2, 1, 0, before=7).needed.tolist() == [[7, 8]]


def test_a_key_has_one_value_and_the_judged_one_is_it() -> None:
    batch = tasks.recalled(4, 50, seed=1)
    for source, target, needed in zip(batch.source.tolist(), batch.target.tolist(), batch.needed.tolist(), strict=True):
        pairs = dict(zip(source[4:10:2], source[5:10:2], strict=True))
        assert len(pairs) == len(set(pairs.values())) == tasks.N_PAIRS
        assert {key: value for key, value in zip(target[1:-1:2], target[2:-1:2], strict=True)} == pairs
        assert target[1:][batch.judged] == [source[needed[0]]] == [pairs[target[1]]]


def test_batches_follow_from_their_seed_alone() -> None:
    for task in (tasks.copied, tasks.recalled):
        assert torch.equal(task(3, 8, 5).source, task(3, 8, 5).source)
        assert not torch.equal(task(3, 8, 5).source, task(3, 8, 6).source)
    with pytest.raises(InputError, match="distance"):
        tasks.copied(-1, 2, 0)


def test_far_distances_are_trained_less_often() -> None:
    dealt = [distance_training.distance_at(step, 1, (1, 16)) for step in range(1, 1001)]
    assert 0.75 < dealt.count(1) / 1000 < 0.85  # 1 : 1 / √16


def test_gradients_are_relative_to_the_first_and_seeds_are_averaged_by_ratio() -> None:
    assert distance_gradients.relative([4.0, 2.0, 0.0]) == [1.0, 0.5, 0.0]
    assert distance_gradients.relative([0.0, 2.0]) == [0.0, 0.0]
    assert distance_gradients.geometric_mean([0.01, 1.0]) == pytest.approx(0.1)
    assert distance_gradients.geometric_mean([0.0, 1.0]) == 0.0


def test_inside_a_convolution_gradients_end_where_its_windows_do() -> None:
    config = ConvolutionalConfig(tasks.VOCABULARY, d_model=8, n_encoder_layers=3, max_length=64, dropout=0.0)
    found = distance_gradients.encoder_gradients(distance_training.drawn(config, 1), [0, 1, 2, 3, 4, 8], 4, 1)
    assert found[0] == 1.0 and min(found[:4]) > 0 and found[4:] == [0.0, 0.0]


def test_what_a_plain_recurrence_forgets_at_once_has_no_gradient() -> None:
    config = RecurrentConfig(tasks.VOCABULARY, d_model=8, max_length=64, dropout=0.0, cell="rnn", attention="none")
    network = distance_training.drawn(config, 1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "encoder" in name and "weight_hh" in name:
                parameter.mul_(0.1)  # an orthogonal matrix: each step keeps at most a tenth
    near, *farther = distance_gradients.loss_gradients(network, [0, 1, 4], 4, 1)
    assert near == 1.0
    assert farther[0] < 0.2 and farther[1] < 2e-3  # readers of both sides, and rows of unlike size


def made_up(far: float = 1.0) -> dict[str, Any]:
    """A result in which everything is level and learned, and gradients at the far end are `far` of those at 0."""
    gradients = {name: [[1.0, 0.5, far]] for name in COLORS}
    accuracy = {name: {"rate": 0.01, "held_out": {"0.01": 1.0}, "accuracy": [[0.9, 0.9, 0.9]]} for name in COLORS}
    return {
        "budget": {
            "distances": [1, 8, 64],
            "steps": {"recall": 10, "copy": 9},
            "rows": 4,
            "rates": [0.01],
            "seeds": 1,
            "tested": 100,
        },
        "parameters": dict.fromkeys(COLORS, 1000),
        "reach": 2,
        "gradient_rows": 4,
        "tasks": {"copy": accuracy, "recall": copy.deepcopy(accuracy)},
        "gradients": {
            "distances": [0, 2, 64],
            **{when: copy.deepcopy(gradients) for when in ("initial", "trained", "encoder")},
        },
    }


def verdict(result: dict[str, Any], words: str) -> str:
    (found,) = (each.verdict for each in distance_claims.claims(result) if words in each.text)
    return found


def set_gradient(result: dict[str, Any], when: str, **far: float) -> dict[str, Any]:
    for name, value in far.items():
        result["gradients"][when][name.replace("_", " ")][0][-1] = value
    return result


def set_accuracy(result: dict[str, Any], task: str, name: str, values: list[float]) -> dict[str, Any]:
    result["tasks"][task][name]["accuracy"] = [values]
    return result


def near_by(result: dict[str, Any]) -> dict[str, Any]:
    result["gradients"]["distances"] = [0, 2, 8]
    return result


@pytest.mark.parametrize(
    ("words", "yes", "no"),
    [
        ("plain recurrent network without attention vanishes", made_up(0.001), made_up(0.5)),
        (
            "At initialisation, the gradient of an LSTM",
            set_gradient(made_up(), "initial", RNN_without_attention=0.1),
            set_gradient(made_up(), "initial", LSTM_without_attention=0.1),
        ),
        (
            "After training to copy, the gradient",
            set_gradient(made_up(), "trained", RNN_without_attention=0.1),
            set_gradient(made_up(), "trained", LSTM_without_attention=0.1),
        ),
        (
            "a short way",
            set_gradient(made_up(), "initial", RNN_without_attention=0.01, LSTM_without_attention=0.01),
            set_gradient(made_up(), "initial", RNN_without_attention=0.01),
        ),
        ("fresh Transformer does not fall", made_up(0.5), made_up(0.2)),
    ],
)
def test_claims_about_gradients(words: str, yes: dict[str, Any], no: dict[str, Any]) -> None:
    assert verdict(yes, words) == "supported"
    assert verdict(no, words) == "not supported"
    assert verdict(near_by(yes), words) == "not testable here"


def test_the_claim_about_reach() -> None:
    assert verdict(made_up(0.0), "Inside ConvS2S's encoder") == "supported"
    assert verdict(made_up(0.1), "Inside ConvS2S's encoder") == "not supported"


NEAR, NOWHERE = [0.9, 0.7, 0.3], [0.1, 0.1, 0.1]


@pytest.mark.parametrize(
    ("words", "task", "yes", "no", "untestable"),
    [
        ("an LSTM copies worse", "copy", ("LSTM without attention", NEAR), None, ("LSTM without attention", NOWHERE)),
        ("Attention repairs it", "copy", ("LSTM without attention", NEAR), None, ("LSTM", NOWHERE)),
        ("ConvS2S copies across gaps", "copy", None, ("ConvS2S", NEAR), ("ConvS2S", NOWHERE)),
        ("The Transformer copies from afar", "copy", None, ("Transformer", NEAR), ("Transformer", NOWHERE)),
        ("LSTM learns to recall", "recall", None, ("LSTM", NEAR), None),
        ("ConvS2S learns to recall", "recall", ("Transformer", NEAR), ("ConvS2S", NOWHERE), None),
    ],
)
def test_claims_about_accuracy(words: str, task: str, yes: Any, no: Any, untestable: Any) -> None:
    def result(change: Any) -> dict[str, Any]:
        return made_up() if change is None else set_accuracy(made_up(), task, *change)

    assert verdict(result(yes), words) == "supported"
    assert verdict(result(no), words) == "not supported"
    if untestable is None:
        nobody = made_up()
        for name in COLORS:
            set_accuracy(nobody, task, name, NOWHERE)
        assert verdict(nobody, words) == "not testable here"
    else:
        assert verdict(result(untestable), words) == "not testable here"
