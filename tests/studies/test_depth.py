"""Ablated blocks are the package's own where nothing is left out; verdicts follow from the numbers alone."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from glassformer.errors import InputError
from glassformer.layers.block import Block
from glassformer.models.assembly import block
from glassformer.models.config import Config
from glassformer.studies.architectures import depth
from glassformer.studies.architectures.depth.blocks import WIRINGS, AblatedBlock, Shape, Wiring, build, sized, total
from glassformer.studies.architectures.depth.drawing import geometric_mean
from glassformer.studies.architectures.depth.measuring import (
    HABIT,
    LENGTH,
    WORDS,
    Language,
    entropy,
    gradients,
    ranks,
)
from glassformer.studies.study import Result, Setting
from glassformer.tasks.objectives import IGNORE


@pytest.fixture(scope="module")
def toy() -> Result:
    torch.manual_seed(0)
    result = depth.PART.run(Setting(scale="toy"))
    return json.loads(json.dumps(result, allow_nan=False))


def test_toy_run_is_drawn_and_told(toy: Result, tmp_path: Path) -> None:
    for picture in depth.PART.draw(toy, tmp_path):
        assert (tmp_path / picture.file).read_bytes().startswith(b"\x89PNG")
        assert "seed(s)" in picture.caption
    for table in depth.PART.tables(toy):
        assert table.rows and all(len(row) == len(table.columns) for row in table.rows)
    found = depth.PART.claims(toy)
    assert len({each.text for each in found}) == len(found) == 9
    untestable = [each for each in found if each.verdict == "not testable here"]
    assert len(untestable) == 8  # all but the collapse want 16 blocks or trainings that the toy has not
    assert all(abs(row["parameters"] / toy["parameters"] - 1) <= 0.03 for row in toy["trainings"])


def _blocks(norm_first: bool) -> tuple[Block, AblatedBlock]:
    torch.manual_seed(1)
    whole = block(Config(vocab_size=8, d_model=8, n_heads=2, d_ff=12, norm_first=norm_first, dropout=0.0))
    wiring = Wiring(norm="pre" if norm_first else "post")
    ours = AblatedBlock(copy.deepcopy(whole.self_attention), copy.deepcopy(whole.feed_forward), wiring, 8)
    ours.load_state_dict(whole.state_dict())
    return whole, ours


@pytest.mark.parametrize("norm_first", [True, False])
def test_with_nothing_left_out_it_is_the_block(norm_first: bool) -> None:
    whole, ours = _blocks(norm_first)
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(ours(x, causal=True), whole(x, causal=True))


def test_what_is_left_out_is_left_out() -> None:
    _, ours = _blocks(norm_first=True)
    x = torch.randn(2, 5, 8)

    def attended(h: torch.Tensor) -> torch.Tensor:
        return ours.self_attention(*ours.self_attention.queries_keys_values(h))

    bare = AblatedBlock(ours.self_attention, None, Wiring(residual=False, norm="none", feed_forward=False), 8)
    torch.testing.assert_close(bare(x), attended(x))
    kept = AblatedBlock(ours.self_attention, None, Wiring(norm="none", feed_forward=False), 8)
    torch.testing.assert_close(kept(x), x + attended(x))


@pytest.mark.parametrize("name", WIRINGS)
@pytest.mark.parametrize("n_layers", [1, 2, 4, 8, 16])
def test_all_have_as_many_parameters(name: str, n_layers: int) -> None:
    shape = sized(WIRINGS[name], n_layers, 30_000, WORDS)
    built = sum(parameter.numel() for parameter in build(shape, WIRINGS[name], WORDS, LENGTH).parameters())
    assert built == total(shape, WIRINGS[name], WORDS)
    assert abs(built / 30_000 - 1) <= 0.03


def test_too_many_blocks_for_the_parameters() -> None:
    with pytest.raises(InputError, match="16 blocks cannot have 500 parameters"):
        sized(WIRINGS["pre-norm"], 16, 500, WORDS)


def test_language_follows_its_table() -> None:
    language = Language()
    texts = language.texts(400, seed=3)
    usual = language.usual[texts[:, :-2], texts[:, 1:-1]] == texts[:, 2:]
    assert usual.float().mean() == pytest.approx(HABIT + (1 - HABIT) / WORDS, abs=0.02)
    batch = language.batch(3, seed=4)
    assert (batch.target[:, 0] == IGNORE).all() and (batch.target[:, 1:] != IGNORE).all()
    assert torch.equal(batch.ids[:, 2:], batch.target[:, 1:-1])
    assert torch.equal(batch.ids, language.batch(3, seed=4).ids)


def test_entropy_is_that_of_one_usual_word_among_all() -> None:
    usual = HABIT + (1 - HABIT) / WORDS
    others = [(1 - HABIT) / WORDS] * (WORDS - 1)
    assert entropy() == pytest.approx(-sum(p * math.log(p) for p in (usual, *others)))
    assert entropy() < math.log(WORDS)


def test_gradients_and_ranks_of_a_fresh_network() -> None:
    shape = Shape(3, 8, 4, 8)
    found = gradients(WIRINGS["pre-norm"], shape, seed=1)
    assert len(found) == 3 and all(each > 0 for each in found)
    assert found == gradients(WIRINGS["pre-norm"], shape, seed=1)
    whole, alone = ranks(WIRINGS["pre-norm"], shape, 1), ranks(WIRINGS["attention alone"], Shape(3, 8, 4, 0), 1)
    assert len(whole) == len(alone) == 4
    assert whole[3] > 0.1 > alone[3]


def test_geometric_mean() -> None:
    assert geometric_mean([0.1, 10]) == pytest.approx(1)
    assert geometric_mean([0.0, 1.0]) == pytest.approx(1e-150)


@pytest.mark.parametrize(
    ("shares", "wanted"),
    [
        ([1, 0.1, 1e-3, 1e-7, 1e-15, 1e-16], True),
        ([1, 0.1, 0.01, 1e-3, 1e-4], False),  # exponentially, and never nothing
        ([1, 1e-4, 1e-8, 1e-12, 1e-16], False),  # by the same factor each time
        ([1, 1e-3, 1e-13], False),  # too few to tell
    ],
)
def test_shrinks_faster(shares: list[float], wanted: bool) -> None:
    assert depth.shrinks_faster(shares) is wanted


def _result(**changes: Any) -> Result:
    """A made-up result in which every claim holds."""
    even, steep, deep = [1.0] * 16, [0.01] + [1.0] * 15, {"depth": 16}
    start = {name: {"gradients": [even, even], "ranks": [[1.0, 0.5], [1.0, 0.4]]} for name in WIRINGS}
    start["no residual"]["gradients"] = start["no residual, no norm"]["gradients"] = [steep, steep]
    start["post-norm"]["gradients"] = [[2.0, *even[1:]], [0.3, *even[1:]]]
    start["attention alone"]["ranks"] = [[1, 0.1, 1e-3, 1e-7, 1e-15]] * 2
    losses = {
        ("pre-norm", 2): [1.0, 1.1],
        ("pre-norm", 16): [1.0, 1.0],
        ("no residual", 2): [1.5, 1.5],
        ("no residual", 16): [2.0, 2.0],
        ("no norm", 2): [1.0, 1.0],
        ("no norm", 16): [None, 9.0],
        ("no feed-forward", 2): [1.6, 1.4],
    }
    losses |= changes.pop("losses", {})
    start |= changes.pop("start", {})
    rows = [
        {"wiring": name, "depth": blocks, "parameters": 1, "d_model": 4, "rate": 0.1, "held_out": {"0.1": each[1]}}
        | {"losses": each}
        for (name, blocks), each in losses.items()
    ]
    counts = {
        "parameters": 1,
        "start_seeds": 2,
        "steps": 9,
        "seeds": 2,
        "test_texts": 5,
        "entropy": 0.5,
        "uniform": 2.0,
    }
    return {**deep, **counts, "start": start, "trainings": rows, **changes}


def _verdicts(result: Result) -> list[str]:
    return [each.verdict for each in depth.PART.claims(result)]


def test_every_claim_can_be_supported(tmp_path: Path) -> None:
    assert _verdicts(_result()) == ["supported"] * 9
    depth.PART.draw(_result(), tmp_path)  # a training that ended in no number is drawn too
    assert any("no number" in row[-1] for row in depth.PART.tables(_result())[0].rows)


@pytest.mark.parametrize(
    ("number", "changes"),
    [
        (0, {"start": {"no residual": {"gradients": [[0.01, 1.0], [0.2, 1.0]], "ranks": [[1.0]]}}}),
        (1, {"start": {"no residual, no norm": {"gradients": [[0.01, 1.0], [0.2, 1.0]], "ranks": [[1.0]]}}}),
        (2, {"start": {"post-norm": {"gradients": [[2.0, 1.0], [1.0, 1.0]], "ranks": [[1.0]]}}}),
        (3, {"start": {"attention alone": {"gradients": [[1.0]], "ranks": [[1, 0.1, 1e-3, 1e-7, 1e-15], [1, 0.5]]}}}),
        (5, {"losses": {("no residual", 16): [2.0, 1.55]}}),
        (6, {"losses": {("pre-norm", 16): [1.2, 1.2]}}),
        (7, {"losses": {("no norm", 16): [None, 1.05]}}),
        (8, {"losses": {("no feed-forward", 2): [1.6, 1.05]}}),
    ],
)
def test_every_claim_can_fail(number: int, changes: dict[str, Any]) -> None:
    verdicts = _verdicts(_result(**changes))
    assert verdicts[number] == "not supported"
    assert verdicts.count("not supported") == 1


def test_states_that_become_alike_are_not_kept() -> None:
    result = _result()
    result["start"]["pre-norm"]["ranks"] = [[1.0, 0.5], [1.0, 0.01]]
    assert _verdicts(result)[4] == "not supported"


def test_nothing_is_said_of_what_was_not_measured() -> None:
    verdicts = _verdicts(_result(depth=6, trainings=[]))
    assert verdicts == ["not testable here"] * 3 + ["supported"] + ["not testable here"] * 5


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [([1.2, 1.3], [1.0, 1.0], True), ([1.2, 1.05], [1.0, 1.0], False), (None, [1.0], None), ([1.0], None, None)],
)
def test_worse_in_every_seed(first: list[float] | None, second: list[float] | None, wanted: bool | None) -> None:
    assert depth.worse(first, second) is wanted
