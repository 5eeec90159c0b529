"""Where texts are cut: sentences, passages of readable length, and no character lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.factuality.passages import LONGEST, OVERLAP, USUAL, sentences, sentences_around, spans_of_passages

TEXTS = st.lists(
    st.sampled_from(
        [
            "word ",
            "Longer. ",
            "End.\n",
            "\n\n",
            "\r\n\r\n",
            "x" * 300,
            "y" * 1500,
            "Dr. No said! ",
            "   ",
            "語。",
            "-" * 1200,
            "***",
        ]
    ),
    max_size=60,
).map("".join)


def parts(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
        ("Dr. Smith met Mrs. Jones. They talked.", ["Dr. Smith met Mrs. Jones.", "They talked."]),
        ("It has 3.5 million, e.g. in J. K. Smith.", ["It has 3.5 million, e.g. in J. K. Smith."]),
        ("approx. five of them. Six.", ["approx. five of them.", "Six."]),
        ("一つ目。二つ目。", ["一つ目。", "二つ目。"]),
        (
            "Heading\nA first line of a text that was wrapped by somebody\nand that goes on. Next.",
            ["Heading", "A first line of a text that was wrapped by somebody\nand that goes on.", "Next."],
        ),
        (
            "Things that are here in this house and in the garden:\n- one\n- two",
            ["Things that are here in this house and in the garden:", "- one", "- two"],
        ),
        ("First block\n\nsecond block", ["First block", "second block"]),
        ("  \n ", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert parts(text) == expected


def test_sentences_around_a_place() -> None:
    text = "One is here. Two is there. Three."
    place = text.index("Two")
    assert text[slice(*sentences_around(text, place, place + 3))] == "Two is there."
    assert text[slice(*sentences_around(text, 4, place + 3))] == "One is here. Two is there."
    assert text[slice(*sentences_around(text, place, place + 3, (place, len(text) - 7)))] == "Two is there."
    assert text[slice(*sentences_around(text, place, place + 3, beside=1))] == text
    assert text[slice(*sentences_around(text, 0, 3, beside=1))] == "One is here. Two is there."
    assert sentences_around(" ", 0, 1) == (0, 1)


@settings(deadline=None, max_examples=60)
@given(TEXTS)
def test_passages_hold_every_word_and_stay_short(text: str) -> None:
    found = spans_of_passages(text)
    covered = {place for start, end in found for place in range(start, end)}
    assert covered >= {place for place, character in enumerate(text) if character.isalnum()}
    for start, end in found:
        assert 0 <= start < end <= len(text) and end - start <= LONGEST
        assert text[start:end] == text[start:end].strip()
    for (start, end), (after, further) in zip(found, found[1:], strict=False):
        assert start < after and end < further and end - after <= OVERLAP


def test_short_paragraphs_go_together_and_middling_ones_stay_whole() -> None:
    short, middling = "A line of words." * 5, "Words, " * 140
    text = "\n\n".join([short, short, middling, short])
    found = [text[start:end] for start, end in spans_of_passages(text)]
    assert found == [f"{short}\n\n{short}", middling.strip(), short]


def test_long_paragraphs_are_cut_at_sentences_into_like_parts_that_overlap_by_one() -> None:
    text = " ".join(f"This is the sentence of number {number} in a long paragraph." for number in range(100, 150))
    found = spans_of_passages(text)
    known = sentences(text)
    starts, ends = {start for start, _ in known}, {end for _, end in known}
    assert len(found) > 2
    for start, end in found:
        assert start in starts and end in ends and USUAL / 2 < end - start <= LONGEST
    for (_, end), (after, _) in zip(found, found[1:], strict=False):
        assert (after, end) in known


def test_a_huge_line_is_cut_in_time_that_grows_with_its_length() -> None:
    for text in ("x" * 500_000, " " * 500_000 + "end", "word " * 50_000, "\n" + " " * 200_000 + "a. " * 50_000):
        found = spans_of_passages(text)
        assert max(end - start for start, end in found) <= LONGEST
