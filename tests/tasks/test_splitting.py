"""Long text is cut where a reader would pause, and nothing is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.tasks.splitting import parts


def test_text_that_fits_is_left_alone() -> None:
    assert parts("One. Two.", lambda text: True) == ["One. Two."]


def test_sentences_first_then_clauses_then_words_then_characters() -> None:
    def fits(text: str) -> bool:
        return len(text) <= 12

    assert parts("A man runs. A dog eats.", fits) == ["A man runs.", "A dog eats."]
    assert parts("A man runs, a dog eats", fits) == ["A man runs,", "a dog eats"]
    assert parts("one two three four", fits) == ["one two", "three four"]
    assert parts("abcdefghijklmnopqrst", fits) == ["abcdefghij", "klmnopqrst"]


@given(st.text(alphabet="ab .,\n日。", min_size=1), st.integers(1, 9))
def test_every_part_fits_and_only_white_space_is_lost(text: str, room: int) -> None:
    found = parts(text, lambda part: len(part) <= room)
    assert all(len(part) <= room for part in found)
    assert "".join("".join(found).split()) == "".join(text.split())


def test_a_character_that_does_not_fit() -> None:
    with pytest.raises(InputError, match="single character"):
        parts("ab", lambda part: False)
