"""Recurrent and convolutional networks as models: every verb of an encoder-decoder, saved and loaded, looked into."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tasks.small_models import TEXT
from torch import nn

import glassformer as gf
from glassformer.errors import InputError
from glassformer.models.config import AnyConfig, ConvolutionalConfig, RecurrentConfig
from glassformer.models.families import network_class
from glassformer.tasks.alignment import align
from glassformer.tasks.running import at_precision
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

CONFIGS: dict[str, AnyConfig] = {
    "recurrent": RecurrentConfig(100, d_model=16, max_length=24, attention="additive", tie_head=False),
    "convolutional": ConvolutionalConfig(100, d_model=16, max_length=24, n_decoder_layers=2, tie_head=False),
}
LINES = ["a man rides the bike", "", "two women eat , while dog runs on road", "dog"]


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> gf.Model:
    torch.manual_seed(2)
    tokenizer = Tokenizer.train([TEXT], kind="word", vocab_size=60, min_frequency=1)
    config = replace(CONFIGS[request.param], vocab_size=tokenizer.vocab_size)
    built = network_class(config)(config)
    with torch.no_grad():  # so that outputs differ and change as they go on
        for parameter in built.parameters():
            parameter.mul_(3)
    return gf.Model(built.eval(), tokenizer, TextPipeline())


def test_it_translates_each_line_as_if_alone(model: gf.Model) -> None:
    together = model.translate(LINES, beam=3, n_best=2, max_length=8)
    assert together[1].text == "" and len({result.text for result in together}) > 2
    for line, result in zip(LINES, together, strict=True):
        alone = model.translate(line, beam=3, n_best=2, max_length=8)
        assert alone.text == result.text and alone.score == pytest.approx(result.score, abs=1e-4)
    assert [len(result.alternatives) for result in together] == [1, 0, 1, 1]


def test_called_it_gives_what_its_network_gives(model: gf.Model) -> None:
    output = model("a man", "two women")
    assert output.logits.shape == (1, 3, model.config.vocab_size)
    with pytest.raises(InputError, match="reads two texts"):
        model("a man")


def test_saved_and_loaded_it_is_the_same(model: gf.Model, tmp_path: Path) -> None:
    again = gf.load(model.save(tmp_path / "saved"))
    assert type(again.network) is type(model.network) and again.config == model.config
    assert again.translate(LINES[0], beam=2) == model.translate(LINES[0], beam=2)
    with pytest.raises(InputError, match="no known architecture of Hugging Face holds this network: none of them is"):
        model.save_pretrained(tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


def test_its_alignment_can_be_seen(model: gf.Model) -> None:
    found = align(model, "a man", "two women eat")
    assert found.pattern.shape == (4, 3)
    torch.testing.assert_close(found.pattern.sum(1), torch.ones(4))


def test_in_eight_bits_it_writes_nearly_the_same(model: gf.Model) -> None:
    source, target = torch.randint(4, 16, (3, 7)), torch.randint(4, 16, (3, 5))
    small: nn.Module = at_precision(model.network, "int8")
    with torch.no_grad():
        plain, rough = model.network(source, target).logits, small(source, target).logits
    assert not torch.equal(plain, rough)
    assert torch.nn.functional.cosine_similarity(plain.flatten(), rough.flatten(), 0) > 0.99


def test_what_it_cannot_do_is_said(model: gf.Model) -> None:
    with pytest.raises(InputError, match="only a decoder goes on from a text"):
        model.generate("a man")
    with pytest.raises(InputError, match="line 1 has"):
        model.translate("man " * 40)
