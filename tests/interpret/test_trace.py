"""Traces: what is kept is what passes, in every family, and reading changes nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from interpret.all_families import CONFIGS, DECODERS, Case, case, expressions, padded, real, recorded, sides
from tasks.small_models import TEXT, model_of
from tasks.small_writers import writer
from torch import Tensor

import glassformer as gf
from glassformer.errors import InputError
from glassformer.interpret.inputs import prepare
from glassformer.layers.int8 import int8
from glassformer.layers.quantized import quantized
from glassformer.layers.sites import edges, planned, sites
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

every_family = pytest.mark.parametrize("name", CONFIGS)
PATTERNS = (".scores", ".pattern")


def legible(name: str) -> bool:
    """Whether keeping the site makes attention store its pattern."""
    return name.partition("[")[0].endswith(PATTERNS)


def masked(value: Tensor, name: str, this: Case) -> Tensor:
    """The whole value with zeros at padding."""
    queries, keys = sides(name, this)
    base = name.partition("[")[0]
    if value.ndim == 2:  # one row for each text
        return value
    if value.ndim == 3:
        return torch.where(real(queries)[:, :, None], value, 0.0)
    if base.endswith((".scores", ".pattern", ".bias")):
        allowed = real(queries)[:, None, :, None] & real(keys)[:, None, None, :]
        return torch.where(allowed, value, 0.0)
    return torch.where(real(queries)[:, None, :, None], value, 0.0)


def zeros_at_padding(logits: Tensor, this: Case) -> Tensor:
    return masked(logits, "logits", this)


def untouched(network: Any) -> bool:
    return not any(tap.active for tap in (*sites(network).values(), *edges(network).values()))


# --- Every family -----------------------------------------------------------------------------------------------------


@every_family
def test_every_site_is_kept_as_it_passes(name: str) -> None:
    this = case(name)
    expected, _ = recorded(this.network, this.batch)
    asked = expressions(this.network)
    trace = gf.trace(this.network, *_given(this), *asked, target=this.targets)
    assert untouched(this.network)
    for expression, names in asked.items():
        found = trace.stack(expression)
        for value, site in zip(found, names, strict=True):
            wanted = masked(expected[site], site, this)
            assert value.shape == wanted.shape, site
            assert torch.equal(value, wanted), site
        if found.ndim > 3:
            assert torch.equal(trace.mask(expression), real(sides(names[0], this)[0])), expression


@every_family
def test_reading_changes_nothing_to_the_last_bit(name: str) -> None:
    """Not even with every site kept that attention has while it stays fused; texts longer than `SHORT` as well."""
    long = [case(name, (70, 90, 8), (66, 9, 80))] if isinstance(CONFIGS[name], gf.Config) else []
    for this in (case(name), *long):
        with torch.no_grad():
            plain = zeros_at_padding(this.network(*this.batch).logits, this)
        fused = [text for text in expressions(this.network) if not legible(text)]
        trace = gf.trace(this.network, *_given(this), *fused, target=this.targets)
        assert torch.equal(trace["logits"], plain)
        everything = gf.trace(this.network, *_given(this), *expressions(this.network), target=this.targets)
        torch.testing.assert_close(everything["logits"], plain, atol=1e-5, rtol=0)


@every_family
def test_chunks_do_not_matter(name: str) -> None:
    """Three texts and then one are padded otherwise, and give the same."""
    this = case(name)
    asked = expressions(this.network)
    whole = gf.trace(this.network, *_given(this), *asked, target=this.targets)
    parts = gf.trace(this.network, *_given(this), *asked, target=this.targets, batch_size=3)
    for key, value in whole.values.items():
        torch.testing.assert_close(parts.values[key], value, atol=2e-5, rtol=1e-4)


@every_family
def test_what_it_would_hold_is_what_it_holds(name: str) -> None:
    this = case(name)
    asked = list(expressions(this.network))
    asked += [f"{text} @ end" for text in asked if "source" not in text and not text.startswith("encoder")]
    trace = gf.trace(this.network, *_given(this), *asked, target=this.targets)
    held = gf.trace(this.network, *_given(this), *asked, target=this.targets, dry=True)
    assert held.nbytes == trace.nbytes == sum(value.numel() * 4 for value in trace.values.values())
    assert held.shapes == {key: tuple(value.shape) for key, value in trace.values.items()}
    assert f"{held.nbytes / 1e6:.1f} MB" in str(held)


@every_family
def test_gradients_are_those_of_autograd(name: str) -> None:
    this = case(name)
    network = this.network
    names = [site for site in sites(network) if site != "logits"]
    weight = torch.randn(network.config.vocab_size, generator=torch.Generator().manual_seed(3))

    def metric(logits: Tensor, rows: Any) -> Tensor:
        assert logits.shape[0] == len(range(10)[rows])
        return logits.tanh() @ weight[: logits.shape[-1]]

    kept: dict[str, list[Tensor]] = {site: [] for site in names}

    def keep(site: str) -> Any:
        def function(value: Tensor) -> Tensor:
            value = value if value.requires_grad else value.detach().requires_grad_()
            kept[site].append(value)
            return value

        return function

    with torch.enable_grad():
        logits = planned(network, {site: keep(site) for site in names})(*this.batch).logits
        last = logits if logits.ndim == 2 else logits[torch.arange(len(logits)), torch.tensor(this.text_lengths) - 1]
        score = metric(last, slice(0, len(last))).sum()
    values = [value for parts in kept.values() for value in parts]
    found = iter(torch.autograd.grad(score, values, allow_unused=True))
    slopes = {
        site: [torch.zeros_like(value) if (slope := next(found)) is None else slope for value in parts]
        for site, parts in kept.items()
    }
    asked = [text for text in expressions(network) if text != "logits"]
    trace = gf.trace(network, *_given(this), *asked, target=this.targets, grad=metric, batch_size=3)
    some = 0
    for expression in asked:
        for value, site in zip(trace.grad.stack(expression), expressions(network)[expression], strict=True):
            parts = slopes[site]
            whole = parts[0] if len(parts) == 1 else torch.cat(parts, parts[0].ndim - 2)
            if whole.ndim == 4 and len(whole) == 1 < len(value):  # a bias that all texts share has one gradient of all
                continue
            torch.testing.assert_close(value, masked(whole, site, this), atol=1e-5, rtol=1e-4, msg=site)
            some += int(value.abs().sum() > 0)
    assert some > len(asked) // 2
    assert untouched(network) and all(parameter.grad is None for parameter in network.parameters())


def _given(this: Case) -> tuple[list[list[int]]]:
    return (this.rows,)


# --- Shapes -----------------------------------------------------------------------------------------------------------


def test_axes_of_one_position_are_left_out() -> None:
    this = case("rotary, shared keys")
    asked = {
        "residual_post[1] @ end": (4, 16),
        "residual_post[1] @ -1": (4, 16),
        "residual_post[1] @ 0:2": (4, 2, 16),
        "residual_post[1] @ 0 + end": (4, 2, 16),
        "residual_post[1] @ 0 + 0": (4, 1, 16),
        "residual_post[1]": (4, 7, 16),
        "self_attention.mixed[1] @ end": (4, 4, 4),
        "self_attention.key[1] @ 0:2": (4, 2, 2, 4),
        "self_attention.mixed[1].head[2] @ end": (4, 1, 4),
        "self_attention.pattern[1] @ end<-0:2": (4, 4, 2),
        "self_attention.pattern[1] @ 0:2<-0": (4, 4, 2),
        "self_attention.pattern[1] @ end<-0": (4, 4),
        "self_attention.pattern[1] @ end": (4, 4, 7),
        "norm_1.scale[0] @ end": (4, 1),
    }
    trace = gf.trace(this.network, this.rows, *asked)
    assert {text: tuple(trace[text].shape) for text in asked} == asked
    assert trace.expressions == list(asked)
    assert tuple(gf.trace(this.network, this.rows, "residual_pre[*] @ end").stack("residual_pre[*] @ end").shape) == (
        3,
        4,
        16,
    )


def test_parts_of_what_was_kept_can_be_asked_for() -> None:
    this = case("learned positions")
    trace = gf.trace(this.network, this.rows, "self_attention.mixed[*].head[1:4] @ end", "residual_post[1:] @ 0:2")
    values, _ = recorded(this.network, this.batch)
    last = torch.tensor(this.lengths) - 1
    wanted = values["self_attention.mixed[2]"][torch.arange(4), :, last]
    assert torch.equal(trace["self_attention.mixed[2].head[3,1] @ end"], wanted[:, [3, 1]])
    assert torch.equal(trace["self_attention.mixed[-1].head[2] @ end"], wanted[:, [2]])
    assert torch.equal(trace["residual_post[2] @ 0:2"], values["residual_post[2]"][:, :2])
    assert trace.stack("residual_post[2,1] @ 0:2").shape == (2, 4, 2, 16)
    for missing in ("self_attention.mixed[0].head[0] @ end", "self_attention.mixed[0] @ end", "residual_post[0] @ 0:2",
                    "residual_post[1] @ 0"):  # fmt: skip
        with pytest.raises(InputError, match="was not kept; this trace holds 'self_attention.mixed"):
            trace[missing]
    with pytest.raises(InputError, match="names 2 layers: take one, or stack"):
        trace["residual_post[1:] @ 0:2"]
    with pytest.raises(InputError, match="no site 'residual_pots'.*residual_post"):
        trace["residual_pots[1] @ 0:2"]


def test_spans_of_unequal_widths_are_padded_with_zeros() -> None:
    model = writer()
    facts = [
        gf.Fact("1", "blue shirt", "r", "a man in blue shirt", ("x",)),
        gf.Fact("2", "man", "r", "the man", ("x",)),
    ]
    trace = gf.trace(model, gf.Facts(tuple(facts)), "residual_post[1] @ subject", "residual_post[1] @ *")
    inputs, mask = trace.inputs, trace.mask("residual_post[1] @ subject")
    assert mask.sum(1).tolist() == inputs.places("subject", "text").counts.tolist() and not mask.all()
    value, whole = trace["residual_post[1] @ subject"], trace["residual_post[1] @ *"]
    for row in range(2):
        places = inputs.places("subject", "text").index[row][mask[row]]
        assert torch.equal(value[row, : len(places)], whole[row, places])
        assert not value[row, len(places) :].any()


def test_values_stay_as_they_were() -> None:
    """They are copies, apart from the network and its gradients."""
    this = case("post-norm")
    trace = gf.trace(this.network, this.rows, "embedding.token", "residual_post[*]")
    before = {key: value.clone() for key, value in trace.values.items()}
    assert not any(value.requires_grad for value in trace.values.values())
    gf.trace(this.network, this.rows[::-1], "embedding.token", "residual_post[*]")
    assert all(torch.equal(trace.values[key], value) for key, value in before.items())


# --- Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expressions", "settings", "message"),
    [
        ((), {}, r"say what to keep, for example 'residual_post\[\*\] @ end'"),
        (("residual_pots[0]",), {}, "no site 'residual_pots'"),
        (("residual_post[0] @ subject",), {}, "no span 'subject'"),
        (("residual_post[0] @ 5",), {}, "text 1 has 5 tokens, none of them is at 5"),
        (("residual_post[0] @ generated",), {}, r"nothing was written.*'generate'"),
        (("residual_post[0]",), {"edits": ["x"]}, "'x' is no edit: make one by patch"),
        (("residual_post[0]",), {"grad": "logits"}, "'logits' is no metric.*logit"),
        (("residual_post[0]",), {"grad": "logit"}, "only facts bring their own"),
        (("residual_post[0]",), {"generate": 2}, "for a Model that is a decoder"),
        (("residual_post[0]",), {"batch_size": 0}, "'batch_size' must be at least 1"),
        (("residual_post[0]",), {"generate": -1}, "'generate' must be at least 0"),
    ],
)  # fmt: skip
def test_errors(expressions: tuple[str, ...], settings: dict[str, Any], message: str) -> None:
    this = case("learned positions")
    with pytest.raises(InputError, match=message):
        gf.trace(this.network, this.rows, *expressions, **settings)


def test_a_site_that_nothing_passes_is_an_error() -> None:
    """A network whose words are embedded elsewhere never comes by the site; that is said, not left empty."""
    this = case("learned positions")
    network = planned(this.network, {})
    network.stack.embedding.forward = lambda ids, *_: torch.ones(*ids.shape, 16)  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"nothing passed the site 'embedding.token'"):
        gf.trace(network, this.rows, "embedding.token")


# --- Going on ---------------------------------------------------------------------------------------------------------


def test_what_was_written_is_traced_as_one_forward_pass() -> None:
    model, prompts = writer(), ["a man in", "the bike on the road"]
    written = [model.generate(prompt, max_new_tokens=4, ignore_eos=True).ids for prompt in prompts]
    asked = ["residual_post[*] @ *", "logits @ generated", "logits @ end", "residual_post[1] @ generated.last"]
    trace = gf.trace(model, prompts, *asked, generate=4)
    rows = [[*prepare(model, prompt).text.ids[0].tolist(), *ids] for prompt, ids in zip(prompts, written, strict=True)]
    expected, logits = recorded(model.network, (padded(rows),))
    lengths = torch.tensor([len(row) for row in rows])
    assert trace.inputs.text.lengths.tolist() == lengths.tolist()
    assert torch.equal(trace.stack("residual_post[*] @ *")[1], torch.where(
        real(lengths.tolist())[..., None], expected["residual_post[1]"], 0.0))  # fmt: skip
    each = torch.arange(2)
    assert torch.equal(trace["logits @ end"], logits[each, lengths - 5])
    assert trace["logits @ end"].argmax(-1).tolist() == [ids[0] for ids in written]
    assert torch.equal(trace["logits @ generated"][:, -1], logits[each, lengths - 1])
    assert torch.equal(trace["residual_post[1] @ generated.last"], expected["residual_post[1]"][each, lengths - 1])


def test_generating_knows_spans_of_the_prompt() -> None:
    model = writer()
    fact = gf.Fact("1", "blue shirt", "r", "a man in blue shirt on", ("x",))
    trace = gf.trace(model, fact, "residual_post[0] @ subject.last", "residual_post[0] @ prompt", generate=3)
    plain = gf.trace(model, fact, "residual_post[0] @ subject.last", "residual_post[0] @ *")
    torch.testing.assert_close(trace["residual_post[0] @ subject.last"], plain["residual_post[0] @ subject.last"])
    torch.testing.assert_close(trace["residual_post[0] @ prompt"], plain["residual_post[0] @ *"])


# --- Side by side -----------------------------------------------------------------------------------------------------


def test_threads_trace_and_generate_on_one_model_at_once() -> None:
    model, prompts = writer(), ["a man in blue", "the road , while", "two women eat the bike"]
    alone = [gf.trace(model, prompt, "residual_post[*] @ end", "self_attention.pattern[0] @ end") for prompt in prompts]
    zeroed = gf.trace(model, prompts[0], "logits @ end", edits=[gf.ablate("feed_forward.output[*]", to="zero")])
    said = [model.generate(prompt, max_new_tokens=6).ids for prompt in prompts]

    def work(number: int) -> None:
        which = number % 3
        if number % 2:
            found = gf.trace(model, prompts[which], *alone[which].expressions)
            for key, value in alone[which].values.items():
                assert torch.equal(found.values[key], value)
            edited = gf.trace(model, prompts[0], "logits @ end", edits=[gf.ablate("feed_forward.output[*]", to="zero")])
            assert torch.equal(edited["logits @ end"], zeroed["logits @ end"])
        else:
            assert model.generate(prompts[which], max_new_tokens=6).ids == said[which]

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, number) for number in range(24)]:
            done.result()
    assert untouched(model.network)


# --- Quantised --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["4 bits", "8 bits", "int8"])
def test_quantised_networks_are_traced_as_they_run(kind: str) -> None:
    torch.manual_seed(0)
    config = gf.Config(
        40, d_model=64, n_heads=4, d_ff=96, n_encoder_layers=0, n_decoder_layers=2, positions=gf.Rotary(), n_kv_heads=2,
        norm="rms", gated=True, activation="silu", norm_first=True, max_length=64, dropout=0.0, init_std=0.2,
    )  # fmt: skip
    network = gf.Decoder(config).eval()
    small = int8(network) if kind == "int8" else quantized(network, 4 if kind == "4 bits" else 8)
    rows = case("learned positions").rows
    asked = expressions(small)
    assert set(asked) == set(expressions(network))
    trace = gf.trace(small, rows, *asked)
    expected, _ = recorded(small, (padded(rows),))
    this = Case(small, rows, None)
    for expression, names in asked.items():
        for value, site in zip(trace.stack(expression), names, strict=True):
            assert torch.equal(value, masked(expected[site], site, this)), site
    with torch.no_grad():
        plain = small(padded(rows)).logits
    fused = gf.trace(small, rows, *[text for text in asked if not legible(text)])
    assert torch.equal(fused["logits"], masked(plain, "logits", this))
    assert (trace["logits"] - gf.trace(network, rows, "logits")["logits"]).abs().max() > 1e-4
    heads, whole = trace.stack("self_attention.head_output[*]"), trace.stack("self_attention.output[*]")
    bias = torch.stack([block.self_attention.to_output.bias for block in small.stack.blocks])[:, None, None]
    summed = heads.sum(2) + torch.where(real(this.lengths)[None, ..., None], bias, 0.0)
    assert (summed - whole).norm() < 0.03 * whole.norm()  # the product rounds its input
    edited = gf.trace(small, rows, "logits", edits=[gf.ablate("self_attention.head_output[0].head[1]", to="zero")])
    assert (edited["logits"] - fused["logits"]).abs().max() > 1e-3


# --- Texts ------------------------------------------------------------------------------------------------------------


def test_texts_of_a_translator() -> None:
    model = model_of(Tokenizer.train([TEXT], "word", min_frequency=1), TextPipeline())
    sources, targets = ["a man rides the bike", "two women eat"], ["dog runs", "a bike on road"]
    asked = ["encoder.residual_post[0] @ end", "decoder.cross_attention.pattern[1] @ end<-end", "logits @ end"]
    trace = gf.trace(model, sources, *asked, target=targets)
    with torch.no_grad():  # as a trace runs: few rows are multiplied another way where gradients are wanted
        logits = model(sources, targets).logits
    assert torch.equal(trace["logits @ end"], logits[torch.arange(2), torch.tensor([2, 4])])
    assert trace["decoder.cross_attention.pattern[1] @ end<-end"].shape == (2, 2)
    assert trace["encoder.residual_post[0] @ end"].shape == (2, 16)


@pytest.mark.parametrize("name", DECODERS)
def test_models_are_called_with_the_same_texts(name: str) -> None:
    """`trace` reads ids of any form as the network itself does."""
    this = case(name)
    one = torch.tensor(this.rows[1])
    expected = gf.trace(this.network, [this.rows[1]], "residual_post[2]")["residual_post[2]"]
    for given in (this.rows[1], one, one[None]):
        assert torch.equal(gf.trace(this.network, given, "residual_post[2]")["residual_post[2]"], expected)
