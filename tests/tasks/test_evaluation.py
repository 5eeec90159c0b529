"""`evaluate` translates as a user would and scores what comes out."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from glassformer.tasks.evaluation import evaluate
from glassformer.tasks.model import Generation, Model
from glassformer.text.corpora import Pairs
from glassformer.text.pipeline import TextPipeline


@dataclass
class Echo:
    """Gives its source back as the translation, in lower case if its pipeline says so."""

    pipeline: TextPipeline = field(default_factory=TextPipeline)
    asked: dict[str, Any] = field(default_factory=dict)

    def translate(self, text: list[str], **settings: Any) -> list[Generation]:
        self.asked = settings
        lines = [line.lower() if self.pipeline.lowercase else line for line in text]
        return [Generation(line, (5,), (-0.5,), "length" if "long" in line else "stop", -0.5) for line in lines]


def test_scores_of_a_known_translator() -> None:
    pairs = Pairs(["The same line here .", "not as long as that"], ["The same line here .", "it is not the same"], "")
    echo = Echo()
    scores = evaluate(echo, pairs, beam=3, length_penalty=0.6)  # type: ignore[arg-type]
    assert scores["exact_match"] == 0.5 and scores["n"] == 2 and scores["cut_off"] == 1
    assert 0 < scores["bleu"] < 100 and 0 < scores["chrf"] < 100 and scores["seconds"] >= 0
    assert "tok:13a" in scores["bleu_signature"] and "case:mixed" in scores["bleu_signature"]
    assert echo.asked["beam"] == 3 and echo.asked["length_penalty"] == 0.6 and echo.asked["tokenized"] is False


def test_tokens_have_their_own_signature() -> None:
    echo = Echo()
    scores = evaluate(echo, Pairs(["a b c d"], ["a b c d"], ""), tokenized=True)  # type: ignore[arg-type]
    assert scores["bleu"] == pytest.approx(100)
    assert "tok:none" in scores["bleu_signature"] and echo.asked["tokenized"] is True


def test_a_model_of_lower_case_is_scored_ignoring_case() -> None:
    pairs = Pairs(["A Dog Runs Home"], ["A Dog Runs Home"], "")
    scores = evaluate(Echo(TextPipeline(lowercase=True)), pairs)  # type: ignore[arg-type]
    assert scores["bleu"] == pytest.approx(100) and "case:lc" in scores["bleu_signature"]
    tokens = evaluate(Echo(TextPipeline(lowercase=True)), pairs, tokenized=True)  # type: ignore[arg-type]
    assert tokens["bleu"] < 50 and "case:mixed" in tokens["bleu_signature"]


def test_a_model_evaluates_itself(model: Model) -> None:
    source = ["a dog runs .", "two women eat ."]
    target = [result.text for result in model.translate(source)]
    scores = model.evaluate(Pairs(source, target, ""))
    assert scores["exact_match"] == 1.0
    assert scores == {**evaluate(model, Pairs(source, target, "")), "seconds": scores["seconds"]}
