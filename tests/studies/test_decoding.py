"""The study of decoding by contrast: pairs, scores of given answers, and the whole part on tiny data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from generation.small_decoders import byte_level, decoder

from glassformer.errors import InputError
from glassformer.factuality.questions import Question
from glassformer.generation.contrast import Dola
from glassformer.studies.hallucination.bench import Bench
from glassformer.studies.hallucination.contrasting import (
    answer_scores,
    best,
    drawn,
    follow,
    paired,
    read_cases,
    read_pairs,
)
from glassformer.studies.hallucination.decoding import claims, part
from glassformer.studies.study import Setting
from glassformer.tasks.model import Model
from glassformer.text.pipeline import TextPipeline


def model() -> Model:
    return Model(decoder(rotary=True, max_length=1024), byte_level(), TextPipeline(unicode="none"), "generation")


def test_pairs_are_drawn_by_group() -> None:
    found = paired([1, 0, 0, 1], [1, 1, 0, 0], ["a", "b", "c", "d"])
    assert (found["plain"], found["other"], found["difference"]) == (0.5, 0.5, 0)
    assert (found["n"], found["groups"], found["gained"], found["lost"]) == (4, 4, 1, 1)
    assert found["low"] < 0 < found["high"]
    # one group, in whatever case: nothing can be drawn but all of it
    whole = paired([0, 0, 0], [1, 1, 0], ["Rhine", "rhine", "RHINE"])
    assert whole["groups"] == 1 and whole["low"] == whole["high"] == pytest.approx(2 / 3)
    # of 2 groups with 3 and 1 questions: both drawn twice at the ends
    uneven = paired([0, 0, 0, 0], [1, 1, 1, 0], ["a", "a", "a", "b"])
    assert uneven["difference"] == 0.75 and (uneven["low"], uneven["high"]) == (0, 1.5)


def test_pairs_in_groups_are_less_sure_than_alone() -> None:
    plain, other = [0.0] * 60, [float(row // 6 % 3 == 0) for row in range(60)]
    alone = paired(plain, other, [str(row) for row in range(60)])
    grouped = paired(plain, other, [str(row // 6) for row in range(60)])
    assert alone["difference"] == grouped["difference"]
    assert grouped["high"] - grouped["low"] > 1.5 * (alone["high"] - alone["low"])


def test_choosing_and_drawing() -> None:
    assert best({"low": 0.2, "high": 0.5, "later": 0.5}) == "high"
    values = drawn(list(range(50)), 10, "x")
    assert values == sorted(values) == drawn(list(range(50)), 10, "x") and len(values) == 10
    assert drawn([1, 2], 10, "x") == [1, 2]


@torch.no_grad()
def test_scores_of_given_answers() -> None:
    asked = model()
    prompt, answer = [5, 9, 3], [7, 8, 2]
    network = asked.network
    stack: Any = network.stack
    x = stack.embedding(torch.tensor([[*prompt, *answer]]))
    middle = stack.onwards(x, 0, 1, causal=True)
    last = stack.onwards(middle, 1, 2, causal=True)
    final, early = ((network.head(stack.final_norm(each))[0]).log_softmax(-1) for each in (last, middle))  # type: ignore[operator]
    places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)

    def total(scores: torch.Tensor) -> float:
        return sum(float(scores[place, token]) for place, token in zip(places, answer, strict=True))

    assert answer_scores(asked, [prompt], [answer], None) == pytest.approx([total(final)], abs=1e-4)
    contrasted = (final - early).log_softmax(-1)
    assert answer_scores(asked, [prompt], [answer], Dola((1,), 0.0)) == pytest.approx([total(contrasted)], abs=1e-3)
    assert abs(total(final) - total(contrasted)) > 0.1


def test_following_a_document() -> None:
    asked = model()
    question = Question("a", "Who rides?", ("nobody",), "A man in blue rides the bike.")
    said = asked.generate(
        'Answer in a few words, from this text only. If it does not say, say "I don\'t know".\n'
        "Text: A man in blue rides the bike.\nQ: Who rides?\nA:",
        max_new_tokens=12,
        stop="\n",
    ).text.strip()
    same = Question("a", "Who rides?", (said,), question.context)
    assert follow(asked, [question, same], 0.0) == [0.0, 1.0]
    assert len(follow(asked, [question, same], 1.0)) == 2


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One relation, TruthfulQA and SQuAD in small."""
    samples = [{"subject": name, "object": "red" if name < "h" else "blue"} for name in "abcdefghijklmnopqr"]
    template = ["What is {}?"]
    relation = {"name": "colour", "prompt_templates": template, "prompt_templates_zs": template, "samples": samples}
    (tmp_path / "relations/factual").mkdir(parents=True)
    (tmp_path / "relations/factual/colour.json").write_text(json.dumps(relation))
    (tmp_path / "truthfulqa").mkdir()
    lines = [f"Q{row} here?,Yes {row},Yes {row}; Aye,No {row}; Never" for row in range(12)]
    lines.append('"Is, it?",Yes,Yes,')  # no incorrect answer
    header = "Question,Best Answer,Correct Answers,Incorrect Answers"
    (tmp_path / "truthfulqa/TruthfulQA.csv").write_text("\n".join([header, *lines]))
    articles = []
    for title in ("Bridges", "Towers", "Roads"):
        paragraphs = []
        for row, year in enumerate((1815, 1971, 1620)):
            context = f"The {title} of kind {row} were begun in {year}."
            answer = {"text": str(year), "answer_start": context.index(str(year))}
            asked = {"id": f"{title}{row}", "question": f"When were the {title} begun?", "answers": [answer]}
            paragraphs.append({"context": context, "qas": [asked]})
        articles.append({"title": title, "paragraphs": paragraphs})
    (tmp_path / "squad_v1.1").mkdir()
    (tmp_path / "squad_v1.1/dev-v1.1.rebuilt.json").write_text(json.dumps({"version": "1.1", "data": articles}))
    return tmp_path


def test_what_is_read(data: Path) -> None:
    pairs = read_pairs(data / "truthfulqa/TruthfulQA.csv")
    assert len(pairs) == 12 and (pairs[3].true, pairs[3].false) == ("Yes 3", "No 3")
    cases = read_cases(data / "squad_v1.1/dev-v1.1.rebuilt.json", 6, 0)
    assert len(cases) == 6 == len({case.question.id for case in cases})
    assert all(case.wrong.text in case.altered and case.right.text not in case.altered for case in cases)


def test_the_whole_part(data: Path, tmp_path: Path) -> None:
    study = part(Bench("tiny", model(), data, tmp_path / "out", relations=("colour",)))
    result = json.loads(json.dumps(study.run(Setting("toy"))))
    for name in ("relations", "truthful", "right", "planted"):
        one = result[name]
        assert one["n"] + one["chosen_on"] <= 18 and one["n"] > one["chosen_on"] > 0
        assert one["other"] - one["plain"] == pytest.approx(one["difference"])
        assert one["low"] - 1e-9 <= one["difference"] <= one["high"] + 1e-9
        assert one["chosen"] == best(one["tried"])
    assert [len(table.rows) for table in study.tables(result)] == [4, 1, 4]
    pictures = study.draw(result, tmp_path)
    assert (tmp_path / pictures[0].file).read_bytes()[:4] == b"\x89PNG"


def test_verdicts_follow_from_the_intervals() -> None:
    one = {"chosen": "high", "n": 100, "difference": 0.05}
    result = {
        "relations": {**one, "low": 0.01, "high": 0.09},
        "truthful": {**one, "low": 0.0, "high": 0.1},
        "right": {**one, "difference": -0.05, "low": -0.09, "high": -0.01},
        "planted": {**one, "low": -0.01, "high": 0.11},
    }
    found = claims(result)
    assert [each.verdict for each in found] == ["supported", *["not supported"] * 3]
    assert [("harm" in each.measured) for each in found] == [False, False, True, False]
    assert "+5.0 points [+1.0, +9.0], n = 100" in found[0].measured


def test_missing_data_is_said(tmp_path: Path) -> None:
    study = part(Bench("tiny", model(), tmp_path, tmp_path, relations=("colour",)))
    with pytest.raises(InputError, match="is missing"):
        study.run(Setting("toy"))
