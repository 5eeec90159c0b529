"""`Model`: text in, text out, in order, whatever the batches; nothing is cut silently."""

import random
from pathlib import Path

import pytest
import torch
from tasks.small_models import WORDS, model_of

from glassformer.errors import InputError
from glassformer.tasks.model import Generation, Model, load
from glassformer.tasks.splitting import parts
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import EOS, Tokenizer


def some_lines(count: int = 12) -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 20))) for _ in range(count)]


def test_a_string_gives_one_and_a_list_gives_a_list(model: Model) -> None:
    one = model.translate("a man rides the bike .")
    assert isinstance(one, Generation)
    assert model.translate(["a man rides the bike ."]) == [one]
    assert model.translate([]) == []
    assert one.text == model.tokenizer.decode(one.ids)
    assert len(one.ids) == len(one.logprobs)
    assert (one.finish_reason == "stop") == (one.ids[-1] == EOS)


@pytest.mark.parametrize("batch_tokens", [1, 50, 2048])
def test_lines_come_back_in_order_whatever_the_batches(model: Model, batch_tokens: int) -> None:
    lines = some_lines()
    together = model.translate(lines, beam=2, batch_tokens=batch_tokens)
    alone = [model.translate(line, beam=2) for line in lines]
    assert [result.ids for result in together] == [result.ids for result in alone]
    assert len({result.ids for result in together}) > 3
    for one, other in zip(together, alone, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-4)


def test_an_empty_line_gives_an_empty_text(model: Model) -> None:
    first, second, third = model.translate(["", "a dog runs .", " \t "])
    assert (first.text, third.text) == ("", "")
    assert first == third == Generation("", (), (), "stop", 0.0)
    assert second == model.translate("a dog runs .")
    assert model.translate("").text == ""


def test_n_best_are_in_order_and_differ(model: Model) -> None:
    best = model.translate("a dog runs .", beam=4, n_best=3)
    found = [best, *best.alternatives]
    assert len({one.ids for one in found}) == 3
    assert not any(one.alternatives for one in best.alternatives)
    assert best.ids == model.translate("a dog runs .", beam=4).ids
    with pytest.raises(InputError, match="'n_best'"):
        model.translate("a dog runs .", beam=2, n_best=3)


def test_the_pipeline_is_applied_unless_text_is_tokens(model: Model) -> None:
    assert model.translate("A  DOG runs .") == model.translate("a dog runs .")
    unknown = model.translate("A DOG runs .", tokenized=True)
    assert unknown == model.translate("zzz zzz runs .", tokenized=True)
    assert unknown != model.translate("a dog runs .", tokenized=True)


def test_moses_goes_in_and_out() -> None:
    tokenizer = Tokenizer.train(["a man &apos;s bike , too ."], kind="word", vocab_size=30, min_frequency=1)
    model = model_of(tokenizer, TextPipeline("en", "en", lowercase=True, moses=True))
    raw, tokens = model.translate("A man's bike, too."), model.translate("a man &apos;s bike , too .", tokenized=True)
    assert raw.ids == tokens.ids
    assert raw.text == model.pipeline.finish_target(tokens.text)


def test_a_line_too_long_is_refused_by_name(model: Model) -> None:
    lines = ["a dog runs .", "a " * 24]
    with pytest.raises(InputError, match="line 2 has 24 tokens, the model has positions for 23"):
        model.translate(lines)
    with pytest.raises(InputError, match="line 102 has 24 tokens"):
        model.translate(lines, first_line=101)
    assert model.translate("a " * 23).text


def test_or_split_with_a_warning(model: Model) -> None:
    first, second = "a man rides the bike on the road .", "two women eat while a dog runs on the road ."
    line = f"{first} {second} {first}"
    with pytest.warns(UserWarning, match="line 2 has 29 tokens, the model has positions for 23: .* 2 parts"):
        _, result = model.translate(["a", line], long="split", beam=3, n_best=2)
    assert parts(line, lambda text: len(text.split()) <= 23) == [f"{first} {second}", first]
    halves = model.translate([f"{first} {second}", first], beam=3, n_best=2)
    assert result.text == " ".join(half.text for half in halves).strip()
    assert result.ids == halves[0].ids + halves[1].ids
    assert result.score == pytest.approx(sum(half.score for half in halves), abs=1e-4)
    assert result.alternatives[0].text == " ".join(half.alternatives[0].text for half in halves).strip()


def test_cut_off_is_said(model: Model) -> None:
    lengths = {result.finish_reason for result in model.translate(some_lines(), max_length=2, beam=1)}
    assert "length" in lengths
    with pytest.raises(InputError, match="'max_length' must be from 1 to the model's 24 positions, got 25"):
        model.translate("a dog", max_length=25)


def test_what_is_not_text_is_an_error(model: Model) -> None:
    with pytest.raises(InputError, match="item 2 is None"):
        model.translate(["a", None])  # type: ignore[list-item]
    with pytest.raises(InputError, match="'long' must be"):
        model.translate("a", long="cut")  # type: ignore[call-overload]


def test_saved_and_loaded_translates_alike(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "saved")
    loaded = load(tmp_path / "saved")
    assert loaded.config == model.config and loaded.pipeline == model.pipeline and loaded.task == model.task
    assert loaded.translate(some_lines(3)) == model.translate(some_lines(3))
    assert loaded.device == torch.device("cpu")


def test_a_model_that_is_not_there() -> None:
    with pytest.raises(InputError, match="No model 'multi31k'"):
        load("multi31k")
