"""Probes read what is there, by the formula, and not what leaks: against direct computations and planted signals."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from tasks.small_writers import writer
from torch import Tensor

from glassformer.errors import InputError
from glassformer.interpret.controls import random_network
from glassformer.interpret.discriminants import STRENGTHS, Space, held_out
from glassformer.interpret.facts import Fact, Facts
from glassformer.interpret.probes import Probe, probe
from glassformer.interpret.trace import trace
from glassformer.models.config import Config
from glassformer.models.decoder import Decoder


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planted(n: int, width: int, n_classes: int, strength: float, seed: int = 0) -> tuple[Tensor, list[str]]:
    """Rows with one mean a class, far from the origin and of unlike scales, and the names of their classes."""
    truth = torch.arange(n) % n_classes
    means = drawn(n_classes, width, seed=seed + 1) * strength
    rows = (drawn(n, width, seed=seed) + means[truth]) * (1 + 5 * drawn(width, seed=9).abs()) + 7
    return rows, [f"class {index}" for index in truth.tolist()]


def direct(rows: Tensor, truth: Tensor, strength: float, others: Tensor) -> tuple[Any, Any, Any]:
    """Discriminants by an inverse of the covariance within classes: what is read off others, w and b."""
    x, y = rows.numpy(), truth.numpy()
    mean, spread = x.mean(0), x.std(0)
    x, z = (x - mean) / spread, (others.numpy() - mean) / spread
    means = np.stack([x[y == label].mean(0) for label in range(y.max() + 1)])
    within = (x - means[y]).T @ (x - means[y]) / len(x) + strength * np.eye(x.shape[1])
    weight = np.linalg.inv(within) @ means.T
    bias = -0.5 * np.einsum("cd,dc->c", means, weight)
    return (z @ weight + bias).argmax(-1), (weight / spread[:, None]).T, bias - mean / spread @ weight


@pytest.mark.parametrize(("n", "width"), [(60, 7), (40, 70)])
def test_discriminants_are_those_of_the_formula(n: int, width: int) -> None:
    rows, _ = planted(n, width, 3, 0.5)
    truth = torch.tensor([0, 1, 2, 2, 1] * (n // 5))
    for strength in (STRENGTHS[0], 1.0, STRENGTHS[-1]):
        weight, bias = Space(rows).reader(truth, 3, strength)
        _, wanted, wanted_bias = direct(rows, truth, strength, rows)
        torch.testing.assert_close(weight, torch.from_numpy(wanted), rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(bias, torch.from_numpy(wanted_bias), rtol=1e-6, atol=1e-6)


def test_discriminants_are_those_of_scikit_learn() -> None:
    analysis = pytest.importorskip("sklearn.discriminant_analysis")
    rows, _ = planted(90, 8, 3, 0.4)
    rows = (rows - rows.mean(0)) / rows.std(0, correction=0)
    truth = torch.arange(90) % 3
    means = torch.stack([rows[truth == label].mean(0) for label in range(3)])
    within = float((rows - means[truth]).square().mean())
    shrinkage = 0.2  # (1 - s) Σ + s · mean variance is Σ + λ up to a factor, with λ = s / (1 - s) · mean variance
    other = analysis.LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(rows.numpy(), truth.numpy())
    weight, bias = Space(rows).reader(truth, 3, shrinkage / (1 - shrinkage) * within)
    unseen = drawn(200, 8, seed=5)
    torch.testing.assert_close(
        (unseen @ weight.T + bias) / (1 - shrinkage),
        torch.from_numpy(other.decision_function(unseen.numpy())) - np.log(1 / 3),
    )


def test_held_out_rows_are_read_as_a_plain_nested_loop_reads_them() -> None:
    rows, _ = planted(60, 5, 3, 0.35)
    truth, parts = torch.arange(60) % 3, torch.arange(60) // 3 % 4
    answers = torch.stack([truth, truth.roll(1)])
    found, strength = held_out(rows, answers, parts)

    def balanced(read: Any, true: Tensor) -> float:
        return float(np.mean([(read[true.numpy() == label] == label).mean() for label in range(3)]))

    for number in range(2):
        y, outer = answers[number], {each: [] for each in STRENGTHS}  # type: ignore[var-annotated]
        for part in range(4):
            scores = []
            for each in STRENGTHS:
                read = np.zeros(60, dtype=int)
                for inner in set(range(4)) - {part}:
                    fit, test = (parts != part) & (parts != inner), parts == inner
                    read[test.numpy()] = direct(rows[fit], y[fit], each, rows[test])[0]
                scores.append(balanced(read[(parts != part).numpy()], y[parts != part]))
            best = max(zip(scores, STRENGTHS, strict=True))[1]
            for each in STRENGTHS:
                outer[each].append(direct(rows[parts != part], y[parts != part], each, rows[parts == part])[0])
            wanted = torch.from_numpy(outer[best][-1])
            torch.testing.assert_close(found[number][parts == part], wanted, atol=0, rtol=0)
        if number == 0:
            order = torch.cat([torch.arange(60)[parts == part] for part in range(4)])
            whole = [(balanced(np.concatenate(outer[each]), y[order]), each) for each in STRENGTHS]
            assert strength == max(whole)[1]


def test_what_is_there_is_read_and_noise_is_not() -> None:
    rows, labels = planted(150, 20, 3, 1.0)
    result = probe(torch.stack((rows, drawn(150, 20, seed=6))), labels, split="row", shuffles=8)
    there, noise = result.report().readings
    assert there.score.balanced > 0.95 and there.score.balanced_interval.low > 0.9
    assert noise.score.balanced_interval.low < 1 / 3 < noise.score.balanced_interval.high
    for reading in (there, noise):
        assert len(reading.shuffled) == 8
        assert abs(sum(reading.shuffled) / 8 - 1 / 3) < 0.06 and max(reading.shuffled) < 0.5


def test_a_large_class_is_no_merit() -> None:
    labels = ["many"] * 180 + ["few"] * 20
    score = probe(drawn(200, 4), labels, split="row", shuffles=0).report().readings[0].score
    assert score.balanced_interval.low < 0.5 < score.balanced_interval.high
    rows = drawn(200, 4)
    rows[180:, 0] += 4
    score = probe(rows, labels, split="row", shuffles=0).report().readings[0].score
    assert score.balanced > 0.93 and score.accuracy > 0.93


def test_subjects_do_not_leak() -> None:
    """Rows that tell who is meant, and nothing of the label: only a split by rows reads it."""
    subjects = [f"subject {number}" for number in range(40) for _ in range(4)]
    labels = [("a", "b")[number % 2] for number in range(40) for _ in range(4)]
    rows = drawn(40, 60)[torch.arange(160) // 4] + 0.1 * drawn(160, 60, seed=1)
    by_rows = probe(rows, labels, split="row", shuffles=2).report()
    by_subject = probe(rows, labels, groups=subjects, shuffles=6).report()
    assert by_rows.readings[0].score.balanced > 0.95
    held = by_subject.readings[0].score.balanced_interval
    assert held.low < 0.5 < held.high and (by_subject.n_groups, by_rows.n_groups) == (40, 160)
    assert max(by_subject.readings[0].shuffled) < 0.8  # whole subjects change their labels
    assert held.high - held.low > 0.15  # of 40 subjects, not of 160 rows


def test_labels_may_differ_within_a_group() -> None:
    rows, labels = planted(120, 6, 2, 2.0)
    result = probe(rows, labels, groups=[number // 4 for number in range(120)], shuffles=4).report()
    assert result.readings[0].score.balanced > 0.95
    assert max(result.readings[0].shuffled) < 0.75


def test_controls() -> None:
    """Bags of words and tokens, and other states, are read by the same procedure."""
    rows, labels = planted(100, 8, 2, 1.5)
    ids = torch.tensor([[5 + 2 * (label == "class 0"), 90 + number, -1] for number, label in enumerate(labels)])
    controls: dict[str, Any] = {
        "words": [f"the {'red' if label == 'class 0' else 'blue'} one" for label in labels],
        "names": [f"name{number}" for number in range(100)],
        "tokens": ids,
        "ids": ids.tolist(),
        "random model": torch.stack((drawn(100, 8, seed=5), rows)),
        "one place": rows,
    }
    first, second = (
        probe(torch.stack((rows, rows)), labels, split="row", controls=controls, shuffles=1).report().readings
    )
    assert list(first.controls) == list(controls)
    for name, least in (("words", 1.0), ("tokens", 1.0), ("ids", 1.0), ("one place", 0.8)):
        assert first.controls[name].balanced >= least and second.controls[name] == first.controls[name]
    assert first.controls["names"].balanced == 0.5  # nobody's name tells of another
    assert first.controls["random model"].balanced < 0.7 < second.controls["random model"].balanced
    assert second.controls["random model"] == second.score


def test_equal_arguments_give_equal_numbers() -> None:
    rows, labels = planted(60, 30, 3, 0.3)

    def report(**settings: Any) -> dict[str, Any]:
        return probe(rows, labels, split="row", shuffles=3, **settings).report().to_json()

    assert report() == report() != report(seed=1)
    single = probe(rows.float(), labels, split="row", shuffles=3).report().to_json()
    assert single["readings"][0]["score"] == report()["readings"][0]["score"]


def test_states_that_are_all_alike_tell_nothing() -> None:
    """As those of the same last word before any layer has looked around."""
    same = drawn(1, 12).float().expand(40, 12) * (1 + 1e-7 * drawn(40, 1, seed=3).float())
    score = probe(same, [0, 1] * 20, split="row", shuffles=1).report().readings[0].score
    assert score.balanced == 0.5


def fitted() -> tuple[Probe, Tensor, list[str]]:
    rows, labels = planted(120, 10, 3, 1.5)
    return probe(torch.stack((rows, 2 * rows)), labels, split="row", shuffles=0), rows, labels


def test_predict_and_direction() -> None:
    result, rows, labels = fitted()
    truth = torch.tensor([int(label[-1]) for label in labels])
    for number, own in enumerate((rows, 2 * rows)):
        reading = result.report().readings[number]
        wanted, weight, _ = direct(own, truth, reading.strength, own)
        assert result.predict(own, number) == [f"class {index}" for index in wanted]
        direction = result.direction("class 1", reading.place)
        torch.testing.assert_close(
            direction.double(), torch.from_numpy(weight[1] - weight.mean(0)), rtol=1e-5, atol=1e-6
        )
        moved = own + 1000 * direction / direction.norm()
        assert set(result.predict(moved, number)) == {"class 1"}
    with pytest.raises(InputError, match="no label 'class 9'; it knows 'class 0', 'class 1', 'class 2'"):
        result.direction("class 9", 0)
    with pytest.raises(InputError, match=r"say 'place', one of states 0, states 1, or its number; got None"):
        result.predict(rows)
    with pytest.raises(InputError, match=r"wants \[n, 10\], got \[120, 4\]"):
        result.predict(rows[:, :4], 0)


def test_a_report_can_be_printed_and_stored() -> None:
    rows, labels = planted(60, 5, 2, 2.0)
    controls = {"bag of words": ["a b"] * 60}
    report = probe(rows, labels, split="row", shuffles=4, controls=controls).report()
    text, score = str(report), report.readings[0].score
    assert text.splitlines()[0] == "2 classes: class 0 30, class 1 30"
    assert "n = 60, split by rows; 5 folds; balanced accuracy by chance 0.500" in text
    interval = score.balanced_interval
    assert f"{score.balanced:.3f} [{interval.low:.3f}, {interval.high:.3f}]" in text
    assert text.splitlines()[3].split("  ")[0] == "place" and "4 shuffles" in text and "bag of words" in text
    stored = json.loads(json.dumps(report.to_json()))
    assert stored["classes"] == {"class 0": 30, "class 1": 30}
    assert stored["readings"][0]["score"]["balanced"] == score.balanced
    assert stored["readings"][0]["controls"]["bag of words"]["balanced"] == 0.5


@dataclass
class About:
    """As much of a fact as a probe looks at."""

    subject: str


def test_traces() -> None:
    """One place a layer; the subjects are those of the facts that were traced; an untrained network is a control."""
    torch.manual_seed(0)
    config = Config(20, None, 16, 2, None, 16, 0, 3, max_length=8, dropout=0.0)
    network, other = Decoder(config).eval(), Decoder(config).eval()
    ids = torch.randint(3, 20, (60, 5), generator=torch.Generator().manual_seed(0))
    labels = [int(row[-1]) % 2 for row in ids]
    states, pattern = "residual_post[1:] @ end", "self_attention.pattern[0] @ end<-*"
    given = trace(network, ids, states, pattern)
    facts = replace(given, inputs=replace(given.inputs, given=[About(f"{row}") for row in range(60)]))
    control = trace(other, ids, states)
    result = probe(facts, labels, controls={"random model": control}, shuffles=2)
    report = result.report()
    assert [reading.place for reading in report.readings] == ["residual_post[1]", "residual_post[2]"]
    assert report.n_groups == 60 and report.split == "subject"
    alone = probe(given["residual_post[2] @ end"], labels, split="row", shuffles=2).report()
    assert alone.readings[0].score == report.readings[1].score
    beside = probe(control.stack(states), labels, split="row", shuffles=0).report()
    assert report.readings[1].controls["random model"] == beside.readings[1].score
    assert len(result.predict(given["residual_post[2] @ end"], "residual_post[2]")) == 60
    with pytest.raises(InputError, match="give the subject of every row as 'groups'"):
        probe(given, labels)
    two = trace(network, ids, states, "logits @ end", "residual_pre[0] @ 0:2")
    with pytest.raises(
        InputError, match=r"one vector a text; of what is traced, 'residual_post\[1:\] @ end', 'logits @"
    ):
        probe(two, labels, split="row")
    assert probe(two, labels, split="row", at="logits @ end", shuffles=0).report().readings[0].place == "logits"
    with pytest.raises(InputError, match=r"gives \[60, 2, 16\]: name one position"):
        probe(two, labels, split="row", at="residual_pre[0] @ 0:2")


def test_a_trace_of_facts_is_held_against_its_tokens_and_random_weights() -> None:
    model = writer()
    names = [f"{first}{second} {number}" for number, (first, second) in enumerate(itertools.product("abcdefgh", "xyz"))]
    facts = Facts(tuple(Fact(name, name, "r", f"{name} is", ("p" if i % 2 else "q",)) for i, name in enumerate(names)))
    at = "residual_post[*] @ subject.last"
    kept = trace(model, facts, at, "self_attention.pattern[0] @ end<-subject")
    found = probe(kept, facts.labels, shuffles=0).report()
    network = random_network(model.network, 0)
    assert not torch.equal(next(network.parameters()), next(model.network.parameters()))
    ids = [model.tokenizer.encode(name) for name in names]
    blank = trace(replace(model, network=network), facts, at)
    given = {"bag of tokens": ids, "random weights": blank}
    wanted = probe(kept, facts.labels, shuffles=0, controls=given).report()
    assert found.readings == wanted.readings and list(found.readings[0].controls) == list(given)
    assert not probe(kept, facts.labels, shuffles=0, controls={}).report().readings[0].controls


def test_rare_classes_are_left_out_with_their_rows() -> None:
    """The others are read as if the rare ones had never been given; controls lose the same rows."""
    rows, labels = planted(60, 5, 2, 2.0)
    words = [f"{label} w{number % 7}" for number, label in enumerate(labels)]
    more, named = torch.cat((rows[:3] + 9.0, rows, rows[:1] - 9.0)), ["rare"] * 3 + list(labels) + ["once"]
    controls = {"bag": ["x y"] * 3 + words + ["z"]}
    found = probe(more, named, split="row", shuffles=2, controls=controls)
    wanted = probe(rows, labels, split="row", shuffles=2, controls={"bag": words})
    assert found.labels == wanted.labels and found.report().readings == wanted.report().readings
    assert found.report().left_out == {"once": 1, "rare": 3} and found.report().n == 60
    assert "left out, in fewer than 5 groups: once 1, rare 3" in str(found.report())
    assert json.loads(json.dumps(found.report().to_json()))["left_out"] == {"once": 1, "rare": 3}
    assert "left out" not in str(wanted.report())
    grouped = probe(more, named, groups=[0, 0, 0, *range(1, 62)], shuffles=0).report()
    assert grouped.left_out == {"once": 1, "rare": 3} and grouped.n_groups == 60


def test_what_cannot_be_probed_is_refused() -> None:
    rows, labels = planted(30, 4, 2, 1.0)
    cases: list[tuple[str, Any, Any, dict[str, Any]]] = [
        ("split='subject' keeps each subject in one fold", rows, labels, {"split": "subject"}),
        ("'split' must be 'subject' or 'row', got 'rows'", rows, labels, {"split": "rows"}),
        ("got 30 rows and 29 labels", rows, labels[:-1], {}),
        ("got 30 rows and 2 groups", rows, labels, {"split": "subject", "groups": ["a", "b"]}),
        ("all 30 labels are 'a'", rows, ["a"] * 30, {}),
        ("'few' is in 4", rows, ["many"] * 26 + ["few"] * 4, {}),
        ("'class 0' is in 1", rows, labels, {"split": "subject", "groups": [0, 1] * 15}),
        ("3 'folds' at least", rows, labels, {"folds": 2}),
        ("NaN or infinity", rows.log(), labels, {}),
        (r"states \[n, D\] or \[L, n, D\], got torch.float64 \[30\]", rows[:, 0], labels, {}),
        ("got list", rows.tolist(), labels, {}),
        ("control 'bag' must have the 30 rows", rows, labels, {"controls": {"bag": ["a"]}}),
    ]
    for message, x, given, settings in cases:
        with pytest.raises(InputError, match=message):
            probe(x, given, **({"split": "row", "shuffles": 0} | settings))
