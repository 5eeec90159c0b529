"""Numbers in English text: digits with separators, words, scales, ordinals, ranges, and their units."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_ONES = re.findall(
    r"\S+",
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen",
)
_TENS = re.findall(r"\S+", "twenty thirty forty fifty sixty seventy eighty ninety")
_ORDINAL_ONES = re.findall(
    r"\S+",
    "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth",
)
_ORDINAL_TENS = re.findall(r"\S+", "twentieth thirtieth fortieth fiftieth sixtieth seventieth eightieth ninetieth")

SMALL = {word: number for number, word in enumerate(_ONES)}
SMALL |= {word: 20 + 10 * place for place, word in enumerate(_TENS)}
ORDINALS = {word: number for number, word in enumerate(_ORDINAL_ONES)}
ORDINALS |= {word: 20 + 10 * place for place, word in enumerate(_ORDINAL_TENS)}
SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
ORDINAL_SCALES = {f"{word}th": number for word, number in SCALES.items()}

# Each unit and the words and signs that mean it. There is no conversion: 1 km and 1000 m are two different texts.
_UNITS = {
    "%": "% percent per\u00a0cent percentage",
    "$": "$ dollar dollars us$ usd",
    "€": "€ euro euros eur",
    "£": "£ pound pounds gbp",
    "°C": "°c celsius",
    "°F": "°f fahrenheit",
    "mm": "mm millimetre millimetres millimeter millimeters",
    "cm": "cm centimetre centimetres centimeter centimeters",
    "km": "km kilometre kilometres kilometer kilometers",
    "m": "m metre metres meter meters",
    "mi": "mi mile miles",
    "ft": "ft foot feet",
    "in": "inch inches",
    "kg": "kg kilogram kilograms kilogramme kilogrammes",
    "g": "gram grams",
    "t": "tonne tonnes ton tons",
    "lb": "lb lbs",
    "acre": "acre acres",
    "ha": "ha hectare hectares",
    "s": "second seconds",
    "min": "minute minutes",
    "h": "hour hours",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "year years",
    "decade": "decade decades",
    "century": "century centuries",
}
UNITS = {word.replace("\u00a0", " "): unit for unit, words in _UNITS.items() for word in words.split(" ")}

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_SCALE = "|".join([*SCALES, *ORDINAL_SCALES])
_WORD = "|".join(sorted([*SMALL, *ORDINALS, *SCALES, *ORDINAL_SCALES, "dozen"], key=len, reverse=True))
_WORDS = rf"(?:(?:{_WORD})|an?(?=\s+(?:{_SCALE}|dozen)\b))(?:(?:\s+and\s+|[\s-]+)(?:{_WORD})\b)*"
_ONE = rf"(?:{_DIGITS}(?:(?:st|nd|rd|th)\b|(?:[\s-]+(?:{_SCALE})\b)*)|{_WORDS}\b)"
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<sign>-|−)?(?P<money>US\$|[$€£])?\s?(?P<first>{_ONE})"
    rf"(?:(?:\s?[–—-]\s?|\s+to\s+)(?:US\$|[$€£])?(?P<last>{_ONE}))?",
    re.IGNORECASE,
)
_UNIT = re.compile(
    rf"[\s-]?(?P<unit>{'|'.join(sorted(map(re.escape, UNITS), key=len, reverse=True))})(?![^\W_])", re.IGNORECASE
)
_TOKEN = re.compile(rf"{_DIGITS}|[a-z]+", re.IGNORECASE)


@dataclass(frozen=True)
class Numeral:
    """A number's place, and what it says: from `low` to `high` (equal where it is no range), of a `unit` ("" if none is
    known), `ordinal` where it counts places."""

    start: int
    end: int
    low: Fraction
    high: Fraction
    unit: str = ""
    ordinal: bool = False


def find_numerals(text: str) -> list[Numeral]:
    """All numbers of a text, in its order, each with the unit at its side as a part of it."""
    found = []
    place = 0
    while match := _NUMBER.search(text, place):
        place = max(match.end(), place + 1)
        if one := _numeral(text, match):
            found.append(one)
            place = one.end
    return found


def _numeral(text: str, match: re.Match[str]) -> Numeral | None:
    written = _readable(match["first"])
    first, last = read_number(written), None
    if first is None:
        return None
    start, end = match.start("sign") if match["sign"] else match.start("first"), match.start("first") + len(written)
    ordinal = is_ordinal(written)
    if match["last"] and written == match["first"] and (second := read_number(match["last"])) is not None:
        scaled = first * _scale_of(match["last"]) if not _scale_of(match["first"]) > 1 else first
        if scaled <= second and is_ordinal(match["last"]) == ordinal:
            # "5 to 10 million": the scale of the last is that of both.
            first, last, end = scaled, second, match.end("last")
    if last is None:
        last = first
    if match["sign"]:
        first, last = (-first, -last) if first == last else (first, last)
    unit = UNITS[match["money"].lower()] if match["money"] else ""
    start = match.start("money") if match["money"] else start
    if not unit and (after := _UNIT.match(text, end)) and not (ordinal and after["unit"].lower() != "century"):
        unit, end = UNITS[after["unit"].lower()], after.end()
    return Numeral(start, end, first, last, unit, ordinal)


def _readable(words: str) -> str:
    """As many of the words, from the first, as are one number: "third" of "third one"."""
    while read_number(words) is None and (shorter := re.sub(r"(?:\s+and)?[\s-]+[^\s-]+$", "", words)) != words:
        words = shorter
    return words


def is_ordinal(text: str) -> bool:
    """Whether a number's text counts places: "third", "3rd", "twenty-first"."""
    last = re.split(r"[\s-]+", text.strip().lower())[-1]
    return last in ORDINALS or last in ORDINAL_SCALES or bool(re.fullmatch(r"[\d,.]+(?:st|nd|rd|th)", last))


def read_number(text: str) -> Fraction | None:
    """What a number's text says: "1,000" and "one thousand" are 1000, "5.2 million" 5200000, "third" 3.

    None where its words are no number ("one two", "million five hundred thousand million").
    """
    total = part = Fraction(0)
    below = Fraction(10**18)  # a scale must be smaller than the one before it
    room = Fraction(10**18)  # what may be added to `part`: "twenty" leaves room for less than ten
    seen = False
    for token in _TOKEN.findall(text.lower()):
        if token in ("and", "a", "an", "st", "nd", "rd", "th"):
            part = Fraction(1) if token in ("a", "an") else part
            continue
        if token[0].isdigit():
            if seen:
                return None
            part, room, seen = Fraction(token.replace(",", "")), Fraction(0), True
            continue
        scale = {**SCALES, **ORDINAL_SCALES, "dozen": 12}.get(token)
        if scale is None:
            number = SMALL.get(token, ORDINALS.get(token))
            if number is None or number >= room:
                return None
            part, seen = part + number, True
            room = Fraction(10 if number >= 20 else 0)
        elif scale in (100, 12):
            part, room, seen = (part or Fraction(1)) * scale, Fraction(100), True
        else:
            if scale >= below and seen and total:
                return None
            total, part, below, room, seen = (
                total + (part or Fraction(1)) * scale,
                Fraction(0),
                Fraction(scale),
                Fraction(10**18),
                True,
            )
    return total + part if seen else None


def _scale_of(text: str) -> int:
    """The scale that a number of digits ends with: 10**6 for "10 million", 1 for "10"."""
    if not text[:1].isdigit():
        return 1
    product = 1
    for word in re.findall(r"[a-z]+", text.lower()):
        product *= SCALES.get(word, 1)
    return product
