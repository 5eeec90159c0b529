"""Porter's stemmer: English words without their endings, so that "connected" and "connections" count as one word.

M. F. Porter 1980, "An algorithm for suffix stripping", with the two rules that Porter changed later (bli, logi) and the
departures that NLTK makes by default, because scores that are to be compared (ROUGE) are measured with those. The
departures are marked "NLTK" below.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

# NLTK: words whose stem the rules would miss.
_IRREGULAR = {
    "skies": "sky",
    "sky": "sky",
    "dying": "die",
    "lying": "lie",
    "tying": "tie",
    "news": "news",
    "innings": "inning",
    "inning": "inning",
    "outings": "outing",
    "outing": "outing",
    "cannings": "canning",
    "canning": "canning",
    "howe": "howe",
    "proceed": "proceed",
    "exceed": "exceed",
    "succeed": "succeed",
}

# A rule is (ending, replacement). Of the rules whose ending a word has, the longest one counts, and it alone:
# within a step longer endings stand first.
_Rules = tuple[tuple[str, str], ...]
_STEP_1A: _Rules = (("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", ""))
_STEP_2: _Rules = (
    ("ational", "ate"),
    ("ization", "ize"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("tional", "tion"),
    ("biliti", "ble"),
    ("entli", "ent"),
    ("ousli", "ous"),
    ("ation", "ate"),
    ("alism", "al"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("fulli", "ful"),  # NLTK
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("alli", "al"),
    ("ator", "ate"),
    ("logi", "log"),  # Porter's later version; NLTK counts the l of the ending to the stem
    ("bli", "ble"),  # Porter's later version, for "abli", "able"
    ("eli", "e"),
)
_STEP_3: _Rules = (
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ness", ""),
    ("ful", ""),
)
# fmt: off
_STEP_4: _Rules = tuple((ending, "") for ending in (
    "ement", "ance", "ence", "able", "ible", "ment", "ant", "ent", "ion", "ism", "ate", "iti", "ous", "ive", "ize",
    "al", "er", "ic", "ou",
))
# fmt: on


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """The stem of one English word in lower case; it need not be a word itself ("ponies" → "poni").

    The steps of Porter 1980 one after the other, each of them at most one rule. Characters other than a, e, i, o, u
    and y are consonants. Words of one or two letters have no ending (NLTK; Porter's program does so too).
    """
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 2:
        return word
    word = _past_and_participle(_plural(word))
    word = _final_y(word)
    word = _adverbs_and_nouns(word)
    word = _apply(_STEP_3, word, lambda rest, _: measure(rest) > 0)
    word = _apply(_STEP_4, word, lambda rest, ending: measure(rest) > 1 and (ending != "ion" or rest[-1] in "st"))
    return _final_e_and_ll(word)


def shape(word: str) -> str:
    """A letter `v` for each vowel of the word and `c` for each consonant; y is a vowel after a consonant alone."""
    letters: list[str] = []
    for letter in word:
        vowel = letter in "aeiou" or (letter == "y" and letters[-1:] == ["c"])
        letters.append("v" if vowel else "c")
    return "".join(letters)


def measure(word: str) -> int:
    """Porter's m: any word has the form [C](VC)^m[V], with C a run of consonants and V a run of vowels."""
    return shape(word).count("vc")


def _ends_short(word: str) -> bool:
    """Porter's *o: consonant, vowel, consonant at the end, the last not w, x or y (hop); NLTK: or a whole "at"."""
    form = shape(word)
    return (form.endswith("cvc") and word[-1] not in "wxy") or form == "vc"


def _apply(rules: _Rules, word: str, holds: Callable[[str, str], bool]) -> str:
    """The word with its longest ending among the rules replaced, if the rest before that ending (and it) allow that."""
    for ending, replacement in rules:
        if word.endswith(ending):
            rest = word.removesuffix(ending)
            return rest + replacement if holds(rest, ending) else word
    return word


def _plural(word: str) -> str:
    """Step 1a: caresses → caress, ponies → poni, cats → cat."""
    if word.endswith("ies") and len(word) == 4:
        return word.removesuffix("s")  # NLTK: ties → tie, as ti is no stem
    return _apply(_STEP_1A, word, lambda rest, ending: True)


def _past_and_participle(word: str) -> str:
    """Step 1b: agreed → agree, plastered → plaster, hopping → hop, filing → file."""
    if word.endswith("ied"):
        return word.removesuffix("d" if len(word) == 4 else "ed")  # NLTK: died → die, spied → spi
    if word.endswith("eed"):
        return word.removesuffix("d") if measure(word.removesuffix("eed")) > 0 else word
    for ending in ("ed", "ing"):
        rest = word.removesuffix(ending)
        if rest != word and "v" in shape(rest):
            return _repaired(rest)
    return word


def _repaired(rest: str) -> str:
    """What -ed or -ing changed in the word before it, changed back: conflat → conflate, hopp → hop, fil → file."""
    if rest.endswith(("at", "bl", "iz")):
        return rest + "e"
    if len(rest) > 1 and rest[-1] == rest[-2] and shape(rest)[-1] == "c":
        return rest if rest[-1] in "lsz" else rest[:-1]
    return rest + "e" if measure(rest) == 1 and _ends_short(rest) else rest


def _final_y(word: str) -> str:
    """Step 1c: happy → happi. NLTK: after a consonant that is not the first letter (so by, enjoy stay)."""
    rest = word.removesuffix("y")
    return rest + "i" if rest != word and len(rest) > 1 and shape(rest)[-1] == "c" else word


def _adverbs_and_nouns(word: str) -> str:
    """Step 2: relational → relate, digitizer → digitize. NLTK: what -alli leaves is looked at again."""
    if word.endswith("alli") and measure(word.removesuffix("alli")) > 0:
        return _adverbs_and_nouns(word.removesuffix("li"))
    return _apply(_STEP_2, word, lambda rest, ending: measure(rest + "l" if ending == "logi" else rest) > 0)


def _final_e_and_ll(word: str) -> str:
    """Step 5: probate → probat, controll → control."""
    rest = word.removesuffix("e")
    if rest != word and (measure(rest) > 1 or (measure(rest) == 1 and not _ends_short(rest))):
        word = rest
    return word[:-1] if word.endswith("ll") and measure(word[:-1]) > 1 else word
