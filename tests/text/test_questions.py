"""Questions: every way to write answers, which occurrence is meant, what is dropped, and where errors say they are."""

import json
import os
import sys
import warnings
from datetime import date
from pathlib import Path
from types import ModuleType

import pytest

from glassformer.errors import InputError
from glassformer.text.questions import Answer, Question, Questions, read_questions, split_titles

SHARED = Path(os.environ.get("GLASSFORMER_SHARED") or Path(__file__).parents[2] / ".." / "shared")
CONTEXT = "Paris is big. In 1905, 9 men saw Paris."


def squad(path, *questions, context=CONTEXT, title="France"):
    """A file of SQuAD's JSON with one paragraph."""
    article = {"title": title, "paragraphs": [{"context": context, "qas": list(questions)}]}
    path.write_text(json.dumps({"version": "1.1", "data": [article]}), encoding="utf-8")
    return path


def asked(*answers, id="q1", question="What is big?", **more):
    given = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": id, "question": question, "answers": given, **more}


def json_lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def one(path, occurrence="given"):
    """The answers of a file's only question; nothing may be lost."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [question] = read_questions(path, occurrence).items
    return [(answer.text, answer.start) for answer in question.answers]


# --- SQuAD's JSON -----------------------------------------------------------------------------------------------------


def test_a_file_of_squad(tmp_path):
    path = tmp_path / "train.json"
    articles = [
        {"title": "A", "paragraphs": [{"context": "x y", "qas": [asked(("y", 2))]}, {"context": "z", "qas": []}]},
        {"paragraphs": [{"context": "v", "qas": [asked(("v", 0), ("v", 0), id=7)]}]},
        {"title": None, "paragraphs": []},
    ]
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"data": articles}).encode())
    questions = read_questions(str(path))
    assert questions == Questions(
        [
            Question("q1", "What is big?", "x y", (Answer("y", 2),), "A"),
            Question("7", "What is big?", "v", (Answer("v", 0), Answer("v", 0))),
        ],
        str(path),
    )
    assert len(questions) == 2


def test_questions_that_their_context_does_not_answer(tmp_path):
    path = squad(
        tmp_path / "x.json",
        asked(id="none"),
        asked(("Paris", 0), id="said", is_impossible=True, plausible_answers=[{"text": "men", "answer_start": 25}]),
        {"id": "bare", "question": "?", "is_impossible": True},
        asked(("Paris", 0), id="one", is_impossible=False),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        questions = read_questions(path)
    assert [(question.id, question.answers) for question in questions.items] == [
        ("none", ()),
        ("said", ()),
        ("bare", ()),
        ("one", (Answer("Paris", 0),)),
    ]
    assert questions.dropped == questions.dropped_answers == questions.moved == 0


# --- Which occurrence -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "start"),
    [(0, 0), (33, 33), (1, 0), (16, 0), (17, 33), (30, 33), (500, 33), (-1, 0), (-6, 0)],
)
def test_an_answer_elsewhere_is_the_nearest_occurrence(tmp_path, said, start):
    path = squad(tmp_path / "x.json", asked(("Paris", said)))
    assert one(path) == [("Paris", start)]
    assert read_questions(path).moved == (said != start)
    squad(path, asked(("ana", 4)), context="banana")
    assert one(path) == [("ana", 3)]


def test_places_that_cannot_be_trusted_are_not_used(tmp_path):
    path = squad(tmp_path / "x.json", asked(("9", 18), ("Paris", 0), question="Who saw the men?"))
    assert one(path) == [("9", 18), ("Paris", 0)]
    assert one(path, "overlap") == [("9", 23), ("Paris", 33)]
    assert read_questions(path, "overlap").moved == 0
    with pytest.raises(
        InputError, match=r"'occurrence' must be one of given, overlap, got 'overlpa'\. Did .* 'overlap'\?"
    ):
        read_questions(path, "overlpa")


# --- What is lost -----------------------------------------------------------------------------------------------------


def test_what_is_lost_is_counted_and_named(tmp_path):
    path = squad(
        tmp_path / "x.json",
        asked(("Rome", 0), ("Paris", 2), id="half"),
        asked(("Rome", 0), ("", 3), id="gone"),
        asked((" ", 5), id="blank"),
        asked(id="contradiction", is_impossible=False),
        asked(id="unanswered"),
    )
    message = (
        r"^.*x\.json: 4 answers are not in their contexts and were left out; 3 of 5 questions have none that is, "
        r"and were left out too \(id gone, blank, contradiction\)\.$"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        questions = read_questions(path)
    assert [warning.filename for warning in caught] == [__file__]
    assert [(question.id, question.answers) for question in questions.items] == [
        ("half", (Answer("Paris", 0),)),
        ("unanswered", ()),
    ]
    assert (questions.dropped, questions.dropped_answers, questions.moved) == (3, 4, 1)


def test_a_warning_names_five_questions_at_most_and_none_where_none_is_lost(tmp_path):
    path = squad(tmp_path / "x.json", asked(), *(asked(("Rome", 0), id=f"q{n}") for n in range(2, 9)))
    with pytest.warns(UserWarning, match=r"7 of 8 questions .* \(id q2, q3, q4, q5, q6, …\)\.$"):
        read_questions(path)
    squad(path, asked(), *(asked(("Rome", 0), id=f"q{n}") for n in range(2, 7)))
    with pytest.warns(UserWarning, match=r"\(id q2, q3, q4, q5, q6\)\.$"):
        read_questions(path)
    squad(path, asked(("Rome", 0), ("Paris", 0)))
    with pytest.warns(UserWarning, match=r"x\.json: 1 answers are not in their contexts and were left out\.$"):
        read_questions(path)


def test_when_no_question_is_left(tmp_path):
    path = squad(tmp_path / "x.json", asked(("Rome", 0)), asked(("London", 0)))
    with pytest.raises(
        InputError, match=r"x\.json: there is no question whose answer is in its context \(2 were read\)"
    ):
        read_questions(path)
    with pytest.raises(InputError, match=r"\(0 were read\)"):
        read_questions(squad(path))


# --- JSON Lines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"answers": ["Paris", "big"]}, [("Paris", 0), ("big", 9)]),
        ({"answer": "1905"}, [("1905", 17)]),
        ({"answers": "1905"}, [("1905", 17)]),
        ({"answer": "Paris", "answer_start": 33}, [("Paris", 33)]),
        ({"answer": "Paris", "start": 32}, [("Paris", 33)]),
        ({"answer": {"text": "Paris", "answer_start": 33}}, [("Paris", 33)]),
        ({"answers": [{"text": "Paris", "start": 33}, "big"]}, [("Paris", 33), ("big", 9)]),
        ({"answers": [{"text": "9"}, {"text": "9", "answer_start": None}]}, [("9", 23), ("9", 23)]),
        ({"answers": {"text": ["Paris", "big"], "answer_start": [33, 9]}}, [("Paris", 33), ("big", 9)]),
        ({"answers": {"text": ["9"]}}, [("9", 23)]),
        ({"answers": {"text": [], "answer_start": []}}, []),
        ({"answers": []}, []),
        ({"answers": None}, []),
        ({"answer": ""}, []),
        ({"answers": ["big"], "is_impossible": True}, []),
        ({"is_impossible": True}, []),
        ({"answers": ["big"], "is_impossible": False}, [("big", 9)]),
        ({"answers": ["big"], "answer": "Paris"}, [("big", 9)]),
    ],
)
def test_ways_to_write_answers(tmp_path, answers, expected):
    path = json_lines(tmp_path / "x.jsonl", {"question": "What?", "context": CONTEXT, **answers})
    assert one(path) == expected


def test_json_lines_have_names_and_titles_if_they_say_so(tmp_path):
    rows = [
        {"question": "a?", "context": "a", "answer": "a"},
        {"question": "b?", "context": "b", "answer": "b", "id": 12, "title": "T"},
        {"question": "c?", "context": "c", "answer": "c", "title": None, "id": "x"},
    ]
    path = json_lines(tmp_path / "x.jsonl", *rows)
    questions = read_questions(path)
    assert [(question.id, question.title) for question in questions.items] == [("1", ""), ("12", "T"), ("x", "")]
    assert questions.origin == str(path)


def test_a_data_set_of_the_hub(monkeypatch):
    class Rows(list):
        column_names = ("id", "title", "context", "question", "answers")

    rows = Rows(
        {"id": f"q{n}", "title": "T", "context": CONTEXT, "question": "What is big?", "answers": answers}
        for n, answers in enumerate([{"text": ["Paris"], "answer_start": [33]}, {"text": [], "answer_start": []}])
    )
    module = ModuleType("datasets")
    module.get_dataset_config_names = lambda name: ["plain_text"]
    module.load_dataset = lambda name, config, split: {("squad_v2", None, "train"): rows}[name, config, split]
    monkeypatch.setitem(sys.modules, "datasets", module)
    questions = read_questions("hub:squad_v2:train")
    assert questions.origin == "hub:squad_v2:train"
    assert questions.items == [
        Question("q0", "What is big?", CONTEXT, (Answer("Paris", 33),), "T"),
        Question("q1", "What is big?", CONTEXT, (), "T"),
    ]
    rows[1]["answers"] = {"text": [3], "answer_start": [0]}
    with pytest.raises(InputError, match=r"^hub:squad_v2:train: row 2: 'answers': 'text' must be text, got 3\.$"):
        read_questions("hub:squad_v2:train")
    rows[1]["answers"] = [date(2026, 11, 24)]
    with pytest.raises(
        InputError, match=r"row 2: 'answers': an answer must be a text, or an object with 'text', got \"2026-11-24"
    ):
        read_questions("hub:squad_v2:train")


# --- Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"x\.json: the file is empty; it must hold a JSON object with the key 'data', as SQuAD has it"),
        (
            '{\n"data": [}',
            r"x\.json:2:10: not JSON \(.*\)\. The file must be SQuAD's JSON; name a file of JSON Lines \.js",
        ),
        ('{"a": 1}\n{"a": 2}\n', r"x\.json:2:1: not JSON \(Extra data\)"),
        ('{"data": ' + "[" * 100_000, r"x\.json: cannot be read \(.*recursion.*\); the file must be SQuAD's JSON"),
        ('{"data": ' + "1" * 5000 + "}", r"x\.json: cannot be read \(.*digits.*\); the file must be SQuAD's JSON"),
        ("[1]", r"x\.json: must be a JSON object with a list 'data', as SQuAD has it"),
        ('{"data": {}}', r"x\.json: must be a JSON object with a list 'data', as SQuAD has it"),
        ('{"data": [1]}', r"x\.json: data\[0\]: must be a JSON object, got 1\.$"),
        ('{"data": [{"paragraphs": []}, {}]}', r"x\.json: data\[1\]: must be a JSON object with a list 'paragraphs'"),
        ('{"data": [{"title": 3, "paragraphs": []}]}', r"x\.json: data\[0\]: 'title' must be text, got 3\.$"),
        ('{"data": [{"paragraphs": ["a"]}]}', r"x\.json: data\[0\]\.paragraphs\[0\]: must be a JSON object, got \"a\""),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', r"data\[0\]\.paragraphs\[0\]: there is no key 'context'"),
        ('{"data": [{"paragraphs": [{"context": "a"}]}]}', r"data\[0\]\.paragraphs\[0\]: must be .* a list 'qas'"),
        (
            '{"data": [{"paragraphs": [{"context": "a", "qas": [null]}]}]}',
            r"x\.json: data\[0\]\.paragraphs\[0\]\.qas\[0\]: must be a JSON object, got null\.$",
        ),
    ],
)
def test_files_that_are_not_squad(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        read_questions(path)
    assert "\n" not in str(caught.value)


def test_files_that_are_missing_or_undecodable(tmp_path):
    path = tmp_path / "x.json"
    with pytest.raises(InputError, match=r"x\.json: there is no such file"):
        read_questions(path)
    with pytest.raises(InputError, match=r"x\.jsonl: there is no such file"):
        read_questions(tmp_path / "x.jsonl")
    path.write_bytes(b'{\n"data": "\xe9"}')
    with pytest.raises(InputError, match=r"x\.json:2: the byte 0xe9 is not UTF-8"):
        read_questions(path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"answers": []}, "there is no key 'question'"),
        ({"question": 3, "answers": []}, r"'question' must be text, got 3\.$"),
        (
            {"question": "?", "answres": []},
            r"there is no key 'answers' Did you mean 'answres'\?; a question that",
        ),
        ({"question": "?", "id": None, "answers": []}, r"'id' must be text, got null\.$"),
        ({"question": "?", "answers": 3}, r"'answers': an answer must be a text, or an object with 'text', got 3\.$"),
        ({"question": "?", "answer": [["a"]]}, r"'answer': an answer must be a text, .* got \[\"a\"\]\.$"),
        ({"question": "?", "answers": [{}]}, r"'answers': there is no key 'text', only an empty object\.$"),
        ({"question": "?", "answers": [{"text": None}]}, r"'answers': 'text' must be text, got null\.$"),
        (
            {"question": "?", "answers": [{"text": "a", "start": "0"}]},
            r"start must be a number of characters, got \"0\"\.$",
        ),
        ({"question": "?", "answers": [{"text": "a", "answer_start": True}]}, r"a number of characters, got true\.$"),
        ({"question": "?", "answers": [{"text": "a", "answer_start": 1.0}]}, r"a number of characters, got 1\.0\.$"),
        (
            {"question": "?", "answers": {"text": ["a"], "answer_start": []}},
            "must have one 'answer_start' for each 'text'",
        ),
        (
            {"question": "?", "answers": {"text": ["a"], "answer_start": 0}},
            "must have one 'answer_start' for each 'text'",
        ),
    ],
)
def test_what_is_wrong_with_a_question_says_where(tmp_path, record, message):
    good = {"id": "g", "question": "?", "answers": [{"text": "Paris", "answer_start": 0}]}
    with pytest.raises(InputError, match=message) as caught:
        read_questions(squad(tmp_path / "x.json", good, record))
    assert str(caught.value).startswith(f"{tmp_path / 'x.json'}: data[0].paragraphs[0].qas[1]: ")
    lines = [{"context": CONTEXT, **question} for question in (good, record)]
    with pytest.raises(InputError, match=message.replace("only an empty", ".*").removesuffix("$")) as caught:
        read_questions(json_lines(tmp_path / "x.jsonl", *lines))
    assert str(caught.value).startswith(f"{tmp_path / 'x.jsonl'}:2: ")


def test_json_lines_without_contexts(tmp_path):
    path = json_lines(tmp_path / "x.jsonl", {"question": "?", "contxt": "a", "answers": []})
    with pytest.raises(InputError, match=r"x\.jsonl:1: there is no key 'context'.*Did you mean 'contxt'\?$"):
        read_questions(path)


# --- Titles, and real files -------------------------------------------------------------------------------------------


def test_questions_of_some_articles_and_all_others():
    items = [Question(str(n), "?", "c", (), title) for n, title in enumerate(["Rome", "Oslo", "Rome", "Bonn"])]
    questions = Questions(items, "x.json", 3, 4, 5)
    inside, others = split_titles(questions, ["Rome", "Bonn"])
    assert inside == Questions([items[0], items[2], items[3]], "x.json")
    assert others == Questions([items[1]], "x.json")
    assert split_titles(questions, []) == (Questions([], "x.json"), Questions(items, "x.json"))
    with pytest.raises(InputError, match=r"^x\.json: there is no article 'Rom' among its 3\. Did you mean 'Rome'\?$"):
        split_titles(questions, {"Oslo", "Rom"})


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        pytest.param(
            "squad_v1.1/train-v1.1.rebuilt.json", (442, 18_891, 87_599, 87_599, 0), marks=pytest.mark.slow, id="train"
        ),
        pytest.param("squad_v1.1/dev-v1.1.rebuilt.json", (48, 2067, 10_570, 34_726, 0), id="dev"),
        pytest.param("squad_v2.0_dev/dev-v2.0.rebuilt.json", (35, 1204, 11_873, 20_302, 5945), id="dev of 2.0"),
    ],
)
@pytest.mark.parametrize("occurrence", ["given", "overlap"])
def test_squad_is_read_whole(name, counts, occurrence):
    path = SHARED / "data" / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        questions = read_questions(path, occurrence)
    items = questions.items
    assert counts == (
        len({question.title for question in items}),
        len({question.context for question in items}),
        len(items),
        sum(len(question.answers) for question in items),
        sum(not question.answers for question in items),
    )
    assert questions.dropped == questions.dropped_answers == questions.moved == 0
    assert len({question.id for question in items}) == len(items)
    for question in items:
        assert all(question.context.startswith(answer.text, answer.start) for answer in question.answers)
