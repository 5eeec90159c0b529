"""Many prompts at once, with what they share read once; answers kept in a file, which is gone on with."""

import json

import pytest
import torch
from factuality.test_prompts import asked
from tasks.small_writers import writer

from glassformer.errors import InputError
from glassformer.factuality import answering, labelling
from glassformer.factuality.answering import records_of
from glassformer.factuality.calibration import Asking
from glassformer.factuality.kept_answers import KeptAnswers
from glassformer.factuality.labelling import answer_all, asking_of
from glassformer.factuality.records import record
from glassformer.generation.shared import AfterBeginning


def several():
    """Twelve prompts with one beginning, three with another, one alone."""
    first, second = list(range(20, 40)), list(range(60, 80))
    prompts = [first + list(range(100, 101 + row % 5)) + [row + 1] for row in range(12)]
    return [*prompts, *(second + [row] for row in (7, 8, 9)), [5, 6]], ["a"] * 12 + ["b"] * 3 + ["c"]


@pytest.mark.parametrize("keep", [None, "ends", "all"])
def test_records_are_those_of_whole_prompts(keep, monkeypatch):
    read = []

    def reading(network, ids, device):
        read.append(list(ids))
        return AfterBeginning(network, ids, device)

    monkeypatch.setattr(answering, "AfterBeginning", reading)
    model, (prompts, groups) = writer(), several()
    found = {}
    for rows, records in records_of(model, prompts, groups, max_new_tokens=6, stop="\n", keep=keep):
        found |= zip(rows, records, strict=True)
    assert read == [[*range(20, 40), 100]]
    for row, whole in enumerate(record(model, prompts, max_new_tokens=6, stop="\n", keep=keep)):
        one = found[row]
        assert (one.prompt_ids, one.ids, one.text) == (whole.prompt_ids, whole.ids, whole.text)
        for name in ("logprobs", "entropies", "margins"):
            assert getattr(one, name) == pytest.approx(getattr(whole, name), abs=1e-4)
        assert (one.states is None) == (keep is None)
        if keep:
            torch.testing.assert_close(one.states, whole.states, atol=1e-4, rtol=1e-4)


def test_a_prompt_that_is_too_long_is_named():
    with pytest.raises(InputError, match="prompt 2 has 60 tokens, the model reads at most 48"):
        list(records_of(writer(), [[1], [2] * 60], [0, 0], max_new_tokens=3, stop="\n"))


def test_asking_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    model, questions, path = writer(positions=96), asked(150), tmp_path / "new" / "answers.jsonl"
    asking = asking_of(questions, Asking("few-shot", 1, 0, 4))
    whole = answer_all(model, questions, asking)

    def interrupted(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer_all(model, questions, asking, kept=path, say=interrupted)
    lines = path.read_bytes().splitlines(keepends=True)
    assert 0 < len(lines) < 150
    path.write_bytes(b"".join(lines) + lines[0][:30])  # writing was cut off
    told, rows = [], []

    def counted(model, prompts, *more, **settings):
        rows.append(len(prompts))
        return records_of(model, prompts, *more, **settings)

    monkeypatch.setattr(labelling, "records_of", counted)
    again = answer_all(model, questions, asking, kept=path, say=told.append)
    assert rows == [150 - len(lines)] and told[0].startswith(f"{len(lines)} of 150 answers are in")
    for one, other in zip(again, whole, strict=True):
        assert (one.question, one.right, one.record.text) == (other.question, other.right, other.record.text)
        assert one.record.logprobs == pytest.approx(other.record.logprobs, abs=1e-4)
    third = answer_all(model, questions, asking, kept=path)
    assert rows[-1] == 0
    for one, other in zip(again, third, strict=True):
        assert vars(one.record) == vars(other.record)


def test_answers_are_of_one_prompt_one_model_and_one_length(tmp_path):
    path = tmp_path / "answers.jsonl"
    one = record(writer(), [[3, 4]], max_new_tokens=3)[0]
    KeptAnswers(path, "w", 3, "\n").add([one])
    found = KeptAnswers(path, "w", 3, "\n").get([3, 4])
    assert found is not None and vars(found) == vars(one)
    assert KeptAnswers(path, "w", 3, "\n").get([3, 5]) is None
    for other in (("v", 3, "\n"), ("w", 4, "\n"), ("w", 3, "")):
        assert KeptAnswers(path, *other).get([3, 4]) is None


@pytest.mark.parametrize("line", ["", "[]", "{", '{"key": "k"}', '{"key": "k", "text": "t", "ids": [1]}', "\ufffd{]"])
def test_damaged_lines_count_as_none(tmp_path, line):
    path = tmp_path / "answers.jsonl"
    one = record(writer(), [[3, 4]], max_new_tokens=3)[0]
    path.write_text(line)
    KeptAnswers(path, "w", 3, "\n").add([one])
    KeptAnswers(path, "w", 3, "\n").add([])
    found = KeptAnswers(path, "w", 3, "\n").get([3, 4])
    assert found is not None and found.ids == one.ids
    uneven = json.loads(path.read_text().splitlines()[-1]) | {"margins": []}
    path.write_text(json.dumps(uneven))
    assert KeptAnswers(path, "w", 3, "\n").get([3, 4]) is None


def test_states_and_files_that_cannot_be(tmp_path):
    questions = asked(2)
    with pytest.raises(InputError, match="leave out 'kept' or 'keep'"):
        answer_all(writer(), questions, Asking("bare"), kept=tmp_path / "a", keep="ends")
    with pytest.raises(InputError, match="cannot be kept in"):
        answer_all(writer(), questions, Asking("bare"), kept=tmp_path)
