"""Spans: which positions of each text are meant, and what is said of those that a text does not have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from interpret.all_families import case
from tasks.small_models import TEXT, model_of
from tasks.small_writers import reader, writer

from glassformer.errors import InputError
from glassformer.interpret.facts import Fact, Facts
from glassformer.interpret.inputs import prepare, repeated
from glassformer.interpret.spans import Places, Texts, tokens_of
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

LENGTHS = (5, 8, 3)
SUBJECTS = [(1, 3), (2, 6), (0, 1)]


def texts(written: list[int] | None = None) -> Texts:
    spans = {"subject": SUBJECTS, "prompt": [(0, n) for n in LENGTHS]}
    return Texts(torch.zeros(3, 8, dtype=torch.long), torch.tensor(LENGTHS), spans, written=written)


def positions(places: Places) -> list[list[int]]:
    return [index[real].tolist() for index, real in zip(places.index, places.real, strict=True)]


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ("*", [[0, 1, 2, 3, 4], list(range(8)), [0, 1, 2]]),
        ("end", [[4], [7], [2]]),
        ("0", [[0], [0], [0]]),
        ("-1", [[4], [7], [2]]),
        ("-3", [[2], [5], [0]]),
        ("0:2", [[0, 1], [0, 1], [0, 1]]),
        ("2:", [[2, 3, 4], [2, 3, 4, 5, 6, 7], [2]]),
        ("-2:", [[3, 4], [6, 7], [1, 2]]),
        (":-1", [[0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6], [0, 1]]),
        (":", [[0, 1, 2, 3, 4], list(range(8)), [0, 1, 2]]),
        ("subject", [[1, 2], [2, 3, 4, 5], [0]]),
        ("subject.first", [[1], [2], [0]]),
        ("subject.last", [[2], [5], [0]]),
        ("subject[0]", [[1], [2], [0]]),
        ("subject[-1]", [[2], [5], [0]]),
        ("subject[:-1]", [[1], [2, 3, 4], []]),
        ("subject[1:]", [[2], [3, 4, 5], []]),
        ("subject[:]", [[1, 2], [2, 3, 4, 5], [0]]),
        ("prompt[1:3]", [[1, 2], [1, 2], [1, 2]]),
        ("subject + end", [[1, 2, 4], [2, 3, 4, 5, 7], [0, 2]]),
        ("end+subject.last + 0:2", [[0, 1, 2, 4], [0, 1, 5, 7], [0, 1, 2]]),
    ],
)
def test_positions(span: str, expected: list[list[int]]) -> None:
    found = texts().places(span)
    assert positions(found) == expected
    assert found.counts.tolist() == [len(row) for row in expected]
    slots = found.slots(8)
    for row, wanted in enumerate(expected):
        assert slots[row].tolist() == [wanted.index(place) if place in wanted else -1 for place in range(8)]


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ("generated", [[3, 4], [6, 7], [2]]),
        ("generated.first", [[3], [6], [2]]),
        ("generated.last", [[4], [7], [2]]),
        ("generated[0]", [[3], [6], [2]]),
        ("generated[:-1]", [[3], [6], []]),
        ("end", [[2], [5], [1]]),
        ("-1", [[2], [5], [1]]),
        ("1:", [[1, 2], [1, 2, 3, 4, 5], [1]]),
        ("*", [[0, 1, 2, 3, 4], list(range(8)), [0, 1, 2]]),
    ],
)
def test_what_was_written_comes_after_the_end(span: str, expected: list[list[int]]) -> None:
    assert positions(texts([3, 6, 2]).places(span)) == expected


def test_only_all_and_what_is_written_go_on_beyond_the_texts() -> None:
    beyond = {span: texts([3, 6, 2]).places(span).beyond for span in ("*", "generated", "end", "0:2", "subject + *")}
    assert beyond == {"*": True, "generated": True, "end": False, "0:2": False, "subject + *": True}


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ("sbject", r"no span 'sbject'.*[Dd]id you mean.*subject.* Known: subject, prompt, end, generated"),
        ("subjects.last", "no span 'subjects'"),
        ("3", "text 3 has 3 tokens, none of them is at 3"),
        ("-6", "text 1 has 5 tokens, none of them is at -6"),
        ("5:", "text 1 has 5 tokens, none of them is at 5:"),
        ("2:2", "text 1 has 5 tokens, none of them is at 2:2"),
        ("subject[1]", r"text 3 has 1 tokens in 'subject', none of them is subject.1."),
        ("subject[-3]", "text 1 has 2 tokens in 'subject'"),
        ('"words"', "words can be found in texts, not in ids; say the position instead"),
        ("subject.middle", "'subject.middle' is no span: write"),
        ("end.first", r"'end' is one position; write it without '\.first'"),
        ("end[0]", r"'end' is one position; write it without '\[0\]'"),
        ("subject[a]", "is no span"),
        ("subject +", "is no span"),
        ("", "is no span"),
        ("0:2:1", "is no span"),
    ],
)
def test_errors(span: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        texts().places(span)


side = st.none() | st.integers(-9, 9)


@given(first=side, last=side)
def test_slices_are_those_of_python(first: int | None, last: int | None) -> None:
    written = f"{'' if first is None else first}:{'' if last is None else last}"
    expected = [list(range(n))[first:last] for n in LENGTHS]
    if all(expected):
        assert positions(texts().places(written)) == expected
    else:
        with pytest.raises(InputError, match="none of them is at"):
            texts().places(written)
    inside = [list(range(*subject))[first:last] for subject in SUBJECTS]
    assert positions(texts().places(f"subject[{written}]")) == inside


@given(number=st.integers(-9, 9))
def test_numbers_are_those_of_python(number: int) -> None:
    for span, rows in (
        (f"{number}", [range(n) for n in LENGTHS]),
        (f"subject[{number}]", [range(*s) for s in SUBJECTS]),
    ):
        if all(-len(row) <= number < len(row) for row in rows):
            assert positions(texts().places(span)) == [[row[number]] for row in rows]
        else:
            with pytest.raises(InputError, match="none of them is"):
                texts().places(span)


# --- Words ------------------------------------------------------------------------------------------------------------


def test_words_are_found_in_texts_where_they_stand_last() -> None:
    model = writer()
    prompts = ["a man rides the bike , a man eats", "über a man"]
    inputs = prepare(model, prompts)
    for row, places in enumerate(positions(inputs.places('"a man"', "text"))):
        ids = inputs.text.ids[row, places].tolist()
        assert model.tokenizer.decode(ids).strip() == "a man"
        assert places[-1] == [len(model.tokenizer.encode(prompts[0])) - len(model.tokenizer.encode(" eats")) - 1,
                              int(inputs.text.lengths[1]) - 1][row]  # fmt: skip
    joined = positions(inputs.places('"a man" + 0', "text"))
    assert [row[0] for row in joined] == [0, 0]
    with pytest.raises(InputError, match='text 2 does not hold "rides"'):
        inputs.places('"rides"', "text")


def test_quotes_may_hold_what_means_something_outside() -> None:
    inputs = prepare(writer(), ["road, 1 + 1 on the road"])
    assert len(positions(inputs.places('"1 + 1"', "text"))[0]) >= 3
    with pytest.raises(InputError, match="is no span"):
        inputs.places('"1 + 1', "text")


def test_tokens_stand_for_characters() -> None:
    characters = [(0, 0), (0, 2), (2, 3), (3, 7), (0, 0)]
    assert tokens_of(characters, (0, 2)) == (1, 2)
    assert tokens_of(characters, (1, 4)) == (1, 4)
    with pytest.raises(InputError, match="no token stands for the characters 8 to 9"):
        tokens_of(characters, (8, 9))


def test_frames_are_positions_without_characters() -> None:
    model = reader(None)
    inputs = prepare(model, ["the man eats", "the man"])
    for row, text in enumerate(inputs.given):
        ids = model.tokenizer.encode(text, frame=True)
        assert inputs.text.ids[row, : len(ids)].tolist() == ids
        assert positions(inputs.places("prompt", "text"))[row] == list(range(len(ids)))
    assert positions(inputs.places('"the man"', "text")) == [[1, 2], [1, 2]]
    assert positions(inputs.places("end", "text")) == [[5], [3]]  # "eats" is two tokens


# --- What is read -----------------------------------------------------------------------------------------------------


def translator() -> Any:
    return model_of(Tokenizer.train([TEXT], "word", min_frequency=1), TextPipeline())


def test_facts_bring_their_subjects() -> None:
    model = writer()
    found = Facts(
        (Fact("1", "blue shirt", "r", "a blue shirt on", ("x",)), Fact("2", "man", "r", "the man in", ("x",)))
    )
    inputs = prepare(model, found)
    for row, (fact, places) in enumerate(zip(found, positions(inputs.places("subject", "text")), strict=True)):
        assert model.tokenizer.decode(inputs.text.ids[row, places].tolist()).strip() == fact.subject
    assert torch.equal(prepare(model, found[1]).text.ids[0], inputs.text.ids[1, : int(inputs.text.lengths[1])])
    named = prepare(model, found.prompts, spans={"word_1": [(0, 1), (0, 3)]})
    assert positions(named.places("word_1", "text")) == [[0], [0, 1]]


def test_sources_end_and_targets_begin_as_the_model_reads_them() -> None:
    model = translator()
    inputs = prepare(model, ["a man rides", "two women"], target=["dog runs", "a bike on road"])
    config = model.config
    assert inputs.source is not None
    assert [row[-1] for row in (inputs.source.ids[0], inputs.source.ids[1, :3])] == [config.eos_id] * 2
    assert inputs.text.ids[:, 0].tolist() == [config.bos_id] * 2
    assert positions(inputs.places("end", "source")) == [[3], [2]]
    assert inputs.places("end", "text").index[:, 0].tolist() == inputs.ends.tolist() == [2, 4]
    again = repeated(inputs, torch.tensor([1, 1, 0]))
    assert again.text.ids[:, 1].tolist() == inputs.text.ids[[1, 1, 0], 1].tolist()
    assert again.source is not None and again.source.lengths.tolist() == [3, 3, 4]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: prepare(translator(), "a man"), "give what it has written so far as 'target'"),
        (lambda: prepare(writer(), "a man", "a man"), "'target' is for an encoder-decoder"),
        (lambda: prepare(translator(), ["a", "man"], ["a"]), "there are 2 sources and 1 targets"),
        (lambda: prepare(case("post-norm").network, "a man"), "a bare network reads ids; give a Model for texts"),
        (lambda: prepare(case("post-norm").network, [[1, 99]]), "text 1 has an id outside of the model's 40"),
        (lambda: prepare(case("post-norm").network, [[1], [-1]]), "text 2 has an id outside of the model's 40"),
        (lambda: prepare(case("post-norm").network, [[1], []]), "text 2 has no token"),
        (lambda: prepare(writer(), []), "at least one text"),
        (lambda: prepare(writer(), 7), "give a text, ids, facts, or a list of them; got int"),
        (lambda: prepare(writer(), [[1, 2]], spans={"x": [(0, 1)]}), "with ids, say positions instead"),
        (lambda: prepare(writer(), "a man").places("subject", "text"), "no span 'subject'"),
        (lambda: prepare(writer(), "a man").places("*", "source"), "it has no source"),
    ],
)
def test_inputs_that_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
