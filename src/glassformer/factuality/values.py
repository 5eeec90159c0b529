"""What can be checked in an English text: its numbers, dates and names, and when two of them say the same."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from glassformer.factuality.dates import YEAR, Date, find_dates
from glassformer.factuality.names import Name, find_names, same_name
from glassformer.factuality.numerals import Numeral, find_numerals

Kind = Literal["number", "date", "name"]


@dataclass(frozen=True)
class Value:
    """`text` stands at characters [start, end). `means` is what a number or a date says; None for a name.

    `doubtful` is a word that may be a name, or only begins a sentence.
    """

    kind: Kind
    text: str
    start: int
    end: int
    means: Numeral | Date | None = None
    doubtful: bool = False


def find_values(text: str) -> list[Value]:
    """All values of a text, in its order, none within another: dates go before numbers, and these before names.

    "One" is a value only where it has a unit, "second" and "third" only where they count something ("the third
    bridge"), "first" never: as a pronoun, an adverb and a word of praise they say nothing that can be looked up.
    """
    found: list[Value] = []

    def free(start: int, end: int) -> bool:
        return all(end <= other.start or other.end <= start for other in found)

    for date in find_dates(text):
        found.append(Value("date", text[date.start : date.end], date.start, date.end, date))
    names = [name for name in find_names(text) if free(name.start, name.end)]
    for number in find_numerals(text):
        inside = any(_inside(number, name) for name in names)
        if free(number.start, number.end) and not inside and _says_something(text, number):
            found.append(Value("number", text[number.start : number.end], number.start, number.end, number))
    for name in names:
        if free(name.start, name.end):
            found.append(Value("name", text[name.start : name.end], name.start, name.end, None, name.doubtful))
    return sorted(found, key=lambda value: value.start)


def same(claimed: Value, found: Value) -> bool:
    """Whether what was found says what was claimed.

    Numbers: equal, in the same unit where both have one, both or neither of them ordinal; a range says each number in
    it. Dates: the same days, or days within what was claimed ("15 March 1815" says 1815, not the reverse); a range, a
    decade or a century says each year in it; where either has no year, the days of the year. A number that could be a
    year equals that year. Names: see `names.same_name`.
    """
    if claimed.kind == found.kind == "name":
        return same_name(claimed.text, found.text)
    one, other = claimed.means, found.means
    if isinstance(one, Numeral) and isinstance(other, Numeral):
        return _comparable(one, other) and (
            (one.low, one.high) == (other.low, other.high)
            or one.low == one.high
            and other.low < other.high
            and _within(one, other)
        )
    if isinstance(one, Date) and isinstance(other, Date):
        one, other = _aligned(one, other)
        return _within(other, one) or (other.ranged and _within(one, other))
    if isinstance(one, Date) and isinstance(other, Numeral) or isinstance(one, Numeral) and isinstance(other, Date):
        return _year_of(one) is not None and _year_of(one) == _year_of(other)
    return False


def differ(claimed: Value, found: Value) -> bool:
    """Whether two values of a kind cannot both fill one place: numbers that are not the same, dates that have no day in
    common, names that are not the same."""
    if claimed.kind != found.kind:
        return False
    one, other = claimed.means, found.means
    if isinstance(one, Date) and isinstance(other, Date):
        one, other = _aligned(one, other)
        return one.high < other.low or other.high < one.low
    if isinstance(one, Numeral) and isinstance(other, Numeral):
        return _comparable(one, other) and (one.high < other.low or other.high < one.low)
    return not same(claimed, found)


def _inside(number: Numeral, name: Name) -> bool:
    """Whether a number is a part of a name: "Super Bowl 50", "Eleventh Doctor"."""
    return name.start <= number.start and number.end <= name.end and number.end - number.start < name.end - name.start


def _says_something(text: str, number: Numeral) -> bool:
    words = text[number.start : number.end].lower()
    if words in ("one", "first"):
        return False
    if words in ("second", "third"):
        before = text[: number.start].rstrip().lower().rsplit(" ", 1)[-1]
        return before in ("the", "his", "her", "its", "their") or before.endswith(("'s", "’s"))
    return True


def _comparable(one: Numeral, other: Numeral) -> bool:
    return one.ordinal == other.ordinal and (one.unit == other.unit or not one.unit or not other.unit)


def _within(inner: Numeral | Date, outer: Numeral | Date) -> bool:
    return outer.low <= inner.low and inner.high <= outer.high


def _aligned(one: Date, other: Date) -> tuple[Date, Date]:
    """Two dates that can be compared: where one has no year, neither has."""
    if one.yearless == other.yearless:
        return one, other
    return _without_year(one), _without_year(other)


def _without_year(date: Date) -> Date:
    if date.yearless:
        return date
    if date.high // YEAR != date.low // YEAR or date.high - date.low == YEAR - 1:
        return Date(date.start, date.end, -1, -1, True)  # no day that the other could have
    return Date(date.start, date.end, date.low % YEAR, date.high % YEAR, True)


def _year_of(value: Numeral | Date | None) -> Fraction | None:
    """The year that a date of a whole year is, and the number that a bare whole number is."""
    if isinstance(value, Date):
        whole = not value.yearless and value.low % YEAR == 0 and value.high == value.low + YEAR - 1
        return Fraction(value.low // YEAR) if whole else None
    if value is None or value.unit or value.ordinal or value.low != value.high:
        return None
    return value.low
