"""Edits against plain reference computations, in every family that has what they change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import torch
from interpret.all_families import CONFIGS, Case, case, padded, real, recorded
from tasks.small_models import TEXT, model_of
from tasks.small_writers import writer
from torch import Tensor
from torch.nn import functional as F

import glassformer as gf
from glassformer.errors import InputError
from glassformer.interpret.expressions import parse_attention
from glassformer.interpret.inputs import prepare
from glassformer.interpret.running import run_edited
from glassformer.interpret.spans import Texts
from glassformer.layers import attention as attention_file
from glassformer.layers.sites import edges, planned, sites
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer


def other(this: Case) -> Case:
    """As many other texts of the same lengths."""
    return Case(this.network, *([[(i * 7) % 35 + 4 for i in row] for row in side] if side else None
                                for side in (this.rows, this.targets)))  # fmt: skip


def traced(this: Case, *expressions: str, **settings: Any) -> Any:
    return gf.trace(this.network, this.rows, *expressions, target=this.targets, **settings)


def logits_of(this: Case, *edits: Any) -> Tensor:
    return traced(this, "logits", edits=edits)["logits"]


def by_hand(this: Case, plan: dict[str, Callable[[Tensor], Tensor]]) -> Tensor:
    """The logits of a run in which functions act at sites, zeros at padding."""
    with torch.no_grad():
        logits = planned(this.network, plan)(*this.batch).logits
    return logits if logits.ndim == 2 else torch.where(real(this.text_lengths)[..., None], logits, 0.0)


def untouched(network: Any) -> bool:
    return not any(tap.active for tap in (*sites(network).values(), *edges(network).values()))


FACTS = gf.Facts(
    (gf.Fact("1", "blue shirt", "r", "a blue shirt on", ("x",)), gf.Fact("2", "man", "r", "the man in", ("x",)))
)


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


# --- Ablate -----------------------------------------------------------------------------------------------------------


def from_the_end(values: Tensor, lengths: list[int], back: int) -> list[Tensor]:
    """Of each text that is so long, the value so many places before its end."""
    return [values[row, n - 1 - back] for row, n in enumerate(lengths) if back < n]


@pytest.mark.parametrize("name", ["learned positions", "post-norm", "word head", "encoder-decoder", "convolutional"])
def test_means_are_taken_place_by_place_from_the_end(name: str) -> None:
    this = case(name)
    site = {"encoder-decoder": "decoder.residual_mid[1]", "convolutional": "decoder.residual_pre[1]"}.get(
        name, "residual_mid[1]"
    )
    values, _ = recorded(this.network, this.batch)
    wanted = values[site].clone()
    for row, length in enumerate(this.text_lengths):
        for place in range(length):
            wanted[row, place] = torch.stack(from_the_end(values[site], this.text_lengths, length - 1 - place)).mean(0)
    found = logits_of(this, gf.ablate(site, to="mean"))
    torch.testing.assert_close(found, by_hand(this, {site: lambda value: wanted}), atol=1e-5, rtol=0)
    ends = torch.tensor(this.text_lengths) - 1
    last = values[site].clone()
    last[torch.arange(4), ends] = torch.stack(from_the_end(values[site], this.text_lengths, 0)).mean(0)
    found = logits_of(this, gf.ablate(f"{site} @ end", to="mean"))
    torch.testing.assert_close(found, by_hand(this, {site: lambda value: last}), atol=1e-5, rtol=0)


def test_means_of_reference_texts() -> None:
    this, reference = case("learned positions"), [[9, 8, 7, 6], [5, 4]]
    values = recorded(this.network, (padded(reference),))[0]["feed_forward.output[0]"]
    wanted = recorded(this.network, this.batch)[0]["feed_forward.output[0]"].clone()
    for row, length in enumerate(this.lengths):
        for place in range(length):
            back = min(length - 1 - place, 3)  # farther back than any of them, the first there is stays
            wanted[row, place] = torch.stack(from_the_end(values, [4, 2], back)).mean(0)
    found = logits_of(this, gf.ablate("feed_forward.output[0]", to="mean", reference=reference))
    torch.testing.assert_close(
        found, by_hand(this, {"feed_forward.output[0]": lambda value: wanted}), atol=1e-5, rtol=0
    )


def test_means_of_heads_and_patterns() -> None:
    this = case("rotary, shared keys")
    values, _ = recorded(this.network, this.batch)
    mixed = values["self_attention.mixed[2]"].clone()
    mixed[:, 1:3, 0] = mixed[:, 1:3, 0].mean(0)
    found = logits_of(this, gf.ablate("self_attention.mixed[2].head[1:3] @ 0", to="mean"))
    expected = by_hand(this, {"self_attention.mixed[2]": lambda value: mixed})
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    pattern = values["self_attention.pattern[2]"].clone()
    pattern[:, :, 1:3, 0:2] = pattern[:, :, 1:3, 0:2].mean(0)
    found = logits_of(this, gf.ablate("self_attention.pattern[2] @ 1:3<-0:2", to="mean"))
    expected = by_hand(this, {"self_attention.pattern[2]": lambda value: pattern})
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_resampling_puts_in_what_one_other_text_has(seed: int) -> None:
    this = case("learned positions")
    site = "feed_forward.output[1]"
    values = recorded(this.network, this.batch)[0][site]
    edit = gf.ablate(site, to="resample", seed=seed)
    found = traced(this, site, "logits", edits=[edit])
    partners = []
    for row, length in enumerate(this.lengths):
        fits = []
        for mate, there in enumerate(this.lengths):
            slots = torch.arange(length) - length + there  # the last for the last, and the first for what is left over
            fits.append(torch.equal(found[site][row, :length], values[mate, slots.clamp_min(0)]))
        assert sum(fits) == 1
        partners.append(fits.index(True))
    assert all(mate != row for row, mate in enumerate(partners)) and sorted(partners) == [0, 1, 2, 3]
    assert torch.equal(logits_of(this, edit), found["logits"])
    assert (found["logits"] - logits_of(this)).abs().max() > 1e-3


def test_resampling_depends_on_the_seed_and_takes_from_the_reference() -> None:
    this = case("learned positions", (5,) * 12)
    site = "residual_mid[0] @ end"
    ways = {tuple(traced(this, site, edits=[gf.ablate(site, to="resample", seed=seed)])[site][:, 0].tolist())
            for seed in range(6)}  # fmt: skip
    assert len(ways) == 6
    reference = [[9, 8, 7], [6, 5]]
    there = gf.trace(this.network, reference, site)[site]
    found = traced(this, site, edits=[gf.ablate(site, to="resample", reference=reference)])[site]
    assert {int((there == row).all(1).nonzero()) for row in found} == {0, 1}
    with pytest.raises(InputError, match="give at least two texts, or a reference"):
        gf.trace(this.network, [this.rows[0]], site, edits=[gf.ablate(site, to="resample")])


def test_zeros() -> None:
    for name in ("rotary, shared keys", "encoder-decoder", "input feeding"):
        this = case(name)
        for site in sites(this.network):
            if (
                "[1]" in site or "scale" in site or "bias" in site or "scores" in site
            ):  # zeros there reach padding, or divide nothing
                continue
            found = logits_of(this, gf.ablate(site, to="zero"))
            assert torch.equal(found, by_hand(this, {site: torch.zeros_like})), site
    this = case("rotary, shared keys")

    def head(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, [0, 2], 1:3] = 0
        return value

    found = logits_of(this, gf.ablate("self_attention.head_output[0].head[0,2] @ 1:3", to="zero"))
    assert torch.equal(found, by_hand(this, {"self_attention.head_output[0]": head}))


def test_ablations_say_what_they_put() -> None:
    with pytest.raises(TypeError):
        gf.ablate("residual_post[0]")  # type: ignore[call-arg]
    with pytest.raises(InputError, match="'to' must be zero, mean or resample, got 'means'.*mean"):
        gf.ablate("residual_post[0]", to="means")  # type: ignore[arg-type]


def test_references_of_an_encoder_decoder_are_sources_and_targets() -> None:
    this, site = case("encoder-decoder"), "decoder.cross_attention.key[1] @ end"
    reference = ([[9, 8, 7], [6, 5]], [[4, 5], [7, 8, 9]])
    there = gf.trace(this.network, reference[0], site, target=reference[1])[site].mean(0)
    found = traced(this, site, edits=[gf.ablate(site, to="mean", reference=reference)])[site]
    torch.testing.assert_close(found, there.expand_as(found))


# --- Knockout ---------------------------------------------------------------------------------------------------------


def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, scale: float, bias: Any = None
) -> Tensor:
    """softmax over what is allowed, head by head and row by row; zeros where nothing is."""
    out = torch.zeros(*query.shape[:3], value.shape[-1])
    share = query.shape[1] // key.shape[1]
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            for q in range(query.shape[2]):
                keys = [k for k in range(key.shape[2]) if allowed[b, h, q, k]]
                if keys:
                    scores = torch.stack([query[b, h, q] @ key[b, h // share, k] for k in keys]) * scale
                    if bias is not None:
                        scores = scores + bias[0, h, q, keys]
                    out[b, h, q] = scores.softmax(0) @ value[b, h // share, keys]
    return out


def lengths_of(this: Case, attention: str) -> tuple[list[int], list[int]]:
    """Of queries and of keys."""
    if attention.startswith("encoder."):
        return this.lengths, this.lengths
    return this.text_lengths, this.lengths if "cross" in attention else this.text_lengths


def allowed_of(this: Case, attention: str) -> Tensor:
    """What an attention may see without any edit, [B, H, Q, K]."""
    queries, keys = lengths_of(this, attention)
    heads = getattr(this.network.config, "n_heads", 1)
    allowed = real(keys)[:, None, None, :].repeat(1, heads, max(queries), 1)
    looks_back = "cross" not in attention and not attention.startswith("encoder.")
    if looks_back and not isinstance(this.network, gf.Encoder):
        allowed = allowed & torch.ones(max(queries), max(keys), dtype=torch.bool).tril()
    return allowed


CUTS = [
    ("learned positions", "self_attention[*]", None, "end", "0:2"),
    ("learned positions", "self_attention[1]", (0, 3), "*", "0"),
    ("rotary, shared keys", "self_attention[0:2]", (1,), "1:3", "1 + 0"),
    ("rotary, shared keys", "self_attention[*]", None, "1", "*"),
    ("relative positions", "self_attention[*]", None, "end", "end"),
    ("post-norm", "self_attention[-1]", None, "*", "*"),
    ("word head", "self_attention[*]", (2, 1), "0", "1:"),
    ("encoder-decoder", "encoder.self_attention[*]", None, "end", "0:2"),
    ("encoder-decoder", "decoder.cross_attention[*]", (1,), "*", "end"),
    ("encoder-decoder", "decoder.cross_attention[0]", None, "end", "*"),
    ("two vocabularies", "decoder.cross_attention[*]", None, "0:2", "0:3"),
    ("LSTM", "decoder.cross_attention", None, "end", "0:2"),
]


@pytest.mark.parametrize(("name", "attention", "heads", "dst", "src"), CUTS)
def test_cut_edges_are_those_of_a_masked_attention(name: str, attention: str, heads: Any, dst: str, src: str) -> None:
    this = case(name)
    network, base = this.network, attention.partition("[")[0]
    written = attention if heads is None else f"{attention}.head[{','.join(map(str, heads))}]"
    names = [site for site in edges(network) if site.partition("[")[0] == base]
    asked = [f"{base}.{part}{'[*]' if '[' in names[0] else ''}" for part in ("query", "key", "value", "mixed")]
    trace = traced(this, *asked, "logits", edits=[gf.knockout(written, dst=dst, src=src)])
    bias = recorded(network, this.batch)[0]["relative.bias"] if "relative" in name else None
    source = base.startswith("encoder")
    at = trace.inputs.places(dst, "source" if source else "text")
    of = trace.inputs.places(src, "source" if source or "cross" in base else "text")
    scaled = getattr(network.config, "scale_scores", True) and hasattr(network.config, "n_heads")
    for layer, site in enumerate(names):
        query, key, value, mixed = (trace.stack(text)[layer] for text in asked)
        allowed = allowed_of(this, base)
        for row in range(4) if site in parse_attention(written, network)[0] else ():
            for q in at.index[row][at.real[row]].tolist():
                for k in of.index[row][of.real[row]].tolist():
                    allowed[row, list(heads) if heads else slice(None), q, k] = False
        expected = masked_attention(query, key, value, allowed, query.shape[-1] ** -0.5 if scaled else 1.0, bias)
        expected = torch.where(real(lengths_of(this, base)[0])[:, None, :, None], expected, 0.0)
        torch.testing.assert_close(mixed, expected, atol=2e-5, rtol=1e-4)
    assert (trace["logits"] - logits_of(this)).abs().max() > 1e-3
    assert untouched(network)


@pytest.mark.parametrize("name", ["learned positions", "rotary, shared keys", "encoder-decoder"])
def test_attention_stays_fused_where_edges_are_cut(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long texts too, where the kernel of torch is taken: who may look nowhere gets zeros there as well."""
    this = case(name, (70, 90), (80, 66))
    site = "decoder.self_attention" if name == "encoder-decoder" else "self_attention"
    edits = [gf.knockout(f"{site}[*]", dst="1:5", src="*"), gf.knockout(f"{site}[1].head[2]", dst="end", src="0:40")]
    if name == "encoder-decoder":
        edits.append(gf.knockout("decoder.cross_attention[0]", dst="0:70", src="*"))
    legible = traced(this, "logits", f"{site}.pattern[*]", f"{site}.mixed[*]", edits=edits)
    calls = []
    fused = F.scaled_dot_product_attention

    def counted(*arguments: Any, **settings: Any) -> Tensor:
        calls.append(arguments[0].shape)
        return fused(*arguments, **settings)

    def refused(*arguments: Any) -> Tensor:
        raise AssertionError("the scores were stored")

    monkeypatch.setattr(attention_file.F, "scaled_dot_product_attention", counted)
    monkeypatch.setattr(attention_file, "attention_scores", refused)
    found = traced(this, "logits", f"{site}.mixed[*]", edits=edits)
    assert len(calls) == {"encoder-decoder": 6}.get(name, 3)
    torch.testing.assert_close(found["logits"], legible["logits"], atol=1e-4, rtol=1e-4)
    mixed, pattern = found.stack(f"{site}.mixed[*]"), legible.stack(f"{site}.pattern[*]")
    assert not mixed[:, :, :, 1:5].any() and mixed[:, :, :, 5].any()
    assert not pattern[:, :, :, 1:5].any()
    ends = torch.tensor(this.text_lengths) - 1
    last = pattern[1][torch.arange(2), 2, ends]
    assert not last[:, :40].any()
    torch.testing.assert_close(last.sum(1), torch.ones(2))


def test_the_last_token_of_a_subject_does_not_see_the_others() -> None:
    """The edit of the study: early layers do not gather the parts of a name; a name of one token stays as it is."""
    model = writer()
    edit = gf.knockout("self_attention[0:1]", dst="subject.last", src="subject[:-1]")
    whole, before = (gf.trace(model, FACTS, "self_attention.pattern[*]", edits=edits) for edits in ([edit], []))
    places = whole.inputs.places("subject", "text")
    subjects = [index[real].tolist() for index, real in zip(places.index, places.real, strict=True)]
    assert len(subjects[0]) > 1 == len(subjects[1])
    early, late = (trace.stack("self_attention.pattern[*]") for trace in (whole, before))
    *others, last = subjects[0]
    assert not early[0, 0, :, last, others].any() and late[0, 0, :, last, others].all()
    kept = [k for k in range(last + 1) if k not in others]
    wanted = late[0, 0, :, last, kept]
    torch.testing.assert_close(early[0, 0, :, last, kept], wanted / wanted.sum(1, keepdim=True))
    assert torch.equal(early[:, 1], late[:, 1]) and not torch.equal(early[1, 0], late[1, 0])


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


# --- Going on ---------------------------------------------------------------------------------------------------------

PROMPT = "a man in blue shirt rides"
WORDS = '"blue shirt"'


def flipped(model: Any) -> Tensor:
    """What passes where the prompt is read from behind."""
    return gf.trace(model, prepare(model, PROMPT).text.ids.flip(1), "residual_post[0] @ *")["residual_post[0] @ *"]


GOING_ON: dict[str, Callable[[Any], list[Any]]] = {
    "steered everywhere": lambda model: [gf.steer("residual_post[0] @ *", torch.linspace(-1, 1, 32), 0.7)],
    "a layer is taken away": lambda model: [gf.ablate("feed_forward.output[1]", to="zero")],
    "at a word": lambda model: [gf.steer(f"residual_post[0] @ {WORDS}", torch.linspace(-1, 1, 32), 3.0)],
    "at the end": lambda model: [gf.ablate("residual_mid[1] @ end", to="zero")],
    "only what is written": lambda model: [gf.steer("residual_post[1] @ generated", torch.linspace(-1, 1, 32), 2.0)],
    "cut": lambda model: [gf.knockout("self_attention[*].head[0:3]", dst="*", src=WORDS)],
    "what is written is not seen": lambda model: [gf.knockout("self_attention[*]", dst="generated", src="*")],
    "a patch": lambda model: [gf.patch("residual_post[0] @ prompt", flipped(model))],
    "a pattern": lambda model: [gf.ablate("self_attention.pattern[*] @ *<-1:", to="zero")],
}  # fmt: skip


def read_anew(model: Any, edits: list[Any], count: int) -> list[int]:
    """The prompt and `count` tokens more, the whole edited text read at every step; `generated` is what is new."""
    prompt = prepare(model, PROMPT)
    texts, length = prompt.text, int(prompt.text.lengths[0])
    words = prompt.places(WORDS, "text").index[0].tolist()
    spans = {**texts.spans, "words": [(words[0], words[-1] + 1)]}
    as_name = [
        replace(edit, **{name: value.replace(WORDS, "words") for name, value in vars(edit).items() if name in
                         ("site", "src") and isinstance(value, str)})
        for edit in edits
    ]  # fmt: skip
    ids = texts.ids[0].tolist()
    for _ in range(count):
        longer = replace(
            prepare(model, [ids]), text=Texts(torch.tensor([ids]), torch.tensor([len(ids)]), spans, written=[length])
        )
        ids.append(int(run_edited(model, longer, None, as_name).logits[0, -1].argmax()))
    return ids[length:]


@pytest.mark.parametrize("way", GOING_ON)
def test_an_edited_text_goes_on_as_if_it_were_read_anew_at_every_step(way: str) -> None:
    model = writer()
    edits = GOING_ON[way](model)
    expected = read_anew(model, edits, 7)
    plain = list(model.generate(PROMPT, max_new_tokens=7, ignore_eos=True).ids)
    assert plain != expected, "the edit changes nothing"
    edited = gf.edited(model, PROMPT, edits)
    for _ in range(2):  # a text may be begun again
        assert list(edited.generate(PROMPT, max_new_tokens=7, ignore_eos=True).ids) == expected
    pieces = [piece.ids for piece in edited.stream(PROMPT, max_new_tokens=7, ignore_eos=True)]
    assert [token for ids in pieces for token in ids] == expected
    assert list(model.generate(PROMPT, max_new_tokens=7, ignore_eos=True).ids) == plain


def test_an_edited_text_is_read_as_one_as_well() -> None:
    """The edited model's other verbs begin at the text's beginning, too."""
    model = writer()
    edits = GOING_ON["at a word"](model)
    edited = gf.edited(model, PROMPT, edits)
    expected = model(PROMPT, edits=edits).logits
    for _ in range(2):
        assert torch.equal(edited(PROMPT).logits, expected)
    logprobs = expected[0].log_softmax(-1)
    ids = prepare(model, PROMPT).text.ids[0]
    wanted = logprobs[:-1].gather(1, ids[1:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(edited.score(PROMPT).logprobs[-len(wanted) :]), wanted, atol=1e-4, rtol=0)


def test_values_for_each_position_do_not_reach_beyond_the_text() -> None:
    model = writer()
    for edit in (
        gf.patch("residual_post[0]", gf.trace(model, PROMPT, "residual_post[0]")),
        gf.ablate("residual_post[0]", to="mean", reference=[PROMPT, "two women eat"]),
    ):
        with pytest.raises(InputError, match=r"none for what is written after it: name 'prompt' instead of '\*'"):
            gf.edited(model, PROMPT, [edit]).generate(PROMPT, max_new_tokens=3, ignore_eos=True)
    vector = gf.patch("residual_post[0]", torch.zeros(32))
    gf.edited(model, PROMPT, [vector]).generate(PROMPT, max_new_tokens=3, ignore_eos=True)
    with pytest.raises(InputError, match="goes on from one text when it is edited, got 2"):
        gf.edited(model, [PROMPT, PROMPT], [vector])


def test_traces_go_on_with_the_edits() -> None:
    model, edit = writer(), gf.steer("residual_post[0]", torch.linspace(-1, 1, 32), 0.7)
    trace = gf.trace(model, PROMPT, "logits @ generated", "logits @ end", edits=[edit], generate=4)
    ids = gf.edited(model, PROMPT, [edit]).generate(PROMPT, max_new_tokens=4, ignore_eos=True).ids
    assert trace.inputs.text.ids[0, -4:].tolist() == list(ids)
    said = torch.cat((trace["logits @ end"], trace["logits @ generated"][0]))[:-1].argmax(-1)
    assert said.tolist() == list(ids) != list(model.generate(PROMPT, max_new_tokens=4, ignore_eos=True).ids)


def test_a_translator_goes_on_edited() -> None:
    model = model_of(Tokenizer.train([TEXT], "word", min_frequency=1), TextPipeline())
    source = "a man rides the bike"
    inputs = gf.trace(model, source, "logits", target="").inputs
    edit = gf.knockout("decoder.cross_attention[*]", dst="*", src="1:3")
    written = [model.config.bos_id]
    for _ in range(6):
        logits = run_edited(model, [inputs.source.ids[0].tolist()], [written], [edit]).logits
        written.append(int(logits[0, -1].argmax()))
        if written[-1] == model.config.eos_id:
            break
    edited = gf.edited(model, source, [edit], target="")
    found = edited.translate(source, beam=1, max_length=6)
    ids = model.tokenizer.encode(found.text)
    assert ids == [token for token in written[1:] if token != model.config.eos_id][: len(ids)] and ids
    assert found.text != model.translate(source, beam=1, max_length=6).text
    with pytest.raises(InputError, match="with edges cut .* beam=1"):
        edited.translate(source, beam=3)
    steered = gf.edited(
        model, source, [gf.steer("decoder.residual_post[-1]", torch.linspace(-1, 1, 16), 3.0)], target=""
    )
    shift = steered.translate(source, beam=3, max_length=6)
    assert shift.text != model.translate(source, beam=3, max_length=6).text


def test_a_beam_goes_on_edited() -> None:
    """Every hypothesis is edited at the same positions: what it was scored by is what the whole text gives."""
    model, edit = writer(), gf.steer("residual_post[0] @ generated", torch.linspace(-1, 1, 32), 2.0)
    found = gf.edited(model, PROMPT, [edit]).generate(PROMPT, beam=3, max_new_tokens=5, ignore_eos=True)
    texts = prepare(model, PROMPT).text
    ids, length = [*texts.ids[0].tolist(), *found.ids], texts.ids.shape[1]
    longer = Texts(torch.tensor([ids]), torch.tensor([len(ids)]), {}, written=[length])
    logits = run_edited(model, replace(prepare(model, [ids]), text=longer), None, [edit]).logits[0, length - 1 : -1]
    expected = logits.detach().log_softmax(-1).gather(1, torch.tensor(found.ids)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(found.logprobs), expected, atol=1e-4, rtol=0)
