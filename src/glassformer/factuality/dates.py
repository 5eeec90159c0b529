"""Dates in English text: days, months, years, decades, centuries, and ranges of them.

A date is an interval of days, counted as if every month had 31 and every year 12 × 31 = 372: intervals are only ever
compared, so no calendar is needed, and years before Christ are negative.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from glassformer.factuality.numerals import ORDINALS, UNITS

MONTHS = re.findall(
    r"\S+",
    "january february march april may june july august september october november december",
)
_MONTH_OF = {name: number for number, name in enumerate(MONTHS, 1)}
_MONTH_OF |= {name[:3]: number for name, number in _MONTH_OF.items() if name != "may"} | {"sept": 9}
MONTH, YEAR = 31, 372

_SHORT = "|".join(name.title() for name in sorted(set(_MONTH_OF) - set(MONTHS), key=len, reverse=True))
_MONTH = rf"(?P<month>(?:{'|'.join(name.title() for name in MONTHS)})\b|(?:{_SHORT})\b\.?)"
_DAY = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?\b(?!:)"
_ERA = r"(?:\s?(?P<era>(?:BCE?|AD|CE)\b|B\.C\.(?:E\.)?|A\.D\.))"
_WITH_ERA = rf"(?<=AD )\d{{1,4}}|(?<=A\.D\. )\d{{1,4}}|\d{{1,4}}(?={_ERA.replace('?P<era>', '?:')})"
_YEAR = rf"(?P<year>{_WITH_ERA}|[12]\d{{3}}(?![\d%]|[.,:]\d)){_ERA}?"
_CENTURY = rf"(?P<century>\d{{1,2}}(?:st|nd|rd|th)|{'|'.join(sorted(ORDINALS, key=len, reverse=True))})"
_BEFORE = r"(?<![\w.,$€£])"
# From the most to the least precise; the first form that fits at a place is taken.
_FORMS = [
    re.compile(_BEFORE + form)
    for form in (
        rf"{_DAY}\s+(?:of\s+)?{_MONTH},?\s+{_YEAR}(?!\w)",
        rf"{_MONTH}\s+{_DAY},?\s+{_YEAR}(?!\w)",
        rf"{_MONTH},?\s+(?:of\s+)?{_YEAR}(?!\w)",
        r"(?P<decade>[12]\d{2}0)['’]?s(?!\w)",
        rf"(?i:{_CENTURY})[\s-](?:century|centuries){_ERA}?(?!\w)",
        rf"{_YEAR}(?!\w)",
        rf"{_DAY}\s+(?:of\s+)?{_MONTH}(?!\w)",
        rf"{_MONTH}\s+{_DAY}(?!\w)",
        rf"(?<=\b[Ii]n )(?:early |mid-?|late )?{_MONTH}(?!\w)",
    )
]
_ANY = re.compile(r"(?<![\w.,$€£])(?=\d|[A-Z]|(?:" + "|".join(ORDINALS) + r")\b)", re.IGNORECASE)
_JOIN = re.compile(r"\s?[–—-]\s?|\s+to\s+|\s+until\s+|\s+through\s+")
_JOIN_BETWEEN = re.compile(r"\s+and\s+")
_SHORT_YEAR = re.compile(r"\d{2}(?![\w%]|[.,]\d)")
_NEXT_WORD = re.compile(r"[\s-]+([a-z]+)")
_DATE_PREPOSITIONS = frozenset(
    re.findall(
        r"\S+",
        "in since by until till during after before early late mid year years circa around",
    )
)
_NO_PLURALS = frozenset(re.findall(r"\S+", "was is as his its this census series has does us"))
_PEOPLE = frozenset(re.findall(r"\S+", "people men women children"))


@dataclass(frozen=True)
class Date:
    """Characters [start, end), and the days from `low` to `high`. `yearless` is "15 March": days of any year. `ranged`
    is "1503–1519", "the 1990s" and "the 16th century": the thing was, or was done, some time within."""

    start: int
    end: int
    low: int
    high: int
    yearless: bool = False
    ranged: bool = False


def find_dates(text: str) -> list[Date]:
    """All dates of a text, in its order. Four digits alone are a year, unless what follows them is counted."""
    found: list[Date] = []
    place = 0
    while start := _ANY.search(text, place):
        one = _date_at(text, start.start())
        if one is None:
            place = start.start() + 1
            continue
        found.append(_with_range(text, one))
        place = found[-1].end
    return found


def _date_at(text: str, place: int) -> Date | None:
    for form in _FORMS:
        if (match := form.match(text, place)) and (one := _read(text, match)):
            return one
    return None


def _read(text: str, match: re.Match[str]) -> Date | None:
    parts = match.groupdict()
    before_christ = (parts.get("era") or "").startswith("B")
    if parts.get("decade"):
        year = int(parts["decade"])
        more = 99 if year % 100 == 0 else 9  # "the 1900s" are a century
        return Date(match.start(), match.end(), year * YEAR, (year + more + 1) * YEAR - 1, ranged=True)
    if parts.get("century"):
        number = ORDINALS.get(parts["century"].lower()) or int(re.sub(r"\D", "", parts["century"]) or 0)
        first, last = (-100 * number, -100 * number + 99) if before_christ else (100 * number - 99, 100 * number)
        return Date(match.start(), match.end(), first * YEAR, (last + 1) * YEAR - 1, ranged=True)
    month, day = _MONTH_OF.get((parts.get("month") or "").lower().rstrip("."), 0), int(parts.get("day") or 0)
    if day > 31 or (parts.get("day") and not day):
        return None
    if not parts.get("year"):
        low = (month - 1) * MONTH + max(day - 1, 0)
        return Date(match.start(), match.end(), low, low if day else low + MONTH - 1, yearless=True)
    if not month and not parts.get("era") and _counts(text, match):
        return None
    year = -int(parts["year"]) if before_christ else int(parts["year"])
    low = year * YEAR + max(month - 1, 0) * MONTH + max(day - 1, 0)
    more = 0 if day else MONTH - 1 if month else YEAR - 1
    return Date(match.start(), match.end(), low, low + more)


def _counts(text: str, match: re.Match[str]) -> bool:
    """Whether four digits count what follows ("2000 people") rather than name a year ("the 2000 census")."""
    if int(match["year"]) > 2100:
        return True
    after = _NEXT_WORD.match(text, match.end())
    if after is None:
        return bool(re.match(r"\s?[°%]", text[match.end() :]))
    before = re.search(r"(\w+)\W*$", text[: match.start()])
    word = after[1]
    if before and before[1].lower() in _DATE_PREPOSITIONS and word not in _PEOPLE and word not in UNITS:
        return False
    plural = word.endswith("s") and not word.endswith("ss") and word not in _NO_PLURALS
    return plural or word in _PEOPLE or word in UNITS


def _with_range(text: str, first: Date) -> Date:
    """The date, or the range that begins with it: "1503–1519", "1914–18", "from 1503 to 1519", "between … and …"."""
    between = re.search(r"\b[Bb]etween\s+(?:the\s+)?$", text[: first.start])
    join = _JOIN.match(text, first.end) or (_JOIN_BETWEEN.match(text, first.end) if between else None)
    if join is None or first.yearless:
        return first
    place = join.end() + (4 if text[join.end() : join.end() + 4].lower() == "the " else 0)
    last = _date_at(text, place)
    if last is None and (short := _SHORT_YEAR.match(text, place)) and not text[join.start() : join.end()].isalpha():
        year = first.low // YEAR // 100 * 100 + int(short[0])
        last = Date(place, short.end(), year * YEAR, (year + 1) * YEAR - 1)
    if last is None or last.yearless or last.high < first.low:
        return first
    return Date(first.start, last.end, first.low, last.high, ranged=True)
