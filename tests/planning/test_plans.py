"""Layouts, traffic and time in closed form, and what cannot be planned."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import prod

import pytest
from rss_of_step import gpt

import glassformer as gf
from glassformer.errors import InputError
from glassformer.models.config import Dense
from glassformer.models.counting import count
from glassformer.planning.communication import sent, traffic
from glassformer.planning.layouts import Layout, Schedule, fixed_degrees, legal_layouts, schedules
from glassformer.planning.machines import MACHINES, Machine, link, machine
from glassformer.planning.memory import memory, stage_memory
from glassformer.planning.plans import Wish, plan
from glassformer.planning.roofline import step_time
from glassformer.planning.work import Stage, Work, stages

SMALL = replace(gpt(layers=4, width=128, vocabulary=500, length=64), attention=Dense())
H100 = MACHINES["h100"]
FREE: dict[str, int | None] = {}


@pytest.fixture(scope="module")
def work() -> Work:
    return Work(SMALL, 64, "fp32")


def wish(gpus: int = 4, batch_tokens: float = 16 * 64, **changes: object) -> Wish:
    return replace(Wish(gpus, batch_tokens, 64, 1e6, "fp32", FREE), **changes)


def test_layouts_are_all_factorings_that_divide() -> None:
    """Of 2 heads of 64, 4 layers and 64 positions; pipeline and context do not go together."""
    found = set(legal_layouts(SMALL, 64, 8, {}, 8))
    degrees = [d for d in product([1, 2, 4, 8], repeat=5) if prod(d) == 8]
    legal = [Layout(*d) for d in degrees if d[2] <= 2 and d[3] <= 4 and 1 in d[3:]]
    assert found == set(legal)


def test_tensor_groups_stay_within_a_node() -> None:
    assert max(layout.tensor for layout in legal_layouts(gf.sizes["gpt3-175b"], 2048, 64, {}, 8)) == 8
    assert Layout(shard=2, tensor=8).inside("tensor", 8) and not Layout(shard=2, tensor=8).inside("shard", 8)
    assert Layout(shard=2, tensor=4).inside("shard", 8)


def test_batches_are_rounded_to_whole_rows_for_each_replica() -> None:
    found = schedules(Layout(shard=4), 50.0, checkpointing=False)
    assert found == [Schedule(1, 12, False), Schedule(2, 6, False), Schedule(4, 3, False)]
    assert schedules(Layout(shard=16), 24.0, None) == []  # 16 or 32 rows are too far off


def test_one_device_holds_sixteen_bytes_a_parameter(work: Work) -> None:
    needs, total = memory(work, Layout(), Schedule(2, 2, False)), count(SMALL).total
    assert (needs.parameters, needs.gradients, needs.optimizer, needs.copies) == (4 * total, 4 * total, 8 * total, 0)
    assert needs.total == 16 * total + needs.activations


def test_shards_share_what_is_trained(work: Work) -> None:
    needs, total = memory(work, Layout(shard=4), Schedule(1, 1, False)), count(SMALL).total
    assert needs.optimizer == pytest.approx(8 * total / 4, abs=8)
    block = 12 * 128**2 + 13 * 128
    ends = total - 4 * block
    assert needs.copies == 4 * (2 * block + ends) + 4 * max(block, ends)


def test_a_stage_gathers_its_shards_once(work: Work) -> None:
    """Its weights and gradients are then whole there, however many micro-batches it has, and are sent once."""
    schedule = Schedule(1, 8, False)
    inner, piped = Layout(shard=2), Layout(shard=2, pipeline=2)
    stage = stages(SMALL, piped)[0]
    numbers = work.parameters(stage, piped, schedule)
    assert stage_memory(work, stage, piped, schedule).gradients == 4 * numbers
    assert stage_memory(work, stage, piped, schedule).copies > 4 * numbers

    def gathered(layout: Layout, stage: Stage) -> int:
        found = traffic(work, stage, layout, schedule, H100)
        return sum(one.bytes for one in found if (one.axis, one.kind) == ("shard", "all-gather"))

    assert gathered(piped, stage) == 4 * numbers
    assert gathered(inner, stages(SMALL, inner)[0]) > 8 * 4 * work.parameters(stages(SMALL, inner)[0], inner, schedule)


def test_checkpointing_keeps_what_blocks_read(work: Work) -> None:
    plain, again = (memory(work, Layout(), Schedule(8, 2, kept)) for kept in (False, True))
    block = work.block(Layout(), Schedule(8, 2, False))
    saved = 4 * block.kept - 4 * (8 * 64 * 128 * 4)
    assert saved - block.kept <= plain.activations - again.activations < saved


def test_the_first_stage_keeps_a_micro_batch_for_each_stage(work: Work) -> None:
    layout = Layout(pipeline=4)
    few, many = (memory(work, layout, Schedule(8, n, False)) for n in (1, 8))
    assert few.activations < many.activations == memory(work, layout, Schedule(8, 4, False)).activations


def test_rings_send_what_is_known() -> None:
    assert sent("all-reduce", 100.0, 4) == 150.0
    assert sent("all-gather", 100.0, 4) == sent("reduce-scatter", 100.0, 4) == 75.0
    assert sent("send", 100.0, 4) == 100.0


def test_traffic_of_every_axis(work: Work) -> None:
    """8 rows a step for each replica in micro-batches of 2; 12 D² + 13 D numbers a block, 4 blocks."""
    schedule, block, total = Schedule(2, 4, False), 12 * 128**2 + 13 * 128, count(SMALL).total
    stream = 4 * 2 * 64 * 128

    def parts(layout: Layout, number: int = 0) -> dict[tuple[str, str], tuple[int, int]]:
        stage = stages(SMALL, layout)[number]
        found: dict[tuple[str, str], tuple[int, int]] = {}
        for one in traffic(work, stage, layout, schedule, H100):
            before = found.get((one.axis, one.kind), (0, 0))
            found[one.axis, one.kind] = (before[0] + one.count, before[1] + one.bytes)
        return found

    assert parts(Layout()) == {}
    assert parts(Layout(data=2)) == {("gradients", "all-reduce"): (1, 4 * total)}
    ends = total - 4 * block
    assert parts(Layout(shard=2)) == {
        ("shard", "all-gather"): (4 * (2 * 4 + 1), 4 * 4 * (2 * 4 * block + ends)),
        ("shard", "reduce-scatter"): (4 * (4 + 1), 4 * 4 * total),
    }
    assert parts(Layout(tensor=2)) == {("tensor", "all-reduce"): (4 * 4 * 6, 4 * 4 * 6 * stream)}
    tied = {("tied", "all-reduce"): (1, 4 * 500 * 128)}
    assert parts(Layout(pipeline=4)) == {("pipeline", "send"): (4, 4 * stream)} | tied
    assert parts(Layout(pipeline=4), 1) == {("pipeline", "send"): (8, 8 * stream)}
    keys = parts(Layout(context=2))
    assert keys["context", "all-gather"] == (2 * 4 * 4, 2 * 4 * 4 * 2 * stream)


def test_time_is_that_of_the_narrowest_limit(work: Work) -> None:
    schedule = Schedule(2, 4, False)
    flops = count(SMALL).flops(64)["token"].training * 64 * 2 * 4
    slow = Machine("slow", 1e12, 0.0, {"fp32": 1e9}, 1e18, 8, 1e18, 1e18, ())
    time = step_time(work, Layout(), schedule, slow)
    assert (time.products, time.computing) == pytest.approx((flops / 1e9,) * 2)
    assert time.limit == "products"
    narrow = replace(slow, flops={"fp32": 1e18}, bandwidth=1e9)
    time = step_time(work, Layout(), schedule, narrow)
    assert time.moving == pytest.approx(time.computing, rel=1e-6) and time.limit == "memory"
    far = replace(slow, flops={"fp32": 1e18}, node=1, between=1e3)
    time = step_time(work, Layout(tensor=2), schedule, far)
    assert time.step == pytest.approx(4 * 4 * 6 * 4 * 2 * 64 * 128 / 1e3, rel=1e-3) and time.limit == "communication"


def test_a_pipeline_waits_for_its_first_and_last(work: Work) -> None:
    time = step_time(work, Layout(pipeline=4), Schedule(2, 6, False), replace(H100, inside=1e18))
    assert time.bubble == pytest.approx(3 / 6 * time.computing)


@pytest.mark.slow
def test_the_quickest_that_fits_is_chosen() -> None:
    found = plan(SMALL, wish(), H100)
    assert found.chosen.layout.world == 4
    assert found.fitting == found.tried > 10
    assert all(found.chosen.speed(64) * 1.01 >= other.speed(64) for other in found.others)
    assert found.steps == round(1e6 / (16 * 64))


@pytest.mark.slow
def test_a_network_within_a_node_is_not_the_one_between() -> None:
    near, far = (plan(SMALL, wish(), replace(H100, node=node, between=1e8)) for node in (8, 1))
    assert near.chosen.time.step < far.chosen.time.step


def test_too_little_memory_says_what_fits() -> None:
    little = replace(H100, memory=9e6, reserve=0.0)
    with pytest.raises(InputError, match=r"0.0 GB a device .* the least is 0.0 GB .* (\d+) devices would do"):
        plan(SMALL, wish(gpus=1), little)
    with pytest.raises(InputError, match="no number of them"):
        plan(SMALL, wish(gpus=1), replace(little, memory=1e3))


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(InputError, match=r"tensor 4 = 4, --gpus is 6.*--gpus 4"):
        fixed_degrees({"tensor": 4}, 6)
    with pytest.raises(InputError, match="at least 1"):
        fixed_degrees({"tensor": 0}, 6)
    with pytest.raises(InputError, match="tensor 4 does not divide the 2 heads"):
        plan(SMALL, wish(degrees={"tensor": 4}), H100)
    with pytest.raises(InputError, match="pipeline 8 does not divide the 4 layers"):
        plan(SMALL, wish(gpus=8, degrees={"pipeline": 8}), H100)
    with pytest.raises(InputError, match="cannot be dealt to 4 or more replicas"):
        plan(SMALL, wish(batch_tokens=6 * 64, degrees={"data": 4}), H100)
    with pytest.raises(InputError, match="only decoders"):
        plan(gf.sizes["bert-base"], wish(), H100)
    with pytest.raises(InputError, match="one row"):
        plan(SMALL, wish(batch_tokens=10), H100)
    with pytest.raises(InputError, match="64 positions"):
        plan(SMALL, wish(length=65), H100)


def test_machines_and_networks_are_named() -> None:
    assert machine("h100", 40e9, "100Gb/s") == replace(H100, memory=40e9, between=12.5e9)
    assert link("ethernet-10g") == link("1.25GB/s") == 1.25e9
    with pytest.raises(InputError, match="Did you mean 'h100'"):
        machine("h10")
    with pytest.raises(InputError, match="Did you mean 'infiniband-ndr'"):
        link("infiniband-nrd")
    with pytest.raises(InputError, match="more than the 4 GB"):
        machine("a100", 1e9)


def test_this_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"processor": "mine", "threads": 1, "fp32_gflops": 100.0, "bf16_gflops": 50.0, "read_gb_per_s": 20.0}
    monkeypatch.setattr("glassformer.training.machine.known_limits", lambda threads: limits)
    found = machine("cpu")
    assert found.flops == {"fp32": 100e9, "bf16": 50e9} and found.bandwidth == 20e9 and found.memory > 1e9
