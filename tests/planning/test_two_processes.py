"""What is planned for one of two processes, against two that train together."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from rss_of_step import gpt
from test_pieces import planned_flops

from glassformer.planning.layouts import Layout, Schedule
from glassformer.planning.memory import memory
from glassformer.planning.work import Work

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]
DATA, SHARD = Layout(data=2), Layout(shard=2)


def found_by_two(what: str, layout: Layout, *numbers: int) -> list[int]:
    """What both processes of step_of_two.py print."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    script = [sys.executable, str(Path(__file__).with_name("step_of_two.py")), what]
    command = [*script, "data" if layout == DATA else "shard", *map(str, numbers)]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    place["MALLOC_MMAP_THRESHOLD_"] = "65536"  # see test_pieces.py
    both = []
    for rank in ("0", "1"):
        environment = {**os.environ, **place, "RANK": rank, "LOCAL_RANK": rank}
        both.append(subprocess.Popen(command, stdout=subprocess.PIPE, env=environment))
    return [int(process.communicate(timeout=500)[0]) for process in both]


@pytest.mark.parametrize(
    "layout, layers, width, vocabulary, rows, length, micro_batches",
    [(DATA, 8, 768, 16000, 4, 256, 1), (SHARD, 8, 512, 8000, 8, 512, 1), (SHARD, 8, 768, 16000, 6, 256, 2)],
    ids=["data", "shard", "shard, two micro-batches"],
)
def test_memory_is_what_real_processes_grow_by(
    layout: Layout, layers: int, width: int, vocabulary: int, rows: int, length: int, micro_batches: int
) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the growth of a process is read from /proc, which is Linux")
    config = gpt(layers, width, vocabulary, length)
    needs = memory(Work(config, length, "fp32"), layout, Schedule(rows, micro_batches, False))
    for grown in found_by_two("memory", layout, layers, width, vocabulary, rows, length, micro_batches):
        assert grown > 1e9
        assert needs.total == pytest.approx(grown, rel=0.1)


@pytest.mark.parametrize("layout", [DATA, SHARD], ids=str)
def test_flops_of_each_are_half_of_those_of_one(layout: Layout) -> None:
    config = gpt(3, 128, 500, 64)  # rows so short that torch counts all of attention
    one, half = planned_flops(config, 4, 64), planned_flops(config, 2, 64)
    assert 2 * half == one
    assert found_by_two("flops", layout, 3, 128, 500, 2, 64, 1) == [half, half]
