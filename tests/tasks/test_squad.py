"""Answers are scored by the definitions of SQuAD's scripts, stated here a second time and worked by hand."""

import json
import os
import re
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.tasks.squad import (
    AnswerScore,
    Threshold,
    best_threshold,
    exact_match,
    f1,
    normalized,
    refuse,
    score_answers,
    score_questions,
)

SHARED = Path(os.environ.get("GLASSFORMER_SHARED", Path(__file__).parents[3] / "shared"))
SQUAD2 = SHARED / "data" / "squad_v2.0_dev" / "dev-v2.0.rebuilt.json"


def official_normalized(text: str) -> str:
    text = "".join(character for character in text.lower() if character not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def official_f1(prediction: str, answer: str, version: int) -> float:
    found, wanted = official_normalized(prediction).split(), official_normalized(answer).split()
    if version == 2 and not (found and wanted):
        return float(found == wanted)
    left, common = list(wanted), 0
    for word in found:
        if word in left:
            left.remove(word)
            common += 1
    # 2PR / (P + R) with P = common / found and R = common / wanted
    return 2 * common / (len(found) + len(wanted)) if common else 0.0


def official(prediction: str, answers: list[str], version: int) -> tuple[float, float]:
    if version == 2:
        answers = [answer for answer in answers if official_normalized(answer)] or [""]
    exact = max(official_normalized(prediction) == official_normalized(answer) for answer in answers)
    return float(exact), max(official_f1(prediction, answer, version) for answer in answers)


def test_normalisation() -> None:
    assert normalized("  The U.S.\tArmy — an   “a-b” the\n") == "us army — “ab”"
    assert normalized("Theatre anthem A1 an.") == "theatre anthem a1"
    assert normalized("rock—the—roll") == "rock— —roll"
    assert normalized("The.") == normalized("") == ""


def test_by_hand() -> None:
    answers = ["Denver Broncos", "the Denver Broncos team"]
    assert exact_match("The denver broncos!", answers) == 1 and f1("The denver broncos!", answers) == 1
    assert exact_match("Broncos", answers) == 0
    assert f1("Broncos", answers) == pytest.approx(2 / 3)  # precision 1, recall 1/2 against the first
    assert f1("the team Broncos", answers) == pytest.approx(4 / 5)  # precision 1, recall 2/3 against the second
    assert f1("Broncos Broncos", answers) == pytest.approx(1 / 2)  # a word counts as often as both have it
    assert f1("Panthers", answers) == 0


def test_without_answers_only_nothing_is_right() -> None:
    assert (exact_match("", []), f1("", [])) == (1, 1)
    assert (exact_match("Denver", []), f1("Denver", [])) == (0, 0)


def test_version_1() -> None:
    references = {"x": ["Denver"], "y": ["."], "z": ["1066", "in 1066"]}
    scores = score_questions({"x": "Denver city", "y": ""}, references)
    # Version 1 finds a full stop equal to nothing, but sees no common word.
    assert scores == {"x": AnswerScore(0, pytest.approx(2 / 3)), "y": AnswerScore(1, 0), "z": AnswerScore(0, 0)}
    assert score_answers({"x": "Denver city", "y": ""}, references) == {
        "exact_match": pytest.approx(100 / 3),
        "f1": pytest.approx(200 / 9),
        "n": 3,
        "missing": 1,
    }


def test_version_2() -> None:
    references = {"x": ["Denver", "."], "y": [], "z": ["1066"], "u": [], "v": []}
    predictions = {"x": "", "y": "", "z": "in 1066", "u": "Denver"}
    assert score_answers(predictions, references) == {
        "exact_match": pytest.approx(20),  # y alone: a lone full stop is no answer here, and v has no prediction
        "f1": pytest.approx((1 + 2 / 3) * 20),
        "n": 5,
        "missing": 1,
        "has_answer_exact_match": 0,
        "has_answer_f1": pytest.approx(100 / 3),
        "has_answer_n": 2,
        "no_answer_exact_match": pytest.approx(100 / 3),
        "no_answer_f1": pytest.approx(100 / 3),
        "no_answer_n": 3,
    }


def test_only_unanswerable() -> None:
    scores = score_answers({"x": ""}, {"x": []})
    assert scores["has_answer_n"] == 0 and "has_answer_f1" not in scores and scores["no_answer_f1"] == 100


TEXTS = st.one_of(
    st.lists(st.sampled_from(["a", "The", "cat", "Cat's", "dog", "dog,", ".", "an"]), max_size=5).map(" ".join),
    st.text(max_size=8),
)


@given(st.dictionaries(st.text(max_size=2), st.tuples(TEXTS, st.lists(TEXTS, max_size=3)), min_size=1))
def test_any_answers_score_as_by_the_scripts(questions: dict[str, tuple[str, list[str]]]) -> None:
    references = {key: answers for key, (_, answers) in questions.items()}
    predictions = {key: prediction for key, (prediction, _) in questions.items()}
    version = 1 if all(references.values()) else 2
    wanted = {key: official(*question, version) for key, question in questions.items()}
    found = score_questions(predictions, references)
    assert list(found) == list(references)
    assert {key: score.exact_match for key, score in found.items()} == {key: em for key, (em, _) in wanted.items()}
    assert {key: score.f1 for key, score in found.items()} == pytest.approx({key: f for key, (_, f) in wanted.items()})
    total = score_answers(predictions, references)
    assert total["exact_match"] == pytest.approx(100 * sum(em for em, _ in wanted.values()) / len(wanted))
    assert total["f1"] == pytest.approx(100 * sum(f for _, f in wanted.values()) / len(wanted))


def test_threshold_by_hand() -> None:
    references = {"p": ["x"], "q": [], "r": ["x"], "s": []}
    predictions = dict.fromkeys(references, "x")
    differences = {"p": -2.0, "q": 1.0, "r": 0.5, "s": 3.0}
    assert best_threshold(differences, predictions, references) == Threshold(0.5, 100)
    assert refuse(predictions, differences, 0.5) == {"p": "x", "q": "", "r": "x", "s": ""}
    # Answering q for r's sake gives nothing more: of equals the smallest threshold.
    assert best_threshold({**differences, "q": 0.0}, predictions, references) == Threshold(-2.0, 75)
    # Equal differences cannot be told apart: answering r means answering q.
    assert best_threshold({**differences, "q": 0.5}, predictions, references) == Threshold(-2.0, 75)


def test_threshold_that_refuses_or_answers_all() -> None:
    assert best_threshold({"p": 4.0, "q": 5.0}, {"p": "x", "q": "x"}, {"p": [], "q": []}) == Threshold(3.0, 100)
    assert best_threshold({"p": 4.0, "q": 5.0}, {"p": "x", "q": "x"}, {"p": ["x"], "q": ["x"]}) == Threshold(5.0, 100)
    large = best_threshold({"p": 1e18}, {"p": "x"}, {"p": []}).value
    assert refuse({"p": "x"}, {"p": 1e18}, large) == {"p": ""}


QUESTIONS = st.lists(
    st.tuples(st.integers(-3, 3), st.sampled_from(["x", "x y", "z"]), st.lists(st.sampled_from(["x", "y x", "."]))),
    min_size=1,
    max_size=12,
)


@given(QUESTIONS)
def test_no_threshold_is_better(questions: list[tuple[int, str, list[str]]]) -> None:
    differences = {str(i): float(question[0]) for i, question in enumerate(questions)}
    predictions = {str(i): question[1] for i, question in enumerate(questions)}
    references = {str(i): question[2] for i, question in enumerate(questions)}

    def score(threshold: float) -> float:
        return float(score_answers(refuse(predictions, differences, threshold), references)["f1"])

    best = best_threshold(differences, predictions, references)
    assert best.f1 == pytest.approx(score(best.value))
    candidates = [min(differences.values()) - 1, *sorted(differences.values())]
    scores = [score(threshold) for threshold in candidates]
    assert best.f1 == pytest.approx(max(scores))
    assert best.value == next(t for t, s in zip(candidates, scores, strict=True) if s == pytest.approx(max(scores)))


def official_threshold(
    differences: dict[str, float], scores: dict[str, float], answerable: set[str]
) -> tuple[float, float]:
    """The script's walk: all refused at first, then one more question answered at a time."""
    total = best = float(len(differences) - len(answerable))
    value = 0.0
    for key in sorted(differences, key=lambda key: differences[key]):
        total += scores[key] if key in answerable else -1
        if total > best:
            best, value = total, differences[key]
    return value, 100 * best / len(differences)


@given(st.lists(st.tuples(st.floats(0.01, 9), st.booleans(), st.booleans()), min_size=1, unique_by=lambda row: row[0]))
def test_threshold_is_the_scripts(rows: list[tuple[float, bool, bool]]) -> None:
    differences = {str(i): row[0] for i, row in enumerate(rows)}
    references = {str(i): ["x"] if row[1] else [] for i, row in enumerate(rows)}
    predictions = {str(i): "x" if row[2] else "y" for i, row in enumerate(rows)}
    right = {key: float(predictions[key] == "x") for key in predictions}
    value, score = official_threshold(differences, right, {key for key in references if references[key]})
    best = best_threshold(differences, predictions, references)
    assert best.f1 == pytest.approx(score)
    # 0 is the script's name for "refuse all", as its numbers are probabilities.
    assert best.value == value if value else best.value < min(differences.values())


@pytest.mark.skipif(not SQUAD2.exists(), reason="needs SQuAD 2.0's dev set, by GLASSFORMER_SHARED")
def test_real_questions() -> None:
    articles = json.loads(SQUAD2.read_text(encoding="utf-8"))["data"][:6]
    questions = [question for article in articles for part in article["paragraphs"] for question in part["qas"]]
    references = {question["id"]: [answer["text"] for answer in question["answers"]] for question in questions}
    # A reader that finds the last human's answer half the time with a word before it, and refuses every seventh only.
    predictions = {
        key: "" if i % 7 == 0 else answers[-1] if i % 2 and answers else f"in {answers[-1]}" if answers else "Rome"
        for i, (key, answers) in enumerate(references.items())
    }
    wanted = [official(predictions[key], answers, 2) for key, answers in references.items()]
    scores = score_answers(predictions, references)
    assert scores["n"] == len(questions) > 1000 and scores["missing"] == 0
    assert scores["exact_match"] == pytest.approx(100 * sum(em for em, _ in wanted) / len(wanted))
    assert scores["f1"] == pytest.approx(100 * sum(f for _, f in wanted) / len(wanted))
    assert 10 < scores["exact_match"] < scores["f1"] < 90


def test_bad_input() -> None:
    with pytest.raises(InputError, match="no questions"):
        score_answers({}, {})
    with pytest.raises(InputError, match="1 of 2 have ids that are not among the 1 questions.*'q'"):
        score_answers({"p": "x", "q": "x"}, {"p": ["x"]})
    with pytest.raises(InputError, match="needs its difference.*'p'"):
        best_threshold({}, {"p": "x"}, {"p": ["x"]})
    with pytest.raises(InputError, match="needs its prediction.*'q'"):
        best_threshold({"p": 1.0}, {"p": "x", "q": "x"}, {"p": ["x"]})
    with pytest.raises(InputError, match="finite, got nan for question 'p'"):
        best_threshold({"p": float("nan")}, {"p": "x"}, {"p": ["x"]})
    with pytest.raises(InputError, match="no questions"):
        best_threshold({}, {}, {})
