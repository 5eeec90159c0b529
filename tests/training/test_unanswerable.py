"""Questions without an answer that are made from questions with one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_tasks import squad

from glassformer.errors import InputError
from glassformer.text.questions import Answer, Question
from glassformer.training.jobs.unanswerable import unanswerable
from glassformer.training.sections import Negative

SOPHIA = "In 1889 the architect Gustave Eiffel built a tower in Paris. It is the tallest there."
BRIDGE = (
    "The bridge of Garabit was finished by Maurice Koechlin in 1884, and 12 workers died. A tower stands beside it."
)
OTHER = "Nothing is known of the weather."


def article(question: str, answer: str, *others: str) -> list[Question]:
    """A question about the tower, and others about other paragraphs of its article."""
    asked = Question("a", question, SOPHIA, (Answer(answer, SOPHIA.index(answer)),), "Eiffel")
    return [
        asked,
        *(Question(str(row), "?", other, (Answer(other[:3], 0),), "Eiffel") for row, other in enumerate(others)),
    ]


def made(asked: list[Question], *kinds: Negative, seed: int = 0) -> list[Question]:
    """What the article's first question is made into."""
    return [one for one in unanswerable(asked, 1.0, seed, kinds) if one.id == "a-no"]


def some_questions(seed: int, articles: int) -> list[Question]:
    draw = random.Random(seed)
    return [
        Question(one["id"], one["question"], part["context"], tuple(answers(one)), article["title"])
        for article in squad(draw, articles, 0.2)["data"]
        for part in article["paragraphs"]
        for one in part["qas"]
    ]


def answers(one: dict[str, Any]) -> list[Answer]:
    return [Answer(found["text"], found["answer_start"]) for found in one["answers"]]


@given(seed=st.integers(0, 999), articles=st.integers(1, 5), share=st.sampled_from([0.0, 0.3, 1.0, 2.5]))
def test_other_paragraphs_of_their_article(seed: int, articles: int, share: float) -> None:
    asked = some_questions(seed, articles)
    found = unanswerable(asked, share, seed)
    assert found == unanswerable(asked, share, seed)
    assert len(found) <= round(share * len(asked))
    by_id = {(one.title, one.id): one for one in asked}
    possible = 0
    for one in asked:
        others = {other.context for other in asked if other.title == one.title} - {one.context}
        possible += any(not any(answer.text in other for answer in one.answers) for other in others)
    if share == 1.0:
        assert len(found) == possible
    for one in found:
        assert one.id.endswith("-no") and one.answers == ()
        origin = by_id[one.title, one.id.removesuffix("-no")]
        assert one.question == origin.question and one.context != origin.context
        assert one.context in {other.context for other in asked if other.title == one.title}
        assert not any(answer.text in one.context for answer in origin.answers)


def test_articles_of_one_paragraph_give_none() -> None:
    assert unanswerable([one for one in some_questions(1, 3) if one.id.split("-")[1] == "0"], 5.0, 0) == []


@pytest.mark.parametrize("others", [(OTHER, BRIDGE), (BRIDGE, OTHER)])
def test_the_nearest_paragraph_shares_rare_words(others: Sequence[str]) -> None:
    (found,) = made(article("Who built a tower in Paris?", "Gustave Eiffel", *others), "nearest")
    assert found == Question("a-no", "Who built a tower in Paris?", BRIDGE, (), "Eiffel")
    holding = BRIDGE.replace("Maurice Koechlin", "Gustave Eiffel")
    asked = article("Who built a tower in Paris?", "Gustave Eiffel", *others, holding)
    assert made(asked, "nearest")[0].context == BRIDGE  # never one with the answer


def test_names_and_numbers_are_replaced_by_their_like() -> None:
    for question, changed in (
        ("What did Gustave Eiffel build?", {"What did Maurice Koechlin build?", "What did Garabit build?"}),
        ("What was built in 1889?", {"What was built in 1884?"}),
        ("What did Gustave Eiffel build in 1889?", None),
    ):
        seen = {made(article(question, "a tower", BRIDGE, OTHER), "value", seed=seed)[0].question for seed in range(20)}
        if changed is None:
            assert "What did Gustave Eiffel build in 1884?" in seen and "What did Garabit build in 1889?" in seen
        else:
            assert seen == changed
    for question in ("What was built?", "What did Koechlin build?", "What was built 12 times?"):  # none that both have
        assert made(article(question, "a tower", BRIDGE, OTHER), "value") == []
    assert made(article("What was built in 1889?", "a tower", OTHER), "value") == []  # no other year


def test_words_become_their_opposites() -> None:
    (found,) = made(article("What is the tallest before 1900?", "a tower"), "opposite")
    assert found.question == "What is the tallest after 1900?" and found.context == SOPHIA and found.answers == ()
    asked = article("What is there?", "a tower")
    seen = [made(asked, "opposite", seed=seed) for seed in range(30)]
    assert {one[0].question for one in seen if one} == {"What isn't there?"} and [] in seen
    assert made(article("Name the builder.", "Gustave Eiffel"), "opposite") == []


def test_kinds_take_turns_and_give_way() -> None:
    asked = [
        replace(article("What did Gustave Eiffel build before 1900?", "a tower")[0], id=f"{row}") for row in range(10)
    ] + article("?", "a tower", BRIDGE, OTHER)[1:]
    kinds: tuple[Negative, ...] = ("value", "opposite", "nearest")
    found = [one for one in unanswerable(asked, 3.0, 1, kinds) if one.question != "?"]
    assert len(found) == 30
    assert {"Koechlin" in one.question or "Garabit" in one.question for one in found} == {True, False}
    assert {"after" in one.question for one in found} == {one.context == BRIDGE for one in found} == {True, False}
    plain = article("What is known?", "a tower", BRIDGE)
    assert made(plain, "value", "nearest")[0].context == BRIDGE
    assert (
        unanswerable(asked, 3.0, 1, kinds) == unanswerable(asked, 3.0, 1, kinds) != unanswerable(asked, 3.0, 2, kinds)
    )


def test_a_value_is_replaced_where_it_stands() -> None:
    """And not in a longer number that holds the same digits, nor for one that only looks alike there."""
    text, other = "The 9 towers of 1990 stand.", "Here 7 gates of 1884 fell."
    asked = Question("a", "In 1990 were there 9 towers?", text, (Answer("towers", 6),), "T")
    rest = Question("b", "?", other, (Answer("gates", 7),), "T")
    seen = {made([asked, rest], "value", seed=seed)[0].question for seed in range(20)}
    assert seen == {"In 1990 were there 7 towers?", "In 1884 were there 9 towers?"}
    inside = Question("a", "Were there 9 towers?", "All towers of 1990 stand.", (Answer("towers", 4),), "T")
    assert made([inside, rest], "value") == []


def test_no_kind_is_refused() -> None:
    with pytest.raises(InputError, match="at least one kind of paragraph, nearest"):
        unanswerable(article("?", "a tower"), 1.0, 0, ())
