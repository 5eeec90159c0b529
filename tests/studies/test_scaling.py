"""The division by √d_k: entropy and gradients of a softmax against known answers, each claim both ways."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from glassformer.studies.architectures import scaling
from glassformer.studies.architectures.scaling import softmax as scaling_softmax
from glassformer.studies.architectures.scaling import training as scaling_training
from glassformer.studies.architectures.scaling import verdicts as scaling_claims
from glassformer.studies.study import Setting


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return json.loads(json.dumps(scaling.PART.run(Setting("toy")), allow_nan=False))


def test_the_part_draws_and_tells_what_it_measured(measured: dict[str, Any], tmp_path: Path) -> None:
    pictures = scaling.PART.draw(measured, tmp_path)
    assert [picture.file for picture in pictures] == [
        "scaling_softmax.png",
        "scaling_training.png",
        "scaling_losses.png",
    ]
    assert all((tmp_path / picture.file).read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert all("n = " in picture.caption and "seed" in picture.caption for picture in pictures)
    for table in scaling.PART.tables(measured):
        assert table.rows and all(len(row) == len(table.columns) for row in table.rows)
    claims = scaling.PART.claims(measured)
    assert len(claims) == 10 and all(each.measured and each.rule for each in claims)
    assert [each.verdict for each in claims][-3:] == ["not testable here"] * 3  # four steps teach nothing


def test_products_of_unit_variance_have_the_variance_of_their_width(measured: dict[str, Any]) -> None:
    for width in measured["widths"]:
        assert measured["softmax"][str(width)]["variance"] == pytest.approx(1, abs=0.1)


def test_entropy_is_one_where_all_are_alike_and_zero_where_one_has_all() -> None:
    pattern = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    found = scaling_softmax.entropy(pattern, torch.tensor([4.0, 4.0, 4.0]))
    assert found.tolist() == pytest.approx([1.0, 0.0, 0.5])


def test_gradients_at_scores_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    scores = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    arriving = torch.randn(3, 5, dtype=torch.float64)
    pattern = scores.softmax(-1)
    (expected,) = torch.autograd.grad((pattern * arriving).sum(), scores)
    assert torch.allclose(scaling_softmax.score_gradient(pattern.detach(), arriving), expected)


def test_scaling_changes_nothing_but_the_width_of_the_products() -> None:
    found = scaling_softmax.measured(16, 8, 4, seed=2)
    assert found["unscaled"]["entropy"] < found["scaled"]["entropy"]
    assert scaling_softmax.measured(16, 8, 4, seed=2) == found
    one = scaling_softmax.measured(1, 8, 4, seed=2)
    assert one["scaled"] == one["unscaled"]


def test_fresh_networks_differ_in_the_scaling_alone() -> None:
    pair = [scaling_training.encoder_of(8, scaled, 16, seed=3) for scaled in (True, False)]
    assert all(torch.equal(*both) for both in zip(*(network.parameters() for network in pair), strict=True))
    ids = torch.tensor([[1, 10, 7, 11, 9, 12]])
    assert not torch.allclose(*(network(ids).logits for network in pair))


def test_the_entropy_of_patterns_leaves_padding_out() -> None:
    budget = scaling_training.ScalingBudget(1, 1, (1e-3,), 1, 20, 16, (8,))
    network = scaling_training.encoder_of(8, True, 16, seed=1)
    with torch.no_grad():
        for block in network.stack.blocks:
            block.self_attention.to_query.weight.zero_()  # all scores alike
    assert scaling_training.pattern_entropy(network, budget) == pytest.approx(1, abs=1e-5)


def made_up() -> dict[str, Any]:
    def softmax(entropy: float, gradient: float) -> dict[str, Any]:
        norms = {"mean": gradient, "median": gradient}
        return {"entropy": entropy, "at_scores": dict(norms), "at_query": dict(norms)}

    def run(loss: float, entropy: float) -> dict[str, Any]:
        return {"rate": 0.001, "loss": [loss], "entropy": [entropy], "fresh_entropy": [entropy], "losses": [[loss]]}

    return {
        "widths": [8, 512],
        "keys": 64,
        "queries": 640,
        "softmax": {
            "8": {"variance": 1.0, "scaled": softmax(0.9, 0.1), "unscaled": softmax(0.5, 0.1)},
            "512": {"variance": 1.01, "scaled": softmax(0.9, 0.1), "unscaled": softmax(0.1, 0.001)},
        },
        "budget": {"steps": 9, "tested": 30, "seeds": 1, "widths": [8, 128]},
        "training": {
            "8": {"scaled": run(0.1, 0.8), "unscaled": run(0.1, 0.8)},
            "128": {"scaled": run(0.1, 0.8), "unscaled": run(0.2, 0.4)},
        },
    }


def changed(path: str, value: Any) -> dict[str, Any]:
    result = made_up()
    *way, last = path.split("/")
    inner = result
    for step in way:
        inner = inner[step]
    inner[last] = value
    return result


def verdict(result: dict[str, Any], words: str) -> str:
    (found,) = (each.verdict for each in scaling_claims.claims(result) if words in each.text)
    return found


@pytest.mark.parametrize(
    ("words", "no"),
    [
        ("has variance d_k", ("softmax/512/variance", 1.2)),
        ("nearly all weight", ("softmax/512/unscaled/entropy", 0.4)),
        ("as even at any width", ("softmax/512/scaled/entropy", 0.5)),
        ("For most queries", ("softmax/512/unscaled/at_scores/median", 0.05)),
        ("on average over queries", ("softmax/512/unscaled/at_scores/mean", 0.05)),
        ("gradient at the query", ("softmax/512/unscaled/at_query/median", 0.05)),
        ("as much gradient passes", ("softmax/512/scaled/at_scores/median", 0.01)),
        ("lower loss", ("training/128/unscaled/loss", [0.1])),
        ("still sharper", ("training/128/unscaled/entropy", [0.8])),
        ("matters more", ("training/8/unscaled/loss", [0.5])),
    ],
)
def test_claims(words: str, no: tuple[str, Any]) -> None:
    assert verdict(made_up(), words) == "supported"
    assert verdict(changed(*no), words) == "not supported"


def test_where_nothing_was_learned_nothing_is_said_about_training() -> None:
    result = made_up()
    for width in ("8", "128"):
        for name in ("scaled", "unscaled"):
            result["training"][width][name]["loss"] = [math.log(3)]
    for words in ("lower loss", "still sharper", "matters more"):
        assert verdict(result, words) == "not testable here"
