"""Banded attention as a choice of a config: GPT-3's sizes, what is written and read again, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tasks.small_writers import writer

from glassformer.checkpoints import huggingface, native
from glassformer.errors import InputError
from glassformer.layers.sites import sites as sites_of
from glassformer.models.config import Banded, Config, Dense, Relative, Rotary
from glassformer.models.counting import count
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder
from glassformer.models.sizes import sizes
from glassformer.settings import from_mapping, to_mapping
from glassformer.text.pipeline import TextPipeline
from glassformer.training.recipes import read_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
PLAIN = TextPipeline(unicode="none")
GPT3 = [name for name in sizes if name.startswith("gpt3-")]


def small(**changes: Any) -> Config:
    config = sizes["gpt3-small"]
    assert isinstance(config, Config)
    fields = {"vocab_size": 40, "d_model": 16, "n_heads": 4, "d_head": None, "d_ff": 64, "n_decoder_layers": 4}
    ids = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "max_length": 128, "init_std": 0.3}
    return replace(config, **{**fields, **ids, "attention": Banded(5), **changes})


@pytest.mark.parametrize("name", GPT3)
def test_gpt3_alternates_dense_and_banded_layers(name: str) -> None:
    """All of table 2.1; bands change no parameter, and less is computed and kept."""
    config = sizes[name]
    assert isinstance(config, Config)
    bands = [config.band(layer) for layer in range(config.n_decoder_layers)]
    assert bands == [None, 256] * (config.n_decoder_layers // 2)
    dense = replace(config, attention=Dense())
    banded, plain = count(config), count(dense)
    assert banded.total == plain.total and banded.parts == plain.parts
    assert banded.cache_of(2048, "fp32") * 2048 * 2 == plain.cache_of(2048, "fp32") * (2048 + 256)
    (ours,), (theirs,) = banded.flops(2048).values(), plain.flops(2048).values()
    assert ours.weights == theirs.weights and ours.attention * 4096 == theirs.attention * (2048 + 256)
    assert banded.flops(100) == plain.flops(100)


def test_other_sizes_are_dense() -> None:
    others = [config for name, config in sizes.items() if name not in GPT3 and isinstance(config, Config)]
    assert others and all(config.attention == Dense() and not config.banded_layers for config in others)


def test_the_pattern_of_layers() -> None:
    def bands(**choice: int) -> list[int | None]:
        return [small(attention=Banded(**choice)).band(layer) for layer in range(4)]

    assert bands(width=3) == [None, 3, None, 3]
    assert bands(width=3, every=1) == [3, 3, 3, 3]
    assert bands(width=3, every=3) == [None, None, 3, None]
    assert [block.self_attention.band for block in Decoder(small()).stack.blocks] == [None, 5, None, 5]
    assert list(sites_of(Decoder(small()))) == list(sites_of(Decoder(small(attention=Dense()))))


@pytest.mark.parametrize("choice", [{"width": 0}, {"every": 0}, {"width": -3}])
def test_impossible_bands_are_refused(choice: dict[str, int]) -> None:
    with pytest.raises(InputError, match="banded attention: '(width|every)' must be at least 1, got"):
        Banded(**choice)


def test_encoders_have_no_bands() -> None:
    with pytest.raises(InputError, match="banded attention looks back only"):
        Encoder(small(n_encoder_layers=2, n_decoder_layers=0))
    with pytest.raises(InputError, match="banded attention looks back only"):
        small(n_encoder_layers=2)


@pytest.mark.parametrize("attention", [Dense(), Banded(), Banded(7, 3)])
def test_written_in_files_and_read_again(attention: Dense | Banded) -> None:
    config = small(attention=attention)
    written = json.loads(json.dumps(to_mapping(config)))
    assert from_mapping(Config, written, "here") == config
    assert written["attention"] in ("dense", "banded", {"kind": "banded", "width": 7, "every": 3})


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, Banded(256, 2)),
        ({"model.attention": "dense"}, Dense()),
        ({"model.attention": '{kind = "banded", width = 64, every = 1}'}, Banded(64, 1)),
    ],
)
def test_a_recipe_may_say_another_pattern(given: dict[str, str], wanted: Dense | Banded) -> None:
    recipe = read_recipe(RECIPES / "shakespeare-char.toml", given)
    model = {**{"size": "gpt3-small"}, **{key: value for key, value in recipe.model.items() if key == "attention"}}
    config = replace(recipe, model=model).network_config(100)
    assert isinstance(config, Config) and config.attention == wanted


def test_a_folder_keeps_the_pattern(tmp_path: Path) -> None:
    """And one of a dense network is written as it has always been."""
    tokenizer = writer().tokenizer
    for name, attention in (("dense", Dense()), ("banded", Banded(5))):
        torch.manual_seed(0)
        network = Decoder(small(attention=attention, vocab_size=tokenizer.vocab_size)).eval()
        native.save(tmp_path / name, network, tokenizer, PLAIN, "generation")
        held = native.load(tmp_path / name)
        assert held.config == network.config
        ids = torch.arange(4, 20)[None]
        assert torch.equal(held.network(ids).logits, network(ids).logits)
        index = json.loads((tmp_path / name / "glassformer.json").read_text())
        assert ("attention" in index["config"]) == (name == "banded")


def test_hugging_face_has_no_name_for_it(tmp_path: Path) -> None:
    """Refused by name whatever the architecture, before anything is written; the dense network is exported."""
    tokenizer = writer().tokenizer
    llama = {"positions": Rotary(), "norm": "rms", "gated": True, "activation": "silu", "bias": False}
    for choices in ({}, llama):
        network = Decoder(small(vocab_size=tokenizer.vocab_size, **choices))
        with pytest.raises(InputError, match="stock GPT-2 cannot express locally banded attention.*2 banded layers"):
            huggingface.write_folder(tmp_path / "out", network, tokenizer, PLAIN)
        assert not list(tmp_path.iterdir())
    dense = Decoder(small(vocab_size=tokenizer.vocab_size, attention=Dense()))
    huggingface.write_folder(tmp_path / "out", dense, tokenizer, PLAIN)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "gpt2"


@pytest.mark.parametrize("choices", [{}, {"positions": Rotary()}, {"positions": Relative(8, 6)}])
def test_packed_documents_read_as_if_alone(choices: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = Decoder(small(**choices)).eval()
    ids = torch.randint(4, 40, (2, 90))
    documents = torch.tensor([[0] * 30 + [1] * 12 + [2] * 48, [0] * 3 + [1] * 87])
    packed = network.hidden(ids, documents)
    for row, edges in enumerate(([0, 30, 42, 90], [0, 3, 90])):
        for begin, end in zip(edges, edges[1:], strict=False):
            alone = network.hidden(ids[row : row + 1, begin:end])
            torch.testing.assert_close(packed[row, begin:end], alone[0], atol=1e-5, rtol=1e-4)
