"""Questions: files of six kinds, what counts as right, splits that tear no entity apart."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.factuality.questions import Question, is_refusal, is_right, read_questions, split_by_entity

SHARED = Path(os.environ.get("GLASSFORMER_SHARED", Path(__file__).parents[3] / "shared")) / "data"


def asked(*answers):
    return Question("q", "What is it?", answers)


# --- What is right ----------------------------------------------------------------------------------------------------

STRICT = [
    ("Paris", "Paris", True),
    (" paris", "Paris", True),
    ("PARIS.", "Paris", True),
    ("\n\n Paris\nLondon", "Paris", True),  # the first line that is not blank
    ("London\nParis", "Paris", False),
    ("The Hague", "Hague", True),
    ("Hague", "The Hague", True),
    ("the  United   States", "United States", True),
    ("Bogota", "Bogotá", True),
    ("Bogotá", "Bogota", True),
    ("São Tomé", "Sao Tome", True),
    ("O'Neill", "ONeill", True),
    ("U.S.A.", "USA", True),
    ("USA", "United States", False),  # only what is among the answers
    ("Paris, France", "Paris", True),
    ("Paris (France)", "Paris", True),
    ("Paris; it is large", "Paris", True),
    ("Paris. It lies on the Seine.", "Paris", True),
    ("Paris! Of course", "Paris", True),
    ("Paris - the capital", "Paris", True),
    ("Paris – the capital", "Paris", True),
    ('"Paris"', "Paris", True),
    ('"Paris" is what I think', "Paris", True),
    ("Paris Hilton", "Paris", False),
    ("Parisian", "Paris", False),
    ("Paris?", "Paris", True),  # the whole text is the answer once punctuation is dropped
    ("Paris? No, London", "Paris", False),
    ("not Paris", "Paris", False),
    ("Not Paris, London", "Paris", False),
    ("London, not Paris", "Paris", False),
    ("London", "Paris", False),
    ("", "Paris", False),
    ("...", "Paris", False),
    ("France, Paris", "Paris", False),
    ("New York City", "New York", False),
    ("New York", "New York City", False),
    ("Washington, D.C.", "Washington D.C.", True),
    ("Washington D.C., United States", "Washington D.C.", True),
    ("Apple Inc.", "Apple", True),
    ("Apple Inc", "Apple", True),
    ("Apple Corporation of America", "Apple", True),
    ("Applebee's", "Apple", False),
    ("Apple incorporates", "Apple", False),
    ("Coca Cola", "Coca-Cola", True),
    ("Coca-Cola", "Coca Cola", True),
    ("CocaCola", "Coca-Cola", True),
    ("It was developed by Apple.", "Apple", False),
    ("1815", "1503", False),
    ("1503", "1503", True),
    ("1503.", "1503", True),
    ("1503, or so", "1503", True),
    ("15035", "1503", False),
    ("1503-1519", "1503", False),
    ("1503–1519", "1503", False),
    ("1503-1519", "1503–1519", True),
    ("15031519", "1503-1519", False),
    ("1503 to 1519", "1503-1519", True),
    ("1,500", "1500", True),
    ("1500", "1,500", True),
    ("1,500", "1", False),
    ("3.14", "3", False),
    ("3", "3.14", False),
    ("314", "3.14", False),
    ("1.5", "15", False),
    ("-5", "5", False),
    ("5", "-5", False),
    ("50%", "50", True),
    ("May 5, 1815", "May 5", True),
    ("May 51", "May 5", False),
    ("C", "C++", True),  # as SQuAD's normalising has it: a known limit
    ("A", "A", True),
    ("The The", "The The", True),
    ("日本", "日本", True),
    ("日本語", "日本", False),
]


@pytest.mark.parametrize(("text", "answer", "right"), STRICT)
def test_a_strict_match(text, answer, right):
    assert is_right(text, asked(answer)) is right


LENIENT = [
    ("It was developed by Apple.", "Apple", True),
    ("It was developed by Apple Inc. in 1984", "Apple", True),
    ("It was developed by Applebee's.", "Apple", False),
    ("The capital of France is Paris.", "Paris", True),
    ("The capital of France is the city of Paris", "Paris", True),
    ("the capital isn't Paris.", "Paris", False),
    ("The capital isn’t Paris.", "Paris", False),
    ("It is not Paris", "Paris", False),
    ("It is not London, it is Paris", "Paris", True),
    ("It is not London but Paris", "Paris", True),
    ("It is Paris, not London", "Paris", True),
    ("No, Paris", "Paris", True),  # the negation is of another clause
    ("never Paris", "Paris", False),
    ("It was painted in 1815.", "1503", False),
    ("It was painted in 1503.", "1503", True),
    ("between 1503 and 1519", "1503", True),
    ("It was painted in 15035.", "1503", False),
    ("It has 1,500 metres", "1500", True),
    ("It has 1,500 metres", "1", False),
    ("It has 1,500 metres", "500", False),
    ("about 3.14 metres", "3", False),
    ("about 3.14 metres", "14", False),
    ("They speak the French language", "french", True),
    ("It lies in the United States of America", "United States", True),
    ("It lies in the states that united", "United States", False),
    ("He lives in Bogotá now", "Bogota", True),
    ("I don't know", "Paris", False),
    ("It is in France.\nParis", "Paris", False),
]


@pytest.mark.parametrize(("text", "answer", "right"), LENIENT)
def test_a_lenient_match(text, answer, right):
    assert is_right(text, asked(answer), lenient=True) is right


@pytest.mark.parametrize(("text", "answer", "right"), STRICT)
def test_lenient_finds_all_that_strict_does(text, answer, right):
    assert is_right(text, asked(answer), lenient=True) >= right


def test_any_of_the_answers_will_do():
    question = asked("United States", "USA", "America")
    assert is_right("USA.", question) and is_right("America, of course", question)
    assert not is_right("Canada", question)


@pytest.mark.parametrize(
    "text",
    [
        *("I don't know", "I do not know.", "I don’t know", "Unknown", "It is unknown", "I'm not sure", "I am unsure"),
        *("The text does not say", "not mentioned in the text", "No answer", "I cannot answer that", "I have no idea"),
        *("It cannot be determined", "The text doesn't mention it"),
    ],
)
def test_a_refusal_is_told_by_its_words(text):
    assert is_refusal(text)
    assert (
        is_right(text, asked()) and not is_right(text, asked("Paris")) and not is_right(text, asked("P"), lenient=True)
    )


@pytest.mark.parametrize("text", ["Paris", "He knows it", "the unknown soldier's wife", "no", "It is known as Paris"])
def test_what_is_no_refusal(text):
    assert is_refusal(text) is (text == "the unknown soldier's wife")  # told by words alone: a known limit
    if not is_refusal(text):
        assert not is_right(text, asked())


def test_nothing_is_the_right_answer_to_what_has_none():
    assert is_right("", asked()) and is_right(" \n", asked()) and not is_right("Paris", asked())


@example("", "¯", False)
@given(st.text(max_size=12), st.text(min_size=1, max_size=8).filter(str.strip), st.booleans())
@settings(max_examples=80, deadline=None)
def test_any_text_is_judged_and_the_answer_itself_is_right(text, answer, lenient):
    question = asked(answer)
    is_right(text, question, lenient=lenient)
    if len(answer.strip().splitlines()) == 1:
        assert is_right(answer, question, lenient=lenient)
        assert is_right(f"  {answer.strip()}\n{text}", question, lenient=lenient)


# --- A question -------------------------------------------------------------------------------------------------------


def test_a_question_of_no_entity_is_its_own():
    assert Question("7", "Who?", ("x",)).entity == "7"
    assert Question("7", "Who?", "x").answers == ("x",)


@pytest.mark.parametrize(("text", "answers"), [("?!", ("x",)), ("", ("x",)), ("Who?", ("x", " "))])
def test_a_question_without_words_is_refused(text, answers):
    with pytest.raises(InputError, match="question '7'"):
        Question("7", text, answers)


# --- Files ------------------------------------------------------------------------------------------------------------


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_json_lines(tmp_path):
    path = lines(
        tmp_path / "some.jsonl",
        {
            "id": 5,
            "question": "Who?",
            "answers": ["Ann", "Anna"],
            "context": "Ann did.",
            "entity": "E",
            "relation": "r",
        },
        {"question": "When?", "answer": 1815, "source": "my own key"},
        {"question": "Why?", "answers": []},
    )
    first, second, third = read_questions(path)
    assert first == Question("5", "Who?", ("Ann", "Anna"), "Ann did.", "E", "r")
    assert second == Question("some-2", "When?", ("1815",), None, "some-2", "")
    assert third.answers == ()
    assert read_questions(path, limit=2) == [first, second]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "Who?"}, "no key 'answers'"),
        ({"answers": ["x"]}, "no key 'question'"),
        ({"question": "Who?", "answers": {"text": "x"}}, "must be a list"),
        ({"question": "Who?", "answers": [["x"]]}, "'answers' must be text"),
        ({"question": "?", "answers": ["x"]}, "at least one word"),
        ({"question": "Who?", "answers": [" "]}, "not empty"),
        ({"question": "Who?", "answers": ["x"], "relations": "r"}, "Did you mean 'relation'"),
        ({"question": "Who?", "answers": ["x"], "entity": 3}, "'entity' must be text"),
        ({"id": "a", "question": "Who?", "answers": ["x"]}, "'a' is there already"),
    ],
)
def test_a_bad_line_is_named(tmp_path, row, words):
    path = lines(tmp_path / "bad.jsonl", {"id": "a", "question": "Who?", "answers": ["x"]}, row)
    with pytest.raises(InputError, match=r"bad\.jsonl:2: ") as error:
        read_questions(path)
    assert words in str(error.value)


def test_a_relation_is_chosen_by_name(tmp_path):
    rows = [{"question": f"Q{i}?", "answers": ["x"], "relation": ("capital", "river")[i % 2]} for i in range(4)]
    path = lines(tmp_path / "r.jsonl", *rows)
    assert [one.question for one in read_questions(path, relation="river")] == ["Q1?", "Q3?"]
    assert len(read_questions(path, relation="capital", limit=1)) == 1
    with pytest.raises(InputError, match="Did you mean 'capital'"):
        read_questions(path, relation="capitol")
    with pytest.raises(InputError, match="no relations"):
        read_questions(lines(tmp_path / "none.jsonl", {"question": "Q?", "answers": ["x"]}), relation="river")
    with pytest.raises(InputError, match="'limit'"):
        read_questions(path, limit=0)


def test_a_table(tmp_path):
    bare = tmp_path / "bare.tsv"
    bare.write_text("Who did it?\tAnn|Anna\nWhen?\t1815\n")
    assert [(one.question, one.answers) for one in read_questions(bare)] == [
        ("Who did it?", ("Ann", "Anna")),
        ("When?", ("1815",)),
    ]
    named = tmp_path / "named.tsv"
    named.write_text("entity\tAnswer\tquestion\nAnn\tred\tWhat does Ann like?\n")
    assert read_questions(named) == [Question("named-1", "What does Ann like?", ("red",), None, "Ann", "")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Who?\tAnn\nWhen?\n", ":2: expected question, answers"),
        ("question\tnote\nWho?\tx\n", ":1: there is no column 'answers'"),
        ("subject\tanswer\nAnn\tred\n", ":1: there is no column 'question'"),
        ("question\tanswer\n", "no questions"),
        (" \n", "empty"),
    ],
)
def test_a_bad_table(tmp_path, text, words):
    path = tmp_path / "bad.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match="bad.tsv") as error:
        read_questions(path)
    assert words in str(error.value)


def test_relations_ask_by_their_zero_shot_template(tmp_path):
    path = tmp_path / "in_country.json"
    content = {
        "name": "landmark in country",
        "prompt_templates": ["{} is in"],
        "prompt_templates_zs": ["{} is in the country of", "What country is {} in? It is in"],
        "samples": [
            {"subject": "Eiffel Tower", "object": "France"},
            {"subject": "Border Fort", "object": "Chile"},
            {"subject": "Border Fort", "object": "Peru"},
        ],
    }
    path.write_text(json.dumps(content))
    assert read_questions(path) == [
        Question(
            "in_country-1", "What country is Eiffel Tower in?", ("France",), None, "Eiffel Tower", content["name"]
        ),
        Question(
            "in_country-2", "What country is Border Fort in?", ("Chile", "Peru"), None, "Border Fort", content["name"]
        ),
    ]
    path.write_text(json.dumps({**content, "prompt_templates_zs": ["{} is in the country of"]}))
    assert read_questions(path)[0].question == "Eiffel Tower is in the country of"
    path.write_text(json.dumps({**content, "prompt_templates_zs": 3}))
    with pytest.raises(InputError, match="prompt_templates_zs"):
        read_questions(path)


def test_known_facts_are_completed(tmp_path):
    path = tmp_path / "known.json"
    fact = {"subject": "Beats", "attribute": "Apple", "prompt": "Beats is owned by", "relation_id": "P127"}
    path.write_text(json.dumps([{"known_id": 3, **fact}]))
    assert read_questions(path) == [Question("3", "Beats is owned by", ("Apple",), None, "Beats", "P127")]


def test_squad(tmp_path):
    path = tmp_path / "squad.json"
    qas = [
        {"id": "1", "question": "Who?", "answers": [{"text": "Ann", "answer_start": 0}] * 2, "is_impossible": False},
        {"id": "2", "question": "Why?", "answers": [], "is_impossible": True},
    ]
    path.write_text(json.dumps({"data": [{"title": "T", "paragraphs": [{"context": "Ann did.", "qas": qas}]}]}))
    assert read_questions(path) == [
        Question("1", "Who?", ("Ann",), "Ann did.", "T", ""),
        Question("2", "Why?", (), "Ann did.", "T", ""),
    ]


def test_truthful_questions(tmp_path):
    path = tmp_path / "TruthfulQA.csv"
    head = "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"
    path.write_text(f'{head}A,Myths,"What, then?",Nothing,"Nothing; You ""rest"" ;",You die,http\n')
    assert read_questions(path) == [
        Question("TruthfulQA-1", "What, then?", ("Nothing", 'You "rest"'), None, "TruthfulQA-1", "Myths")
    ]
    path.write_text(f"{head}A,Myths,What?,Nothing\n")
    with pytest.raises(InputError, match=r"csv:2: expected 7 columns"):
        read_questions(path)
    path.write_text('"A"x,b\n')
    with pytest.raises(InputError, match=r"csv:1: "):
        read_questions(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.txt", "x"), ("a.json", "{"), ("a.json", "{}"), ("a.json", "3"), ("a.json", "[]"), ("a.jsonl", "x\n")],
)
def test_a_file_of_no_known_kind(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=name):
        read_questions(path)
    with pytest.raises(InputError, match="no such file"):
        read_questions(tmp_path / "missing.jsonl")


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the data sets are not at {SHARED}")
@pytest.mark.parametrize(
    ("name", "n"),
    [
        ("relations/factual/landmark_in_country.json", 835),
        ("relations/factual/superhero_person.json", 90),
        ("rome_known_1000/known_1000.json", 1209),
        ("truthfulqa/TruthfulQA.csv", 817),
    ],
)
def test_the_real_files(name, n):
    found = read_questions(SHARED / name)
    assert len(found) == n and all(one.answers and one.relation for one in found)


# --- Splits -----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 12), min_size=13, max_size=80), st.integers(0, 3), st.sampled_from([(1,), (1, 1), (3, 2)])
)
@settings(max_examples=60, deadline=None)
def test_a_split_is_a_partition_that_tears_no_entity_apart(entities, seed, parts):
    entities = [*entities, *range(13)]
    questions = [Question(str(i), "Q?", ("x",), entity=f"{('E', 'e')[i % 2]}{e}") for i, e in enumerate(entities)]
    found = split_by_entity(questions, parts, seed)
    assert sorted(row for part in found for row in part) == list(range(len(questions)))
    assert all(part == sorted(part) for part in found)
    homes = [{entities[row] for row in part} for part in found]
    assert all(not one & other for i, one in enumerate(homes) for other in homes[:i])
    assert found == split_by_entity(questions, parts, seed)
    largest = max(entities.count(entity) for entity in set(entities))
    for part, share in zip(found, parts, strict=True):
        assert abs(len(part) - share / sum(parts) * len(questions)) <= largest


def test_another_seed_splits_otherwise_and_the_order_of_questions_does_not_matter():
    questions = [Question(str(i), "Q?", ("x",)) for i in range(40)]
    first = split_by_entity(questions, (0.5, 0.5), 0)
    assert first != split_by_entity(questions, (0.5, 0.5), 1)
    again = split_by_entity(questions[::-1], (0.5, 0.5), 0)
    assert {questions[row].id for row in first[0]} == {questions[::-1][row].id for row in again[0]}


@pytest.mark.parametrize("parts", [(), (0.5, 0), (1, -1), (1, 1, 1, 1)])
def test_splits_that_cannot_be(parts):
    with pytest.raises(InputError):
        split_by_entity([Question(str(i), "Q?", ("x",)) for i in range(3)], parts, 0)
