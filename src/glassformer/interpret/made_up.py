"""Made-up names in the place of real ones: what a model answers then, it does not know, it guesses from the prompt."""

from __future__ import annotations

import random
from collections.abc import Sequence

from glassformer.interpret.shots import gives_away

# Frequent letters, so that the names read like names.
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"
_TRIES = 100


def made_up_name(name: str, seed: int, answers: Sequence[str] = ()) -> str:
    """A name of no one, shaped like `name`: as many words, letters and capitals at the same places, other letters.

    Letters alternate between consonants and vowels, word by word; digits become other digits, all else stays. It
    depends on the name and the seed alone, and gives none of `answers` away, unless all of 100 draws do.
    """
    draw = random.Random(f"made up {seed} {name}")
    found = name
    for _ in range(_TRIES):
        found = _drawn(name, draw)
        if found.casefold() != name.casefold() and not any(gives_away(found, answer) for answer in answers):
            break
    return found


def _drawn(name: str, draw: random.Random) -> str:
    letters: list[str] = []
    vowel = False
    for n, character in enumerate(name):
        if not (n and name[n - 1].isalpha()):
            vowel = draw.random() < 0.3  # a word begins
        if character.isalpha():
            letter = draw.choice(_VOWELS if vowel else _CONSONANTS)
            letters.append(letter.upper() if character.isupper() else letter)
            vowel = not vowel
        else:
            letters.append(draw.choice("123456789") if character.isdecimal() else character)
    return "".join(letters)
