"""Documents: how plain text is cut, texts of a column, and shares of a text that fit together."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.text.documents import parse_part, read_documents, share_of

SHARED = Path(os.environ.get("GLASSFORMER_SHARED") or Path(__file__).parents[2] / ".." / "shared")
SHAKESPEARE = SHARED / "data" / "tinyshakespeare"


@pytest.fixture
def write(tmp_path):
    def written(text, name="x.txt"):
        path = tmp_path / name
        path.write_bytes(text.encode())
        return path

    return written


# --- Plain text -------------------------------------------------------------------------------------------------------


def test_a_whole_file_is_kept_exactly(write):
    assert read_documents(write("\ufeff a\r\n\n\tb\n\n")) == [" a\r\n\n\tb\n\n"]


def test_every_line_that_is_not_blank(write):
    assert read_documents(write("a\n\n \t\n b \r\nc"), "line") == ["a", " b ", "c"]


def test_blocks_between_blank_lines(write):
    path = write("\n\na\n b\n \n\nc\r\n\t\r\nd\u2028e\n\n")
    assert read_documents(path, "blank-line") == ["a\n b", "c", "d\u2028e"]
    assert read_documents(str(write("one")), "blank-line") == ["one"]


def test_articles_begin_at_their_headings(write):
    text = "\nbefore\n\n = One = \n\n first \n\n = = Part = = \n\nmore\n\n = Two's 1 + 1 = 2 = \n = Three =\n\n\nlast\n"
    assert read_documents(write(text), "heading") == [
        "before",
        " = One = \n\n first \n\n = = Part = = \n\nmore",
        " = Two's 1 + 1 = 2 = ",
        " = Three =\n\n\nlast",
    ]
    assert read_documents(write("= A =\r\na\r\n"), "heading") == ["= A =\na"]


@pytest.mark.parametrize(
    "line", ["= = B = =", "=B=", "= B", "B =", "== B ==", "= =", "= = =", "=  =", "a = b = c", "= B = =", "= = B ="]
)
def test_lines_that_are_no_headings(write, line):
    assert read_documents(write(f"= A =\n{line}\n"), "heading") == [f"= A =\n{line}"]


LINES = st.lists(st.sampled_from(["a", " b", "", " ", "= T =", "= = s = ="]), min_size=1, max_size=12)


@settings(deadline=None)
@given(LINES)
def test_no_filled_line_is_lost_or_moved(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("documents") / "x.txt"
    path.write_text("\n".join(["= T =", *lines]), encoding="utf-8")
    filled = [line for line in ["= T =", *lines] if line.strip()]
    for split in ("file", "line", "blank-line", "heading"):
        documents = read_documents(path, split)
        assert all(document.strip() for document in documents)
        assert [line for document in documents for line in document.split("\n") if line.strip()] == filled
    assert len(read_documents(path, "heading")) == filled.count("= T =")
    assert all(line.strip() for block in read_documents(path, "blank-line") for line in block.split("\n"))


def test_what_is_wrong_with_plain_text(write, tmp_path):
    with pytest.raises(
        InputError, match=r"'split' must be one of file, line, blank-line, heading, got 'lines'\. Did .*'line'\?"
    ):
        read_documents(write("a"), "lines")
    with pytest.raises(
        InputError, match=r"x\.txt: there is no heading, a line such as '= Title ='; choose another 'split'"
    ):
        read_documents(write("a\n= = b = =\n"), "heading")
    with pytest.raises(InputError, match=r"none\.txt: there is no such file"):
        read_documents(tmp_path / "none.txt")
    with pytest.raises(InputError, match=r"x\.txt: the file is empty; it must hold text"):
        read_documents(write("\n\n"), "line")
    (tmp_path / "x.txt").write_bytes(b"a\nb\xe9")
    with pytest.raises(InputError, match=r"x\.txt:2: the byte 0xe9 is not UTF-8"):
        read_documents(tmp_path / "x.txt", part=(0, 0.1))
    with pytest.raises(InputError, match=r"x\.txt: there is no document in it; all of it is blank\.$"):
        read_documents(write("\u2003\n"), "line")


# --- Columns ----------------------------------------------------------------------------------------------------------


def test_rows_are_documents(write):
    rows = [{"text": "a\nb", "body": "c"}, {"text": " ", "body": "d"}, {"text": "e ", "body": ""}]
    path = write("".join(json.dumps(row) + "\n" for row in rows), "x.jsonl")
    assert read_documents(path) == ["a\nb", "e "]
    assert read_documents(path, field="body") == ["c", "d"]
    assert read_documents(write("id\ttext\n1\ta\n2\tb\n", "x.tsv")) == ["a", "b"]
    assert read_documents(path, part=(0, 0.7)) == ["a\nb"]  # the first two rows
    assert read_documents(path, part=(2 / 3, 1)) == ["e "]
    with pytest.raises(InputError, match=r"x\.jsonl: each row is a document; 'split = \"line\"' is for plain text"):
        read_documents(path, "line")
    with pytest.raises(InputError, match=r"x\.jsonl:1: there is no key 'txt'.*Did you mean 'text'\?"):
        read_documents(path, field="txt")
    with pytest.raises(InputError, match=r"x\.jsonl\[0\.4:0\.7\]: there is no document in it; all of it is blank"):
        read_documents(path, part=(0.4, 0.7))


# --- Shares -----------------------------------------------------------------------------------------------------------


def test_a_share_of_a_file(write):
    path = write("\ufeff0123456789")
    assert read_documents(path, part=(0.0, 0.9)) == ["012345678"]
    assert read_documents(path, part=(0.9, 1.0)) == ["9"]
    assert read_documents(write("ab\ncd\nef"), "line", part=(0.125, 0.75)) == ["b", "cd"]
    with pytest.raises(InputError, match=r"x\.txt\[0:0\.1\]: there is no document in it"):
        read_documents(write("ab"), part=(0, 0.1))


@given(st.text(max_size=50), st.lists(st.floats(0, 1, exclude_min=True, exclude_max=True), max_size=5, unique=True))
def test_neighbouring_shares_leave_no_gap(text, cuts):
    ends = [0.0, *sorted(cuts), 1.0]
    shares = [share_of(text, part) for part in zip(ends, ends[1:], strict=False)]
    assert "".join(shares) == text
    assert [len(share) for share in shares] == [
        int(end * len(text)) - int(start * len(text)) for start, end in zip(ends, ends[1:], strict=False)
    ]


@pytest.mark.parametrize("part", [(0.5, 0.5), (0.6, 0.5), (-0.1, 1), (0, 1.1), (float("nan"), 1), (0, float("nan"))])
def test_shares_that_are_none(write, part):
    message = r"\[.*:.*\] is no share of a text; write PATH\[FROM:TO\].*0 <= FROM < TO <= 1"
    with pytest.raises(InputError, match=message):
        share_of("abc", part)
    for path in (write("abc"), write('{"text": "a"}\n', "x.jsonl")):
        with pytest.raises(InputError, match=message):
            read_documents(path, part=part)


@pytest.mark.parametrize(
    ("path", "parsed"),
    [
        ("input.txt[0:0.9]", ("input.txt", (0.0, 0.9))),
        ("input.txt[0.9:1]", ("input.txt", (0.9, 1.0))),
        ("a/b.jsonl[ .25 : 0.5 ]", ("a/b.jsonl", (0.25, 0.5))),
        ("x[:0.5]", ("x", (0.0, 0.5))),
        ("x[0.5:]", ("x", (0.5, 1.0))),
        ("x[:]", ("x", (0.0, 1.0))),
        ("x[1.]y[0:1.]", ("x[1.]y", (0.0, 1.0))),
        ("input.txt", ("input.txt", None)),
        ("a[1]/input.txt", ("a[1]/input.txt", None)),
        ("a]b", ("a]b", None)),
        ("hub:name:train[:90%]", ("hub:name:train[:90%]", None)),
        ("hub:name:train[0:0.9]", ("hub:name:train[0:0.9]", None)),
    ],
)
def test_paths_with_shares(path, parsed):
    assert parse_part(path) == parsed


@pytest.mark.parametrize(
    "path", ["x[]", "x[0.5]", "x[a:b]", "x[0:0.5", "x[", "[0:1]", "x[0:90%]", "x[0;1]", "x[-1:1]", "x[1e-1:1]"]
)
def test_brackets_that_hold_something_else(path):
    with pytest.raises(InputError, match=r"^'.*': \[.* is no share of a text; write PATH\[FROM:TO\]"):
        parse_part(path)


@pytest.mark.parametrize("path", ["x[0.5:0.5]", "x[0.9:0.1]", "x[0:1.5]", "x[0:0]", "x[2:]"])
def test_shares_in_brackets_that_are_none(path):
    with pytest.raises(InputError, match=r"\] is no share of a text; write PATH\[FROM:TO\]"):
        parse_part(path)


def test_shakespeare_in_two_shares():
    if not (SHAKESPEARE / "input.txt").is_file():
        pytest.skip(f"the text is not in {SHAKESPEARE}")
    [whole] = read_documents(SHAKESPEARE / "input.txt")
    assert len(whole) == 1_115_394
    path, part = parse_part(f"{SHAKESPEARE / 'input.txt'}[0:0.9]")
    [train], [test] = read_documents(path, part=part), read_documents(path, part=(0.9, 1))
    assert (len(train), train + test) == (1_003_854, whole)
    assert len(read_documents(path, "blank-line")) == 7222
