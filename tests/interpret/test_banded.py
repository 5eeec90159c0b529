"""Networks with banded layers are looked into as any: traces, cuts and sweeps keep to the band."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from interpret.all_families import GPT
from torch import Tensor

import glassformer as gf
from glassformer.layers.masks import band_mask
from glassformer.models.config import Banded
from glassformer.models.decoder import Decoder

WIDTH = 3
ROWS = [[5, 9, 4, 17, 30], [8, 6, 21, 33, 12, 7, 19], [11, 25, 14]]
OTHERS = [[(i * 7) % 35 + 4 for i in row] for row in ROWS]


def network(every: int = 2) -> Decoder:
    torch.manual_seed(3)
    return Decoder(replace(GPT, attention=Banded(WIDTH, every))).eval()


def score(logits: Tensor, rows: Any) -> Tensor:
    return logits @ torch.linspace(-1, 1, logits.shape[-1]) + 0.0 * rows


def end_score(model: Decoder, row: list[int], edits: list[Any]) -> float:
    logits = gf.trace(model, [row], "logits", edits=edits)["logits"]
    return float(score(logits if logits.ndim == 2 else logits[:, -1], torch.tensor([0]))[0])


def test_patterns_are_bands_in_banded_layers() -> None:
    trace = gf.trace(network(), [ROWS[1]], "self_attention.pattern[0:3]")
    seen = [trace[f"self_attention.pattern[{layer}]"][0] > 0 for layer in range(3)]
    assert torch.equal(seen[1], band_mask(7, 7, WIDTH).expand(4, 7, 7))
    assert torch.equal(seen[0], band_mask(7, 7, 7).expand(4, 7, 7)) and torch.equal(seen[0], seen[2])


def test_a_cut_outside_of_the_band_changes_nothing() -> None:
    model = network(every=1)
    plain = end_score(model, ROWS[1], [])
    near, far = (gf.knockout("self_attention[0]", dst="end", src=place) for place in ("5", "1"))
    assert end_score(model, ROWS[1], [far]) == pytest.approx(plain, abs=1e-5)
    assert end_score(model, ROWS[1], [near]) != pytest.approx(plain, abs=1e-3)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("over", ["residual_post[*] @ *", "self_attention.mixed[*].head[1] @ *"])
def test_sweeps_are_as_if_each_place_were_run_alone(over: str, every: int) -> None:
    model = network(every)
    found = gf.sweep(model, ROWS, gf.patch, over=over, metric=score, source=OTHERS, tokens=11)
    moved = 0.0
    for row, text in enumerate(ROWS):
        for layer in range(3):
            site = over.partition(" @ ")[0].replace("*", str(layer))
            for slot, real in enumerate(found.places.real[row].tolist()):
                if real:
                    place = int(found.places.index[row, slot])
                    value = gf.trace(model, [OTHERS[row]], f"{site} @ {place}")[f"{site} @ {place}"]
                    wanted = end_score(model, text, [gf.patch(f"{site} @ {place}", value)])
                    assert float(found.values[row, layer, 0, slot]) == pytest.approx(wanted, abs=2e-4)
                    moved = max(moved, abs(wanted - end_score(model, text, [])))
    assert moved > 1e-2
