"""Blocks dealt to stages: the same network, the same steps, and one sentence where it cannot be."""

from __future__ import annotations

import copy
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cut_networks import BERT, DECODERS
from hypothesis import given, settings
from hypothesis import strategies as st
from test_parallel import BRIEF, LONG, assert_like, run_jobs
from tiny_runs import metrics
from tiny_tasks import recipe_of
from torch import Tensor, nn

from glassformer.checkpoints.native import load, read_weights
from glassformer.errors import InputError
from glassformer.models.config import Classification, Config, RecurrentConfig
from glassformer.models.decoder import Decoder
from glassformer.models.families import network_class
from glassformer.tasks.objectives import IGNORE, causal_lm, masked_lm
from glassformer.text.examples import MaskedBatch, TextBatch
from glassformer.training.parallel import check_layout, check_network
from glassformer.training.parallel.dealing import Borrowed
from glassformer.training.parallel.pieces import PIECES, pieces_of
from glassformer.training.parallel.pipelining import Stage
from glassformer.training.parallel.stages import Arriving, cut, stages_of
from glassformer.training.recipes import Parallel, read_recipe

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
KINDS = {**{name: replace(config, n_decoder_layers=4) for name, config in DECODERS.items()}}
KINDS |= {"bert": replace(BERT, n_encoder_layers=4), "untied-bert": replace(BERT, n_encoder_layers=4, tie_head=False)}
PAD = 0


def texts(rows: int, length: int, packed: bool = True, full: bool = False) -> TextBatch:
    """Rows of ids, of several documents where `packed`; where not `full`, a third predicts nothing."""
    ids, target = torch.randint(3, 37, (rows, length)), torch.randint(3, 37, (rows, length))
    if not full:
        target[torch.rand(rows, length) < 0.3] = IGNORE
    documents = (torch.rand(rows, length) < 0.2).cumsum(1) if packed else None
    return TextBatch(ids, target, documents, rows * length, full)


def hidden_texts(rows: int, length: int) -> MaskedBatch:
    """Rows of ids with padding, of which a few are to be predicted."""
    ids = torch.randint(3, 37, (rows, length))
    ids[0, length // 2 :] = PAD
    places = torch.randperm(rows * length)[: max(1, rows * length // 4)].sort().values
    return MaskedBatch(ids, places, torch.randint(3, 37, (len(places),)), rows * length)


def network_of(kind: str) -> nn.Module:
    torch.manual_seed(3)
    config = replace(KINDS[kind], pad_id=PAD)
    return network_class(config)(config)


def through_stages(network: nn.Module, batches: list[Any], stages: int) -> tuple[Tensor, int, dict[str, Tensor]]:
    """Loss, count and gradients by name, from stages that run one after another in this process."""
    objective = causal_lm if isinstance(network, Decoder) else masked_lm
    pieces = pieces_of(batches, stages, PAD)
    parts = []
    for index in range(stages):
        own = copy.deepcopy(network)
        cut(own, index, stages)
        parts.append(Stage(own, objective, index, stages))
    total, gradients = torch.zeros(()), {}
    for number in range(len(pieces.batches)):
        states, passed = torch.zeros(1), []
        for part in parts:
            part.pieces = pieces.batches
            before = states.detach().requires_grad_(part.index > 0)
            states = part(before, torch.tensor([number]))
            passed.append((before, states))
        total = total + states.detach()
        gradient: Tensor | None = None
        for before, after in reversed(passed):
            after.backward(gradient)
            gradient = before.grad
    for part in parts:
        for name, parameter in part.network.named_parameters():
            assert parameter.grad is not None, name
            gradients[name] = gradients.get(name, 0) + parameter.grad
    return total, sum(loss.count for loss in parts[-1].losses), gradients


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stages", [2, 4])
def test_stages_one_after_another_are_the_whole_network(kind: str, stages: int) -> None:
    """Loss and gradients of batches of two shapes; a shared matrix has the sum of both stages' gradients."""
    network = network_of(kind)
    decoder = isinstance(network, Decoder)
    batches = [texts(5, 12), texts(3, 7, packed=False, full=True)] if decoder else [hidden_texts(5, 9)]
    losses = [(causal_lm if decoder else masked_lm)(network, batch) for batch in batches]
    sum(loss.total for loss in losses).backward()
    total, count, gradients = through_stages(network, batches, stages)
    assert count == sum(loss.count for loss in losses)
    assert torch.allclose(total, sum(loss.total for loss in losses).detach(), rtol=1e-5)
    wanted = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert gradients.keys() == wanted.keys()
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, wanted[name], rtol=1e-4, atol=1e-6 * largest), name


@pytest.mark.parametrize("kind", ["learned", "llama", "relative", "bert"])
def test_every_parameter_is_where_it_is_said_to_be(kind: str) -> None:
    whole = network_of(kind)
    owners = stages_of(whole, 4)
    assert owners.keys() == dict(whole.named_parameters()).keys()
    for stage in range(4):
        own = copy.deepcopy(whole)
        cut(own, stage, 4)
        assert list(dict(own.named_parameters())) == [name for name, where in owners.items() if stage in where]
        assert isinstance(own.stack.embedding, Arriving) == (stage > 0)
    shared = {name for name, where in owners.items() if len(where) > 1}
    tied = {"stack.embedding.token.weight"} if whole.config.tie_head else set()
    assert shared == tied | ({"stack.relative.weight"} if kind == "relative" else set())


# --- pieces -----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 11), st.integers(1, 9), st.booleans()), min_size=1, max_size=3),
    st.integers(2, 4),
    st.booleans(),
    st.integers(0, 99),
)
def test_pieces_predict_what_the_batches_do(
    shapes: list[tuple[int, int, bool]], stages: int, masked: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    batches: list[Any] = []
    for rows, length, borrowed in shapes:
        batch = hidden_texts(rows, length) if masked else texts(rows, length, packed=seed % 2 == 0, full=seed % 3 == 0)
        batches.append(Borrowed(batch) if borrowed else batch)
    pieces = pieces_of(batches, stages, PAD)
    assert len(pieces.batches) >= stages
    assert all(piece.ids.shape == (pieces.rows, pieces.length) for piece in pieces.batches)
    most = max(rows for rows, _, _ in shapes)
    assert len(pieces.batches) <= len(shapes) * max(stages, min(most, PIECES * stages))
    found = [pair for piece in pieces.batches for pair in predicted(piece)]
    wanted = [pair for batch in batches if not isinstance(batch, Borrowed) for pair in predicted(batch)]
    assert sorted(found) == sorted(wanted)


def predicted(batch: Any) -> list[tuple[Any, ...]]:
    """What is predicted: the ids of its row up to padding, its place in the row, and the target."""
    if isinstance(batch, MaskedBatch):
        places = [divmod(place, batch.ids.shape[1]) for place in batch.places.tolist()]
        targets = batch.target.tolist()
    else:
        places = [(row, place) for row, place in (batch.target != IGNORE).nonzero().tolist()]
        targets = batch.target[batch.target != IGNORE].tolist()
        assert not batch.full or len(places) == batch.ids.numel()
    rows = [tuple(x for x in row if x != PAD) for row in batch.ids.tolist()]
    return [(rows[row], place, target) for (row, place), target in zip(places, targets, strict=True)]


def test_padding_is_a_document_of_its_own() -> None:
    batch = replace(texts(2, 4), documents=torch.tensor([[0, 0, 1, 1], [0, 1, 2, 3]]))
    pieces = pieces_of([batch, texts(2, 6)], 2, PAD)
    assert [piece.documents.tolist() for piece in pieces.batches[:2]] == [[[0, 0, 1, 1, 4, 4]], [[0, 1, 2, 3, 4, 4]]]


# --- layouts ----------------------------------------------------------------------------------------------------------

PAIR = Config(vocab_size=11, d_model=8, n_heads=2, d_ff=8, n_encoder_layers=2, n_decoder_layers=2)


@pytest.mark.parametrize(
    ("config", "stages", "message"),
    [
        (KINDS["learned"], 3, "must divide the network's 4 layers, got 3: it can be 1 or 2 or 4"),
        (PAIR, 2, "an encoder-decoder cannot be cut"),
        (RecurrentConfig(vocab_size=11, d_model=8), 2, "a recurrent network cannot be cut"),
        (replace(BERT, head=Classification(("a", "b"))), 2, "an encoder with another head than words cannot be cut"),
    ],
)
def test_a_network_that_cannot_be_cut_is_refused(config: Any, stages: int, message: str) -> None:
    network = network_class(config)(config)
    check_network(network, Parallel(data=stages))
    with pytest.raises(InputError, match=message):
        check_network(network, Parallel(pipeline=stages))


def test_a_stage_with_nothing_to_train_is_refused() -> None:
    network = network_of("llama")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not name.startswith("stack.blocks.1"))
    check_network(network, Parallel(pipeline=2))
    with pytest.raises(InputError, match="stage 1 of 4 has nothing to train, since 'finetune.freeze'"):
        check_network(network, Parallel(pipeline=4))


def test_layouts_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(InputError, match="'parallel.context' and 'parallel.pipeline' do not go together"):
        check_layout(recipe_of("characters", parallel_pipeline=2, parallel_context=2), 4)
    with pytest.raises(InputError, match="Muon needs whole matrices: use 'parallel.data' or 'parallel.pipeline' alone"):
        check_layout(recipe_of("documents", parallel_pipeline=2, parallel_data=2), 4)
    check_layout(recipe_of("documents", parallel_pipeline=2), 2)


# --- as slow as they are many -----------------------------------------------------------------------------------------

PIPELINE = {"parallel.pipeline": 2}
FOUR = {"model.n_decoder_layers": 4, "parallel.pipeline": 4}
LAYOUTS = [PIPELINE, {**PIPELINE, "parallel.data": 2}, {**PIPELINE, "parallel.shard": 2}]


def compare(folder: Path, task: str, changes: dict[str, Any], layouts: list[dict[str, Any]]) -> None:
    """Train a task on one process and in those layouts, and compare all losses and norms."""
    same = {**LONG, "training.optimizer": "adamw", **changes}
    jobs = [{"task": task, "run": "one", "processes": 1, "overrides": same}]
    for number, layout in enumerate(layouts):
        size = int(np.prod([value for key, value in layout.items() if key.startswith("parallel.")]))
        jobs.append({"task": task, "run": str(number), "processes": size, "overrides": {**same, **layout}})
    statuses, said = run_jobs(folder, jobs)
    assert not any(map(any, statuses)), said
    for number in range(len(layouts)):
        assert_like(folder / "one", folder / str(number))


def assert_same_weights(run: Path, other: Path) -> None:
    """All but the biases of keys, which a softmax does not see: their gradients are rounding alone."""
    one, two = read_weights(run), read_weights(other)
    assert one.keys() == two.keys()
    for name in one:
        assert "to_key.bias" in name or torch.allclose(one[name], two[name], atol=1e-4), name


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize(("tied", "layouts"), [(True, LAYOUTS), (False, LAYOUTS[:1])])
def test_layouts_have_the_losses_of_one_process(tmp_path: Path, tied: bool, layouts: list[dict[str, Any]]) -> None:
    compare(tmp_path, "characters", {"model.tie_head": tied}, layouts)
    assert_same_weights(tmp_path / "one", tmp_path / "0")
    assert load(tmp_path / "0").task == "generation"


@pytest.mark.slow
@pytest.mark.multiprocess
def test_four_stages_and_tensors_too(tmp_path: Path) -> None:
    changes = {**BRIEF, "model.n_decoder_layers": 4, "training.accumulate": 2}
    compare(tmp_path, "characters", changes, [FOUR, {**PIPELINE, "parallel.tensor": 2}])


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("documents", {"model.positions": "rotary", "training.recompute": True}),
        ("documents", {"training.optimizer": "muon", "model.attention": "banded"}),
        ("masked", {"training.accumulate": 2}),
        ("prompts", {}),
    ],
)
def test_tasks_have_the_losses_of_one_process(tmp_path: Path, task: str, changes: dict[str, Any]) -> None:
    """Packed documents, rotary positions, banded layers, recomputed blocks, texts of many lengths."""
    compare(tmp_path, task, {**BRIEF, **changes}, [PIPELINE])


@pytest.mark.slow
@pytest.mark.multiprocess
def test_stages_in_shares_are_as_near_in_bf16_as_bf16_is(tmp_path: Path) -> None:
    """Which casts what is gathered, where one process casts at every product."""
    same = {**LONG, "training.steps": 12, "training.optimizer": "adamw", "training.precision": "bf16"}
    layouts = [{}, {**PIPELINE, "parallel.shard": 2}, {**PIPELINE, "parallel.tensor": 2}]
    jobs = [
        {"task": "characters", "run": str(number), "processes": 4 if layout else 1, "overrides": {**same, **layout}}
        for number, layout in enumerate(layouts)
    ]
    statuses, said = run_jobs(tmp_path, jobs)
    assert not any(map(any, statuses)), said
    one, *others = [[x["loss"] for x in metrics(tmp_path / str(n)) if "loss" in x] for n in range(3)]
    for losses in others:
        assert losses == pytest.approx(one, abs=0.02)


@pytest.mark.slow
@pytest.mark.multiprocess
def test_killed_on_two_and_resumed_on_one_two_and_four_and_the_other_way_round(tmp_path: Path) -> None:
    whole = {"task": "characters", "run": "one", "processes": 1, "overrides": LONG}
    killed = {"task": "characters", "run": "cut", "processes": 2, "overrides": {**LONG, **PIPELINE}, "kill": 23}
    half = {"task": "characters", "run": "half", "processes": 1, "overrides": {**LONG, "training.steps": 25}}
    statuses, said = run_jobs(tmp_path, [whole, killed, half])
    assert statuses[0] == [0] and statuses[1][1] == -signal.SIGKILL and statuses[2] == [0], said
    assert statuses[1][0] == 1 and "did not answer in time" in said
    jobs: list[dict[str, Any]] = []
    for size in (1, 2, 4):
        shutil.copytree(tmp_path / "cut", tmp_path / f"on-{size}")
        jobs.append({"task": "characters", "run": f"on-{size}", "processes": size, "resume": True})
    steps = {**PIPELINE, "training.steps": 50}
    jobs.append({"task": "characters", "run": "half", "processes": 2, "resume": True, "overrides": steps})
    statuses, said = run_jobs(tmp_path, jobs)
    assert not any(map(any, statuses)), said
    layouts = {1: Parallel(), 2: Parallel(pipeline=2), 4: Parallel(pipeline=2, data=2)}
    for size, layout in layouts.items():
        assert_like(tmp_path / "one", tmp_path / f"on-{size}")
        assert read_recipe(tmp_path / f"on-{size}" / "recipe.toml").parallel == layout
    assert read_recipe(tmp_path / "half" / "recipe.toml").parallel == Parallel(pipeline=2)
    assert_same_weights(tmp_path / "one", tmp_path / "half")


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_stage_that_stays_away_ends_all(tmp_path: Path) -> None:
    job = {"task": "characters", "run": "late", "processes": 2, "overrides": {**LONG, **PIPELINE}}
    statuses, said = run_jobs(tmp_path, [{**job, "stop": 7, "limit": 5}], timeout=200)
    assert statuses[0][0] == 1 and "did not answer in time" in said
