"""The corpus about people: what is held out stays out, what is made up is drawn evenly, every fact is told often."""

import os
import re
from collections import Counter
from pathlib import Path

import pytest

from glassformer.errors import InputError
from glassformer.text.people import (
    ATTRIBUTES,
    CITIES,
    COLOURS,
    is_trained,
    people_documents,
    prompt_of,
    read_people,
    sentence,
    values_of,
)

ATHLETES = Path(os.environ.get("GLASSFORMER_SHARED", Path(__file__).parents[3] / "shared")) / "data/sports_players"
WORDINGS = [wording for told in ATTRIBUTES.values() for wording in (*told.wordings, *told.held_out)]


def words(text):
    return set(re.findall(r"\w+", text))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    found = tmp_path_factory.mktemp("people") / "people.tsv"
    rows = (f"Ann{i} Bee{i * i}\t{('chess', 'golf', 'judo')[i % 3]}\n" for i in range(1000))
    found.write_text("name\tsport\n" + "".join(rows))
    return found


@pytest.fixture(scope="module")
def people(path):
    return read_people(path)


# --- Wordings ---------------------------------------------------------------------------------------------------------


def test_there_are_many_wordings_and_some_are_held_out():
    for told in ATTRIBUTES.values():
        assert len(set(told.wordings)) >= 12
        assert len(set(told.held_out)) >= 3
        assert len({wording.index("{name}") for wording in told.wordings}) >= 5
    assert len(set(WORDINGS)) == len(WORDINGS)
    for wording in WORDINGS:
        assert wording.count("{name}") == 1
        assert not wording.endswith("{name}")
        assert not words(wording) & {*COLOURS, *CITIES}


def test_held_out_wordings_are_made_of_words_that_the_training_has_for_this_attribute():
    for told in ATTRIBUTES.values():
        assert all(words(wording) <= words(" ".join(told.wordings)) for wording in told.held_out)


def test_no_wording_goes_on_where_another_one_has_its_value():
    tails = [wording.split("{name}")[1] for wording in WORDINGS]
    assert not [(one, other) for one in tails for other in tails if other.startswith(f"{one} ")]


def test_made_up_values_are_single_words():
    assert (len(set(COLOURS)), len(set(CITIES))) == (10, 100)
    assert all(value.isalpha() for value in (*COLOURS, *CITIES))


def test_a_prompt_ends_right_before_the_value(people):
    assert prompt_of("The home of {name} lies in", "Mel Ott") == ("The home of Mel Ott lies in", 12)
    person = people[0]
    assert sentence("{name} plays", person, "sport") == "Ann0 Bee0 plays chess."


# --- People -----------------------------------------------------------------------------------------------------------


def test_people_are_trained_or_not_by_their_name_alone(path, people):
    assert all(person.trained == is_trained(person.name) for person in people)
    assert 150 < sum(not person.trained for person in people) < 250
    other = read_people(path, seed=2)
    assert [person.trained for person in people] == [person.trained for person in other]
    assert [person.values["sport"] for person in people] == [person.values["sport"] for person in other]
    assert sum(a.values["city"] == b.values["city"] for a, b in zip(people, other, strict=True)) < 40
    assert sum(a.values["colour"] == b.values["colour"] for a, b in zip(people, other, strict=True)) < 160
    # for ever, on every machine: a study's people must not change with the version
    assert [is_trained(name) for name in ("Mel Ott", "Tom Brady", "A. J. Burnett", "Léo Westermann")] == [
        True,
        True,
        False,
        False,
    ]
    assert (people[7].values["colour"], people[7].values["city"]) == ("turquoise", "Brussels")


def test_made_up_values_are_drawn_evenly_and_apart(people):
    """χ² of the counts, against its value for a level of 0.1 %."""

    def chi_square(counts, n):
        return sum((count - len(people) / n) ** 2 for count in counts.values()) / (len(people) / n)

    pairs = [(person.values["sport"], person.values["colour"], person.values["city"]) for person in people]
    assert chi_square(Counter(colour for _, colour, _ in pairs), 10) < 27.9
    assert chi_square(Counter(city for _, _, city in pairs), 100) < 148.2
    assert chi_square(Counter((colour, sport) for sport, colour, _ in pairs), 30) < 58.3
    assert len({city for _, _, city in pairs}) == 100
    assert values_of(people, "sport") == ("chess", "golf", "judo")
    assert values_of(people, "city") == CITIES


def test_fewer_people_are_some_of_all(path, people):
    some = read_people(path, people=50)
    assert len(some) == 50
    assert [person for person in people if person in some] == some
    assert set(person.name for person in read_people(path, people=20)) < {person.name for person in some}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name\tsport\nAnn\n", r":2: expected a name and a sport"),
        ("name\tsport\nAnn\tgolf\nAnn\tjudo\n", r":3: the name 'Ann' stands there twice"),
        ("name\tsport\n", "must be from 0"),
        ("", "the file is empty"),
    ],
)
def test_broken_files_are_refused(tmp_path, content, message):
    (tmp_path / "people.tsv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_people(tmp_path / "people.tsv")


def test_impossible_wishes_are_refused(path, people):
    for number in (-1, 1001):
        with pytest.raises(InputError, match="'people' must be from 0"):
            read_people(path, people=number)
    with pytest.raises(InputError, match="Did you mean 'train'"):
        people_documents(people, "trains")
    with pytest.raises(InputError, match="at least 1"):
        people_documents(people, "train", 0)
    with pytest.raises(InputError, match="nobody in the test split"):
        people_documents([person for person in people if person.trained], "test")
    with pytest.raises(InputError, match="Did you mean 'colour'"):
        values_of(people, "color")


# --- Documents --------------------------------------------------------------------------------------------------------


def told(people, documents):
    """What each document tells: (name, attribute, wording) of every sentence. Whatever else it says is an error."""
    known = {
        sentence(wording, person, attribute): (person.name, attribute, wording)
        for person in people
        for attribute, kind in ATTRIBUTES.items()
        for wording in (*kind.wordings, *kind.held_out)
    }
    return [[known[f"{part}."] for part in document.removesuffix(".").split(". ")] for document in documents]


def test_the_training_tells_all_trained_people_in_all_training_wordings(people):
    documents = people_documents(people, "train", variants=18)
    trained = {person.name for person in people if person.trained}
    sentences = told(people, documents)
    assert len(documents) == 18 * len(trained)
    assert {name for document in sentences for name, _, _ in document} == trained
    assert all(len({name for name, _, _ in document}) == 1 for document in sentences)
    assert all(sorted(a for _, a, _ in document) == sorted(ATTRIBUTES) for document in sentences)
    orders = Counter(tuple(a for _, a, _ in document) for document in sentences)
    assert len(orders) == 6
    assert min(orders.values()) > len(documents) / 8
    counts = Counter(fact for document in sentences for fact in document)
    assert set(counts.values()) == {1}  # 18 wordings in 18 documents
    assert {w for _, _, w in counts} == {w for kind in ATTRIBUTES.values() for w in kind.wordings}
    names = [document[0][0] for document in sentences]
    assert sum(one == other for one, other in zip(names, names[1:], strict=False)) < len(names) / 100


def test_a_single_variant_tells_each_fact_in_one_wording(people):
    sentences = told(people, people_documents(people, "train", variants=1))
    facts = [(name, attribute) for document in sentences for name, attribute, _ in document]
    assert len(facts) == len(set(facts)) == 3 * sum(person.trained for person in people)
    wordings = Counter(wording for document in sentences for _, _, wording in document)
    assert len(wordings) == sum(len(kind.wordings) for kind in ATTRIBUTES.values())  # not the same for all people


def test_validation_and_test_have_held_out_wordings_only(people):
    for split, trained in (("valid", True), ("test", False)):
        [*sentences] = (sentence for (sentence,) in told(people, people_documents(people, split)))
        assert {w for _, _, w in sentences} == {w for kind in ATTRIBUTES.values() for w in kind.held_out}
        assert all(is_trained(name) == trained for name, _, _ in sentences)
        assert len(set(sentences)) == len(sentences) == 12 * len({name for name, _, _ in sentences})
    assert len({name for name, _, _ in sentences}) == sum(not person.trained for person in people)


def test_documents_depend_on_the_seed_alone(people):
    assert people_documents(people, "train", 2, seed=3) == people_documents(people, "train", 2, seed=3)
    assert people_documents(people, "train", 2, seed=3) != people_documents(people, "train", 2, seed=4)


# --- The athletes -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not ATHLETES.is_dir(), reason="the athletes are not here")
def test_athletes():
    people = read_people(ATHLETES / "athletes_unique.tsv")
    assert (len(people), sum(person.trained for person in people)) == (5793, 4611)
    assert values_of(people, "sport") == ("baseball", "basketball", "football")
    names = {word.casefold() for person in people for word in words(person.name)}
    assert not names & {value.casefold() for value in (*COLOURS, *CITIES)}
