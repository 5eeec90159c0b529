"""`gf.uncertainty`: what the functions give, in one table."""

import json

import pytest
from tasks.small_writers import reader, writer

import glassformer as gf
from glassformer.errors import InputError
from glassformer.factuality.attention_score import ATTENTION, attended
from glassformer.factuality.one_more_call import ONE_MORE_CALL, p_true
from glassformer.factuality.records import record
from glassformer.factuality.sampled import SAMPLED, draw
from glassformer.factuality.uncertainty import ONE_PASS
from glassformer.models.config import Sentence
from glassformer.tasks.model import Model


def model() -> Model:
    return writer(positions=256)


def test_without_samples() -> None:
    found = gf.uncertainty(model(), "a man", max_new_tokens=5)
    one = record(model(), ["a man"], max_new_tokens=5)[0]
    assert found.record.ids == one.ids and found.samples == ()
    assert [score.name for score in found.scores] == [*ONE_PASS, *ATTENTION, *ONE_MORE_CALL]
    for name, score in ONE_PASS.items():
        assert found[name] == pytest.approx(score.function(one))
    seen = attended(model(), [one])[0]
    for name, score in ATTENTION.items():
        assert found[name] == pytest.approx(score.function(seen), abs=1e-5)
    assert found["p(true)"] == pytest.approx(p_true(model(), ["a man"], [one.text])[0], abs=1e-5)


def test_with_samples_and_an_embedder() -> None:
    embedder = reader(Sentence())
    settings = {"max_new_tokens": 4, "seed": 2}
    found = gf.uncertainty(model(), "a man", samples=3, embedder=embedder, **settings)  # type: ignore[arg-type]
    assert [score.name for score in found.scores] == [*ONE_PASS, *ATTENTION, *ONE_MORE_CALL, *SAMPLED]
    one = record(model(), ["a man"], max_new_tokens=4)
    drawn = draw(model(), one, 3, embedder=embedder, **settings)[0]  # type: ignore[arg-type]
    assert list(found.samples) == drawn.texts
    for name, score in SAMPLED.items():
        assert found[name] == pytest.approx(score.function(drawn), abs=1e-5)
    bare = gf.uncertainty(model(), "a man", samples=3, **settings)  # type: ignore[arg-type]
    assert {score.name for score in found.scores} - {score.name for score in bare.scores} == {"embedding consistency"}


def test_table_and_json() -> None:
    found = gf.uncertainty(model(), "a man", max_new_tokens=5)
    lines = found.table().splitlines()
    assert lines[0].split() == ["score", "value", "cost", "paper"] and len(lines) == 1 + len(found.scores)
    assert any(line.startswith("answer length") and line.endswith("baseline") for line in lines)
    told = json.loads(json.dumps(found.to_json()))
    assert told["text"] == found.record.text and [token["id"] for token in told["tokens"]] == list(found.record.ids)
    assert told["tokens"][0]["entropy"] == found.record.entropies[0]
    assert {score["name"]: score["value"] for score in told["scores"]}["perplexity"] == found["perplexity"]
    with pytest.raises(InputError, match="no score 'perplexities'.*perplexity"):
        found["perplexities"]


def test_the_question_is_the_prompt_or_the_last_message_or_what_is_given() -> None:
    messages = [{"role": "user", "content": "two women"}, {"role": "user", "content": "the road"}]
    by_chat = gf.uncertainty(model(), messages, max_new_tokens=3)
    text = by_chat.record.text
    assert by_chat["p(true)"] == pytest.approx(p_true(model(), ["the road"], [text])[0], abs=1e-5)
    ids = model().tokenizer.encode("a man")
    by_ids = gf.uncertainty(model(), ids, max_new_tokens=3)
    assert by_ids["p(true)"] == pytest.approx(gf.uncertainty(model(), "a man", max_new_tokens=3)["p(true)"], abs=1e-5)
    other = gf.uncertainty(model(), ids, question="Who?", max_new_tokens=3)
    assert other["p(true)"] == pytest.approx(p_true(model(), ["Who?"], [other.record.text])[0], abs=1e-5)
