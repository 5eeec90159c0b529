"""`glassformer recall` as a process: loaded and trained models, reports that say "not testable", bad input refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from processes import Glassformer

from glassformer.cli.main import main

RECIPE = """
task = "language-modeling"
[data]
kind = "people"
train = "people.tsv"
variants = 3
context = 64
[text]
tokenizer = "bpe"
vocab_size = 300
[model]
size = "gpt2"
d_model = 32
n_heads = 2
d_ff = 64
n_decoder_layers = 2
positions = "rotary"
max_length = 96
dropout = 0.0
attention_dropout = 0.0
[training]
steps = 3
batch_tokens = 256
learning_rate = 1e-3
warmup = 1
seed = 1
"""
STAGES = ["concatenation", "lookup", "neurons", "extraction", "distributed"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with facts, people and two recipes."""
    folder = tmp_path_factory.mktemp("recall")
    rows = [(f"Bo{'abcdef'[n % 6]}{n} Tal", ("red", "blue")[n % 2]) for n in range(16)]
    (folder / "facts.tsv").write_text("".join(f"{subject}\t{answer}\n" for subject, answer in rows))
    people = "".join(f"Ann{n} Bee\t{('chess', 'golf')[n % 2]}\n" for n in range(40))
    (folder / "people.tsv").write_text(f"name\tsport\n{people}")
    (folder / "gpt.toml").write_text(RECIPE)
    (folder / "gpt-single.toml").write_text(RECIPE.replace("variants = 3", "variants = 1"))
    return folder


@pytest.mark.slow
def test_a_model_that_knows_none_of_the_facts(glassformer: Glassformer, tiny_decoder: Path, place: Path) -> None:
    """The report says that it cannot be tested; that is no failure."""
    asked = ("--facts", "facts.tsv", "--template", "{subject} likes")
    common = ("recall", "--model", tiny_decoder, *asked, "--scale", "toy", "--threads", 1, "--out", "loaded")
    done = glassformer(*common, cwd=place)
    assert done.code == 0, done.err
    *verdicts, page = done.out.splitlines()
    assert [line.split(":")[0] for line in verdicts] == ["gate", *STAGES] and page == "loaded/report.html"
    assert all(": not testable here" in line for line in verdicts)
    text = (place / page).read_text()
    assert "Not testable" in text and not re.search(r"https?://|<script", text)
    assert "*not testable here*" in (place / "loaded" / "report.md").read_text()
    assert list(json.loads((place / "loaded" / "report.json").read_text())["parts"]) == ["gate", *STAGES]
    again = glassformer(*common, "--json", cwd=place)
    claims = [json.loads(line) for line in again.out.splitlines()]
    assert {claim["verdict"] for claim in claims} == {"not testable here"} and len(claims) > 20
    assert again.err.count("measured before") == 6


@pytest.mark.slow
def test_a_gpt_that_is_trained_first(glassformer: Glassformer, place: Path) -> None:
    """Both recipes are trained, and the second time taken as they are; of few people there are fewer steps."""
    common = ("recall", "--train", "gpt.toml", "--data-root", ".", "--scale", "toy", "--threads", 1)
    done = glassformer(*common, "--out", "trained", cwd=place)
    assert done.code == 0, done.err
    parts = [f"{attribute}-{name}" for attribute in ("sport", "colour") for name in ("gate", *STAGES)]
    assert [line.split(":")[0] for line in done.out.splitlines()[:-1]] == ["recall", *parts]
    assert done.out.startswith("recall: not supported (sport ")
    numbers = json.loads((place / "trained" / "report.json").read_text())
    recalled = numbers["parts"]["recall"]["result"]
    assert set(recalled["models"]) == {"many wordings", "single wording"} and recalled["names"]["right"]
    assert numbers["measured"]["control"] == "gpt-single.toml"
    assert (place / "runs" / "gpt" / "glassformer.json").is_file()
    assert (place / "trained" / "figures" / "recall.png").is_file()
    again = glassformer(*common, "--out", "again", cwd=place)
    assert again.code == 0 and again.err.count("trained before, in runs/gpt") == 2
    fewer = glassformer(*common, "--out", "fewer", "--people", 30, cwd=place)
    assert fewer.code == 0, fewer.err
    assert (place / "runs" / "gpt-30" / "glassformer.json").is_file()
    assert "on 30 people" in (place / "fewer" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--facts", "facts.tsv"), "say what to study: --model NAME --facts FILE, or --train"),
        (("--train", "gpt.toml", "--facts", "facts.tsv"), "--train brings its own model and facts"),
        (("--model", "MODEL", "--facts", "facts.tsv", "--limit", 1), "--limit must be at least 2, got 1"),
        (("--model", "MODEL", "--facts", "facts.tsv", "--threads", 0), "--threads must be at least 1, got 0"),
        (("--model", "MODEL", "--facts", "facts.tsv"), "give a template"),
        (("--model", "MODEL", "--facts", "none.tsv", "--template", "{subject} likes"), "none.tsv"),
        (
            ("--model", "MODEL", "--facts", "facts.tsv", "--template", "{subject} likes", "--quick"),
            "must have 25 facts",
        ),
        (("--model", "ENCODER", "--facts", "facts.tsv", "--template", "{subject} likes", "--scale", "toy"), "decoders"),
        (("--train", "no-people.toml"), 'whose data has kind = "people"'),
    ],
)
def test_bad_input(
    arguments: tuple[str, ...],
    message: str,
    tiny_decoder: Path,
    tiny_embed: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    Path("no-people.toml").write_text(RECIPE.replace('kind = "people"', ""))
    models = {"MODEL": str(tiny_decoder), "ENCODER": str(tiny_embed)}
    given = [models.get(str(argument), str(argument)) for argument in arguments]
    assert main(["recall", *given, "--out", "refused"]) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("\n") == 1 and not shown.out
    assert not Path("refused").exists()
