"""The engine and the beams write the same on a GPU as on the CPU."""

from __future__ import annotations

import copy
from types import ModuleType

import contracts
import pytest
import torch
from generation.small_decoders import END, byte_level, decoder
from generation.test_engine import KINDS, request
from models import test_encoder_decoder, test_recurrent

from glassformer.generation.decoding import beam_search
from glassformer.generation.engine import Engine, generate


@pytest.mark.parametrize("rotary", [False, True])
def test_an_engine_with_rows_that_join_and_leave(rotary: bool, device: torch.device) -> None:
    asked = [request(3 + 5 * i, i, i % len(KINDS), 4 + 3 * i) for i in range(6)]
    results = []
    for place in ("cpu", device):
        network = copy.deepcopy(decoder(rotary)).to(place)
        results.append(generate(Engine(network, byte_level(), eos_ids=[END], rows=3, chunk=7, device=place), asked))
    for here, there in zip(*results, strict=True):
        assert there.ids == here.ids and there.logprobs == pytest.approx(here.logprobs, abs=1e-3)


@pytest.mark.parametrize("module", [test_encoder_decoder, test_recurrent])
@pytest.mark.parametrize("beam", [1, 3])
def test_searches(module: ModuleType, beam: int, device: torch.device) -> None:
    network = module.network_of(module.SMALL).eval()
    source = contracts.random_ids(4, 7, network.config.vocab_size)
    here = beam_search(network, source, beam=beam, n_best=beam, max_length=12)
    there = beam_search(network.to(device), source.to(device), beam=beam, n_best=beam, max_length=12)
    for row, other in zip(here, there, strict=True):
        assert [list(one.ids) for one in other] == [list(one.ids) for one in row]
        assert [one.score for one in other] == pytest.approx([one.score for one in row], abs=1e-4)
