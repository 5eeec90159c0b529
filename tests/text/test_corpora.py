"""Corpora: what is read, and what every kind of broken file is told."""

import json
import warnings

import pytest

from glassformer.errors import InputError
from glassformer.text.corpora import Pairs, read_lines, read_pairs, resolve


def write(path, *lines):
    path.write_bytes("".join(line + "\n" for line in lines).encode())
    return path


def test_aligned_files(tmp_path):
    write(tmp_path / "news.en", "one\u2028line", "two\x0c")
    (tmp_path / "news.de").write_bytes(b"\xef\xbb\xbfeine\r\nzwei")
    pairs = read_pairs(tmp_path / "news", "en", "de")
    assert (pairs.source, pairs.target) == (["one\u2028line", "two\x0c"], ["eine", "zwei"])
    assert (len(pairs), pairs.dropped, pairs.locales) == (2, 0, [])
    assert pairs.origin == f"{tmp_path / 'news'}.{{en,de}}"


def test_a_prefix_may_have_dots(tmp_path):
    write(tmp_path / "train.lc.norm.tok.en", "a")
    write(tmp_path / "train.lc.norm.tok.de", "b")
    assert read_pairs(tmp_path / "train.lc.norm.tok", "en", "de").target == ["b"]


def test_tsv_by_name_and_by_number(tmp_path):
    path = write(tmp_path / "c.tsv", "id\ten\tde", '1\ta "quoted\teins', "2\tb\tzwei")
    assert read_pairs(path, "en", "de").source == ['a "quoted', "b"]
    assert read_pairs(path, "", "", fields=("de", "id")).source == ["eins", "zwei"]
    assert read_pairs(path, "en", "de", fields=(3, 2)).source == ["de", "eins", "zwei"]
    assert read_pairs(path, "en", "de", fields=("3", "2")).target == ["en", 'a "quoted', "b"]


def test_json_lines(tmp_path):
    path = write(tmp_path / "c.jsonl", json.dumps({"en": "a", "de": "ä"}), '{"de": "b", "en": "c", "n": 1}')
    assert read_pairs(path, "en", "de") == Pairs(["a", "c"], ["ä", "b"], str(path))
    assert read_pairs(path, "", "", fields=["de", "en"]).source == ["ä", "b"]


def test_pairs_with_an_empty_side_are_dropped_and_counted(tmp_path):
    write(tmp_path / "x.en", "a", "", "c", "d")
    write(tmp_path / "x.de", "1", "2", " ", "4")
    with pytest.warns(UserWarning, match=r"x\.\{en,de\}: 2 of 4 pairs have an empty side.*\(pair 2, 3\)"):
        pairs = read_pairs(tmp_path / "x", "en", "de")
    assert (pairs.source, pairs.target, pairs.dropped) == (["a", "d"], ["1", "4"], 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_pairs(tmp_path / "x", "en", "de", drop_empty=False).source == ["a", "", "c", "d"]


@pytest.mark.parametrize(("n_en", "n_de"), [(3, 5), (5, 3)])
def test_unequal_lengths_say_where(tmp_path, n_en, n_de):
    write(tmp_path / "x.en", *["a"] * n_en)
    write(tmp_path / "x.de", *["b"] * n_de)
    longer = "en" if n_en > n_de else "de"
    with pytest.raises(InputError, match=rf"x\.{longer}:4: .* has 5 lines, .* has 3\.") as caught:
        read_pairs(tmp_path / "x", "en", "de")
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_how_data_is_found(tmp_path):
    write(tmp_path / "x.en", "a")
    with pytest.raises(InputError, match=r"x\.de: there is no such file.*--data-root.*GLASSFORMER_DATA.*docs/data\.md"):
        read_pairs(tmp_path / "x", "en", "de")
    with pytest.raises(InputError, match="cannot be read"):
        read_lines(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"  "])
def test_an_empty_file(tmp_path, content):
    (tmp_path / "x.en").write_bytes(content)
    write(tmp_path / "x.de", "a")
    with pytest.raises(InputError, match=r"x\.en: the file is empty"):
        read_pairs(tmp_path / "x", "en", "de")


def test_undecodable_bytes_say_where(tmp_path):
    (tmp_path / "x.en").write_bytes(b"good\nna\xefve\n")
    with pytest.raises(InputError, match=r"x\.en:2: the byte 0xef is not UTF-8"):
        read_lines(tmp_path / "x.en")


@pytest.mark.parametrize(
    ("name", "lines", "fields", "message"),
    [
        ("c.jsonl", ['{"en": "a", "de": "b"}', '{"en": "a", '], None, r"c\.jsonl:2: not a JSON object"),
        ("c.jsonl", ['["a", "b"]'], None, r"c\.jsonl:1: must be a JSON object with the keys \['en', 'de'\], got"),
        ("c.jsonl", ['{"en": "a", "gemran": "b"}'], ("en", "german"), r":1: there is no key 'german'.*mean 'gemran'"),
        ("c.jsonl", ['{"en": "a", "de": 3}'], None, r"c\.jsonl:1: 'de' must be text, got 3"),
        ("c.jsonl", ['{"en": "a", "de": "\\ud800"}'], None, r"c\.jsonl:1: 'de' holds half a surrogate pair"),
        ("c.tsv", ["en\tde", "a\tb", "c"], None, r"c\.tsv:3: expected en and de.* 1 column"),
        ("c.tsv", ["a\tb", "c"], (1, 2), r"c\.tsv:2: expected column 1 and column 2.* 1 column"),
        ("c.tsv", ["a\tb"], None, r"c\.tsv:1: there is no column 'en'.*'fields'"),
        ("c.tsv", ["en\tde"], None, r"c\.tsv: there is nothing below"),
        ("c.tsv", ["a\tb"], (0, 1), "counted from 1"),
        ("c.tsv", ["a\tb"], ("en",), "two columns"),
        ("c", ["a"], (1, 2), "is for .tsv and .jsonl"),
    ],
)
def test_broken_lines_say_where(tmp_path, name, lines, fields, message):
    path = write(tmp_path / name, *lines)
    with pytest.raises(InputError, match=message):
        read_pairs(path, "en", "de", fields)


def test_more_bad_input(tmp_path):
    with pytest.raises(InputError, match="'source' and 'target' must name"):
        read_pairs(tmp_path / "x", "", "de")
    write(tmp_path / "y.en", "a", "")
    write(tmp_path / "y.de", "", "b")
    with pytest.raises(InputError, match="every one of the 2 pairs"):
        read_pairs(tmp_path / "y", "en", "de")


def test_where_data_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GLASSFORMER_DATA", raising=False)
    assert str(resolve("m/train")) == "data/m/train"
    monkeypatch.setenv("GLASSFORMER_DATA", str(tmp_path / "mine"))
    assert resolve("m/train") == tmp_path / "mine/m/train"
    assert resolve("m/train", tmp_path / "other") == tmp_path / "other/m/train"
    assert resolve(tmp_path / "m/train", "other") == tmp_path / "m/train"
    (tmp_path / "m").mkdir()
    write(tmp_path / "m/train.en", "here")
    assert str(resolve("m/train")) == "m/train"
    (tmp_path / "mine/m").mkdir(parents=True)
    write(tmp_path / "mine/m/train.en", "there")
    assert resolve("m/train") == tmp_path / "mine/m/train"
