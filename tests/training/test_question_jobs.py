"""Questions from files to batches: spans that are not there, lists of articles, questions without an answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_tasks import Trained, prepared

import glassformer as gf
from glassformer.errors import InputError
from glassformer.models.config import Spans
from glassformer.tasks.answer import answers_of, best_refusal, evaluate_answers
from glassformer.text.questions import Question
from glassformer.training.jobs.answering import split_questions
from glassformer.training.recipes import Data
from glassformer.training.runs import Run


@pytest.fixture
def root(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the corpora, to be changed."""
    return Path(shutil.copytree(trained.data, tmp_path / "data"))


# --- Spans ------------------------------------------------------------------------------------------------------------


def test_spans_that_are_not_in_their_context_are_counted_and_named(trained: Trained, root: Path) -> None:
    path = root / "questions-train.json"
    content = json.loads(path.read_text())
    paragraphs = content["data"][0]["paragraphs"]
    paragraphs[0]["qas"][1]["answers"][0]["text"] = "nowhere"
    paragraphs[1]["qas"][0]["answers"].append({"text": "elsewhere", "answer_start": 3})
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=r"questions-train.json: 2 answers are not in .* 1 of 40 .*\(id 0-0-1\)"):
        found = prepared(trained, "questions", root)
    assert found.counts.startswith("39 questions to train (0 without an answer)")


def test_a_file_without_any_span_that_is_there_is_refused(trained: Trained, root: Path) -> None:
    path = root / "questions-valid.json"
    path.write_text(path.read_text().replace('"context": "', '"context": "zzz", "was": "'))
    with pytest.raises(InputError, match=r"questions-valid.json: there is no question .* \(8 were read\)"):
        prepared(trained, "questions", root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"data": [\n{"title": "a",', r"q.json:2:\d+: not JSON"),
        ('{"data": [{"title": "a"}]}', r"q.json: data\[0\]: must be a JSON object with a list 'paragraphs'"),
        ('[{"question": "a"}]', "q.json: must be a JSON object with a list 'data'"),
    ],
)
def test_a_broken_file_is_named_with_its_place(trained: Trained, root: Path, content: str, message: str) -> None:
    (root / "q.json").write_text(content)
    with pytest.raises(InputError, match=message):
        prepared(trained, "questions", root, data_train="q.json")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "a"', "q.jsonl:2: not a JSON object"),
        ('{"question": "a", "context": "b"}', "q.jsonl:2: there is no key 'answers'"),
        ('{"question": "a", "answers": []}', "q.jsonl:2: there is no key 'context', only 'question', 'answers'"),
        ('{"question": "a", "context": "b", "answers": [3]}', "q.jsonl:2: 'answers': an answer must be a text"),
    ],
)
def test_a_broken_line_is_named(trained: Trained, root: Path, line: str, message: str) -> None:
    good = '{"question": "where ?", "context": "in rome", "answers": ["rome"]}'
    (root / "q.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(InputError, match=message):
        prepared(trained, "questions", root, data_train="q.jsonl")


def test_contexts_are_cut_into_pieces_that_cover_them(trained: Trained) -> None:
    found = prepared(trained, "questions")
    pieces = found.train.examples.pieces  # type: ignore[attr-defined]
    assert len({piece.question for piece in pieces}) == 40 < len(pieces)
    assert {piece.question for piece in pieces if piece.span is not None} == set(range(40))
    assert found.train.examples.lengths().max() <= 20  # type: ignore[attr-defined]
    whole = prepared(trained, "questions", data_max_tokens=0, data_stride=128)
    assert "in 40 pieces" in whole.counts  # contexts that fit need no stride


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"data_max_tokens": 8},
            "The train data: question 1 has .* with 8 in all, .*'data.max_tokens'",
        ),
        ({"data_stride": 19}, "The train data: question 1 .* fewer than the stride of 19"),
        ({"data_occurrence": "first"}, "'occurrence' must be"),
        ({"data_negatives": -1.0}, "'negatives' must be at least 0, got -1.0"),
        (
            {"data_negatives": 1.0, "data_negative_kinds": ["valeu"]},
            "a list, each one of 'paragraph', .*got \\['valeu'",
        ),
        ({"data_negatives": 1.0, "data_negative_kinds": []}, "at least one kind of paragraph, nearest"),
    ],
)
def test_what_a_recipe_of_questions_says_wrongly(trained: Trained, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepared(trained, "questions", **overrides)


# --- Lists of articles ------------------------------------------------------------------------------------------------


def data(**choices: Any) -> Data:
    files = {"train": "questions-train.json", "valid": "questions-train.json", "test": "questions-valid.json"}
    return Data(**{**files, **choices})


def titles(found: list[Question]) -> set[str]:
    return {question.title for question in found}


def test_a_list_names_what_is_read_and_the_others_read_the_rest(root: Path) -> None:
    chosen = data(valid_titles=["article 3", "article 7"])
    assert titles(split_questions(chosen, "valid", root)) == {"article 3", "article 7"}
    train = split_questions(chosen, "train", root)
    assert titles(train) == {f"article {number}" for number in range(10)} - {"article 3", "article 7"}
    assert titles(split_questions(chosen, "test", root)) == {"article 0", "article 1"}
    assert len(split_questions(data(), "train", root)) == 40


def test_the_same_article_in_several_files_is_read_from_all(root: Path) -> None:
    files = ["questions-train.json", "questions-valid.json"]
    both = split_questions(data(train=files, train_titles=["article 1"], valid_titles=["article 2"]), "train", root)
    assert titles(both) == {"article 1"} and len(both) == 8
    assert len(split_questions(data(train=files, train_titles=["article 9"]), "train", root)) == 4
    rest = split_questions(data(train=files, valid_titles=["article 1"]), "train", root)
    assert titles(rest).isdisjoint({"article 1"}) and len(rest) == 40


@pytest.mark.parametrize(
    ("choices", "split", "message"),
    [
        (
            {"train_titles": ["article 1", "article 2"], "test_titles": ["article 2"]},
            "train",
            "the article 'article 2' must belong to one of train, valid and test, and is in two lists",
        ),
        ({"valid_titles": ["artcle 2"]}, "valid", "no valid file has an article 'artcle 2'. Did you mean 'article"),
        ({"test_titles": ["article 5"]}, "test", "'data.test_titles': no test file has an article 'article 5'"),
        (
            {"train_titles": [f"article {number}" for number in range(10)]},
            "valid",
            "The valid data have no question left: all their articles belong to other splits",
        ),
    ],
)
def test_lists_that_cannot_be_followed(root: Path, choices: dict[str, Any], split: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_questions(data(**choices), split, root)


# --- Questions without an answer --------------------------------------------------------------------------------------


def test_negatives_are_counted_and_drawn_by_the_seed(trained: Trained) -> None:
    counts = {share: prepared(trained, "questions", data_negatives=share).counts for share in (0.0, 1.0)}
    assert "(0 without an answer)" in counts[0.0] and "(0 without" not in counts[1.0]
    prints = [prepared(trained, "questions", data_negatives=1.0, training_seed=seed).fingerprint for seed in (1, 1, 2)]
    assert prints[0] == prints[1] != prints[2]


# --- The threshold of refusal -----------------------------------------------------------------------------------------


def test_a_model_that_saw_unanswerable_questions_gets_its_threshold(trained: Trained) -> None:
    for name in ("refusals", "refusals-lora"):
        run = trained(name)
        model = gf.load(run)
        held = split_questions(trained.recipe(name).data, "valid", trained.data)
        best = best_refusal(answers_of(model, held, threshold=float("inf"), max_tokens=20, stride=5), held)
        assert model.config.head == Spans(best.value)
        found = evaluate_answers(model, held, max_tokens=20, stride=5)
        assert found["threshold"] == best.value
        line = Run.open(run).metrics()[-1]
        assert line["valid_exact_match"] == pytest.approx(found["exact_match"])
        assert line["valid_f1"] == pytest.approx(found["f1"])
        assert gf.load(Run.open(run).checkpoints()[8]).config.head == Spans()


def test_a_model_that_saw_none_always_answers(trained: Trained) -> None:
    model = gf.load(trained("questions"))
    assert model.config.head == Spans()
    held = split_questions(trained.recipe("questions").data, "valid", trained.data)
    found = model.answer([one.question for one in held], [one.context for one in held])
    assert all(one.answered for one in found)
    assert "threshold" not in evaluate_answers(model, held)
