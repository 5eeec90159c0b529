"""Plans through torch.compile: the same numbers, nothing silently left out, and a bounded number of compiled copies."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from interpret.all_families import CONFIGS, case
from torch import Tensor, nn

import glassformer as gf
from glassformer.errors import InputError
from glassformer.interpret import compiled
from glassformer.layers.sites import Tap, share

needs_compiler = pytest.mark.skipif(
    shutil.which("c++") is None and shutil.which("g++") is None, reason="torch.compile needs a C++ compiler"
)
ROWS = [[5, 6, 7, 8], [9, 10, 11, 12]]
OTHERS = [[15, 16, 17, 18], [19, 20, 21, 22]]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing compiled before counts, or is left."""
    torch._dynamo.reset()
    compiled._cache.clear()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()
    compiled._cache.clear()


@pytest.fixture
def eager_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that Dynamo does, without generating code."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **settings: compile_(*args, backend="eager", **settings))


@cache
def network_of() -> Any:
    torch.manual_seed(0)
    return gf.Decoder(replace(CONFIGS["rotary, shared keys"], n_decoder_layers=2)).eval()


def graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def plans(network: Any) -> list[tuple[list[str], list[Any]]]:
    """20 plans of different structures: what is kept, and the edits."""
    source = gf.trace(network, OTHERS, "residual_post[0] @ end", "self_attention.mixed[1] @ *")
    vector = torch.linspace(-1, 1, 16)
    edits: list[list[Any]] = [
        [],
        [gf.ablate("feed_forward.output[0] @ end", to="zero")],
        [gf.ablate("feed_forward.output[1] @ end", to="zero")],
        [gf.ablate("feed_forward.output[0] @ 0:2", to="mean")],
        [gf.ablate("self_attention.output[0] @ *", to="resample")],
        [gf.ablate("self_attention.mixed[0].head[1] @ *", to="zero")],
        [gf.ablate("self_attention.mixed[0].head[2:4] @ *", to="mean")],
        [gf.patch("residual_post[0] @ end", source)],
        [gf.patch("self_attention.mixed[1] @ *", source)],
        [gf.steer("residual_post[1] @ *", vector)],
        [gf.steer("residual_mid[*] @ 1", vector, 0.5)],
        [gf.apply("residual_pre[1] @ end", torch.tanh)],
        [gf.apply("self_attention.query[0] @ *", torch.sin)],
        [gf.knockout("self_attention[0]", dst="end", src="0:2")],
        [gf.knockout("self_attention[*].head[0]", dst="*", src="0")],
        [gf.knockout(f"self_attention[1]{head}", dst=dst, src="0") for head, dst in (("", "1"), (".head[2]", "end"))],
        [gf.ablate("self_attention.pattern[1] @ end<-0", to="zero")],
        [gf.ablate("norm_1.output[1] @ end", to="zero"), gf.steer("residual_post[1] @ end", vector)],
        [gf.ablate("logits @ 0", to="zero"), gf.ablate("self_attention.head_output[1].head[3]", to="zero")],
        [gf.ablate("embedding.token @ 1", to="zero"), gf.knockout("self_attention[1]", dst="end", src="1:3")],
    ]  # fmt: skip
    kept = ["logits", "residual_post[*] @ end", "self_attention.pattern[0] @ end", "feed_forward.hidden[1] @ 0:2"]
    return [([kept[number % 4], "residual_post[-1] @ *"], each) for number, each in enumerate(edits)]


def check_same(network: Any, given: Any, kept: list[str], edits: list[Any], plain: Tensor) -> None:
    expected = gf.trace(network, given, *kept, edits=edits)
    found = gf.trace(network, given, *kept, edits=edits, compiled=True)
    assert found.values.keys() == expected.values.keys()
    for key, value in expected.values.items():
        torch.testing.assert_close(found.values[key], value, atol=1e-5, rtol=1e-5)
    if edits and "logits" not in str(edits):
        assert (found["residual_post[-1] @ *"] - plain).abs().max() > 1e-4, "the edit did nothing"


@pytest.mark.slow
def test_twenty_plans_give_the_same_numbers(eager_backend: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than Dynamo compiles one function for before it gives up; no more copies are kept than may be."""
    monkeypatch.setattr(compiled, "KEPT", 6)
    network = network_of()
    plain = gf.trace(network, ROWS, "residual_post[-1] @ *")["residual_post[-1] @ *"]
    for kept, edits in plans(network):
        check_same(network, ROWS, kept, edits, plain)
        assert 0 < len(compiled._cache[network]) <= 6
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] >= 20 and not counters["graph_break"]
    assert len(compiled._cache) == 1


@pytest.mark.slow
def test_plans_give_the_same_numbers(eager_backend: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few of them; copies that were not used for longest go first."""
    monkeypatch.setattr(compiled, "KEPT", 2)
    network = network_of()
    plain = gf.trace(network, ROWS, "residual_post[-1] @ *")["residual_post[-1] @ *"]
    for number in (7, 13, 18):
        check_same(network, ROWS, *plans(network)[number], plain)
    assert len(compiled._cache[network]) == 2 and graphs() == 3
    check_same(network, ROWS, *plans(network)[18], plain)
    assert graphs() == 3


@pytest.mark.slow
@needs_compiler
def test_generated_code_gives_the_same_numbers() -> None:
    network = network_of()
    plain = gf.trace(network, ROWS, "residual_post[-1] @ *")["residual_post[-1] @ *"]
    edits = [
        gf.ablate("feed_forward.output[1] @ 0:2", to="mean"),
        gf.knockout("self_attention[0]", dst="end", src="0:2"),
    ]
    check_same(network, ROWS, ["logits", "residual_post[-1] @ *"], edits, plain)


def test_other_texts_and_numbers_do_not_compile_again(eager_backend: None) -> None:
    network = network_of()

    def run(given: Any, place: str, scale: float, reference: Any = None) -> None:
        edits = [
            gf.steer(f"residual_post[0] @ {place}", torch.linspace(-scale, 1, 16), scale),
            gf.ablate("feed_forward.output[1] @ end", to="mean", reference=reference),
            gf.knockout("self_attention[*].head[1]", dst="end", src=place),
        ]
        expected = gf.trace(network, given, "residual_post[*] @ end", edits=edits)
        found = gf.trace(network, given, "residual_post[*] @ end", edits=edits, compiled=True)
        torch.testing.assert_close(found.stack("residual_post[*] @ end"), expected.stack("residual_post[*] @ end"))

    run(ROWS, "0", 1.0)
    once = graphs()
    assert once == 1
    for given, place, scale, reference in (
        (OTHERS, "0", 2.0, None),
        (ROWS, "1", -1.0, ROWS),
        (OTHERS, "2", 0.1, [[3, 4]]),
    ):
        run(given, place, scale, reference)
    assert graphs() == once and len(compiled._cache[network]) == 1


@pytest.mark.slow
def test_many_functions_are_compiled_each_for_itself(eager_backend: None) -> None:
    """Functions that differ are other plans, however many there are."""
    network = network_of()
    for number in range(10):

        def function(value: Tensor, number: int = number) -> Tensor:
            return value * (number + 2)

        site = "residual_post[1] @ end"
        found, expected = (
            gf.trace(network, ROWS, site, edits=[gf.apply(site, function)], compiled=way)[site] for way in (True, False)
        )
        torch.testing.assert_close(found, expected)


def test_gradients_are_not_compiled() -> None:
    """Autograd's graph of a compiled one gives zeros for what lies inside: better none."""
    with pytest.raises(InputError, match="leave out 'compiled' or 'grad'"):
        gf.trace(network_of(), ROWS, "residual_post[0]", grad=lambda logits, rows: logits[:, 0], compiled=True)


@pytest.mark.parametrize("name", ["classifier", "word head", "encoder-decoder"])
@pytest.mark.slow
def test_other_families(name: str, eager_backend: None) -> None:
    this = case(name, (5, 7, 3), (4, 2, 6))
    site = "decoder.residual_post[*]" if name == "encoder-decoder" else "residual_post[*]"
    edits = [gf.ablate(site.replace("*", "0") + " @ end", to="mean")]
    for asked in ((site,), (site, "logits")):
        expected, found = (
            gf.trace(this.network, this.rows, *asked, target=this.targets, edits=edits, compiled=way)
            for way in (False, True)
        )
        for key, value in expected.values.items():
            torch.testing.assert_close(found.values[key], value, atol=1e-5, rtol=1e-4)


def test_networks_that_are_gone_leave_nothing(eager_backend: None) -> None:
    network = share(network_of())
    gf.trace(network, ROWS, "residual_post[0] @ end", compiled=True)
    assert len(compiled._cache) == 1
    del network
    assert len(compiled._cache) == 0


def test_errors_are_raised(eager_backend: None) -> None:
    """Dynamo wraps them; what they say is there."""
    with pytest.raises(Exception, match="16 numbers at a position, got 15"):
        gf.trace(network_of(), ROWS, "logits", edits=[gf.patch("residual_post[0]", torch.zeros(15))], compiled=True)


# --- No site costs nothing --------------------------------------------------------------------------------------------


def operations(network: nn.Module, *batch: Tensor) -> list[list[str]]:
    """What the compiled graphs of a network compute, operation by operation."""
    found: list[list[str]] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        found.append(
            [f"{node.op} {node.target}" for node in graph.graph.nodes if node.op not in ("placeholder", "output")]
        )
        return graph

    torch._dynamo.reset()
    with torch.no_grad():
        torch.compile(network, backend=backend, fullgraph=True)(*batch)
    return found


class Bare(nn.Module):
    """What stands where a tap was: nothing. It looks like a tap at rest."""

    active = False
    plan = None

    def forward(self, value: Tensor) -> Tensor:
        return value


@pytest.mark.parametrize("name", ["rotary, shared keys", "classifier"])
def test_a_network_without_a_plan_is_the_same_graph_as_one_without_taps(name: str) -> None:
    this = case(name)
    bare = share(this.network)
    for module in list(bare.modules()):
        for child, value in module.named_children():
            if isinstance(value, Tap):
                setattr(module, child, Bare())
    assert not any(isinstance(module, Tap) for module in bare.modules())
    assert any(isinstance(module, Tap) for module in this.network.modules())
    expected = operations(bare, *this.batch)
    found = operations(this.network, *this.batch)
    assert len(expected) == 1 and len(expected[0]) > 20
    assert found == expected
