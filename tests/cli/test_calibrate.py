"""`glassformer calibrate`: a file that holds for the model asked, figures, pictures, an audit; bad input refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import Glassformer, run_inside
from tasks.small_writers import writer

import glassformer as gf
from glassformer.errors import InputError
from glassformer.factuality.calibration import load
from glassformer.factuality.questions import is_right, read_questions


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model, and 320 questions of which it answers about half rightly: their answers are made so."""
    folder = tmp_path_factory.mktemp("calibrate")
    model = writer(positions=96)
    model.save(folder / "tiny")
    texts = [f"What is {number}?" for number in range(320)]
    said = model.generate([f"Q: {text}\nA:" for text in texts], max_new_tokens=2, stop="\n")
    rows = [
        {"question": text, "answers": [one.text.strip() or "none" if i % 2 else "nothing"], "entity": f"E{i // 2}"}
        for i, (text, one) in enumerate(zip(texts, said, strict=True))
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:299]))
    return folder


def given(place: Path, out: Path, *more: object) -> tuple[object, ...]:
    common = ("--style", "few-shot", "--max-new-tokens", 2, "--out", out)
    return ("calibrate", "--model", place / "tiny", "--questions", place / "questions.jsonl", *common, *more)


@pytest.mark.slow
def test_a_model_is_calibrated(glassformer: Glassformer, place: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "risk.json"
    done = glassformer(*given(place, out, "--audit", 20))
    assert done.code == 0, done.err
    assert "320 of 320 questions answered" in done.err
    for words in ("held-out questions", "accuracy", "AUROC", "PRR", "ECE", "Brier skill", "at most 10% wrong"):
        assert words in done.out
    files = ["risk-answers.jsonl", "risk-audit.jsonl", "risk-coverage.png", "risk-reliability.png", "risk.json"]
    assert sorted(path.name for path in out.parent.iterdir()) == files
    model = gf.load(place / "tiny")
    found = load(out, model, "tiny")
    assert found.n == 320 and found.asking.style == "few-shot" and len(found.names) > 3
    assert 0 < found.probability(dict.fromkeys(found.names, 1.0)) < 1
    by_id = {one.id: one for one in read_questions(place / "questions.jsonl")}
    rows = [json.loads(line) for line in (out.parent / "risk-audit.jsonl").read_text().splitlines()]
    assert len(rows) == 20
    for row in rows:
        assert row["right"] is is_right(row["answer"], by_id[row["id"]], lenient=True)


def test_one_score_shots_and_json(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "risk.json"
    more = ("--shots", 1, "--score", "perplexity", "--method", "platt", "--limit", 310, "--seed", 2, "--json")
    done = run_inside(*given(place, out, *more))
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["n"] == 310 and told["scores"] == ["perplexity"]
    assert told["asked"] == {"style": "few-shot", "count": 1, "seed": 2, "max_new_tokens": 2}
    assert set(told["held_out"]["limits"]) == {"0.05", "0.1", "0.2"}
    interval = told["held_out"]["ece"]["interval"]
    assert interval["low"] <= interval["high"] and 150 <= told["held_out"]["n"] <= 160
    assert load(out, gf.load(place / "tiny")).curve.method == "platt"


@pytest.mark.slow
def test_what_was_interrupted_goes_on(place: Path, tmp_path: Path) -> None:
    out, answers = tmp_path / "risk.json", tmp_path / "risk-answers.jsonl"
    whole = run_inside(*given(place, out))
    lines = answers.read_text().splitlines(keepends=True)
    assert len(lines) == 320 and "already" not in whole.err
    answers.write_text("".join(lines[:200]) + lines[200][:40])
    again = run_inside(*given(place, out))
    assert "200 of 320 answers are in" in again.err
    assert again.out == whole.out
    other = run_inside(*given(place, out, "--score", "perplexity"))
    assert other.code == 0 and "320 of 320 answers are in" in other.err


@pytest.mark.slow
def test_what_calibrate_writes_ask_takes_without_another_word(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "risk.json"
    assert run_inside(*given(place, out)).code == 0
    asking = ("ask", "--model", place / "tiny", "--risk", out, "--max-error", 0.1)
    done = run_inside(*asking, "What is 7?")
    assert done.code == 0, done.err
    other = run_inside(*asking, "--precision", "int8", "What is 7?")
    assert other.code == 2 and "is a calibration of" in other.err
    assert run_inside(*given(place, out, "--precision", "int8")).code == 0
    assert run_inside(*asking, "--precision", "int8", "What is 7?").code == 0
    assert run_inside(*asking, "What is 7?").code == 2


def test_another_model_is_refused(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "risk.json"
    assert run_inside(*given(place, out, "--score", "perplexity")).code == 0
    with pytest.raises(InputError, match="tiny.* not of 'other'"):
        load(out, writer(positions=32), "other")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--questions", "few.jsonl"), "at least 300"),
        (("--limit", "20"), "at least 300"),
        (("--limit", "0"), "--limit"),
        (("--score", "perplexiti"), "Did you mean 'perplexity'"),
        (("--style", "fewshot"), "Did you mean 'few-shot'"),
        (("--method", "spline"), "--method"),
        (("--features", "score"), "Did you mean 'scores'"),
        (("--shots", "-1"), "--shots"),
        (("--audit", "-1"), "--audit"),
        (("--max-new-tokens", "0"), "--max-new-tokens"),
        (("--out", "."), "is a folder"),
        (("--questions", "missing.jsonl"), "no such file"),
        (("--model", "missing"), "missing"),
        (("--questions", "questions.jsonl", "questions.jsonl"), "in another file too"),
    ],
)
def test_what_cannot_be_is_one_line(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(place)
    arguments = {"--model": ("tiny",), "--questions": ("questions.jsonl",), "--out": (tmp_path / "risk.json",)}
    arguments[more[0]] = more[1:]
    done = run_inside("calibrate", *(each for name, values in arguments.items() for each in (name, *values)))
    assert done.code == 2 and words in done.err and done.err.count("\n") == 1, done.err
    assert not done.out and not (tmp_path / "risk.json").exists()
