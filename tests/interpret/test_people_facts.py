"""Facts about the people of the corpus: complete them, and they are its sentences."""

import pytest

from glassformer.errors import InputError
from glassformer.interpret.people_facts import people_facts
from glassformer.text.people import ATTRIBUTES, people_documents, read_people, values_of


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    path = tmp_path_factory.mktemp("people") / "people.tsv"
    path.write_text("name\tsport\n" + "".join(f"Ann{i} Bee\t{('chess', 'golf')[i % 2]}\n" for i in range(60)))
    return read_people(path, seed=5)


def completed(facts):
    return {f"{fact.prompt} {fact.answer}." for fact in facts}


def test_held_out_facts_are_the_validation_and_the_test(people):
    for who, split in (("trained", "valid"), ("never", "test")):
        facts = [fact for attribute in ATTRIBUTES for fact in people_facts(people, attribute, who=who)]
        assert completed(facts) == set(people_documents(people, split))
        assert all(fact.prompt[fact.start : fact.end] == fact.subject for fact in facts)
        assert len({fact.id for fact in facts}) == len(facts)


def test_trained_facts_are_in_the_training(people):
    text = " ".join(people_documents(people, "train", variants=18))
    for attribute in ATTRIBUTES:
        facts = people_facts(people, attribute, wordings="trained")
        assert all(sentence in text for sentence in completed(facts))
        assert not any(sentence in text for sentence in completed(people_facts(people, attribute)))
        assert not any(sentence in text for sentence in completed(people_facts(people, attribute, who="never")))
        assert set(facts.labels) <= set(values_of(people, attribute))
        assert {fact.relation for fact in facts} == {attribute}


def test_one_wording_has_one_fact_a_person(people):
    trained = [person.name for person in people if person.trained]
    facts = people_facts(people, "city", wording=2)
    assert facts.subjects == trained
    assert facts[0].prompt == ATTRIBUTES["city"].held_out[2].replace("{name}", trained[0])
    whole = people_facts(people, "city")
    assert whole[2 :: len(ATTRIBUTES["city"].held_out)] == facts
    pairs = zip(whole, whole.swapped(), strict=True)
    assert all(a.prompt.replace(a.subject, "") == b.prompt.replace(b.subject, "") for a, b in pairs)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"attribute": "citi"}, "Did you mean 'city'"),
        ({"attribute": "city", "who": "nobody"}, "'who' must be trained or never"),
        ({"attribute": "city", "wordings": "heldout"}, "Did you mean 'held-out'"),
        ({"attribute": "city", "wording": 4}, "there are 4 held-out wordings"),
    ],
)
def test_unknown_wishes_are_refused(people, wish, message):
    with pytest.raises(InputError, match=message):
        people_facts(people, **wish)
