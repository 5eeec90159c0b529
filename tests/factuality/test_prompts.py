"""How questions are put, with which examples, and what is made of the answers."""

from collections import Counter

import pytest
from factuality.labels import labels
from tasks.small_writers import writer

from glassformer.errors import InputError
from glassformer.factuality import labelling
from glassformer.factuality.calibration import Asking
from glassformer.factuality.labelling import Answered, answer_all, asking_of, audit_rows, labelled, prompt_ids_of
from glassformer.factuality.prompts import ids_of, messages_of, pool_of, prompt_of, relation_of, shots_for
from glassformer.factuality.questions import Question
from glassformer.factuality.records import record
from glassformer.factuality.uncertainty import ONE_PASS
from glassformer.text.pipeline import TextPipeline

MONA = Question("m", "Who painted  it?", ("Leonardo",), "Leonardo\npainted it.", "Mona Lisa", "painter")
SHOT = Question("s", "Who painted Guernica?", ("Picasso", "Pablo"), None, "Guernica", "painter")


def asked(n, relation="r", answers=("red", "blue", "green")):
    return [
        Question(f"{relation}{i}", f"What of {i}?", (answers[i % len(answers)],), entity=f"E{i}", relation=relation)
        for i in range(n)
    ]


# --- Prompts ----------------------------------------------------------------------------------------------------------


def test_plain_prompts():
    assert prompt_of(MONA, style="bare") == "Q: Who painted it?\nA:"
    assert prompt_of(MONA, [SHOT]) == "Q: Who painted Guernica?\nA: Picasso\nQ: Who painted it?\nA:"
    assert prompt_of(MONA, style="may-abstain").startswith("Answer in a few words. If you are not sure, say \"I don't")
    with_text = prompt_of(MONA, [SHOT], "with-evidence").splitlines()
    assert with_text[1:] == [
        *("Q: Who painted Guernica?", "A: Picasso", "Text: Leonardo painted it.", "Q: Who painted it?", "A:")
    ]


def test_conversations():
    assert messages_of(MONA) == [{"role": "user", "content": "Answer in a few words.\nWho painted  it?"}]
    turns = messages_of(MONA, [SHOT], "with-evidence")
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[0]["content"].endswith("Who painted Guernica?") and "this text only" in turns[0]["content"]
    assert turns[1]["content"] == "Picasso"
    assert turns[2]["content"] == "Leonardo\npainted it.\n\nWho painted  it?"


def test_a_model_that_chats_is_asked_by_its_template_but_for_few_shot():
    model = writer()
    chat = model.tokenizer.decode(ids_of(model, MONA, style="bare"))
    assert chat == "u:Answer in a few words.\nWho painted  it?\na:"
    assert model.tokenizer.decode(ids_of(model, MONA, [SHOT])) == prompt_of(MONA, [SHOT])
    plain = labelling.replace(model, pipeline=TextPipeline(unicode="none"))
    assert model.tokenizer.decode(ids_of(plain, MONA, style="bare")) == "Q: Who painted it?\nA:"


def test_prompts_that_cannot_be():
    with pytest.raises(InputError, match="Did you mean 'few-shot'"):
        prompt_of(MONA, style="few-shots")
    with pytest.raises(InputError, match="no context"):
        prompt_of(SHOT, style="with-evidence")
    with pytest.raises(InputError, match="must have an answer, 'x'"):
        prompt_of(MONA, [Question("x", "Why?", ())])


# --- Shots ------------------------------------------------------------------------------------------------------------


def test_shots_are_of_the_relation_and_of_other_entities_and_show_every_answer():
    pool = [*asked(30), *asked(30, "other")]
    for question in pool:
        shots = shots_for(question, pool, 3, 7)
        assert len({shot.id for shot in shots}) == 3 and question.entity not in [shot.entity for shot in shots]
        assert {shot.relation for shot in shots} == {question.relation}
        assert sorted(shot.answers[0] for shot in shots) == ["blue", "green", "red"]
        assert set(Counter(shot.answers[0] for shot in shots_for(question, pool, 6, 7)).values()) == {2}
    assert len({tuple(shot.id for shot in shots_for(one, pool, 3, 7)) for one in asked(30)}) <= 4  # the same for most
    assert shots_for(pool[0], pool, 3, 7) != shots_for(pool[0], pool, 3, 8)


def test_where_a_relation_has_too_few_the_rest_are_of_others():
    pool = [*asked(2), *asked(9, "other")]
    shots = shots_for(pool[0], pool, 3, 0)
    assert [shot.relation for shot in shots] == ["r", "other", "other"]
    new = Question("n", "What?", ("x",), relation="unseen")
    assert len(shots_for(new, pool, 3, 0)) == 3
    with pytest.raises(InputError, match="11 shots"):
        shots_for(pool[0], pool, 11, 0)


def test_a_question_without_answers_is_no_shot():
    pool = [Question(str(i), "What?", () if i else ("x",)) for i in range(5)]
    assert [shot.id for shot in shots_for(Question("n", "What?", ()), pool, 1, 0)] == ["0"]


def test_a_pool_is_all_that_shots_need():
    questions = [*asked(30), *asked(30, "other"), Question("again", "What?", ("x",), "C", "E1", "r")]
    pool = pool_of(questions, 3, 5)
    assert Counter(one.relation for one in pool) == {"r": 6, "other": 6}
    assert all(one.context is None for one in pool)
    for question in questions:
        shots = shots_for(question, pool, 3, 5)
        assert {shot.relation for shot in shots} == {question.relation} and len({shot.answers for shot in shots}) == 3


def test_a_relation_is_told_by_its_wording():
    asks = {
        "capital": "What is the capital of {}?",
        "money": "What is the official currency of {}?",
        "at": "{} lies in",
    }
    pool = [Question(f"{r}{e}", q.format(e), ("x",), None, e, r) for r, q in asks.items() for e in ("Peru", "Mali")]
    for relation, wording in asks.items():
        assert relation_of(wording.format("New Guinea"), pool) == relation
    assert relation_of("Tell me the capital of Peru, please!", pool) == "capital"
    assert relation_of("Who painted the Mona Lisa?", pool) == "" == relation_of("Peru", pool)
    assert relation_of("What is it?", []) == "" == relation_of("What is it?", [MONA])


# --- Labelled answers -------------------------------------------------------------------------------------------------


def test_every_question_is_asked_in_this_way_and_judged():
    model, questions = writer(positions=96), asked(70)
    asking = asking_of(questions, Asking("few-shot", 1, 0, 4))
    assert len(asking.shots) == 2 and prompt_ids_of(model, questions[0], asking)
    told: list[str] = []
    answered = answer_all(model, questions, asking, say=told.append)
    assert [one.question for one in answered] == questions
    assert len(told) == 3 and told[-1].startswith("70 of 70 questions answered, ")
    for one in answered[::20]:
        assert one.record.prompt_ids == tuple(prompt_ids_of(model, one.question, asking))
        again = record(model, [list(one.record.prompt_ids)], max_new_tokens=4, stop="\n")[0]
        assert one.record.text == again.text and one.record.logprobs == pytest.approx(again.logprobs, abs=1e-4)


def test_an_answer_in_a_sentence_counts_unless_shots_showed_how_to_answer(monkeypatch):
    class Said:
        text = "It is red, I think"

    def records_of(model, prompts, groups, **settings):
        yield list(range(len(prompts))), [Said() for _ in prompts]

    monkeypatch.setattr(labelling, "records_of", records_of)
    model, questions = writer(), asked(3)
    assert [one.right for one in answer_all(model, questions, Asking("bare"))] == [True, False, False]
    asking = asking_of(questions, Asking("few-shot", 1))
    assert not any(one.right for one in answer_all(model, questions, asking))


def test_relations_are_told_where_prompts_have_no_shots():
    """A risk that was made of relations is for new questions as it was for those of the calibration."""
    questions = [
        Question(f"{name}{i}", wording.format(f"X{i}"), ("a",), entity=f"X{i}", relation=name)
        for name, wording in (("capital", "What is the capital of {}?"), ("sport", "What sport does {} play?"))
        for i in range(4)
    ]
    asking = asking_of(questions, Asking("bare"))
    assert relation_of("What sport does Pelé play?", asking.shots) == "sport"
    assert relation_of("What is the capital of Peru?", asking.shots) == "capital"
    model = writer()
    assert prompt_ids_of(model, questions[0], asking) == ids_of(model, questions[0], style="bare")


def test_scores_and_labels():
    model, questions = writer(), asked(5)
    answered = answer_all(model, questions, Asking("bare", max_new_tokens=3))
    found = labelled(answered)
    assert list(found.scores) == list(ONE_PASS) and found.wrong == [not one.right for one in answered]
    assert found.scores["answer length"] == [len(one.record.ids) for one in answered]
    assert list(labelled(answered, ["perplexity"]).scores) == ["perplexity"]
    with pytest.raises(InputError, match="Did you mean 'perplexity'"):
        labelled(answered, ["perplexty"])


def test_an_audit_is_a_sample_with_all_that_a_person_needs():
    given = labels(40)
    answered = [
        Answered(q, type("R", (), {"text": " x "})(), not w) for q, w in zip(given.questions, given.wrong, strict=True)
    ]
    rows = list(audit_rows(answered, 10, 3))
    assert len({row["id"] for row in rows}) == 10 and rows == list(audit_rows(answered, 10, 3))
    for row in rows:
        place = int(row["id"][1:])
        assert row["right"] is (not given.wrong[place]) and row["expected"] == ["x"] and row["answer"] == "x"
        assert row["question"] == f"What is {place}?"
    assert len(list(audit_rows(answered, 99, 3))) == 40
