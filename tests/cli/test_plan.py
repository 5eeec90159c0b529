"""`glassformer plan`: the table, the record, and one line for what cannot be."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from processes import run_inside

COMMON = ("gpt3-small", "--gpus", 2, "--batch-tokens", "8192", "--length", 256, "--rows", 4)


def test_a_table_and_a_record_say_the_same() -> None:
    done = run_inside("plan", *COMMON, "--parallel.data", 2, "--price", 2)
    assert (done.code, done.err) == (0, "")
    assert "layout                    data 2" in done.out
    record = json.loads(run_inside("plan", *COMMON, "--parallel.data", 2, "--price", 2, "--json").out)
    assert record["layout"] == {"data": 2, "shard": 1, "tensor": 1, "pipeline": 1, "context": 1}
    assert record["batch_tokens"] == 8192
    assert record["memory"]["optimizer"] == 2 * record["memory"]["parameters"] == 8 * 125_226_240
    assert record["cost"] == pytest.approx(2 * record["device_hours"])
    [gradients] = record["communication"]
    assert (gradients["kind"], gradients["bytes"]) == ("all-reduce", 4 * 125_226_240)
    assert f"{record['time']['step']:.3f} s" in done.out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("gpt3-175c", "--gpus", 8, "--batch-tokens", "1M"), "Did you mean 'gpt3-175b'"),
        (("gpt3-small", "--gpus", 8, "--batch-tokens", "many"), "--batch-tokens must be a positive number"),
        (("gpt3-small", "--gpus", 8, "--batch-tokens", "1M", "--memory", "0GB"), "--memory must be a positive number"),
        (("gpt3-small", "--gpus", 8, "--batch-tokens", "1M", "--parallel.tensor", 3), "--gpus is 8"),
        (("gpt3-small", "--gpus", 8, "--batch-tokens", "1M", "--machine", "a10"), "Did you mean 'a100'"),
        ((*COMMON, "--memory", "5.5GB"), "devices would do"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: tuple[object, ...], message: str) -> None:
    done = run_inside("plan", *arguments)
    assert done.code == 2 and done.out == ""
    assert message in done.err and done.err.count("\n") == 1


@pytest.mark.slow
def test_the_largest_is_planned_within_a_laptop() -> None:
    """At most 8 GB. How long it takes depends on the machine."""
    command = ["plan", "gpt3-175b", "--gpus", "1024", "--memory", "80GB", "--batch-tokens", "3.2M", "--json"]
    process = subprocess.Popen([sys.executable, "-m", "glassformer", *command], stdout=subprocess.PIPE)
    assert process.stdout is not None
    record = json.loads(process.stdout.read())
    _, status, used = os.wait4(process.pid, 0)  # of this process alone
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0 and used.ru_maxrss * 1024 < 8e9
    layout = record["layout"]
    assert layout["data"] * layout["shard"] * layout["tensor"] * layout["pipeline"] * layout["context"] == 1024
    assert record["memory"]["total"] < 76e9
    assert record["batch_tokens"] == pytest.approx(3.2e6, rel=0.05)
    assert record["flops"] == pytest.approx(3.14e23, rel=0.03)
