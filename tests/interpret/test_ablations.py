"""Ablations against plain computations: zeros, means counted from the end, and what another text has."""

from __future__ import annotations

import pytest
import torch
from interpret.all_families import case, padded, recorded
from interpret.editing import by_hand, logits_of, traced
from torch import Tensor

import glassformer as gf
from glassformer.errors import InputError
from glassformer.layers.sites import sites


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
