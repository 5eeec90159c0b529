"""Effects: the numbers are those of runs by hand, and controls are as many positions or heads elsewhere."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import torch
from interpret.all_families import case
from tasks.small_writers import writer
from torch import Tensor

import glassformer as gf
from glassformer.errors import InputError
from glassformer.interpret import effects
from glassformer.interpret.effects import Effect
from glassformer.tasks.intervals import bootstrap

SUBJECTS = {"two women": "man", "the road": "road", "blue": "road", "eat": "bike"}
FACTS = gf.Facts(
    tuple(gf.Fact(s, s, "r", f"on the road {s} rides on the", (answer,)) for s, answer in SUBJECTS.items())
)


def ends(edits: list[Any], facts: Any = FACTS) -> Tensor:
    return gf.trace(writer(), facts, "logits @ end", edits=edits)["logits @ end"]


def first_tokens(answers: list[str]) -> list[int]:
    return [writer().tokenizer.encode(f" {answer}")[0] for answer in answers]


def by_hand(metric: str, logits: Tensor) -> list[float]:
    answers, others = first_tokens(FACTS.answers), first_tokens(FACTS.swapped().answers)
    found = []
    for row, (answer, other) in enumerate(zip(answers, others, strict=True)):
        line = logits[row].double()
        probability = float(line.exp()[answer] / line.exp().sum())
        rank = sum(float(value) > float(line[answer]) for value in line)
        found.append({
            "logit": float(line[answer]),
            "logit_diff": float(line[answer] - line[other]),
            "prob": probability,
            "logprob": float(torch.tensor(probability).log()),
            "rank": float(rank),
            "correct": float(rank == 0),
        }[metric])  # fmt: skip
    return found


@pytest.mark.parametrize("metric", ["logit", "logit_diff", "prob", "logprob", "rank", "correct"])
def test_numbers_are_those_of_runs_by_hand(metric: str) -> None:
    edit = gf.ablate("feed_forward.output[*] @ subject.last", to="zero")
    found = gf.effect(writer(), FACTS, edit, metric=metric, batch_size=3)
    before, after = by_hand(metric, ends([])), by_hand(metric, ends([edit]))
    assert found.baseline == pytest.approx(before, abs=1e-4) and found.edited == pytest.approx(after, abs=1e-4)
    assert found.changes == pytest.approx([new - old for new, old in zip(after, before, strict=True)], abs=2e-4)
    assert found.mean == pytest.approx(sum(found.changes) / 4)
    assert (found.interval.low, found.interval.high) == (bootstrap(found.changes).low, bootstrap(found.changes).high)
    assert found.metric == metric and len(found.controls) == 5
    if metric in ("logit", "logit_diff"):
        assert max(map(abs, found.changes)) > 1e-2


def test_what_is_more_than_the_controls() -> None:
    found = Effect("logit", (1.0, 2.0), (4.0, 1.0), ((2.0, 2.0), (0.0, 5.0)), "the same elsewhere")
    assert found.changes == [3.0, -1.0] and found.control_changes == [0.0, 1.5]
    assert found.beyond_control is not None
    mean, interval = found.beyond_control
    assert mean == (3.0 + -2.5) / 2 and (interval.low, interval.high) == (
        bootstrap([3.0, -2.5]).low,
        bootstrap([3.0, -2.5]).high,
    )
    lines = found.table().split("\n")
    assert lines[0] == "logit without the edit: 1.5000 (n = 2)"
    assert lines[1].startswith("change by the edit: +1.0000 (") and lines[2].startswith(
        "change by the same elsewhere: +0.7500"
    )
    assert lines[3].startswith("beyond the control: +0.2500")
    content = json.loads(json.dumps(found.to_json()))
    assert content == {
        "metric": "logit", "n": 2, "baseline": 1.5, "change": 1.0,
        "control": "the same elsewhere", "control_change": 0.75,
        "interval": [found.interval.low, found.interval.high], "beyond_control": [0.25, interval.low, interval.high],
    }  # fmt: skip
    alone = Effect("logit", (1.0,), (2.0,), (), "none asked for")
    assert alone.beyond_control is None and alone.table().endswith("no control: none asked for")
    assert alone.to_json()["control_change"] is None


# --- Controls ---------------------------------------------------------------------------------------------------------


def drawn(edits: list[Any], given: Any = FACTS, seed: int = 0) -> tuple[list[Any], Any]:
    model = writer()
    inputs = gf.trace(model, given, "logits").inputs
    return effects._controls(edits, model, inputs, random.Random(seed))


def places(inputs: Any, span: str) -> list[list[int]]:
    found = inputs.places(span, "text")
    return [index[real].tolist() for index, real in zip(found.index, found.real, strict=True)]


@pytest.mark.parametrize("seed", range(4))
def test_controls_are_as_many_neighbours_elsewhere(seed: int) -> None:
    edits = [
        gf.ablate("residual_post[0] @ subject", to="zero"),
        gf.steer("residual_post[0:2] @ end", torch.zeros(32)),
        gf.knockout("self_attention[0]", dst="end", src="subject[1:] + subject.first"),
    ]
    moved, inputs = drawn(edits, seed=seed)
    assert moved[2].dst == "end" and moved[0].site == "residual_post[0] @ control_a"
    assert moved[1].site == "residual_post[0:2] @ control_b" and moved[2].src == "control_c"
    for row, length in enumerate(inputs.text.lengths.tolist()):
        for name, own in (("control_a", "subject"), ("control_b", "end"), ("control_c", "subject")):
            here, there = places(inputs, name)[row], places(inputs, own)[row]
            assert len(here) == len(there) and not set(here) & set(there)
            assert here == list(range(here[0], here[0] + len(here))) and here[-1] < length - 1


def test_controls_differ_from_draw_to_draw_and_are_the_same_for_a_seed() -> None:
    edit = gf.ablate("residual_post[0] @ subject.last", to="zero")
    assert len({str(places(drawn([edit], seed=seed)[1], "control_a")) for seed in range(8)}) > 4
    runs = [gf.effect(writer(), FACTS, edit, metric="logit", controls=4, seed=seed) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2] and runs[0].edited == runs[2].edited
    assert len(set(runs[0].controls)) > 1 and runs[0].control == "the same at other positions"
    moved, inputs = effects._controls(
        [edit], writer(), gf.trace(writer(), FACTS, "logits").inputs, random.Random("controls 0")
    )
    assert runs[0].controls[0] == pytest.approx(by_hand("logit", ends(moved, inputs)), abs=1e-4)


def test_controls_of_heads_are_other_heads() -> None:
    edits = [
        gf.ablate("self_attention.mixed[0,1].head[2,0] @ end", to="zero"),
        gf.knockout("self_attention[1].head[3]", dst="end", src="subject"),
    ]
    found = set()
    for seed in range(6):
        moved, _ = drawn(edits, seed=seed)
        assert moved[0].site == "self_attention.mixed[0,1].head[1,3] @ end" and moved[1].dst == "end"
        found.add(moved[1].attention)
    assert found == {f"self_attention[1].head[{head}]" for head in range(3)}
    assert gf.effect(writer(), FACTS, edits, metric="logit").control == "other heads"
    most = gf.effect(writer(), FACTS, gf.ablate("self_attention.mixed[0].head[0:3]", to="zero"), metric="logit")
    assert most.controls == () and "there are no 3 other heads" in most.table()
    moved, _ = effects._controls(
        [gf.ablate("self_attention.key[0].head[1]", to="zero")], case("rotary, shared keys").network,
        gf.trace(case("rotary, shared keys").network, [[5, 6]], "logits").inputs, random.Random(0),
    )  # fmt: skip
    assert moved[0].site == "self_attention.key[0].head[0]"


def test_controls_of_patches_come_from_the_same_place_of_the_source() -> None:
    model = writer()
    lengths = [len(model.tokenizer.encode(prompt)) for prompt in FACTS.prompts]
    same = [row for row in range(4) if lengths[row] == lengths[1]]
    assert len(same) > 1 and len(same) < 4
    swapped, here = FACTS.take([same[0], same[1], 2, 3]), FACTS.take([same[1], same[0], 2, 3])
    site = "residual_post[0] @ subject.last"
    edit = gf.patch(site, gf.trace(model, swapped, site))
    moved, inputs = drawn([edit], here)
    at = places(inputs, "control_a")
    whole = gf.trace(model, swapped, "residual_post[0] @ *")["residual_post[0] @ *"]
    value = moved[0].source[moved[0].site]
    for row in range(4):
        assert torch.equal(value[row, 0] if value.ndim == 3 else value[row], whole[row, at[row][0]])
    found = gf.effect(model, here, edit, metric="logit")
    assert len(found.controls) == 5
    unequal = gf.patch(site, gf.trace(model, FACTS.take([3, 1, 2, 3]), site))
    assert "other lengths" in gf.effect(model, here, unequal, metric="logit").control
    given = gf.effect(model, here, gf.patch(site, torch.zeros(32)), metric="logit")
    assert given.controls == () and "given values have no others" in given.control


def test_cut_edges_are_compared_with_edges_that_are_there() -> None:
    """Keys after a query are not seen anyway: a control that cuts them would do nothing. Names of one token lose none,
    in the control as well."""
    edit = gf.knockout("self_attention[*]", dst="subject.last", src="subject[:-1]")
    for seed in range(6):
        moved, inputs = drawn([edit], seed=seed)
        assert (moved[0].dst, moved[0].src) == ("subject.last", "control_a")
        for row in range(4):
            here, own = places(inputs, "control_a")[row], places(inputs, "subject")[row]
            assert len(here) == len(own) - 1 and (not here or here[-1] < own[0])
    assert [len(own) for own in places(inputs, "subject")].count(1) == 1
    found = gf.effect(writer(), FACTS, edit, metric="logit")
    assert len(found.controls) == 5 and found.changes[3] == 0 == found.control_changes[3]
    assert min(abs(change) for change in found.control_changes[:3]) > 1e-5
    whole = case("word head")
    inputs = gf.trace(whole.network, [[5, 6, 7, 8, 9]] * 2, "logits").inputs
    cut = gf.knockout("self_attention[0]", dst="0", src="0:2")  # an encoder sees what comes after as well
    _, moved_inputs = effects._controls([cut], whole.network, inputs, random.Random(0))
    assert all(2 <= first < stop <= 4 for first, stop in moved_inputs.text.spans["control_a"])


def test_texts_without_room_have_no_control() -> None:
    found = gf.effect(writer(), FACTS, gf.ablate("residual_post[0]", to="zero"), metric="logit")
    assert found.controls == () and "neighbouring positions elsewhere" in found.control
    assert gf.effect(writer(), FACTS, gf.ablate("residual_post[0]", to="zero"), metric="logit", controls=0).control == (
        "none asked for"
    )


def test_other_families_and_metrics_of_ones_own() -> None:
    this = case("encoder-decoder")

    def largest(logits: Tensor, rows: Any) -> Tensor:
        return logits.max(-1).values

    edit = gf.knockout("decoder.cross_attention[*]", dst="end", src="0:2")
    found = gf.effect(this.network, this.rows, edit, metric=largest, target=this.targets)
    logits = [
        gf.trace(this.network, this.rows, "logits @ end", target=this.targets, edits=e)["logits @ end"]
        for e in ([], [edit])
    ]
    assert found.baseline == pytest.approx(logits[0].max(-1).values.tolist(), abs=1e-5)
    assert found.edited == pytest.approx(logits[1].max(-1).values.tolist(), abs=1e-5)
    assert found.metric == "largest" and len(found.controls) == 0 or len(found.controls) == 5
    small = case("classifier")
    found = gf.effect(small.network, small.rows, gf.ablate("residual_mid[1] @ 0", to="zero"), metric=largest)
    plain = gf.trace(small.network, small.rows, "logits")["logits"].max(-1).values
    assert found.baseline == pytest.approx(plain.tolist(), abs=1e-5) and max(map(abs, found.changes)) > 1e-3


@pytest.mark.parametrize(
    ("edits", "settings", "message"),
    [
        ([], {}, "give at least one edit"),
        (gf.ablate("residual_pots[0]", to="zero"), {}, "no site 'residual_pots'"),
        (gf.ablate("residual_post[0] @ name", to="zero"), {}, "no span 'name'"),
        (gf.ablate("residual_post[0]", to="zero"), {"metric": "logits"}, "'logits' is no metric.*logit"),
    ],
)
def test_errors(edits: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        gf.effect(writer(), FACTS, edits, **settings)
