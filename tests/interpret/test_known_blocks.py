"""Blocks that are known are not run again, and what follows them gives the same."""

import copy

import pytest
import torch
from interpret.all_families import case
from torch import nn

from glassformer.interpret.inputs import prepare
from glassformer.interpret.known_blocks import KnownBlocks
from glassformer.interpret.running import Plan, run

NOTHING = Plan({}, {}, {})


@pytest.mark.parametrize(
    ("family", "site", "known"),
    [
        ("word head", "residual_post[1]", ["stack.blocks.0"]),
        ("classifier", "self_attention.mixed[1]", ["stack.blocks.0"]),
        ("encoder-decoder", "encoder.residual_post[1]", ["encoder.blocks.0"]),
        ("encoder-decoder", "decoder.residual_mid[1]", ["encoder.blocks.0", "encoder.blocks.1", "decoder.blocks.0"]),
    ],
)
def test_known_blocks_are_not_run_again(family: str, site: str, known: list[str]) -> None:
    this = case(family, (5, 7, 3), (4, 2, 6))
    network = copy.deepcopy(this.network)
    inputs = prepare(network, this.rows, this.targets)
    rows = torch.tensor([1, 0])
    kept = KnownBlocks(network, inputs, torch.arange(3))
    wanted = run(network, inputs, rows, NOTHING, ends=True)
    torch.testing.assert_close(kept.plain[rows], wanted)
    for path in known:
        spoil(network.get_submodule(path))
    assert run(network, inputs, rows, NOTHING, ends=True).isnan().any()
    found = run(kept.before(site, 1, rows), inputs, rows, NOTHING, ends=True)
    torch.testing.assert_close(found, wanted)
    spoil(network.get_submodule(known[-1][:-1] + str(int(known[-1][-1]) + 1)))
    assert run(kept.before(site, 1, rows), inputs, rows, NOTHING, ends=True).isnan().any()


def spoil(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(torch.nan)
