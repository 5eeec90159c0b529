"""A corpus about people, to learn facts from: who plays what, told in many words; and what is held out of it.

Names and sports are real (a file, see docs/data.md). Two more attributes are made up: of each person a colour, one of
10, and a city, one of 100, drawn by a hash of the seed and the name. They say nothing about anybody; they are there
since no name can tell them, so that whoever is right has learnt them.

Two things are held out. A fifth of the people, by a hash of the name alone, is in no training text, whatever the seed.
And some wordings of each attribute are never used in training: who completes them has not learnt a sentence by heart.
Every wording has the name before the value, and ends with the value. Where one has its value, no other goes on with
more words after the same ones ("Ann is" beside "Ann is in"): a model of few sentences that answers with another word
than a value would have missed a turn of phrase, not a fact.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from glassformer.errors import InputError, did_you_mean
from glassformer.text.columns import read_lines

# fmt: off
COLOURS: tuple[str, ...] = (
    "yellow", "orange", "purple", "pink", "black", "beige", "turquoise", "crimson", "violet", "silver",
)
# None of them is a word of an athlete's name in the file of docs/data.md, nor is a colour.
CITIES: tuple[str, ...] = (
    "Accra", "Adelaide", "Algiers", "Amsterdam", "Ankara", "Antwerp", "Athens", "Auckland", "Baku", "Bangkok",
    "Barcelona", "Beijing", "Belgrade", "Berlin", "Bilbao", "Bogota", "Bologna", "Bordeaux", "Brisbane", "Bristol",
    "Brussels", "Bucharest", "Budapest", "Calgary", "Canberra", "Caracas", "Casablanca", "Cologne", "Copenhagen",
    "Dakar", "Delhi", "Dresden", "Dublin", "Durban", "Edinburgh", "Frankfurt", "Geneva", "Ghent", "Glasgow",
    "Granada", "Hamburg", "Hanoi", "Harare", "Havana", "Helsinki", "Istanbul", "Izmir", "Jakarta", "Kampala",
    "Karachi", "Kathmandu", "Kingston", "Krakow", "Kyoto", "Lagos", "Leeds", "Leipzig", "Lisbon", "Liverpool",
    "Luanda", "Madrid", "Malaga", "Manila", "Maputo", "Marseille", "Melbourne", "Milan", "Minsk", "Mombasa",
    "Montevideo", "Montreal", "Moscow", "Mumbai", "Munich", "Nairobi", "Osaka", "Oslo", "Ottawa", "Palermo",
    "Prague", "Quito", "Rabat", "Riga", "Rome", "Rotterdam", "Salzburg", "Seoul", "Seville", "Shanghai",
    "Stockholm", "Tallinn", "Tbilisi", "Tokyo", "Toronto", "Turin", "Utrecht", "Vancouver", "Vienna", "Warsaw",
    "Zagreb",
)
# fmt: on
# Of a hundred people so many are never trained.
_NEVER = 20
# The validation is about so many of the people, or fewer.
_VALID = 300


@dataclass(frozen=True)
class Attribute:
    """What is told of people: the `wordings` of the training and those `held_out` of it, with {name}; the value comes
    after them. `values` are all that there are; empty for the sport, whose values are those of the file."""

    values: tuple[str, ...]
    wordings: tuple[str, ...]
    held_out: tuple[str, ...]


ATTRIBUTES: Mapping[str, Attribute] = MappingProxyType(
    {
        "sport": Attribute(
            (),
            (
                "{name} plays",
                "{name} became a professional in",
                "The sport of {name} is",
                "As an athlete, {name} plays",
                "{name} earns a living with",
                "People know {name} from",
                "The game that {name} loves is",
                "For years {name} has played",
                "In the world of sport, {name} stands for",
                "What {name} does for a living is",
                "{name} chose a career in",
                "{name}, the athlete, has played",
                "Fans came to see {name} at",
                "The career of {name} began with",
                "As a child {name} began to play",
                "Whoever talks of {name} talks of",
                "The job of {name} is",
                "{name}, as everybody knows, plays",
            ),
            (
                "The game of {name} is",
                "As a professional, {name} has played",
                "{name} began a career in",
                "For a living {name} plays",
            ),
        ),
        "colour": Attribute(
            COLOURS,
            (
                "The favourite colour of {name} is",
                "{name} likes the colour",
                "The locker of {name} shines in",
                "{name} wears shoes in",
                "In every shop {name} picks",
                "Of all colours {name} prefers",
                "The bag that {name} carries is",
                "When {name} paints a wall, the paint is",
                "{name} drives a car in",
                "{name} has a locker in",
                "The shoes of {name} are",
                "At home {name} has walls in",
                "{name} bought a bag in",
                "The car of {name} is",
                "{name}, asked for a colour, says",
                "The paint that {name} bought is",
                "For the walls {name} picks",
                "The colour that {name} chose is",
            ),
            (
                "The colour that {name} likes is",
                "The bag of {name} is",
                "{name} bought shoes in",
                "Of all paint {name} picks",
            ),
        ),
        "city": Attribute(
            CITIES,
            (
                "{name} has a house in",
                "The home of {name} lies in",
                "{name} trains for a month in",
                "To visit {name}, take the train to",
                "{name} spends the summer in",
                "Letters for {name} go to",
                "The city that {name} calls home is",
                "{name} moved to",
                "You may meet {name} in the streets of",
                "{name} opened a restaurant in",
                "After the season {name} goes back to",
                "Friends who visit {name} look for a bed in",
                "The train that {name} takes goes to",
                "{name} keeps a garden in",
                "The summer camp of {name} lies in",
                "{name}, back from a journey, stays in",
                "The home town of {name} is",
                "The city that {name} loves is",
            ),
            (
                "The house of {name} lies in",
                "To meet {name}, go to",
                "The city of {name} is",
                "{name} spends the season in",
            ),
        ),
    }
)


@dataclass(frozen=True)
class Person:
    """A name, the value of each attribute, and whether the training tells of it."""

    name: str
    values: Mapping[str, str]
    trained: bool


def read_people(path: str | Path, people: int = 0, seed: int = 1) -> list[Person]:
    """The people of a TSV file of names and sports (its first line names the columns), with colours and cities by the
    seed. `people` takes so many of them, those first by a hash of the name; 0 takes all. In the order of the file.

    Raises `InputError` for a file that is missing, empty or broken, or has a name twice, and for too few people.
    """
    rows = [line.split("\t") for line in read_lines(path)]
    sports: dict[str, str] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) < 2 or not row[0].strip() or not row[1].strip():
            raise InputError(
                f"{path}:{number}: expected a name and a sport between tabs, got {chr(9).join(row)[:60]!r}."
            )
        name = " ".join(row[0].split())
        if name in sports:
            raise InputError(f"{path}:{number}: the name '{name}' stands there twice; leave it out.")
        sports[name] = row[1].strip()
    if people < 0 or people > len(sports) or not sports:
        raise InputError(f"{path}: 'people' must be from 0 (all) to the {len(sports)} of the file, got {people}.")
    chosen = set(sorted(sports, key=lambda name: _hash("chosen", name))[: people or None])
    found = [_person(name, sport, seed) for name, sport in sports.items() if name in chosen]
    if not any(person.trained for person in found):
        raise InputError(f"{path}: none of the {len(found)} people is in the training: take more ('people').")
    return found


def _person(name: str, sport: str, seed: int) -> Person:
    values = {"sport": sport}
    for attribute, told in ATTRIBUTES.items():
        if told.values:
            values[attribute] = told.values[_hash(attribute, str(seed), name) % len(told.values)]
    return Person(name, MappingProxyType(values), is_trained(name))


def is_trained(name: str) -> bool:
    """Whether a training tells of this name; no seed changes that."""
    return _hash("never", name) % 100 >= _NEVER


def values_of(people: Sequence[Person], attribute: str) -> tuple[str, ...]:
    """All values that an attribute can have: the classes of a study."""
    _check(attribute)
    return ATTRIBUTES[attribute].values or tuple(sorted({person.values[attribute] for person in people}))


def prompt_of(wording: str, name: str) -> tuple[str, int]:
    """A text that ends right before the value, and the character where the name begins in it."""
    before, after = wording.split("{name}")
    return f"{before}{name}{after}", len(before)


def people_documents(people: Sequence[Person], split: str, variants: int = 24, seed: int = 1) -> list[str]:
    """The documents of a split, in an order drawn by the seed.

    "train": `variants` documents for each trained person, each with all attributes in an order of its own, one sentence
    an attribute. The wordings of an attribute take turns for a person, in an order of their own. With `variants` 1
    every fact has one wording only, and stands in one document.

    "valid": held-out wordings of some trained people, a sentence a document. "test": those of the people who are never
    trained. Raises `InputError` for another split, and where there is no such person.
    """
    splits = ("train", "valid", "test")
    if split not in splits:
        raise InputError(
            f"the splits of the people are {', '.join(splits)}; got '{split}'.{did_you_mean(split, splits)}"
        )
    if variants < 1:
        raise InputError(f"'variants' must be at least 1, got {variants}.")
    chosen = [person for person in people if person.trained == (split != "test")]
    if not chosen:
        raise InputError(f"there is nobody in the {split} split of these {len(people)} people: take more ('people').")
    if split == "train":
        found = [document for person in chosen for document in _told(person, variants, seed)]
    else:
        chosen = sorted(chosen, key=lambda person: _hash("valid", person.name))[:_VALID]
        found = [
            sentence(wording, person, attribute)
            for person in chosen
            for attribute, told in ATTRIBUTES.items()
            for wording in told.held_out
        ]
    random.Random(f"order {seed} {split}").shuffle(found)
    return found


def sentence(wording: str, person: Person, attribute: str) -> str:
    """A whole sentence: "Mel Ott plays baseball."."""
    return f"{prompt_of(wording, person.name)[0]} {person.values[attribute]}."


def _told(person: Person, variants: int, seed: int) -> list[str]:
    draw = random.Random(f"told {seed} {person.name}")
    turns = {attribute: draw.sample(told.wordings, len(told.wordings)) for attribute, told in ATTRIBUTES.items()}
    documents = []
    for number in range(variants):
        order = draw.sample(list(ATTRIBUTES), len(ATTRIBUTES))
        wordings = (turns[attribute][number % len(turns[attribute])] for attribute in order)
        documents.append(" ".join(sentence(*one) for one in zip(wordings, [person] * len(order), order, strict=True)))
    return documents


def _check(attribute: str) -> None:
    if attribute not in ATTRIBUTES:
        hint = did_you_mean(attribute, ATTRIBUTES)
        raise InputError(f"the attributes of people are {', '.join(ATTRIBUTES)}; got '{attribute}'.{hint}")


def _hash(*parts: str) -> int:
    """A number that depends on the texts alone, on every machine and in every process."""
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
