"""A parallel corpus that needs no files: dates as people write them in 45 languages, and the same dates in ISO 8601.

The forms, the names of months and weekdays, their case and the digits are those of CLDR, through Babel. Every form
determines its date: the month is spelled (or its number marked, as in 11月), or, where it is a bare number, the locale
stands before it ("en: 11/24/2026", "de: 24.11.2026"). The year has four digits; the calendar is Gregorian.

Some days are held out by a hash of the day: no locale and no form of them is in the training split, whatever the seed.
"""

from __future__ import annotations

import hashlib
import random
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Literal

import babel
from babel.dates import DateTimeFormat, tokenize_pattern

from glassformer.errors import InputError, did_you_mean
from glassformer.text.corpora import Pairs

Split = Literal["train", "valid", "test"]

# fmt: off
LOCALES: tuple[str, ...] = (
    "am", "ar_EG", "bg", "bn", "cs", "cy", "da", "de", "el", "en", "es", "et", "eu", "fa", "fi", "fr", "he", "hi", "hr",
    "hu", "hy", "id", "is", "it", "ja", "ka", "ko", "lt", "lv", "mr", "my", "nl", "pl", "pt", "ro", "ru", "sv", "sw",
    "ta", "th", "tr", "uk", "ur", "vi", "zh",
)
# fmt: on
# What is a locale's alone takes longest to learn, and so has more turns in training: a bare month before the day
# (English), a word for another month than in a related language (listopada: Croatian, Polish), digits of one's own.
_TRAINED = (*LOCALES, "en", "en", "hr", "hr", "pl", "pl", "ar_EG", "bn", "fa", "mr", "my")
FIRST, LAST = date(1950, 1, 1), date(2049, 12, 31)
SIZES: dict[str, int] = {"train": 60_000, "valid": 1_000, "test": 160 * len(LOCALES)}

# CLDR's "available formats" that are whole dates: weekday or not, month as number, short or long.
_SKELETONS = ("yMd", "yMEd", "yMMMd", "yMMMEd", "yMMMEEEEd", "yMMMMd", "yMMMMEd", "yMMMMEEEEd", "yMEEEEd")
# The digit zero of each of CLDR's numbering systems that are the default of a locale above.
_ZEROS = {"latn": "0", "arab": "٠", "arabext": "۰", "beng": "০", "deva": "०", "mymr": "၀"}
# CLDR's letters for month and weekday where they stand alone (in some languages the nominative).
_STANDALONE = {"L": "M", "c": "E"}
# In every thousand days so many are kept for testing and so many for validation.
_TEST, _VALID = 40, 40


@dataclass(frozen=True)
class Form:
    """One way to write a date in one locale.

    `pattern` is CLDR's; `parts` are what it consists of: plain text, or a field (y, M, d, E weekday, G era) and its
    texts: ten digits, by month, by day, by weekday (Monday first).
    """

    locale: str
    pattern: str
    parts: tuple[str | tuple[str, tuple[str, ...]], ...]

    def write(self, day: date) -> str:
        """The day in this form."""
        return "".join(part if isinstance(part, str) else _look_up(*part, day) for part in self.parts)


def dates_corpus(
    split: Split, *, size: int | None = None, seed: int = 1, locales: Sequence[str] | None = None
) -> Pairs:
    """`size` dates of a split and their ISO forms, with the locale of each in `.locales`.

    Locales take turns, and within a locale its forms do; the days are drawn from those of the split. The same
    arguments give the same corpus under the same version of Babel. By default all of `LOCALES` (to train, some of them
    more often than others), and 60,000 pairs to train, 1,000 to validate, 160 a locale to test.
    """
    if split not in SIZES:
        raise InputError(f"the splits of the dates are {', '.join(SIZES)}; got '{split}'.{did_you_mean(split, SIZES)}")
    chosen = tuple(locales) if locales is not None else _TRAINED if split == "train" else LOCALES
    for tag in chosen:
        if tag not in LOCALES:
            raise InputError(f"there are no dates for the locale '{tag}', only for {' '.join(LOCALES)}.")
    size = SIZES[split] if size is None else size
    if size < 1 or not chosen:
        raise InputError(f"a corpus of dates needs at least one pair and one locale, got {size} and {len(chosen)}.")
    generator = random.Random(f"{split} {seed}")
    days = days_of(split)
    forms = {tag: _turns(forms_of(tag), generator) for tag in chosen}
    tags = [chosen[i % len(chosen)] for i in range(size)]
    drawn = [days[int(generator.random() * len(days))] for _ in tags]
    texts = [next(forms[tag]).write(day) for tag, day in zip(tags, drawn, strict=True)]
    return Pairs(texts, [day.isoformat() for day in drawn], f"dates ({split})", locales=tags)


@cache
def days_of(split: Split) -> tuple[date, ...]:
    """The days of a split, in order. No day is in two splits; this does not depend on any seed."""
    days = (date.fromordinal(ordinal) for ordinal in range(FIRST.toordinal(), LAST.toordinal() + 1))
    return tuple(day for day in days if split_of(day) == split)


def split_of(day: date) -> Split:
    """The one split that a day belongs to."""
    digest = hashlib.blake2b(day.isoformat().encode(), digest_size=8).digest()
    share = int.from_bytes(digest, "big") % 1000
    return "test" if share < _TEST else "valid" if share < _TEST + _VALID else "train"


@cache
def forms_of(tag: str) -> tuple[Form, ...]:
    """The forms of a locale, without repetition: full, long, medium and short, then the skeletons'."""
    locale = babel.Locale.parse(tag)
    patterns = [locale.date_formats[width].pattern for width in ("full", "long", "medium", "short")]
    patterns += [str(locale.datetime_skeletons[name]) for name in _SKELETONS if name in locale.datetime_skeletons]
    forms = {form.parts: form for pattern in patterns if (form := _form(tag, locale, pattern))}
    return tuple(forms.values())


def language(tag: str) -> str:
    """The English name of a locale's language: `"da"` → `"Danish"`."""
    return str(babel.Locale.parse(tag).get_language_name("en"))


def _form(tag: str, locale: babel.Locale, pattern: str) -> Form | None:
    """The form of a CLDR pattern, or None if it does not determine the date or shortens the year."""
    parts: list[str | tuple[str, tuple[str, ...]]] = []
    for kind, value in tokenize_pattern(pattern):
        if kind == "chars":
            parts.append(_clean(str(value)))
            continue
        letter, width = str(value[0]), int(value[1])
        if letter == "y" and width == 2:
            return None
        name = _STANDALONE.get(letter, letter)
        parts.append((name, _texts(locale, letter, width, name)))
    fields = dict(part for part in parts if not isinstance(part, str))
    if not {"y", "M", "d"} <= fields.keys() or len(set(fields["M"])) < 12:
        return None  # abbreviations of two months may coincide
    if _is_bare_number(parts):
        parts.insert(0, f"{tag.split('_')[0]}: ")
    return Form(tag, pattern, tuple(_joined(parts)))


def _is_bare_number(parts: list[str | tuple[str, tuple[str, ...]]]) -> bool:
    """Whether the month is a number with no letter at it, as in 24.11.2026: its place depends on the locale."""
    for i, part in enumerate(parts):
        if isinstance(part, str) or part[0] != "M":
            continue
        after = parts[i + 1] if i + 1 < len(parts) else ""
        marked = isinstance(after, str) and after[:1].isalpha()
        return part[1][0].strip().isdecimal() and not marked
    return False


def _texts(locale: babel.Locale, letter: str, width: int, name: str) -> tuple[str, ...]:
    """What a field can say: 12 months, 31 days, 7 weekdays (Monday first), 1 era, or the ten digits of the year."""
    zero = ord(_ZEROS[locale.default_numbering_system])
    digits = {ord("0") + i: chr(zero + i) for i in range(10)}
    if name == "y":
        return tuple(digits.values())
    samples = {
        "M": [date(2024, month, 1) for month in range(1, 13)],
        "d": [date(2024, 1, day) for day in range(1, 32)],
        "E": [date(2024, 1, day) for day in range(1, 8)],  # 1 January 2024 was a Monday
        "G": [date(2024, 1, 1)],
    }
    texts = [str(DateTimeFormat(day, locale)[letter * width]) for day in samples[name]]
    return tuple(_clean(text.translate(digits)) for text in texts)


def _look_up(name: str, texts: tuple[str, ...], day: date) -> str:
    if name == "y":
        return "".join(texts[int(digit)] for digit in str(day.year))
    place = {"M": day.month - 1, "d": day.day - 1, "E": day.weekday(), "G": 0}[name]
    return texts[place]


def _clean(text: str) -> str:
    """Characters as keyboards give them: composed (NFC), plain spaces, no marks of writing direction."""
    text = unicodedata.normalize("NFC", text)
    return re.sub(r"[\u200e\u200f\u061c]", "", re.sub(r"[\u00a0\u202f\u2009]", " ", text))


def _joined(
    parts: list[str | tuple[str, tuple[str, ...]]],
) -> Iterator[str | tuple[str, tuple[str, ...]]]:
    """The parts with neighbouring plain texts joined."""
    text = ""
    for part in parts:
        if isinstance(part, str):
            text += part
            continue
        if text:
            yield text
            text = ""
        yield part
    if text:
        yield text


def _turns(forms: Sequence[Form], generator: random.Random) -> Iterator[Form]:
    """The forms over and over, in a new random order each time."""
    while True:
        yield from generator.sample(forms, len(forms))
