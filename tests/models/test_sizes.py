"""Published sizes: the counts their papers and checkpoints give, and an independent implementation's."""

from __future__ import annotations

import pytest
import torch

from glassformer.checkpoints.families import families
from glassformer.models.config import Config
from glassformer.models.counting import count
from glassformer.models.sizes import sizes

# Exact counts: checkpoints as published (a tied head once), or closed forms worked out by hand.
EXACT = {
    "gpt1": 116_534_784,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "gpt3-175b": 50_257 * 12_288 + 2_048 * 12_288 + 96 * (12 * 12_288**2 + 13 * 12_288) + 2 * 12_288,
    "bert-base": 110_106_428 - (2 * 768 + 2),  # without the head for the next sentence
    "bert-large": 336_226_108 - (2 * 1024 + 2),
    "minilm-l6": 22_713_216,
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "bart-base": 139_420_416 - 2 * 2 * 768,  # without the two positions of each table that nobody reads
    "bart-large": 406_291_456 - 2 * 2 * 1024,
    "llama-2-7b": 6_738_415_616,
    "smollm2-135m": 134_515_008,
}

# What table 2.1 of Brown et al. 2020 prints, in millions.
TABLE_2_1 = {
    "gpt3-small": 125,
    "gpt3-medium": 350,
    "gpt3-large": 760,
    "gpt3-2.7b": 2_700,
    "gpt3-6.7b": 6_700,
    "gpt3-13b": 13_000,
    "gpt3-175b": 175_000,
    "gpt3-xl-corrected": 1_300,
    "gpt3-13b-corrected": 13_000,
}


@pytest.mark.parametrize("name", EXACT)
def test_exact_counts(name: str) -> None:
    assert count(sizes[name]).total == EXACT[name]


@pytest.mark.parametrize("name", TABLE_2_1)
def test_counts_as_printed(name: str) -> None:
    assert count(sizes[name]).total / 1e6 == pytest.approx(TABLE_2_1[name], rel=0.025)


def test_gpt3_175b_to_the_last_parameter() -> None:
    assert count(sizes["gpt3-175b"]).total == 174_604_259_328


def test_rows_that_do_not_divide_are_kept_as_printed() -> None:
    """24 heads of 128 at width 2,048 make a model of 1.5 billion, where the table says 1.3."""
    xl, billions = sizes["gpt3-xl"], sizes["gpt3-13b"]
    assert (xl.d_model, xl.n_heads, xl.head_width) == (2048, 24, 128)
    assert (billions.d_model, billions.n_heads, billions.head_width) == (5140, 40, 128)
    assert count(xl).total / 1e9 == pytest.approx(1.52, abs=0.01)


def meta(config: Config) -> torch.nn.Module:
    with torch.device("meta"):
        return families[count(config).family].network(config)


@pytest.mark.parametrize("name", [name for name in sizes if count(sizes[name]).total < 4e8])
def test_every_size_that_fits_is_a_network(name: str) -> None:
    assert sum(parameter.numel() for parameter in meta(sizes[name]).parameters()) == count(sizes[name]).total


def peer(name: str) -> int:
    """The same model's parameters as transformers counts them."""
    transformers = pytest.importorskip("transformers")
    config, network = {
        "gpt1": ("OpenAIGPTConfig", "OpenAIGPTLMHeadModel"),
        "gpt2": ("GPT2Config", "GPT2LMHeadModel"),
        "bert-base": ("BertConfig", "BertForPreTraining"),
        "t5-small": ("T5Config", "T5ForConditionalGeneration"),
        "bart-large": ("BartConfig", "BartForConditionalGeneration"),
        "llama-2-7b": ("LlamaConfig", "LlamaForCausalLM"),
    }[name]
    with torch.device("meta"):
        theirs = getattr(transformers, network)(getattr(transformers, config)())
    return sum(parameter.numel() for parameter in theirs.parameters())


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("gpt1", 0),
        ("gpt2", 0),
        ("bert-base", 2 * 768 + 2),
        ("t5-small", 0),
        ("bart-large", 4 * 1024),
        ("llama-2-7b", 0),
    ],
)
def test_counts_of_an_independent_implementation(name: str, without: int) -> None:
    assert count(sizes[name]).total == peer(name) - without
