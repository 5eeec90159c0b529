"""A statement's claims as questions: each number, date and name taken out, and asked for.

"The Mona Lisa was painted in 1815." claims a date; its probe is "When was the Mona Lisa painted?", to be asked of
documents. Questions are made by rules, from the words alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from glassformer.factuality.dates import Date
from glassformer.factuality.names import bare
from glassformer.factuality.numerals import Numeral
from glassformer.factuality.passages import sentences
from glassformer.factuality.values import Value, find_values

_AUXILIARIES = frozenset(
    re.findall(
        r"\S+",
        "is are was were has have had can could will would may might must should did does do",
    )
)
_COPULAS = frozenset(re.findall(r"\S+", "is are was were"))
_SUBJECTS = frozenset(re.findall(r"\S+", "he she it they we you i the a an his her its their our"))
_RELATIVES = frozenset(re.findall(r"\S+", "that which who whom where when"))
# Past forms whose verb is not what is left without "ed"; the most frequent ones.
_PAST = dict(
    pair.split(":")
    for pair in re.findall(
        r"\S+",
        "became:become began:begin broke:break brought:bring built:build bought:buy came:come chose:choose "
        "drew:draw drove:drive fell:fall felt:feel fought:fight found:find flew:fly gave:give got:get grew:grow "
        "held:hold kept:keep knew:know led:lead left:leave lost:lose made:make met:meet paid:pay ran:run "
        "rose:rise said:say sang:sing sank:sink sat:sit saw:see sent:send sold:sell spent:spend spoke:speak "
        "stood:stand taught:teach thought:think threw:throw told:tell took:take understood:understand went:go "
        "won:win wrote:write",
    )
)
_PREPOSITION = re.compile(
    r"(?:^|\s)(?P<word>in|on|at|from|to|by|of|with|for|since|until|till|after|before|during|between|into|near|around|"
    r"about|over|under|through|against|than|as|called|named)(?:\s+the|\s+an?)?\s+(?:(?:early|mid|late)[\s-])?$",
    re.IGNORECASE,
)
_TIME_WORDS = frozenset(re.findall(r"\S+", "in on during at around about"))
_HEDGE = re.compile(
    r"\b(?:about|around|over|almost|nearly|approximately|at least|at most|more than|less than|up to)\s+$", re.IGNORECASE
)
_APPOSED = re.compile(r"\b(?:the|an?)\s+(?:(?P<noun>[a-z]+(?:\s[a-z]+)?)\s+)?$", re.IGNORECASE)
_OF_PLACE = re.compile(
    r"\bthe\s+(?P<noun>city|town|state|river|country|region|province|county|village|island)\s+of\s+$", re.IGNORECASE
)
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\S+",
        "of in on at from to by with for since until after before during between into near and or but is are was "
        "were has have had that which who than as not",
    )
)
_DETERMINER = re.compile(r"\b(?:the|an?)\s+(?:(?:early|mid|late)[\s-])?$", re.IGNORECASE)


@dataclass(frozen=True)
class Claim:
    """A `value` of a statement (its place is in the statement), the sentence [start, end) that it stands in, the
    sentence's `rest` (the words without the value), and the `probe`: a question whose answer it should be."""

    value: Value
    start: int
    end: int
    rest: str
    probe: str


def sentences_of(statement: str) -> list[tuple[int, int]]:
    """Where the sentences of a statement stand that have a word in them."""
    return [one for one in sentences(statement) if re.search(r"\w", statement[one[0] : one[1]])]


def claims_of(statement: str) -> list[Claim]:
    """All numbers, dates and names of a statement, in its order, each as a question."""
    claims = []
    for start, end in sentences_of(statement):
        sentence = statement[start:end]
        for value in find_values(sentence):
            moved = Value(value.kind, value.text, start + value.start, start + value.end, value.means, value.doubtful)
            rest = f"{sentence[: value.start]} {sentence[value.end :]}"
            claims.append(Claim(moved, start, end, " ".join(rest.split()), probe_of(sentence, value)))
    return claims


def probe_of(sentence: str, value: Value) -> str:
    """A question for a value of a sentence: with the question word in front where rules can put it there, or else in
    the value's place ("The Mona Lisa was painted in what year?")."""
    return in_front(sentence, value) or in_place(sentence, value)


def in_place(sentence: str, value: Value) -> str:
    """The sentence as a question, with a question word where the value stands."""
    before, after = _around(sentence, value)
    word = question_word(sentence, value)
    if after.startswith(("'s", "’s")):
        word, after = "whose", after[2:]
    return _asked(f"{before} {word} {after}")


def in_front(sentence: str, value: Value) -> str | None:
    """The sentence as a question that begins with the question word: "When was the Mona Lisa painted?".

    None where the rules do not see the verb, or the value is counted by words that would have to move with it.
    """
    before, after = _around(sentence, value)
    word = question_word(sentence, value)
    if not before.strip() or sentence[value.end :].startswith(("'", "’")) or _attributive(sentence, value):
        return None
    if value.kind == "number" and word.startswith("how many") and not word.removeprefix("how many").strip():
        return None
    if before.split()[-1].lower() in _COPULAS and len(before.split()) > 1 and not after:
        return _asked(f"{word} {before.split()[-1]} {_lowered(before.split()[:-1])}")
    preposition = _PREPOSITION.search(f"{before} ")
    lead = word
    if preposition:
        before = before[: preposition.start()]
        after = f"called {after}" if preposition["word"] in ("called", "named") else after
        lead = _led(preposition["word"].lower(), word, value)
    turned = _turned(before)
    return _asked(f"{lead} {turned} {after}") if turned else None


def question_word(sentence: str, value: Value) -> str:
    """What asks for a value: "what year", "how many", "what percentage", "who"."""
    means = value.means
    if isinstance(means, Date):
        if means.ranged:
            return (
                "what century" if "cent" in value.text else "what decade" if value.text.endswith("s") else "what years"
            )
        return "what year" if re.fullmatch(r"(?:AD |A\.D\. )?\d+(?: ?\w+)?", value.text) else "what date"
    if isinstance(means, Numeral):
        if means.ordinal:
            return "which"
        if means.unit == "%":
            return "what percentage"
        if means.unit in ("$", "€", "£"):
            return "how much money"
        unit = re.search(r"[^\W\d_]+\.?$|°[CF]$", value.text) if means.unit else None
        return f"how many {unit[0] if unit else ''}".strip()
    apposed = _apposed(sentence[: value.start])
    if _attributive(sentence, value):
        return "which"
    if apposed and apposed["noun"]:
        return f"which {apposed['noun']}"
    return "who" if _looks_like_a_person(value.text) else "what"


def _attributive(sentence: str, value: Value) -> bool:
    """Whether a name says which of its noun's things is meant: "the Doctor Who theme", "a Russian biologist"."""
    after = re.match(r"\s([a-z]+)", sentence[value.end :])
    led = re.search(r"\b(?:the|an?)\s+$", sentence[: value.start], re.IGNORECASE)
    if value.kind != "name" or not after or not led:
        return False
    return not _verbal(after[1]) and after[1] not in _FUNCTION_WORDS


def _verbal(word: str) -> bool:
    """Whether a word looks like a verb in its past or present form."""
    return word in _AUXILIARIES or word in _PAST or bool(re.fullmatch(r"[a-z]{2,}ed|[a-z]{3,}[^su]s", word))


def _apposed(before: str) -> re.Match[str] | None:
    """The article before a name, with the noun that says what it names: "the painter", "the city of"."""
    if of_place := _OF_PLACE.search(before):
        return of_place
    found = _APPOSED.search(before)
    if found and found["noun"] and _FUNCTION_WORDS & set(found["noun"].lower().split()):
        return None
    return found


def _looks_like_a_person(name: str) -> bool:
    """Two or three capitalised words without "of" and without a word that names a thing."""
    return 2 <= len(bare(name)) <= 3 and not re.search(r"\b(?:of|the|and)\b|\d|&", name, re.IGNORECASE)


def _around(sentence: str, value: Value) -> tuple[str, str]:
    """What stands before a value, without its article or hedge, and after it, without the full stop."""
    before = _HEDGE.sub("", sentence[: value.start])
    apposed = _apposed(before) if value.kind == "name" else _DETERMINER.search(before)
    before = before[: apposed.start()] if apposed else before
    return before.rstrip(), sentence[value.end :].strip().rstrip(".!?").rstrip()


def _led(preposition: str, word: str, value: Value) -> str:
    """The preposition and the question word as they begin a question."""
    if value.kind == "date" and preposition in _TIME_WORDS:
        return "when"
    if value.kind == "name" and preposition in ("in", "at", "near"):
        return "where"
    if preposition in ("called", "named"):
        return "what"
    return f"{preposition} {'whom' if word == 'who' else word}"


def _turned(before: str) -> str | None:
    """Verb and subject of what stands before a value, the verb (or "did") in front; verbs of relative clauses stay."""
    words = before.split()
    relative = False  # within a relative clause whose verb is still to come
    for place in range(1, len(words)):
        word = words[place].lower()
        if word in _RELATIVES:
            relative = True
        elif relative:
            auxiliary = word in _AUXILIARIES and place + 1 < len(words) and _verbal(words[place + 1])
            first = words[place - 1].lower() in _RELATIVES and word not in _SUBJECTS and words[place].islower()
            relative = auxiliary or not (first or _verbal(words[place]))
        elif word in _AUXILIARIES:
            return " ".join([word, _lowered(words[:place]), *words[place + 1 :]])
        elif verb := _PAST.get(word) or (_stem(word) if re.fullmatch(r"[a-z]{3,}ed", words[place]) else None):
            return " ".join(["did", _lowered(words[:place]), verb, *words[place + 1 :]])
    return None


def _stem(past: str) -> str:
    """The verb of a past form in "ed", nearly: "painted" → "paint", "moved" → "move", "married" → "marry"."""
    if past.endswith("ied"):
        return past[:-3] + "y"
    stem = past[:-2]
    if len(stem) > 3 and stem[-1] == stem[-2] and stem[-1] not in "sl":
        return stem[:-1]
    return (
        stem + "e"
        if stem[-1] in "vcszud"
        and not stem.endswith(("ss", "nd", "ld", "rd", "ad", "ed", "ound"))
        or stem.endswith(("at", "ir", "dg", "rg"))
        else stem
    )


def _lowered(words: list[str]) -> str:
    """The subject, without the capital of a sentence's beginning where the first word is an ordinary one."""
    first = words[0].lower() if not find_values(f"{' '.join(words)}") or words[0] in _ARTICLES else words[0]
    return " ".join([first, *words[1:]])


_ARTICLES = frozenset(re.findall(r"\S+", "The A An This That These Those In It Its His Her Their"))


def _asked(text: str) -> str:
    text = re.sub(r"\s+([,;:])", r"\1", " ".join(text.split())).rstrip(" ,;:")
    return text[:1].upper() + text[1:] + "?"
