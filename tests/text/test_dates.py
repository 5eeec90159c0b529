"""The corpus of dates: honest (each text has one date, held-out days are held out) and CLDR's own."""

import re
import time
import unicodedata
from collections import Counter
from datetime import date, timedelta

import pytest
from babel import Locale
from babel.dates import format_date, format_skeleton

from glassformer.errors import InputError
from glassformer.text.dates import FIRST, LAST, LOCALES, dates_corpus, days_of, forms_of, language, split_of

SPLITS = ("train", "valid", "test")
DAY = date(2026, 11, 24)


def written(tag, day):
    return {form.pattern: form.write(day) for form in forms_of(tag)}


def test_at_least_forty_languages():
    assert len(LOCALES) == 45
    assert len({language(tag) for tag in LOCALES}) >= 40
    assert all(len(forms_of(tag)) >= 3 for tag in LOCALES)


def test_known_texts():
    assert "Dienstag, 24. November 2026" in written("de", DAY).values()
    assert "Tuesday, November 24, 2026" in written("en", DAY).values()
    assert "de: 24.11.2026" in written("de", DAY).values()
    assert "en: 11/24/2026" in written("en", DAY).values()
    assert "2026年11月24日火曜日" in written("ja", DAY).values()
    assert "24 de noviembre de 2026" in written("es", DAY).values()
    assert "24 listopada 2026" in written("pl", DAY).values()
    assert "الثلاثاء، ٢٤ نوفمبر ٢٠٢٦" in written("ar_EG", DAY).values()
    assert "২৪ নভেম্বর, ২০২৬" in written("bn", DAY).values()


@pytest.mark.parametrize("tag", LOCALES)
def test_forms_are_what_babel_writes(tag):
    """Babel formats numbers with ASCII digits and keeps no-break spaces and direction marks; the rest must agree."""

    def plain(text):
        text = "".join(str(unicodedata.digit(c)) if c.isdecimal() else c for c in unicodedata.normalize("NFC", text))
        text = text.translate({0x200E: None, 0x200F: None, 0x061C: None, 0xA0: " ", 0x202F: " "})
        return text.removeprefix(f"{tag.split('_')[0]}: ")

    locale = Locale.parse(tag)
    for day in (DAY, date(1950, 3, 1), date(2049, 8, 9), date(2000, 5, 14), date(1987, 1, 31)):
        ours = {plain(text) for text in written(tag, day).values()}
        whole = {plain(format_date(day, width, locale=tag)) for width in ("full", "long")}
        spelled = plain(format_skeleton("yMMMEd", day, locale=tag)) if "yMMMEd" in locale.datetime_skeletons else None
        assert whole <= ours
        assert spelled is None or spelled in ours
        for pattern, text in written(tag, day).items():
            assert plain(text) == plain(format_date(day, pattern, locale=tag))


def test_digits_are_the_locales_own():
    for tag in LOCALES:
        system = Locale.parse(tag).default_numbering_system
        ascii_digits = any("0" <= c <= "9" for text in written(tag, DAY).values() for c in text)
        assert ascii_digits == (system == "latn"), tag
    assert {"ar_EG", "bn", "fa", "mr", "my"} == {
        tag for tag in LOCALES if Locale.parse(tag).default_numbering_system != "latn"
    }


def test_no_text_stands_for_two_dates():
    """Every form of every locale for every day of three years, a leap year among them."""
    meaning = {}
    for year in (2023, 2024, 2019):
        day = date(year, 1, 1)
        while day.year == year:
            for tag in LOCALES:
                for form in forms_of(tag):
                    text = form.write(day)
                    assert meaning.setdefault(text, day) == day, (text, day, meaning[text])
            day += timedelta(days=1)
    assert len(meaning) > 250_000


def test_no_text_of_the_corpora_stands_for_two_dates():
    meaning = {}
    for split in SPLITS:
        pairs = dates_corpus(split)
        for text, target in zip(pairs.source, pairs.target, strict=True):
            assert meaning.setdefault(text, target) == target


def test_bare_numbers_carry_their_locale():
    """Without a tag a text has two numbers, day and year; a third is a month (ja, ko, zh, vi) with its word beside."""
    tagged = 0
    for tag in LOCALES:
        for text in written(tag, DAY).values():
            if text.startswith(f"{tag.split('_')[0]}: "):
                tagged += 1
                continue
            numbers = [int(number) for number in re.findall(r"\d+", text)]
            marked = re.search("11[月월]|tháng 11|thg 11", text)
            assert {24, 2026} <= set(numbers), text
            assert marked or sorted(numbers) == [24, 2026], text
    assert tagged >= 2 * len(LOCALES)


def test_days_are_split_whole_and_by_no_seed():
    days = {split: set(days_of(split)) for split in SPLITS}
    assert sum(map(len, days.values())) == len(set().union(*days.values())) == (LAST - FIRST).days + 1
    assert 0.03 < len(days["test"]) / 36_525 < 0.05
    assert 0.03 < len(days["valid"]) / 36_525 < 0.05
    assert split_of(date(1950, 1, 1)) == split_of(FIRST)
    held_out = {day.isoformat() for day in days["test"] | days["valid"]}
    for seed in (1, 2):
        assert not held_out & set(dates_corpus("train", seed=seed).target)
        assert set(dates_corpus("test", seed=seed).target) <= {day.isoformat() for day in days["test"]}
        assert set(dates_corpus("valid", seed=seed).target) <= {day.isoformat() for day in days["valid"]}


def test_training_covers_every_training_value():
    targets = dates_corpus("train").target
    assert {target[:4] for target in targets} == {str(year) for year in range(1950, 2050)}
    assert len({target[5:] for target in targets}) == 366


def test_sizes_and_turns():
    test = dates_corpus("test")
    assert len(test) == 45 * 160 == len(test.locales) == len(test.source)
    assert Counter(test.locales) == {tag: 160 for tag in LOCALES}
    train = Counter(dates_corpus("train").locales)
    assert train.total() == 60_000 and set(train) == set(LOCALES)
    for tag, turns in {"de": 1, "fa": 2, "en": 3, "hr": 3, "pl": 3}.items():
        assert abs(train[tag] - turns * train["fr"]) <= turns, tag
    assert len(dates_corpus("valid")) == 1_000
    assert len(dates_corpus("valid", size=7)) == 7
    assert set(dates_corpus("train", size=50, locales=["de", "ja"]).locales) == {"de", "ja"}
    german = dates_corpus("test", locales=["de"], size=len(forms_of("de")))
    for form in forms_of("de"):
        days = map(date.fromisoformat, german.target)
        assert any(form.write(day) == text for day, text in zip(days, german.source, strict=True))


def test_the_same_seed_gives_the_same_corpus():
    assert dates_corpus("train", size=500, seed=3) == dates_corpus("train", size=500, seed=3)
    assert dates_corpus("train", size=500, seed=3) != dates_corpus("train", size=500, seed=4)


def test_making_the_corpus_is_fast():
    start = time.perf_counter()
    dates_corpus("train", size=40_000, seed=9)
    assert time.perf_counter() - start < 2


def test_texts_are_what_keyboards_give():
    for tag in LOCALES:
        for text in written(tag, DAY).values():
            assert unicodedata.normalize("NFC", text) == text == " ".join(text.split())
            assert not set(text) & set("\u200e\u200f\u061c\u202f\xa0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "tset"}, "train, valid, test; got 'tset'. Did you mean 'test'"),
        ({"split": "test", "locales": ["de", "tlh"]}, "locale 'tlh'"),
        ({"split": "test", "size": 0}, "at least one pair"),
        ({"split": "test", "locales": []}, "at least one pair and one locale"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        dates_corpus(**arguments)
