"""What is trained and how fast: patterns that freeze, a learning rate for each layer, the section's own checks."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from glassformer.errors import InputError
from glassformer.layers import low_rank
from glassformer.layers.low_rank import LowRank, add_low_rank
from glassformer.models.config import Classification, Config, Learned, Relative
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.training.finetuning import DENSE, Finetune, freeze, learning_rate_factors

SHAPE: dict[str, Any] = {"vocab_size": 12, "d_model": 4, "n_heads": 2, "d_ff": 6, "max_length": 8}
BERT = Config(n_encoder_layers=12, n_decoder_layers=0, positions=Learned(), n_segments=2, embedding_norm=True, **SHAPE)
LABELS = replace(BERT, n_encoder_layers=3, head=Classification(("good", "bad")), pooler=True)
GPT = Config(n_encoder_layers=0, n_decoder_layers=3, positions=Learned(), norm_first=True, **SHAPE)
PAPER = Config(n_encoder_layers=1, n_decoder_layers=2, **SHAPE)
T5 = replace(PAPER, positions=Relative(4, 6), norm_first=True)


def network_of(config: Config) -> Any:
    kind = EncoderDecoder if config.n_encoder_layers and config.n_decoder_layers else Encoder
    return (kind if config.n_encoder_layers else Decoder)(config)


def frozen(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if not parameter.requires_grad}


BLOCK = r"stack\.blocks\.({})\."
PATTERNS = [
    (BERT, "embedding", r"stack\.embedding\..*"),
    (BERT, "stack.embedding", r"stack\.embedding\..*"),
    (BERT, "token", r"stack\.embedding\.token\.weight"),
    (BERT, "head.words.weight", r"stack\.embedding\.token\.weight"),
    (BERT, "head", r"head\..*|stack\.embedding\.token\.weight"),
    (BERT, "head.norm", r"head\.norm\..*"),
    (BERT, "stack.blocks.1", BLOCK.format("1") + ".*"),
    (BERT, "blocks.0.self_attention", BLOCK.format("0") + r"self_attention\..*"),
    (BERT, "norm_1.weight", BLOCK.format(r"\d+") + r"norm_1\.weight"),
    (BERT, "blocks[1]", BLOCK.format("1") + ".*"),
    (BERT, "blocks[0:3]", BLOCK.format("0|1|2") + ".*"),
    (BERT, "stack.blocks[10:]", BLOCK.format("10|11") + ".*"),
    (BERT, "blocks[-2:]", BLOCK.format("10|11") + ".*"),
    (BERT, "blocks[-1]", BLOCK.format("11") + ".*"),
    (BERT, "blocks[-12]", BLOCK.format("0") + ".*"),
    (BERT, "blocks[:-10]", BLOCK.format("0|1") + ".*"),
    (BERT, "blocks[:]", BLOCK.format(r"\d+") + ".*"),
    (BERT, "blocks[9:99]", BLOCK.format("9|10|11") + ".*"),
    (BERT, "blocks[1:3].feed_forward.up", BLOCK.format("1|2") + r"feed_forward\.up\..*"),
    (BERT, "blocks[2].*.bias", BLOCK.format("2") + r".*\.bias"),
    (BERT, "blocks[0].norm_?", BLOCK.format("0") + r"norm_[12]\..*"),
    (BERT, "blocks.?", BLOCK.format(r"\d") + ".*"),
    (BERT, "*.norm_*", r".*\.norm_.*"),
    (BERT, "to_*", r".*\.to_(query|key|value|output)\..*"),
    (BERT, "bias", r".*\.bias"),
    (BERT, "stack.*.down", r"stack\..*\.down\..*"),
    (BERT, "all-but-head", r"stack\..*"),
    (LABELS, "all-but-head", r"stack\..*"),
    (LABELS, "pooler", r"pooler\..*"),
    (LABELS, "head.labels", r"head\.labels\..*"),
    (replace(GPT, head_bias=True), "all-but-head", r"stack\..*"),
    (replace(GPT, tie_head=False), "all-but-head", r"stack\..*"),
    (replace(GPT, tie_head=False), "head", r"head\.weight"),
    (GPT, "head", r"stack\.embedding\.token\.weight"),
    (GPT, "final_norm", r"stack\.final_norm\..*"),
    (PAPER, "encoder", r"encoder\..*"),
    (PAPER, "blocks[-1]", r"encoder\.blocks\.0\..*|decoder\.blocks\.1\..*"),
    (PAPER, "blocks[1]", r"decoder\.blocks\.1\..*"),
    (PAPER, "decoder.blocks[0].cross_attention", r"decoder\.blocks\.0\.cross_attention\..*"),
    (T5, "relative", r"(en|de)coder\.relative\.weight"),
]


@pytest.mark.parametrize("config, pattern, expected", PATTERNS, ids=[pattern for _, pattern, _ in PATTERNS])
def test_a_pattern_freezes_what_it_says(config: Config, pattern: str, expected: str) -> None:
    """The expected names are a regular expression over whole names."""
    network = network_of(config)
    wanted = {name: p.numel() for name, p in network.named_parameters() if re.fullmatch(expected, name)}
    assert freeze(network, [pattern]) == sum(wanted.values()) > 0
    assert frozen(network) == set(wanted)


class Tower(nn.Module):
    """The least that has blocks and something above them."""

    def __init__(self, n_blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(1, 1) for _ in range(n_blocks))
        self.head = nn.Linear(1, 1)


ENDS = st.one_of(st.none(), st.integers(-14, 14))


@given(n_blocks=st.integers(1, 12), start=ENDS, end=ENDS)
def test_ranges_of_layers_are_pythons(n_blocks: int, start: int | None, end: int | None) -> None:
    network = Tower(n_blocks)
    pattern = f"blocks[{'' if start is None else start}:{'' if end is None else end}]"
    chosen = list(range(n_blocks))[start:end]
    if not chosen:
        with pytest.raises(InputError, match="matches none"):
            freeze(network, [pattern])
    else:
        assert freeze(network, [pattern]) == 2 * len(chosen)
    assert frozen(network) == {f"blocks.{number}.{kind}" for number in chosen for kind in ("weight", "bias")}


@given(n_blocks=st.integers(1, 12), layer=st.integers(-14, 14))
def test_single_layers_are_pythons(n_blocks: int, layer: int) -> None:
    network = Tower(n_blocks)
    if -n_blocks <= layer < n_blocks:
        freeze(network, [f"blocks[{layer}].weight"])
        assert frozen(network) == {f"blocks.{list(range(n_blocks))[layer]}.weight"}
    else:
        with pytest.raises(InputError, match="matches none"):
            freeze(network, [f"blocks[{layer}].weight"])


def test_patterns_add_up_and_none_freezes_nothing() -> None:
    network = network_of(GPT)
    assert freeze(network, []) == 0 and not frozen(network)
    total = sum(parameter.numel() for name, parameter in network.named_parameters() if "blocks.2" not in name)
    assert freeze(network, ["embedding", "blocks[0]", "blocks[:2]", "final_norm"]) == total
    assert frozen(network) == {name for name, _ in network.named_parameters() if "blocks.2" not in name}


def test_what_is_frozen_gets_no_gradient_and_the_rest_gets_the_same() -> None:
    torch.manual_seed(0)
    network, ids = network_of(replace(LABELS, dropout=0.0)), torch.randint(3, 12, (2, 5))
    network(ids).logits.square().sum().backward()
    whole = {name: parameter.grad for name, parameter in network.named_parameters()}
    network.zero_grad()
    freeze(network, ["embedding", "blocks[:2]"])
    network(ids).logits.square().sum().backward()
    for name, parameter in network.named_parameters():
        if name in frozen(network):
            assert parameter.grad is None, name
        else:
            torch.testing.assert_close(parameter.grad, whole[name], msg=name)


@pytest.mark.parametrize(
    "pattern, message",
    [
        (
            "embeding",
            "'embeding' must match a parameter of the network, and matches none. Did you mean",
        ),
        ("embed", "Did you mean 'embedding'"),
        ("stack.bloks.0", "Did you mean 'stack.blocks.0'"),
        ("block[0:2]", "Did you mean 'blocks'"),
        ("xyz", "Parts of names are stack, embedding, .*, …"),
        ("blocks[3]", "'blocks.3.' must match a parameter of the network, .* There are no such layers"),
        ("blocks[2:2].norm_1", "There are no such layers"),
        ("head[0]", "matches none"),
        ("blocks[0][1]", "matches none"),
        ("pooler", "matches none"),
        ("locks.0", "matches none"),
        ("NORM_1", "matches none"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused_and_nothing_has_changed(pattern: str, message: str) -> None:
    network = network_of(GPT)
    with pytest.raises(InputError, match=message):
        freeze(network, ["embedding", pattern])
    assert not frozen(network)


BROKEN = ["", "[2]", "[0:2].norm_1", "blocks[", "blocks[0:2", "blocks[0]norm[", "blocks[]", "blocks[a]", "blocks[-]"]
BROKEN += ["blocks[1:2:3]", "blocks[1-2]", "blocks[1.5]", "blocks[ 1]", "blocks[1,2]", "blocks[*]"]


@pytest.mark.parametrize("pattern", BROKEN)
def test_a_broken_pattern_is_refused_where_it_is_written_already(pattern: str) -> None:
    for use in (lambda: Finetune(freeze=("embedding", pattern)), lambda: freeze(network_of(GPT), [pattern])):
        with pytest.raises(InputError, match="'freeze'.* must (be a layer or a range of them|hold names such as)"):
            use()


@pytest.mark.parametrize(
    "config, patterns", [(GPT, ["all-but-head"]), (GPT, ["*"]), (PAPER, ["encoder", "decoder"]), (LABELS, ["*"])]
)
def test_something_has_to_be_left_to_train(config: Config, patterns: list[str]) -> None:
    network = network_of(config)
    with pytest.raises(InputError, match="would leave nothing to train: it must leave at least one parameter"):
        freeze(network, patterns)
    assert not frozen(network)


def test_what_was_frozen_before_counts_as_such() -> None:
    network = network_of(LABELS)
    network.stack.requires_grad_(False)
    with pytest.raises(InputError, match="nothing to train"):
        freeze(network, ["head", "pooler"])
    freeze(network, ["pooler"])
    assert {name for name, p in network.named_parameters() if p.requires_grad} == {
        "head.labels.weight",
        "head.labels.bias",
    }


def factors(config: Config, fresh: tuple[str, ...] = (), **choices: Any) -> dict[str, float]:
    return learning_rate_factors(network_of(config), Finetune(**{"layer_decay": 0.5, **choices}), fresh)


def test_each_layer_learns_a_share_as_fast_as_the_one_above_it() -> None:
    depths = [
        (LABELS, r"head\..*|pooler\..*", 0),
        (LABELS, BLOCK.format("2") + ".*", 1),
        (LABELS, BLOCK.format("1") + ".*", 2),
        (LABELS, BLOCK.format("0") + ".*", 3),
        (LABELS, r"stack\.embedding\..*", 4),
        (GPT, r"stack\.final_norm\..*", 0),
        (GPT, r"stack\.embedding\.(token\.weight|position)", 4),
        (T5, r"(encoder|decoder)\.final_norm\..*", 0),
        (T5, r"encoder\.blocks\.0\..*|decoder\.blocks\.1\..*", 1),
        (T5, r"decoder\.blocks\.0\..*", 2),
        (T5, r"encoder\.(embedding|relative)\..*", 2),
        (T5, r"decoder\.relative\..*", 3),
        (BERT, BLOCK.format("1") + ".*", 11),
        (BERT, BLOCK.format("11") + ".*", 1),
    ]
    for config, expression, depth in depths:
        found = {name: factor for name, factor in factors(config).items() if re.fullmatch(expression, name)}
        assert found and set(found.values()) == {0.5**depth}, expression
    for config in (LABELS, GPT, T5, BERT):
        assert list(factors(config)) == [name for name, _ in network_of(config).named_parameters()]
        assert set(factors(config, layer_decay=1.0).values()) == {1.0}


def test_a_fresh_head_learns_faster() -> None:
    fresh = ("head.labels.weight", "head.labels.bias")
    found = factors(LABELS, fresh, head_rate=10.0)
    assert {name for name, factor in found.items() if factor == 10.0} == set(fresh)
    assert found["pooler.dense.weight"] == 1.0
    assert factors(GPT, ("head.weight",), head_rate=10.0)["stack.embedding.token.weight"] == 0.5**4, "a tied head"
    found = factors(LABELS, (*fresh, "stack.blocks.0.norm_1.bias"), head_rate=10.0)
    assert found["stack.blocks.0.norm_1.bias"] == 10.0 / 8


def test_what_is_frozen_has_no_factor_and_low_rank_layers_go_with_their_block() -> None:
    network = network_of(LABELS)
    add_low_rank(network, LowRank(1, 1.0, layers=("up",)), ["head"])
    found = learning_rate_factors(network, Finetune(layer_decay=0.5))
    thin = {f"stack.blocks.{i}.feed_forward.up.lora_{letter}": 0.5 ** (3 - i) for i in range(3) for letter in "ab"}
    assert found == {**thin, "head.labels.weight": 1.0, "head.labels.bias": 1.0}


@pytest.mark.parametrize(
    "choices, message",
    [
        ({"lora": -1}, "'lora' must be at least 0, got -1"),
        ({"lora_alpha": -0.5}, "'lora_alpha' must be at least 0, got -0.5"),
        ({"lora_dropout": 1.0}, r"'lora_dropout' must be in \[0, 1\), got 1.0"),
        ({"layer_decay": 0.0}, "'layer_decay' must be above 0 and at most 1, got 0.0"),
        ({"layer_decay": 1.5}, "'layer_decay' must be above 0 and at most 1, got 1.5"),
        ({"head_rate": 0.0}, "'head_rate' must be above 0, got 0.0"),
        ({"lora_layers": ()}, "'lora_layers' must name at least one of to_query"),
        ({"lora_layers": ("upp",)}, "'lora_layers' must be of .*down, got 'upp'. Did you mean 'up'"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Finetune(**choices)


def test_low_rank_choices_become_those_of_the_layers() -> None:
    assert Finetune().low_rank is None and Finetune(lora_alpha=3.0).low_rank is None
    assert Finetune(model="a", lora=8).low_rank == LowRank(8, 16.0, 0.0, low_rank.DENSE)
    chosen = Finetune(model="a", lora=4, lora_alpha=1.0, lora_dropout=0.1, lora_layers=("up", "to_key"))
    assert chosen.low_rank == LowRank(4, 1.0, 0.1, ("up", "to_key"))
    assert DENSE == low_rank.DENSE


def test_the_section_is_read_without_torch() -> None:
    code = "import sys; from glassformer.training.finetuning import Finetune; Finetune(freeze=('a[0]',)); "
    assert subprocess.run([sys.executable, "-c", code + "sys.exit('torch' in sys.modules)"]).returncode == 0
