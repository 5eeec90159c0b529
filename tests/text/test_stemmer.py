"""The stems are those of the paper's examples, and of NLTK's stemmer for any word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.stem.porter import PorterStemmer

from glassformer.text.stemmer import measure, shape, stem

THEIRS = PorterStemmer()
# fmt: off
ENDINGS = [
    "s", "es", "ies", "sses", "ss", "ed", "ied", "eed", "eied", "ing", "ating", "bling", "izing", "y", "ly", "i",
    "li", "alli", "fulli", "ational", "tional", "enci", "anci", "izer", "bli", "abli", "entli", "eli", "ousli",
    "ization", "ation", "ator", "alism", "iveness", "fulness", "ousness", "aliti", "iviti", "biliti", "logi",
    "ology", "icate", "ative", "alize", "iciti", "ical", "ful", "ness", "al", "ance", "ence", "er", "ic", "able",
    "ible", "ant", "ement", "ment", "ent", "ion", "sion", "tion", "ou", "ism", "ate", "iti", "ous", "ive", "ize",
    "e", "ll",
]
# fmt: on


def test_shape_and_measure() -> None:
    assert shape("toy") == "cvc" and shape("syzygy") == "cvcvcv" and shape("yes") == "cvc" and shape("ayy") == "vcv"
    for m, words in enumerate(["tr ee tree y by", "trouble oats trees ivy", "troubles private oaten orrery"]):
        assert {measure(word) for word in words.split()} == {m}


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("caresses", "caress"),
        ("ponies", "poni"),
        ("agreed", "agre"),
        ("feed", "feed"),
        ("plastered", "plaster"),
        ("bled", "bled"),
        ("sing", "sing"),
        ("conflated", "conflat"),
        ("hopping", "hop"),
        ("falling", "fall"),
        ("fizzed", "fizz"),
        ("filing", "file"),
        ("happy", "happi"),
        ("sky", "sky"),
        ("relational", "relat"),
        ("generalizations", "gener"),
        ("oscillators", "oscil"),
        ("adoption", "adopt"),
        ("rate", "rate"),
        ("cease", "ceas"),
        ("controll", "control"),
        ("roll", "roll"),
    ],
)
def test_examples_of_the_paper(word: str, wanted: str) -> None:
    assert stem(word) == wanted


def test_departures_of_nltk() -> None:
    assert [stem(word) for word in ("dying", "news", "ties", "died", "enjoy", "as")] == [
        *("die", "news", "tie", "die", "enjoy", "as")
    ]


LETTERS = st.text(alphabet="aeiouybcdfhlmnrstvwxz1", max_size=6)


@given(LETTERS, st.lists(st.sampled_from(ENDINGS), max_size=3).map("".join))
def test_any_word_gets_nltks_stem(start: str, end: str) -> None:
    assert stem(start + end) == THEIRS.stem(start + end)


def test_every_short_start_with_every_pair_of_endings() -> None:
    starts = [
        "",
        "a",
        "b",
        "y",
        "ay",
        "by",
        "ab",
        "bab",
        "abb",
        "baw",
        "babab",
        "ill",
        "bl",
        "at",
        "iz",
        "log",
        "s",
        "t",
    ]
    for start in starts:
        for first in ["", *ENDINGS]:
            for second in ENDINGS:
                word = start + first + second
                assert stem(word) == THEIRS.stem(word), word
