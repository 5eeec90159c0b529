"""Detection: columns, splits and differences against brute force, a toy study end to end, verdicts by their rules."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from generation.small_decoders import byte_level, decoder
from tasks.small_writers import TEMPLATE

from glassformer.errors import InputError
from glassformer.factuality.attention_score import ATTENTION
from glassformer.factuality.labelling import Answered
from glassformer.factuality.one_more_call import ONE_MORE_CALL
from glassformer.factuality.questions import Question
from glassformer.factuality.records import Record
from glassformer.factuality.sampled import SAMPLED
from glassformer.factuality.uncertainty import ONE_PASS
from glassformer.studies.hallucination import detecting, signals
from glassformer.studies.hallucination.bench import Bench
from glassformer.studies.hallucination.signals import Answers, Column
from glassformer.studies.running import run_parts
from glassformer.studies.study import Setting
from glassformer.tasks.model import Model
from glassformer.text.pipeline import TextPipeline


def made(count: int, per_entity: int = 1, seed: int = 0) -> Answers:
    """Answers without a model; `perplexity` tells the wrong ones, a little."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        right = bool(random.random() < 0.5)
        log = -float(random.random() + (0.0 if right else 0.6))
        question = Question(f"q{number}", f"What is {number}?", ("x",), entity=f"E{number // per_entity}")
        record = Record((1, 2), (3, 4), "x", (log, log / 2), (1.0 - log, 0.5), (0.3, 0.2))
        found.append(Answered(question, record, right))
    return Answers.split(found, seed)


def pairs_won(values: Sequence[float], wrong: Sequence[float]) -> float:
    """AUROC by its definition."""
    bad = [v for v, w in zip(values, wrong, strict=True) if w]
    good = [v for v, w in zip(values, wrong, strict=True) if not w]
    return sum((a > b) + 0.5 * (a == b) for a in bad for b in good) / (len(bad) * len(good))


def test_no_entity_both_chooses_and_is_reported() -> None:
    answers = made(200, per_entity=3)
    assert answers.development | answers.test == set(range(200)) and not answers.development & answers.test
    chooses, reported = (set(answers.entities(sorted(rows))) for rows in (answers.development, answers.test))
    assert not chooses & reported
    assert len(answers.development) == pytest.approx(50, abs=3)


def test_each_subset_lies_in_the_larger() -> None:
    large, middle, small = map(set, signals.subsets(100, (60, 30, 10), 0))
    assert small < middle < large < set(range(100)) and len(small) == 10
    assert signals.subsets(100, (60,), 1) != signals.subsets(100, (60,), 0)


def test_columns_have_the_scores_of_their_rows() -> None:
    answers = made(20)
    columns = signals.one_pass(answers)
    assert [one.name for one in columns] == list(ONE_PASS)
    logs = [answers.all[row].record.logprobs for row in (7, 3)]
    column = next(one for one in columns if one.name == "perplexity")
    assert column.at([7, 3]) == pytest.approx([-sum(pair) / 2 for pair in logs])
    assert {one.name for one in columns if not one.paper} == {"answer length"}


def test_paired_differences_are_of_auroc_and_have_no_spread_between_equals() -> None:
    random = np.random.default_rng(0)
    wrong = (random.random(120) < 0.5).astype(float)
    first, second = wrong + random.normal(size=120), random.normal(size=120)
    entities = [str(row // 2) for row in range(120)]
    found = detecting.paired(first, second, wrong, entities)
    assert found.value == pytest.approx(pairs_won(first, wrong) - pairs_won(second, wrong))
    assert found.interval.low < found.value < found.interval.high and found.interval.low > 0
    same = detecting.paired(first, first * 3 + 1, wrong, entities)
    assert (same.value, same.interval.low, same.interval.high) == (0, 0, 0)


def test_the_best_is_chosen_on_development_alone() -> None:
    answers = made(80)
    rows = tuple(range(80))
    wrong = answers.wrong(rows)
    honest = [wrong[row] if row in answers.development else 0.5 for row in rows]
    tempting = [wrong[row] if row in answers.test else 0.5 for row in rows]
    columns = [Column(name, "one pass", "a paper", rows, tuple(values)) for name, values in
               (("tempting", tempting), ("honest", honest))]  # fmt: skip
    assert detecting.best_of(columns, answers, rows).name == "honest"


def test_the_layer_is_chosen_on_development_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = made(120)
    rows = tuple(range(120))
    wrong = torch.tensor(answers.wrong(rows))
    chooses = torch.tensor([row in answers.development for row in rows])
    noise = torch.Generator().manual_seed(0)

    def states(telling: torch.Tensor) -> list[Record]:
        spread = 0.1 * torch.randn(120, 2, 3, generator=noise, dtype=torch.float64)
        spread[:, 1, 0] += torch.where(telling, wrong, 0.5)
        return [replace(answers.all[row].record, states=spread[row]) for row in rows]

    layers = {0: states(~chooses), 1: states(chooses)}
    monkeypatch.setattr(signals, "_read", lambda *given: layers)
    columns, layer = signals.probes(answers, rows, None, [0, 1], 0, print)  # type: ignore[arg-type]
    assert layer == 1 and [one.name for one in columns] == ["truth probe", "question only"]
    own = sorted(answers.development)
    assert pairs_won(columns[0].at(own), answers.wrong(own)) > 0.9
    assert columns[1].paper == "" and pairs_won(columns[1].at(rows), answers.wrong(rows)) < 0.7


def test_together_learns_from_other_entities() -> None:
    answers = made(300, per_entity=2)
    columns = signals.one_pass(answers)
    found = signals.together(answers, "all", "", columns, 0)
    test = sorted(answers.test)
    assert pairs_won(found.at(test), answers.wrong(test)) > 0.7
    # labels of an entity never count for its own scores: with labels by entity alone there is nothing to learn
    noise = Answers([replace(one, right=int(one.question.entity[1:]) % 2 == 0) for one in answers.all],
                    answers.development, answers.test)  # fmt: skip
    flat = [Column("entity", "one pass", "", columns[0].rows, tuple(float(row // 2) for row in columns[0].rows))]
    assert pairs_won(signals.together(noise, "all", "", flat, 0).values, noise.wrong(columns[0].rows)) < 0.65


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A random decoder, and a relation of made-up names; half of the answers are called right."""
    torch.manual_seed(0)
    text = TextPipeline(unicode="none", chat_template=TEMPLATE)
    model = Model(decoder(max_length=400), byte_level(), text, "generation")
    samples = [{"subject": f"{a}{b}{c}", "object": "rb"[(ord(a) + ord(c)) % 2]} for a in "abcd" for b in "efgh"
               for c in "ijkl"]  # fmt: skip
    file = tmp_path / "relations" / "factual" / "made.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"name": "made", "prompt_templates_zs": ["Who is {}?"], "samples": samples}))
    found = Bench("small", model, tmp_path, tmp_path / "out", relations=("made",))
    questions = found.relation_questions(Setting("toy"))
    answered = found.answered(questions, found.asking(questions), Setting("toy"))
    for key in found._answers:
        found._answers[key] = [replace(one, right=row % 3 == 0) for row, one in enumerate(answered)]
    return found


def test_a_toy_study(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detecting, "RESAMPLES", 20)
    monkeypatch.setattr(signals, "STRENGTHS", (0.1,))
    part = detecting.part(bench)
    done = run_parts([part], Setting("toy", given=bench.given()), bench.out)[0]
    assert done.result is not None, done.missing
    result = json.loads(json.dumps(done.result))
    names = [row["name"] for row in result["scores"]]
    sampled = [name for name in SAMPLED if name != "embedding consistency"]
    learnt = [detecting.PROBE, detecting.QUESTION, detecting.COMBINED, detecting.WITH_PROBE]
    assert names == [*ONE_PASS, *ATTENTION, *ONE_MORE_CALL, *sampled, *learnt]
    answers = Answers.split(next(iter(bench._answers.values())), bench.seed)
    test = sorted(answers.test)
    row = next(each for each in result["scores"] if each["name"] == "perplexity")
    values = [ONE_PASS["perplexity"].function(answers.all[place].record) for place in test]
    assert row["auroc"][0] == pytest.approx(pairs_won(values, answers.wrong(test))) and row["n"] == len(test)
    tables = part.tables(result)
    aurocs = [float(each[4].split()[0]) for each in tables[0].rows[:-2]]
    assert aurocs == sorted(aurocs, reverse=True) and tables[0].rows[-1][-1] == "nothing answered"
    assert [one.verdict for one in part.claims(result)]
    assert (bench.out / part.draw(result, bench.out)[0].file).is_file()


def test_verdicts_follow_the_rules() -> None:
    def result(value: float, low: float) -> dict[str, object]:
        names = [name for name, _, _ in detecting._STATED]
        each = {"first": "a", "second": "b", "n": 9, "difference": [value, low, value + 0.02]}
        return {"differences": [{"name": name, **each} for name in names]}

    def verdicts(value: float, low: float) -> set[tuple[str, bool]]:
        claims = detecting._claims(result(value, low))
        return {(one.verdict, "adds 0.05" in one.text) for one in claims}

    assert verdicts(0.06, 0.01) == {("supported", False), ("supported", True)}
    assert verdicts(0.04, 0.01) == {("supported", False), ("not supported", True)}
    assert verdicts(0.06, -0.01) == {("not supported", False), ("not supported", True)}


def test_without_data_it_says_so(tmp_path: Path) -> None:
    bench = Bench("small", None, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="missing"):
        detecting.part(bench).run(Setting("toy"))
