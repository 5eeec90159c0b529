"""Translators are read from runs; who is better is decided by resampling, never by eye."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import glassformer as gf
from glassformer.errors import InputError
from glassformer.studies.architectures import paired, translation
from glassformer.studies.study import Setting
from glassformer.tasks import metrics

WORDS = [
    "a",
    "man",
    "two",
    "dogs",
    "run",
    "on",
    "the",
    "green",
    "grass",
    "near",
    "blue",
    "water",
    "with",
    "red",
    "balls",
]


def sentences(n: int, seed: int) -> list[str]:
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=generator.randint(5, 12))) for _ in range(n)]


def spoiled(texts: list[str], share: float) -> list[str]:
    generator = random.Random(9)
    return [" ".join(word if generator.random() > share else "x" for word in text.split()) for text in texts]


def test_paired_bootstrap_is_sacrebleus_and_sees_what_is_better() -> None:
    references = sentences(60, 1)
    good, bad = spoiled(references, 0.1), spoiled(references, 0.4)
    found = paired.paired_bootstrap(good, bad, references, 200)
    assert found.first == pytest.approx(metrics.bleu(good, references, tokenized=True).value)
    assert found.second == pytest.approx(metrics.bleu(bad, references, tokenized=True).value)
    assert found.low < found.first < found.high and found.p == 0.0 and found.difference_low > 0
    back = paired.paired_bootstrap(bad, good, references, 200)
    assert back.p == 1.0 and back.difference_high < 0
    assert paired.paired_bootstrap(good, good, references, 50).p == 1.0


def test_equal_time_is_that_of_the_shortest() -> None:
    curves = {"A": [[10, 1.0], [20, 2.0], [30, 3.0]], "B": [[15, 5.0], [25, 6.0]]}
    assert translation.equal_time(curves) == {"seconds": 25, "bleu": {"A": 2.0, "B": 6.0}}
    assert translation.equal_time({"A": curves["A"]}) is None
    assert translation.equal_time({**curves, "C": []}) is None
    assert translation.equal_time({"A": [[30, 1.0]], "B": [[5, 1.0]]}) is None


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """One tiny run of each family, of two steps."""
    folder = tmp_path_factory.mktemp("runs")
    lines = sentences(60, 2)
    for split in ("train", "valid", "test"):
        (folder / f"{split}.en").write_text("\n".join(lines) + "\n")
        (folder / f"{split}.de").write_text("\n".join(" ".join(reversed(line.split())) for line in lines) + "\n")
    own: dict[str, dict[str, Any]] = {
        "multi30k-en-de-transformer": {"model.d_ff": 16, "model.n_heads": 2, "model.n_encoder_layers": 1},
        "multi30k-en-de-lstm": {},
        "multi30k-en-de-convs2s": {"model.n_encoder_layers": 1},
    }
    made = []
    for recipe, changes in own.items():
        few = {"training.steps": 2, "training.warmup": 1, "training.evaluate_every": 1, "training.samples": 0}
        small = {"model.d_model": 16, "model.max_length": 64, "text.vocab_size": 60}
        data = {f"data.{split}": split for split in ("train", "valid", "test")}
        watched = {"evaluation.metric": "bleu", "evaluation.beam": 1, "evaluation.average": 1}
        made.append(folder / recipe)
        given = {**few, **small, **data, **watched, **changes}
        gf.train(f"recipes/{recipe}.toml", run=made[-1], data_root=folder, **given)
    return tuple(made)


def test_the_part(runs: tuple[Path, ...], tmp_path: Path) -> None:
    setting = Setting("toy", runs=runs, data_root=runs[0].parent)
    result = json.loads(json.dumps(translation.run(setting)))
    assert list(result["families"]) == ["Transformer", "LSTM", "ConvS2S"] and result["missing"] == []
    assert result["n"] == 20 and all(each["sentences_per_second"] > 0 for each in result["families"].values())
    assert all(len(each["curve"]) == 2 for each in result["families"].values())
    (picture,) = translation.draw(result, tmp_path)
    assert (tmp_path / picture.file).read_bytes().startswith(b"\x89PNG")
    (table,) = translation.tables(result)
    assert [row[0] for row in table.rows] == ["Transformer", "LSTM", "ConvS2S"]
    assert len(translation.claims(result)) == 3


def test_one_run_alone_names_what_is_missing(runs: tuple[Path, ...], tmp_path: Path) -> None:
    result = translation.run(Setting("toy", runs=runs[1:2], data_root=runs[0].parent))
    assert result["missing"] == ["Transformer", "ConvS2S"]
    assert "recipes/multi30k-en-de-transformer.toml" in str(translation.tables(result)[1])
    assert {claim.verdict for claim in translation.claims(result)} == {"not testable here"}
    translation.draw(result, tmp_path)


def test_bad_runs_are_refused(runs: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = runs[0].parent
    with pytest.raises(InputError, match="one run of each"):
        translation.run(Setting("toy", runs=(runs[0], runs[0]), data_root=data))
    with pytest.raises(InputError, match="holds no finished run"):
        translation.run(Setting("toy", runs=(tmp_path,), data_root=data))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there is no finished translator: train recipes/multi30k-en-de-transformer"):
        translation.run(Setting("toy", data_root=data))


def result_of(better: str, p: float, equal: dict[str, float] | None) -> dict[str, Any]:
    pairs = [
        {"better": better, "worse": other, "first": 40.0, "second": 39.0, "difference_low": 0.1, "difference_high": 2.0}
        | {"p": p}
        for other in ("Transformer", "LSTM", "ConvS2S")
        if other != better
    ]
    return {"pairs": pairs, "n": 10, "equal_time": equal and {"seconds": 60.0, "bleu": equal}}


@pytest.mark.parametrize(
    ("result", "verdicts"),
    [
        (
            result_of("Transformer", 0.01, {"Transformer": 3.0, "LSTM": 2.0, "ConvS2S": 1.0}),
            ["supported", "supported", "supported"],
        ),
        (
            result_of("Transformer", 0.2, {"Transformer": 3.0, "LSTM": 4.0, "ConvS2S": 1.0}),
            ["not supported", "not supported", "not supported"],
        ),
        (result_of("LSTM", 0.01, None), ["not supported", "not testable here", "not testable here"]),
    ],
)
def test_verdicts_follow_from_the_rules(result: dict[str, Any], verdicts: list[str]) -> None:
    assert [claim.verdict for claim in translation.claims(result)] == verdicts
