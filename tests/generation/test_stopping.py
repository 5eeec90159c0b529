"""Stop strings end a text wherever tokens are cut; what is given out is never taken back."""

import pytest
from generation.small_decoders import byte_level
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.generation.stopping import Reader, stop_strings


def shortest(text: str, stop: list[str]) -> str:
    """The text up to the stop string that is complete first, found character by character."""
    for end in range(1, len(text) + 1):
        starts = [end - len(string) for string in stop if text[:end].endswith(string)]
        if starts:
            return text[: min(starts)]
    return text


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    text=st.text("ab日é ", max_size=30),
    stop=st.lists(st.text("ab日é", min_size=1, max_size=4), max_size=3),
    data=st.data(),
)
def test_any_cut_gives_the_text_before_the_first_stop_string(text: str, stop: list[str], data: st.DataObject) -> None:
    tokenizer = byte_level()
    ids: list[int] = []
    while text_left := text[len(tokenizer.decode(ids)) :]:  # tokens as a model may choose them, not as BPE does
        ids += tokenizer.encode(text_left[: data.draw(st.integers(1, 4))])
    reader, wanted, given_out = Reader(tokenizer, stop), shortest(text, stop), ""
    for token in ids:
        given_out += reader.push(token)
        assert wanted.startswith(given_out)
    assert given_out + reader.finish() == wanted
    assert reader.stopped == (wanted != text)


def test_a_text_that_may_become_a_stop_string_is_held_back() -> None:
    tokenizer = byte_level()
    reader = Reader(tokenizer, ["\n\nUser:"])
    parts = [tokenizer.encode(part) for part in ("yes\n", "\nUs", "eless", "\n\nUser:", "more")]
    given_out = ["".join(map(reader.push, ids)) for ids in parts]
    assert given_out == ["yes", "", "\n\nUseless", "", ""]
    assert reader.stopped and reader.finish() == ""


def test_half_a_character_waits() -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode("中")
    assert len(ids) == 3
    reader = Reader(tokenizer)
    assert [reader.push(token) for token in ids] == ["", "", "中"]
    reader.push(ids[0])
    assert reader.finish() == "�"


@pytest.mark.parametrize("wrong", [[""], ["a", 3], [None]])
def test_stop_must_be_strings(wrong: list) -> None:
    assert stop_strings("END") == ("END",) and stop_strings(["a", "b"]) == ("a", "b")
    with pytest.raises(InputError, match="'stop' must be strings"):
        stop_strings(wrong)
