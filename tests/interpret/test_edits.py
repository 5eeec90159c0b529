"""Patches, steering and functions against plain computations, and several edits together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError

import pytest
import torch
from interpret.all_families import CONFIGS, Case, case, recorded
from interpret.editing import FACTS, by_hand, logits_of, other, traced, untouched
from tasks.small_models import TEXT, model_of
from tasks.small_writers import writer
from torch import Tensor

import glassformer as gf
from glassformer.errors import InputError
from glassformer.interpret.running import run_edited
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

# --- Patch ------------------------------------------------------------------------------------------------------------

LAST = {name: "residual_post[-1]" for name in CONFIGS}
LAST.update(dict.fromkeys(("encoder-decoder", "T5", "two vocabularies", "convolutional"), "decoder.residual_post[-1]"))
LAST.update(dict.fromkeys(("LSTM", "input feeding", "without attention"), "decoder.found"))


@pytest.mark.parametrize("name", CONFIGS)
def test_patching_what_is_last_restores_the_logits_exactly(name: str) -> None:
    this = case(name)
    clean = other(this)
    expected = logits_of(clean)
    assert (expected - logits_of(this)).abs().max() > 1e-2
    site = LAST[name]
    found = logits_of(this, gf.patch(site, traced(clean, site)))
    assert torch.equal(found, expected)
    if "decoder" not in site and expected.ndim == 3:
        one = logits_of(this, gf.patch(f"{site} @ end", traced(clean, f"{site} @ end")))
        each, ends = torch.arange(4), torch.tensor(this.text_lengths) - 1
        assert torch.equal(one[each, ends], expected[each, ends])
        one[each, ends] = logits_of(this)[each, ends]
        assert torch.equal(one, logits_of(this))
    assert untouched(this.network)


@pytest.mark.parametrize("name", ["learned positions", "rotary, shared keys", "post-norm", "word head"])
def test_patching_all_that_is_read_restores_the_logits_exactly(name: str) -> None:
    this = case(name)
    clean = other(this)
    for site in ("residual_post[*]", "residual_pre[0]", "embedding.token", "residual_mid[*]"):
        found = logits_of(this, gf.patch(site, traced(clean, site)))
        assert torch.equal(found, logits_of(clean)), site


def test_patching_heads_and_positions_is_what_it_says() -> None:
    this = case("rotary, shared keys")
    clean = other(this)
    values, _ = recorded(this.network, clean.batch)
    rows, ends = torch.arange(4), torch.tensor(this.lengths) - 1

    def mixed(value: Tensor) -> Tensor:
        value = value.clone()
        for head in (3, 1):
            value[rows, head, ends] = values["self_attention.mixed[1]"][rows, head, ends]
        return value

    site = "self_attention.mixed[1].head[3,1] @ end"
    expected = by_hand(this, {"self_attention.mixed[1]": mixed})
    for source in (traced(clean, site), traced(clean, "self_attention.mixed[*] @ end"), traced(clean, site)[site]):
        torch.testing.assert_close(logits_of(this, gf.patch(site, source)), expected, atol=1e-6, rtol=0)

    def pattern(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, 2, 1:3, 0:2] = values["self_attention.pattern[0]"][:, 2, 1:3, 0:2]
        return value

    site = "self_attention.pattern[0].head[2] @ 1:3<-0:2"
    found = logits_of(this, gf.patch(site, traced(clean, site)))
    expected = by_hand(this, {"self_attention.pattern[0]": pattern})
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(logits_of(this, gf.patch(site, traced(clean, site)[site][:, :1])), expected)


def test_given_tensors_are_put_at_every_place() -> None:
    this = case("learned positions")
    vector, each = torch.randn(16), torch.randn(4, 16)
    ends = torch.tensor(this.lengths) - 1

    def put(values: Tensor) -> Callable[[Tensor], Tensor]:
        def function(value: Tensor) -> Tensor:
            value = value.clone()
            value[torch.arange(4), ends] = values
            return value

        return function

    for given, wanted in ((vector, vector), (each, each), (each[:, None], each), (vector[None, None], vector)):
        found = logits_of(this, gf.patch("residual_post[0] @ end", given))
        assert torch.equal(found, by_hand(this, {"residual_post[0]": put(wanted)}))
    wide = torch.randn(4, 4, 4)
    found = logits_of(this, gf.patch("self_attention.query[0] @ end", wide))

    def query(value: Tensor) -> Tensor:
        value = value.clone()
        value[torch.arange(4), :, ends] = wide
        return value

    assert torch.equal(found, by_hand(this, {"self_attention.query[0]": query}))
    whole = logits_of(this, gf.patch("residual_post[0]", vector))
    assert torch.equal(whole, by_hand(this, {"residual_post[0]": lambda value: vector.expand_as(value)}))


@pytest.mark.parametrize(
    ("site", "shape", "message"),
    [
        ("residual_post[0] @ end", (3, 16), "there are 4 texts and values for 3"),
        ("residual_post[0] @ 0:2", (4, 3, 16), "there are 2 positions and values for 3"),
        ("residual_post[0] @ 0:2", (1, 3, 16), "there are 2 positions and values for 3"),
        ("residual_post[0] @ end", (15,), "there are 16 numbers at a position, got 15"),
        ("residual_post[0] @ end", (1,), "there are 16 numbers at a position, got 1"),
        ("residual_post[0] @ end", (1, 1, 1, 16), "values there have 3 axes"),
        ("self_attention.query[0] @ end", (4, 4), "values there have 4 axes"),
        ("self_attention.query[0].head[0:2] @ end", (4, 3, 4), "there are 2 heads and values for 3"),
        ("self_attention.query[0] @ end", (4, 3, 4), "there are 4 heads, got 3"),
        ("self_attention.pattern[0] @ end<-0:2", (4, 4, 1, 3), "there are 2 keys and values for 3"),
        ("logits @ end", (39,), "there are 40 numbers"),
    ],
)
def test_values_of_the_wrong_shape_are_refused(site: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        logits_of(case("learned positions"), gf.patch(site, torch.zeros(shape)))


def test_texts_of_unequal_length_cannot_be_patched_whole() -> None:
    this = case("learned positions")
    longer = Case(this.network, [*this.rows[:2], [*this.rows[2], 9], this.rows[3]], None)
    with pytest.raises(
        InputError, match="text 3 has 3 positions there, what it is patched from 4: choose texts of equal"
    ):
        logits_of(this, gf.patch("residual_post[0]", traced(longer, "residual_post[0]")))
    logits_of(this, gf.patch("residual_post[0] @ end", traced(longer, "residual_post[0] @ end")))
    with pytest.raises(InputError, match="4 texts are patched from 1; give one for each"):
        logits_of(
            this, gf.patch("residual_post[0] @ 0", gf.trace(this.network, [this.rows[0]], "residual_post[0] @ 0"))
        )
    with pytest.raises(InputError, match=r"'residual_post\[1\] @ 0' was not kept"):
        logits_of(this, gf.patch("residual_post[1] @ 0", traced(this, "residual_post[0] @ 0")))
    with pytest.raises(InputError, match="'source' must be a trace or a tensor, got list"):
        gf.patch("residual_post[0]", [1.0])  # type: ignore[arg-type]


def test_a_batch_of_rows_gets_its_own_values() -> None:
    """Texts are run in chunks; each takes its own values along."""
    this = case("learned positions", tuple([3, 5] * 20))
    clean = other(this)
    edit = gf.patch("residual_post[-1] @ end", traced(clean, "residual_post[-1] @ end"))
    found = traced(this, "logits @ end", edits=[edit], batch_size=7)
    torch.testing.assert_close(found["logits @ end"], traced(clean, "logits @ end")["logits @ end"], atol=1e-5, rtol=0)


# --- Steer and apply --------------------------------------------------------------------------------------------------


def test_steering_adds() -> None:
    this = case("learned positions")
    vector = torch.randn(16)

    def added(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, 1:3] += -2.5 * vector
        return value

    found = logits_of(this, gf.steer("residual_post[1] @ 1:3", vector, scale=-2.5))
    torch.testing.assert_close(found, by_hand(this, {"residual_post[1]": added}), atol=1e-6, rtol=0)
    for wrong, message in ((torch.zeros(15), "16 numbers at a position, got 15"), (torch.zeros(1), "got 1")):
        with pytest.raises(InputError, match=message):
            logits_of(this, gf.steer("residual_post[1]", wrong))
    with pytest.raises(InputError, match="'vector' must have one axis"):
        gf.steer("residual_post[1]", torch.zeros(1, 16))
    with pytest.raises(InputError, match="'vector' must be a tensor, got list"):
        gf.steer("residual_post[1]", [0.0])  # type: ignore[arg-type]


def test_functions_are_applied() -> None:
    this = case("rotary, shared keys")
    seen = []

    def doubled(value: Tensor) -> Tensor:
        seen.append(value.shape)
        return value * 2

    def head(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, 3, 2:3] *= 2
        return value

    found = logits_of(this, gf.apply("self_attention.query[1].head[3] @ 2", doubled))
    assert torch.equal(found, by_hand(this, {"self_attention.query[1]": head})) and seen == [(4, 4, 7, 4)]
    for function, message in (
        (lambda value: value[:, :1], r"must keep the shape \(4, 4, 7, 4\), got \(4, 1, 7, 4\)"),
        (lambda value: None, "got NoneType"),
    ):
        with pytest.raises(InputError, match=message):
            logits_of(this, gf.apply("self_attention.query[1]", function))
    with pytest.raises(InputError, match="'function' must be a function of a tensor, got Tensor"):
        gf.apply("residual_post[0]", torch.zeros(3))  # type: ignore[arg-type]


def test_logits_of_whole_texts_are_edited() -> None:
    this = case("classifier")
    found = logits_of(this, gf.steer("logits", torch.tensor([1.0, 0.0, -1.0])))
    torch.testing.assert_close(found, logits_of(this) + torch.tensor([1.0, 0.0, -1.0]))
    assert torch.equal(logits_of(this, gf.patch("logits", traced(other(this), "logits"))), logits_of(other(this)))
    assert not logits_of(this, gf.ablate("logits", to="zero")).any()
    mean = logits_of(this, gf.ablate("logits", to="mean"))
    torch.testing.assert_close(mean, logits_of(this).mean(0).expand(4, 3))


# --- Together ---------------------------------------------------------------------------------------------------------


def test_edits_act_in_their_order() -> None:
    this, vector = case("learned positions"), torch.randn(16)
    site = "residual_post[1] @ end"
    double, add = gf.apply(site, lambda value: value * 2), gf.steer(site, vector)
    plain = traced(this, site)[site]
    for edits, expected in (([double, add], plain * 2 + vector), ([add, double], (plain + vector) * 2)):
        found = traced(this, site, edits=edits)[site]
        torch.testing.assert_close(found, expected)
    both = logits_of(
        this, gf.ablate("feed_forward.output[0]", to="zero"), gf.knockout("self_attention[2]", dst="end", src="0")
    )
    cut = [gf.knockout("self_attention[2]", dst="end", src="0"), gf.knockout("self_attention[2]", dst="end", src="1")]
    once = gf.knockout("self_attention[2]", dst="end", src="0:2")
    assert torch.equal(logits_of(this, *cut), logits_of(this, once))
    assert not torch.equal(both, logits_of(this, cut[0]))


def test_models_are_called_with_edits() -> None:
    model = writer()
    facts, swapped = FACTS, FACTS.take([1, 0])
    edits = [
        gf.knockout("self_attention[0]", dst="subject.last", src="subject[:-1]"),
        gf.ablate("feed_forward.output[*] @ subject.last", to="resample"),
        gf.patch("residual_post[0] @ subject.last", gf.trace(model, swapped, "residual_post[0] @ subject.last")),
    ]
    found = model(facts, edits=edits)
    trace = gf.trace(model, facts, "logits", edits=edits)
    mask = trace.mask("logits")
    assert torch.equal(found.logits[mask], trace["logits"][mask])
    assert found.hidden.shape[-1] == 32 and (found.logits - model(facts).logits)[mask].abs().max() > 1e-3
    assert found.logits.requires_grad and not trace["logits"].requires_grad
    assert untouched(model.network)
    translator = model_of(Tokenizer.train([TEXT], "word", min_frequency=1), TextPipeline())
    cut = gf.knockout("decoder.cross_attention[*]", dst="end", src="0:2")
    both = translator("a man rides", "dog runs", edits=[cut]).logits
    assert not torch.equal(both[:, -1], translator("a man rides", "dog runs").logits[:, -1])
    assert torch.equal(both[:, :-1], translator("a man rides", "dog runs").logits[:, :-1])


def test_edits_are_frozen_and_do_not_touch_the_model() -> None:
    edit = gf.knockout("self_attention[0]", dst="end", src="0")
    with pytest.raises(FrozenInstanceError):
        edit.dst = "0"  # type: ignore[misc]
    assert edit == gf.knockout("self_attention[0]", dst="end", src="0")
    this = case("learned positions")
    before = logits_of(this)
    run_edited(this.network, this.rows, None, [edit, gf.ablate("residual_post[*]", to="zero")])
    assert torch.equal(logits_of(this), before)
