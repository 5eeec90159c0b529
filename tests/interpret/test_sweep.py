"""Sweeps against runs of every place by itself; estimates against the product that they are; what is made of them."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from interpret.all_families import DECODERS, Case, case
from tasks.small_writers import writer
from torch import Tensor

import glassformer as gf
from glassformer.errors import InputError
from glassformer.interpret.edits import Patch
from glassformer.interpret.expressions import parse
from glassformer.interpret.swept import Sweep
from glassformer.layers.sites import planned


def score(logits: Tensor, rows: Any) -> Tensor:
    """Another number for each of the texts, so that rows that are mixed up show."""
    weight = torch.linspace(-1, 1, logits.shape[-1])
    return logits @ weight + torch.arange(100.0)[rows] * logits[:, 7 % logits.shape[-1]]


def other(this: Case) -> Case:
    def changed(side: list[list[int]] | None) -> list[list[int]] | None:
        return None if side is None else [[(i * 7) % 35 + 4 for i in row] for row in side]

    return Case(this.network, changed(this.rows) or [], changed(this.targets))


def swept(this: Case, edit: Any, over: str, **settings: Any) -> Sweep:
    return gf.sweep(this.network, this.rows, edit, over=over, target=this.targets, metric=score, **settings)


def one(this: Case, row: int, edits: list[Any]) -> Tensor:
    """The metric of one text, run alone."""
    target = None if this.targets is None else [this.targets[row]]
    logits = gf.trace(this.network, [this.rows[row]], "logits", target=target, edits=edits)["logits"]
    return score(logits if logits.ndim == 2 else logits[:, -1], torch.tensor([row]))[0]


def check_every_place(this: Case, found: Sweep, edit_at: Any) -> None:
    """Each number is that of a run with this one edit; NaN where a text has no such position."""
    expression, worst, moved = found.expression, 0.0, 0.0
    for row in range(len(this.rows)):
        baseline = one(this, row, [])
        assert abs(float(found.baseline[row] - baseline)) < 1e-4
        for layer, name in enumerate(expression.names):
            for number, head in enumerate(expression.heads or [None]):  # type: ignore[list-item]
                for slot in range(found.values.shape[3]):
                    value = found.values[row, layer, number, slot]
                    if not found.places.real[row, slot]:
                        assert value.isnan()
                        continue
                    position = int(found.places.index[row, slot])
                    site = name if head is None else f"{name}.head[{head}]"
                    wanted = one(this, row, [edit_at(row, f"{site} @ {position}")])
                    worst = max(worst, abs(float(wanted - value)))
                    moved = max(moved, abs(float(wanted - baseline)))
    assert worst < 2e-4 < 1e-2 < moved


def patch_of(this: Case, source: Case) -> Any:
    """At a site of one position, the numbers that another text has there."""

    @cache
    def whole(row: int, name: str) -> Tensor:
        target = None if source.targets is None else [source.targets[row]]
        return gf.trace(this.network, [source.rows[row]], name, target=target)[name]

    def at(row: int, site: str) -> Any:
        name, _, position = site.partition(" @ ")
        base, _, head = name.partition(".head[")
        value = whole(row, base)
        if head:
            value = value[:, [int(head[:-1])]]
        return gf.patch(site, value.select(value.ndim - 2, int(position)).unsqueeze(value.ndim - 2))

    return at


SITES = ["residual_post[*] @ *", "feed_forward.output[0,2] @ *", "self_attention.mixed[*].head[1:3] @ 0:3",
         "self_attention.output[-1] @ end", "residual_pre[0:2] @ -2:", "self_attention.key[*].head[0] @ *",
         "embedding.token @ *", "self_attention.pattern[1:].head[3] @ end"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "over"), [(name, over) for place, over in enumerate(SITES) for name in DECODERS[place % 2 :: 2]]
)
def test_decoders_are_swept_as_if_each_place_were_run_alone(name: str, over: str) -> None:
    """Texts of unequal lengths; few are run together, so that groups begin at several positions."""
    this = case(name, (5, 7, 3), ())
    source = other(this)
    found = swept(this, gf.patch, over, source=source.rows, tokens=23)
    check_every_place(this, found, patch_of(this, source))


ELSEWHERE = [
    ("word head", "residual_post[*] @ *"),
    ("classifier", "self_attention.mixed[1].head[0,3] @ 0:2"),
    ("sentence", "feed_forward.output[*] @ -1"),
    ("encoder-decoder", "encoder.residual_post[1] @ *"),
    ("encoder-decoder", "decoder.cross_attention.mixed[*].head[*] @ end"),
    ("two vocabularies", "decoder.cross_attention.key[0].head[1] @ *"),
    ("LSTM", "decoder.recurrence.output[0] @ *"),
    ("input feeding", "decoder.found @ *"),
    ("convolutional", "decoder.residual_pre[1] @ *"),
]


@pytest.mark.parametrize(("name", "over"), ELSEWHERE)
def test_other_families_are_swept_too(name: str, over: str) -> None:
    this = case(name, (5, 7, 3), (4, 2, 6))
    source = other(this)
    trace = gf.trace(this.network, source.rows, over, target=source.targets)
    check_every_place(this, swept(this, gf.patch, over, source=trace, tokens=23), patch_of(this, source))


def test_ablations_steering_and_functions_are_swept() -> None:
    this = case("rotary, shared keys", (5, 7, 3), ())
    vector = torch.linspace(-1, 1, 16)
    for edit, settings in (
        (gf.ablate, {"to": "zero"}),
        (gf.steer, {"vector": vector, "scale": 2.0}),
        (gf.apply, {"function": torch.sin}),
    ):
        found = swept(this, edit, "residual_mid[1:] @ 0:2", **settings)
        check_every_place(this, found, lambda row, site, edit=edit, settings=settings: edit(site, **settings))
    means = gf.trace(this.network, this.rows, "residual_mid[1] @ end")["residual_mid[1] @ end"].mean(0)
    found = swept(this, gf.ablate, "residual_mid[1] @ end", to="mean")
    check_every_place(this, found, lambda row, site: gf.patch(site, means))


def test_many_texts_are_swept_in_batches() -> None:
    this = case("learned positions", tuple(3 + row % 3 for row in range(40)), ())
    found = swept(this, gf.ablate, "feed_forward.output[1] @ end", to="zero")
    assert found.values.shape == (40, 1, 1, 1) and not found.values.isnan().any()
    for row in (0, 31, 32, 39):
        wanted = one(this, row, [gf.ablate("feed_forward.output[1] @ end", to="zero")])
        assert abs(float(wanted - found.values[row])) < 1e-3


def test_a_network_with_a_plan_of_its_own_is_swept_as_it_is() -> None:
    """What is computed without the fused path has to be, whatever could be known beforehand."""
    this = case("learned positions", (5, 7, 3), ())
    changed = Case(planned(this.network, {"self_attention.pattern[1]": torch.square}), this.rows, None)
    found = swept(changed, gf.ablate, "residual_post[0:2] @ *", to="zero")
    check_every_place(changed, found, lambda row, site: gf.ablate(site, to="zero"))
    plain = swept(this, gf.ablate, "residual_post[0:2] @ *", to="zero")
    assert not torch.allclose(found.baseline, plain.baseline)


def test_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glassformer.interpret.sweep.EVERY", 0.0)
    told: list[str] = []
    swept(case("learned positions", (5, 7, 3), ()), gf.ablate, "residual_post[0:2] @ *", to="zero", say=told.append)
    assert len(told) >= 1 and told[-1] == "30 of 30 places"
    swept(case("word head", (5, 7, 3), ()), gf.ablate, "residual_post[0] @ end", to="zero", say=told.append)
    assert told[-1] == "3 of 3 places"


# --- Estimates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "over"),
    [
        ("learned positions", "residual_post[*] @ *"),
        ("rotary, shared keys", "self_attention.mixed[*].head[2,1] @ *"),
        ("rotary, shared keys", "self_attention.key[1].head[1] @ *"),
        ("post-norm", "self_attention.mixed[1] @ 0:3"),
        ("relative positions", "self_attention.pattern[0].head[3] @ end<-1:3"),
        ("learned positions", "self_attention.pattern[*].head[*] @ *"),
        ("encoder-decoder", "encoder.feed_forward.output[*] @ *"),
        ("input feeding", "decoder.found @ *"),
    ],
)
def test_estimates_are_changes_times_gradients(name: str, over: str) -> None:
    this = case(name, (5, 7, 3), (4, 2, 6))
    source = other(this)
    there = gf.trace(this.network, source.rows, over, target=source.targets)
    found = swept(this, gf.patch, over, source=there, method="attribution", recheck=3)
    here = gf.trace(this.network, this.rows, over, target=this.targets, grad=score)
    expression = parse(over, this.network)
    for layer, name_of in enumerate(expression.names):
        old, new, slope = (each.whole(expression)[name_of] for each in (here, there, here.grad))
        product = (new - old) * slope
        product = product.sum(-1)
        if expression.kind == "stream":
            product = product[:, None]
        elif expression.heads is None:
            product = product.sum(1, keepdim=True)
        wanted = product.masked_fill(~found.places.real[:, None], math.nan)
        assert found.estimates is not None
        torch.testing.assert_close(found.estimates[:, layer], wanted, equal_nan=True, atol=1e-5, rtol=1e-4)
    exact = swept(this, gf.patch, over, source=there)
    checked = ~found.values.isnan()
    torch.testing.assert_close(found.values[checked], exact.values[checked], atol=1e-4, rtol=1e-4)
    assert torch.equal(found.baseline, exact.baseline)
    cells = checked.any(0).sum()
    assert cells == min(3, exact.values[0].numel())
    size = found.estimates.abs().nan_to_num().mean(0)
    assert size[checked.any(0)].min() >= size[~checked.any(0)].max() if cells < size.numel() else True


def test_estimates_of_other_edits() -> None:
    this = case("learned positions", (5, 7, 3), ())
    vector, site = torch.linspace(-1e-3, 1e-3, 16), "residual_mid[*] @ *"
    small = swept(this, gf.steer, site, vector=vector, method="attribution", recheck=0)
    exact = swept(this, gf.steer, site, vector=vector)
    assert small.estimates is not None and small.values.isnan().all()
    torch.testing.assert_close(small.estimates, exact.changes, equal_nan=True, atol=2e-3, rtol=0.05)
    here = gf.trace(this.network, this.rows, site, grad=score)
    zeros = swept(this, gf.ablate, site, to="zero", method="attribution", recheck=0).estimates
    wanted = -(here.stack(site) * here.grad.stack(site)).sum(-1).permute(1, 0, 2)
    assert zeros is not None
    torch.testing.assert_close(zeros[:, :, 0].nan_to_num(), wanted, atol=1e-5, rtol=1e-4)


# --- What is made of it -----------------------------------------------------------------------------------------------


def facts() -> gf.Facts:
    """Two that can be swapped for each other, and one that no other is as long as."""
    said = {"two women": "man", "the road": "road", "a man in blue shirt": "road"}
    return gf.Facts(tuple(gf.Fact(s, s, "r", f"{s} rides on the", (answer,)) for s, answer in said.items()))


def test_facts_are_patched_from_swapped_ones_of_equal_length() -> None:
    model, given = writer(), facts()
    swapped = given.swapped(tokenizer=model.tokenizer)
    lengths = [[len(model.tokenizer.encode(fact.prompt)) for fact in side] for side in (given, swapped)]
    alike = [row for row, pair in enumerate(zip(*lengths, strict=True)) if pair[0] == pair[1]]
    assert 0 < len(alike) < 3
    found = gf.sweep(model, given, gf.patch, over="residual_post[*] @ *")
    assert len(found) == len(alike) and found.metric == "logit_diff"
    row = alike[-1]
    first = [model.tokenizer.encode(f" {fact.answer}")[0] for fact in (given[row], swapped[row])]
    logits = gf.trace(model, given[row], "logits @ end")["logits @ end"][0]
    assert abs(float(found.baseline[-1] - (logits[first[0]] - logits[first[1]]))) < 1e-4
    source = gf.trace(model, swapped[row], "residual_post[0] @ 1")
    logits = gf.trace(model, given[row], "logits @ end", edits=[gf.patch("residual_post[0] @ 1", source)])[
        "logits @ end"
    ][0]
    assert abs(float(found.values[-1, 0, 0, 1] - (logits[first[0]] - logits[first[1]]))) < 1e-4
    by_subject = gf.sweep(model, given, gf.patch, over="residual_post[*] @ subject.last")
    assert len(by_subject) == 3
    at_end = found.values[:, -1, 0][found.places.real].reshape(-1)[-1]
    logits = gf.trace(model, swapped[row], "logits @ end")["logits @ end"][0]
    assert abs(float(at_end - (logits[first[0]] - logits[first[1]]))) < 1e-4  # the last states are the other text's


def test_means_count_from_the_end_of_the_span(tmp_path: Path) -> None:
    this = case("learned positions", (5, 7, 3), ())
    found = swept(this, gf.ablate, "residual_post[0:2] @ *", to="zero")
    means = found.mean()
    assert means.shape == (2, 1, 7)
    for back in range(7):
        column = [found.changes[row, 1, 0, n - 1 - back] for row, n in enumerate(this.lengths) if back < n]
        assert abs(float(means[1, 0, 6 - back] - sum(column) / len(column))) < 1e-5
    best = found.best(3)
    sizes = means.abs().flatten().sort(descending=True).values[:3]
    assert [abs(row["mean"]) for row in best] == pytest.approx(sizes.tolist(), rel=1e-5)
    first = best[0]
    layer = int(first["site"][-2])
    assert first["mean"] == pytest.approx(float(means[layer, 0, 7 + first["slot"]]), rel=1e-5)
    assert first["low"] <= first["mean"] <= first["high"] and first["head"] is None
    assert first["n"] == sum(-first["slot"] <= n for n in this.lengths)
    table = found.table(3).split("\n")
    assert (
        len(table) == 4
        and table[0] == "change of score, mean over the texts (95 % interval), n"
        or "metric" in table[0]
    )
    assert f"{first['site']} @ * [{first['slot']}]  {first['mean']:+.4f}" in table[1]
    content = json.loads(json.dumps(found.to_json()))
    assert content["mean"][1][0] == pytest.approx(means[1, 0].tolist()) and content["n"] == 3
    assert content["baseline"] == pytest.approx(float(found.baseline.mean()))
    assert content["sites"] == ["residual_post[0]", "residual_post[1]"] and content["best"][0] == first
    with pytest.raises(InputError, match="nothing was estimated: sweep with method='attribution'"):
        found.mean(estimated=True)
    partly = swept(this, gf.ablate, "residual_post[0:2] @ *", to="zero", method="attribution", recheck=1)
    assert sum(value is not None for layer in partly.to_json()["mean"] for value in layer[0]) == 1
    assert not partly.mean(estimated=True).isnan().any()


@pytest.mark.parametrize(
    "over", ["residual_post[*] @ *", "self_attention.mixed[*].head[*] @ end", "embedding.token @ 0:2"]
)
@pytest.mark.parametrize("lengths", [(5, 7, 3), (5,)])
def test_pictures(over: str, lengths: tuple[int, ...], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    found = swept(case("learned positions", lengths, ()), gf.ablate, over, to="zero")
    path = found.plot(tmp_path / "sweep.png")
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 3000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"edit": gf.knockout, "over": "residual_post[*]"}, "a sweep is of patch .* ablate, steer or apply"),
        ({"edit": gf.ablate, "over": "residual_post[*]", "to": "zero", "source": [[1]]}, "a sweep is of patch"),
        ({"edit": gf.patch, "over": "residual_post[*]"}, "say the 'source' to patch from"),
        ({"edit": gf.patch, "over": "residual_post[*]", "source": [[1, 2]]}, "3 texts are patched from 1"),
        ({"edit": gf.patch, "over": "residual_post[*]", "source": [[1, 2]] * 3}, "text 1 has 5 positions there"),
        ({"edit": gf.ablate, "over": "residual_post[*]", "to": "zero", "method": "guess"}, "'method' must be exact"),
        ({"edit": gf.ablate, "over": "residual_pots[*]", "to": "zero"}, "no site 'residual_pots'"),
    ],
)
def test_errors(settings: dict[str, Any], message: str) -> None:
    this = case("learned positions", (5, 7, 3), ())
    with pytest.raises(InputError, match=message):
        swept(this, settings.pop("edit"), settings.pop("over"), **settings)


def test_rows_and_unequal_facts_cannot_be_swept() -> None:
    with pytest.raises(InputError, match="has no positions to sweep over"):
        swept(case("classifier", (5, 7, 3), ()), gf.ablate, "logits", to="zero")
    two = gf.Facts(
        (
            gf.Fact("1", "bike", "r", "the bike on", ("man",)),
            gf.Fact("2", "blue shirt", "r", "a blue shirt on", ("road",)),
        )
    )
    with pytest.raises(InputError, match="no fact has as many tokens as the one it is swapped with"):
        gf.sweep(writer(), two, gf.patch, over="residual_post[*] @ *")


@pytest.mark.parametrize("over", ["self_attention.mixed[*].head[2,1] @ *", "feed_forward.output[*] @ *"])
def test_midpoint_takes_the_gradient_halfway(over: str) -> None:
    this = case("rotary, shared keys", (5, 7, 3), ())
    source = gf.trace(this.network, other(this).rows, over)
    found = swept(this, gf.patch, over, source=source, method="midpoint", recheck=2)
    expression = parse(over, this.network)
    old = gf.trace(this.network, this.rows, over).whole(expression)
    new = source.whole(expression)
    assert found.estimates is not None
    for layer, name in enumerate(expression.names):
        half = {name: (old[name] + new[name]) / 2}
        text = over.replace("[*]", f"[{layer}]")
        edit = Patch(text, half)
        slope = gf.trace(this.network, this.rows, text, grad=score, edits=[edit]).grad.whole(parse(text, this.network))
        product = ((new[name] - old[name]) * slope[name]).sum(-1)
        product = product if expression.kind == "heads" else product[:, None]
        wanted = product.masked_fill(~found.places.real[:, None], math.nan)
        torch.testing.assert_close(found.estimates[:, layer], wanted, equal_nan=True, atol=1e-5, rtol=1e-4)


def test_midpoint_is_right_to_the_second_order() -> None:
    """Where the metric is the square of what is patched, it is the effect itself."""
    this = case("learned positions", (5, 7, 3), ())
    over = "logits @ end"
    source = gf.trace(this.network, other(this).rows, over)

    def square(logits: Tensor, rows: Any) -> Tensor:
        return logits[:, 3].square()

    def by(method: str) -> Sweep:
        settings: dict[str, Any] = {"source": source, "metric": square, "method": method, "recheck": 0}
        return gf.sweep(this.network, this.rows, gf.patch, over=over, **settings)

    exact = gf.sweep(this.network, this.rows, gf.patch, over=over, source=source, metric=square).changes
    halfway, plain = by("midpoint").estimates, by("attribution").estimates
    assert halfway is not None and plain is not None
    torch.testing.assert_close(halfway, exact)
    assert not torch.allclose(plain, exact, rtol=0.01)
