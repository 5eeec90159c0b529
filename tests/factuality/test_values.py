"""Numbers, dates and names are found in texts, and compared by what they say."""

from __future__ import annotations

import re
from datetime import date
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.factuality.dates import MONTHS, YEAR, find_dates
from glassformer.factuality.names import find_names, same_name
from glassformer.factuality.numerals import find_numerals, read_number
from glassformer.factuality.values import Value, differ, find_values, same

ONES = re.findall(
    r"\S+",
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen",
)
TENS = re.findall(r"\S+", "_ _ twenty thirty forty fifty sixty seventy eighty ninety")


def in_words(number: int, joined: bool) -> str:
    """A number below 10**12 as English writes it, with "and" after hundreds where `joined`."""
    for size, name in ((10**9, "billion"), (10**6, "million"), (1000, "thousand")):
        if number >= size:
            rest = f" {in_words(number % size, joined)}" if number % size else ""
            return f"{in_words(number // size, joined)} {name}{rest}"
    if number >= 100:
        link = " and " if joined else " "
        rest = f"{link}{in_words(number % 100, joined)}" if number % 100 else ""
        return f"{ONES[number // 100]} hundred{rest}"
    if number >= 20:
        return TENS[number // 10] + (f"-{ONES[number % 10]}" if number % 10 else "")
    return ONES[number]


def only(text: str) -> Value:
    """The one value of a text."""
    values = find_values(text)
    assert len(values) == 1, values
    assert text[values[0].start : values[0].end] == values[0].text
    return values[0]


@settings(max_examples=50)
@given(st.integers(0, 10**12 - 1), st.booleans())
def test_numbers_in_words_are_read_back(number: int, joined: bool) -> None:
    assert read_number(in_words(number, joined)) == number
    (found,) = find_numerals(f"There are {in_words(number, joined)} of these.")
    assert found.low == found.high == number and not found.unit


@settings(max_examples=50)
@given(st.integers(0, 10**12), st.integers(0, 3), st.booleans())
def test_numbers_in_digits_are_read_back(number: int, decimals: int, separated: bool) -> None:
    value = Fraction(number, 10**decimals)
    text = f"{number // 10**decimals:{',' if separated else ''}}"
    if decimals:
        text += f".{number % 10**decimals:0{decimals}}"
    (found,) = find_numerals(f"It has {text} of these.")
    assert found.low == found.high == value
    assert f"It has {text} of these."[found.start : found.end] == text


@settings(max_examples=50)
@given(st.integers(2, 999), st.sampled_from(["thousand", "million", "billion"]))
def test_scales_multiply_digits(number: int, scale: str) -> None:
    (found,) = find_numerals(f"about {number / 10} {scale} in all")
    assert found.low == Fraction(number, 10) * {"thousand": 10**3, "million": 10**6, "billion": 10**9}[scale]


@settings(max_examples=50)
@given(st.dates(date(1000, 1, 1), date(2099, 12, 31)), st.integers(0, 3))
def test_days_are_read_back(day: date, form: int) -> None:
    month = MONTHS[day.month - 1].title()
    text = [
        f"{day.day} {month} {day.year}",
        f"{month} {day.day}, {day.year}",
        f"{day.day}th of {month} {day.year}",
        f"{month[:3]} {day.day}, {day.year}",
    ][form]
    (found,) = find_dates(f"It was on {text}.")
    assert found.low == found.high == day.year * YEAR + (day.month - 1) * 31 + day.day - 1
    assert f"It was on {text}."[found.start : found.end] == text


@settings(max_examples=50)
@given(st.integers(1010, 2080), st.integers(1, 9))
def test_a_year_is_in_a_range_if_it_is_not_outside(first: int, more: int) -> None:
    found = only(f"It was made from {first} to {first + more}.")
    for year in range(first - 2, first + more + 3):
        claimed = only(f"It was made in {year}.")
        assert same(claimed, found) == (first <= year <= first + more)
        assert differ(claimed, found) != same(claimed, found)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("The Mona Lisa was painted in 1815.", "name date", "Mona Lisa|1815"),
        ("It was begun in 1503–1519 or 1914–18.", "date date", "1503–1519|1914–18"),
        ("It stood between 1503 and 1519.", "date", "1503 and 1519"),
        ("In the 16th century BC and the 1990s it rained.", "date date", "16th century BC|1990s"),
        ("Augustus died in AD 14 and Caesar in 44 BC.", "name date name date", "Augustus|14|Caesar|44 BC"),
        ("On 15 March, in March 1815, he left.", "date date", "15 March|March 1815"),
        ("There were 2000 people, in 2000.", "number date", "2000|2000"),
        ("It cost $5 million, or 5 % of it.", "number number", "$5 million|5 %"),
        ("It is the third of twenty-one; it was first seen.", "number number", "third|twenty-one"),
        ("Super Bowl 50 had 35 players.", "name number", "Super Bowl 50|35"),
        ("Ludwig van Beethoven met the Duke of York.", "name name", "Ludwig van Beethoven|Duke of York"),
        ("Tesla's motor and NASA's rocket.", "name name", "Tesla|NASA"),
        ("In Washington, D.C., Dr. John F. Kennedy Jr. spoke.", "name name name",
         "Washington|D.C.|Dr. John F. Kennedy Jr."),
        ("However, most of them left in May.", "date", "May"),
        ("He said no one of us may go.", "", ""),
        ("It grew by 5 to 10 million.", "number", "5 to 10 million"),
        ("The drought of 2010 was bad.", "date", "2010"),
        ("The storm of 2010 series.", "date", "2010"),
        ("Eight US presidents came. The Eleventh Doctor left.", "number name name", "Eight|US|Eleventh Doctor"),
    ],
)  # fmt: skip
def test_what_is_found(text: str, kind: str, value: str) -> None:
    found = find_values(text)
    assert " ".join(one.kind for one in found) == kind
    assert "|".join(one.text for one in found) == value


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("in 1815", "in 1503", False),
        ("1,000 of them", "one thousand of them", True),
        ("1000 km", "1,000 kilometres", True),
        ("1000 km", "1,000 miles", False),
        ("1000 km", "1,000 of them", True),
        ("5 %", "five percent", True),
        ("5.2 million", "5,200,000", True),
        ("5.2 million", "5.3 million", False),
        ("$5", "£5", False),
        ("the third one", "the 3rd one", True),
        ("the fourth one", "four of them", False),
        ("7 of them", "5–10 of them", True),
        ("5–10 of them", "7 of them", False),
        ("in 1815", "on 15 March 1815", True),
        ("on 15 March 1815", "in 1815", False),
        ("on 15 March 1815", "March 15, 1815", True),
        ("on 15 March", "March 15, 1815", True),
        ("in 1815", "on 15 March", False),
        ("in the 1990s", "in 1994", True),
        ("in 1994", "in the 1990s", True),
        ("in the 1980s", "in 1994", False),
        ("the 19th century", "in 1815", True),
        ("1815 of them", "in 1815", True),
        ("in 1815", "by Rome", False),
        ("Nikola Tesla", "by Tesla", True),
        ("by Tesla", "Thomas Edison", False),
    ],
)
def test_what_is_the_same(one: str, other: str, equal: bool) -> None:
    assert same(only(one), only(other)) == equal


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("Tesla", "Nikola Tesla", True),
        ("John F. Kennedy", "John Kennedy", True),
        ("the NFL", "National Football League", True),
        ("US", "United States", True),
        ("King Louis XIV", "Louis XIV", True),
        ("Rāzi", "Razi", True),
        ("Harvard University", "University", False),
        ("New York", "New York Giants", False),
        ("John Adams", "Samuel Adams", False),
        ("John", "John Adams", False),
        ("Apollo 8", "Apollo 5", False),
        ("Apollo 8", "8", False),
        ("of", "the", False),
    ],
)
def test_names(one: str, other: str, equal: bool) -> None:
    assert same_name(one, other) == same_name(other, one) == equal


def test_a_value_that_is_neither_the_same_nor_different() -> None:
    day, year = only("on 15 March 1815"), only("in 1815")
    assert not same(day, year) and not differ(day, year)  # the year says less, but nothing else


def test_the_first_word_of_a_sentence() -> None:
    doubtful = {name.doubtful for name in find_names("Nurses treat them. Paris is big.")}
    assert doubtful == {True}
    assert not find_names("NASA and O'Neill")[0].doubtful
    assert [value.text for value in find_values("The city. Many people live there.")] == []


@settings(max_examples=50)
@given(st.text(max_size=80))
def test_any_text_is_read_without_an_error(text: str) -> None:
    values = find_values(text)
    assert all(text[value.start : value.end] == value.text and value.text for value in values)
    assert all(left.end <= right.start for left, right in zip(values, values[1:], strict=False))
    assert all(same(value, value) for value in values if value.kind != "name")
