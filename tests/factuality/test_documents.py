"""Files and folders as documents: what is read and what passed over, encodings, and how memory stays bounded."""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path

import pytest

from glassformer.errors import InputError
from glassformer.factuality.documents import Documents, Texts, read_documents
from glassformer.factuality.encoding import decoded, kind_of
from glassformer.factuality.retrieval import Index

SENTENCE = "The Mona Lisa was painted between 1503 and 1519.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.md").write_text("# Two\n\nSecond text.\n", encoding="utf-8")
    (tmp_path / "one.txt").write_text(SENTENCE, encoding="utf-8")
    return tmp_path


# --- What is read -----------------------------------------------------------------------------------------------------


def test_a_folder_gives_all_its_files_in_order(folder: Path) -> None:
    documents = read_documents(folder)
    assert [Path(one.name).name for one in documents] == ["one.txt", "two.md"]
    assert documents[0].text == SENTENCE and len(documents) == 2 and not documents.skipped
    assert [passage.text for passage in documents.passages] == [SENTENCE.strip(), "# Two\n\nSecond text."]


def test_a_file_named_twice_or_inside_a_named_folder_comes_once(folder: Path) -> None:
    file = folder / "one.txt"
    assert len(read_documents([file, folder, str(file)])) == 2


def test_hidden_files_are_passed_over_unless_named(folder: Path) -> None:
    (folder / ".hidden").write_text("secret")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret")
    assert len(read_documents(folder)) == 2
    assert read_documents(folder / ".hidden")[0].text == "secret"


def test_links_are_followed_but_not_in_circles(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "three.txt").write_text("Third text.")
    (folder / "b" / "up").symlink_to(folder)
    (folder / "itself").symlink_to(folder / "itself")
    (folder / "nowhere").symlink_to(folder / "missing")
    (folder / "outside").symlink_to(outside)
    (folder / "same.txt").symlink_to(folder / "one.txt")
    assert sorted(one.text for one in read_documents(folder)) == ["# Two\n\nSecond text.\n", SENTENCE, "Third text."]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_what_cannot_be_read_twice_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert len(read_documents(folder)) == 2
    with pytest.raises(InputError, match="must be a file or a folder"):
        read_documents(folder / "pipe")


def test_paths_that_are_not_there(folder: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.txt: there are no documents there"):
        read_documents([folder, folder / "nothing.txt"])
    with pytest.raises(InputError, match="there are no documents there"):
        read_documents("a\0b")
    with pytest.raises(InputError, match="give files or folders"):
        read_documents([])


def test_an_empty_folder_and_one_of_nothing_readable_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no text to read\.$"):
        read_documents(tmp_path)
    (tmp_path / "a.txt").write_text(" \n\n")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"no text to read \(skipped: 1 empty, 1 image\)"):
        read_documents(tmp_path)


def test_an_empty_file_is_an_error_where_it_is_named(folder: Path) -> None:
    (folder / "empty.txt").write_text("\ufeff \n", encoding="utf-8")
    with pytest.raises(InputError, match=r"empty\.txt: the file is empty: it must hold text"):
        read_documents([folder / "one.txt", folder / "empty.txt"])
    assert read_documents(folder).skipped == {"empty": 1}


# --- What is no text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"%PDF-1.7\nsome words", "PDF"),
        (b"\x89PNG\r\n\x1a\n", "image"),
        (b"\xff\xd8\xff\xe0JFIF", "image"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image"),
        (b"RIFF\0\0\0\0WAVEfmt ", "sound"),
        (b"PK\x03\x04word/document.xml", "archive"),
        (b"\x1f\x8b\x08", "archive"),
        (b"\x7fELF\0\0", "binary"),
        (b"words and \0 then", "binary"),
        (bytes(random.Random(0).choices(range(1, 256), k=4000)), "binary"),
        ("Köln liegt am Rhein.".encode("latin-1"), None),
        ("Köln".encode("utf-16"), None),
        (b"\x1b[1mbold\x1b[0m", None),
        (b"", None),
    ],
)
def test_kinds_of_bytes(data: bytes, kind: str | None) -> None:
    assert kind_of(data) == kind


def test_binary_files_are_counted_in_folders_and_named_where_they_were_named(folder: Path) -> None:
    (folder / "a.pdf").write_bytes(b"%PDF-1.4 x")
    (folder / "c.pdf").write_bytes(b"%PDF-1.4 y")
    (folder / "d.bin").write_bytes(b"a\0b")
    lines: list[str] = []
    documents = read_documents(folder, say=lines.append)
    assert documents.skipped == {"PDF": 2, "binary": 1}
    assert lines == ["2 documents, 2 passages; skipped: 2 PDF, 1 binary"]
    with pytest.raises(InputError, match=r"a\.pdf: the file is no text \(PDF\): only text can be read"):
        read_documents(folder / "a.pdf")
    with pytest.warns(UserWarning, match=r"d\.bin: the file is binary.*passed over"):
        assert len(read_documents([folder / "one.txt", folder / "d.bin"])) == 1


def test_files_over_the_limit(folder: Path) -> None:
    (folder / "long.txt").write_text("x" * 2000)
    with pytest.raises(InputError, match=r"long\.txt has 2,000 bytes, more than the 1,000 "):
        read_documents(folder / "long.txt", largest=1000)
    lines: list[str] = []
    assert read_documents(folder, largest=1000, say=lines.append).skipped == {"too large": 1}
    assert any("2,000 bytes" in line for line in lines)


# --- Encodings --------------------------------------------------------------------------------------------------------

TEXT = "Köln – “naïve” €5\r\nŁódź"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_utf_and_byte_order_marks_are_read_without_a_word(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT.encode(encoding))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_documents(tmp_path)[0].text == TEXT


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("width", [16, 32])
def test_either_order_of_bytes(order: str, width: int) -> None:
    assert decoded(f"\ufeff{TEXT}".encode(f"utf-{width}-{order}"), "a").text == TEXT


def test_other_bytes_are_windows_1252_with_a_warning_that_names_files(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.txt").write_bytes("Zürich – €".encode("cp1252"))
    (tmp_path / "5.txt").write_bytes(b"caf\xe9 \x81")
    with pytest.warns(UserWarning, match=r"0\.txt.*1\.txt.*2\.txt, …: 6 of 6 files are not UTF-8") as caught:
        documents = read_documents(tmp_path)
    assert len(caught) == 1
    assert [one.text for one in documents] == ["Zürich – €"] * 5 + ["café \x81"]
    assert documents[0].encoding == "cp1252" and documents[5].encoding == "latin-1"


def test_a_given_encoding_is_taken_at_its_word(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Łódź".encode("iso8859-2"))
    assert read_documents(tmp_path, encoding="iso8859-2")[0].text == "Łódź"
    (tmp_path / "a.txt").write_bytes("Łódź".encode("utf-16-le"))
    assert read_documents(tmp_path, encoding="utf-16-le")[0].text == "Łódź"
    with pytest.raises(InputError, match=r"a\.txt: byte 1 is not ascii"):
        (tmp_path / "a.txt").write_bytes(b"a\xe9")
        read_documents(tmp_path, encoding="ascii")
    with pytest.raises(InputError, match=r"there is no encoding 'latin_2x'.*Did you mean 'latin"):
        read_documents(tmp_path, encoding="latin_2x")


# --- Many files, bounded memory ---------------------------------------------------------------------------------------


def test_texts_beyond_the_limit_are_read_again(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.txt").write_bytes(f"Text {number} é".encode("cp1252"))
    with pytest.warns(UserWarning):
        documents = read_documents(tmp_path, kept=20)
    kept = documents[0]._texts
    assert kept.size <= 20
    assert [one.text for one in documents] == [f"Text {number} é" for number in range(8)]
    assert [one.text for one in documents.passages] == [f"Text {number} é" for number in range(8)]
    assert kept.size <= 20


def test_a_file_that_changed_is_not_quoted(folder: Path) -> None:
    documents = read_documents(folder, kept=1)
    (folder / "one.txt").write_text("The Mona Lisa was painted in 1815.\n")
    documents[1].text  # noqa: B018  (takes the place of the other)
    with pytest.raises(InputError, match=r"one\.txt: the file has changed"):
        documents[0].text  # noqa: B018


def test_the_latest_text_is_kept_however_long_it_is() -> None:
    texts = Texts(3)
    texts.put("a", "aa")
    texts.put("b", "bbbbb")
    assert texts.get("a") is None and texts.get("b") == "bbbbb" and texts.size == 5
    texts.put("b", "b")
    texts.put("c", "cc")
    assert texts.get("b") == "b" and texts.size == 3


def test_ten_thousand_files(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number:02}").mkdir()
        for inner in range(100):
            (tmp_path / f"{number:02}" / f"{inner:02}.txt").write_text(f"Number {number * 100 + inner}.")
    lines: list[str] = []
    documents = read_documents(tmp_path, say=lines.append, kept=1000)
    assert len(documents) == len(documents.passages) == 10_000
    assert documents[0]._texts.size <= 1000
    assert lines[0] == "read 500 of 10,000 files" and len(lines) == 21
    assert lines[-1] == "10,000 documents, 10,000 passages"
    assert documents[4321].text == "Number 4321."
    pytest.importorskip("bm25s", reason="the extra 'ground' is not installed")
    (found,) = Index(documents).search("Which is 4321?", 1)
    assert found.passage.document is documents[4321] and documents[0]._texts.size <= 1000


def test_documents_of_texts() -> None:
    documents = Documents.of_texts({"a": "One.", "empty": " ", "b": "Two.\n\nThree."})
    assert [one.name for one in documents] == ["a", "b"]
    assert [(one.document.name, one.text) for one in documents.passages] == [("a", "One."), ("b", "Two.\n\nThree.")]
    with pytest.raises(InputError, match="nothing to read in 1 texts"):
        Documents.of_texts({"a": "\n"})
