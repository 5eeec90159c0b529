"""Facts about the people of `text/people.py`: what a GPT that was trained on them is asked, and what it cannot know.

people = people_of(recipe.data, root)                                  # training/jobs/language.py
people_facts(people, "city").known(model).gate                         # recall of held-out wordings
people_facts(people, "city", who="never").known(model).gate            # chance, 1 of 100
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from glassformer.errors import InputError, did_you_mean
from glassformer.interpret.facts import Fact, Facts
from glassformer.text.people import ATTRIBUTES, Person, prompt_of, values_of

Who = Literal["trained", "never"]
Wordings = Literal["held-out", "trained"]


def people_facts(
    people: Sequence[Person],
    attribute: str,
    *,
    who: Who = "trained",
    wordings: Wordings = "held-out",
    wording: int | None = None,
) -> Facts:
    """The facts of one attribute ("sport", "colour", "city") of the trained people, or of those who are never trained,
    in wordings that the training has or that are held out of it: one fact for each person and wording, with the
    attribute as its relation and a prompt that ends right before the value.

    `wording` takes one of the wordings, by number. Facts of a person stand together, in the order of `people`; a part
    of the people gives a part of the facts. Raises `InputError` for an unknown attribute or wording.
    """
    for name, value, known in (("who", who, get_args(Who)), ("wordings", wordings, get_args(Wordings))):
        if value not in known:
            raise InputError(f"'{name}' must be {' or '.join(known)}, got {value!r}.{did_you_mean(str(value), known)}")
    values_of(people, attribute)
    told = ATTRIBUTES[attribute]
    texts = list(enumerate(told.held_out if wordings == "held-out" else told.wordings))
    if wording is not None:
        if not 0 <= wording < len(texts):
            raise InputError(f"there are {len(texts)} {wordings} wordings of '{attribute}', from 0; got {wording}.")
        texts = [texts[wording]]
    chosen = [person for person in people if person.trained == (who == "trained")]
    return Facts(tuple(_fact(person, attribute, f"{wordings}-{n}", text) for person in chosen for n, text in texts))


def _fact(person: Person, attribute: str, wording: str, text: str) -> Fact:
    prompt, start = prompt_of(text, person.name)
    identity = f"{attribute}-{wording}-{person.name}"
    return Fact(identity, person.name, attribute, prompt, (person.values[attribute],), start)
