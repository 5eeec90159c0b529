"""Statements become claims: each value with a question that asks for it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.factuality.claims import claims_of, in_front, in_place, sentences_of
from glassformer.factuality.values import find_values


@pytest.mark.parametrize(
    ("statement", "probes"),
    [
        ("The Mona Lisa was painted in 1815.", ["Who was painted in 1815?", "When was the Mona Lisa painted?"]),
        ("He painted it on 15 March 1815.", ["When did he paint it?"]),
        ("She carried it in Paris.", ["Where did she carry it?"]),
        ("It moved from Rome to Paris.", ["From what did it move to Paris?", "To what did it move from Rome?"]),
        ("The opera was written by Giuseppe Verdi.", ["By whom was the opera written?"]),
        ("The composer Giuseppe Verdi wrote it.", ["Which composer wrote it?"]),
        ("The city of Milan is old.", ["Which city is old?"]),
        ("The largest river is the Rhine.", ["What is the largest river?"]),
        ("The river is called Old Rhine.", ["What is the river called?"]),
        ("It had 35 players.", ["It had how many players?"]),
        ("About 5 % of them left.", ["What percentage of them left?"]),
        ("It cost $5 million.", ["It cost how much money?"]),
        (
            "It is 300 kilometers from Rome.",
            ["How many kilometers is it from Rome?", "From what is it 300 kilometers?"],
        ),
        ("It was built in the 16th century.", ["When was it built?"]),
        ("It is Tesla's motor.", ["It is whose motor?"]),
        ("He worked on the Doctor Who theme.", ["He worked on which theme?"]),
        ("The dog that bit him was found in Rome.", ["Where was the dog that bit him found?"]),
        ("It is nice.", []),
    ],
)
def test_questions(statement: str, probes: list[str]) -> None:
    assert [claim.probe for claim in claims_of(statement)] == probes


def test_in_the_place_of_the_value() -> None:
    sentence = "The Mona Lisa was painted in 1815."
    name, year = find_values(sentence)
    assert in_place(sentence, year) == "The Mona Lisa was painted in what year?"
    assert in_front(sentence, name) is None and in_place(sentence, name) == "Who was painted in 1815?"


def test_places_are_those_of_the_statement() -> None:
    statement = "It rained. In 1815 Napoleon lost; he died in 1821."
    assert [statement[slice(*one)] for one in sentences_of(statement)] == ["It rained.", statement[11:]]
    claims = claims_of(statement)
    assert [claim.value.text for claim in claims] == ["1815", "Napoleon", "1821"]
    for claim in claims:
        assert statement[claim.value.start : claim.value.end] == claim.value.text
        assert (claim.start, claim.end) == (11, len(statement))
        assert claim.value.text not in claim.rest and claim.rest in " ".join(statement.replace(
            claim.value.text, " ").split())  # fmt: skip


@settings(max_examples=60)
@given(st.text(alphabet="AaBbcd 1230.,'%$-\n", max_size=60))
def test_any_statement_gives_questions(statement: str) -> None:
    for claim in claims_of(statement):
        assert claim.probe.endswith("?") and re.search(r"\w", claim.probe)
        assert statement[claim.value.start : claim.value.end] == claim.value.text
